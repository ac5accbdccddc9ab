"""Settings that cannot do in a run what their names say, each in one sentence."""

from __future__ import annotations

import time

import torch

from fastclip.data.sources.base import AnySource
from fastclip.data.sources.listed_twice import listed_twice
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import count_records
from fastclip.training.config import TrainConfig
from fastclip.training.waits import too_many_workers

_SIDE, _SLOW = 512, 2.0


def of_run(
    cfg: TrainConfig, total_steps: int, steps_per_epoch: int, precision: str, world_size: int = 1
) -> list[str]:
    """What to tell before the first of ``total_steps`` steps."""
    run = cfg.run
    found = cfg.optim.remarks(total_steps, steps_per_epoch)
    if run.max_steps is not None and run.max_steps > total_steps:
        found.append(
            f"--max-steps {run.max_steps} is more than the {total_steps} steps of --epochs "
            f"{run.epochs}: the run ends with its epochs"
        )
    if run.save_frequency > total_steps:
        found.append(
            f"--save-frequency {run.save_frequency} is more than the run's {total_steps} steps: "
            "the one checkpoint is that of the end"
        )
    if run.log_every_n_steps > total_steps:
        found.append(
            f"--log-every-n-steps {run.log_every_n_steps} is more than the run's {total_steps} "
            "steps: one line is printed, at the end"
        )
    epochs = total_steps / steps_per_epoch
    for flag, every, split, has_split in (
        ("--val-frequency", run.val_frequency, "--val-data", cfg.data.has_val_data),
        ("--zeroshot-frequency", run.zeroshot_frequency, "--imagenet-val", cfg.data.imagenet_val),
    ):
        if every and not has_split:
            found.append(f"{flag} {every} does nothing without {split}")
        elif every and every > epochs:
            found.append(
                f"{flag} {every} is more than the run's {epochs:.3g} epochs: evaluation comes at "
                "the end alone"
            )
    if told := too_many_workers(cfg.data.workers, world_size):
        found.append(told)
    if precision != "fp32" and not torch.accelerator.is_available():
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        factor = product_time(dtype) / product_time(torch.float32)
        if factor > _SLOW:
            name = str(dtype).removeprefix("torch.")
            found.append(
                f"--precision {precision}: on this CPU a {name} product takes {factor:.0f} times "
                "as long as one in fp32; --precision auto takes fp32"
            )
    return found


def of_data(spec: DataSpec, source: AnySource) -> list[str]:
    """What to tell of the training data: splits left out, records that come more than once."""
    found = [f"--train-data: {note}" for choice in source.split_choices for note in choice.notes()]
    found += listed_twice(spec.path, "--train-data")
    records = None if source.forward_only else count_records(source)
    if spec.num_samples and records and spec.num_samples > records:
        found.append(
            f"--train-num-samples {spec.num_samples} is more than the {records} records of "
            f"{source.name}: each comes {spec.num_samples / records:.4g} times an epoch on average"
        )
    return found


def product_time(dtype: torch.dtype, rounds: int = 3) -> float:
    """Seconds of a square product of side 512, the least of some rounds."""
    a = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(dtype)
    a @ a
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return min(times)
