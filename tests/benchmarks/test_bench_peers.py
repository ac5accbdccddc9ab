"""Peers that are absent, broken or wrong are named with the reason, and end nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import adapters
import peers
import pytest

BROKEN = {
    "memeff": "raise RuntimeError('a broken wheel')",
    "inf_cl": (
        "def cal_flash_loss(q, k, scale): return scale * (q * k).sum(1)\n"
        "def cal_inf_loss(*args): raise AssertionError"
    ),
    "siglip_kernel": "def fused_siglip_loss(*args): raise RuntimeError('no such\\nkernel image')",
}


def a_peer(needs: str, **more) -> peers.Peer:
    return peers.Peer("it", peers.INFONCE, "it", needs, adapters.memeff, **more)


def test_reasons_to_be_absent() -> None:
    assert a_peer("no_such_module").absent("cpu") == (
        "`import no_such_module` fails (No module named 'no_such_module')"
    )
    assert a_peer("torch:no_such_thing").absent("cpu").endswith("has no no_such_thing")
    assert a_peer("torch:nn").absent("cpu") is None
    missing = a_peer("fastclip.loss", backend="no-such", workspace=64)
    assert "no-such" in missing.absent("cpu")


def test_names_are_unique_within_an_operation_and_device() -> None:
    for operation in (peers.INFONCE, peers.SIGLIP, peers.LINEAR):
        for device in ("cpu", "cuda"):
            names = [peer.name for peer in peers.peers(operation, device)]
            assert names[0].startswith("fastclip")
            assert len(set(names)) == len(names)


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
    case = "32x32x32-bfloat16 and not scale and not compiled"
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


def test_nothing_starts_without_time(run) -> None:
    record, shown = run("-k", "gpu", "--budget=0")
    from gpu_cases import groups

    assert set(record["not_run"]) == {group.name for group in groups(tiny=True)}
    assert not record["losses"] and not record["groups"]
    assert "the 0 s were used up" in shown
