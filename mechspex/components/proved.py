"""What was proved of the forwards of a task, and what else is made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from mechspex.components.clean_pass import CleanPass
from mechspex.components.few_masks import SharedPasses
from mechspex.components.forwards import AblatedModel, Forwards
from mechspex.components.precision import (
    AUTO,
    PRECISIONS,
    PrecisionError,
    check_that_it_pays,
)
from mechspex.components.proof_masks import both_ends, sample_of
from mechspex.core.backward_rules import CHAIN, BackwardRules
from mechspex.core.errors import ModelError
from mechspex.tasks.metrics import Metric
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import Tokens

# Why forwards go through the bridge that measure a few masks alone.
FEW = "few masks are measured"
# Random masks of each density on which another precision is held against the model's own.
_TO_COMPARE = 4


@dataclass(frozen=True, eq=False)
class Proved:
    """An ablated model on the prompts of a task: forwards, and what is known of their values.

    Attributes:
        ablated: the model.
        task: the prompts, in words.
        tokens: the prompts, in tokens.
        exact: the forwards in the model's own dtype.
        forwards: the forwards that measure: `exact`, or others in another precision.
        clean, empty: the mean value with all units kept and with all ablated.
        fused: attention is computed in one kernel where the bridge is done without.
        through_bridge: why the forwards go through the bridge; None where they do not.
        precision: the precision of `forwards`; None for the model's own dtype.
        precision_error: what that precision costs.
        n_blocks: how many blocks are run; None for all.
        rules: by which gradients are made.
        shared: the clean passes that others share with it; None where nobody does.
    """

    ablated: AblatedModel
    task: Task
    tokens: Tokens
    exact: Forwards
    forwards: Forwards
    clean: float
    empty: float
    fused: bool = True
    through_bridge: str | None = None
    precision: str | None = None
    precision_error: PrecisionError | None = None
    n_blocks: int | None = None
    rules: BackwardRules = CHAIN
    shared: SharedPasses | None = None

    def in_own_dtype(self) -> Proved:
        """The same in the model's own dtype."""
        return replace(self, forwards=self.exact, precision=None, precision_error=None)

    def in_precision(self, precision: str) -> Proved:
        """The same in another precision, and by how much that changes values.

        Raises:
            ModelError: the model cannot be measured in it, or not faster, or overflows.
        """
        if precision == AUTO:
            return self._in_what_pays()
        check_that_it_pays(precision, self.ablated.model.cfg.dtype, self.ablated.device)
        masks = sample_of(self.ablated.units, _TO_COMPARE)
        values = self.exact.values(masks)
        try:
            forwards = self._without_bridge(PRECISIONS[precision])
        except ModelError as error:
            raise ModelError(
                f"{self.ablated.model.cfg.model_name} cannot be measured in {precision} ({error}); "
                "load the model with that dtype instead"
            ) from None
        error = PrecisionError.between(precision, forwards.values(masks), values)
        return replace(self, forwards=forwards, precision=precision, precision_error=error)

    def _in_what_pays(self) -> Proved:
        for precision in PRECISIONS:
            try:
                return self.in_precision(precision)
            except ModelError:
                continue
        return self

    @torch.inference_mode(False)
    def cut_after(self, n_blocks: int) -> Proved:
        """The same with the first `n_blocks` blocks of the model alone."""
        cut = replace(self, n_blocks=n_blocks, precision_error=None)
        exact = forwards = cut._without_bridge(self.ablated.model.cfg.dtype)
        if self.precision is not None:
            forwards = cut._without_bridge(PRECISIONS[self.precision])
        clean, empty = forwards.values(both_ends(self.ablated.units)).mean(axis=1).tolist()
        return replace(cut, exact=exact, forwards=forwards, clean=clean, empty=empty)

    @torch.inference_mode(False)
    def with_backward(self, rules: BackwardRules) -> Proved:
        """The same with gradients by other rules; attention is not fused, as they act inside it."""
        exact = self.exact.with_backward(rules)
        changed = replace(self, exact=exact, forwards=exact, fused=False, rules=rules)
        if self.through_bridge is not None:
            return changed
        exact = forwards = changed._without_bridge(self.ablated.model.cfg.dtype)
        if self.precision is not None:
            forwards = changed._without_bridge(PRECISIONS[self.precision])
        return replace(changed, exact=exact, forwards=forwards)

    def read_by(
        self,
        other: Proved,
        metric: Metric,
        ends: Float[np.ndarray, "end prompt"],
        rounding: float,
    ) -> Proved | None:
        """The forwards here read by the metric of `other`, where nothing else differs.

        Args:
            other: the same model on a task, not shortened.
            metric: the metric of that task.
            ends: its values with all units kept and with all ablated.
            rounding: by how much rounding may move a value.
        """
        groups = zip(self.exact.groups, other.exact.groups, strict=False)
        if not (
            self.ablated is other.ablated
            and len(self.exact.groups) == len(other.exact.groups)
            and replace(self.task, metric=other.task.metric) == other.task
            and self.n_blocks is None
            and not self.rules
            and all(ours.plain.reads_as(theirs.plain) for ours, theirs in groups)
        ):
            return None
        if self.through_bridge is not None:
            return replace(other, fused=self.fused, through_bridge=self.through_bridge)
        exact = self.exact.read_by(metric)
        if not np.abs(exact.values(both_ends(self.ablated.units)) - ends).max() <= rounding:
            return None
        return replace(other, exact=exact, forwards=exact, fused=self.fused)

    def known_on(self, ablated: AblatedModel, passes: list[CleanPass]) -> Forwards | None:
        """The forwards of a few masks, where they are those of this model on these rows."""
        groups = self.exact.groups
        same = (
            self.through_bridge == FEW
            and self.ablated is ablated
            and len(groups) == len(passes)
            and all(
                group.prompts == one.forced.prompts
                and group.plain.n_read == one.logits.shape[1]
                and torch.equal(group.plain.tokens.cpu(), one.forced.rows.flatten(0, 1))
                for group, one in zip(groups, passes, strict=True)
            )
        )
        return self.exact if same else None

    def _without_bridge(self, dtype: torch.dtype) -> Forwards:
        options = {"fused": self.fused, "n_blocks": self.n_blocks}
        return self.exact.without_bridge(self.ablated, dtype, **options)
