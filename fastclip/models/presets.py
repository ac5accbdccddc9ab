"""Named model shapes.

The big names are open_clip's, and mean the same shapes. ``tiny-*`` train in minutes on two cores.
A preset is data only; ``factory.py`` turns it into modules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionTransformer:
    """CLIP's ViT: class token, learned positions, a LayerNorm before the blocks."""

    patch_size: int
    width: int = 768
    layers: int = 12
    heads: int = 12


@dataclass(frozen=True)
class TimmBackbone:
    """Any timm image model by name, with keyword arguments for its constructor."""

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class ConvNet:
    """A small residual convnet whose stages halve the side, one width a stage.

    ``pool`` is how its last map becomes a vector: the mean, or the maximum of every channel.
    """

    widths: tuple[int, ...]
    pool: Literal["mean", "max"] = "mean"


@dataclass(frozen=True)
class TextTransformer:
    """CLIP's causal text transformer, pooled at the end-of-text token."""

    width: int = 512
    layers: int = 12
    heads: int = 8


@dataclass(frozen=True)
class TextBag:
    """The mean of the tokens' embeddings, then a perceptron of one hidden layer."""

    width: int = 256
    hidden: int = 512


@dataclass(frozen=True)
class DecoderShape:
    """The transformer that writes captions; by default VirTex's base, one wide layer."""

    width: int = 1024
    layers: int = 1
    heads: int = 16


@dataclass(frozen=True)
class Preset:
    """Everything ``create_model`` and its like need; each field can be overridden by keyword there.

    ``eot_id`` None stands for the highest id, CLIP's choice. ``quick_gelu`` picks OpenAI's
    activation x·sigmoid(1.702 x) in the transformers, in place of the exact GELU.
    """

    embed_dim: int
    image: VisionTransformer | TimmBackbone | ConvNet
    text: TextTransformer | TextBag
    image_size: int = 224
    context_length: int = 77
    vocab_size: int = 49408
    pad_id: int = 0
    eot_id: int | None = None
    quick_gelu: bool = False
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    decoder: DecoderShape = DecoderShape()


PRESETS: dict[str, Preset] = {
    "ViT-B-32": Preset(512, VisionTransformer(32), TextTransformer()),
    "ViT-B-16": Preset(512, VisionTransformer(16), TextTransformer()),
    "ViT-L-14": Preset(768, VisionTransformer(14, 1024, 24, 16), TextTransformer(768, 12, 12)),
    "RN50": Preset(1024, TimmBackbone("resnet50_clip"), TextTransformer()),
    "RN101": Preset(512, TimmBackbone("resnet101_clip"), TextTransformer()),
    "RN50x4": Preset(640, TimmBackbone("resnet50x4_clip"), TextTransformer(640, 12, 10), 288),
}
PRESETS |= {f"{name}-quickgelu": replace(p, quick_gelu=True) for name, p in PRESETS.items()}
_SMALL_DECODER = DecoderShape(width=128, layers=2, heads=4)
PRESETS |= {
    "tiny-vit": Preset(
        128,
        VisionTransformer(patch_size=8, width=128, layers=3, heads=4),
        TextTransformer(width=128, layers=1, heads=4),
        image_size=32,
        context_length=32,
        vocab_size=1024,
        decoder=_SMALL_DECODER,
    ),
    "tiny-resnet": Preset(
        128,
        TimmBackbone(
            "resnet18",
            MappingProxyType({"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256)}),
        ),
        TextBag(),
        image_size=32,
        context_length=32,
        vocab_size=1024,
        decoder=_SMALL_DECODER,
    ),
    "tiny-convnet": Preset(
        128,
        ConvNet((32, 64, 128), "max"),
        TextBag(),
        image_size=32,
        context_length=160,
        decoder=_SMALL_DECODER,
    ),
    "small-convnet": Preset(
        256,
        ConvNet((32, 64, 128, 256)),
        TextBag(),
        image_size=40,
        context_length=128,
        decoder=DecoderShape(width=256, layers=2, heads=4),
    ),
}
