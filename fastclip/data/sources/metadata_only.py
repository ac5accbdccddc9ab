"""Files that list urls of pictures: CC3M, CC12M, LAION, COYO, SBU as they are published."""

import re
from collections.abc import Iterable

from fastclip.errors import UserError

_URL = re.compile(r"\s*(https?|ftp|s3|gs)://", re.IGNORECASE)
_URL_COLUMNS = {"url", "urls", "image_url", "image_urls", "img_url", "imageurl", "image url"}


def is_url(value: object) -> bool:
    """Whether a picture's column holds an address, not a file's name."""
    return isinstance(value, str) and bool(_URL.match(value))


def are_urls(columns: Iterable[str]) -> bool:
    """Whether a header names a column of urls, or is itself a row with one."""
    return any(is_url(c) or c.strip().strip('"').lower() in _URL_COLUMNS for c in columns)


def refusal(name: str) -> UserError:
    """The sentence on the file ``name`` that lists urls."""
    return UserError(
        f"{name} lists urls of pictures, not pictures: download them with img2dataset, which "
        "writes webdataset shards, and name those"
    )
