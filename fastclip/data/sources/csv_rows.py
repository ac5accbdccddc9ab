"""Rows of a csv file, with a rule for quotes that no caption falls through.

As csv readers and pandas have it, a quote opens a quoted field only where a field begins, and such
a field may hold separators and line ends. A stray quote at the start of a caption therefore takes
in all lines up to the next quote. So a row of several lines is believed only if

* its quotes are strictly those of csv (a closing quote is followed by a separator or the line's
  end, and the last one is closed), and
* at most one of its lines could be a row by itself: has as many fields as the header and, where
  they are not separated by tabs, which captions do not have, a picture's name in its place.
"""

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fastclip.data.sources.text_lines import read_lines
from fastclip.errors import UserError

_PICTURE = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|gif|bmp|tiff?|avif|heic)$", re.IGNORECASE)


class CsvRows:
    """A csv file with a header, read once from its start.

    Raises :class:`UserError`, while it is read too, for what :func:`read_lines` refuses, a
    separator that csv does not take and quotes as above.

    Attributes:
        header: names of the columns.
    """

    def __init__(self, path: Path, separator: str) -> None:
        self.path, self.separator = path, separator
        self._lines: list[str] = []
        if len(separator) != 1 or separator in '"\r\n':
            # A shell hands over the two characters that a program's text would turn into one.
            tab = "; a tab is the default, and $'\\t' in bash" if separator == r"\t" else ""
            raise UserError(
                f"--csv-separator is {separator!r}, expected one character that is no quote and no "
                f"line end{tab}"
            )
        self._reader = csv.reader(self._keep_lines(), delimiter=separator)
        while (first := self._next()) == []:
            pass
        if isinstance(first, str):
            raise UserError(f"the header of {path} cannot be read: {first}")
        self._check_lines(None)
        if not first:
            raise UserError(f"{path} is empty, expected a header and rows")
        self.header = first

    def rows(self, picture_column: int | None) -> Iterator[list[str] | str]:
        """The fields of each row that is not blank, or why csv cannot read it.

        ``picture_column`` is that of the pictures' names in the header.
        """
        last_lines: list[str] = []
        while True:
            fields = self._next()
            if fields is None:
                break
            last_lines = self._lines
            if isinstance(fields, list):
                self._check_lines(picture_column)
                if len(fields) <= 1 and not "".join(fields).strip():
                    continue
            yield fields
        # Only the file's last row can have an open quote that no further line shows.
        if last_lines and self._is_open(last_lines):
            self._lines = last_lines
            raise self._stray_quote()

    def _keep_lines(self) -> Iterator[str]:
        for line in read_lines(self.path):
            self._lines.append(line)
            yield line

    def _next(self) -> list[str] | str | None:
        """The next row's fields, what is wrong with it, or None at the end."""
        self._lines = []
        try:
            return next(self._reader, None)
        except csv.Error as error:
            if len(self._lines) > 1:
                raise self._stray_quote() from error
            return str(error)

    def _check_lines(self, picture_column: int | None) -> None:
        if len(self._lines) < 2:
            return
        try:
            list(csv.reader(self._lines, delimiter=self.separator, strict=True))
        except csv.Error as error:
            raise self._stray_quote() from error
        if picture_column is not None:
            alike = sum(self._could_be_row(line, picture_column) for line in self._lines)
            if alike > 1:
                raise self._stray_quote()

    def _could_be_row(self, line: str, column: int) -> bool:
        parts = [part.strip().strip('"') for part in line.split(self.separator)]
        if len(parts) < len(self.header):
            return False
        if self.separator == "\t":
            return True
        # Captions may hold the separator, so the column is counted from both ends.
        names = {parts[column], parts[column - len(self.header)]} - {""}
        places = [path for name in names for path in (name, self.path.parent / name)]
        return any(map(_PICTURE.search, names)) or any(map(os.path.isfile, places))

    def _is_open(self, lines: list[str]) -> bool:
        # An open quote would take in whatever line follows.
        try:
            return len(list(csv.reader([*lines, "\n", "x"], delimiter=self.separator))) == 1
        except csv.Error:
            return False

    def _stray_quote(self) -> UserError:
        """The sentence on the row of ``self._lines``, whose longest field is the one at fault."""
        last = self._reader.line_num
        first = last - len(self._lines) + 1
        opened = first
        try:
            rows = list(csv.reader(self._lines[:-1] or self._lines, delimiter=self.separator))
        except csv.Error:
            rows = []
        if rows:
            line_ends = [len(re.findall(r"\r\n|\r|\n", field)) for field in rows[0]]
            opened += sum(line_ends[: line_ends.index(max(line_ends))])
        return UserError(
            f"{self.path}: the quote that opens in line {opened} is not closed there and takes in "
            f"the lines up to {last}; a field that begins with a quote must end with one, and "
            "quotes inside it are doubled"
        )
