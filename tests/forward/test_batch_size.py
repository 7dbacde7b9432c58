"""How many rows go through the model at once: as many as pay, and as fit."""

import pytest
import torch

from mechspex.errors import MeasurementError
from mechspex.forward import batch_size
from mechspex.forward.batch_size import BatchSize


def test_a_batch_grows_while_that_pays_and_stays():
    size = BatchSize(torch.device("cpu"), bytes_per_token=1)
    rate = {2048: 1.0, 4096: 1.5, 8192: 1.52}
    seen = []
    for _ in range(20):
        seen.append(size.tokens)
        size.took(size.tokens, size.tokens, size.tokens / rate[size.tokens])
    assert seen[:3] == [2048] * 3
    assert seen[9:] == [4096] * 11, "8192 tokens gain too little"


def test_batches_that_were_not_filled_say_nothing():
    size = BatchSize(torch.device("cpu"), bytes_per_token=1)
    for _ in range(9):
        size.took(100, 100, 1.0)
    assert size.tokens == 2048


def test_memory_bounds_a_batch(monkeypatch):
    monkeypatch.setattr(batch_size, "_free_bytes", lambda device: 1 << 20)
    size = BatchSize(torch.device("cpu"), bytes_per_token=4096)
    assert size.tokens == 128, "half of what is free"
    for _ in range(9):
        size.took(size.tokens, size.tokens, 1.0 / size.tokens)
    assert size.tokens == 128


def test_out_of_memory_halves_until_one_row_is_left():
    size = BatchSize(torch.device("cpu"), bytes_per_token=1)
    size.ran_out(rows=64, length=15)
    assert size.tokens == 32 * 15
    with pytest.raises(MeasurementError, match="one row of 15 tokens"):
        size.ran_out(rows=1, length=15)


def test_a_longer_prompt_after_the_size_was_found_finds_its_own():
    size = BatchSize(torch.device("cpu"), bytes_per_token=1)
    size.ran_out(rows=64, length=15)
    assert size.tokens // 15 == 32
    assert size.tokens // 60 == 8, "as many tokens are fewer rows"
    size.ran_out(rows=8, length=60)
    assert size.tokens // 60 == 4, "and fewer where attention needs more"
    size.ran_out(rows=2, length=300)
    assert size.tokens // 300 == 1, "never less than a row"
