"""What a user says of the data."""

from dataclasses import dataclass
from typing import Literal

MAX_PIXELS = 64_000_000

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
        split: which of a layout's splits ("train", "val", ...), or "all"; where it is empty, the
            one to train on or, of validation data, the one to validate on.
        regions: of Visual Genome, the boxes cropped or the whole pictures.
        upsampling: how often each of the sources that ``::`` separates is drawn, as floats
            separated by ``::``; empty for once each.
        role: the flag that named the data, for sentences; it may go on with a split's name.
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
    role: str = "--train-data"


def is_validation(role: str) -> bool:
    """Whether data of this role are validated on."""
    return role.partition(" ")[0] in ("--val-data", "--imagenet-val")


def flag_of(name: str, role: str) -> str:
    """The flag of the field ``name`` of :class:`DataSpec` for the data of that role."""
    flag = f"--{name.replace('_', '-')}"
    if is_validation(role):
        return {"split": "--val-split", "image_root": "--val-image-root"}.get(name, flag)
    if role == "--train-data":
        own = {"split": "--train-split", "upsampling": "--train-data-upsampling-factors"}
        return own.get(name, flag)
    return flag
