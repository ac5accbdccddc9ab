"""Recipes and flags: what wins, what is refused and in which words."""

import json
from pathlib import Path

import pytest
import yaml

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig
from fastclip.errors import UserError
from fastclip.models.factory import check_preset, find_preset
from fastclip.train import main
from fastclip.training import deepspeed_config
from fastclip.training.config import TrainConfig, load_recipe, parse_args, to_plain

ROOT = Path(__file__).resolve().parents[2]


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path):
    path = recipe(tmp_path, "lr: 1e-4\nepochs: 3\nsiglip: true\ntrain-batch-size: 64\n")
    cfg = parse_args(["--config", str(path), "--epochs", "5", "--local_rank=0"])
    assert (cfg.lr, cfg.epochs, cfg.siglip, cfg.train_batch_size) == (1e-4, 5, True, 64)
    assert cfg.wd == TrainConfig().wd


def test_nested_flags_win_too(tmp_path):
    path = recipe(tmp_path, "augment: {hflip: 0.5, degrees: 10, scale: [0.5, 1]}\n")
    cfg = parse_args(["--config", str(path), "--augment.degrees", "20"])
    assert cfg.augment == AugmentConfig(hflip=0.5, degrees=20, scale=(0.5, 1.0))


def test_underscores_and_dashes_are_the_same():
    assert parse_args(["--train_batch_size", "64"]).train_batch_size == 64
    assert parse_args(["--train-batch-size=64"]).train_batch_size == 64


def test_a_written_configuration_reads_back(tmp_path):
    augment = AugmentConfig(scale=None, ratio=(0.5, 2.0), hflip=0.5)
    captions = CaptionConfig(tags=0.5)
    cfg = TrainConfig(lr=3e-4, name="x", siglip=True, augment=augment, captions=captions)
    path = recipe(tmp_path, yaml.safe_dump(to_plain(cfg)))
    assert TrainConfig(**load_recipe(path)) == cfg


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate: 1", "unknown key 'learning_rate'; accepted are augment"),
        ("lr: fast", "lr is 'fast', expected float"),
        ("siglip: 3", "siglip is '3', expected bool"),
        ("epochs: true", "epochs is True, expected int"),
        ("epochs: null", "epochs is empty, expected int"),
        ("augment: {hflop: 1}", "unknown key in augment: 'hflop', close to hflip"),
        ("augment: {hflip: 3}", "augment.hflip is 3.0, expected 0 to 1"),
        ("modle: ViT-B-32", "unknown key 'modle', close to model"),
        ("augment: 3", "augment is 3, expected a mapping"),
        ("augment: {hflip: much}", "augment.hflip is 'much', expected float"),
        ("zero_stage: 7", "zero_stage is '7', expected one of "),
        ("batch_size: 3", "--train-batch-size"),
        ("- a\n- b", "expected a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_sentence(tmp_path, text, expected):
    with pytest.raises(UserError) as caught:
        parse_args(["--config", str(recipe(tmp_path, text))])
    assert expected in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.yaml: No such file"):
        parse_args(["--config", str(tmp_path / "absent.yaml")])


@pytest.mark.parametrize("flag", ["--batch-size", "--batch_size", "--batch-size=4"])
def test_open_clips_batch_size_is_refused(flag):
    with pytest.raises(UserError, match="per device in open_clip"):
        parse_args([flag, "4"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--lrr", "1"], "unknown flag --lrr, close to --lr; --help lists all flags"),
        (["--train_batch", "1"], "unknown flag --train-batch, close to --train-batch-size"),
        (["--augment.hflop", "1"], "unknown flag --augment.hflop, close to --augment.hflip"),
        (["--gpu"], "unknown flag --gpu; --help lists all flags"),
        (["-x"], "unknown flag -x; --help lists all flags"),
        (["--no-lr"], "unknown flag --no-lr"),
        (["shards.tar"], "unexpected argument 'shards.tar': flags begin with --"),
        (["--lr", "fast"], "--lr is 'fast', expected float"),
        (["--lr", "1", "2"], "--lr is '1 2', expected float"),
        (["--seed", "1", "--lr"], "--lr has no value, expected float"),
        (["--max-steps", "many"], "--max-steps is 'many', expected int"),
        (["--ngrams", "3", "x"], "--ngrams is '3 x', expected one or more of int"),
        (["--augment.scale", "1"], "--augment.scale is '1', expected float float"),
        (["--precision", "tf32"], "--precision is 'tf32', expected one of auto, fp32, amp_bf16"),
        (["--augment.hflip", "3"], "--augment.hflip is 3.0, expected 0 to 1"),
        (["--captions.word-drop", "2"], "--captions.word_drop is 2.0, expected 0 to 1"),
        (["--captions.tags=2"], "--captions.tags is 2.0, expected 0 to 1"),
        (["--no-siglip", "1"], "--no-siglip takes no value, found '1'"),
    ],
)
def test_a_wrong_flag_is_named_in_one_sentence(flags, expected):
    with pytest.raises(UserError) as caught:
        parse_args(flags)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_help_lists_the_flags(capsys):
    with pytest.raises(SystemExit) as end:
        parse_args(["--help"])
    assert end.value.code == 0
    assert "--train-micro-batch-size-per-gpu" in capsys.readouterr().out


@pytest.mark.parametrize("local_rank", ["0", "1"])
def test_the_first_process_of_a_machine_tells(capsys, monkeypatch, local_rank):
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert main(["--lrr", "1"]) == 2
    told = "error: unknown flag --lrr, close to --lr; --help lists all flags\n"
    assert capsys.readouterr() == ("", told if local_rank == "0" else "")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--lr", "0"], "--lr is 0.0, expected more than 0"),
        (["--warmup", "-1"], "--warmup is -1, expected 0 or more"),
        (["--max-steps", "0"], "--max-steps is 0, expected 1 or more"),
        (["--seed", "-1"], "--seed is -1, expected 0 or more"),
        (["--lr", "inf"], "--lr is inf, expected a finite number"),
        (["--init-logit-scale", "0"], "--init-logit-scale is 0.0, expected 1 to 100"),
        (["--context-length", "0"], "--context-length is 0, expected 1 or more"),
        (["--dataset-type", "csv"], "--dataset-type csv needs --train-data"),
        (["--beta2", "1"], "--beta2 is 1.0, expected 0 <= value < 1"),
    ],
)
def test_values_out_of_range(flags, expected):
    with pytest.raises(UserError) as caught:
        parse_args(flags)
    assert str(caught.value) == expected


