"""The model without its bridge: the same logits, by the same weights, and nothing left behind."""

import pytest
import torch
from small_models import PROMPTS, device_of
from torch import nn

from mechspex.errors import ModelError
from mechspex.forward.plain_model import PlainModel
from mechspex.models.bridge import edited_logits
from mechspex.tasks.next_token import encode


@pytest.fixture
def tokens(gpt2):
    ids = [encode(gpt2.tokenizer, prompt, None) for prompt in PROMPTS]
    return torch.tensor(ids, device=device_of(gpt2))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@torch.no_grad()
def test_logits_are_the_bridges(architecture, request, tokens, device):
    model = request.getfixturevalue(architecture)
    plain = PlainModel(model, torch.float32)
    expected = edited_logits(model, tokens, {})
    assert torch.allclose(plain.logits(tokens, {}), expected, atol=1e-4)
    few = torch.tensor([7, 3], device=tokens.device)
    assert torch.allclose(plain.logits(tokens, {}, read=few), expected[..., [7, 3]], atol=1e-4)


@torch.no_grad()
def test_what_enters_a_block_is_what_the_one_before_leaves(gpt2, tokens):
    plain = PlainModel(gpt2, torch.float32)
    entering, cache = plain.record(tokens, [0, 1], with_cache=True)
    _, seen = gpt2.run_with_cache(tokens, names_filter=["blocks.0.hook_out", "blocks.1.hook_in"])
    assert torch.allclose(entering[1], seen["blocks.0.hook_out"], atol=1e-5)
    assert len(cache) == 2
    assert cache[0][0].shape == (3, 3, tokens.shape[1], 8)


def test_it_shares_the_weights_and_leaves_the_model_alone(gpt2):
    before = {name: type(module) for name, module in gpt2.original_model.named_modules()}
    plain = PlainModel(gpt2, torch.float32)
    own = {parameter.data_ptr() for parameter in gpt2.original_model.parameters()}
    assert {parameter.data_ptr() for parameter in plain.module.parameters()} <= own
    half = PlainModel(gpt2, torch.bfloat16)
    assert {parameter.dtype for parameter in half.module.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in gpt2.original_model.parameters()} == {torch.float32}
    after = {name: type(module) for name, module in gpt2.original_model.named_modules()}
    assert after == before


def test_models_that_cannot_be_rebuilt_are_refused(gpt2, tiny):
    with pytest.raises(ModelError, match="tiny is no model of the transformers library"):
        PlainModel(tiny, torch.float32)
    with (
        gpt2.hooks(fwd_hooks=[("blocks.0.hook_out", lambda out, hook: out)]),
        pytest.raises(ModelError, match="carries hooks"),
    ):
        PlainModel(gpt2, torch.float32)
    handle = gpt2.original_model.register_forward_hook(lambda *given: None)
    with pytest.raises(ModelError, match="carries hooks"):
        PlainModel(gpt2, torch.float32)
    handle.remove()
    assert isinstance(PlainModel(gpt2, torch.float32).module, nn.Module)
