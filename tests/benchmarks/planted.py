"""Decoders on planted functions, side by side with published code on the same number of masks.

A cell is a planted function, a noise, a density and a number of masks; every decoder runs on it in
a process of its own, one after the other, on one thread, and adds a line to a CSV; lines that are
there are not measured again.

    pip install shapiq==1.4.1 sparse-transform==0.2.1
    python tests/benchmarks/planted.py grid --units 64 270
    python tests/benchmarks/planted.py needed
    python tests/benchmarks/planted.py table

`grid` compares at fixed numbers of masks, `needed` finds the least number that is enough, `table`
writes both as markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from mechspex.core.masks import sample_masks
from mechspex.core.units import Term
from mechspex.errors import BudgetError, MechspexError
from mechspex.set_functions.bases import Basis
from mechspex.set_functions.r_squared import r_squared
from mechspex.set_functions.set_function import SetFunction

OURS = ("automatic@design", "automatic", "pursuit", "spex@design", "proxyspex", "kernel")
OTHERS = ("shapiq-spex", "shapiq-proxyspex", "sparse-transform", "lightgbm", "lasso")
ORDERS = range(1, 6)
HELD_OUT = 2000
# A term counts as found if its coefficient exceeds this share of the median planted one.
COUNTED = 0.05
# An answer is scored term by term if its change of basis gives at most this many terms.
LARGEST_EXPANSION = 2_000_000
MEMORY_LIMIT = 8 << 30
# Noise in dB → the R² that is enough.
ENOUGH = {None: 0.99, 10.0: 0.95}
LADDER = (250, 350, 500, 700, 1000, 1400, 2000, 2800, 4000, 5600, 8000, 11200, 16000, 22400, 32000)


# ── What is planted ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Cell:
    """A planted function and how it may be measured.

    Attributes:
        family: walsh, and, or: terms of the Fourier basis at `keep`, the kept, the ablated basis.
        structure: peak (sets unrelated) or hierarchical (every set above a chain of its subsets).
        noise_db: variance of the function over variance of the noise, in dB; None for no noise.
        keep: probability with which a unit is kept, in the masks that the scores are taken on.
    """

    n_units: int
    family: str
    structure: str
    n_terms: int
    noise_db: float | None
    keep: float
    n_masks: int
    seed: int = 0

    @property
    def basis(self) -> Basis:
        return {"walsh": "fourier", "and": "kept", "or": "ablated"}[self.family]  # type: ignore[return-value]

    def plant(self) -> SetFunction:
        """The function: orders 1–5, |c| uniform in [.5, 1.5], signs random."""
        rng = np.random.default_rng((self.seed, self.n_units, self.n_terms))
        draw = _peak if self.structure == "peak" else _hierarchical
        supports = draw(rng, self.n_units, self.n_terms)
        sizes = rng.uniform(0.5, 1.5, self.n_terms) * rng.choice([-1, 1], self.n_terms)
        terms = dict(zip(supports, sizes.tolist(), strict=True))
        return SetFunction.from_mapping(self.n_units, terms, basis=self.basis, keep=self.keep)


def _random_set(rng: np.random.Generator, n_units: int) -> list[int]:
    return rng.choice(n_units, size=int(rng.integers(1, 6)), replace=False).tolist()


def _peak(rng: np.random.Generator, n_units: int, n_terms: int) -> list[Term]:
    supports: dict[Term, None] = {}
    while len(supports) < n_terms:
        supports[tuple(sorted(_random_set(rng, n_units)))] = None
    return list(supports)


def _hierarchical(rng: np.random.Generator, n_units: int, n_terms: int) -> list[Term]:
    supports: dict[Term, None] = {}
    while len(supports) < n_terms:
        chain = _random_set(rng, n_units)
        for size in range(1, len(chain) + 1):
            supports[tuple(sorted(chain[:size]))] = None
    return list(supports)[:n_terms]


@dataclass
class Measurement:
    """The planted function with noise, counting masks and the seconds spent here."""

    function: SetFunction
    noise: float
    rng: np.random.Generator
    n_masks: int = 0
    seconds: float = 0.0

    def __call__(self, masks: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        values = self.function.predict(masks) + self.noise * self.rng.standard_normal(len(masks))
        self.n_masks += len(masks)
        self.seconds += time.perf_counter() - start
        return values


def measurement_of(cell: Cell) -> Measurement:
    """Noise relative to the exact variance of the function at the density of the cell."""
    function = cell.plant()
    fourier = function.to_basis("fourier", cell.keep).to_mapping()
    variance = sum(value**2 for term, value in fourier.items() if term)
    share = 0.0 if cell.noise_db is None else 10 ** (-cell.noise_db / 10)
    rng = np.random.default_rng((cell.seed, 1))
    return Measurement(function, float(np.sqrt(share * variance)), rng)


# ── One decoder on one cell, in a process of its own ──────────────────────────────────────────────


@dataclass(frozen=True)
class Outcome:
    """Scores of one answer; what could not be measured is None.

    Attributes:
        word: "ok", or in a word why there is no answer.
        used: masks the decoder asked for.
        f1_by_order: of orders 1 … 5; None where nothing of that order is planted.
        seconds: of the decoder alone, without the planted function.
        megabytes: peak of the whole process.
    """

    word: str
    message: str = ""
    used: int | None = None
    r2: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    f1_by_order: list[float | None] = field(default_factory=list)
    n_found: int | None = None
    seconds: float | None = None
    megabytes: int | None = None


def run_here(cell: Cell, method: str) -> Outcome:
    """Run and score a decoder in this process; a failure is an outcome like any other."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_LIMIT, MEMORY_LIMIT))
    measure = measurement_of(cell)
    decoder = _decoder(method)
    start = time.perf_counter()
    try:
        answer = decoder(measure, cell.n_units, cell.n_masks, cell.keep, cell.seed)
        seconds = time.perf_counter() - start - measure.seconds
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        scored = score(cell, measure.function, answer)
    except Exception as error:
        return Outcome(_word(error), f"{type(error).__name__}: {error}"[:300], measure.n_masks)
    return replace(scored, used=measure.n_masks, seconds=seconds, megabytes=megabytes)


