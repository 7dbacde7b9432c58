"""One of the sweeps that a file declares."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mechspex.cli.experiment import Experiment
from mechspex.cli.kept import Question
from mechspex.cli.own_prompts import is_table
from mechspex.cli.search import Search
from mechspex.cli.sweep import CONTEXTS, about_sweep, around_of
from mechspex.core.checks import check_from
from mechspex.core.errors import Refused


@dataclass
class Cell:
    """One of the sweeps.

    Attributes:
        in_short: what tells it from the others.
        experiment: its options.
        order: whether pairs are swept as well.
        around: what `mx.sweep` takes of random masks of the other units; empty if all are kept.
        question: what finds its answer again.
    """

    in_short: str
    experiment: Experiment
    order: int
    around: dict[str, Any]
    question: Question

    @classmethod
    def of(cls, options: dict[str, Any]) -> Cell:
        """The sweep of these options, checked: the question that ``mechspex sweep`` asks.

        Args:
            options: the options of the file; ``task`` may be a file of prompts.
        """
        told = in_short(options)
        options = {"device": os.environ.get("MECHSPEX_DEVICE") or "cpu"} | options
        order, density = options.pop("order", 1), options.pop("density", 1)
        n_contexts = options.pop("contexts", CONTEXTS)
        check_from(2, contexts=n_contexts)
        # As `mechspex sweep` is asked.
        contexts, keep = (0, None) if density == 1 else (n_contexts, float(density))
        if order not in (1, 2):
            raise Refused(f"order = {order}: sweep singles (1) or pairs as well (2)")
        if is_table(options["task"]):
            options |= {"prompts_from": Path(options.pop("task"))}
        searched = {option.name for option in fields(Search)}
        plain = Experiment(**options)
        names = [o.name for o in fields(Experiment) if o.name not in {*searched, "asked"}]
        asked = {"command": "sweep", **{name: getattr(plain, name) for name in names}}
        own = {"order": order, "among": None, "contexts": contexts, "keep": keep}
        experiment = Experiment(**options, asked=asked | own)
        experiment.check()
        around = around_of(contexts, keep, experiment.seed)
        about = about_sweep(experiment.about, around)
        return cls(told, experiment, order, around, Question.of(experiment, about))

    @property
    def n_masks(self) -> int:
        """How many masks the sweep measures, with that which keeps all units."""
        from mechspex.effects.sweep import n_sweep_masks

        return n_sweep_masks(len(self.experiment.chosen), self.order, **self.around)

    @property
    def n_prompts(self) -> int:
        """How many prompts it measures: of a file those that there are."""
        wanted = self.experiment.prompts
        if self.experiment.task is not None:
            return wanted
        return min(wanted, len(self.experiment.own_task(self.experiment.tokenizer)))

    @property
    def draws(self) -> bool:
        """Whether the seed draws anything: the prompts of a task, what stands in for a unit, or
        masks of the other units."""
        drawn = self.experiment.task is not None or self.experiment.ablation == "resample"
        return drawn or bool(self.around)

    @property
    def loads(self) -> tuple[str, str, str]:
        """What a model is loaded by."""
        return self.experiment.model, self.experiment.dtype, self.experiment.device


def in_short(options: Mapping[str, Any]) -> str:
    """What tells a sweep from the others.

    Args:
        options: the options of the sweep, by name.
    """
    names = ("task", "model", "units", "ablation")
    words = [Path(options["task"]).stem, *(options[name] for name in names[1:])]
    words += [f"seed {options['seed']}", f"order {options.get('order', 1)}"]
    density = options.get("density", 1)
    return " · ".join(words if density == 1 else [*words, f"density {density:g}"])
