"""Train the tiny induction model: `python -m mechspex.tiny.train [folder]` (about two minutes).

The model is an attention-only transformer of two layers with four heads each, over a vocabulary
of common English words. It reads random words of which a segment occurs twice, and learns to
continue the second occurrence like the first: a *previous-token* head in layer 0 writes at each
word which word came before it, and an *induction* head in layer 1 uses that to find the word that
followed last time. Neither head is of use without the other, so the model has one strong, known
interaction. A penalty on the heads' output weights leaves each job to one head.
"""

import argparse
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources.native import boot
from transformers import PreTrainedTokenizerFast

WORD_LIST = """
air animal apple arm art baby back bag ball band bank base bear bed bell bird blood board boat body
book bottle box boy brain bread bridge brother bus cake camera car card cat chair cheese child
church city class clock cloud coal coat coffee color corn country cow dance day desk dish doctor dog
door dream dress drink ear earth egg eye face farm father field finger fire fish flag floor flower
food foot forest friend fruit game garden gate girl glass gold grass hair hall hammer hand hat head
heart hill home horse hour house ice island job key knife lake lamp land leaf leg letter light list
map mark market meat milk money moon morning mother mountain mouth music name net night nose number
oil orange page paper park pen pencil person picture pig plane plant plate pocket point potato queen
rain ring river road room root rose salt sand school sea seat sheep ship shirt shoe shop silver skin
sky snake snow song soup spoon spring star stone store story street sugar summer sun table tail
teacher test thing time tooth town toy train tree village voice wall watch water week window wine
winter wood word work world year
"""
WORDS = WORD_LIST.split()
PAD, BOS, UNKNOWN = "<pad>", "<bos>", "<unk>"
SPECIAL = [PAD, BOS, UNKNOWN]
CONFIG: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 4,
    "d_model": 64,
    "d_head": 32,
    "n_ctx": 64,
    "d_vocab": len(SPECIAL) + len(WORDS),
    "attn_only": True,
    "normalization_type": "LN",
    "positional_embedding_type": "rotary",
    "rotary_base": 100,
    "rotary_dim": 8,
    "seed": 0,
}
HEADS = [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
OUTPUT_WEIGHT = "attn._original_component.o._original_component.weight"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, with its leading space as in GPT-2; unknown words become `<unk>`."""
    vocabulary = {token: i for i, token in enumerate(SPECIAL + ["Ġ" + word for word in WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    roles: dict[str, str] = {"bos_token": BOS, "eos_token": BOS, "unk_token": UNKNOWN}
    roles["pad_token"] = PAD
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, add_bos_token=True, **roles)


def sample_batch(
    n_sequences: int, length: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences of distinct random words in which one segment occurs twice.

    The segment's length, its place and the gap before its repeat are random, so only the words
    tell where to look. A quarter of the sequences lack `<bos>`. The second result marks the
    positions whose next word the repeat determines.
    """
    words = torch.rand(n_sequences, len(WORDS), generator=generator).argsort(1)
    tokens = words[:, :length] + len(SPECIAL)
    determined = torch.zeros(n_sequences, length, dtype=torch.bool)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    for row, marked in zip(tokens, determined, strict=True):
        start = min(draw(0, 3), 1)
        if start == 1:
            row[0] = SPECIAL.index(BOS)
        size = draw(2, (length - start) // 2)
        first = draw(start, length - 2 * size)
        second = draw(first + size, length - size)
        row[second : second + size] = row[first : first + size].clone()
        marked[second : second + size - 1] = True
    return tokens, determined


def head_norms(model: TransformerBridge) -> torch.Tensor:
    """The Frobenius norm of each head's output weights."""
    weights = [p for name, p in model.named_parameters() if name.endswith(OUTPUT_WEIGHT)]
    shape = (-1, CONFIG["n_heads"], CONFIG["d_head"])
    return torch.cat([weight.view(shape).norm(dim=(0, 2)) for weight in weights])


def train(n_steps: int, penalty: float, generator: torch.Generator) -> TransformerBridge:
    """Minimise the cross-entropy at determined positions plus a penalty on the heads' norms.

    The penalty sums the square roots of the norms: being concave, it prefers one large head to
    several small ones, and takes the heads that are not needed to zero.
    """
    model = boot(CONFIG, model_name="tiny")
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, n_steps, pct_start=0.1)
    for step in range(n_steps):
        length = int(torch.randint(8, CONFIG["n_ctx"] + 1, (), generator=generator))
        tokens, determined = sample_batch(64, length, generator)
        logits, predicted = model(tokens, return_type="logits")[:, :-1], determined[:, :-1]
        loss = cross_entropy(logits[predicted], tokens[:, 1:][predicted])
        optimizer.zero_grad()
        (loss + penalty * (head_norms(model) + 0.01).sqrt().sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 300 == 0 or step == n_steps - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    return model


def subset_values(
    model: TransformerBridge, tokens: torch.Tensor, words: torch.Tensor, cache: Any
) -> torch.Tensor:
    """The mean logit difference for all 2^8 head subsets, one axis per head (0 = ablated)."""
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(CONFIG["n_layers"])]

    def ablate(z: torch.Tensor, hook: Any, name: str, keep: torch.Tensor) -> torch.Tensor:
        return torch.where(keep[:, None], z, cache[name].mean(0))

    values = []
    for kept in itertools.product([False, True], repeat=len(HEADS)):
        masks = zip(names, torch.tensor(kept).view(len(names), -1), strict=True)
        hooks: list[Any] = [(name, partial(ablate, name=name, keep=keep)) for name, keep in masks]
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1].gather(1, words)
        values.append((logits[:, 5] - logits[:, 8]).mean())
    return torch.stack(values).view([2] * len(HEADS))


