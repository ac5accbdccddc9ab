"""How implementations of InfoNCE and SigLIP are called."""

import warnings

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.losses.adapters import Inputs, Step, amp, differentiated
from benchmarks.losses.problems import Problem

# What sentence-transformers' loss holds at once; its default of 32 is for embedding, and slower.
_CACHED_ROWS = 1024


def our_infonce(problem: Problem, **options) -> Step:
    from fastclip.loss import clip_loss

    if problem.ranks > 1:
        options |= {"group": dist.group.WORLD, "shards": "equal"}
        options |= {"local_loss": True, "gather_with_grad": True}
    return differentiated(lambda image, text, scale: clip_loss(image, text, scale, **options))


def our_siglip(problem: Problem, **options) -> Step:
    from fastclip.loss import siglip_loss

    return differentiated(
        lambda image, text, scale, bias: siglip_loss(image, text, scale, bias, **options)
    )


def open_clip_infonce(problem: Problem, compiled: bool = False) -> Step:
    from open_clip import loss

    # The gather that it calls is deprecated in torch.
    warnings.filterwarnings("ignore", category=FutureWarning, module="open_clip")
    ranks = problem.ranks
    module = loss.ClipLoss(local_loss=ranks > 1, gather_with_grad=ranks > 1, world_size=ranks)
    if compiled:
        torch._dynamo.reset()
        # A gather breaks the graph; among `mirror`'s ranks dynamo fails inside it instead.
        loss.gather_features = torch.compiler.disable(loss.gather_features)
        module = torch.compile(module, dynamic=False)
    return differentiated(amp(lambda image, text, scale: module(image, text, scale), problem))


def open_clip_siglip(problem: Problem) -> Step:
    from open_clip.loss import SigLipLoss

    module = SigLipLoss()
    return differentiated(
        amp(lambda image, text, scale, bias: module(image, text, scale, bias), problem)
    )


def sentence_transformers(problem: Problem) -> Step:
    """Its loss on given features: no model runs, and its scale is a constant."""
    with warnings.catch_warnings():
        # Version 6 has a newer name for the class, version 5 has not.
        warnings.simplefilter("ignore", DeprecationWarning)
        from sentence_transformers import util
        from sentence_transformers.losses import CachedMultipleNegativesSymmetricRankingLoss

        module = CachedMultipleNegativesSymmetricRankingLoss(
            torch.nn.Sequential(torch.nn.Identity()),
            scale=problem.logit_scale,
            similarity_fct=util.dot_score,
            mini_batch_size=_CACHED_ROWS,
        )

    def step(inputs: Inputs) -> dict[str, Tensor]:
        image, text = inputs["image"], inputs["text"]
        image.grad = text.grad = None
        loss = module.calculate_loss([[image], [text]], with_backward=True)
        return {"loss": loss, "image": image.grad, "text": text.grad}

    return step


def memeff(problem: Problem) -> Step:
    """Its temperature is a constant, and by default its gradients are rescaled: not here.

    Over ranks it returns this rank's part of the mean, and gradients a W-th of what DDP's averaging
    expects.
    """
    options = {"temperature": 1 / problem.logit_scale, "normalized_inputs": True, "stable": False}
    if problem.ranks > 1:
        from memeff import DistributedMemoryEfficientCLIPLoss

        module = DistributedMemoryEfficientCLIPLoss(**options, group=dist.group.WORLD)
    else:
        from memeff import MemoryEfficientCLIPLoss

        module = MemoryEfficientCLIPLoss(**options)
    return differentiated(
        lambda image, text, scale: problem.ranks * module(image, text), ["image", "text"]
    )


def inf_cl(problem: Problem) -> Step:
    """One direction at a time. Over ranks its scale gradient needs the default group and is W times
    as large, so that there the scale is a constant, as it is in no published recipe."""
    from inf_cl import cal_flash_loss, cal_inf_loss

    if problem.ranks > 1:
        constant = problem.logit_scale

        def over_ranks(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
            one = cal_inf_loss(constant * image, text)
            return (one + cal_inf_loss(constant * text, image)) / 2

        return differentiated(over_ranks, ["image", "text"])

    def loss(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        one = cal_flash_loss(image, text, scale=scale).mean()
        return (one + cal_flash_loss(text, image, scale=scale).mean()) / 2

    return differentiated(loss)


def siglip_kernel(problem: Problem) -> Step:
    from siglip_kernel import fused_siglip_loss

    return differentiated(
        lambda image, text, scale, bias: fused_siglip_loss(image, text, scale.log(), bias)
    )
