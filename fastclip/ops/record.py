"""What was found out about backends: which passed their accuracy tests, and which were faster."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

# The committed one. `pytest tests/gpu --accuracy-record FILE` writes what passed,
# `benchmarks/gpu/store.py` what was faster.
RECORD_FILE = Path(__file__).with_name("backends.json")


class Passed(NamedTuple):
    """A backend that passed the accuracy tests of an operation on a GPU's architecture.

    ``architecture`` is ``sm_90`` and the like, ``dtype`` as ``dtype_name`` has it.
    """

    architecture: str
    operation: str
    dtype: str
    backend: str


class Faster(NamedTuple):
    """Numbers of rows and columns, and a width, at which a backend was faster than Triton's."""

    architecture: str
    operation: str
    dtype: str
    rows: int
    columns: int
    width: int
    backend: str


class BackendRecord(NamedTuple):
    """All that is known, of any GPU."""

    passed: frozenset[Passed] = frozenset()
    faster: frozenset[Faster] = frozenset()

    def to_text(self) -> str:
        """As the file has it: an entry a line, sorted, so that changes show as lines."""
        parts = []
        for name, entries in self._asdict().items():
            lines = ",\n".join(f"    {json.dumps(entry._asdict())}" for entry in sorted(entries))
            parts.append(f'  "{name}": [{f"{chr(10)}{lines}{chr(10)}  " if lines else ""}]')
        return "{\n" + ",\n".join(parts) + "\n}\n"


def read_record(path: Path = RECORD_FILE) -> BackendRecord:
    """The record in a file.

    Raises ValueError for a file that holds none, and for an entry of other fields.
    """
    found = json.loads(path.read_text())
    try:
        return BackendRecord(_entries(Passed, found["passed"]), _entries(Faster, found["faster"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record of backends: {error}") from error


def _entries(kind: type, entries: Iterable[dict]) -> frozenset:
    return frozenset(kind(**entry) for entry in entries)
