"""Recipes and flags: what wins, what is refused and in which words."""

from pathlib import Path

import pytest
import yaml

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig
from fastclip.errors import UserError
from fastclip.train import main
from fastclip.training import deepspeed_config
from fastclip.training.config import load_recipe, parse_args, to_plain, train_config

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("toy_registry")


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_flags_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path):
    path = recipe(tmp_path, "lr: 1e-4\nepochs: 3\nsiglip: true\ntrain-batch-size: 64\n")
    cfg = parse_args(["--config", str(path), "--epochs", "5", "--local_rank=0"])
    assert (cfg.optim.lr, cfg.run.epochs, cfg.run.train_batch_size) == (1e-4, 5, 64)
    assert (cfg.run.objective, cfg.run.siglip) == ("siglip", True)
    assert cfg.optim.wd == train_config().optim.wd


def test_nested_flags_win_too(tmp_path):
    path = recipe(tmp_path, "augment: {hflip: 0.5, degrees: 10, scale: [0.5, 1]}\n")
    cfg = parse_args(["--config", str(path), "--augment.degrees", "20"])
    assert cfg.data.augment == AugmentConfig(hflip=0.5, degrees=20, scale=(0.5, 1.0))


def test_a_nested_switch_is_turned_off(tmp_path):
    path = recipe(tmp_path, "captions: {distinct: true}\n")
    assert parse_args(["--config", str(path)]).data.captions.distinct
    cfg = parse_args(["--config", str(path), "--captions.no-distinct"])
    assert not cfg.data.captions.distinct


def test_a_value_may_begin_with_a_dash():
    cfg = parse_args(["--csv-separator", "-", "--train-data", "a.csv", "--augment.fill", "7"])
    assert (cfg.data.csv_separator, cfg.data.augment.fill) == ("-", 7)


def test_underscores_and_dashes_are_the_same():
    assert parse_args(["--train_batch_size", "64"]).run.train_batch_size == 64
    assert parse_args(["--train-batch-size=64"]).run.train_batch_size == 64
    assert parse_args(["--captions.word_drop=0.5"]).data.captions.word_drop == 0.5


@pytest.mark.parametrize("chosen", [{"siglip": True}, {"objective": "toy", "decoder_layers": 3}])
def test_a_written_configuration_reads_back(tmp_path, chosen):
    augment = AugmentConfig(scale=None, ratio=(0.5, 2.0), hflip=0.5)
    captions = CaptionConfig(tags=0.5)
    cfg = train_config(lr=3e-4, name="x", augment=augment, captions=captions, **chosen)
    path = recipe(tmp_path, yaml.safe_dump(to_plain(cfg)))
    assert train_config(**load_recipe(path)) == cfg
    assert parse_args(["--config", str(path)]) == cfg.replace(config=path)


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
        ("objective: vae", "--objective is 'vae', expected one of clip, siglip, toy"),
        ("objective: siglip\nsiglip: false", "--no-siglip contradicts --objective siglip"),
        (
            "siglip: true\ndecoder-layers: 3",
            "is a flag of --objective toy, this run's objective is",
        ),
        ("precision: amp", "--precision amp is fp16 autocast in open_clip"),
        ("horovod: true", "--horovod is not built"),
        ("config: x.yaml", "unknown key 'config'"),
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


