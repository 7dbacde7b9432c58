"""The whole workflow: draw masks, measure them, decode, score on fresh masks, validate exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mechspex.core.checks import SEED, WHOLE, Only
from mechspex.core.doors import door
from mechspex.core.errors import MeasurementError, Refused, RunError
from mechspex.core.masks import both_ends
from mechspex.core.old_keywords import takes_old
from mechspex.core.provenance import Provenance
from mechspex.core.restricted import RestrictedValues
from mechspex.core.units import Term, UnitSet, as_parts, check_same_units
from mechspex.core.value_function import ValueFunction, ValuesLike, as_value_function, as_values
from mechspex.decoders import Decoder, as_decoder
from mechspex.effects.validate import LARGEST_ORDER, validate
from mechspex.effects.validation import Validation
from mechspex.explanation.designs import Design, DesignName, as_design
from mechspex.explanation.explanation import Explanation
from mechspex.explanation.mask_search import exact_search, random_search
from mechspex.explanation.plan import ExactTests, Plan, renew
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.run import CONFIGURATION, VALIDATION, Run, as_run
from mechspex.screening import Candidates, missed
from mechspex.screening.methods import MethodName
from mechspex.screening.screen_method import ScreenMethod
from mechspex.screening.screened import FEWEST_SURVIVORS, Screened, as_screen, screened
from mechspex.set_functions.set_function import SetFunction
from mechspex.tasks.metric_names import DIFFERENCES

# How many terms are reported, each of them validated.
_SINGLES, _INTERACTIONS = 10, 20
MOST_TERMS = _SINGLES + _INTERACTIONS
# Terms below this share of the value's variance are not worth an exact test.
_SMALLEST_SHARE = 1e-6


@takes_old(
    {
        "validate_on": "held_out",
        "budget": "n_masks",
        "keep": "design=RandomMasks(keep=…), or the keep of another design",
        "target_r2": "design=Adaptive(target_r2=…, focused=False)",
        "adaptive": "design=Adaptive()",
        "max_order": "decoder=Pursuit(max_order=…), or that of another decoder",
        "level": "tests=ExactTests(level=…)",
        "contexts": "tests=ExactTests(contexts=…)",
    },
    renew,
)
@door(
    value_function=as_values,
    units=as_parts,
    held_out=as_values,
    n_masks=WHOLE,
    design=as_design,
    decoder=as_decoder,
    screen=as_screen,
    tests=Only((ExactTests,), "ExactTests(level=…, contexts=…)"),
    run=as_run,
    seed=SEED,
)
def explain(
    value_function: ValuesLike,
    *,
    units: UnitSet | Iterable[object] | int | None = None,
    held_out: ValuesLike | None = None,
    n_masks: int | None = None,
    design: DesignName | Design | None = None,
    decoder: str | Decoder = "automatic",
    screen: MethodName | ScreenMethod | Candidates | ValuesLike | None = None,
    tests: ExactTests | None = None,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Explanation:
    """Find which units act alone and which act together.

    It draws `n_masks` random masks, measures them and recovers a sparse set function from them. It
    scores that function on fresh masks (a fifth as many, at least 100) and measures the strongest
    terms exactly. Where all 2^n masks are no more they are measured instead, and the answer
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
        units: what the columns of a mask stand for, where `value_function` is a plain function:
            `mechspex.parts`, labels, or how many.
        held_out: the same units on other outputs (fresh prompts), where the terms are tested:
            terms that were chosen for standing out on some prompts stand out there by chance as
            well. `value_function` itself if not given; then read the intervals with that in mind.
        n_masks: how many masks the decoder may use; 1,000 if not given, and up to 16,000 where the
            design has a target.
        design: which masks are measured: `RandomMasks`, `MixedMasks`, `SpexMasks`, or `Adaptive`
            for doubling rounds up to a target; or a name, ``random``, ``mixed`` or ``spex``. If not
            given ``spex`` for the decoder of that name, else ``random``.
        decoder: ``automatic``, ``additive``, ``pursuit``, ``proxyspex``, ``kernel``, ``spex``,
            ``exhaustive``, or a decoder with options, such as ``Pursuit(max_order=2)``.
        screen: ``first_order`` or ``second_order``: units are scored by gradients first (see
            `mechspex.screen`), the search ablates only the strongest of them (at least 100, twice
            as many until they explain 0.9 of what random masks of all units do, at most 800) and
            those of the sets proposed, and keeps all others. What the screen predicts is the
            search's prior; its proposals are tested exactly like the terms that the search finds,
            and `mechspex.missed` estimates what it overlooks. ``ablation`` is a screen for
            functions without gradients. A method with options is taken as well, such as
            ``SecondOrder(max_order=3)``. A value function is a proxy: the same units on a cheaper
            model, which is screened in place of `value_function`; the agreement of both is
            measured first, on a sample. Or it is of coarser parts of the same text (sentences, for
            words): those are ablated first, and the search ablates the units within the strongest
            of them, twice as many until they explain 0.9. `Candidates` are a screen made
            beforehand.
        tests: the false discovery rate of the exact tests, 0.05 if not given, and in how many
            random contexts they are repeated.
        run: name or folder in which every value and the answer are kept: no mask is measured
            twice, and the same call again returns the same answer at once. None keeps values in
            memory.
        seed: the only source of randomness, for the masks and the decoder.
        progress: progress bars on stderr.

    Raises:
        Refused: bad arguments; among them `BudgetError`, fewer masks than the decoder needs.
        MeasurementError: the value with everything kept is not finite.
        FailedMasksError: too few masks have a finite value.
    """
    function = as_value_function(value_function, units)
    if held_out is not None:
        held_out = as_value_function(held_out)
        check_same_units("held_out", held_out.units, "the value function", function.units)
    options = {"decoder": decoder, "design": design, "n_masks": n_masks, "tests": tests}
    planned = partial(Plan.of, **options, seed=seed)
    whole, scored = function if held_out is None else held_out, None
    with Run.open(run, progress=progress) as run:
        if screen is not None:
            # Bad arguments are refused before the screen is paid for.
            density = planned(min(function.n_units, FEWEST_SURVIVORS)).density_of_a_screen
            scored = screened(function, screen, run.below("screen"), density, seed)
            function = RestrictedValues(function, scored.columns)
            held_out = None if held_out is None else RestrictedValues(held_out, scored.columns)
        plan = replace(
            planned(function.n_units),
            validated_on=None if held_out is None else held_out.configuration,
            screened_by=None if scored is None else scored.called,
        )
        recorded = run.record(function)
        kept = _kept_answer(run, recorded.configuration, plan)
        if kept is not None:
            return kept
        # Whatever precision the search was measured in, what is found is tested in the model's own.
        exact = (function if held_out is None else held_out).in_own_dtype
        tested_on = recorded if exact is function else _on_fresh_outputs(run, exact)
        explanation = _answer(run, plan, recorded, tested_on, scored)
        if scored is not None and scored.candidates.rejected:
            explanation = _with_missed(explanation, run, whole.in_own_dtype, scored.candidates)
    run.keep(explanation)
    return explanation


def _with_missed(
    explanation: Explanation, run: Run, whole: ValueFunction, candidates: Candidates
) -> Explanation:
    """The same with an estimate of what the screen overlooked, where anything was confirmed."""
    validation, screening = explanation.validation, explanation.screening
    assert screening is not None
    held = zip(validation.terms, validation.confirmed, strict=True)
    proposed = set(screening.terms)
    if not any(sure and len(term) == 2 and term in proposed for term, sure in held):
        return explanation
    recorded = run.record(whole, "rejected")
    recorded.stage = "sets that the screen rejected"
    # What the search found by itself is no merit of the screen.
    rows = [row for row, term in enumerate(validation.terms) if term in proposed]
    overlooked = missed(recorded, candidates, validation.rows(rows))
    return replace(explanation, screening=replace(screening, missed=overlooked), cost=run.cost)


def _answer(
    run: Run,
    plan: Plan,
    recorded: RecordedValues,
    tested_on: RecordedValues,
    scored: Screened | None,
) -> Explanation:
    """Search with `recorded`, test what is found on `tested_on` (the same, or held-out outputs)."""
    configuration, settings = recorded.configuration, plan.to_dict()
    run.write(CONFIGURATION, {"values": configuration, "settings": settings})
    clean, ablated = _ends(recorded)
    if plan.is_exact:
        recovery = exact_search(recorded, plan)
    else:
        prior = None if scored is None else scored.prior(plan.decoder.max_order)
        recovery = random_search(recorded, plan, len(tested_on.outputs), prior)
    tested_on.stage = "validating"
    screening = None if scored is None else scored.held_against(recovery.function)
    proposed = () if screening is None else screening.terms
    terms = list(dict.fromkeys([*strongest_terms(recovery.function), *proposed]))
    validation = validate(tested_on, terms, level=plan.tests.level)
    around = _in_contexts(tested_on, validation, plan)
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
        cost=run.cost,
        folder=run.folder,
        screening=screening,
        n_right=_n_right(recorded),
    )


def _on_fresh_outputs(run: Run, values: ValueFunction) -> RecordedValues:
    """The values that terms are tested on; those on another number of outputs stay beside them."""
    try:
        return run.record(values, VALIDATION)
    except RunError:
        return run.record(values, f"{VALIDATION}-{len(values.outputs)}")


def _in_contexts(recorded: RecordedValues, validation: Validation, plan: Plan) -> Validation | None:
    """The confirmed terms in random masks of the other units, where that was asked for."""
    held = zip(validation.terms, validation.confirmed, strict=True)
    confirmed = [term for term, holds in held if holds]
    if not plan.tests.contexts or not confirmed:
        return None
    recorded.stage = "in random contexts"
    return validate(
        recorded,
        confirmed,
        level=plan.tests.level,
        contexts=plan.tests.contexts,
        keep=plan.keep,
        seed=plan.seed,
    )


def _kept_answer(run: Run, configuration: dict[str, str], plan: Plan) -> Explanation | None:
    """The answer of an earlier call with the same question, if this run holds it."""
    if run.folder is None:
        return None
    try:
        kept = Explanation.load(run.folder)
    except Refused:
        return None
    if (kept.configuration, kept.settings) != (configuration, plan.to_dict()):
        return None
    return replace(kept, cost=replace(run.cost, masks=kept.cost.masks, values=kept.cost.values))


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


def _n_right(recorded: RecordedValues) -> int | None:
    """On how many outputs the clean model is right, where the metric can say."""
    if Provenance.of(recorded.configuration).metric not in DIFFERENCES:
        return None
    (clean, _) = recorded(both_ends(recorded.n_units))
    return int(np.count_nonzero(clean > 0))


def _ends(recorded: RecordedValues) -> tuple[float, float]:
    """The value with everything kept and with everything ablated, mean over outputs."""
    recorded.stage = "clean and ablated"
    clean, ablated = recorded(both_ends(recorded.n_units)).mean(axis=1, dtype=np.float64).tolist()
    if not np.isfinite(clean):
        raise MeasurementError(
            f"with every unit kept the value is {clean}; mend the value function before a sweep"
        )
    return clean, ablated
