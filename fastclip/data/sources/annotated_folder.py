"""A folder that was named where an annotation file in it was meant."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from fastclip.data.sources.extensions import extension, is_hidden
from fastclip.data.sources.folder_walk import TABLES
from fastclip.data.sources.registry import HEAD_BYTES, Layout, layout_named
from fastclip.data.sources.spec import DatasetType
from fastclip.errors import UserError

_LAYOUTS: tuple[DatasetType, ...] = ("flickr", "karpathy", "visual-genome", "lavis", "coco")
"""Those that one file describes; any csv file could be one, so they do not count."""
_MOST_OPENED = 100


def refuse_annotated(folder: Path) -> None:
    """Raise :class:`UserError` where annotations lie in ``folder`` or below its ``annotations``
    or ``train``.

    Read as an image folder, its captions would be ignored and ``train2017`` be a class. A folder
    with a ``metadata.csv`` or ``.jsonl`` is Hugging Face's, whatever else is in it.
    """
    if any((folder / table).is_file() for table in TABLES):
        return
    for file in islice(_candidates(folder), _MOST_OPENED):
        if layout := _layout_of(file):
            raise UserError(
                f"{folder} holds {file.relative_to(folder)}, a file of the layout {layout.name}: "
                "name that file, or give --dataset-type image-folder to take folders for classes"
            )


def _candidates(folder: Path) -> Iterator[Path]:
    """Files that may be annotations, by their endings."""
    for place in (folder, folder / "annotations", folder / "train"):
        if place.is_dir():
            for path in sorted(place.iterdir()):
                endings = ("json", "csv", "txt", "token")
                if extension(path.name) in endings and not is_hidden(path.name) and path.is_file():
                    yield path


def _layout_of(file: Path) -> Layout | None:
    with file.open("rb") as opened:
        head = opened.read(HEAD_BYTES)
    found = (layout_named(name) for name in _LAYOUTS)
    return next((layout for layout in found if layout.detects(file, head)), None)
