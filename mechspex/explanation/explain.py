"""The whole workflow: draw masks, measure them, decode, score on fresh masks, validate exactly."""

from __future__ import annotations

import platform
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mechspex.core.json_values import write_json
from mechspex.core.masks import both_ends
from mechspex.core.restricted import RestrictedValues
from mechspex.core.units import Term, UnitSet, check_same_units
from mechspex.core.value_function import ValuesLike, as_value_function
from mechspex.decoders import Decoder, Exhaustive, find_decoder
from mechspex.decoders.spex.design import SpexDesign
from mechspex.effects.validate import LARGEST_ORDER, validate
from mechspex.effects.validation import Validation
from mechspex.errors import BudgetError, MeasurementError, Refused
from mechspex.explanation.explanation import Cost, Explanation
from mechspex.explanation.mask_search import exact_search, random_search
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import CONFIGURATION, VALIDATION, run_folder
from mechspex.screening import Candidates, Screening, missed
from mechspex.screening.screen import Method
from mechspex.screening.screened import FEWEST_SURVIVORS, digest_of, prior_of, screened
from mechspex.set_functions.set_function import SetFunction

Design = Literal["random", "mixed", "spex"]

_DEFAULT_BUDGET = 1_000
_DEFAULT_KEEP = 0.9
# With a target masks double, at most up to this budget.
_LARGEST_BUDGET = 16_000
# Beyond this many units the table of all 2^n values is no longer an answer.
_MOST_EXACT_UNITS = 20
# How many terms are reported, each of them validated.
_SINGLES, _INTERACTIONS = 10, 20
# Terms below this share of the value's variance are not worth an exact test.
_SMALLEST_SHARE = 1e-6


