"""Certificates of models whose circuits are known, and of circuits of SmolLM2.

    OMP_NUM_THREADS=1 python tests/benchmarks/certificates.py > tests/benchmarks/certificates.md
    OMP_NUM_THREADS=1 python tests/benchmarks/certificates.py capital hypernymy ioi pronoun \\
        greater_than >> tests/benchmarks/certificates.md

The listed circuit of a known model has the units of all terms of the exact truth under zero
ablation. What is true of a circuit is read off the values of all masks, mean over all prompts. The
listed circuit is certified from its prompts as a sample of more, and as all that there are; so is
it without each of its members in turn and with each idle unit, and, as all that there are, every
other subset.

Of SmolLM2-135M a circuit of heads is found for each task that is named, with few masks on few
prompts, and certified on others, which the search has not seen; in `ioi` they share no names. How
often the search would choose each head, were its own prompts others, is its membership.
"""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import mechspex as mx
from circuits import prompts_of  # pyright: ignore[reportAttributeAccessIssue]
from mechspex.core.masks import all_masks
from mechspex.errors import Refused
from mechspex.truth import KNOWN_MODELS, known_model, truth

CLAIMS = ("is_equivalent", "is_minimal", "is_complete")
EPSILON, DELTA = 0.1, 0.05
# Prompts of SmolLM2 to search and to certify, masks before climbing, sizes, and the faithfulness
# that the search is to reach: nearer than ε, so that there is something to be sure of.
SEARCHED, FRESH, N_MASKS = 6, 16, 60
SIZES, TARGET = (4, 8, 16, 32, 64), 0.95
# Heads that the search did not choose are named from this membership up.
OFTEN = 0.2


def members_of(function):
    """The units of all terms that are more than a thousandth of the largest."""
    effects = {term: abs(effect) for term, effect in function.to_mapping().items() if term}
    least = 1e-3 * max(effects.values(), default=0.0)
    return tuple(
        sorted({unit for term, effect in effects.items() if effect > least for unit in term})
    )


class Measured:
    """The values of all masks of a known model, each measured once."""

    def __init__(self, values):
        self.n_units = values.n_units
        self.table = values(all_masks(self.n_units)).astype(np.float64)
        self.means = self.table.mean(axis=1)
        self.number = 1 << np.arange(self.n_units)
        # The place of a mask in the table by its bits, in whatever order the table is.
        place = np.argsort(all_masks(self.n_units) @ self.number)
        self.values = mx.FunctionValues(lambda masks: self.table[place[masks @ self.number]],
                                        values.units)  # fmt: skip
        self.mean = self.means[place]

    def true_claims(self, members):
        """What the means say of the three claims."""
        inside = int(self.number[list(members)].sum())
        empty, clean, alone = (self.mean[i] for i in (0, -1, inside))
        whole = clean - empty
        gains = [(self.mean[inside | bit] - self.mean[inside & ~bit]) / whole
                 for bit in self.number.tolist()]  # fmt: skip
        outside = set(range(self.n_units)) - set(members)
        return [
            bool(abs(clean - alone) < EPSILON * abs(whole)),
            all(gains[i] > 1e-6 for i in members),
            all(gains[j] < DELTA for j in outside),
        ]

    def claims(self, members, census):
        """What a certificate says of the three."""
        found = mx.certify(self.values, members, epsilon=EPSILON, delta=DELTA, census=census)
        return [getattr(found, claim) for claim in CLAIMS]


def row(name):
    values = known_model(name).values("zero")
    measured = Measured(values)
    n_units, members = values.n_units, members_of(truth(values))
    true = measured.true_claims(members)
    sampled, census = (measured.claims(members, census) for census in (False, True))
    damaged = [tuple(m for m in members if m != one) for one in members if len(members) > 1]
    damaged += [tuple(sorted((*members, one))) for one in range(n_units) if one not in members]
    false = sum(
        said and not holds
        for circuit in [members, *damaged]
        for said, holds in zip(
            measured.claims(circuit, False), measured.true_claims(circuit), strict=True
        )
    )
    other, holding = 0, 0
    subsets = [tuple(np.flatnonzero(mask).tolist()) for mask in all_masks(n_units) if mask.any()]
    for circuit in subsets:
        said = measured.claims(circuit, True)
        other += said != measured.true_claims(circuit)
        holding += all(said)
    right = "right" if census == true else "WRONG"
    return (
        f"| {name} | {len(members)} of {n_units} | {len(values.outputs)} | {marks(true)} | "
        f"{marks(sampled)} | {false} of {3 * len(damaged) + 3} | {marks(census)} | {right} | "
        f"{other} of {len(subsets):,} | {holding} |"
    )


