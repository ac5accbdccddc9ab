"""One run of a small recipe, and what is kept of it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA = "FASTCLIP_TEST_DATA"


@dataclass(frozen=True)
class Run:
    """A recipe's name, a seed, the run's folder and flags beyond the recipe's."""

    name: str
    seed: int
    folder: Path
    flags: list[str] = field(default_factory=list)


def one_run(run: Run) -> dict:
    """Train as a user would; returns results, steps and minutes spent in them."""
    recipe = ROOT / "configs" / "recipes" / "small" / f"{run.name}.yaml"
    if DATA in recipe.read_text() and not os.environ.get(DATA):
        raise SystemExit(f"{run.name} trains on real pictures: name their folder in {DATA}")
    command = ["deepspeed", "--quiet", "fastclip/train.py", "--config", str(recipe)]
    command += ["--seed", str(run.seed), "--logs", str(run.folder.parent)]
    command += ["--name", run.folder.name, *run.flags]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{run.folder.name} failed:\n{done.stderr[-2000:]}")
    print(done.stdout.strip().splitlines()[-1], flush=True)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    batch = json.loads((run.folder / "deepspeed.json").read_text())["train_batch_size"]
    return {
        "results": json.loads((run.folder / "results.json").read_text()),
        "steps": len(rows),
        "minutes": round(sum(batch / row["samples_per_second"] for row in rows) / 60, 3),
    }
