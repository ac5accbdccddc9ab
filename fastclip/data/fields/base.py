"""What can be asked of a record. An objective names the fields that it needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fastclip.data.bad_records import BadValueError
from fastclip.data.draws import Draw, Draws

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


class NotHeldError(BadValueError):
    """The raw values turn out to hold no such field, such as a json without tags."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


class Field(ABC):
    """One thing that a record may hold; one file each, which says all about it.

    A value goes three steps: ``read`` parses and judges the raw values (cheap: the whole set goes
    through it), ``build`` makes this time's value of it with the record's draws (decodes, crops,
    picks a caption), ``collate`` makes columns of a micro-batch's built values. Both ``read`` and
    ``build`` raise :class:`fastclip.data.bad_records.BadValueError` for a value that cannot be
    used; ``read`` raises :class:`NotHeldError` where there is none after all.

    Fields have no state: two of a class are equal, so that one that came from another process
    finds its values.

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

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return self.name

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
