"""The code of a function: what of it counts, what it reads, and whose it is."""

from __future__ import annotations

import dis
import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

# What compiled-in code, and the code of installed packages, is told by: their names.
_INSTALLED = tuple(
    str(Path(sysconfig.get_path(name))) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
OWN = str(Path(__file__).parents[1])


def code_digest(code: CodeType) -> str:
    """A digest of what is carried out: instructions, constants, names; not of lines and files."""
    content = hashlib.sha256(code.co_code)
    content.update(
        repr((code.co_names, code.co_freevars, code.co_argcount, code.co_flags)).encode()
    )
    for constant in code.co_consts:
        told = code_digest(constant) if isinstance(constant, CodeType) else _constant(constant)
        content.update(f"{type(constant).__name__} {told};".encode(errors="surrogatepass"))
    return content.hexdigest()[:16]


def _constant(constant: object) -> str:
    # A frozen set is printed in an order that changes from process to process.
    return repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def read_globally(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The global variables that a function and what is nested in it reads."""
    names, attributes = _names(function.__code__)
    for name in sorted(names):
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        yield name, value
        # Of a module of the user's own that, too, which is read of it.
        if isinstance(value, ModuleType) and not is_installed(file_of(value.__name__)):
            read = sorted(attributes & vars(value).keys())
            yield from ((f"{name}.{attribute}", vars(value)[attribute]) for attribute in read)


def _names(code: CodeType) -> tuple[set[str], set[str]]:
    """Names of the global variables and of the attributes that code reads."""
    names, attributes = set[str](), set[str]()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(str(step.argval))
        elif step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(str(step.argval))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = _names(constant)
            names, attributes = names | inner[0], attributes | inner[1]
    return names, attributes


def file_of(module_name: str) -> str:
    """The file of a module, by which `is_installed` tells whose it is."""
    module = sys.modules.get(module_name)
    # A notebook and a prompt have no file; what is compiled in has none either.
    if module_name in ("__main__", "__mp_main__"):
        return ""
    return getattr(module, "__file__", None) or _INSTALLED[0]


def is_installed(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to this one."""
    return file.startswith((*_INSTALLED, OWN, "<frozen"))
