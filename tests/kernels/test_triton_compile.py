"""Every kernel compiles for every architecture, and no register spills to local memory."""

import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("triton")

WORKER = Path(__file__).with_name("compile_kernels.py")
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# Shared memory of a block, bytes.
LARGEST_SHARED = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448}
BOTH = ("bfloat16", "float32")
# Every tile of the table and every kernel on every architecture, by the variant that takes the most
# registers there; the others, which are the same code less a branch, where they come closest to it.
CASES = [
    f"{kernel}:{architecture}:{dtype}:{variant}"
    for kernel, variant, architectures, dtypes in (
        ("statistics", "plain", ARCHITECTURES, BOTH),
        ("statistics", "kept", ARCHITECTURES, BOTH),
        ("statistics", "kept", ["sm_90"], ["float16"]),
        ("statistics", "ragged", ["sm_90"], ["bfloat16"]),
        ("gradient", "plain", ARCHITECTURES, BOTH),
        ("gradient", "kept", ARCHITECTURES, ["bfloat16"]),
        ("gradient", "kept", ["sm_90"], ["float32", "float16"]),
        ("gradient", "ragged", ["sm_90"], ["bfloat16"]),
        ("sigmoid", "plain", ARCHITECTURES, BOTH),
        ("sigmoid", "plain", ["sm_90"], ["float16"]),
        ("sigmoid", "ragged", ["sm_90"], ["bfloat16"]),
        ("statistics", "kept-positive", ["sm_90"], ["float32"]),
        ("statistics", "kept-ignore", ["sm_90"], ["bfloat16"]),
        ("gradient", "kept-positive", ["sm_90"], BOTH),
        ("sigmoid", "positive", ["sm_90"], BOTH),
        ("row_statistics", "one", ARCHITECTURES, BOTH),
        ("row_statistics", "one-kept", ARCHITECTURES, BOTH),
        ("row_statistics", "several-kept", ["sm_90"], BOTH),
        ("row_gradient", "one", ["sm_90", "sm_100"], BOTH),
        ("row_gradient", "several", ["sm_80"], BOTH),
        ("row_gradient", "several-kept", ARCHITECTURES, ["bfloat16"]),
        ("row_gradient", "several-kept", ["sm_90"], ["float32"]),
        ("linear_sigmoid", "dense", ["sm_80", "sm_90"], BOTH),
        ("linear_sigmoid", "several", ["sm_80"], ["float32"]),
        ("linear_sigmoid", "several", ["sm_100"], BOTH),
        ("merge_partials", "plain", ["sm_80"], ["bfloat16"]),
        ("scale_and_add_rows", "plain", ["sm_90"], ["bfloat16"]),
        ("scale_and_round", "plain", ["sm_80"], ["bfloat16"]),
        ("inner_product", "plain", ["sm_90"], ["bfloat16"]),
    )
    for architecture in architectures
    for dtype in dtypes
]
# A tile that so few warps cannot hold.
SPILLS = "gradient:sm_90:float32:kept:2"


def compile_cases(cases):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, WORKER, *cases], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Of all cases, compiled by the first of a run's processes that asks."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    found = folder / "compiled_kernels.json"
    with open(folder / "compiled_kernels.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            with ThreadPoolExecutor(2) as pool:
                halves = list(pool.map(compile_cases, (CASES[::2], [*CASES[1::2], SPILLS])))
            found.write_text(json.dumps([report for half in halves for report in half]))
    return {report["case"]: report for report in json.loads(found.read_text())}


@pytest.mark.parametrize("case", CASES)
def test_compiles_without_spills(reports, case):
    report = reports[case]
    assert report["stack"] == report["local"] == 0, report
    assert report["reg"] <= 255
    assert report["shared"] <= LARGEST_SHARED[case.split(":")[1]]


@pytest.mark.parametrize("case", [case for case in CASES if ":sm_90:" in case])
def test_two_blocks_share_a_hopper_multiprocessor(reports, case):
    """Where the table bounds registers, which is so that the products of one run under the epilogue
    of the other."""
    report = reports[case]
    if not report["bound"]:
        pytest.skip("the table does not bound this kernel's registers")
    registers = -(-report["reg"] // 8) * 8  # as they are allotted
    blocks = 65536 // (registers * 32 * report["warps"])
    reserved = 1024  # of each block's shared memory
    assert min(blocks, 233_472 // (report["shared"] + reserved)) >= 2


def test_a_tile_that_is_too_large_is_seen_to_spill(reports):
    assert reports[SPILLS]["stack"] > 0
