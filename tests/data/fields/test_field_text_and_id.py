import math

import numpy as np
import pytest
import torch
from field_records import TOKENIZER, columns_of, draws, found_bad, value_of

from fastclip.data.fields import CAPTION, ID, TEXT
from fastclip.data.fields.reading import Reading


def test_a_long_text_has_columns_of_its_own():
    article = "A dog.\n\n" + "The cat went left. " * 500
    reading = Reading((CAPTION, TEXT), tokenizer=TOKENIZER)
    columns = columns_of(
        [{"caption": "a left dog", "text": article.encode()}], reading, draws(hflip=1.0)
    )
    assert columns["long_text"] == [article.strip()]
    assert torch.equal(columns["long_text_ids"], TOKENIZER([article]))
    assert torch.equal(columns["text"], TOKENIZER(["a right dog"]))
    assert set(columns_of([{"text": "a"}], Reading((TEXT,)))) == {"key", "long_text"}


@pytest.mark.parametrize(
    "raw, reason",
    [
        (b"\xff", "text is not UTF-8"),
        (b"&nbsp;\n", "text is empty"),
        (7, "text is not a string"),
        (None, "no text"),
        (math.nan, "no text"),
    ],
)
def test_bad_long_texts(raw, reason):
    assert found_bad(TEXT, {"text": raw}).reason == reason


@pytest.mark.parametrize("number", [0, -5, 391895, 2**63 - 1, np.int32(7)])
def test_a_number_is_its_own_id(number):
    assert value_of(ID, {"id": number}) == number


def test_names_have_stable_numbers_of_their_own():
    names = [
        *(f"picture {n}" for n in range(2000)),
        "7",
        "1F402",
        2**80,
        b"caf\xe9.jpg",
        "caf\udce9.jpg",
    ]
    numbers = [value_of(ID, {"id": name}) for name in names]
    assert len(set(numbers)) == len(names)
    assert all(0 <= number < 2**63 for number in numbers)
    assert value_of(ID, {"id": b"picture 0\n"}) == numbers[0] == 3349855746363203922


def test_records_of_one_picture_share_an_id_and_the_key_stands_for_one():
    raws = [{"id": 9}, {"id": 9}, {}, {"id": None}]
    ids = columns_of(raws, Reading((ID,)))["id"]
    assert ids.dtype == torch.int64
    assert ids[:2].tolist() == [9, 9]
    assert ids[2:].tolist() == [value_of(ID, {"id": "k2"}), value_of(ID, {"id": "k3"})]


@pytest.mark.parametrize(
    "raw, reason",
    [
        (True, "id is neither an integer nor a name"),
        (1.0, "id is neither an integer nor a name"),
        ([1], "id is neither an integer nor a name"),
        (" ", "id is empty"),
        (b"", "id is empty"),
    ],
)
def test_bad_ids(raw, reason):
    assert found_bad(ID, {"id": raw}).reason == reason
