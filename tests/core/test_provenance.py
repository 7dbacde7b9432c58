"""Provenance: the text of every configuration, taken apart and written again."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mechspex.core.provenance import Provenance

HEADS = {
    "clean and ablated": "17.93, 7.054",
    "model": "tiny 07157d46cecbf8b1",
    "dtype": "float32",
    "task": "induction, 4 prompts 2f518779355ae55a",
    "metric": "logit_difference",
    "units": "8 heads 9e33d94bab04771e",
    "ablation": "mean",
}
# As run folders and answers hold them.
CONFIGURATIONS = [
    HEADS,
    HEADS | {"ablation": "corrupted 06fc2706f6e44f84, rescaled"},
    HEADS | {"ablation": "resample, seed 3", "clean and ablated": "-0, 1.2e+05"},
    HEADS | {"ablation": "references 06fc2706f6e44f84", "clean and ablated": "nan, inf"},
    HEADS | {"dtype": "float32, measured in bf16", "metric": "mechspex.truth.known_model.Values"},
    HEADS | {"model": "smollm2-135m-bcc81830, first 4 blocks c83bfd6dc921fa71"},
    HEADS | {"restricted to": "L0H0 L0H1", "units": "270 heads f385733c26e47ad3"},
    {"function": "__main__.soup", "clean": "2", "units": "salt leek oil bay rice"},
    # Not written here: kept as it is.
    {"task": "mine", "model": "none", "dtype": "", "ablation": "my own, of course"},
    {"task": "a, b, 007 prompts 2f518779355ae55a", "clean and ablated": "0.10, two"},
    {"model": "tiny, first 04 blocks", "kept by": "me"},
    {},
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_configuration_is_written_as_it_was(configuration):
    provenance = Provenance.of(configuration)
    assert provenance.to_configuration() == configuration
    if set(configuration) >= set(HEADS):
        assert list(provenance.to_configuration()) == list(configuration)


# Drawing any text is slow on a busy machine, which is no fault of the code.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([*HEADS, "function", "clean", "restricted to"]),
        st.text() | st.sampled_from([text for c in CONFIGURATIONS for text in c.values()]),
    )
)
def test_whatever_a_configuration_says_comes_back(configuration):
    assert Provenance.of(configuration).to_configuration() == configuration


names = st.from_regex(r"[a-z_.0-9]{1,5}( [a-z_.0-9]{1,5})?", fullmatch=True)
digests = st.from_regex(r"[0-9a-f]{16}", fullmatch=True)
counts = st.integers(0, 10**6)


@st.composite
def provenances(draw):
    """Everything that `ComponentValues` can say."""
    clean, ablated = (float(f"{draw(st.floats(-1e9, 1e9)):.4g}") for _ in range(2))
    drawn, taken = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    return Provenance(
        clean=clean,
        ablated=ablated,
        model=draw(names),
        n_blocks=draw(st.none() | counts),
        weights_digest=draw(digests),
        dtype=draw(names),
        precision=draw(st.none() | names),
        task=draw(names),
        n_prompts=draw(counts),
        prompts_digest=draw(digests),
        metric=draw(names),
        units=draw(names),
        units_digest=draw(digests),
        ablation=draw(names),
        ablation_digest=draw(digests) if taken else None,
        seed=draw(counts) if drawn else None,
        rescaled=draw(st.booleans()),
        others=draw(st.dictionaries(st.just("restricted to"), names)),
    )


@given(provenances())
def test_fields_come_back(provenance):
    assert Provenance.of(provenance.to_configuration()) == provenance


def test_fields_of_a_configuration():
    found = Provenance.of(CONFIGURATIONS[1] | {"model": "a b, first 2 blocks c83bfd6dc921fa71"})
    assert (found.clean, found.ablated) == (17.93, 7.054)
    assert (found.model, found.n_blocks, found.weights_digest) == ("a b", 2, "c83bfd6dc921fa71")
    assert (found.task, found.n_prompts, found.prompts_digest) == (
        "induction", 4, "2f518779355ae55a",
    )  # fmt: skip
    assert (found.ablation, found.ablation_digest, found.seed, found.rescaled) == (
        "corrupted", "06fc2706f6e44f84", None, True,
    )  # fmt: skip
    assert Provenance.of(CONFIGURATIONS[2]).seed == 3
    assert Provenance.of(CONFIGURATIONS[4]).precision == "bf16"
    plain = Provenance.of(CONFIGURATIONS[7])
    assert (plain.task, plain.metric, plain.units) == (None, None, "salt leek oil bay rice")
    assert plain.others == {"function": "__main__.soup", "clean": "2"}
    assert Provenance.of(CONFIGURATIONS[9]).task is None


def test_a_reader_is_told_no_digests():
    assert Provenance.of(HEADS).in_words() == [
        "induction, 4 prompts", "tiny", "8 heads", "mean", "logit_difference",
    ]  # fmt: skip
    assert Provenance.of(CONFIGURATIONS[1]).in_words()[3] == "corrupted, rescaled"
    assert Provenance.of(CONFIGURATIONS[4]).in_words()[-1] == "float32, measured in bf16"
    assert Provenance.of(CONFIGURATIONS[5]).in_words()[1] == "smollm2-135m-bcc81830, first 4 blocks"
    assert Provenance.of(CONFIGURATIONS[7]).in_words() == ["salt leek oil bay rice"]
    assert Provenance.of({}).in_words() == []


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("logit_difference", "logit_difference"),
        ("__main__.lead", "lead"),
        ("__main__.orders.<locals>.lead", "lead"),
        ("__main__.<lambda>", "<lambda>"),
    ],
)
def test_a_reader_is_told_the_name_of_a_metric_of_ones_own_alone(metric, told):
    configuration = HEADS | {"metric": f"{metric} 0123456789abcdef"}
    read = Provenance.of(configuration)
    assert read.in_words()[-1] == told
    assert read.to_configuration() == configuration
