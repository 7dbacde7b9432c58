"""Which function it was: a name, a digest of its code, and a digest of each thing it reads.

Values are kept by what they depend on. A function depends on its code and on what that reads:
default arguments, closures, global variables, the state of the object it is a method of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property, partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np

from mechspex.core.code_digest import OWN, code_digest, file_of, is_installed, read_globally

# Stands for what no digest can be made of.
UNKNOWN = "?"

_IDENTITY = re.compile(r"(?P<name>.*?)( (?P<code>[0-9a-f]{16})( \((?P<state>.*)\))?)?", re.DOTALL)
# Bytes of arrays read in all, and how deep lists lie in lists; what is beyond is unknown.
_LARGEST, _DEEPEST = 2**28, 20
# Objects that are being asked what they depend on: one of them may hold the function itself.
_ASKED: ContextVar[frozenset[int]] = ContextVar("asked", default=frozenset())
_PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None), type(Ellipsis))


@dataclass(frozen=True)
class Identity:
    """Which function values came from.

    Attributes:
        name: its module and name; those of its class, for an object.
        code: 16 hexadecimal digits of the SHA-256 of its code; None where that was not written.
        state: {what it reads besides the mask: 8 digits of that, or ``?`` where none can be made}.
    """

    name: str
    code: str | None = None
    state: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, function: object) -> Identity:
        """The identity of a function, method or callable object as it is now."""
        seen = _Seen()
        try:
            seen.add_callable("", function)
        except Exception:  # an object of somebody's own may raise anything when it is looked at
            seen.state["state"] = UNKNOWN
        code = hashlib.sha256("\n".join(sorted(seen.code)).encode()).hexdigest()[:16]
        return cls(name_of(function), code, dict(sorted(seen.state.items())))

    @classmethod
    def parse(cls, text: str) -> Identity:
        """The identity that `str` has written."""
        match = _IDENTITY.fullmatch(text)
        assert match is not None  # the pattern takes any text
        state = match["state"].split(", ") if match["state"] else []
        pairs = (entry.rpartition(" ") for entry in state)
        return cls(match["name"], match["code"], {what: digest for what, _, digest in pairs})

    def __str__(self) -> str:
        if self.code is None:
            return self.name
        state = ", ".join(f"{what} {digest}" for what, digest in self.state.items())
        return f"{self.name} {self.code}" + (f" ({state})" if state else "")

    @property
    def digest(self) -> str | None:
        """All of the text but the name; None where only that is known."""
        return None if self.code is None else str(self).removeprefix(f"{self.name} ")

    @property
    def certain(self) -> bool:
        """Whether all that the function reads has a digest, or is somebody's word."""
        return UNKNOWN not in self.state.values()

    def differing(self, other: Identity) -> list[str]:
        """What surely differs: ``name``, ``code``, or the name of something that is read."""
        if self.name != other.name:
            return ["name"]
        if None in (self.code, other.code):
            return []
        found = ["code"] if self.code != other.code else []
        both = sorted(self.state | other.state)
        pairs = ((what, {self.state.get(what), other.state.get(what)}) for what in both)
        return found + [what for what, two in pairs if len(two) == 2 and UNKNOWN not in two]

    def without(self, changing: Collection[str]) -> Identity:
        """The same, knowing nothing of some of what is read."""
        return replace(self, state=self.state | dict.fromkeys(changing, UNKNOWN))


def name_of(function: object) -> str:
    """Module and name of a function or method; of the class of any other callable."""
    named = function if isinstance(function, FunctionType | MethodType) else type(function)
    return f"{named.__module__}.{named.__qualname__}"


