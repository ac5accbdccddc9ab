"""Flags of the decoder that objectives with captions share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastclip.errors import check_flags


@dataclass(kw_only=True)
class DecoderOptions:
    """Flags of the decoder that objectives with captions share."""

    decoder_width: int | None = None
    """Width of the decoder's states; the model's own where left out."""
    decoder_layers: int | None = None
    """Layers of the decoder; the model's own where left out."""
    decoder_heads: int | None = None
    """Attention heads of the decoder; the model's own where left out."""

    def __post_init__(self) -> None:
        check_flags(self, ("decoder_width", "decoder_heads"), "1 or more", lambda n: n >= 1)
        check_flags(self, ("decoder_layers",), "1 to 1000", lambda n: 1 <= n <= 1000)

    def of_decoder(self) -> dict[str, Any]:
        """Keyword arguments for the model; None stands for the preset's own."""
        return {
            "decoder_width": self.decoder_width,
            "decoder_layers": self.decoder_layers,
            "decoder_heads": self.decoder_heads,
        }
