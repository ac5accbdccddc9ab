"""What a resumed run must share with the run that it continues."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastclip.errors import UserError

if TYPE_CHECKING:
    from fastclip.training.trainer import Trainer

Shared = dict[str, Any]

_DIGEST = re.compile("[0-9a-f]{32,}")
_READ_BY = {"--train-data": " files, split, columns and other flags that say what is read"}


def made_with(trainer: Trainer) -> Shared:
    """What the steps of ``trainer`` depend on, by the name of the flag that sets it."""
    cfg = trainer.cfg
    return {
        "--objective": cfg.run.objective,
        **trainer.objective.identity(),
        "--model": cfg.model.model,
        "tokenizer (--tokenizer, --vocab-size and the captions)": trainer.fingerprint[:12],
        **trainer.loader.identity(),
        "--zero-stage": trainer.zero_stage,
        "--precision": trainer.precision,
        "--seed": cfg.run.seed,
        "--train-micro-batch-size-per-gpu": trainer.micro_batch,
        # DeepSpeed's ZeRO optimizers take it from the checkpoint, whatever the flag says.
        "--grad-clip-norm": cfg.optim.grad_clip_norm,
        "--opt": cfg.optim.opt,
        "--lookahead-k": cfg.optim.lookahead_k,
    }


def check(path: Path, before: Shared, now: Shared) -> None:
    """Raise :class:`UserError` where a checkpoint was made with something else than this run."""
    for what, found in now.items():
        if before.get(what) == found:
            continue
        if isinstance(found, str) and _DIGEST.search(found):
            # Digests of what was read would tell a reader nothing.
            raise UserError(
                f"checkpoint {path} was made with other contents of {what} than this run has: "
                f"resume with the same{_READ_BY.get(what, '')}"
            )
        raise UserError(
            f"checkpoint {path} was made with {what} {before.get(what)}, this run has {found}: "
            "resume with the same"
        )
