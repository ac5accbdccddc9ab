"""open_clip's own training loop around given towers."""

from argparse import Namespace
from collections.abc import Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from fastclip.training.config import TrainConfig
from fastclip.training.optimizers import build_optimizer, split_decay


class Towers(nn.Module):
    """Given towers and a logit scale, with the output that open_clip's loop expects."""

    def __init__(self, towers: nn.Module, log_scale: Tensor):
        super().__init__()
        self.towers = towers
        self.logit_scale = nn.Parameter(log_scale.detach().clone())

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        image_features, text_features = self.towers(image, text)
        return {
            "image_features": image_features,
            "text_features": text_features,
            "logit_scale": self.logit_scale.exp(),
        }


class RecordedLoss(nn.Module):
    """open_clip's loss, its values kept."""

    def __init__(self) -> None:
        super().__init__()
        from open_clip.loss import ClipLoss

        self.loss, self.values = ClipLoss(), []

    def forward(self, **arguments) -> dict[str, Tensor]:
        found = self.loss(**arguments)
        self.values.append(found["contrastive_loss"].detach())
        return found


class Batches:
    """(pictures, tokens) with the two numbers that open_clip reads off its loader.

    Pictures are kept as the uint8 they are decoded to, and standardized as they are handed out:
    open_clip's transforms do so picture by picture in its loader, our towers on the whole batch.
    """

    def __init__(self, batches: list[dict], normalize: nn.Module):
        self._batches, self._normalize = batches, normalize
        self.num_batches = len(batches)
        self.num_samples = sum(len(batch["image"]) for batch in batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._batches:
            yield self._normalize(batch["image"]), batch["text"]


class OpenClipLoop:
    """``open_clip_train.train.train_one_epoch`` on fixed batches, an epoch a call."""

    def __init__(self, towers: nn.Module, log_scale: Tensor, batches: Batches, cfg: TrainConfig):
        from open_clip_train.scheduler import cosine_lr

        self.model, self.loss = Towers(towers, log_scale), RecordedLoss()
        groups = split_decay(self.model.named_parameters(), cfg.optim.wd)
        self.optimizer = build_optimizer(groups, cfg.optim)
        total = cfg.run.epochs * batches.num_batches
        self.scheduler = cosine_lr(self.optimizer, cfg.optim.lr, cfg.optim.warmup, total)
        self.data = {"train": SimpleNamespace(dataloader=batches, set_epoch=lambda epoch: None)}
        self.epoch = 0
        self.options = Namespace(
            device="cpu",
            precision="fp32",
            distill=False,
            accum_freq=1,
            skip_scheduler=False,
            horovod=False,
            grad_clip_norm=None,
            rank=0,
            local_rank=0,
            world_size=1,
            log_local=False,
            batch_size=batches.num_samples // batches.num_batches,
            log_every_n_steps=cfg.run.log_every_n_steps,
            wandb=False,
        )

    def run(self) -> None:
        from open_clip_train.train import train_one_epoch

        train_one_epoch(
            self.model,
            self.data,
            self.loss,
            self.epoch,
            self.optimizer,
            None,
            self.scheduler,
            None,
            self.options,
        )
        self.epoch += 1

    def losses(self) -> list[float]:
        return [float(value) for value in torch.stack(self.loss.values)]
