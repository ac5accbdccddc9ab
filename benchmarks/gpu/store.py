"""Keep what ``gpu.sh`` found: ``python -m benchmarks.gpu.store OUT/gpu.json [MORE/gpu.json ...]``.

Several records of one GPU, revision and set of versions, as parts of the benchmarks run one after
another leave them, become one: what a later record measured replaces the same measurement of an
earlier one, or the reason why that has none. The result goes to ``results/gpu-<name>.json``, its
tables and plots beside it and into the README, and the shapes at which the CUDA backend was faster
than Triton's to ``fastclip/ops/backends.json``, by which ``backend="auto"`` takes it.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path

import torch

from benchmarks.losses.problems import Problem
from benchmarks.paths import ROOT
from benchmarks.reporting import gpu_report, results
from benchmarks.reporting.gpu_targets import targets
from benchmarks.reporting.operations import INFONCE
from benchmarks.reporting.record import GpuRecord
from fastclip.ops.record import RECORD_FILE, Faster, read_record
from fastclip.training.run_folder import write_whole

# The checkout's, to be committed, whichever fastclip is installed.
FASTER = ROOT / "fastclip" / "ops" / RECORD_FILE.name
# Medians closer than this say nothing about which of two is faster.
_NOISE = 0.02
_CUDA, _TRITON = "fastclip cuda", "fastclip triton"

_LISTS = ("losses", "large", "precision", "schedule")


def merged(records: list[GpuRecord]) -> GpuRecord:
    """One record of all; ValueError where they are of several machines, revisions or versions."""
    for what in ("gpu", "driver", "revision"):
        _one(what, [record.machine[what] for record in records])
    versions: dict[str, str] = {}
    for name in sorted({name for record in records for name in record.machine["versions"]}):
        found = [record.machine["versions"].get(name) for record in records]
        # What one run did not have cannot be in what it measured.
        versions[name] = _one(f"version of {name}", [version for version in found if version])
    whole = GpuRecord(machine=records[-1].machine | {"versions": versions})
    for field in dataclasses.fields(GpuRecord):
        if field.name in _LISTS:
            entries = {e["case"]: e for r in records for e in getattr(r, field.name)}
            setattr(whole, field.name, list(entries.values()))
        elif field.name in ("accuracy", "train_step"):
            parts = [value for r in records if (value := getattr(r, field.name))]
            setattr(whole, field.name, parts[-1] if parts else {})
    for record in records:
        measured = _measured(record)
        for name in ("skipped", "failed"):
            earlier, later = getattr(whole, name), getattr(record, name)
            setattr(whole, name, {n: w for n, w in earlier.items() if n not in measured} | later)
        whole.not_run |= record.not_run
    # A group that one run had no time for may have been started by another.
    whole.groups = sorted({name for record in records for name in record.groups})
    whole.tests = sorted({name for record in records for name in record.tests})
    whole.not_run = {n: why for n, why in whole.not_run.items() if n not in whole.groups}
    whole.targets = [target.to_plain() for target in targets(whole)]
    return whole


def _one(what: str, found: list) -> str:
    if len(set(found)) > 1:
        values = ", ".join(sorted(map(str, set(found))))
        raise ValueError(f"records of one {what} can be kept together, found {values}")
    return found[0]


def _measured(record: GpuRecord) -> set[str]:
    """Names under which an earlier record may say why it has not got what this one has."""
    entries = [e for field in _LISTS for e in getattr(record, field)]
    names = {e["implementation"] for e in entries} | {e["case"] for e in entries}
    names |= {f"{e['implementation']}, {e.get('operation', INFONCE)}" for e in entries}
    # Of a backend that an earlier run could not build.
    names |= {e["implementation"].partition(",")[0] for e in entries if e["ours"]}
    return names | set(record.tests)


def compared(record: GpuRecord) -> dict[tuple[str, int, int, int], bool]:
    """By dtype, rows, columns and width, of one rank or several: whether InfoNCE on the CUDA
    backend was faster than on Triton's in all workspaces that this was measured in, and failed in
    none."""
    ratios: dict[tuple, dict[tuple, float]] = {}
    failed = set()
    for e in record.losses:
        backend, _, _ = e["implementation"].partition(",")
        if e["operation"] != INFONCE or backend not in (_CUDA, _TRITON):
            continue
        shape = e["dtype"], e["rows"], e["columns"], e["width"]
        ratios.setdefault(shape, {})[backend, e["workspace"]] = e["b3_ratio"]
        problem = e["case"].removeprefix(e["implementation"])
        if any(name.startswith(_CUDA) and name.endswith(problem) for name in record.failed):
            failed.add(shape)
        # A test that cost the process or the GPU is named by its id.
        dtype = getattr(torch, e["dtype"])
        slug = Problem(INFONCE, *shape[1:], dtype, ranks=e["ranks"]).slug
        if any(f"[{slug}-{_CUDA.replace(' ', '-')}" in name for name in record.failed):
            failed.add(shape)
    found = {}
    for shape, of in ratios.items():
        known = [b for b in (_CUDA, _TRITON) if any(name == b for name, _ in of)]
        if len(known) == 2 or shape in failed:
            found[shape] = shape not in failed and all(
                of.get((_CUDA, w), math.inf) < (1 - _NOISE) * ratio
                for (name, w), ratio in of.items()
                if name == _TRITON
            )
    return found


def store_faster(record: GpuRecord) -> str:
    """Bring ``FASTER`` up to date with what the record compares; what was done, in words."""
    architecture = f"sm_{record.machine['capability'].replace('.', '')}"
    verdicts = compared(record)
    known = read_record(FASTER)
    whole = {e for e in known.faster if e[0] != architecture or e[2:6] not in verdicts}
    whole |= {
        Faster(architecture, "infonce", *shape, "cuda")
        for shape, faster in verdicts.items()
        if faster
    }
    write_whole(FASTER, known._replace(faster=frozenset(whole)).to_text())
    told = [f"InfoNCE on cuda beside triton on {architecture}, for {FASTER}:"]
    for (dtype, rows, columns, width), faster in verdicts.items():
        verdict = "faster" if faster else "not faster"
        told.append(f"  {rows:,} x {columns:,}, D = {width:,}, {dtype}: {verdict}")
    return "\n".join(told if verdicts else [*told, "  never compared"])


def read(path: Path) -> GpuRecord:
    """A record of a GPU; ValueError, which names the file, where it holds none."""
    try:
        record = GpuRecord.from_plain(json.loads(path.read_text()))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no record of the GPU part ({error})") from error
    if not isinstance(record.machine, dict) or not record.machine:
        raise ValueError(f"{path} names no machine: its run measured nothing")
    if "capability" not in record.machine or record.machine.get("tiny"):
        raise ValueError(f"{path} holds tiny problems, whose figures mean nothing, or is of no GPU")
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", nargs="+", type=Path)
    paths = parser.parse_args().records
    try:
        whole = merged([read(path) for path in paths])
        gpu_report.markdown(whole)  # what cannot be shown is not stored
        path, faster = results.store(whole.to_plain()), store_faster(whole)
    except LookupError as error:
        sys.exit(f"benchmarks.gpu.store: a record has no {error}")
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"benchmarks.gpu.store: {error}")
    results.write(results.stored())
    print(f"{results.stored_as(path)}\n{faster}")


if __name__ == "__main__":
    main()
