"""Metrics of a run: two jsonl files always, TensorBoard and Weights & Biases on request, and a bar
or plain lines to read."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fastclip.training.options.run import RunConfig
from fastclip.training.writers import TensorBoardWriter, WandbWriter, Writer
from fastclip.whole_files import write_whole

# On one line beside a bar.
_SHORT = {
    "contrastive_loss": "loss",
    "logit_scale": "scale",
    "grad_norm": "norm",
    "samples_per_second": "samples/s",
    "data_seconds": "data s",
    "compute_seconds": "compute s",
}


class Reporter:
    """Rank 0 writes; every other rank's calls do nothing.

    Args:
        run: the run's folder.
        active: whether this is rank 0.
        total_steps, first_step: for the progress bar.
        cfg: says which writers take the curves, and how many steps lie between plain lines where
            standard error is no terminal.
        config: what Weights & Biases shows as the run's configuration.
    """

    def __init__(
        self,
        run: Path,
        *,
        active: bool,
        total_steps: int,
        first_step: int = 0,
        cfg: RunConfig,
        config: Mapping[str, Any],
    ):
        self.active = active
        self.total_steps = total_steps
        self.every = cfg.log_every_n_steps
        if not active:
            return
        run.mkdir(parents=True, exist_ok=True)
        paths = run / "metrics.jsonl", run / "validation.jsonl"
        for path in paths:
            _forget_after(path, first_step)
        self._file = paths[0].open("a", buffering=1)
        self._run = run
        self._writers: list[Writer] = []
        if "tensorboard" in cfg.reporters:
            self._writers.append(TensorBoardWriter(run, first_step))
        if "wandb" in cfg.reporters:
            self._writers.append(WandbWriter(run, cfg, config))
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=not terminal,
            dynamic_ncols=True,
        )

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Record the metrics of optimizer step ``step`` (from 1)."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        for writer in self._writers:
            writer.add(step, {f"train/{name}": value for name, value in metrics.items()})
        self._bar.update(1)
        shown = {k: f"{v:.4g}" for k, v in metrics.items() if k != "epoch"}
        self._bar.set_postfix({_SHORT.get(k, k): v for k, v in shown.items()}, refresh=False)
        if self._bar.disable and (step % self.every == 0 or step == self.total_steps):
            text = "  ".join(f"{k} {v}" for k, v in shown.items())
            print(f"step {step}/{self.total_steps}  {text}", flush=True)

    def total(self, steps: int) -> None:
        """Steps of the run, where the data turned out to hold others than was said of them."""
        self.total_steps = steps
        if self.active and self._bar.total != steps:
            self._bar.total = steps
            self._bar.refresh()

    def note(self, sentence: str) -> None:
        """Something to tell beside the figures."""
        if self.active:
            self._bar.write(f"note: {sentence}")

    def validation(self, step: int, figures: dict[str, float]) -> None:
        """Record figures, by ``split/name``, that were found after optimizer step ``step``."""
        if not self.active or not figures:
            return
        self.last_validation(step, figures)
        text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self._bar.write(f"step {step}/{self.total_steps}  {text}")

    def last_validation(self, step: int, figures: dict[str, float]) -> None:
        """As :meth:`validation`, without a line: a run ends with a sentence for every figure."""
        if not self.active or not figures:
            return
        path = self._run / "validation.jsonl"
        _forget_after(path, step - 1)  # a run that is resumed at its end evaluates once more
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **figures}) + "\n")
        for writer in self._writers:
            writer.add(step, {f"val/{name}": value for name, value in figures.items()})

    def close(self) -> None:
        if self.active:
            self._bar.close()
            self._file.close()
            for writer in self._writers:
                writer.close()


def read_validation(run: Path) -> list[dict]:
    """What validation found during a run, in order; empty where there was none."""
    return _read(run / "validation.jsonl")


def read_metrics(run: Path) -> list[dict]:
    """The steps recorded in a run's folder, in order; a last line cut short is left out."""
    return _read(run / "metrics.jsonl")


def _read(path: Path) -> list[dict]:
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _forget_after(path: Path, step: int) -> None:
    """Drop lines of steps past ``step``: a resumed run repeats them."""
    if not path.exists():
        return
    kept = [row for row in _read(path) if row["step"] <= step]
    write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
