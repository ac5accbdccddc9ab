"""One run of a small recipe, and what is kept of it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.paths import ROOT
from benchmarks.recipes import ngram_baseline
from benchmarks.recipes.fetch_encoders import folder_of
from fastclip.training.validation import parse_splits

SMALL = ROOT / "configs" / "recipes" / "small"
DATA = "FASTCLIP_TEST_DATA"


@dataclass(frozen=True)
class Run:
    """A recipe's name, a seed, the run's folder, flags beyond the recipe's and its own left out."""

    name: str
    seed: int
    folder: Path
    flags: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)

    @property
    def recipe(self) -> Path:
        """The recipe's file; a copy beside the run's folder where something is left out."""
        whole = SMALL / f"{self.name}.yaml"
        if not self.without:
            return whole
        values = next(yaml.safe_load_all(whole.read_text()))
        for key in self.without:
            del values[key]
        copy = self.folder.with_suffix(".yaml")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(yaml.safe_dump(values))
        return copy


def terms(name: str) -> dict:
    """A recipe's second document: its data and what it is held to; empty where there is none."""
    documents = list(yaml.safe_load_all((SMALL / f"{name}.yaml").read_text()))
    return documents[1] if len(documents) > 1 else {}


def data_flags(name: str) -> list[str]:
    """Flags of the data that a recipe names by ``$FASTCLIP_TEST_DATA``; else none."""
    data = terms(name).get("data", {})
    if data and not os.environ.get(DATA):
        raise SystemExit(f"{name} trains on real pictures: name their folder in {DATA}")
    return [part for flag, path in data.items() for part in (f"--{flag}", os.path.expandvars(path))]


def encoder_flags(name: str) -> list[str]:
    """Flags of the encoders that a recipe names, which are fetched at first use; else none."""
    encoders = terms(name).get("encoders", [])
    return [part for flag in encoders for part in (f"--{flag}", str(folder_of(flag)))]


def one_run(run: Run) -> dict:
    """Train as a user would; returns results, steps and minutes spent in them."""
    command = ["deepspeed", "--quiet", "fastclip/train.py", "--config", str(run.recipe)]
    command += ["--seed", str(run.seed), "--logs", str(run.folder.parent)]
    command += ["--name", run.folder.name, *data_flags(run.name)]
    command += [*encoder_flags(run.name), *run.flags]
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
        "results": with_ngram(run, json.loads((run.folder / "results.json").read_text())),
        "steps": len(rows),
        "minutes": round(sum(batch / row["samples_per_second"] for row in rows) / 60, 3),
    }


def with_ngram(run: Run, results: dict) -> dict:
    """Figures of each split, with the best n-gram's where the recipe is held to it."""
    if all(term.get("over") != ngram_baseline.NAME for term in terms(run.name).get("figures", [])):
        return results
    flags = dict(zip(*[iter(data_flags(run.name))] * 2, strict=True))
    splits = parse_splits(flags["--val-data"])
    for split, (value, told) in ngram_baseline.of_run(
        run.folder, flags["--train-data"], splits
    ).items():
        print(f"{split}: {ngram_baseline.NAME} {value:.4g} ({told})", flush=True)
        results[split][ngram_baseline.NAME] = value
    return results
