import pytest
import torch

from fastclip.data.text.bpe import BpeTokenizer
from fastclip.data.text.cleaning import is_empty
from fastclip.data.text.words import WordTokenizer

NOTHING = [
    "",
    " \t\r\n",
    "\0",
    "\ufeff",
    "\u200b\u200c\u200d\u2060",
    "\u00ad",
    "\u200e\u200f",
    "\u2028\u2029\u3000\u00a0",
    "\u3164\u115f",
    "\u2800",
    "\ufe0f",
    "\x07\x1b[31m",
    "\ufffd",
    "&nbsp;",
    "&nbsp; &ensp;\n&#160;",
    "&amp;nbsp;",
    "&#8203;",
    "&ZeroWidthSpace;",
    "&shy;",
    "&#0;",
    "&#xFEFF;",
    "\u00c2\u00a0",
    "\u00e2\u20ac\u2039",
    ". , : ;",
    "_",
]
SOMETHING = [
    "a",
    "7",
    "nan",
    "None",
    "&lt;",
    "&amp;",
    "&",
    "a&nbsp;",
    "\u200bcat",
    "\ufeffcat",
    "!",
    "\u00e9",
    "\u732b",
    "\U0001f600",
    "\U0001f469\u200d\U0001f680",
    "\U0001fadf",
    "\u2764\ufe0f",
    "line\nline",
    "\x1b[31mred",
]


@pytest.mark.parametrize("text", NOTHING, ids=ascii)
def test_a_text_of_which_nothing_can_be_seen_is_empty(text):
    assert is_empty(text)


@pytest.mark.parametrize("text", SOMETHING, ids=ascii)
def test_no_tokenizer_takes_a_text_that_is_not_empty_for_nothing(text):
    assert not is_empty(text)
    for tokenizer in (BpeTokenizer([], 8), WordTokenizer()):
        tokens = tokenizer([text, ""])
        assert not torch.equal(tokens[0], tokens[1])
