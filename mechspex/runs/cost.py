"""What a run took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mechspex.core.counted import counted
from mechspex.core.json_values import read_number, read_whole


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        masks: different masks whose values the answer rests on.
        measured: how many of them this call measured; the others were in the store.
        seconds_measuring, seconds: the time that this call spent in the value function, and in all.
        values, values_measured: the same masks as `masks` and `measured`, times the outputs that
            each was measured on; None in answers of older versions.
    """

    masks: int
    measured: int
    seconds_measuring: float
    seconds: float
    values: int | None = None
    values_measured: int | None = None

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Cost:
        """The cost that `dataclasses.asdict` wrote; `TypeError` and the like for anything else.

        Args:
            record: what `asdict` returned, or JSON of it read back.
        """
        values, measured = (record.get(name) for name in ("values", "values_measured"))
        return cls(
            masks=read_whole(record["masks"]),
            measured=read_whole(record["measured"]),
            seconds_measuring=read_number(record["seconds_measuring"]),
            seconds=read_number(record["seconds"]),
            values=None if values is None else read_whole(values),
            values_measured=None if measured is None else read_whole(measured),
        )

    def line(self, n_outputs: int) -> str:
        """Masks, forwards, seconds and rate in one line.

        Args:
            n_outputs: how many outputs most masks have.
        """
        plain = self.masks * n_outputs
        values = plain if self.values is None else self.values
        # What is found is tested on other outputs, which may be more.
        fresh = "" if values == plain else ", more in the tests,"
        measured = self.values_measured
        measured = self.measured * n_outputs if measured is None else measured
        rate = measured / max(self.seconds_measuring, 1e-9)
        return (
            f"{counted(self.masks, 'mask')} × {counted(n_outputs, 'output')}{fresh} = "
            f"{values:,} forwards, "
            f"{self.measured:,} masks measured now in {self.seconds_measuring:.0f} s"
            + (f" ({rate:.0f} values/s)" if self.measured else "")
            + f"; {self.seconds:.0f} s in all"
        )
