"""A frozen BERT: texts to states, each text once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastclip.errors import UserError, expand_home
from fastclip.models.fingerprint import weights_fingerprint

CACHE_BYTES = 1 << 30
_ROWS, _PLACES = 16, 8
_FLAG = "--text-encoder"


class TextEncoder(nn.Module):
    """Token ids to the last states of a ``BertModel`` of transformers, without gradients.

    States are kept on the host by text, up to ``max_bytes`` of them; once these are taken nothing
    more is kept, since every text comes once an epoch. A text with one word masked in two places is
    two texts.

    Args:
        bert: the network, without a pooler.
        definition: its tokenizer, as the ``tokenizers`` library writes it to ``tokenizer.json``.
        pad_id: the id that is not looked at.
    """

    def __init__(self, bert: Any, definition: str, pad_id: int, max_bytes: int = CACHE_BYTES):
        super().__init__()
        self.bert = bert.eval().requires_grad_(False)
        self.definition = definition
        self.pad_id = pad_id
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._known: dict[bytes, Tensor] = {}

    @property
    def width(self) -> int:
        """Of its states."""
        return self.bert.config.hidden_size

    @property
    def longest(self) -> int:
        """Most ids of a text."""
        return self.bert.config.max_position_embeddings

    @cached_property
    def fingerprint(self) -> str:
        """Of its weights."""
        return weights_fingerprint(self.bert)

    @torch.no_grad()
    def states(self, ids: Tensor) -> Tensor:
        """Ids int64 ``[b, L]`` to fp32 ``[b, L, width]`` on their device, zeros at padding."""
        host = ids.cpu()
        keys = [row.numpy().tobytes() for row in host]
        new: dict[bytes, Tensor] = {}
        rows = {k: row for row, k in enumerate(keys) if k not in self._known}
        if rows:
            found = self._run(host[list(rows.values())])
            new = dict(zip(rows, found.unbind(), strict=True))
        out = torch.stack([new[k] if k in new else self._filled(k, ids.shape[1]) for k in keys])
        self._keep(new)
        return out.to(ids.device)

    @torch.no_grad()
    def sentences(self, ids: Tensor) -> Tensor:
        """Ids int64 ``[b, L]`` to the states of their first, ``[CLS]``: fp32 ``[b, width]``.

        On the host; they are not kept.
        """
        return self._run(ids.cpu())[:, 0]

    def _run(self, ids: Tensor) -> Tensor:
        """States ``[b, L, width]`` on the host.

        Always so many rows at a time, and so many places as a text's own length says, whatever
        texts are unknown yet: a product of another number of rows may round otherwise, and a
        resumed run would not go on to the bit.
        """
        device = next(self.bert.parameters()).device
        found = torch.zeros(*ids.shape, self.width)
        lengths = ids.ne(self.pad_id).sum(1).add(_PLACES - 1).div(_PLACES, rounding_mode="floor")
        lengths = lengths.mul(_PLACES).clamp(max=ids.shape[1])
        for length in lengths.unique().tolist():
            for part in lengths.eq(length).nonzero()[:, 0].split(_ROWS):
                rows = ids[part, :length]
                rows = F.pad(rows, (0, 0, 0, _ROWS - len(part)), value=self.pad_id).to(device)
                rows[len(part) :, 0] = rows[0, 0]  # attention to nothing would be NaN
                used = rows.ne(self.pad_id)
                with torch.autocast(device.type, enabled=False):
                    out = self.bert(input_ids=rows, attention_mask=used.long())
                states = out.last_hidden_state.float() * used[..., None]
                found[part, :length] = states[: len(part)].cpu()
        return found

    def _keep(self, new: dict[bytes, Tensor]) -> None:
        for key, states in new.items():
            ids = torch.frombuffer(bytearray(key), dtype=torch.int64)
            used = states[: int(ids.ne(self.pad_id).sum())].clone()
            if self.nbytes + used.nbytes <= self.max_bytes:
                self.nbytes += used.nbytes
                self._known[key] = used

    def _filled(self, key: bytes, length: int) -> Tensor:
        known = self._known[key]
        out = torch.zeros(length, self.width)
        out[: len(known)] = known
        return out


def open_text_encoder(name: str) -> TextEncoder:
    """The BERT of a folder, or of a name that transformers knows, frozen.

    Raises :class:`UserError` where there is none, its tokenizer is not a BERT's, or transformers is
    missing.
    """
    try:
        from transformers import AutoTokenizer, BertModel
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(
            f"{_FLAG} {name} needs transformers, which is not installed: pip install "
            "'fastclip-engine[train]'"
        ) from error
    path = expand_home(name, _FLAG)
    is_folder = path.is_dir()
    if is_folder and not (path / "config.json").is_file():
        raise UserError(f"{_FLAG} {path} has no config.json: expected the folder of a BERT")
    if not is_folder and name.startswith(("/", ".", "~")):
        raise UserError(f"{_FLAG} is {path}, and there is no such folder")
    where: str | Path = path if is_folder else name
    verbosity = logging.get_verbosity()
    # It reports the pooler, which is left out, as a fault.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(where, local_files_only=is_folder)
        bert = BertModel.from_pretrained(
            where, local_files_only=is_folder, add_pooling_layer=False, dtype=torch.float32
        )
        definition = tokenizer.backend_tokenizer.to_str()
        pad_id = tokenizer.pad_token_id
    except Exception as error:  # transformers raises nearly anything
        told = " ".join(str(error).split())[:300]
        raise UserError(
            f"{_FLAG} {name} cannot be opened as a BERT, expected a folder of transformers or a "
            f"name on its hub: {told}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()
    if pad_id is None or tokenizer.mask_token_id is None:
        raise UserError(f"{_FLAG} {name} has a tokenizer without [PAD] or [MASK]")
    return TextEncoder(bert, definition, pad_id)
