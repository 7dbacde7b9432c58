"""Numbers of things in words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """``1 prompt``, ``8 prompts``, ``1,000 masks``.

    Args:
        number: how many.
        noun: what they are, in the singular; its plural ends in s.
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
