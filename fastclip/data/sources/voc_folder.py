"""Where the files of a year of PASCAL VOC lie."""

from pathlib import Path

from fastclip.data.bad_records import BadRecord, listed
from fastclip.data.sources.extensions import is_hidden, is_picture
from fastclip.data.sources.folder_walk import several
from fastclip.data.sources.split_choice import ALL
from fastclip.data.sources.texts import printable
from fastclip.errors import UserError

ANNOTATIONS, PICTURES, SPLITS = _FOLDERS = "Annotations", "JPEGImages", "ImageSets/Main"


def is_year(folder: Path) -> bool:
    """Whether ``folder`` looks like a year of VOC, from which one folder may be missing."""
    return len(_missing(folder)) <= 1


def check_whole(years: list[Path]) -> None:
    """Raise :class:`UserError` for a year without annotations or pictures."""
    for year in years:
        for name in _missing(year):
            if name != SPLITS:
                has = listed([folder for folder in _FOLDERS if folder != name])
                raise UserError(f"{year} has {has}, as VOC does, but no folder {name}")


def _missing(folder: Path) -> list[str]:
    return [name for name in _FOLDERS if not (folder / name).is_dir()]


def years_of(root: Path) -> list[Path]:
    """``root`` itself, or all years in it (or in a ``VOCdevkit`` in it), sorted."""
    if is_year(root):
        return [root]
    for folder in (root, root / "VOCdevkit"):
        if folder.is_dir():
            years = sorted(path for path in folder.iterdir() if is_year(path))
            if years:
                return years
    return []


def split_ids(years: list[Path], split: str, name: str) -> list[tuple[Path, str]]:
    """(year, id) of all pictures of a split, in the order of its lists.

    All annotations, sorted, where ``split`` is "all". Raises :class:`UserError` for a split that no
    year has; ``name`` is what the data are called.
    """
    if split == ALL:
        return [(year, path.stem) for year in years for path in _annotations(year)]
    lists = [(year, year / SPLITS / f"{split}.txt") for year in years]
    found = [(year, path) for year, path in lists if path.is_file()]
    if not found or "/" in split:
        plain = splits_of(years)
        has = f"it has {listed(plain)}" if plain else f"{SPLITS} has no list"
        raise UserError(f"{name} has no split {split!r}: {has}")
    return [(year, line) for year, path in found for line in _lines(path)]


def splits_of(years: list[Path]) -> list[str]:
    """Names of the splits that any year lists, sorted."""
    names = {path.stem for year in years for path in (year / SPLITS).glob("*.txt")}
    # Beside them lie lists of each class, such as dog_train.txt.
    return sorted(names - {name for name in names if name.rpartition("_")[2] in names - {name}})


def _annotations(year: Path) -> list[Path]:
    found = (year / ANNOTATIONS).glob("*.xml")
    return sorted(path for path in found if not is_hidden(path.name))


def _lines(path: Path) -> list[str]:
    """The first word of each line: lists of a class have a second."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def pictures_of(year: Path) -> dict[str, list[str]]:
    """File names of pictures by what comes before the last dot; sorted."""
    found: dict[str, list[str]] = {}
    for path in sorted((year / PICTURES).iterdir()):
        if is_picture(path.name) and (path.is_file() or path.is_symlink()):
            found.setdefault(path.stem, []).append(path.name)
    return found


def unused(year: Path, used: set[str], pictures: dict[str, list[str]]) -> list[BadRecord]:
    """A problem for the pictures of a year that no annotation is about."""
    names = [printable(n) for stem, names in pictures.items() if stem not in used for n in names]
    return [several(str(year / PICTURES), "picture has no annotation", names)] if names else []
