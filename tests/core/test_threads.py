"""Decoding takes one BLAS thread, and gives back what it found."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mechspex.core.threads import on_one_thread


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_while_it_runs_and_as_many_as_before_after_it(before, fails):
    @on_one_thread
    def seen(word):
        if fails:
            raise ValueError(word)
        return word, blas_threads()

    with threadpool_limits(before, user_api="blas"):
        found = blas_threads()
        if fails:
            with pytest.raises(ValueError, match="soup"):
                seen("soup")
        else:
            word, inside = seen("soup")
            assert word == "soup"
            assert set(inside) == {1}
        assert blas_threads() == found
