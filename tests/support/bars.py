"""How far from the truth an exact operation may be: bars derived from the arithmetic alone.

A bar that is a multiple of another implementation's error moves with that machine's libraries.
These follow from the unit roundoff ``u``, the lengths of sums and the sizes of what is summed: one
bar holds on every machine, and breaks where an operation rounds more coarsely than it may.

The model: roundings are independent errors, uniform within ``u`` of the number that is rounded, so
of a mean square of ``u**2 / 3`` of its. Of a loss of logits ``z = s x.y + b``, with ``G = dL/dz``,
to first order:

1. A sum of k products rounds each of them and, in whatever order, k partial sums. Those of terms in
   random order are a Brownian bridge from 0 to the total, their mean square is ``total**2 / 3 +
   sum(terms**2) / 6``. So a logit, a sum over D that then meets scale, base and bias, has an error
   ``e`` of a known variance, in proportion to its size and to the root of D.
2. ``exp`` makes of that a relative error: the softmax ``P = exp(z - lse)`` is off by ``P e``, and
   by ``P`` times the error of its row's lse, ``sum(P e)`` and what the sum of exponentials rounds.
   A row of softmaxes need not sum to 1: a backward pass may compute its logits again, in an order
   of its own, so the two do not cancel. In the loss they do: it is off by ``sum(G e)``.
3. A scale rounded to ``u`` moves all logits in proportion, by up to ``u`` of them, a bias so those
   of its column or all, which does not average out.
4. G is rounded to the dtype of its products with X and Y, each a sum as in 1.
5. Results are rounded to their dtype.

A bar is three standard deviations of the norm of the error, for what is independent, and what is
shared or last at its worst.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DEVIATIONS = 3.0
# Roundings of a logit beside those of its sum: of the scale, the base and the bias.
_OF_A_LOGIT = 3
# Mean square, in that of one rounding, of an exponential or a sigmoid and its factor: 4 units.
_OF_A_FUNCTION = 16
# On a GPU G of 16-bit features is rounded to float16, powers of two times its entries, of which
# those below 2**-36 of the largest possible vanish; and logits may be kept in steps of so much.
_G_UNIT, _G_LEAST, _COARSEST_STEP = 2.0**-11, 2.0**-36, 2.0**-9 * math.log(2)
# There a product of float32 numbers may be that of three pairs of their halves in TF32, of 11 bits.
_TF32X3_UNIT = 2.0**-21


def unit_roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def sum_bar(terms: Tensor) -> float:
    """For the error of the sum of all ``terms``, products in float32."""
    variance = _of_a_sum(terms.sum(), terms.square().sum(), terms.numel())
    return DEVIATIONS * unit_roundoff(torch.float32) * float(variance.sqrt())


def _of_a_sum(total: Tensor, squares: Tensor, count: int) -> Tensor:
    """Variance of the error of a sum of ``count`` products, in ``u**2``; ``squares`` is the sum of
    the terms' squares."""
    return (count * (total.square() / 3 + squares / 6) + squares) / 3


