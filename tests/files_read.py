"""Every kind of file that is read: a good one of each, and who reads it."""

import json
import shutil
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from latent_oracle import random_dictionary, save_cross_layer
from mutated_files import FileKind
from test_results import RESULTS, values

import mechspex as mx
from mechspex.cli.kept import QUESTIONS, SCHEMA, _read
from mechspex.cli.own_texts import OwnTexts
from mechspex.cli.screening import _sets
from mechspex.cli.sweep_file import cells_of, read_sweep_file
from mechspex.core.json_values import checked, write_json
from mechspex.core.result import Result
from mechspex.core.value_function import FunctionValues
from mechspex.experiments.experiment import _kept
from mechspex.models.folder import check_folder
from mechspex.models.shipped import TINY
from mechspex.models.tokenizer import FolderTokenizer
from mechspex.report.load import KINDS
from mechspex.runs import store as stores
from mechspex.runs.check_store import check_store
from mechspex.runs.merge import merge
from mechspex.runs.recorded import RecordedValues
from mechspex.runs.row_log import logs_in
from mechspex.runs.run import CELLS, EXPERIMENT
from mechspex.runs.salvage import salvage
from mechspex.runs.store_file import VALUES
from mechspex.runs.value_table import ValueTable
from mechspex.tasks.draw_task import draw_task
from mechspex.tasks.reading import reading_of

UNITS, MASKS = mx.parts(6), mx.sample_masks(6, 40, keep=0.5, seed=0)
SWEEPS = """
tasks = ["ioi", "own.jsonl"]
models = ["tiny", "smollm2-135m"]
ablations = ["mean", "zero"]
seeds = [0, 1]
prompts = 16
order = 2
"""
ROWS = [
    {"prompt": "key cow moon key", "answer": " cow", "distractor": " road",
     "corrupted": "lake cow moon key"},
    {"prompt": "bird road lake bird", "answer": [" road"], "distractor": " cow",
     "corrupted": "moon road lake bird"},
]  # fmt: skip


def measured(masks):
    return np.stack([masks @ np.arange(1.0, 7.0), masks[:, 0] / 3], axis=1)


measured.configuration = {"function": "measured"}  # pyright: ignore[reportFunctionMemberAccess]


def recorded(folder: Path, masks: np.ndarray = MASKS) -> np.ndarray:
    """Values of a run, from its store where they are there."""
    opened = RecordedValues(FunctionValues(measured, UNITS), folder)
    try:
        return opened(masks)
    finally:
        opened.close()


# Stores: whoever reads one, the values are right or there are none.


def store(folder: Path) -> Path:
    recorded(folder / "run")
    return folder / "run" / VALUES


def store_with_log(folder: Path) -> Path:
    """As on a drive whose locks do nothing."""
    locks, stores.locks_hold = stores.locks_hold, lambda _: False
    try:
        recorded(folder / "run")
    finally:
        stores.locks_hold = locks
    return logs_in(folder / "run")[0]


def store_with_ahead(folder: Path) -> Path:
    """As a killed process leaves one: the last commits lie in the write-ahead log."""
    opened = RecordedValues(FunctionValues(measured, UNITS), folder / "open")
    opened(MASKS)
    shutil.copytree(folder / "open", folder / "run")
    opened.close()
    return folder / "run" / f"{VALUES}-wal"


