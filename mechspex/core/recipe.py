"""How another process makes the same value function: something to import, and JSON for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from typing import Any

from mechspex.core.checks import told
from mechspex.core.errors import Refused


@dataclass(frozen=True)
class Recipe:
    """How a worker makes a value function: it imports the maker and calls it.

    A class of your own gives its `recipe`, and can then be measured by other processes.

    Attributes:
        maker: what is imported, ``package.module:function``.
        given: its keyword arguments, as JSON can hold them.
        loads: what it loads that takes much memory, such as a model: a worker keeps one at a time.
    """

    maker: str
    given: Mapping[str, Any] = field(default_factory=dict)
    loads: str = ""

    def make(self) -> Any:
        """Call the maker.

        Raises:
            Refused: there is no such module, or nothing of this name in it.
        """
        return imported(self.maker)(**self.given)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON can hold it.

        Raises:
            Refused: an argument that JSON cannot hold.
        """
        record = {"maker": self.maker, "given": dict(self.given), "loads": self.loads}
        try:
            json.dumps(record)
        except (TypeError, ValueError) as error:
            raise Refused(
                f"the recipe of {self.maker} cannot be sent to a worker ({error}); give numbers, "
                "texts, lists and dictionaries"
            ) from None
        return record


def import_path(thing: Any) -> str:
    """Where a function or class can be imported from: ``package.module:function``.

    Raises:
        Refused: it cannot be: it was made inside a function, or typed into a notebook.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    path = f"{module}:{name}"
    try:
        found = None if module == "__main__" or name is None else imported(path)
    except Refused:
        found = None
    if found is not thing:
        raise Refused(
            f"{name or told(thing)} cannot be imported by a worker; write it at the top of a "
            "module (a .py file of its own), or give its value function a mechspex.Recipe as "
            "`recipe`"
        )
    return path


def imported(path: str) -> Any:
    """What an `import_path` names.

    Raises:
        Refused: there is no such module, or nothing of this name in it.
    """
    module, _, name = path.partition(":")
    try:
        return reduce(getattr, name.split("."), import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise Refused(f"{path} cannot be imported ({error}); is it installed here?") from None
