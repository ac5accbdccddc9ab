"""What the tests of losses of a linear layer with targets for many columns share."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from bars import Bars
from engine_checks import Peak
from torch import Tensor

AMPLE = 2**28


class Layer(NamedTuple):
    """hidden [n, D], weight [V, D], bias [V], targets [n, V] of which most are 0: all float64."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor
    target: Tensor

    @property
    def parameters(self) -> list[Tensor]:
        return [t.clone().requires_grad_() for t in self[:3]]


def layer(n: int, vocabulary: int, width: int, seed: int = 0, density: float = 0.05) -> Layer:
    """Entries that every dtype can hold; the last of several rows has no target."""
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator).bfloat16().half().double()
        for shape in ((n, width), (vocabulary, width), (vocabulary,))
    )
    chosen = torch.rand(n, vocabulary, generator=generator) < density
    chosen[0, -1] = True
    if n > 1:
        chosen[-1] = False
    weights = torch.randint(1, 9, chosen.shape, generator=generator) / 8
    return Layer(hidden, weight, bias, (weights * chosen).double())


def parts(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As CSR; copies, since torch.compile takes no views of sparse tensors."""
    sparse = target.to_sparse_csr()
    rows, columns, values = sparse.crow_indices(), sparse.col_indices(), sparse.values()
    return rows.clone(), columns.clone(), values.clone()


def twice(target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As CSR, each entry in two halves and columns in falling order."""
    rows, columns, values = parts(target)
    counts = rows.diff().tolist()
    twofold = [torch.cat([c.flip(0)] * 2) for c in columns.split(counts)]
    halves = [torch.cat([v.flip(0) / 4, v.flip(0) * 3 / 4]) for v in values.split(counts)]
    return 2 * rows, torch.cat([columns[:0], *twofold]), torch.cat([values[:0], *halves])


def ngrams(target: Tensor, orders: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """As many positions in each row as it has targets, and columns of theirs, some twice and some
    of them -1."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns, _ = parts(target)
    offset = torch.randint(0, 3, (len(columns), orders), generator=generator)
    found = (columns.unsqueeze(1) + offset).clamp(max=target.shape[1] - 1)
    return rows, found.masked_fill(torch.rand(found.shape, generator=generator) < 0.4, -1)


def ngram_bars(
    inputs: Layer,
    target: tuple[Tensor, Tensor],
    mixture: Sequence[float],
    dtype: torch.dtype,
    reduction: str = "mean",
    *,
    row_weight: Tensor | None = None,
    gpu: bool = False,
) -> Bars:
    """Of the cross entropy with mixtures of n-grams."""
    bars = Bars(inputs.hidden, inputs.weight, 1.0, inputs.bias, dtype=dtype, gpu=gpu)
    starts, columns = target
    weights = torch.tensor(mixture, dtype=torch.float64, device=columns.device)
    rows = torch.arange(len(inputs.hidden), device=columns.device)
    row = torch.repeat_interleave(rows, starts.diff())
    usable = (columns >= 0) & (weights > 0)
    row, columns, usable = (t[usable.any(1)] for t in (row, columns, usable))
    columns = columns.clamp(min=0)
    logits = bars.z[row.unsqueeze(1), columns] + weights.log()
    share = logits.masked_fill(~usable, -torch.inf).softmax(1)
    if reduction == "mean":
        share = share / len(row.unique())
    if row_weight is not None:
        share = row_weight[row].unsqueeze(1) * share
    shares = torch.zeros_like(bars.z)
    shares.index_put_((row.unsqueeze(1).expand_as(columns), columns), share, accumulate=True)
    return bars.softmax(1, shares.sum(1), shares).mixtures(row, columns, share)


NAMES = "x", "y", "bias"  # of the gradients, as Bars has them


def labels_to_dense(labels: Tensor, vocabulary: int, label_smoothing: float = 0.0) -> Tensor:
    """Targets ``[n, V]`` of labels, all 0 for a negative one."""
    dense = torch.full((len(labels), vocabulary), label_smoothing / vocabulary).to(
        labels.device, torch.float64
    )
    dense.scatter_add_(
        1, labels.clamp(min=0).unsqueeze(1), dense.new_full((len(labels), 1), 1 - label_smoothing)
    )
    return dense * (labels >= 0).unsqueeze(1)


def softmax_bars(
    inputs: Layer, dtype: torch.dtype, reduction: str = "mean", *, gpu: bool = False
) -> Bars:
    """Of the cross entropy with the targets of ``inputs``."""
    rows = inputs.target.ne(0).any(1).sum().clamp(min=1)
    target = inputs.target / (rows if reduction == "mean" else 1)
    bars = Bars(inputs.hidden, inputs.weight, 1.0, inputs.bias, dtype=dtype, gpu=gpu)
    return bars.softmax(1, target.sum(1), target)


def sigmoid_bars(
    inputs: Layer,
    dtype: torch.dtype,
    reduction: str = "mean",
    *,
    positive_weight: Tensor | float = 1.0,
    negative_weight: Tensor | float = 1.0,
    gpu: bool = False,
) -> Bars:
    """Of the cross entropy of sigmoids against the targets of ``inputs`` as labels."""
    share = 1 / inputs.target.numel() if reduction == "mean" else 1.0
    bars = Bars(inputs.hidden, inputs.weight, 1.0, inputs.bias, dtype=dtype, gpu=gpu)
    return bars.sigmoid(
        share * positive_weight * inputs.target, share * negative_weight * (1 - inputs.target)
    )


def check_opcheck(
    rows_op, op, inputs: Layer, operands: Sequence[Tensor | None], backend: str = "auto"
) -> None:
    """``operands`` are those between bias and row_weight or reduction."""
    h, w, b = (t.float() for t in inputs[:3])
    for bias, row_weight in ((b, torch.rand(len(h))), (None, None)):
        options = True, True, bias is not None, AMPLE, backend
        torch.library.opcheck(rows_op, (h, w, bias, *operands, row_weight, *options))
        leaves = [t if t is None else t.clone().requires_grad_() for t in (h, w, bias)]
        for reduction in ("mean", "none"):
            torch.library.opcheck(op, (*leaves, *operands, reduction, *options))


def check_compiles_whole(loss: Callable[..., Tensor], inputs: Layer) -> None:
    torch._dynamo.reset()  # it compiles a function a few times at most, and this one for many tests
    leaves = [t.detach().float().requires_grad_() for t in inputs[:3]]

    def step(h: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return 2 * loss(h * 1.5, w, b).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(*leaves), leaves) for f in (compiled, step))
    torch.testing.assert_close(got, want)


def check_same_bits_again(loss: Callable[..., Tensor], inputs: Layer) -> None:
    leaves = [t.detach().float().requires_grad_() for t in inputs[:3]]

    def bits() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        first = torch.autograd.grad(value, leaves, retain_graph=True)
        return value, *first, *torch.autograd.grad(value, leaves)

    once, again = bits(), bits()
    assert all(torch.equal(p, q) for p, q in zip(once, again, strict=True))
    assert all(torch.equal(once[k], once[k + 3]) for k in (1, 2, 3))


def check_memory(run: Callable[..., object], inputs: Layer, workspace_bytes: int) -> None:
    """``run(hidden, weight, bias)`` computes all gradients within ``workspace_bytes``."""
    (n, width), vocabulary = inputs.hidden.shape, len(inputs.weight)
    with Peak() as peak:
        run(*inputs[:3])
    outputs = 8 * n + 4 * (n + vocabulary) * width + 4 * vocabulary
    assert workspace_bytes / 4 < peak.bytes <= workspace_bytes + outputs
