"""What the ranks of a pool run: steps of our losses and of open_clip's, on the same features."""

import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist

import fastclip.loss
from fastclip.functional import settings

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


def clip_step_exact(
    rank: int, world: int, rows: tuple, flags: tuple, dtype: torch.dtype, scale: float
) -> dict:
    """``clip_step`` in fp64 on the features that ``dtype`` holds."""
    image, text = (t.double() for t in features(sum(rows), dtype))
    image, text = own_rows([image, text], rows, rank)
    loss = fastclip.loss.ClipLoss(*flags, rank=rank, world_size=world)
    return gradients(loss(image, text, scale), 1.0, {"image": image, "text": text})


def clip_step_frozen_by_rank(rank: int, world: int, rows: tuple, frozen: tuple) -> dict:
    return clip_step(rank, world, "fastclip", rows, (True, True), frozen=frozen[rank])


@cache
def pairs() -> dict[int, dist.ProcessGroup]:
    """Ranks 0 and 2 make a group, and 3 and 1, in that order, another."""
    groups = [dist.new_group([0, 2]), dist.new_group([3, 1], sort_ranks=False)]
    return {rank: groups[rank % 2] for rank in range(4)}


def clip_step_in_pairs(rank: int, world: int) -> dict:
    group = pairs()[rank]
    return clip_step(
        dist.get_rank(group), 2, "fastclip", (3, 3), (False, True), group=group, shards="equal"
    )


def siglip_step_in_pairs(rank: int, world: int, way: str) -> dict:
    group = pairs()[rank]
    return siglip_step(dist.get_rank(group), 2, "fastclip", (3, 3), way, group=group)


def clip_step_on_rank_0(rank: int, world: int) -> dict | None:
    return clip_step(0, 1, "fastclip", (4,), (True, True)) if rank == 0 else None


def clip_value_without_grad(rank: int, world: int, rows: tuple, flags: tuple) -> torch.Tensor:
    image, text = own_rows(features(sum(rows), torch.float64), rows, rank)
    with torch.no_grad():
        return fastclip.loss.ClipLoss(*flags, rank=rank, world_size=world)(image, text, 10.0)


def clip_function(rank: int, world: int, rows: tuple) -> tuple:
    image, text = (t.detach() for t in own_rows(features(sum(rows), torch.float32), rows, rank))
    loss = fastclip.loss.ClipLoss(True, True, rank=rank, world_size=world)
    function = fastclip.loss.clip_loss(
        image, text, 10.0, local_loss=True, gather_with_grad=True, group=dist.group.WORLD
    )
    return loss(image, text, 10.0), function


def backward_twice(rank: int, world: int, rows: tuple) -> tuple:
    image, text = own_rows(features(sum(rows), torch.float32), rows, rank)
    loss = fastclip.loss.ClipLoss(True, True, rank=rank, world_size=world)(image, text, 10.0)
    loss = loss + fastclip.loss.SigLipLoss(rank=rank, world_size=world)(image, text, 10.0, -1.0)
    found = [torch.autograd.grad(loss, (image, text), retain_graph=True) for _ in range(2)]
    return torch.cat(found[0]), torch.cat(found[1])


def warnings_of_one_sided(rank: int, world: int) -> list[str]:
    settings.warn_once.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            clip_step(rank, world, "fastclip", (2, 2), (True, False))
            clip_step(rank, world, "fastclip", (2, 2), (True, True))
    return [str(w.message) for w in caught if w.category is UserWarning]


def clip_compiled(rank: int, world: int, rows: tuple) -> tuple:
    image, text = own_rows(features(sum(rows), torch.float64), rows, rank)
    loss = fastclip.loss.ClipLoss(True, True, rank=rank, world_size=world)
    compiled = torch.compile(loss, backend="aot_eager")
    found = [
        torch.cat(torch.autograd.grad(step(image * 1, text * 1, 10.0), (image, text)))
        for step in (compiled, loss)
    ]
    return found[0], found[1]


