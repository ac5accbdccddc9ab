"""CLIP's vision transformer: transformers' ``CLIPVisionModel`` and CLIP's projection."""

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from fastclip.models.initialise import initialise_blocks_
from fastclip.models.tower import Tower, set_transformer_checkpointing


class ClipVisionTower(Tower):
    """Pixels [b, 3, s, s] to features [b, embed_dim], not normalised."""

    def __init__(self, config: CLIPVisionConfig, embed_dim: int):
        super().__init__()
        self.transformer = CLIPVisionModel(config)
        self.projection = nn.Linear(config.hidden_size, embed_dim, bias=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        config, embeddings = self.transformer.config, self.transformer.embeddings
        std = config.hidden_size**-0.5
        initialise_blocks_(self.transformer.encoder, config.hidden_size, config.num_hidden_layers)
        embeddings.patch_embedding.reset_parameters()
        for weight in (
            embeddings.class_embedding,
            embeddings.position_embedding.weight,
            self.projection.weight,
        ):
            nn.init.normal_(weight, std=std)

    def forward(self, batch: Tensor) -> Tensor:
        return self.projection(self.transformer(batch).pooler_output)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        set_transformer_checkpointing(self.transformer, enable)