def _decoder(method: str) -> Callable[..., Any]:
    if method not in OTHERS:
        return lambda *arguments: _ours(method, *arguments)
    from planted_rivals import RIVALS  # here, so that ours run where the others are not installed

    return RIVALS[method]


def _ours(
    method: str, measure: Measurement, n_units: int, n_masks: int, keep: float, seed: int
) -> SetFunction:
    """A decoder of this package on random masks; ``decoder@design`` on those made for the density.

    They are SPEX's at p = ½ if they fit in the budget, and mixed with p = ½ at others.
    """
    from mechspex.decoders import decode
    from mechspex.decoders.spex.design import SpexDesign

    decoder, _, wanted = method.partition("@")
    design, kind = None, "mixed" if wanted and keep != 0.5 else "biased"
    if wanted and keep == 0.5:
        with suppress(BudgetError):
            design = SpexDesign(n_units, n_masks, seed=seed)
    masks = sample_masks(n_units, n_masks, keep=keep, design=kind, seed=seed)
    if design is not None:
        masks = design.masks
    values = measure(masks)
    return decode(masks, values, decoder=decoder, design=design, keep=keep, seed=seed)


def _word(error: Exception) -> str:
    if isinstance(error, BudgetError) or "nsufficient budget" in str(error):
        return "budget"
    if isinstance(error, MechspexError):
        return "refused"
    return "memory" if isinstance(error, MemoryError) else type(error).__name__


def score(cell: Cell, planted: SetFunction, answer: Any) -> Outcome:
    """Held-out R², and precision, recall and F1 of the support in the basis of planting."""
    masks = sample_masks(cell.n_units, HELD_OUT, keep=cell.keep, seed=(cell.seed, 2))
    r2 = float(r_squared(planted.predict(masks), answer.predict(masks)))
    if not isinstance(answer, SetFunction):
        return Outcome("ok", r2=r2)
    if not any(value for term, value in answer.to_mapping().items() if term):
        return Outcome("empty", "an answer without terms", r2=r2, n_found=0, f1=0.0, recall=0.0)
    if sum(2.0 ** len(term) for term in answer.terms) > LARGEST_EXPANSION:
        return Outcome("ok", r2=r2)
    least = COUNTED * float(np.median(np.abs(planted.coefficients)))
    terms = answer.to_basis(planted.basis, cell.keep).to_mapping()
    found = {term for term, value in terms.items() if term and abs(value) > least}
    wanted = set(planted.terms)
    return Outcome(
        "ok",
        r2=r2,
        precision=len(found & wanted) / len(found) if found else None,
        recall=len(found & wanted) / len(wanted),
        f1=_f1(found, wanted),
        f1_by_order=[_f1(_of_order(found, k), _of_order(wanted, k)) for k in ORDERS],
        n_found=len(found),
    )


