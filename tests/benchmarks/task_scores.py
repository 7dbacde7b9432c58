"""How well SmolLM2 does each shipped task, written into the task's file.

    OMP_NUM_THREADS=1 python tests/benchmarks/task_scores.py > tests/benchmarks/task_scores.md

64 prompts of seed 0. ``clean`` is the mean of the metric with its 95% interval over prompts
(Student), ``corrupted`` the mean on the corrupted prompts, ``accuracy`` the share of prompts where
the metric is above 0: the answer beats the distractor. The model can do a task if accuracy ≥ .75
and the interval lies above 0. A markdown table goes to stdout. Names of tasks
as arguments measure these alone.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from scipy import stats

import mechspex as mx
from mechspex.tasks.metrics import bind_metric
from mechspex.tasks.task_file import read_task_file, task_files
from mechspex.tasks.tokens import tokenize

MODEL, PROMPTS, ACCURATE = "smollm2-135m", 64, 0.75


def metric_values(model, task):
    """The task's metric on its prompts and on its corrupted prompts."""
    tokens = tokenize(task, model.tokenizer)
    found = []
    with torch.inference_mode():
        for rows in (tokens.prompts, tokens.corrupted):
            logits = torch.cat([model(row[None])[:, -1] for row in rows])
            metric = bind_metric(task.metric, tokens=tokens, clean=logits)
            found.append(metric(logits, torch.arange(len(task))).numpy())
    return found


def score(model, name, n_prompts=PROMPTS):
    """{key: value} of the table ``[scores.MODEL]`` of a task file."""
    values, corrupted = metric_values(model, mx.load_task(name, model, n_prompts=n_prompts))
    mean, accuracy = values.mean(), (values > 0).mean()
    half = stats.t.ppf(0.975, n_prompts - 1) * values.std(ddof=1) / np.sqrt(n_prompts)
    return {
        "prompts": n_prompts,
        "clean": round(float(mean), 3),
        "interval": [round(float(mean - half), 3), round(float(mean + half), 3)],
        "corrupted": round(float(corrupted.mean()), 3),
        "accuracy": round(float(accuracy), 3),
        "can": bool(accuracy >= ACCURATE and mean - half > 0),
    }


def write(path: Path, found):
    """Put a score at the end of a task file, in place of the one there."""
    header = f'[scores."{MODEL}"]'
    made = f"# Made by tests/benchmarks/task_scores.py.\n{header}"
    text = path.read_text().split(made)[0].rstrip()
    lines = [f"{key} = {str(value).lower()}" for key, value in found.items()]
    path.write_text("\n".join([text, "", made, *lines, ""]))


if __name__ == "__main__":
    model = mx.load_model(MODEL)
    command = "OMP_NUM_THREADS=1 python tests/benchmarks/task_scores.py"
    print(
        f"# Scores of SmolLM2 on the tasks\n\nMade by `{command}`: {PROMPTS} prompts of seed 0, the"
    )
    print(
        "mean of the metric with its 95% interval, the share of prompts where it is above 0. *Can*:"
    )
    print("accuracy ≥ .75 and an interval above 0.\n")
    print("| task | what is asked | metric | clean [95%] | corrupted | accuracy | SmolLM2 |")
    print("|---|---|---|---|---|---|---|")
    for name in sys.argv[1:] or task_files():
        found = score(model, name)
        write(task_files()[name], found)
        recipe = read_task_file(name)
        low, high = found["interval"]
        cells = (
            f"`{name}`", recipe.title, recipe.metric.replace("_", " "),
            f"{found['clean']:.2f} [{low:.2f}, {high:.2f}]", f"{found['corrupted']:.2f}",
            f"{found['accuracy']:.2f}", "can" if found["can"] else "cannot",
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)