def faulty_step(rank: int, world: int, name: str, fault: str) -> Any:
    """A step in which rank 1 differs from the others by ``fault``."""
    odd = rank == 1
    image, text = (t.requires_grad_() for t in features(4, torch.float32))
    scale: Any = torch.tensor(10.0, requires_grad=True)
    options: dict[str, Any] = {"rank": rank, "world_size": world}
    if name != "SigLipLoss":
        options |= {"local_loss": True, "gather_with_grad": True}
    if fault == "world_size":
        options["world_size"] = 7
    if fault == "equal shards":
        options["shards"] = "equal"
    if fault == "gather workspace":
        options["dist_impl"] = "gather"
    if fault in ("workspace", "gather workspace"):
        # Enough for every shard but rank 1's.
        options["workspace_bytes"] = 5_000 if name == "SigLipLoss" else 50_000
        if odd:
            image, text = (t.requires_grad_() for t in features(1000, torch.float32))
    if odd:
        if fault == "width":
            image, text = image[:, 1:], text[:, 1:]
        elif fault == "dtype":
            image, text = image.bfloat16(), text.bfloat16()
        elif fault == "mixed":
            text = text.bfloat16()
        elif fault == "pairs":
            text = text[1:]
        elif fault == "scale":
            scale = torch.ones(3)
        elif fault == "not a tensor":
            image = None
        elif fault == "no gradient":
            image, text, scale = image.detach(), text.detach(), 10.0
        elif fault == "equal shards":
            image, text = (t.requires_grad_() for t in features(5, torch.float32))
        elif fault == "another loss":
            name, options = "SigLipLoss", {"rank": rank, "world_size": world}
        options |= {
            "reduce_dtype": {"reduce_dtype": "input"},
            "backend": {"backend": "metal"},
            "rank": {"rank": 0},
            "flags": {"local_loss": False},
            "dist_impl": {"dist_impl": "shift"},
            "chunk_size": {"chunk_size": 2},
            "no workspace": {"workspace_bytes": 0},
        }.get(fault, {})
    loss = getattr(fastclip.loss, name)(**options)
    if name == "SigLipLoss":
        return loss(image, text, scale, -10.0)
    if name == "DistillClipLoss":
        teacher, other = features(len(image) if image is not None else 4, torch.float32)
        teacher.requires_grad_(odd and fault == "teacher")
        return loss(image, text, scale, teacher, other, 10.0)
    return loss(image, text, scale)


def outside_of_group(rank: int, world: int) -> str | None:
    group = dist.new_group([0, 1])
    if rank < 2:
        return None
    try:
        fastclip.loss.ClipLoss(rank=0, world_size=2, group=group)(*features(4, torch.float32), 1.0)
    except ValueError as error:
        return str(error)
    return "no error"


def changed_after_agreement(rank: int, world: int) -> str:
    loss = fastclip.loss.ClipLoss(rank=rank, world_size=world, shards="equal")
    loss(*features(4, torch.float32), 10.0)
    try:
        loss(*features(3, torch.float32), 10.0)
    except ValueError as error:
        return str(error)
    return "no error"


def traffic_of(
    rank: int, world: int, step: str, name: str, rows: tuple, how: Any, options: dict | None = None
) -> dict[str, int]:
    """What a step of ``step`` makes this rank send, by collective."""
    import recording_group

    recording_group.sent.clear()
    globals()[step](rank, world, name, rows, how, **(options or {}))
    return dict(recording_group.sent)


def handshakes(rank: int, world: int) -> tuple[int, int, int]:
    """Elements gathered by two training steps and one evaluation beyond what each needs."""
    import recording_group

    loss = fastclip.loss.ClipLoss(True, True, rank=rank, world_size=world, shards="equal")

    def gathered(step: Callable[[], Any]) -> int:
        recording_group.sent.clear()
        step()
        return recording_group.sent["all_gather"]

    image, text = own_rows(features(8, torch.float32), (4, 4), rank)

    def evaluate() -> None:
        with torch.no_grad():
            loss(image, text, 10.0)

    def train() -> None:
        loss(image, text, 10.0).backward()

    return gathered(train), gathered(train), gathered(evaluate) - 4 * WIDTH


def hard_negative_step(rank: int, world: int, name: str, flags: tuple) -> dict:
    class HardNegatives(implementation(name).ClipLoss):
        def get_logits(self, image_features, text_features, logit_scale, logit_bias=None):
            logits = super().get_logits(image_features, text_features, logit_scale, logit_bias)
            return tuple(z + 0.1 * z.detach().square() for z in logits)

    settings.warn_once.cache_clear()
    image, text = own_rows(features(4 * world, torch.float64), (4,) * world, rank)
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    leaves = {"image": image, "text": text, "scale": scale}
    loss = HardNegatives(*flags, rank=rank, world_size=world)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = gradients(loss(*leaves.values()), 1.0 + rank, leaves)
    return found | {"warning": " ".join(str(w.message) for w in caught)}


