"""The page as a file: one, small, whole, and careful with every text."""

import builtins
import json
import re
from html.parser import HTMLParser
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from report_pages import FIRED, HOSTILE, Named, heads_values, hostile_values

import mechspex as mx
from mechspex.errors import Refused, RunError, StoreError
from mechspex.report.effects import effect_rows
from mechspex.report.plain_words import _share, plain_words
from mechspex.report.section import _table
from mechspex.report.signed import signed
from mechspex.report.visible import visible
from mechspex.runs.text import percent

LARGEST = 3_000_000


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    values, others = heads_values(), heads_values(0.3)
    swept = mx.sweep(values, order=2, among=values.units[:8], run=runs / "swept")
    return {
        "explanation": mx.explain(values, n_masks=130, decoder="additive", run=runs / "explained"),
        "sweep": swept,
        "circuit": mx.find_circuit(values, others, n_masks=120, run=runs / "circuit"),
        "self-repair": mx.self_repair(swept, others),
        "validation": mx.validate(values, [("L0H3",), ("L2H1", "L3H2")]),
        "candidates": mx.screen(values, "ablation"),
        "members": mx.Circuit(values.units, (1, 2)),
    }


def page_of(path, *answers):
    return mx.write_report(*answers, path=path / "page.html").read_text("utf-8")


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_every_kind_of_answer_has_a_page(tmp_path, answers):
    for name, answer in answers.items():
        page = page_of(tmp_path, answer)
        (one,) = data_of(page)
        assert one["called"] == answer.called, name
        assert len(page.encode()) < LARGEST


def test_how_nearly_a_circuit_is_the_model_is_shown(tmp_path, answers):
    (one,) = data_of(page_of(tmp_path, answers["circuit"]))
    within = percent(answers["circuit"].faithfulness.equivalent_within)
    assert one["figures"]["equivalent within"] == within
    assert any(f"by less than {within} of what it does" in line for line in one["words"])
    (bare,) = data_of(page_of(tmp_path, answers["members"]))
    assert "equivalent within" not in bare["figures"]


def test_a_screen_predicts_changes_alone(tmp_path, answers):
    """Its function is known up to a constant, and nothing of it was recovered or measured."""
    (one,) = data_of(page_of(tmp_path, answers["candidates"]))
    assert one["what_if"] is None
    assert list(one["numbers"]) == ["predicted effect of ablating each unit"]


def test_a_map_without_numbers_has_no_scale(tmp_path, answers):
    pairs = answers["validation"].rows([1])
    assert len(pairs.terms[0]) == 2
    page = page_of(tmp_path, pairs)
    assert '<p class="legend" aria-hidden="true" hidden>' in page
    assert '<p class="legend" aria-hidden="true" hidden>' not in page_of(tmp_path, answers["sweep"])


def test_zero_has_no_sign():
    frame = pd.DataFrame({"effect": [-1e-7, 1e-7, -0.5]})
    texts = [row[0]["text"] for row in _table("t", frame)["rows"]]
    assert texts == ["0.000", "0.000", "−0.500"]
    assert _share(-0.016) == "−2%"
    assert _share(-0.001) == "0%"


@pytest.mark.parametrize(("n_acting", "told"), [(1, "1 effect is"), (2, "2 effects are")])
def test_one_is_told_as_one(n_acting, told):
    outputs = np.array([1.0, 1.1, 0.9])
    act = mx.FunctionValues(
        lambda m: m[:, :n_acting].sum(axis=1)[:, None] * outputs, mx.parts("ab")
    )
    assert f"{told} confirmed" in " ".join(plain_words(mx.sweep(act)))


@pytest.mark.parametrize("value", [-21.665009, 12345.678, 1e-5])
def test_no_digit_that_is_shown_is_lost_on_the_way(value):
    values = mx.FunctionValues(lambda m: np.where(m[:, 0], 0.0, value), mx.parts("a"))
    tested = mx.validate(values, [(0,)])
    (row,) = effect_rows(tested)
    assert signed(row["effect"]) == signed(value)
    assert signed(row["effect"], 2) == signed(value, 2)


def test_several_stand_side_by_side(tmp_path, answers):
    page = page_of(tmp_path, *answers.values())
    assert "runs side by side" in page
    assert len(data_of(page)) == len(answers)


def test_the_page_asks_nothing_of_the_network(tmp_path, answers):
    tags = Tags(page_of(tmp_path, answers["explanation"]))
    assert {value for name, value in tags.attributes if name in {"src", "href"}} == {
        "data:,", "#main"
    }  # fmt: skip
    (policy,) = [v for name, v in tags.attributes if name == "content" and "script-src" in v]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


