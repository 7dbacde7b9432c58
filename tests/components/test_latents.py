"""Values of latents, against the raw model with each latent encoded and decoded by itself."""

import numpy as np
import pytest
import torch
from architectures import (
    ANSWERS,
    CORRUPTED,
    DISTRACTORS,
    PROMPTS,
    TASK,
    load_saved,
    rounding,
)
from latent_oracle import LatentOracle, plain_activations, random_dictionary

import mechspex as mx
from mechspex.core.units import UnitSet
from mechspex.errors import AblationError, DictionaryError, Refused, UnknownUnitError

POST, PRE = "blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"
MLP, ATTENTION = "blocks.0.hook_mlp_out", "blocks.1.hook_attn_out"
TRANSCODER = ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
REFERENCES = ["zero", "mean", "corrupted", "resample"]
CASES = [("llama", (POST,), "topk", ablation) for ablation in REFERENCES]
CASES += [("gpt2", TRANSCODER, "jumprelu", ablation) for ablation in REFERENCES[1:]]
CASES += [
    ("gpt2", (PRE,), "gated", "mean"),
    ("gemma2 short window", TRANSCODER, "topk", "mean"),
    ("gptj", (MLP,), "relu", "corrupted"),
    ("gptj", ("blocks.1.hook_resid_post",), "jumprelu", "zero"),
    ("llama", (ATTENTION,), "gated", "mean"),
]


def some_masks(n_units, n_each=1):
    """All, none, random ones of three densities, and a single unit ablated."""
    rng = np.random.default_rng(0)
    dense = rng.random((3 * n_each, n_units)) < np.array([[0.9], [0.5], [0.1]] * n_each)
    last = np.arange(n_units) != n_units - 1
    ends = np.ones((1, n_units), bool), np.zeros((1, n_units), bool)
    return np.concatenate([*ends, dense, last[None]])


@pytest.mark.parametrize(("name", "hooks", "rule", "ablation"), CASES)
def test_values_are_those_of_the_raw_model(name, hooks, rule, ablation, build):
    folder, model = build(name)
    skip = torch.eye(32) / 4 if "gemma2" in name else None
    dictionary = random_dictionary(*hooks, rule=rule, centred=rule == "topk" and len(hooks) == 1)
    dictionary = dictionary if skip is None else random_dictionary(*hooks, rule=rule, skip=skip)
    units = mx.latents(model, dictionary, [0, 3, 5, 6, 11, 17, 21])
    units = units + mx.latents(model, dictionary, [4], positions=[-1, 2], error=False)
    units = mx.heads(model, layers=[0]) + units if name == "llama" else units
    masks = some_masks(len(units))
    values = mx.ComponentValues(model, TASK, units, ablation)
    assert values.through_bridge is None
    oracle = LatentOracle(folder, TASK, units.units, dictionary)
    ways = [[1, 2, 0], [2, 0, 1]] if ablation == "resample" else [None]
    expected = [oracle.values(masks, ablation, others) for others in ways]
    off = [np.abs(values(masks) - one).max() for one in expected]
    assert min(off) < rounding(expected[0])
    assert np.ptp(expected[int(np.argmin(off))], axis=0).min() > 100 * rounding(expected[0])


@pytest.mark.parametrize("rule", ["topk", "gated"])
def test_everything_kept_is_the_model_to_the_bit(rule, build):
    _, model = build("llama")
    dictionary = random_dictionary(POST, rule=rule)
    units = mx.latents(model, dictionary)
    assert len(units) == dictionary.n_latents + 1
    untouched = mx.ComponentValues(model, TASK, "heads")(np.ones((1, 8), dtype=bool))
    values = mx.ComponentValues(model, TASK, units)
    assert np.array_equal(values(np.ones((1, len(units)), dtype=bool)), untouched)
    # In a batch, beside rows of which the error and all else is ablated.
    ablation = values._proved.exact.groups[0].plain.ablation
    masks = torch.from_numpy(some_masks(len(units)))
    stream = 30 * torch.randn(len(masks), len(PROMPTS), 7, 32)
    ((_, edit),) = ablation.edits(masks[:, None], slice(None)).items()
    edited = edit(stream.flatten(0, 1)).view(stream.shape)
    assert torch.equal(edited[0], stream[0])
    assert (edited[1:] - stream[1:]).abs().amax((1, 2, 3)).min() > 1e-3


def test_a_mask_has_one_value_alone_and_in_any_batch(build):
    _, model = build("gpt2")
    values = mx.ComponentValues(model, TASK, mx.latents(model, random_dictionary(*TRANSCODER)))
    masks = some_masks(values.n_units)
    alone = np.concatenate([values(mask[None]) for mask in masks])
    assert np.abs(values(masks) - alone).max() < rounding(alone)


