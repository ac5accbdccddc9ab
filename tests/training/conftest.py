"""Data and a finished run that several files of this folder look at."""

import pytest
from commands import command, flags, launch


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A generated set small enough to train on in seconds."""
    from fastclip.data.generated import GeneratedSpec, generate

    folder = tmp_path_factory.mktemp("shapes") / "set"
    return generate(folder, GeneratedSpec(num_samples=512, num_val=64), progress=False)


@pytest.fixture(scope="session")
def whole(shapes, tmp_path_factory):
    """An uninterrupted run of plain python: its folder and what it printed."""
    logs = tmp_path_factory.mktemp("whole")
    done = launch(command(*flags(shapes, logs, "run", "--save-frequency", "2")))
    assert done.returncode == 0, done.stderr
    return logs / "run", done.stdout
