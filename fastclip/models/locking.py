"""Lock a tower, or all of it but its last groups of layers, as LiT does (Zhai et al. 2022)."""

from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastclip.errors import UserError
from fastclip.models.tower import ImageTower, Tower


def lock_image(tower: ImageTower, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
    """Stop the gradients of an image tower, but for its last ``unlocked_groups`` groups of layers.

    Locked BatchNorms still normalize by the batch and move their running statistics in training,
    unless ``freeze_bn_stats``: then they use the running statistics and leave them as they are, in
    whatever mode the model around them is put. Groups are those of ``tower.layer_groups()``, which
    are open_clip's (3.3.0). Raises ``UserError`` for more groups than there are.
    """
    _lock(tower, "lock_image", "unlocked_groups", unlocked_groups)
    if freeze_bn_stats:
        for module in tower.modules():
            is_locked = not any(p.requires_grad for p in module.parameters(recurse=False))
            if isinstance(module, _BatchNorm) and is_locked:
                module.eval()
                # On the instance, so that the state dict's names and the class stay as they are.
                module.__dict__["train"] = MethodType(_stay, module)


def lock_text(tower: Tower, unlocked_layers: int = 0, freeze_layer_norm: bool = False) -> None:
    """Stop the gradients of a text tower, but for its last ``unlocked_layers`` groups of layers.

    LayerNorms learn on in locked layers unless ``freeze_layer_norm``. Raises ``UserError`` for more
    groups than there are.
    """
    norms = [module for module in tower.modules() if isinstance(module, nn.LayerNorm)]
    learning = [p for norm in norms for p in norm.parameters() if p.requires_grad]
    _lock(tower, "lock_text", "unlocked_layers", unlocked_layers)
    if not freeze_layer_norm:
        for parameter in learning:
            parameter.requires_grad_(True)


def _lock(tower: Tower, function: str, argument: str, unlocked: int) -> None:
    groups = tower.layer_groups()
    if not 0 <= unlocked <= len(groups):
        raise UserError(
            f"{function}: {argument} is {unlocked}, but the tower has {len(groups)} groups of "
            f"layers; accepted: 0 to {len(groups)}."
        )
    for group in groups[: len(groups) - unlocked]:
        for part in group:
            part.requires_grad_(False)


def _stay(norm: _BatchNorm, mode: bool = True) -> _BatchNorm:
    """In place of ``norm.train``: evaluation mode whatever is asked for."""
    return norm
