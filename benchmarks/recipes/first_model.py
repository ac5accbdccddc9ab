"""Train the default model and the CLIP-shaped ViT from several seeds and record what they reach.

    python -m benchmarks.recipes.first_model --seeds 0 1 2

Writes benchmarks/results/first_model.json (zero-shot accuracy, seconds of training, and the speed
of a bare fp32 product measured just before each run, so that minutes can be read on any machine)
and the README's table of it. Every run is stored as soon as it is known, so that a call that was
stopped goes on where it was; ``--again`` starts over.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.command import seed_number
from benchmarks.host import bare_gflops, cpu_name
from benchmarks.paths import RESULTS, ROOT
from benchmarks.reporting.readme import README, update_readme
from fastclip.training.run_folder import versions

STORE = RESULTS / "first_model.json"
MARKERS = ("<!-- first-model:begin -->", "<!-- first-model:end -->")
RECIPES = {"default": [], "tiny-vit": ["--config", str(ROOT / "configs/recipes/tiny-vit.yaml")]}


def one_run(recipe: str, seed: int, logs: Path) -> dict:
    name = f"{recipe}-{seed}"
    speed = bare_gflops()
    command = ["deepspeed", "--quiet", "fastclip/train.py", *RECIPES[recipe]]
    command += ["--seed", str(seed), "--logs", str(logs), "--name", name]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    print(done.stdout.strip().splitlines()[-1], flush=True)
    rows = [json.loads(line) for line in (logs / name / "metrics.jsonl").read_text().splitlines()]
    batch = json.loads((logs / name / "deepspeed.json").read_text())["train_batch_size"]
    results = json.loads((logs / name / "results.json").read_text())
    return {
        "seed": seed,
        "git_revision": versions()["git_revision"],
        "held_out_zero_shot": results["held-out"]["zero_shot_accuracy"],
        "seen_zero_shot": results["seen"]["zero_shot_accuracy"],
        "candidates": results["held-out"]["zero_shot_candidates"],
        "steps": len(rows),
        "seconds_in_steps": round(sum(batch / row["samples_per_second"] for row in rows), 1),
        "seconds_wall": round(wall, 1),
        "bare_product_gflops": round(speed, 1),
    }


def table(report: dict) -> str:
    """The record as Markdown: a row a run."""
    lines = [
        f"From `benchmarks/results/first_model.json`: {report['cpu']}, "
        f"{report['threads']} thread{'s' * (report['threads'] > 1)}, "
        f"torch {report['versions']['torch']}.",
        "",
        "| recipe | seed | zero-shot, held out | zero-shot, seen | candidates | steps "
        "| minutes in steps | bare product, GFLOP/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        for run in report.get(recipe, []):
            lines.append(
                f"| {recipe} | {run['seed']} | {run['held_out_zero_shot']:.1%} "
                f"| {run['seen_zero_shot']:.1%} | {run['candidates']} | {run['steps']} "
                f"| {run['seconds_in_steps'] / 60:.1f} | {run['bare_product_gflops']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--again", action="store_true", help="forget the runs stored so far")
    args = parser.parse_args()
    known = STORE.exists() and not args.again
    report = json.loads(STORE.read_text()) if known else {}
    report |= {"versions": versions(), "cpu": cpu_name(), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as logs:
        for seed in args.seeds:
            for recipe in args.recipes:
                runs = report.setdefault(recipe, [])
                if all(run["seed"] != seed for run in runs):
                    runs.append(one_run(recipe, seed, Path(logs)))
                    runs.sort(key=lambda run: run["seed"])
                    store(report)
    store(report)
    update_readme(README, table(report), MARKERS)


def store(report: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    STORE.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
