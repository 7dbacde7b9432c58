import pandas as pd
import pytest

from mechspex.core.csv_tables import write_csv
from mechspex.errors import StoreError

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y,z"]})


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_csv(tmp_path / "table.csv", FRAME)
    assert pd.read_csv(tmp_path / "table.csv").equals(FRAME)

    def full(self, file, **_):
        file.write_text("a,b\n1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    with pytest.raises(StoreError, match=r"table\.csv could not be written \(No space left"):
        write_csv(tmp_path / "table.csv", FRAME)
    assert pd.read_csv(tmp_path / "table.csv").equals(FRAME)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(StoreError, match="could not be written"):
        write_csv(tmp_path / "table.csv", FRAME)
