"""What a run took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        masks: different masks whose values the answer rests on.
        measured: how many of them this call measured; the others were in the store.
        seconds_measuring, seconds: the time that this call spent in the value function, and in all.
    """

    masks: int
    measured: int
    seconds_measuring: float
    seconds: float

    def line(self, n_outputs: int) -> str:
        """Masks, forwards, seconds and rate in one line.

        Args:
            n_outputs: how many outputs each mask has.
        """
        rate = self.measured * n_outputs / max(self.seconds_measuring, 1e-9)
        return (
            f"{self.masks:,} masks × {n_outputs} outputs = {self.masks * n_outputs:,} forwards, "
            f"{self.measured:,} masks measured now in {self.seconds_measuring:.0f} s"
            + (f" ({rate:.0f} values/s)" if self.measured else "")
            + f"; {self.seconds:.0f} s in all"
        )
