"""How many pictures a core-second the data room gives, beside what people use today.

    python -m benchmarks.data.rate --json FILE [--readme]

CPU time of all processes, the median of five, peers in turns in one run. Photographs are
scikit-learn's. Peers that are not installed are left out and named with the reason; `--readme`
writes the README's table of what FILE then holds.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.data.cpu_time import Measured
from benchmarks.data.crop_rate import crop_rates
from benchmarks.data.end_to_end_rate import cached_rates, end_to_end_rates
from benchmarks.host import machine
from benchmarks.reporting.readme import README, update_readme

MARKERS = ("<!-- data-rate:begin -->", "<!-- data-rate:end -->")
PARTS: dict[str, Callable[[], dict[str, Measured]]] = {
    "crop": crop_rates,
    "end_to_end": end_to_end_rates,
    "cached": cached_rates,
}
_TITLES = {"crop": "JPEG to crop", "end_to_end": "tar to batch", "cached": "second epoch"}
_LIBRARIES = (
    *("torch", "torchvision", "open_clip_torch", "webdataset", "pillow", "simplejpeg"),
    *("spdl", "grain"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="all, if left out")
    parser.add_argument("--readme", action="store_true", help="write the README's table of it")
    args = parser.parse_args()
    report = made(args.part or list(PARTS))
    write(args.json, report)
    print(table(report))
    if args.readme:
        update_readme(README, table(report), MARKERS)


def made(parts: list[str]) -> dict:
    """Rates by part, short side and peer; ``left_out`` says by part which peers are not there, and
    why."""
    report: dict = {}
    left_out: dict[str, dict[str, str]] = {}
    for part in parts:
        measured = PARTS[part]()
        report[part] = {side: found.figures for side, found in measured.items()}
        left_out[part] = {n: why for one in measured.values() for n, why in one.left_out.items()}
    return {**report, "left_out": left_out, "machine": machine(list(_LIBRARIES))}


def table(report: dict) -> str:
    """Rates as Markdown: a row a peer, and how often open_clip's rate in brackets."""
    columns = [(part, side) for part in _TITLES for side in report.get(part, {})]
    lines = [
        f"Pictures a core-second, CPU time of all processes ({report['machine']['cpu']}); "
        "in brackets, times open_clip's:",
        "",
        "| | " + " | ".join(f"{_TITLES[part]}, {side} px" for part, side in columns) + " |",
        "|---" * len(columns) + "|---|",
    ]
    peers = dict.fromkeys(peer for part, side in columns for peer in report[part][side])
    for peer in peers:
        cells = [_cell(report[part][side], peer) for part, side in columns]
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rates: dict[str, float], peer: str) -> str:
    if peer not in rates:
        return ""
    if "open_clip" not in rates:
        return f"{rates[peer]:.0f}"
    return f"{rates[peer]:.0f} ({rates[peer] / rates['open_clip']:.1f})"


def write(path: Path, report: dict) -> None:
    """Write ``report``, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.replace(path)


if __name__ == "__main__":
    main()
