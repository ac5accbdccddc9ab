"""A small two-tower model with BatchNorm and dropout, and an objective on its features."""

import torch
from torch import nn
from torch.nn import functional as F

from fastclip.objectives.contrastive import Objective


class ToyTowers(nn.Module):
    def __init__(self, *, batchnorm: bool = True, dropout: float = 0.2):
        super().__init__()
        norm = nn.BatchNorm1d(24) if batchnorm else nn.LayerNorm(24)
        drop = nn.Dropout(dropout)
        self.image = nn.Sequential(nn.Linear(12, 24), norm, nn.GELU(), drop, nn.Linear(24, 8))
        self.text = nn.Sequential(nn.Embedding(50, 16), nn.Linear(16, 8))

    def forward(self, image, text):
        image = self.image((image.float() / 255).to(self.image[0].weight.dtype))
        return F.normalize(image, dim=-1), F.normalize(self.text(text).mean(1), dim=-1)


class ToyObjective(Objective):
    """The textbook contrastive loss of one process, with a learnable scale."""

    def __init__(self):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.full([1], 2.0))

    def forward(self, *features):
        image, text = features
        logits = self.logit_scale.exp() * image.float() @ text.float().T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return {"contrastive_loss": loss}

    def clamp(self):
        with torch.no_grad():
            self.logit_scale.clamp_(0, 4.6052)


def toy_batch(rows: int, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (rows, 12), dtype=torch.uint8, generator=generator),
        "text": torch.randint(0, 50, (rows, 5), generator=generator),
        "key": [f"row{i}" for i in range(rows)],
    }


class ToyLoader:
    """Four batches an epoch, each from its number, split over ranks by rows."""

    steps_per_epoch = 4

    def __init__(self, rows: int, rank: int = 0, world_size: int = 1):
        self.rows, self.rank, self.world_size = rows, rank, world_size

    def epoch(self, epoch: int, start_step: int = 0):
        share = self.rows // self.world_size
        own = slice(self.rank * share, (self.rank + 1) * share)
        for step in range(start_step, self.steps_per_epoch):
            batch = toy_batch(self.rows, seed=100 * epoch + step)
            yield {name: column[own] for name, column in batch.items()}


def toy_trainer(ranks, cfg, *, precision="fp32", fingerprint="tokens", objective=None, **towers):
    """A trainer of the toy model with weights from seed 0."""
    from fastclip.training import deepspeed_config
    from fastclip.training.trainer import Trainer

    torch.manual_seed(0)
    return Trainer(
        cfg,
        ranks,
        model=ToyTowers(**towers),
        objective=objective or ToyObjective(),
        loader=ToyLoader(cfg.train_batch_size, ranks.rank, ranks.world_size),
        precision=precision,
        deepspeed=deepspeed_config.build(cfg, precision, ranks.world_size),
        fingerprint=fingerprint,
    )
