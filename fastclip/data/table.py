"""A csv file of picture paths and captions, read as open_clip reads it."""

import csv
from collections.abc import Iterator
from pathlib import Path

from fastclip.data.records import BadRecord, RawRecord
from fastclip.errors import UserError

ROWS_PER_PART = 64


class CsvSource:
    """Rows of a csv file with a header; picture paths are relative to the working directory."""

    def __init__(self, path: Path, img_key: str, caption_key: str, separator: str) -> None:
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file, delimiter=separator)
                columns = list(rows.fieldnames or [])
                for flag, key in (("--csv-img-key", img_key), ("--csv-caption-key", caption_key)):
                    if key not in columns:
                        raise UserError(
                            f"{path} has no column {key!r} ({flag}); its columns, split at "
                            f"{separator!r}, are {', '.join(map(repr, columns)) or 'none'}"
                        )
                self.rows = [(row[img_key], row[caption_key]) for row in rows]
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8: {error}") from error
        except (csv.Error, TypeError) as error:
            raise UserError(f"{path} with separator {separator!r}: {error}") from error
        if not self.rows:
            raise UserError(f"{path} has a header and no rows")

    @property
    def num_parts(self) -> int:
        """Number of runs of :data:`ROWS_PER_PART` rows."""
        return -(-len(self.rows) // ROWS_PER_PART)

    def size(self, part: int) -> int:
        """Rows in a part."""
        return min(ROWS_PER_PART, len(self.rows) - part * ROWS_PER_PART)

    def read(self, part: int) -> Iterator[RawRecord | BadRecord]:
        """The rows of one part; the pictures are read when they are decoded."""
        start = part * ROWS_PER_PART
        for number, (picture, caption) in enumerate(
            self.rows[start : start + ROWS_PER_PART], start + 1
        ):
            if not picture:
                yield BadRecord(f"row {number}", "no picture")
            elif not caption:
                yield BadRecord(f"row {number}: {picture}", "no text")
            else:
                yield RawRecord(f"row {number}: {picture}", Path(picture), caption.encode())
