"""Damaged files: a stored number is what was written, or a typed error says that it is not."""

import random
from pathlib import Path

import numpy as np
import pytest
from mutated_files import mutated
from result_laws import through_json

import mechspex as mx
from mechspex.core.json_values import CHECKSUM, read_json
from mechspex.core.result import Result
from mechspex.core.value_function import FunctionValues
from mechspex.errors import MechspexError, Refused, RunError, StoreError
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.store import VALUES

UNITS = mx.parts(["salt", "leek", "oil", "rice", "bay", "dill"])
N_MUTATIONS = 500


def soup(masks):
    return np.outer(2.0 * (masks[:, 1] & masks[:, 3]) + masks[:, 0], [0.9, 1.0, 1.2])


def answers() -> dict[str, Result]:
    explanation = mx.explain(soup, units=UNITS)
    return {
        "explanation": explanation,
        "function": explanation.function,
        "circuit": mx.Circuit(UNITS, (0, 1, 3)).with_links(explanation.validation),
        "sweep": mx.sweep(soup, units=UNITS, order=2),
    }


ANSWERS = answers()


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_a_record_holds_it_is_an_answer_or_a_typed_error(name):
    result, rng = ANSWERS[name], random.Random(0)
    record, n_refused = through_json(result), 0
    for _ in range(N_MUTATIONS):
        damaged = mutated(record, rng)
        try:
            found = type(result).from_dict(damaged)
        except Refused:
            n_refused += 1
            continue
        assert str(found)
        assert found.to_pandas() is not None
        assert found._repr_html_()
        assert found.to_record()
    assert n_refused > N_MUTATIONS // 10


@pytest.mark.parametrize("name", ANSWERS)
def test_no_flipped_byte_of_a_file_shows_another_answer(name, tmp_path):
    result, file = ANSWERS[name], tmp_path / "answer.json"
    result.save(file)
    written, rng = file.read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(written), 300):
        flipped = bytearray(written)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        try:
            assert type(result).load(file) == result, "only blanks, or the name of the checksum"
        except Refused:
            refused += 1
    assert refused > 150


def test_a_changed_number_is_told_with_the_next_step(tmp_path):
    file = tmp_path / "explanation.json"
    ANSWERS["explanation"].save(file)
    text = file.read_text()
    assert CHECKSUM in text
    file.write_text(text.replace('"ablated": 0.0', '"ablated": 0.5'))
    for read in (mx.Explanation.load, mx.load):
        with pytest.raises(RunError, match="is damaged.*give the same command again"):
            read(file)


def test_answers_of_older_versions_without_a_checksum_are_read(tmp_path):
    file = tmp_path / "explanation.json"
    ANSWERS["explanation"].save(file)
    text = file.read_text()
    start = text.index(f',\n "{CHECKSUM}"')
    file.write_text(text[:start] + "\n}\n")
    assert mx.Explanation.load(file) == ANSWERS["explanation"]
    assert CHECKSUM not in read_json(file)


def test_a_damaged_answer_is_found_again(tmp_path):
    first = mx.explain(soup, units=UNITS, run=tmp_path)
    file = tmp_path / "explanation.json"
    file.write_text(file.read_text().replace('"ablated": 0.0', '"ablated": 0.5'))
    again = mx.explain(soup, units=UNITS, run=tmp_path)
    assert again.to_pandas().equals(first.to_pandas())
    assert again.ablated == first.ablated
    assert again.cost.measured == 0
    assert mx.Explanation.load(tmp_path) == again


def test_a_damaged_store_is_right_or_a_typed_error(tmp_path):
    masks = mx.sample_masks(6, 40, keep=0.5, seed=0)
    right = soup(masks)
    values = RecordedValues(FunctionValues(soup, UNITS), tmp_path / "whole")
    values(masks)
    values.close()
    written, rng = (tmp_path / "whole" / VALUES).read_bytes(), np.random.default_rng(0)
    (tmp_path / "flipped").mkdir()
    outcomes = []
    for number, place in enumerate(rng.choice(len(written), N_MUTATIONS)):
        flipped = bytearray(written)
        flipped[place] ^= 1 << int(rng.integers(8))
        if number % 5 == 0:
            flipped = flipped[:place]
        for left in (tmp_path / "flipped").iterdir():
            left.unlink()
        (tmp_path / "flipped" / VALUES).write_bytes(flipped)
        outcomes.append(_outcome(tmp_path / "flipped", masks, right))
    assert outcomes.count("right") > 50
    assert outcomes.count("typed") > 50


def _outcome(folder: Path, masks: np.ndarray, right: np.ndarray) -> str:
    values = None
    try:
        values = RecordedValues(FunctionValues(soup, UNITS), folder)
        assert np.array_equal(values(masks), right)
    except (StoreError, RunError):
        return "typed"
    except MechspexError as error:
        raise AssertionError from error
    finally:
        if values is not None:
            values.close()
    return "right"
