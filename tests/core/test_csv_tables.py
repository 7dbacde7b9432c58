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


def test_no_cell_is_a_formula(tmp_path):
    texts = ["=1+1", '=HYPERLINK("x")', "+cmd", "-a", "@SUM(1)", "\t=1", "a=1", "-1.5", "", "é"]
    frame = pd.DataFrame({"unit": texts, "effect": [-1.0] * len(texts), "n": range(len(texts))})
    write_csv(tmp_path / "table.csv", frame)
    back = pd.read_csv(tmp_path / "table.csv", keep_default_na=False)
    wanted = [f"'{text}" if text.strip()[:1] in tuple("=+-@") and text != "-1.5" else text
              for text in texts[:-1]]  # fmt: skip
    assert back.unit.tolist() == [*wanted[:-1], "", "é"]
    assert back.effect.tolist() == frame.effect.tolist(), "numbers stay numbers"
    assert back.n.tolist() == frame.n.tolist()
