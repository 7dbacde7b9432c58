"""Models whose circuits are known, and the exact truth about them by brute force."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mechspex.core.errors import Refused
from mechspex.truth.brute_force import truth
from mechspex.truth.gates import GATES, load_gates
from mechspex.truth.known_model import KnownModel
from mechspex.truth.letter_models import ADDITIVE, BACKUP, load_additive, load_backup
from mechspex.truth.programs import PROGRAMS, load_program

__all__ = ["KNOWN_MODELS", "KnownModel", "known_model", "truth"]

_LOADERS: dict[str, tuple[str, Callable[[], KnownModel]]] = {
    **{name: (what, partial(load_program, name)) for name, what in PROGRAMS.items()},
    **{name: (gates[0], partial(load_gates, name)) for name, gates in GATES.items()},
    "backup": (BACKUP, load_backup),
    "additive": (ADDITIVE, load_additive),
}
KNOWN_MODELS = {name: what for name, (what, _) in _LOADERS.items()}


def known_model(name: str) -> KnownModel:
    """A model whose circuit is known: a compiled program, gates, backup heads, or the control.

    Args:
        name: a name of `KNOWN_MODELS`.

    Raises:
        Refused: no model has that name.
    """
    if name not in _LOADERS:
        raise Refused(f"no known model {name!r}; choose {', '.join(_LOADERS)}")
    return _LOADERS[name][1]()
