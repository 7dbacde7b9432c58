"""Rules of the backward pass, against autograd on the same operations and against brute force."""

import functools

import numpy as np
import pytest
import torch
from architectures import TASK, save_architecture
from torch import nn

import mechspex as mx
from mechspex.core.backward_rules import ATP_STAR, GIM, RELP, BackwardRules
from mechspex.errors import ModelError, Refused
from mechspex.forward.backward_pass import BackwardPass, Places

# Split and joined projections, norms of both kinds, gates, experts, ALiBi, parallel blocks.
NAMES = ["gpt2", "llama", "gemma2 no caps", "bloom", "codegen", "opt", "gpt_oss", "olmo2"]
RULES = {
    "temperature": BackwardRules(temperature=3.0),
    "shares": BackwardRules(queries=0.25, keys=0.5, values=0.5),
    "pattern": BackwardRules(pattern_frozen=True),
    "norms": BackwardRules(norms_frozen=True),
    "gains": BackwardRules(gains=True),
    "gim": GIM,
    "relp": RELP,
    "atp_star": ATP_STAR,
}


@pytest.fixture(scope="module")
def values_of(tmp_path_factory):
    @functools.cache
    def of(name):
        model = mx.load_model(save_architecture(name, tmp_path_factory.mktemp("model")))
        return mx.ComponentValues(model, TASK, mx.heads(model), "mean")

    return of


def soft_masks(n_units):
    return np.stack([np.ones(n_units), np.linspace(0.2, 0.9, n_units)]).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_values_stay_bit_for_bit_and_gradients_change(name, values_of):
    values = values_of(name)
    soft = soft_masks(values.n_units)
    # Attention without its kernel, differentiated by the chain rule.
    eager = values.with_backward(BackwardRules(temperature=1 + 1e-7))
    kept, gradient = eager.value_and_gradient(soft)
    fused, as_ever = values.value_and_gradient(soft)
    assert np.allclose(kept, fused, rtol=1e-4, atol=1e-4)
    assert np.allclose(gradient, as_ever, rtol=1e-3, atol=1e-3)
    for rule, rules in RULES.items():
        if name == "bloom" and rules.gains:
            # Its activation is an autograd function of its own, in which nothing is seen.
            with pytest.raises(ModelError, match="'gains' does not apply"):
                values.with_backward(rules).value_and_gradient(soft)
            continue
        same, changed = values.with_backward(rules).value_and_gradient(soft)
        assert np.array_equal(kept, same)
        assert np.isfinite(changed).all()
        # The slope of a rectifier is its gain.
        differs = np.abs(changed - gradient).max() > 1e-3 * np.abs(gradient).max()
        assert differs == ((name, rule) != ("opt", "gains"))


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_edges_follow_the_rules_where_they_are_read(name, values_of):
    model = values_of(name).model
    edges = mx.ComponentValues(model, TASK, "edges", "mean")
    heads = values_of(name)
    rules = BackwardRules(norms_frozen=True, pattern_frozen=True)
    whole = np.ones((1, edges.n_units), dtype=np.float32)
    gradient = edges.with_backward(rules).value_and_gradient(whole)[1][0].mean(0)
    all_kept = np.ones((1, heads.n_units), dtype=np.float32)
    of_heads = heads.with_backward(rules).value_and_gradient(all_kept)[1][0].mean(0)
    # A head is ablated by ablating all edges out of it, so their gradients add up to its own.
    for column, head in enumerate(heads.units.names):
        out = [i for i, edge in enumerate(edges.units.names) if edge.startswith(f"{head}→")]
        assert gradient[out].sum() == pytest.approx(of_heads[column], rel=1e-3, abs=1e-4)


