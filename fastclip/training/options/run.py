"""Options of the run itself: what is trained, for how long, in which precision, kept where."""

from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from fastclip.errors import UserError, check_flags

Precision = Literal["auto", "fp32", "amp_bf16", "bf16", "fp16"]

_REPORTERS = ("tensorboard", "wandb")
_MAX_SEED = 2**63 - 1  # torch's generators take no more


@dataclass(kw_only=True)
class RunConfig:
    """The run and its folder."""

    config: Path | None = None
    """Recipe (YAML) whose keys are these flags' names; flags given as well win over it."""
    objective: str = "clip"
    """The system to train: one of the list at the top, each with flags of its own."""
    siglip: bool = False
    """The same as ``--objective siglip``."""

    train_batch_size: int = 256
    """Global batch: records one optimizer step sees, over all ranks."""
    train_micro_batch_size_per_gpu: int | None = None
    """Records one forward pass of one rank holds; the largest divisor up to 512 if left out."""
    epochs: int = 8
    """Passes over the training data."""
    max_steps: int | None = None
    """Stop after this many optimizer steps; the schedule ends there too."""
    precision: Precision = "auto"
    """``auto``: amp_bf16 on a GPU, fp32 on a CPU."""
    zero_stage: Literal["auto", 0, 1, 2, 3] = "auto"
    """DeepSpeed ZeRO stage; ``auto`` is 1, or 0 where one process has nothing to partition."""
    deepspeed_config: Path | None = None
    """DeepSpeed JSON merged over the derived one."""
    workspace_mib: int = 32
    """Memory the loss may use beyond features and their gradients, in MiB."""
    torchcompile: bool = False
    """Compile the network with torch.compile."""
    seed: int = 0
    """Seed of weights, data order and augmentation."""

    val_frequency: int | None = None
    """Epochs between evaluations on --val-data, the last epoch always among them; 0 is never, left
    out is after the last epoch alone."""
    zeroshot_frequency: int | None = None
    """Epochs between evaluations on --imagenet-val, as for --val-frequency."""

    logs: Path = Path("logs")
    """Folder that holds the runs."""
    name: str | None = None
    """The run's folder under --logs; model and time where left out."""
    resume: str = "none"
    """``auto`` (or open_clip's ``latest``) continues from the newest complete checkpoint of --name
    (or of the newest run), a path from the checkpoint in that folder, ``none`` from nothing."""
    save_frequency: int = 0
    """Steps between checkpoints (open_clip counts epochs); 0 saves at the end of every epoch."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    report_to: str = "tensorboard"
    """Where curves go beside metrics.jsonl: tensorboard, wandb, both with a comma or as ``all``, or
    ``none``."""
    wandb_project_name: str = "fastclip"
    """Project of Weights & Biases that takes the run."""
    wandb_notes: str = ""
    """Notes on the run for Weights & Biases."""
    log_every_n_steps: int = 10
    """Steps between two lines of the log."""
    local_rank: int = 0
    """Set by the deepspeed launcher."""

    @property
    def reporters(self) -> frozenset[str]:
        """Which of ``tensorboard`` and ``wandb`` take the curves."""
        words = {word.strip() for word in self.report_to.split(",")}
        return frozenset(_REPORTERS if "all" in words else words & set(_REPORTERS))

    def check(self) -> None:
        """Raise :class:`UserError` for a value that no run can use."""
        above = ("train_batch_size", "epochs", "keep_checkpoints", "log_every_n_steps")
        check_flags(self, (*above, "workspace_mib"), "more than 0", lambda n: n > 0)
        check_flags(self, ("name",), "the name of a folder below --logs", _is_below)
        sizes = ("train_micro_batch_size_per_gpu", "max_steps")
        check_flags(self, sizes, "1 or more", lambda n: n >= 1)
        counts = ("save_frequency", "val_frequency", "zeroshot_frequency", "seed")
        check_flags(self, counts, "0 or more", lambda n: n >= 0)
        check_flags(self, ("seed",), f"at most {_MAX_SEED}", lambda n: n <= _MAX_SEED)
        if self.siglip != (self.objective == "siglip"):
            siglip = "--siglip" if self.siglip else "--no-siglip"
            raise UserError(f"{siglip} contradicts --objective {self.objective}: give one of them")
        if not self.resume:
            raise UserError("--resume is '', expected none, auto or a checkpoint's folder")
        words = {word.strip() for word in self.report_to.split(",")}
        if not words <= {*_REPORTERS, "all"} and words not in ({""}, {"none"}):
            raise UserError(
                f"--report-to is {self.report_to!r}, expected none, tensorboard, wandb, "
                "tensorboard,wandb or all"
            )


def _is_below(name: str) -> bool:
    """Whether a run of this name lies within the folder of all runs, and is not that folder."""
    parts = PurePath(name).parts
    return bool(parts) and not PurePath(name).is_absolute() and ".." not in parts
