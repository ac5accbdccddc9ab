"""``make bench``: run the benchmarks and store what they found under ``benchmarks/results``.

Arguments are passed on to pytest: ``--full`` adds the large shapes. What was stored for this
machine is replaced by what this run found, so a selection (``-k InfoNCE``) leaves the selection.
On a machine with a GPU its part runs too and is stored by the GPU's name.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.paths import ROOT
from benchmarks.reporting.results import store, stored, stored_as, write


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found, on_gpu = Path(scratch) / "found.json", Path(scratch) / "gpu.json"
        command = [sys.executable, "-m", "pytest", str(ROOT / "benchmarks")]
        command += [f"--record={found}", f"--gpu-record={on_gpu}"]
        command += [f"--plot={Path(scratch) / 'plot.png'}", *sys.argv[1:]]
        code = subprocess.run(command, cwd=ROOT).returncode
        if code:
            sys.exit(code)
        records = [json.loads(path.read_text()) for path in (found, on_gpu) if path.exists()]
    paths = [store(record) for record in records]
    write(stored())
    for path in paths:
        print(stored_as(path))


if __name__ == "__main__":
    main()