def _of_order(terms: Iterable[Term], order: int) -> set[Term]:
    return {term for term in terms if len(term) == order}


def _f1(found: set[Term], wanted: set[Term]) -> float | None:
    return 2 * len(found & wanted) / (len(found) + len(wanted)) if wanted else None


# ── The store: one line of CSV a run ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Run:
    """A cell, a decoder and what came of it."""

    cell: Cell
    method: str
    outcome: Outcome

    def row(self) -> dict[str, str]:
        values = asdict(self.cell) | {"method": self.method} | asdict(self.outcome)
        return {name: json.dumps(value) for name, value in values.items()}

    @classmethod
    def from_row(cls, row: dict[str, str]) -> Run:
        values = {name: json.loads(text) for name, text in row.items()}
        cell = Cell(**{f.name: values.pop(f.name) for f in fields(Cell)})
        return cls(cell, values.pop("method"), Outcome(**values))


@dataclass
class Store:
    """Runs in a CSV: what is there is read, what is not is measured and added."""

    path: Path
    limit: float

    def __post_init__(self) -> None:
        self.runs: dict[tuple[Cell, str], Run] = {}
        if self.path.exists():
            with self.path.open(newline="") as file:
                for run in map(Run.from_row, csv.DictReader(file)):
                    self.runs[run.cell, run.method] = run

    def get(self, cell: Cell, method: str) -> Outcome:
        if (cell, method) not in self.runs:
            run = Run(cell, method, _in_subprocess(cell, method, self.limit))
            self._append(run)
            print(f"{_describe(cell)}, N = {cell.n_masks:,}, {method}: {_line(run.outcome)}")
            sys.stdout.flush()
        return self.runs[cell, method].outcome

    def _append(self, run: Run) -> None:
        self.runs[run.cell, run.method] = run
        self.path.parent.mkdir(parents=True, exist_ok=True)
        row, new = run.row(), not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)


def _in_subprocess(cell: Cell, method: str, limit: float) -> Outcome:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "run", method, json.dumps(asdict(cell))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=os.environ | threads
        )
    except subprocess.TimeoutExpired:
        return Outcome("time", f"more than {limit:.0f} s")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return Outcome("memory" if "MemoryError" in lines[-1] else "died", lines[-1][:300])
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def _line(outcome: Outcome) -> str:
    if outcome.seconds is None:
        return f"{outcome.word} ({outcome.message})"
    return (
        f"R² {_digits(outcome.r2, 3)}, F1 {_digits(outcome.f1, 2)}, {outcome.used:,} masks, "
        f"{outcome.seconds:.1f} s, {outcome.megabytes:,} MB, {outcome.word}"
    )


def _describe(cell: Cell) -> str:
    noise = "no noise" if cell.noise_db is None else f"{cell.noise_db:.0f} dB"
    return (
        f"n = {cell.n_units:,}, {cell.n_terms} {cell.family} terms, {cell.structure}, {noise}, "
        f"p = {cell.keep:g}"
    )


def _digits(value: float | None, places: int) -> str:
    return "—" if value is None else f"{value:.{places}f}"


# ── Which cells ───────────────────────────────────────────────────────────────────────────────────

# family, structure, terms, noise in dB, keep
KINDS = {
    "A": ("walsh", "peak", 20, None, 0.5),
    "B": ("and", "peak", 20, None, 0.5),
    "C": ("or", "hierarchical", 20, 20.0, 0.5),
    "D": ("and", "peak", 20, 10.0, 0.5),
    "E": ("walsh", "hierarchical", 100, 20.0, 0.5),
    "F": ("and", "peak", 100, None, 0.5),
    "G": ("and", "hierarchical", 100, 10.0, 0.5),
    "H": ("or", "peak", 20, 20.0, 0.9),
    "I": ("and", "hierarchical", 50, None, 0.9),
    "J": ("walsh", "hierarchical", 50, 10.0, 0.9),
    "K": ("or", "peak", 200, 10.0, 0.5),
}
# Number of units, number of masks, kinds: small first.
GRID = (
    (64, 500, "ABCH"),
    (64, 2000, "ABDEFHJK"),
    (64, 7000, "AB"),
    (270, 500, "B"),
    (270, 2000, "ABCDI"),
    (270, 9000, "AF"),
    (1024, 4000, "ABH"),
    (4096, 4000, "AB"),
    (46080, 4000, "AB"),
)


