"""Every layout of data: a module of this package each, and one line here.

A module has ``detects(path: Path, head: bytes) -> bool``, which tells by a path that exists and by
the first :data:`HEAD_BYTES` of its file (none of a folder), and ``open_source(spec: DataSpec,
wanted: frozenset[str]) -> AnySource``. Shards alone are told by ``detecting``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from fastclip.data.sources.base import AnySource
from fastclip.data.sources.spec import DatasetType, DataSpec

HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Layout:
    """A layout by its name, as in ``--dataset-type``.

    Attributes:
        module: that reads it.
        records: what is a record there.
        settings: fields of ``DataSpec`` that it reads and most do not.
        takes_several: whether its module expands ``::``, braces and ``*`` itself.
    """

    name: DatasetType
    module: str
    records: str
    settings: Sequence[str] = ()
    takes_several: bool = False

    def detects(self, path: Path, head: bytes) -> bool:
        """Whether what lies at ``path`` is of this layout."""
        return self._module.detects(path, head)

    def open_source(self, spec: DataSpec, wanted: frozenset[str]) -> AnySource:
        """The source that ``spec`` names."""
        return self._module.open_source(spec, wanted)

    @property
    def _module(self):
        # Imported when it is needed: most runs read one layout.
        return import_module(f"fastclip.data.sources.{self.module}")


_CSV_COLUMNS = ("csv_img_key", "csv_caption_key", "csv_separator")
LAYOUTS = (
    Layout("webdataset", "webdataset", "a key of a shard", takes_several=True),
    Layout("parquet", "parquet", "a row", ("split",), takes_several=True),
    Layout("voc", "voc", "a picture with the classes of its objects", ("split",)),
    Layout("image-folder", "image_folder", "a picture, or a row of metadata", ("split",)),
    Layout("flickr", "flickr", "a picture with all its captions", ("image_root",)),
    Layout("csv", "csv_file", "a row", (*_CSV_COLUMNS, "image_root")),
    Layout("karpathy", "karpathy", "a picture with all its captions", ("image_root", "split")),
    Layout(
        *("visual-genome", "visual_genome", "a region, or with --regions whole a picture"),
        settings=("image_root", "regions"),
    ),
    Layout("lavis", "lavis", "a picture with all its captions", ("image_root",)),
    Layout("coco", "coco", "a picture with all its captions or classes", ("image_root",)),
    Layout("synthetic", "generated", "a key of a shard"),
)
"""In the order in which a path is held against them."""


def layout_named(name: DatasetType) -> Layout:
    """The layout of that name."""
    return next(layout for layout in LAYOUTS if layout.name == name)
