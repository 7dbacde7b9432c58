"""Train the small sparse autoencoder of one layer of SmolLM2 that ships, on text that is at hand.

    cd tests/benchmarks && OMP_NUM_THREADS=1 python train_dictionary.py > train_dictionary.md

The texts: what the model itself writes, the prompts of the shipped tasks, Python's own help. Top-k
latents (Gao et al. 2024) of what leaves block 15, in the layout of SAELens, in float16, where
`mx.load_dictionary(NAME)` reads them. Its quality is that of the file as it is read, and lies
beside it. With ``--measure`` nothing is trained, and the file is measured again.
"""

import argparse
import json
import math
import sys
import time
from pydoc_data.topics import topics
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import mechspex as mx
from mechspex.models.shipped import DICTIONARIES
from mechspex.models.smollm2 import smollm2_folder

NAME, COMMAND = "smollm2-135m-l15", "OMP_NUM_THREADS=1 python tests/benchmarks/train_dictionary.py"
LAYER, N_LATENTS, K = 15, 2048, 32
LENGTH, N_SAMPLED, N_TASK_TOKENS, N_PAGES = 96, 16, 9_000, 300
EPOCHS, BATCH, RATE = 7, 512, 2e-3
TASKS = ("ioi_varied", "ioi", "capital", "agreement", "pronoun", "greater_than", "hypernymy")
OPENINGS = (
    "The", "In the summer of", "She said that", "A recent study of", "My favourite", "Dear",
    "Once upon a time", "The president", "When the train", "To cook this", "He walked into",
    "Scientists have", "Many people believe", "The city of", "Last night", "If you want to",
)  # fmt: skip
FOLDER = DICTIONARIES / NAME


def sampled(model, tokenizer):
    """Texts that the model writes after a few words each."""
    tokenizer.padding_side, tokenizer.pad_token = "left", tokenizer.eos_token
    begun = [OPENINGS[number % len(OPENINGS)] for number in range(N_SAMPLED)]
    given = tokenizer(begun, return_tensors="pt", padding=True)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        written = model.generate(**given, max_new_tokens=LENGTH - 10, do_sample=True, top_k=200)
    return [tokenizer.decode(row, skip_special_tokens=True) for row in written]


