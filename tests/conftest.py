"""Models and tasks that several test files share; none of them needs a network.

The mathematics' tests load no torch (`make fast`): what needs it is imported by its fixture.
"""

import functools
import gc
import os
import signal
import sys
from collections import Counter
from importlib.machinery import SourceFileLoader
from types import FunctionType
from unittest.mock import patch

import jaxtyping
import pytest
from jaxtyping import _import_hook
from threadpoolctl import threadpool_limits

# Matrices here are small, and a second thread only waits for the first: workers use the cores.
# Torch, LightGBM and every process that a test starts read this when they are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def get_code(loader, name):
    """Jaxtyping's cache of compiled files, for the module itself and not for what it imports.

    Left as it is, the hook makes Python compile torch, transformers and pandas anew: six seconds.
    """
    cached = _import_hook._optimized_cache_from_source
    with patch(
        "importlib._bootstrap_external.cache_from_source",
        lambda path, **options: cached(loader._typechecker.get_hash(), path, **options),
    ):
        return SourceFileLoader.get_code(loader, name)


# How often each function, by its code, was called in this test, and how many calls are checked.
CALLS = Counter()
CHECKED_CALLS = 20


def of_first_calls(jaxtyped):
    """Jaxtyping's decorator, but shapes are checked in the first calls of a test only.

    An inner loop calls a small function ten thousand times, and a check of it takes longer than
    the function. A function that is not called is not prepared either.
    """

    def decorator(*, typechecker):
        check = jaxtyped(typechecker=typechecker)

        def decorate(thing):
            if not isinstance(thing, FunctionType):
                return check(thing)
            checked = functools.cache(lambda: check(thing))

            def function(*args, **kwargs):
                CALLS[thing.__code__] += 1
                now = checked() if CALLS[thing.__code__] <= CHECKED_CALLS else thing
                return now(*args, **kwargs)

            # As jaxtyping's own wrapper, it is no part of the code that values depend on.
            function.__code__ = function.__code__.replace(co_filename=jaxtyping.__file__)
            return functools.update_wrapper(function, thing)

        return decorate

    return decorator


@pytest.fixture(autouse=True)
def first_calls():
    CALLS.clear()


jaxtyping.jaxtyped = of_first_calls(jaxtyping.jaxtyped)
_import_hook._JaxtypingLoader.exec_module = SourceFileLoader.exec_module
_import_hook._JaxtypingLoader.get_code = get_code  # pyright: ignore[reportAttributeAccessIssue]

import mechspex as mx  # noqa: E402
from mechspex import cli  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--no-torch", action="store_true", help="fail if a test loads torch")


def refuse_torch(config):
    if config.getoption("--no-torch") and "torch" in sys.modules:
        raise pytest.UsageError("torch was loaded, which the mathematics' tests do without")


def pytest_collection_finish(session):
    refuse_torch(session.config)
    # What the libraries made when they were loaded stays; it need not be looked through again.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def torch_where_it_may_be(request):
    yield
    refuse_torch(request.config)


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_small_products():
    """NumPy's BLAS is loaded before any line here."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(scope="session")
def device(request):
    """Where the models of a test compute: tests that ask run on every device at hand."""
    return getattr(request, "param", "cpu")


@pytest.fixture
def bf16_pays(monkeypatch):
    """As if it did here: processors differ, and what a precision gives does not rest on that."""
    monkeypatch.setattr("mechspex.components.proved.check_that_it_pays", lambda *_: None)


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        import torch

        if torch.cuda.is_available():
            metafunc.parametrize("device", ["cpu", "cuda"], indirect=True, scope="session")


@pytest.fixture(scope="session")
def tiny(device):
    return mx.load_model("tiny", device=device)


@pytest.fixture(scope="session")
def tiny_task(tiny):
    return mx.load_task("induction", tiny, n_prompts=6)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory):
    from small_models import save_gpt2

    return save_gpt2(tmp_path_factory.mktemp("gpt2"), n_layers=2)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """name → the folder and the bridge of a small random model of an architecture, made once."""
    from architectures import load_saved, save_architecture

    @functools.cache
    def build(name):
        folder = save_architecture(name, tmp_path_factory.mktemp("architecture"))
        return folder, load_saved(folder)

    return build


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """Grouped-query attention: four query heads share two key-value heads."""
    from small_models import save_random
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=206, max_position_embeddings=32, hidden_size=32, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return save_random(LlamaForCausalLM, config, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(gpt2_folder, device):
    return mx.load_model(gpt2_folder, device=device)


@pytest.fixture(scope="session")
def llama(llama_folder, device):
    return mx.load_model(llama_folder, device=device)


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
