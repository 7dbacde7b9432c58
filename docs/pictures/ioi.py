"""Draws ioi.svg from the run of `mechspex explain ioi`.

mechspex explain ioi --run ioi
python docs/pictures/ioi.py ioi
"""

import sys
from pathlib import Path

import matplotlib as mpl

import mechspex as mx
from mechspex.runs.run import run_folder

# The same file from the same numbers.
mpl.rcParams["svg.hashsalt"] = "mechspex"


def main(run: str) -> None:
    explanation = mx.Explanation.load(run_folder(run))
    heads = mx.figures.head_map(explanation, metric="logit difference")
    heads.savefig(Path(__file__).with_name("ioi.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
