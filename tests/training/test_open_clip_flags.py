"""Every flag of open_clip's parser is taken with its meaning, or refused by name."""

import argparse
import re

import pytest
from open_clip_train import params

from fastclip.errors import UserError
from fastclip.objectives import OBJECTIVES
from fastclip.training.config import parse_args, to_plain
from fastclip.training.flags import flags_of
from fastclip.training.options.open_clip_flags import NOT_OURS
from fastclip.training.options.rooms import fields_of

# Of the launcher, not of ours.
LAUNCHER = {"--hostfile", "--master-addr", "--master-port"}


def open_clip_actions() -> list[argparse.Action]:
    found: list[argparse.Action] = []

    class Stop(Exception):
        pass

    def stop(parser, args):
        found.extend(parser._actions)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        params.parse_args([])
    return [action for action in found if action.dest != "help"]


def samples(action: argparse.Action) -> list[list[str]]:
    """Words that open_clip's own parser takes for a flag."""
    if action.nargs == 0:
        return [[]]
    if action.choices:
        return [[str(choice)] for choice in action.choices]
    typical = {int: "3", float: "0.25"}.get(action.type, "x")
    plain = action.default if isinstance(action.default, (str, int, float)) else typical
    return [[typical]] + ([] if str(plain) == typical else [[str(plain)]])


ACTIONS = open_clip_actions()
FLAGS = [flag for action in ACTIONS for flag in action.option_strings]
OURS = flags_of(fields_of("clip"))


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.dest)
def test_a_flag_of_open_clip_is_taken_or_refused_by_name(action):
    for flag in action.option_strings:
        for words in samples(action):
            try:
                cfg = parse_args([flag, *words])
            except UserError as error:
                check_sentence(flag, str(error))
            else:
                value = to_plain(cfg)[action.dest]
                assert value is True if action.nargs == 0 else same(value, words[0])


def same(value, word: str) -> bool:
    others = {"amp_bfloat16": "amp_bf16", "./logs/": "logs"}
    return str(value) == others.get(word, word) or value == float(word)


def check_sentence(flag: str, sentence: str) -> None:
    assert sentence.startswith(flag + " ")
    assert "unknown flag" not in sentence
    assert "\n" not in sentence and ". " not in sentence
    named = set(re.findall(r"--[a-z][\w.-]*\w", sentence.replace("_", "-")))
    assert named - {flag, "--help"} <= OURS.keys() | LAUNCHER
    if flag in NOT_OURS:
        assert named - {flag} or "not built" in sentence or "here" in sentence


def test_the_list_of_refusals_holds_open_clips_flags_that_are_not_ours():
    assert len(FLAGS) > 80
    ours = set().union(*(flags_of(fields_of(name)) for name in OBJECTIVES))
    assert set(NOT_OURS) == set(FLAGS) - ours


def test_spellings_and_values_of_open_clip():
    with pytest.raises(UserError, match=r"^--force-image-size is written here as --image-size"):
        parse_args(["--force_image_size=64"])
    cfg = parse_args(["--precision", "amp_bfloat16", "--resume", "latest"])
    assert (cfg.run.precision, cfg.run.resume) == ("amp_bf16", "auto")
    for flag, value in [("--precision", "pure_fp16"), ("--logs", "None")]:
        with pytest.raises(UserError, match=f"^{flag} {value} "):
            parse_args([flag, value])


def test_flags_that_need_one_another_are_taken_together():
    words = "--lock-image --lock-image-unlocked-groups 2 --lock-image-freeze-bn-stats --lock-text "
    words += "--lock-text-unlocked-layers 1 --lock-text-freeze-layer-norm --train-data a.csv "
    words += "--dataset-type csv --lr-scheduler const-cooldown --epochs-cooldown 2 "
    words += "--lr-cooldown-end 1e-5 --lr-cooldown-power 2 --zeroshot-frequency 2 --torchcompile"
    cfg = parse_args(words.split())
    assert (cfg.model.lock_image_unlocked_groups, cfg.model.lock_text_unlocked_layers) == (2, 1)
    assert (cfg.optim.epochs_cooldown, cfg.run.zeroshot_frequency) == (2, 2)
