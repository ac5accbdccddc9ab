"""Every source trains: a few steps on some records of each layout, with the default flags."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT, environment
from layouts import CAPTIONED

SCRIPT = """
import json, sys
from fastclip import train
found = {}
for name, args in json.load(open(sys.argv[1])).items():
    found[name] = train.main(args)
json.dump(found, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Exit codes and metrics of a short run on every layout, all in one process."""
    folder = tmp_path_factory.mktemp("layouts")
    args = {}
    for name, write in CAPTIONED.items():
        layout = write(folder / name)
        flags = ["--model", "tiny-convnet", "--image-size", "16", "--train-batch-size", "4"]
        flags += ["--max-steps", "3", "--warmup", "1", "--report-to", "none", "--epochs", "2"]
        flags += ["--logs", str(folder / "logs"), "--name", name]
        args[name] = ["--train-data", layout.path, *layout.flags, *flags]
    (folder / "args.json").write_text(json.dumps(args))
    paths = [str(folder / "args.json"), str(folder / "codes.json")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *paths],
        capture_output=True,
        text=True,
        timeout=400,
        env={
            **environment(),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        },
        check=False,
    )
    codes = json.loads((folder / "codes.json").read_text()) if done.returncode == 0 else {}
    return folder / "logs", codes, done.stderr


@pytest.mark.parametrize("name", CAPTIONED)
def test_a_layout_trains(runs, name):
    logs, codes, told = runs
    assert codes.get(name) == 0, told[-3000:]
    lines = (logs / name / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["contrastive_loss"] > 0 for line in lines)
