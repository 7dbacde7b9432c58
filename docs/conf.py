"""The documentation: `make docs` builds it into build/docs, with warnings as errors.

Its pages are the Markdown files of this folder. Others are made here when it is built, from what
stands elsewhere in the repository: the front page from README.md, the tables of tests/benchmarks,
CONTRIBUTING.md and CHANGELOG.md, and the reference from the docstrings of the public names. Links
between files of the repository are turned into links between pages.
"""

import ast
import os
import re
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version as version_of
from operator import attrgetter
from pathlib import Path

from sphinx.application import Sphinx

import mechspex
from mechspex.experiments import FIGURES, Reproduction

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "mechspex"
version = release = version_of("mechspex")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
# The gallery is a part of a page.
exclude_patterns = ["papers/gallery.md"]
html_title = f"mechspex {release}"
html_show_copyright = False
html_static_path, html_css_files = ["static"], ["width.css"]

myst_heading_anchors = 3

# Docstrings name things in single backticks: links where there is something of that name.
default_role = "py:obj"
suppress_warnings = ["ref.python"]  # … or several
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autosummary_generate = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # types stand in the signature
napoleon_custom_sections = [("Designs", "params_style")]
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# Where files of the repository are found in the documentation; made anew by each build.
_MADE = {"tests/benchmarks": "tables", ".": "project"}
TABLES = ROOT / "tests" / "benchmarks" / "figures"
_MADE_ALONE = {ROOT / "README.md": DOCS / "index.md"}
_LINK = re.compile(r"\]\(([^)#:\s]+)")
_MARKUP = re.compile(r"(`+[^`]*`+|^\s*\*(?= )|(?<![\w*])\*\w[^*`]*\*(?![\w*]))")


def page_of(file: Path) -> Path:
    """The page that shows a file of the repository; the file itself where none does."""
    folder = _MADE.get(os.path.relpath(file.parent, ROOT))
    if file in _MADE_ALONE:
        return _MADE_ALONE[file]
    if folder is None or file.suffix != ".md":
        return file
    return DOCS / folder / file.name


def relink(text: str, file: Path, page: Path) -> str:
    """The text of `file` as `page`: links to other files lead to their pages."""

    def link(found: re.Match[str]) -> str:
        target = page_of(Path(os.path.normpath(file.parent / found[1])))
        return f"]({os.path.relpath(target, page.parent)}"

    return _LINK.sub(link, text)


def write(page: Path, text: str) -> None:
    """Write a page where it changed; what is as it was need not be built again."""
    page.parent.mkdir(parents=True, exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def copy_pages() -> None:
    """Tables, and what stands beside the README."""
    for file in [
        *ROOT.glob("tests/benchmarks/*.md"),
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
    ]:
        write(page_of(file), relink(file.read_text(), file, page_of(file)))


def write_gallery() -> None:
    """The figures of papers from their committed tables: claims, then each with its command."""
    folder = DOCS / "papers"
    folder.mkdir(exist_ok=True)
    kept = [Reproduction.load(file) for file in sorted(TABLES.glob("*.json"))]
    # Titles and what differs are those of today.
    found = [replace(one, figure=FIGURES[one.figure.name]) for one in kept]
    lines = ["## What the papers say", "", "| claim | paper | here |", "|---|---|---|"]
    holds = {True: "holds", False: "**does not hold**", None: "not decided"}
    # What was measured in full speaks for itself.
    told = {one.figure.name: one for one in sorted(found, key=lambda one: one.settings["full"])}
    for one in told.values():
        lines += [
            f"| {claim.says}{', in full' * one.settings['full']} | {one.figure.paper} "
            f"| {holds[claim.holds]}: {claim.measured} |"
            for claim in one.claims
        ]
    for one in found:
        name, full = one.figure.name, one.settings["full"]
        command, title = name + " --full" * full, one.figure.title + ", in full" * full
        name += "-full" * full
        one.plot().savefig(folder / f"{name}.png", dpi=110)
        lines += ["", f"## {title}", "", f"    mechspex figure {command}", ""]
        lines += [f"![{one.figure.shows}](papers/{name}.png)", "", "```text", str(one), "```"]
    write(folder / "gallery.md", "\n".join(lines) + "\n")


def public_names() -> dict[str, list[str]]:
    """{package: its public names}, as `mechspex/__init__.pyi` lists them."""
    found: dict[str, list[str]] = {}
    for node in ast.parse((ROOT / "mechspex" / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found.setdefault(node.module.split(".")[0], []).append(node.names[0].name)
        elif isinstance(node, ast.ImportFrom):
            # A package that is public itself, with what it says is.
            package = node.names[0].name
            module = import_module(f"mechspex.{package}")
            own = getattr(module, "__all__", [name for name in vars(module) if name[0].isupper()])
            found.setdefault(package, []).extend(f"{package}.{name}" for name in own)
    return found


def write_reference() -> None:
    """A page a package: its sentence, a table of its public names, then the docstring of each."""
    for package, names in public_names().items():
        module = import_module(f"mechspex.{package}")
        lines = [package, "=" * len(package), "", (module.__doc__ or "").splitlines()[0], ""]
        things = {f"mechspex.{name}": attrgetter(name)(mechspex) for name in names}
        documented = {name: thing for name, thing in things.items() if callable(thing)}
        lines += [".. autosummary::", "", *(f"   {name}" for name in documented), ""]
        for name, thing in things.items():
            if name in documented:
                lines += [f".. {directive(thing)}:: {name}", ""]
            else:
                lines += [f".. py:data:: {name}", "", f"   {', '.join(map(str, thing))}", ""]
        write(DOCS / "reference" / f"{package}.rst", "\n".join(lines))


def directive(thing: object) -> str:
    """The directive of autodoc that documents `thing`."""
    if isinstance(thing, type):
        return "autoexception" if issubclass(thing, Exception) else "autoclass"
    return "autofunction"


def escape(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Bars and stars of a docstring stand for themselves, but in code, emphasis and lists."""
    for number, line in enumerate(lines):
        # Every second part is what markup there is.
        parts = _MARKUP.split(line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)


def sign(
    app: Sphinx, what: str, name: str, thing: object, options: object, arguments: str, result: str
) -> tuple[str, str] | None:
    """Signatures of dataclasses, with defaults that parse."""
    if arguments and "<factory>" in arguments:
        return arguments.replace("<factory>", "..."), result
    return None


def read_source(app: Sphinx, docname: str, source: list[str]) -> None:
    page = DOCS / f"{docname}.md"
    source[0] = relink(source[0], page, page)
    if docname == "index":
        readme = ROOT / "README.md"
        source[0] = relink(readme.read_text(), readme, page) + "\n" + source[0]


def setup(app: Sphinx) -> None:
    copy_pages()
    write_reference()
    write_gallery()
    app.connect("autodoc-process-signature", sign)
    app.connect("source-read", read_source)
    # Before napoleon, which writes emphasis of its own.
    app.connect("autodoc-process-docstring", escape, priority=100)
