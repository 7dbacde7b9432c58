"""The models known by name, and what can be said of any named model before it is loaded."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from mechspex.core.errors import DictionaryError, ModelError
from mechspex.models.folder import check_folder
from mechspex.models.shape import Shape
from mechspex.models.smollm2 import cached_folder

SHIPPED = {
    "tiny": "attention-only, 2 layers × 4 heads, shows induction; ships in the package",
    "smollm2-135m": "SmolLM2-135M-Instruct, 30 layers × 9 heads; fetched once (93 MB)",
}
SHAPES = {
    "tiny": Shape("tiny", n_layers=2, n_heads=4, d_mlp=None, attention_only=True),
    "smollm2-135m": Shape("smollm2-135m", n_layers=30, n_heads=9, d_mlp=1536, n_groups=3),
}

TINY = Path(__file__).parent / "tiny"
# A folder for each dictionary of latents that ships.
DICTIONARIES = Path(__file__).parent / "dictionaries"


def local_folder(name: str | Path) -> Path | None:
    """Where the files of a model lie; None of a Hub name, or of one that is not fetched yet."""
    if name == "tiny":
        return TINY
    if name == "smollm2-135m":
        folder = cached_folder()
        return folder if folder.is_dir() else None
    folder = Path(name).expanduser()
    return folder if folder.is_dir() else None


def dictionary_folder(name: str | Path) -> Path:
    """Where the files of a dictionary lie.

    Args:
        name: the name of a shipped one, or its folder.

    Raises:
        DictionaryError: there is no such folder.
    """
    shipped = sorted(one.name for one in DICTIONARIES.iterdir())
    folder = DICTIONARIES / name if name in shipped else Path(name).expanduser()
    if not folder.is_dir():
        raise DictionaryError(
            f"no folder {str(name)!r}; give the one that holds cfg.json, or the name of a "
            f"shipped dictionary: {', '.join(shipped)}"
        )
    return folder


def check_model_name(name: str | Path, *, needs_tokenizer: bool = True) -> None:
    """Refuse a name, file or folder that cannot be loaded, as far as that shows without loading.

    Args:
        name: a shipped model's name, a folder, a GGUF file or a Hub name.
        needs_tokenizer: whether the tokenizer must be in the folder.

    Raises:
        ModelError: a file that is no GGUF file, a folder that `check_folder` refuses, or a slip of
            a name.
    """
    if name in SHIPPED:
        return
    path = Path(name).expanduser()
    if path.is_dir():
        check_folder(path, needs_tokenizer=needs_tokenizer)
    elif path.is_file():
        _check_file(path)
    elif path.suffix == ".gguf" or path.is_absolute() or str(name).startswith(("./", "../", "~")):
        raise ModelError(f"model {str(name)!r}: there is no such folder or file")
    elif "/" not in str(name) and (near := get_close_matches(str(name).lower(), SHIPPED, 1, 0.65)):
        raise ModelError(f"no model {str(name)!r}; did you mean {near[0]!r}?")


def _check_file(file: Path) -> None:
    with file.open("rb") as opened:
        is_gguf = opened.read(4) == b"GGUF"
    if is_gguf and file.suffix != ".gguf":
        raise ModelError(f"{file} is a GGUF file by its content; rename it to {file.name}.gguf")
    if not is_gguf and file.suffix == ".gguf":
        raise ModelError(f"{file} is no GGUF file, whatever its name; download it again")
    if not is_gguf:
        raise ModelError(f"model {str(file)!r} is a file; give its folder, {str(file.parent)!r}")
