"""How tables of exact effects read."""

import numpy as np
import pandas as pd

from mechspex.core.units import Unit, UnitSet
from mechspex.runs.text import effect_tables, subject

NAN = float("nan")


def frame(**rows):
    effect, low, high = (np.array(column) for column in zip(*rows.values(), strict=True))
    return pd.DataFrame(
        {
            "units": list(rows), "order": 2, "effect": effect, "low": low, "high": high,
            "confirmed": (low > 0) | (high < 0),
        }
    )  # fmt: skip


def test_an_interval_that_holds_no_large_effect_decides_as_well():
    rows = frame(
        sure=(1.0, 0.9, 1.1), none=(0.01, -0.1, 0.15), open=(0.1, -0.1, 0.3), failed=(NAN, NAN, NAN)
    )
    title, _, *lines = effect_tables(rows, scale=-4.0)[1:]
    assert title.endswith("1 of 4 confirmed, 1 surely below 0.2, 5% of clean − all ablated)")
    said = {line.split()[0]: line.partition("]")[2].strip() for line in lines}
    assert said == {"sure": "", "none": "below 0.2", "open": "not confirmed", "failed": ""}


def test_without_a_scale_nothing_is_small():
    title, _, line = effect_tables(frame(none=(0.01, -0.1, 0.15)))[1:]
    assert title.endswith("0 of 1 confirmed)")
    assert line.endswith("not confirmed")


def test_of_many_effects_tiny_ones_are_counted_and_not_shown():
    tiny = {f"tiny_{place}": (0.004, NAN, NAN) for place in range(10)}
    rows = frame(
        large=(2.0, NAN, NAN), fair=(-0.05, NAN, NAN), sure=(0.01, 0.009, 0.011),
        failed=(NAN, NAN, NAN), **tiny,
    )  # fmt: skip
    *lines, last = effect_tables(rows, scale=4.0)[3:]
    # Confirmed ones, and one that could not be measured, are shown however small.
    assert [line.split()[0] for line in lines] == ["large", "fair", "sure", "failed"]
    assert last == "  … and 10 weaker ones, below 0.04, 1% of clean − all ablated"


def test_few_effects_and_those_without_a_scale_are_all_shown():
    def shown(n, **options):
        rows = frame(**{f"unit_{place}": (0.001, NAN, NAN) for place in range(n)})
        return effect_tables(rows, **options)

    assert len(shown(12, scale=4.0)) == 3 + 12
    assert len(shown(40)) == 3 + 40
    assert shown(9, most=4)[-1] == "  … and 5 weaker ones"


def test_a_head_and_its_one_edge_are_one_effect():
    rows = frame(**{
        "L1H3": (-14.0, -15.0, -13.0), "L1H3→output": (-14.0, -15.0, -13.0),
        "L0H1": (-7.0, -8.0, -6.0), "L0H1→L1H3.k": (-7.1, -8.0, -6.0),
        "L0H2": (0.0, -1.0, 1.0), "L0H2→output": (0.0, -1.0, 1.0),
    })  # fmt: skip
    told = "  one effect, told twice, alone and in every set: L1H3 and L1H3→output"
    assert [line for line in effect_tables(rows.assign(order=1)) if "twice" in line] == [told]
    assert "twice" not in "".join(effect_tables(rows.drop(index=0).assign(order=1)))


HEADS = UnitSet(tuple(Unit("head", layer, number) for layer in (0, 1) for number in (0, 1)))


def told(**changed: str) -> str:
    """The ablation as a reader is told it."""
    read = {"task": "own, 8 prompts 2f518779355ae55a", "units": "4 heads", "ablation": "mean"}
    return subject(read | changed, HEADS).removeprefix("own, 8 prompts · 4 heads · ")


def test_a_mean_over_few_prompts_is_said_to_keep_a_share_of_each():
    assert told() == "mean (1/8 of it the prompt's own)"
    assert told(task="own, 9 prompts").endswith("mean (1/9 of it the prompt's own)")
    # A tenth is little.
    assert told(task="own, 10 prompts").endswith("· mean")
    assert told(task="own").endswith("· mean")
    # Calibration prompts are others; so are all prompts but one's own.
    assert told(ablation="mean 0123456789abcdef") == "mean"
    assert told(ablation="leave_one_out") == "leave_one_out"
    # A mean over words is one over all their positions too.
    words = UnitSet((Unit("hidden_word", 0, 0, None),))
    assert subject({"task": "own, 8 prompts", "ablation": "mean"}, words) == "own, 8 prompts · mean"
