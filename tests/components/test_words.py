"""Words of a prompt as units, against the raw Hugging Face model: masks and embeddings by hand."""

import functools
import re

import numpy as np
import pytest
import torch
from architectures import ANSWERS, CORRUPTED, DISTRACTORS, PROMPTS, rounding, save_architecture
from small_models import device_of
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from value_function_laws import check_gradient_laws, check_laws

import mechspex as mx
from mechspex.core.masks import all_masks, sample_masks
from mechspex.core.units import Unit, UnitSet
from mechspex.errors import AblationError, ModelError, TaskError
from mechspex.tasks.spans import tokens_within

# {name in ARCHITECTURES: the width of the window of each layer, None where there is none}
WINDOWS = {
    "gpt2": None,
    "gpt_neox parallel": None,
    "gptj": None,
    "llama": None,
    "mistral": [3, 3],
    "gemma2 short window": [3, None],
    "gemma3": [3, None],
    "granite": None,
    "olmo2": None,
    "phi": None,
    "qwen3": None,
    "starcoder2": [3, 3],
}
NAMES = [f"W{place}" for place in range(6)]


def pieces_of(text):
    return [found.span() for found in re.finditer(r"\S+", text)]


def spans_of(prompts):
    return [dict(zip(NAMES, pieces_of(text), strict=True)) for text in prompts]


def words_of(text, kind="word"):
    """Units of one text, as `mx.words` makes them."""
    units = [
        Unit(kind, 0, n, None, text[a:b] + f" ({n})" * (text.find(text[a:b]) < a), (a, b))
        for n, (a, b) in enumerate(pieces_of(text))
    ]
    return UnitSet(tuple(units))


TASK = mx.Task(
    PROMPTS, ANSWERS, DISTRACTORS, CORRUPTED,
    spans=spans_of(PROMPTS), corrupted_spans=spans_of(CORRUPTED),
)  # fmt: skip


@pytest.fixture(scope="module")
def build(tmp_path_factory, device):
    """A function from an architecture's name to its folder and its bridge, each made once."""

    @functools.cache
    def build(name):
        folder = save_architecture(name, tmp_path_factory.mktemp("model"))
        return folder, mx.load_model(folder, device=device)

    return build


@torch.no_grad()
def by_hand(name, folder, model, masks, ablation):
    """Values ``[mask, prompt]``: embeddings replaced, or attention masked, one row at a time."""
    raw = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    tokenizer = model.tokenizer
    rows = [tokenizer(text).input_ids for text in PROMPTS]
    embed = raw.get_input_embeddings()
    every = torch.tensor([token for row in rows for token in row[1:]])
    reference = {"zero": 0.0, "mean": embed(every).mean(0), "hidden": None}[ablation]
    values = np.empty((len(masks), len(rows)), dtype=np.float32)
    for j, row in enumerate(rows):
        answers = [tokenizer(text[j]).input_ids[-1] for text in (ANSWERS, DISTRACTORS)]
        for m, mask in enumerate(masks):
            embeddings = embed(torch.tensor([row])).clone()
            # The first token marks the beginning, and each word is one.
            out = 1 + np.flatnonzero(~mask)
            if ablation != "hidden":
                embeddings[0, out] = reference
                out = []
            n = len(row)
            given = [_attention_mask(n, out, width) for width in (3, None)]
            layers = WINDOWS[name]
            if layers is None:
                attention_mask = given[1]
            elif layers == [3, 3]:
                attention_mask = given[0]
            else:
                attention_mask = dict(
                    zip(("sliding_attention", "full_attention"), given, strict=True)
                )
            logits = raw(
                inputs_embeds=embeddings, attention_mask=attention_mask,
                position_ids=torch.arange(n)[None], use_cache=False,
            ).logits[0, -1]  # fmt: skip
            values[m, j] = (logits[answers[0]] - logits[answers[1]]).item()
    return values


def _attention_mask(n, hidden, width):
    """``[1, 1, query, key]``, 0 where a query reads a key."""
    query, key = np.arange(n)[:, None], np.arange(n)
    reads = key <= query
    if width is not None:
        reads &= key > query - width
    reads &= ~np.isin(key, hidden) | (key == query)
    return torch.where(torch.tensor(reads), 0.0, torch.finfo(torch.float32).min)[None, None]


def some_masks(n):
    singles = ~np.eye(n, dtype=bool)
    ends = np.array([[True] * n, [False] * n])
    return np.concatenate([ends, singles, sample_masks(n, 3, keep=0.5, seed=1)])


