"""Values of masks of latents by the raw Hugging Face model: one mask and one prompt at a time.

Encoding and decoding are written out here, latent by latent and position by position. Nothing of
TransformerLens and nothing of mechspex's forwards is used, only the tensors of a dictionary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from raw_oracle import LAYOUTS, Layout
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from mechspex.core.units import Unit
from mechspex.models.dictionary import Dictionary

# {end of a hook point: (which module of a block, whether it is its input)}
POINTS = {
    "hook_resid_pre": ("", True),
    "hook_resid_post": ("", False),
    "mlp.hook_in": ("mlp", True),
    "hook_mlp_out": ("mlp", False),
    "hook_attn_out": ("attention", False),
}
ATTENTION = {"gpt2": "attn", "gptj": "attn"}


def random_dictionary(reads, writes=None, rule="relu", *, seed=0, d=32, n=24, **options):
    """A dictionary of random latents, about half of them active."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    own = {
        "jumprelu": {"threshold": draw(n).abs() / 2},
        "topk": {"k": 5},
        "gated": {"r_mag": draw(n) / 3, "b_mag": draw(n) / 3},
    }
    tensors = (draw(d, n) / d**0.5, draw(n) / 10, draw(n, d) / d**0.5, draw(d) / 10)
    return Dictionary(reads, writes or reads, *tensors, rule, **(own.get(rule, {}) | options))


def plain_activations(dictionary, x):
    """The activations of all latents at one position."""
    x = x - dictionary.b_dec if dictionary.centred else x
    n = dictionary.n_latents
    reads = [float(x @ dictionary.w_enc[:, i]) for i in range(n)]
    before = [reads[i] + float(dictionary.b_enc[i]) for i in range(n)]
    a = [max(b, 0.0) for b in before]
    if dictionary.rule == "topk":
        largest = sorted(range(n), key=lambda i: -before[i])[: dictionary.k]
        a = [a[i] if i in largest else 0.0 for i in range(n)]
    if dictionary.rule == "jumprelu":
        a = [a[i] if before[i] > float(dictionary.threshold[i]) else 0.0 for i in range(n)]
    if dictionary.rule == "gated":
        sizes = [reads[i] * float(dictionary.r_mag[i].exp()) + float(dictionary.b_mag[i])
                 for i in range(n)]  # fmt: skip
        a = [max(sizes[i], 0.0) if before[i] > 0 else 0.0 for i in range(n)]
    return a


def plain_parts(dictionary, read, written):
    """Activations ``[pos][latent]``, and what is left of each position without latents and bias."""
    every = [plain_activations(dictionary, x) for x in read]
    errors = []
    for x, y, a in zip(read, written, every, strict=True):
        left = y - dictionary.b_dec
        if dictionary.skip is not None:
            left = left - dictionary.skip @ x
        for size, direction in zip(a, dictionary.w_dec, strict=True):
            left = left - size * direction
        errors.append(left)
    return every, errors


