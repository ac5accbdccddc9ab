"""What a run refuses before it trains."""

import json
import subprocess
import sys

import pytest
import torch

from fastclip.errors import UserError
from fastclip.training import session
from fastclip.training.config import TrainConfig
from fastclip.training.distributed import Ranks


def test_class_texts_of_no_use_are_refused_before_the_training(shapes, tmp_path):
    shards = tmp_path / "val-seen.tar"
    shards.symlink_to(shapes.val_seen)
    cfg = TrainConfig(train_data=shapes.train, val_data=str(shards))
    ranks = Ranks(0, 1, torch.device("cpu"))
    assert set(session.data(cfg, ranks)[1]) == {"val"}
    (tmp_path / "classes.json").write_text(json.dumps({"classes": [1]}))
    with pytest.raises(UserError, match="classes is not a list of names"):
        session.data(cfg, ranks)


@pytest.mark.parametrize("siglip", [False, True])
def test_a_backend_of_the_environment_is_checked_first(siglip, monkeypatch):
    cfg, ranks = TrainConfig(siglip=siglip), Ranks(0, 1, torch.device("cpu"))
    monkeypatch.setattr(session, "data", lambda *_: pytest.fail("data are read"))
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