def soft_negative_step(rank: int, world: int, name: str, way: str) -> dict:
    class SoftNegatives(implementation(name).SigLipLoss):
        def _loss(self, image, text, logit_scale, logit_bias=None, negative_only=False):
            loss = super()._loss(image, text, logit_scale, logit_bias, negative_only)
            return 0.5 * loss if negative_only else loss

    image, text = own_rows(features(4 * world, torch.float64), (4,) * world, rank)
    scalars = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (10.0, -3.0)]
    leaves = {"image": image, "text": text, "scale": scalars[0], "bias": scalars[1]}
    loss = SoftNegatives(rank=rank, world_size=world, dist_impl=way)
    return gradients(loss(*leaves.values()), 1.0 + rank, leaves)


def gathered(rank: int, world: int, name: str, flags: tuple) -> dict:
    """What ``gather_features`` and ``get_logits`` return, and gradients through the former."""
    module = implementation(name)
    image, text = own_rows(features(4 * world, torch.float64), (4,) * world, rank)
    images, texts = module.gather_features(image, text, *flags, rank, world)
    loss = module.ClipLoss(*flags, rank=rank, world_size=world)
    per_image, per_text = loss.get_logits(image, text, 10.0, torch.tensor(-2.0).double())
    found = {"images": images.detach(), "texts": texts.detach()}
    found |= {"per image": per_image.detach(), "per text": per_text.detach()}
    if images.requires_grad:
        weight = torch.arange(images.numel(), dtype=torch.float64).view_as(images) + rank
        (weight * images * texts).sum().backward()
        found |= {"image": image.grad, "text": text.grad}
    return found


def ragged_override(rank: int, world: int) -> torch.Tensor:
    class Same(fastclip.loss.ClipLoss):
        def get_logits(self, *args, **kwargs):
            return super().get_logits(*args, **kwargs)

    return Same(rank=rank, world_size=world)(*features(3 - rank, torch.float64), 1.0)


def clip_under_autocast(rank: int, world: int, rows: tuple) -> tuple:
    """Gradients of fp32 images and bf16 texts in autocast, and of bf16 pairs outside of it."""
    image, text = features(sum(rows), torch.float32)
    image, text = own_rows([image, text.bfloat16()], rows, rank)
    loss = fastclip.loss.ClipLoss(True, True, rank=rank, world_size=world)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(image, text, 10.0)
    inside = torch.autograd.grad(value, (image, text))
    pair = [image.detach().bfloat16().requires_grad_(), text.detach().requires_grad_()]
    plain = loss(*pair, 10.0)
    return (value.detach(), *inside), (plain.detach(), *torch.autograd.grad(plain, pair))


def clip_in_inference_mode(rank: int, world: int) -> tuple:
    with torch.inference_mode():
        image, text = features(3, torch.float32)
        loss = fastclip.loss.ClipLoss(rank=rank, world_size=world)(image, text, 10.0)
        other = fastclip.loss.SigLipLoss(rank=rank, world_size=world)(image, text, 10.0, -1.0)
    return loss.item(), other.item()


def distill_override(rank: int, world: int, name: str, options: dict) -> dict:
    class Smooth(implementation(name).DistillClipLoss):
        def dist_loss(self, teacher_logits, student_logits):
            return super().dist_loss(teacher_logits / 2, student_logits)

    image, text = own_rows(features(6, torch.float64), (3, 3), rank)
    teacher = [t.detach() for t in own_rows(features(6, torch.float64, 5, 1), (3, 3), rank)]
    leaves = {"image": image, "text": text}
    loss = Smooth(True, True, rank=rank, world_size=world, **options)
    for _ in range(2):
        outputs = loss(image, text, 10.0, *teacher, 20.0)
    return gradients(outputs, (1.0, 2.0), leaves)


def calls_of_clip(rank: int, world: int, *flags: bool) -> list[str]:
    """Which functions of ours ClipLoss calls on this rank before its maths begins."""
    from calls_to_maths import calls_to_maths

    image, text = torch.randn(2, 8, 6).requires_grad_().unbind()
    loss = implementation("fastclip").ClipLoss(*flags, rank=rank, world_size=world)
    return calls_to_maths(loss, (image, text, torch.tensor(3.0, requires_grad=True)))
