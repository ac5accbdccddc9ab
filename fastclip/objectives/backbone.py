"""The image tower's own learning rate, for objectives after which the tower is what is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fastclip.errors import UserError, check_flags
from fastclip.models.image_model import ImageModel
from fastclip.objectives.base import Part

Decays = Callable[[str, nn.Parameter], bool]


@dataclass(kw_only=True)
class BackboneOptions:
    """Flags of objectives that give the image tower a rate of its own."""

    backbone_lr: float | None = None
    """Peak learning rate of the image tower; --lr where left out."""

    def __post_init__(self) -> None:
        check_flags(self, ("backbone_lr",), "more than 0", lambda rate: rate > 0)


def check_backbone(options: BackboneOptions, model: ImageModel) -> None:
    """Refuse a rate for a tower of which nothing is trained."""
    learns = any(parameter.requires_grad for parameter in model.visual.parameters())
    if options.backbone_lr is not None and not learns:
        raise UserError("--backbone-lr does nothing with --lock-image, which freezes the tower")


def tower_and_rest(
    network: nn.Module, options: BackboneOptions, rest: str, decays: Decays | None = None
) -> list[Part]:
    """The image tower of ``network.model`` at its own rate, and all else as the part ``rest``."""
    named = dict(network.named_parameters())
    tower = {name: p for name, p in named.items() if name.startswith("model.visual.")}
    others = {name: p for name, p in named.items() if name not in tower}
    return [
        Part("tower", tower, lr=options.backbone_lr, decays=decays),
        Part(rest, others, decays=decays),
    ]
