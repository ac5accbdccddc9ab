"""What a member's name says: the key of its record and the extension."""

from dataclasses import dataclass

from fastclip.data.sources.extensions import PICTURE_EXTENSIONS

TEXT_EXTENSIONS = ("txt", "text", "caption", "cls", "json")
KNOWN_EXTENSIONS = frozenset((*PICTURE_EXTENSIONS, *TEXT_EXTENSIONS))


@dataclass(frozen=True)
class MemberName:
    """A member's name in parts.

    Attributes:
        stem: the name up to its first dot: members whose stems differ are of different records.
        key: the name up to its last dot.
        extension: what follows the last dot, in lower case.
    """

    stem: str
    key: str
    extension: str

    @property
    def is_known(self) -> bool:
        """Whether members of that extension can be read."""
        return self.extension in KNOWN_EXTENSIONS


def split_name(name: str) -> MemberName | str:
    """The parts of a member's name, or why it is of no record.

    Webdataset ends a key at the first dot, which loses records whose base names have dots. Here it
    ends at the last one; which keys belong together is for :class:`RecordGroups` to say.
    """
    while name.startswith("./"):
        name = name[2:]
    folder, slash, base = name.rpartition("/")
    if base.startswith(".") or "__MACOSX" in folder.split("/"):
        return "hidden file"
    before, _, extension = base.rpartition(".")
    if not before or not extension:
        return "name without an extension"
    folder += slash
    return MemberName(folder + base.partition(".")[0], folder + before, extension.lower())
