"""The arguments of an operation as one named tuple, its *pack*.

A pack's fields, in order, are the arguments of a custom op, so that their names and types are
written once: the op's schema is made of them, and its fake, its autograd formula and its backends
take a pack.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

import torch
from torch import Tensor


def packed_op(name: str, pack: type, results: int) -> Callable[[Callable[..., Any]], Any]:
    """Registers the decorated function, which takes the fields of ``pack``, as a custom op.

    Args:
        name: the op's, ``fastclip::...``.
        pack: a ``NamedTuple`` whose last fields may have defaults. Torch leaves what equals
            them out of a call: such a pack is made by ``pack(*fields)``.
        results: how many tensors the op returns.
    """
    defaults = pack._field_defaults  # type: ignore[attr-defined]
    parameters = [
        inspect.Parameter(
            field,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            annotation=annotation,
            default=defaults.get(field, inspect.Parameter.empty),
        )
        for field, annotation in get_type_hints(pack).items()
    ]
    returns = Tensor if results == 1 else tuple[(Tensor,) * results]  # type: ignore[misc]

    def register(function: Callable[..., Any]) -> Any:
        signature = inspect.Signature(parameters, return_annotation=returns)
        function.__signature__ = signature  # type: ignore[attr-defined]
        return torch.library.custom_op(name, function, mutates_args=())

    return register


def no_gradients(pack: type, besides: int) -> Sequence[None]:
    """Of a backward formula: None for the fields that follow the first ``besides``."""
    return (None,) * (len(pack._fields) - besides)  # type: ignore[attr-defined]
