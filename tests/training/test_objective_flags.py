"""Which objective a run has, whose a flag is, and what ``--help`` tells of both."""

import pytest
from toy_objective import ToyOptions

from fastclip import objectives
from fastclip.errors import UserError
from fastclip.training.config import parse_args, train_config
from fastclip.training.flags import types_of
from fastclip.training.options.rooms import rooms_of

REGISTERED = dict(objectives.FILES)
pytestmark = pytest.mark.usefixtures("toy_registry")


def recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


CHOICES = {
    "": ([], "clip"),
    "siglip: true": ([], "siglip"),
    "objective: toy": ([], "toy"),
    "objective: siglip\nsiglip: true": (["--no-siglip"], "clip"),
    "objective: clip\nsiglip: false": (["--siglip"], "siglip"),
    "siglip: false": (["--objective", "siglip"], "siglip"),
    "objective: toy\nsiglip: false": (["--no-siglip"], "toy"),
    "siglip: true\nlr: 1": (["--objective", "toy"], "toy"),
    "objective: toy\nlr: 1": (["--siglip", "--objective=siglip"], "siglip"),
}


@pytest.mark.parametrize("text", CHOICES)
def test_which_objective_a_run_has(tmp_path, text):
    flags, expected = CHOICES[text]
    path = recipe(tmp_path, f"epochs: 2\n{text}\n")
    cfg = parse_args(["--config", str(path), *flags])
    assert (cfg.run.objective, cfg.run.siglip) == (expected, expected == "siglip")
    assert type(cfg.objective) is objectives.find_objective(expected).Options


@pytest.mark.parametrize("objective", ["clip", "toy"])
def test_siglip_and_another_objective_contradict(objective):
    expected = f"--siglip contradicts --objective {objective}: give one of them"
    with pytest.raises(UserError, match=f"^{expected}$"):
        parse_args(["--siglip", "--objective", objective])
    with pytest.raises(UserError, match=f"^{expected}$"):
        train_config(siglip=True, objective=objective)
    with pytest.raises(UserError, match="^--no-siglip contradicts --objective siglip: "):
        parse_args(["--no-siglip", "--objective", "siglip"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--decoder-layers", "3"], "--decoder-layers is a flag of --objective toy, this run's "
         "objective is clip"),
        (["--no-reverse", "--siglip"], "--no-reverse is a flag of --objective toy, this run's "
         "objective is siglip"),
        (["--objective", "toy", "--init-logit-scale", "3"], "--init-logit-scale is a flag of "
         "--objective clip or siglip, this run's objective is toy"),
    ],
)  # fmt: skip
def test_a_flag_of_another_objective_is_refused(flags, expected):
    with pytest.raises(UserError) as caught:
        parse_args(flags)
    assert str(caught.value) == expected


def test_an_objectives_own_flags_are_taken():
    cfg = parse_args(["--objective", "toy", "--decoder_layers", "3", "--reverse"])
    assert cfg.objective == ToyOptions(decoder_layers=3, reverse=True)
    assert cfg.replace(lr=1.0, decoder_layers=4).objective.decoder_layers == 4


def test_only_the_chosen_objective_is_imported(monkeypatch):
    monkeypatch.setitem(objectives.FILES, "toy", "absent:Toy")
    assert parse_args(["--siglip"]).run.objective == "siglip"


def help_of(capsys, *flags):
    with pytest.raises(SystemExit) as end:
        parse_args([*flags, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def unwrapped(text):
    return " ".join(text.replace("│", " ").split())


def test_help_lists_objectives_and_the_flags_of_one(capsys, tmp_path):
    path = recipe(tmp_path, "epochs: 77\naugment: {degrees: 15.25}\n")
    told = help_of(capsys, "--config", str(path))
    for name in objectives.OBJECTIVES:
        found = objectives.find_objective(name)
        lines = told[told.index(f"  {name}  ") :].splitlines()
        assert lines[0].endswith(found.summary)
        assert lines[1].strip() == found.paper
    assert "--train-micro-batch-size-per-gpu" in told
    assert "--decoder-layers" not in told
    assert "Passes over the training data. (default: 77)" in unwrapped(told)
    assert "(default: 15.25)" in unwrapped(told)
    told = help_of(capsys, "--objective", "toy")
    own = unwrapped(told[told.index(" toy options ") : told.index(" optim options ")])
    assert "--decoder-layers INT Layers of its decoder. (default: 2)" in own
    assert "--reverse, --no-reverse Read backwards, too. (default: False)" in own
    assert "--init-logit-scale" not in told


def test_no_two_rooms_share_a_flag(monkeypatch):
    monkeypatch.setattr(objectives, "FILES", REGISTERED)
    for name in REGISTERED:
        names = [field for room in rooms_of(name).values() for field in types_of(room)]
        assert len(names) == len(set(names)), name
