"""A trainer of the default model on the generated set, built as a training run builds it."""

from dataclasses import dataclass
from pathlib import Path

import torch
from fastclip.objectives.contrastive import Contrastive
from fastclip.training.tokens import build_tokeniser

from fastclip.data.generated import GeneratedSet, GeneratedSpec, ensure_generated
from fastclip.data.loader import Loader
from fastclip.models import DualEncoder
from fastclip.training import deepspeed_config, session
from fastclip.training.config import TrainConfig, train_config
from fastclip.training.distributed import Ranks
from fastclip.training.trainer import Trainer

PICTURES = 4096


@dataclass(frozen=True)
class Setup:
    """What a run of ``cfg`` holds before its first step."""

    cfg: TrainConfig
    precision: str
    deepspeed: dict
    model: DualEncoder
    loader: Loader
    objective: Contrastive
    fingerprint: str

    def trainer(self, ranks: Ranks) -> Trainer:
        return Trainer(
            self.cfg,
            ranks,
            model=self.model,
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
    spec, _ = session.data(cfg, ranks)
    tokenizer = build_tokeniser(cfg, spec)
    model = session.build_model(cfg, tokenizer)
    loader = session.build_training_loader(cfg, spec, tokenizer, model, ranks)
    objective = Contrastive(
        rank=ranks.rank, world_size=ranks.world_size, workspace_bytes=cfg.run.workspace_mib << 20
    )
    return Setup(cfg, precision, deepspeed, model, loader, objective, tokenizer.fingerprint)
