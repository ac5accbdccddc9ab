"""Tags that are the classes of a labelled data set."""

from __future__ import annotations

from collections.abc import Sequence

from fastclip.data.fields import LABELS
from fastclip.data.tags.source import TagSource

BACKGROUND = ("background", "__background__")
"""Names of a class that says that nothing is there."""


class ClassTags(TagSource):
    """A tag is a class's number; a class that is named as background is never one.

    Numbers that no class has, as another split may have them, are left out.
    """

    field = LABELS

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._known = {n for n, name in enumerate(names) if name.lower() not in BACKGROUND}

    def numbers(self, records: Sequence[Sequence[int]]) -> list[list[int]]:
        return [sorted(self._known.intersection(labels)) for labels in records]
