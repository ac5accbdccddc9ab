"""One optimiser step in this process, and by how much it grew: a worker of ``test_training.py``.

``python -m benchmarks.training.step_memory ROOT BATCH STAGE OUT`` under RANK and WORLD_SIZE writes
a JSON to OUT.
"""

import json
import sys
from pathlib import Path


def resident(field: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (peak since the last reset) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def reset_peak() -> None:
    """Let VmHWM start again from the present size (Linux: man 5 proc, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def one_step(root: Path, batch: int, zero_stage: int) -> dict[str, float]:
    """Build a run, take one step, and account for this rank's memory in bytes.

    ``features`` are this rank's features of both towers, ``inputs`` its pictures and tokens.
    """
    from benchmarks.training.setup import build
    from fastclip.training import distributed

    ranks = distributed.start()
    setup = build(root, ranks, batch=batch, zero_stage=zero_stage)
    trainer = setup.trainer(ranks)
    trainer.engine.train()
    reset_peak()
    before = resident("VmRSS")
    setup.loader.begin(0)
    pieces = next(setup.loader.epoch(0))
    metrics = trainer.train_step(pieces)
    growth = resident("VmHWM") - before
    distributed.stop()
    return {
        "growth": growth,
        "before": before,
        "features": 2 * sum(len(p["image"]) for p in pieces) * setup.objective.model.embed_dim * 4,
        "inputs": sum(piece[name].nbytes for piece in pieces for name in ("image", "text")),
        "loss": metrics["contrastive_loss"],
    }


if __name__ == "__main__":
    root, batch, stage, out = sys.argv[1:]
    found = one_step(Path(root), int(batch), int(stage))
    Path(out).write_text(json.dumps(found))
