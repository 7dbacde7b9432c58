"""Thousands of units: memory does not grow with the number of masks."""

import threading

import numpy as np
import psutil
import pytest
from small_models import save_random
from transformers import LlamaConfig, LlamaForCausalLM

import mechspex as mx
from mechspex.core.masks import sample_masks

WORDS = ["apple", "bird", "boat", "moon", "lake", "key", "wood", "wall", "door", "snow"]
N_WORDS = 4000


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    config = LlamaConfig(
        vocab_size=206, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=N_WORDS + 100,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    folder = save_random(LlamaForCausalLM, config, tmp_path_factory.mktemp("llama"))
    text = " ".join(np.random.default_rng(0).choice(WORDS, N_WORDS))
    model = mx.load_model(folder)
    return mx.PromptValues(model, text, " flag tree", by="word", response=" bird boat")


def largest(values, n_masks):
    """How many bytes the process has, at most, while so many masks are measured."""
    process, done = psutil.Process(), threading.Event()
    peak = [process.memory_info().rss]

    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        values(sample_masks(N_WORDS, n_masks, keep=0.2, seed=n_masks))
    finally:
        done.set()
        watcher.join()
    return peak[0]


def test_memory_does_not_grow_with_the_number_of_masks(values):
    assert values.n_units == N_WORDS
    assert values.through_bridge is None
    # What the tests before left free is taken up by the first.
    few = max(largest(values, 16) for _ in range(2))
    # All 64 in one forward take 200 MB.
    assert largest(values, 64) < few + 50e6
