"""The models known by name, and what can be said of any named model before it is loaded."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mechspex.core.errors import ModelError
from mechspex.models.shape import Shape
from mechspex.models.smollm2 import cached_folder

SHIPPED = {
    "tiny": "attention-only, 2 layers × 4 heads, shows induction; ships in the package",
    "smollm2-135m": "SmolLM2-135M-Instruct, 30 layers × 9 heads; fetched once (93 MB)",
}
SHAPES = {
    "tiny": Shape("tiny", n_layers=2, n_heads=4, d_mlp=None, attention_only=True),
    "smollm2-135m": Shape("smollm2-135m", n_layers=30, n_heads=9, d_mlp=1536),
}

TINY = Path(__file__).parent / "tiny"
# Any of these makes a tokenizer; without one transformers makes up an empty one.
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "sentencepiece.bpe.model", "vocab.model", "tiktoken.model", "tekken.json",
)  # fmt: skip


def local_folder(name: str | Path) -> Path | None:
    """Where the files of a model lie; None of a Hub name, or of one that is not fetched yet."""
    if name == "tiny":
        return TINY
    if name == "smollm2-135m":
        folder = cached_folder()
        return folder if folder.is_dir() else None
    return Path(name) if Path(name).is_dir() else None


def check_model_name(name: str | Path) -> None:
    """Refuse a name or folder that cannot be loaded, as far as that shows without loading.

    Raises:
        ModelError: a file, a folder that lacks config, weights or tokenizer, or a slip of a name.
    """
    if name in SHIPPED:
        return
    path = Path(name)
    if path.is_dir():
        _check_folder(path)
    elif path.is_file():
        raise ModelError(f"model {str(name)!r} is a file; give its folder, {str(path.parent)!r}")
    elif near := get_close_matches(str(name).lower(), SHIPPED, 1, 0.65):
        raise ModelError(f"no model {str(name)!r}; did you mean {near[0]!r}?")
    elif path.is_absolute() or str(name).startswith(("./", "../", "~")):
        raise ModelError(f"model {str(name)!r}: there is no such folder")


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"folder {folder} has no config.json; give a folder of save_pretrained()")
    weights = ("model.safetensors", "model.safetensors.index.json")
    if not any((folder / name).is_file() for name in weights):
        found = sorted(path.name for path in folder.glob("*.bin"))
        has = f"only {', '.join(found)}" if found else "no weights"
        raise ModelError(
            f"folder {folder} has {has}; pickled weights are never read: save it as safetensors "
            "with model.save_pretrained(folder)"
        )
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ModelError(
            f"folder {folder} has no tokenizer; save it there with "
            "tokenizer.save_pretrained(folder)"
        )
