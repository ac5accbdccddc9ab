"""Peers that are absent, broken or wrong are named with the reason, and end nothing."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from benchmarks.losses import contrastive, peers
from benchmarks.losses.errors import relative_errors
from benchmarks.losses.problems import Problem
from benchmarks.reporting.operations import (
    INFONCE,
    LAYERS,
    LINEAR,
    LINEAR_SIGMOID,
    MULTI_TARGET,
    OPERATIONS,
)

BROKEN = {
    "memeff": "raise RuntimeError('a broken wheel')",
    "inf_cl": (
        "def cal_flash_loss(q, k, scale): return scale * (q * k).sum(1)\n"
        "def cal_inf_loss(*args): raise AssertionError"
    ),
    "siglip_kernel": "def fused_siglip_loss(*args): raise RuntimeError('no such\\nkernel image')",
}


def a_peer(needs: str, **more) -> peers.Peer:
    return peers.Peer("it", INFONCE, "it", needs, contrastive.memeff, **more)


def test_the_cuda_backend_is_compared_in_16_bits() -> None:
    for dtype, wanted in ((torch.bfloat16, True), (torch.float32, False)):
        found = peers.peers(INFONCE, "cuda", dtype=dtype)
        assert any(peer.backend == "cuda" for peer in found) == wanted
        assert any(peer.backend == "triton" for peer in found)


def test_reasons_to_be_absent() -> None:
    assert a_peer("no_such_module").absent("cpu") == (
        "`import no_such_module` fails (No module named 'no_such_module')"
    )
    assert a_peer("torch:no_such_thing").absent("cpu").endswith("has no no_such_thing")
    assert a_peer("torch:nn").absent("cpu") is None
    missing = a_peer("fastclip.loss", backend="no-such", workspace=64)
    assert "no-such" in missing.absent("cpu")


LIGER = """
import torch.nn.functional as F
class LigerFusedLinearCrossEntropyFunction:
    def apply(
        _input, weight, target, bias, ce_weight, ignore_index, lse_square_scale, label_smoothing,
        reduction, softcap, return_z_loss, accum_dtype, use_token_scaling, return_token_accuracy,
        return_predicted_tokens, ce_impl,
    ):
        assert not (return_z_loss or use_token_scaling or return_token_accuracy)
        assert not (return_predicted_tokens or lse_square_scale or label_smoothing)
        assert bias is ce_weight is softcap is accum_dtype is None
        kinds.append(ce_impl)
        z = _input @ weight.T
        return F.cross_entropy(z, target, ignore_index=ignore_index, reduction=reduction), None
kinds = []
"""
LIGER_CUTE = """
import torch.nn.functional as F
def liger_fused_linear_cross_entropy_sm90(
    _input, weight, target, ignore_index=-100, reduction="mean"
):
    return F.cross_entropy(_input @ weight.T, target, reduction=reduction)
"""


def test_liger_in_each_of_its_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls, against functions with the parameters of version 0.8.5."""
    problem = Problem(LINEAR, 24, 40, 16, torch.float32)
    names = ["", ".ops", ".ops.fused_linear_cross_entropy", ".ops.cutedsl", ".ops.cutedsl.ops"]
    names += [".ops.cutedsl.ops.fused_linear_cross_entropy_sm90"]
    modules = {name: types.ModuleType(f"liger_kernel{name}") for name in names}
    exec(LIGER, vars(modules[".ops.fused_linear_cross_entropy"]))
    exec(LIGER_CUTE, vars(modules[names[-1]]))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"liger_kernel{name}", module)
    found = [p for p in peers.peers(LINEAR, "cuda") if p.distribution == "liger-kernel"]
    assert [p.name for p in found] == ["Liger, Triton", "Liger, CuTe softmax", "Liger, CuTe"]
    for peer in found:
        errors = relative_errors(peer.build(problem)(problem.inputs()), problem)
        assert set(errors) == {"loss", "hidden", "weight"} and max(errors.values()) < 1e-5
    kinds = modules[".ops.fused_linear_cross_entropy"].kinds
    assert kinds == ["nvidia-triton", "nvidia-cutedsl"]


def test_names_are_unique_within_an_operation_and_device() -> None:
    for operation in OPERATIONS:
        for device in ("cpu", "cuda"):
            names = [peer.name for peer in peers.peers(operation, device)]
            assert names[0].startswith("fastclip")
            assert len(set(names)) == len(names)


