"""Contexts of twelve sentences with a question, for which one or two sentences are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from mechspex.models.load_model import Model
from mechspex.prompts.prompt_values import PromptValues

Kind = Literal["one", "two"]
KINDS: tuple[Kind, ...] = ("one", "two")

_NAMES = (
    "Anna", "Peter", "Maria", "Thomas", "Laura", "David", "Emma", "Paul", "Sarah", "Mark", "Julia",
    "Simon",
)  # fmt: skip
_PLACES = (
    "kitchen", "garden", "attic", "cellar", "office", "garage", "bathroom", "library", "bedroom",
    "hallway",
)  # fmt: skip
_CITIES = ("Paris", "London", "Rome", "Berlin", "Madrid", "Tokyo", "Cairo", "Boston")
_THINGS = ("apple", "key", "book", "ball", "phone", "coin")
_FILLERS = (
    "It was raining all day.", "The sun came out in the evening.", "Dinner was served at seven.",
    "The clock on the wall was slow.", "A dog barked in the street.", "The train was late again.",
    "Nobody had time to read the news.", "The window was open all night.",
)  # fmt: skip


@dataclass(frozen=True)
class Context:
    """Sentences, and a question about a place that some of them name.

    Attributes:
        sentences: the sentences, in random order.
        needed: the columns of those without which the question has no answer.
        question: the beginning of the answer.
        places: the places named as those of people; the first is the right one.
    """

    sentences: tuple[str, ...]
    needed: tuple[int, ...]
    question: str
    places: tuple[str, ...]

    @property
    def response(self) -> str:
        """The right answer."""
        return f" {self.places[0]}"

    def values(self, model: Model) -> PromptValues:
        """The log-probability of the right answer where sentences are deleted."""
        text = " ".join(self.sentences)
        return PromptValues(
            model, text, f"\n\n{self.question}", by="sentence", response=self.response
        )


def made_context(kind: Kind, seed: int) -> Context:
    """A context of random names, places and things.

    * ``one``: "Anna is in the kitchen." … "Anna is in the" (kitchen)
    * ``two``: "Anna has the key." … "Anna is in the kitchen." … "The key is in the" (kitchen)

    Args:
        kind: how many sentences are needed.
        seed: the only source of randomness.
    """
    rng = np.random.default_rng(seed)
    name, place, thing = (list(map(str, rng.permutation(w))) for w in (_NAMES, _PLACES, _THINGS))
    if kind == "one":
        sentences = [f"{name[i]} is in the {place[i]}." for i in range(6)]
        cities = rng.permutation(_CITIES)
        sentences += [f"{name[i]} was born in {cities[i]}." for i in range(6)]
        needed, start, named = [0], f"{name[0]} is in the", place[:6]
    else:
        sentences = [f"{name[i]} has the {thing[i]}." for i in range(2)]
        sentences += [f"{name[i]} is in the {place[i]}." for i in range(2)]
        sentences += list(map(str, rng.permutation(_FILLERS)))
        needed, start, named = [0, 2], f"The {thing[0]} is in the", place[:2]
    order = rng.permutation(len(sentences)).tolist()
    columns = tuple(sorted(order.index(column) for column in needed))
    return Context(tuple(sentences[i] for i in order), columns, start, tuple(named))


def understood(model: Model, context: Context) -> bool:
    """Whether the model is right with all sentences and wrong without any needed one.

    Right is it where of the places named the right one is the likeliest next word.

    Args:
        model: the model.
        context: sentences and question.
    """
    if not _right(model, context, context.sentences):
        return False
    fewer = (
        [one for i, one in enumerate(context.sentences) if i != column] for column in context.needed
    )
    return not any(_right(model, context, sentences) for sentences in fewer)


def _right(model: Model, context: Context, sentences: Sequence[str]) -> bool:
    """Whether the model says the right place after these sentences."""
    text = " ".join(sentences) + "\n\n" + context.question
    device = next(model.original_model.parameters()).device
    tokens = torch.tensor([model.tokenizer(text)["input_ids"]], device=device)
    with torch.no_grad():
        logits = model.original_model(tokens).logits[0, -1]
    encode = model.tokenizer
    first = [encode(f" {p}", add_special_tokens=False)["input_ids"][0] for p in context.places]
    return int(logits[first].argmax()) == 0
