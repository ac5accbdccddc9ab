"""Objectives' own flags: values that no run can use, and what a resumed run must share."""

import pytest
from small import FLAGS, ONE, build, tokenizer

from fastclip.errors import UserError
from fastclip.models.options import ModelConfig
from fastclip.objectives import find_objective
from fastclip.objectives.base import Parts


@pytest.mark.parametrize(
    ("name", "flags", "told"),
    [
        ("captioning", {"backbone_lr": float("inf")}, "--backbone-lr is inf, expected a finite"),
        ("captioning", {"decoder_dropout": 1.0}, "--decoder-dropout is 1.0, expected 0 <= value"),
        ("coca", {"decoder_heads": 0}, "--decoder-heads is 0, expected 1 or more"),
        ("captioning", {"decoder_layers": 10**9}, "--decoder-layers is 1000000000, expected 1 to"),
        (
            "coca",
            {"coca_caption_loss_weight": 0.0, "coca_contrastive_loss_weight": 0.0},
            "--coca-caption-loss-weight and --coca-contrastive-loss-weight are both 0",
        ),
        ("distill", {"feature_weight": float("nan")}, "--feature-weight is nan, expected 0 or"),
    ],
)
def test_values_that_no_run_can_use_are_refused(name, flags, told):
    with pytest.raises(UserError) as caught:
        find_objective(name).Options(**flags)
    assert str(caught.value).startswith(told)


def test_a_rate_for_a_frozen_tower_is_refused():
    cls = find_objective("captioning")
    options = cls.Options(backbone_lr=0.1, **FLAGS["captioning"])
    config = ModelConfig(model="tiny-convnet", image_size=16, lock_image=True)
    with pytest.raises(UserError, match="^--backbone-lr does nothing with --lock-image, which"):
        cls(options, Parts(config, tokenizer(), ONE, 1 << 20))
    config.lock_image_unlocked_groups = 1
    tower, _ = cls(options, Parts(config, tokenizer(), ONE, 1 << 20)).groups()
    assert tower.lr == 0.1
    assert any(parameter.requires_grad for parameter in tower.parameters.values())


def test_a_run_with_another_teacher_is_another():
    one, same, other = (build("distill") for _ in range(3))
    next(other.frozen.parameters()).data.view(-1)[0] += 1
    assert one.identity() == same.identity()
    assert one.identity() != other.identity()
