"""Products of the model by oneDNN where that is faster: the linked library's, up to rounding."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mechspex.forward import onednn

# {class: its configuration, and one of its matrices}: linear maps, and their transposes.
KINDS = {
    LlamaForCausalLM: (
        LlamaConfig(
            vocab_size=20, hidden_size=24, intermediate_size=40, num_hidden_layers=1,
            num_attention_heads=2,
        ),
        "model.layers.0.mlp.up_proj",
    ),
    GPT2LMHeadModel: (
        GPT2Config(vocab_size=20, n_embd=24, n_layer=1, n_head=2), "transformer.h.0.mlp.c_fc"
    ),
}  # fmt: skip


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def model_and_matrix(request):
    config, path = KINDS[request.param]
    model = request.param(config).eval()
    return model, model.get_submodule(path)


def choose(model, monkeypatch, **seconds):
    """Make the choice as if the two libraries had taken so many seconds."""
    taken = iter([seconds["plain"], seconds["onednn"]])
    monkeypatch.setattr(onednn, "_seconds", lambda product: next(taken))
    onednn.multiply_by_the_faster_library(model)


def test_onednn_multiplies_like_the_linked_library(model_and_matrix, monkeypatch):
    model, matrix = model_and_matrix
    given = torch.randn(5, 30, 24, generator=torch.Generator().manual_seed(0))
    expected = matrix(given)
    called = []
    multiply = onednn._multiply
    monkeypatch.setattr(onednn, "_multiply", lambda *given: called.append(1) or multiply(*given))
    choose(model, monkeypatch, plain=1.0, onednn=0.9)
    with torch.inference_mode():
        assert torch.allclose(matrix(given), expected, atol=1e-4)
        assert len(called) == 1
        assert torch.allclose(matrix(given[:1, :2]), expected[:1, :2], atol=1e-4)
    assert matrix(given).requires_grad, "gradients take PyTorch's own way"
    assert len(called) == 1, "and so do a few rows"


def test_what_gains_too_little_changes_nothing(model_and_matrix, monkeypatch):
    model, matrix = model_and_matrix
    choose(model, monkeypatch, plain=1.0, onednn=0.96)
    assert "forward" not in vars(matrix)
