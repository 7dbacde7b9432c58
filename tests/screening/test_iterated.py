"""Gradients at circuits: brute force, an effect that a gate hides in the whole model, refusals."""

from itertools import combinations

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.errors import Refused
from mechspex.runs.recorded import RecordedValues

CHAIN = (("signed", 0.5), ("absolute", 0.3), ("signed", 0.5))


class Differentiable:
    """The values of a function of torch, with gradients by autograd; one output."""

    outputs: tuple[str, ...] = ("one",)

    def __init__(self, n_units, function):
        self.units = mx.parts(f"u{i}" for i in range(n_units))
        self.n_units, self.function = n_units, function
        self.points = []

    @property
    def configuration(self):
        return {"n_units": str(self.n_units)}

    def __call__(self, masks):
        return self.function(torch.tensor(masks, dtype=torch.float64)).numpy()[:, None]

    def value_and_gradient(self, masks):
        self.points.extend(masks.tolist())
        soft = torch.tensor(masks, dtype=torch.float64, requires_grad=True)
        values = self.function(soft)
        (gradients,) = torch.autograd.grad(values.sum(), soft)
        return values.detach().numpy()[:, None], gradients.numpy()[:, None]


class OfOutputs(Differentiable):
    """The same of a function with an output each row of `weights`."""

    def __init__(self, weights, function):
        super().__init__(weights.shape[1], function)
        self.outputs = tuple(f"output {j}" for j in range(len(weights)))

    def __call__(self, masks):
        return self.function(torch.tensor(masks, dtype=torch.float64)).numpy()

    def value_and_gradient(self, masks):
        self.points.extend(masks.tolist())
        soft = torch.tensor(masks, dtype=torch.float64)
        slopes = torch.autograd.functional.jacobian(lambda m: self.function(m).sum(dim=0), soft)
        return self(masks), slopes.numpy().transpose(1, 0, 2)


def guarded():
    """Unit 0 hides what units 1 to 4 do together, unit 5 works against them, the rest do little."""
    small = torch.linspace(0.01, 0.03, 14, dtype=torch.float64)

    def value(m):
        hidden = 2 * m[:, 1] * m[:, 2] + 1.5 * m[:, 3] * m[:, 4] - m[:, 5] * m[:, 1]
        return (1 - m[:, 0]) * hidden - 0.5 * m[:, 0] + m[:, 6:] @ small

    return Differentiable(20, value)


def singles(values, method):
    return mx.screen(values, method, n_terms=20).single_scores


def circuit_of(scores, size):
    """The mask of the units whose ablation is predicted to cost most."""
    kept = np.zeros((1, len(scores)), dtype=bool)
    kept[0, np.argsort(scores, kind="stable")[:size]] = True
    return kept


def test_scores_are_the_mean_of_gradients_at_circuits_of_the_scores_so_far():
    rng = np.random.default_rng(0)
    matrix = torch.tensor(rng.normal(size=(7, 12)))
    weights = torch.tensor(rng.normal(size=7))
    values = Differentiable(12, lambda m: torch.tanh(m @ matrix.T) @ weights)
    found = singles(values, mx.Iterated(circuits=CHAIN, start=0.6))

    def slopes(mask):  # of tanh, by hand
        gains = 1 - np.tanh(matrix.numpy() @ mask) ** 2
        return (weights.numpy() * gains) @ matrix.numpy()

    points = [np.full(12, np.float32(0.6), dtype=np.float64)]
    for ranking, share in CHAIN:
        mean = np.mean([slopes(point) for point in points], axis=0)
        key = mean if ranking == "signed" else np.abs(mean)
        # The set of that size with the greatest sum is the best of the ranking.
        sets = combinations(range(12), int(np.ceil(share * 12)))
        best = max(sets, key=lambda some: key[list(some)].sum())
        points.append(np.isin(np.arange(12), best).astype(float))
    assert np.allclose(values.points, points)
    assert np.allclose(found, -np.mean([slopes(point) for point in points], axis=0), atol=1e-5)


def test_what_a_gate_hides_in_the_whole_model_is_found_in_circuits():
    values = guarded()
    plain = singles(values, mx.FirstOrder(parts=0))
    # With the gate whole, the four units that do most have no gradient at all.
    assert np.abs(plain[1:6]).max() < 1e-6
    found = singles(values, mx.Iterated())
    assert set(np.argsort(found)[:4].tolist()) == {1, 2, 3, 4}
    assert found[0] > 0
    assert found[5] > 0
    # Their circuit carries all there is to carry; that of plain gradients, next to nothing.
    most = max(values(np.array([[i in kept for i in range(20)]]))[0, 0]
               for kept in combinations(range(20), 4))  # fmt: skip
    assert values(circuit_of(found, 4))[0, 0] == pytest.approx(most)
    assert values(circuit_of(plain, 4))[0, 0] < 0.1 * most


def test_scores_are_called_effects_in_circuits():
    text, plain = (str(mx.screen(guarded(), by)) for by in (mx.Iterated(), mx.FirstOrder(parts=0)))
    assert "order   effect in circuits" in text
    assert "mx.faithfulness_curve says" in text
    assert "mechspex validate decides" not in text
    assert "order   predicted (basis: ablated)" in plain


