"""Which layout a path has: told by its ending, then by what the file begins with."""

import re
from pathlib import Path

from fastclip.data.sources.annotated_folder import refuse_annotated
from fastclip.data.sources.extensions import extension, is_hidden, is_picture
from fastclip.data.sources.json_file import outline, read_json
from fastclip.data.sources.registry import HEAD_BYTES, LAYOUTS, Layout, layout_named
from fastclip.data.sources.rows import cannot_read
from fastclip.data.sources.shard_list import expand, is_local, is_pattern
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

_SHARD = re.compile(r"\.(tar|tgz)\b", re.IGNORECASE)
_USTAR = slice(257, 262)
"""Where a tar file says that it is one."""
_COLUMNS = (DataSpec.csv_img_key, DataSpec.csv_caption_key)


def layouts_of(spec: DataSpec, role: str = "--train-data") -> list[tuple[str, Layout]]:
    """The paths that ``::`` separates, each with its layout.

    ``role`` is the flag that named the data, for sentences. Raises :class:`UserError` for an empty
    path and for one of no known layout.
    """
    if spec.dataset_type == "synthetic":
        return [(spec.path, layout_named("synthetic"))]
    if not spec.path:
        generated = ", or use --dataset-type synthetic" if role == "--train-data" else ""
        raise UserError(f"no data given: name shards, a file or a folder{generated}")
    paths = spec.path.split("::")
    if not all(path.strip() for path in paths):
        number = next(number for number, path in enumerate(paths, 1) if not path.strip())
        raise UserError(
            f"{role} is {spec.path!r}, of which part {number} of {len(paths)} is empty: expected "
            "data on both sides of each ::"
        )
    if spec.dataset_type != "auto":
        return [(path, layout_named(spec.dataset_type)) for path in paths]
    try:
        names_columns = (spec.csv_img_key, spec.csv_caption_key) != _COLUMNS
        found = [(path, _layout_of(path, names_columns)) for path in paths]
    except OSError as error:
        raise cannot_read(Path(error.filename or spec.path), error) from error
    for path, layout in found:
        if is_pattern(path) and is_local(path) and not layout.takes_several:
            raise UserError(
                f"{path} names several files, but the layout {layout.name} is read from one: "
                "separate them by ::"
            )
    return found


def _layout_of(path: str, names_columns: bool) -> Layout:
    # Shards are told here, because pipes, urls and patterns are no paths that exist.
    shards = layout_named("webdataset")
    if _is_remote_table(path):
        raise UserError(f"{path} is no file of this machine: shards alone are read from a url")
    if not is_local(path) or (_SHARD.search(path) and not Path(path).is_dir()):
        return shards
    # All files of a pattern are of the first one's layout.
    first = Path(expand(path)[0] if is_pattern(path) else path)
    if not first.exists():
        raise UserError(f"there is no file or folder {path}")
    if first.is_dir() and (shard := _shard_alone_in(first)):
        example = first / re.sub(r"\d+", "*", shard)
        raise UserError(f"{path} is a folder of shards: name the shards, e.g. {example}")
    head = _head(first)
    if head[_USTAR] == b"ustar":
        return shards
    for layout in LAYOUTS:
        # A header such as image,caption is Flickr's, unless columns were named.
        if names_columns and layout.name == "flickr":
            continue
        if layout != shards and layout.detects(first, head):
            if layout.name == "image-folder" and first.is_dir():
                refuse_annotated(first)
            return layout
    raise _unknown(first, head)


def _is_remote_table(path: str) -> bool:
    tables = ("csv", "tsv", "json", "jsonl", "parquet", "txt", "token")
    return not is_local(path) and not path.startswith("pipe:") and extension(path) in tables


def _shard_alone_in(folder: Path) -> str | None:
    """The first shard in a folder that has neither folders nor pictures beside it."""
    inside = [path for path in folder.iterdir() if not is_hidden(path.name)]
    if any(path.is_dir() or is_picture(path.name) for path in inside):
        return None
    return min((path.name for path in inside if _SHARD.search(path.name)), default=None)


def _head(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _unknown(path: Path, head: bytes) -> UserError:
    """The sentence on a file of no known layout, by what is in it."""
    if not head:
        return UserError(f"{path} is empty (0 bytes)")
    if is_picture(path.name):
        return UserError(f"{path} is one picture: name the folder that it lies in")
    # What is broken or in another encoding is refused while it is read.
    is_json = extension(path.name) == "json"
    found = f"holds {outline(read_json(path))}" if is_json else f"begins with {ascii(_text(head))}"
    names = ", ".join(layout.name for layout in LAYOUTS if layout.name != "synthetic")
    return UserError(
        f"cannot tell the layout of {path}, which {found}: name it by --dataset-type ({names})"
    )


def _text(head: bytes) -> str | bytes:
    """The first signs of a file, as bytes where they are no text."""
    try:
        return head.decode()[:24]
    except UnicodeDecodeError:
        return head[:12]
