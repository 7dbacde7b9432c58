"""Doors: functions that users call, before which every argument is read and every slip named."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from mechspex.core.checks import Reader
from mechspex.core.errors import Refused

P = ParamSpec("P")
R = TypeVar("R")


def door(**readers: Reader) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Read the arguments of a function before it runs; refuse a call that it cannot take.

    Args:
        readers: {parameter: what reads it}, see `mechspex.core.checks`. A parameter's own default
            is not read.

    Returns:
        A decorator; what it decorates has `readers` as its attribute `readers`.
    """

    def decorator(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        strange = set(readers) - set(signature.parameters)
        assert not strange, f"{function.__qualname__} has no parameters {strange}"

        @wraps(function)
        def called(*args: P.args, **options: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **options)
            except TypeError:
                _read(signature, readers, _first_of(signature, args))
                raise _complaint(function, signature, args, options) from None
            _read(signature, readers, given.arguments)
            return function(*given.args, **given.kwargs)

        called.__dict__["readers"] = readers
        return called

    return decorator


def _read(
    signature: inspect.Signature, readers: Mapping[str, Reader], arguments: dict[str, Any]
) -> None:
    """Put what is meant in the place of what was given."""
    for name, reader in readers.items():
        if name in arguments and arguments[name] is not signature.parameters[name].default:
            try:
                arguments[name] = reader(name, arguments[name])
            except Refused as error:
                raise _with_order(error, signature, reader, name, arguments) from None


def _with_order(
    error: Refused,
    signature: inspect.Signature,
    reader: Reader,
    name: str,
    arguments: Mapping[str, Any],
) -> Refused:
    """The same error; with the order of the arguments, where two of them changed places."""
    for other in set(_by_position(signature)) & set(arguments) - {name}:
        # Text can be anything, and may be looked for on the network.
        if isinstance(arguments[other], str) or arguments[other] is None:
            continue
        try:
            reader(name, arguments[other])
        except Refused:
            continue
        order = [place for place in _by_position(signature) if place not in ("self", "cls")]
        return type(error)(f"{error}; the order is {', '.join(order)}")
    return error


def _by_position(signature: inspect.Signature) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, one in signature.parameters.items() if one.kind in kinds]


def _first_of(signature: inspect.Signature, args: tuple[Any, ...]) -> dict[str, Any]:
    """The arguments that have a place: what is wrong with these is the better complaint."""
    return dict(zip(_by_position(signature), args, strict=False))


def _complaint(
    function: Callable[..., object],
    signature: inspect.Signature,
    args: tuple[Any, ...],
    options: Mapping[str, Any],
) -> Refused:
    """Why a function cannot be called so, and how it can."""
    called = function.__qualname__.removesuffix(".__init__").rsplit(".", 1)[-1]
    places = _by_position(signature)
    own = [name for name in places if name not in ("self", "cls")]
    for name in options:
        if name not in signature.parameters:
            near = get_close_matches(name, signature.parameters, 1)
            named = [one for one in signature.parameters if one not in ("self", "cls")]
            next_step = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(named)}"
            return Refused(f"{called} has no argument {name!r}; {next_step}")
    if len(args) > len(places):
        others = [f"{name}=…" for name in signature.parameters if name not in places]
        return Refused(
            f"{called} takes {', '.join(own) or 'nothing'} by position, and {len(args)} were "
            f"given; name the others: {', '.join(others)}"
        )
    twice = [name for name in places[: len(args)] if name in options]
    if twice:
        return Refused(f"{called} was given {twice[0]} twice; give it once")
    empty = inspect.Parameter.empty
    missing = [
        name
        for name, one in signature.parameters.items()
        if one.default is empty and name not in options and name not in places[: len(args)]
    ]
    described = _described(function, missing[0])
    return Refused(f"{called} needs {' and '.join(missing)} as well{described}")


def _described(function: Callable[..., object], name: str) -> str:
    """What the docstring says of a parameter, as far as its first full stop."""
    text = " ".join((inspect.getdoc(function) or "").split())
    found = re.search(rf" {name}: (.+?)[.;](?: |$)", text)
    return f": {found[1]}" if found else ""
