"""First derivatives of the engine's operations, under autograd and under ``torch.func``.

torch.library's autograd formulas serve plain autograd and torch.compile, but not the transforms of
``torch.func``: those take an ``autograd.Function`` that sets up its context apart from its forward
pass, and run the backward formula with a level of autograd of their own on. ``first_order`` makes
such a function, whose formula is a function again, one without a derivative.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Operation = Callable[..., tuple[Tensor, ...]]
# (ctx, *upstream gradients) -> the gradient of each input; ctx is as in an autograd.Function.
Formula = Callable[..., Sequence[Tensor | None]]
NO_SECOND_DERIVATIVE = (
    "fastclip's losses have no second derivative: their backward pass accepts no create_graph=True "
    "and no torch.func transform around it"
)


def differentiable(
    op: Operation, backward: Formula, setup_context: Callable[..., None]
) -> Operation:
    """Registers a backward formula with a custom op; what is returned calls the op anywhere.

    Args:
        backward: see ``Formula``; it runs without autograd.
        setup_context: ``(ctx, inputs, output)``; beside the tensors that it saves, it may set
            constants on ctx.
    """

    def checked(ctx, *upstream):
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE)
        return backward(ctx, *upstream)

    op.register_autograd(checked, setup_context=setup_context)  # type: ignore[attr-defined]
    function = first_order(op, backward, setup_context)

    def call(*inputs: Any) -> tuple[Tensor, ...]:
        # torch.compile looks for the op, also inside a transform, which it leaves to plain Python.
        if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
            return op(*inputs)
        return function(*inputs)

    return call


def first_order(
    forward: Operation, backward: Formula, setup_context: Callable[..., None]
) -> Operation:
    """``forward`` with a derivative under every reverse-mode transform of ``torch.func``.

    ``vmap`` takes one example after another. Arguments are those of ``differentiable``.
    """

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*inputs):
            return forward(*inputs)

        @staticmethod
        def setup_context(ctx, inputs, output):
            setup_context(ctx, inputs, output)

        @staticmethod
        def backward(ctx, *upstream):
            constants = SimpleNamespace(**vars(ctx), needs_input_grad=ctx.needs_input_grad)
            tensors = *upstream, *ctx.saved_tensors
            return _Formula.apply(backward, constants, len(upstream), *tensors)

        @staticmethod
        def jvp(ctx, *_):
            raise NotImplementedError(
                "fastclip's losses have no forward-mode derivative; accepted: reverse mode, as in "
                "torch.func.grad, vjp and jacrev"
            )

        @staticmethod
        def vmap(info, in_dims, *inputs):
            return _one_by_one(Function.apply, info.batch_size, in_dims, inputs)

    return Function.apply


class _Formula(torch.autograd.Function):
    """A backward formula on what its context saved, the first ``count`` tensors being upstream."""

    @staticmethod
    def forward(formula, constants, count, *tensors):
        ctx = SimpleNamespace(**vars(constants), saved_tensors=tensors[count:])
        return tuple(formula(ctx, *tensors[:count]))

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(NO_SECOND_DERIVATIVE)

    @staticmethod
    def vmap(info, in_dims, *inputs):
        return _one_by_one(_Formula.apply, info.batch_size, in_dims, inputs)


def _one_by_one(
    function: Callable[..., Sequence[Tensor | None]],
    batch_size: int,
    in_dims: Sequence[int | None],
    inputs: Sequence[Any],
) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
    """Results of ``function``, stacked, and along which dimension: what a vmap rule returns."""
    if batch_size == 0:
        raise ValueError(
            "vmap over fastclip's losses got a batch of 0 examples; accepted: 1 or more"
        )
    results = [
        function(
            *(
                value if dim is None else value.select(dim, example)
                for value, dim in zip(inputs, in_dims, strict=True)
            )
        )
        for example in range(batch_size)
    ]
    stacked = [
        None if column[0] is None else torch.stack(column) for column in zip(*results, strict=True)
    ]
    return tuple(stacked), tuple(None if column is None else 0 for column in stacked)
