"""What an objective can ask of a record: one field a file."""

from fastclip.data.fields.base import Field
from fastclip.data.fields.caption import CAPTION
from fastclip.data.fields.captions import CAPTIONS
from fastclip.data.fields.id import ID
from fastclip.data.fields.label import LABEL
from fastclip.data.fields.labels import LABELS
from fastclip.data.fields.mask_seed import MASK_SEED
from fastclip.data.fields.picture import PICTURE
from fastclip.data.fields.tags import TAGS
from fastclip.data.fields.text import TEXT

__all__ = [
    "CAPTION",
    "CAPTIONS",
    "Field",
    "ID",
    "LABEL",
    "LABELS",
    "MASK_SEED",
    "PICTURE",
    "TAGS",
    "TEXT",
]
