"""Steps of our trainer and of open_clip's loop on the same random batch, and their memory."""

import copy
import gc
import resource
import statistics
import time
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from benchmarks.gpu.clock import DEVICE, synchronise
from benchmarks.training.open_clip_loop import Batches, OpenClipLoop
from fastclip.models import DualEncoder
from fastclip.objectives.clip import Clip
from fastclip.objectives.scalars import LogitScale
from fastclip.training import deepspeed_config, distributed
from fastclip.training.config import TrainConfig
from fastclip.training.trainer import Trainer

# Of ours and of open_clip at its largest batch; the first one's time is left out.
STEPS = 3
PICTURES = 2048


def random_batch(model: DualEncoder, rows: int, vocabulary: int) -> dict:
    """uint8 pictures and token ids on the host, as the loader gives them.

    Pictures repeat after a while: a host takes long to make many.
    """
    generator = torch.Generator().manual_seed(0)
    side, length = model.image_size, model.context_length
    shape = (min(rows, PICTURES), 3, side, side)
    some = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    image = some.repeat(-(-rows // len(some)), 1, 1, 1)[:rows].contiguous()
    text = torch.randint(1, vocabulary - 1, (rows, length), generator=generator)
    text[:, -1] = vocabulary - 1
    return {"image": image, "text": text, "key": [str(row) for row in range(rows)]}


def first_rows(batch: dict, rows: int) -> dict:
    return {name: values[:rows] for name, values in batch.items()}


def reset_peak() -> None:
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """Of the GPU's allocator, everything included; without a GPU of the process since its start."""
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds_of(step) -> float:
    synchronise()
    start = time.perf_counter()
    step()
    synchronise()
    return time.perf_counter() - start


def in_pieces(batch: dict, rows: int) -> list[dict]:
    """A batch as micro-batches of so many rows."""
    return [
        {name: column[i : i + rows] for name, column in batch.items()}
        for i in range(0, len(batch["image"]), rows)
    ]


def our_run(cfg: TrainConfig, model: DualEncoder, batch: dict) -> dict:
    """The trainer's steps on ``batch``; nothing of its engine is left for the next one's memory."""
    ranks = distributed.start()
    trainer = None
    try:
        precision = deepspeed_config.resolve_precision(cfg)
        objective = Clip.around(copy.deepcopy(model), ranks, cfg.run.workspace_mib << 20)
        trainer = Trainer(
            cfg,
            ranks,
            objective=objective,
            loader=SimpleNamespace(steps_per_epoch=STEPS, steps_before=lambda epoch: epoch * STEPS),
            precision=precision,
            deepspeed=deepspeed_config.build(cfg, precision, ranks.world_size),
            fingerprint="",
        )
        trainer.engine.train()
        reset_peak()
        losses: list[float] = []
        pieces = in_pieces(batch, trainer.micro_batch)

        def step() -> None:
            losses.append(trainer.train_step(pieces)["contrastive_loss"])

        seconds = [seconds_of(step) for _ in range(STEPS)]
        peak = peak_bytes()
    finally:
        if trainer is not None:
            trainer.engine.destroy()
        distributed.stop()
    rows = len(batch["image"])
    return {
        "trainer": f"fastclip, ZeRO {cfg.run.zero_stage}",
        "precision": precision,
        "batch": rows,
        "micro_batch": trainer.micro_batch,
        "images_per_second": rows / statistics.median(seconds[1:]),
        "seconds": seconds,
        "peak_bytes": peak,
        "losses": losses,
    }


class Standardise(nn.Module):
    """Pictures to the device, then to standardised floats."""

    def __init__(self, pixel_norm: nn.Module):
        super().__init__()
        self.pixel_norm = copy.deepcopy(pixel_norm).to(DEVICE)

    def forward(self, image: Tensor) -> Tensor:
        return self.pixel_norm(image.to(DEVICE))


def their_run(
    cfg: TrainConfig, model: DualEncoder, batch: dict, micro_batch: int, steps: int, precision: str
) -> dict:
    """open_clip's loop on ``batch`` in pieces of ``micro_batch``, accumulated where several."""
    rows = len(batch["image"])
    pieces = in_pieces(batch, micro_batch)
    reset_peak()
    towers = copy.deepcopy(model).to(DEVICE)
    batches = Batches(pieces, Standardise(model.pixel_norm))
    log_scale = LogitScale(Clip.default_scale).logit_scale.to(DEVICE)
    loop = OpenClipLoop(towers, log_scale, batches, cfg)
    loop.options.device, loop.options.precision = DEVICE, precision
    loop.options.accum_freq = len(pieces)
    seconds = [seconds_of(loop.run) for _ in range(steps)]
    more = f", accum-freq {len(pieces)}" if len(pieces) > 1 else ""
    return {
        "trainer": f"open_clip{more}",
        "precision": precision,
        "batch": rows,
        "micro_batch": micro_batch,
        "images_per_second": rows / statistics.median(seconds[1:] or seconds),
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "losses": loop.losses(),
    }
