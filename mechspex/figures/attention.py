"""Where heads look on one prompt: a map of tokens × tokens for each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mechspex.core.errors import Refused
from mechspex.core.units import UnitSet
from mechspex.figures.style import (
    INK,
    NORMAL,
    PAPER,
    SMALL,
    Picture,
    colour_bar,
    entitle,
    in_ink,
    scale,
    short,
    wrapped,
)

# Inches of a token's row, at least; of the names of tokens, a letter.
_ROW, _LETTER = 0.155, 0.062
_MOST_TOKENS, _MOST_HEADS, _LETTERS = 80, 24, 14


@runtime_checkable
class Patterns(Protocol):
    """The attention patterns of some heads on a prompt."""

    @property
    def heads(self) -> UnitSet: ...
    @property
    def tokens(self) -> tuple[str, ...]: ...

    @property
    def patterns(self) -> Float[np.ndarray, "head query key"]:
        """How much of its attention each head gives from each token to each; rows sum to 1."""
        ...


def attention(
    found: Patterns,
    *,
    roles: Mapping[str, str] | Mapping[str, Iterable[str]] | None = None,
    heading: str = "Where heads look",
) -> Figure:
    """A map of tokens × tokens a head: how much attention goes from a row's token to a column's.

    Args:
        found: the patterns to draw, of `mechspex.attention_patterns`.
        roles: {head: role}, or {role: heads}, named above the maps.
        heading: the title.

    Raises:
        Refused: more heads or tokens than one picture can hold.
    """
    n_heads, n_tokens = len(found.heads), len(found.tokens)
    if n_heads > _MOST_HEADS or n_tokens > _MOST_TOKENS:
        raise Refused(
            f"{n_heads} heads on {n_tokens} tokens are too many for one picture; choose up to "
            f"{_MOST_HEADS} heads and {_MOST_TOKENS} tokens"
        )
    tokens = [short(token, _LETTERS) for token in found.tokens]
    names = _LETTER * max(map(len, tokens)) + 0.15
    side = max(_ROW * n_tokens, 1.4)
    across = max(1, min(n_heads, int(13 / (side + 0.3))))
    down = -(-n_heads // across)
    size = (across * (side + 0.25) + names + 1.0, down * (side + 0.4) + names + 0.8)
    figure = Picture(
        figsize=(max(size[0], 3.8), max(size[1], 3.0)), layout="constrained", facecolor=PAPER
    )
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    colours = scale(found.patterns)
    colours.norm.vmax = 1.0
    role_of = _by_head(roles or {})
    for number, panel in enumerate(panels[:n_heads]):
        panel.imshow(
            found.patterns[number], cmap=colours.cmap, norm=colours.norm, interpolation="nearest"
        )
        below = number + across >= n_heads
        _name_tokens(panel, tokens, left=number % across == 0, below=below)
        name = found.heads.names[number]
        role = role_of.get(name, "").replace("_", " ")
        title = wrapped(f"{name} · {role}" if role else name, max(side, 1.4))
        panel.set_title(title, loc="left", fontsize=NORMAL, color=INK)
    for empty in panels[n_heads:]:
        empty.remove()
    colour_bar(figure, panels[:n_heads], colours, "share of attention")
    entitle(figure, None, panels[0], heading, "rows look, columns are looked at")
    return in_ink(figure, None)


def _name_tokens(axes: Axes, tokens: Sequence[str], *, left: bool, below: bool) -> None:
    places = range(len(tokens))
    axes.set_yticks(places, tokens if left else [""] * len(tokens))
    axes.set_xticks(places, tokens if below else [""] * len(tokens), rotation=90)
    axes.tick_params(length=0, labelsize=SMALL)


def _by_head(roles: Mapping[str, str] | Mapping[str, Iterable[str]]) -> dict[str, str]:
    """{head: role} of either form."""
    found: dict[str, str] = {}
    for key, value in roles.items():
        if isinstance(value, str):
            found[key] = value
        else:
            found |= dict.fromkeys(value, key)
    return found
