"""The plan: what a search will do, decided and checked before anything is measured."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Bool

from mechspex.core.checks import CONTEXTS, PROBABILITY, check_max_order, check_memory, check_seed
from mechspex.core.errors import BudgetError, Refused
from mechspex.decoders import DECODERS, Decoder, Exhaustive, find_decoder
from mechspex.decoders.spex.design import SpexDesign
from mechspex.explanation.designs import (
    USUAL_KEEP,
    Adaptive,
    Design,
    DesignName,
    MaskDesign,
    SpexMasks,
    design_of,
    find_design,
)

_DEFAULT_MASKS = 1_000
# With a target masks double, at most up to so many.
MOST_MASKS = 16_000
# Beyond this many units the table of all 2^n values is no longer an answer.
_MOST_EXACT_UNITS = 20
# Masks of the first of doubling rounds.
_FIRST_ROUND = 250
# Held-out masks: so many at least, and a share of the others; rounds towards a target score with
# the least, as the first answer would else wait for those of the last round.
_FEWEST_HELD_OUT, _HELD_OUT_SHARE = 100, 5
# Where something without a name of its own lies in memory, which differs from process to process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.IGNORECASE)


@dataclass(frozen=True)
class ExactTests:
    """How the terms that were found are tested by exact ablation.

    Attributes:
        level: the false discovery rate, of the terms that stand out among all sets of units and of
            those that are confirmed among the terms tested.
        contexts: measure the confirmed terms in so many random masks of the other units (of the
            survivors, after a screen) as well (see `validate`); 0 for the whole model alone.

    Raises:
        Refused: a level outside (0, 1), or a single context.
    """

    level: float = 0.05
    contexts: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", PROBABILITY("level", self.level))
        object.__setattr__(self, "contexts", CONTEXTS("contexts", self.contexts))


@dataclass(frozen=True)
class Plan:
    """Everything an answer depends on beyond the values.

    Attributes:
        n_units: how many units the masks are of.
        n_masks: how many masks the decoder may use.
        design: which masks those are.
        decoder: what recovers a function from them; ``exhaustive`` measures all masks instead.
        called: how the decoder was asked for: its name, or its class with its options.
        tests: how the terms found are tested.
        seed: the only source of randomness.
        validated_on: the configuration of held-out outputs, where the terms are tested on such.
        screened_by: method and digest of a screen, where one went before.
    """

    n_units: int
    n_masks: int
    design: Design
    decoder: Decoder
    called: str
    tests: ExactTests
    seed: int
    validated_on: Mapping[str, str] | None = None
    screened_by: str | None = None

    @classmethod
    def of(
        cls,
        n_units: int,
        *,
        decoder: str | Decoder = "automatic",
        design: DesignName | Design | None = None,
        n_masks: int | None = None,
        tests: ExactTests | None = None,
        seed: int = 0,
    ) -> Plan:
        """The plan for so many units, with what is not given filled in.

        Raises:
            Refused: options that make no sense, alone or together.
            BudgetError: fewer masks than the decoder or the design needs.
        """
        check_seed(seed)
        chosen = find_decoder(decoder)
        if chosen.max_order is not None:
            check_max_order(chosen.max_order)
        design = find_design(design, chosen.name)
        if n_masks is None:
            n_masks = _default_masks(design, n_units)
        if chosen.name == "automatic" and has_few_masks(n_units, n_masks):
            chosen = replace(find_decoder("exhaustive"), max_order=chosen.max_order)
        check_enough(n_masks, chosen, n_units)
        check_memory(n_units * n_masks, f"{n_masks:,} masks of {n_units:,} units")
        # All masks have no density of their own; what is written of them is that of many.
        exact = chosen.name == "exhaustive"
        design = _sized(design, n_units, _DEFAULT_MASKS if exact else n_masks)
        called = _called(decoder, chosen)
        plan = cls(n_units, n_masks, design, chosen, called, tests or ExactTests(), seed)
        if not plan.is_exact:
            # SPEX's design refuses too few masks, and says how many it needs.
            _ = plan.structure
        return plan

    @property
    def is_exact(self) -> bool:
        """Whether all 2^n masks are measured."""
        return isinstance(self.decoder, Exhaustive)

    @property
    def masks(self) -> MaskDesign:
        """How the masks are drawn, in rounds or at once."""
        return self.design.masks if isinstance(self.design, Adaptive) else self.design

    @property
    def keep(self) -> float:
        """The density of the masks."""
        keep = self.masks.keep
        assert keep is not None, "filled in by Plan.of"
        return keep

    @property
    def density_of_a_screen(self) -> float:
        """The density at which the survivors of a screen are judged: few units ablated, as in the
        whole model, also where SPEX's masks ablate half of them."""
        return USUAL_KEEP if isinstance(self.masks, SpexMasks) else self.keep

    @property
    def target_r2(self) -> float | None:
        """The held-out R² at which the search stops."""
        return self.design.target_r2 if isinstance(self.design, Adaptive) else None

    @property
    def focused(self) -> bool:
        """Whether later masks lie around the sets that are least certain."""
        return isinstance(self.design, Adaptive) and self.design.focused

    @cached_property
    def structure(self) -> SpexDesign | None:
        """SPEX's structure in the masks, where they have one."""
        return self.masks.structure(self.n_units, self.n_masks, self.seed)

    @property
    def drawn_masks(self) -> Bool[np.ndarray, "mask unit"]:
        """The masks of the design."""
        if self.structure is not None:
            return self.structure.masks
        return self.masks.draw(self.n_units, self.n_masks, self.seed)

    @property
    def round_sizes(self) -> list[int]:
        """How many masks are measured in all after each round; a round doubles them."""
        if not isinstance(self.design, Adaptive):
            return [self.n_masks]
        needed = self.decoder.minimum_masks(self.n_units)
        sizes = [min(self.n_masks, max(_FIRST_ROUND, needed))]
        while sizes[-1] < self.n_masks:
            sizes.append(min(self.n_masks, 2 * sizes[-1]))
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain numbers and text, with the versions of what carries it out: what a run
        keeps, and what tells one question from another."""
        structure = None if self.is_exact else self.structure
        described = self.masks.name if structure is None else str(structure)
        settings: dict[str, Any] = {
            # The key of kept runs: a new word would be a new question to them.
            "budget": self.n_masks,
            "target_r2": self.target_r2,
            "keep": self.keep,
            "design": "all masks" if self.is_exact else described,
            "adaptive": self.focused,
            "level": self.tests.level,
            "contexts": self.tests.contexts,
            "decoder": self.called,
            "max_order": self.decoder.max_order,
            "seed": self.seed,
            "versions": _versions(),
        }
        if self.validated_on is not None:
            settings["validated on"] = dict(self.validated_on)
        if self.screened_by is not None:
            settings["screen"] = self.screened_by
        return settings


def has_few_masks(n_units: int, n_masks: int) -> bool:
    """Whether all masks of so many units are no more than `n_masks`."""
    return n_units <= _MOST_EXACT_UNITS and 2**n_units <= n_masks


def check_enough(n_masks: int, decoder: Decoder, n_units: int) -> None:
    """Refuse fewer masks than a decoder needs, before any is measured."""
    needed = decoder.minimum_masks(n_units)
    if n_masks < needed:
        raise BudgetError(
            f"n_masks = {n_masks}: decoder {decoder.name!r} needs at least {needed} for "
            f"{n_units} units"
        )


def n_held_out(n_masks: int, target_r2: float | None) -> int:
    """How many fresh masks score an answer from `n_masks`.

    Args:
        n_masks: how many masks the decoder learns from.
        target_r2: the R² at which a search in rounds stops.
    """
    if target_r2 is not None:
        return _FEWEST_HELD_OUT
    return max(_FEWEST_HELD_OUT, n_masks // _HELD_OUT_SHARE)


def renew(given: dict[str, Any], old: dict[str, Any]) -> None:
    """Put the old keywords of `explain` into its design, decoder and tests."""
    decoder, max_order = given.get("decoder", "automatic"), old.get("max_order")
    if max_order is not None:
        decoder = given["decoder"] = replace(find_decoder(decoder), max_order=max_order)
    if {"level", "contexts"} & set(old):
        tests = given.get("tests") or ExactTests()
        named = {name: old[name] for name in ("level", "contexts") if name in old}
        given["tests"] = replace(tests, **named)
    keep, target, adaptive = old.get("keep"), old.get("target_r2"), old.get("adaptive", False)
    if keep is None and target is None and not adaptive:
        return
    name = given.get("design")
    if isinstance(name, Design):
        raise Refused(f"keep, target_r2 and adaptive belong to the design; write them into {name}")
    given["design"] = design_of(
        name,
        keep=keep,
        target_r2=target,
        adaptive=adaptive,
        decoder=find_decoder(decoder).name,
    )


def _sized(design: Design, n_units: int, n_masks: int) -> Design:
    if isinstance(design, Adaptive):
        return replace(design, masks=design.masks.sized(n_units, n_masks))
    return design.sized(n_units, n_masks)


def _default_masks(design: Design, n_units: int) -> int:
    if isinstance(design, Adaptive):
        return _DEFAULT_MASKS if design.target_r2 is None else MOST_MASKS
    return max(_DEFAULT_MASKS, design.minimum_masks(n_units))


def _called(asked: str | Decoder, chosen: Decoder) -> str:
    """A decoder's name where it is the one of that name, up to its largest order; else its class
    and options. Functions among these go by their names, so that another process says the same."""
    if isinstance(asked, str):
        return chosen.name
    plain = replace(asked, max_order=None)
    if asked.max_order is not None and plain == DECODERS.get(asked.name):
        return chosen.name
    return _ADDRESS.sub("", repr(replace(chosen, max_order=None)))


def _versions() -> dict[str, str]:
    packages = ("mechspex", "numpy", "torch", "transformer-lens", "transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
