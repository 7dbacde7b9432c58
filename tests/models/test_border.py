"""What users give in the place of a model, of units or of a set of units."""

import numpy as np
import pytest
from transformers import LlamaConfig, LlamaForCausalLM

import mechspex as mx
from mechspex.core.units import names_in
from mechspex.errors import ModelError, Refused, UnknownUnitError


def test_units_by_kind_by_name_and_of_a_model_by_name(tiny, tiny_task):
    assert mx.heads("tiny") == mx.heads(tiny)
    assert mx.heads(tiny, layers=1).names == ("L1H0", "L1H1", "L1H2", "L1H3")
    by_kind = mx.ComponentValues(tiny, tiny_task, "heads")
    assert by_kind.units == mx.heads(tiny)
    by_name = mx.ComponentValues(tiny, tiny_task, ["L0H1", "l1h3"])
    assert by_name.units.names == ("L0H1", "L1H3")
    assert mx.ComponentValues(tiny, tiny_task, "L0H1,L1H3").units == by_name.units
    with pytest.raises(Refused, match="'head': choose heads, mlps, neurons"):
        mx.ComponentValues(tiny, tiny_task, "head")
    with pytest.raises(UnknownUnitError, match="no unit 'L7H0'"):
        mx.ComponentValues(tiny, tiny_task, ["L7H0"])
    with pytest.raises(ModelError, match=r"give the model itself, load_model\('gpt2'\)"):
        mx.heads("gpt2")


def test_the_shapes_of_shipped_models_are_theirs(tiny):
    from mechspex.models.shipped import SHAPES
    from mechspex.models.units import shape_of

    told, true = SHAPES["tiny"], shape_of(tiny)
    assert (told.n_layers, told.n_heads) == (true.n_layers, true.n_heads)
    assert told.attention_only
    assert true.attention_only


@pytest.mark.parametrize("given", ["L0H1 × L1H3", "L0H1,L1H3", "L0H1+L1H3", "l0h1 x l1h3"])
def test_sets_of_units_as_they_are_printed(given):
    units = mx.heads("tiny")
    assert units.columns(names_in(given)) == (1, 7)
    values = mx.FunctionValues(lambda masks: (masks[:, 1] & masks[:, 7]).astype(np.float32), units)
    for terms in (given, [given], [("L0H1", "L1H3")]):
        assert mx.validate(values, terms).terms == ((1, 7),)


def test_a_model_of_transformers_without_a_tokenizer_is_refused_with_the_way():
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )  # fmt: skip
    with pytest.raises(ModelError, match="LlamaForCausalLM does not know its tokenizer"):
        mx.load_model(LlamaForCausalLM(config))
