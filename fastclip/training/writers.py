"""Where curves go beside the jsonl files: TensorBoard and Weights & Biases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from fastclip.errors import UserError
from fastclip.training.options.run import RunConfig


class Writer(Protocol):
    """Where curves go beside the jsonl files."""

    def add(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoardWriter:
    """Event files under ``run/tensorboard``."""

    def __init__(self, run: Path, first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandbWriter:
    """A run of Weights & Biases, continued where a run of this folder is resumed."""

    def __init__(self, run: Path, cfg: RunConfig, config: Mapping[str, Any]):
        wandb = import_wandb()
        self.run = wandb.init(
            project=cfg.wandb_project_name,
            notes=cfg.wandb_notes or None,
            name=run.name,
            id=run.name,
            dir=str(run),
            resume="allow",
            config=dict(config),
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


def import_wandb() -> Any:
    """The wandb module. Raises :class:`UserError` where it is not installed."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError(
            "--report-to wandb needs the module wandb, which is not installed: `pip install wandb`"
        ) from error
    return wandb