def rows_of(tokenizer, model):
    """Rows of tokens: texts cut to one length, prompts of tasks one after another."""
    prose = "\n\n".join(topics.values())
    ids = tokenizer(prose, add_special_tokens=False).input_ids
    pieces = [ids[i : i + LENGTH] for i in range(0, len(ids) - LENGTH, LENGTH)]
    step = max(1, len(pieces) // N_PAGES)
    rows = pieces[::step][:N_PAGES]
    bridge = mx.load_model("smollm2-135m")
    prompts = []
    for name in TASKS:
        prompts += mx.load_task(name, bridge, n_prompts=60, seed=10).prompts
    line = tokenizer("\n".join(prompts), add_special_tokens=False).input_ids[:N_TASK_TOKENS]
    rows += [line[i : i + LENGTH] for i in range(0, len(line) - LENGTH, LENGTH)]
    texts = tokenizer(sampled(model, tokenizer), add_special_tokens=False).input_ids
    return rows + [row for row in texts if len(row) > 32]


@torch.inference_mode()
def activations_of(model, rows):
    """What leaves the block at each position of each row but the first."""
    layers, found = model.model.layers, []
    hook = layers[LAYER].register_forward_hook(
        lambda _, __, out: found.append(out[0] if isinstance(out, tuple) else out)
    )
    whole, model.model.layers = layers, layers[: LAYER + 1]
    kept = []
    for row in rows:
        model.model(torch.tensor([row]))
        kept.append(found.pop()[0, 1:].clone())
    model.model.layers = whole
    hook.remove()
    return torch.cat(kept)


def trained(x):
    """A dictionary of activations ``[token, d_model]``, by Adam on the squared error."""
    generator = torch.Generator().manual_seed(0)
    scale = math.sqrt(x.shape[1]) / float((x - x.mean(0)).norm(dim=1).mean())
    x = x * scale
    b_dec = x.mean(0).clone()
    # Begun at activations themselves, which leaves few latents dead.
    picked = torch.randperm(len(x), generator=generator)[:N_LATENTS]
    w_dec = torch.nn.functional.normalize(x[picked] - b_dec, dim=1)
    # Many directions that are alike add up to more than what they read.
    parameters = [w_dec.T / 8, torch.zeros(N_LATENTS), w_dec, b_dec]
    w_enc, b_enc, w_dec, b_dec = (p.contiguous().requires_grad_() for p in parameters)
    steps = EPOCHS * (len(x) // BATCH)
    optimiser = torch.optim.Adam([w_enc, b_enc, w_dec, b_dec], lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 50, (steps - step) / (steps / 3))
    )
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            batch = x[order[start : start + BATCH]]
            before = torch.addmm(b_enc, batch - b_dec, w_enc)
            least = before.detach().topk(K, dim=1).values[:, -1:]
            written = torch.addmm(b_dec, before.relu() * (before.detach() >= least), w_dec)
            loss = (batch - written).square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                w_dec /= w_dec.norm(dim=1, keepdim=True)
        print(f"last batch: {loss.item() / x.shape[1]:.3f}", file=sys.stderr)
    hook = f"blocks.{LAYER}.hook_resid_post"
    # Back to the model's own scale; a latent's size is what it writes, as directions have length 1.
    with torch.no_grad():
        length = w_dec.norm(dim=1) / scale
        reads, biases = w_enc * scale * length, b_enc * length
        writes = w_dec / w_dec.norm(dim=1, keepdim=True)
        return mx.Dictionary(
            hook, hook, reads, biases, writes, b_dec.detach() / scale, "topk", centred=True, k=K
        )


@torch.inference_mode()
def losses(model, rows, dictionary, mean):
    """Mean loss a token: untouched, with the reconstruction in place, with the mean in place."""

    def with_edit(edit):
        def hook(_, __, out):
            y = out[0] if isinstance(out, tuple) else out
            y = torch.cat([y[:, :1], edit(y[:, 1:])], dim=1)
            return (y, *out[1:]) if isinstance(out, tuple) else y

        handle = model.model.layers[LAYER].register_forward_hook(hook)
        tokens = [torch.tensor([row]) for row in rows]
        lost = [float(model(t, labels=t).loss) for t in tokens]
        handle.remove()
        return sum(lost) / len(lost)

    edits = (lambda y: y), dictionary.reconstruction, (lambda y: mean.expand_as(y))
    return [with_edit(edit) for edit in edits]


def quality(model, dictionary, rows, x):
    """What a dictionary keeps of tokens that it was not trained on."""
    centred = x - x.mean(0)
    error = x - dictionary.reconstruction(x)
    active = dictionary.activations(x) > 0
    whole, spliced, ablated = losses(model, rows[:12], dictionary, x.mean(0))
    return {
        "share of variance explained": 1 - float(error.square().sum() / centred.square().sum()),
        "latents active at a token (L0)": float(active.sum(1).float().mean()),
        "share of latents silent there": 1 - float(active.any(0).float().mean()),
        "loss a token": whole,
        "loss with the reconstruction": spliced,
        "loss with the mean": ablated,
        "share of loss recovered": (ablated - spliced) / (ablated - whole),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", action="store_true", help="measure the file that is there")
    train = not parser.parse_args().measure
    torch.set_num_threads(1)
    begun = time.process_time()
    own: Any = AutoModelForCausalLM.from_pretrained(smollm2_folder())
    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2_folder())
    rows = rows_of(tokenizer, own)
    written = time.process_time()
    if train:
        # Every tenth row is held out.
        x = activations_of(own, [row for number, row in enumerate(rows) if number % 10])
        recorded = time.process_time()
        trained(x).to(x.device, torch.float16).save(FOLDER)
        taken = written - begun, recorded - written, time.process_time() - recorded
        trained_on = {"tokens trained on": len(x), "CPU seconds": [round(each) for each in taken]}
    else:
        said = json.loads((FOLDER / "quality.json").read_text())
        trained_on = {name: said[name] for name in ("tokens trained on", "CPU seconds")}
    held_out = rows[::10]
    x = activations_of(own, held_out)
    found = quality(own, mx.load_dictionary(NAME), held_out, x)
    found = {name: round(each, 3) for name, each in found.items()}
    measured = {"made by": COMMAND, **trained_on, "tokens held out": len(x), "held out": found}
    (FOLDER / "quality.json").write_text(json.dumps(measured, indent=2) + "\n")
    show(measured)


def show(measured):
    """The table of what was made and how good it is."""
    size = (FOLDER / "sae_weights.safetensors").stat().st_size / 1e6
    texts, recording, fitting = measured["CPU seconds"]
    print(f"# A dictionary of SmolLM2-135M, block {LAYER}\n")
    print(
        f"Made by `{COMMAND} > tests/benchmarks/train_dictionary.md`. It ships with the package: "
        f'`mx.load_dictionary("{NAME}")`, {size:.1f} MB in float16. What is said of it holds of '
        "that file, and is measured again with `--measure`.\n\n"
        f"{N_LATENTS:,} top-{K} latents of what leaves block {LAYER} (`hook_resid_post`), trained "
        f"on {measured['tokens trained on']:,} tokens of text at hand, first positions left out: "
        f"{texts} CPU seconds for the texts, {recording} for the activations, {fitting} for "
        f"{EPOCHS} passes over them. Measured on {measured['tokens held out']:,} tokens of such "
        "text that it was not trained on.\n"
        "It is small, and knows what these texts are about; published dictionaries saw thousands "
        "of times as many tokens.\n"
    )
    print("| held-out text | |\n|---|---|")
    for name, each in measured["held out"].items():
        print(f"| {name} | {each:.2f} |")


if __name__ == "__main__":
    main()
