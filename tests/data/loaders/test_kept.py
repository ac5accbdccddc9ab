"""Sets in memory: what is kept, when, and what is offered of them."""

import logging
from dataclasses import dataclass

import pytest
import torch
from numbered import DRAW, LABEL, NUMBER, TAGS, NumberedSource, make, run

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.base import SetLoader
from fastclip.data.loaders.chosen import SetIndex
from fastclip.data.loaders.kept import keep_all
from fastclip.data.loaders.memory_need import kept_nbytes, nbytes
from fastclip.errors import UserError

SIZES = [30, 0, 10]
BAD = {"0/3": "source", "0/4": "field", "2/9": "build"}


@dataclass(frozen=True, slots=True)
class Slotted:
    content: bytes
    side: int


def facts(part, number):
    return {"tags": [f"tag{number % 3}"], "label": number % 5}


def kept_of(source, fields=(NUMBER, DRAW), **options):
    options = {"threads": 1, "max_bad_share": 0.5, "progress": False, **options}
    return keep_all(source, Reading(fields), **options)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_rows_are_the_good_records_in_the_sources_order(threads):
    source = NumberedSource(SIZES, bad=BAD)
    kept = kept_of(source, threads=threads)
    expected = [f"{p}/{n}" for p, size in enumerate(SIZES) for n in range(size)]
    expected = [key for key in expected if key not in BAD]
    assert [one.key for one in kept.good] == expected
    assert kept.lengths.tolist() == SIZES
    assert not +source.open_parts
    batch = kept.records(torch.tensor([36, 0, 3]))
    assert batch["key"] == ["2/8", "0/0", "0/5"]
    assert batch["number"].tolist() == [2008, 0, 5]
    assert batch["drawn"].tolist() == batch["together"].tolist() == [0, 0, 0]


def test_the_loader_offers_the_set_as_it_lies():
    loader = make(NumberedSource(SIZES, bad=BAD), in_memory="always")
    assert isinstance(loader, SetLoader)
    assert loader.num_records == 37
    run(loader)
    assert loader.records(torch.tensor([1]))["key"] == ["0/1"]
    assert not isinstance(make(NumberedSource(SIZES)), SetLoader)


def test_bad_records_are_counted_with_the_problems_of_parts(caplog):
    problems = {1: [BadRecord("part-1", "ends early", lost=4)]}
    source = NumberedSource(SIZES, bad=BAD, problems=problems)
    with caplog.at_level(logging.WARNING):
        kept = kept_of(source)
    assert kept.book.expected == 44
    assert kept.book.counts == {
        "record is broken": 1,
        "number is unreadable": 1,
        "number is corrupt": 1,
        "ends early": 4,
    }
    assert len(caplog.records) == 4
    with pytest.raises(UserError, match="of 44 records are bad"):
        kept_of(source, max_bad_share=0.1)
    with pytest.raises(UserError, match="made-up holds no record"):
        kept_of(NumberedSource([0, 0]))
    with pytest.raises(UserError, match="made-up holds no record"):
        kept_of(NumberedSource([2], bad={"0/0": "build", "0/1": "field"}), max_bad_share=1.0)


def test_a_sampler_sees_tags_and_labels_of_the_good_records():
    source = NumberedSource(SIZES, bad=BAD, values=facts)
    index = SetIndex(kept_of(source, (NUMBER, TAGS, LABEL)))
    numbers = [int(one.key.split("/")[1]) for one in kept_of(source).good]
    assert len(index) == 37
    assert index.tags == [(f"tag{n % 3}",) for n in numbers]
    assert index.labels.dtype == torch.int64
    assert index.labels.tolist() == [n % 5 for n in numbers]
    index = SetIndex(kept_of(source))
    assert (index.labels, set(index.tags)) == (None, {()})


def test_a_label_that_some_records_lack_is_no_column_of_the_set():
    source = NumberedSource([4], values=lambda part, number: {"label": 1} if number else {})
    kept = keep_all(
        source,
        Reading((NUMBER,), (LABEL,)),
        threads=1,
        max_bad_share=0.5,
        progress=False,
    )
    assert SetIndex(kept).labels is None
    assert "label" not in kept.records(torch.arange(4))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"abc", 3),
        ("abcd", 4),
        (torch.zeros(3, dtype=torch.int64), 24),
        ((b"a", [torch.zeros(2, dtype=torch.uint8), {"x": "yz"}], 7, None), 5),
        (BadRecord("ab", "cde"), 5),
        (Slotted(b"abc", 4), 3),
        (type("Own", (), {"nbytes": 9})(), 9),
        (type("Own", (), {"nbytes": lambda self: 8})(), 8),
    ],
)
def test_bytes_of_values(value, expected):
    assert nbytes(value) == expected


def test_the_need_of_memory_is_reckoned_from_some_records(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    texts = {"text": "123456"}
    source = NumberedSource([100] * 50, values=lambda part, number: texts)
    assert kept_nbytes(source, torch.full((50,), 100).numpy(), Reading((DRAW,))) == 30_000
    assert not +source.open_parts
    for limit, kept in ((30_000, True), (29_999, False)):
        options = dict(fields=(DRAW,), in_memory="auto", memory_limit=limit)
        assert isinstance(make(source, **options), SetLoader) == kept
        for copies, fits in (("1", kept), ("2", False)):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", copies)
            assert isinstance(make(source, **options), SetLoader) == fits
        monkeypatch.delenv("LOCAL_WORLD_SIZE")
        assert not isinstance(make(source, world_size=2, **options), SetLoader)


@pytest.mark.parametrize("bad", [{}, {f"0/{n}": "build" for n in range(20)}])
def test_what_is_believed_and_what_is_bad_do_not_mislead_the_reckoning(bad):
    source = NumberedSource([20, 4], believed={0: 0, 1: 9}, bad=bad)
    loader = make(source, in_memory="auto", batch=1, memory_limit=1 << 20)
    assert isinstance(loader, SetLoader)
