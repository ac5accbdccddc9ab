"""Keep what ``gpu.sh`` found: ``python benchmarks/store_gpu.py OUT/gpu.json [MORE/gpu.json ...]``.

Several records of one GPU and revision, as parts of the benchmarks run one after another leave
them, become one: what a later record measured replaces the same measurement of an earlier one. The
result goes to ``results/gpu-<name>.json``, its tables and plots beside it and into the README.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import report
from gpu_targets import targets
from record import GpuRecord
from run import store

_LISTS = ("losses", "large", "precision", "schedule")
_IDENTITY = ("operation", "implementation", "rows", "columns", "width", "dtype", "ranks", "scale")


def merged(records: list[GpuRecord]) -> GpuRecord:
    """One record of all; ValueError where they are of several machines or revisions."""
    for what in ("gpu", "driver", "revision"):
        found = sorted({str(record.machine[what]) for record in records})
        if len(found) > 1:
            raise ValueError(f"records of one {what} can be kept together, found {found}")
    whole = GpuRecord(machine=records[-1].machine)
    for field in dataclasses.fields(GpuRecord):
        if field.name in _LISTS:
            entries = {_identity(e): e for r in records for e in getattr(r, field.name)}
            setattr(whole, field.name, list(entries.values()))
        elif field.name in ("accuracy", "train_step"):
            parts = [value for r in records if (value := getattr(r, field.name))]
            setattr(whole, field.name, parts[-1] if parts else {})
        elif field.name in ("skipped", "failed", "not_run"):
            reasons = {name: why for r in records for name, why in getattr(r, field.name).items()}
            setattr(whole, field.name, reasons)
    # A group that one run had no time for may have been started by another.
    whole.groups = sorted({name for record in records for name in record.groups})
    whole.tests = sorted({name for record in records for name in record.tests})
    whole.not_run = {n: why for n, why in whole.not_run.items() if n not in whole.groups}
    whole.targets = [target.to_plain() for target in targets(whole)]
    return whole


def _identity(entry: dict[str, Any]) -> tuple:
    return tuple(entry.get(key) for key in _IDENTITY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", nargs="+", type=Path)
    paths = parser.parse_args().records
    try:
        records = [GpuRecord.from_plain(json.loads(path.read_text())) for path in paths]
        path = store(merged(records).to_plain())
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"store_gpu.py: {error}")
    report.write(report.stored())
    print(f"results: {path} (and .md, .png beside it)")


if __name__ == "__main__":
    main()
