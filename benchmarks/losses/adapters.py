"""How each implementation is called: from a problem to a step.

A step takes a problem's inputs, runs forward and backward once, and returns the loss and the
gradients by input name. Only what an implementation's own users would run is in it: autocast where
it was made for that, no copies, no conversions. What is not imported at the top is optional.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from benchmarks.losses.problems import Problem

Inputs = dict[str, Tensor]
Step = Callable[[Inputs], dict[str, Tensor]]
Builder = Callable[[Problem], Step]

# What sentence-transformers' loss holds at once; its default of 32 is for embedding, and slower.
_CACHED_ROWS = 1024
_QUACK_ROWS = 4096


def differentiated(loss: Callable[..., Tensor], names: Sequence[str] | None = None) -> Step:
    """Call ``loss`` on the inputs by name; gradients of ``names``, or of all that want one."""

    def step(inputs: Inputs) -> dict[str, Tensor]:
        wanted = names or [name for name, leaf in inputs.items() if leaf.requires_grad]
        value = loss(**inputs)
        gradients = torch.autograd.grad(value, [inputs[name] for name in wanted])
        return {"loss": value, **dict(zip(wanted, gradients, strict=True))}

    return step


def _amp(loss: Callable[..., Tensor], problem: Problem) -> Callable[..., Tensor]:
    """``loss`` under bf16 autocast where the problem is in bf16 and on a GPU, as amp_bf16 has it.

    The CPU part compares in the inputs' own dtype.
    """
    if problem.dtype != torch.bfloat16 or problem.device == "cpu":
        return loss

    def autocast(**inputs: Tensor) -> Tensor:
        with torch.autocast(problem.device, torch.bfloat16):
            return loss(**inputs)

    return autocast


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


def our_linear_cross_entropy(problem: Problem, **options) -> Step:
    from fastclip.loss import linear_cross_entropy

    return differentiated(
        lambda hidden, weight, target: linear_cross_entropy(hidden, weight, target, **options)
    )


def our_multi_target_cross_entropy(problem: Problem, **options) -> Step:
    from fastclip.loss import multi_target_cross_entropy

    return differentiated(
        lambda hidden, weight, starts, columns, shares: multi_target_cross_entropy(
            hidden, weight, (starts, columns, shares), **options
        )
    )


def our_linear_sigmoid_cross_entropy(problem: Problem, **options) -> Step:
    from fastclip.loss import linear_sigmoid_cross_entropy

    return differentiated(
        lambda hidden, weight, starts, columns, **weights: linear_sigmoid_cross_entropy(
            hidden, weight, (starts, columns), **weights, **options
        )
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
    return differentiated(_amp(lambda image, text, scale: module(image, text, scale), problem))


def open_clip_siglip(problem: Problem) -> Step:
    from open_clip.loss import SigLipLoss

    module = SigLipLoss()
    return differentiated(
        _amp(lambda image, text, scale, bias: module(image, text, scale, bias), problem)
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


def torch_linear_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    def loss(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight), target)

    return differentiated(_compiled(loss) if compiled else loss)


def _compiled(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.reset()
    return torch.compile(loss, dynamic=False)


def _rows_of(starts: Tensor, columns: Tensor) -> Tensor:
    """The row of each entry of a CSR target."""
    # With its size said, nothing waits for the device.
    return torch.repeat_interleave(starts.diff(), output_size=len(columns))


def torch_multi_target_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    """The named entries of a log softmax: faster and smaller than ``F.cross_entropy`` with dense
    probabilities for targets."""

    def loss(
        hidden: Tensor, weight: Tensor, starts: Tensor, columns: Tensor, shares: Tensor
    ) -> Tensor:
        log_p = F.log_softmax(F.linear(hidden, weight), 1)
        named = log_p[_rows_of(starts, columns), columns]
        return -(shares * named).sum() / len(hidden)

    return differentiated(_compiled(loss) if compiled else loss)


def torch_linear_sigmoid_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    """Torch's function, with the dense labels that it needs."""

    def loss(
        hidden: Tensor,
        weight: Tensor,
        starts: Tensor,
        columns: Tensor,
        positive_weight: Tensor,
        negative_weight: Tensor,
    ) -> Tensor:
        z = F.linear(hidden, weight)
        labels = torch.zeros_like(z).index_put_(
            (_rows_of(starts, columns), columns), z.new_ones(())
        )
        # Of one dtype with the logits, or they become float32 on the way.
        over = (positive_weight / negative_weight).to(z.dtype)
        each = negative_weight.to(z.dtype)
        return F.binary_cross_entropy_with_logits(z, labels, weight=each, pos_weight=over)

    return differentiated(_compiled(loss) if compiled else loss)


def torch_sparse_sigmoid_cross_entropy(problem: Problem, compiled: bool = False) -> Step:
    """All entries as negatives, and then the named ones as what they are: what to write where
    labels are few."""

    def loss(
        hidden: Tensor,
        weight: Tensor,
        starts: Tensor,
        columns: Tensor,
        positive_weight: Tensor,
        negative_weight: Tensor,
    ) -> Tensor:
        z = F.linear(hidden, weight)
        named = z[_rows_of(starts, columns), columns]
        as_negatives = (F.softplus(z).sum(0) * negative_weight).sum()
        as_positives = positive_weight[columns] * F.softplus(-named)
        too_much = negative_weight[columns] * F.softplus(named)
        return (as_negatives + (as_positives - too_much).sum()) / z.numel()

    return differentiated(_compiled(loss) if compiled else loss)


def torch_chunked_linear_cross_entropy(problem: Problem) -> Step:
    options = torch.nn.LinearCrossEntropyOptions()
    return differentiated(
        lambda hidden, weight, target: F.linear_cross_entropy(
            hidden, weight, target, options=options
        )
    )


def liger(problem: Problem, softmax: str = "nvidia-triton") -> Step:
    """Torch's products, in chunks, around a softmax kernel of the given kind, which Liger's own
    module would choose by what is installed."""
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    # No bias, class weights, z-loss, smoothing or cap; the mean; no further outputs.
    plain = (None, None, -100, 0.0, 0.0, "mean", None, False, None, False, False, False)
    return differentiated(
        lambda hidden, weight, target: LigerFusedLinearCrossEntropyFunction.apply(
            hidden, weight, target, *plain, softmax
        )[0]
    )


def liger_cute(problem: Problem) -> Step:
    """All three products and the softmax in its own kernels for compute capability 9.0.

    It refuses rows that are no multiple of 128 and vocabularies that are none of 256.
    """
    from liger_kernel.ops.cutedsl.ops.fused_linear_cross_entropy_sm90 import (
        liger_fused_linear_cross_entropy_sm90,
    )

    return differentiated(
        lambda hidden, weight, target: liger_fused_linear_cross_entropy_sm90(hidden, weight, target)
    )


def cut_cross_entropy(problem: Problem) -> Step:
    """Its exact mode: without a filter that drops small entries of the softmax."""
    from cut_cross_entropy import linear_cross_entropy

    return differentiated(
        lambda hidden, weight, target: linear_cross_entropy(
            hidden, weight, target, filter_eps=None, impl="cce"
        )
    )


def quack(problem: Problem) -> Step:
    """Chunks of 4,096 rows, its default, or what a smaller problem has."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    rows = min(_QUACK_ROWS, problem.rows)
    return differentiated(
        lambda hidden, weight, target: chunked_linear_cross_entropy(
            hidden, weight, target, chunk_size=rows
        )
    )
