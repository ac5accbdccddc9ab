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
        is_called: in sentences.
        settings: fields of ``DataSpec`` that it reads and most do not.
        takes_several: whether its module expands ``::``, braces and ``*`` itself.
    """

    name: DatasetType
    module: str
    is_called: str
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
    Layout("webdataset", "webdataset", ".tar, .tar.gz and .tgz shards", takes_several=True),
    Layout("parquet", "parquet", ".parquet files with pictures", ("split",), takes_several=True),
    Layout("voc", "voc", "VOC folders", ("split",)),
    Layout("image-folder", "image_folder", "folders of pictures", ("split",)),
    Layout("flickr", "flickr", "Flickr's .token, .txt and .csv files", ("image_root",)),
    Layout("csv", "csv_file", ".csv and .tsv files", (*_CSV_COLUMNS, "image_root")),
    Layout("karpathy", "karpathy", "Karpathy's .json files", ("image_root", "split")),
    Layout("visual-genome", "visual_genome", "Visual Genome's regions", ("image_root", "regions")),
    Layout("lavis", "lavis", "LAVIS's .json files", ("image_root",)),
    Layout("coco", "coco", "COCO's .json files", ("image_root",)),
    Layout("synthetic", "generated", "the generated set"),
)
"""In the order in which a path is held against them."""


def layout_named(name: DatasetType) -> Layout:
    """The layout of that name."""
    return next(layout for layout in LAYOUTS if layout.name == name)
