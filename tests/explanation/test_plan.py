"""The plan: what is filled in, what is refused, what a run keeps of it."""

import json
import subprocess
import sys

import numpy as np
import pytest

import mechspex as mx
from mechspex.decoders import Automatic, Decoder, ProxySpex, Pursuit
from mechspex.errors import BudgetError, Refused
from mechspex.explanation.designs import find_masks
from mechspex.explanation.plan import Plan

FORTY = mx.parts(range(40))


def settings(n_units=40, **options):
    """Those of the plan, without versions."""
    told = Plan.of(n_units, **options).to_dict()
    assert set(told.pop("versions")) > {"python", "mechspex", "torch"}
    return told


def test_what_is_not_given_is_filled_in():
    assert settings() == {
        "budget": 1000, "target_r2": None, "keep": 0.9, "design": "random", "adaptive": False,
        "level": 0.05, "contexts": 0, "decoder": "automatic", "max_order": None, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"design": "mixed"}, {"design": "mixed", "keep": 0.9}),
        ({"design": mx.MixedMasks(0.7)}, {"design": "mixed", "keep": 0.7}),
        ({"design": mx.Adaptive()}, {"budget": 1000, "adaptive": True, "target_r2": None}),
        (
            {"design": mx.Adaptive(mx.MixedMasks(0.8), 0.95, focused=False)},
            {"budget": 16_000, "adaptive": False, "target_r2": 0.95, "design": "mixed"},
        ),
        ({"tests": mx.ExactTests(0.1, 4)}, {"level": 0.1, "contexts": 4}),
        ({"decoder": Pursuit(max_order=2)}, {"decoder": "pursuit", "max_order": 2}),
        ({"decoder": Pursuit()}, {"decoder": "Pursuit(candidates=(), proposers=())"}),
        ({"n_units": 8}, {"decoder": "exhaustive", "design": "all masks", "keep": 0.9}),
        ({"n_units": 8, "n_masks": 255}, {"decoder": "automatic", "design": "random"}),
        (
            {"n_units": 8, "decoder": Automatic(max_order=2)},
            {"decoder": "exhaustive", "max_order": 2},
        ),
        (
            {"decoder": "spex"},
            {
                "keep": 0.5,
                "design": "SPEX design: 3 groups × 36 delays × 2^3 bins = 864 masks, and 136 "
                "random ones",
            },
        ),
        ({"design": mx.SpexMasks(max_order=2), "decoder": "spex"}, {"keep": 0.5, "budget": 1000}),
    ],
)
def test_a_run_keeps_the_plan_as_plain_numbers_and_text(options, told):
    found = settings(**options)
    assert {name: found[name] for name in told} == told
    assert json.loads(json.dumps(found)) == found


def test_a_smaller_order_of_spexs_masks_is_another_design():
    one, other = (settings(design=mx.SpexMasks(order))["design"] for order in (2, 5))
    assert one != other


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mx.RandomMasks(1.0), "keep = 1.0"),
        (lambda: find_masks("even"), "design = 'even': choose random, mixed, spex"),
        (lambda: mx.Adaptive(target_r2=1.5), "target_r2 = 1.5"),
        (lambda: mx.Adaptive(mx.SpexMasks()), "design 'spex' is measured as a whole"),
        (lambda: mx.Adaptive(focused=False), "need a target_r2"),
        (lambda: mx.ExactTests(level=1.5), "level = 1.5"),
        (lambda: mx.ExactTests(contexts=1), "contexts = 1"),
        (lambda: Plan.of(40, decoder="spex", design=mx.Adaptive()), "reads the masks of its own"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(Refused, match=message):
        make()


def test_too_few_masks_are_refused_naming_what_is_needed():
    with pytest.raises(BudgetError, match="n_masks = 2: decoder 'pursuit' needs at least 20"):
        Plan.of(40, decoder="pursuit", n_masks=2)


# ── Old keywords of explain ───────────────────────────────────────────────────────────────────────


def additive(masks):
    return masks[:, 0] - 2.0 * masks[:, 1]


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ({"keep": 0.8}, {"design": mx.RandomMasks(0.8)}),
        ({"keep": 0.8, "design": "mixed"}, {"design": mx.MixedMasks(0.8)}),
        ({"adaptive": True, "n_masks": 300}, {"design": mx.Adaptive(), "n_masks": 300}),
        ({"target_r2": 0.9}, {"design": mx.Adaptive(target_r2=0.9, focused=False)}),
        ({"level": 0.1, "contexts": 2}, {"tests": mx.ExactTests(0.1, 2)}),
        ({"max_order": 1}, {"decoder": Pursuit(max_order=1)}),
        ({"keep": None, "max_order": None, "adaptive": False}, {}),
    ],
)
def test_old_keywords_ask_the_same_question(old, now):
    common = {"units": FORTY, "n_masks": 200, "decoder": "pursuit"}
    with pytest.warns(DeprecationWarning, match=f"explain: {next(iter(old))}= is now"):
        before = mx.explain(additive, **common | old)
    after = mx.explain(additive, **common | now)
    assert before.settings == after.settings
    assert before.function.to_mapping() == after.function.to_mapping()


