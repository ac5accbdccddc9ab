"""The gallery's pictures and sentences, and what is written of them."""

import json

import torch

from benchmarks.recipes import gallery
from fastclip.data.generated.samples import GeneratedSpec
from fastclip.evals.attention_sheet import Shown
from fastclip.models.filler import MASK


def test_two_sentences_have_first_one_word_masked_and_then_another():
    found = [
        gallery.masked_sentences(scene, text) for scene, text, _ in gallery.chosen(GeneratedSpec())
    ]
    assert len(found) == 2
    for rows in found:
        (first, color), (second, background) = rows
        assert first.count(MASK) == second.count(MASK) == 1 and color != background
        assert first.replace(MASK, color) == second.replace(MASK, background)


def test_the_sheet_and_what_is_on_it_are_written(tmp_path):
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    shown = Shown(pixels, f"a {MASK} square", [("red", 0.75), ("blue", 0.25)], torch.ones(2, 2) / 4)
    gallery.write([(shown, "red")], tmp_path)
    assert (tmp_path / "gallery.png").read_bytes().startswith(b"\x89PNG")
    [row] = json.loads((tmp_path / "gallery.json").read_text())
    assert row["masked"] == "red" and row["words"] == {"red": 0.75, "blue": 0.25}