@pytest.mark.parametrize("operation", LAYERS)
def test_what_a_user_of_torch_would_write_is_the_same_loss(operation: str) -> None:
    """And so the exact answer, which has another formula, is right."""
    problem = Problem(operation, 50, 60, 16, torch.float32)
    found = [p for p in peers.peers(operation, "cpu") if p.distribution == "torch"]
    assert len(found) == (1 if operation == MULTI_TARGET else 2)
    for peer in found:
        if peer.absent("cpu") is None:
            errors = relative_errors(peer.build(problem)(problem.inputs()), problem)
            assert set(errors) == {"loss", "hidden", "weight"} and max(errors.values()) < 1e-5


@pytest.mark.parametrize("operation", [MULTI_TARGET, LINEAR_SIGMOID])
def test_rows_name_classes_once(operation: str) -> None:
    inputs = Problem(operation, 300, 40, 16, torch.float32).inputs()
    rows = inputs["columns"].tensor_split(inputs["starts"][1:-1])
    assert {len(row) for row in rows} == set(range(1, 13))
    assert all(len(row.unique()) == len(row) and 0 <= min(row) <= max(row) < 40 for row in rows)
    if "shares" in inputs:
        shares = inputs["shares"].tensor_split(inputs["starts"][1:-1])
        torch.testing.assert_close(torch.stack([row.sum() for row in shares]), torch.ones(300))
    else:
        positives = torch.zeros(40).index_add_(
            0, inputs["columns"], torch.ones(len(inputs["columns"]))
        )
        torch.testing.assert_close(
            inputs["positive_weight"] * (positives + 1), torch.full((40,), 300.0)
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """``run(*arguments)``: the tiny GPU part in a process of its own with broken peers; its record
    and output."""
    pytest.importorskip("pytest_benchmark")
    folder = tmp_path_factory.mktemp("peers")
    for name, text in BROKEN.items():
        (folder / f"{name}.py").write_text(text)
    root = Path(__file__).resolve().parents[2]

    def run(*arguments: str) -> tuple[dict, str]:
        path = folder / "gpu.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tiny"]
        command += [str(root / "benchmarks"), f"--gpu-record={path}", *arguments]
        environment = os.environ | {"PYTHONPATH": str(folder), "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(path.read_text()), done.stdout

    return run


def test_broken_peers_are_reported(run) -> None:
    # Without a GPU Triton's kernels would run in its interpreter, again and again until timed.
    case = "32x32x32-bfloat16 and not (scale or compiled or triton)"
    record, shown = run("-k", case)
    assert record["skipped"]["memeff"] == "`import memeff` fails (a broken wheel)"
    wrong = record["failed"]["Inf-CL, InfoNCE 32 x 32, D = 32 bfloat16"]
    assert wrong.startswith("ArithmeticError: wrong: relative errors")
    siglip = record["failed"]["siglip-kernel, SigLIP 32 x 32, D = 32 bfloat16"]
    assert siglip == "RuntimeError: no such"
    timed = {(e["operation"], e["implementation"]) for e in record["losses"]}
    assert ("InfoNCE", "fastclip torch, 256 MiB") in timed
    assert not {name for _, name in timed} & {"memeff", "Inf-CL", "siglip-kernel"}
    assert "- memeff: `import memeff` fails (a broken wheel)" in shown
    for entry in record["losses"]:
        assert entry["seconds"] > 0 and entry["b3_ratio"] > 0 and entry["input_sets"] >= 2
    assert record["machine"]["versions"]["torch"]


def test_losses_with_several_targets_a_row_are_timed(run) -> None:
    """Ours and torch's at all their shapes, which the CUDA backend does not have."""
    case = "test_losses_gpu and (multi-target or linear-sigmoid) and not (compiled or triton)"
    record, shown = run("-k", case)
    assert not record["failed"]
    timed = {(e["operation"], e["implementation"]) for e in record["losses"]}
    for operation in (MULTI_TARGET, LINEAR_SIGMOID):
        assert {(operation, "fastclip torch, 256 MiB"), (operation, "torch eager")} < timed
        assert f"**{operation}**, forward and backward:" in shown
        assert f"fastclip cuda, 64 MiB, {operation}" in record["skipped"]
    assert len(record["groups"]) == 4


def test_nothing_starts_without_time(run) -> None:
    record, shown = run("-k", "gpu", "--budget=0")
    from benchmarks.gpu.cases import groups

    assert set(record["not_run"]) == {group.name for group in groups(tiny=True)}
    assert not record["losses"] and not record["groups"]
    assert "the 0 s were used up" in shown
