"""What options may be, known without the libraries that do it: a slip is told at once.

`tests/cli/test_choices.py` holds each of these against the library's own table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Ablation = Literal["mean", "zero", "position_mean", "leave_one_out", "resample", "corrupted"]
Metric = Literal[
    "logit_difference",
    "probability_difference",
    "answer_probability",
    "answer_log_probability",
    "kl_divergence",
]
Partition = Literal["token", "word", "sentence", "line", "paragraph", "document", "turn", "span"]
Removal = Literal["delete", "replace", "hide", "zero", "mean"]
Score = Literal[
    "log_probability",
    "mean_log_probability",
    "logit_probability",
    "logit_difference",
    "kl_divergence",
]
AnswerTokens = Literal["all", "mean", "first"]
Dtype = Literal["float32", "bfloat16", "float16"]
Precision = Literal["bf16", "fp16", "auto"]
Decoder = Literal["automatic", "additive", "pursuit", "proxyspex", "kernel", "spex", "exhaustive"]
Design = Literal["random", "mixed", "spex"]
Screen = Literal[
    "first_order", "second_order", "ablation", "integrated", "iterated", "gim", "relp", "atp_star"
]
ScreenOrNone = Literal[
    "first_order",
    "second_order",
    "ablation",
    "integrated",
    "iterated",
    "gim",
    "relp",
    "atp_star",
    "none",
]
Objective = Literal["match", "best"]
RepairSource = Literal["second_order", "sweep"]

# Of lists, typer takes enumerations alone.


class BenchAblation(StrEnum):
    """Ablations under which known models are measured."""

    zero = "zero"
    resample = "resample"
    mean = "mean"


class KnownModel(StrEnum):
    """Models whose circuits are known."""

    reverse = "reverse"
    hist = "hist"
    sort_unique = "sort_unique"
    xproportion = "xproportion"
    pair_balance = "pair_balance"
    dyck1 = "dyck1"
    and2 = "and2"
    and3 = "and3"
    and4 = "and4"
    or2 = "or2"
    or3 = "or3"
    adder = "adder"
    gates12 = "gates12"
    gates12b = "gates12b"
    backup = "backup"
    additive = "additive"
