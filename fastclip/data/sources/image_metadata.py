"""A folder of pictures with a ``metadata.csv`` or ``metadata.jsonl`` that says what they show.

Hugging Face's layout: a column ``file_name``, relative to the table's folder, and further columns
(:mod:`fastclip.data.sources.columns`). There may be a table in each of several folders.
"""

from collections.abc import Collection
from pathlib import PurePosixPath
from posixpath import normpath

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Record
from fastclip.data.sources.columns import Columns, find_columns, row_values
from fastclip.data.sources.fingerprint import fingerprint
from fastclip.data.sources.folder_walk import FolderContents, several
from fastclip.data.sources.metadata_rows import FILE_NAME, Row, read_rows
from fastclip.data.sources.named_labels import name_classes
from fastclip.data.sources.rows import Rows
from fastclip.data.sources.texts import printable, shown_names
from fastclip.errors import UserError


class MetadataRows(Rows):
    """The rows of all tables; pictures that no row names are a problem.

    A record's key is its picture's path, with ``#2`` and so on where rows share a picture.
    """

    def __init__(self, found: FolderContents, wanted: Collection[str]) -> None:
        self.root, self.wanted = found.root, wanted
        self.pictures = frozenset(found.pictures)
        self.rows: list[tuple[str, Row, Columns]] = []
        holds = frozenset(["picture", "id"])
        for table in found.tables:
            other = str(PurePosixPath(table).with_suffix(".jsonl"))
            if other != table and other in found.tables:
                raise UserError(f"{found.root} has both {table} and {other}: leave one of them")
            holds |= self._add_table(table).holds
        self.holds = holds
        if not self.rows:
            raise UserError(f"{found.root / found.tables[0]} has no row")
        self._number_labels()
        self._name_records()
        named = {picture for picture, _, _ in self.rows}
        spare = [printable(p) for p in found.pictures if p not in named]
        self.problems: list[BadRecord] = found.problems()
        if spare:
            # A row that cannot be read is booked, and may have been that of one of these.
            unread = sum(isinstance(row, BadRecord) for _, row, _ in self.rows)
            lost, reason = max(0, len(spare) - unread), "picture has no row in a table"
            self.problems.append(several(str(self.root), reason, spare, lost=lost))

    def _add_table(self, table: str) -> Columns:
        """Add the rows of a table; the names of their pictures become relative to the root."""
        folder = PurePosixPath(table).parent
        names, rows = read_rows(self.root / table, printable(table))
        if rows and FILE_NAME not in names:
            raise UserError(
                f"{self.root / table} has no column {FILE_NAME!r}, which names the picture of "
                f"each row; its columns are {shown_names(names)}"
            )
        self.columns = list(dict.fromkeys([*self.columns, *names]))
        cells = [cell for row in rows if isinstance(row, dict) for cell in row.items()]
        lists = {name for name, cell in cells if isinstance(cell, list)}
        columns = find_columns(names, lists)
        for number, row in enumerate(rows, 1):
            picture = "" if isinstance(row, BadRecord) else row.get(FILE_NAME)
            if not isinstance(picture, str) or (isinstance(row, dict) and not picture):
                detail = f"row {number} of {printable(table)}"
                row, picture = BadRecord(f"{printable(table)}#{number}", "no picture", detail), ""
            self.rows.append((normpath(folder / picture) if picture else "", row, columns))
        return columns

    def _number_labels(self) -> None:
        """Put numbers in the place of labels that are names; an empty label is none."""
        cells = [
            (row, columns.one["label"])
            for _, row, columns in self.rows
            if isinstance(row, dict) and "label" in columns.one
        ]
        self.class_names = name_classes(row.get(column) for row, column in cells)
        numbers = {name: number for number, name in enumerate(self.class_names or ())}
        for row, column in cells:
            label = row.get(column)
            if label == "":
                row[column] = None
            elif isinstance(label, int | str):
                row[column] = numbers.get(str(label), label)

    def _name_records(self) -> None:
        seen: dict[str, int] = {}
        self.keys: list[str] = []
        for picture, row, _ in self.rows:
            key = row.key if isinstance(row, BadRecord) else printable(picture)
            seen[key] = seen.get(key, 0) + 1
            self.keys.append(key if seen[key] == 1 else f"{key}#{seen[key]}")

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, number: int) -> Record | BadRecord:
        """A row and its picture."""
        picture, row, columns = self.rows[number]
        key = self.keys[number]
        if isinstance(row, BadRecord):
            return row
        if picture.startswith(("../", "/")):
            detail = f"the table names pictures in and below {self.root}"
            return BadRecord(key, "picture lies outside the table's folder", detail)
        if picture not in self.pictures:
            return BadRecord(key, "picture file is missing", f"in {self.root}")
        own = {"picture": self.root / picture, "id": printable(picture), "row": row}
        kept = {name: value for name, value in own.items() if name in self.wanted}
        return Record(key, row_values(row, columns, self.wanted) | kept)

    def identity(self) -> str:
        """Over all rows and the pictures that there are."""
        rows = [f"{picture}: {row}" for picture, row, _ in self.rows]
        return fingerprint([*rows, *sorted(self.pictures)])
