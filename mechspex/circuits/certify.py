"""What is sure of a circuit: equivalent to the model, no member too many, none missed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float

from mechspex.circuits.certificate import Certificate, PromptGroup
from mechspex.circuits.circuit import Circuit
from mechspex.circuits.faithfulness import behaviour
from mechspex.circuits.gains import gains
from mechspex.circuits.inference import Census, Inference, Sample
from mechspex.core.checks import PROBABILITY, SEED, told
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.finite import finite_values
from mechspex.core.masks import keep_only
from mechspex.core.terms import as_chosen, columns_of
from mechspex.core.value_function import ValuesLike, as_value_function, as_values
from mechspex.runs.run import Run, as_run
from mechspex.set_functions.r_squared import rounding

# Of which prompts an answer is certified by the way: a sample of more, or all that there are.
Prompts = Literal["sample", "census"]

# Means of two groups that explain less of how prompts differ leave them one group.
_APART = 0.8


def as_certified(name: str, given: object) -> bool | Prompts:
    """Reads whether an answer is to have a certificate, and what its prompts are."""
    if isinstance(given, bool) or (isinstance(given, str) and given in get_args(Prompts)):
        return given  # pyright: ignore[reportReturnType]
    raise Refused(f"{name} = {told(given)}: give True, False, {' or '.join(get_args(Prompts))}")


def _as_circuit(name: str, given: object) -> Any:
    """Reads a circuit as it is, and anything else as one set of units."""
    return given if isinstance(given, Circuit) else as_chosen(name, given)


@door(
    held_out=as_values,
    circuit=_as_circuit,
    epsilon=PROBABILITY,
    delta=PROBABILITY,
    level=PROBABILITY,
    run=as_run,
    seed=SEED,
)
def certify(
    held_out: ValuesLike,
    circuit: Circuit | str | Iterable[int | str],
    *,
    epsilon: float = 0.1,
    delta: float = 0.05,
    level: float = 0.05,
    census: bool = False,
    run: str | Path | Run | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Certificate:
    """Say what is sure of a circuit C, from exact values on prompts that did not choose it.

    With the behaviour B = f(all) − f(∅) and g_i = f(C ∪ {i}) − f(C ∖ {i}), on every prompt:

    - *equivalent*: |f(C) − f(all)| < ε B, by two one-sided t tests (Schuirmann 1987);
    - *minimal*: g_i > 0 along B for every member, with a false discovery rate over all units;
    - *complete*: g_j < δ B for every unit outside, each by a one-sided t test. All of them have to
      reject, so the claim is wrong with probability `level` at most whatever their number (the
      intersection–union test of Berger 1982).

    A unit's probability of inclusion is the share of 2,000 draws of the prompts, with
    replacement, in which its mean g_i is at least δ B. Prompts are put into two groups by the
    profile of g_i / B of the members, by 2-means, where these explain most of how they differ; the
    circuit is held against the model in each. One mask a unit is measured.

    Where the prompts are all that there are, as those of a small task, nothing is sampled: with
    `census` the three claims are what the means over them say, and a unit is included or is not.

    Args:
        held_out: the model on prompts that were not searched, at least two; with `census` on all.
        circuit: a circuit, or its members by name or column.
        epsilon: the margin of equivalence, a share of the behaviour.
        delta: the smallest gain that counts, a share of the behaviour.
        level: the chance of each claim to be wrong.
        census: whether the prompts are all that there are, rather than a sample of more.
        run: name or folder in which every value is kept.
        seed: the seed of draws, groups and the bootstrap.
        progress: a progress bar on stderr.

    Raises:
        Refused: a single prompt as a sample, no behaviour, or a member that is not there.
        FailedMasksError: a mask has no finite value.
    """
    held_out = as_value_function(held_out)
    chosen = circuit.names if isinstance(circuit, Circuit) else circuit
    members = tuple(sorted(columns_of(chosen, held_out.units)))
    if len(held_out.outputs) < 2 and not census:
        raise Refused(
            "one prompt has no spread to be sure of anything by; give at least two, or say by "
            "census=True that it is all there is"
        )
    n_units = held_out.n_units
    with Run.open(run, progress=progress) as run:
        recorded = run.record(held_out)
        recorded.stage = "certificate"
        kept = keep_only(n_units, [range(n_units), (), members])
        clean, empty, alone = finite_values(recorded, kept, "masks of the circuit")
        outside = set(range(n_units)) - set(members)
        found = gains(recorded, members, outside, level, census=census)
        configuration = recorded.configuration
    whole = behaviour(clean, empty)
    along = np.sign(whole.mean())
    whole, added = along * whole, along * found.outputs
    short = along * (clean - alone)
    # Beside the whole model a small circuit may do so little that its gains are rounding.
    rounded = 8 * rounding(np.stack([clean, empty, alone]))
    needed = found.sure & (added.mean(axis=1) > rounded)
    others = added[sorted(outside)]
    claims = Census() if census else Sample(level, seed)
    return Certificate(
        units=held_out.units,
        members=members,
        configuration=configuration,
        epsilon=epsilon,
        delta=delta,
        level=level,
        faithfulness=claims.share(whole - short, whole),
        equivalence=claims.differs(short, epsilon * whole),
        equivalent_within=claims.margin(short, whole),
        idle=tuple(column for column in members if not needed[column]),
        missed=float(claims.not_above_zero(delta * whole - others).max(initial=0.0)),
        bound=claims.upper(others) / float(whole.mean()),
        gains=added.mean(axis=1) / whole.mean(),
        inclusion=claims.often(added - delta * whole),
        groups=_groups(added[list(members)], short, whole, epsilon, seed, claims),
        n_outputs=len(whole),
        census=census,
    )


def _groups(
    added: Float[np.ndarray, "member output"],
    short: Float[np.ndarray, " output"],
    whole: Float[np.ndarray, " output"],
    epsilon: float,
    seed: int,
    claims: Inference,
) -> tuple[PromptGroup, ...]:
    """Prompts grouped by what the members add on them, a share of the mean behaviour."""
    profiles = (added / whole.mean()).T
    groups = [
        PromptGroup(
            tuple(columns.tolist()),
            claims.share((whole - short)[columns], whole[columns]),
            claims.differs(short[columns], epsilon * whole[columns]),
        )
        for columns in _two_groups(profiles, seed)
    ]
    return tuple(sorted(groups, key=lambda group: -len(group.outputs)))


def _two_groups(profiles: Float[np.ndarray, "output member"], seed: int) -> list[np.ndarray]:
    """The columns of two groups; one where two means explain little, or one would be alone."""
    from scipy.cluster.vq import kmeans2

    every = np.arange(len(profiles))
    spread = ((profiles - profiles.mean(axis=0)) ** 2).sum()
    if len(profiles) < 4 or spread <= 1e-9:
        return [every]
    means, of = kmeans2(profiles, 2, minit="++", rng=seed)
    parts = [every[of == number] for number in (0, 1)]
    within = ((profiles - means[of]) ** 2).sum()
    if min(map(len, parts)) < 2 or 1 - within / spread < _APART:
        return [every]
    return parts
