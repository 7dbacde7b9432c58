"""Rows of a table as a task, as far as a tokenizer can read them; nothing here loads torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mechspex.core.errors import TaskError
from mechspex.models.tokenizer import Tokenizer
from mechspex.tasks.metric_names import DIFFERENCES
from mechspex.tasks.prompt_layouts import Layout, PromptRow, Turns, layout_of
from mechspex.tasks.prompt_records import records_of
from mechspex.tasks.spans import token_spans
from mechspex.tasks.task import Task
from mechspex.tasks.token_ids import TokenIds, token_ids

# Rows that a complaint lists.
_LISTED = 8
# After these a word follows without a space.
_OPEN = "=([{<\"'`-/_$#@"
_FIRST_OF_EAST_ASIA = "\u2e80"


@dataclass(frozen=True)
class Reading:
    """A table of prompts as a task, and what is to be said of it."""

    task: Task
    remarks: tuple[str, ...]


def reading_of(
    source: Any,
    tokenizer: Tokenizer,
    *,
    metric: str | None = None,
    skip: bool = False,
    chat: bool = False,
    prepend_bos: bool | None = None,
    answer_tokens: str = "all",
    longest: int | None = None,
) -> Reading:
    """The rows of a table that a tokenizer can read; see `read_prompts`.

    Args:
        source, metric, skip, chat, prepend_bos, answer_tokens: see there.
        tokenizer: the model's tokenizer.
        longest: how many tokens the model can read; any number if not given.
    """
    if chat and not getattr(tokenizer, "chat_template", None):
        raise TaskError("chat = True, but this model's tokenizer has no chat template")
    name, records = records_of(source)
    layout = layout_of(records)
    rows: list[tuple[str, PromptRow]] = []
    misfits: list[str] = []
    for record in records:
        try:
            row = layout.read(record.cells, records)
            rows.append((record.place, _in_chat(row, tokenizer) if chat else _no_chat(row)))
        except TaskError as error:
            misfits.append(f"{record.place}: {error}")
    remarks: list[str] = []
    if not chat:
        rows = _spaced(rows, remarks)
    metric = metric or _metric(layout, [row for _, row in rows])
    options = {"metric": metric, "prepend_bos": prepend_bos, "answer_tokens": answer_tokens}
    fitting: list[PromptRow] = []
    for place, row in rows:
        try:
            one = _task([row], name, options, tokenizer)
            ids = token_ids(one, tokenizer)
            token_spans(tokenizer, one.prompts, ids.prompts, one.spans)
            _refuse_longer(ids, metric, longest)
            fitting.append(row)
        except TaskError as error:
            # Each row is a task of its own there, whose only prompt has the number 0.
            misfits.append(f"{place}: {str(error).replace('prompt 0', 'the prompt')}")
    if misfits:
        told = _told(misfits, len(fitting), len(records))
        if not skip or not fitting:
            way = "" if not fitting else ", or go on without them: skip=True (--skip)"
            raise TaskError(f"{told}. Mend them{way}")
        remarks.append(told)
    return Reading(_task(fitting, name, options, tokenizer), tuple(remarks))


def _refuse_longer(ids: TokenIds, metric: str, longest: int | None) -> None:
    """Refuse a prompt that is longer than a model can read, with the answers forced after it."""
    continuations = [*ids.answers[0], *(() if ids.distractors is None else ids.distractors[0])]
    forced = 0 if metric == "kl_divergence" else max(len(one) - 1 for one in continuations)
    length = forced + max(map(len, [*ids.prompts, *(ids.corrupted or ())]))
    if longest is not None and length > longest:
        with_answer = " with its answer" if forced else ""
        raise TaskError(f"it has {length:,} tokens{with_answer}, and the model reads {longest:,}")


def _told(misfits: Sequence[str], n_fitting: int, n_rows: int) -> str:
    listed = "; ".join(misfit.rstrip(".") for misfit in misfits[:_LISTED])
    more = f"; and {len(misfits) - _LISTED} more" if len(misfits) > _LISTED else ""
    fitting = "none" if not n_fitting else str(n_fitting)
    return f"{fitting} of {n_rows} rows fit this model; these do not: {listed}{more}"


def _metric(layout: Layout, rows: Sequence[PromptRow]) -> str:
    if layout.metric is not None:
        return layout.metric
    wrong = any(row.distractors for row in rows)
    return "logit_difference" if wrong else "answer_log_probability"


def _task(
    rows: Sequence[PromptRow], name: str, options: dict[str, Any], tokenizer: Tokenizer
) -> Task:
    differs = options["metric"] in DIFFERENCES
    if differs and not all(row.distractors for row in rows):
        raise TaskError(f"it has no distractor, which {options['metric']} needs")
    # Spans are for those tokenizers alone that tell where their tokens stand.
    spans = getattr(tokenizer, "is_fast", False) and all(row.subject for row in rows)
    corrupted = all(row.corrupted is not None for row in rows)
    others = spans and corrupted and all(row.corrupted_subject for row in rows)
    return Task(
        prompts=[row.prompt for row in rows],
        answers=[row.answers for row in rows],
        distractors=[row.distractors for row in rows] if differs else None,
        corrupted=[str(row.corrupted) for row in rows] if corrupted else None,
        spans=[{"subject": row.subject} for row in rows if row.subject] if spans else None,
        corrupted_spans=[
            {"subject": row.corrupted_subject} for row in rows if row.corrupted_subject
        ]
        if others
        else None,
        name=name,
        **options,
    )


def _spaced(
    rows: Sequence[tuple[str, PromptRow]], remarks: list[str]
) -> list[tuple[str, PromptRow]]:
    """Rows whose answers begin with the space that parts them from the prompt."""
    texts = [text for _, row in rows for text in (*row.answers, *row.distractors)]
    if any(text[:1].isspace() for text in texts):
        return list(rows)
    changed = [(place, _with_spaces(row)) for place, row in rows]
    shown = next(
        (new for (_, old), (_, new) in zip(rows, changed, strict=True) if new != old), None
    )
    if shown is not None:
        moved = any(row.prompt[-1:] == " " for _, row in rows)
        how = "the space at the end of prompts was moved to" if moved else "a space was put before"
        remarks.append(
            f"{how} the answers, which began without one: {shown.prompt[-20:]!r} + "
            f"{shown.answers[0]!r}"
        )
    return changed


def _with_spaces(row: PromptRow) -> PromptRow:
    if row.prompt[-1:] == " " and not row.prompt[-2:-1].isspace():
        row = replace(
            row,
            prompt=row.prompt[:-1],
            corrupted=None if row.corrupted is None else row.corrupted.removesuffix(" "),
        )
    elif row.joined or not all(map(_begins_word, row.answers)) or not _ends_word(row):
        return row
    return replace(
        row,
        answers=tuple(f" {text}" for text in row.answers),
        distractors=tuple(f" {text}" for text in row.distractors),
    )


def spaced(prompt: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Continuations of a prompt, each begun with the space that parts it from the prompt's last
    word; as they are where one of them begins with a blank, or the prompt ends in no word.

    Args:
        prompt: the text before.
        texts: the continuations.
    """
    if any(text[:1].isspace() for text in texts) or prompt[-1:].isspace():
        return tuple(texts)
    return _with_spaces(PromptRow(prompt, tuple(texts))).answers


