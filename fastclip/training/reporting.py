"""Metrics of a run: metrics.jsonl always, TensorBoard on request, a bar or plain lines to read."""

import json
import sys
from pathlib import Path

from tqdm import tqdm

from fastclip.training.run_folder import write_whole

# On one line beside a bar.
_SHORT = {
    "contrastive_loss": "loss",
    "logit_scale": "scale",
    "grad_norm": "norm",
    "samples_per_second": "samples/s",
}


class Reporter:
    """Rank 0 writes; every other rank's calls do nothing.

    Args:
        run: the run's folder.
        active: whether this is rank 0.
        total_steps, first_step: for the progress bar.
        tensorboard: whether to write event files under ``run/tensorboard``.
        every: steps between plain lines where standard error is no terminal.
    """

    def __init__(
        self,
        run: Path,
        *,
        active: bool,
        total_steps: int,
        first_step: int = 0,
        tensorboard: bool = True,
        every: int = 10,
    ):
        self.active = active
        self.total_steps = total_steps
        self.every = every
        if not active:
            return
        run.mkdir(parents=True, exist_ok=True)
        self._path = run / "metrics.jsonl"
        _forget_after(self._path, first_step)
        self._file = self._path.open("a", buffering=1)
        self._writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total_steps,
            initial=first_step,
            unit="step",
            disable=not terminal,
            dynamic_ncols=True,
        )

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Record the metrics of optimiser step ``step`` (from 1)."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(f"train/{name}", value, step)
        self._bar.update(1)
        shown = {k: f"{v:.4g}" for k, v in metrics.items() if k != "epoch"}
        self._bar.set_postfix({_SHORT.get(k, k): v for k, v in shown.items()}, refresh=False)
        if self._bar.disable and (step % self.every == 0 or step == self.total_steps):
            text = "  ".join(f"{k} {v}" for k, v in shown.items())
            print(f"step {step}/{self.total_steps}  {text}", flush=True)

    def close(self) -> None:
        if self.active:
            self._bar.close()
            self._file.close()
            if self._writer is not None:
                self._writer.close()


def read_metrics(run: Path) -> list[dict]:
    """The steps recorded in a run's folder, in order; a last line cut short is left out."""
    rows = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _forget_after(path: Path, step: int) -> None:
    """Drop lines of steps past ``step``: a resumed run repeats them."""
    if not path.exists():
        return
    kept = [row for row in read_metrics(path.parent) if row["step"] <= step]
    write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
