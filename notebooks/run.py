"""Run every notebook from a clean kernel. They are stored as text, without outputs (jupytext).

python notebooks/run.py             # executed copies, with their figures, in build/notebooks
python notebooks/run.py --render    # and as pages of the documentation, in docs/notebooks
python notebooks/run.py 1-ioi       # one of them, or several
"""

import re
import sys
from base64 import b64decode
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent
EXECUTED = FOLDER.parent / "build" / "notebooks"
PAGES = FOLDER.parent / "docs" / "notebooks"


def main(names: list[str], render: bool) -> None:
    EXECUTED.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("[0-9]*.py")):
        if names and path.stem not in names:
            continue
        notebook = jupytext.read(path, fmt="py:percent")
        print(f"running {path.name}", flush=True)
        # What a cell prints is one output, however it arrives.
        NotebookClient(
            notebook,
            timeout=1800,
            coalesce_streams=True,
            resources={"metadata": {"path": str(FOLDER)}},
        ).execute()
        nbformat.write(notebook, EXECUTED / f"{path.stem}.ipynb")
        if render:
            write_page(notebook, path.stem)


def write_page(notebook: NotebookNode, name: str) -> None:
    """An executed notebook as Markdown, its pictures beside it."""
    PAGES.mkdir(parents=True, exist_ok=True)
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{number}.png"
                (PAGES / picture).write_bytes(b64decode(data["image/png"]))
                parts.append(f"![what the cell shows]({picture})")
            elif 'class="dataframe"' in data.get("text/html", ""):
                parts.append(table(data["text/html"]))
            elif output.get("name") != "stderr":
                text = data.get("text/plain", output.get("text", ""))
                parts.append(f"```text\n{text.rstrip()}\n```")
    made = f"*Made from [the notebook](../../notebooks/{name}.py) by* `notebooks/run.py --render`."
    (PAGES / f"{name}.md").write_text("\n\n".join([*parts[:1], made, *parts[1:]]) + "\n")


def table(html: str) -> str:
    """A table of pandas as a page shows it: a line a row, without its style sheet."""
    bare = re.sub(r"<style.*?</style>|</?div>| style=\"[^\"]*\"", "", html, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", "", bare).replace("</tr>", "</tr>\n").strip()


if __name__ == "__main__":
    chosen = [argument for argument in sys.argv[1:] if argument != "--render"]
    main(chosen, render=len(chosen) < len(sys.argv) - 1)
