"""Checkpoints that are complete or absent, and that load no code.

A checkpoint is written into a hidden folder, marked complete, flushed and then renamed; the newest
folder with our marker is what ``--resume auto`` takes, never DeepSpeed's ``latest``. Our own state
loads with ``weights_only=True``; DeepSpeed's files load under ``TORCH_FORCE_WEIGHTS_ONLY_LOAD``
with the few globals they need allowed, so a planted pickle is refused.
"""

import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from fastclip.errors import UserError

MARKER = "complete.json"
_STATE = "state_rank{:05d}.pt"


def save(
    folder: Path, step: int, engine: Any, state: dict, *, rank: int, world_size: int, keep: int
) -> Path:
    """Write ``folder/step_<step>`` on all ranks and drop all but the ``keep`` newest.

    ``state`` (this rank's: plain values and tensors) goes beside DeepSpeed's files. Raises
    :class:`UserError` when it cannot be written; nothing half-written is left, and earlier
    checkpoints stay.
    """
    final = folder / f"step_{step:08d}"
    partial = folder / f".partial_{final.name}"
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".partial_*"):
            shutil.rmtree(leftover)
    _barrier(world_size)
    try:
        engine.save_checkpoint(str(partial), tag="deepspeed", save_latest=False)
        torch.save(state, partial / _STATE.format(rank))
        _barrier(world_size)
        if rank == 0:
            marker = {"step": step, "world_size": world_size, "files": _sizes(partial)}
            (partial / MARKER).write_text(json.dumps(marker))
            _flush(partial)
            if final.exists():
                shutil.rmtree(final)
            os.replace(partial, final)
            _flush_folder(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if not isinstance(error, OSError | RuntimeError):
            raise
        raise UserError(
            f"checkpoint {final} could not be written ({_first_line(error)}): free space and run "
            "again with --resume auto, earlier checkpoints are intact"
        ) from error
    if rank == 0:
        for old in complete(folder)[:-keep]:
            # Renamed first: a kill in the middle must not leave half a checkpoint marked complete.
            shutil.rmtree(old.rename(folder / f".partial_{old.name}"))
    _barrier(world_size)
    return final


def complete(folder: Path) -> list[Path]:
    """Folders of the complete checkpoints, oldest first."""
    return sorted(p.parent for p in folder.glob(f"step_*/{MARKER}"))


def is_whole(path: Path) -> bool:
    """Whether every file of a checkpoint is there in full, by its size and its own checksums."""
    try:
        files = json.loads((path / MARKER).read_text())["files"]
        return _sizes(path) == files and all(_is_intact(path / name) for name in files)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _is_intact(file: Path) -> bool:
    """Whether the checksums of a file that torch wrote fit; True for one of another kind."""
    if not zipfile.is_zipfile(file):
        return file.suffix != ".pt"
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() is None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a checkpoint's folder but the marker, by its relative path."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MARKER
    }


def _way_out(path: Path) -> str:
    """Where to go on from when the checkpoint at ``path`` is damaged, as the end of a sentence."""
    earlier = [found for found in complete(path.parent) if found.name < path.name]
    whole = next((found for found in reversed(earlier) if is_whole(found)), None)
    if whole is None:
        return "; no whole checkpoint precedes it"
    return f"; the newest whole one before it is {whole}: continue from that with --resume {whole}"


def set_aside_later(path: Path) -> None:
    """Rename checkpoints of later steps than ``path``, which a run resumed there will make anew."""
    for later in complete(path.parent):
        if later.name > path.name:
            later.rename(later.with_name(f"replaced_{later.name}_{os.getpid()}"))


def load_state(path: Path, *, rank: int, world_size: int) -> dict:
    """This rank's ``state`` of a checkpoint; DeepSpeed's part is left alone."""
    with _told(path):
        written_by = json.loads((path / MARKER).read_text())["world_size"]
    if written_by != world_size:
        raise UserError(
            f"checkpoint {path} was written by {written_by} processes, found {world_size}: "
            f"resume with {written_by}"
        )
    with _told(path):
        return torch.load(path / _STATE.format(rank), weights_only=True, map_location="cpu")


def load_engine(path: Path, engine: Any) -> None:
    """Load DeepSpeed's part of a checkpoint into ``engine``."""
    with _told(path), _weights_only():
        loaded, _ = engine.load_checkpoint(str(path), tag="deepspeed")
    if loaded is None:
        raise UserError(f"checkpoint {path} holds no DeepSpeed state for this run")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what loading can raise into one sentence."""
    try:
        yield
    except pickle.UnpicklingError as error:
        # torch's own words go on to say how to load the file all the same.
        name = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"checkpoint {path} is refused: it holds something other than tensors and plain values"
            f"{f' ({name[1]})' if name else ''}{_way_out(path)}"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError) as error:
        told = _first_line(error)
        raise UserError(f"checkpoint {path} cannot be read: {told}{_way_out(path)}") from error


@contextmanager
def _weights_only() -> Iterator[None]:
    """Refuse every pickled global but the ones that DeepSpeed's own files hold."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    allowed = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _barrier(world_size: int) -> None:
    if world_size > 1:
        dist.barrier()


def _flush(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
