"""Many short texts and the records they belong to, in a few buffers instead of millions of objects.

Forked workers share the buffers: nothing in them is written when a text is read.
"""

from array import array
from collections.abc import Sequence

import numpy as np


class Texts:
    """A growing list of texts, kept as UTF-8 in one buffer with their ends."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, text: str) -> None:
        """Add a text; what has no place in UTF-8 (lone surrogates) is kept as it is."""
        self._buffer += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._buffer))

    def name(self, number: int) -> str:
        """The text exactly as it was added."""
        return self._raw(number).decode("utf-8", "surrogatepass")

    def text(self, number: int) -> str | bytes:
        """The text, or the undecoded bytes of one that is not UTF-8."""
        raw = self._raw(number)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw

    def _raw(self, number: int) -> bytes:
        return bytes(self._buffer[self._ends[number] : self._ends[number + 1]])


class Owners:
    """Which items belong to which of ``num_records`` records.

    Args:
        owners: the number of its record for each item, int64.
    """

    def __init__(self, owners: array, num_records: int) -> None:
        of = np.array(owners, dtype=np.int64)
        self._items = np.argsort(of, kind="stable")
        self._starts = np.searchsorted(of[self._items], np.arange(num_records + 1))

    def items(self, record: int) -> list[int]:
        """The items of a record, in the order in which they came."""
        return self._items[self._starts[record] : self._starts[record + 1]].tolist()


def printable(name: str) -> str:
    """``name`` as a key: what cannot be printed (line ends, broken UTF-8) is spelled out."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def shown_names(names: Sequence[str]) -> str:
    """The first of a header's or object's names in quotes, for sentences."""
    shown = [ascii(name) if len(name) <= 40 else f"{ascii(name[:40])}..." for name in names[:8]]
    return ", ".join(shown + ["..."] * (len(names) > 8)) or "none"
