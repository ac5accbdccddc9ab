"""What a user says of the data."""

from dataclasses import dataclass
from typing import Literal

MAX_PIXELS = 64_000_000

SPLITS = frozenset(
    ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")
)
"""Names of folders and files that are splits, as Hugging Face has them."""

Decode = Literal["auto", "whole", "scaled", "pillow"]
DatasetType = Literal[
    "auto",
    "webdataset",
    "csv",
    "coco",
    "karpathy",
    "lavis",
    "visual-genome",
    "flickr",
    "image-folder",
    "voc",
    "parquet",
    "synthetic",
]


@dataclass(frozen=True)
class DataSpec:
    """What to read and how; the fields are the flags of the same names.

    Attributes:
        path: shards (braces, ``*`` and ``::``), an annotation or csv file, a folder.
        num_samples: samples an epoch; known from the data where it is left out.
        image_root: folder of the pictures that an annotation file names; beside it, if empty.
        split: which of a layout's splits ("train", "val", ...); all records where it is empty.
        regions: of Visual Genome, the boxes cropped or the whole pictures.
        upsampling: how often each of the sources that ``::`` separates is drawn, as floats
            separated by ``::``; empty for once each.
        read_timeout: seconds for which a pipe or file may give nothing before it is booked as lost.
    """

    path: str = ""
    dataset_type: DatasetType = "auto"
    num_samples: int | None = None
    csv_img_key: str = "filepath"
    csv_caption_key: str = "title"
    csv_separator: str = "\t"
    image_root: str = ""
    split: str = ""
    regions: Literal["crop", "whole"] = "crop"
    upsampling: str = ""
    max_bad_share: float = 0.01
    max_pixels: int = MAX_PIXELS
    decode: Decode = "auto"
    read_timeout: float = 60.0
