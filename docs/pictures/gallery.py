"""Draws the pictures of docs/figures.md from the runs of the commands there.

mechspex explain ioi --run ioi
mechspex circuit ioi --run ioi-circuit
python docs/pictures/gallery.py ioi ioi-circuit
"""

import sys
from pathlib import Path

import mechspex as mx
from mechspex import figures

HERE = Path(__file__).parent


def main(run: str, circuit: str) -> None:
    answer = mx.Explanation.load(run)
    names = ("head_map", "network", "pair_matrix", "upset", "waterfall", "beeswarm", "force")
    drawn = {name: getattr(figures, name)(answer) for name in (*names, "interactions")}
    drawn["energy_by_order"] = answer.structure.plot()
    if answer.recovery.evidence is not None:
        drawn["stability"] = answer.recovery.evidence.plot(answer.units.names)
    drawn["circuit_graph"] = mx.Circuit.load(circuit).plot()
    model = mx.load_model("smollm2-135m")
    prompt = mx.load_task("ioi", model, n_prompts=1).prompts[0]
    heads = ["L20H0", "L23H3", "L29H0", "L29H1"]
    drawn["attention"] = mx.attention_patterns(model, prompt, heads).plot()
    for name, figure in drawn.items():
        figure.savefig(HERE / f"{name}.png", dpi=72)


if __name__ == "__main__":
    main(*sys.argv[1:])
