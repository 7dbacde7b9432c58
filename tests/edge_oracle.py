"""Values of masks of edges, heads, MLPs and neurons by the raw Hugging Face model: one mask and one
prompt at a time.

Each contribution to the residual stream is kept by itself, and what a reader sees is their sum,
each of them live or at its reference; the stream of the model is never read. Nothing of
TransformerLens and nothing of mechspex's forwards is used, only names of edges and task texts.
"""

import re
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from raw_oracle import LAYOUTS, Layout
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

# Architectures that it knows.
THOROUGH = ["gpt2", "llama", "gemma2 short window"]
EIGHT = [*THOROUGH, "gpt_neox parallel", "gptj", "phi", "opt", "falcon"]
# Their orders, norms and fused maps are others again.
MORE = ["gpt_neox sequential", "phi3", "olmo2", "granite", "qwen3"]
# {model type: its norms before attention, before the MLP, after attention, after the MLP}; "" where
# it has none, and where the MLP shares that of attention.
NORMS = {
    "gpt2": ("ln_1", "ln_2", "", ""),
    "gpt_neox": ("input_layernorm", "post_attention_layernorm", "", ""),
    "gptj": ("ln_1", "", "", ""),
    "phi": ("input_layernorm", "", "", ""),
    "falcon": ("input_layernorm", "", "", ""),
    "opt": ("self_attn_layer_norm", "final_layer_norm", "", ""),
    "gemma2": (
        "input_layernorm",
        "pre_feedforward_layernorm",
        "post_attention_layernorm",
        "post_feedforward_layernorm",
    ),
    "olmo2": ("", "", "post_attention_layernorm", "post_feedforward_layernorm"),
}
LLAMA = ("input_layernorm", "post_attention_layernorm", "", "")
LAST = {"gpt2": "transformer.ln_f", "gptj": "transformer.ln_f", "falcon": "transformer.ln_f",
        "gpt_neox": "gpt_neox.final_layer_norm", "phi": "model.final_layernorm",
        "opt": "model.decoder.final_layer_norm"}  # fmt: skip
FUSED = {"gpt2": "attn.c_attn", "gpt_neox": "attention.query_key_value",
         "falcon": "self_attention.query_key_value", "phi3": "self_attn.qkv_proj"}  # fmt: skip
SHARED = ("gptj", "phi", "falcon")


