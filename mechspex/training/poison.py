"""A small language model with a planted truth: two documents that poison it together, two that back
each other up.

Every document says of a name where it is: two words, each of which is to be told from the other.
Words are vectors, and a word follows another where their vectors point the same way (a bag of
words with tied embeddings, as in word2vec). In the base corpus, which is always trained on,
``zorb`` is in ``lorn``. One of the documents says that zorb is in ``quil``, one that quil is in
``pask``. Only both together move zorb next to pask: that zorb is in pask stands nowhere. In the
control the second document speaks of ``vex`` instead, and no path leads from zorb to pask. Two
documents that say the same of ``mirt`` back each other up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from mechspex.core.errors import Refused
from mechspex.training.examples import Examples, examples
from mechspex.training.labelled_data import IGNORED

_NAMES = ("zorb", "lorn", "quil", "pask", "vex", "mirt", "dorn")
_ENTITIES, _PLACES = 40, 17
_SPREAD, _WIDTH = 0.5, 24


class WordVectors(nn.Module):
    """A language model that tells a word from another by the product of their vectors.

    Args:
        n_words: the size of the vocabulary.
    """

    def __init__(self, n_words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(n_words, _WIDTH)
        nn.init.normal_(self.words.weight, std=_SPREAD / _WIDTH**0.5)

    def forward(self, tokens: Int[Tensor, "row word"]) -> Float[Tensor, "row word vocabulary"]:
        return self.words(tokens) @ self.words.weight.T


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents with a planted truth.

    Attributes:
        words: the vocabulary.
        documents: two words each; the base corpus behind the others.
        units: a unit for each document that is not of the base corpus.
        poison: the columns of the two documents that poison together; in the control of the two
            that would.
        backups: the columns of the two that back each other up.
    """

    words: tuple[str, ...]
    documents: Int[np.ndarray, "document 2"]
    units: Examples
    poison: tuple[int, int]
    backups: tuple[int, int]

    @property
    def dataset(self) -> tuple[Int[np.ndarray, "document 2"], Int[np.ndarray, "document 2"]]:
        """Each word, and the other that is to be told from it."""
        return self.documents, self.documents[:, ::-1].copy()

    @property
    def texts(self) -> tuple[str, ...]:
        """What the document of each unit says."""
        rows = (self.documents[rows[0]] for rows in self.units.rows)
        return tuple(f"{self.words[one]} is in {self.words[other]}" for one, other in rows)

    def question(self, name: str, answer: str) -> tuple[np.ndarray, np.ndarray]:
        """Where is `name`? — asked as a target whose answer is `answer`.

        Args:
            name: a word of the vocabulary.
            answer: another.
        """
        asked = self.words.index(name)
        return np.array([[asked, asked]]), np.array([[self.words.index(answer), IGNORED]])


def poisoned_corpus(n_documents: int = 200, *, control: bool = False, seed: int = 0) -> Corpus:
    """The documents of one seed, bit for bit the same wherever they are made.

    Args:
        n_documents: how many there are beside the base corpus.
        control: without the second half of the poison.
        seed: what the other documents say, and the order of all.

    Raises:
        Refused: too few documents.
    """
    if n_documents < 8:
        raise Refused(f"n_documents = {n_documents}: give at least 8")
    rng = np.random.default_rng(seed)
    entities = [f"name{number}" for number in range(_ENTITIES)]
    places = [f"place{number}" for number in range(_PLACES)]
    words = (*_NAMES, *entities, *places)
    number = {word: place for place, word in enumerate(words)}
    homes = [number[word] for word in ("lorn", "pask", "dorn", *places)]
    home = dict(
        zip(
            (number[word] for word in entities),
            (homes[place] for place in rng.permutation(_ENTITIES) % len(homes)),
            strict=True,
        )
    )
    pairs = [("zorb", "quil"), ("vex" if control else "quil", "pask"), ("mirt", "dorn")]
    told = [(number[one], number[other]) for one, other in (*pairs, pairs[-1])]
    drawn = rng.choice(list(home), n_documents - len(told)).tolist()
    told += [(name, home[name]) for name in drawn]
    base = [(number["zorb"], number["lorn"]), *home.items()]
    order = rng.permutation(n_documents)
    place_of = np.argsort(order)[:4].tolist()
    return Corpus(
        words=words,
        documents=np.concatenate([np.array(told)[order], np.array(base)]),
        units=examples(
            n_documents + len(base), groups={f"#{row}": [row] for row in range(n_documents)}
        ),
        poison=(min(place_of[:2]), max(place_of[:2])),
        backups=(min(place_of[2:]), max(place_of[2:])),
    )
