"""Words of compiled programs, as units of their own and as parts of a prompt: all masks, by the
stored weights and by their meaning."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mechspex as mx
from mechspex import truth as truth_package
from mechspex.core.masks import all_masks
from mechspex.experiments.bench import bench
from mechspex.truth import known_model, truth
from mechspex.truth.programs import _unpack

FOLDER = Path(truth_package.__file__).parent / "programs"
WORDS = ("first", "second", "third", "last")
PROGRAMS = ("hist", "reverse", "dyck1", "pair_balance")


@functools.cache
def words_of(name, *, hidden):
    """A compiled program whose units are the four words of its sequences."""
    known = known_model(name)
    # Each prompt is <bos> and four words, each of one character or more.
    spans = []
    for text in known.task.prompts:
        ends = [place for place, letter in enumerate(text + " ") if letter == " "]
        begins = [end + 1 for end in ends]
        spans.append(dict(zip(WORDS, zip(begins, ends[1:], strict=False), strict=False)))
    task = replace(known.task, spans=spans)
    called = f"{name}, {'hidden' if hidden else 'words'}"
    return replace(known, name=called, task=task, units=mx.spans(task, hidden=hidden))


def by_stored_weights(name, masks, *, hidden):
    """The logits ``[mask, prompt, vocabulary]`` at the last word, in plain torch."""
    described = json.loads((FOLDER / f"{name}.json").read_text())
    rows = [("<bos>", *sequence.split()) for sequence in described["examples"]]
    every = [torch.tensor([True, *mask.tolist()]) for mask in masks]
    return torch.stack([last_logits(name, rows, kept, hidden=hidden) for kept in every])


def last_logits(name, rows, kept, *, hidden):
    """The logits ``[row, vocabulary]`` after rows of words of one length, of which some are kept.

    Those that are not are hidden from attention, or zero where they enter.
    """
    described = json.loads((FOLDER / f"{name}.json").read_text())
    config, vocabulary = described["config"], described["vocabulary"]
    w = _unpack(load_file(FOLDER / f"{name}.safetensors"), described["shapes"])
    embedded = w["embed.weight"][torch.tensor([[vocabulary.index(t) for t in r] for r in rows])]
    x = embedded if hidden else embedded * kept[:, None]
    x = x + w["pos_embed.weight"][: len(kept)]
    seen = kept | torch.eye(len(kept), dtype=torch.bool) | torch.tensor(not hidden)
    for layer in range(config["n_layers"]):

        def linear(part, x, layer=layer):
            name = f"blocks.{layer}.{part}"
            return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        q, k, v = (linear(f"attn.{p}", x).unflatten(-1, (config["n_heads"], -1)) for p in "qkv")
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / config["d_head"] ** 0.5
        scores = scores.masked_fill(~seen, -torch.inf)
        z = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        x = x + linear("attn.o", z.flatten(2))
        x = x + linear("mlp.out", linear("mlp.in", x).relu())
    return x[:, -1] @ w["unembed.weight"].T + w["unembed.bias"]


@pytest.mark.parametrize("hidden", [False, True], ids=["zero", "hidden"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_all_masks_are_those_of_the_stored_weights(name, hidden):
    known = words_of(name, hidden=hidden)
    values = known.values("zero")
    masks = all_masks(4)
    logits = by_stored_weights(name, masks, hidden=hidden)
    numbers = torch.arange(len(known.task))
    metric = known.task.metric
    assert callable(metric)
    expected = np.stack([metric(row, numbers).numpy() for row in logits])
    assert np.abs(values(masks) - expected).max() < 1e-3
    assert len(truth(values).terms) > 1


@pytest.mark.parametrize("hidden", [False, True], ids=["zero", "hidden"])
def test_hist_counts_the_words_that_are_kept(hidden):
    """The number of occurrences of the last word, among those that it can see."""
    known = words_of("hist", hidden=hidden)
    masks = all_masks(4)
    masks = masks if hidden else masks[masks[:, 3]]
    right = known.values("zero", matches=True)(masks)
    for j, text in enumerate(known.task.prompts):
        same = np.array([word == text.split()[-1] for word in text.split()[1:]])
        kept = masks | (np.arange(4) == 3)  # the last word always sees itself
        assert np.array_equal(right[:, j] > 0.5, (kept | ~same).all(axis=1)), text


@pytest.mark.parametrize("hidden", [False, True], ids=["zero", "hidden"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_automatic_recovers_every_term(name, hidden):
    table = bench([words_of(name, hidden=hidden)], ablations=["zero"], decoders=["automatic"],
                  screens=[])  # fmt: skip
    of_all = table[table["masks"] == 16]
    assert of_all["f1"].tolist() == [1.0]


# {program: (the parts, what stays, response, distractor)}
ASKED = {
    "hist": ("a b a", " a", " 3", " 4"),
    "reverse": ("a b c", " b", " a", " c"),
    "dyck1": ("( ( )", " )", " True", " False"),
    "pair_balance": ("( ) (", " (", " =", " a"),
}


@functools.cache
def prompt_of(name, context, question, response, distractor, ablation="delete"):
    """A program asked about a text, of which `<bos>` and the last word always stay."""
    units = mx.words(f"<bos> {context}")[1:]
    return mx.PromptValues(
        known_model(name).model, units, question, response=response, distractor=distractor,
        metric="logit_difference", ablation=ablation, prepend_bos=False,
    )  # fmt: skip


@pytest.mark.parametrize("ablation", ["delete", "replace", "hide", "zero"])
@pytest.mark.parametrize("name", ASKED)
def test_parts_of_a_prompt_are_recovered_exactly(name, ablation):
    context, question, response, distractor = ASKED[name]
    words = context.split()
    other = words[1]
    how = (ablation, other) if ablation == "replace" else ablation
    values = prompt_of(name, *ASKED[name], how)
    vocabulary = json.loads((FOLDER / f"{name}.json").read_text())["vocabulary"]
    right, wrong = (vocabulary.index(word.strip()) for word in (response, distractor))
    expected = []
    for mask in all_masks(3).tolist():
        read = {
            "delete": [word for word, keep in zip(words, mask, strict=True) if keep],
            "replace": [word if keep else other for word, keep in zip(words, mask, strict=True)],
        }.get(ablation, words)
        row = ["<bos>", *read, question.strip()]
        kept = torch.tensor([True] * len(row))
        if ablation in ("hide", "zero"):
            kept[1:4] = torch.tensor(mask)
        logits = last_logits(name, [row], kept, hidden=ablation == "hide")[0]
        expected.append((logits[right] - logits[wrong]).item())
    assert np.abs(values(all_masks(3))[:, 0] - expected).max() < 1e-3
    found = mx.explain(values).function
    assert set(found.terms) - {()} == set(truth(values, found.basis).terms) - {()}


def test_hist_needs_two_words_together():
    """It says 3, the one way to have counted them all; so both others must be there: a pair."""
    values = prompt_of("hist", *ASKED["hist"])
    function = truth(values, "kept")
    assert set(function.terms) == {(), (0, 2)}
    masks = all_masks(3)
    assert np.abs(values(masks)[:, 0] - masks[:, [0, 2]].all(axis=1)).max() < 1e-3
