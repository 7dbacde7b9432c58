"""Mutated files of every kind that is read: an answer or a typed error, and no wrong number.

`tests/benchmarks/mutations.py` reads ten thousand of each; here are a few.
"""

import contextlib
import importlib

import pytest
from files_read import FILES, WHOLE
from mutated_files import FileKind, tally_of

from mechspex.core.errors import MechspexError, Refused

N_INPUTS = 24


@pytest.mark.parametrize("kind", FILES, ids=lambda kind: kind.name)
def test_a_mutated_file_is_read_or_refused_with_a_typed_error(kind, tmp_path):
    found = tally_of(kind, tmp_path, N_INPUTS, seed=1)
    assert not found.raw
    assert found.refused + found.equal + found.other == N_INPUTS
    assert not found.wrong, "what its checksum does not match is not read"


@pytest.mark.parametrize("kind", [*FILES, *WHOLE], ids=lambda kind: kind.name)
def test_a_pickle_in_its_place_does_not_run(kind, tmp_path):
    canary, folder = tmp_path / "canary", tmp_path / "there"
    folder.mkdir()
    file = kind.make(folder)
    # It would make a file, were it ever loaded.
    file.write_bytes(b"cio\nopen\n(V" + str(canary).encode() + b"\nVw\ntR.")
    with contextlib.suppress(MechspexError):
        kind.read(file)
    assert not canary.exists()
    pickle_of(file)
    assert canary.exists(), "the pickle is one"


def pickle_of(file):
    """What no line of mechspex does."""
    with file.open("rb") as opened:
        importlib.import_module("pickle").load(opened).close()


def test_the_tally_sees_raw_errors_wrong_numbers_and_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("mutated_files.PATIENCE", 0.05)

    def made(folder):
        (folder / "numbers").write_text("123456789" * 20)
        return folder / "numbers"

    def read(file):
        text = file.read_text()
        if "-" in text:
            raise Refused("a number that is negative")
        while " " in text or "x" in text:
            pass
        return int(text)

    found = tally_of(FileKind("numbers", made, read, seal=b"9"), tmp_path, 200, seed=0)
    assert found.refused > 0
    assert found.other > 0
    assert found.wrong + found.unsealed == found.other
    assert {told.split(":")[0] for told in found.raw} == {
        "ValueError",
        "UnicodeDecodeError",
        "Hang",
    }
    assert found.refused + found.equal + found.other + sum(found.raw.values()) == 200
