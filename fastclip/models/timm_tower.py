"""Image towers from timm, by name: CLIP's ModifiedResNet, ResNets, anything timm can pool."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import AttentionPool2d
from torch import Tensor, nn

from fastclip.errors import UserError
from fastclip.models.batch_norm import guard_batch_norms
from fastclip.models.tower import Tower


class TimmTower(Tower):
    """Pixels [b, 3, s, s] to features [b, embed_dim], not normalised.

    A network that ends in CLIP's attention pooling projects there, as CLIP does; any other is
    pooled its own way and followed by a linear projection without bias.
    """

    trunk: Any

    def __init__(
        self, name: str, embed_dim: int, image_size: int | None, kwargs: Mapping[str, Any]
    ):
        super().__init__()
        config = timm_config(name)
        kwargs = dict(kwargs)
        if config.fixed_input_size and image_size is not None:
            kwargs["img_size"] = image_size
        self.trunk = timm.create_model(name, num_classes=0, **kwargs)
        guard_batch_norms(self.trunk)
        head = getattr(self.trunk, "head", None)
        if isinstance(head, AttentionPool2d):
            self.trunk.reset_classifier(embed_dim)
            self.projection: nn.Module = nn.Identity()
            self._initialise_attention_pool(head)
        else:
            width = self.trunk.head_hidden_size
            self.projection = nn.Linear(width, embed_dim, bias=False)
            nn.init.normal_(self.projection.weight, std=width**-0.5)

    @staticmethod
    @torch.no_grad()
    def _initialise_attention_pool(pool: AttentionPool2d) -> None:
        std = pool.in_features**-0.5
        for linear in (module for module in pool.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(pool.pos_embed, std=std)

    def forward(self, batch: Tensor) -> Tensor:
        # Convolutions run in the layout of their input, and channels last is the fast one.
        return self.projection(self.trunk(batch.contiguous(memory_format=torch.channels_last)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.trunk.set_grad_checkpointing(enable)


def timm_config(name: str):
    """timm's configuration of a model name, or a ``UserError`` that offers near names."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; close names: {', '.join(near)}" if near else ""
        raise UserError(f"model: timm knows no architecture {architecture!r}{hint}.")
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