def _begins_word(text: str) -> bool:
    return text[:1].isalnum() and text[:1] < _FIRST_OF_EAST_ASIA


def _ends_word(row: PromptRow) -> bool:
    last = row.prompt[-1:]
    digits = last.isdigit() and any(text[:1].isdigit() for text in row.answers)
    return bool(last) and not last.isspace() and last not in _OPEN and not digits


def _no_chat(row: PromptRow) -> PromptRow:
    if row.turns or row.corrupted_turns:
        raise TaskError("its prompt is a chat of several turns: read it with chat=True (--chat)")
    return row


def _in_chat(row: PromptRow, tokenizer: Tokenizer) -> PromptRow:
    """A row whose prompt is what a user says, or a chat; its answers begin the reply, or go on with
    one that has begun."""
    prompt, subject = _said(row.prompt, row.turns, row.subject, tokenizer)
    corrupted, other = row.corrupted, None
    if corrupted is not None:
        span = row.corrupted_subject
        corrupted, other = _said(corrupted, row.corrupted_turns, span, tokenizer)
    begun = bool(row.turns) and row.turns[-1]["role"] == "assistant"
    return PromptRow(
        prompt,
        row.answers if begun else tuple(text.lstrip() for text in row.answers),
        row.distractors if begun else tuple(text.lstrip() for text in row.distractors),
        corrupted,
        subject,
        other,
    )


def _said(
    text: str, turns: Turns, span: tuple[int, int] | None, tokenizer: Any
) -> tuple[str, tuple[int, int] | None]:
    """What the model reads of a chat, and where in it a span of its last text lies."""
    chat = [dict(turn) for turn in turns] or [{"role": "user", "content": text}]
    begun = chat[-1]["role"] == "assistant"
    how = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
    try:
        said = str(tokenizer.apply_chat_template(chat, tokenize=False, **how))
    # A template is a program of the model's makers, and refuses chats in its own ways.
    except Exception as error:
        raise TaskError(f"the model's chat template refuses it ({error})") from None
    begin = said.rfind(text)
    if span is None or begin < 0:
        return said, None
    return said, (begin + span[0], begin + span[1])
