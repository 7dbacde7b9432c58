"""Attention patterns: where heads look on one prompt, read from the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mechspex.components.clean_pass import record
from mechspex.core.checks import told
from mechspex.core.doors import door
from mechspex.core.errors import Refused, TaskError
from mechspex.core.json_values import plain, read_array, read_text
from mechspex.core.result import Result
from mechspex.core.units import UnitSet
from mechspex.models.load_model import Model, as_model
from mechspex.models.units import heads as heads_of
from mechspex.tasks.next_token import encode

if TYPE_CHECKING:
    import matplotlib.figure

# Rows that the text shows.
_SHOWN = 20


@dataclass(frozen=True, eq=False, repr=False)
class AttentionPatterns(Result):
    """Where heads look on one prompt.

    Attributes:
        model: the model's name.
        heads: the heads.
        tokens: the prompt's tokens as text.
        patterns: A[head, query, key], the share of its attention that a head gives from one token
            to another; rows sum to 1.
    """

    schema: ClassVar[str] = "mechspex.attention_patterns/1"
    called: ClassVar[str] = "attention patterns"

    model: str
    heads: UnitSet
    tokens: tuple[str, ...]
    patterns: Float[np.ndarray, "head query key"]

    def to_pandas(self) -> pd.DataFrame:
        """A row a head and token: what the token looks at most, and with which share."""
        best = self.patterns.argmax(axis=2)
        rows = [
            {
                "head": head,
                "from": self.tokens[query],
                "to": self.tokens[best[number, query]],
                "share": float(self.patterns[number, query, best[number, query]]),
            }
            for number, head in enumerate(self.heads.names)
            for query in range(len(self.tokens))
        ]
        return pd.DataFrame(rows, columns=["head", "from", "to", "share"])

    def plot(
        self, roles: Mapping[str, str] | Mapping[str, Iterable[str]] | None = None
    ) -> "matplotlib.figure.Figure":
        """A map of tokens × tokens a head.

        Args:
            roles: {head: role}, or {role: heads}, named above the maps.
        """
        from mechspex.figures.attention import attention

        return attention(self, roles=roles, heading=f"Where heads look · {self.model}")

    def to_dict(self) -> dict[str, Any]:
        """Tokens and patterns as plain numbers and lists, with a schema name."""
        return {
            "schema": self.schema,
            "model": self.model,
            "heads": self.heads.to_list(),
            "tokens": list(self.tokens),
            "patterns": plain(self.patterns),
        }

    @classmethod
    def _from_record(cls, record: dict[str, Any]) -> AttentionPatterns:
        heads = UnitSet.from_list(record["heads"])
        tokens = tuple(read_text(token) for token in record["tokens"])
        patterns = read_array(record["patterns"], "head", "query", "key", rows=len(heads))
        if patterns.shape != (len(heads), len(tokens), len(tokens)):
            raise ValueError(f"patterns of shape {list(patterns.shape)}")
        return cls(read_text(record["model"]), heads, tokens, patterns)

    @property
    def in_short(self) -> str:
        """How many heads of which model on how many tokens."""
        return f"attention of {len(self.heads)} heads of {self.model} on {len(self.tokens)} tokens"

    def __str__(self) -> str:
        last = self.to_pandas().groupby("head", sort=False).tail(1)
        shown = last.head(_SHOWN).to_string(index=False, float_format="{:.2f}".format)
        lines = [self.in_short, "from the last token, each looks most to", shown]
        return "\n".join(lines if len(last) <= _SHOWN else [*lines, "…"])


def _as_prompt(name: str, given: object) -> str:
    """Reads a prompt."""
    if not isinstance(given, str) or not given:
        raise TaskError(f"{name} = {told(given)}: give a text, such as load_task(…).prompts[0]")
    return given


@door(model=as_model, prompt=_as_prompt)
def attention_patterns(
    model: Model,
    prompt: str,
    heads: UnitSet | Iterable[str] | None = None,
    *,
    prepend_bos: bool | None = None,
) -> AttentionPatterns:
    """Record where heads look on a prompt, in one clean forward.

    Args:
        model: a bridge whose attention patterns can be read.
        prompt: the text.
        heads: which ones, units or names; all of the model if not given.
        prepend_bos: whether the token that begins a text is put first; as the tokenizer does if
            not given.

    Raises:
        Refused: units that are not heads.
        TaskError: no prompt, or a model without a tokenizer.
        AblationError: the model does not show its patterns.
    """
    every = heads_of(model)
    names = every.names if heads is None else heads.names if isinstance(heads, UnitSet) else heads
    chosen = every[[names] if isinstance(names, str) else list(names)]
    if not len(chosen):
        raise Refused("no heads to look at; give some, or leave heads out for all of them")
    tokenizer: Any = model.tokenizer
    if tokenizer is None:
        raise TaskError(f"{model.cfg.model_name} has no tokenizer; give one to load_model")
    ids = encode(tokenizer, prompt, prepend_bos)
    tokens = torch.tensor([ids])
    texts = tuple(str(tokenizer.decode([number])) for number in ids)
    hooks = {unit.layer: f"blocks.{unit.layer}.attn.hook_pattern" for unit in chosen}
    device = next(model.original_model.parameters()).device
    with torch.no_grad():
        seen, _ = record(model, list(hooks.values()), tokens.to(device))
    patterns = np.stack(
        [seen[hooks[unit.layer]][0, unit.number].float().cpu().numpy() for unit in chosen]
    )
    name = Path(str(model.cfg.model_name)).name
    return AttentionPatterns(name, chosen, texts, patterns.astype(float))
