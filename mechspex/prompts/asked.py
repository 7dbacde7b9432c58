"""What a user asks of a prompt, read and checked before a model is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mechspex.core.checks import Only, Whole, told
from mechspex.core.errors import AblationError, Refused, TaskError
from mechspex.core.units import UnitSet
from mechspex.models.load_model import Model, as_model
from mechspex.models.tokenizer import own_tokenizer
from mechspex.prompts.prompt import Prompt, template_of
from mechspex.prompts.scoring import METRICS, OF_SPANS
from mechspex.prompts.text_units import TextUnits, checked_spans, label_of
from mechspex.prompts.words import PARTITIONS, Context, as_partition, words

# What stands in the place of a unit where no word is given.
BLANK = "_"
# What is measured on the text itself, and what is done to the tokens of the whole text.
ON_TEXT, ON_TOKENS = ("delete", "replace"), ("hide", "zero", "mean")
ABLATIONS = (*ON_TEXT, *ON_TOKENS)
# Tokens that a model writes where no response is given.
N_WRITTEN = 32
_LENGTH = Whole(1, wanted="how many tokens the model writes, from 1 up")


@dataclass(frozen=True, eq=False)
class Asked:
    """Prompts, and what is measured on them.

    Attributes:
        units: the parts of the context.
        prompts: a prompt for each question.
        questions: the questions; one None where there is none.
        responses: a text for each question; None where the model writes it.
        n_written: how many tokens it then writes at most.
        one_line: whether what it writes ends with its first line.
        distractors: what should not be said, one for each question; None of most metrics.
        ablation: its name.
        replacement: what stands in the place of an ablated unit; None where it is deleted.
        metric: a name, or a function of texts.
        spans: the pieces of the response that are scored.
    """

    units: TextUnits
    prompts: tuple[Prompt, ...]
    questions: tuple[str | None, ...]
    responses: tuple[str, ...] | None
    n_written: int
    one_line: bool
    distractors: tuple[str, ...] | None
    ablation: str
    replacement: str | None
    metric: Any
    spans: tuple[Any, ...] | None

    @classmethod
    def of(
        cls,
        model: Model | None,
        context: Context | UnitSet,
        question: Sequence[str] | None,
        by: str | UnitSet,
        response: Sequence[str] | int | None,
        distractor: Sequence[str] | None,
        ablation: str | tuple[str, str],
        metric: Any,
        spans: Sequence[Any] | None,
        chat: bool,
    ) -> Asked:
        """Read the arguments of `PromptValues` together.

        Raises:
            Refused: arguments that contradict one another, or too few units.
            TaskError: a chat template that is not there.
        """
        _check_metric(model, metric, distractor, spans)
        units = _units_of(context, by, model, question)
        if len(units) < 2:
            raise Refused(
                f"the context has {len(units)} unit, {', '.join(units.names)}, which is nothing to "
                "compare with another; part it more finely: by='word'"
            )
        name, replacement = ablation if isinstance(ablation, tuple) else (ablation, BLANK)
        replacement = replacement if name == "replace" else None
        kind = "hidden_word" if name == "hide" else "word"
        units = units.of_kind(kind)
        template = None
        if chat or units.turns is not None:
            if model is None:
                raise Refused("a chat template belongs to a model; give one, or chat=False")
            template = template_of(own_tokenizer(model.tokenizer))
        questions = (None,) if question is None else tuple(question)
        whole = Prompt(units, None, template, replacement)
        return cls(
            units=units,
            prompts=tuple(replace(whole, question=one) for one in questions),
            questions=questions,
            responses=_one_each("response", response, questions),
            n_written=response if isinstance(response, int) else N_WRITTEN,
            one_line=response is None,
            distractors=_one_each("distractor", distractor, questions),
            ablation=name,
            replacement=replacement,
            metric=metric,
            spans=None if spans is None else tuple(spans),
        )


def _units_of(
    context: Any, by: Any, model: Model | None, question: Sequence[str] | None
) -> TextUnits:
    tokenizer = None if model is None else model.tokenizer
    if isinstance(context, TextUnits):
        return context
    if isinstance(by, str):
        units = words(context, by, tokenizer=tokenizer)
        # What is asked last in a conversation is its question.
        asked = units.turns is not None and question is None
        return units[: len(units) - 1] if asked else units
    text = context if isinstance(context, str) else words(context, "document").text
    units = tuple(by)
    spans = checked_spans(units, text)
    for unit, (begin, end) in zip(units, spans, strict=True):
        label = label_of(text[begin:end])
        if unit.label != label and not unit.label.startswith(f"{label} ("):
            raise Refused(
                f"unit {unit.name!r} is of another text: here its characters {begin} … {end} are "
                f"{text[begin:end]!r}; take units of this text, mx.words(context)"
            )
    return TextUnits(units, text, "span")


def _check_metric(
    model: Model | None, metric: Any, distractor: Sequence[str] | None, spans: Sequence[Any] | None
) -> None:
    if callable(metric):
        if model is not None or spans is not None or distractor is not None:
            raise Refused(
                "a function of the text needs no model, spans or distractor; give model=None and "
                "nothing of the others"
            )
        return
    if model is None:
        raise Refused(f"metric = {metric!r} is measured on a model; give one")
    if (metric == "logit_difference") != (distractor is not None):
        raise Refused(
            "logit_difference and a distractor go together: give distractor=… with "
            "metric='logit_difference', or neither"
        )
    if spans is not None and metric not in OF_SPANS:
        raise Refused(f"metric = {metric!r} has no spans; choose {', '.join(OF_SPANS)}")


def _one_each(
    name: str, given: Sequence[str] | int | None, questions: Sequence[str | None]
) -> tuple[str, ...] | None:
    if given is None or isinstance(given, int):
        return None
    if len(given) != len(questions):
        raise Refused(
            f"{name} has {len(given)} texts for {len(questions)} questions; give one for each"
        )
    return tuple(given)


def as_model_or_none(name: str, given: object) -> Any:
    """Reads a model; None where there is none."""
    return None if given is None else as_model(name, given)


def as_texts(name: str, given: object) -> Any:
    """Reads a text, or several, as several; none may be empty.

    Raises:
        TaskError: something else.
    """
    texts = [given] if isinstance(given, str) else given
    wanted = f"{name} = {told(given)}: give a text, or a list of texts"
    if not isinstance(texts, Sequence) or isinstance(texts, bytes) or not len(texts):
        raise TaskError(wanted)
    for text in texts:
        if not isinstance(text, str):
            raise TaskError(wanted)
        if not text.strip():
            raise TaskError(f"{name} = {text!r} is empty; give a word, or leave {name} out")
    return tuple(texts)


def as_response(name: str, given: object) -> Any:
    """Reads responses, or how many tokens of one the model writes."""
    if isinstance(given, str | Sequence):
        return as_texts(name, given)
    return _LENGTH(name, given)


def as_parting(name: str, given: object) -> Any:
    """Reads what a context is parted by, or its units."""
    if isinstance(given, UnitSet):
        return given
    if not isinstance(given, str):
        wanted = f"{', '.join(PARTITIONS)}, or units of the text"
        return Only((UnitSet,), wanted)(name, given)
    return as_partition(name, given)


def as_ablation(name: str, given: object) -> Any:
    """Reads the name of an ablation, or ``("replace", word)``.

    Raises:
        AblationError: there is none of that name.
    """
    word = None
    if isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], str):
        given, word = given
    if word is not None and not (isinstance(word, str) and word.strip()):
        raise AblationError(f"{name}: a unit cannot be replaced by {told(word)}; give a word")
    if not isinstance(given, str) or given not in ABLATIONS:
        raise AblationError(
            f"{name} = {told(given)}: choose {', '.join(ABLATIONS)}, or ('replace', 'a word')"
        )
    if word is not None and given != "replace":
        raise AblationError(f"{name} = {told((given, word))}: a word goes with 'replace'")
    return given if word is None else (given, word)


def as_metric(name: str, given: object) -> Any:
    """Reads the name of a metric, or a function of texts.

    Raises:
        Refused: neither.
    """
    if not callable(given) and not (isinstance(given, str) and given in METRICS):
        raise Refused(
            f"{name} = {told(given)}: choose {', '.join(METRICS)}, or give a function of texts"
        )
    return given


def as_spans(name: str, given: object) -> Any:
    """Reads spans of a response; one alone is a list of one.

    Raises:
        Refused: something else, or none.
    """
    if isinstance(given, str) or (isinstance(given, tuple) and all(map(_is_place, given))):
        given = [given]
    wanted = f"{name} = {told(given)}: give texts, or (first, last + 1) in characters"
    if not isinstance(given, Sequence) or not len(given):
        raise Refused(wanted)
    for span in given:
        pair = isinstance(span, Sequence) and len(span) == 2 and all(map(_is_place, span))
        if not isinstance(span, str) and not pair:
            raise Refused(wanted)
    return [span if isinstance(span, str) else tuple(span) for span in given]


def _is_place(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)
