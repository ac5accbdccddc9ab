"""Which of a data set's splits is read where a user names none."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastclip.data.bad_records import listed
from fastclip.data.sources.spec import DataSpec, flag_of, is_validation
from fastclip.errors import UserError

ALL = "all"
TRAINING = ("train", "training", "trainval")
VALIDATION = ("val", "valid", "validation", "dev", "eval")
SPLITS = frozenset((*TRAINING, *VALIDATION, "test", "testing"))
"""Names of folders and files that are splits, as Hugging Face has them."""


@dataclass(frozen=True)
class SplitChoice:
    """The splits of a data set and which of them is read.

    Attributes:
        path: of the data set.
        flag: that names a split of it.
        is_named: whether the user named one.
        taken: the split that is read, or "all".
        counts: records of each split.
        total: records of all; splits may overlap and need not hold every record.
        what: the records are called.
    """

    path: str
    flag: str
    is_named: bool
    taken: str
    counts: Mapping[str, int]
    total: int
    what: str

    @property
    def is_all(self) -> bool:
        """Whether every record is read, of any split or none."""
        return self.taken == ALL

    def sentence(self) -> str:
        """Which splits there are, which is read and how much that leaves out."""
        splits = listed([f"{name} ({count})" for name, count in self.counts.items()])
        has = f"{self.path} has the split{'s' * (len(self.counts) > 1)} {splits}"
        if self.is_all:
            return f"{has}: all {self.total} {self.what} are read"
        left = max(0, self.total - self.counts.get(self.taken, 0))
        out = f"{self.taken} is read, {left} of {self.total} {self.what} are left out"
        return f"{has}: {out}; {self.flag} names another, or {ALL}"

    def notes(self) -> list[str]:
        """What to say before a run: the sentence, where the choice was not the user's."""
        return [] if self.is_named or not self.counts else [self.sentence()]


def choose_split(
    spec: DataSpec, counts: Mapping[str, int], total: int, what: str = "pictures"
) -> SplitChoice:
    """The split of ``spec``; where it names none, the one to train on or the one to validate on.

    A set of one split, or of none, is read as it is. Raises :class:`UserError` where none of
    several is of the purpose; whether a split that was named is there, the caller judges.
    """
    flag = flag_of("split", spec.role)
    if spec.split or not counts:
        return SplitChoice(
            spec.path, flag, bool(spec.split), spec.split or ALL, counts, total, what
        )
    names = VALIDATION if is_validation(spec.role) else TRAINING
    found = next((name for name in names if name in counts), None)
    if found is None and len(counts) > 1:
        raise UserError(
            f"{spec.path} has the splits {listed(list(counts))}, of which none is called "
            f"{names[0]}: name one of them by {flag}, or {ALL}"
        )
    return SplitChoice(spec.path, flag, False, found or next(iter(counts)), counts, total, what)
