"""A notebook's cell that is stopped says what is kept and how to go on."""

import json
import subprocess
import sys

CELL = """
import mechspex as mx

asked, most = [], [300]


class Stopping:
    # Its counts are no part of what the values depend on.

    name = "stopping"
    units, n_units, outputs = mx.parts(14), 14, ("mean",)
    configuration = {"function": "stopping"}

    def __call__(self, masks):
        asked.extend(masks)
        if len(asked) > most[0]:
            raise KeyboardInterrupt
        return (masks[:, 0] + 2.0 * masks[:, 1] * masks[:, 2])[:, None]


def explain(run):
    asked.clear()
    return mx.explain(Stopping(), n_masks=500, decoder="additive", run=run, progress=True)
"""
CELLS = [
    CELL,
    "explain('stopped')",
    "explain(None)",
    "most[0] = 10_000\nprint(explain('stopped').cost.measured, len(asked))",
]
# Without a kernel, whose sockets are not what is tried: the shell that a kernel runs its cells in.
DRIVER = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance(colors="nocolor")
for cell in json.loads(sys.argv[1]):
    shell.run_cell(cell)
    print("=" * 9)
"""


def test_a_stopped_cell_says_how_to_go_on(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(CELLS)],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=True,
    )  # fmt: skip
    _, stopped, in_memory, resumed, _ = done.stdout.split("=" * 9)
    assert "KeyboardInterrupt" in stopped
    assert "masks measured and kept in runs/stopped; the same call goes on from there" in stopped
    assert "kept nowhere; with run='NAME' a stopped call goes on" in in_memory
    measured = int(stopped.split(" masks measured")[0].split()[-1])
    again, asked = map(int, resumed.split())
    assert measured > 0
    assert again <= asked < 700 - measured, "what was kept is not measured again"
    assert "masks:" in done.stderr, "a bar is shown"
