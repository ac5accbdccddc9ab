"""A batch of a million pairs on one GPU: that it completes, its memory, and sampled accuracy."""

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.cases import Group, case_id, groups
from benchmarks.gpu.clock import Mark, synchronise
from benchmarks.gpu.measure import attempt, peak_mib
from benchmarks.losses.contrastive import our_infonce
from benchmarks.losses.errors import GATE
from benchmarks.losses.peers import MIB, peers
from benchmarks.losses.problems import Problem
from benchmarks.reporting.record import GpuRecord, worst
from fastclip.ops.infonce import infonce_forward

SAMPLES = 256
WORKSPACE = 256
LARGE_SECONDS = 90


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cases = [
        pytest.param(group, peer, id=case_id(group, peer))
        for group in groups(metafunc.config.getoption("tiny"))
        if group.kind == "large"
        for peer in peers(group.problem.operation, "cuda")
        if peer.ours and peer.workspace == WORKSPACE and peer.backend != "torch"
    ]
    metafunc.parametrize(("group", "peer"), cases)


def test_completes(group: Group, peer, gpu_record: GpuRecord) -> None:
    problem = group.problem
    if reason := peer.absent(problem.device):
        gpu_record.skipped[peer.case] = reason
        pytest.skip(f"{peer.name}: {reason}")
    entry, reason = attempt(lambda: measured(problem, peer.backend), LARGE_SECONDS)
    if entry is not None:
        case = group.case(peer)
        gpu_record.large.append({"case": case, "implementation": peer.name, "ours": True, **entry})
        # Not (error > gate): NaN must not pass.
        if not worst(entry["errors"].values()) <= GATE[problem.dtype][True]:
            reason = f"wrong: relative errors {entry['errors']}"
    if reason:
        gpu_record.failed[group.case(peer)] = reason
        pytest.fail(reason)


def measured(problem: Problem, backend: str) -> dict:
    """Time and memory of one step, and its errors on sampled rows and columns."""
    options = {"backend": backend, "workspace_bytes": WORKSPACE * MIB}
    step = our_infonce(problem, **options)
    inputs = problem.inputs()
    peak = peak_mib(step, inputs)
    start = Mark()
    found = step(inputs)
    seconds = Mark() - start
    errors = sampled_errors(found, inputs, options)
    synchronise()
    return {
        "rows": problem.rows,
        "width": problem.width,
        "dtype": problem.dtype_name,
        "workspace": WORKSPACE,
        "seconds": seconds,
        "tflops_3u": 3 * problem.unit_flop / seconds / 1e12,
        "peak_mib": peak,
        "errors": errors,
    }


def sampled_errors(found: dict[str, Tensor], inputs: dict[str, Tensor], options: dict) -> dict:
    """Relative errors against float64: of sampled normalisers, then of the same rows' gradients.

    A row's gradient takes the normalisers of all columns. They are the op's own, of which the
    sampled ones have been checked.
    """
    image, text, scale = (inputs[name].detach() for name in ("image", "text", "scale"))
    n = len(image)
    with torch.no_grad():
        row_lse, col_lse, target, _ = infonce_forward(
            image, text, scale, 0, False, options["workspace_bytes"], options["backend"]
        )
    generator = torch.Generator().manual_seed(1)
    rows = torch.randperm(n, generator=generator)[:SAMPLES].to(image.device)
    loss = (row_lse + col_lse - 2 * target).sum() / (2 * n)
    errors = {"loss": _relative(found["loss"], loss)}
    sides = (("image", image, text, row_lse, col_lse), ("text", text, image, col_lse, row_lse))
    for name, own, other, own_lse, other_lse in sides:
        lse, gradient = _exact_rows(rows, own, other, other_lse, scale)
        errors[f"{name} lse"] = _relative(own_lse[rows], lse)
        errors[name] = _relative(found[name][rows], gradient)
    return errors


def _exact_rows(
    rows: Tensor, own: Tensor, other: Tensor, other_lse: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """Normalisers and gradients of ``rows`` of one side, in float64."""
    n, step = len(own), 1 << 16
    x, s = own[rows].double(), scale.double()
    z = torch.cat([s * x @ part.double().T for part in other.split(step)], dim=1)
    lse = z.logsumexp(1)
    g = (z - lse[:, None]).exp_() + (z - other_lse.double()).exp_()
    g[torch.arange(len(rows), device=rows.device), rows] -= 2
    parts = zip(g.split(step, dim=1), other.split(step), strict=True)
    gradient = sum(g_part @ part.double() for g_part, part in parts)
    return lse, gradient * (s / (2 * n))


def _relative(found: Tensor, answer: Tensor) -> float:
    found, answer = found.detach().double(), answer.double()
    return float((found - answer).norm() / answer.norm())