class EdgeOracle:
    """The logit difference of every prompt of a task under masks of edges, by the raw model.

    Args:
        folder: a saved model with its tokenizer.
        task: prompts, answers, distractors and corrupted prompts.
        names: the edges of the masks' columns, ``L0H1→L1H2.q``, and other parts among them, whole
            heads (``L0H1``), MLPs and neurons.
    """

    def __init__(self, folder, task, names):
        self.model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        self.config = self.model.config
        self.type = self.config.model_type
        layout = LAYOUTS.get(self.type, Layout())
        self.blocks: Any = self.model.get_submodule(layout.blocks)
        self.layout, self.names = layout, names
        self.n_heads = self.config.num_attention_heads
        self.scale = getattr(self.config, "residual_multiplier", 1.0)
        read = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        self.prompts, self.corrupted = (
            [torch.tensor([read(text).input_ids]) for text in texts]
            for texts in (task.prompts, task.corrupted)
        )
        self.answers = [read(text).input_ids[-1] for text in task.answers]
        self.distractors = [read(text).input_ids[-1] for text in task.distractors]

    @torch.inference_mode()
    def values(self, masks, ablation, others=None):
        """Values ``[mask, prompt]``; for ``resample``, `others` says whose outputs to take."""
        clean = [self.run(prompt, {}, None)[1] for prompt in self.prompts]
        rows = np.empty((len(masks), len(self.prompts)), dtype=np.float32)
        for j, prompt in enumerate(self.prompts):
            reference = self.reference(j, clean, ablation, others)
            for row, mask in enumerate(masks):
                ablated = {}
                for name, kept in zip(self.names, mask, strict=True):
                    # Of a part that is ablated every reader sees the reference.
                    writer, _, reader = name.partition("→")
                    if not kept:
                        ablated.setdefault(reader, set()).add(writer)
                logits = self.run(prompt, ablated, reference)[0]
                rows[row, j] = (logits[self.answers[j]] - logits[self.distractors[j]]).item()
        return rows

    def reference(self, j, clean, ablation, others=None):
        """{writer: what its output on one prompt is replaced by}, from all that are clean."""
        if ablation == "corrupted":
            return self.run(self.corrupted[j], {}, None)[1]
        if ablation == "resample":
            return clean[others[j]]
        if ablation == "zero":
            return {name: torch.zeros_like(a) for name, a in clean[j].items()}
        return {n: torch.stack([c[n] for c in clean]).mean(0) for n in clean[j]}

    def recomputed(self, ablation):
        """For each prompt and edge into a query or key Σ ∂f/∂A · (A − A′), NaN for the others.

        A are the patterns of all heads of the reader's layer and A′ those with the edge ablated;
        the gradient is that of the untouched model.
        """
        scores = np.full((len(self.prompts), len(self.names)), np.nan)
        with torch.inference_mode():
            clean = [self.run(prompt, {}, None)[1] for prompt in self.prompts]
        seen = {}

        def keep(layer):
            return lambda _module, _args, output: seen.__setitem__(layer, output[1])

        path = self.layout.head.rpartition(".")[0]
        for layer in range(len(self.blocks)):
            self.part(layer, path).register_forward_hook(keep(layer))
        for j, prompt in enumerate(self.prompts):
            logits = self.model(prompt, use_cache=False).logits[0, -1]
            value = logits[self.answers[j]] - logits[self.distractors[j]]
            patterns = [seen[layer] for layer in range(len(self.blocks))]
            slopes = torch.autograd.grad(value, patterns)
            with torch.inference_mode():
                reference = self.reference(j, clean, ablation)
                for column, name in enumerate(self.names):
                    writer, _, reader = name.partition("→")
                    if reader[-2:] not in (".q", ".k"):
                        continue
                    self.run(prompt, {reader: {writer}}, reference)
                    layer = int(re.findall(r"\d+", reader)[0])
                    change = patterns[layer] - seen[layer]
                    scores[j, column] = (slopes[layer] * change).sum()
        return scores

    def run(self, tokens, ablated, reference):
        """Last logits, and {writer: its output} as it is computed under these ablations."""
        live, written = {}, []

        def seen_by(reader):
            """The sum of all contributions so far, as one reader sees them."""
            total = 0
            gone = ablated.get(reader, set()) | ablated.get("", set())
            take = {name: (reference if name in gone else live)[name] for name in live}
            for kind, layer in written:
                if kind == "embed":
                    total = total + take["embed"]
                elif kind == "mlp":
                    total = total + self.after(layer, 3, take[f"L{layer}MLP"])
                else:
                    heads = [take[f"L{layer}H{head}"] for head in range(self.n_heads)]
                    output = self.part(layer, self.layout.head)
                    total = total + self.after(layer, 2, output.forward(torch.cat(heads, -1)))
            return total

        def embed(_, args, kwargs):
            live["embed"] = (args[0] if args else kwargs["hidden_states"]).clone()
            written.append(("embed", 0))

        with ExitStack() as hooks:

            def on(module, hook, **options):
                register = module.register_forward_pre_hook if options.pop("before", False) else (
                    module.register_forward_hook
                )  # fmt: skip
                hooks.callback(register(hook, **options).remove)

            on(self.blocks[0], embed, before=True, with_kwargs=True)
            for layer in range(len(self.blocks)):
                self.watch(layer, on, live, written, seen_by)
                self.watch_neurons(layer, on, live, ablated.get("", set()), reference)
            last = self.model.get_submodule(LAST.get(self.type, "model.norm"))
            on(last, lambda _, args: (seen_by("output"),), before=True)
            logits = self.model(tokens, use_cache=False).logits[0, -1]
        return logits, live

    def watch(self, layer, on, live, written, seen_by):
        """Hook the readers and writers of one block."""
        started = {}

        def heads(_, args):
            for head, output in enumerate(args[0].clone().chunk(self.n_heads, -1)):
                live[f"L{layer}H{head}"] = output
            written.append(("heads", layer))

        def mlp(_, args, output):
            first = output[0] if isinstance(output, tuple) else output
            live[f"L{layer}MLP"] = first.clone().view(live["embed"].shape)
            written.append(("mlp", layer))

        def project(module, args, output):
            # All that reads the stream at the same time sees the same contributions.
            started["mlp"] = seen_by(f"L{layer}MLP")
            changed = output.clone()
            for part, number, columns in self.vectors(layer, module, output.shape[-1]):
                stream = self.normed(layer, 0, seen_by(self.reader(layer, part, number)))
                changed[..., columns] = module.forward(stream)[..., columns]
            return changed

        for name in self.projections():
            on(self.part(layer, name), project)
        on(self.part(layer, self.layout.head), heads, before=True)
        own = NORMS.get(self.type, LLAMA)[1]
        parallel = getattr(self.config, "use_parallel_residual", False) or self.type in SHARED

        def read(_, args):
            stream = started["mlp"] if parallel else seen_by(f"L{layer}MLP")
            stream = self.normed(layer, 0, stream) if self.type in SHARED else stream
            return (stream.view(args[0].shape), *args[1:])

        on(self.part(layer, own or "mlp"), read, before=True)
        on(self.part(layer, self.layout.mlp), mlp)

    def watch_neurons(self, layer, on, live, ablated, reference):
        """Hook the neurons of one block: what the MLP makes of those that are ablated follows."""
        named = f"L{layer}N"
        gone = [int(name.removeprefix(named)) for name in ablated if name.startswith(named)]

        def neurons(_, args):
            live[named] = args[0].clone()
            changed = args[0].clone()
            if gone:
                changed[..., gone] = reference[named][..., gone]
            return (changed, *args[1:])

        on(self.part(layer, self.layout.neuron), neurons, before=True)

    def part(self, layer, path):
        return self.blocks[layer].get_submodule(path)

    def normed(self, layer, which, stream):
        name = NORMS.get(self.type, LLAMA)[which]
        return self.part(layer, name).forward(stream) if name else stream

    def after(self, layer, which, output):
        return self.scale * self.normed(layer, which, output)

    @property
    def n_groups(self):
        if self.type == "falcon":
            return 1 if self.config.multi_query else self.n_heads
        return getattr(self.config, "num_key_value_heads", None) or self.n_heads

    def reader(self, layer, part, number):
        grouped = part != "q" and self.n_groups != self.n_heads
        return f"L{layer}{'G' if grouped else 'H'}{number}.{part}"

    def projections(self):
        if self.type in FUSED:
            return [FUSED[self.type]]
        return [self.layout.head.rpartition(".")[0] + f".{part}_proj" for part in "qkv"]

    def vectors(self, layer, module, width):
        """Each query, key and value that a module makes, with its columns in the output."""
        n_heads, n_groups = self.n_heads, self.n_groups
        every = [("q", h) for h in range(n_heads)]
        every += [(part, g) for part in "kv" for g in range(n_groups)]
        if self.type == "gpt_neox":
            every = [(part, h) for h in range(n_heads) for part in "qkv"]
        if self.type not in FUSED:
            (mine,) = (
                p for p in "qkv" if self.part(layer, self.projections()["qkv".index(p)]) is module
            )
            every = [(part, number) for part, number in every if part == mine]
        size = width // len(every)
        for place, (part, number) in enumerate(every):
            yield part, number, slice(place * size, (place + 1) * size)
