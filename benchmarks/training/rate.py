"""A training loop in a process of its own, an epoch at a time: a worker of ``test_training.py``.

The loops are kept apart because our trainer changes what its process does with freed buffers.
"""

import itertools
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_PATIENCE = 300.0
LOOPS = ("fastclip", "open_clip", "open_clip, buffers kept")


class Loop:
    """The parent's end: builds one of ``LOOPS`` on the pictures under ``root``, then runs epochs.

    ``facts`` are the model, precision and ZeRO stage that it works with.
    """

    def __init__(self, name: str, root: Path, batch: int, steps: int):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        work = (theirs, name, root, batch, steps)
        self._process = context.Process(target=_serve, args=work, daemon=True)
        self._process.start()
        theirs.close()
        self.facts: dict[str, Any] = self._answer()

    def epoch(self) -> list[float]:
        """Run ``steps`` steps; the loss of each."""
        self._ours.send(None)
        return self._answer()

    def _answer(self) -> Any:
        if not self._ours.poll(_PATIENCE):
            raise TimeoutError(f"a training loop gave no answer for {_PATIENCE} s")
        return self._ours.recv()

    def close(self) -> None:
        self._ours.close()
        self._process.join(60)
        self._process.kill()
        self._process.join()


def _serve(parent: Connection, name: str, root: Path, batch: int, steps: int) -> None:
    from fastclip.training import distributed, host_memory

    if name == "open_clip, buffers kept":
        host_memory.keep_large_buffers()
    ranks = distributed.start()
    run, facts = _build(name, root, ranks, batch, steps)
    parent.send(facts)
    try:
        while True:
            parent.recv()
            parent.send(run())
    except (EOFError, OSError):
        distributed.stop()


def _build(
    name: str, root: Path, ranks: Any, batch: int, steps: int
) -> tuple[Callable[[], list[float]], dict[str, Any]]:
    from benchmarks.training.setup import build

    setup = build(root, ranks, batch=batch, zero_stage="auto")
    setup.loader.begin(0)
    batches = list(itertools.islice(setup.loader.epoch(0), steps))
    facts = {
        "model": setup.cfg.model.model,
        "precision": setup.precision,
        "zero_stage": setup.deepspeed["zero_optimization"]["stage"],
    }
    if name == "fastclip":
        trainer = setup.trainer(ranks)
        trainer.engine.train()
        return lambda: [trainer.train_step(batch)["contrastive_loss"] for batch in batches], facts

    from benchmarks.training.open_clip_loop import Batches, OpenClipLoop

    model, scalars = setup.objective.model, setup.objective.scalars
    given = Batches([whole for [whole] in batches], model.pixel_norm)
    theirs = OpenClipLoop(model, scalars.logit_scale, given, setup.cfg)

    def epoch() -> list[float]:
        theirs.run()
        return theirs.losses()[-steps:]

    return epoch, facts
