"""What is computed: seeded inputs of each operation at a shape and dtype."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reporting.operations import LAYERS

# Targets of a row where it has several: from 1 to 12, about as many as the 6.8 words that a photo
# with a text has among 100,000 (Joulin et al., ECCV 2016).
_MOST_TARGETS = 12


@dataclass(frozen=True)
class Problem:
    """One operation at one shape: ``rows x columns`` logits of products of width ``width``.

    ``ranks`` more than 1 is what one rank of that many computes of InfoNCE, its ``rows`` images
    against the texts of all, where every rank holds the same rows (``gpu.mirror``). ``scale`` None
    is CLIP's initial 1/0.07 (SigLIP: 10, bias -10). ``noise`` is what each side of a pair adds to
    the direction they share: 0.8 gives a cosine near 0.6.
    """

    operation: str
    rows: int
    columns: int
    width: int
    dtype: torch.dtype
    device: str = "cpu"
    ranks: int = 1
    scale: float | None = None
    noise: float = 0.8

    @property
    def shape(self) -> str:
        more = f", scale {self.scale:g}" if self.scale is not None else ""
        more += f", a rank of {self.ranks}" if self.ranks > 1 else ""
        return f"{self.rows:,} x {self.columns:,}, D = {self.width}{more}"

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def label(self) -> str:
        return f"{self.operation} {self.shape} {self.dtype_name}"

    @property
    def slug(self) -> str:
        shape = f"{self.rows}x{self.columns}x{self.width}"
        scale = f"-scale-{self.scale:g}" if self.scale is not None else ""
        return f"{self.operation}-{shape}-{self.dtype_name}{scale}"

    @property
    def unit_flop(self) -> int:
        """U: the multiplications and additions of one product of the shape."""
        return 2 * self.rows * self.columns * self.width

    @property
    def logit_bytes(self) -> int:
        """Size of the logits in the inputs' dtype."""
        return self.rows * self.columns * self.dtype.itemsize

    @property
    def logit_scale(self) -> float:
        if self.scale is not None:
            return self.scale
        return 10.0 if self.operation == "SigLIP" else 1 / 0.07

    def inputs(self, seed: int = 0) -> dict[str, Tensor]:
        """Leaves by name, the same on every call of a seed.

        What describes targets wants no gradient: ``target``, one a row; or as compressed rows
        ``starts`` and ``columns``, and the ``shares`` of targets or the weights of classes.
        """
        generator = torch.Generator(self.device).manual_seed(seed)

        def normal(rows: int) -> Tensor:
            return torch.randn(rows, self.width, generator=generator, device=self.device)

        constants = {}
        if self.operation in LAYERS:
            hidden = normal(self.rows)
            weight = normal(self.columns) / math.sqrt(self.width)
            constants = self._targets(generator)
            leaves = {"hidden": hidden.to(self.dtype), "weight": weight.to(self.dtype)}
        else:
            shared = normal(self.rows)
            image, text = (
                F.normalize(shared + self.noise * normal(self.rows)).to(self.dtype)
                for _ in range(2)
            )
            leaves = {"image": image, "text": text}
            leaves["scale"] = torch.tensor(self.logit_scale, device=self.device)
            if self.operation == "SigLIP":
                leaves["bias"] = torch.tensor(-10.0, device=self.device)
        for leaf in leaves.values():
            leaf.requires_grad_()
        return leaves | constants

    def _targets(self, generator: torch.Generator) -> dict[str, Tensor]:
        n, classes = self.rows, self.columns

        def whole(least: int, most: int) -> Tensor:
            return torch.randint(least, most + 1, (n,), generator=generator, device=self.device)

        if self.operation == "linear cross entropy":
            return {"target": whole(0, classes - 1)}
        # Evenly spaced from a class on, so that no row names one twice.
        count = whole(1, _MOST_TARGETS)
        first, step = whole(0, classes - 1), whole(1, classes // _MOST_TARGETS)
        turn = torch.arange(_MOST_TARGETS, device=self.device)
        named = (first[:, None] + step[:, None] * turn) % classes
        columns = named[turn < count[:, None]]
        targets = {"starts": F.pad(count.cumsum(0), (1, 0)), "columns": columns}
        if self.operation == "multi-target cross entropy":
            # Shares of 1, as for hashtags (Mahajan et al., ECCV 2018).
            return targets | {"shares": (1 / count).repeat_interleave(count)}
        # A class's positives weigh as much as its negatives (Joulin et al.), one more photo on
        # either side keeping both finite.
        positives = columns.bincount(minlength=classes)
        return targets | {
            "positive_weight": n / (positives + 1.0),
            "negative_weight": n / (n - positives + 1.0),
        }
