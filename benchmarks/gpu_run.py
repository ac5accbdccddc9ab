"""What ``gpu.sh`` runs: accuracy tests, benchmarks and the training step, within a time limit.

Every part gets what the parts before it left of the time, less what is set aside for the training
step, and is stopped when that is used up. OUT/gpu.json holds what was found by then.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_report
from gpu_cases import GPU_LOST
from record import GpuRecord

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PARTS = ("accuracy", "benchmarks", "train")
SECONDS_VARIABLE = "FASTCLIP_GPU_SECONDS"
_SECONDS = 540.0
# The most that accuracy may take, what the training step is left, and what a benchmark group that
# has started may still need.
_ACCURACY, _TRAIN, _GROUP = 180.0, 130.0, 45.0
_TRAIN_NEEDS = ("deepspeed", "transformers")
# A kernel that ends its process costs that test alone, so often.
_PROCESSES = 5
# Tests passed, failed, were interrupted, or there were none.
_PYTEST_CODES = (0, 1, 2, 5)


def seconds_for(part: str, left: float, then_train: bool) -> float:
    """How long ``part`` may run when ``left`` seconds remain for it and the parts after it."""
    if part == "train":
        return left
    left = max(0.0, left - _TRAIN if then_train else left)
    return min(left, _ACCURACY) if part == "accuracy" else left


def run(command: list[str], seconds: float, log: Path, **environment: str) -> int | None:
    """Exit code of ``command``, None where it was stopped; its output goes to the log and here."""
    print(f"\n{' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(
        [*command],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    tee = subprocess.Popen(["tee", str(log)], stdin=process.stdout)
    assert process.stdout is not None
    process.stdout.close()
    try:
        return process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        print(f"stopped after {seconds:.0f} s", flush=True)
        # pytest still writes its summary on an interrupt; compilers that it started may not end.
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return None
    finally:
        process.wait()
        tee.wait()


def pytest_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]


def accuracy(out: Path, seconds: float) -> dict:
    """The outcomes of tests/gpu; OUT/accuracy.json is for the record of this architecture."""
    if not (ROOT / "tests" / "gpu").is_dir():
        return {"outcomes": {}, "left_out": "there is no tests/gpu"}
    xml, log = out / "accuracy.xml", out / "accuracy.log"
    command = pytest_command("tests/gpu", f"--accuracy-record={out / 'accuracy.json'}")
    code = run([*command, f"--junit-xml={xml}"], seconds, log)
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
    files = sorted(str(path.relative_to(ROOT)) for path in HERE.glob("test_*_gpu.py"))
    record, end, again = out / "gpu.json", time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        command = pytest_command(*files, f"--gpu-record={record}", *extra)
        command += [f"--budget={max(1.0, left - _GROUP):.0f}"]
        if again:
            command.append(f"--continue={record}")
        code = run(command, left, out / f"benchmarks{again or ''}.log")
        if code is None:
            break
        if code in _PYTEST_CODES or not record.exists() or again == _PROCESSES:
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
    command = [sys.executable, str(HERE / "train_step_gpu.py"), str(result), *extra]
    code = run(command, seconds, out / "train_step.log")
    found = json.loads(result.read_text()) if result.exists() else {"runs": [], "left_out": {}}
    if code is None:
        found["left_out"]["the rest"] = f"stopped after {seconds:.0f} s"
    elif code:
        found["left_out"]["the rest"] = f"exit code {code}, see train_step.log"
    return found


def finish(out: Path, found: dict[str, dict], stopped: str | None) -> GpuRecord:
    """Put every part's outcome into OUT/gpu.json."""
    path = out / "gpu.json"
    record = GpuRecord()
    if path.exists():
        record = GpuRecord.from_plain(json.loads(path.read_text()))
    if not record.machine:
        import gpu_measure
        from peers import distributions

        record.machine = gpu_measure.machine(distributions())
    record.accuracy = found.get("accuracy", record.accuracy)
    record.train_step = found.get("train", record.train_step)
    if stopped:
        record.not_run["benchmarks"] = stopped
    gpu_report.write_record(record, path)
    return record


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
    end = args.started + float(os.environ.get(SECONDS_VARIABLE, _SECONDS))
    then_train = "train" in parts and missing(_TRAIN_NEEDS) is None
    found, stopped = {}, None
    for part in parts:
        seconds = seconds_for(part, end - time.time(), then_train)
        if part == "accuracy":
            found[part] = accuracy(args.out, seconds)
        elif part == "benchmarks":
            stopped = benchmarks(args.out, seconds, extra)
        else:
            found[part] = train(args.out, seconds, [])
    record = finish(args.out, found, stopped)
    print(f"\n{gpu_report.markdown(record)}\n\nresults: {args.out / 'gpu.json'}")


if __name__ == "__main__":
    main(sys.argv[1:])
