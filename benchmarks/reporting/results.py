"""Results of every machine, stored by its name, with their tables and plots.

``python -m benchmarks.reporting.results [results.json ...]`` makes tables and plots again from
stored results (by default all of ``make bench`` and of GPUs), without measuring anything.
"""

import argparse
import json
import re
import sys
from pathlib import Path

from benchmarks.paths import RESULTS
from benchmarks.reporting import cpu_report, gpu_report
from benchmarks.reporting.readme import README, update_readme
from benchmarks.reporting.record import GpuRecord, Record

PATTERN, GPU_PATTERN = "bench-*.json", "gpu-*.json"
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def store(record: dict) -> Path:
    """Write a record under the name of its machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{file_name(record['machine'])}.json"
    path.write_text(json.dumps(rounded(record), indent=1) + "\n")
    return path


def stored_as(path: Path) -> str:
    """Where a record was stored, and what was made of it."""
    beside = [name for name in (".md", ".png") if path.with_suffix(name).exists()]
    return f"results: {path} (and {', '.join(beside)} beside it)"


def file_name(machine: dict) -> str:
    name = machine.get("gpu") or machine["cpu"]
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"gpu-{name}" if "gpu" in machine else f"bench-{name}-{machine['threads']}-threads"


def rounded(value):
    """Five digits are more than any of these measurements has."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def stored() -> list[Path]:
    """The results of all machines, those without a GPU first."""
    return [path for pattern in (PATTERN, GPU_PATTERN) for path in sorted(RESULTS.glob(pattern))]


def write(results: list[Path], readme: Path = README) -> None:
    """Write the table and plot of each stored run beside it, and all of them into the README."""
    sections = [section(path, readme.parent) for path in results]
    update_readme(readme, "\n\n".join(sections), (BEGIN, END))


def section(path: Path, folder: Path) -> str:
    """The tables of one stored run, written beside it, and the link to its plot from ``folder``."""
    plain, picture = json.loads(path.read_text()), path.with_suffix(".png")
    if path.match(GPU_PATTERN):
        found = GpuRecord.from_plain(plain)
        text, plotted = gpu_report.markdown(found), gpu_report.plot(found, picture)
        caption = "Time and memory against N, ratio to the bare products against D"
    else:
        record = Record.from_plain(plain)
        text, plotted = cpu_report.markdown(record), cpu_report.plot(record, picture)
        caption = "Time and memory against N"
    path.with_suffix(".md").write_text(text + "\n")
    link = picture.resolve()
    if plotted and link.is_relative_to(folder):
        text += f"\n\n![{caption}]({link.relative_to(folder)})"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    patterns = f"results/{PATTERN} and results/{GPU_PATTERN}"
    parser.add_argument("results", nargs="*", type=Path, help=f"default: {patterns}")
    results = parser.parse_args().results or stored()
    if not results:
        sys.exit(f"{RESULTS} holds no results: run `make bench` first")
    write(results)


if __name__ == "__main__":
    main()
