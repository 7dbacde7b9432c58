"""Small random models, saved as a user would have them, and prompts of the tiny vocabulary."""

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from mechspex.models.shipped import TINY

PROMPTS = ["apple bird boat apple", "moon lake key moon", "wood wall door wood"]
CORRUPTED = ["flag bird boat apple", "tree lake key moon", "snow wall door wood"]
ANSWERS, DISTRACTORS = [" bird", " lake", " wall"], [" boat", " key", " door"]


def save_random(model_class, config, folder):
    """A random model of the tiny vocabulary, saved as a user would have it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(folder)
    return folder


def save_gpt2(folder, n_layers):
    config = GPT2Config(
        vocab_size=206, n_positions=32, n_embd=24, n_layer=n_layers, n_head=3, n_inner=40,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return save_random(GPT2LMHeadModel, config, folder)


def device_of(model):
    """Where a bridge computes: oracles put their tensors there."""
    return next(model.original_model.parameters()).device