def explain(
    value_function: ValuesLike,
    *,
    units: UnitSet | None = None,
    budget: int | None = None,
    target_r2: float | None = None,
    keep: float | None = None,
    decoder: str | Decoder = "automatic",
    design: Design | None = None,
    adaptive: bool = False,
    max_order: int | None = None,
    level: float = 0.05,
    validate_on: ValuesLike | None = None,
    screen: Method | Candidates | ValuesLike | None = None,
    contexts: int = 0,
    run: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Explanation:
    """Find which units act alone and which act together.

    It draws `budget` random masks, measures them and recovers a sparse set function from them. It
    scores that function on fresh masks (a fifth as many, at least 100) and measures the strongest
    terms exactly. Where all 2^n masks fit in the budget they are measured instead, and the answer
    is exact.

    >>> import mechspex as mx
    >>> def soup(kept):  # salt alone is nothing, salt in water is soup
    ...     return 3.0 * (kept[:, 0] & kept[:, 1]) + 1.0 * kept[:, 2]
    >>> explanation = mx.explain(soup, units=mx.parts(["salt", "water", "bread"]))
    >>> explanation.interactions()[["units", "order", "effect"]]
              units  order  effect
    0  salt × water      2     3.0

    Args:
        value_function: `ComponentValues` or anything of its shape; or a plain function of Boolean
            masks, together with `units`.
        units: the units of a plain function.
        budget: how many masks the decoder may use; 1,000 if neither it nor `target_r2` is given.
        target_r2: stop as soon as the held-out R² reaches this; masks double round by round, up
            to the budget.
        keep: the probability with which a mask keeps a unit; 0.9 if not given, 0.5 in SPEX's
            design.
        decoder: ``automatic``, ``additive``, ``pursuit``, ``proxyspex``, ``kernel``, ``spex``,
            ``exhaustive``, or a decoder of your own.
        design: ``random`` masks; ``mixed``, every second one of them at ½, where sets of several
            units show that are hardly ever ablated together at 0.9; or those of ``spex`` (see
            `SpexDesign`), which show sets of up to five units that have no part in any smaller set.
            ``spex`` for the decoder of that name, else ``random``.
        adaptive: measure in doubling rounds, and spend half of each further one on masks around
            the sets that answers from halves of the masks do not agree on.
        max_order: the largest interaction wanted; the decoder's own choice if not given.
        level: the false discovery rate, of the terms that stand out among all sets of units and of
            those that are confirmed among the terms tested.
        validate_on: the same units on other outputs (fresh prompts), where the terms are tested:
            terms that were chosen for standing out on some prompts stand out there by chance as
            well. `value_function` itself if not given; then read the intervals with that in mind.
        screen: ``first_order`` or ``second_order``: units are scored by gradients first (see
            `mechspex.screen`), the search ablates only the strongest of them (at least 100, twice
            as many until they explain 0.9 of what random masks of all units do, at most 800) and
            those of the sets proposed, and keeps all others. What the screen predicts is the
            search's prior; its proposals are tested exactly like the terms that the search finds,
            and `mechspex.missed` estimates what it overlooks. ``ablation`` is a screen for
            functions without gradients. A value function is a proxy: the same units on a cheaper
            model, which is screened in place of `value_function`; the agreement of both is
            measured first, on a sample. `Candidates` are a screen made beforehand.
        contexts: measure the confirmed terms in so many random masks of the other units (of the
            survivors, after a screen) as well (see `validate`); 0 for the whole model alone.
        run: name or folder in which every value and the answer are kept: no mask is measured
            twice, and the same call again returns the same answer at once. None keeps values in
            memory.
        seed: the seed of the masks and of the decoder.
        progress: progress bars on stderr.

    Raises:
        Refused: bad arguments; among them `BudgetError`, fewer masks than the decoder needs.
        MeasurementError: the value with everything kept is not finite.
        FailedMasksError: too few masks have a finite value.
    """
    start = time.perf_counter()
    function = as_value_function(value_function, units)
    if validate_on is not None:
        validate_on = as_value_function(validate_on)
        check_same_units("validate_on", validate_on.units, "the value function", function.units)
    plan = partial(
        _plan,
        decoder=decoder,
        budget=budget,
        target_r2=target_r2,
        keep=keep,
        design=design,
        adaptive=adaptive,
        max_order=max_order,
        level=level,
        contexts=contexts,
        seed=seed,
    )
    folder = None if run is None else run_folder(run)
    screening = candidates = prior = None
    whole = function if validate_on is None else validate_on
    if screen is not None:
        # Bad arguments are refused before the screen is paid for.
        plan(min(function.n_units, FEWEST_SURVIVORS))
        below = None if folder is None else folder / "screen"
        density = _DEFAULT_KEEP if keep is None else keep
        candidates, columns, screening = screened(function, screen, below, density, seed, progress)
        prior = prior_of(candidates, columns, max_order)
        function = RestrictedValues(function, columns)
        validate_on = None if validate_on is None else RestrictedValues(validate_on, columns)
    chosen, settings = plan(function.n_units)
    if validate_on is not None:
        settings["validated on"] = validate_on.configuration
    if candidates is not None:
        settings["screen"] = f"{candidates.method} {digest_of(candidates)}"
    with ExitStack() as stack:
        recorded = stack.enter_context(closing(RecordedValues(function, folder, progress=progress)))
        kept = None if folder is None else _kept_answer(folder, recorded.configuration, settings)
        if kept is not None:
            cost = Cost(kept.cost.masks, 0, 0.0, time.perf_counter() - start)
            return replace(kept, cost=cost)
        # Whatever precision the search was measured in, what is found is tested in the model's own.
        exact = (function if validate_on is None else validate_on).in_own_dtype
        tested_on = recorded
        if exact is not function:
            below = None if folder is None else folder / VALIDATION
            fresh = RecordedValues(exact, below, progress=progress)
            tested_on = stack.enter_context(closing(fresh))
        explanation = _answer(
            recorded, tested_on, chosen, settings, screening, prior, folder, start
        )
        if candidates is not None and candidates.rejected:
            below = None if folder is None else folder / "rejected"
            ledger = RecordedValues(whole.in_own_dtype, below, progress=progress)
            ledger = stack.enter_context(closing(ledger))
            explanation = _with_missed(explanation, ledger, candidates)
    if folder is not None:
        explanation.save(folder)
    return explanation


def _with_missed(
    explanation: Explanation, recorded: RecordedValues, candidates: Candidates
) -> Explanation:
    """The same with an estimate of what the screen overlooked, where anything was confirmed."""
    validation, screening = explanation.validation, explanation.screening
    assert screening is not None
    held = zip(validation.terms, validation.confirmed, strict=True)
    proposed = set(screening.terms)
    if not any(sure and len(term) == 2 and term in proposed for term, sure in held):
        return explanation
    recorded.stage = "sets that the screen rejected"
    # What the search found by itself is no merit of the screen.
    rows = [row for row, term in enumerate(validation.terms) if term in proposed]
    overlooked = missed(recorded, candidates, validation.rows(rows))
    cost = explanation.cost
    return replace(
        explanation,
        screening=replace(screening, missed=overlooked),
        cost=replace(
            cost,
            masks=cost.masks + recorded.used,
            measured=cost.measured + recorded.measured,
            seconds_measuring=cost.seconds_measuring + recorded.seconds,
        ),
    )


def _answer(
    recorded: RecordedValues,
    tested_on: RecordedValues,
    decoder: Decoder,
    settings: dict[str, Any],
    screening: Screening | None,
    prior: SetFunction | None,
    folder: Path | None,
    start: float,
) -> Explanation:
    """Search with `recorded`, test what is found on `tested_on` (the same, or fresh outputs)."""
    configuration = recorded.configuration
    if folder is not None:
        write_json(folder / CONFIGURATION, {"values": configuration, "settings": settings})
    clean, ablated = _ends(recorded)
    if isinstance(decoder, Exhaustive):
        recovery = exact_search(recorded, decoder, settings)
    else:
        recovery = random_search(recorded, decoder, settings, prior)
    tested_on.stage = "validating"
    proposed = () if screening is None else screening.terms
    terms = list(dict.fromkeys([*strongest_terms(recovery.function), *proposed]))
    validation = validate(tested_on, terms, level=settings["level"])
    around = _in_contexts(tested_on, validation, settings)
    # A set: without fresh outputs both are the same.
    ledgers = {recorded, tested_on}
    return Explanation(
        units=recorded.units,
        outputs=recorded.outputs,
        configuration=configuration,
        settings=settings,
        clean=clean,
        ablated=ablated,
        recovery=recovery,
        validation=validation,
        in_contexts=around,
        cost=Cost(
            masks=sum(ledger.used for ledger in ledgers),
            measured=sum(ledger.measured for ledger in ledgers),
            seconds_measuring=sum(ledger.seconds for ledger in ledgers),
            seconds=time.perf_counter() - start,
        ),
        folder=folder,
        screening=screening,
    )


def _in_contexts(
    recorded: RecordedValues, validation: Validation, settings: dict[str, Any]
) -> Validation | None:
    """The confirmed terms in random masks of the other units, where that was asked for."""
    held = zip(validation.terms, validation.confirmed, strict=True)
    confirmed = [term for term, holds in held if holds]
    if not settings["contexts"] or not confirmed:
        return None
    recorded.stage = "in random contexts"
    return validate(
        recorded,
        confirmed,
        **{name: settings[name] for name in ("level", "contexts", "keep", "seed")},
    )


def _plan(
    n_units: int,
    decoder: str | Decoder,
    *,
    budget: int | None,
    target_r2: float | None,
    keep: float | None,
    design: Design | None,
    adaptive: bool,
    max_order: int | None,
    level: float,
    contexts: int,
    seed: int,
) -> tuple[Decoder, dict[str, Any]]:
    """The decoder, and everything the answer depends on beyond the values; checked."""
    if target_r2 is not None and not 0 < target_r2 < 1:
        raise Refused(f"target_r2 = {target_r2}: give a number between 0 and 1")
    if seed < 0:
        raise Refused(f"seed = {seed}: give a whole number from 0 up")
    if max_order is not None and max_order < 1:
        raise Refused(f"max_order = {max_order}: give an order of at least 1, or None")
    if not 0 < level < 1:
        raise Refused(f"level = {level}: give a probability strictly between 0 and 1")
    if contexts < 0 or contexts == 1:
        raise Refused(f"contexts = {contexts}: give at least 2, or 0 for the whole model alone")
    chosen = find_decoder(decoder)
    if design is None:
        design = "spex" if chosen.name == "spex" else "random"
    keep = _density(keep, design, chosen, in_rounds=adaptive or target_r2 is not None)
    if budget is None:
        budget = _DEFAULT_BUDGET if target_r2 is None else _LARGEST_BUDGET
        if design == "spex":
            budget = max(budget, SpexDesign.minimum_masks(n_units))
    if chosen.name == "automatic" and n_units <= _MOST_EXACT_UNITS and 2**n_units <= budget:
        chosen = find_decoder("exhaustive")
    needed = chosen.minimum_masks(n_units)
    if budget < needed:
        raise BudgetError(
            f"budget = {budget} masks: decoder {chosen.name!r} needs at least {needed} for "
            f"{n_units} units"
        )
    # SPEX's design refuses a budget that is too small, and says what it needs.
    described: str = design
    if isinstance(chosen, Exhaustive):
        described = "all masks"
    elif design == "spex":
        described = str(SpexDesign(n_units, budget, seed=seed))
    return chosen, {
        "budget": budget,
        "target_r2": target_r2,
        "keep": keep,
        "design": described,
        "adaptive": adaptive,
        "level": level,
        "contexts": contexts,
        "decoder": chosen.name if isinstance(decoder, str) else repr(chosen),
        "max_order": max_order,
        "seed": seed,
        "versions": _versions(),
    }


def _density(keep: float | None, design: Design, decoder: Decoder, *, in_rounds: bool) -> float:
    """The probability of keeping a unit that goes with the design."""
    if design not in get_args(Design):
        raise Refused(f"design = {design!r}: choose {', '.join(get_args(Design))}")
    if design != "spex":
        if decoder.name == "spex":
            raise Refused("decoder 'spex' reads the masks of its own design; leave design out")
        keep = _DEFAULT_KEEP if keep is None else keep
        if not 0 < keep < 1:
            raise Refused(f"keep = {keep}: give a probability strictly between 0 and 1")
        return keep
    if keep not in (None, 0.5):
        raise Refused(f"keep = {keep} with design 'spex', which keeps every second unit; leave it")
    if in_rounds:
        raise Refused(
            "design 'spex' is measured as a whole; leave out target_r2 and adaptive, give a budget"
        )
    return 0.5


def _kept_answer(
    folder: Path, configuration: dict[str, str], settings: dict[str, Any]
) -> Explanation | None:
    """The answer of an earlier call with the same question, if this run holds it."""
    try:
        kept = Explanation.load(folder)
    except Refused:
        return None
    same = (kept.configuration, kept.settings) == (configuration, settings)
    return kept if same else None


def strongest_terms(function: SetFunction) -> list[Term]:
    """The terms worth an exact test: most variance under the design first, singles before sets."""
    fourier = function.to_basis("fourier").to_mapping()
    shares = {term: value**2 for term, value in fourier.items() if term}
    least = _SMALLEST_SHARE * sum(shares.values())
    ranked = sorted(
        (term for term, share in shares.items() if share > least), key=lambda term: -shares[term]
    )
    singles = [term for term in ranked if len(term) == 1]
    interactions = [term for term in ranked if 1 < len(term) <= LARGEST_ORDER]
    return singles[:_SINGLES] + interactions[:_INTERACTIONS]


def _ends(recorded: RecordedValues) -> tuple[float, float]:
    """The value with everything kept and with everything ablated, mean over outputs."""
    recorded.stage = "clean and ablated"
    clean, ablated = recorded(both_ends(recorded.n_units)).mean(axis=1, dtype=np.float64).tolist()
    if not np.isfinite(clean):
        raise MeasurementError(
            f"with every unit kept the value is {clean}; mend the value function before a sweep"
        )
    return clean, ablated


def _versions() -> dict[str, str]:
    packages = ("mechspex", "numpy", "torch", "transformer-lens", "transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