def test_all_latents_and_the_error_are_the_whole(build):
    """Under every reference that is linear; zeros leave the decoder's bias, which is no unit."""
    _, model = build("gptj")
    none = {n: np.zeros((1, n), dtype=bool) for n in (1, 25)}
    whole, unbiased = mx.mlps(model, layers=[0]), random_dictionary(MLP, rule="topk")
    unbiased.b_dec.zero_()
    for ablation in ("mean", "corrupted", "resample", "zero"):
        dictionary = unbiased if ablation == "zero" else random_dictionary(MLP, rule="jumprelu")
        parts = mx.latents(model, dictionary)
        expected = mx.ComponentValues(model, TASK, whole, ablation)(none[1])
        found = mx.ComponentValues(model, TASK, parts, ablation)(none[25])
        assert np.abs(found - expected).max() < rounding(expected)


def test_a_transcoder_reads_what_an_autoencoder_has_left_whichever_is_named_first(build):
    _, model = build("gpt2")
    transcoder = random_dictionary("blocks.1.hook_mlp_in", "blocks.1.hook_mlp_out", rule="relu")
    autoencoder = random_dictionary("blocks.1.hook_resid_mid", rule="relu")
    read = mx.latents(model, autoencoder, [2, 5, 7])
    written = mx.latents(model, transcoder, [0, 1, 3])
    masks = some_masks(len(read) + len(written))
    turned = np.roll(masks, len(written), axis=1)
    first = mx.ComponentValues(model, TASK, read + written, "zero")(masks)
    last = mx.ComponentValues(model, TASK, written + read, "zero")(turned)
    np.testing.assert_allclose(first, last, atol=rounding(first))


def test_gradients_are_those_of_finite_differences(build):
    """In double precision, at soft masks, of latents, the error, and heads before them."""
    folder, _ = build("llama")
    model = load_saved(folder, dtype=torch.float64)
    for hooks, rule in (((POST,), "topk"), (TRANSCODER, "jumprelu")):
        units = mx.latents(model, random_dictionary(*hooks, rule=rule), [0, 3, 5, 6])
        units = units + mx.heads(model, layers=[0])
        values = mx.ComponentValues(model, TASK, units)
        mask = np.random.default_rng(1).uniform(0.3, 0.9, len(units)).astype(np.float32)
        step = np.float32(2**-9)
        masks = np.concatenate([mask + step * sign * np.eye(len(units)) for sign in (1, -1)])
        up, down = np.split(values.value_and_gradient(masks)[0], 2)
        slopes, gradient = (up - down) / (2 * step), values.value_and_gradient(mask[None])[1][0].T
        assert np.abs(slopes - gradient).max() < 3e-3 * np.abs(gradient).max()
        assert (np.abs(gradient).max(1) > 0).sum() >= len(units) - 2


def test_latents_are_chosen_by_what_prompts_make_of_them(build):
    folder, model = build("llama")
    dictionary = random_dictionary(POST)
    active = mx.latents(model, dictionary, task=TASK, n_latents=5)
    oracle = LatentOracle(folder, TASK, (), dictionary)
    seen = torch.stack([oracle.run(p)[1]["latent"][1:] for p in oracle.prompts]).flatten(0, 1)
    sizes = seen.mean(0) * dictionary.w_dec.norm(dim=1)
    assert {u.number for u in active if u.kind == "latent"} == set(sizes.argsort()[-5:].tolist())
    assert active.names[-1] == "L0.error"
    every = mx.latents(model, dictionary, error=False)
    values = mx.ComponentValues(model, TASK, every, "zero")
    gradient = np.abs(values.value_and_gradient(np.ones((1, 24)))[1][0]).mean(0)
    by_gradient = mx.latents(model, dictionary, task=TASK, n_latents=5, by="attribution")
    chosen = {unit.number for unit in by_gradient if unit.kind == "latent"}
    assert chosen == set(np.argsort(gradient)[-5:].tolist())
    # The words at which they fire are where the oracle says.
    words = mx.active_words(model, active, PROMPTS, n_words=1).set_index("unit")
    for unit in active[:-1]:
        found = [oracle.run(p)[1]["latent"][1:, unit.number].max() for p in oracle.prompts]
        assert words["activation"][unit.name] == pytest.approx(float(max(found)), rel=1e-4)


