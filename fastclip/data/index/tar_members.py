"""The members of a tar archive by their headers.

Nothing is unpacked and no path is ever opened. What follows a header that is wrong cannot be
trusted, so reading stops there.
"""

from collections.abc import Iterator

from fastclip.data.index.tar_header import (
    BLOCK,
    BrokenTarError,
    Member,
    TarBytes,
    padded,
    read_header,
)

MOST_ZEROS = 64 << 20
"""Bytes of zeros in a row that are read on; writers pad archives to far less."""

_ZEROS = bytes(BLOCK)


def members(data: TarBytes) -> Iterator[Member]:
    """The members but for folders; raises :class:`BrokenTarError` where they break off."""
    offset, is_ended = 0, False
    zeros_from = 0
    last: Member | None = None
    while True:
        header = data.read(offset, BLOCK)
        if header == _ZEROS:
            is_ended = True
            offset += BLOCK
            if offset - zeros_from > MOST_ZEROS:
                raise BrokenTarError(f"zeros alone from byte {zeros_from} on")
            continue
        if last is not None:
            check_whole(last, data.end)
        # Zeros behind the end mark may be cut anywhere.
        if is_ended and not any(header):
            return
        if not header:
            raise BrokenTarError("no end mark" if offset else "0 bytes")
        # Behind the end mark another archive may follow, as `cat a.tar b.tar` leaves it.
        try:
            last = read_header(data, header, offset)
        except BrokenTarError as error:
            raise BrokenTarError(f"{error}, behind the end mark" if is_ended else error) from error
        offset = zeros_from = padded(last.offset + last.size)
        is_ended = False
        check_whole(last, data.end)
        if last.fault != "folder":
            yield last


def check_whole(member: Member, end: int | None) -> None:
    """Raise :class:`BrokenTarError` for a member that goes on behind the archive's end."""
    if end is not None and member.offset + member.size > end:
        found = max(0, end - member.offset)
        raise BrokenTarError(f"member {member.name} is cut: {found} of {member.size} bytes")