def test_a_name_a_folder_and_a_file_are_the_same_run(tmp_path, answers, monkeypatch):
    folder = answers["explanation"].folder
    monkeypatch.setenv("MECHSPEX_RUNS", str(folder.parent))
    pages = [
        data_of(page_of(tmp_path, run))
        for run in (folder.name, folder, folder / "explanation.json", answers["explanation"])
    ]
    for (one,) in pages:
        assert one["what_if"] == pages[0][0]["what_if"]
        assert one["what_if"]["interval"]["n_masks"] == 100


def test_what_is_shown_is_what_was_measured(tmp_path, answers):
    sweep = answers["sweep"]
    (one,) = data_of(page_of(tmp_path, sweep))
    shown = {tuple(row["term"]): row for row in one["rows"]}
    for term, effect, outputs in zip(sweep.terms, sweep.effects, sweep.output_effects, strict=True):
        assert shown[term]["effect"] == pytest.approx(effect, rel=1e-5, abs=1e-9)
        np.testing.assert_allclose(shown[term]["outputs"], outputs, rtol=1e-5, atol=1e-9)


def test_of_many_sets_the_strongest_are_shown():
    swept = mx.sweep(heads_values(), order=2)
    rows = effect_rows(swept)
    sets = [row for row in rows if len(row["term"]) == 2]
    assert len(sets) == 400 < len(swept.pairs())
    weakest = min(abs(row["effect"]) for row in sets)
    assert np.sum(np.abs(swept.pairs()["effect"]) > weakest * (1 + 1e-5)) <= 400


def test_of_thousands_of_units_the_strongest_are_shown(tmp_path):
    sizes = np.random.default_rng(0).normal(size=3_500)
    units = mx.parts(3_500)
    swept = mx.sweep(
        Named(lambda masks: np.stack([masks @ sizes] * 3, axis=1), units, ("a", "b", "c"))
    )
    page = page_of(tmp_path, swept)
    (one,) = data_of(page)
    assert len(page.encode()) < LARGEST
    strongest = np.sort(np.argsort(-np.abs(sizes))[:1_500])
    assert [unit["name"] for unit in one["units"]] == [str(column) for column in strongest]
    shown = [row["effect"] for row in one["rows"]]
    np.testing.assert_allclose(shown, -sizes[strongest], rtol=1e-4)


def test_hostile_text_is_text(tmp_path):
    answer = mx.explain(hostile_values(), n_masks=60, decoder="additive")
    swept = mx.sweep(hostile_values(), order=2)
    page = page_of(tmp_path, answer, swept)
    tags = Tags(page)
    assert tags.tags.count("script") == 3
    assert "img" not in tags.tags
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert f"<script>{FIRED}" not in page
    assert "\u202e" not in page
    assert "\u2028" not in page
    assert "49" not in data_of(page)[0]["units"][8]["name"]
    assert data_of(page)[1]["outputs"] == [visible(text) for text in HOSTILE]


def test_what_cannot_be_seen_is_written_out():
    assert visible("a\u202eb\ud800c\x00d") == "a⟨U+202E⟩b⟨U+D800⟩c⟨U+0000⟩d"
    assert visible("naïve 你好 שלום 🙂\n\tend") == "naïve 你好 שלום 🙂\n\tend"


def test_slips_are_told(tmp_path, monkeypatch, answers):
    monkeypatch.setenv("MECHSPEX_RUNS", str(tmp_path))
    with pytest.raises(Refused, match="nothing to report; name a run"):
        mx.write_report()
    with pytest.raises(RunError, match="no run 'nosuch'"):
        mx.write_report("nosuch")
    with pytest.raises(Refused, match="runs = 3: give answers"):
        mx.write_report(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StoreError, match="could not be written"):
        mx.write_report(answers["members"], path=tmp_path / "no" / "page.html")


@pytest.mark.parametrize("package", ["jinja2", "pyvis"])
def test_missing_packages_are_named(monkeypatch, tmp_path, answers, package):
    whole = builtins.__import__

    def without(name, *others, **options):
        if name == package:
            raise ImportError(name)
        return whole(name, *others, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(
        "mechspex.report.write_report.find_spec",
        lambda name: None if name == package else find_spec(name),
    )
    with pytest.raises(Refused, match=r"not installed: pip install 'mechspex\[report\]'"):
        mx.write_report(answers["members"], path=tmp_path / "page.html")


def test_the_shell_writes_it(run, tmp_path, monkeypatch, answers):
    monkeypatch.setenv("MECHSPEX_RUNS", str(answers["explanation"].folder.parent))
    code, out, _ = run("report", answers["explanation"].folder.name)
    assert (code, out.split()[0]) == (0, "report.html")
    code, out, _ = run("report", answers["sweep"].folder.name, "--out", "two.html", "--json")
    assert json.loads(out)["bytes"] < LARGEST
    code, _, err = run("report", "nosuch")
    assert code == 2
    assert "no run 'nosuch'" in err