def grid_cells(units: Sequence[int] | None, masks: Sequence[int] | None) -> Iterator[Cell]:
    for n_units, n_masks, kinds in GRID:
        if (not units or n_units in units) and (not masks or n_masks in masks):
            for kind in kinds:
                yield Cell(n_units, *KINDS[kind], n_masks)  # pyright: ignore[reportCallIssue]


def needed_cells(units: Sequence[int] | None) -> Iterator[Cell]:
    """Sums of AND terms; the number of masks and the seed are filled in by `least`."""
    for n_terms, n_units, noise in product((20, 100), units or (64, 270), ENOUGH):
        yield Cell(n_units, "and", "peak", n_terms, noise, 0.5, 0)


def least(
    cell: Cell, method: str, look: Callable[[Cell, str], Outcome | None]
) -> tuple[int | None, int]:
    """The masks used at the first rung whose R² is enough (None if none is), and the last rung."""
    rung = 0
    for n_masks in LADDER:
        outcome = look(replace(cell, n_masks=n_masks), method)
        if outcome is None:
            break
        rung = n_masks
        if outcome.r2 is not None and outcome.r2 >= ENOUGH[cell.noise_db]:
            return outcome.used, rung
        if outcome.word in ("time", "memory"):
            break
    return None, rung


# ── The table ─────────────────────────────────────────────────────────────────────────────────────


def render(store: Store, ours: str) -> str:
    """Everything in the store as markdown."""
    grid = [cell for cell in grid_cells(None, None) if any(cell == run[0] for run in store.runs)]
    methods = [m for m in _methods(store) if any((cell, m) in store.runs for cell in grid)]

    def look(cell: Cell, method: str) -> Outcome | None:
        run = store.runs.get((cell, method))
        return run.outcome if run else None

    def section(title: str, text: Callable[[Outcome], str]) -> str:
        rows = [
            [_describe(cell), f"{cell.n_masks:,}"]
            + ["" if (o := look(cell, method)) is None else text(o) for method in methods]
            for cell in grid
        ]
        return f"## {title}\n\n" + _table(["planted", "N", *methods], rows)

    sections = [
        "# Decoders on planted functions\n\n"
        "Written by `planted.py table`; see there for what is planted. Held-out R² on "
        f"{HELD_OUT:,} fresh masks without noise. A term counts as found if its coefficient "
        f"exceeds {COUNTED:.0%} of the median planted one, in the basis of planting. A word "
        "instead of a number: budget (more masks needed), time (over the limit), memory (over "
        f"{MEMORY_LIMIT >> 30} GiB), empty (no terms), or the exception that was raised. SPEX and "
        "ProxySPEX of others draw uniform masks at every density; `@design` is ours on the masks "
        "of `SpexDesign` where p = ½ and they fit, and on masks of both densities, p and ½, "
        "elsewhere. One thread; the others had 60 s a run, 100 s in the search for the masks "
        "needed. An empty field was not run: from 4,096 units on the others took over 45 s.",
        section("Held-out R²", lambda o: _digits(o.r2, 3) if o.word == "ok" else o.word),
        _verdict(grid, methods, ours, look),
        section("F1 of the support", lambda o: _digits(o.f1, 2)),
        section(
            "Precision / recall",
            lambda o: "—" if o.f1 is None else f"{_digits(o.precision, 2)} / {o.recall:.2f}",
        ),
        section(
            "F1 of orders 1 · 2 · 3 · 4 · 5",
            lambda o: " · ".join(_digits(f1, 2) for f1 in o.f1_by_order) or "—",
        ),
        section("Seconds of decoding", lambda o: _digits(o.seconds, 1)),
        section("Peak memory of the process, MB", lambda o: _digits(o.megabytes, 0)),
        section("Masks used", lambda o: "—" if o.used is None else f"{o.used:,}"),
        _needed_table(store, look, ours),
    ]
    return "\n\n".join(sections) + "\n"


Look = Callable[[Cell, str], Outcome | None]