def save_cross_layer(folder, n_layers, *, rule="relu", reads="mlp.hook_in", d=32, n=16, seed=0):
    """A random cross-layer transcoder in the files of circuit-tracer."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir(exist_ok=True)
    for i in range(n_layers):

        def draw(*shape):
            return torch.randn(*shape, generator=generator)

        encoder = {
            f"W_enc_{i}": draw(n, d) / d**0.5,
            f"b_enc_{i}": draw(n) / 10,
            f"b_dec_{i}": draw(d) / 10,
        }
        if rule == "jumprelu":
            encoder[f"threshold_{i}"] = draw(n).abs() / 2
        save_file(encoder, folder / f"W_enc_{i}.safetensors")
        decoder = {f"W_dec_{i}": draw(n, n_layers - i, d) / d**0.5}
        save_file(decoder, folder / f"W_dec_{i}.safetensors")
    (folder / "config.yaml").write_text(
        'model_kind: "cross_layer_transcoder"\n'
        f'feature_input_hook: "{reads}"\nfeature_output_hook: "hook_mlp_out"\n'
    )
    return folder


class _Oracle(ABC):
    """The logit difference of every prompt of a task under masks, by the raw model.

    Args:
        folder: a saved model with its tokenizer.
        task: prompts of one length, answers, distractors and corrupted prompts.
    """

    units: Sequence[Unit]

    def __init__(self, folder, task):
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        read = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.prompts, self.corrupted = (
            [torch.tensor([read(text).input_ids]) for text in texts]
            for texts in (task.prompts, task.corrupted)
        )
        self.answers = [read(text).input_ids[-1] for text in task.answers]
        self.distractors = [read(text).input_ids[-1] for text in task.distractors]

    @abstractmethod
    def run(
        self, tokens, ablated=(), reference=None
    ) -> tuple[torch.Tensor, dict[Any, torch.Tensor]]:
        """Logits of the last token, and all activations before they are ablated."""

    @torch.inference_mode()
    def values(self, masks, ablation, others=None):
        """Values ``[mask, prompt]``; for ``resample``, `others` says whose activations to take."""
        clean = [self.run(prompt)[1] for prompt in self.prompts]
        rows = np.empty((len(masks), len(self.prompts)), dtype=np.float32)
        for j, prompt in enumerate(self.prompts):
            if ablation == "corrupted":
                reference = self.run(self.corrupted[j])[1]
            elif ablation == "resample":
                reference = clean[others[j]]
            elif ablation == "zero":
                reference = {key: torch.zeros_like(a) for key, a in clean[j].items()}
            else:
                reference = {k: torch.stack([one[k] for one in clean]).mean(0) for k in clean[j]}
            for row, mask in enumerate(masks):
                ablated = [unit for unit, kept in zip(self.units, mask, strict=True) if not kept]
                logits = self.run(prompt, ablated, reference)[0]
                rows[row, j] = (logits[self.answers[j]] - logits[self.distractors[j]]).item()
        return rows


class LatentOracle(_Oracle):
    """The logit difference of every prompt of a task under masks of latents and heads.

    Args:
        folder: a saved model with its tokenizer.
        task: prompts of one length, answers, distractors and corrupted prompts.
        units: the columns of the masks.
        dictionary: the dictionary of the latents among them.
    """

    def __init__(self, folder, task, units, dictionary):
        super().__init__(folder, task)
        self.units, self.dictionary = units, dictionary
        config: Any = self.model.config
        layout = LAYOUTS.get(config.model_type, Layout())
        blocks: Any = self.model.get_submodule(layout.blocks)
        block = blocks[dictionary.layer]
        attention = ATTENTION.get(config.model_type, "self_attn")
        mlp_out = "post_feedforward_layernorm" if config.model_type == "gemma2" else layout.mlp

        def place(hook):
            name, at_input = POINTS[hook.split(".", 2)[2]]
            path = {"": "", "mlp": layout.mlp if at_input else mlp_out, "attention": attention}[
                name
            ]
            return (block.get_submodule(path) if path else block), at_input

        self.reads, self.writes = place(dictionary.reads), place(dictionary.writes)
        self.n_heads = config.num_attention_heads
        self.heads = {layer: one.get_submodule(layout.head) for layer, one in enumerate(blocks)}

    @torch.inference_mode()
    def run(self, tokens, ablated=(), reference=None):
        """Logits of the last token, and all activations before they are ablated."""
        seen: dict[Any, torch.Tensor] = {}
        read: list[torch.Tensor] = []

        def look(x):
            read[:] = [x.reshape(-1, x.shape[-1]).clone()]
            return x

        def change(y):
            rows = y.reshape(-1, y.shape[-1]).clone()
            x = rows if self.reads == self.writes else read[0]
            activations, errors = plain_parts(self.dictionary, x, rows)
            seen["latent"], seen["error"] = torch.tensor(activations), torch.stack(errors)
            for unit in ablated:
                at = range(len(rows)) if unit.position is None else [unit.position]
                for p in at:
                    if unit.kind == "latent":
                        off = activations[p][unit.number] - reference["latent"][p, unit.number]
                        rows[p] -= off * self.dictionary.w_dec[unit.number]
                    elif unit.kind == "error":
                        rows[p] -= errors[p] - reference["error"][p]
            return rows.view(y.shape)

        def heads(layer, z):
            seen["head", layer] = parts = z.reshape(z.shape[-2], self.n_heads, -1).clone()
            parts = parts.clone()
            for unit in ablated:
                if unit.kind == "head" and unit.layer == layer:
                    parts[:, unit.number] = reference["head", layer][:, unit.number]
            return parts.view(z.shape)

        with ExitStack() as hooks:
            if self.reads != self.writes:
                hooks.callback(_hook(*self.reads, look).remove)
            hooks.callback(_hook(*self.writes, change).remove)
            for layer, module in self.heads.items():
                edit = lambda z, layer=layer: heads(layer, z)  # noqa: E731
                hooks.callback(_hook(module, True, edit).remove)
            return self.model(tokens, use_cache=False).logits[0, -1], seen


class CrossLayerOracle(_Oracle):
    """The same of a cross-layer transcoder, a dictionary a layer, each of what its MLP reads.

    Args:
        folder: a saved model with its tokenizer.
        task: prompts of one length, answers, distractors and corrupted prompts.
        units: the columns of the masks: latents and errors.
        layers: the dictionaries, from the first layer on.
    """

    def __init__(self, folder, task, units, layers):
        super().__init__(folder, task)
        self.units, self.layers = units, layers
        config: Any = self.model.config
        layout = LAYOUTS.get(config.model_type, Layout())
        blocks: Any = self.model.get_submodule(layout.blocks)
        mlp_out = "post_feedforward_layernorm" if config.model_type == "gemma2" else layout.mlp
        self.read = [block.get_submodule("mlp") for block in blocks]
        self.written = [block.get_submodule(mlp_out) for block in blocks]

    def directions(self, layer, into):
        """What latents of a layer write into the MLP of this or a later one."""
        one = self.layers[layer]
        return one.w_dec if into == layer else one.later[into - layer - 1]

    @torch.inference_mode()
    def run(self, tokens, ablated=(), reference=None):
        """Logits of the last token, and all activations before they are ablated."""
        seen: dict[Any, torch.Tensor] = {}

        def look(layer, x):
            rows = x.reshape(-1, x.shape[-1])
            one = self.layers[layer]
            seen["latent", layer] = torch.tensor([plain_activations(one, row) for row in rows])
            return x

        def change(layer, y):
            rows = y.reshape(-1, y.shape[-1]).clone()
            error = rows - self.layers[layer].b_dec
            for below in range(layer + 1):
                error = error - seen["latent", below] @ self.directions(below, layer)
            seen["error", layer] = error
            for unit in ablated:
                at = range(len(rows)) if unit.position is None else [unit.position]
                for p in at:
                    if unit.kind == "error" and unit.layer == layer:
                        rows[p] -= error[p] - reference["error", layer][p]
                    elif unit.kind == "latent" and unit.layer <= layer:
                        key = "latent", unit.layer
                        off = seen[key][p, unit.number] - reference[key][p, unit.number]
                        rows[p] -= off * self.directions(unit.layer, layer)[unit.number]
            return rows.view(y.shape)

        with ExitStack() as hooks:
            for layer, (read, written) in enumerate(zip(self.read, self.written, strict=True)):
                reads = lambda x, layer=layer: look(layer, x)  # noqa: E731
                writes = lambda y, layer=layer: change(layer, y)  # noqa: E731
                hooks.callback(_hook(read, True, reads).remove)
                hooks.callback(_hook(written, False, writes).remove)
            return self.model(tokens, use_cache=False).logits[0, -1], seen


def _hook(module, at_input, edit):
    if at_input:
        return module.register_forward_pre_hook(lambda _, args: (edit(args[0]), *args[1:]))

    def hook(_, inputs, output):
        return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

    return module.register_forward_hook(hook)
