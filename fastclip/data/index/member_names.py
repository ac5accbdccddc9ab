"""What a member's name says: the key of its record and the extension."""

from dataclasses import dataclass

from fastclip.data.sources.extensions import PICTURE_EXTENSIONS

TEXT_EXTENSIONS = ("txt", "text", "caption", "cls", "json")
KNOWN_EXTENSIONS = frozenset((*PICTURE_EXTENSIONS, *TEXT_EXTENSIONS))


@dataclass(frozen=True)
class MemberName:
    """A member's name in parts.

    Attributes:
        stem: the name up to its first dot, those that it begins with apart: members whose stems
            differ are of different records.
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
    before, _, extension = base.rpartition(".")
    # Archives made on a Mac have such a twin, of other content, for each of their files.
    is_twin = base.startswith("._") or "__MACOSX" in folder.split("/")
    if is_twin or (base.startswith(".") and extension.lower() not in KNOWN_EXTENSIONS):
        return "hidden file"
    name = before.lstrip(".")
    if not name or not extension:
        return "name without an extension"
    first = before[: len(before) - len(name)] + name.partition(".")[0]
    folder += slash
    return MemberName(folder + first, folder + before, extension.lower())