class Bars:
    """Bars for a loss of the logits ``scale * x @ y.T + bias`` and for its gradients.

    Say what the loss is by ``softmax``, ``distill`` and ``sigmoid``, then ``check``.

    Args:
        x: ``[n, D]``. y: ``[m, D]``. scale: a number or 0-d. bias: 0-d, ``[m]`` or None. float64.
        dtype: of the features, in which gradients of x, y and of a bias a column return, unless
            ``returned`` says in which.
        gpu: the backend is one for GPUs, which rounds G of 16-bit features to 16 bits.
        alike: equal entries have equal errors, which add up instead of averaging out.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        scale: Tensor | float = 1.0,
        bias: Tensor | None = None,
        *,
        dtype: torch.dtype,
        returned: torch.dtype | None = None,
        gpu: bool = False,
        alike: bool = False,
    ) -> None:
        self._x, self._y, self._scale, self._bias = x, y, float(scale), bias
        self._returned, self._alike = returned or dtype, alike
        self._coarse = gpu and dtype.itemsize == 2
        accumulated = torch.promote_types(dtype, torch.float32)
        self._unit, self._tiny = unit_roundoff(accumulated), torch.finfo(accumulated).tiny
        # In float64 the truth has errors of the same size.
        self._factor = 2.0 if accumulated == torch.float64 else 1.0
        self._product = x @ y.T
        self._scaled = self._scale * self._product
        self._parts = [self._scaled, *([] if bias is None else [bias.expand_as(self._scaled)])]
        self.z = sum(self._parts)
        squares = self._scale**2 * (x.square() @ y.T.square())
        per_product = _TF32X3_UNIT if x.is_cuda and dtype == torch.float32 else 0.0
        sizes = sum(part.abs() for part in self._parts)
        self._logit_variance = self._unit**2 * (
            _of_a_sum(self._scaled, squares, x.shape[1]) + _OF_A_LOGIT / 3 * sizes.square()
        )
        self._logit_variance += per_product**2 / 3 * squares
        # G, the variance of its errors, and its change with the logarithm of each part.
        self.gradient, self._variance = self.z.new_zeros(2, *self.z.shape)
        self._slopes = self.z.new_zeros(len(self._parts), *self.z.shape)
        self._shared: list[Tensor] = []  # errors of G that entries share, at their worst
        self._loss_variance, self._largest = self.z.new_zeros(2)

    def softmax(self, dim: int, weight: Tensor, target: Tensor) -> "Bars":
        """Add ``sum(weight * lse) - sum(target * z)`` to the loss: of log-sum-exps along ``dim``
        and weights by row or column, and of ``target [n, m]``."""
        terms, weighted = target * self.z, weight * self.z.logsumexp(dim)
        own, lse_variance = self._softmax_errors(self, dim, weight)
        self.gradient += own - target
        for slope, part in zip(self._slopes, self._parts, strict=True):
            slope += own * _centered(part, own, dim)
        picked, squares = terms.sum(dim), terms.square().sum(dim)
        rounded = self._of_a_sum(picked, squares, int(target.ne(0).sum(dim).max()))
        rounded += _OF_A_FUNCTION / 3 * (weighted.square() + picked.square())
        self._add_to_loss(weight.square() * lse_variance + self._unit**2 * rounded)
        return self

    def mixtures(self, row: Tensor, column: Tensor, share: Tensor) -> "Bars":
        """After ``softmax`` with targets that are shares of softmaxes: these change with the logits
        too. ``row [k]``, and of each ``column`` and ``share [k, orders]``, which sum to 1."""
        place = row.unsqueeze(1).expand_as(column), column
        for slope, part in zip(self._slopes, self._parts, strict=True):
            slope.index_put_(place, -share * _centered(part[place], share, 1), accumulate=True)
        shares = torch.zeros_like(self.z).index_put_(place, share, accumulate=True)
        # An error is that of the logit less the mean of its position's, of no greater variance.
        self._add_errors(2**0.5 * shares, shares, self._logit_variance)
        return self

    def distill(self, dim: int, weight: Tensor, teacher: "Bars") -> "Bars":
        """Add ``softmax`` with a teacher's softmaxes, times ``weight``, as targets."""
        q, _ = self._softmax_errors(teacher, dim, weight)
        self._shared.append(self._unit * q * _centered(teacher._scaled, q, dim))
        distances = _centered(self.z, q, dim)
        self._add_to_loss((q * distances).square() * teacher._logit_variance)
        return self.softmax(dim, weight, q)

    def sigmoid(self, positive: Tensor, negative: Tensor) -> "Bars":
        """Add ``sum(positive * softplus(-z) + negative * softplus(z))`` to the loss, of weights
        that broadcast to ``[n, m]``."""
        z, weights = self.z, positive + negative
        up, down = negative * z.sigmoid(), positive * (-z).sigmoid()
        steep = up * (-z).sigmoid() + down * z.sigmoid()
        self.gradient += up - down
        for slope, part in zip(self._slopes, self._parts, strict=True):
            slope += steep * part
        self._add_errors(steep, up + down, self._logit_variance)
        self._largest = weights.max().maximum(self._largest)
        losses = positive * F.softplus(-z, threshold=700) + negative * F.softplus(z, threshold=700)
        squares = losses.square().sum(1)
        rounded = self._of_a_sum(losses.sum(1), squares, z.shape[1]) + _OF_A_FUNCTION / 3 * squares
        self._add_to_loss(self._unit**2 * rounded + (weights * self._tiny).square().sum(1))
        return self

    @property
    def logit_bar(self) -> float:
        """For any logit, and any log-sum-exp of them, beside a few roundings of its own."""
        largest = float(self._logit_variance.max().sqrt())
        return DEVIATIONS * largest + self._unit * float(self._scaled.abs().max())

    def check(self, got: Sequence[Tensor], want: Sequence[Tensor], names: Sequence[str]) -> None:
        """Loss and gradients of ``names``, of x, y, scale and bias, are near the truth ``want``."""
        for name, g, w in zip(("loss", *names), got, want, strict=True):
            self.check_one(name, g, w)

    def check_one(self, name: str, got: Tensor, want: Tensor) -> None:
        off, bar, size = float((got.double() - want).norm()), self.bar(name, want), want.norm()
        assert off <= bar, f"{name} is off by {off:.3g} of {size:.3g}; the bar is {bar:.3g}"

    def bar(self, name: str, want: Tensor) -> float:
        """For the norm of the error of the loss, or of the gradient by ``name``, x, y, scale, bias
        or logits, whose truth is ``want``."""
        u, g, size = self._unit, self.gradient, float(want.norm())
        if name == "loss":
            total = want.sum()
            variance = self._loss_variance + self._total(g.square() * self._logit_variance)
            # Those of rows are added up in float64.
            rounded = self._of_a_sum(total, total.square() / len(g), len(g))
            variance = variance + unit_roundoff(torch.float64) ** 2 * rounded
            moved = sum(float((g * part).sum().abs()) for part in self._parts)
            return self._factor * (DEVIATIONS * float(variance.sqrt()) + u * (moved + size))
        variance = self._variance + (self._largest * self._tiny) ** 2
        if self._coarse:
            least = _G_LEAST * self._largest
            variance = variance + ((_G_UNIT * g).square() + least**2) / 3
        shared = [*(u * self._slopes), *self._shared]
        if self._alike:
            shared.append(DEVIATIONS * variance.sqrt())
        spread = self._moved_squares(name, variance).sum() + u**2 * self._sums(name, want)
        bar = DEVIATIONS * float(spread.sqrt())
        bar += sum(float(self._moved(name, error).norm()) for error in shared)
        if name == "logits":
            return self._factor * bar
        scalar = name == "scale" or (name == "bias" and not self._bias.ndim)
        last = u if scalar else unit_roundoff(self._returned)
        if self._returned == torch.float16:
            bar += 2.0**-25 * math.sqrt(want.numel())  # what the smallest numbers round
        return self._factor * (bar + (last + 4 * u) * size)

    def _softmax_errors(self, of: "Bars", dim: int, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Softmaxes of the logits ``of``, times ``weight``, whose errors become those of G, and the
        variances of the errors of log-sum-exps."""
        p = of.z.softmax(dim)
        terms = self._of_a_sum(torch.ones_like(weight), p.square().sum(dim), p.shape[dim])
        lse_variance = self._unit**2 * (terms + _OF_A_FUNCTION / 3)
        lse_variance = lse_variance + (p.square() * of._logit_variance).sum(dim)
        own = weight.unsqueeze(dim) * p
        self._add_errors(own, own, of._logit_variance)
        self._shared.append(own * lse_variance.sqrt().unsqueeze(dim))
        self._largest = weight.max().maximum(self._largest)
        return own, lse_variance

    def _add_errors(self, steep: Tensor, terms: Tensor, logit_variance: Tensor) -> None:
        """Of a part of G that changes by ``steep`` with its logit and is a sum of ``terms``."""
        step = 0.0
        if self._coarse:
            reach = float(self._scaled.max() - self._scaled.min())
            step = min(reach / 65535, _COARSEST_STEP)
        self._variance += steep.square() * (logit_variance + step**2 / 12)
        self._variance += _OF_A_FUNCTION / 3 * (self._unit * terms).square()

    def _add_to_loss(self, variance: Tensor) -> None:
        self._loss_variance += self._total(variance)

    def _total(self, variance: Tensor) -> Tensor:
        """Variance of a sum of errors of these variances."""
        return variance.sqrt().sum().square() if self._alike else variance.sum()

    def _of_a_sum(self, total: Tensor, squares: Tensor, count: int) -> Tensor:
        """``_of_a_sum`` over rows or columns, whose partial sums may round alike."""
        return _of_a_sum(total, squares, count**2 if self._alike else count)

    def _moved(self, name: str, g: Tensor) -> Tensor:
        """What ``g`` makes of the gradient by ``name``."""
        if name == "logits":
            return g
        if name == "bias":
            return g.sum(0) if self._bias.ndim else g.sum()
        if name == "scale":
            return (g * self._product).sum()
        return self._scale * (g @ self._y if name == "x" else g.T @ self._x)

    def _moved_squares(self, name: str, g: Tensor) -> Tensor:
        """Variances of the gradient by ``name``, or their terms, of those of G."""
        if name in ("bias", "logits"):
            return g
        if name == "scale":
            return g * self._product.square()
        squares = g @ self._y.square() if name == "x" else g.T @ self._x.square()
        return self._scale**2 * squares

    def _sums(self, name: str, want: Tensor) -> Tensor:
        """Variance, in ``u**2``, of what the sums of the gradient by ``name`` round."""
        g, squares = self.gradient, self.gradient.square()
        n, m = g.shape
        if name == "logits":
            return torch.zeros_like(g).sum()
        if name == "bias":
            squares = squares.sum(0) if self._bias.ndim else squares.sum()
            return self._of_a_sum(want, squares, n if self._bias.ndim else n * m).sum()
        if name == "y":
            squares = self._scale**2 * (squares.T @ self._x.square())
            return self._of_a_sum(want, squares, n).sum()
        squares = squares @ self._y.square()
        if name == "x":
            return self._of_a_sum(want, self._scale**2 * squares, m).sum()
        rows = g @ self._y
        of_rows = self._total(self._x.square() * self._of_a_sum(rows, squares, m))
        terms = (self._x * rows).square().sum()
        return of_rows + self._of_a_sum(want, terms, self._x.numel())


def _centered(z: Tensor, weight: Tensor, dim: int) -> Tensor:
    """``z`` less its means under the weights."""
    total = weight.sum(dim, True)
    return z - (weight * z).sum(dim, True) / torch.where(total == 0, 1, total)
