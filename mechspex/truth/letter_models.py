"""Two models of random letters: one with backup heads, and one that has no interactions at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors.torch import load_file
from torch import Tensor

from mechspex.models.load_model import Model, native_model
from mechspex.models.units import heads
from mechspex.tasks.task import Task
from mechspex.truth.known_model import PAD, KnownModel, RightWord, word_tokenizer

LETTERS = "abcdefghijklmnopqrst"
VOCABULARY = (PAD, *LETTERS)
# How many letters a sequence has, how many of them the segment that occurs twice, and how many come
# before its second occurrence.
LENGTH, SEGMENT, BEFORE = 16, 5, 11
BACKUP_CONFIG: dict[str, Any] = {
    "n_layers": 2, "n_heads": 4, "d_model": 32, "d_head": 8, "n_ctx": LENGTH,
    "d_vocab": len(VOCABULARY), "attn_only": True, "normalization_type": "LN",
    "positional_embedding_type": "rotary", "rotary_base": 100, "rotary_dim": 8, "seed": 0,
}  # fmt: skip
ADDITIVE_CONFIG: dict[str, Any] = BACKUP_CONFIG | {
    "n_layers": 1, "n_heads": 8, "normalization_type": None,
}  # fmt: skip
WEIGHTS = Path(__file__).with_name("backup.safetensors")

BACKUP = "induction by two heads of either kind, each with a backup"
ADDITIVE = "one attention layer without norms: heads add up, none interact"


def load_backup() -> KnownModel:
    """Two layers of four heads, trained by `train_backup.py` with heads dropped at random.

    Two heads of layer 0 write to each letter which one came before it. With that, two heads of
    layer 1 find the letter that followed last time. Either of two heads is enough, so the circuit
    is an AND of two ORs; the other four heads do nothing. The value is the logit of the right
    letter less that of another letter of the segment.
    """
    model = _model("backup", BACKUP_CONFIG, load_file(WEIGHTS))
    return _known("backup", BACKUP, model, matches=True)


def load_additive() -> KnownModel:
    """One random attention layer and no norms: the logits are a sum over heads, exactly.

    Its value is that of `load_backup`. It has no right answers: nothing was trained.
    """
    return _known("additive", ADDITIVE, _model("additive", ADDITIVE_CONFIG), matches=False)


def _model(name: str, config: dict[str, Any], weights: dict[str, Tensor] | None = None) -> Model:
    return native_model(name, config, word_tokenizer(VOCABULARY), weights)


def _known(name: str, what: str, model: Model, *, matches: bool) -> KnownModel:
    rows = draw_sequences(8, torch.Generator().manual_seed(1))
    words = [[VOCABULARY[token] for token in row] for row in rows.tolist()]
    task = Task(
        prompts=[" ".join(row[:-1]) for row in words],
        answers=[f" {row[-1]}" for row in words],
        distractors=[f" {row[-3]}" for row in words],
        prepend_bos=False,
        name=name,
    )
    right = RightWord(rows[:, -1]) if matches else None
    return KnownModel(name, what, model, task, heads(model), right)


def draw_sequences(n_sequences: int, generator: torch.Generator) -> Int[Tensor, "sequence pos"]:
    """Tokens of different random letters; a segment of them occurs again at the end.

    Args:
        n_sequences: how many sequences.
        generator: the only source of randomness.
    """
    letters = torch.rand(n_sequences, len(LETTERS), generator=generator).argsort(1)
    rows = letters[:, :LENGTH] + VOCABULARY.index(LETTERS[0])
    start = torch.randint(BEFORE - SEGMENT, (n_sequences, 1), generator=generator)
    rows[:, BEFORE:] = rows.gather(1, start + torch.arange(SEGMENT))
    return rows
