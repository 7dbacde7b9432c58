"""Values of masks by the raw Hugging Face model: one mask and one prompt at a time, plain hooks.

Nothing of TransformerLens and nothing of mechspex's forwards is used, only units and task texts.
"""

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import mechspex as mx


class Layout(NamedTuple):
    """Where an architecture keeps its parts: the path of its blocks, and paths within a block.

    Attributes:
        blocks: the list of blocks.
        head: the module whose input is the outputs of all (query) heads, side by side.
        neuron: the module whose input is the neurons, after gating.
        mlp: the module whose output is what the MLP adds to the residual stream, before any norm.
    """

    blocks: str = "model.layers"
    head: str = "self_attn.o_proj"
    neuron: str = "mlp.down_proj"
    mlp: str = "mlp"


_LLAMA = Layout()
_NEOX = Layout("gpt_neox.layers", "attention.dense", "mlp.dense_4h_to_h")
_FALCON = Layout("transformer.h", "self_attention.dense", "mlp.dense_4h_to_h")
_GPT2 = Layout("transformer.h", "attn.c_proj", "mlp.c_proj")
_GPTJ = Layout("transformer.h", "attn.out_proj", "mlp.fc_out")
_OPT = Layout("model.decoder.layers", "self_attn.out_proj", "fc2", mlp="fc2")

# {model type: its layout}; all others are laid out as Llama is.
LAYOUTS = {
    # The MLP modules of BLOOM and MPT also add the residual stream; their last layer does not.
    "bloom": _FALCON._replace(mlp="mlp.dense_4h_to_h"),
    "mpt": Layout("transformer.blocks", "attn.out_proj", "ffn.down_proj", mlp="ffn.down_proj"),
    # OPT and XGLM have no MLP module: its two layers are the block's own.
    "opt": _OPT,
    "xglm": _OPT._replace(blocks="model.layers"),
    "codegen": _GPTJ,
    "falcon": _FALCON,
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": _GPT2._replace(head="attn.attention.out_proj"),
    "gpt_neox": _NEOX,
    "gptj": _GPTJ,
    "openai-gpt": _GPT2,
    "phi": Layout("model.layers", "self_attn.dense", "mlp.fc2"),
    "starcoder2": _LLAMA._replace(neuron="mlp.c_proj"),
}


