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
TILED = (("statistics", "plain"), ("statistics", "kept"), ("gradient", "plain"),
         ("gradient", "kept"), ("sigmoid", "plain"))  # fmt: skip
LINEAR = (("row_statistics", "one"), ("row_statistics", "one-kept"),
          ("row_statistics", "several-kept"), ("row_gradient", "one"), ("row_gradient", "several"),
          ("row_gradient", "several-kept"), ("linear_sigmoid", "dense"),
          ("linear_sigmoid", "several"))  # fmt: skip
CASES = [
    *(
        f"{kernel}:{architecture}:{dtype}:{variant}"
        for kernel, variant in TILED + LINEAR
        for architecture in ARCHITECTURES
        for dtype in ("bfloat16", "float32")
    ),
    *(f"{kernel}:sm_90:float16:{variant}" for kernel, variant in TILED),
    *(f"{kernel}:sm_90:bfloat16:ragged" for kernel in ("statistics", "gradient", "sigmoid")),
    *(
        f"{kernel}:{architecture}:bfloat16:plain"
        for kernel in ("fold", "scale_and_add_rows", "scale_and_round", "inner_product")
        for architecture in ("sm_80", "sm_90")
    ),
]


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
                halves = list(pool.map(compile_cases, (CASES[::2], CASES[1::2])))
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


def test_a_tile_that_is_too_large_is_seen_to_spill():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c",
         "import sys; sys.path.insert(0, sys.argv[1]); import compile_kernels as c\n"
         "from fastclip.kernels.tiles import Tile\n"
         "c.tiled = lambda *_: Tile(128, 256, 64, 4, 2)\n"
         "print(c.report('statistics:sm_90:bfloat16:plain')['stack'])", WORKER.parent],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    assert int(run.stdout) > 0