@pytest.mark.parametrize("flag", ["--config", "--deepspeed_config"])
@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff\xfe", "is not UTF-8"), (b"[" * 100_000, "is nested too deeply")]
)
def test_a_file_of_settings_that_is_no_text_is_refused_in_one_sentence(
    tmp_path, flag, content, words
):
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{flag} .*settings.json {words}"):
        cfg = parse_args([flag, str(path)])
        deepspeed_config.build(cfg, "fp32", 1)


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
        (["--no-no-siglip"], "unknown flag --no-no-siglip, close to"),
        (["--objective", "vae"], "--objective is 'vae', expected one of clip, siglip, toy"),
    ],
)
def test_a_wrong_flag_is_named_in_one_sentence(flags, expected):
    with pytest.raises(UserError) as caught:
        parse_args(flags)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


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
        (["--name", ".."], "--name is .., expected the name of a folder below --logs"),
        (["--name", "a/../.."], "--name is a/../.., expected the name of a folder below --logs"),
        (["--name", "/tmp/a"], "--name is /tmp/a, expected the name of a folder below --logs"),
        (["--name", "."], "--name is ., expected the name of a folder below --logs"),
        (["--seed", "-1"], "--seed is -1, expected 0 or more"),
        (["--seed", str(2**63)], f"--seed is {2**63}, expected at most {2**63 - 1}"),
        (["--lr", "inf"], "--lr is inf, expected a finite number"),
        (["--init-logit-scale", "0"], "--init-logit-scale is 0.0, expected 1 to 100"),
        (
            ["--lock-text-unlocked-layers", "2"],
            "--lock-text-unlocked-layers does nothing without --lock-text",
        ),
        (["--val-frequency", "-1"], "--val-frequency is -1, expected 0 or more"),
        (["--resume="], "--resume is '', expected none, auto or a checkpoint's folder"),
        (["--context-length", "0"], "--context-length is 0, expected 1 or more"),
        (["--dataset-type", "csv"], "--dataset-type csv needs --train-data"),
        (["--val-split", "val"], "--val-split needs --val-data or --imagenet-val"),
        (["--val-image-root", "x"], "--val-image-root needs --val-data or --imagenet-val"),
        (
            ["--cache", "x"],
            "--cache needs --train-data: the generated set is kept in memory, save with "
            "--in-memory never",
        ),
        (
            ["--train-data", "a.tar", "--data-root", "x"],
            "--data-root is x, the folder of the generated set, which --train-data a.tar takes the "
            "place of: leave out one of them",
        ),
        (
            ["--val-data", "a=x.tar", "--val-data=b=y.tar"],
            "--val-data is given 2 times with other data, of which the last alone would count: "
            "give it once, several as name=path,name=path",
        ),
        (
            ["--train_data", "x.tar", "--train-data", "y.tar", "--train-data", "z.tar"],
            "--train-data is given 3 times with other data, of which the last alone would count: "
            "give it once, several separated by ::",
        ),
        (["--ngrams", "3", "0"], "--ngrams is (3, 0), expected lengths of 1 or more"),
        (["--ngram-buckets", "-1"], "--ngram-buckets is -1, expected more than 0"),
        (["--beta2", "1"], "--beta2 is 1.0, expected 0 <= value < 1"),
    ],
)
def test_values_out_of_range(flags, expected):
    with pytest.raises(UserError) as caught:
        parse_args(flags)
    assert str(caught.value) == expected


def test_other_flags_may_be_given_again_and_the_last_counts():
    again = ["--seed", "1", "--train-data", "x.tar", "--seed", "2", "--train-data", "x.tar"]
    cfg = parse_args(again)
    assert (cfg.run.seed, cfg.data.train_data) == (2, "x.tar")


def test_a_run_written_before_there_were_objectives_loads(tmp_path):
    plain = to_plain(train_config(siglip=True, init_logit_scale=5.0))
    now = ("objective", "opt", "torchcompile", "lock_image", "val_frequency", "imagenet_val")
    old = {name: value for name, value in plain.items() if name not in now}
    loaded = train_config(**load_recipe(recipe(tmp_path, yaml.safe_dump(old))))
    assert loaded == train_config(siglip=True, init_logit_scale=5.0)


def test_flat_names_that_no_room_has_are_refused():
    with pytest.raises(UserError, match="'lrr', close to lr"):
        train_config(lrr=1)
    with pytest.raises(UserError, match="decoder_layers is a flag of --objective toy"):
        train_config(decoder_layers=1)
    with pytest.raises(UserError, match="--wd is -1, expected 0 or more"):
        train_config(wd=-1)
    cfg = train_config(wd=0.5)
    assert cfg.replace(lr=1.0).optim == train_config(wd=0.5, lr=1.0).optim
    assert cfg == train_config(wd=0.5)


def test_report_to():
    taken = {"": "", "none": "", "wandb": "wandb", "all": "tensorboard wandb"}
    taken |= {"wandb,tensorboard": "tensorboard wandb", "tensorboard, wandb": "tensorboard wandb"}
    for value, expected in taken.items():
        assert parse_args(["--report-to", value]).run.reporters == set(expected.split())
    for value in ("wanb", "none,wandb", "tensorboard,"):
        with pytest.raises(
            UserError, match=f"--report-to is '{value}', expected none, tensorboard"
        ):
            parse_args(["--report-to", value])
