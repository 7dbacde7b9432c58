"""Models and tasks that several test files share; none of them needs a network."""

import signal
import sys

import pytest
from small_models import save_gpt2, save_random
from threadpoolctl import threadpool_limits
from transformers import LlamaConfig, LlamaForCausalLM

import mechspex as mx
from mechspex import cli


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


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Call the command line in this process; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MECHSPEX_RUNS", raising=False)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mechspex", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capfd.readouterr()
        return stopped.value.code or 0, out, err

    handler = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, handler)
