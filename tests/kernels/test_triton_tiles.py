import json
import os
import subprocess
import sys

import pytest
import torch
from made_up_machine import MadeUpMachine

from fastclip.ops import dispatch
from fastclip.ops.tiling import gpu_blocks

pytest.importorskip("triton")

import triton
from fastclip.kernels import tiles, tune

from fastclip.ops.infonce import triton_backend as infonce_triton

ARCHITECTURES = {"sm_80", "sm_90", "sm_100", tiles.INTERPRETER}


def test_every_architecture_has_every_operation():
    assert set(tiles.tables()) == ARCHITECTURES
    operations = {frozenset(table) for table in tiles.tables().values()}
    assert len(operations) == 1
    for table in tiles.tables().values():
        for entries in table.values():
            assert set(entries) == {"16", "32"}
            for entry in entries.values():
                used = tiles.Tile(**entry)
                for side in (used.rows, used.columns, used.depth, used.warps, used.strip):
                    assert side & (side - 1) == 0
                assert 8 <= used.strip <= used.columns


def test_logits_computed_again_are_summed_in_the_same_order():
    """Of other bits, they would not be those whose log-sum-exps the softmaxes divide by."""
    for table in tiles.tables().values():
        for bits in ("16", "32"):
            again, first = table["gradient"][bits], table["statistics"][bits]
            assert (again["depth"], again["precision"]) == (first["depth"], first["precision"])
    deep = tune.candidates("gradient", tiles.Tile(64, 64, depth=32))
    assert deep and {tile.depth for tile in deep} == {32}
    assert tune.candidates("statistics", tiles.Tile(64, 64, depth=32)) == tune.CANDIDATES


@pytest.mark.parametrize("capability, table", [
    ((8, 0), "sm_80"), ((8, 9), "sm_80"), ((9, 0), "sm_90"), ((10, 0), "sm_100"),
    ((10, 3), "sm_100"), ((12, 0), "sm_80"),
])  # fmt: skip
def test_table_of_a_capability(capability, table):
    assert tiles.table_of(*capability) == table


def test_a_table_is_rewritten_alone(tmp_path, monkeypatch):
    before = tiles.TABLE_FILE.read_text()
    monkeypatch.setattr(tiles, "TABLE_FILE", tmp_path / "tiles.json")
    tiles.TABLE_FILE.write_text(before)
    table = {
        operation: {bits: tiles.Tile(**entry) for bits, entry in entries.items()}
        for operation, entries in tiles.tables()["sm_90"].items()
    }
    tiles.rewrite(table, "sm_90")
    assert tiles.TABLE_FILE.read_text() == before
    table["gradient"]["16"] = tiles.Tile(64, 64)
    tiles.rewrite(table, "sm_90")
    after = json.loads(tiles.TABLE_FILE.read_text())
    assert after["sm_90"]["gradient"]["16"]["rows"] == 64
    after["sm_90"]["gradient"] = json.loads(before)["sm_90"]["gradient"]
    assert after == json.loads(before)


