"""Progress of long work: a bar on a terminal, a plain line now and then in a file."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_NOT_WORTH_TELLING = 1.0


class Progress:
    """Counts up to ``total`` (None if unknown) on standard error; silent when not ``shown``."""

    def __init__(self, what: str, total: int | None, unit: str, shown: bool = True) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        terminal = sys.stderr.isatty()
        self._lines = shown and not terminal
        self._bar = tqdm(
            total=total,
            desc=what,
            unit=unit,
            disable=not (shown and terminal),
            delay=_SECONDS_NOT_WORTH_TELLING,
        )
        self._start = self._last = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Count ``count`` more."""
        self.done += count
        self._bar.update(count)
        if self._lines and time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._print()

    def _print(self) -> None:
        self._last = time.monotonic()
        of = f" of {self.total}" if self.total is not None else ""
        print(f"{self.what}: {self.done}{of} {self.unit}s", file=sys.stderr, flush=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._bar.close()
        took = time.monotonic() - self._start
        if self._lines and error is None and took > _SECONDS_NOT_WORTH_TELLING:
            self._print()
