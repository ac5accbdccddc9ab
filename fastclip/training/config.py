"""The trainer's configuration: one dataclass, set by a recipe (YAML), then by flags.

Flags bear open_clip's names where they mean the same thing and DeepSpeed's for batch sizes.
"""

import contextlib
import dataclasses
import io
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fastclip.data.augment import AugmentConfig
from fastclip.data.captions import CaptionConfig
from fastclip.errors import UserError
from fastclip.training import flags

Precision = Literal["auto", "fp32", "amp_bf16", "bf16", "fp16"]


@dataclass(kw_only=True)
class TrainConfig:
    """Train a model from pictures and captions; with no flags, a small CLIP on generated ones."""

    config: Path | None = None
    """Recipe (YAML) whose keys are these flags' names; flags given as well win over it."""

    train_data: str = ""
    """Training shards (braces and ``::`` allowed), a csv file, or empty for the generated set."""
    val_data: str = ""
    """Shards or csv for the final evaluation; several splits as name=path,name=path."""
    dataset_type: Literal["auto", "webdataset", "csv", "synthetic"] = "auto"
    """How to read the training data; ``synthetic`` is the generated set."""
    train_num_samples: int | None = None
    """Samples an epoch; read from the data where it is left out."""
    csv_img_key: str = "filepath"
    """csv column of the picture's path."""
    csv_caption_key: str = "title"
    """csv column of the caption."""
    csv_separator: str = "\t"
    """csv separator."""
    data_root: Path = Path("~/.cache/fastclip")
    """Folder where the generated set is kept."""
    in_memory: Literal["auto", "always", "never"] = "auto"
    """Keep decoded pictures in memory; ``auto`` does up to 2 GiB."""
    workers: int = 0
    """Loader processes a rank when streaming, decoding threads when kept in memory."""
    max_bad_share: float = 0.01
    """Share of unreadable records above which the run fails."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """What training pictures go through (``--augment.hflip 0.5``; a mapping in a recipe)."""
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    """How training captions vary (``--captions.tags 0.8``; a mapping in a recipe)."""

    model: str = "tiny-convnet"
    """A preset: tiny-convnet, tiny-vit, tiny-resnet, small-convnet, ViT-B-32, ViT-B-16, ViT-L-14,
    RN50, RN101, RN50x4 (the big ones also as <name>-quickgelu); or timm:<name>, an image tower."""
    image_size: int | None = None
    """Side of the square picture in pixels; the model's own where left out."""
    context_length: int | None = None
    """Tokens a caption; the model's own where left out."""
    tokenizer: str = "auto"
    """``bpe`` (trained on the captions), ``words`` (words and trigrams), a merges file, or auto."""
    vocab_size: int = 4096
    """Vocabulary of a tokenizer trained on the captions."""
    ngrams: tuple[int, ...] = (3,)
    """Lengths of the character n-grams of ``--tokenizer words``."""
    ngram_buckets: int = 4096
    """Ids that these n-grams are hashed into."""
    siglip: bool = False
    """Train with SigLIP's sigmoid loss instead of CLIP's softmax loss."""
    grad_checkpointing: bool = False
    """Recompute activations in the backward pass."""

    train_batch_size: int = 256
    """Global batch: pairs one optimiser step sees, over all ranks."""
    train_micro_batch_size_per_gpu: int | None = None
    """Pairs one forward pass of one rank holds; the largest divisor up to 512 where left out."""
    epochs: int = 8
    """Passes over the training data."""
    max_steps: int | None = None
    """Stop after this many optimiser steps; the schedule ends there too."""
    lr: float = 3e-3
    """Peak learning rate."""
    lr_scheduler: Literal["cosine", "const"] = "cosine"
    """Schedule after the warm-up."""
    warmup: int = 50
    """Steps of linear warm-up."""
    beta1: float = 0.9
    """AdamW's beta1."""
    beta2: float = 0.98
    """AdamW's beta2."""
    eps: float = 1e-6
    """AdamW's epsilon."""
    wd: float = 0.1
    """Weight decay (not applied to gains, biases and the loss's own scalars)."""
    grad_clip_norm: float = 0.0
    """Largest gradient norm of the towers, the logit scale shrinking with them; 0 clips nothing."""
    init_logit_scale: float | None = None
    """Initial logit scale before the logarithm; 1/0.07 (CLIP) or 10 (SigLIP) where left out."""
    precision: Precision = "auto"
    """``auto``: amp_bf16 on a GPU, fp32 on a CPU."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO stage; ``auto`` is 1, or 0 where one process has nothing to partition."""
    deepspeed_config: Path | None = None
    """DeepSpeed JSON merged over the derived one."""
    workspace_mib: int = 32
    """Memory the loss may use beyond features and their gradients, in MiB."""
    seed: int = 0
    """Seed of weights, data order and augmentation."""

    logs: Path = Path("logs")
    """Folder that holds the runs."""
    name: str | None = None
    """The run's folder under --logs; model and time where left out."""
    resume: Literal["none", "auto"] = "none"
    """``auto`` continues from the newest complete checkpoint of --name (or of the newest run)."""
    save_frequency: int = 0
    """Steps between checkpoints; 0 saves at the end of every epoch."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    report_to: Literal["tensorboard", "none"] = "tensorboard"
    """Where curves go beside metrics.jsonl."""
    log_every_n_steps: int = 10
    """Steps between two lines of the log."""
    local_rank: int = 0
    """Set by the deepspeed launcher."""


_OPEN_CLIP_BATCH_SIZE = (
    "--batch-size is per device in open_clip and is not accepted here: set --train-batch-size "
    "(global) and, if needed, --train-micro-batch-size-per-gpu"
)


def parse_args(argv: Sequence[str] | None = None) -> TrainConfig:
    """Build the configuration from ``argv``: defaults, then ``--config``, then flags.

    Raises :class:`UserError` for a bad recipe or flag; ``--help`` prints and exits with code 0.
    """
    import tyro

    args = list(sys.argv[1:] if argv is None else argv)
    if any(a.split("=")[0] in ("--batch-size", "--batch_size") for a in args):
        raise UserError(_OPEN_CLIP_BATCH_SIZE)
    default = TrainConfig()
    if (recipe := _recipe_argument(args)) is not None:
        default = dataclasses.replace(default, config=recipe, **load_recipe(recipe))
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            cfg = tyro.cli(TrainConfig, args=args, default=default)
    except SystemExit as end:
        if not end.code:
            raise
        found = flags.refusal(TrainConfig, args)
        raise found or UserError(" ".join(told.getvalue().split())) from None
    check_ranges(cfg)
    return cfg


def _recipe_argument(args: list[str]) -> Path | None:
    for i, arg in enumerate(args):
        if arg == "--config" and i + 1 < len(args):
            return Path(args[i + 1])
        if arg.startswith("--config="):
            return Path(arg.removeprefix("--config="))
    return None


def load_recipe(path: Path) -> dict:
    """Read a recipe: a flat mapping of flag names (``-`` or ``_``) to values, checked by type."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise UserError(f"--config {path} is not valid YAML: {text}") from error
    if not isinstance(raw, dict):
        raise UserError(f"--config {path} holds {type(raw).__name__}, expected a mapping of flags")
    fields = {f.name: f for f in dataclasses.fields(TrainConfig)}
    values = {}
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name == "batch_size":
            raise UserError(f"{path}: {_OPEN_CLIP_BATCH_SIZE}")
        if name not in fields or name in ("config", "local_rank"):
            names = sorted(set(fields) - {"config", "local_rank"})
            raise UserError(f"{path}: unknown key {flags.not_found(str(key), names)}")
        hint = fields[name].type
        if dataclasses.is_dataclass(hint):
            values[name] = _nested(path, name, hint, value)
        else:
            values[name] = _typed(path, name, hint, value)
    return values


