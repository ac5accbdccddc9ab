"""A small two-tower model with BatchNorm and dropout, and a contrastive objective on it."""

from dataclasses import dataclass

import torch
from step_loader import StepLoader
from torch import nn
from torch.nn import functional as F

from fastclip.data.fields import CAPTION, PICTURE
from fastclip.loss import ClipLoss
from fastclip.objectives.base import Objective, Output
from fastclip.objectives.scalars import LogitScale


class ToyTowers(nn.Module):
    def __init__(self, *, batchnorm: bool = True, dropout: float = 0.2):
        super().__init__()
        norm = nn.BatchNorm1d(24) if batchnorm else nn.LayerNorm(24)
        drop = nn.Dropout(dropout)
        self.image = nn.Sequential(nn.Linear(12, 24), norm, nn.GELU(), drop, nn.Linear(24, 8))
        self.text = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 8))

    def forward(self, micro_batch, step=None, given=None, features_only=False):
        image, text = micro_batch["image"], micro_batch["text"]
        image = self.image((image.float() / 255).to(self.image[0].weight.dtype))
        features = F.normalize(image, dim=-1), F.normalize(self.text(text).mean(1), dim=-1)
        return Output(features)


@dataclass(kw_only=True)
class ToyOptions:
    """No flags."""


def textbook(image, text, scale, **_):
    """CLIP's loss of one process, in plain torch."""
    logits = scale * image.float() @ text.float().T
    target = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    return {"contrastive_loss": loss}


class ToyObjective(Objective):
    """A contrastive loss, the textbook's by default, with a learned scale."""

    fields = (PICTURE, CAPTION)
    has_batch_terms = True

    def __init__(self, network=None, scale=7.389056, loss=textbook):
        self.options = ToyOptions()
        self.model = self.network = network or ToyTowers()
        self.scalars = LogitScale(scale)
        self.loss = loss

    def batch_losses(self, features, given, batch, step):
        return self.loss(*features, self.scalars(), output_dict=True)

    def after_step(self):
        self.scalars.clamp()


def over_ranks(ranks, network=None, scale=7.389056) -> ToyObjective:
    """The objective with our own loss, over all ranks."""
    flags = {"local_loss": True, "gather_with_grad": True, "workspace_bytes": 1 << 20}
    loss = ClipLoss(rank=ranks.rank, world_size=ranks.world_size, **flags)
    return ToyObjective(network, scale, loss)


def toy_batch(rows: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (rows, 12), dtype=torch.uint8, generator=generator),
        "text": torch.randint(0, 50, (rows, 5), generator=generator),
        "key": [f"row{i}" for i in range(rows)],
    }


def in_micro_batches(batch: dict, size: int, rank: int = 0, world_size: int = 1) -> list[dict]:
    """A rank's share of a batch, in micro-batches of ``size`` rows."""
    share = len(batch["key"]) // world_size
    starts = range(rank * share, (rank + 1) * share, size)
    return [{name: column[i : i + size] for name, column in batch.items()} for i in starts]


class ToyLoader(StepLoader):
    """Batches split over ranks by rows."""

    def __init__(self, rows: int, micro: int, rank: int = 0, world_size: int = 1):
        self.rows, self.micro, self.rank, self.world_size = rows, micro, rank, world_size
        self.num_samples = rows * self.steps_per_epoch

    def epoch(self, epoch: int, start_step: int = 0):
        for step in range(start_step, self.steps_per_epoch):
            batch = toy_batch(self.rows, seed=100 * epoch + step)
            yield in_micro_batches(batch, self.micro, self.rank, self.world_size)


def toy_trainer(ranks, cfg, *, precision="fp32", fingerprint="tokens", objective=None, **towers):
    """A trainer of the toy model with weights from seed 0."""
    from fastclip.training import deepspeed_config
    from fastclip.training.trainer import Trainer

    torch.manual_seed(0)
    deepspeed = deepspeed_config.build(cfg, precision, ranks.world_size)
    micro = deepspeed["train_micro_batch_size_per_gpu"]
    return Trainer(
        cfg,
        ranks,
        objective=objective or ToyObjective(ToyTowers(**towers)),
        loader=ToyLoader(cfg.run.train_batch_size, micro, ranks.rank, ranks.world_size),
        precision=precision,
        deepspeed=deepspeed,
        fingerprint=fingerprint,
    )
