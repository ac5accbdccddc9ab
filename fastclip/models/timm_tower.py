"""Image towers from timm, by name: CLIP's ModifiedResNet, ResNets, anything timm can pool."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.layers import AttentionPool2d
from timm.models import group_parameters
from torch import Tensor, nn

from fastclip.errors import UserError
from fastclip.models.batch_norm import guard_batch_norms
from fastclip.models.tower import ImageTower, LayerGroup


class TimmTower(ImageTower):
    """Pixels [b, 3, s, s] to features [b, embed_dim], not normalized.

    A network that ends in CLIP's attention pooling projects there, as CLIP does; any other is
    pooled its own way and followed by a linear projection without bias. The grid is what the
    network pools: its last map, or its last tokens without class and register tokens.

    Layers are grouped as timm groups them. The linear projection belongs to no group and so is
    never locked, as in open_clip: a pretrained trunk comes without it.
    """

    trunk: Any

    def __init__(
        self, name: str, embed_dim: int | None, image_size: int | None, kwargs: Mapping[str, Any]
    ):
        super().__init__(embed_dim)
        config = timm_config(name)
        kwargs = dict(kwargs)
        if config.fixed_input_size and image_size is not None:
            kwargs["img_size"] = image_size
        self.trunk = timm.create_model(name, num_classes=0, **kwargs)
        guard_batch_norms(self.trunk)
        # The trunk is called for its last states: a parameter of its own, such as a position
        # embedding, is whole under ZeRO-3 only where the trunk itself is called.
        self.trunk.forward = self.trunk.forward_features
        head = getattr(self.trunk, "head", None)
        self.grid_width = self.trunk.num_features
        self.projection: nn.Module = nn.Identity()
        if embed_dim is None:
            side = image_size or config.input_size[-1]
            self._leave_out(_parameters_outside_grid(name, kwargs, side))
        elif isinstance(head, AttentionPool2d):
            self.trunk.reset_classifier(embed_dim)
            self._initialize_attention_pool(head)
        else:
            width = self.trunk.head_hidden_size
            self.projection = nn.Linear(width, embed_dim, bias=False)
            nn.init.normal_(self.projection.weight, std=width**-0.5)

    def _leave_out(self, unused: set[str]) -> None:
        """Take modules of unused parameters out of the trunk; freeze unused ones of the others."""
        for path, module in list(self.trunk.named_modules()):
            inside = {name for name, _ in module.named_parameters(path)}
            if path and inside and inside <= unused:
                parent, _, child = path.rpartition(".")
                setattr(self.trunk.get_submodule(parent), child, nn.Identity())
                unused -= inside
        for name in unused:
            self.trunk.get_parameter(name).requires_grad_(False)

    @staticmethod
    @torch.no_grad()
    def _initialize_attention_pool(pool: AttentionPool2d) -> None:
        std = pool.in_features**-0.5
        for linear in (module for module in pool.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(pool.pos_embed, std=std)

    def _last_states(self, batch: Tensor) -> Any:
        # Convolutions run in the layout of their input, and channels last is the fast one.
        return self.trunk(batch.contiguous(memory_format=torch.channels_last))

    def _pooled(self, states: Any) -> Tensor:
        return self.projection(self.trunk.forward_head(states))

    def _positions(self, states: Any) -> Tensor:
        return _as_grid(self.trunk, states)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.trunk.set_grad_checkpointing(enable)

    def layer_groups(self) -> list[LayerGroup]:
        if not hasattr(self.trunk, "group_matcher"):
            return [[self.trunk]]
        groups = group_parameters(self.trunk, self.trunk.group_matcher(), return_values=True)
        return [groups[number] for number in sorted(groups)]


def _as_grid(trunk: Any, states: Any) -> Tensor:
    """The positions [b, positions, width] in what ``trunk.forward_features`` returned."""
    if isinstance(states, Tensor) and states.ndim == 4:
        # [b, c, h, w], or [b, h, w, c] where timm says so
        channels_last = getattr(trunk, "output_fmt", None) == "NHWC"
        return (states if channels_last else states.permute(0, 2, 3, 1)).flatten(1, 2)
    if isinstance(states, Tensor) and states.ndim == 3:
        has_class_token = getattr(trunk, "cls_token", None) is not None
        prefix_tokens = getattr(trunk, "num_prefix_tokens", None)
        prefix = int(has_class_token) if prefix_tokens is None else prefix_tokens
        if states.shape[1] > prefix:
            return states[:, prefix:]
    raise UserError(
        f"model: timm's {type(trunk).__name__} does not end in one grid of features, which this "
        f"model reads; choose another image tower."
    )


def _parameters_outside_grid(name: str, kwargs: Mapping[str, Any], side: int) -> set[str]:
    """Names of the parameters that only pooling uses: the grid of a twin has no gradient there."""
    with torch.device("meta"):  # shapes only: costs no memory and next to no time
        trunk: Any = timm.create_model(name, num_classes=0, **{**kwargs, "pretrained": False})
        trunk.eval()
        grid = _as_grid(trunk, trunk.forward_features(torch.empty(1, 3, side, side)))
    names, parameters = zip(*trunk.named_parameters(), strict=True)
    gradients = torch.autograd.grad(grid.sum(), parameters, allow_unused=True)
    return {name for name, found in zip(names, gradients, strict=True) if found is None}


def timm_config(name: str):
    """timm's configuration of a model name, or a ``UserError`` that offers near names."""
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        hint = f"; close names: {', '.join(near)}" if near else ""
        raise UserError(f"model: timm knows no architecture {architecture!r}{hint}.")
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
