"""Average precision of tags: scikit-learn's, of which tags, and on which splits."""

import pytest
import torch
from sklearn.metrics import average_precision_score
from small import ONE, SIDE, build, tokenizer

from fastclip.comm.division import Division
from fastclip.data.fields import CAPTIONS, LABELS, TAGS
from fastclip.data.fields.caption import CaptionsRead
from fastclip.data.splits import Split, SplitFacts
from fastclip.errors import UserError
from fastclip.evals import evaluations_of
from fastclip.evals.base import Subject
from fastclip.evals.runner import check_split, evaluate, left_out
from fastclip.evals.tags import TagPrecision, average_precision, average_precisions

SAID = [("a red star",), ("blue ring", "two rings"), ("nothing",), ("red heart",), ("blue",)]


def split(also: dict) -> Split:
    generator = torch.Generator().manual_seed(0)
    shape = len(SAID), 3, SIDE, SIDE
    return Split(
        list("abcde"),
        [texts[0] for texts in SAID],
        None,
        [{}] * 5,
        also=also,
        pictures=torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator),
        division=Division.of(len(SAID), ONE),
    )


def captioned() -> Split:
    return split({CAPTIONS: [CaptionsRead(texts, ()) for texts in SAID]})


def measure(model, of: Split):
    subject = Subject(model, tokenizer(), ONE, 2, lambda: torch.autocast("cpu", enabled=False))
    return evaluate(subject, {"val": lambda: of}, evaluations_of(model))["val"]


def test_known_rankings():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    said = torch.tensor([True, False, True, False])
    assert average_precision(scores, said) == pytest.approx((1 + 2 / 3) / 2)
    # Neither the 11 points (0.848) nor the envelope of the precision.
    assert average_precision(scores, said[[1, 0, 3, 2]]) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert average_precision(torch.ones(4), said) == 0.5  # ties: the share of positives
    assert average_precision(torch.full((4,), torch.nan), said) == 0.5
    spoilt = torch.tensor([torch.nan, 0.1, -torch.inf, 0.2])
    assert average_precision(spoilt, said) == average_precision(torch.tensor([0, 2, 0, 3.0]), said)
    assert average_precision(scores, said & False) == 0


def test_columns_are_scikit_learns():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(40, 7, generator=generator).round(decimals=1)  # some tie
    said = torch.rand(40, 7, generator=generator) < 0.3
    exact = average_precision_score(said.numpy(), scores.numpy(), average=None)
    assert average_precisions(scores, said) == pytest.approx(exact)
    assert len(average_precisions(scores[:, :0], said[:, :0])) == 0


def test_the_mean_is_over_tags_that_any_picture_has(tmp_path):
    model = build("tp_postag").model
    macro, micro = measure(model, captioned())
    # red, blue, two, ring, star, heart: not green and one
    said = torch.zeros(5, 8, dtype=torch.bool)
    for row, words in enumerate(([0, 6], [2, 4, 5], [], [0, 7], [2])):
        said[row, words] = True
    used = said.any(0)
    with torch.no_grad():
        scores = model.eval().tag_logits(captioned().pictures)[:, used]
    exact = average_precision_score(said[:, used].numpy(), scores.numpy(), average="macro")
    assert (macro.name, macro.candidates) == ("tag_precision", 6)
    assert macro.value == pytest.approx(exact)
    assert macro.chance == micro.chance == pytest.approx(8 / 30)
    exact = average_precision_score(said[:, used].numpy(), scores.numpy(), average="micro")
    assert (micro.name, micro.candidates) == ("tag_precision_micro", 6)
    assert micro.value == pytest.approx(exact)
    assert "scikit-learn's, un-interpolated" in macro.title
    subject = Subject(model, tokenizer(), ONE, 2, lambda: torch.autocast("cpu", enabled=False))
    result = TagPrecision(CAPTIONS).run(subject, captioned())
    for name, draw in result.pictures.items():
        draw(tmp_path / name)
    assert (tmp_path / "tags.png").stat().st_size > 1000


def test_a_split_without_any_of_the_tags_has_no_precision():
    model = build("tp_postag").model
    nothing = split({CAPTIONS: [CaptionsRead(("nothing",), ())] * 5})
    assert [figure.value for figure in measure(model, nothing)] == [0, 0]


def test_scores_of_a_softmax_are_probabilities():
    model = build("token_classification").model
    macro, _ = measure(model, captioned())
    assert macro.candidates == len({n for row in model.tags.numbers(SAID) for n in row})
    raw = model.tag_logits

    def shifted(image):  # by picture, which changes no softmax
        logits = raw(image)
        return logits + 100 * logits[:, :1].sign() * logits[:, 1:2]

    model.tag_logits = shifted
    assert measure(model, captioned())[0].value == pytest.approx(macro.value)


def test_each_model_is_asked_for_its_own_tags():
    for name in ("tp_postag", "tp_cluster", "token_classification"):
        [evaluation] = evaluations_of(build(name).model)
        assert (evaluation.field, evaluation.reads) == (CAPTIONS, (CAPTIONS,)), name
    assert not any(isinstance(e, TagPrecision) for e in evaluations_of(build("clip").model))


def test_a_split_without_tags_is_refused():
    facts = {
        TAGS: SplitFacts(["0", "1"], ["one", "two"], None, [{}] * 2, also={TAGS: [None, None]}),
        LABELS: SplitFacts(["0"], ["one"], None, [{}], also={LABELS: [None]}),
        CAPTIONS: SplitFacts(["0"], [""], None, [{}]),
    }
    for field, found in facts.items():
        evaluation = TagPrecision(field)
        with pytest.raises(UserError, match=f"on val, which has no {field.name}$"):
            check_split("val", [evaluation], found)
        [told] = left_out("val", [evaluation], found)
        start = f"average precision of tags from {field.name} is not measured on val, which has no "
        assert told == f"{start}{field.name}"
    some = SplitFacts(["0", "1"], ["one", "two"], None, [{}] * 2, also={TAGS: [("a",), None]})
    assert TagPrecision(TAGS).lacks(some) == "tags for 1 of its 2 records, the first 1"
    bare = SplitFacts(["0"], [""], None, [{}], also={TAGS: [()]})
    assert TagPrecision(TAGS).lacks(bare) is None


def test_clusters_of_a_splits_captions_are_found():
    model = build("tp_cluster").model
    macro, _ = measure(model, captioned())
    assert 1 <= macro.candidates <= 4
