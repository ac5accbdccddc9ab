"""A frozen BERT that is opened when its states are first asked for."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastclip.errors import UserError
from fastclip.models.text_encoder import TextEncoder, open_text_encoder


class LazyTextEncoder:
    """The BERT of a trained model, which is no part of it.

    Args:
        name: its folder, or a name that transformers knows.
        fingerprint: of the weights that the model was trained with.
        opened: the encoder where it is open already; copies of this object are not open.
    """

    def __init__(self, name: str, fingerprint: str, opened: TextEncoder | None = None) -> None:
        self.name, self.fingerprint, self._opened = name, fingerprint, opened

    def open(self) -> TextEncoder:
        """The encoder. Raises :class:`UserError` where it is missing or has other weights."""
        if self._opened is None:
            encoder = open_text_encoder(self.name)
            if encoder.fingerprint != self.fingerprint:
                raise UserError(
                    f"--text-encoder {self.name} has other weights than the model was trained "
                    f"with: {encoder.fingerprint[:12]}, expected {self.fingerprint[:12]}"
                )
            self._opened = encoder
        return self._opened

    def states(self, ids: Tensor) -> Tensor:
        """Ids int64 ``[b, L]`` to fp32 ``[b, L, width]`` on their device, zeros at padding."""
        return self.open().states(ids)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}
