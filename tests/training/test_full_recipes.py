"""The recipes of full size, with the objectives that there are."""

from pathlib import Path

import pytest

from fastclip.models.named_presets import check_preset, find_preset
from fastclip.training import deepspeed_config
from fastclip.training.config import parse_args

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs/recipes").glob("*.yaml")), ids=str)
def test_every_recipe_loads_and_names_a_model(path):
    cfg = parse_args(["--config", str(path)])
    check_preset(find_preset(cfg.model.model))
    assert deepspeed_config.build(cfg, "fp32", 1)["train_batch_size"] == cfg.run.train_batch_size
