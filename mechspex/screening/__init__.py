"""Screening: a cheap score proposes, exact ablation decides."""

from mechspex.screening.agreement import Agreement, agreement
from mechspex.screening.candidates import Candidates, Stratum
from mechspex.screening.recall import Missed, missed
from mechspex.screening.screen import screen
from mechspex.screening.survivors import Screening, survivors

__all__ = [
    "Agreement",
    "Candidates",
    "Missed",
    "Screening",
    "Stratum",
    "agreement",
    "missed",
    "screen",
    "survivors",
]