def read_run(file: Path) -> bool:
    """Whether all that any reader gets out of a run is right; each damages a copy of its own."""
    # The reader is drawn by the content, so that an input gives the same answer each time.
    readers: tuple[Callable[[Path, Path], Any], ...] = (again, exported, merged, salvaged, looked)
    content = file.read_bytes()
    reader = readers[sum(content[:: max(1, len(content) // 97)]) % len(readers)]
    copy, new = file.parent.with_name("copy"), file.parent.with_name("new")
    for folder in (copy, new):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(file.parent, copy)
    masks, found = reader(copy, new)
    assert np.array_equal(found, measured(masks)), "a wrong value"
    return True


def again(copy: Path, new: Path) -> tuple[np.ndarray, np.ndarray]:
    return MASKS, recorded(copy)


def exported(copy: Path, new: Path) -> tuple[np.ndarray, np.ndarray]:
    table = ValueTable.of(copy)
    return table.masks, table.values


def merged(copy: Path, new: Path) -> tuple[np.ndarray, np.ndarray]:
    merge([copy], new)
    return exported(new, new)


def salvaged(copy: Path, new: Path) -> tuple[np.ndarray, np.ndarray]:
    salvage(copy, new)
    return exported(new, new)


def looked(copy: Path, new: Path) -> tuple[np.ndarray, np.ndarray]:
    assert str(check_store(copy))
    return MASKS[:0], measured(MASKS[:0])


def export(folder: Path, ending: str) -> Path:
    recorded(folder / "run")
    ValueTable.of(folder / "run").write(folder / f"values.{ending}")
    return folder / f"values.{ending}"


def read_export(file: Path) -> Any:
    table = ValueTable.read(file)
    return table.configuration, table.units, table.outputs, table.masks, table.values


# Answers.


@cache
def result(name: str) -> Result:
    return RESULTS[name]()


def answer(folder: Path, name: str) -> Path:
    result(name).save(folder / "answer.json")
    return folder / "answer.json"


def shown(found: Any) -> Any:
    """The answer, looked at as a reader would."""
    assert str(found)
    assert found.to_pandas() is not None
    assert found._repr_html_()
    assert found.to_record()
    return found


def read_answer(file: Path) -> Any:
    return shown(mx.load(file))


def others(folder: Path, names: list[str]) -> Path:
    """Every other result, in one file: it is read as all of them."""
    write_json(folder / "answers.json", {name: result(name).to_record() for name in names})
    return folder / "answers.json"


# What lies beside the answers of a run.


def questions(folder: Path) -> Path:
    kept = {"a" * 64: {"answer": {"sweep.json": "b" * 64}, "said": ["a line"]}}
    write_json(folder / QUESTIONS, checked({"schema": SCHEMA, "questions": kept}))
    return folder / QUESTIONS


def read_questions(file: Path) -> Any:
    """A file that is damaged holds no questions: they are answered anew."""
    return _read(file)


def cells(folder: Path) -> Path:
    row = {"panel": "a", "series": "b", "x": 1, "y": 2.0, "low": None, "high": None}
    content = {"cells": {"0" * 16: {"rows": [row, row], "seconds": 1.5}}}
    write_json(folder / CELLS, checked(content))
    return folder / CELLS


def read_cells(file: Path) -> Any:
    return _kept(file.parent)


def collected(folder: Path) -> Path:
    mx.sweep(values(), units=values().units, run=folder / "runs" / "one")
    file = folder / "runs" / "one" / EXPERIMENT
    write_json(file, checked({"seed": 3, "command": "sweep"}))
    return file


def read_collected(file: Path) -> Any:
    found = mx.load_runs(file.parents[1])
    return found.rows, found.unread


# What people write themselves.


def text_file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def read_task(file: Path) -> Any:
    task = draw_task(file, FolderTokenizer(TINY), "tiny", n_prompts=4, seed=0)
    return task.prompts, task.answers, task.distractors, task.corrupted, task.metric


def read_table(file: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = reading_of(file, FolderTokenizer(TINY), skip=True).task
    return task.prompts, task.answers, task.distractors, task.corrupted, task.metric


def table(folder: Path, ending: str) -> Path:
    file = folder / f"rows.{ending}"
    if ending == "json":
        file.write_text(json.dumps(ROWS))
    elif ending == "jsonl":
        file.write_text("\n".join(map(json.dumps, ROWS)))
    else:
        apart = "," if ending == "csv" else "\t"
        lines = [list(ROWS[0]), *([str(row[key]) for key in row] for row in ROWS[:1])]
        file.write_text("\n".join(map(apart.join, lines)))
    return file


def read_context(file: Path) -> Any:
    return OwnTexts(context=file, question=["why?"]).texts()


def screened(folder: Path) -> Path:
    mx.screen(values(), "ablation", n_terms=5).to_pandas().to_csv(folder / "sets.csv", index=False)
    return folder / "sets.csv"


def mib(folder: Path) -> Path:
    mx.Circuit(mx.heads("tiny"), (1, 3, 6)).to_mib(folder / "mib.json", "tiny")
    return folder / "mib.json"


def read_mib(file: Path) -> Any:
    return shown(mx.Circuit.from_mib(file))


# Folders of models: all that is looked at before the libraries of models are.


def model(folder: Path, name: str) -> Path:
    shutil.copytree(TINY, folder / "model")
    return folder / "model" / name


def read_folder(file: Path) -> Any:
    check_folder(file.parent)
    if not FolderTokenizer.reads(file.parent):
        return None
    tokenizer = FolderTokenizer(file.parent)
    ids = tokenizer("key cow moon key").input_ids
    return ids, tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.decode(ids)


def index(folder: Path) -> Path:
    shutil.copytree(TINY, folder / "model")
    (folder / "model" / "model.safetensors").rename(folder / "model" / "part.safetensors")
    told = {"metadata": {"total_size": 1}, "weight_map": {"a": "part.safetensors"}}
    write_json(folder / "model" / "model.safetensors.index.json", told)
    return folder / "model" / "model.safetensors.index.json"


# Dictionaries of activations.


def cross_layer(folder: Path, name: str) -> Path:
    return save_cross_layer(folder / "clt", 2, rule="jumprelu", d=4, n=6) / name


def read_cross_layer(file: Path) -> Any:
    read = mx.load_dictionary(file.parent, "blocks.1.mlp.hook_in")
    return read.digest, read.called, len(read.earlier)


def dictionary(folder: Path, name: str) -> Path:
    random_dictionary("blocks.1.hook_resid_post", rule="topk", d=4, n=6).save(folder / "sae")
    return folder / "sae" / name


def read_dictionary(file: Path) -> Any:
    read = mx.load_dictionary(file.parent)
    return read.digest, read.called


SEAL = b'"checksum"'
_SHOWN = {kind.__name__ for kind in KINDS}
OTHERS = [name for name in RESULTS if name not in _SHOWN]
TASK = TINY.parents[2] / "circuits" / "induction.toml"

FILES = [
    FileKind("run store (SQLite)", store, read_run),
    FileKind("its write-ahead log", store_with_ahead, read_run),
    FileKind("its log of rows, where locks do nothing", store_with_log, read_run),
    *(
        FileKind(f"exported values (.{end})", partial(export, ending=end), read_export, b"digest",
                 end == "json")
        for end in ("csv", "json", "safetensors", "parquet")
    ),
    *(
        FileKind(f"answer: {name}", partial(answer, name=name), read_answer, SEAL, True)
        for name in sorted(_SHOWN)
    ),
    *(
        FileKind(f"answer: {name}", partial(answer, name=name),
                 lambda file, name=name: shown(type(result(name)).load(file)), SEAL, True)
        for name in OTHERS
    ),
    FileKind("kept questions (questions.json)", questions, read_questions, b"", True),
    FileKind("cells of a figure (cells.json)", cells, read_cells, SEAL, True),
    FileKind("options of a run (experiment.json)", collected, read_collected, b"", True),
    FileKind("task (TOML)", lambda folder: Path(shutil.copy(TASK, folder)), read_task),
    FileKind("declared sweeps (TOML)", partial(text_file, name="sweeps.toml", text=SWEEPS),
             lambda file: cells_of(read_sweep_file(file))),
    *(
        FileKind(f"prompts (.{end})", partial(table, ending=end), read_table, b"", end == "json")
        for end in ("csv", "tsv", "json", "jsonl")
    ),
    FileKind("a context (.txt)", partial(text_file, name="a.txt", text="A text.\nOf two lines."),
             read_context),
    FileKind("screened sets (.csv)", screened, lambda file: _sets([str(file)])),
    FileKind("circuit of MIB (JSON)", mib, read_mib, b"", True),
    *(
        FileKind(f"cross-layer transcoder: {name}", partial(cross_layer, name=name),
                 read_cross_layer)
        for name in ("config.yaml", "W_enc_0.safetensors", "W_dec_1.safetensors")
    ),
    *(
        FileKind(f"dictionary: {name}", partial(dictionary, name=name), read_dictionary, b"",
                 name == "cfg.json")
        for name in ("cfg.json", "sae_weights.safetensors")
    ),
    FileKind("model: config.json", partial(model, name="config.json"), read_folder, b"", True),
    FileKind("model: model.safetensors", partial(model, name="model.safetensors"), read_folder),
    FileKind("model: its index", index, read_folder, b"", True),
    FileKind("model: tokenizer.json", partial(model, name="tokenizer.json"), read_folder, b"",
             True),
    FileKind("model: tokenizer_config.json", partial(model, name="tokenizer_config.json"),
             read_folder, b"", True),
]  # fmt: skip


def whole(folder: Path, name: str) -> Path:
    from small_models import save_gpt2

    return save_gpt2(folder, n_layers=1) / name


def read_whole(file: Path) -> Any:
    """The model, loaded with its libraries."""
    loaded = mx.load_model(file.parent)
    return {name: tensor.numpy() for name, tensor in loaded.original_model.state_dict().items()}


WHOLE = [
    FileKind(f"{name}, the model loaded", partial(whole, name=name), read_whole, b"", end == "json")
    for name, end in (("config.json", "json"), ("model.safetensors", ""))
]