@pytest.mark.parametrize("ablation", ["zero", "mean", "hidden"])
@pytest.mark.parametrize("name", WINDOWS)
def test_values_are_those_of_the_raw_model(name, ablation, build):
    folder, model = build(name)
    hidden = ablation == "hidden"
    values = mx.ComponentValues(
        model, TASK, mx.spans(TASK, hidden=hidden), "zero" if hidden else ablation
    )
    masks = some_masks(values.n_units)
    expected = by_hand(name, folder, model, masks, ablation)
    assert values.through_bridge is None
    assert np.abs(values(masks) - expected).max() < rounding(expected)
    # The last token is read where it stands, so hiding it changes nothing.
    singles = np.abs(expected[2:8] - expected[0]).max(axis=1)
    # Two windows of three reach no further back than four tokens.
    first = 1 if WINDOWS[name] == [3, 3] else 0
    assert (singles[first : 5 if hidden else 6] > 20 * rounding(expected)).all()
    assert not hidden or singles[5] < rounding(expected)


@pytest.mark.parametrize("name", ["bloom", "falcon alibi", "codegen", "gpt_oss", "xglm"])
def test_soft_masks_give_on_the_copy_what_the_bridge_gives(name, build):
    """Where attention has a way of its own: ALiBi, sinks, scores that are scaled late."""
    model = build(name)[1]
    values = mx.ComponentValues(model, TASK, mx.spans(TASK, hidden=True), "zero")
    soft = np.random.default_rng(0).uniform(0.1, 0.9, (2, 6)).astype(np.float32)
    measured = values.value_and_gradient(soft)
    assert values.through_bridge is None
    unchanged = [("embed.hook_out", lambda activation, hook: activation)]
    with model.hooks(fwd_hooks=unchanged), pytest.warns(UserWarning, match="carries hooks"):
        expected = values.value_and_gradient(soft)
    for one, other in zip(measured, expected, strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_soft_masks_multiply_weights(build):
    """A word that two of its kind stand for: half seen is what half its weight gives."""
    folder, model = build("llama")
    raw = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    soft = np.array([[1, 0.25, 1, 0.5, 1, 1]], dtype=np.float32)
    seen = torch.tensor([1.0, *soft[0]])
    n = len(seen)

    def softmax(scores, *args, **options):
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        weights = weights * torch.where(torch.eye(n, dtype=torch.bool), 1.0, seen)
        return weights / weights.sum(-1, keepdim=True)

    values = mx.ComponentValues(model, TASK, mx.spans(TASK, hidden=True), "zero")
    measured = values.value_and_gradient(soft)[0]
    for j, text in enumerate(PROMPTS):
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            patch.setattr(torch.nn.functional, "softmax", softmax)
            logits = raw(torch.tensor([model.tokenizer(text).input_ids])).logits[0, -1]
        answer, other = (model.tokenizer(t[j]).input_ids[-1] for t in (ANSWERS, DISTRACTORS))
        assert measured[0, j] == pytest.approx((logits[answer] - logits[other]).item(), abs=1e-5)


def mixed(model):
    """Words of both kinds and heads, over several prompts."""
    hidden = mx.spans(TASK, hidden=True)
    return mx.spans(TASK)[["W0", "W3"]] + hidden[["W1", "W4"]] + mx.heads(model)


def test_a_mixed_mask_is_what_hooks_by_hand_give(gpt2):
    units = mixed(gpt2)
    values = mx.ComponentValues(gpt2, TASK, units, "zero")
    masks = sample_masks(len(units), 12, keep=0.6, seed=2)
    masks[:, 2:4] = True  # hidden words have their oracle above
    expected = np.empty((len(masks), len(PROMPTS)), dtype=np.float32)
    for m, mask in enumerate(masks):
        out = [unit for unit, kept in zip(units, mask, strict=True) if not kept]

        def embeddings(activation, hook, out=out):
            at = [1 + unit.number for unit in out if unit.kind == "word"]
            activation[:, at] = 0
            return activation

        def heads(z, hook, out=out):
            at = [u.number for u in out if u.kind == "head" and u.layer == hook.layer()]
            z[:, :, at] = 0
            return z

        hooks = [("embed.hook_out", embeddings)]
        hooks += [(f"blocks.{n}.attn.hook_z", heads) for n in range(gpt2.cfg.n_layers)]
        for j, text in enumerate(PROMPTS):
            row = torch.tensor([gpt2.tokenizer(text).input_ids], device=device_of(gpt2))
            with gpt2.hooks(fwd_hooks=hooks), torch.no_grad():
                logits = gpt2.original_model(row).logits[0, -1]
            answer, other = (gpt2.tokenizer(t[j]).input_ids[-1] for t in (ANSWERS, DISTRACTORS))
            expected[m, j] = (logits[answer] - logits[other]).item()
    assert np.allclose(values(masks), expected, atol=2e-4)


@pytest.mark.usefixtures("bf16_pays")
@pytest.mark.parametrize("options", [{}, {"rescale": True}, {"precision": "bf16"}])
def test_laws(gpt2, options):
    values = mx.ComponentValues(gpt2, TASK, mixed(gpt2), "corrupted", **options)
    exact = values.in_own_dtype(np.ones((1, values.n_units), dtype=bool))[0]
    error = values.precision_error
    check_laws(values, exact, tolerance=2e-4 if error is None else 3 * error.largest)


def test_gradients_are_slopes(gpt2):
    check_gradient_laws(mx.ComponentValues(gpt2, TASK, mixed(gpt2), "corrupted"))


def test_gradient_of_a_hidden_word_at_zero_is_the_slope_from_above(gpt2):
    values = mx.ComponentValues(gpt2, TASK, mx.spans(TASK, hidden=True), "zero")
    at_zero, above = np.zeros((1, 6), np.float32), np.zeros((1, 6), np.float32)
    above[0, 2] = 1e-3
    value, gradient = values.value_and_gradient(at_zero)
    slope = (values.value_and_gradient(above)[0] - value) / 1e-3
    assert np.allclose(gradient[..., 2], slope, rtol=0.02, atol=1e-3)
    hard = values(np.zeros((1, 6), dtype=bool))
    assert np.allclose(value, hard, atol=1e-5)


def test_references_of_words(gpt2):
    """Corrupted words come from the same place, and a single prompt has a mean of its own."""
    units = mx.spans(TASK)
    first = np.array([[False, *[True] * 5]])
    values = mx.ComponentValues(gpt2, TASK, units, "corrupted")(first)
    # The corrupted prompts differ in their first word alone.
    other = mx.Task(CORRUPTED, ANSWERS, DISTRACTORS)
    kept = np.ones((1, 12), dtype=bool)
    assert np.allclose(values, mx.ComponentValues(gpt2, other, "heads")(kept[:, :6]), atol=2e-4)

    alone = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    words = words_of(PROMPTS[0])
    mean = gpt2.embed.weight[torch.tensor(gpt2.tokenizer(PROMPTS[0]).input_ids[1:])].mean(0)
    own = {"embed.hook_out": mean.detach()[None, None]}
    masks = all_masks(6)[::7]
    expected = mx.ComponentValues(gpt2, alone, words, own)(masks)
    assert np.allclose(mx.ComponentValues(gpt2, alone, words, "mean")(masks), expected, atol=2e-4)
    with pytest.raises(AblationError, match="over a single prompt"):
        mx.ComponentValues(gpt2, alone, words + mx.heads(gpt2), "mean")


def test_positions_before_the_first_word_are_spared(gpt2):
    task = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    for kind in ("word", "hidden_word"):
        values = mx.ComponentValues(gpt2, task, words_of(PROMPTS[0], kind), "zero")
        cached = values._proved.forwards.groups[0].cached
        assert cached.starts(~np.eye(6, dtype=bool))[1].tolist() == [1, 2, 3, 4, 5, 6]
    both = mx.ComponentValues(gpt2, task, words_of(PROMPTS[0]) + mx.heads(gpt2), "zero")
    cached = both._proved.forwards.groups[0].cached
    masks = np.ones((2, both.n_units), dtype=bool)
    masks[:, 4] = False
    masks[1, -1] = False
    assert cached.starts(masks)[1].tolist() == [5, 0]


def test_an_early_exit_takes_words(gpt2):
    values = mx.ComponentValues(gpt2, TASK, mixed(gpt2), "zero").early_exit(1)
    masks = sample_masks(values.n_units, 4, keep=0.5, seed=0)
    assert np.isfinite(values(masks)).all()


def test_a_model_of_transformer_lens_hides_words_but_not_in_part(tiny):
    task = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    values = mx.ComponentValues(tiny, task, words_of(PROMPTS[0], "hidden_word"))
    hidden = values(~np.eye(6, dtype=bool))[:, 0]
    kept = values(np.ones((1, 6), dtype=bool))[0, 0]
    assert hidden[5] == pytest.approx(kept, abs=1e-5)
    assert np.abs(hidden[:5] - kept).max() > 0.5
    with pytest.raises(ModelError, match="take hard ones"):
        values.value_and_gradient(np.full((1, 6), 0.5))


def test_what_has_no_mask_of_its_scores_is_refused(build):
    model = build("mpt")[1]
    assert mx.ComponentValues(model, TASK, mx.spans(TASK), "zero").n_units == 6
    with pytest.raises(ModelError, match="replace words at the embedding"):
        mx.ComponentValues(model, TASK, mx.spans(TASK, hidden=True))


def unit(label, *span):
    return Unit("word", 0, 0, None, label, span or None)


@pytest.mark.parametrize(
    ("units", "told"),
    [
        ([unit("lake", 0, 5)], "from another text"),
        ([unit("bird", 26, 45)], "from another text"),
        ([unit("app", 0, 3), unit("le", 3, 5)], "has no token of its own"),
        ([unit("apple", 0, 5), unit("ple bird", 2, 10)], "shares characters"),
        ([unit("S2")], "has no span 'S2'"),
    ],
)
def test_units_that_do_not_fit_the_prompt_are_refused(gpt2, units, told):
    task = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    with pytest.raises(AblationError, match=told):
        mx.ComponentValues(gpt2, task, UnitSet(tuple(units)), "zero")


def test_words_and_spans_that_share_a_token_are_refused(gpt2):
    units = words_of(PROMPTS[0])[:1] + mx.spans(TASK[:1])[:1]
    with pytest.raises(AblationError, match="share a token"):
        mx.ComponentValues(gpt2, TASK[:1], units, "zero")
    with pytest.raises(TaskError, match="no span that all of its prompts have"):
        mx.spans(mx.Task(PROMPTS, ANSWERS, DISTRACTORS))


def test_where_words_lie_is_part_of_what_values_depend_on(gpt2):
    task = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    first, again = (Unit("word", 0, 0, None, "apple", span) for span in ((0, 5), (16, 21)))
    one, other = (
        mx.ComponentValues(gpt2, task, UnitSet((unit,)), "zero") for unit in (first, again)
    )
    assert one.configuration != other.configuration


def byte_level():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)} | {"Ġn": 256, "ot": 257}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "n"), ("o", "t")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def sentence_piece():
    letters = {letter: number for number, letter in enumerate("<▁notbad👍\n\r")}
    vocabulary = letters | {"▁n": 20, "ot": 21}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "n"), ("o", "t")], unk_token="<"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("tokenizer", [byte_level(), sentence_piece()], ids=["bytes", "pieces"])
