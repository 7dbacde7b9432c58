"""Units whose tokens stay: hidden from attention, or with another embedding in their place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mechspex.components.component_values import ComponentValues
from mechspex.core.units import UnitSet
from mechspex.prompts.scored_model import ScoredModel
from mechspex.prompts.scoring import log_odds
from mechspex.tasks.task import Task

# {ablation of tokens: the same of `ComponentValues`}; what is hidden has nothing in its place.
_ABLATIONS = {"hide": "zero", "zero": "zero", "mean": "mean"}
# {metric here: (metric of a task, how many tokens of the answer count)}
_OF_TASKS = {
    "log_probability": ("answer_log_probability", "all"),
    "mean_log_probability": ("answer_log_probability", "mean"),
    "logit_probability": ("answer_log_probability", "all"),
    "logit_difference": ("logit_difference", "all"),
    "kl_divergence": ("kl_divergence", "all"),
}


@dataclass(frozen=True, eq=False)
class AblatedTokens:
    """The responses to some questions when tokens of the whole prompts are ablated.

    A span of a response is what is said after the prompt and all of the response before it, which
    is never ablated.

    Attributes:
        outputs: the value function of each question, or of each span of its response: one prompt,
            and the units in it.
        metric: a name of `mechspex.prompts.scoring.METRICS`.
    """

    outputs: tuple[ComponentValues, ...]
    metric: str

    @classmethod
    def of(cls, scored: ScoredModel) -> AblatedTokens:
        """The same prompts and responses, of whose tokens none is left out.

        Raises:
            TaskError: a span that the tokenizer reads otherwise by itself.
            AblationError, ModelError: see `ComponentValues`.
        """
        asked, values = scored.asked, []
        ablation = _ABLATIONS[asked.ablation]
        for prompt, response in zip(asked.prompts, scored.responses, strict=True):
            placed = zip(prompt.units, prompt.placed(), strict=True)
            units = UnitSet(tuple(unit._replace(span=span) for unit, span in placed))
            whole = prompt.text([True] * len(prompt.units))
            for before, piece in zip(*scored.split(response), strict=True):
                task = _task(asked.metric, scored, whole + before, piece, response.distractor_text)
                # The mean embedding is that of the prompt, however much of the response follows.
                own = [whole] if ablation == "mean" and before else None
                values.append(ComponentValues(scored.model, task, units, ablation, calibration=own))
        return cls(tuple(values), asked.metric)

    def values(self, masks: Bool[np.ndarray, "mask unit"]) -> Float[np.ndarray, "mask output"]:
        """Values of masks, a column an output."""
        each = np.concatenate([output(masks) for output in self.outputs], axis=1)
        return self._scaled(each)[0]

    def values_and_gradients(
        self, masks: Float[np.ndarray, "mask unit"]
    ) -> tuple[Float[np.ndarray, "mask output"], Float[np.ndarray, "mask output unit"]]:
        """Values of soft masks and their gradients, see `ComponentValues.value_and_gradient`."""
        found = [output.value_and_gradient(masks) for output in self.outputs]
        values, slope = self._scaled(np.concatenate([value for value, _ in found], axis=1))
        gradients = np.concatenate([gradient for _, gradient in found], axis=1)
        return values, (gradients * slope[..., None]).astype(np.float32)

    def _scaled(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities on the metric's scale, and the slope of that scale."""
        if self.metric != "logit_probability":
            return values, np.ones_like(values)
        log_p = values.astype(np.float64)
        slope = 1 / -np.expm1(np.minimum(log_p, -(2.0**-24)))
        return log_odds(log_p).astype(np.float32), slope


def _task(metric: str, scored: ScoredModel, prompt: str, answer: str, wrong: str | None) -> Task:
    name, answer_tokens = _OF_TASKS[metric]
    return Task(
        [prompt],
        [answer],
        None if wrong is None else [wrong],
        metric=name,
        answer_tokens=answer_tokens,
        prepend_bos=scored.prepend_bos,
        name="prompt",
    )