@pytest.mark.parametrize("path", sorted((ROOT / "configs/recipes").glob("*.yaml")), ids=str)
def test_every_recipe_loads_and_names_a_model(path):
    cfg = parse_args(["--config", str(path)])
    check_preset(find_preset(cfg.model))
    assert deepspeed_config.build(cfg, "fp32", 1)["train_batch_size"] == cfg.train_batch_size


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_deepspeed_json_merges(stage):
    path = ROOT / f"configs/deepspeed/zero{stage}.json"
    merged = deepspeed_config.build(TrainConfig(deepspeed_config=path), "bf16", 1)
    assert merged["zero_optimization"]["stage"] == stage
    assert ("data_types" in merged) == (stage > 0)


def test_micro_batches():
    size = deepspeed_config.micro_batch_size
    assert size(TrainConfig(train_batch_size=32768), 2) == 512
    assert size(TrainConfig(train_batch_size=1000), 1) == 500
    assert size(TrainConfig(train_batch_size=96, train_micro_batch_size_per_gpu=12), 2) == 12
    with pytest.raises(UserError, match="is 33, expected a multiple of the 2 processes"):
        size(TrainConfig(train_batch_size=33), 2)
    with pytest.raises(UserError, match="is 5, expected a divisor of 48"):
        size(TrainConfig(train_batch_size=96, train_micro_batch_size_per_gpu=5), 2)


def test_the_derived_dictionary_and_the_users_over_it(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"zero_optimization": {"stage": 3}, "train_batch_size": "auto"}))
    cfg = TrainConfig(train_batch_size=64, train_micro_batch_size_per_gpu=8, deepspeed_config=path)
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
        ({"optimizer": {"type": "Adam"}}, "set it by --lr"),
        ({"fp16": {"enabled": True}}, "but this run has null; set it by --precision"),
        ({"zero_optimisation": {}}, "has an unknown key 'zero_optimisation', close to zero_opt"),
        ({"gradient_clipping": 1.0}, "but this run has 0.0; set it by --grad-clip-norm"),
    ],
)
def test_a_contradicting_deepspeed_json_is_refused(tmp_path, user, expected):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(user))
    with pytest.raises(UserError) as caught:
        deepspeed_config.build(TrainConfig(deepspeed_config=path), "fp32", 1)
    assert expected in str(caught.value)


def test_agreeing_keys_are_accepted(tmp_path):
    path = tmp_path / "ds.json"
    user = {"train_batch_size": 256, "fp16": {"enabled": False}, "flops_profiler": {}}
    path.write_text(json.dumps(user))
    merged = deepspeed_config.build(TrainConfig(deepspeed_config=path), "fp32", 1)
    assert merged["train_batch_size"] == 256
    assert "fp16" not in merged
    assert merged["flops_profiler"] == {}


def test_zero_stage_auto_partitions_where_there_is_something_to(tmp_path):
    def stage(precision, world_size, **more):
        cfg = TrainConfig(train_batch_size=8, **more)
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
