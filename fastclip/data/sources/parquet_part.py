"""One row group of a parquet file, its wanted columns in memory."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.base import Part, Record
from fastclip.data.sources.columns import row_values
from fastclip.data.sources.parquet_columns import ParquetColumns
from fastclip.data.sources.parquet_files import ParquetFile, one_line
from fastclip.data.sources.texts import printable

ROWS_A_BATCH = 1024


class ParquetPart(Part):
    """Rows of a group; what cannot be read of it is one problem that stands for all of them.

    Args:
        first_row: of the group in its file, for keys.
        class_numbers: numbers of classes, where labels are their names.
    """

    def __init__(
        self,
        file: ParquetFile,
        columns: ParquetColumns,
        group: int,
        first_row: int,
        wanted: frozenset[str],
        class_numbers: dict[str, int] | None,
    ) -> None:
        self.file, self.columns, self.first_row, self.wanted = file, columns, first_row, wanted
        self.class_numbers = class_numbers
        self.rows = file.rows[group]
        self.table: pa.Table | None = None
        try:
            self.table = _read_group(file.path, group, columns.needed(wanted))
            if self.table is not None and self.table.num_rows != self.rows:
                raise ValueError(f"{self.table.num_rows} rows, expected {self.rows}")
        except Exception as error:  # pyarrow raises nearly anything for broken data
            reason = "row group cannot be read"
            key = f"{printable(str(file.path))}, row group {group}"
            self.problems = [BadRecord(key, reason, one_line(error), lost=self.rows)]
            self.rows = 0

    def __len__(self) -> int:
        return self.rows

    def read(self, number: int) -> Record | BadRecord:
        """The row of that number."""
        if not 0 <= number < self.rows:
            raise IndexError(number)
        key = f"{printable(self.file.short)}/{self.first_row + number}"
        try:
            row = self._row(number)
        except Exception as error:  # as above: cells are checked when they are taken out
            return BadRecord(key, "row cannot be read", one_line(error))
        if self.columns.key is not None and row.get(self.columns.key) is not None:
            key = f"{key}/{_shown(row[self.columns.key])}"
        values = row_values(row, self.columns.table, self.wanted)
        if "row" in self.wanted:
            values["row"] = {name: row[name] for name in self.columns.others}
        if "label" in values:
            values |= self._label(values.pop("label"))
        if self.columns.picture is not None and "picture" in self.wanted:
            picture = self._picture(row[self.columns.picture])
            if picture is None:
                return BadRecord(key, "picture is null", f"in column {self.columns.picture}")
            values["picture"] = picture
        return Record(key, values)

    def _row(self, number: int) -> dict[str, Any]:
        if self.table is None:
            return {}
        return {name: _cell(self.table.column(name)[number]) for name in self.table.column_names}

    def _label(self, label: Any) -> dict[str, Any]:
        """The label as a number; Hugging Face's ClassLabel has -1 where there is none."""
        if self.columns.class_names is not None and label == -1:
            return {}
        if self.class_numbers is not None:
            name = _shown(label)
            return {} if name == "" else {"label": self.class_numbers.get(name, label)}
        return {"label": label}

    def _picture(self, cell: Any) -> bytes | Path | None:
        if isinstance(cell, dict):
            cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
        if isinstance(cell, str):
            return self.file.path.parent / cell if cell else None
        return cell

    def nbytes(self) -> int:
        """Of the columns in memory."""
        return 0 if self.table is None else self.table.nbytes

    def close(self) -> None:
        """Let go of the rows."""
        self.table, self.rows = None, 0


def _read_group(path: Path, group: int, columns: list[str]) -> pa.Table | None:
    """Columns of a row group; None where none is asked for."""
    # In batches: a column of structs of more than 2 GiB cannot be read as one array. Without
    # pyarrow's threads: workers are forked.
    if not columns:
        return None
    with path.open("rb") as source, pq.ParquetFile(source, pre_buffer=False) as file:
        batches = file.iter_batches(
            ROWS_A_BATCH, row_groups=[group], columns=columns, use_threads=False
        )
        return pa.Table.from_batches(batches)


def read_column(path: Path, group: int, column: str) -> set[Any]:
    """The different cells of a column of a row group."""
    table = _read_group(path, group, [column])
    return set() if table is None else set(table.column(0).unique().to_pylist())


def _cell(scalar: pa.Scalar) -> Any:
    """A cell in Python's types; a text that is not UTF-8 as its bytes."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.DictionaryScalar):
            return _cell(scalar.value)
        if isinstance(scalar, pa.ListScalar):
            return [_cell(item) for item in scalar.values]
        if isinstance(scalar, pa.StructScalar):
            return {name: _cell(item) for name, item in scalar.items()}
        return scalar.as_buffer().to_pybytes()


def _shown(cell: Any) -> str:
    return cell.decode("utf-8", errors="backslashreplace") if isinstance(cell, bytes) else str(cell)
