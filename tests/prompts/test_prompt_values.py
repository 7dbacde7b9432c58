"""Values of prompts without some of their parts, against raw transformers models, one at a time."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from small_models import save_random
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from value_function_laws import check_gradient_laws, check_laws

import mechspex as mx
from mechspex.core.masks import all_masks, sample_masks
from mechspex.errors import AblationError, MechspexError, ModelError, Refused, TaskError
from mechspex.models.tokenizer import own_tokenizer
from mechspex.prompts.scoring import log_odds

CONTEXT = "apple bird boat. moon lake key? wood wall door.".replace(".", "").replace("?", "")
QUESTION = " snow flag tree"
RESPONSE = " bird boat apple"

_GPT = {"vocab_size": 206, "bos_token_id": 1, "eos_token_id": 1}
_GPT2 = {**_GPT, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4}
_MHA = {
    **_GPT, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 32, "pad_token_id": 0,
}  # fmt: skip
_GQA = {**_MHA, "num_key_value_heads": 2}
_LOCAL = {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention"]}
_OPT = {
    **_GPT, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 128,
    "max_position_embeddings": 32, "pad_token_id": 0, "word_embed_proj_dim": 32,
}  # fmt: skip
ARCHITECTURES = {
    "bloom": {**_GPT, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {**_GPT, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gemma2": {**_GQA, "head_dim": 16, "sliding_window": 3, "attn_logit_softcapping": 2.0},
    "gemma3_text": {**_GQA, **_LOCAL, "head_dim": 16},
    "gpt2": {**_GPT2, "n_inner": 24},
    "gpt_neox": _MHA,
    "gptj": {**_GPT2, "n_inner": 24, "rotary_dim": 4},
    "llama": _GQA,
    "mistral": {**_GQA, "sliding_window": 3},
    "mixtral": {**_GQA, "num_experts_per_tok": 2, "num_local_experts": 3},
    "opt": _OPT,
    "qwen3": _GQA,
}


class Raw:
    """Log-probabilities of continuations by the raw model, a text at a time."""

    def __init__(self, folder):
        self._model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        self._read = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    @torch.inference_mode()
    def logits(self, text, after=""):
        before = self._read(text).input_ids
        forced = self._read(after, add_special_tokens=False).input_ids
        logits = self._model(torch.tensor([before + forced]), use_cache=False).logits[0]
        return logits[len(before) - 1 :].log_softmax(-1), forced

    def log_p(self, text, response=RESPONSE):
        """Log-probability of each token of the response."""
        logits, ids = self.logits(text, response)
        return np.array([logits[step, token].item() for step, token in enumerate(ids)])


def without(mask, question=QUESTION):
    """The shortened prompt, put together by hand."""
    words = CONTEXT.split()
    return " ".join(w for w, keep in zip(words, mask, strict=True) if keep) + question


def values_of(model, **options):
    usual: dict[str, Any] = {"by": "word", "response": RESPONSE}
    return mx.PromptValues(model, CONTEXT, QUESTION, **usual | options)


MASKS = np.concatenate(
    [
        np.ones((1, 9), bool),
        np.zeros((1, 9), bool),
        sample_masks(9, 8, keep=0.5, seed=3),
        ~np.eye(9, dtype=bool)[7:],
    ]
)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_deletion_is_the_shortened_prompt(name, tmp_path):
    config = AutoConfig.for_model(name, **ARCHITECTURES[name])
    folder = save_random(AutoModelForCausalLM.from_config, config, tmp_path)
    values, raw = values_of(mx.load_model(folder)), Raw(folder)
    assert values.through_bridge is None
    expected = [raw.log_p(without(mask)).sum() for mask in MASKS]
    assert np.abs(values(MASKS)[:, 0] - expected).max() < 2e-3


@pytest.fixture(scope="module")
def raw(gpt2_folder):
    return Raw(gpt2_folder)


@pytest.fixture(scope="module")
def base(gpt2):
    return values_of(gpt2)


def test_it_keeps_the_laws_of_value_functions(base, raw):
    check_laws(base, np.array([raw.log_p(CONTEXT + QUESTION).sum()]))
    check_gradient_laws(base)


def test_the_native_model_goes_through_its_bridge(tiny):
    values = mx.PromptValues(tiny, CONTEXT, QUESTION, by="word", response=RESPONSE)
    assert "no model of the transformers library" in str(values.through_bridge)
    tokens = tiny.tokenizer("<bos>" + " " + without(MASKS[2]) + RESPONSE, add_special_tokens=False)
    row = torch.tensor([tokens.input_ids])
    log_p = tiny.original_model(row.to(tiny.cfg.device)).log_softmax(-1)[0, -4:-1]
    expected = log_p[torch.arange(3), row[0, -3:]].sum().item()
    assert values(MASKS[2:3])[0, 0] == pytest.approx(expected, abs=1e-4)
    check_laws(values, values(MASKS[:1])[0])


def test_hooks_of_the_users_are_part_of_the_values(gpt2_folder, raw):
    model = mx.load_model(gpt2_folder)
    values = values_of(model)
    before = values(MASKS)

    def silenced(activation, hook):
        return activation * 0

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", silenced)]):
        hooked = values(MASKS)
        assert np.abs(hooked - before).max() > 0.01
        assert "hooks" in values.configuration
    assert np.allclose(values(MASKS), before, atol=1e-5)


def test_changed_weights_are_seen(gpt2_folder):
    model = mx.load_model(gpt2_folder)
    values = values_of(model, metric="kl_divergence")
    before = values.configuration
    with torch.no_grad():
        next(model.original_model.parameters()).mul_(1.5)
    assert np.allclose(values(MASKS), values_of(model, metric="kl_divergence")(MASKS), atol=1e-5)
    assert np.abs(values(MASKS[:1])).max() < 1e-5, "the whole prompt is measured anew as well"
    assert values.configuration["model"] != before["model"]


def test_replacement(gpt2, raw):
    values = values_of(gpt2, ablation=("replace", "cat"))
    words = CONTEXT.split()
    for mask in MASKS:
        text = " ".join(w if k else "cat" for w, k in zip(words, mask, strict=True)) + QUESTION
        assert values.ablated(mask) == (text,)
        assert values(mask[None])[0, 0] == pytest.approx(raw.log_p(text).sum(), abs=1e-3)


@pytest.mark.parametrize(
    ("metric", "by_hand"),
    [
        ("log_probability", lambda log_p: log_p.sum()),
        ("mean_log_probability", lambda log_p: log_p.mean()),
        ("logit_probability", lambda log_p: np.log(p := np.exp(log_p.sum())) - np.log1p(-p)),
    ],
)
def test_metrics_of_responses_and_of_their_spans(gpt2, raw, metric, by_hand):
    values = values_of(gpt2, metric=metric, spans=[" bird", "boat apple", (7, 8)])
    assert [name.split(": ")[-1] for name in values.outputs] == [" bird", "boat apple", "o"]
    whole = values_of(gpt2, metric=metric)
    for mask in MASKS[:4]:
        log_p = raw.log_p(without(mask))
        expected = [by_hand(log_p[piece]) for piece in (slice(1), slice(1, None), slice(1, 2))]
        assert np.allclose(values(mask[None])[0], expected, atol=1e-3)
        assert whole(mask[None])[0, 0] == pytest.approx(by_hand(log_p), abs=1e-3)


def test_log_odds_keep_their_digits():
    p = np.array([1e-300, 1e-9, 0.3, 0.5, 0.9])
    assert np.allclose(log_odds(np.log(p)), np.log(p) - np.log1p(-p), rtol=1e-12)
    assert np.isfinite(log_odds(np.array([0.0, -1e-30]))).all(), "p that rounds to 1"
    near = log_odds(-(10.0 ** np.arange(0, -9, -1)))
    assert (np.diff(near) >= 0).all()


@pytest.mark.parametrize("distractor", [" bird boat door", " key", " bird boat apple cat"])
def test_logit_difference(gpt2, raw, distractor):
    values = values_of(gpt2, metric="logit_difference", distractor=distractor)
    for mask in MASKS[:4]:
        text = without(mask)
        expected = raw.log_p(text).sum() - raw.log_p(text, distractor).sum()
        assert values(mask[None])[0, 0] == pytest.approx(expected, abs=1e-3)


def test_kl_divergence_of_the_next_token(gpt2, raw):
    values = values_of(gpt2, metric="kl_divergence", response=None)
    clean = raw.logits(CONTEXT + QUESTION)[0][0]
    for mask in MASKS[:5]:
        here = raw.logits(without(mask))[0][0]
        expected = (clean.exp() * (clean - here)).sum().item()
        assert values(mask[None])[0, 0] == pytest.approx(expected, abs=1e-3)


def test_a_function_of_the_text_needs_no_model():
    values = mx.PromptValues(
        None,
        "One bird. Two boats! Three?",
        by="sentence",
        metric=lambda texts: [len(t) for t in texts],
    )
    assert values(np.array([[True, False, True]]))[0, 0] == len("One bird. Three?")
    answer = mx.explain(values)
    # Of the last two, one blank goes with either and none when both go.
    assert answer.r2 > 0.999
    two = mx.PromptValues(None, "a b c", by="word", metric=lambda t: [[len(x), 1] for x in t])
    assert two(np.ones((2, 3), bool)).tolist() == [[5, 1], [5, 1]]


def test_a_function_of_the_text_may_empty_its_list():
    def lengths(texts):
        return [float(len(texts.pop(0))) for _ in range(len(texts))]

    values = mx.PromptValues(None, "One two three", by="word", metric=lengths)
    assert values(np.array([[True, False, True], [False, True, False]])).tolist() == [[9], [3]]


def test_questions_share_masks(gpt2, raw):
    questions, responses = [" snow", " flag tree"], [" cat", " bird boat"]
    values = mx.PromptValues(gpt2, CONTEXT, questions, by="word", response=responses)
    assert values.outputs == tuple(questions)
    for mask in MASKS[:4]:
        expected = [
            raw.log_p(without(mask, q), r).sum() for q, r in zip(questions, responses, strict=True)
        ]
        assert np.allclose(values(mask[None])[0], expected, atol=1e-3)


def test_the_model_writes_what_greedy_decoding_writes(gpt2, raw):
    values = values_of(gpt2, response=4)
    text = CONTEXT + QUESTION
    for _ in range(4):
        logits, _ = raw.logits(text)
        text += " " + raw._read.decode(int(logits[0].argmax())).strip()
    assert values.responses == (text[len(CONTEXT + QUESTION) :],)
    assert values_of(gpt2, response=values.responses[0]).responses == values.responses


def test_it_writes_one_line_unless_it_is_told_how_much(gpt2, monkeypatch):
    from mechspex.prompts import scored_model

    def text_after(_tokenizer, _before, tokens):
        pieces = ["\n", " sure", ".\n", "No"][: len(tokens)]
        return "".join(pieces), [len("".join(pieces[: n + 1])) for n in range(len(pieces))]

    scored = values_of(gpt2)._scored
    monkeypatch.setattr(scored_model, "text_after", text_after)
    row = np.arange(3, dtype=np.int32)
    assert scored._first_line(row, (7, 8, 9, 10)) == (7, 8)
    monkeypatch.undo()
    assert len(values_of(gpt2, response=None)._scored.responses[0].tokens) == 32 - 13 + 1


def test_long_labels_are_cut_where_several_stand_in_a_line():
    long = " ".join(f"This is {what} of a rather long kind." for what in ("one", "two", "three"))
    values = mx.PromptValues(None, long, metric=lambda texts: [len(t) ** 2 for t in texts])
    answer = mx.explain(values)
    pairs = [line for line in str(answer).splitlines() if " × " in line]
    assert pairs
    assert max(map(len, pairs)) < 110
    frame = answer.top(2)
    assert len(frame) == 2
    assert set(frame["units"].iloc[0].split(" × ")) <= set(values.units.names), "whole labels here"
    assert frame["effect"].abs().is_monotonic_decreasing


def test_a_shared_beginning_changes_no_value(gpt2, base):
    masks = sample_masks(9, 60, keep=0.7, seed=1)
    plain = values_of(gpt2)
    forward = plain._scored.forward
    # One token a forward: every row alone, no row filled up.
    forward._size.tokens, forward._size._settled, forward._first = 1, True, None
    assert np.abs(plain(masks) - base(masks)).max() < 1e-4


def test_late_units_leave_the_beginning_to_be_computed_once(gpt2):
    late = mx.words(CONTEXT)[6:]
    values = mx.PromptValues(gpt2, late, QUESTION, response=RESPONSE)
    before = values.tokens_run
    values(all_masks(3))
    # BOS and six words are known; of the eight texts at most three words, question and response.
    assert values.tokens_run - before <= 8 * (3 + 3 + 2)
    assert (
        np.abs(
            values(all_masks(3))[:, 0]
            - values_of(gpt2)(np.concatenate([np.ones((8, 6), bool), all_masks(3)], axis=1))[:, 0]
        ).max()
        < 1e-4
    )


def test_masks_that_leave_the_same_text_are_measured_once(gpt2):
    values = mx.PromptValues(gpt2, "cat cat cat cat", QUESTION, by="word", response=RESPONSE)
    before = values.tokens_run
    found = values(all_masks(4))
    assert len(np.unique(found)) == 5
    assert values.tokens_run - before <= 5 * (1 + 4 + 3 + 2)


def test_all_masks_of_words_are_explained_exactly(base, tmp_path):
    values = mx.PromptValues(
        base.model, " ".join(CONTEXT.split()[:5]), QUESTION, by="word", response=" bird"
    )
    answer = mx.explain(values, run=tmp_path / "run", decoder="exhaustive")
    masks = all_masks(5)
    assert np.abs(answer.function.predict(masks) - values(masks).mean(1)).max() < 1e-4
    again = mx.explain(values, run=tmp_path / "run", decoder="exhaustive")
    assert again.cost.measured == 0
    loaded = mx.Explanation.load(tmp_path / "run")
    assert loaded == answer
    assert loaded.units == values.units
    assert "read: [<bos>]" in str(loaded)
    begin, end = loaded.units[1].span
    assert loaded.configuration["text"][begin:end] == "bird"
    json.dumps(answer.to_dict())


def test_sweeps_screens_and_validation_take_it(base):
    table = mx.sweep(base)
    assert len(table.to_pandas()) == 9
    found = mx.validate(base, ["bird × boat"])
    masks = np.ones((4, 9), bool)
    masks[1, 1] = masks[2, 2] = masks[3, [1, 2]] = False
    clean, one, other, both = base(masks)[:, 0]
    assert found.effects[0] == pytest.approx(both - one - other + clean, abs=1e-4)
    assert mx.screen(base, method="ablation") is not None


def test_turns_are_asked_by_the_chat_template(gpt2_folder):
    model = mx.load_model(gpt2_folder)
    own: Any = own_tokenizer(model.tokenizer)
    own.chat_template = (
        "{% for m in messages %} {{ 'key' if m.role == 'user' else 'door' }}"
        "{{ ' ' ~ m.content if m.content }}"
        "{% endfor %}{% if add_generation_prompt %} door{% endif %}"
    )
    turns = [
        {"role": "system", "content": "snow"},
        {"role": "user", "content": "apple bird"},
        {"role": "assistant", "content": "boat"},
        {"role": "user", "content": "moon"},
        {"role": "user", "content": "lake"},
    ]
    values = mx.PromptValues(model, turns, by="turn", response=" cat")
    assert values.units.names == ("apple bird", "boat", "moon")
    assert values.prompts == (" door snow key apple bird door boat key moon key lake door",)
    mask = np.array([False, True, False])
    assert values.ablated(mask) == (" door snow door boat key lake door",)
    said = mx.PromptValues(model, CONTEXT, by="word", response=" cat", chat=True)
    assert said.prompts == (f" key {CONTEXT} door",)
    with pytest.raises(TaskError, match="has no chat template"):
        mx.PromptValues(mx.load_model(gpt2_folder), turns, by="turn", response=" cat")


def test_without_a_question_a_bos_token_is_left(gpt2, raw):
    values = mx.PromptValues(gpt2, "apple bird", by="word", response=" cat")
    nothing = values(np.zeros((1, 2), bool))[0, 0]
    assert nothing == pytest.approx(raw.log_p("", " cat").sum(), abs=1e-3)
    with pytest.raises(TaskError, match="nothing is left to read; give a question"):
        mx.PromptValues(gpt2, "apple bird", by="word", response=" cat", prepend_bos=False)


REFUSED = {
    "an empty text": (lambda m: mx.PromptValues(m, " "), Refused, "is empty"),
    "one unit": (lambda m: mx.PromptValues(m, "apple bird"), Refused, "1 unit, apple bird"),
    "everything protected": (
        lambda m: mx.PromptValues(m, mx.words("apple bird")[:0]), Refused, "0 unit.*part it",
    ),
    "an empty response": (lambda m: values_of(m, response=""), TaskError, "response = '' is empty"),
    "no tokens": (lambda m: values_of(m, response=0), Refused, "how many tokens the model writes"),
    "a response beyond the window": (
        lambda m: values_of(m, response=" bird" * 30), TaskError, "with its answer.*32 positions",
    ),
    "a text beyond the window": (
        lambda m: mx.PromptValues(m, "bird" + " bird" * 39, by="word", response=" cat"), TaskError,
        "41 tokens.*32 positions",
    ),
    "too much to write": (lambda m: values_of(m, response=30), TaskError, "32 positions"),
    "replacements beyond the window": (
        lambda m: values_of(m, ablation=("replace", "cat cat cat cat")), TaskError, "32 positions",
    ),
    "units of another text": (
        lambda m: mx.PromptValues(m, CONTEXT, QUESTION, by=mx.words("apple birds boat")), Refused,
        "'birds' is of another text: .*' bird'|'birds' is of another text",
    ),
    "heads as units": (
        lambda m: mx.PromptValues(m, CONTEXT, by=mx.heads(m)), Refused, "take units from mx.words",
    ),
    "an unknown word": (
        lambda m: values_of(m, ablation=("replace", "zebra")), TaskError, "'zebra'.*vocabulary",
    ),
    "an unknown ablation": (
        lambda m: values_of(m, ablation="resample"), AblationError, "choose delete",
    ),
    "an empty word": (
        lambda m: values_of(m, ablation=("replace", " ")), AblationError, "give a word",
    ),
    "an unknown metric": (lambda m: values_of(m, metric="accuracy"), Refused, "choose log_prob"),
    "no distractor": (lambda m: values_of(m, metric="logit_difference"), Refused, "go together"),
    "a distractor alone": (lambda m: values_of(m, distractor=" cat"), Refused, "go together"),
    "the same distractor": (
        lambda m: values_of(m, metric="logit_difference", distractor=RESPONSE),
        TaskError, "are both",
    ),
    "a span that is not there": (
        lambda m: values_of(m, spans="dog"), TaskError, "'dog' is not there",
    ),
    "a span of a divergence": (
        lambda m: values_of(m, metric="kl_divergence", spans="bird"), Refused, "has no spans",
    ),
    "responses without questions": (
        lambda m: values_of(m, response=[" a", " b"]), Refused, "2 texts for 1 questions",
    ),
    "no model": (lambda m: mx.PromptValues(None, CONTEXT), Refused, "measured on a model"),
    "a model for a function of the text": (
        lambda m: values_of(m, metric=len), Refused, "needs no model",
    ),
    "the question for the model": (
        lambda m: mx.PromptValues(CONTEXT, m), ModelError, "apple",
    ),
}  # fmt: skip


def test_a_long_text_is_quoted_by_its_ends(gpt2):
    words = " ".join(f"word{number}" for number in range(500))
    with pytest.raises(
        TaskError, match=r"'word0', 'word1'.* … in prompt 'word0 .*' … '.*word499'"
    ) as e:
        mx.PromptValues(gpt2, words, by="word", response=" cat")
    assert len(str(e.value)) < 500


@pytest.mark.parametrize("slip", REFUSED)
def test_what_cannot_be_is_refused_with_the_next_step(slip, gpt2):
    ask, error, message = REFUSED[slip]
    with pytest.raises(error, match=message):
        ask(gpt2)
    assert issubclass(error, MechspexError)
