"""What a run refuses before it trains."""

import json
import subprocess
import sys

import pytest
import torch
from shard_files import record, write_shard

from fastclip.comm.ranks import Ranks
from fastclip.errors import UserError
from fastclip.training import plots, session
from fastclip.training.config import train_config
from fastclip.training.reporting import Reporter, read_validation
from fastclip.training.validation import Validation, parse_splits


def test_splits_of_no_use_are_refused_before_the_training(shapes, tmp_path):
    shards = tmp_path / "val-seen.tar"
    shards.symlink_to(shapes.val_seen)
    ranks = Ranks(0, 1, torch.device("cpu"))
    model = torch.nn.Identity()
    model.encode_image = model.encode_text = model.forward

    def judge(**flags):
        cfg = train_config(train_data=shapes.train, **flags)
        return Validation(cfg, ranks, model, None, session.open_data(cfg, ranks)[1])

    assert set(judge(val_data=str(shards)).splits) == {"val"}
    faults = {
        "classes is not a list of names": {"classes": [1]},
        "val-seen.tar has label . at val-seen/0000., expected 0 to 0: 1 c": {"classes": ["one"]},
        "measured on --imagenet-val, which has no class names for its labels": {"prompts": ["{}"]},
    }
    for told, content in faults.items():
        (tmp_path / "classes.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=told):
            judge(imagenet_val=str(shards))
    judged = judge(val_data=f"a={shapes.val_seen}", imagenet_val=shapes.val_held_out)
    assert set(judged.splits) == {"a", "imagenet-val"}
    with pytest.raises(UserError, match="names a split imagenet-val, which --imagenet-val does"):
        judge(val_data=f"imagenet-val={shapes.val_seen}", imagenet_val=shapes.val_seen)


@pytest.mark.parametrize(
    ("val_data", "said"),
    [
        (",a=x.tar", "an entry between commas is empty"),
        ("a=x.tar,", "an entry between commas is empty"),
        ("a=x.tar,,b=y.tar", "an entry between commas is empty"),
        ("a=,b=y.tar", "holds 'a='"),
        ("a=x.tar,a=y.tar", "twice the name a"),
    ],
)
def test_empty_entries_of_validation_data_are_refused(val_data, said):
    with pytest.raises(UserError, match=said):
        parse_splits(val_data)


def test_corrupt_validation_pictures_are_found_before_the_first_step(shapes, tmp_path):
    write_shard(tmp_path / "a.tar", {f"{n}": record(n, png=b"x") for n in range(4)})
    cfg = train_config(train_data=shapes.train, val_data=f"a={tmp_path}/a.tar")
    ranks = Ranks(0, 1, torch.device("cpu"))
    model = torch.nn.Identity()
    model.encode_image = model.encode_text = model.forward
    model.image_size = 8
    with pytest.raises(UserError, match="^--val-data a .*4 of 4 records are bad .4 x picture is c"):
        Validation(cfg, ranks, model, None, session.open_data(cfg, ranks)[1])


@pytest.mark.parametrize("siglip", [False, True])
def test_a_backend_of_the_environment_is_checked_first(siglip, monkeypatch):
    cfg, ranks = train_config(siglip=siglip), Ranks(0, 1, torch.device("cpu"))
    monkeypatch.setattr(session, "open_data", lambda *_: pytest.fail("data are read"))
    monkeypatch.setattr(session.run_folder, "choose", lambda _: pytest.fail("a folder is chosen"))
    monkeypatch.setenv("FASTCLIP_BACKEND", "nonsense")
    with pytest.raises(UserError, match="^FASTCLIP_BACKEND='nonsense' is no backend of"):
        session.run(cfg, ranks)
    for name in ("", "torch"):
        monkeypatch.setenv("FASTCLIP_BACKEND", name)
        session.check_backend(cfg, ranks.device)


@pytest.mark.parametrize("module, told", [
    ("tyro", True), ("matplotlib", True), ("fastclip.training.session", False),
])  # fmt: skip
def test_training_without_its_packages_says_what_to_install(module, told):
    """As after ``pip install .``; a module of ours that is missing is a fault."""
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from fastclip import train; sys.exit(train.main(['--epochs', '1']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sentence = f"error: the module {module} is not installed; `pip install '.[train]'`"
    assert (run.returncode == 2 and sentence in run.stderr) == told
    assert ("Traceback" in run.stderr) != told


def test_a_run_resumed_at_its_end_has_its_last_figures_once(tmp_path):
    for recall in (0.25, 0.5):
        cfg = train_config(report_to="none").run
        reporter = Reporter(tmp_path, active=True, total_steps=8, first_step=8, cfg=cfg, config={})
        reporter.validation(4, {"val/recall@10": 0.125})
        reporter.last_validation(8, {"val/recall@10": recall})
        reporter.close()
    rows = [(row["step"], row["val/recall@10"]) for row in read_validation(tmp_path)]
    assert rows == [(4, 0.125), (8, 0.5)]


def test_a_run_that_took_no_step_has_no_curves(tmp_path):
    plots.curves([], [{"step": 8, "val/recall@10": 0.5}], tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