class Attending(nn.Module):
    """One attention, query and key and value from the same stream."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4, dtype=torch.float64) for _ in "qkv")

    def forward(self, x):
        pattern = nn.functional.softmax(self.q(x) @ self.k(x).transpose(-1, -2), dim=-1)
        return torch.matmul(pattern, self.v(x))


class Gated(nn.Module):
    """An MLP with a gate and no biases."""

    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = (
            nn.Linear(4, 4, bias=False, dtype=torch.float64) for _ in range(3)
        )
        self.act = nn.SiLU()

    def forward(self, x):
        return self.down(self.act(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, inside):
        super().__init__()
        self.inside = inside

    def forward(self, x):
        return x + self.inside(x)


def gradient_of(module, x, rules, *, blocks=None, attentions=(), norms=()):
    """The gradient of the sum of what a module makes of x, by some rules."""
    blocks = [module] if blocks is None else blocks
    functions = [m for b in blocks for m in b.modules() if not [*m.children(), *m.parameters()]]
    places = Places("toy", True, tuple(blocks), tuple(attentions), tuple(norms), tuple(functions))
    backward = BackwardPass(rules, places)
    leaf = x.clone().requires_grad_()
    with backward.applied():
        value = module(leaf * 1).sum()
    return backward.gradient(value, leaf)


@pytest.fixture
def x():
    return torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def by_autograd(function, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def test_a_softmax_is_differentiated_at_its_temperature(x):
    module = Attending()
    where = {"attentions": [module], "blocks": []}
    plain = gradient_of(module, x, BackwardRules(values=0.5, queries=0.5), **where)
    q, k, v = module.q(x), module.k(x), module.v(x)
    p, cooler = (torch.softmax(q @ k.transpose(-1, -2) / t, -1).detach() for t in (1, 2))

    def by_hand(leaf, slope, shares=(1, 1, 1)):
        """Σ out with the softmax replaced by its linear part at another pattern."""
        of_q, of_k, of_v = shares
        scores = of_q * module.q(leaf) @ k.detach().transpose(-1, -2)
        scores = scores + of_k * q.detach() @ module.k(leaf).transpose(-1, -2)
        moved = slope * (scores - (slope * scores).sum(-1, keepdim=True))
        return moved @ v.detach() + of_v * p @ module.v(leaf)

    chain = by_autograd(module, x)
    assert torch.allclose(by_autograd(lambda leaf: by_hand(leaf, p), x), chain)
    halved = by_autograd(lambda leaf: by_hand(leaf, p, (0.5, 1, 0.5)), x)
    assert torch.allclose(plain, halved)
    cooled = gradient_of(module, x, BackwardRules(temperature=2.0), **where)
    assert torch.allclose(cooled, by_autograd(lambda leaf: by_hand(leaf, cooler), x))
    frozen = gradient_of(module, x, BackwardRules(pattern_frozen=True), **where)
    assert torch.allclose(frozen, by_autograd(lambda leaf: p @ module.v(leaf), x))


def test_what_saturation_hides_is_seen_at_a_temperature():
    """All attention rests on one position: a little less of it changes nothing."""

    class Saturated(nn.Module):
        def forward(self, x):
            scores = torch.stack([20 * x[..., 0], 0 * x[..., 0]], dim=-1)
            return torch.softmax(scores, dim=-1) @ torch.tensor([1.0, 0.0], dtype=x.dtype)

    module, x = Saturated(), torch.ones(1, 1, 1, dtype=torch.float64)
    where = {"attentions": [module], "blocks": []}
    exact = (module(x) - module(0 * x)).item()
    plain, cooled = (
        gradient_of(module, x, BackwardRules(temperature=t), **where).item() for t in (1.0, 10.0)
    )
    assert exact == pytest.approx(0.5)
    assert plain < 1e-6
    assert 0.5 < cooled < 5


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm, "by hand"])
def test_a_frozen_norm_divides_by_a_constant(kind, x):
    class HandNorm(nn.Module):
        def forward(self, x):
            return 3 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)

    norm = HandNorm() if kind == "by hand" else kind(4, eps=1e-5, dtype=torch.float64)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    centre = kind is nn.LayerNorm
    moved = x - x.mean(-1, keepdim=True) if centre else x
    root = (moved.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def with_a_constant(leaf):
        leaf = leaf - leaf.mean(-1, keepdim=True) if centre else leaf
        return leaf / root * (3 if kind == "by hand" else norm.weight)

    # Weighted, as the sum of what a norm centres is constant.
    weigh = torch.randn(4, dtype=torch.float64)

    class Weighed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return weigh * self.norm(x)

    found = gradient_of(Weighed(), x, BackwardRules(norms_frozen=True), blocks=[], norms=[norm])
    assert torch.allclose(found, by_autograd(lambda leaf: weigh * with_a_constant(leaf), x))
    assert not torch.allclose(found, by_autograd(lambda leaf: weigh * norm(leaf), x))


@pytest.mark.parametrize("act", [nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.ReLU()])
def test_relevance_of_a_gated_mlp_is_conserved(act, x):
    module = Gated()
    module.act = act
    relevance = x * gradient_of(module, x, BackwardRules(gains=True, products_halved=True))
    assert relevance.sum().item() == pytest.approx(module(x).sum().item())
    # Without half of it each, a product of two is counted twice.
    twice = x * gradient_of(module, x, BackwardRules(gains=True))
    assert twice.sum().item() == pytest.approx(2 * module(x).sum().item())


def test_dropped_blocks_are_those_left_out_one_by_one(x):
    parts = [nn.Linear(4, 4, dtype=torch.float64) for _ in range(3)]
    blocks = [Block(nn.Sequential(part, nn.Tanh())) for part in parts]
    found = gradient_of(nn.Sequential(*blocks), x, ATP_STAR, blocks=blocks)
    whole = by_autograd(nn.Sequential(*blocks), x)

    def without(dropped):
        """The gradient with one block's inside a constant."""

        def run(leaf):
            for number, block in enumerate(blocks):
                added = block.inside(leaf)
                leaf = leaf + (added.detach() if number == dropped else added)
            return leaf

        return by_autograd(run, x)

    size = sum(without(number).abs() for number in range(3)) / 2
    assert torch.allclose(found, whole.sign() * size)


def test_what_a_rule_does_not_find_is_refused_by_name(x):
    gated = Gated()
    with pytest.raises(ModelError, match="'norms_frozen' does not apply to toy: Gated divides by"):
        gradient_of(gated, x, BackwardRules(norms_frozen=True), blocks=[], norms=[gated])
    with pytest.raises(ModelError, match="'attention' does not apply to toy: Gated has no softmax"):
        gradient_of(gated, x, BackwardRules(temperature=2.0), blocks=[], attentions=[gated])
    linear = nn.Linear(4, 4, dtype=torch.float64)
    with pytest.raises(ModelError, match="'gains' does not apply to toy"):
        gradient_of(linear, x, BackwardRules(gains=True))
    with pytest.raises(Refused, match="temperature = 0"):
        BackwardRules(temperature=0.0)


def test_a_stream_that_is_no_sum_has_no_blocks_to_drop(values_of):
    values = values_of("opt norms after").with_backward(ATP_STAR)
    with pytest.raises(ModelError, match="'blocks_dropped' does not apply"):
        values.value_and_gradient(soft_masks(values.n_units))


def test_what_has_no_model_knows_no_rules():
    function = mx.FunctionValues(lambda masks: masks.sum(axis=1), mx.parts("abc"))
    assert function.with_backward(BackwardRules()) is function
    with pytest.raises(Refused, match="chain rule alone, not by temperature 2"):
        mx.screen(function, "gim")
