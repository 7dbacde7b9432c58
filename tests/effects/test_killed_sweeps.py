"""A real sweep killed at random moments; `tests/benchmarks/kills.py` does it 500 times."""

from killed_sweeps import kill_sweeps

import mechspex as mx


def test_a_killed_sweep_loses_nothing_and_gives_the_same_answer(tiny, tiny_task, tmp_path):
    values = mx.ComponentValues(tiny, tiny_task, mx.heads(tiny, positions=range(-3, 0)))
    tally = kill_sweeps(values, tmp_path, n_kills=4)
    assert tally.kills >= 4
    assert tally.acknowledged > 0
    assert (tally.lost, tally.wrong, tally.answers_differ, tally.beyond_a_batch) == (0, 0, 0, 0)
