"""What the ranks of a pool run: steps of our losses and of open_clip's, on the same features."""

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import fastclip.loss

WIDTH = 16


@cache
def open_clip_loss() -> ModuleType:
    """open_clip's loss.py without the rest of open_clip, which takes seconds to import."""
    package = importlib.util.find_spec("open_clip")
    assert package is not None and package.origin is not None
    spec = importlib.util.spec_from_file_location(
        "open_clip_loss", Path(package.origin).parent / "loss.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def implementation(name: str) -> ModuleType:
    return fastclip.loss if name == "fastclip" else open_clip_loss()


def features(total: int, dtype: torch.dtype, width: int = WIDTH, seed: int = 0) -> list:
    """Image and text rows of a whole batch, of unit length and alike in pairs."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(total, width, generator=generator, dtype=torch.float64)
    text = image + torch.randn(total, width, generator=generator, dtype=torch.float64)
    return [torch.nn.functional.normalize(t, dim=1).to(dtype) for t in (image, text)]


def own_rows(tensors: list, rows: tuple[int, ...], rank: int) -> list:
    first = sum(rows[:rank])
    return [t[first : first + rows[rank]].clone().requires_grad_() for t in tensors]


def gradients(outputs: Any, upstream: Any, leaves: dict[str, torch.Tensor]) -> dict:
    """Values and gradients of one or two losses, each with its own upstream gradient."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    upstream = upstream if isinstance(upstream, tuple) else (upstream,)
    torch.autograd.backward(
        outputs, [torch.tensor(u, dtype=o.dtype) for o, u in zip(outputs, upstream, strict=True)]
    )
    found = {f"loss{k}": output.detach() for k, output in enumerate(outputs)}
    return found | {name: leaf.grad for name, leaf in leaves.items()}


def clip_step(
    rank: int,
    world: int,
    name: str,
    rows: tuple[int, ...],
    flags: tuple[bool, bool],
    dtype: torch.dtype = torch.float64,
    scale: float = 10.0,
    shape: tuple[int, ...] = (),
    upstream: tuple[float, ...] | None = None,
    frozen: tuple[str, ...] = (),
    **options: Any,
) -> dict:
    """Loss and gradients of ClipLoss on this rank."""
    image, text = own_rows(features(sum(rows), dtype), rows, rank)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {
        "image": image,
        "text": text,
        "scale": torch.full(shape, scale, dtype=parameter, requires_grad=True),
        "bias": torch.full(shape, -3.0, dtype=parameter, requires_grad=True),
    }
    for leaf in frozen:
        leaves[leaf].requires_grad_(False)
    loss = implementation(name).ClipLoss(*flags, rank=rank, world_size=world, **options)
    return gradients(loss(*leaves.values()), upstream[rank] if upstream else 1.0, leaves)


def siglip_step(
    rank: int,
    world: int,
    name: str,
    rows: tuple[int, ...],
    dist_impl: str,
    dtype: torch.dtype = torch.float64,
    shape: tuple[int, ...] = (),
    upstream: tuple[float, ...] | None = None,
    frozen: tuple[str, ...] = (),
    **options: Any,
) -> dict:
    """Loss and gradients of SigLipLoss on this rank."""
    image, text = own_rows(features(sum(rows), dtype), rows, rank)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = {
        "image": image,
        "text": text,
        "scale": torch.full(shape, 10.0, dtype=parameter, requires_grad=True),
        "bias": torch.full(shape, -3.0, dtype=parameter, requires_grad=True),
    }
    for leaf in frozen:
        leaves[leaf].requires_grad_(False)
    loss = implementation(name).SigLipLoss(
        rank=rank, world_size=world, dist_impl=dist_impl, **options
    )
    return gradients(loss(*leaves.values()), upstream[rank] if upstream else 1.0, leaves)


def distill_step(
    rank: int,
    world: int,
    name: str,
    rows: tuple[int, ...],
    flags: tuple[bool, bool],
    upstream: tuple[tuple[float, float], ...],
    dtype: torch.dtype = torch.float64,
    frozen: tuple[str, ...] = (),
    **options: Any,
) -> dict:
    """Losses and gradients of DistillClipLoss on this rank, under a teacher of another width."""
    image, text = own_rows(features(sum(rows), dtype), rows, rank)
    teacher = own_rows(features(sum(rows), dtype, width=6, seed=1), rows, rank)
    parameter = torch.float64 if dtype == torch.float64 else torch.float32
    scale = torch.tensor(10.0, dtype=parameter, requires_grad=True)
    leaves = {"image": image, "text": text, "scale": scale}
    for leaf in frozen:
        leaves[leaf].requires_grad_(False)
    loss = implementation(name).DistillClipLoss(*flags, rank=rank, world_size=world, **options)
    outputs = loss(*leaves.values(), *(t.detach() for t in teacher), 20.0)
    return gradients(outputs, upstream[rank], leaves)
