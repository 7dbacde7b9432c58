"""Run every notebook from a clean kernel; the executed copies are written to build/notebooks.

    python notebooks/run.py            # refuses a notebook that is stored without its outputs
    python notebooks/run.py --store    # writes the executed copies over the notebooks

Notebooks are stored with outputs, so that they can be read where nothing runs.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
EXECUTED = FOLDER.parent / "build" / "notebooks"


def main(store: bool) -> None:
    EXECUTED.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        if not store and not any(cell.outputs for cell in code):
            sys.exit(f"{path.name} is stored without outputs; python notebooks/run.py --store")
        print(f"running {path.name}", flush=True)
        NotebookClient(
            notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER)}}
        ).execute()
        for cell in code:
            # Progress bars, and when a cell began and ended, differ each time.
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell.metadata.pop("execution", None)
        nbformat.write(notebook, EXECUTED / path.name)
        if store:
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:] == ["--store"])
