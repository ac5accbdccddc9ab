"""What can be asked of a record. An objective names the fields that it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fastclip.data.draws import Draw, Draws

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class Field(ABC):
    """One thing that a record may hold; one file each, which says all about it.

    A value goes three steps: ``read`` parses and judges the raw values (cheap: the whole set goes
    through it), ``build`` makes this time's value of it with the record's draws (decodes, crops,
    picks a caption), ``collate`` makes columns of a micro-batch's built values. Both ``read`` and
    ``build`` raise :class:`fastclip.data.bad_records.BadValueError` for a value that cannot be
    used.

    Attributes:
        name: as in sentences on records that lack it.
        column: the key under which a micro-batch holds it.
        values: raw values (``fastclip.data.sources.base.Value``) that it can be read from; any one
            is enough.
        also: raw values that it looks at where they are there.
        found_in: where sources have it, for the sentence that refuses a source without it.
    """

    name: ClassVar[str]
    column: ClassVar[str]
    values: ClassVar[tuple[str, ...]]
    also: ClassVar[tuple[str, ...]] = ()
    found_in: ClassVar[str]

    @abstractmethod
    def read(self, values: Mapping[str, Any], reading: Reading) -> Any:
        """What the raw ``values`` of a record hold of this field."""

    def keep(self, value: Any, reading: Reading) -> Any:
        """``value`` as a set in memory keeps it, so that ``build`` gives the same of it."""
        return value

    def build(self, value: Any, draw: Draw | None, reading: Reading) -> Any:
        """This time's value; without a draw (evaluation, a set as it lies) nothing is random."""
        return value

    @abstractmethod
    def collate(
        self, built: Sequence[Any], draws: Draws | None, reading: Reading
    ) -> dict[str, Any]:
        """Columns of a micro-batch."""
