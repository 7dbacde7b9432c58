"""Tables of prompts as records: CSV, TSV, JSON lines and JSON files, and data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechspex.core.errors import TaskError

# Where a JSON object keeps its rows; what stands beside them belongs to every row.
_ROWS = ("samples", "prompts", "data", "rows", "examples")
_LARGEST_CELL = 10_000_000


@dataclass(frozen=True)
class Record:
    """A row of a table.

    Attributes:
        place: where it stands, such as ``row 3``.
        cells: {column: what stands there}; empty cells are left out.
    """

    place: str
    cells: Mapping[str, Any]


def records_of(source: Any) -> tuple[str, list[Record]]:
    """The name and the rows of a table.

    Args:
        source: a file by its path (.jsonl, .json, .csv or .tsv), a data frame, a list of
            mappings, or a mapping of columns.

    Raises:
        TaskError: a file that cannot be read, or no rows.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        name, records = path.stem, _of_file(path)
    else:
        name, records = "prompts", _of_table(source)
    if not records:
        raise TaskError(f"{source if isinstance(source, str | Path) else 'the table'} has no rows")
    return name, records


def file_text(path: Path) -> str:
    """The text of a file of prompts.

    Args:
        path: the file.

    Raises:
        TaskError: no such file, or one that is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TaskError(f"prompts file {str(path)!r} cannot be read ({reason})") from None


def _of_file(path: Path) -> list[Record]:
    readers: dict[str, Callable[[Path, str], list[Record]]] = {
        ".csv": _of_csv,
        ".tsv": _of_csv,
        ".json": _of_json,
        ".jsonl": _of_json_lines,
        ".ndjson": _of_json_lines,
    }
    if path.suffix.lower() not in readers:
        raise TaskError(
            f"{path} is no file of prompts: its name ends in {path.suffix!r}; choose "
            f"{', '.join(readers)}"
        )
    return readers[path.suffix.lower()](path, file_text(path))


def _of_csv(path: Path, text: str) -> list[Record]:
    csv.field_size_limit(_LARGEST_CELL)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = next(rows, [])
        listed = list(rows)
    except csv.Error as error:
        raise TaskError(f"{path}, line {rows.line_num}: {error}") from None
    if len(named := [column for column in header if column]) != len(set(named)):
        raise TaskError(f"{path} has a column twice: {', '.join(header)}; rename one")
    records = []
    for number, row in enumerate(listed, 1):
        if not row:
            continue
        if len(row) != len(header):
            raise TaskError(
                f"{path}, row {number} has {len(row)} cells for {len(header)} columns; put texts "
                f"with {'a tab' if delimiter != ',' else 'commas'} in quotes"
            )
        cells = dict(zip(header, row, strict=True))
        records.append(_record(f"row {number}", cells))
    return records


def _of_json_lines(path: Path, text: str) -> list[Record]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            records.append(_record(f"line {number}", _parsed(f"{path}, line {number}", line)))
    return records


def _of_json(path: Path, text: str) -> list[Record]:
    found = _parsed(str(path), text)
    if isinstance(found, list):
        return [_record(f"row {number}", row) for number, row in enumerate(found, 1)]
    if not isinstance(found, Mapping):
        raise TaskError(f"{path} holds {type(found).__name__}, not a list of rows")
    key = next((key for key in _ROWS if _is_rows(found.get(key))), None)
    if key is None:
        return [_record(f"row {n}", row) for n, row in enumerate(_columns(found), 1)]
    beside = {name: value for name, value in found.items() if name != key}
    return [_record(f"row {n}", {**beside, **row}) for n, row in enumerate(found[key], 1)]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(r, Mapping) for r in value)


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        raise TaskError(f"{where}{line}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError):
        raise TaskError(f"{where}: JSON that cannot be read") from None


def _of_table(source: Any) -> list[Record]:
    if isinstance(source, Mapping):
        rows: Any = list(_columns(source))
    elif hasattr(source, "to_dicts"):  # polars
        rows = source.to_dicts()
    elif hasattr(source, "columns") and hasattr(source, "to_dict"):
        rows = source.to_dict("records")
    else:
        try:
            rows = list(source)
        except TypeError:
            raise TaskError(
                f"{source!r} is no table of prompts; give a path, a data frame or a list of rows"
            ) from None
    return [_record(f"row {number}", row) for number, row in enumerate(rows)]


def _columns(table: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a table that is given by its columns."""
    columns = {
        name: list(column)
        for name, column in table.items()
        if not isinstance(column, str | Mapping) and hasattr(column, "__len__")
    }
    if not columns or len({len(column) for column in columns.values()}) != 1:
        raise TaskError(
            f"a table with {', '.join(map(str, table)) or 'nothing'} has no rows: give a list of "
            "rows, or columns of one length"
        )
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _record(place: str, row: Any) -> Record:
    if not isinstance(row, Mapping):
        raise TaskError(f"{place} is {row!r:.60}, not {{column: value}}")
    return Record(place, {str(name): cell for name, cell in row.items() if not _is_missing(cell)})


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell) or _is_nan(cell)


def _is_nan(cell: Any) -> bool:
    return (isinstance(cell, float) and cell != cell) or str(cell) == "<NA>"
