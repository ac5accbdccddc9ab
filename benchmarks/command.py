"""What commands that measure share: seeds among their flags, and bad input told in a sentence."""

import argparse
import contextlib
import sys
from collections.abc import Iterator

from fastclip.errors import UserError


def seed_number(text: str) -> int:
    """A seed of a command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of 0 or more")
    return int(text)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Ends the process with code 2 after the sentence of a :class:`UserError`."""
    try:
        yield
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