class _Seen:
    """Code and state that were met on the way from a function to all it reads."""

    def __init__(self) -> None:
        self.code: set[str] = set()
        self.state: dict[str, str] = {}
        # Kept, so that no other object gets the number of one that is gone.
        self._met: dict[int, object] = {}
        self._room = _LARGEST

    def add(self, what: str, value: object) -> None:
        """Something that is read: a digest of data, the code of what can be called."""
        if isinstance(value, ModuleType):
            self.code.add(f"{what} module {value.__name__}")
        elif _has_state(value):
            self.add_callable(what, value)
        else:
            self._note(what or "state", self._digest(value))

    def add_callable(self, what: str, function: object) -> None:
        """A function, method, class or object with all that it reads in turn."""
        if id(function) in self._met:
            return
        self._met[id(function)] = function
        if isinstance(function, MethodType):
            self.add_callable(what, function.__func__)
            self.add_callable(_inside(what, "object"), function.__self__)
        elif isinstance(function, partial):
            self.add_callable(_inside(what, "function"), function.func)
            for place, value in enumerate(function.args):
                self.add(_inside(what, f"argument {place}"), value)
            for name, value in function.keywords.items():
                self.add(_inside(what, name), value)
        elif isinstance(function, type):
            self._add_class(what, function)
        elif isinstance(function, FunctionType):
            self._add_function(what, function)
        elif _is_compiled(function):
            self._add_compiled(what, function)
        else:
            self._add_object(what, function)

    def _add_compiled(self, what: str, function: Any) -> None:
        """One written in another language: its name, and the object that it is a method of."""
        self.code.add(f"{what} {name_of(function)} {function.__name__}")
        bound = getattr(function, "__self__", None)
        if bound is not None and not isinstance(bound, ModuleType):
            self.add(_inside(what, "object"), bound)

    def _add_function(self, what: str, function: FunctionType) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        wraps = wrapped is not None and is_installed(function.__code__.co_filename)
        if wraps:
            self.add_callable(what, wrapped)
        if is_installed(function.__code__.co_filename):
            # A name with brackets is one of several.
            told = code_digest(function.__code__) if "<" in function.__qualname__ else ""
            self.code.add(f"{what} {name_of(function)} {told}")
        else:
            self.code.add(f"{what} {code_digest(function.__code__)}")
            for name, value in read_globally(function):
                self.add(name, value)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            try:
                held = cell.cell_contents
            except ValueError:  # a name that is not bound yet
                self.code.add(f"{what} {name} unbound")
                continue
            # What a decorator of a package holds besides is its own affair.
            if not wraps or isinstance(held, (*_PLAIN, np.ndarray)):
                self.add(_inside(what, name), held)
        named = function.__kwdefaults__ or {}
        for name, value in [*enumerate(function.__defaults__ or ()), *named.items()]:
            self.add(_inside(what, f"default {name}"), value)

    def _add_class(self, what: str, kind: type) -> None:
        """The code of a class and of those it derives from, and what they hold."""
        for base in kind.__mro__:
            self.code.add(f"{what} {base.__module__}.{base.__qualname__}")
            if is_installed(file_of(base.__module__)):
                continue
            for name, value in sorted(vars(base).items()):
                if isinstance(value, staticmethod | classmethod):
                    value = value.__func__
                value = value.fget if isinstance(value, property) else value
                value = value.func if isinstance(value, cached_property) else value
                if isinstance(value, FunctionType):
                    self.add_callable(_inside(what, name), value)
                elif not name.startswith(("__", "_abc_")) and not hasattr(type(value), "__get__"):
                    self.add(_inside(what, name), value)

    def _add_object(self, what: str, value: object) -> None:
        self._add_class(what, type(value))
        told = _told(value) if what else None
        if told is not None:
            self._note(what, self._digest(told))
            return
        wrapped = getattr(value, "__wrapped__", None)
        if wrapped is not None:
            self.add_callable(_inside(what, "function"), wrapped)
        held = _attributes(value)
        if held is None or _hides_state(value):
            self._note(what or "state", UNKNOWN)
            held = {
                name: part for name, part in (held or {}).items() if _is_told_anyway(name, part)
            }
        for name, part in sorted(held.items()):
            self.add(_inside(what, name), part)

    def _note(self, what: str, digest: str) -> None:
        # Two modules may have a variable of one name.
        while what in self.state:
            what += "'"
        self.state[what] = digest

    def _digest(self, value: object) -> str:
        content = hashlib.sha256()
        known = all(self._feed(content, value, _DEEPEST))
        return content.hexdigest()[:8] if known else UNKNOWN

    def _feed(self, content: Any, value: object, deeper: int) -> Iterator[bool]:
        """Put a value's bytes into a digest; False for each part that has none."""
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        if isinstance(value, _PLAIN):
            content.update(f"{kind} {value!r};".encode(errors="surrogatepass"))
            yield True
        elif isinstance(value, range | slice | np.dtype | Path | Enum):
            content.update(f"{kind} {value!r};".encode())
            yield True
        elif deeper == 0:
            yield False
        elif isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach"):
            yield self._feed_array(content, value)
        elif isinstance(value, Mapping):
            content.update(f"{kind} {len(value)};".encode())
            for key, part in cast(Mapping[object, object], value).items():
                yield from self._feed(content, key, deeper - 1)
                yield from self._feed(content, part, deeper - 1)
        elif isinstance(value, list | tuple):
            content.update(f"{kind} {len(value)};".encode())
            for part in value:
                yield from self._feed(content, part, deeper - 1)
        elif isinstance(value, set | frozenset):
            content.update(f"{kind} {' '.join(sorted(map(self._digest, value)))};".encode())
            yield True
        elif isinstance(value, ModuleType):
            content.update(f"module {value.__name__};".encode())
            yield True
        else:
            yield self._feed_callable(content, value)

    def _feed_array(self, content: Any, value: Any) -> bool:
        try:
            if hasattr(value, "detach"):
                value = value.detach().cpu()
                try:
                    value = value.numpy()
                except TypeError:  # numpy has no bfloat16; float32 holds every one of its numbers
                    value = value.float().numpy()
            array = np.ascontiguousarray(value)
        except Exception:  # an array of somebody's own may raise anything
            return False
        self._room -= array.nbytes
        if array.dtype.hasobject or self._room < 0:
            return False
        content.update(f"{array.dtype.str} {array.shape};".encode())
        content.update(array.tobytes())
        return True

    def _feed_callable(self, content: Any, value: object) -> bool:
        if id(value) in self._met:
            content.update(f"{name_of(value)} met before;".encode())
            return True
        inner = _Seen()
        inner._met, inner._room = self._met, self._room
        inner.add_callable("", value)
        content.update(
            "\n".join([*sorted(inner.code), *map(str, sorted(inner.state.items()))]).encode()
        )
        self._room = inner._room
        return UNKNOWN not in inner.state.values()


