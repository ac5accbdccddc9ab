"""The record of backends that ``auto`` reads: as committed, as written, and as nobody should."""

import json

import pytest
import torch

from fastclip.ops import dispatch
from fastclip.ops.record import RECORD_FILE, BackendRecord, Faster, Passed, read_record

PASSED = Passed("sm_90", "infonce", "bfloat16", "cuda")
FASTER = Faster("sm_90", "infonce", "bfloat16", 4096, 32_768, 512, "cuda")


def faults(record: BackendRecord) -> list[str]:
    """What is wrong with entries: names that are none, and sizes of nothing."""
    found = []
    for entry in (*record.passed, *record.faster):
        if not entry.architecture.startswith("sm_"):
            found.append(f"architecture {entry.architecture}")
        if not isinstance(getattr(torch, entry.dtype, None), torch.dtype):
            found.append(f"dtype {entry.dtype}")
        if entry.backend not in dispatch.backends_of(entry.operation) or entry.backend == "torch":
            found.append(f"backend {entry.backend} of {entry.operation}")
    for entry in record.faster:
        if min(entry.rows, entry.columns, entry.width) < 1:
            found.append(f"shape {entry.rows} x {entry.columns}, {entry.width}")
        if Passed(*entry[:3], entry.backend) not in record.passed:
            found.append(f"{entry.backend} faster, but not known to be accurate")
    return found


def test_the_committed_record_reads():
    record = read_record()
    assert faults(record) == []
    assert RECORD_FILE.read_text() == record.to_text()


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (BackendRecord(frozenset({PASSED._replace(architecture="H100")})), "architecture H100"),
        (BackendRecord(frozenset({PASSED._replace(dtype="bf16")})), "dtype bf16"),
        (BackendRecord(frozenset({PASSED._replace(operation="sigmoid")})), "backend cuda of sig"),
        (BackendRecord(frozenset({PASSED}), frozenset({FASTER._replace(rows=0)})), "shape 0 x 32"),
        (BackendRecord(faster=frozenset({FASTER})), "cuda faster, but not known to be accurate"),
    ],
)
def test_the_check_finds_faults(record, said):
    assert [fault for fault in faults(record) if fault.startswith(said)]


def test_what_is_written_is_read(tmp_path):
    whole = BackendRecord(
        frozenset({PASSED, PASSED._replace(backend="triton")}), frozenset({FASTER})
    )
    path = tmp_path / "backends.json"
    for record in (whole, BackendRecord()):
        path.write_text(record.to_text())
        assert read_record(path) == record
    assert set(json.loads(whole.to_text())) == {"passed", "faster"}
    assert faults(whole) == []


@pytest.mark.parametrize(
    "text",
    ["[]", '{"passed": []}', '{"passed": [{"architecture": "sm_90"}], "faster": []}'],
)
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "backends.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no record of backends"):
        read_record(path)
