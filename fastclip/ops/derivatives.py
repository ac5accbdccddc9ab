"""First derivatives of the operations, under autograd and under ``torch.func``.

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
# Whether a transform of ``torch.func`` is under way.
under_transform = torch._C._are_functorch_transforms_active
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
        if not under_transform():
            return op(*inputs)
        if torch.compiler.is_compiling():
            # Without fullgraph=True torch.compile then leaves the transform to Python.
            raise NotImplementedError(
                "torch.compile(fullgraph=True) takes no torch.func transform of fastclip's losses; "
                "accepted: fullgraph=False"
            )
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
        def setup_context(ctx, inputs, output):
            record = _Record()
            setup_context(record, inputs, output)
            ctx.mark_non_differentiable(*record.constant_outputs)
            ctx.set_materialize_grads(record.materialize)
            ctx.constants, ctx.saved = record.constants(), len(record.saved_tensors)
            # The inputs as well: the gradient is a function of them, whatever the formula reads.
            tensors = (value for value in inputs if isinstance(value, Tensor))
            ctx.save_for_backward(*record.saved_tensors, *tensors)

        @staticmethod
        def backward(ctx, *upstream):
            constants = SimpleNamespace(**ctx.constants, needs_input_grad=ctx.needs_input_grad)
            spans = slice(0, len(upstream)), slice(len(upstream), len(upstream) + ctx.saved)
            call = SimpleNamespace(formula=backward, constants=constants, spans=spans)
            return _Formula.apply(call, *upstream, *ctx.saved_tensors)

        @staticmethod
        def jvp(ctx, *_):
            raise NotImplementedError(
                "fastclip's losses have no forward-mode derivative; accepted: reverse mode, as in "
                "torch.func.grad, vjp and jacrev"
            )

        @staticmethod
        def vmap(info, in_dims, *inputs):
            return _one_by_one(Function.apply, info.batch_size, in_dims, inputs)

    Function.forward = staticmethod(forward)  # type: ignore[method-assign]
    return Function.apply


class _Record:
    """Stands in for a context where a ``setup_context`` says what to save."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Tensor | None, ...] = ()
        self.constant_outputs: tuple[Tensor, ...] = ()
        self.materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        self.constant_outputs = tensors

    def set_materialize_grads(self, value: bool) -> None:
        self.materialize = value

    def constants(self) -> dict[str, Any]:
        """What was set on it beside tensors."""
        return {name: value for name, value in vars(self).items() if name not in vars(_Record())}


class _Formula(torch.autograd.Function):
    """A backward formula. Two spans of the tensors are the upstream gradients and what its context
    saved; but the result depends on all of them."""

    @staticmethod
    def forward(call, *tensors):
        upstream, saved = (tensors[span] for span in call.spans)
        ctx = SimpleNamespace(**vars(call.constants), saved_tensors=saved)
        return tuple(call.formula(ctx, *upstream))

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