def marks(claims):
    return " ".join("✓" if claim else "–" for claim in claims)


def known_models():
    start = time.process_time()
    print("# Certificates of circuits\n")
    print("## Models whose circuits are known\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/certificates.py > "
        f"tests/benchmarks/certificates.md`: zero ablation, ε {EPSILON}, δ {DELTA}, level .05. "
        "Three claims each: equivalent, minimal, complete. *True*: what the means of all masks "
        "over all prompts say of the listed circuit, which has all units of the exact truth: of an "
        "OR both sides, so that neither is needed and it is truly not minimal. *As a sample*: "
        "what `certify` is sure of where the prompts are drawn from more, and how many of its "
        "claims about this circuit and those without one member or with one idle unit are false. "
        "*All there are*: the same with `census=True`, and of how many of all subsets it says "
        "anything other than what is true; the last column counts the subsets that hold.\n"
    )
    columns = ["model", "listed circuit", "prompts", "true", "as a sample", "false claims"]
    columns += ["all there are", "it is", "subsets said otherwise", "subsets that hold"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in KNOWN_MODELS:
        try:
            print(row(name), flush=True)
        except Refused as error:
            print(f"| {name} | refused: {error} {'| ' * 9}|", flush=True)
    print(f"\nCPU seconds in all: {time.process_time() - start:.0f}.")


def smollm2(names):
    model = mx.load_model("smollm2-135m")
    print("\n## Circuits of SmolLM2-135M among its 270 heads\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/certificates.py "
        f"{' '.join(names)} >> tests/benchmarks/certificates.md` at {commit()}: mean "
        f"reference, the smallest of {', '.join(map(str, SIZES))} heads that is "
        f"faithful within {1 - TARGET:.0%} on {SEARCHED} searched prompts (bf16, {N_MASKS} masks "
        f"before climbing); certified on {FRESH} others in float32, ε {EPSILON}, δ {DELTA}, "
        "level .05. Below the claims: every member, and at most twelve heads outside that "
        "are ever included, with what each adds as a share of the behaviour and its inclusion, the "
        "share of 2,000 draws of the prompts in which that is δ or more. Then the "
        "membership: of 1,000 draws of the searched prompts, the share in which the search's "
        "own choice, made anew among all subsets that it measured, has a head: of every "
        f"member, and of other heads from {OFTEN:g} up.",
        flush=True,
    )
    for name in names:
        searched, fresh, _ = prompts_of(name, model)
        print(f"\n### {name}\n")
        try:
            certified(model, searched[:SEARCHED], fresh[:FRESH])
        except Refused as error:
            print(f"Refused: {error}.", flush=True)


def certified(model, searched, fresh):
    """A circuit found and certified; what the certificate says is printed."""
    heads = mx.heads(model)
    start = time.process_time()
    goal = mx.CircuitGoal(target=TARGET, sizes=SIZES)
    found = mx.find_circuit(
        mx.ComponentValues(model, searched, heads, precision="bf16"),
        mx.ComponentValues(model, searched, heads),
        goal=goal,
        n_masks=N_MASKS,
    )
    between = time.process_time()
    certificate = mx.certify(
        mx.ComponentValues(model, fresh, heads), found.circuit, epsilon=EPSILON, delta=DELTA
    )
    end = time.process_time()
    print(
        f"{len(found.circuit)} heads; CPU seconds: search {between - start:.0f}, certificate "
        f"{end - between:.0f}.\n\n```\n{certificate}\n\n{chosen(found.membership)}\n```",
        flush=True,
    )


def chosen(membership):
    """How often the search chooses each member, and what it chooses else."""
    table = membership.to_pandas()
    shown = table[table["member"] | (table["probability"] >= OFTEN)]
    return (
        "how often the search chooses a unit where its prompts are drawn again\n"
        f"{shown.to_string(index=False, float_format='{:.3f}'.format)}\n"
        f"{len(table) - len(shown)} others are chosen more rarely; no subset is faithful enough in "
        f"{membership.unreached:.1%} of the draws"
    )


def commit():
    """The commit that this is run at."""
    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    smollm2(sys.argv[1:]) if sys.argv[1:] else known_models()
