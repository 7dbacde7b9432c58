"""Models and tasks that several test files share; none of them needs a network."""

import pytest
import torch
from threadpoolctl import threadpool_limits
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import mechspex as mx
from mechspex.models import _TINY


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_small_products():
    """Two BLAS threads on small matrices are slower than one; torch keeps its own."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def tiny():
    return mx.load_model("tiny")


@pytest.fixture(scope="session")
def tiny_task(tiny):
    return mx.load_task("induction", tiny, n_prompts=6)


def save_random(model_class, config, folder):
    """A random model of the tiny vocabulary, saved as a user would have it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(_TINY).save_pretrained(folder)
    return folder


def save_gpt2(folder, n_layers):
    config = GPT2Config(
        vocab_size=206, n_positions=32, n_embd=24, n_layer=n_layers, n_head=3, n_inner=40,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return save_random(GPT2LMHeadModel, config, folder)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("gpt2"), n_layers=2)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """Grouped-query attention: four query heads share two key-value heads."""
    config = LlamaConfig(
        vocab_size=206, max_position_embeddings=32, hidden_size=32, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return save_random(LlamaForCausalLM, config, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(gpt2_folder):
    return mx.load_model(gpt2_folder)


@pytest.fixture(scope="session")
def llama(llama_folder):
    return mx.load_model(llama_folder)
