"""Words as units of models with known programs and of `tiny` on induction, as markdown.

OMP_NUM_THREADS=1 python tests/benchmarks/words_truth.py > tests/benchmarks/words_truth.md
"""

from dataclasses import replace

import mechspex as mx
from mechspex.experiments.bench import bench, summary
from mechspex.tasks.task import Task
from mechspex.truth import KnownModel, known_model
from mechspex.truth.programs import PROGRAMS

INTRODUCTION = """# The truth about words

The units are the words of each sequence (all but `<bos>`; of induction its ten words), replaced by
zero at their embeddings, by their mean, or hidden from attention. The truth is brute force over all
2^n masks. *f1*: of the terms that `mx.explain` finds with the decoder `automatic` and all masks;
*below*: of `automatic` with 512, 128 or 32 masks, the most that are fewer than all. The programs
have 16 masks only.

`OMP_NUM_THREADS=1 python tests/benchmarks/words_truth.py > tests/benchmarks/words_truth.md`
"""


def with_words(task: Task) -> Task:
    """The same with each word but the first as a span: ``w1``, ``w2``, …"""
    spans = []
    for text in task.prompts:
        words, begin, named = text.split(" "), 0, {}
        for number, word in enumerate(words):
            if number:
                named[f"w{number}"] = begin, begin + len(word)
            begin += len(word) + 1
        spans.append(named)
    return replace(task, spans=spans)


def known_words() -> list[tuple[KnownModel, str]]:
    """Models whose units are words, each with an ablation."""
    tiny = mx.load_model("tiny")
    induction = mx.load_task("induction", tiny, spans=True)
    every = [known_model(name) for name in PROGRAMS]
    every = [replace(known, task=with_words(known.task)) for known in every]
    every.append(KnownModel("tiny, induction", "", tiny, induction, mx.heads(tiny)))
    found = []
    for known in every:
        for ablation in ("zero", "mean", "hidden"):
            units = mx.spans(known.task, hidden=ablation == "hidden")
            name = f"{known.name}, {ablation}"
            found.append((replace(known, name=name, units=units), ablation))
    return found


def main() -> None:
    print(INTRODUCTION)
    print("| words of | units | terms of order 1, 2, … | in basis | f1 | below |")
    print("|---" * 6 + "|")
    for known, ablation in known_words():
        reference = "zero" if ablation == "hidden" else ablation
        frame = bench([known], ablations=[reference], decoders=["automatic"], screens=[])
        (row,) = summary(frame).to_dict("records")
        n_all = 2 ** row["units"]
        fewer = frame[(frame["method"] == "automatic") & (frame["masks"] < n_all)]["f1"]
        below = f"{fewer.max():.3f}" if len(fewer) else "—"
        print(f"| {known.name} | {row['units']} | {row['terms']} | {row['basis']} | "
              f"{row['f1']:.3f} | {below} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
