"""Which parquet files a path means, and what their footers say."""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from fastclip.data.bad_records import listed
from fastclip.data.sources.extensions import is_hidden
from fastclip.data.sources.parquet_columns import ParquetColumns, parquet_columns
from fastclip.data.sources.shard_list import expand
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.split_choice import ALL, SPLITS, SplitChoice, choose_split
from fastclip.errors import UserError


@dataclass(frozen=True)
class ParquetFile:
    """A file whose footer was read.

    Attributes:
        short: its name in keys: unique, without folders that all share and without its ending.
        rows: of each row group.
        bytes: the file's size.
        error: why it cannot be read; it has no columns and no rows then.
    """

    path: Path
    short: str
    columns: ParquetColumns | None = None
    rows: Sequence[int] = ()
    bytes: int = 0
    error: str = ""


def find_files(pattern: str, split: str) -> list[Path]:
    """The files of a folder, or of a pattern with braces, ``*`` and ``::``.

    Where ``split`` is neither "" nor "all", those that are named ``train.parquet``,
    ``train-00000-of-00002.parquet`` and so on, or lie in a folder ``train``. Raises
    :class:`UserError` where there is none.
    """
    found: list[Path] = []
    for one in pattern.split("::"):
        if Path(one).is_dir():
            inside = glob.glob(f"{glob.escape(one)}/**/*.parquet", recursive=True)
            found += [path for path in map(Path, sorted(inside)) if path.is_file()]
        else:
            found += map(Path, expand(one))
    found = [path for path in found if not is_hidden(path.name)]
    if not found:
        raise UserError(f"{pattern} holds no file that ends in .parquet")
    if split in ("", ALL):
        return found
    of_split = [path for path in found if split in _splits(path)]
    if not of_split:
        splits = sorted({path.stem.split("-")[0] for path in found})
        raise UserError(f"{pattern} has no split {split!r}: its files begin with {listed(splits)}")
    return of_split


def split_files(
    spec: DataSpec, files: Sequence[ParquetFile]
) -> tuple[list[ParquetFile], SplitChoice | None]:
    """Those of ``files`` of the split that is read, where they are of several and none is named.

    A file that the user named, rather than its folder or a pattern, is read whatever its split.
    """
    named = {Path(one) for one in spec.path.split("::") if Path(one).is_file()}
    split_of = {file.path: _split_of(file.path) for file in files if file.path not in named}
    if spec.split not in ("", ALL) or not SPLITS.intersection(split_of.values()):
        return list(files), None
    counts: Counter[str] = Counter()
    for file in files:
        if file.path in split_of:
            counts[split_of[file.path]] += sum(file.rows)
    choice = choose_split(spec, counts, counts.total(), "rows")
    taken = {file for file in split_of if choice.is_all or split_of[file] == choice.taken} | named
    return [file for file in files if file.path in taken], choice


def _split_of(path: Path) -> str:
    """The split that a file's name begins with or its folder is named after."""
    names = _splits(path)
    return next((name for name in names if name in SPLITS), names[1])


def _splits(path: Path) -> tuple[str, str, str]:
    return path.stem, path.stem.split("-")[0], path.parent.name


def read_footers(paths: Sequence[Path]) -> list[ParquetFile]:
    """The files with what their footers say; one that cannot be read says why."""
    files = []
    for path, short in zip(paths, _short_names(paths), strict=True):
        try:
            with path.open("rb") as file:
                footer = pq.read_metadata(file)
                columns = parquet_columns(footer.schema.to_arrow_schema())
                rows = [footer.row_group(n).num_rows for n in range(footer.num_row_groups)]
            files.append(ParquetFile(path, short, columns, rows, path.stat().st_size))
        except Exception as error:  # pyarrow raises nearly anything for a broken footer
            files.append(ParquetFile(path, short, error=one_line(error)))
    return files


def one_line(error: Exception) -> str:
    """What pyarrow says is wrong, which may be several lines."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _short_names(paths: Sequence[Path]) -> list[str]:
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        whole = [path.absolute().parts for path in paths]
        places = zip(*whole, strict=False)
        shared = next((n for n, parts in enumerate(places) if len(set(parts)) > 1), 0)
        names = ["/".join(parts[shared:]).removesuffix(".parquet") for parts in whole]
    return names
