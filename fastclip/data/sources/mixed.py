"""Several sources as one, some drawn more often than others."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

from fastclip.data.bad_records import BadRecord, listed
from fastclip.data.sources.base import AnySource, ForwardSource, Part, Record, Size, Source
from fastclip.data.sources.split_choice import SplitChoice
from fastclip.errors import UserError


def mix(
    name: str,
    sources: Sequence[AnySource],
    weights: Sequence[float] | None = None,
    labelled: bool = True,
) -> AnySource:
    """All parts of ``sources``; keys and ids begin with their source's number, ``0:``.

    ``weights`` say how often each source is drawn; None for once each.

    Raises :class:`UserError` where some are streams and some not, or, where labels are wanted
    (``labelled``), some number other classes than others.
    """
    if labelled:
        _check_classes(sources)
    random = [source for source in sources if isinstance(source, Source)]
    forward = [source for source in sources if isinstance(source, ForwardSource)]
    if random and forward:
        raise UserError(
            f"{random[0].name} is read in any order and {forward[0].name} is a stream, which is "
            "read forward only: name sources of one kind"
        )
    if forward:
        return MixedStreams(name, forward, weights)
    return MixedSource(name, random, weights)


def _check_classes(sources: Sequence[AnySource]) -> None:
    named = [source for source in sources if source.class_names is not None]
    for source in named[1:]:
        if source.class_names != named[0].class_names:
            raise UserError(
                f"{named[0].name} and {source.name} number different classes: "
                f"{_shown(named[0].class_names)}, and {_shown(source.class_names)}"
            )


def _shown(names: Sequence[str] | None) -> str:
    names = names or ()
    return listed(names) if len(names) <= 4 else f"{', '.join(names[:3])}, ... ({len(names)})"


class _Mixture:
    """Where the parts of several sources lie among all."""

    def __init__(
        self, name: str, sources: Sequence[AnySource], weights: Sequence[float] | None
    ) -> None:
        self.name, self.sources = name, sources
        self.places = [
            (s, part) for s, inner in enumerate(sources) for part in range(inner.num_parts)
        ]
        self.weights: Sequence[float] | None = None
        if weights is not None:
            self.weights = [weights[source] for source, _ in self.places]
        held = [inner.holds for inner in sources if inner.holds is not None]
        # A field may be read from other values of one source than of another.
        self.holds = frozenset[str]().union(*held) if len(held) == len(sources) else None
        self.split_choices: Sequence[SplitChoice] = [
            one for inner in sources for one in inner.split_choices
        ]
        first = sources[0].class_names
        same = all(inner.class_names == first for inner in sources)
        self.class_names = first if same else None

    @property
    def num_parts(self) -> int:
        """Parts of all sources together."""
        return len(self.places)

    def part_name(self, part: int) -> str:
        """As its source calls it."""
        source, inner = self.places[part]
        return self.sources[source].part_name(inner)

    def identity(self) -> str:
        """Those of all, with their weights."""
        return "; ".join([*(source.identity() for source in self.sources), str(self.weights)])


class MixedSource(_Mixture, Source):
    """Several sources that can be read in any order."""

    sources: Sequence[Source]

    def size(self, part: int) -> Size:
        """As its source says."""
        source, inner = self.places[part]
        return self.sources[source].size(inner)

    def open(self, part: int) -> Part:
        """Open a part of its source."""
        source, inner = self.places[part]
        return _MixedPart(self.sources[source].open(inner), source)

    def stamp(self, part: int) -> str:
        """As its source says."""
        source, inner = self.places[part]
        return self.sources[source].stamp(inner)

    def picture_number(self, part: int, number: int) -> int:
        """As its source says."""
        source, inner = self.places[part]
        return self.sources[source].picture_number(inner, number)

    def without_pictures(self) -> Source:
        """The same mixture of sources without pictures."""
        others = copy.copy(self)
        others.sources = [source.without_pictures() for source in self.sources]
        return others


class MixedStreams(_Mixture, ForwardSource):
    """Several sources that are read forward only."""

    sources: Sequence[ForwardSource]

    def expected(self, part: int) -> int | None:
        """As its source says."""
        source, inner = self.places[part]
        return self.sources[source].expected(inner)

    def stream(self, part: int) -> Iterator[Record | BadRecord]:
        """The records of a stream of its source."""
        source, inner = self.places[part]
        records = self.sources[source].stream(inner)
        try:
            for record in records:
                yield _of(source, record)
        finally:
            close = getattr(records, "close", None)
            if close is not None:
                close()


class _MixedPart(Part):
    def __init__(self, part: Part, source: int) -> None:
        self.part, self.source = part, source

    @property
    def problems(self) -> Sequence[BadRecord]:  # type: ignore[override]
        """Those of the part, which may be found while it is read."""
        return [_problem_of(self.source, problem) for problem in self.part.problems]

    def __len__(self) -> int:
        return len(self.part)

    def read(self, number: int) -> Record | BadRecord:
        """The record of that number."""
        return _of(self.source, self.part.read(number))

    def nbytes(self) -> int:
        """That of the part."""
        return self.part.nbytes()

    def close(self) -> None:
        """Close the part."""
        self.part.close()


def _of(source: int, record: Record | BadRecord) -> Record | BadRecord:
    """The record with a key, and an id where it has one, that no other source can have."""
    if isinstance(record, BadRecord):
        return _problem_of(source, record)
    values = record.values
    if values.get("id") is not None:
        values = {**values, "id": f"{source}:{values['id']}"}
    return Record(f"{source}:{record.key}", values)


def _problem_of(source: int, problem: BadRecord) -> BadRecord:
    return replace(problem, key=f"{source}:{problem.key}")
