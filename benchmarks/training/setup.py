"""A trainer of the default model on the generated set, built as a training run builds it."""

from dataclasses import dataclass
from pathlib import Path

import torch

from fastclip.comm.ranks import Ranks
from fastclip.data.generated.samples import GeneratedSpec
from fastclip.data.generated.shards import GeneratedSet, ensure_generated
from fastclip.data.loaders.base import Loader
from fastclip.objectives import find_objective
from fastclip.objectives.clip import Clip
from fastclip.training import deepspeed_config, session
from fastclip.training.config import TrainConfig, train_config
from fastclip.training.tokenizer import build_tokenizer
from fastclip.training.trainer import Trainer

PICTURES = 4096


@dataclass(frozen=True)
class Setup:
    """What a run of ``cfg`` holds before its first step."""

    cfg: TrainConfig
    precision: str
    deepspeed: dict
    loader: Loader
    objective: Clip
    fingerprint: str

    def trainer(self, ranks: Ranks) -> Trainer:
        return Trainer(
            self.cfg,
            ranks,
            objective=self.objective,
            loader=self.loader,
            precision=self.precision,
            deepspeed=self.deepspeed,
            fingerprint=self.fingerprint,
        )


def pictures(root: Path) -> GeneratedSet:
    """The generated pictures that the benchmarks train on, written under ``root`` once."""
    return ensure_generated(root, GeneratedSpec(num_samples=PICTURES, num_val=1), progress=False)


def build(root: Path, ranks: Ranks, *, batch: int, zero_stage: int | str) -> Setup:
    """Everything but the trainer, from the flags' defaults; batches beyond the set repeat it."""
    cfg = train_config(
        train_data=pictures(root).train,
        train_num_samples=max(batch, PICTURES),
        in_memory="always",
        train_batch_size=batch,
        zero_stage=zero_stage,
    )
    precision = deepspeed_config.resolve_precision(cfg)
    deepspeed = deepspeed_config.build(cfg, precision, ranks.world_size)
    torch.manual_seed(cfg.run.seed)
    spec, _ = session.open_data(cfg, ranks)
    tokenizer = build_tokenizer(cfg, spec, find_objective(cfg.run.objective))
    objective = session.build_objective(cfg, tokenizer, ranks, {})
    loader = session.build_training_loader(cfg, spec, tokenizer, objective, ranks)
    return Setup(cfg, precision, deepspeed, loader, objective, tokenizer.fingerprint)
