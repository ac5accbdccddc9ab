"""Data and a finished run that several files of this folder look at."""

import sys

import pytest
import toy_objective
from commands import command, flags, launch


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A generated set small enough to train on in seconds."""
    from fastclip.data.generated.samples import GeneratedSpec
    from fastclip.data.generated.shards import generate

    folder = tmp_path_factory.mktemp("shapes") / "set"
    return generate(folder, GeneratedSpec(num_samples=512, num_val=64), progress=False)


@pytest.fixture(scope="session")
def whole(shapes, tmp_path_factory):
    """An uninterrupted run of plain python: its folder and what it printed."""
    logs = tmp_path_factory.mktemp("whole")
    done = launch(command(*flags(shapes, logs, "run", "--save-frequency", "2")))
    assert done.returncode == 0, done.stderr
    return logs / "run", done.stdout


@pytest.fixture
def toy_registry(monkeypatch):
    """CLIP, SigLIP and an objective with flags that they do not have, and no others."""
    from fastclip import objectives

    monkeypatch.setitem(sys.modules, "fastclip.objectives.toy", toy_objective)
    files = {"clip": "clip:Clip", "siglip": "siglip:SigLip", "toy": "toy:Toy"}
    monkeypatch.setattr(objectives, "FILES", files)
    monkeypatch.setattr(objectives, "OBJECTIVES", tuple(files))
