"""An annotation of PASCAL VOC: the objects of a picture."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from fastclip.data.bad_records import BadValueError

MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class Objects:
    """Names of the classes of a picture's objects, sorted, each once.

    Attributes:
        plain: of objects of which at least one is not marked as difficult.
        difficult: of those that all are.
        filename: of the picture, as the annotation says it; "" where it does not.
    """

    plain: tuple[str, ...]
    difficult: tuple[str, ...]
    filename: str


class _Builder(ElementTree.TreeBuilder):
    """Builds a tree of a document without a DOCTYPE, the only place that can define entities."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise BadValueError("annotation has a DOCTYPE", "which is not read")


def read_objects(path: Path) -> Objects:
    """The objects of an annotation file.

    Raises :class:`BadValueError` for a file that is missing or of another form.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadValueError("annotation file is missing", str(path)) from error
    except OSError as error:
        raise BadValueError("annotation cannot be read", f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise BadValueError("annotation is too large", f"{path} has more than {MAX_BYTES} bytes")
    try:
        root = ElementTree.fromstring(data, ElementTree.XMLParser(target=_Builder()))
    except BadValueError:
        raise
    except Exception as error:
        raise BadValueError("annotation is not valid XML", str(error)) from error
    if root.tag != "annotation":
        raise BadValueError("annotation is of another form", f"its root is <{root.tag}>")
    plain, every = set(), set()
    for item in root.iterfind("object"):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise BadValueError("annotation is of another form", "an <object> has no <name>")
        every.add(name)
        if (item.findtext("difficult") or "0").strip() in ("", "0"):
            plain.add(name)
    filename = (root.findtext("filename") or "").strip()
    return Objects(tuple(sorted(plain)), tuple(sorted(every - plain)), filename)
