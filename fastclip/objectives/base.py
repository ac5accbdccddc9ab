"""The contract of every system that is trained by steps.

A loss is made of *row sums* (captioning, masked words, tags: sums over rows, divided by counts that
are known before any forward pass), of *batch terms* (contrastive: a function of the features of the
whole global batch), or of both (CoCa). ``fastclip.training.steps`` runs one step of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fastclip.comm.ranks import Ranks
from fastclip.data.fields import Field
from fastclip.data.order import Sampler
from fastclip.data.text import Tokenizer
from fastclip.models.options import ModelConfig
from fastclip.objectives.texts import Texts

MicroBatch = dict[str, Any]
"""Columns of some records: tensors on the host, and lists such as ``key``."""
Losses = dict[str, Tensor]
"""0-d tensors by name; each name ends in ``_loss``."""
Learned = dict[str, Any]
"""JSON values by name."""


class Output(NamedTuple):
    """What a network's forward pass gives for one micro-batch.

    ``features`` go into the batch terms: tensors of any numbers of rows, concatenated over
    micro-batches. ``sums`` are this micro-batch's parts of the row sums, already divided by the
    global counts: added up over all micro-batches of all ranks they are the losses.
    """

    features: tuple[Tensor, ...] = ()
    sums: dict[str, Tensor] = {}


@dataclass(frozen=True)
class Part:
    """Parameters of the network that share a rate and a decay.

    Attributes:
        lr: peak learning rate; None is the run's.
        wd: weight decay of parameters that decay; None is the run's.
        decays: which parameters decay, by name; None for those of more than one dimension.
    """

    name: str
    parameters: Mapping[str, nn.Parameter]
    lr: float | None = None
    wd: float | None = None
    decays: Callable[[str, nn.Parameter], bool] | None = None


OverTheSet = Callable[[Callable[[MicroBatch], Tensor]], Tensor]
"""Maps a function of micro-batches (on the device) over all records, unaugmented and in the set's
order, without gradients and in evaluation mode: its rows ``[n, ...]`` on the host of every rank."""


@dataclass(frozen=True)
class Parts:
    """What an objective is built from.

    Attributes:
        open_teacher: opens a trained model by the name of its folder; None where the objective is
            built to be used, not trained.
        learned: what :meth:`Objective.learn` returned, when the run began.
    """

    model: ModelConfig
    tokenizer: Tokenizer
    ranks: Ranks
    workspace_bytes: int
    open_teacher: Callable[[str], Any] | None = None
    learned: Mapping[str, Any] = field(default_factory=dict)


class Objective:
    """One system: what it needs of a record, its network, its losses.

    A plain class, since its parts are separate state: ``network`` is DeepSpeed's (partitioned,
    cast, checkpointed by it), ``frozen`` is whole on every rank, in evaluation mode and without
    gradients, ``scalars`` are replicated fp32 parameters that DeepSpeed never sees.

    A subclass is built by ``Subclass(options, parts)``, with ``options`` an instance of its
    ``Options``.
    """

    Options: ClassVar[type]
    """Dataclass of the flags that this objective alone takes."""
    summary: ClassVar[str]
    """One line for ``--help``."""
    paper: ClassVar[str]
    """Authors, year and arXiv number or venue."""
    fields: tuple[Field, ...]
    """What it needs of a record; may depend on the options."""
    in_order: ClassVar[bool] = False
    """Whether it predicts words in their order, which a bag-of-words tokenizer does not keep."""

    strip_accents: ClassVar[bool] = False
    """Whether the tokenizer leaves accents out, as VirTex's does."""
    keep_end: ClassVar[bool] = True
    """Whether a caption that is cut keeps the end in place of a piece; VirTex's loses it."""

    writes_captions: ClassVar[bool] = False
    """Whether ``model`` has ``encode_grid`` and ``next_token_logits`` that write captions."""
    fills_masks: ClassVar[bool] = False
    """Whether :meth:`trained` gives a ``filler`` (:class:`fastclip.models.filler.Filler`)."""

    options: Any
    model: nn.Module
    """What a finished run is loaded as; a part of ``network``."""
    network: nn.Module
    """``network(micro_batch=, step=, given=, features_only=False) -> Output``, for a micro-batch on
    the device. With ``features_only`` it leaves out all that the features do not need, and computes
    them before anything that it leaves out, so that both passes draw the same random numbers."""
    frozen: nn.Module | None = None
    scalars: nn.Module | None = None
    sampler: Sampler | None = None
    has_batch_terms: bool = False
    """Whether :meth:`batch_losses` has any: all micro-batches' features are needed at once."""

    @classmethod
    def own_tokenizer(cls, options: Any, context_length: int | None) -> Tokenizer | None:
        """The tokenizer that the objective brings; None where the run's ``--tokenizer`` is used."""
        return None

    @classmethod
    def learn(cls, options: Any, tokenizer: Tokenizer, texts: Texts, ranks: Ranks) -> Learned:
        """What is learned of the training data before the network is built: words, for instance.

        Called once, when a run begins, on every rank with the same; all must return the same. The
        run's folder keeps it as JSON, and resuming and loading take it from there.
        """
        return {}

    def prepare(self, batch: Sequence[MicroBatch], ranks: Ranks) -> dict[str, Any]:
        """What all ranks must know before a step's first forward pass, such as global counts.

        Called once a step on the host with this rank's micro-batches, to which it may add columns;
        every rank must return the same.
        """
        return {}

    def given(self, micro_batch: MicroBatch) -> dict[str, Any]:
        """``frozen``'s outputs for a micro-batch on the device; kept for the second pass."""
        return {}

    def batch_losses(
        self,
        features: tuple[Tensor, ...],
        given: Sequence[dict[str, Any]],
        batch: Sequence[MicroBatch],
        step: dict[str, Any],
    ) -> Losses:
        """Batch terms of this rank's concatenated features; their mean over ranks is the loss."""
        return {}

    def before_epoch(self, epoch: int, over_the_set: OverTheSet) -> dict[str, Tensor]:
        """Renew what an epoch starts with, such as labels that clustering finds.

        torch's generator has been seeded from the run's seed and the epoch, on all ranks alike.
        Returns new values of parameters of ``network`` by name; their optimizer state starts anew.
        """
        return {}

    def state(self) -> dict[str, Any]:
        """What :meth:`before_epoch` found, as tensors and plain values; part of a checkpoint."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` returned."""

    def groups(self) -> Iterable[Part]:
        """The network's parameters by rate and decay."""
        return [Part("network", dict(self.network.named_parameters()))]

    def report(self) -> dict[str, float]:
        """Figures to stand beside the losses in the log."""
        return {}

    def after_step(self) -> None:
        """Bring the scalars back into their range."""

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share with the run it continues, by name."""
        flags = {f"--{name.replace('_', '-')}": v for name, v in asdict(self.options).items()}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in flags.items()}

    def trained(self) -> dict[str, Any]:
        """What a user of a finished run gets beside ``model`` and the tokenizer, by name."""
        return {}

    @classmethod
    def check_backend(cls, device: torch.device) -> None:
        """Raise ValueError for a backend in the environment that this loss cannot take here."""
