"""Labels that are names of classes become numbers."""

from collections.abc import Iterable
from typing import Any


def name_classes(labels: Iterable[Any]) -> list[str] | None:
    """Sorted names of classes, where one of ``labels`` is a name; None where all are integers.

    An empty label is no name.
    """
    names = {str(label) for label in labels if isinstance(label, int | str) and label != ""}
    return None if all(map(_spells_integer, names)) else sorted(names)


def _spells_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
