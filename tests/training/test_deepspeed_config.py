"""DeepSpeed's dictionary: what is derived, and what a user's JSON may say over it."""

import json
from pathlib import Path

import pytest

from fastclip.errors import UserError
from fastclip.training import deepspeed_config
from fastclip.training.config import train_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_deepspeed_json_merges(stage):
    path = ROOT / f"configs/deepspeed/zero{stage}.json"
    merged = deepspeed_config.build(train_config(deepspeed_config=path), "bf16", 1)
    assert merged["zero_optimization"]["stage"] == stage
    assert ("data_types" in merged) == (stage > 0)


def test_micro_batches():
    size = deepspeed_config.micro_batch_size
    assert size(train_config(train_batch_size=32768), 2) == 512
    assert size(train_config(train_batch_size=1000), 1) == 500
    assert size(train_config(train_batch_size=96, train_micro_batch_size_per_gpu=12), 2) == 12
    with pytest.raises(UserError, match="is 33, expected a multiple of the 2 processes"):
        size(train_config(train_batch_size=33), 2)
    with pytest.raises(UserError, match="is 5, expected a divisor of 48"):
        size(train_config(train_batch_size=96, train_micro_batch_size_per_gpu=5), 2)


def test_the_derived_dictionary_and_the_users_over_it(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}, "train_batch_size": "auto"}))
    cfg = train_config(train_batch_size=64, train_micro_batch_size_per_gpu=8, deepspeed_config=path)
    merged = deepspeed_config.build(cfg, "bf16", 2)
    assert merged["zero_optimization"] == {"stage": 3}
    assert merged["gradient_accumulation_steps"] == 4
    assert merged["gradient_clipping"] == 0.0
    assert merged["bf16"] == {"enabled": True}
    assert "torch_autocast" not in merged


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"train_batch_size": 7}, "sets train_batch_size to 7, but this run has 256; set it by"),
        ({"optimizer": {"type": "Adam"}}, "set it by --opt, --lr"),
        ({"fp16": {"enabled": True}}, "but this run has null; set it by --precision"),
        ({"zero_optimisation": {}}, "has an unknown key 'zero_optimisation', close to zero_opt"),
        ({"gradient_clipping": 1.0}, "but this run has 0.0; set it by --grad-clip-norm"),
    ],
)
def test_a_contradicting_deepspeed_json_is_refused(tmp_path, user, expected):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(user))
    with pytest.raises(UserError) as caught:
        deepspeed_config.build(train_config(deepspeed_config=path), "fp32", 1)
    assert expected in str(caught.value)


def test_agreeing_keys_are_accepted(tmp_path):
    path = tmp_path / "ds.json"
    user = {"train_batch_size": 256, "fp16": {"enabled": False}, "flops_profiler": {}}
    path.write_text(json.dumps(user))
    merged = deepspeed_config.build(train_config(deepspeed_config=path), "fp32", 1)
    assert merged["train_batch_size"] == 256
    assert "fp16" not in merged
    assert merged["flops_profiler"] == {}


def test_zero_stage_auto_partitions_where_there_is_something_to(tmp_path):
    def stage(precision, world_size, **more):
        cfg = train_config(train_batch_size=8, **more)
        return deepspeed_config.build(cfg, precision, world_size)["zero_optimization"]["stage"]

    assert [stage("fp32", 1), stage("amp_bf16", 1), stage("bf16", 1), stage("fp32", 2)] == [
        0,
        0,
        1,
        1,
    ]
    assert stage("fp32", 1, zero_stage=2) == 2
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"overlap_comm": True}}))
    assert stage("fp32", 1, deepspeed_config=path) == 1
