"""Run every notebook from a clean kernel; refuse those that are stored with outputs.

Executed copies, with their figures, are written to build/notebooks.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
EXECUTED = FOLDER.parent / "build" / "notebooks"


def main() -> None:
    EXECUTED.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if any(cell.get("outputs") for cell in notebook.cells):
            sys.exit(f"{path.name} is stored with outputs; clear them")
        print(f"running {path.name}", flush=True)
        NotebookClient(
            notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}
        ).execute()
        nbformat.write(notebook, EXECUTED / path.name)


if __name__ == "__main__":
    main()
