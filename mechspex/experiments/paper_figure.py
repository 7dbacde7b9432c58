"""What is known of a figure of the literature before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["stated", "result files", "vector graphics", "read by eye", "computed"]


@dataclass(frozen=True)
class PaperFigure:
    """A figure of a paper and how it is drawn again here.

    Attributes:
        name: its name in the shell; in Python with underscores.
        paper: the paper, with the year and the figure's own number.
        title: what it is called here.
        shows: what it shows, in one sentence.
        differs: what differs from the paper's, in one line.
        minutes: what it takes on two slow cores, in small and in full.
        model: whether a language model is measured.
        tasks: the tasks it is drawn for, the first if none is asked for; empty where it has none.
    """

    name: str
    paper: str
    title: str
    shows: str
    differs: str
    minutes: tuple[float | int, float | int]
    model: bool = False
    tasks: tuple[str, ...] = ()

    @property
    def function(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")


@dataclass(frozen=True)
class Published:
    """A number of a paper.

    Attributes:
        what: what the number is of.
        value: the number, or what is said in place of one.
        origin: how it is known: stated in text or table, read from result files, measured off
            vector graphics, read by eye, or computed from result files.
        panel, x: where it is drawn beside ours; nowhere if not given.
    """

    what: str
    value: float | int | str
    origin: Origin
    panel: str = ""
    x: float | int | str | None = None


def series(
    panel: str,
    what: str,
    at: tuple[float | int | str, ...],
    values: tuple[float | int, ...],
    origin: Origin,
) -> tuple[Published, ...]:
    """A line of a paper's figure, a number a point."""
    return tuple(
        Published(what, value, origin, panel, x) for x, value in zip(at, values, strict=True)
    )


@dataclass(frozen=True)
class Claim:
    """What a paper says, and whether it holds here.

    Attributes:
        says: the claim.
        holds: whether it holds here; None where what was measured does not decide it.
        measured: the numbers that say so, with their interval.
    """

    says: str
    holds: bool | None
    measured: str
