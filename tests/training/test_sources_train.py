"""Every source trains: a few steps on some records of each layout, with the default flags."""

import json
import os
import subprocess
import sys

import pytest
from commands import ROOT, environment
from layouts import CAPTIONED, LABELLED

LOSSES = {"clip": "contrastive_loss", "label-set": "label_loss"}
LAYOUTS = {name: (write, "clip") for name, write in CAPTIONED.items()}
LAYOUTS |= {f"labelled {name}": (write, "label-set") for name, write in LABELLED.items()}
SCRIPT = """
import json, sys, traceback
import label_objective
sys.modules["fastclip.objectives.label_objective"] = label_objective
from fastclip.training import distributed, session
from fastclip.training.config import parse_args
found, ranks = {}, distributed.start()
for name, args in json.load(open(sys.argv[1])).items():
    try:
        session.run(parse_args(args), ranks)
        found[name] = "trained"
    except Exception:
        found[name] = traceback.format_exc()
json.dump(found, open(sys.argv[2], "w"))
distributed.stop()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What became of a short run on every layout, all in one process, and the runs' folder."""
    folder = tmp_path_factory.mktemp("layouts")
    args = {}
    for name, (write, objective) in LAYOUTS.items():
        layout = write(folder / name)
        flags = ["--model", "tiny-convnet", "--image-size", "16", "--train-batch-size", "4"]
        flags += ["--max-steps", "3", "--warmup", "1", "--report-to", "none", "--epochs", "2"]
        flags += ["--logs", str(folder / "logs"), "--name", name, "--objective", objective]
        args[name] = ["--train-data", layout.path, *layout.flags, *flags]
    (folder / "args.json").write_text(json.dumps(args))
    paths = [str(folder / "args.json"), str(folder / "found.json")]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *paths],
        capture_output=True,
        text=True,
        timeout=400,
        env={
            **environment(),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")]),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "logs", json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_trains(runs, name):
    logs, found = runs
    assert found[name] == "trained"
    lines = (logs / name / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)[LOSSES[LAYOUTS[name][1]]] > 0 for line in lines)
