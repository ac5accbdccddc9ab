"""What ``gpu.sh`` runs: accuracy tests, benchmarks and the training step, within a time limit.

The CUDA library is built first, so that no test's own time has the build in it. Every part gets
what the parts before it left of the time, less what is set aside for the training step, and is
stopped when that is used up. OUT/gpu.json holds what was found by then; parts that this call does
not run keep what an earlier one left in it.

Exit code 1 says that an accuracy test or one of our own implementations failed.
"""

import argparse
import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu import measure
from benchmarks.gpu.bounded_run import run
from benchmarks.gpu.cases import GPU_LOST
from benchmarks.losses.peers import distributions
from benchmarks.paths import ROOT
from benchmarks.reporting import gpu_report
from benchmarks.reporting.record import GpuRecord
from fastclip.ops import cuda_library

PARTS = ("accuracy", "benchmarks", "train")
CUDA_BACKEND = "fastclip cuda"
SECONDS_VARIABLE = "FASTCLIP_GPU_SECONDS"
_SECONDS = 540.0
# The most that the build and accuracy may take, what the training step is left, what a benchmark
# group that has started may still need, and what it takes to stop a part and write everything down.
_BUILD, _ACCURACY, _TRAIN, _GROUP, _FINISH = 150.0, 180.0, 130.0, 45.0, 20.0
_TRAIN_NEEDS = ("deepspeed", "transformers")
# Tests of accuracy compile many kernels: in as many processes as cores allow, and memory.
_ACCURACY_PROCESSES = 8
# A kernel that ends its process costs that test alone, so often.
PROCESSES = 5
# Tests passed, failed, were interrupted, or there were none.
_PYTEST_CODES = (0, 1, 2, 5)


def seconds_for(part: str, left: float, then_train: bool) -> float:
    """How long ``part`` may run when ``left`` seconds remain for it and the parts after it."""
    if part == "train":
        return left
    left = max(0.0, left - _TRAIN if then_train else left)
    return min(left, {"build": _BUILD, "accuracy": _ACCURACY}.get(part, left))


def build(out: Path, seconds: float) -> str | None:
    """Have the CUDA library built where it can be; why that failed, or None.

    After a failure nothing else tries again.
    """
    if cuda_library.why_unavailable() is not None:
        return None
    log = out / "build.log"
    code = "from fastclip.ops import cuda_library; cuda_library.load()"
    ended = run([sys.executable, "-c", code], seconds, log, ROOT)
    if ended == 0:
        return None
    os.environ[cuda_library.SWITCH] = "0"
    how = f"was stopped after {seconds:.0f} s" if ended is None else f"ended with exit code {ended}"
    return f"its build {how}, see {log.name}"


def pytest_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]


def accuracy(out: Path, seconds: float) -> dict:
    """The outcomes of tests/gpu; OUT/accuracy.json is for the record of this architecture."""
    if not (ROOT / "tests" / "gpu").is_dir():
        return {"outcomes": {}, "left_out": "there is no tests/gpu"}
    xml, log = out / "accuracy.xml", out / "accuracy.log"
    xml.unlink(missing_ok=True)
    command = pytest_command("tests/gpu", f"--accuracy-record={out / 'accuracy.json'}")
    processes = min(_ACCURACY_PROCESSES, os.cpu_count() or 1)
    if processes > 1 and missing(("xdist",)) is None:
        command += ["-n", str(processes)]
    code = run([*command, f"--junit-xml={xml}"], seconds, log, ROOT)
    found: dict = {"outcomes": outcomes(xml)}
    if code is None:
        found["left_out"] = f"stopped after {seconds:.0f} s"
    elif not found["outcomes"]:
        found["left_out"] = f"exit code {code}, see {log.name}"
    return found


def outcomes(xml: Path) -> dict[str, int]:
    """How many tests of a JUnit file passed, failed and were skipped."""
    import xml.etree.ElementTree as ElementTree

    if not xml.exists():
        return {}
    suite = next(ElementTree.parse(xml).iter("testsuite")).attrib
    failed = int(suite["failures"]) + int(suite["errors"])
    skipped = int(suite["skipped"])
    passed = int(suite["tests"]) - failed - skipped
    return {"passed": passed, "failed": failed, "skipped": skipped}


