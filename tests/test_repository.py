"""What the repository says of itself: requirements, files that pages name, the README's answer."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import mechspex as mx

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Scripts that made what ships; they need what no user needs.
SCRIPTS = {"mechspex/truth/compile.py", "mechspex/models/tiny/train.py"}
PAGES = [
    *ROOT.glob("*.md"),
    ROOT / "llms.txt",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("tests/benchmarks/*.md"),
]


def distribution(requirement: str) -> str:
    """The normalised name in a requirement: ``scikit-learn`` of ``scikit_learn>=1.5``."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def third_parties() -> set[str]:
    """The top-level modules that the package imports, but its own and Python's."""
    names = set()
    for path in (ROOT / "mechspex").rglob("*.py"):
        if path.relative_to(ROOT).as_posix() in SCRIPTS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - sys.stdlib_module_names - {"mechspex"}


def test_what_is_imported_is_declared():
    homes = packages_distributions()
    declared = {distribution(r) for r in PROJECT["dependencies"]}
    for extra in ("trees", "report", "images", "tables", "ray", "slurm"):
        declared |= {distribution(r) for r in PROJECT["optional-dependencies"][extra]}
    # What is not installed here is called as it is imported.
    used = {
        name: {distribution(home) for home in homes.get(name, [name])} for name in third_parties()
    }
    assert not {name: found for name, found in used.items() if not found & declared}
    # gguf is read by transformers alone, where a model lies in that format; of pyvis one file is.
    assert declared - set().union(*used.values()) <= {"einops", "gguf", "pyvis"}


def test_every_requirement_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {distribution(line) for line in lines if not line.startswith("#")}
    wanted = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert {distribution(r) for some in wanted for r in some} <= pinned


def test_version_is_one():
    assert PROJECT["version"] == mx.__version__
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {mx.__version__}\n" in citation


@pytest.mark.parametrize("table", sorted(ROOT.glob("tests/benchmarks/*.md")), ids=lambda t: t.name)
def test_tables_have_a_title(table):
    """A page of the documentation without one cannot be linked."""
    assert table.read_text().startswith("# ")


NOTEBOOKS = sorted(ROOT.glob("notebooks/[0-9]*.py"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_the_page_of_a_notebook_is_made_of_it(notebook):
    """`notebooks/run.py --render NAME` makes it anew."""
    jupytext = pytest.importorskip("jupytext")
    page = ROOT / "docs" / "notebooks" / f"{notebook.stem}.md"
    text = page.read_text()
    cells = [cell.source for cell in jupytext.read(notebook, fmt="py:percent").cells]
    assert not [cell for cell in cells if cell not in text]
    pictures = re.findall(r"\]\(([\w-]+\.png)\)", text)
    assert set(pictures) == {path.name for path in page.parent.glob(f"{notebook.stem}-*.png")}
    assert f"docs/notebooks/{notebook.stem}.md)" in (ROOT / "docs" / "notebooks.md").read_text()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_pages_name_exist(page):
    text = page.read_text()
    linked = {
        page.parent / link
        for link in re.findall(r"\]\(([^)#:\s]+)", text)
        if not link.startswith("/")
    }
    folders = "mechspex|tests|docs|circuits|notebooks"
    # A link is told from the page it stands on, other names from the top.
    begins = r"(?<!\]\()(?<![\w./-])"
    files = re.findall(rf"{begins}(?:{folders})/[\w./-]+\.\w+", text)
    named = {ROOT / name for name in files}
    absent = [str(path) for path in sorted(linked | named) if not path.exists()]
    # NAME and the like stand for any.
    assert not [path for path in absent if not re.search("NAME|FILE|PACKAGE", path)]


def test_readme_prints_what_the_shell_prints(run):
    """The ten lines of the README, on `tiny`: the same answer as the command above them."""
    readme = (ROOT / "README.md").read_text()
    code = next(b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if ">>>" not in b)
    for said, small in {
        '"smollm2-135m"': '"tiny"',
        '"ioi"': '"induction"',
        "n_masks=1000": "n_masks=300",
    }.items():
        assert said in code
        code = code.replace(said, small)
    _, shell, _ = run("explain", "induction", "--model", "tiny", "--masks", "300", "--run", "shell")
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert _without_cost(str(namespace["explanation"])) == _without_cost(shell)


def _without_cost(answer: str) -> list[str]:
    """All lines before that of the forwards and seconds; the run, picture and report follow it."""
    lines = answer.strip().splitlines()
    return lines[: next(i for i, line in enumerate(lines) if " forwards, " in line)]
