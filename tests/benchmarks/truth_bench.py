"""Every decoder and screen on models whose circuits are known, as markdown (about ten minutes).

OMP_NUM_THREADS=1 python tests/benchmarks/truth_bench.py > tests/benchmarks/truth_bench.md

With `screens FILE` the screens alone are measured, a minute, and FILE is printed with their new
rows.
"""

import sys
from pathlib import Path

import pandas as pd

from mechspex.experiments.bench import SCREENS, bench, summary

ABLATIONS = ("zero", "resample", "mean")
INTRODUCTION = """# Truth bench

Every decoder and screen on the models of `mechspex.truth`, whose exact terms are known by brute
force. The truth is measured for each ablation anew: it differs.

`OMP_NUM_THREADS=1 python tests/benchmarks/truth_bench.py > tests/benchmarks/truth_bench.md`

*terms*: true ones of order 1, 2, 3, … in *basis*, the one in which there are fewest; answers are
compared in that basis. A term counts, in the truth and in an answer, where its coefficient of any
output exceeds a hundredth of the largest spread of values. F1 is over the terms of orders 1 to 4;
1 where there are none and none was found. *error*: ‖ĉ − c‖ / ‖c‖ over all terms but the constant.
—: refused, too few masks.

Screens are compared with the exact singles (`first_order`) and pairs (`second_order`) of the
ablated basis, of the mean over outputs (under resample the two prompts of a gate mirror each other
and what is additive cancels there); their *masks* are gradients.
"""
SUMMARY = """
## What `automatic` finds by itself, and the others

*chose*, *masks*, *f1* and *error* are of `mx.explain` with a budget of 2^n masks, which measures
all of them; *below*: `automatic` with the most masks below that (512, 128 or 32). F1 of the other
methods with the same number, `exhaustive` with all masks, `spex` with the least of its own design.
"""
NOTES = """
## Where F1 is below 1

- Below 2^n masks a set of k units, all needed, is whole in one of 2^k masks at p = ½. The sets of
  `dyck1` with six to ten units show in too few of 512 masks for any decoder, which is seen in
  *error*; an F1 of 1 there says only that nothing of order 1 to 4 was made up. The two triples of
  `pair_balance` are whole in 8 masks of 64; pursuit finds both from 48 random masks (3 of 4 seeds),
  and from 32 that keep each unit with probability 0.8.
- `kernel` knows sets of up to three units; `additive` is the baseline.
- Models of two and four units have 4 and 16 masks: fewer than other decoders take.
- Gradient screens fail at kinks: an OR of two heads is saturated until one of them is ablated, and
  its relu has no slope there (`or2`, zero). Steep units of compiled MLPs (slope 100) bend between
  ablated and kept. In `pair_balance` no unit matters alone under `resample` and `mean`, but the
  gradient with every unit whole, half of `first_order`, is not 0 there.
"""
ALL = """
## All rows
"""


def shown(value: object) -> str:
    if isinstance(value, float):
        return "—" if pd.isna(value) else f"{value:.3f}".removesuffix(".000")
    return str(value)


def markdown(frame: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(frame.columns) + " |", "|---" * frame.shape[1] + "|"]
    lines += ["| " + " | ".join(map(shown, row)) + " |" for row in frame.itertuples(index=False)]
    return "\n".join(lines)


def with_screens(text: str, frame: pd.DataFrame) -> str:
    """The tables with the rows of the screens, and their columns of the summary, as in `frame`."""
    fresh = {(row["model"], row["ablation"], row["method"]): row for _, row in frame.iterrows()}
    lines, columns = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[:2] == ["model", "ablation"]:
            columns = cells
        row = dict(zip(columns, cells, strict=False)) if line.startswith("| ") else {}
        where = row.get("model", ""), row.get("ablation", "")
        measured = fresh.get((*where, row.get("method", "")))
        if measured is not None:
            row |= {name: shown(measured[name]) for name in columns}
        for screen in SCREENS:
            if screen in row and (*where, f"screen {screen}") in fresh:
                row[screen] = shown(fresh[*where, f"screen {screen}"]["f1"])
        lines.append("| " + " | ".join(row.values()) + " |" if row else line)
    return "\n".join(lines)


def main() -> None:
    if sys.argv[1:]:
        frame = bench(ablations=ABLATIONS, decoders=[], progress=True)
        print(with_screens(Path(sys.argv[2]).read_text(), frame))
        return
    frame = bench(ablations=ABLATIONS, progress=True)
    short = summary(frame).rename(columns=lambda name: name.replace("screen ", ""))
    print(INTRODUCTION + SUMMARY)
    print(markdown(short))
    answered = frame.query("refused == ''").drop(columns=["refused", "units", "basis", "terms"])
    print(NOTES + ALL)
    print(markdown(answered))


if __name__ == "__main__":
    main()
