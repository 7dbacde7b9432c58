"""Certificates of models whose circuits are known: true circuits, and the same damaged.

    OMP_NUM_THREADS=1 python tests/benchmarks/certificates.py > tests/benchmarks/certificates.md

The true circuit has the units of all terms of the exact truth under zero ablation. It is certified,
then without each of its members in turn, then with each idle unit. Every claim is held against what
the means over all prompts say; what is certified and false there is an error.
"""

import time

import numpy as np

import mechspex as mx
from mechspex.core.masks import keep_only
from mechspex.errors import Refused
from mechspex.truth import KNOWN_MODELS, known_model, truth

CLAIMS = ("is_equivalent", "is_minimal", "is_complete")


def members_of(function):
    """The units of all terms that are more than a thousandth of the largest."""
    effects = {term: abs(effect) for term, effect in function.to_mapping().items() if term}
    least = 1e-3 * max(effects.values(), default=0.0)
    return tuple(
        sorted({unit for term, effect in effects.items() if effect > least for unit in term})
    )


def true_claims(values, certificate):
    """What the means over all prompts say of the three claims."""
    n_units, inside = values.n_units, set(certificate.members)
    kept = [range(n_units), (), inside, *(inside ^ {unit} for unit in range(n_units))]
    clean, empty, alone, *others = values(keep_only(n_units, kept)).mean(axis=1, dtype=np.float64)
    whole = clean - empty
    gains = [(alone - v if i in inside else v - alone) / whole for i, v in enumerate(others)]
    return (
        abs(clean - alone) < certificate.epsilon * abs(whole),
        all(gains[i] > 1e-6 for i in inside),
        all(gains[i] < certificate.delta for i in range(n_units) if i not in inside),
    )


def judged(values, members):
    """How many claims are certified, true, and certified though false."""
    certificate = mx.certify(values, members)
    true = true_claims(values, certificate)
    said = [getattr(certificate, claim) for claim in CLAIMS]
    false = sum(claim and not holds for claim, holds in zip(said, true, strict=True))
    return certificate, said, true, false


def row(name):
    known = known_model(name)
    values = known.values("zero")
    members = members_of(truth(values))
    idle = [unit for unit in range(values.n_units) if unit not in members]
    certificate, said, true, false = judged(values, members)
    damaged = [tuple(m for m in members if m != one) for one in members if len(members) > 1]
    damaged += [tuple(sorted((*members, one))) for one in idle]
    held = 0
    for other in damaged:
        try:
            found, _, _, wrong = judged(values, other)
        except Refused:
            continue
        false, held = false + wrong, held + found.holds
    claims = " | ".join(
        f"{'✓' if sure else '–'} ({'true' if holds else 'false'})"
        for sure, holds in zip(said, true, strict=True)
    )
    return (
        f"| {name} | {len(members)} of {values.n_units} | {len(values.outputs)} | {claims} | "
        f"{'✓' if certificate.holds else '–'} | {held} of {len(damaged)} | {false} |"
    )


def main():
    start = time.process_time()
    print("# Certificates of models whose circuits are known\n")
    print(
        "Made by `OMP_NUM_THREADS=1 python tests/benchmarks/certificates.py > "
        "tests/benchmarks/certificates.md`: zero ablation, ε .1, δ .05, level .05. Of the true "
        "circuit each claim is ✓ where it is certified, beside it what is true of the means over "
        "all prompts. Damaged are the circuits without one member, and with one idle unit. Errors "
        "are claims that are certified and false, of all these circuits.\n"
    )
    columns = "model, true circuit, prompts, equivalent, minimal, complete, certificate"
    columns = [*columns.split(", "), "damaged ones that have one", "errors"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in KNOWN_MODELS:
        try:
            print(row(name), flush=True)
        except Refused as error:
            print(f"| {name} | refused: {error} | | | | | | | |", flush=True)
    print(f"\nCPU seconds in all: {time.process_time() - start:.0f}.")


if __name__ == "__main__":
    main()
