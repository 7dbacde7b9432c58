"""Of which edges a compiled program is made: told from its weights alone."""

import numpy as np
import torch

from mechspex.models.edges import ends_of


def connected(model, edges):
    """Whether the weights of each edge's reader see a direction along which its writer writes."""
    weights, cfg = model.state_dict(), model.cfg
    written = {"embed": torch.cat([weights["embed.weight"], weights["pos_embed.weight"]]).T}
    read = {"output": weights["unembed.weight"]}
    for layer in range(cfg.n_layers):
        for head in range(cfg.n_heads):
            rows = slice(head * cfg.d_head, (head + 1) * cfg.d_head)
            written[f"L{layer}H{head}"] = weights[f"blocks.{layer}.attn.o.weight"][:, rows]
            for part in "qkv":
                read[f"L{layer}H{head}.{part}"] = weights[f"blocks.{layer}.attn.{part}.weight"][
                    rows
                ]
        written[f"L{layer}MLP"] = weights[f"blocks.{layer}.mlp.out.weight"]
        read[f"L{layer}MLP"] = weights[f"blocks.{layer}.mlp.in.weight"]
    ends = map(ends_of, edges)
    return np.array([bool((read[reader] @ written[writer]).any()) for writer, reader in ends])
