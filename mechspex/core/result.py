"""Results: what every answer can do, whichever function gave it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html import escape
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from mechspex.core.checks import PATH
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.json_values import checked, plain, read_json, write_json

# Rows of a table that a notebook shows.
_SHOWN = 30
# What reading a damaged record can meet.
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError,
           RecursionError)  # fmt: skip


# `typing.Self` is refused by the checks of types in the tests.
R = TypeVar("R", bound="Result")


class Result(ABC):
    """An answer: a table, text, HTML, JSON, a file, and a copy of it that is equal.

    A result is a frozen dataclass, declared with ``eq=False, repr=False``. Two results of a class
    are equal where all their fields are: arrays by their entries, NaN to NaN. A field declared with
    ``compare=False``, such as the folder it was read from, does not count.

    Attributes:
        schema: the name of the stored form.
        older_schemas: the names of older forms that are read as well.
        within: whether larger results hold it without a schema name of its own.
        called: what it is called in messages.
    """

    schema: ClassVar[str]
    older_schemas: ClassVar[tuple[str, ...]] = ()
    within: ClassVar[bool] = False
    called: ClassVar[str]

    @abstractmethod
    def to_pandas(self) -> pd.DataFrame:
        """The result as a table."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The result as plain numbers and lists, as the shell prints it with ``--json``."""

    @property
    @abstractmethod
    def in_short(self) -> str:
        """One line: what was asked, and the number that matters most."""

    @abstractmethod
    def __str__(self) -> str:
        """The result as a reader wants it."""

    @classmethod
    @abstractmethod
    def _from_record(cls: type[R], record: dict[str, Any]) -> R:
        """The result of a record; raises `KeyError`, `TypeError` and the like where it is none."""

    def to_record(self) -> dict[str, Any]:
        """`to_dict` and whatever a copy needs besides: what `save` writes and `from_dict` reads."""
        return {"schema": self.schema} | self.to_dict()

    @classmethod
    def from_dict(cls: type[R], record: Any) -> R:
        """The result that `to_record` describes.

        Args:
            record: what `to_record` returned, or JSON of it read back.

        Raises:
            Refused: a record of something else, or one that is incomplete or malformed.
        """
        found = record.get("schema") if isinstance(record, dict) else None
        nested = cls.within and isinstance(record, dict) and "schema" not in record
        if found not in (cls.schema, *cls.older_schemas) and not nested:
            raise Refused(f"this is no {cls.called}: schema {found!r}, expected {cls.schema!r}")
        try:
            found = cls._from_record(record)
            if not nested:
                # What cannot be shown is no answer, whatever types its entries have.
                found._shown()
            return found
        except _BROKEN as error:
            told = str(error) if isinstance(error, Refused) else repr(error)
            raise Refused(f"this {cls.called} is incomplete or malformed ({told})") from None

    def save(self, path: str | Path) -> None:
        """Write the result as JSON, with a checksum.

        Args:
            path: the file to write.

        Raises:
            StoreError: the file cannot be written.
        """
        write_json(Path(path), checked(plain(self.to_record())))

    @classmethod
    @door(path=PATH)
    def load(cls: type[R], path: str | Path) -> R:
        """Read what `save` wrote.

        Args:
            path: the file to read.

        Raises:
            Refused: no such file, or one that holds no result of this kind; `RunError`, one that
                is no longer what was written.
        """
        return cls._read(Path(path))

    def _shown(self) -> None:
        """Make all that a reader sees."""
        _ = str(self), self.in_short, self.to_pandas()

    @classmethod
    def _read(cls: type[R], path: Path) -> R:
        record = read_json(path)
        try:
            return cls.from_dict(record)
        except Refused as error:
            raise Refused(f"{path} is refused: {error}") from None

    def _tables(self) -> list[pd.DataFrame]:
        """What a notebook shows below the heading."""
        return [self.to_pandas()]

    def _repr_html_(self) -> str:
        tables = [_as_html(table) for table in self._tables() if len(table)]
        return "".join([f"<p>{escape(self.in_short)}</p>", *tables])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_short})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            # Not left to the other: an array would compare its entries one by one.
            return False
        return _same_fields(self, other)

    def __hash__(self) -> int:
        return hash((type(self), self.in_short))


def _as_html(table: pd.DataFrame) -> str:
    """A table in the page's own colours, which may be dark; what is confirmed has a mark."""
    marks = {
        name: (lambda holds: "✓" if holds else "–")
        for name in table.columns
        if table[name].dtype == bool
    }
    return table.to_html(
        index=False, float_format="{:+.3f}".format, max_rows=_SHOWN, formatters=marks
    )


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal: arrays, tables and results by their entries, NaN to NaN."""
    if isinstance(one, Result):
        return one == other
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        numbers = all(np.issubdtype(part.dtype, np.inexact) for part in (one, other))
        return np.array_equal(one, other, equal_nan=numbers)
    if isinstance(one, pd.DataFrame) and isinstance(other, pd.DataFrame):
        return same(one.to_dict("list"), other.to_dict("list"))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one) and not isinstance(one, type) and type(one) is type(other):
        return _same_fields(one, other)
    if isinstance(one, float) and isinstance(other, float) and one != one:
        return other != other
    try:
        return bool(one == other)
    except (TypeError, ValueError):
        return False


def _same_fields(one: Any, other: Any) -> bool:
    compared = (field.name for field in fields(one) if field.compare)
    return all(same(getattr(one, name), getattr(other, name)) for name in compared)
