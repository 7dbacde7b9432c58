import numpy as np
import pytest
import torch
from small_models import device_of

import mechspex as mx
from mechspex.errors import Refused, TaskError, UnknownUnitError


def test_patterns_are_those_of_the_model(llama):
    prompt = "apple bird boat apple bird"
    found = mx.attention_patterns(llama, prompt, ["L0H1", "L1H0"], prepend_bos=False)
    assert " ".join(token.strip() for token in found.tokens) == prompt
    tokens = llama.tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    for row, (layer, head) in enumerate([(0, 1), (1, 0)]):
        seen = []
        point = llama.hook_dict[f"blocks.{layer}.attn.hook_pattern"]
        grab = point.register_forward_hook(lambda _m, _i, output, seen=seen: seen.append(output))
        with torch.no_grad():
            llama.original_model(tokens.to(device_of(llama)))
        grab.remove()
        assert np.allclose(found.patterns[row], seen[0][0, head].float().cpu().numpy(), atol=1e-6)
    assert np.allclose(found.patterns.sum(axis=2), 1, atol=1e-5)


def test_the_induction_head_looks_at_what_followed(tiny):
    task = mx.load_task("induction", tiny, n_prompts=1, seed=3)
    found = mx.attention_patterns(tiny, task.prompts[0], mx.heads(tiny))
    last = found.to_pandas().groupby("head").tail(1).set_index("head")
    assert last.loc["L1H3", "to"] == task.answers[0]
    assert "8 heads of tiny" in found.in_short


def test_what_is_no_head_or_prompt_is_refused(tiny):
    with pytest.raises(UnknownUnitError, match="L9H9"):
        mx.attention_patterns(tiny, "a", ["L9H9"])
    with pytest.raises(Refused, match="no heads"):
        mx.attention_patterns(tiny, "a", [])
    with pytest.raises(TaskError, match="give a text"):
        mx.attention_patterns(tiny, 5, ["L0H0"])  # pyright: ignore[reportArgumentType]
