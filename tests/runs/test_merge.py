"""Several stores in one, a damaged one in a new one, and values as files for other programs."""

import contextlib
import json
import re
import sqlite3

import numpy as np
import pytest

from mechspex.core.masks import all_masks, single_ablations
from mechspex.core.units import parts
from mechspex.core.value_function import FunctionValues
from mechspex.errors import MechspexError, Refused, RunError, StoreError
from mechspex.runs import value_table
from mechspex.runs.check_store import check_store
from mechspex.runs.measured import measured_masks
from mechspex.runs.merge import merge
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.row_log import logs_in
from mechspex.runs.run import CONFIGURATION, Run
from mechspex.runs.salvage import salvage
from mechspex.runs.store import VALUES, ValueStore
from mechspex.runs.store_pages import rows_in_pages
from mechspex.runs.value_table import ValueTable

MASKS = all_masks(9)


def value(masks):
    values = np.stack([masks @ np.arange(1.0, 10.0), masks[:, 0] / 3], axis=1)
    values[~masks.any(1)] = [np.nan, -np.inf]
    return values


value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]


def recorded(folder, masks, function=value, units=9):
    values = RecordedValues(FunctionValues(function, parts(units)), folder)
    values(masks)
    values.close()
    return values.measured


def test_merged_runs_hold_every_mask_once_and_merging_again_changes_nothing(tmp_path):
    with Run.open(tmp_path / "two") as run:
        run.record(FunctionValues(value, parts(9)), "validation")(MASKS[:7])
    recorded(tmp_path / "one", MASKS[:300])
    recorded(tmp_path / "two", MASKS[200:])
    before = {file: file.read_bytes() for file in tmp_path.rglob(VALUES)}
    runs = [tmp_path / "one", tmp_path / "two"]
    whole, fresh = merge(runs, tmp_path / "both")
    assert (whole.n_values, whole.n_new) == (512, 512)
    assert (fresh.file, fresh.n_values) == (tmp_path / "both" / "validation" / VALUES, 7)
    assert [merged.n_new for merged in merge(runs, tmp_path / "both")] == [0, 0]
    assert recorded(tmp_path / "both", MASKS) == 0
    assert before.items() <= {file: file.read_bytes() for file in tmp_path.rglob(VALUES)}.items()


