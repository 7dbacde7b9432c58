"""Batches of rows: every row once, nothing read that is shared, little filled up."""

import numpy as np
import pytest

from mechspex.prompts.row_batches import Rows

N_READ = 3


def batches_of(rows, tokens_at_once):
    rows = Rows(rows, N_READ)
    order, found = rows.in_order(tokens_at_once), []
    while len(order):
        found.append(rows.next_batch(order, tokens_at_once))
        order = order[len(found[-1].rows) :]
    return found


def random_rows(n_rows, kind, seed=0):
    rng = np.random.default_rng(seed)
    text = rng.integers(1, 99, 120)
    rows = []
    for _ in range(n_rows):
        kept = rng.random(120) < rng.choice([0.3, 0.5, 0.9])
        kept[-N_READ:] = True
        kept[: 80 if kind == "late" else 0] = True
        rows.append(text[kept])
    return rows


@pytest.mark.parametrize("tokens_at_once", [1, 200, 2048, 1 << 17])
@pytest.mark.parametrize("kind", ["any", "late"])
@pytest.mark.parametrize("n_rows", [1, 6, 200])
def test_every_row_is_in_one_batch_that_is_little_filled_up(kind, n_rows, tokens_at_once):
    rows = random_rows(n_rows, kind)
    batches = batches_of(rows, tokens_at_once)
    assert sorted(np.concatenate([b.rows for b in batches])) == list(range(n_rows))
    for batch in batches:
        lengths = np.array([len(rows[number]) for number in batch.rows])
        assert batch.length == lengths.max()
        assert batch.prefix <= lengths.min() - N_READ, "what is read is not shared"
        beginnings = {tuple(rows[number][: batch.prefix]) for number in batch.rows}
        assert len(beginnings) == 1
        if len(batch.rows) > 1:
            assert batch.n_tokens <= tokens_at_once
            filled = (batch.length - lengths).sum() / batch.n_tokens
            assert filled <= 0.1 or batch.n_tokens <= tokens_at_once / 8


def test_many_rows_still_fill_a_forward():
    batches = batches_of(random_rows(400, "any"), 2048)
    mean = np.mean([batch.n_tokens for batch in batches[:-1]])
    assert mean > 0.8 * 2048
