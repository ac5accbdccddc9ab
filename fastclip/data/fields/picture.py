"""The picture itself. Decoders are imported where they are used, so that naming it is cheap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from fastclip.data.bad_records import BadValueError
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import is_missing, shown
from fastclip.data.sources.base import CroppedPicture

if TYPE_CHECKING:
    from fastclip.data.decode.opening import Opened
    from fastclip.data.fields.reading import Reading


class Picture(Field):
    """A column ``image``, uint8 ``[b, 3, S, S]``, RGB."""

    name: ClassVar[str] = "picture"
    column: ClassVar[str] = "image"
    values: ClassVar[tuple[str, ...]] = ("picture",)
    found_in: ClassVar[str] = "a picture file"

    def read(self, values: Mapping[str, Any], reading: Reading) -> Opened:
        """The picture, judged by its header."""
        raw = values.get("picture")
        if is_missing(raw):
            raise NotHeldError(self.name)
        from fastclip.data.decode.opening import open_picture

        if not isinstance(raw, bytes | Path | CroppedPicture):
            raise BadValueError("picture is neither bytes nor a file", shown(raw))
        return open_picture(raw, reading.max_pixels)

    def keep(self, value: Opened, reading: Reading) -> Opened:
        """Decoded whole or still encoded, whichever gives the same crops later."""
        return value.kept(reading)

    def build(self, value: Opened, draw: Draw | None, reading: Reading) -> torch.Tensor:
        """The crop, uint8 ``[3, S, S]``: drawn in training, the middle otherwise."""
        from fastclip.data.decode.crop import evaluation_crop, training_crop

        if draw is None or reading.augment is None:
            return evaluation_crop(value, reading)
        return training_crop(value, draw, reading)

    def collate(
        self, built: Sequence[torch.Tensor], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """The column; what is left of the augmentation is done a batch at a time."""
        from fastclip.data.augment import augment

        pictures = torch.stack(list(built))
        if draws is not None and reading.augment is not None:
            pictures = augment(pictures, draws, reading.augment)
        return {self.column: pictures}


PICTURE = Picture()
