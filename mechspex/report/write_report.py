"""One page that shows answers and answers back: a single HTML file, without network."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechspex.core.checks import PATH, Only
from mechspex.core.doors import door
from mechspex.core.errors import Refused, StoreError
from mechspex.core.json_values import plain
from mechspex.core.result import Result
from mechspex.report.load import load
from mechspex.report.section import section
from mechspex.report.side_by_side import side_by_side
from mechspex.report.signed import signed
from mechspex.report.visible import all_visible
from mechspex.runs.run import folder_of

if TYPE_CHECKING:
    import jinja2

_INSTALL = "pip install 'mechspex[report]'"
_SCRIPTS = (
    "page.js", "map.js", "attention.js", "network.js", "table.js", "what_if.js", "curves.js",
    "start.js",
)  # fmt: skip


def _as_runs(name: str, given: object) -> tuple[Result | str | Path, ...]:
    """Reads answers, or names and folders of runs."""
    each = Only((Result, str, Path), "answers, or names of runs")
    several = given if isinstance(given, tuple) else (given,)
    return tuple(each(name, one) for one in several)


@door(runs=_as_runs, path=PATH)
def write_report(*runs: Result | str | Path, path: str | Path = "report.html") -> Path:
    """Write a page on one answer, or on several side by side.

    The page is one HTML file that needs no network and no other file. It shows each answer in plain
    words, as a map of units, a network of interactions and tables that can be filtered and sorted.
    What a recovered function predicts for any mask it works out itself.

    >>> import mechspex as mx
    >>> mx.write_report("ioi", "ioi-sweep", path="ioi.html")  # doctest: +SKIP

    Args:
        *runs: answers, names of runs, their folders or files.
        path: the file to write.

    Returns:
        The file.

    Raises:
        Refused: no run, one without an answer, or packages that the page is made with are missing.
        RunError: there is no run of that name.
        StoreError: the file cannot be written.
    """
    if not runs:
        raise Refused("there is nothing to report; name a run, as in write_report('ioi')")
    page = render([_section_of(run, number) for number, run in enumerate(runs, 1)])
    path = Path(path)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path} could not be written ({error.strerror})") from None
    return path


def _section_of(run: Result | str | Path, number: int) -> dict[str, Any]:
    if not isinstance(run, Result):
        return section(load(run), Path(run).name, folder_of(run))
    folder = getattr(run, "folder", None)
    name = f"{run.called} {number}" if folder is None else folder.name
    return section(run, name, folder)


def render(sections: list[dict[str, Any]]) -> str:
    """The page that shows these sections.

    Args:
        sections: what `mechspex.report.section.section` returned, an answer each.

    Raises:
        Refused: packages that the page is made with are missing.
    """
    environment = _environment()
    shown = all_visible(plain(sections))
    for number, one in enumerate(shown):
        one["id"] = f"run-{number + 1}"
    folder = files("mechspex.report") / "templates"
    code = "\n".join((folder / name).read_text("utf-8") for name in _SCRIPTS)
    scripts = [_graph_library(), f'"use strict";\n(() => {{\n{code}\n}})();\n']
    return environment.get_template("report.html").render(
        sections=shown,
        together=side_by_side(shown),
        style=(folder / "report.css").read_text("utf-8"),
        scripts=scripts,
        allowed=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
    )


def _environment() -> jinja2.Environment:
    """Templates in which every text is escaped."""
    try:
        import jinja2
    except ImportError:
        raise Refused(f"a report is made with Jinja2, which is not installed: {_INSTALL}") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mechspex.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    compact = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["signed"] = signed
    environment.policies["json.dumps_kwargs"] = compact
    return environment


def _graph_library() -> str:
    """vis-network, which draws the network: the file that pyvis ships."""
    found = find_spec("pyvis")
    for folder in (found and found.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("lib/vis-*/vis-network.min.js"), reverse=True):
            return file.read_text("utf-8").replace("\r\n", "\n")
    raise Refused(f"a report is made with pyvis, which is not installed: {_INSTALL}")


def _digest(script: str) -> str:
    """What a browser compares a script with before it runs it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
