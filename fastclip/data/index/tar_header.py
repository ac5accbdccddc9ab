"""One member's header in a tar archive: ustar, pax, GNU long names and sparse files."""

import re
import tarfile
from dataclasses import dataclass
from typing import Protocol

BLOCK = 512
MAX_MEMBER_BYTES = 1 << 30
_MAX_HEADER_BYTES = 1 << 20
_OTHER_FORMATS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}
_PAX_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]+)=")


class TarBytes(Protocol):
    """The bytes of an archive, read at offsets that never go back.

    ``end`` is the number of bytes, or None as long as a stream has not told it.
    """

    @property
    def end(self) -> int | None:
        """Bytes in all."""

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on, fewer only at the end."""


@dataclass(frozen=True)
class Member:
    """A member: its name, where its bytes lie, and ``fault``, why it cannot be read, or ""."""

    name: str
    offset: int
    size: int
    fault: str = ""


class BrokenTarError(Exception):
    """The rest of an archive cannot be read; the message is the cause."""


def read_header(data: TarBytes, header: bytes, offset: int) -> Member:
    """The member whose header, of which ``header`` is the first block, lies at ``offset``.

    Raises :class:`BrokenTarError` for one that is cut or wrong.
    """
    long_name, pax = "", dict[str, bytes]()
    is_first = offset == 0
    while True:
        info = _parsed(header, is_first)
        is_first = False
        offset += BLOCK
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            pax = _pax_records(_payload(data, info, offset))
        elif info.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _text(_payload(data, info, offset).split(b"\0", 1)[0])
        elif info.type in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            _payload(data, info, offset)
        else:
            break
        offset += padded(info.size)
        header = data.read(offset, BLOCK)
    name = _text(pax["path"].rstrip(b"\0")) if "path" in pax else long_name or _line(info.name)
    size = _pax_size(pax["size"]) if "size" in pax else info.size
    fault = _fault(info, pax, size)
    if info.type == tarfile.GNUTYPE_SPARSE:
        offset = _after_sparse_map(data, header, offset)
    # Links and folders may say a size, but have no data.
    if info.type in tarfile.SUPPORTED_TYPES and not info.isreg():
        size = 0
    return Member(name, offset, size, fault)


def padded(size: int) -> int:
    """``size`` rounded up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def _parsed(header: bytes, is_first: bool) -> tarfile.TarInfo:
    # A name is padded with zeros: what is short and has none is no archive's start.
    if len(header) < BLOCK and not (is_first and b"\0" not in header):
        raise BrokenTarError("cut inside a member's header")
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "backslashreplace")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        if is_first and header[257:262] != b"ustar":
            other = next((n for m, n in _OTHER_FORMATS.items() if header.startswith(m)), "")
            found = f"{other} data, accepted are .tar and .tar.gz" if other else f"{header[:12]!r}"
            raise BrokenTarError(f"not a tar archive, it begins with {found}") from error
        raise BrokenTarError(f"a member's header is wrong: {error}") from error
    if info.size < 0:
        raise BrokenTarError(f"a member's header is wrong: {info.size} bytes")
    return info


def _fault(info: tarfile.TarInfo, pax: dict[str, bytes], size: int) -> str:
    if info.isdir():
        return "folder"
    if info.issym() or info.islnk():
        return "link"
    if info.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
        return "sparse file"
    if not info.isreg():
        return "device or pipe" if info.type in tarfile.SUPPORTED_TYPES else "unknown kind of file"
    return "file above 1 GiB" if size > MAX_MEMBER_BYTES else ""


def _payload(data: TarBytes, info: tarfile.TarInfo, offset: int) -> bytes:
    if info.size > _MAX_HEADER_BYTES:
        raise BrokenTarError(f"a member's header is wrong: it has {info.size} bytes")
    payload = data.read(offset, info.size)
    if len(payload) < info.size:
        raise BrokenTarError("cut inside a member's header")
    return payload


def _pax_records(payload: bytes) -> dict[str, bytes]:
    """Records "length key=value\\n" of a pax header; the length counts the whole record."""
    records, start = {}, 0
    while start < len(payload) and payload[start]:
        match = _PAX_RECORD.match(payload, start)
        end = start + int(match[1]) if match else 0
        if match is None or end <= match.end() or payload[end - 1 : end] != b"\n":
            raise BrokenTarError("a member's header is wrong: its pax records cannot be read")
        records[match[2].decode("utf-8", "replace")] = payload[match.end() : end - 1]
        start = end
    return records


def _pax_size(value: bytes) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", value):
        raise BrokenTarError(f"a member's header is wrong: its size is {value[:20]!r}")
    return int(value)


def _after_sparse_map(data: TarBytes, header: bytes, offset: int) -> int:
    """Where a sparse file's data begin: behind the blocks that continue its map."""
    is_continued = header[482]
    while is_continued:
        block = data.read(offset, BLOCK)
        if len(block) < BLOCK:
            raise BrokenTarError("cut inside a member's header")
        is_continued = block[504]
        offset += BLOCK
    return offset


def _text(name: bytes) -> str:
    return _line(name.decode("utf-8", "backslashreplace"))


def _line(name: str) -> str:
    """``name`` on one line: characters that would break a sentence are escaped."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
