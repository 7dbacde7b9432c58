"""All values of a run as a file for other programs, and back: Parquet, CSV, safetensors, JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechspex.core.checks import check_memory
from mechspex.core.errors import Refused, RunError, StoreError
from mechspex.core.json_values import checked, read_json, read_texts, write_json
from mechspex.core.masks import pack, unpack
from mechspex.core.units import UnitSet
from mechspex.runs.store import ValueStore
from mechspex.runs.store_file import VALUES
from mechspex.runs.stored import Stored

SCHEMA = "mechspex.values/1"

# Bytes that a mask in digits takes about.
_MASK = 200

# What reading a file of another program can meet.
_BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, OSError,
           RecursionError)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ValueTable:
    """Masks, their values, and all that says what they are.

    Attributes:
        configuration: everything the values depend on but the mask.
        units: the columns of the masks.
        outputs: the columns of the values, by name.
        masks: each once, True = kept.
        values: in single or in double precision, as they were measured.
    """

    configuration: dict[str, str]
    units: UnitSet
    outputs: tuple[str, ...]
    masks: Bool[np.ndarray, "mask unit"]
    values: Float[np.ndarray, "mask output"]

    @classmethod
    def of(cls, folder: Path) -> ValueTable:
        """The values in the folder of a run.

        Raises:
            RunError: there are none, or it is not known what their columns stand for.
            StoreError: the store is damaged.
        """
        stored = Stored.open(folder)
        masks, values = stored.measured()
        return cls(stored.configuration, *stored.known_columns, masks, values)

    def keep(self, folder: Path) -> int:
        """Take the values into the folder of a run, new or of the same question.

        Returns:
            How many masks were new there.

        Raises:
            RunError: it holds values of another configuration.
        """
        if (folder / VALUES).exists():
            there = Stored.open(folder).configuration
            if there != self.configuration:
                raise RunError(f"{folder} holds values of another question; name another run")
        store = ValueStore(folder, self.configuration, columns=(self.units, self.outputs))
        try:
            store.describe(self.units, self.outputs)
            before = len(store)
            store.put(self.masks, self.values)
            return len(store) - before
        finally:
            store.close()

    def write(self, file: Path) -> None:
        """Write the table, in the form that the name of the file ends in.

        Args:
            file: a name that ends in ``.parquet``, ``.csv``, ``.safetensors`` or ``.json``.

        Raises:
            Refused: another ending, or Parquet without pyarrow.
            StoreError: the file cannot be written.
        """
        form = _form(file)
        try:
            form.write(self, file)
        except OSError as error:
            raise StoreError(f"{file} could not be written ({error.strerror or error})") from None

    @classmethod
    def read(cls, file: Path) -> ValueTable:
        """Read what `write` wrote.

        Raises:
            Refused: no such file, or one that holds no values of a run.
        """
        form = _form(file)
        if not file.is_file():
            raise Refused(f"no file {file}")
        try:
            table = form.read(file)
            shape = (len(table.masks), len(table.outputs))
            if table.values.shape != shape or table.masks.shape[1] != len(table.units):
                raise ValueError(f"values of shape {table.values.shape}, expected {shape}")
            return table
        except _BROKEN as error:
            told = str(error) if isinstance(error, Refused) else repr(error)
            raise Refused(f"{file} holds no values of a run that can be read ({told})") from None

    @property
    def _about(self) -> dict[str, Any]:
        return {**self._stated, "digest": self._digest}

    @property
    def _stated(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "configuration": self.configuration,
            "units": self.units.to_list(),
            "outputs": list(self.outputs),
            "dtype": self.values.dtype.name,
        }

    @property
    def _digest(self) -> str:
        """A hash of everything here: a table that was edited is not one that was measured."""
        digest = hashlib.sha256(json.dumps(self._stated, sort_keys=True).encode())
        digest.update(pack(self.masks).tobytes())
        # Of all the NaN there are a file keeps one.
        same_nan = np.where(np.isnan(self.values), np.nan, self.values)
        digest.update(same_nan.astype(self.values.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()[:16]

    @property
    def _hexadecimal(self) -> list[str]:
        return [row.tobytes().hex() for row in pack(self.masks)]

    @classmethod
    def _from(cls, about: Any, masks: list[str], values: Any) -> ValueTable:
        """The table of what `_about` says, of packed masks in hexadecimal digits and of numbers."""
        if about["schema"] != SCHEMA:
            raise Refused(f"schema {about['schema']!r}, expected {SCHEMA!r}")
        units = UnitSet.from_list(about["units"])
        bits = np.frombuffer(bytes.fromhex("".join(masks)), dtype=np.uint8)
        packed = bits.reshape(len(masks), -(-len(units) // 8))
        dtype = {"float32": np.float32, "float64": np.float64}[about["dtype"]]
        table = cls(
            read_texts(about["configuration"]),
            units,
            tuple(map(str, about["outputs"])),
            unpack(packed, len(units)),
            np.array(values, dtype=dtype).reshape(len(masks), len(about["outputs"])),
        )
        # Files of older versions have none.
        if about.get("digest", table._digest) != table._digest:
            raise Refused("it is not what was exported (checksum); export the run again")
        return table


@dataclass(frozen=True)
class _Form:
    """A form of file: how it is written and read."""

    write: Callable[[ValueTable, Path], None]
    read: Callable[[Path], ValueTable]


def _form(file: Path) -> _Form:
    if file.suffix not in _FORMS:
        raise Refused(f"{file}: end the name in {', '.join(_FORMS)}")
    return _FORMS[file.suffix]


def _write_json(table: ValueTable, file: Path) -> None:
    # JSON has no numbers that are not finite: they are text.
    rows = [[x if np.isfinite(x) else str(x) for x in row] for row in table.values.tolist()]
    write_json(file, checked({**table._about, "masks": table._hexadecimal, "values": rows}))


def _read_json(file: Path) -> ValueTable:
    record = read_json(file)
    values = [[float(number) for number in row] for row in record["values"]]
    return ValueTable._from(record, record["masks"], values)


def _write_csv(table: ValueTable, file: Path) -> None:
    with file.open("w", newline="") as lines:
        lines.write(f"# {json.dumps(table._about)}\n")
        lines.write(",".join(["mask", *_names(table)]) + "\n")
        for mask, row in zip(table._hexadecimal, table.values.tolist(), strict=True):
            lines.write(",".join([mask, *map(repr, row)]) + "\n")


def _read_csv(file: Path) -> ValueTable:
    with file.open(newline="") as lines:
        about = json.loads(lines.readline().removeprefix("#"))
        lines.readline()
        rows = [line.split(",") for line in lines.read().splitlines()]
    values = [[float(number) for number in row[1:]] for row in rows]
    return ValueTable._from(about, [row[0] for row in rows], values)


def _names(table: ValueTable) -> list[str]:
    return [f"value_{number}" for number in range(len(table.outputs))]


def _write_safetensors(table: ValueTable, file: Path) -> None:
    from safetensors.numpy import save_file

    about = {"about": json.dumps(table._about)}
    save_file({"masks": pack(table.masks), "values": table.values}, file, metadata=about)


def _read_safetensors(file: Path) -> ValueTable:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as tensors:
            about = json.loads(tensors.metadata()["about"])
            masks, values = tensors.get_tensor("masks"), tensors.get_tensor("values")
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return ValueTable._from(about, [row.tobytes().hex() for row in masks], values)


def _write_parquet(table: ValueTable, file: Path) -> None:
    pa, parquet = _arrow()
    columns = {"mask": pa.array(table._hexadecimal, pa.string())}
    for name, numbers in zip(_names(table), table.values.T, strict=True):
        columns[name] = pa.array(np.ascontiguousarray(numbers))
    told = {"mechspex": json.dumps(table._about)}
    parquet.write_table(pa.table(columns).replace_schema_metadata(told), file)


def _read_parquet(file: Path) -> ValueTable:
    pa, parquet = _arrow()
    try:
        about = parquet.read_metadata(file)
        # A few thousand bytes can say the same number a billion times.
        check_memory(about.num_rows * (8 * about.num_columns + _MASK), f"the values in {file}")
        found = parquet.read_table(file)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None
    about = json.loads(found.schema.metadata[b"mechspex"])
    names = [f"value_{number}" for number in range(len(about["outputs"]))]
    values = np.array([found.column(name).to_numpy() for name in names]).T
    return ValueTable._from(about, found.column("mask").to_pylist(), values)


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise Refused("Parquet needs pyarrow (pip install pyarrow); or name a .csv") from None
    return pyarrow, parquet


_FORMS = {
    ".parquet": _Form(_write_parquet, _read_parquet),
    ".csv": _Form(_write_csv, _read_csv),
    ".safetensors": _Form(_write_safetensors, _read_safetensors),
    ".json": _Form(_write_json, _read_json),
}
