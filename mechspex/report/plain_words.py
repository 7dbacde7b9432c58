"""What an answer says, in a few plain sentences."""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from mechspex.circuits.circuit import Circuit
from mechspex.circuits.discovery import Discovery
from mechspex.core.result import Result
from mechspex.effects.repair_map import SelfRepair
from mechspex.effects.sweep_table import Sweep
from mechspex.explanation.explanation import Explanation
from mechspex.report.signed import signed
from mechspex.runs.text import metric_in_words, percent

# Named of the units and sets that are confirmed.
_NAMED = 3


@singledispatch
def plain_words(result: Result) -> list[str]:
    """What an answer says, a sentence each.

    Args:
        result: any answer; of a kind without sentences of its own, its line `in_short`.
    """
    return [f"{result.in_short}."]


@plain_words.register
def _(result: Explanation) -> list[str]:
    metric, recovery = metric_in_words(result.configuration), result.recovery
    n_outputs, table = len(result.outputs), result.to_pandas()
    lines = [
        f"With every unit kept the {metric} is {signed(result.clean, 2)}; with all "
        f"{result.units.description} ablated it is {signed(result.ablated, 2)} (mean over "
        f"{n_outputs} {_plural('output', n_outputs)})."
    ]
    scored = "all masks" if recovery.exact else f"{recovery.n_test:,} masks it has not seen"
    lines.append(
        f"A function of {len(result.function) - 1:,} terms was recovered from {recovery.n_train:,} "
        f"masks. It explains {_share(recovery.r2)} of the variance over {scored}; the best sum of "
        f"single effects explains {_share(recovery.additive_r2)}, and interactions "
        f"{_share(recovery.non_additive_share)} of what that leaves over."
    )
    n_confirmed = np.count_nonzero(table["confirmed"])
    exact = f"{len(table)} {_plural('effect', len(table))} measured exactly"
    if result.validation.has_spread or result.in_contexts is not None:
        level = result.validation.level
        lines.append(f"Of {exact}, {n_confirmed} are confirmed (false discovery rate {level:g}).")
    else:
        lines.append(f"{exact}, on one output: without a spread nothing is confirmed.")
    alone, together = result.singles(), result.interactions()
    lines += _strongest("alone", alone[alone["confirmed"]])
    lines += _strongest("together", together[together["confirmed"]])
    return lines


@plain_words.register
def _(result: Sweep) -> list[str]:
    metric = metric_in_words(result.configuration)
    lines = [
        f"With every unit kept the {metric} is {signed(result.clean.mean(), 2)} (mean over "
        f"{len(result.outputs)} {_plural('output', len(result.outputs))})."
    ]
    among = "in the otherwise whole model"
    if result.contexts:
        among = f"in {result.contexts:,} random contexts of density {result.keep:g}"
    for name, tested in zip(("unit", "pair"), result.tested, strict=False):
        n_terms, held = len(tested.terms), int(np.count_nonzero(tested.to_pandas()["confirmed"]))
        lines.append(
            f"Each of {n_terms:,} {_plural(name, n_terms)} was ablated {among}; "
            f"{held:,} {_plural('effect', held)} {'is' if held == 1 else 'are'} confirmed "
            f"(false discovery rate {tested.level:g})."
        )
    alone, pairs = result.singles(), result.pairs()
    lines += _strongest("alone", alone[alone["confirmed"]])
    return lines + _strongest("together", pairs[pairs["confirmed"]])


@plain_words.register
def _(result: Discovery) -> list[str]:
    lines = plain_words(result.circuit)
    if result.certificate is not None:
        lines.append(f"The {result.certificate.in_short}.")
    return [*lines, f"{result.masks:,} masks were measured to find and to score it."]


@plain_words.register
def _(result: Circuit) -> list[str]:
    lines = [f"{len(result)} of {len(result.units)} units make up the circuit ({result.method})."]
    if result.scores:
        share, low, high = result.scores["faithfulness"][:3]
        drawn = result.scores["random"]
        beside = f", random circuits of that size {_share(float(np.mean(drawn)))}" if drawn else ""
        lines.append(
            f"Kept alone they do {_share(share)} of what the whole model does, between "
            f"{_share(low)} and {_share(high)}; the other units alone do "
            f"{_share(result.scores['completeness'][0])}{beside}."
        )
        if result.scores.get("equivalent_within") is not None:
            lines.append(
                "Two one-sided tests at 5% say that they differ from the whole model by less than "
                f"{percent(result.scores['equivalent_within'])} of what it does."
            )
    if result.links:
        lines.append(
            f"Of {len(result.links)} {_plural('pair', len(result.links))} of members the two act "
            "together, back each other up or oppose each other, beyond the spread over prompts."
        )
    return lines


@plain_words.register
def _(result: SelfRepair) -> list[str]:
    held = len(result.confirmed)
    return [
        f"{result.n_pairs:,} {_plural('pair', result.n_pairs)} of units were measured on "
        f"{result.n_outputs} outputs; {held} {_plural('repair', held)} "
        f"{'is' if held == 1 else 'are'} confirmed (false discovery rate {result.level:g})."
    ]


def _strongest(how: str, table: object) -> list[str]:
    """The strongest confirmed effects by name."""
    rows = table.head(_NAMED).to_dict("records")  # type: ignore[attr-defined]
    named = "; ".join(f"{row['units']} ({signed(row['effect'], 2)})" for row in rows)
    return [f"Strongest {how}: {named}."] if named else []


def _share(value: float) -> str:
    """A share in per cent, with a digit more where it is nearly all."""
    if not np.isfinite(value):
        return "an unknown share"
    text = f"{abs(value):.1%}" if 0.985 < value < 0.9995 else f"{abs(value):.0%}"
    return f"−{text}" if value < 0 and text != "0%" else text


def _plural(word: str, number: int) -> str:
    return word if number == 1 else f"{word}s"
