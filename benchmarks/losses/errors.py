"""The exact answer to a problem, and how far another is from it."""

import functools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.losses.problems import Problem
from benchmarks.reporting.operations import LAYERS
from benchmarks.reporting.record import badness

_BLOCK_ENTRIES = {"cpu": 1 << 23, "cuda": 1 << 25}

# Relative error beyond which an implementation is called wrong and is not timed, ours (True) and
# peers (False), some of which take TF32. It tells another loss from a rounded one; ours have finer
# bars in tests/.
GATE = {
    torch.float32: {True: 1e-4, False: 1e-2},
    torch.bfloat16: {True: 1e-2, False: 0.2},
}


@functools.lru_cache(maxsize=1)
def exact(problem: Problem) -> dict[str, Tensor]:
    """The loss and the gradient of every input in float64, a block of rows at a time."""
    inputs = {
        name: leaf.detach().double() if leaf.is_floating_point() else leaf
        for name, leaf in problem.inputs().items()
    }
    if problem.operation in LAYERS:
        return _layer(**inputs)
    if problem.operation == "SigLIP":
        return _siglip(**inputs)
    answer = _infonce(**inputs)
    # Copies of every column raise each softmax's normaliser and leave the gradients as they are.
    answer["loss"] = answer["loss"] + math.log(problem.ranks)
    return answer


def _blocks(rows: int, columns: int, device: torch.device) -> Iterator[slice]:
    step = max(1, _BLOCK_ENTRIES[device.type] // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _infonce(image: Tensor, text: Tensor, scale: Tensor) -> dict[str, Tensor]:
    n = len(image)
    row_lse, column_lse = image.new_empty(n), image.new_full((n,), -torch.inf)
    for rows in _blocks(n, n, image.device):
        z = scale * image[rows] @ text.T
        row_lse[rows] = z.logsumexp(1)
        column_lse = torch.logaddexp(column_lse, z.logsumexp(0))
    pairs = scale * (image * text).sum(1)
    d_image, d_text, d_scale = torch.empty_like(image), torch.zeros_like(text), 0.0
    for rows in _blocks(n, n, image.device):
        cosine = image[rows] @ text.T
        z = scale * cosine
        g = ((z - row_lse[rows, None]).exp_() + (z - column_lse).exp_()) / (2 * n)
        g.diagonal(rows.start).sub_(1 / n)
        d_image[rows] = scale * g @ text
        d_text += scale * g.T @ image[rows]
        d_scale += (g * cosine).sum()
    loss = ((row_lse - pairs) + (column_lse - pairs)).mean() / 2
    return {"loss": loss, "image": d_image, "text": d_text, "scale": d_scale}


def _siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> dict[str, Tensor]:
    n = len(image)
    d_image, d_text = torch.empty_like(image), torch.zeros_like(text)
    loss, d_scale, d_bias = 0.0, 0.0, 0.0
    for rows in _blocks(n, n, image.device):
        cosine = image[rows] @ text.T
        label = torch.full_like(cosine, -1)
        label.diagonal(rows.start).fill_(1)
        z = label * (scale * cosine + bias)
        g = -label * torch.sigmoid(-z) / n
        loss = loss - F.logsigmoid(z).sum() / n
        d_image[rows] = scale * g @ text
        d_text += scale * g.T @ image[rows]
        d_scale += (g * cosine).sum()
        d_bias += g.sum()
    return {"loss": loss, "image": d_image, "text": d_text, "scale": d_scale, "bias": d_bias}


def _layer(hidden: Tensor, weight: Tensor, **target: Tensor) -> dict[str, Tensor]:
    """Of any loss in ``LAYERS``, told by what describes its targets."""
    n = len(hidden)
    d_hidden, d_weight, loss = torch.empty_like(hidden), torch.zeros_like(weight), 0.0
    for rows in _blocks(n, len(weight), hidden.device):
        z = hidden[rows] @ weight.T
        y = _dense(z, rows, **target)
        if "positive_weight" in target:
            positive = target["positive_weight"] * y / (n * len(weight))
            negative = target["negative_weight"] * (1 - y) / (n * len(weight))
            loss = loss + (positive * F.softplus(-z) + negative * F.softplus(z)).sum()
            g = negative * z.sigmoid() - positive * (-z).sigmoid()
        else:
            log_p = z.log_softmax(1)
            loss = loss - (y * log_p).sum() / n
            g = (log_p.exp_() - y) / n
        d_hidden[rows] = g @ weight
        d_weight += g.T @ hidden[rows]
    return {"loss": loss, "hidden": d_hidden, "weight": d_weight}


def _dense(z: Tensor, rows: slice, **target: Tensor) -> Tensor:
    """What the logits ``z`` of ``rows`` have for targets, 0 where none is named."""
    y = torch.zeros_like(z)
    if "target" in target:
        return y.scatter_(1, target["target"][rows, None], 1.0)
    starts = target["starts"][rows.start : rows.stop + 1]
    entries = slice(int(starts[0]), int(starts[-1]))
    named = torch.arange(len(z), device=z.device).repeat_interleave(starts.diff())
    shares = target["shares"][entries] if "shares" in target else z.new_ones(len(named))
    return y.index_put_((named, target["columns"][entries]), shares)


def relative_errors(found: dict[str, Tensor], problem: Problem) -> dict[str, float]:
    """Relative error (in norm) of the loss and of each gradient found."""
    answer = exact(problem)
    return {
        name: float((value.detach().double() - answer[name]).norm() / answer[name].norm())
        for name, value in found.items()
    }


def worst_error(found: dict[str, Tensor], problem: Problem) -> tuple[float, str]:
    """The largest of ``relative_errors``, NaN above all, and whose it is."""
    errors = relative_errors(found, problem)
    worst = max(errors, key=lambda name: badness(errors[name]))
    return errors[worst], worst
