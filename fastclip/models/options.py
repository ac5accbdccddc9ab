"""Which model a run builds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastclip.errors import UserError, check_flags
from fastclip.models.captioner import Captioner
from fastclip.models.coca import CoCa
from fastclip.models.dual_encoder import DualEncoder
from fastclip.models.factory import (
    create_captioner,
    create_coca,
    create_masked_captioner,
    create_masked_word_model,
    create_model,
    create_tagger,
)
from fastclip.models.lazy_text_encoder import LazyTextEncoder
from fastclip.models.locking import lock_image, lock_text
from fastclip.models.masked_captioner import MaskedCaptioner
from fastclip.models.masked_word_model import MaskedWordModel
from fastclip.models.masking import MasksPieces, MasksWords
from fastclip.models.tagger import Activation, Tagger, Tags


@dataclass(kw_only=True)
class ModelConfig:
    """Which network is built, and which of its parts are frozen."""

    model: str = "tiny-convnet"
    """A preset: tiny-convnet, tiny-vit, tiny-resnet, small-convnet, ViT-B-32, ViT-B-16, ViT-L-14,
    RN50, RN101, RN50x4 (the big ones also as <name>-quickgelu); or timm:<name>, an image tower."""
    image_size: int | None = None
    """Side of the square picture in pixels; the model's own where left out."""
    context_length: int | None = None
    """Tokens a caption; the model's own where left out."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass."""
    lock_image: bool = False
    """Freeze the image tower."""
    lock_image_unlocked_groups: int = 0
    """Of a frozen image tower, leave the last so many groups of layers free."""
    lock_image_freeze_bn_stats: bool = False
    """Freeze the running statistics of a frozen image tower's BatchNorms too."""
    lock_text: bool = False
    """Freeze the text tower."""
    lock_text_unlocked_layers: int = 0
    """Of a frozen text tower, leave the last so many groups of layers free."""
    lock_text_freeze_layer_norm: bool = False
    """Freeze the LayerNorms of a frozen text tower too."""

    def check(self) -> None:
        """Raise :class:`UserError` for a value that no model can have or that would do nothing."""
        check_flags(self, ("image_size", "context_length"), "1 or more", lambda n: n >= 1)
        counts = ("lock_image_unlocked_groups", "lock_text_unlocked_layers")
        check_flags(self, counts, "0 or more", lambda n: n >= 0)
        for lock in ("lock_image", "lock_text"):
            for name, value in vars(self).items():
                if name.startswith(f"{lock}_") and value and not getattr(self, lock):
                    flag, needed = (n.replace("_", "-") for n in (name, lock))
                    raise UserError(f"--{flag} does nothing without --{needed}")


def build_dual_encoder(config: ModelConfig, tokenizer: Any) -> DualEncoder:
    """The two towers that ``config`` names, for the ids of ``tokenizer``."""
    return _finished(create_model(config.model, **_given(config, tokenizer)), config)


def build_captioner(config: ModelConfig, tokenizer: Any, **decoder: Any) -> Captioner:
    """The image tower that ``config`` names and a decoder of the shape in ``decoder``."""
    return _finished(create_captioner(config.model, **_given(config, tokenizer), **decoder), config)


def build_masked_captioner(
    config: ModelConfig, tokenizer: Any, masking: MasksPieces, **decoder: Any
) -> MaskedCaptioner:
    """The image tower that ``config`` names and a decoder of masked words."""
    settings = {**_given(config, tokenizer), **decoder}
    return _finished(create_masked_captioner(config.model, masking, **settings), config)


def build_coca(config: ModelConfig, tokenizer: Any, **decoder: Any) -> CoCa:
    """A CoCa on the image tower that ``config`` names, its text of the shape in ``decoder``."""
    return _finished(create_coca(config.model, **_given(config, tokenizer), **decoder), config)


def build_tagger(config: ModelConfig, tags: Tags, activation: Activation) -> Tagger:
    """The image tower that ``config`` names, and an output for each of ``tags``."""
    sizes = _image_size(config)
    return _finished(create_tagger(config.model, tags=tags, activation=activation, **sizes), config)


def build_masked_word_model(
    config: ModelConfig,
    tokenizer: Any,
    make_fusion: Callable[[int], Any],
    masking: MasksWords,
    text_encoder: LazyTextEncoder,
) -> MaskedWordModel:
    """The image tower that ``config`` names with an ICMLM's fusion and heads on its grid."""
    sizes = {"context_length": tokenizer.context_length, **_image_size(config)}
    model = create_masked_word_model(config.model, make_fusion, masking, text_encoder, **sizes)
    return _finished(model, config)


def _given(config: ModelConfig, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": tokenizer.vocab_size,
        "context_length": tokenizer.context_length,
        "pad_id": tokenizer.pad_id,
        "eot_id": tokenizer.eot_id,
        **_image_size(config),
    }


def _image_size(config: ModelConfig) -> dict[str, Any]:
    return {} if config.image_size is None else {"image_size": config.image_size}


def _finished(model: Any, config: ModelConfig) -> Any:
    model.set_grad_checkpointing(config.grad_checkpointing)
    if config.lock_image:
        lock_image(
            model.visual, config.lock_image_unlocked_groups, config.lock_image_freeze_bn_stats
        )
    if config.lock_text:
        if not hasattr(model, "text"):
            raise UserError(f"--lock-text: a {type(model).__name__} has no text tower")
        lock_text(model.text, config.lock_text_unlocked_layers, config.lock_text_freeze_layer_norm)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("--lock-image and --lock-text leave nothing to train")
    return model
