"""Numbers of things, and times, in words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 prompt``, ``8 prompts``, ``1,000 masks``.

    Args:
        number: how many.
        noun: what they are, in the singular; its plural ends in s.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def time_in_words(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.4 h``.

    Args:
        seconds: how long.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