def test_a_token_belongs_to_the_word_of_its_first_character_that_is_no_blank(tokenizer):
    text = "bad not\r\n👍👍 na"
    pieces = [(0, 3), (4, 7), (9, 10), (10, 11), (12, 14)]
    read = tokenizer(text, return_offsets_mapping=True)
    found = tokens_within(tokenizer, text, read.input_ids, pieces)
    flat = [position for word in found for position in word]
    assert len(set(flat)) == len(flat), "no token belongs to two words"
    said = [tokenizer.convert_ids_to_tokens([read.input_ids[i] for i in word]) for word in found]
    assert said[0][-3:] == ["b", "a", "d"]
    assert said[1] == [said[4][0], "ot"], "the blank goes with the word after it"
    assert said[2] == said[3]
    assert len(said[2]) == (4 if len(read.input_ids) > 15 else 1), "all bytes of an emoji"
    # What lies between the words, and a blank that is a token of its own, belongs to none.
    without = sorted(set(range(len(read.input_ids))) - set(flat))
    assert {text[slice(*read.offset_mapping[i])].strip() for i in without} <= {""}


def test_marks_of_a_prompt_need_none_in_calibration_prompts(gpt2):
    """A mean of words stands in for any token; what begins the prompts is in no mean."""
    words = words_of(PROMPTS[0])
    alone = mx.Task(PROMPTS[:1], ANSWERS[:1], DISTRACTORS[:1])
    values = mx.ComponentValues(gpt2, alone, words, calibration=PROMPTS[1:])
    rows = [gpt2.tokenizer(text).input_ids[1:] for text in PROMPTS[1:]]
    mean = gpt2.embed.weight[torch.tensor(rows).flatten()].mean(0).detach()[None, None]
    masks = all_masks(6)[::7]
    expected = mx.ComponentValues(gpt2, alone, words, {"embed.hook_out": mean})(masks)
    assert np.allclose(values(masks), expected, atol=2e-4)
