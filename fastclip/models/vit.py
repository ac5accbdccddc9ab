"""CLIP's vision transformer: transformers' ``CLIPVisionModel`` and CLIP's projection."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from fastclip.models.initialize import initialize_blocks_
from fastclip.models.tower import ImageTower, LayerGroup, set_transformer_checkpointing


class ClipVisionTower(ImageTower):
    """Pixels [b, 3, s, s] to features [b, embed_dim], not normalized.

    The grid holds the patches' last states behind the LayerNorm that CLIP applies to the class
    token alone: raw, their size would grow with depth. The class token is left out.
    """

    def __init__(self, config: CLIPVisionConfig, embed_dim: int | None):
        super().__init__(embed_dim)
        self.transformer = CLIPVisionModel(config)
        self.grid_width = config.hidden_size
        self.grid_positions = self.transformer.embeddings.num_patches
        if embed_dim is not None:
            self.projection = nn.Linear(config.hidden_size, embed_dim, bias=False)
        self._initialize()

    @torch.no_grad()
    def _initialize(self) -> None:
        config, embeddings = self.transformer.config, self.transformer.embeddings
        std = config.hidden_size**-0.5
        initialize_blocks_(self.transformer.encoder, config.hidden_size, config.num_hidden_layers)
        embeddings.patch_embedding.reset_parameters()
        weights = [embeddings.class_embedding, embeddings.position_embedding.weight]
        if self.embed_dim is not None:
            weights.append(self.projection.weight)
        for weight in weights:
            nn.init.normal_(weight, std=std)

    def _last_states(self, batch: Tensor) -> Any:
        return self.transformer(batch)

    def _pooled(self, states: Any) -> Tensor:
        return self.projection(states.pooler_output)

    def _positions(self, states: Any) -> Tensor:
        return self.transformer.post_layernorm(states.last_hidden_state[:, 1:])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        set_transformer_checkpointing(self.transformer, enable)

    def layer_groups(self) -> list[LayerGroup]:
        trunk = self.transformer
        *blocks, last = trunk.encoder.layers
        head = [] if self.embed_dim is None else [[self.projection]]
        return [
            [trunk.embeddings, trunk.pre_layrnorm],
            *([block] for block in blocks),
            [last, trunk.post_layernorm],
            *head,
        ]
