"""One large contrastive step on one device, ours and open_clip's: ``train_step OUT.json``.

Ours is the trainer with its feature cache under DeepSpeed. open_clip's is its own training loop
around the same towers, at the largest batch that fits without accumulation, then with
``--accum-freq`` up to the whole batch. Pictures and captions are random, so that speed and memory
are all that a run says, beside one check: the first losses of both on the whole batch are of the
same weights, and where they differ the two did not do the same work. What was found is written
after every part, so that a run that is stopped keeps it.
"""

import argparse
import copy
import gc
import json
import re
import resource
import statistics
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from benchmarks.gpu.clock import DEVICE, synchronise
from benchmarks.losses.peers import first_line
from benchmarks.training.open_clip_loop import Batches, OpenClipLoop
from fastclip.models import DualEncoder, create_model
from fastclip.objectives.clip import Clip
from fastclip.objectives.scalars import LogitScale
from fastclip.training import deepspeed_config, distributed
from fastclip.training.config import TrainConfig, train_config
from fastclip.training.trainer import Trainer

# Of ours and of open_clip at its largest batch, and of open_clip accumulated; the first one's time
# is left out.
STEPS, ACCUMULATED_STEPS = 3, 2
# Largest relative difference of first losses that rounding in bf16 explains.
LOSS_DIFFERENCE = 1e-2
SMALLEST = 256
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


_NO_MEMORY = re.compile("out of memory|ALLOC_FAILED", re.IGNORECASE)


def fits(run) -> dict | None:
    """What ``run`` returns, None where the device's memory does not hold it."""
    try:
        return run()
    except RuntimeError as error:
        # Libraries beneath torch say it in their own words.
        if isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
            return None
        raise


def largest(cfg: TrainConfig, model: DualEncoder, batch: dict, precision: str) -> dict | None:
    """open_clip's loop at the largest power-of-two batch that fits, whole."""
    best, rows = None, min(SMALLEST, len(batch["image"]))
    while rows <= len(batch["image"]):
        part = first_rows(batch, rows)
        found = fits(lambda part=part, n=rows: their_run(cfg, model, part, n, STEPS, precision))
        if found is None:
            return best
        best, rows = found, 2 * rows
    return best


def accumulated(
    cfg: TrainConfig, model: DualEncoder, batch: dict, micro_batch: int, precision: str
) -> dict | None:
    """open_clip's loop on the whole batch, in the largest pieces that fit."""
    steps = ACCUMULATED_STEPS
    while micro_batch >= 1:
        found = fits(lambda n=micro_batch: their_run(cfg, model, batch, n, steps, precision))
        if found is not None:
            return found
        micro_batch //= 2
    return None


def difference(ours: dict, theirs: dict) -> str | None:
    """What is to be said of first losses on the whole batch that should be equal and are not."""
    our_loss, their_loss = ours["losses"][0], theirs["losses"][0]
    # Not (difference > bar): NaN must not pass.
    if abs(our_loss - their_loss) <= LOSS_DIFFERENCE * abs(their_loss):
        return None
    return (
        f"first loss {our_loss:.4g} of {ours['trainer']}, {their_loss:.4g} of {theirs['trainer']}"
    )


def measure(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    found: dict = {"model": args.model, "batch": args.batch, "runs": [], "left_out": {}}

    def write() -> None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")

    cfg = train_config(
        model=args.model,
        train_batch_size=args.batch,
        train_micro_batch_size_per_gpu=args.micro_batch,
        zero_stage=1,
        lr=1e-4,
        workspace_mib=256,
    )
    found["precision"] = precision = "amp_bf16" if DEVICE == "cuda" else "fp32"
    model = create_model(args.model)
    batch = random_batch(model, args.batch, args.vocabulary)

    def add(name: str, run) -> dict | None:
        try:
            entry = run()
        except Exception as error:
            found["left_out"][name] = f"{type(error).__name__}: {first_line(error)}"
            entry = None
        else:
            if entry is None:
                found["left_out"][name] = "nothing fits the memory"
            else:
                found["runs"].append(entry)
        write()
        return entry

    ours = add("fastclip", lambda: our_run(cfg, model, batch))
    theirs = whole = add("open_clip", lambda: largest(cfg, model, batch, precision))
    if whole is not None and whole["batch"] < args.batch:
        pieces, name = whole["batch"], "open_clip, accumulated"
        theirs = add(name, lambda: accumulated(cfg, model, batch, pieces, precision))
    if ours is not None and theirs is not None and (why := difference(ours, theirs)):
        found["left_out"]["comparison"] = why
        write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--micro-batch", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=49_408, help="of the model's preset")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
