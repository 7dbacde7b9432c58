"""Draws ioi.svg, the map of heads in the README, from the run of the command above it.

mechspex explain ioi --run ioi
python docs/pictures/ioi.py ioi
"""

import sys
from pathlib import Path

import matplotlib as mpl

import mechspex as mx


def main(run: str) -> None:
    # The same file from the same numbers.
    mpl.rcParams["svg.hashsalt"] = "mechspex"
    figure = mx.Explanation.load(run).plot(metric="logit difference")
    figure.savefig(Path(__file__).with_name("ioi.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
