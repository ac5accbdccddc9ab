"""One large contrastive step on one device, ours and open_clip's: ``train_step OUT.json``.

Ours is the trainer with its feature cache under DeepSpeed. open_clip's is its own training loop
around the same towers, at the largest batch that fits without accumulation, then with
``--accum-freq`` up to the whole batch. Pictures and captions are random, so that speed and memory
are all that a run says, beside one check: the first losses of both on the whole batch are of the
same weights, and where they differ the two did not do the same work. What was found is written
after every part, so that a run that is stopped keeps it.
"""

import argparse
import json
import re
from pathlib import Path

import torch

from benchmarks.gpu.clock import DEVICE
from benchmarks.gpu.step_runs import STEPS, first_rows, our_run, random_batch, their_run
from benchmarks.losses.peers import first_line
from fastclip.models import DualEncoder, create_model
from fastclip.training.config import TrainConfig, train_config

# Of open_clip accumulated; the first one's time is left out.
ACCUMULATED_STEPS = 2
# Largest relative difference of first losses that rounding in bf16 explains.
LOSS_DIFFERENCE = 1e-2
SMALLEST = 256


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
