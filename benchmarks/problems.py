"""What is computed: seeded inputs of each operation at a shape and dtype, and the exact answer."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK_ENTRIES = 1 << 23


@dataclass(frozen=True)
class Problem:
    """One operation at one shape: ``rows x columns`` logits of products of width ``width``."""

    operation: str
    rows: int
    columns: int
    width: int
    dtype: torch.dtype

    @property
    def shape(self) -> str:
        return f"{self.rows:,} x {self.columns:,}, D = {self.width}"

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def label(self) -> str:
        return f"{self.operation} {self.shape} {self.dtype_name}"

    @property
    def slug(self) -> str:
        return f"{self.operation}-{self.rows}x{self.columns}x{self.width}-{self.dtype_name}"

    @property
    def unit_flop(self) -> int:
        """U: the multiplications and additions of one product of the shape."""
        return 2 * self.rows * self.columns * self.width

    @property
    def logit_bytes(self) -> int:
        """Size of the logits in the inputs' dtype."""
        return self.rows * self.columns * self.dtype.itemsize

    def inputs(self) -> dict[str, Tensor]:
        """Leaves by name, the same on every call; ``target`` alone wants no gradient.

        Pairs of a contrastive problem have a cosine near 0.6, its scale is CLIP's initial 1/0.07
        (SigLIP: 10, bias -10).
        """
        generator = torch.Generator().manual_seed(0)

        def normal(rows: int) -> Tensor:
            return torch.randn(rows, self.width, generator=generator)

        if self.operation == "linear cross entropy":
            hidden = normal(self.rows)
            weight = normal(self.columns) / math.sqrt(self.width)
            target = torch.randint(self.columns, (self.rows,), generator=generator)
            leaves = {"hidden": hidden.to(self.dtype), "weight": weight.to(self.dtype)}
        else:
            shared = normal(self.rows)
            image, text = (F.normalize(shared + 0.8 * normal(self.rows)) for _ in range(2))
            leaves = {"image": image.to(self.dtype), "text": text.to(self.dtype)}
            siglip = self.operation == "SigLIP"
            leaves["scale"] = torch.tensor(10.0 if siglip else 1 / 0.07)
            if siglip:
                leaves["bias"] = torch.tensor(-10.0)
        for leaf in leaves.values():
            leaf.requires_grad_()
        if self.operation == "linear cross entropy":
            leaves["target"] = target
        return leaves


@functools.lru_cache(maxsize=1)
def exact(problem: Problem) -> dict[str, Tensor]:
    """The loss and the gradient of every input in float64, a block of rows at a time."""
    inputs = {
        name: leaf.detach().double() if leaf.is_floating_point() else leaf
        for name, leaf in problem.inputs().items()
    }
    if problem.operation == "linear cross entropy":
        return _linear_cross_entropy(**inputs)
    return _siglip(**inputs) if problem.operation == "SigLIP" else _infonce(**inputs)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, _BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _infonce(image: Tensor, text: Tensor, scale: Tensor) -> dict[str, Tensor]:
    n = len(image)
    row_lse, column_lse = image.new_empty(n), image.new_full((n,), -torch.inf)
    for rows in _blocks(n, n):
        z = scale * image[rows] @ text.T
        row_lse[rows] = z.logsumexp(1)
        column_lse = torch.logaddexp(column_lse, z.logsumexp(0))
    pairs = scale * (image * text).sum(1)
    d_image, d_text, d_scale = torch.empty_like(image), torch.zeros_like(text), 0.0
    for rows in _blocks(n, n):
        cosine = image[rows] @ text.T
        z = scale * cosine
        g = ((z - row_lse[rows, None]).exp_() + (z - column_lse).exp_()) / (2 * n)
        g[torch.arange(len(g)), torch.arange(rows.start, rows.stop)] -= 1 / n
        d_image[rows] = scale * g @ text
        d_text += scale * g.T @ image[rows]
        d_scale += (g * cosine).sum()
    loss = ((row_lse - pairs) + (column_lse - pairs)).mean() / 2
    return {"loss": loss, "image": d_image, "text": d_text, "scale": d_scale}


def _siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> dict[str, Tensor]:
    n = len(image)
    d_image, d_text = torch.empty_like(image), torch.zeros_like(text)
    loss, d_scale, d_bias = 0.0, 0.0, 0.0
    for rows in _blocks(n, n):
        cosine = image[rows] @ text.T
        label = torch.full_like(cosine, -1)
        label[torch.arange(len(label)), torch.arange(rows.start, rows.stop)] = 1
        z = label * (scale * cosine + bias)
        g = -label * torch.sigmoid(-z) / n
        loss = loss - F.logsigmoid(z).sum() / n
        d_image[rows] = scale * g @ text
        d_text += scale * g.T @ image[rows]
        d_scale += (g * cosine).sum()
        d_bias += g.sum()
    return {"loss": loss, "image": d_image, "text": d_text, "scale": d_scale, "bias": d_bias}


def _linear_cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> dict[str, Tensor]:
    n = len(hidden)
    d_hidden, d_weight, loss = torch.empty_like(hidden), torch.zeros_like(weight), 0.0
    for rows in _blocks(n, len(weight)):
        z = hidden[rows] @ weight.T
        lse, own = z.logsumexp(1, keepdim=True), target[rows, None]
        loss = loss + (lse - z.gather(1, own)).sum() / n
        g = (z - lse).exp_() / n
        g.scatter_add_(1, own, torch.full_like(lse, -1 / n))
        d_hidden[rows] = g @ weight
        d_weight += g.T @ hidden[rows]
    return {"loss": loss, "hidden": d_hidden, "weight": d_weight}


def worst_error(found: dict[str, Tensor], problem: Problem) -> tuple[float, str]:
    """Largest relative error (in norm) among the loss and gradients found, and which one it is."""
    answer = exact(problem)
    errors = {
        name: float((value.detach().double() - answer[name]).norm() / answer[name].norm())
        for name, value in found.items()
    }
    worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
    return errors[worst], worst