def _verdict(grid: Sequence[Cell], methods: Sequence[str], ours: str, look: Look) -> str:
    """Where `ours` is behind the best of the others."""
    behind, compared = [], 0
    for cell in grid:
        own = look(cell, ours)
        answers = {m: o for m in methods if m in OTHERS and (o := look(cell, m))}
        rivals = {m: o.r2 for m, o in answers.items() if o.r2 is not None}
        if own is None or not rivals:
            continue
        compared += 1
        best = max(rivals, key=lambda m: rivals[m])
        if own.r2 is None or own.r2 < rivals[best] - 0.001:
            behind.append(
                f"- {_describe(cell)}, N = {cell.n_masks:,}: {ours} {_digits(own.r2, 3)}, "
                f"{best} {rivals[best]:.3f}"
            )
    head = f"`{ours}` is behind the best of the others by more than .001 in {len(behind)} of "
    return "\n".join([head + f"{compared} cells.", "", *behind]).strip()


def _needed_table(store: Store, look: Look, ours: str) -> str:
    methods, rows = _methods(store), []
    for cell in needed_cells(None):
        seeds = sorted({c.seed for c, _ in store.runs if replace(c, n_masks=0, seed=0) == cell})
        if not seeds:
            continue
        counts = {m: _median_least(cell, m, seeds, look) for m in methods}
        others = [counts[m][0] for m in methods if m in OTHERS]
        best, own = min(others, default=np.inf), counts.get(ours, (np.inf, ""))[0]
        ratio = f"{best / own:.1f}" if np.isfinite(best) and np.isfinite(own) else "—"
        enough = f"{ENOUGH[cell.noise_db]:.2f}"
        rows.append([_describe(cell), enough, *(counts[m][1] for m in methods), ratio])
    title = "## Masks needed\n\nMedian over seeds; > N: not reached with N masks, the most tried.\n"
    header = ["planted", "R²", *methods, f"best other / {ours}"]
    return title + "\n" + _table(header, rows)


def _median_least(cell: Cell, method: str, seeds: Sequence[int], look: Look) -> tuple[float, str]:
    reached = [least(replace(cell, seed=seed), method, look) for seed in seeds]
    reached = [(used, rung) for used, rung in reached if rung]
    if not reached:
        return np.inf, ""
    middle = median(np.inf if used is None else used for used, _ in reached)
    if np.isfinite(middle):
        return middle, f"{middle:,.0f}"
    return middle, f"> {max(rung for _, rung in reached):,}"


def _methods(store: Store) -> list[str]:
    """Ours first, each group in the order of its constant, unknown ones between."""
    present = {method for _, method in store.runs}
    extra = sorted(present - {*OURS, *OTHERS})
    return [method for method in (*OURS, *extra, *OTHERS) if method in present]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ── The command line ──────────────────────────────────────────────────────────────────────────────


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    stored = argparse.ArgumentParser(add_help=False)
    stored.add_argument("--csv", type=Path, default=Path("runs/planted.csv"))
    measured = argparse.ArgumentParser(add_help=False, parents=[stored])
    measured.add_argument("--methods", nargs="+", default=[*OURS, *OTHERS])
    measured.add_argument("--units", type=int, nargs="+", help="only these numbers of units")
    measured.add_argument("--limit", type=float, default=300, help="seconds a run")
    grid = commands.add_parser("grid", parents=[measured], help="fixed numbers of masks")
    grid.add_argument("--masks", type=int, nargs="+", help="only these numbers of masks")
    needed = commands.add_parser("needed", parents=[measured], help="the least number of masks")
    needed.add_argument("--seeds", type=int, default=3)
    needed.add_argument("--terms", type=int, nargs="+", help="only these numbers of terms")
    table = commands.add_parser("table", parents=[stored], help="write the CSV as markdown")
    table.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    table.add_argument("--ours", default=OURS[0], help="the method held against the others")
    run = commands.add_parser("run", help="one decoder on one cell, in this process")
    run.add_argument("method")
    run.add_argument("cell", type=json.loads)
    arguments = parser.parse_args()

    if arguments.command == "run":
        print(json.dumps(asdict(run_here(Cell(**arguments.cell), arguments.method))))
    elif arguments.command == "table":
        arguments.out.write_text(render(Store(arguments.csv, 0), arguments.ours))
    elif arguments.command == "grid":
        store = Store(arguments.csv, arguments.limit)
        for cell in grid_cells(arguments.units, arguments.masks):
            for method in arguments.methods:
                store.get(cell, method)
    else:
        store = Store(arguments.csv, arguments.limit)
        for cell in needed_cells(arguments.units):
            if not arguments.terms or cell.n_terms in arguments.terms:
                for method, seed in product(arguments.methods, range(arguments.seeds)):
                    least(replace(cell, seed=seed), method, store.get)


if __name__ == "__main__":
    main()
