"""A command that ends in time, with all that it started, whatever happens to its caller."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

# How long a command that was interrupted, and what copies its output, may still take.
GRACE = 10.0


def run(
    command: list[str], seconds: float, log: Path, folder: Path | None = None, **environment: str
) -> int | None:
    """Exit code of ``command``, None where it was stopped; its output goes to the log and here.

    An exception in the caller, as a signal raises one, stops the command too.
    """
    print(f"\n{' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    tee = None
    try:
        # An interrupt from the terminal reaches tee as well; it is to copy the last lines.
        tee = subprocess.Popen(["tee", "-i", str(log)], stdin=process.stdout)
        assert process.stdout is not None
        process.stdout.close()
        return process.wait(timeout=max(1.0, seconds))
    except subprocess.TimeoutExpired:
        print(f"stopped after {seconds:.0f} s", flush=True)
        return None
    finally:
        try:
            _stop(process)
        finally:
            if tee is not None:
                _wait(tee)


def _stop(process: subprocess.Popen) -> None:
    """End what is left of the process and its group."""
    try:
        if process.poll() is None:
            # pytest still writes its summary on an interrupt.
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=GRACE)
    except (subprocess.TimeoutExpired, ProcessLookupError):
        pass
    finally:
        # Compilers that it started may not have ended with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(tee: subprocess.Popen) -> None:
    """Until all output is copied, or for so long that somebody else must hold the pipe."""
    try:
        tee.wait(timeout=GRACE)
    except subprocess.TimeoutExpired:
        tee.kill()
        tee.wait()
