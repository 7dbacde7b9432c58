"""Docstrings: an entry for every parameter, entries that name their noun, examples where promised.

The sources are read, not imported: whoever changes a docstring waits for no model library.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mechspex

_PACKAGE = Path(mechspex.__file__).parent
# "metric: of the task" makes the reader look for the noun; "metric: the task's metric" names it.
_BARE = re.compile(r"(of|that|those|in which|as)\b")
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")
_ENTRY = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): (.*)")

# The public functions used most; each shows itself at work, executed with the tests.
WITH_EXAMPLES = (
    "SetFunction",
    "SetFunction.indices",
    "SetFunction.to_basis",
    "SpexDesign",
    "additive_choice",
    "best_subset",
    "decode",
    "explain",
    "faithfulness",
    "faithfulness_curve",
    "front",
    "greedy",
    "matching_subsets",
    "monotone_link",
    "pair_ablations",
    "parts",
    "recover",
    "sample_masks",
    "screen",
    "single_ablations",
    "structure_of",
    "sweep",
    "validate",
    "words",
)
# What these return is defined by a formula, which they state.
WITH_FORMULAS = (
    "Faithfulness",
    "Link.share",
    "SetFunction",
    "SetFunction.to_basis",
    "best_subset",
    "decode",
    "front",
    "monotone_link",
    "screen",
    "sweep",
    "validate",
)


@dataclass(frozen=True)
class Documented:
    """A public function, class or method of the source, and its docstring.

    A method without one may have its base class's: `inherits`.
    """

    name: str
    node: ast.FunctionDef | ast.ClassDef
    inherits: bool = False

    @property
    def text(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def parameters(self) -> list[str]:
        """What a caller can give, old keywords (``**old``) apart; the fields of a class."""
        if isinstance(self.node, ast.ClassDef):
            return [
                line.target.id
                for line in self.node.body
                if isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and "ClassVar" not in ast.unparse(line.annotation)
                and not line.target.id.startswith("_")
            ]
        given = self.node.args
        names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        if given.vararg is not None:
            names.append(given.vararg.arg)
        return [name for name in names if name not in ("self", "cls")]

    @property
    def sections(self) -> dict[str, list[tuple[list[str], str]]]:
        """{section: its entries, each with the names it is about and its first line}."""
        sections: dict[str, list[tuple[list[str], str]]] = {}
        entries = None
        for line in self.text.splitlines():
            if _SECTION.fullmatch(line):
                entries = sections.setdefault(line[:-1], [])
            elif line.strip() and not line.startswith(" "):
                entries = None
            elif entries is not None and (match := _ENTRY.fullmatch(line[4:])):
                entries.append((match[1].replace("*", "").split(", "), match[2]))
        return sections

    @property
    def missing(self) -> list[str]:
        """Parameters or fields without an entry of their own."""
        if self.inherits and not self.text:
            return []
        section = "Attributes" if isinstance(self.node, ast.ClassDef) else "Args"
        entries = self.sections.get(section, [])
        named = {name for names, _ in entries for name in names}
        return [name for name in self.parameters if name not in named]


@cache
def documented(path: Path) -> list[Documented]:
    """The functions, classes and methods of a file whose names are public."""

    def walk(body: list[ast.stmt], prefix: str, inherits: bool) -> Iterator[Documented]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield Documented(prefix + node.name, node, inherits)
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.", bool(node.bases))

    return list(walk(ast.parse(path.read_text(encoding="utf-8")).body, "", False))


@cache
def everywhere() -> list[Documented]:
    return [item for path in sorted(_PACKAGE.rglob("*.py")) for item in documented(path)]


@cache
def public() -> dict[str, Documented]:
    """{name: what it is} of the names in ``mechspex/__init__.pyi``, and of their methods."""
    items = {}
    stub = ast.parse((_PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    for line in stub.body:
        if not isinstance(line, ast.ImportFrom) or line.module is None:
            continue
        place = _PACKAGE.joinpath(*line.module.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        names = {alias.name for alias in line.names}
        for item in documented(file):
            if item.name.split(".")[0] in names:
                items[item.name] = item
    return items


def test_every_entry_names_its_noun():
    bare = [
        f"{item.name}, {section}: {', '.join(names)}: {text}"
        for item in everywhere()
        for section, entries in item.sections.items()
        for names, text in entries
        if _BARE.match(text)
    ]
    assert not bare


def test_who_documents_parameters_documents_all_of_them():
    partly = {item.name: item.missing for item in everywhere() if "Args" in item.sections}
    assert {name: missing for name, missing in partly.items() if missing} == {}


def test_public_functions_document_every_parameter():
    functions = [item for item in public().values() if isinstance(item.node, ast.FunctionDef)]
    assert len(functions) > 80
    assert {item.name: item.missing for item in functions if item.missing} == {}


def test_public_classes_document_every_field():
    classes = [item for item in public().values() if isinstance(item.node, ast.ClassDef)]
    assert len(classes) > 10
    assert {item.name: item.missing for item in classes if item.missing} == {}


def test_public_names_say_in_a_sentence_what_they_are():
    without = [
        item.name
        for item in public().values()
        if (item.text or not item.inherits)
        and not item.text.split("\n\n")[0].rstrip().endswith((".", ":", "…"))
    ]
    assert not without


def test_examples_stand_where_most_readers_look():
    assert [name for name in WITH_EXAMPLES if ">>> " not in public()[name].text] == []


def test_formulas_stand_where_numbers_are_defined():
    assert [
        name for name in WITH_FORMULAS if not re.search("[=≈−/] |argmax", public()[name].text)
    ] == []
