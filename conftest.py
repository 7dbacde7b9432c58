"""Runs the examples of README.md, CONTRIBUTING.md and docs/, so that they go on being true.

- ```` ```python ````: run from top to bottom of a page. Examples speak of SmolLM2-135M and of
  budgets that take minutes; they are run on `tiny` with few masks. What follows `>>>` is
  compared as it stands there.
- ```` ```console ````: every `$ mechspex …` that names `tiny`, or loads no model, is run, and what
  it prints compared; `…` stands for anything.
- ```` ```toml ```` that begins with `# NAME.toml` becomes that file.

`<!-- skip: next -->` in the line before leaves a block out.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

# What an example says, and what is run in its place.
STAND_INS = {
    '"smollm2-135m"': '"tiny"',
    '"ioi"': '"induction"',
    "n_masks=1000": "n_masks=300",  # all masks of eight heads
    "n_masks=9_000": "n_masks=4_000",
}
# Commands that load no model.
LIGHT = {"tasks", "models", "status", "compare", "--version"}


class Page(Document):
    """A page on the stand-ins."""

    def __init__(self, text: str, path: str) -> None:
        for said, run in STAND_INS.items():
            text = text.replace(said, run)
        super().__init__(text, path)


def run_commands(example: Example) -> str | None:
    """Run the commands of one block; what is wrong with what they print, or None."""
    commands: list[tuple[str, list[str]]] = []
    for line in example.parsed.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif commands:
            commands[-1][1].append(line)
    for command, said in commands:
        words = shlex.split(command, comments=True)
        if words[0] != "mechspex" or not ("tiny" in words or words[1] in LIGHT):
            continue
        want, got = "\n".join(said) + "\n", call(words)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        checker, wanted = doctest.OutputChecker(), want.replace("…", "...")
        if want.strip() and not checker.check_output(wanted, got, flags):
            return f"$ {command}\n--- is said to print\n{want}\n--- prints\n{got}"
    return None


def call(words: list[str]) -> str:
    """What a command prints, on stdout and, if that is nothing, on stderr."""
    from mechspex import cli

    out, err, terminate = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    arguments, sys.argv = sys.argv, words
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit:
        pass
    finally:
        sys.argv = arguments
        signal.signal(signal.SIGTERM, terminate)
    return out.getvalue() or err.getvalue()


def write_file(example: Example) -> None:
    """A task file, if the block says what it is called."""
    first = example.parsed.splitlines()[0]
    if first.startswith("# ") and first.endswith(".toml"):
        Path(first[2:]).write_text(example.parsed)


def enter_folder(namespace: dict[str, Any]) -> None:
    """Every page in an empty folder of its own, where its runs go."""
    folder = tempfile.TemporaryDirectory()
    stack = contextlib.ExitStack()
    stack.callback(os.chdir, Path.cwd())
    stack.enter_context(folder)
    os.chdir(folder.name)
    namespace["_folder"] = stack


def leave_folder(namespace: dict[str, Any]) -> None:
    namespace["_folder"].close()


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser("console", run_commands),
        CodeBlockParser("toml", write_file),
        SkipParser(),
    ],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md"],
    document_types={".md": Page},
    setup=enter_folder,
    teardown=leave_folder,
).pytest()
