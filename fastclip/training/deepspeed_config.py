"""From our configuration to DeepSpeed's dictionary, with the user's JSON merged over it."""

import difflib
import json
from pathlib import Path

from fastclip.errors import UserError
from fastclip.training.config import Precision, TrainConfig
from fastclip.training.options.settings_file import read_settings

_OURS = {
    "optimizer": "--opt, --lr, --wd, --beta1, --beta2, --eps and --momentum",
    "scheduler": "--lr-scheduler, --warmup and --epochs",
    "gradient_accumulation_steps": "--train-micro-batch-size-per-gpu",
    "train_batch_size": "--train-batch-size",
    "train_micro_batch_size_per_gpu": "--train-micro-batch-size-per-gpu",
    "gradient_clipping": "--grad-clip-norm",
    "fp16": "--precision",
    "bf16": "--precision",
    "torch_autocast": "--precision",
}


def micro_batch_size(cfg: TrainConfig, world_size: int) -> int:
    """Records one forward pass of one rank holds; refuses a batch that does not divide."""
    batch, micro = cfg.run.train_batch_size, cfg.run.train_micro_batch_size_per_gpu
    if batch % world_size:
        raise UserError(
            f"--train-batch-size is {batch}, expected a multiple of the {world_size} processes"
        )
    per_rank = batch // world_size
    if micro is None:
        return next(size for size in range(min(512, per_rank), 0, -1) if per_rank % size == 0)
    if per_rank % micro:
        raise UserError(
            f"--train-micro-batch-size-per-gpu is {micro}, expected a divisor of {per_rank} "
            f"(--train-batch-size {batch} over {world_size} processes)"
        )
    return micro


def resolve_precision(cfg: TrainConfig) -> Precision:
    """``fp32``, ``amp_bf16``, ``bf16`` or ``fp16``; refuses what the accelerator cannot do."""
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if cfg.run.precision == "auto":
        return "fp32" if accelerator.device_name() == "cpu" else "amp_bf16"
    name, supported = accelerator.device_name(), True
    if cfg.run.precision == "fp16":
        supported = accelerator.is_fp16_supported()
    elif cfg.run.precision in ("amp_bf16", "bf16"):
        supported = accelerator.is_bf16_supported()
    if not supported:
        raise UserError(
            f"--precision {cfg.run.precision} is not supported by this accelerator ({name}); "
            "fp32, amp_bf16 and bf16 are"
            if name == "cpu"
            else f"--precision {cfg.run.precision} is not supported by this accelerator ({name})"
        )
    return cfg.run.precision


def build(cfg: TrainConfig, precision: Precision, world_size: int) -> dict:
    """DeepSpeed's dictionary for this run."""
    micro = micro_batch_size(cfg, world_size)
    derived: dict = {
        "train_batch_size": cfg.run.train_batch_size,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": cfg.run.train_batch_size // (world_size * micro),
        "gradient_clipping": cfg.optim.grad_clip_norm,
        "zero_optimization": {"stage": _zero_stage(cfg, precision, world_size)},
        # torch's optimizers: DeepSpeed's own builds a C++ extension on first use.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    if precision == "amp_bf16":
        derived["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    elif precision == "bf16":
        derived["bf16"] = {"enabled": True}
    elif precision == "fp16":
        derived["fp16"] = {"enabled": True, "initial_scale_power": 16}
    if cfg.run.deepspeed_config is not None:
        user = _read(cfg.run.deepspeed_config)
        if cfg.run.zero_stage == "auto" and "zero_optimization" in user:
            derived["zero_optimization"]["stage"] = 1  # what it sets there needs a ZeRO optimizer
        derived = _merge(derived, user, cfg.run.deepspeed_config)
    if precision == "bf16" and derived["zero_optimization"]["stage"] > 0:
        # Micro-batches add up in fp32; stage 0 does so by itself and refuses the key.
        derived.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    return derived


def _zero_stage(cfg: TrainConfig, precision: Precision, world_size: int) -> int:
    if cfg.run.zero_stage != "auto":
        return cfg.run.zero_stage
    # Stage 1 copies every gradient into its partition and every weight back, also where the only
    # partition is the whole; under bf16 and fp16 it holds the fp32 master too.
    return 0 if world_size == 1 and precision in ("fp32", "amp_bf16") else 1


def _read(path: Path) -> dict:
    try:
        user = read_settings(path, "--deepspeed_config", json.loads)
    except json.JSONDecodeError as error:
        raise UserError(f"--deepspeed_config {path} is not valid JSON: {error}") from error
    if not isinstance(user, dict):
        raise UserError(
            f"--deepspeed_config {path} holds {type(user).__name__}, expected a mapping"
        )
    return user


def _refuse_misspelt(key: str, path: Path) -> None:
    """DeepSpeed ignores keys it does not know, so that a slip of the pen would cost a stage."""
    from deepspeed.runtime import constants

    known = {v for k, v in vars(constants).items() if k.isupper() and isinstance(v, str)}
    known |= {*_OURS, "zero_optimization", "activation_checkpointing"}
    if key not in known and (close := difflib.get_close_matches(key, known, n=1, cutoff=0.9)):
        raise UserError(
            f"--deepspeed_config {path} has an unknown key {key!r}, close to {close[0]}"
        )


def _merge(derived: dict, user: dict, path: Path) -> dict:
    merged = dict(derived)
    for key, value in user.items():
        _refuse_misspelt(key, path)
        if key in _OURS:
            if not _agrees(derived.get(key), value):
                ours = json.dumps(derived.get(key))
                raise UserError(
                    f"--deepspeed_config {path} sets {key} to {json.dumps(value)}, but this run "
                    f"has {ours}; set it by {_OURS[key]}"
                )
            continue
        known = merged.get(key)
        if isinstance(value, dict) and isinstance(known, dict):
            merged[key] = {**known, **value}
        else:
            merged[key] = value
    return merged


def _agrees(ours, theirs) -> bool:
    """Whether a key of the user's JSON says what this run does anyway (or leaves it open)."""
    if theirs in (None, "auto") or theirs == ours:
        return True
    if not isinstance(theirs, dict):
        return False
    if ours is None:
        return theirs.get("enabled") in (False, "auto")
    return all(v == "auto" or v == ours.get(k, v) for k, v in theirs.items())
