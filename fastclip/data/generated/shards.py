"""The generated set on disk: pictures of shapes with sentences, tags and labels, in shards."""

import contextlib
import fcntl
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fastclip.data.generated import drawing, grammar
from fastclip.data.generated.samples import (
    SIZES_AND_COUNTS,
    SPLITS,
    GeneratedSpec,
    class_names,
    held_out_classes,
    make_sample,
)
from fastclip.data.progress import Progress
from fastclip.errors import UserError, expand_home

SAMPLES_PER_SHARD = 1000


@dataclass(frozen=True)
class GeneratedSet:
    """A complete generated set on disk."""

    folder: Path
    spec: GeneratedSpec

    @property
    def train(self) -> str:
        """The training shards as one brace pattern."""
        last = _num_shards(self.spec.num_samples) - 1
        return f"{self.folder}/train-{{0000..{last:04d}}}.tar"

    @property
    def val_seen(self) -> str:
        """Pictures of combinations that training sees."""
        return f"{self.folder}/val-seen.tar"

    @property
    def val_held_out(self) -> str:
        """Pictures of combinations that training never sees."""
        return f"{self.folder}/val-held-out.tar"


def generate(out: Path, spec: GeneratedSpec, progress: bool = True) -> GeneratedSet:
    """Write the set to ``out``; a folder that already holds this very set is left as it is.

    The files appear in one rename, complete or not at all. Raises :class:`UserError` when ``out``
    holds anything else or cannot be written.
    """
    out = expand_home(out, "--out").absolute()
    if _holds(out, spec):
        return GeneratedSet(out, spec)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and does not hold this generated set: name another folder")
    building = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        _write(building, spec, progress)
        building.chmod(0o755)
        building.rename(out)
    except OSError as error:
        raise UserError(f"cannot write the generated set to {out}: {error}") from error
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
    return GeneratedSet(out, spec)


def ensure_generated(
    root: Path, spec: GeneratedSpec | None = None, progress: bool = True
) -> GeneratedSet:
    """The set for ``spec`` under ``root``, written there first if it is missing.

    Processes that ask at once wait for one of them to write it.
    """
    spec = spec or GeneratedSpec()
    root = expand_home(root, "--data-root").absolute()
    folder = root / f"generated-{spec.fingerprint()[:12]}"
    if _holds(folder, spec):
        return GeneratedSet(folder, spec)
    with _locked(root / f".{folder.name}.lock"):
        for abandoned in root.glob(f".{folder.name}.*"):
            if abandoned.is_dir():
                shutil.rmtree(abandoned, ignore_errors=True)
        return generate(folder, spec, progress)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UserError(f"cannot write the generated set to {path.parent}: {error}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holds(folder: Path, spec: GeneratedSpec) -> bool:
    try:
        found = json.loads((folder / "generated.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("fingerprint") == spec.fingerprint()


def _num_shards(num_samples: int) -> int:
    return -(-num_samples // SAMPLES_PER_SHARD)


def _write(folder: Path, spec: GeneratedSpec, progress: bool) -> None:
    sizes = {}
    total = spec.num_samples + 2 * spec.num_val
    with Progress(
        f"drawing the generated set into {folder.parent}", total, "picture", progress
    ) as bar:
        for number in range(_num_shards(spec.num_samples)):
            first = number * SAMPLES_PER_SHARD
            last = min(first + SAMPLES_PER_SHARD, spec.num_samples)
            name = f"train-{number:04d}.tar"
            sizes[name] = _write_shard(folder / name, spec, "train", range(first, last), bar)
        for split in SPLITS[1:]:
            name = f"{split}.tar"
            sizes[name] = _write_shard(folder / name, spec, split, range(spec.num_val), bar)
    held_out = held_out_classes(spec.seed)
    captions = [
        grammar.phrases(s, c, SIZES_AND_COUNTS) for s in drawing.SHAPES for c in drawing.COLORS
    ]
    classes = {"classes": class_names(), "held_out": held_out, "captions": captions}
    _write_json(folder / "classes.json", classes)
    _write_json(folder / "sizes.json", sizes)
    manifest = {"fingerprint": spec.fingerprint(), **asdict(spec)}
    _write_json(folder / "generated.json", manifest)


def _write_shard(path: Path, spec: GeneratedSpec, split: str, indices: range, bar: Progress) -> int:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index in indices:
            for extension, data in make_sample(spec, split, index).items():
                member = tarfile.TarInfo(f"{index:05d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            bar.update()
    return len(indices)


def _write_json(path: Path, content) -> None:
    with path.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