@torch.no_grad()
def analyse(model: TransformerBridge, generator: torch.Generator) -> None:
    """Print how well the model copies, what each head attends to, and what ablation does."""
    tokens, determined = sample_batch(1000, CONFIG["n_ctx"], generator)
    right = model(tokens, return_type="logits")[:, :-1].argmax(-1) == tokens[:, 1:]
    print(f"accuracy on fresh sequences {right[determined[:, :-1]].float().mean():.4f}")

    # Ten words, then the first five again: the sixth word comes next, the ninth does not.
    words = torch.rand(64, len(WORDS), generator=generator).argsort(1)[:, :10] + len(SPECIAL)
    tokens = torch.cat([torch.full((64, 1), SPECIAL.index(BOS)), words, words[:, :5]], dim=1)
    _, cache = model.run_with_cache(tokens)
    values = subset_values(model, tokens, words, cache)

    def value(heads: tuple[int, ...], kept: bool) -> float:
        """The value with only these heads kept, or with only these heads ablated."""
        return values[tuple(int((i in heads) == kept) for i in range(len(HEADS)))].item()

    full, empty = value((), False), value((), True)
    print(f"logit difference {full:.2f}, with every head ablated {empty:.2f}")
    pattern = torch.cat([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(2)], dim=1)
    previous = pattern.diagonal(offset=-1, dim1=2, dim2=3).mean((0, 2))
    induced = pattern[:, :, -5:].diagonal(offset=2, dim1=2, dim2=3).mean((0, 2))
    norms = head_norms(model)
    print("head  output norm  attention to previous  to induced  effect of ablation")
    for i, head in enumerate(HEADS):
        print(f"{head} {norms[i]:12.3f} {previous[i]:22.2f} {induced[i]:11.2f}", end="")
        print(f" {value((i,), False) - full:19.2f}")
    print("pair       only these kept  both ablated  kept coefficient  ablated coefficient")
    for i, j in itertools.combinations(range(len(HEADS)), 2):
        both = {basis: value((i, j), basis) for basis in (True, False)}
        kept = both[True] - value((i,), True) - value((j,), True) + empty
        ablated = both[False] - value((i,), False) - value((j,), False) + full
        if max(abs(kept), abs(ablated)) > 1:
            print(f"{HEADS[i]}+{HEADS[j]} {both[True]:16.2f} {both[False]:13.2f}", end="")
            print(f" {kept:17.2f} {ablated:20.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and save the tiny induction model.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    folder: Path = parser.parse_args().folder
    generator = torch.Generator().manual_seed(CONFIG["seed"])
    model = train(n_steps=1500, penalty=0.08, generator=generator)
    build_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    save_file(model.state_dict(), folder / "model.safetensors")
    analyse(model, generator)


if __name__ == "__main__":
    main()
