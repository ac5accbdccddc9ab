"""What the columns of a table mean, by their names: the same for every table of pictures.

========  =====================================================================
value     columns, upper or lower case
========  =====================================================================
caption   the first there is of ``caption``, ``text``, ``txt`` and ``title``
captions  ``captions``, or one of the above that holds lists, or all of
          ``caption-0``, ``caption_1``, ``text2``, ..., with a ``caption`` or
          ``text`` beside them
text      the first of ``text`` and ``txt``
tags      ``tags``: a list, or a text that separates words by commas
label     ``label`` or ``cls``
labels    ``labels``, or one of the above that holds lists
json      ``json``
========  =====================================================================
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastclip.data.sources.extensions import PICTURE_EXTENSIONS

PICTURE_NAMES = ("image", "img", "picture", *PICTURE_EXTENSIONS)
"""Of parquet files; a table beside pictures names them by ``file_name``."""
_TEXTS, _LABELS = ("caption", "text", "txt", "title"), ("label", "cls")
_ONE_EACH = {"caption": _TEXTS, "text": ("text", "txt"), "label": _LABELS}
_LISTS = {"captions": _TEXTS, "labels": _LABELS}
_OWN_NAME = ("captions", "tags", "labels", "json")
_NUMBERED = re.compile(r"(?:caption|text|sentence)[-_ ]?(\d+)", re.IGNORECASE)


def accepted(values: Iterable[str]) -> list[str]:
    """The names of columns that any of ``values`` is read from, as :data:`PICTURE_NAMES` are."""
    found: list[str] = []
    for value in values:
        found += [value] if value in _OWN_NAME else PICTURE_NAMES if value == "picture" else ()
        found += [*_ONE_EACH.get(value, ()), *_LISTS.get(value, ())]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Columns:
    """Names of columns by the value that they hold.

    Attributes:
        one: a column for each value that has one.
        captions: columns of one caption each, in the order of their numbers.
    """

    one: Mapping[str, str]
    captions: Sequence[str]

    @property
    def holds(self) -> frozenset[str]:
        """Names of the values that rows may have."""
        return frozenset([*self.one, *(["captions"] if self.captions else [])])

    def needed(self, wanted: Iterable[str]) -> list[str]:
        """The columns from which the ``wanted`` values are read, each once."""
        wanted = set(wanted)
        names = [column for value, column in self.one.items() if value in wanted]
        return list(dict.fromkeys([*names, *(self.captions if "captions" in wanted else ())]))


def find_columns(names: Sequence[str], lists: Collection[str] = ()) -> Columns:
    """The meanings of columns, of which ``lists`` hold several cells each."""
    lower = {name.lower(): name for name in reversed(names)}
    one = {value: lower[value] for value in _OWN_NAME if value in lower}
    for table, of_lists in ((_ONE_EACH, False), (_LISTS, True)):
        for value, accepted in table.items():
            found = [lower[n] for n in accepted if n in lower and (lower[n] in lists) == of_lists]
            if found:
                one.setdefault(value, found[0])
    numbered = [(int(m[1]), name) for name in names if (m := _NUMBERED.fullmatch(name))]
    first = one.get("caption", "")
    if numbered and _NUMBERED.fullmatch(f"{first}0"):
        numbered.append((-1, first))
    return Columns(one, [] if "captions" in one else [name for _, name in sorted(numbered)])


def row_values(row: Mapping[str, Any], columns: Columns, wanted: Iterable[str]) -> dict[str, Any]:
    """The ``wanted`` values of a row, not yet judged; a cell that is None is absent."""
    wanted = set(wanted)
    cells = {value: row.get(column) for value, column in columns.one.items() if value in wanted}
    values = {value: cell for value, cell in cells.items() if cell is not None}
    if isinstance(values.get("tags"), str | bytes):
        values["tags"] = _words(values["tags"])
    if isinstance(values.get("labels"), str):
        values["labels"] = _words(values["labels"])
    if "captions" in wanted and columns.captions:
        captions = [row[name] for name in columns.captions if row.get(name) is not None]
        values |= {"captions": captions} if captions else {}
    return values


def _words(text: str | bytes) -> list[str | bytes]:
    """Words that commas separate; undecoded where the text is."""
    parts = text.split(b",") if isinstance(text, bytes) else text.split(",")
    return [part.strip() for part in parts if part.strip()]
