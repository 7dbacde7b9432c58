"""Damaged stores: whoever reads them, it is right or a typed error, never a raw traceback."""

import numpy as np
import pytest

from mechspex.core.masks import all_masks
from mechspex.core.units import parts
from mechspex.core.value_function import FunctionValues
from mechspex.errors import MechspexError, StoreError
from mechspex.runs.check_store import check_store
from mechspex.runs.measured import measured_masks
from mechspex.runs.merge import merge
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import list_runs
from mechspex.runs.salvage import salvage
from mechspex.runs.store_file import VALUES
from mechspex.runs.value_table import ValueTable

MASKS = all_masks(6)


def value(masks):
    return np.stack([masks @ np.arange(1.0, 7.0), masks[:, 0] / 3], axis=1)


value.configuration = {"function": "value"}  # pyright: ignore[reportFunctionMemberAccess]


def asked_again(folder, new):
    values = RecordedValues(FunctionValues(value, parts(6)), folder)
    try:
        return MASKS, values(MASKS)
    finally:
        values.close()


def exported(folder, new):
    table = ValueTable.of(folder)
    return table.masks, table.values


def merged(folder, new):
    merge([folder], new)
    return measured_masks(new, 6, 2)


def salvaged(folder, new):
    salvage(folder, new)
    return measured_masks(new, 6, 2)


def looked_at(folder, new):
    list_runs()
    check_store(folder)
    return measured_masks(folder, 6, 2)


def test_a_damaged_row_is_not_quoted_at_length(tmp_path):
    """SQLite quotes all of a text that is no UTF-8: here what the store says of itself."""

    def long(masks):
        return masks @ np.arange(6.0)

    long.configuration = {"function": "long " * 300}  # pyright: ignore[reportFunctionMemberAccess]
    recorded = RecordedValues(FunctionValues(long, parts(6)), tmp_path)
    recorded(MASKS)
    recorded.close()
    content = (tmp_path / VALUES).read_bytes()
    (tmp_path / VALUES).write_bytes(content.replace(b"long long long", b"long \xfcong long"))
    with pytest.raises(StoreError, match="cannot be read .* the file is damaged") as told:
        ValueTable.of(tmp_path)
    assert len(str(told.value)) < 300 + len(str(tmp_path))
    with pytest.raises(StoreError) as told:
        asked_again(tmp_path, None)
    assert len(str(told.value)) < 300 + len(str(tmp_path))
    assert len(str(check_store(tmp_path))) < 300 + len(str(tmp_path))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    values = RecordedValues(FunctionValues(value, parts(6)), folder)
    values(MASKS)
    values.close()
    return (folder / VALUES).read_bytes()


@pytest.mark.parametrize("reader", [asked_again, exported, merged, salvaged, looked_at])
def test_a_reader_of_a_damaged_store_is_right_or_says_so(reader, written, tmp_path, monkeypatch):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    rng, outcomes = np.random.default_rng(1), []
    for number in range(60):
        content = bytearray(written)
        # In the head, in what the store says of itself, and anywhere.
        place = rng.integers([100, 8192, len(content)][number % 3])
        content[place] ^= 1 << int(rng.integers(8))
        if number % 10 == 9:
            del content[place:]
        run = tmp_path / str(number)
        run.mkdir()
        (run / VALUES).write_bytes(content)
        try:
            masks, found = reader(run, tmp_path / f"new {number}")
        except MechspexError:
            outcomes.append("typed")
            continue
        outcomes.append("right")
        assert np.array_equal(found, value(masks))
    assert {"right", "typed"} <= set(outcomes)
