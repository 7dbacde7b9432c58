"""``mechspex figure``: the list, one of them, and slips."""

import json

from mechspex.experiments.catalogue import FIGURES


def test_lists_the_figures_by_paper(run):
    code, out, _ = run("figure")
    assert code == 0
    assert all(f"  {name} " in out for name in FIGURES)
    assert out.startswith("ProxySPEX\n")
    code, out, _ = run("figure", "--json")
    assert [row["figure"] for row in json.loads(out)] == list(FIGURES)
    assert not any(row["drawn"] for row in json.loads(out))


def test_draws_one_and_says_so_in_the_list(run, tmp_path):
    code, out, _ = run("figure", "or-gate", "--out", "drawn")
    assert code == 0
    assert "Greedy pruning keeps one of the inputs of an OR: holds here" in out
    assert (tmp_path / "drawn" / "figure.svg").exists()
    code, out, _ = run("figure", "or-gate", "--json")
    assert json.loads(out)["seconds"] >= 0
    code, out, _ = run("figure")
    assert any(line.endswith("drawn") for line in out.splitlines() if "or-gate" in line)


def test_slips(run):
    for arguments, message in (
        (["nonsense"], "no figure 'nonsense'; choose recovery"),
        (["or-gat"], "no figure 'or-gat'; did you mean 'or-gate'? Else choose"),
        (["or-gate", "--task", "ioi"], "has no task"),
        (["or-gate", "--model", "tiny"], "has no model"),
        (["or-gate", "--out", "no/such/place"], "cannot be written"),
    ):
        code, _, err = run("figure", *arguments)
        assert code == 2
        assert message in err