def test_a_unit_that_was_left_out_returns():
    """At half of everything unit 1 seems bad; where unit 0 is ablated it is the best there is."""

    def value(m):
        return m[:, 1] * (1 - 4 * m[:, 0]) - 2 * m[:, 0] + 0.3 * m[:, 2]

    values = Differentiable(4, value)
    first = singles(values, mx.Iterated(circuits=(), start=0.5))
    values.points.clear()
    then = singles(values, mx.Iterated(circuits=(("signed", 0.5),) * 4, start=0.5))
    assert first[1] > 0
    assert then[1] < then[2] < 0
    # What was measured is not measured again.
    assert [point[1] for point in values.points] == [0.5, 0, 1]


def test_additive_effects_are_exact_and_gradients_are_counted_and_kept(tmp_path):
    effects = torch.linspace(-2, 1.5, 20, dtype=torch.float64)
    values = Differentiable(20, lambda m: m @ effects)
    found = mx.screen(values, "iterated", n_terms=20, run=tmp_path / "run")
    assert found.method == "iterated"
    assert np.allclose(found.single_scores, -effects.numpy(), atol=1e-6)
    assert len(values.points) == 5
    again = mx.screen(values, mx.Iterated(), n_terms=20, run=tmp_path / "run")
    assert np.array_equal(again.single_scores, found.single_scores)
    assert len(values.points) == 5


def test_by_output_a_score_is_the_root_mean_square_of_the_effects_on_each_output():
    rng = np.random.default_rng(1)
    weights = torch.tensor(rng.normal(size=(3, 10)))
    values = OfOutputs(weights, lambda m: torch.tanh(m @ weights.T))
    found = singles(values, mx.Iterated(circuits=CHAIN, start=0.6, by_output=True))
    points = np.array(values.points)
    # Of tanh, by hand: [point, output, unit].
    gains = 1 - np.tanh(points @ weights.numpy().T) ** 2
    effects = -(gains[:, :, None] * weights.numpy()).mean(axis=0)
    assert np.allclose(np.abs(found), np.sqrt((effects**2).mean(axis=0)), atol=1e-6)
    assert np.array_equal(np.sign(found), np.sign(effects.mean(axis=0)))
    # The circuits are those by the mean, and as many gradients are taken.
    values.points.clear()
    by_mean = singles(values, mx.Iterated(circuits=CHAIN, start=0.6))
    assert np.array_equal(np.array(values.points), points)
    assert np.allclose(by_mean, effects.mean(axis=0), atol=1e-6)
    # On one output there is nothing to tell apart.
    alone = guarded()
    both = [singles(alone, mx.Iterated(by_output=which)) for which in (True, False)]
    assert np.allclose(*both, atol=1e-6)


def test_by_output_circuits_keep_what_works_for_one_output_and_against_another():
    """Units 0 and 1 carry the behaviour; 2 and 3 shift it between outputs, and are 0 on average."""
    weights = torch.zeros((4, 12), dtype=torch.float64)
    weights[:, 0], weights[:, 1] = 4, 3
    weights[:, 2] = torch.tensor([2.0, -2.0, 2.0, -2.0])
    weights[:, 3] = torch.tensor([1.5, 1.5, -1.5, -1.5])
    weights[:, 4:] = 0.2
    values = OfOutputs(weights, lambda m: m @ weights.T)

    def away(method):
        largest = np.argsort(-np.abs(singles(values, method)), kind="stable")[:4]
        kept = np.isin(np.arange(12), largest)[None]
        return set(largest.tolist()), np.abs(values(np.ones((1, 12))) - values(kept)).max()

    by_output, nearest = away(mx.Iterated(by_output=True))
    by_mean, further = away(mx.Iterated())
    every = combinations(range(12), 4)
    whole = weights.sum(dim=1)
    least = min(float((whole - weights[:, list(some)].sum(dim=1)).abs().max()) for some in every)
    assert by_output == {0, 1, 2, 3}
    assert nearest == pytest.approx(least) == pytest.approx(1.6)
    assert not {2, 3} & by_mean
    assert further > 4


def test_edges_of_a_model_by_the_gradients_of_its_values():
    model = mx.load_model("tiny")
    task = mx.load_task("induction", model, n_prompts=4)
    edges = mx.ComponentValues(model, task, mx.edges(model), "corrupted")
    found = singles(edges, mx.Iterated(circuits=(("absolute", 0.2), ("signed", 0.1))))
    recorded, n_edges = RecordedValues(edges, None), edges.n_units
    points = [np.full((1, n_edges), 0.8, dtype=np.float32)]
    for ranking, size in (("absolute", 17), ("signed", 9)):
        mean = np.mean([recorded.value_and_mean_gradient(p)[1][0] for p in points], axis=0)
        key = np.abs(mean) if ranking == "absolute" else mean
        points.append((key >= np.sort(key)[-size])[None].astype(np.float32))
    expected = -np.mean([recorded.value_and_mean_gradient(p)[1][0] for p in points], axis=0)
    assert n_edges == 81
    assert np.allclose(found, expected, atol=1e-5)
    # The way by which the answer comes in is among the first.
    names = [edges.units.names[i] for i in np.argsort(found)[:6]]
    assert "L1H3→output" in names


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"start": 0.0}, "start = 0"),
        ({"start": float("nan")}, "start = nan"),
        ({"circuits": (("signed", 1.5),)}, r"circuits = \('signed', 1.5\): give .*share"),
        ({"circuits": (("signed", 0.5), ("absolute", 0.0))}, r"circuits = \('absolute', 0.0\)"),
        ({"circuits": (("best", 0.5),)}, r"circuits = \('best', 0.5\): give absolute or signed"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(Refused, match=told):
        mx.Iterated(**options)
