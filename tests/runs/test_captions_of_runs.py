"""Captions and masked words as functions of a loaded run."""

import copy

import numpy as np
import pytest
import torch
from captioning_runs import WORDS, filling, greys, reciting, trained, write_pictures
from PIL import Image
from small import SIDE, tokenizer

from fastclip.data.transforms import eval_transform
from fastclip.errors import UserError
from fastclip.models.beams import beam_search
from fastclip.objectives import find_objective

SENTENCE = "a [MASK] ring"


@pytest.mark.parametrize("name", ["captioning", "coca"])
def test_captions_are_those_of_beam_search(tmp_path, name):
    run, paths = trained(name), write_pictures(tmp_path, 3)
    pictures = torch.stack([eval_transform(path, SIDE) for path in paths])
    grid = run.model.encode_grid(pictures).detach()
    tokens, _ = beam_search(
        lambda tokens, rows: run.model.next_token_logits(grid[rows], tokens).log_softmax(-1),
        rows=3,
        start_id=tokenizer().sot_id,
        end_id=tokenizer().eot_id,
        max_length=tokenizer().context_length,
        beams=4,
        **getattr(run.model, "beam_options", {}),
    )
    expected = [tokenizer().decode(row) for row in tokens.tolist()]
    assert run.caption(paths, beams=4) == expected
    assert run.caption(pictures, beams=4, batch=2) == expected


def test_each_picture_has_its_own_caption(tmp_path):
    captions = [f"{number} red ring" for number in ("one", "two", "blue", "green", "star")]
    run, paths = reciting(captions), greys(tmp_path, 5)
    for batch in (1, 2, 5, 32):
        assert run.caption(paths, batch=batch) == captions
        assert run.caption(paths[::-1], batch=batch) == captions[::-1]


def test_every_kind_of_picture_is_the_same(tmp_path):
    run = trained()
    [path] = write_pictures(tmp_path, 1)
    with Image.open(path) as image:
        image.load()
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        kinds = [path, str(path), path.read_bytes(), image, pixels]
        [expected] = run.caption([path])
        assert run.caption(kinds) == [expected] * len(kinds)
        for one in (*kinds, pixels[None]):
            assert run.caption(one) == [expected]
    assert run.caption([]) == []


def test_nucleus_sampling_follows_its_seed(tmp_path):
    run, paths = trained(), write_pictures(tmp_path, 4)
    drawn = run.caption(paths, top_p=0.9, seed=3)
    assert run.caption(paths, top_p=0.9, seed=3) == drawn
    assert run.caption(paths, top_p=0.9, seed=4) != drawn
    # So little of the probability that the likeliest token alone is left.
    assert run.caption(paths, top_p=1e-6) == run.caption(paths, beams=1)


def test_what_cannot_be_captioned_is_one_sentence(tmp_path):
    run = trained()
    (tmp_path / "no.png").write_text("no")
    for pictures, told in (
        (tmp_path / "no.png", r"picture .*no\.png: picture is "),
        (torch.zeros(3, 4, 4), r"picture number 0: pixels are not uint8 .*float32 \[3, 4, 4\]"),
        ([torch.zeros(1, 4, 4, dtype=torch.uint8)], r"number 0: pixels are not uint8"),
        ([3], "picture number 0: is no picture"),
        (3, "pictures is 3, expected a path, bytes, an image of Pillow's or pixels uint8"),
        (None, "pictures is None, expected a path"),
        (Image.new("RGB", (0, 4)), "picture is empty"),
    ):
        with pytest.raises(UserError, match=told):
            run.caption(pictures)
    for flags, told in (
        ({"beams": 0}, "^beams is 0, expected 1 to 256"),
        ({"beams": 2.5}, "^beams is 2.5, expected"),
        ({"beams": "5"}, "^beams is '5', expected"),
        ({"beams": True}, "^beams is True, expected"),
        ({"top_p": 0.0}, "^top_p is 0.0, expected 0 < value <= 1"),
        ({"top_p": 1.5}, "^top_p is 1.5"),
        ({"top_p": "0.9"}, "^top_p is '0.9'"),
        ({"top_p": 0.9, "beams": 3}, "^beams and top_p cannot go together"),
        ({"seed": 7}, "^seed does nothing without top_p"),
        ({"top_p": 0.9, "seed": 2**64}, "^seed is 18446744073709551616, expected 0 to"),
        ({"batch": 0}, "^batch is 0, expected 1 or more"),
        ({"batch": 1.5}, "^batch is 1.5"),
    ):
        with pytest.raises(UserError, match=told):
            run.caption([], **flags)
    told = "a run of objective clip writes no captions, expected one of .*captioning, .*coca"
    with pytest.raises(UserError, match=told):
        trained("clip").caption([])
    broken = trained()
    with torch.no_grad():
        broken.model.head.bias.fill_(torch.nan)
    with pytest.raises(UserError, match="the run's model gives NaN"):
        broken.caption(torch.zeros(3, SIDE, SIDE, dtype=torch.uint8))


def test_the_words_of_a_mask_come_with_their_probabilities(tmp_path):
    run, [path] = filling(), write_pictures(tmp_path, 1)
    found = run.fill(path, SENTENCE, top=3)
    assert [word for word, _ in found.words] == list(WORDS[:3])
    expected = torch.tensor([6.0, 4, 4, 3, 2, 1]).softmax(0)[:3]
    assert [share for _, share in found.words] == pytest.approx(expected.tolist())
    assert found.attention.sum() == 1
    assert len(run.fill(path, SENTENCE, top=99).words) == len(WORDS)
    assert copy.deepcopy(run).fill(path, SENTENCE).words[:3] == found.words


def test_a_sentence_has_one_mask(tmp_path):
    run, [path] = filling(), write_pictures(tmp_path, 1)
    for sentence, times in (("a ring", 0), ("[MASK] [MASK]", 2), ("a [mask]", 0)):
        with pytest.raises(UserError, match=rf"holds \[MASK\] {times} times, expected once"):
            run.fill(path, sentence)


def test_a_run_that_foresees_none_says_which_do(monkeypatch):
    monkeypatch.setattr(find_objective("coca"), "fills_masks", True)
    told = "a run of objective captioning foresees no masked words, expected one of .*coca"
    with pytest.raises(UserError, match=told):
        trained().fill("a.png", SENTENCE)
