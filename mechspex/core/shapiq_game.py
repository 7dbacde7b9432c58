"""A game of shapiq as a value function: its players are the units, its coalitions the masks."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from mechspex.core.checks import told
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.units import parts
from mechspex.core.value_function import FunctionValues


@runtime_checkable
class Game(Protocol):
    """What is used of `shapiq.Game`; an imputer is one as well."""

    n_players: int
    player_name_lookup: dict[str, int]

    def __call__(self, coalitions: Bool[np.ndarray, "mask unit"]) -> Any: ...


def _as_game(name: str, given: object) -> Any:
    """Reads a game of shapiq."""
    if not isinstance(given, Game) or isinstance(given, type):
        raise Refused(f"{name} = {told(given)}: give a shapiq.Game or one of its imputers")
    return given


class ShapiqGame(FunctionValues):
    """A game or imputer of shapiq as a value function.

    Values are those that the game returns: less its `normalization_value`, if it has one. Players
    have the names that the game knows, else ``player 0``, ``player 1`` …

    Args:
        game: a `shapiq.Game`.

    Raises:
        Refused: something that is no game.
        ShapeError: its values have another shape.
    """

    @door(game=_as_game)
    def __init__(self, game: Game) -> None:
        named = {column: name for name, column in game.player_name_lookup.items()}
        names = [named.get(number, f"player {number}") for number in range(game.n_players)]
        super().__init__(game, parts(names))
