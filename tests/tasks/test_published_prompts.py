"""Files in the layouts in which the field publishes prompts, with their difficulties: answers of
several tokens, prompts of several lengths, lists of one, numbers of tokens of another model."""

import os
from contextlib import nullcontext as nothing
from pathlib import Path

import numpy as np
import pytest
import torch

import mechspex as mx
from mechspex.models.shipped import local_folder
from mechspex.models.tokenizer import FolderTokenizer
from mechspex.tasks.reading import reading_of
from mechspex.tasks.tokens import tokenize

FILES = sorted((Path(__file__).parents[1] / "data" / "prompts").iterdir())
SMOLLM2 = local_folder("smollm2-135m")
pytestmark = pytest.mark.skipif(SMOLLM2 is None, reason="SmolLM2 is not fetched")

# ruff: noqa: E501
# What the first prompt of each file is asked for, read off by hand.
FIRST = {
    "agreement_eap_ig": ("The keys that the boy lost", " are", " is"),
    "antonyms_lre": ("The opposite of brave is", " cowardly", " cold"),
    "capital_auto_circuit": ("The largest offices of Kenya stand in its capital,", " Nairobi", " Lima"),
    "capitals_lre": ("The government of United States sits in", " Washington D.C.", " Nairobi"),
    "choices_mmlu": ("Which of these is a metal?\nA. wool\nB. iron\nC. paper\nD. glass\nAnswer:", " B", " A"),
    "country_eap_ig": ("People fly to Nairobi, the capital of", " Kenya", " Venezuela"),
    "diet_auto_circuit": ("On most days a rabbit eats", " grass", " meat"),
    "gender_eap_ig": ("The nurse went home early because", " she", " he"),
    "greater_than_auto_circuit": ("The siege went on from the year 1647 to the year 16", "48", "00"),
    "headquarters_lre": ("The company Nokia is led from the city of", " Espoo", " Munich"),
    "hypernymy_eap_ig": ("We looked at lilies and other", " flower", " instrument"),
    # Davis and Armstrong play the same instrument: the next other one is the distractor.
    "instruments_lre": ("On stage Miles Davis plays the", " trumpet", " cello"),
    "ioi_auto_circuit": ("After the show Jack and Emma walked home, and Emma gave a ring to", " Jack", " Emma"),
    "ioi_eap_ig": ("When Maria and Danielle met at the bench, Danielle handed a book to", " Maria", " Danielle"),
    "landmarks_lre": ("The Colosseum lies in the country of", " Italy", " Peru"),
}  # fmt: skip


@pytest.fixture(scope="module")
def smollm2():
    return mx.load_model("smollm2-135m")


@pytest.fixture(scope="module")
def raw():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert SMOLLM2 is not None
    model = AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(SMOLLM2)


def test_there_are_sixteen():
    assert len(FILES) == 16


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_row_is_read(file):
    assert SMOLLM2 is not None
    tokenizer = FolderTokenizer(SMOLLM2)
    task = reading_of(file, tokenizer).task
    assert len(tokenize(task, tokenizer).prompts) == len(task) >= 4
    assert task.distractors
    if file.stem in FIRST:
        prompt, answer, distractor = FIRST[file.stem]
        assert task.prompts[0] == prompt
        assert first(task.answers[0]) == answer
        assert first(task.distractors[0]) == distractor
    assert file.stem == "choices_mmlu" or task.corrupted


def test_the_files_have_what_published_ones_have():
    assert SMOLLM2 is not None
    tokenizer = FolderTokenizer(SMOLLM2)
    several, unequal = 0, 0
    for file in FILES:
        tokens = tokenize(reading_of(file, tokenizer).task, tokenizer)
        several += any(len(ids) > 1 for answers in tokens.answers for ids in answers)
        lengths = {len(ids) for ids in (*tokens.prompts, *(tokens.corrupted or ()))}
        unequal += len(lengths) > 1
    assert several >= 6
    assert unequal >= 12


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_clean_values_are_those_of_the_raw_model(file, smollm2, raw):
    values = under_the_default_ablation(file, smollm2)
    kept = values(np.ones((1, values.n_units), bool))[0]
    by_the_raw_model = [by_hand(values.task, number, *raw) for number in range(len(values.task))]
    assert kept == pytest.approx(by_the_raw_model, abs=1e-3)


# Each takes ten seconds and more; all sixteen go through with MECHSPEX_SLOW=1.
@pytest.mark.parametrize(
    "file", FILES if os.environ.get("MECHSPEX_SLOW") else FILES[:2], ids=lambda file: file.stem
)
def test_the_default_ablation_explains_it(file, smollm2):
    values = under_the_default_ablation(file, smollm2)
    explanation = mx.explain(values, held_out=values, seed=0)
    assert np.isfinite(explanation.validation.effects).all()
    assert len(explanation.validation.terms) > 0


def under_the_default_ablation(file, model):
    spaced = "auto_circuit" in file.stem
    with nothing() if spaced else pytest.warns(UserWarning, match="a space was put"):
        task = mx.read_prompts(file, model)[:2]
    with pytest.warns(UserWarning, match="the mean over 2 prompts takes away 50%"):
        return mx.ComponentValues(model, task, mx.heads(model, layers=[20])[:4])


def by_hand(task, number, model, tokenizer):
    """The metric by forwards of the untouched model over whole texts."""

    def of_any(texts):
        prompt = tokenizer(task.prompts[number]).input_ids
        whole = [tokenizer(task.prompts[number] + text).input_ids for text in listed(texts)]
        assert all(ids[: len(prompt)] == prompt for ids in whole)
        longest = max(map(len, whole))
        rows = torch.tensor([ids + [0] * (longest - len(ids)) for ids in whole])
        with torch.no_grad():
            log_p = model(rows).logits.double().log_softmax(-1)
        each = [
            sum(float(log_p[row, place - 1, ids[place]]) for place in range(len(prompt), len(ids)))
            for row, ids in enumerate(whole)
        ]
        return np.logaddexp.reduce(each)

    right, wrong = of_any(task.answers[number]), of_any(task.distractors[number])
    if task.metric == "probability_difference":
        return np.exp(right) - np.exp(wrong)
    return right - wrong


def listed(texts):
    return [texts] if isinstance(texts, str) else texts


def first(texts):
    return listed(texts)[0]
