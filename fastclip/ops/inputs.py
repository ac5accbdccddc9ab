"""Checks and casts of what a caller passes to the public functions of the operations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastclip.ops.derivatives import under_transform

FLOAT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, float32 for float32, bfloat16 and float16."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def statistics_dtype(device: torch.device) -> torch.dtype:
    """The dtype of log-sum-exps: float64, so that ``lse - target`` keeps its digits at any scale.

    A float32 log-sum-exp of 100 is off by 4e-6, which is the whole loss of a batch that has
    converged. Only MPS, which has no float64, makes do with float32.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def matched(names: Sequence[str], tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in one floating dtype: autocast's inside autocast, else the one they share.

    As in torch's autocast, float64 is left alone. Raises TypeError for other dtypes and for mixed
    ones, ValueError for tensors on different devices.
    """
    for name, tensor in zip(names, tensors, strict=True):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}; accepted: a torch tensor")
    device = tensors[0].device
    if device.type != "meta" and torch.is_autocast_enabled(device.type):  # which meta has not
        target = torch.get_autocast_dtype(device.type)
        tensors = [
            t.to(target) if t.is_floating_point() and t.dtype != torch.float64 else t
            for t in tensors
        ]
    for name, tensor in zip(names, tensors, strict=True):
        if tensor.dtype not in FLOAT_DTYPES:
            raise TypeError(
                f"{name} is {tensor.dtype}; accepted: float32, bfloat16, float16, float64"
            )
        if tensor.dtype != tensors[0].dtype:
            raise TypeError(
                f"{name} is {tensor.dtype} but {names[0]} is {tensors[0].dtype}; "
                "outside autocast they must have one dtype"
            )
        if tensor.device != device:
            raise ValueError(f"{name} is on {tensor.device} but {names[0]} is on {device}")
    return list(tensors)


def feature_pair(
    x: Tensor, y: Tensor, names: tuple[str, str] = ("image_features", "text_features")
) -> tuple[Tensor, Tensor]:
    """Two feature matrices ``[n, D]`` and ``[m, D]`` in one dtype (see ``matched``)."""
    x, y = matched(names, (x, y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} have shapes {tuple(x.shape)} and {tuple(y.shape)}; "
            "accepted: [n, D] and [m, D] with the same D"
        )
    return x, y


def paired(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``feature_pair`` of n rows on both sides: row i of one belongs to row i of the other."""
    x, y = feature_pair(x, y)
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            f"image_features has {x.shape[0]} rows and text_features {y.shape[0]}; "
            "they must be pairs"
        )
    return x, y


def paired_with_extra(
    x: Tensor, y: Tensor, extra: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``paired`` rows, and extra texts ``[k, D]`` of their width and dtype, or None."""
    if extra is None:
        return *paired(x, y), None
    x, y = paired(x, y)
    x, extra = feature_pair(x, extra, ("image_features", "extra_texts"))
    return x, y, extra


SAME = ("positive", "ignore")


def check_ids(ids: Tensor | None, same: str, x: Tensor) -> None:
    """Raise TypeError or ValueError for ids that are not an int64 for each row of x beside it, and
    for another ``same`` than those there are."""
    if same not in SAME:
        raise ValueError(f"same={same!r}; accepted: {', '.join(SAME)}")
    if ids is None:
        return
    if not isinstance(ids, Tensor):
        raise TypeError(f"ids is a {type(ids).__name__}; accepted: a torch tensor of int64")
    if ids.dtype != torch.int64:
        raise TypeError(f"ids is {ids.dtype}; accepted: int64")
    if ids.shape != x.shape[:1]:
        raise ValueError(
            f"ids has shape {tuple(ids.shape)}; accepted: [{x.shape[0]}], an id for each row"
        )
    if ids.device != x.device:
        raise ValueError(
            f"ids is on {ids.device} but image_features is on {x.device}; accepted: the same device"
        )


def check_target_offset(x: Tensor, y: Tensor, target_offset: int) -> None:
    """Raise ValueError where row i's target, column ``i + target_offset``, is no column."""
    if x.shape[0] and not 0 <= target_offset <= y.shape[0] - x.shape[0]:
        raise ValueError(
            f"target_offset={target_offset} puts the targets of {x.shape[0]} rows outside "
            f"{y.shape[0]} columns"
        )


def check_options(workspace_bytes: int, backend: str) -> None:
    """Raise ValueError for a workspace that is no positive whole number, TypeError for a backend
    that is no name."""
    if not hasattr(workspace_bytes, "__index__") or workspace_bytes < 1:
        found = f"workspace_bytes={workspace_bytes!r}"
        raise ValueError(f"{found}; accepted: a whole number of 1 or more")
    if not isinstance(backend, str):
        raise TypeError(f"backend={backend!r}; accepted: auto, or a backend's name")


def scalar(value: Tensor | float, like: Tensor, name: str = "logit_scale") -> Tensor:
    """A float or a tensor of one element as a 0-d tensor in ``like``'s accumulation dtype.

    Differentiable. Raises ValueError for a tensor of more elements.
    """
    dtype = accumulation_dtype(like.dtype)
    if not isinstance(value, Tensor):
        if value is None or isinstance(value, (str, list, tuple)):
            raise TypeError(f"{name} is {value!r}; accepted: a number or a tensor of one element")
        return torch.full((), value, dtype=dtype, device=like.device)
    if value.numel() != 1:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; accepted: one element")
    return value.reshape(()).to(device=like.device, dtype=dtype)


def gradient_wanted(*tensors: Tensor | None) -> bool:
    """Whether autograd will ask for the gradient of any of these, as far as they tell: inside a
    transform of ``torch.func`` a tensor does not know what is asked of the one it is made of."""
    if not torch.is_grad_enabled():
        return False
    return any(t is not None and (t.requires_grad or under_transform()) for t in tensors)
