"""Models with known circuits: what they compute, and the truth about them, by other means."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from value_function_laws import check_laws

import mechspex as mx
from mechspex import truth as truth_package
from mechspex.core.masks import all_masks, sample_masks
from mechspex.decoders import decode
from mechspex.errors import Refused
from mechspex.truth import KNOWN_MODELS, known_model, truth
from mechspex.truth.brute_force import ROUNDING, coefficients, exact_terms, term_of
from mechspex.truth.gates import GATES, Gate, build_gates, random_gates
from mechspex.truth.letter_models import draw_sequences
from mechspex.truth.programs import PROGRAMS, _unpack

FOLDER = Path(truth_package.__file__).parent


@pytest.fixture(scope="module")
def load():
    """Known models, each loaded once."""
    loaded = {}
    return lambda name: loaded.setdefault(name, known_model(name))


# ── Compiled programs ─────────────────────────────────────────────────────────────────────────────


def balanced(sequence):
    """Whether brackets balance."""
    depths = np.cumsum([1 if word == "(" else -1 for word in sequence])
    return depths[-1] == 0 and (depths >= 0).all()


# What each program writes at the last place, said again in Python.
ANSWERS = {
    "reverse": lambda s: s[0],
    "hist": lambda s: str(s.count(s[-1])),
    "sort_unique": lambda s: max(s),
    "xproportion": lambda s: s.count("x") / len(s),
    "pair_balance": lambda s: (s.count("(") - s.count(")")) / len(s),
    "dyck1": lambda s: str(bool(balanced(s))),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_compiled_program_answers_right_on_every_example(load, name):
    known = load(name)
    described = json.loads((FOLDER / "programs" / f"{name}.json").read_text())
    assert len(described["examples"]) >= 8
    for sequence, answer in described["examples"].items():
        assert ANSWERS[name](sequence.split()) == answer
    clean = np.ones((1, len(known.units)), dtype=bool)
    values = known.values()(clean)[0]
    if name in ("xproportion", "pair_balance"):
        assert np.allclose(values, list(described["examples"].values()), atol=1e-3)
    else:
        assert np.allclose(values, 1, atol=1e-3), "the right word by a margin of one logit"
    assert known.values(matches=True)(clean).all()


class PlainForward:
    """Values of masks by the stored weights and plain torch: no bridge, no hook, one mask a time.

    Heads and MLPs are multiplied by 0 or 1, or their outputs replaced by those of another prompt
    or by the mean over prompts.
    """

    def __init__(self, name):
        from safetensors.torch import load_file

        described = json.loads((FOLDER / "programs" / f"{name}.json").read_text())
        self.config = described["config"]
        stored = load_file(FOLDER / "programs" / f"{name}.safetensors")
        self.weights = _unpack(stored, described["shapes"])
        words = described["vocabulary"]
        self.examples = described["examples"]
        self.tokens = torch.tensor(
            [[words.index(word) for word in ("<bos>", *s.split())] for s in self.examples]
        )
        self.numerical = "=" in words
        answers = ["="] * len(self.examples) if self.numerical else self.examples.values()
        self.answers = torch.tensor([words.index(answer) for answer in answers])

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def run(self, kept=None, references=None):
        """Last logits, and what every head and MLP wrote before it was replaced."""
        c, w, wrote = self.config, self.weights, {}

        def replaced(unit, activation):
            wrote[unit] = activation
            return activation if kept is None or kept.get(unit, True) else references[unit]

        x = w["embed.weight"][self.tokens] + w["pos_embed.weight"][: self.tokens.shape[1]]
        for layer in range(c["n_layers"]):
            q, k, v = (
                self.linear(f"blocks.{layer}.attn.{part}", x).unflatten(-1, (c["n_heads"], -1))
                for part in "qkv"
            )
            scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / c["d_head"] ** 0.5
            z = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
            heads = [replaced(f"L{layer}H{head}", z[:, :, head]) for head in range(c["n_heads"])]
            x = x + self.linear(f"blocks.{layer}.attn.o", torch.stack(heads, 2).flatten(2))
            hidden = self.linear(f"blocks.{layer}.mlp.in", x).relu()
            x = x + replaced(f"L{layer}MLP", self.linear(f"blocks.{layer}.mlp.out", hidden))
        return self.linear("unembed", x[:, -1]), wrote

    def values(self, masks, units, ablation, others=None):
        _, clean = self.run()
        if ablation == "zero":
            references = {unit: torch.zeros_like(a) for unit, a in clean.items()}
        elif ablation == "mean":
            references = {unit: a.mean(0, keepdim=True).expand_as(a) for unit, a in clean.items()}
        else:
            references = {unit: a[others] for unit, a in clean.items()}
        rows = []
        for mask in masks:
            logits = self.run(dict(zip(units.names, mask, strict=True)), references)[0]
            answer = logits.gather(1, self.answers[:, None])[:, 0]
            if not self.numerical:
                logits[torch.arange(len(logits)), self.answers] = -torch.inf
                answer = answer - logits.max(1).values
            rows.append(answer)
        return torch.stack(rows).numpy()


@pytest.mark.parametrize("ablation", ["zero", "resample", "mean"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_are_those_of_a_plain_forward_of_the_stored_weights(load, name, ablation):
    values = load(name).values(ablation, seed=3)
    n = values.n_units
    masks = all_masks(n) if n <= 6 else sample_masks(n, 40, keep=0.7, seed=1)
    cycle = np.random.default_rng(3).permutation(len(values.outputs))
    others = np.empty(len(cycle), dtype=int)
    others[cycle] = np.roll(cycle, 1)
    plain = PlainForward(name).values(masks, values.units, ablation, others)
    assert np.abs(values(masks) - plain).max() < 1e-3


def test_known_models_keep_the_laws_of_value_functions(load):
    for name in ("hist", "and2", "backup"):
        values = load(name).values("mean")
        untouched = values(np.ones((1, values.n_units), dtype=bool))[0]
        check_laws(values, untouched)


def terms_of(known, ablation, basis=None):
    """{set of unit names} of the truth."""
    found = truth(known.values(ablation), basis)
    return {tuple(known.units.names[i] for i in term) for term in found.terms if term}


def test_the_truth_of_reverse_differs_by_ablation(load):
    """Under zero the MLPs that find the opposite place are needed too; another prompt of the same
    length has the same places, so under resample only what is copied differs."""
    known = load("reverse")
    four = ("L3H0", "L0MLP", "L1MLP", "L2MLP")
    assert truth(known.values("zero")).basis == "kept"
    assert terms_of(known, "zero", "kept") == {four}
    assert len(terms_of(known, "zero", "ablated")) == 2**4 - 1
    assert terms_of(known, "resample") == {("L3H0",)}


def test_parts_that_the_compiler_padded_with_zeros_are_in_no_term(load):
    known = load("reverse")
    weights = known.model.state_dict()
    idle = {
        unit.name
        for unit in known.units
        if unit.kind == "head" and not weights[f"blocks.{unit.layer}.attn.o.weight"].any()
    }
    assert idle == {"L1H0", "L2H0"}
    for ablation in ("zero", "resample", "mean"):
        assert not idle & {name for term in terms_of(known, ablation) for name in term}


def test_counting_matches_hides_what_a_margin_shows(load):
    """14 of the 16 sequences of dyck1 do not balance: a model that always says False is right on
    those. Under mean ablation of everything that is what is left of it."""
    known = load("dyck1")
    answers = [answer.strip() for answer in known.task.answers]
    assert answers.count("False") == 14
    nothing_kept = np.zeros((1, len(known.units)), dtype=bool)
    assert known.values("mean", matches=True)(nothing_kept).mean() == 14 / 16
    assert known.values("mean")(nothing_kept).mean() < 0.6
    # With no output written at all there is no answer, and a tie is not right.
    assert known.values("zero", matches=True)(nothing_kept).mean() == 0


# ── Gates ─────────────────────────────────────────────────────────────────────────────────────────


def by_definition(gates, masks, ablation):
    """Values of gates from the bits that the heads carry, on the prompts of ones and of zeros."""
    own = np.array([1.0, 0.0])
    other = {"zero": 0 * own, "resample": own[::-1], "mean": 0 * own + 0.5}[ablation]
    bits = np.where(masks[:, None], own[:, None], other[:, None])
    return sum(gate(bits) for gate in gates)


@pytest.mark.parametrize("ablation", ["zero", "resample", "mean"])
@pytest.mark.parametrize("name", GATES)
def test_gates_compute_their_definition_on_every_mask(load, name, ablation):
    _, n_heads, gates = GATES[name]
    masks = all_masks(n_heads)
    values = load(name).values(ablation)(masks)
    assert np.abs(values - by_definition(gates, masks, ablation)).max() < 1e-5


CLOSED_FORMS = [
    (Gate("and", (0, 2, 3)), "kept", {(0, 2, 3): 1.0}),
    (Gate("or", (1, 2), 2.0), "ablated", {(): 2.0, (1, 2): -2.0}),
    (Gate("or", (0, 1, 3)), "ablated", {(): 1.0, (0, 1, 3): -1.0}),
    (Gate("adder", (0, 3), -1.5), "kept", {(0,): -1.5, (3,): -1.5}),
]


@pytest.mark.parametrize(("gate", "basis", "terms"), CLOSED_FORMS)
def test_the_truth_of_a_gate_is_its_closed_form(gate, basis, terms):
    """On the prompt of ones under zero; on that of zeros under resample, of the heads ablated."""
    known = build_gates("gate", "", [gate], 4)
    zero = truth(known.values("zero"), basis).output(0).to_mapping()
    assert {t: c for t, c in zero.items() if abs(c) > 1e-5} == pytest.approx(terms)
    flipped = "ablated" if basis == "kept" else "kept"
    resampled = truth(known.values("resample"), flipped).output(1).to_mapping()
    assert {t: c for t, c in resampled.items() if abs(c) > 1e-5} == pytest.approx(terms)


def test_random_gates_come_of_their_seed_alone():
    assert random_gates(9, 5, seed=4) == random_gates(9, 5, seed=4)
    assert random_gates(9, 5, seed=4) != random_gates(9, 5, seed=5)


# ── The trained model and the control ─────────────────────────────────────────────────────────────


def test_backup_heads_stand_in_for_each_other(load):
    """Either head of a pair is enough, both ablated the answers are lost."""
    known = load("backup")
    right = known.values("zero", matches=True)

    def share(*names):
        mask = np.ones((1, 8), dtype=bool)
        mask[0, list(known.units.columns(names))] = False
        return right(mask).mean()

    assert [share(name) for name in known.units.names] == [1.0] * 8
    for pair in (("L0H0", "L0H3"), ("L1H2", "L1H3")):
        assert share(*pair) <= 0.25
    assert share("L0H0", "L1H2") >= 0.75
    # Idle heads, all of them at once.
    assert share("L0H1", "L0H2", "L1H0", "L1H1") == 1


def test_backup_heads_attend_as_is_said(load):
    """Two heads of layer 0 to the letter before, two of layer 1 to what followed last time."""
    tokens = draw_sequences(200, torch.Generator().manual_seed(7))
    _, cache = load("backup").model.run_with_cache(tokens)
    first, second = (cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(2))
    to_previous = first.diagonal(offset=-1, dim1=2, dim2=3).mean((0, 2))
    assert (to_previous > 0.7).tolist() == [True, False, False, True]
    followed = (tokens[:, :-5] == tokens[:, -2:-1]).int().argmax(1) + 1
    to_followed = second[torch.arange(200), :, -2, followed].mean(0)
    assert (to_followed > 0.7).tolist() == [False, False, True, True]


def test_backups_show_as_pairs_whose_joint_effect_exceeds_the_sum(load):
    known = load("backup")
    effects = truth(known.values("zero"), "ablated")
    clean = effects[()]
    for pair in (("L0H0", "L0H3"), ("L1H2", "L1H3")):
        assert effects[known.units.columns(pair)] < -0.1 * clean
    assert {i for term in effects.terms for i in term} == set(
        known.units.columns(["L0H0", "L0H3", "L1H2", "L1H3"])
    )


@pytest.mark.parametrize("ablation", ["zero", "resample", "mean"])
def test_the_control_has_no_interaction(load, ablation):
    found = truth(load("additive").values(ablation))
    assert found.max_order == 1
    assert len(found) == 1 + 8


# ── Brute force ───────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_coefficients_reproduce_the_table_and_agree_with_the_exhaustive_decoder(seed, n):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(2**n, 2))
    masks = all_masks(n)
    for basis in ("kept", "ablated", "fourier"):
        found = coefficients(table, basis)
        function = mx.SetFunction.from_mapping(
            n, {term_of(row): found[row] for row in range(2**n)}, basis=basis
        )
        assert np.allclose(function.predict_outputs(masks), table)
        if n > 1:
            other = decode(masks, table, decoder="exhaustive", keep=0.5).to_basis(basis)
            row_of = {term_of(row): row for row in range(2**n)}
            rows = [row_of[term] for term in other.terms]
            assert np.allclose(other.output_coefficients, found[rows])


def test_planted_terms_come_back_in_the_basis_that_is_shortest():
    masks = all_masks(6)
    for basis in ("kept", "ablated", "fourier"):
        planted = mx.SetFunction.from_mapping(6, {(): 1.0, (0, 2, 5): 2.0, (1,): -0.5}, basis=basis)
        found = exact_terms(planted.predict_outputs(masks))
        assert found.basis == basis
        assert found.to_mapping() == pytest.approx(planted.to_mapping())


def test_a_constant_has_no_terms_but_itself():
    assert exact_terms(np.full((8, 1), 3.0)).to_mapping() == {(): 3.0}


@pytest.mark.parametrize("name", ["reverse", "pair_balance", "gates12", "backup"])
def test_terms_stand_clear_of_rounding(load, name):
    """Nothing lies near the threshold: the smallest term is ten times the largest non-term."""
    values = load(name).values("zero")
    table = values(all_masks(values.n_units))
    sizes = np.abs(coefficients(table, exact_terms(table).basis)[1:]).max(axis=1)
    sizes = np.sort(sizes / np.ptp(table, axis=0).max())
    gaps = [(low, high) for low, high in pairwise(sizes) if low <= ROUNDING < high]
    assert all(10 * low < high for low, high in gaps)
    assert len(gaps) == 1


def test_names_and_sizes_that_make_no_sense_are_refused(load):
    with pytest.raises(Refused, match=r"no known model 'nand'; choose reverse"):
        known_model("nand")
    with pytest.raises(Refused, match="no right answers"):
        load("and2").values(matches=True)
    many = mx.FunctionValues(lambda masks: masks.sum(axis=1), mx.parts(range(17)))
    with pytest.raises(Refused, match="17 units"):
        truth(many)


def test_every_known_model_loads_and_is_small(load):
    for name, what in KNOWN_MODELS.items():
        known = load(name)
        assert (known.name, known.what) == (name, what)
        assert len(known.units) <= 12
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.suffix != ".py"]
    assert max(size for size in sizes) < 50_000