def test_units_know_their_dictionary_in_parts_and_sums(build):
    _, model = build("llama")
    latents = mx.latents(model, random_dictionary(POST), [7, 2])
    assert latents.names == ("L0.latent7", "L0.latent2", "L0.error")
    assert latents.description == "2 latents + 1 error terms"
    mixed = mx.heads(model) + latents[:2] + mx.latents(model, random_dictionary(*TRANSCODER), [1])
    assert mixed.names[-4:] == ("L0.latent7", "L0.latent2", "L1MLP.latent1", "L1MLP.error")
    assert mixed == UnitSet.from_list(mixed.to_list())
    assert hash(mixed) == hash(UnitSet(mixed.units))
    values = mx.ComponentValues(model, TASK, mixed[["L1H1", "L0.latent2", "L1MLP.error"]])
    assert values.on(TASK).units == values.units
    with pytest.raises(Refused, match="L0 was made of tensors"):
        _ = values.recipe
    both = values.configuration
    other = mx.latents(model, random_dictionary(POST, seed=1), [2])
    assert mx.ComponentValues(model, TASK, other).configuration != both
    assert "latents" in both["units"]


def test_another_process_reads_the_dictionary_from_its_folder(build, tmp_path):
    _, model = build("llama")
    random_dictionary(*TRANSCODER).save(tmp_path)
    dictionary = mx.load_dictionary(tmp_path)
    units = mx.heads(model) + mx.latents(model, dictionary, [1, 9])
    values = mx.ComponentValues(model, TASK, units)
    made = values.recipe.make()
    masks = some_masks(values.n_units)
    assert made.configuration == values.configuration
    assert np.array_equal(made(masks), values(masks))


def test_latents_at_a_span_are_those_at_its_tokens(build):
    _, model = build("gpt2")
    pair = {"pair": (len("apple "), len("apple bird boat"))}
    one = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1], CORRUPTED[:1], spans=[pair])
    dictionary = random_dictionary(PRE)
    named = mx.latents(model, dictionary, [1, 9], spans="pair")
    assert named.names == ("L1pre.latent1@pair", "L1pre.latent9@pair", "L1pre.error@pair")
    placed = mx.latents(model, dictionary, [1, 9], positions=[2, 3])
    masks = some_masks(3)
    found = mx.ComponentValues(model, one, named, "corrupted")(masks)
    expected = mx.ComponentValues(model, one, placed, "corrupted")(np.repeat(masks, 2, axis=1))
    assert np.abs(found - expected).max() < rounding(expected)
    assert np.ptp(found) > 1e-2


def test_what_cannot_be_ablated_is_refused(build):
    _, model = build("llama")
    dictionary = random_dictionary(MLP)
    latents = mx.latents(model, dictionary, [1])
    with pytest.raises(AblationError, match="'L0MLP.latent1' came without its dictionary"):
        mx.ComponentValues(model, TASK, UnitSet(latents.units))
    with pytest.raises(AblationError, match="the mlp of layer 0 is a unit beside latents"):
        mx.ComponentValues(model, TASK, mx.mlps(model) + latents)
    with pytest.raises(AblationError, match="cannot be ablated beside edges"):
        mx.ComponentValues(model, TASK, mx.edges(model) + latents)
    placed = mx.latents(model, dictionary, [1], positions=-1)
    with pytest.raises(AblationError, match="units at one position are of the task's prompts"):
        mx.ComponentValues(model, TASK, placed, "zero").masked_model(["L0MLP.error@-1"])
    with pytest.raises(DictionaryError, match="L0MLP has two dictionaries"):
        _ = latents + mx.latents(model, random_dictionary(MLP, seed=1), [2])
    with pytest.raises(UnknownUnitError, match="no latent 24 at .* 0 … 23"):
        mx.latents(model, dictionary, [24])
    with pytest.raises(UnknownUnitError, match="no position 9 in a prompt of 7 tokens"):
        mx.ComponentValues(model, TASK, mx.latents(model, dictionary, [1], positions=9))
    with pytest.raises(DictionaryError, match="lies at blocks.5.* layers 0 … 1"):
        mx.latents(model, random_dictionary("blocks.5.hook_resid_post"))
    with pytest.raises(DictionaryError, match="is 8 numbers wide, .* 32"):
        mx.latents(model, random_dictionary(MLP, d=8))
    with pytest.raises(Refused, match="not both"):
        mx.latents(model, dictionary, [1], task=TASK)
    silent = random_dictionary(MLP)
    silent.b_enc.fill_(-1e6)
    with pytest.raises(AblationError, match="no latent at blocks.0.hook_mlp_out is active"):
        mx.latents(model, silent, task=TASK)
    assert not any(plain_activations(silent, torch.ones(32)))