def _nested(path: Path, name: str, cls, raw):
    if not isinstance(raw, dict):
        raise UserError(f"{path}: {name} is {raw!r}, expected a mapping")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    values = {}
    for key, value in raw.items():
        inner = str(key).replace("-", "_")
        if inner not in fields:
            raise UserError(f"{path}: unknown key in {name}: {flags.not_found(str(key), fields)}")
        values[inner] = _typed(path, f"{name}.{inner}", fields[inner].type, value)
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _typed(path: Path, name: str, hint, value):
    """Parse a recipe's value exactly as the flag of that name would be."""
    if value is None:
        if type(None) not in getattr(hint, "__args__", ()):
            raise UserError(f"{path}: {name} is empty, expected {flags.accepted(hint)}")
        return None
    words = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, bool) and hint is not bool:
        raise UserError(f"{path}: {name} is {words[0]}, expected {flags.accepted(hint)}")
    try:
        return flags.parse_value(hint, words)
    except ValueError as error:
        raise UserError(f"{path}: {name} is {error}") from None


def check_ranges(cfg: TrainConfig) -> None:
    """Refuse values that no run can use, before anything is built."""
    positive = ["train_batch_size", "epochs", "lr", "vocab_size", "keep_checkpoints"]
    positive += ["log_every_n_steps", "workspace_mib", "eps"]
    for name in positive:
        if not getattr(cfg, name) > 0:
            raise UserError(f"--{_flag(name)} is {getattr(cfg, name)}, expected more than 0")
    for name in ("warmup", "wd", "grad_clip_norm", "save_frequency", "workers"):
        if not getattr(cfg, name) >= 0:
            raise UserError(f"--{_flag(name)} is {getattr(cfg, name)}, expected 0 or more")
    sizes = ["train_micro_batch_size_per_gpu", "max_steps", "train_num_samples"]
    for name in [*sizes, "image_size", "context_length"]:
        value = getattr(cfg, name)
        if value is not None and value < 1:
            raise UserError(f"--{_flag(name)} is {value}, expected 1 or more")
    if not math.isfinite(cfg.lr):
        raise UserError(f"--lr is {cfg.lr}, expected a finite number")
    if cfg.seed < 0:
        raise UserError(f"--seed is {cfg.seed}, expected 0 or more")
    if cfg.init_logit_scale is not None and not 1 <= cfg.init_logit_scale <= 100:
        raise UserError(f"--init-logit-scale is {cfg.init_logit_scale}, expected 1 to 100")
    if cfg.train_data and cfg.dataset_type == "synthetic":
        raise UserError(
            f"--train-data is {cfg.train_data!r} with --dataset-type synthetic, which reads none"
        )
    if not cfg.train_data and cfg.dataset_type in ("webdataset", "csv"):
        raise UserError(f"--dataset-type {cfg.dataset_type} needs --train-data")
    for name in ("beta1", "beta2", "max_bad_share"):
        if not 0 <= getattr(cfg, name) < 1:
            raise UserError(f"--{_flag(name)} is {getattr(cfg, name)}, expected 0 <= value < 1")


def _flag(name: str) -> str:
    return name.replace("_", "-")


def to_plain(cfg: TrainConfig) -> dict:
    """The configuration as plain YAML/JSON values, loadable again by :func:`load_recipe`."""
    plain = dataclasses.asdict(cfg)
    plain.pop("config")
    plain.pop("local_rank")
    return {name: _plain(value) for name, value in plain.items()}


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
