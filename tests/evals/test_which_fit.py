"""Which evaluations each objective's model is asked."""

import pytest
from small import OBJECTIVES, build

from fastclip.evals import evaluations_of

PAIRS = {"zero-shot", "retrieval"}
WRITTEN = {"exact captions", "perplexity", "BLEU-4", "CIDEr-D"}
TAGS = "average precision of tags from {}"
ASKED = {
    **dict.fromkeys(("clip", "siglip", "distill"), PAIRS),
    **dict.fromkeys(("captioning", "bicaptioning"), WRITTEN),
    "coca": PAIRS | WRITTEN,
    **dict.fromkeys(("masked_lm", "icmlm_tfm", "icmlm_attfc"), {"masked words"}),
    **dict.fromkeys(("tp_postag", "tp_cluster", "token_classification"), {TAGS.format("captions")}),
    **dict.fromkeys(("tp_label", "multilabel_classification"), {TAGS.format("labels")}),
}


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "labels"])
def test_a_model_is_asked_what_it_can_answer(name):
    assert {evaluation.name for evaluation in evaluations_of(build(name).model)} == ASKED[name]
