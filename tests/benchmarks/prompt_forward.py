"""How fast the parts of a prompt are measured: ratios, all sides in turns in one run.

    OMP_NUM_THREADS=1 python tests/benchmarks/prompt_forward.py > tests/benchmarks/prompt_forward.md
    python tests/benchmarks/prompt_forward.py 96 cuda

Seconds are those of the processor, one thread, so that a busy machine changes them little; on
another device those of the clock.
"""

import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

import mechspex as mx
from mechspex.core.masks import sample_masks
from mechspex.models.smollm2 import smollm2_folder

N_MASKS = int(sys.argv[1]) if len(sys.argv) > 1 else 6
DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"
# Rows that fill the device, of the model's own forward.
TOKENS_AT_ONCE = 2048 if DEVICE == "cpu" else 1 << 16
CLOCK = time.process_time if DEVICE == "cpu" else time.perf_counter
QUESTION = "\n\nQuestion: Where does the baker live?\nAnswer:"
RESPONSE = " The baker lives in the house by the old mill."
NAMES = ["baker", "teacher", "painter", "doctor", "miller", "farmer", "sailor", "singer", "tailor"]
PLACES = ["mill", "river", "school", "market", "bridge", "harbour", "forest", "church", "station"]


def context(n_sentences, n_words):
    """Sentences of plain words, so many words each."""
    rng = np.random.default_rng(0)
    sentences = []
    for _ in range(n_sentences):
        who, where = rng.choice(NAMES), rng.choice(PLACES, n_words)
        middle = " ".join(f"the {place}" for place in where)
        words = f"The {who} walked past {middle}".split()[: n_words - 1]
        sentences.append(" ".join([*words, "home."]))
    return " ".join(sentences)


def rows_of(values, masks):
    """The tokens that every mask leaves, the response after them, and how many are read."""
    scored = values._scored
    forced = np.array(scored.responses[0].tokens)
    rows = [scored._row(values.ablated(mask)[0]) for mask in masks]
    return [np.concatenate([row, forced[:-1]]) for row in rows], forced


@torch.inference_mode()
def loop(own, values, masks):
    """What a user writes: one forward a mask, all logits."""
    rows, forced = rows_of(values, masks)
    found = []
    for row in rows:
        logits = own(torch.tensor(row[None], device=DEVICE)).logits[0, -len(forced) :]
        logits = logits.log_softmax(-1)
        found.append(logits[torch.arange(len(forced)), torch.tensor(forced)].sum().item())
    return np.array(found)


@torch.inference_mode()
def batched(own, values, masks):
    """The model's own forward on the same inputs: rows of like length together, filled up at their
    end, no logits but those from the first that is read."""
    rows, forced = rows_of(values, masks)
    order = sorted(range(len(rows)), key=lambda n: -len(rows[n]))
    found = np.empty(len(rows))
    while order:
        longest = len(rows[order[0]])
        batch, order = np.split(order, [max(1, TOKENS_AT_ONCE // longest)])
        order = order.tolist()
        tokens = torch.full((len(batch), longest), int(rows[batch[0]][0]))
        for place, number in enumerate(batch):
            tokens[place, : len(rows[number])] = torch.tensor(rows[number])
        first = min(len(rows[number]) for number in batch) - len(forced)
        log_p = own(tokens.to(DEVICE), logits_to_keep=longest - first).logits.log_softmax(-1).cpu()
        for place, number in enumerate(batch):
            end = len(rows[number]) - first
            read = log_p[place, end - len(forced) : end]
            found[number] = read[torch.arange(len(forced)), torch.tensor(forced)].sum()
    return found


def seconds(side):
    start = CLOCK()
    found = side()
    return CLOCK() - start, found


def measured(own, values, masks):
    """A row of the table: rates, and how far values are apart."""
    # Warms up; off the processor the batch also settles.
    values(masks[:2] if DEVICE == "cpu" else masks)
    if DEVICE != "cpu":
        batched(own, values, masks)
    before = values.tokens_run
    ours, found = seconds(lambda: values(masks)[:, 0])
    tokens = values.tokens_run - before
    one_by_one, by_loop = seconds(lambda: loop(own, values, masks))
    together, by_batch = seconds(lambda: batched(own, values, masks))
    again, _ = seconds(lambda: values(masks))
    apart = max(np.abs(found - by_loop).max(), np.abs(found - by_batch).max())
    rows, _ = rows_of(values, masks)
    whole = sum(map(len, rows))
    ours = min(ours, again)
    return [
        f"{whole / len(masks):.0f}",
        f"{tokens / len(masks):.0f}",
        f"{len(masks) / ours:.3f}",
        f"{one_by_one / ours:.2f}",
        f"{together / ours:.2f}",
        f"{whole / tokens:.2f}",
        f"{together / ours / (whole / tokens):.2f}",
        f"{apart:.1e}",
    ]


def main():
    model = mx.load_model("smollm2-135m", device=DEVICE)
    own: Any = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32)
    own = own.eval().to(DEVICE)
    sentences, words = context(30, 16), context(25, 20)
    late = mx.words(sentences, by="sentence")[20:]
    cases = {
        "10 sentences in the last third, half kept": (late, "sentence", 0.5),
        "30 sentences, half kept": (sentences, "sentence", 0.5),
        "500 words, half kept": (words, "word", 0.5),
    }
    print("# The parts of a prompt: ratios of rates, all sides in one run\n")
    threads, asked = ("OMP_NUM_THREADS=1 ", "") if DEVICE == "cpu" else ("", f" {DEVICE}")
    name = f"{Path(__file__).name} {N_MASKS}{asked}"
    print(f"Made by `{threads}python tests/benchmarks/{name}`")
    where = f"on one thread ({platform.machine()})"
    if DEVICE != "cpu":
        where = f"on one {torch.cuda.get_device_name(DEVICE)}"
    print(f"{where}, torch {torch.__version__}, SmolLM2-135M, float32,")
    clock = "processor" if DEVICE == "cpu" else "clock"
    print(f"{N_MASKS} random masks a case, a response of 11 tokens; seconds of the {clock}.\n")
    names = (
        "units", "tokens a mask", "tokens run", "masks/s", "/ loop", "/ own, batched",
        "tokens saved", "/ what tokens say", "apart (nats)",
    )  # fmt: skip
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)
    for name, (text, by, keep) in cases.items():
        values = mx.PromptValues(model, text, QUESTION, by=by, response=RESPONSE)
        masks = sample_masks(values.n_units, N_MASKS, keep=keep, seed=1)
        print(f"| {' | '.join([name, *measured(own, values, masks)])} |", flush=True)
    print(
        "\n`/ loop`: against one forward a mask with all logits; `/ own, batched`: against the "
        "model's own forward\non the same rows, those of like length together; `tokens saved`: "
        "tokens of all rows by tokens that were run,\nwhat rows begin with in common being "
        "computed once; `/ what tokens say`: how much of that is seen in time."
    )


if __name__ == "__main__":
    main()