def _told(value: object) -> dict[object, object] | None:
    """What an object says that it depends on; None where that is nothing, or made in this file."""
    asked = _ASKED.get()
    if id(value) in asked:
        return None
    token = _ASKED.set(asked | {id(value)})
    try:
        told = getattr(value, "configuration", None)
    finally:
        _ASKED.reset(token)
    if not isinstance(told, dict) or Identity.parse(str(told.get("function"))).code is not None:
        return None
    return cast(dict[object, object], told)


def _has_state(value: object) -> bool:
    """Whether something is code, or an object whose attributes are told apart one by one."""
    if callable(value) or isinstance(value, partial):
        return True
    data = (*_PLAIN, np.ndarray, np.generic, np.dtype, Mapping, list, tuple, set, frozenset)
    return not isinstance(value, (*data, range, slice, Path, Enum)) and not hasattr(value, "detach")


def _attributes(value: object) -> dict[str, object] | None:
    """What an object holds by name; None for one that holds it out of sight."""
    # What a property keeps once it is asked follows from the rest; what a class sets aside as well.
    aside = getattr(type(value), "_aside", ())
    held = {
        name: part
        for name, part in getattr(value, "__dict__", {}).items()
        if not isinstance(getattr(type(value), name, None), cached_property) and name not in aside
    }
    slots = [name for base in type(value).__mro__ for name in _slots(base)]
    held |= {name: getattr(value, name) for name in slots if hasattr(value, name)}
    if not hasattr(value, "__dict__") and not slots and type(value) is not object:
        # A class without attributes in Python: empty, or written in another language.
        return {} if _is_python(type(value)) else None
    return held


def _is_told_anyway(name: str, part: object) -> bool:
    """Whether an attribute of an object that hides others is worth a digest of its own."""
    return not name.startswith("_") and isinstance(part, (*_PLAIN, np.ndarray))


def _slots(kind: type) -> list[str]:
    slots = vars(kind).get("__slots__", ())
    names = [slots] if isinstance(slots, str) else list(slots)
    private = [name for name in names if name.startswith("__") and not name.endswith("__")]
    mangled = [f"_{kind.__name__.lstrip('_')}{name}" for name in private]
    return [n for n in names if n not in (*private, "__dict__", "__weakref__")] + mangled


def _is_python(kind: type) -> bool:
    return "__module__" in vars(kind) and kind.__module__ != "builtins" and "__dict__" in vars(kind)


def _hides_state(value: object) -> bool:
    """Whether attributes are not all there is: models, files, data frames of installed packages."""
    return any(
        is_installed(file_of(base.__module__)) and not file_of(base.__module__).startswith(OWN)
        for base in type(value).__mro__
        if base.__module__ not in ("builtins", "abc", "typing", "collections.abc")
    )


def _is_compiled(function: object) -> bool:
    """Whether something is told by its name: a function of C, or one of NumPy's."""
    if not hasattr(function, "__name__"):
        return False
    kind = type(function)
    wraps = hasattr(function, "__wrapped__") and not kind.__module__.startswith("numpy")
    return not wraps and is_installed(file_of(kind.__module__))


def _inside(what: str, name: object) -> str:
    return f"{what}.{name}" if what else str(name)
