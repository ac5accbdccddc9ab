"""What is printed and stored of every split, and which splits are refused."""

import pytest
import torch
from small import ONE, SIDE, build, tokenizer

from fastclip.comm.division import Division
from fastclip.data.splits import Split, SplitFacts
from fastclip.errors import UserError
from fastclip.evals import evaluations_of
from fastclip.evals.base import Figure, Subject
from fastclip.evals.drawing import Matches, matched_pictures
from fastclip.evals.runner import as_json, check_split, evaluate, left_out, plain, sentences


def split(captions, classes=("red", "blue"), labels=(0, 1)):
    count = len(captions)
    pictures = torch.arange(count)[:, None, None, None].expand(count, 3, SIDE, SIDE)
    return Split(
        [str(number) for number in range(count)],
        list(captions),
        torch.tensor(labels),
        [{}] * count,
        list(classes),
        pictures=pictures.to(torch.uint8),
        division=Division.of(count, ONE),
    )


def test_every_split_is_told_with_candidates_and_chance():
    model = build("clip").model
    subject = Subject(model, tokenizer(), ONE, 2, lambda: torch.autocast("cpu", enabled=False))
    splits = {"a": lambda: split(["one", "two"]), "b": lambda: split(["one"], "rgbcm", [4])}
    found = evaluate(subject, splits, evaluations_of(model))
    lines = sentences(found)
    assert len(lines) == sum(map(len, found.values())) == 14
    assert lines[-1].startswith("zero-shot accuracy on a: ")
    assert lines[-1].endswith(" (2 candidates, chance 50.0%)")
    [of_b] = [line for line in lines if line.startswith("zero-shot accuracy on b: ")]
    assert of_b.endswith(" (5 candidates, chance 20.0%)")
    [of_b] = [line for line in lines if line.startswith("caption-to-picture recall@5 on b")]
    assert of_b.endswith("100.0% (1 candidates, chance 100.0%)")
    stored = plain(found["b"], 1)
    assert (stored["zero_shot_candidates"], stored["recall_candidates"]) == (5, 1)
    assert '"zero_shot_candidates": 2' in as_json(found, {"a": 2, "b": 1})


def test_figures_that_are_no_shares_are_shown_as_they_are():
    assert (
        Figure("x", "perplexity", 7.5, False, 9, 9)
        .sentence("a")
        .startswith("perplexity on a: 7.5 ")
    )
    assert Figure("x", "depth", 0.25, False).sentence("a") == "depth on a: 0.25"


def test_a_split_on_which_nothing_can_be_measured_is_refused():
    asked = evaluations_of(build("coca").model)
    bare = SplitFacts(["0"], [""], None, [{}])
    told = "nothing can be measured on val, which has no labels with class names and no captions"
    with pytest.raises(UserError, match=told):
        check_split("val", asked, bare)
    captioned = SplitFacts(["0"], ["one"], None, [{}])
    check_split("val", asked, captioned)
    told = "zero-shot is not measured on val, which has no labels with class names"
    assert left_out("val", asked, captioned) == [told]
    assert left_out("val", asked, split(["one", "two"])) == []
    check_split("val", (), bare)


def test_a_split_of_which_some_records_lack_what_is_asked_is_told_how_many():
    asked = evaluations_of(build("clip").model)
    partly = SplitFacts(["k", "l", "m"], ["one", "", ""], None, [{}] * 3, unlabelled=["l"])
    told = (
        "^nothing can be measured on val, which has no labels with class names for 1 of its 3 "
        "records, the first l and no captions for 2 of its 3 records, the first l$"
    )
    with pytest.raises(UserError, match=told):
        check_split("val", asked, partly)
    nameless = SplitFacts(["k"], [""], torch.tensor([0]), [{}], table="its columns are 'x'")
    told = "which has no class names for its labels and no captions; its columns are 'x'$"
    with pytest.raises(UserError, match=told):
        check_split("val", asked, nameless)


def test_captions_with_dollar_signs_are_drawn(tmp_path):
    names = ["from $a_$ to $5", r"$\frac$"]
    features = torch.eye(2)
    matches = Matches(features, features.flip(0), names, torch.arange(2))
    for name, draw in matched_pictures(split(names), matches).items():
        draw(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 2
