"""How many pictures a core-second the data room gives, beside what people use today.

    python benchmarks/data_rate.py --json FILE

CPU time of all processes, the median of five, peers in turns in one run. Photographs are
scikit-learn's.
"""

import argparse
import json
import os
from pathlib import Path

from crop_rate import crop_rates
from measure import machine

PARTS = {"crop": crop_rates}
_LIBRARIES = ["torch", "torchvision", "open_clip_torch", "pillow", "simplejpeg"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="all, if left out")
    args = parser.parse_args()
    report = {part: PARTS[part]() for part in args.part or PARTS}
    write(args.json, {**report, "machine": machine(_LIBRARIES)})
    for part, rates in report.items():
        print(f"{part}, pictures a core-second:\n{table(rates)}\n")


def table(rates: dict[str, dict[str, float]]) -> str:
    """Rates as Markdown: a row a peer, a column a short side, and how often open_clip's rate."""
    sides = list(rates)
    lines = [
        "| | " + " | ".join(f"{side} px" for side in sides) + " |",
        "|---" * len(sides) + "|---|",
    ]
    for peer in rates[sides[0]]:
        cells = [
            f"{rates[side][peer]:.0f} ({rates[side][peer] / rates[side]['open_clip']:.2f} x)"
            for side in sides
        ]
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, report: dict) -> None:
    """Write ``report``, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.replace(path)


if __name__ == "__main__":
    main()
