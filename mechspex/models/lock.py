"""One lock a model: a forward with hooks in it is no other thread's."""

from __future__ import annotations

from threading import RLock
from weakref import WeakKeyDictionary

from mechspex.models.load_model import Model

_LOCKS: WeakKeyDictionary[object, RLock] = WeakKeyDictionary()  # pyright: ignore[reportInvalidTypeForm]
_MAKING = RLock()


def lock_of(model: Model) -> RLock:  # pyright: ignore[reportInvalidTypeForm]
    """The lock of a bridge, shared with every bridge around the same weights; a thread that holds
    it may take it again."""
    with _MAKING:
        return _LOCKS.setdefault(model.original_model, RLock())
