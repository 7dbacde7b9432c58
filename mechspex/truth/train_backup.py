"""Train the model with backup heads: `python -m mechspex.truth.train_backup` (half a minute).

An attention-only transformer of two layers with four heads each reads random letters of which a
segment occurs twice, and learns to continue the second occurrence like the first. In half of the
sequences one head is dropped, its output set to zero: so the model cannot rest on any one head,
and grows a second one for each job. A penalty on the heads' output weights keeps it at two.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from mechspex.models.load_model import Model, native_model
from mechspex.truth.known_model import word_tokenizer
from mechspex.truth.letter_models import (
    BACKUP_CONFIG,
    BEFORE,
    LENGTH,
    VOCABULARY,
    WEIGHTS,
    draw_sequences,
)

N_STEPS, ROWS, DROPPED, PENALTY, SEED = 2000, 64, 0.5, 0.2, 0
N_LAYERS, N_HEADS = BACKUP_CONFIG["n_layers"], BACKUP_CONFIG["n_heads"]


def logits_of(model: Model, tokens: Tensor, keep: Tensor) -> Tensor:
    """Logits ``[row, pos, vocabulary]`` with every head multiplied by ``keep[row, head]``.

    Args:
        model: the model.
        tokens: token ids ``[row, pos]``.
        keep: the factor of each head, ``[row, head]``; 0 drops it.
    """

    def dropping(layer: int) -> tuple[str, Any]:
        scale = keep[:, None, N_HEADS * layer : N_HEADS * (layer + 1), None]
        return f"blocks.{layer}.attn.hook_z", lambda z, hook: z * scale

    hooks: list[Any] = [dropping(layer) for layer in range(N_LAYERS)]
    return model.run_with_hooks(tokens, fwd_hooks=hooks, return_type="logits")


def head_norms(model: Model) -> Tensor:
    """The Frobenius norm of each head's output weights, ``[head]``."""
    named = dict(model.named_parameters())
    outputs = [weight for name, weight in named.items() if ".o." in name and weight.ndim == 2]
    by_head = [rearrange(w, "d_model (head d) -> d_model head d", head=N_HEADS) for w in outputs]
    return torch.cat([weights.norm(dim=(0, 2)) for weights in by_head])


def train(generator: torch.Generator) -> Model:
    """Minimise the cross-entropy on the second occurrence plus a concave penalty on the norms."""
    model = native_model("backup", BACKUP_CONFIG, word_tokenizer(VOCABULARY))
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, N_STEPS, pct_start=0.1)
    for step in range(N_STEPS):
        tokens = draw_sequences(ROWS, generator)
        keep = torch.ones(ROWS, N_LAYERS * N_HEADS)
        rows = (torch.rand(ROWS, generator=generator) < DROPPED).nonzero()[:, 0]
        keep[rows, torch.randint(keep.shape[1], (len(rows),), generator=generator)] = 0
        logits = logits_of(model, tokens, keep)[:, BEFORE : LENGTH - 1]
        loss = cross_entropy(
            rearrange(logits, "row pos word -> (row pos) word"),
            rearrange(tokens[:, BEFORE + 1 :], "row pos -> (row pos)"),
        )
        optimizer.zero_grad()
        (loss + PENALTY * (head_norms(model) + 0.01).sqrt().sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == N_STEPS - 1:
            print(f"step {step:4d}  loss {loss.item():.4f}", flush=True)
    return model


@torch.no_grad()
def analyse(model: Model, generator: torch.Generator) -> None:
    """Print the accuracy on fresh sequences with each head and each pair of heads ablated."""
    tokens = draw_sequences(1000, generator)
    n_heads = N_LAYERS * N_HEADS
    for i in range(n_heads):
        row = []
        for j in range(n_heads):
            keep = torch.ones(1, n_heads)
            keep[0, [i, j]] = 0
            right = logits_of(model, tokens, keep)[:, LENGTH - 2].argmax(-1) == tokens[:, -1]
            row.append(f"{right.float().mean():.2f}")
        print(f"L{i // N_HEADS}H{i % N_HEADS} and L0H0 … ablated:", *row)


def main() -> None:
    """Train the model, save its weights and print what ablations do to it."""
    parser = argparse.ArgumentParser(description="Train and save the model with backup heads.")
    parser.add_argument("file", nargs="?", type=Path, default=WEIGHTS)
    file: Path = parser.parse_args().file
    generator = torch.Generator().manual_seed(SEED)
    model = train(generator)
    save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, file)
    analyse(model, generator)


if __name__ == "__main__":
    main()
