"""CLIP's text transformer: transformers' ``CLIPTextModel`` and CLIP's projection."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from fastclip.models.initialize import initialize_blocks_
from fastclip.models.tower import LayerGroup, Tower, set_transformer_checkpointing


class ClipTextTower(Tower):
    """Token ids [b, L] (int64) to features [b, embed_dim], not normalized.

    Attention is causal and the feature is read at the first end-of-text token, so what follows
    that token (padding with any id) has no influence.
    """

    def __init__(self, config: CLIPTextConfig, embed_dim: int):
        super().__init__()
        self.transformer = CLIPTextModel(config)
        self.projection = nn.Linear(config.hidden_size, embed_dim, bias=False)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        config, embeddings = self.transformer.config, self.transformer.embeddings
        initialize_blocks_(self.transformer.encoder, config.hidden_size, config.num_hidden_layers)
        nn.init.normal_(embeddings.token_embedding.weight, std=0.02)
        nn.init.normal_(embeddings.position_embedding.weight, std=0.01)
        nn.init.normal_(self.projection.weight, std=config.hidden_size**-0.5)

    def forward(self, batch: Tensor) -> Tensor:
        if batch.device.type == "cpu":  # on a GPU, reading the length would wait for the device
            batch = batch[:, : self._used_length(batch)]
        return self.projection(self.transformer(batch).pooler_output)

    def _used_length(self, text: Tensor) -> int:
        """Columns up to the last pooled position of the batch: causality makes the rest idle."""
        if not len(text):
            return text.shape[1]
        eot_id: Any = self.transformer.config.eos_token_id
        # transformers reads id 2 as "pool at the highest id", the rule of OpenAI's own files.
        rank = text if eot_id == 2 else text.eq(eot_id).int()
        return int(rank.argmax(dim=-1).max()) + 1

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        set_transformer_checkpointing(self.transformer, enable)

    def layer_groups(self) -> list[LayerGroup]:
        trunk = self.transformer
        *blocks, last = trunk.encoder.layers
        return [
            [trunk.embeddings],
            *([block] for block in blocks),
            [last, trunk.final_layer_norm],
            [self.projection],
        ]
