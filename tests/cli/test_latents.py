"""Latents of a dictionary as units in the shell."""

import json

import numpy as np
import pytest
from latent_oracle import random_dictionary

import mechspex as mx
from mechspex.cli.latents import NamedLatents, split_latents
from mechspex.errors import Refused

HOOK = "blocks.0.hook_resid_post"
TINY = ("induction", "--model", "tiny")


@pytest.fixture
def dictionary(tiny, tmp_path):
    made = random_dictionary(HOOK, d=tiny.cfg.d_model, n=96)
    made.save(tmp_path / "sparse")
    return mx.load_dictionary(tmp_path / "sparse")


def task(tiny, n_prompts, **options):
    return mx.load_task("induction", tiny, n_prompts=n_prompts, **options)


def test_latents_are_named_with_their_number_hook_and_place():
    others, (first, second) = split_latents("heads@S2+latents:a:top9@blocks.3.hook_resid_mid@-1+ "
                                            "latents:~/b.c/d:3,5@end")  # fmt: skip
    assert others == "heads@S2"
    assert first == NamedLatents("a", "blocks.3.hook_resid_mid", None, 9, -1)
    assert second == NamedLatents("~/b.c/d", None, (3, 5), place="end")
    assert split_latents("L0H1,L1H3") == ("L0H1,L1H3", ())
    assert split_latents("latents:a")[1] == (NamedLatents("a"),)
    for wrong in ("latents:", "latents:@end", "latents:a@end@end", "latents:a:top0"):
        with pytest.raises(Refused, match="write latents:FOLDER"):
            split_latents(f"heads+{wrong}")


def test_a_screen_takes_the_latents_that_its_prompts_make_most_active(run, tiny, dictionary):
    wanted = mx.latents(tiny, dictionary, task=task(tiny, 8))
    assert len(wanted) == 65
    asked = ("screen", *TINY, "--method", "first_order", "--terms", "70", "--json")
    code, _, err = run(*asked, "--units", "latents:sparse", "--run", "screened")
    assert code == 0, err
    found = mx.Candidates.load("screened")
    assert found.units.names == wanted.names
    values = mx.ComponentValues(tiny, task(tiny, 8), wanted, "mean")
    assert np.allclose(found.single_scores, mx.screen(values, "first_order").single_scores)
    few = mx.latents(tiny, dictionary, task=task(tiny, 8), n_latents=5)
    run(*asked, "--units", "heads+latents:sparse:top5", "--run", "few")
    assert mx.Candidates.load("few").units.names == (*mx.heads(tiny).names, *few.names)


def test_an_answer_is_kept_until_the_dictionary_changes(run, tiny, dictionary, tmp_path):
    asked = ("sweep", *TINY, "--units", "L0H1,L1H3+latents:sparse:3,40")
    code, _, err = run(*asked)
    assert code == 0, err
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("induction-L0H1-L1H3-latents-sparse-mean-sweep-")
    swept = mx.Sweep.load(folder)
    assert swept.units.names == ("L0H1", "L1H3", "L0.latent3", "L0.latent40", "L0.error")
    units = mx.heads(tiny)[["L0H1", "L1H3"]] + mx.latents(tiny, dictionary, [3, 40])
    again = mx.sweep(mx.ComponentValues(tiny, task(tiny, 8), units, "mean"))
    assert np.allclose(swept.effects, again.effects, atol=1e-5)
    assert "loading" not in run(*asked)[2], "it is kept"
    random_dictionary(HOOK, d=tiny.cfg.d_model, n=96, seed=5).save(tmp_path / "sparse")
    assert "loading" in run(*asked)[2]
    (other,) = {*(tmp_path / "runs").iterdir()} - {folder}
    assert not np.allclose(mx.Sweep.load(other).effects, swept.effects)


def test_declared_sweeps_take_latents_at_spans(run, dictionary, tmp_path):
    (tmp_path / "sweeps.toml").write_text(
        "models = ['tiny']\ntasks = ['induction']\nunits = ['latents:sparse:top4@end', 'heads']\n"
    )
    code, out, err = run("sweeps", "sweeps.toml", "--dry-run", "--json")
    assert code == 0, err
    assert [row["masks"] for row in json.loads(out)] == [6, 9]
    code, out, err = run("sweeps", "sweeps.toml", "--csv", "all.csv")
    assert code == 0, err
    assert "latent" in (tmp_path / "all.csv").read_text()
    assert ",end," in (tmp_path / "all.csv").read_text()


def test_what_a_screen_proposes_is_measured_exactly(run, tiny, dictionary):
    sets = ("L0.latent3,L1H3", "L0.latent40")
    asked = ("validate", *TINY, *sets, "--json")
    code, _, err = run(*asked, "--dictionary", "sparse", "--run", "tested")
    assert code == 0, err
    units = mx.heads(tiny) + mx.latents(tiny, dictionary, [3, 40])
    fresh = mx.ComponentValues(tiny, task(tiny, 32, seed=1), units, "mean", seed=1)
    wanted = mx.validate(fresh, [("L0.latent3", "L1H3"), ("L0.latent40",)])
    assert np.allclose(mx.Validation.load("tested").effects, wanted.effects, atol=1e-5)
    code, _, err = run(*asked)
    assert code == 2
    assert "L0.latent3 is a latent; name its dictionary" in err


def test_circuits_explanations_and_differences_take_them(run, dictionary):
    units = ("--units", "heads+latents:sparse:top3")
    for asked in (
        ("circuit", *TINY, "--masks", "60"),
        ("explain", *TINY, "--masks", "100"),
        ("compare-models", "tiny", "tiny", "--task", "induction", "--masks", "60"),
    ):
        code, _, err = run(*asked, *units)
        assert code == 0, err


def test_slips_are_told_before_a_model_is_loaded(run, dictionary):
    for units, says in (
        ("latents:nowhere", "no folder 'nowhere'; give the one that holds cfg.json"),
        ("latents:sparse:few", "no folder 'sparse:few'"),
        ("heads+latents:", "write latents:FOLDER"),
        ("head+latents:sparse", "'head': choose heads"),
        ("L7H0+latents:sparse", "no unit 'L7H0' here"),
    ):
        code, out, err = run("sweep", *TINY, "--units", units)
        assert (code, out) == (2, ""), units
        assert says in err
        assert "loading" not in err
    code, _, err = run("sweep", *TINY, "--units", "latents:sparse:3,400")
    assert code == 2
    assert "no latent 400" in err
