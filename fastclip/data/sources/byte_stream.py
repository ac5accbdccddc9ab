"""Bytes of a command, a remote url or a file, read forward; what stalls is told."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

from fastclip.data.sources.shard_list import is_local
from fastclip.data.sources.texts import printable

_CHUNK = 1 << 18
_MOST_SECONDS = 1e6
_LAST_BYTES = 4096
_MOST_SIGNS = 200
_CURL = "curl --connect-timeout 30 --retry 30 --retry-delay 2 -f -sS -L -- "
"""As webdataset calls it, but that it says what is wrong."""
_WATCHED = (
    "exec 3<&0; (cat <&3; kill -KILL 0) >/dev/null 2>&1 & "
    'exec 3<&-; exec /bin/sh -c "$1" </dev/null'
)
"""Runs a command beside a watcher, which ends all of its session when this process is gone: then
the input that nobody writes to closes."""


class StalledError(Exception):
    """A stream gave no byte for too long."""


class ByteStream:
    """An opened stream; :meth:`close` ends its command with all that the command started.

    Args:
        url: a ``pipe:`` command, an url of a scheme that webdataset opens, or a path.
        timeout: seconds for which it may give nothing.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.timeout = min(timeout, _MOST_SECONDS)
        self._process: subprocess.Popen | None = None
        self._is_group = self._is_at_end = False
        self._said: IO[bytes] | None = None
        if re.match("(https?|sftp|ftps|scp):", url):
            url = f"pipe:{_CURL}{shlex.quote(url)}"
        if is_local(url):
            self._file: IO[bytes] = Path(url).open("rb", buffering=0)  # noqa: SIM115
        elif url.startswith("pipe:"):
            # On disk, where it can neither fill a pipe nor stop the command.
            self._said = tempfile.TemporaryFile()  # noqa: SIM115
            # A session of its own, so that all of a pipeline can be ended at once.
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _WATCHED, "sh", url.removeprefix("pipe:")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
                start_new_session=True,
            )
            self._is_group = True
            assert self._process.stdout is not None
            self._file = self._process.stdout
        else:
            # Kept, for it closes the file when it is collected.
            self._remote = _open_remote(url)
            self._file = getattr(self._remote, "stream", self._remote)
            self._process = getattr(self._remote, "proc", None)

    def read(self) -> bytes:
        """The next bytes, none at the end; raises :class:`StalledError` and :class:`OSError`."""
        poll = select.poll()
        poll.register(self._file.fileno(), select.POLLIN)
        if not poll.poll(self.timeout * 1000):
            raise StalledError
        data = os.read(self._file.fileno(), _CHUNK)
        self._is_at_end = not data
        return data

    def failure(self) -> str:
        """With what the command failed, or ""; nothing can be said before its last byte."""
        if self._process is None or not self._is_at_end:
            return ""
        try:
            status = self._process.wait(self.timeout)
        except subprocess.TimeoutExpired:
            return ""
        if not status:
            return ""
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"the command {how}{self.last_words()}"

    def last_words(self) -> str:
        """The last line that the command wrote to its standard error, behind a colon; or ""."""
        if self._said is None:
            return ""
        # The command writes on from where this reads to: pread leaves that place.
        fd = self._said.fileno()
        start = max(0, os.fstat(fd).st_size - _LAST_BYTES)
        lines = os.pread(fd, _LAST_BYTES, start).decode(errors="replace").split("\n")
        said = [line for line in (" ".join(one.split()) for one in lines) if line]
        return f": {printable(said[-1][:_MOST_SIGNS])}" if said else ""

    def close(self) -> None:
        """End what is running, and wait for it."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._is_group:
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        self._file.close()
        if self._said is not None:
            self._said.close()


def _open_remote(url: str) -> Any:
    """What webdataset opens an url with: a file, or a command's output with its process."""
    from webdataset.gopen import gopen

    try:
        return gopen(url)
    except OSError:
        raise
    # Clients of stores raise what they like.
    except Exception as error:
        raise OSError(" ".join(f"{type(error).__name__}: {error}".split())) from error