@pytest.mark.parametrize("before, given, want", [
    ("highest", torch.float32, "tf32x3"), ("high", torch.float32, "tf32"),
    ("highest", torch.bfloat16, "ieee"),
])  # fmt: skip
def test_precision_is_torchs(before, given, want):
    setting = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        assert tiles.precision(given, "tf32x3") == want
    finally:
        torch.set_float32_matmul_precision(setting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is present")
def test_tuning_needs_a_gpu():
    run = subprocess.run(
        [sys.executable, "-m", "fastclip.kernels.tune"], capture_output=True, text=True,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
    )  # fmt: skip
    assert run.returncode == 2
    assert run.stderr == "fastclip.kernels.tune needs a CUDA GPU; torch finds none\n"


def test_candidates_are_compiled_several_at_a_time(capsys, monkeypatch):
    """Here without a GPU every launch fails, in its own process."""
    monkeypatch.setattr(tune, "CANDIDATES", tune.CANDIDATES[:2])
    tune.compile_all(["gradient", "sigmoid"], 64, 2)
    assert capsys.readouterr().out == "compiling 8 candidates in 2 processes\n"


def test_a_candidate_is_compiled_by_running_it(monkeypatch):
    made = []

    class Problem:
        def __init__(self, rows, width, dtype):
            made.append((rows, width, dtype))

        def launches(self, tile):
            yield "gradient", lambda: made.append(tile)
            yield "sigmoid", lambda: made.append("another")

    monkeypatch.setattr(tune, "Problem", Problem)
    tune.compile_one("gradient", "16", 768, tune.CANDIDATES[3])
    assert made == [(tune.ROWS_TO_COMPILE, 768, torch.bfloat16), tune.CANDIDATES[3]]


def test_candidates_that_fail_lose_nothing(capsys):
    good = tune.CANDIDATES[5]

    def time(tile):
        if tile == good:
            return 2.0
        if tile == tune.CANDIDATES[3]:
            return 3.0
        if tile.warps == 4:
            raise triton.runtime.errors.OutOfResources(1, 0, "shared memory")
        raise RuntimeError("PassManager::run failed\nmore")

    assert tune.fastest("gradient 16 bits", time, tune.CANDIDATES) == good
    printed = capsys.readouterr()
    assert "gradient 16 bits: 2.000 ms" in printed.out
    assert "RuntimeError" in printed.err and "PassManager::run failed\n" in printed.err

    def fails(tile):
        raise triton.TritonError("no")

    assert tune.fastest("gradient 16 bits", fails, tune.CANDIDATES) is None

    def broken(tile):
        raise torch.AcceleratorError("an illegal memory access")

    with pytest.raises(torch.AcceleratorError):
        tune.fastest("gradient 16 bits", broken, tune.CANDIDATES)


@pytest.mark.parametrize("n, m, width, dtype", [
    (1, 1, 8, torch.float32), (100, 3000, 64, torch.bfloat16), (32768, 32768, 512, torch.bfloat16),
    (2**20, 2**20, 512, torch.float16), (4096, 32768, 1024, torch.float32),
])  # fmt: skip
@pytest.mark.parametrize("workspace_bytes", [2**26, 2**28, 2**33])
def test_blocks_fit_and_cut_along_tiles(n, m, width, dtype, workspace_bytes):
    x, y = (torch.empty(rows, width, dtype=dtype, device="meta") for rows in (n, m))
    planned = gpu_blocks.plan_gpu_blocks(x, y, (128, 256), workspace_bytes)
    assert gpu_blocks.block_bytes(planned.rows, planned.columns, x, y) == planned.bytes
    assert planned.bytes <= workspace_bytes
    for total, largest, multiple in ((n, planned.rows, 128), (m, planned.columns, 256)):
        cut = list(gpu_blocks.spans(total, largest, multiple))
        assert cut[0].start == 0 and cut[-1].stop == total
        for span, after in zip(cut, cut[1:], strict=False):
            assert span.stop == after.start and span.start % multiple == 0
        assert max(span.stop - span.start for span in cut) <= largest
    if n * m * dtype.itemsize > workspace_bytes:
        assert planned.bytes > workspace_bytes / 8


@pytest.mark.parametrize("workspace_bytes, rows", [(3 * 2**30, 32768), (2**28, 1), (2**24, 0)])
def test_logits_are_kept_where_they_fit_beside_fair_blocks(workspace_bytes, rows):
    n = 32768
    x, y = torch.empty(2, n, 512, dtype=torch.bfloat16, device="meta")
    passes = infonce_triton.passes
    kept, planned = (
        passes.new_kept(x, y, True, workspace_bytes).numel(), passes.plan(x, y, workspace_bytes)
    )  # fmt: skip
    assert kept + planned.bytes <= workspace_bytes
    found = planned.kept_rows(torch.empty(kept, device="meta"), n, n)
    assert found == rows or 0 < rows < found < n / 10
    if rows == n:
        assert planned.blocks.rows * planned.blocks.columns >= 2**26


def test_auto_takes_what_passed_its_accuracy_tests(monkeypatch):
    gpu, machine = torch.device("cuda", 0), MadeUpMachine()
    machine.knows(passed=[("sm_90", "infonce", "bfloat16", "triton")])
    monkeypatch.delenv("FASTCLIP_BACKEND", raising=False)
    before = dispatch.use_machine(machine)
    try:
        for op, dtype, backend in (
            ("infonce", torch.bfloat16, "triton"),
            ("infonce", torch.float32, "torch"),
            ("sigmoid", torch.bfloat16, "torch"),
            ("infonce", None, "torch"),
        ):
            found = dispatch.resolve_backend(op, "auto", gpu, dtype)
            assert found.name == backend
            assert found.module.__name__ == f"fastclip.ops.{op}.{backend}_backend"
        cpu = torch.device("cpu")
        assert dispatch.resolve_backend("infonce", "auto", cpu, torch.bfloat16).name == "torch"
    finally:
        dispatch.use_machine(before)
