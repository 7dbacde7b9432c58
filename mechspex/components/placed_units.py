"""Units that are ablated at some tokens alone: which tokens those are, in each row of a forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from mechspex.components.alignment import segments
from mechspex.core.errors import AblationError, UnknownUnitError
from mechspex.core.units import Unit
from mechspex.tasks.teacher_forcing import ForcedRows
from mechspex.tasks.tokens import Tokens

# The span of every prompt's last token, unless the task calls another one so.
END = "end"


@dataclass(frozen=True, eq=False)
class PlacedUnits:
    """Units of one hook point, one entry for each token at which a unit is ablated.

    Attributes:
        columns: their mask columns.
        numbers: their places along the hook's unit axis.
        rows: the rows of the tokens; None where the units have the same positions in all rows.
        positions: the positions of the tokens.
        n_rows: how many rows there are.
    """

    columns: Int[np.ndarray, " entry"]
    numbers: Int[np.ndarray, " entry"]
    rows: Int[np.ndarray, " entry"] | None
    positions: Int[np.ndarray, " entry"]
    n_rows: int

    @classmethod
    def of(
        cls, members: Sequence[tuple[int, Unit]], forced: ForcedRows, tokens: Tokens
    ) -> PlacedUnits | None:
        """Where some units lie in the rows of some prompts; None where there is no unit.

        Args:
            members: the units, each with its mask column.
            forced: the prompts and their rows.
            tokens: the task, with its spans.

        Raises:
            UnknownUnitError: a position that the prompts do not have.
            AblationError: a span that a prompt does not have, or a unit twice at one token.
        """
        if not members:
            return None
        named = any(isinstance(unit.position, str) for _, unit in members)
        places = range(len(forced.prompts)) if named else range(1)
        found = [
            (column, unit, place * forced.n_sequences + sequence, position)
            for place in places
            for column, unit, position in _of_prompt(members, forced, tokens, place)
            for sequence in range(forced.n_sequences if named else 1)
        ]
        columns, units, rows, positions = zip(*found, strict=True)
        return cls(
            columns=np.array(columns),
            numbers=np.array([unit.number for unit in units]),
            rows=np.array(rows) if named else None,
            positions=np.array(positions),
            n_rows=forced.n_sequences * len(forced.prompts),
        )

    def n_rows_of(self, rows: slice) -> int:
        """How many rows of a batch differ in where units lie; 1 where they are alike."""
        return 1 if self.rows is None else len(range(self.n_rows)[rows])

    def times_kept(
        self,
        keep: Shaped[Tensor, "mask row pos along"],
        masks: Tensor,
        rows: slice,
        positions: range,
    ) -> None:
        """Multiply, in place, how much is kept at each token by how much of its unit is.

        Args:
            keep: how much is kept there so far.
            masks: ``[mask, 1 or row, unit]``.
            rows: the rows that are run.
            positions: the positions that are run.
        """
        inside = (self.positions >= positions.start) & (self.positions < positions.stop)
        if self.rows is not None:
            run = range(self.n_rows)[rows]
            inside &= (self.rows >= run.start) & (self.rows < run.stop)
        columns, numbers = self._at(self.columns, inside), self._at(self.numbers, inside)
        at = self._at(self.positions, inside) - positions.start
        if self.rows is None:
            keep[:, :, at, numbers] *= masks[:, :, columns]
        else:
            row = self._at(self.rows, inside) - range(self.n_rows)[rows].start
            of_masks = row if masks.shape[1] > 1 else torch.zeros_like(row)
            keep[:, row, at, numbers] *= masks[:, of_masks, columns]

    def first_positions(self) -> dict[int, int]:
        """{mask column: the first position at which its unit is ablated, in any row}."""
        order = np.argsort(-self.positions, kind="stable")
        return dict(zip(self.columns[order].tolist(), self.positions[order].tolist(), strict=True))

    @staticmethod
    def _at(entries: Int[np.ndarray, " entry"], inside: np.ndarray) -> Int[Tensor, " chosen"]:
        return torch.from_numpy(entries[inside])


def tokens_at(
    places: Sequence[int | str], forced: ForcedRows, tokens: Tokens
) -> Bool[np.ndarray, "place row pos"]:
    """Which tokens of some rows lie at each of some places.

    Args:
        places: positions, and names of spans.
        forced: the prompts and their rows.
        tokens: the task, with its spans.

    Raises:
        UnknownUnitError, AblationError: a place that a prompt does not have, or two that share a
            token.
    """
    n_prompts, n_sequences, length = forced.rows.shape
    at = np.zeros((len(places), n_prompts, n_sequences, length), dtype=bool)
    for number in range(n_prompts):
        pieces = _pieces(forced, tokens, number)
        for which, place in enumerate(places):
            positions = _positions(place, forced.prompts[number], forced.length, pieces)
            at[which, number, :, positions.start : positions.stop] = True
    if (at.sum(axis=0) > 1).any():
        raise AblationError(
            f"of {', '.join(map(str, places))} some share a token; take places that do not overlap"
        )
    return at.reshape(len(places), n_prompts * n_sequences, length)


def _of_prompt(
    members: Sequence[tuple[int, Unit]], forced: ForcedRows, tokens: Tokens, place: int
) -> list[tuple[int, Unit, int]]:
    """The units with the positions that they have in one prompt."""
    number, length = forced.prompts[place], forced.length
    pieces = _pieces(forced, tokens, place)
    found, taken = [], set()
    for column, unit in members:
        for position in _positions(unit.position, number, length, pieces):
            if (unit.number, position) in taken:
                raise AblationError(
                    f"{unit.name} stands twice at position {position} of a prompt of {length} "
                    "tokens, once by another name; list it once"
                )
            taken.add((unit.number, position))
            found.append((column, unit, position))
    return found


def _pieces(forced: ForcedRows, tokens: Tokens, place: int) -> dict[str, range]:
    """The named pieces of one prompt."""
    length = forced.length
    spans = {} if tokens.spans is None else tokens.spans[forced.prompts[place]]
    return {END: range(length - 1, length), **segments(length, spans)}


def _positions(
    place: int | str | None, number: int, length: int, pieces: Mapping[str, range]
) -> range:
    """The positions of a prompt that a place is."""
    if isinstance(place, str):
        if place not in pieces:
            raise AblationError(
                f"prompt {number} has no span {place!r}, where units are ablated; it has "
                f"{', '.join(pieces)}: name spans in Task(…, spans=[…]) or "
                "load_task(…, spans=True)"
            )
        return pieces[place]
    if place is None or not -length <= place < length:
        raise UnknownUnitError(
            f"no position {place} in a prompt of {length} tokens; "
            f"it has 0 … {length - 1}, or -1 … -{length} from the end"
        )
    first = place + length if place < 0 else place
    return range(first, first + 1)
