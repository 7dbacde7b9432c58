"""Old keywords: what a call was written with before still works, and says what to write now."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mechspex.core.errors import Refused

P = ParamSpec("P")
R = TypeVar("R")

Renew = Callable[[dict[str, Any], dict[str, Any]], None]


def takes_old(
    written_now: Mapping[str, str], renew: Renew | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take old keywords too, with a DeprecationWarning that names the new ones.

    Args:
        written_now: {old keyword: what is written in its place}. The name of a parameter is a
            keyword that was renamed.
        renew: for the keywords that were not just renamed: given {parameter: value} as the call has
            it and {old keyword: value}, puts into the first what the second says.

    Returns:
        A decorator; what it decorates has `written_now` as its attribute `old_keywords`.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @wraps(function)
        def called(*args: P.args, **options: P.kwargs) -> R:
            keywords: dict[str, Any] = dict(options)
            old = {name: keywords.pop(name) for name in written_now if name in keywords}
            if not old:
                return function(*args, **options)
            told = "; ".join(f"{name}= is now {written_now[name]}" for name in old)
            warnings.warn(f"{function.__name__}: {told}", DeprecationWarning, stacklevel=2)
            try:
                given = dict(signature.bind_partial(*args, **keywords).arguments)
            except TypeError as error:
                raise Refused(f"{function.__name__}: {error}; {told}") from None
            for name in [name for name in old if written_now[name] in signature.parameters]:
                if written_now[name] in given:
                    raise Refused(f"{name} is now {written_now[name]}; give that alone")
                given[written_now[name]] = old.pop(name)
            if renew is not None and old:
                renew(given, old)
            return function(**given)  # type: ignore[call-arg]

        called.__dict__["old_keywords"] = dict(written_now)
        return called

    return decorator
