"""What an objective may learn of the training data before its network is built."""

from collections.abc import Iterable
from typing import Protocol


class Texts(Protocol):
    """What records say, read without decoding a picture."""

    def captions(self) -> Iterable[tuple[str, ...]]:
        """All captions of each record that has any."""
        ...

    def tags(self) -> Iterable[tuple[str, ...]]:
        """The tags of each record that has a list of them."""
        ...

    def labels(self) -> Iterable[tuple[int, ...]]:
        """The numbers of the classes of each record that has a label or a list of them."""
        ...

    def class_names(self) -> list[str] | None:
        """Names of the classes by number, where the data have any."""
        ...
