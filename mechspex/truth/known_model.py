"""A small model with its task and its units, whose circuit is known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mechspex.components.component_values import ComponentValues
from mechspex.core.errors import Refused
from mechspex.core.units import UnitSet
from mechspex.models.load_model import Model
from mechspex.tasks.metrics import Metric
from mechspex.tasks.task import Task

PAD = "<pad>"


@dataclass(frozen=True)
class KnownModel:
    """A model with a known circuit, and the other parts of its value function.

    Attributes:
        name: the model's name in `KNOWN_MODELS`.
        what: the circuit, in a few words.
        model: the model, as a bridge.
        task: prompts and a continuous metric.
        units: the units of the masks, few enough for all 2^n masks.
        matches: the metric that is 1 where the answer is right and 0 where it is not; None for a
            model without right answers.
        built_of: the numbers of the units that the construction gives weights, where it is
            recorded; None where it is not.
    """

    name: str
    what: str
    model: Model
    task: Task
    units: UnitSet
    matches: Metric | None = None
    built_of: frozenset[int] | None = None

    def values(
        self, ablation: str = "zero", *, matches: bool = False, seed: int = 0
    ) -> ComponentValues:
        """The value function.

        Args:
            ablation: ``zero``, ``resample`` or ``mean``.
            matches: whether to count right answers in place of the continuous metric.
            seed: the seed of ``resample``.

        Raises:
            Refused: right answers of a model that has none.
        """
        task = self.task
        if matches:
            if self.matches is None:
                raise Refused(f"{self.name} has no right answers; leave out matches")
            task = replace(task, metric=self.matches)
        with warnings.catch_warnings():
            # Its prompts are all there are: a mean over two of them is what is meant.
            warnings.filterwarnings("ignore", "the mean over")
            return ComponentValues(self.model, task, self.units, ablation, seed=seed)


@dataclass(frozen=True)
class Margin:
    """Logit of the answer less the largest other logit, in logits.

    Attributes:
        answers: one token id a prompt.
    """

    answers: Int[Tensor, " prompt"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        answers = self.answers[prompts, None]
        others = logits.scatter(1, answers, -torch.inf).amax(1)
        return logits.gather(1, answers)[:, 0] - others


@dataclass(frozen=True)
class RightWord:
    """1 where the margin of the answer is more than half a logit, else 0: a tie is not right.

    Attributes:
        answers: one token id a prompt.
    """

    answers: Int[Tensor, " prompt"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return (Margin(self.answers)(logits, prompts) > 0.5).float()


@dataclass(frozen=True)
class LogitOf:
    """The logit of one word, where a model writes a number.

    Attributes:
        word: the word's token id.
    """

    word: int

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return logits[:, self.word]


@dataclass(frozen=True)
class RightNumber:
    """1 where the logit of a word is within 0.05 of the right number, else 0.

    Attributes:
        word: the word's token id.
        right: the right number of each prompt.
    """

    word: int
    right: Float[Tensor, " prompt"]

    def __call__(
        self, logits: Float[Tensor, "row vocabulary"], prompts: Int[Tensor, " row"]
    ) -> Float[Tensor, " row"]:
        return ((logits[:, self.word] - self.right[prompts]).abs() < 0.05).float()


def word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word; spaces part the words of a text.

    Args:
        vocabulary: all words; a word's token id is its place.
    """
    ids = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=PAD,
        pad_token=PAD,
        name_or_path="",
    )