class RawOracle:
    """The logit difference of every prompt of a task under masks, by the raw model.

    Args:
        folder: a saved model with its tokenizer.
        task: prompts, answers, distractors and perhaps corrupted prompts.
        units: the columns of the masks.
        device: where the raw model computes; values come back to the CPU.
    """

    def __init__(self, folder, task, units, device="cpu") -> None:
        self._model = _load(folder, device)
        config = self._model.config
        layout = LAYOUTS.get(config.model_type, _LLAMA)
        blocks: Any = self._model.get_submodule(layout.blocks)
        self._units = units
        self._n_heads = config.num_attention_heads
        self._modules = {
            (kind, layer): block.get_submodule(getattr(layout, kind))
            for layer, block in enumerate(blocks)
            for kind in {unit.kind for unit in units if unit.layer == layer}
        }
        read = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self._prompts, self._corrupted = (
            [torch.tensor([read(text).input_ids], device=device) for text in texts or ()]
            for texts in (task.prompts, task.corrupted)
        )
        self._read = lambda text: tuple(read(text, add_special_tokens=False).input_ids)
        self._answers = [read(text).input_ids[-1] for text in task.answers]
        self._distractors = [read(text).input_ids[-1] for text in task.distractors]

    @torch.inference_mode()
    def values(
        self, masks: np.ndarray, ablation: str, others: Sequence[int] | None = None
    ) -> np.ndarray:
        """Values ``[mask, prompt]``; for ``resample``, `others` says whose activations to take."""
        clean = [self._run(prompt)[1] for prompt in self._prompts]
        rows = np.empty((len(masks), len(self._prompts)), dtype=np.float32)
        for j, prompt in enumerate(self._prompts):
            if ablation == "corrupted":
                reference = self._run(self._corrupted[j])[1]
            elif ablation == "resample":
                reference = clean[others[j]]
            elif ablation == "zero":
                reference = {key: torch.zeros_like(a) for key, a in clean[j].items()}
            else:
                reference = {key: _mean([c[key] for c in clean], j) for key in clean[j]}
            for row, mask in enumerate(masks):
                ablated = [unit for unit, kept in zip(self._units, mask, strict=True) if not kept]
                logits = self._run(prompt, ablated, reference)[0]
                rows[row, j] = (logits[self._answers[j]] - logits[self._distractors[j]]).item()
        return rows

    @torch.inference_mode()
    def continuation_values(self, masks: np.ndarray, ablation: str, task: mx.Task) -> np.ndarray:
        """log p(answer) − log p(distractor) ``[mask, prompt]``, of one or two tokens each.

        Each continuation has a forward of its own. What is forced after a prompt is replaced by the
        mean over what is forced after all prompts, or by what the corrupted prompt has there.
        """
        texts = [(task.answers[j], task.distractors[j]) for j in range(len(task))]
        pairs = [[self._read(text) for text in both] for both in texts]
        forced = {
            (j, ids[:-1]): torch.cat([prompt, torch.tensor([ids[:-1]], dtype=torch.long)], dim=1)
            for j, prompt in enumerate(self._prompts)
            for ids in pairs[j]
        }
        clean = [self._run(prompt)[1] for prompt in self._prompts]
        after = [self._run(row)[1] for (_, ids), row in forced.items() if ids]
        rows = np.empty((len(masks), len(self._prompts)), dtype=np.float32)
        for j, prompt in enumerate(self._prompts):
            for m, mask in enumerate(masks):
                ablated = [unit for unit, kept in zip(self._units, mask, strict=True) if not kept]
                log_p = []
                for ids in pairs[j]:
                    row = forced[j, ids[:-1]]
                    reference = {}
                    for key in clean[j]:
                        if ablation == "zero":
                            reference[key] = torch.zeros_like(self._run(row)[1][key])
                        elif ablation == "corrupted":
                            other = [self._corrupted[j], row[:, prompt.shape[1] :]]
                            reference[key] = self._run(torch.cat(other, dim=1))[1][key]
                        else:
                            parts = [_mean([c[key] for c in clean], j)]
                            ends = [a[key].reshape(-1, a[key].shape[-1])[-1] for a in after]
                            parts += [torch.stack(ends).mean(0)[None]] * (len(ids) - 1)
                            flat = [part.reshape(-1, part.shape[-1]) for part in parts]
                            reference[key] = torch.cat(flat)
                    logits = self._run(row, ablated, reference, every=True)[0].log_softmax(-1)
                    read = logits[prompt.shape[1] - 1 :]
                    log_p.append(sum(read[t, token].item() for t, token in enumerate(ids)))
                rows[m, j] = log_p[0] - log_p[1]
        return rows

    def _run(
        self,
        tokens: Tensor,
        ablated: Sequence[mx.Unit] = (),
        reference: dict | None = None,
        *,
        every: bool = False,
    ) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
        """Last-token logits, and the activations at all sites before they are ablated there."""
        seen: dict[tuple[str, int], Tensor] = {}

        def ablate(key: tuple[str, int], activation: Tensor) -> Tensor:
            seen[key] = activation.clone()
            n_along = {"head": self._n_heads, "neuron": activation.shape[-1], "mlp": 1}[key[0]]
            shape = (tokens.shape[1], n_along, -1)  # one prompt, with or without a batch axis
            rows = activation.clone().view(shape)
            for unit in ablated:
                if (unit.kind, unit.layer) == key:
                    assert not isinstance(unit.position, str)
                    at = slice(None) if unit.position is None else unit.position
                    rows[at, unit.number] = reference[key].reshape(shape)[at, unit.number]
            return rows.view(activation.shape)

        with ExitStack() as hooks:
            for key, module in self._modules.items():
                add = _edit_output if key[0] == "mlp" else _edit_input
                hooks.callback(add(module, functools.partial(ablate, key)).remove)
            logits = self._model(tokens, use_cache=False).logits[0]
            return logits if every else logits[-1], seen


def _mean(activations, j):
    """The mean over prompts: position by position; between the ends as one where lengths differ."""
    # With or without a batch axis, and heads joined: one row a position.
    rows = [a.reshape(-1, a.shape[-1]) for a in activations]
    if len({len(row) for row in rows}) == 1:
        return torch.stack(rows).mean(0).reshape(activations[j].shape)
    first, last = (torch.stack([row[at] for row in rows]).mean(0) for at in (0, -1))
    between = torch.cat([row[1:-1] for row in rows]).mean(0)
    mean = torch.stack([first, *[between] * (len(rows[j]) - 2), last])
    return mean.reshape(activations[j].shape)


@functools.lru_cache(maxsize=2)
def _load(folder, device):
    # Not every attention kernel of transformers adds Falcon's ALiBi; this one does.
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    return model.to(device)


def _edit_input(module, edit):
    return module.register_forward_pre_hook(lambda _, inputs: (edit(inputs[0]), *inputs[1:]))


def _edit_output(module, edit):
    def hook(_, inputs, output):
        # Some mixtures of experts return their routing as well.
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(hook)
