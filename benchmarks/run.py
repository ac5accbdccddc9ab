"""``make bench``: run the benchmarks and store what they found under ``benchmarks/results``.

Arguments are passed on to pytest: ``--full`` adds the large shapes. What was stored for this
machine is replaced by what this run found, so a selection (``-k InfoNCE``) leaves the selection.
On a machine with a GPU its part runs too and is stored by the GPU's name.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import report


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found, on_gpu = Path(scratch) / "found.json", Path(scratch) / "gpu.json"
        command = [sys.executable, "-m", "pytest", str(report.HERE)]
        command += [f"--record={found}", f"--gpu-record={on_gpu}"]
        command += [f"--plot={Path(scratch) / 'plot.png'}", *sys.argv[1:]]
        code = subprocess.run(command, cwd=report.HERE.parent).returncode
        if code:
            sys.exit(code)
        records = [json.loads(path.read_text()) for path in (found, on_gpu) if path.exists()]
    paths = [store(record) for record in records]
    report.write(report.stored())
    for path in paths:
        print(stored_as(path))


def store(record: dict) -> Path:
    """Write a record under the name of its machine."""
    report.RESULTS.mkdir(exist_ok=True)
    path = report.RESULTS / f"{file_name(record['machine'])}.json"
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


if __name__ == "__main__":
    main()
