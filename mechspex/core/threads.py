"""One thread for many small products of matrices, which several get in each other's way in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

P = ParamSpec("P")
R = TypeVar("R")


def on_one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with one BLAS thread, and restore the number after.

    Decoding solves thousands of systems of a few hundred unknowns: with two threads it takes as
    long or up to four times as long, and one more processor (tests/benchmarks/decoders_ioi.md).
    """

    @wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **options)

    return called
