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
    for record in records:
        path = store(record)
        print(f"results: {path} (and .md, .png beside it)")
    report.write(report.stored())


def store(record: dict) -> Path:
    """Write a record under the name of its machine."""
    report.RESULTS.mkdir(exist_ok=True)
    path = report.RESULTS / f"{file_name(record['machine'])}.json"
    path.write_text(json.dumps(rounded(record), indent=1) + "\n")
    return path


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