def test_runs_of_two_questions_are_refused_with_the_difference(tmp_path):
    def other(masks):
        return masks[:, 0] * 1.0

    other.configuration = {"function": "other"}  # pyright: ignore[reportFunctionMemberAccess]
    recorded(tmp_path / "one", MASKS[:3])
    recorded(tmp_path / "two", MASKS[:3], other)
    with pytest.raises(RunError, match=r"function: value in .*one, other in .*two"):
        merge([tmp_path / "one", tmp_path / "two"], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    with pytest.raises(RunError, match="holds no values"):
        merge([tmp_path / "nowhere"], tmp_path / "both")


def test_a_store_of_the_older_schema_merges_with_a_new_one(tmp_path):
    def wide(masks):
        return masks @ np.arange(2100.0)

    wide.configuration = {"function": "wide"}  # pyright: ignore[reportFunctionMemberAccess]
    singles = single_ablations(2100)[:50]
    with sqlite3.connect(_made(tmp_path / "old") / VALUES) as database:
        database.execute("PRAGMA user_version = 1")
    recorded(tmp_path / "old", singles[:30], wide, 2100)
    recorded(tmp_path / "new", singles[20:], wide, 2100)
    for first, second in (("old", "new"), ("new", "old")):
        merged = merge([tmp_path / first, tmp_path / second], tmp_path / f"{first} first")
        assert [one.n_values for one in merged] == [50]
        assert recorded(tmp_path / f"{first} first", singles, wide, 2100) == 0


def _made(folder):
    folder.mkdir()
    return folder


def damage(file, places, seed=0):
    content, rng = bytearray(file.read_bytes()), np.random.default_rng(seed)
    for place in places:
        content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


@pytest.mark.parametrize("n_flips", [1, 40])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_whole_of_a_damaged_store_is_saved(tmp_path, seed, n_flips):
    recorded(tmp_path / "run", MASKS)
    Run(tmp_path / "run").write(CONFIGURATION, {"values": dict(values_told())})
    assert str(check_store(tmp_path / "run")).endswith("whole")
    size = (tmp_path / "run" / VALUES).stat().st_size
    places = np.random.default_rng(seed).integers(100, size, size=n_flips)
    damage(tmp_path / "run" / VALUES, places, seed)
    (saved,) = salvage(tmp_path / "run", tmp_path / "saved")
    assert 512 - 10 * n_flips <= saved.n_values <= 512
    assert check_store(tmp_path / "saved").damage == ()
    masks, found = measured_masks(tmp_path / "saved", 9, 2)
    assert np.array_equal(found, value(masks)), "no wrong number"
    assert recorded(tmp_path / "saved", MASKS) == 512 - saved.n_values


def values_told():
    return FunctionValues(value, parts(9)).configuration


def test_the_damage_is_named(tmp_path):
    recorded(tmp_path / "run", MASKS)
    file = tmp_path / "run" / VALUES
    whole = file.read_bytes()
    with sqlite3.connect(file) as database:
        database.execute("UPDATE value SET outputs = zeroblob(16) WHERE mask < x'10'")
    assert "values without a matching checksum" in str(check_store(tmp_path / "run"))
    file.write_bytes(whole[: len(whole) // 2])
    assert check_store(tmp_path / "run").damage
    file.write_bytes(b"nothing" * 1000)
    assert "file is not a database" in str(check_store(tmp_path / "run"))
    with pytest.raises(StoreError, match="does not say any more what its values depend on"):
        salvage(tmp_path / "run", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_salvage_that_fails_leaves_no_run(tmp_path, monkeypatch):
    recorded(tmp_path / "run", MASKS)

    def full(self, table, rows):
        raise StoreError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(ValueStore, "add", full)
        with pytest.raises(StoreError, match="no space"):
            salvage(tmp_path / "run", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    (saved,) = salvage(tmp_path / "run", tmp_path / "saved")
    assert saved.n_values == 512, "the same name is free"


def test_rows_of_the_write_ahead_log_and_long_rows_are_saved(tmp_path):
    def wide(masks):
        return np.repeat(masks[:, :1] * 1.0, 900, axis=1)

    wide.configuration = {"function": "wide"}  # pyright: ignore[reportFunctionMemberAccess]
    values = RecordedValues(FunctionValues(wide, parts(9)), tmp_path / "run")
    values(MASKS[:40])
    assert (tmp_path / "run" / f"{VALUES}-wal").stat().st_size > 100_000
    assert len({row.key for row in rows_in_pages(tmp_path / "run" / VALUES)}) == 40
    values.close()
    assert len({row.key for row in rows_in_pages(tmp_path / "run" / VALUES)}) == 40


@pytest.mark.parametrize("end", ["csv", "json", "safetensors", "parquet"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_come_back_from_a_file(tmp_path, end, dtype):
    if end == "parquet":
        pytest.importorskip("pyarrow")

    def typed(masks):
        return value(masks).astype(dtype)

    typed.configuration = {"function": "typed"}  # pyright: ignore[reportFunctionMemberAccess]
    recorded(tmp_path / "run", MASKS, typed)
    table = ValueTable.of(tmp_path / "run")
    assert table.values.dtype == dtype
    file = tmp_path / f"values.{end}"
    table.write(file)
    back = ValueTable.read(file)
    assert back.values.dtype == dtype
    assert np.array_equal(back.values, table.values, equal_nan=True)
    assert np.array_equal(back.masks, table.masks)
    assert (back.units, back.outputs, back.configuration) == (
        table.units, table.outputs, table.configuration
    )  # fmt: skip
    assert (back.keep(tmp_path / "back"), back.keep(tmp_path / "back")) == (512, 0)
    assert recorded(tmp_path / "back", MASKS, typed) == 0
    content = file.read_bytes()
    for number in range(30):
        damage(file, [number * len(content) // 30])
        with contextlib.suppress(MechspexError):
            found = ValueTable.read(file)
            assert np.array_equal(found.values, table.values, equal_nan=True)
            assert np.array_equal(found.masks, table.masks)
        file.write_bytes(content)


def test_an_edited_file_is_refused_and_one_of_an_older_version_is_read(tmp_path):
    recorded(tmp_path / "run", MASKS[:5])
    file, table = tmp_path / "values.csv", ValueTable.of(tmp_path / "run")
    table.write(file)
    text = file.read_text()
    *lines, last = text.splitlines()
    mask, number, *rest = last.split(",")
    edits = [
        text.replace(last, ",".join([mask, str(float(number) + 1), *rest])),
        text.replace('"function": "value"', '"function": "other"'),
        "\n".join(lines) + "\n",
    ]
    for edited in edits:
        assert edited != text
        file.write_text(edited)
        with pytest.raises(Refused, match="not what was exported .checksum.; export the run again"):
            ValueTable.read(file)
    file.write_text(re.sub(', "digest": "[0-9a-f]+"', "", text))
    assert np.array_equal(ValueTable.read(file).values, table.values, equal_nan=True)


def test_a_value_that_is_not_finite_has_one_digest(tmp_path):
    def failing(masks):
        return np.where(masks[:, 0], -np.float32(np.nan), 1.0)

    failing.configuration = {"function": "failing"}  # pyright: ignore[reportFunctionMemberAccess]
    recorded(tmp_path / "run", MASKS[:9], failing)
    table = ValueTable.of(tmp_path / "run")
    for end in ("csv", "json", "safetensors"):
        table.write(tmp_path / f"values.{end}")
        assert np.isnan(ValueTable.read(tmp_path / f"values.{end}").values).any()


def test_a_small_file_of_more_values_than_memory_holds_is_not_read(tmp_path, monkeypatch):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    recorded(tmp_path / "run", MASKS[:5])
    told = {"mechspex": json.dumps(ValueTable.of(tmp_path / "run")._about)}
    column = pa.DictionaryArray.from_arrays(np.zeros(10**6, dtype=np.int8), pa.array(["00"]))
    file = tmp_path / "values.parquet"
    parquet.write_table(pa.table({"mask": column}).replace_schema_metadata(told), file)
    assert file.stat().st_size < 10_000, "the same mask a million times"
    monkeypatch.setattr(parquet, "read_table", lambda _: pytest.fail("it was read"))
    monkeypatch.setattr("os.sysconf", lambda _: 10_000)  # a machine of 100 MB
    with pytest.raises(Refused, match="GiB, and this machine has"):
        ValueTable.read(file)


def test_other_files_and_other_questions_are_refused(tmp_path, monkeypatch):
    recorded(tmp_path / "run", MASKS[:5])
    table = ValueTable.of(tmp_path / "run")
    with pytest.raises(Refused, match="end the name in .parquet, .csv"):
        table.write(tmp_path / "values.xlsx")
    monkeypatch.setattr(value_table, "_arrow", lambda: (_ for _ in ()).throw(Refused("Parquet")))
    with pytest.raises(Refused, match="Parquet"):
        table.write(tmp_path / "values.parquet")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Refused, match="holds no values of a run"):
        ValueTable.read(tmp_path / "other.csv")
    with pytest.raises(StoreError, match="could not be written"):
        table.write(tmp_path / "nowhere" / "values.csv")
    (tmp_path / "run" / VALUES).unlink()
    assert not logs_in(tmp_path / "run")
    with pytest.raises(RunError, match="holds no values"):
        ValueTable.of(tmp_path / "run")


def test_a_store_of_an_older_version_does_not_say_its_columns_until_it_is_opened_again(tmp_path):
    recorded(tmp_path / "run", MASKS)
    with sqlite3.connect(tmp_path / "run" / VALUES) as database:
        database.execute("DELETE FROM configuration WHERE key = 'columns'")
    with pytest.raises(RunError, match="does not say what its columns stand for"):
        ValueTable.of(tmp_path / "run")
    assert recorded(tmp_path / "run", MASKS) == 0
    assert len(ValueTable.of(tmp_path / "run").masks) == 512
