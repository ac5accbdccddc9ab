"""``make bench``: run the benchmarks and store what they found under ``benchmarks/results``.

Arguments are passed on to pytest: ``--full`` adds the large shapes. What was stored for this
machine is replaced by what this run found, so a selection (``-k InfoNCE``) leaves the selection.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import report


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        found = Path(scratch) / "found.json"
        command = [sys.executable, "-m", "pytest", str(report.HERE), f"--record={found}"]
        command += [f"--plot={Path(scratch) / 'plot.png'}", *sys.argv[1:]]
        code = subprocess.run(command, cwd=report.HERE.parent).returncode
        if code:
            sys.exit(code)
        record = json.loads(found.read_text())
    report.RESULTS.mkdir(exist_ok=True)
    path = report.RESULTS / f"{file_name(record['machine'])}.json"
    path.write_text(json.dumps(_rounded(record), indent=1) + "\n")
    report.write(sorted(report.RESULTS.glob(report.PATTERN)))
    print(f"results: {path} (and .md, .png beside it)")


def file_name(machine: dict) -> str:
    cpu = re.sub(r"[^a-z0-9]+", "-", machine["cpu"].lower()).strip("-")
    return f"bench-{cpu}-{machine['threads']}-threads"


def _rounded(value):
    """Five digits are more than any of these measurements has."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