def benchmarks(out: Path, seconds: float, extra: list[str]) -> str | None:
    """Fill OUT/gpu.json; why there is less than all of it, or None."""
    if missing(("pytest_benchmark",)):
        return "pytest-benchmark is not installed: carry its wheel in .whl/"
    files = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("benchmarks/gpu/test_*_gpu.py"))
    record, end, again = out / "gpu.json", time.monotonic() + seconds, 0
    if not any(argument.startswith("--continue") for argument in extra):
        record.unlink(missing_ok=True)
    while (left := end - time.monotonic()) > 0:
        # The checkout's root comes last on the path: fastclip there is without its kernels.
        command = pytest_command("--import-mode=append", *files, f"--gpu-record={record}", *extra)
        command += [f"--budget={max(1.0, left - _GROUP):.0f}"]
        if again:
            command.append(f"--continue={record}")
        code = run(command, left, out / f"benchmarks{again or ''}.log", ROOT)
        if code is None:
            break
        if code in _PYTEST_CODES or not record.exists() or again == PROCESSES:
            return None if code in _PYTEST_CODES else f"ended with exit code {code}"
        if code != GPU_LOST:
            name_the_last(record, f"ended the process (exit code {code})")
        again += 1
    return f"stopped after {seconds:.0f} s"


def name_the_last(path: Path, reason: str) -> None:
    """Note in the record at ``path`` what became of the test that it was written in."""
    record = GpuRecord.from_plain(json.loads(path.read_text()))
    if record.tests:
        record.failed[record.tests[-1]] = reason
        gpu_report.write_record(record, path)


def missing(modules: tuple[str, ...]) -> str | None:
    """Which of the modules is not installed, or None."""
    return next((name for name in modules if importlib.util.find_spec(name) is None), None)


def train(out: Path, seconds: float, extra: list[str]) -> dict:
    """The training step's outcome."""
    if (module := missing(_TRAIN_NEEDS)) is not None:
        return {"runs": [], "left_out": {"training step": f"{module} is not installed"}}
    result = out / "train_step.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.train_step", str(result), *extra]
    code = run(command, seconds, out / "train_step.log", ROOT)
    found = json.loads(result.read_text()) if result.exists() else {"runs": [], "left_out": {}}
    if code is None:
        found["left_out"]["the rest"] = f"stopped after {seconds:.0f} s"
    elif code:
        found["left_out"]["the rest"] = f"exit code {code}, see train_step.log"
    return found


def finish(
    out: Path, found: dict[str, dict], stopped: str | None, unbuilt: str | None
) -> GpuRecord:
    """Put every part's outcome into OUT/gpu.json."""
    path = out / "gpu.json"
    record = GpuRecord()
    if path.exists():
        record = GpuRecord.from_plain(json.loads(path.read_text()))
    if not record.machine:
        record.machine = measure.machine(distributions())
    record.accuracy = found.get("accuracy", record.accuracy)
    record.train_step = found.get("train", record.train_step)
    if stopped:
        record.not_run["benchmarks"] = stopped
    record.failed.pop(CUDA_BACKEND, None)
    if unbuilt:
        record.failed[CUDA_BACKEND] = unbuilt
    gpu_report.write_record(record, path)
    return record


def failures(record: GpuRecord, parts: list[str]) -> list[str]:
    """What of ours failed in these parts."""
    found = []
    if "accuracy" in parts:
        left_out = record.accuracy.get("left_out", "")
        if record.accuracy["outcomes"].get("failed") or "exit code" in left_out:
            found.append("accuracy tests")
    found += [
        name
        for name in record.failed
        if name == CUDA_BACKEND or ("benchmarks" in parts and "fastclip" in name)
    ]
    if "train" in parts and {"fastclip", "comparison"} & set(record.train_step["left_out"]):
        found.append("training step")
    return found


def _stop(number: int, frame: object) -> None:
    """What runs is stopped on the way out."""
    sys.exit(128 + number)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0],
        epilog="what follows -- goes to the benchmarks' pytest: -- -k linear",
    )
    parser.add_argument("--started", type=float, default=time.time(), help="seconds since 1970")
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; or all")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args, extra = parser.parse_args(arguments[:split]), arguments[split + 1 :]
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"part {min(unknown)!r}; accepted: {', '.join(PARTS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    parts = [part for part in PARTS if part in (args.parts or PARTS)]
    end = args.started + float(os.environ.get(SECONDS_VARIABLE, _SECONDS)) - _FINISH
    signal.signal(signal.SIGTERM, _stop)
    # A shell that starts this in the background has it, and what it starts, ignore interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    then_train = "train" in parts and missing(_TRAIN_NEEDS) is None
    found, stopped, unbuilt = {}, None, None
    for part in ("build", *parts):
        seconds = seconds_for(part, end - time.time(), then_train)
        if part == "build":
            unbuilt = build(args.out, seconds)
        elif part == "accuracy":
            found[part] = accuracy(args.out, seconds)
        elif part == "benchmarks":
            stopped = benchmarks(args.out, seconds, extra)
        else:
            found[part] = train(args.out, seconds, [])
    record = finish(args.out, found, stopped, unbuilt)
    print(f"\n{gpu_report.markdown(record)}\n\nresults: {args.out / 'gpu.json'}")
    if failed := failures(record, parts):
        print(f"failed: {'; '.join(failed)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
