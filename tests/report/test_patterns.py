"""Where heads look, kept with a run and shown on its page."""

import numpy as np
import pytest

import mechspex as mx
from mechspex.report.patterns import PATTERNS, keep_patterns, shown_patterns


def values_of(model, units, n_prompts=4):
    task = mx.load_task("induction", model, n_prompts=n_prompts)
    return mx.ComponentValues(model, task, units, "zero")


def test_what_a_run_keeps_is_what_the_model_shows(tmp_path, tiny):
    values = values_of(tiny, mx.heads(tiny))
    keep_patterns(values, tmp_path)
    seen = mx.attention_patterns(tiny, values.task.prompts[0])
    shown = shown_patterns(tmp_path)
    assert shown["tokens"] == list(seen.tokens)
    assert tuple(shown["heads"]) == tuple(seen.heads.names)
    for name, pattern in zip(seen.heads.names, seen.patterns, strict=True):
        np.testing.assert_allclose(np.array(shown["heads"][name]) / 1000, pattern, atol=6e-4)


def test_nothing_is_kept_without_heads_or_beyond_what_a_page_holds(
    tmp_path, tiny, llama, monkeypatch
):
    keep_patterns(values_of(llama, mx.mlps(llama)), tmp_path)
    monkeypatch.setattr("mechspex.report.patterns._MOST_NUMBERS", 100)
    keep_patterns(values_of(tiny, mx.heads(tiny)), tmp_path)
    assert not (tmp_path / PATTERNS).exists()
    assert shown_patterns(tmp_path) is None
    assert shown_patterns(None) is None


@pytest.mark.parametrize("command", ["explain", "circuit"])
def test_the_shell_keeps_them_and_the_page_has_them(run, tmp_path, command):
    arguments = (command, "induction", "--model", "tiny", "--prompts", "4", "--masks", "60")
    code, _, err = run(*arguments, "--run", "looked")
    assert code == 0, err
    page = mx.write_report("looked", path=tmp_path / "page.html").read_text("utf-8")
    assert '"heads":{"L0H0":[[1000,0,' in page
