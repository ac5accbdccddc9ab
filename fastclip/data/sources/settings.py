"""Settings that a source has no use for are refused or told, never ignored in silence."""

import logging
from collections.abc import Collection

from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

logger = logging.getLogger(__name__)

_OF_SOME = ("csv_img_key", "csv_caption_key", "csv_separator", "image_root", "regions")


def check_settings(spec: DataSpec, kind: str, uses: Collection[str] = ()) -> None:
    """Judge the settings of ``spec`` that are not in ``uses``, names of fields of it.

    A split that cannot be taken raises :class:`UserError`. The others are told in one line: train
    and validation data of different kinds share them. ``kind`` is what the source is, such as
    "a csv file".
    """
    if spec.split and "split" not in uses:
        raise UserError(
            f"{spec.path} is {kind}, which has no splits, and the split {spec.split!r} of it was "
            "asked for"
        )
    default = DataSpec()
    unused = [
        f"--{name.replace('_', '-')} {getattr(spec, name)!r}"
        for name in _OF_SOME
        if name not in uses and getattr(spec, name) != getattr(default, name)
    ]
    if unused:
        logger.warning("%s is %s, which has no use for %s", spec.path, kind, ", ".join(unused))
