"""What each head and MLP says of an answer directly, and what it says when others are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from mechspex.core.errors import ModelError
from mechspex.core.units import Unit
from mechspex.forward.one_pass import Start
from mechspex.forward.plain_model import PlainModel
from mechspex.models.bridge import edited_logits, hook_point
from mechspex.models.load_model import Model
from mechspex.tasks.task import Task
from mechspex.tasks.tokens import tokenize

ENTERS_NORM, LEAVES_NORM = "ln_final.hook_in", "ln_final.hook_out"
# Tokens of one forward.
_TOKENS_AT_ONCE = 4096
Activations = Mapping[str, Tensor]
"""{hook point: its activation ``[row, pos, …]``}."""


class Said(NamedTuple):
    """A quantity, and what each part adds to it directly; one row a set that was ablated.

    Attributes:
        value: the quantity itself, ``[set, row, read]``.
        heads: the share of each head, ``[set, row, read, layer, head]``.
        mlps: the share of each MLP, ``[set, row, read, layer]``.
    """

    value: Tensor
    heads: Tensor
    mlps: Tensor


class DirectEffects:
    """A quantity that is read off the residual stream, and what each part of a model adds to it.

    The quantity of a row at a position is d · N(r), with r what enters the final norm N and d a
    direction of the unembedding: W_U[answer] − W_U[distractor] is a logit difference. With the norm
    frozen at its clean scale s, a part that writes w adds d · (γ ⊙ w) / s: its direct effect
    (logit lens, nostalgebraist 2020; Δunembed of McGrath et al. 2023, equation 5). With all other
    heads frozen at their clean activations and MLPs and norm computed anew, it is the direct effect
    of path patching (Wang et al. 2022, section 3.1).

    Args:
        model: the bridge.
        tokens: rows of one length.
        directions: d at the last positions of each row, ``[row, read, d_model]``.

    Raises:
        ModelError: a final norm that is neither RMS nor layer normalisation.
    """

    def __init__(
        self,
        model: Model,
        tokens: Int[Tensor, "row pos"],
        directions: Float[Tensor, "row read d_model"],
    ) -> None:
        self.n_rows, self._directions = len(tokens), directions
        self._n_read, self._n_layers = directions.shape[1], model.cfg.n_layers
        layers = range(self._n_layers)
        self._z = [hook_point(model, "head", layer) or "" for layer in layers]
        mlps = [] if model.cfg.attn_only else [hook_point(model, "mlp", n) or "" for n in layers]
        self._mlps = mlps
        self._forward = _forward_of(model, tokens, [*self._z, *mlps])
        self.clean = self.activations()
        with torch.inference_mode():
            self._read = self._frozen_norm(model)
            self._of_heads = torch.stack(
                [
                    einsum(w_o, self._read, "head d_head d, row read d -> row read head d_head")
                    for w_o in model.W_O
                ]
            )

    def mean(self) -> Activations:
        """The mean over rows of what heads and MLPs write, position by position."""
        hooks = [*self._z, *self._mlps]
        return {hook: self.clean[hook].mean(0, keepdim=True) for hook in hooks}

    def of_rows(self, others: Sequence[int]) -> Activations:
        """What heads and MLPs write on another row in place of each."""
        return {hook: self.clean[hook][list(others)] for hook in [*self._z, *self._mlps]}

    def activations(
        self, gone: Sequence[Unit] = (), reference: Activations | None = None
    ) -> Activations:
        """All activations, `gone` replaced by their reference."""
        hooks = [*self._z, *self._mlps, ENTERS_NORM, LEAVES_NORM]
        taken = self._run([gone], reference or {}, None, 0, hooks)
        return {hook: activation[0] for hook, activation in taken.items()}

    @torch.inference_mode()
    def without(
        self,
        sets: Sequence[Sequence[Unit]],
        reference: Activations,
        *,
        frozen: Activations | None = None,
    ) -> Said:
        """The quantity with each set replaced by its reference, and what every part adds then.

        Args:
            sets: heads and MLPs; those that begin at the same layer stand together.
            reference: what takes their place.
            frozen: the activations at which all other heads are held; they answer if not given.
        """
        at_once = max(1, _TOKENS_AT_ONCE // self.clean[self._z[0]][..., 0, 0].numel())
        parts = []
        for start in range(0, len(sets), at_once):
            batch = sets[start : start + at_once]
            first = min((unit.layer for one in batch for unit in one), default=0)
            if frozen is not None and frozen is not self.clean:
                # Other blocks than those of the clean pass come before.
                first = 0
            hooks = [*self._z[first:], *self._mlps[first:], LEAVES_NORM]
            parts.append(self._said(self._run(batch, reference, frozen, first, hooks)))
        return Said(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def _said(self, taken: Activations) -> Said:
        n = self._n_read
        value = einsum(
            taken[LEAVES_NORM][:, :, -n:].float(), self._directions,
            "set row read d, row read d -> set row read",
        )  # fmt: skip
        heads = [
            einsum(
                taken.get(hook, self.clean[hook][None])[:, :, -n:].float(), weights,
                "set row read head d, row read head d -> set row read head",
            ).expand(len(value), -1, -1, -1)
            for hook, weights in zip(self._z, self._of_heads, strict=True)
        ]  # fmt: skip
        mlps = [
            einsum(
                taken.get(hook, self.clean[hook][None])[:, :, -n:].float(), self._read,
                "set row read d, row read d -> set row read",
            ).expand(len(value), -1, -1)
            for hook in self._mlps
        ]  # fmt: skip
        of_mlps = torch.stack(mlps, -1) if mlps else value.new_zeros((*value.shape, 0))
        return Said(value, torch.stack(heads, -2), of_mlps)

    def _frozen_norm(self, model: Model) -> Float[Tensor, "row read d_model"]:
        """γ ⊙ d / s of the clean pass, so that what a part writes is multiplied with it alone."""
        entering = self.clean[ENTERS_NORM][:, -self._n_read :].float()
        centred = str(model.cfg.normalization_type).startswith("LN")
        norm, rows = model.ln_final, entering
        if centred:
            rows = rows - rows.mean(-1, keepdim=True)
        scale = (rows.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt()
        read = norm.weight.float() * self._directions / scale
        if centred:
            read = read - read.mean(-1, keepdim=True)
        bias = getattr(norm, "bias", None)
        constant = 0.0 if bias is None else self._directions @ bias.float()
        whole = einsum(entering, read, "row read d, row read d -> row read") + constant
        value = (self.clean[LEAVES_NORM][:, -self._n_read :].float() * self._directions).sum(-1)
        if not torch.allclose(whole, value, rtol=1e-3, atol=1e-3 * float(value.abs().max())):
            raise ModelError(
                f"the final norm of {model.cfg.model_name} is neither RMS nor layer normalisation, "
                "so what a part adds to a logit cannot be told; choose another model"
            )
        return read

    @torch.inference_mode()
    def _run(
        self,
        sets: Sequence[Sequence[Unit]],
        reference: Activations,
        frozen: Activations | None,
        first: int,
        hooks: Sequence[str],
    ) -> Activations:
        """Activations ``[set, row, pos, …]`` at `hooks`, of one forward from block `first` on."""
        at: dict[str, list[tuple[int, Unit]]] = {}
        for number, units in enumerate(sets):
            for unit in units:
                hook = (self._z if unit.kind == "head" else self._mlps)[unit.layer]
                at.setdefault(hook, []).append((number, unit))
        taken: dict[str, Tensor] = {}

        def edit_at(hook: str) -> Callable[[Tensor], Tensor]:
            def edit(activation: Tensor) -> Tensor:
                rows = rearrange(activation, "(set row) ... -> set row ...", set=len(sets))
                # Of heads that are frozen the positions that are read are run alone.
                n_positions = rows.shape[2]
                if frozen is not None and hook in self._z:
                    rows = frozen[hook][:, -n_positions:].expand_as(rows)
                if hook in at:
                    rows = rows.clone()
                for number, unit in at.get(hook, ()):
                    whole = reference[hook][:, -n_positions:].expand_as(rows[number])
                    if unit.kind == "head":
                        rows[number, :, :, unit.number] = whole[:, :, unit.number]
                    else:
                        rows[number] = whole
                taken[hook] = rows
                return rearrange(rows, "set row ... -> (set row) ...")

            return edit

        edited = {hook: edit_at(hook) for hook in {*self._z, *self._mlps, *hooks}}
        self._forward(edited, len(sets), first, self._n_read, frozen is not None)
        return {hook: taken[hook] for hook in hooks}


Forward = Callable[[Mapping[str, Callable[[Tensor], Tensor]], int, int, int, bool], object]
"""(edits, how many copies of the rows, the first block that is run, positions read, whether those
alone are run, as no head carries anything from one to another)."""


def _forward_of(model: Model, tokens: Int[Tensor, "row pos"], hooks: Sequence[str]) -> Forward:
    """Forwards of the model without its bridge where it can be done without, else through it."""
    device = next(model.original_model.parameters()).device
    tokens = tokens.to(device)
    try:
        plain = PlainModel(model, model.cfg.dtype)
        plain.attach([(hook, "head" if "hook_z" in hook else "mlp") for hook in hooks])
        plain.attach([(ENTERS_NORM, "mlp"), (LEAVES_NORM, "mlp")])
    except ModelError:
        return lambda edits, copies, _first, n_read, _alone: edited_logits(
            model, tokens.repeat(copies, 1), edits, n_read
        )
    with torch.inference_mode():
        entering, _ = plain.record(tokens, range(model.cfg.n_layers), with_cache=False)
    nothing_read = torch.zeros(1, dtype=torch.long, device=device)

    def forward(
        edits: Mapping[str, Callable[..., Tensor]], copies: int, first: int, n: int, alone: bool
    ) -> None:
        at = slice(-n, None) if alone else slice(None)
        rows = repeat(entering[first][:, at], "row pos d -> (set row) pos d", set=copies)
        every = tokens[:, at].repeat(copies, 1)
        plain.logits(every, edits, start=Start(first, rows, ()), read=nothing_read, n_last=n)

    return forward


def directions(
    model: Model,
    answers: Int[Tensor, "row read"],
    distractors: Int[Tensor, "row read"] | None = None,
) -> Float[Tensor, "row read d_model"]:
    """W_U[answer] − W_U[distractor], whose quantity is a logit difference; without distractors
    W_U[answer] less the mean over the vocabulary, whose quantity is a centred logit.

    Args:
        model: the bridge.
        answers, distractors: token ids.
    """
    unembed = model.W_U.detach().float()
    other = unembed.mean(1) if distractors is None else unembed.T[distractors.to(unembed.device)]
    return unembed.T[answers.to(unembed.device)] - other


def of_task(model: Model, task: Task, *, centred: bool = False) -> DirectEffects:
    """The logit difference of a task's prompts, by their first tokens; or the answer's logit.

    Args:
        model: the bridge.
        task: prompts of one length.
        centred: read the answer's logit less the mean over the vocabulary.
    """
    tokens = tokenize(task, model.tokenizer, with_corrupted=False)
    answers = torch.tensor([[several[0][0]] for several in tokens.answers])
    distractors = None
    if tokens.distractors is not None and not centred:
        distractors = torch.tensor([[several[0][0]] for several in tokens.distractors])
    return DirectEffects(
        model, torch.stack(tokens.prompts), directions(model, answers, distractors)
    )
