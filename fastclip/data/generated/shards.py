"""The generated set: pictures of shapes with sentences, tags and class labels, from a seed.

Every sample depends on (seed, split, index) only. Some shape x color combinations are held out:
training never sees them, though it sees each of their shapes and colors.
"""

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastclip.data.generated import drawing, grammar, layout
from fastclip.data.progress import Progress
from fastclip.errors import UserError, expand_home

# Part of the cache key: raise it whenever the same spec would give other bytes.
GENERATOR_VERSION = 4
SAMPLES_PER_SHARD = 1000
DIAMETERS = {"small": 0.39, "medium": 0.45, "large": 0.70}
SPLITS = ("train", "val-seen", "val-held-out")


@dataclass(frozen=True)
class GeneratedSpec:
    """What the set depends on; equal specs give equal bytes."""

    num_samples: int = 20_000
    """Training pictures."""
    num_val: int = 1_024
    """Pictures in each of val-seen and val-held-out."""
    picture_size: int = 32
    """Side of the square pictures in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_samples", 1), ("num_val", 1), ("picture_size", 16), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(
                    f"generated set: {name} is {getattr(self, name)}, expected {least} or more"
                )

    def fingerprint(self) -> str:
        """SHA-256 over the spec and the generator's version."""
        text = json.dumps({**asdict(self), "version": GENERATOR_VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


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


def class_names() -> list[str]:
    """All 64 class names; a label is an index into this list."""
    return [grammar.class_name(s, c) for s in drawing.SHAPES for c in drawing.COLORS]


def held_out_classes(seed: int) -> list[int]:
    """The held-out labels, sorted: two colors of each shape and two shapes of each color."""
    shapes, colors = len(drawing.SHAPES), len(drawing.COLORS)
    rng = np.random.default_rng([seed, len(SPLITS)])
    first = rng.permutation(colors)
    second = first[(np.arange(shapes) + rng.integers(1, shapes)) % shapes]
    return sorted(int(s * colors + c[s]) for c in (first, second) for s in range(shapes))


@functools.cache
def split_classes(split: str, seed: int) -> tuple[int, ...]:
    """Labels that may appear in ``split``, sorted."""
    held_out = held_out_classes(seed)
    if split == "val-held-out":
        return tuple(held_out)
    return tuple(label for label in range(len(class_names())) if label not in held_out)


def make_sample(spec: GeneratedSpec, split: str, index: int) -> dict[str, bytes]:
    """One record: ``png``, ``txt``, ``json`` (tags and attributes) and ``cls`` as bytes."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), index])
    labels = split_classes(split, spec.seed)
    label = labels[index % len(labels)]
    shape = drawing.SHAPES[label // len(drawing.COLORS)]
    color = list(drawing.COLORS)[label % len(drawing.COLORS)]
    size, count = _SIZES_AND_COUNTS[rng.integers(len(_SIZES_AND_COUNTS))]
    diameter = DIAMETERS[size] * rng.uniform(0.94, 1.06)
    place, centers = layout.place_shapes(count, diameter, rng)
    background = drawing.BACKGROUNDS[rng.integers(len(drawing.BACKGROUNDS))]
    tone = list(drawing.TONES)[rng.integers(len(drawing.TONES))]
    attributes = grammar.Attributes(shape, color, size, count, place, background, tone)
    caption = grammar.sentence(attributes, rng)
    scene = drawing.Scene(shape, color, diameter, centers, background, tone)
    png = io.BytesIO()
    Image.fromarray(drawing.draw(scene, spec.picture_size, rng)).save(png, "PNG", compress_level=1)
    return {
        "cls": str(label).encode(),
        "json": json.dumps({**asdict(attributes), "tags": attributes.tags()}).encode(),
        "png": png.getvalue(),
        "txt": caption.encode(),
    }


_SIZES_AND_COUNTS = (
    ("small", 1),
    ("medium", 1),
    ("medium", 1),
    ("large", 1),
    ("large", 1),
    ("small", 2),
    ("medium", 2),
    ("small", 3),
    ("small", 4),
)


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
        grammar.phrases(s, c, _SIZES_AND_COUNTS) for s in drawing.SHAPES for c in drawing.COLORS
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