def test_old_keywords_that_make_no_sense_are_refused_before_anything_is_measured():
    def never(masks):
        pytest.fail("measured")

    for old, message in (
        ({"design": "spex", "keep": 0.9}, "keep = 0.9 with design 'spex'"),
        ({"design": "spex", "adaptive": True}, "design 'spex' is measured as a whole"),
        ({"design": mx.RandomMasks(), "keep": 0.8}, "belong to the design"),
    ):
        warned = pytest.warns(DeprecationWarning, match="explain: ")
        with warned, pytest.raises(Refused, match=message):
            mx.explain(never, units=FORTY, **old)


def test_the_number_of_masks_goes_by_its_old_name():
    options = {"units": FORTY, "decoder": "pursuit"}
    with pytest.warns(DeprecationWarning, match="budget= is now n_masks"):
        before = mx.explain(additive, **options, budget=100)  # pyright: ignore[reportCallIssue]
    after = mx.explain(additive, **options, n_masks=100)
    assert before.settings == after.settings
    assert before.function.to_mapping() == after.function.to_mapping()


def test_held_out_outputs_go_by_their_old_name():
    held_out = mx.FunctionValues(lambda masks: 2 * additive(masks), FORTY)
    options = {"units": FORTY, "n_masks": 100, "decoder": "pursuit"}
    with pytest.warns(DeprecationWarning, match="validate_on= is now held_out"):
        found = mx.explain(additive, **options, validate_on=held_out)  # pyright: ignore[reportCallIssue]
    assert found.settings["validated on"] == held_out.configuration


# ── Decoders given as objects ─────────────────────────────────────────────────────────────────────

ASKED = """if True:
    import sys
    from pathlib import Path
    import mechspex as mx
    from mechspex.decoders import ProxySpex

    def both(masks):
        return masks[:, 0] & masks[:, 1]

    decoder = ProxySpex(rates=(0.1,), n_trees=20)
    found = mx.explain(both, units=mx.parts(range(30)), n_masks=60, decoder=decoder,
                       run=Path(sys.argv[1]))
    print(found.cost.measured, found.settings["decoder"])
"""


def test_a_decoder_with_options_is_found_again_by_another_process(tmp_path):
    """Its repr holds a function, whose repr holds an address."""
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", ASKED, str(tmp_path)], capture_output=True, text=True, check=True
        )
        told.append(done.stdout.split(maxsplit=1))
        written = (tmp_path / "explanation.json").stat().st_mtime_ns
        told[-1].append(written)
    (measured, called, when), (again, called_again, when_again) = told
    assert int(measured) > 160
    assert int(again) == 0
    assert called == called_again
    assert "boost=<function boost_lightgbm>" in called
    assert when == when_again, "the answer itself was kept"


class Largest(Decoder):
    """A decoder of the user's own, without options."""

    name = "largest"

    def minimum_masks(self, n_units):
        return 4

    def fit(self, samples):
        return Pursuit().fit(samples)


def test_the_largest_order_belongs_to_the_decoder():
    masks = mx.sample_masks(20, 200, keep=0.5, seed=0)
    values = masks[:, 0] + 2.0 * (masks[:, 1] & masks[:, 2])
    for decoder in (
        Pursuit(max_order=1),
        Largest(max_order=1),
        ProxySpex((2,), (0.1,), max_order=1),
    ):
        assert max(map(len, mx.decode(masks, values, decoder=decoder).terms)) == 1
    assert max(map(len, mx.decode(masks, values, decoder=Pursuit()).terms)) == 2
    assert repr(Pursuit()) == "Pursuit(candidates=(), proposers=())"
    assert repr(Pursuit(max_order=1)).startswith("Pursuit(max_order=1, ")
    assert settings(decoder=Largest())["decoder"] == "Largest()"
    assert settings(decoder=Largest(max_order=3))["max_order"] == 3


def test_designs_draw_the_masks_they_describe():
    for design, density in ((mx.RandomMasks(0.8), 0.8), (mx.MixedMasks(0.9), 0.7)):
        masks = design.draw(200, 400, 0)
        assert masks.mean() == pytest.approx(density, abs=0.01)
        assert np.array_equal(masks[:100], design.draw(200, 100, 0))
    plan = Plan.of(40, design=mx.SpexMasks(), n_masks=600)
    assert np.array_equal(plan.drawn_masks, mx.SpexDesign(40, 600).masks)
