"""Numbers that a caller may get wrong, refused in the same words wherever they are asked for."""

from __future__ import annotations

from mechspex.core.errors import Refused


def check_level(level: float) -> None:
    """Refuse a false discovery rate that is none."""
    if not 0 < level < 1:
        raise Refused(f"level = {level}: give a probability strictly between 0 and 1")


def check_keep(keep: float) -> None:
    """Refuse a density at which nothing or everything would be kept."""
    if not 0 < keep < 1:
        raise Refused(f"keep = {keep}: give a probability strictly between 0 and 1")


def check_contexts(contexts: int) -> None:
    """Refuse a number of contexts that has no spread."""
    if contexts < 0 or contexts == 1:
        raise Refused(f"contexts = {contexts}: give at least 2, or 0 for the whole model alone")


def check_target_r2(target_r2: float) -> None:
    """Refuse an R² that is reached at once or never."""
    if not 0 < target_r2 < 1:
        raise Refused(f"target_r2 = {target_r2}: give a number between 0 and 1")


def check_max_order(max_order: int) -> None:
    """Refuse sets of no units."""
    if max_order < 1:
        raise Refused(f"max_order = {max_order}: give an order of at least 1, or None")


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes."""
    if seed < 0:
        raise Refused(f"seed = {seed}: give a whole number from 0 up")


def check_from(least: int, **numbers: int) -> None:
    """Refuse whole numbers below `least`, by name."""
    for name, number in numbers.items():
        if number < least:
            raise Refused(f"{name} = {number}: give a whole number from {least} up")
