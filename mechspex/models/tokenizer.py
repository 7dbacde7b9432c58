"""Tokenizers: what is asked of one, a model's own, and a light one that needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from mechspex.core.checks import quoted
from mechspex.core.errors import ModelError
from mechspex.models.folder import read_fields

# Of these classes of transformers the file tokenizer.json is all there is; others change it.
_PLAIN = ("TokenizersBackend", "PreTrainedTokenizerFast")
# The classes are believed for these models alone: for some others (Qwen2, Phi-3) transformers
# takes a class of its own, whatever the folder names. The tiny model has no type.
_BELIEVED = (None, "llama", "gpt2", "gpt_neox", "opt", "gemma2", "gemma3_text")
_NAMED = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "cls_token",
    "sep_token",
    "mask_token",
)


@runtime_checkable
class Tokenizer(Protocol):
    """What drawing and reading prompts asks of a tokenizer; those of transformers have it."""

    if TYPE_CHECKING:
        # Transformers answers these by __getattr__, which isinstance does not see from 3.12 on.
        @property
        def bos_token_id(self) -> int | None: ...

        @property
        def unk_token_id(self) -> int | None: ...

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Any:
        """The token ids of a text, as `input_ids` of what is returned."""
        ...

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The tokens of such ids."""
        ...


@dataclass(frozen=True)
class Encoded:
    """A text in token ids."""

    input_ids: list[int]


def own_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer as its folder has it, for the one that a bridge carries.

    A bridge makes the tokenizer of its model anew: it then puts a BOS token before every text,
    which many folders do not, and loses other templates (``[CLS] … [SEP]``). The token ids of what
    comes back are those of ``AutoTokenizer.from_pretrained(folder)(text)``. For a bridge that
    `load_model` did not make, the folder is read again; where it is not known, or for a tokenizer
    that no bridge changed, the same tokenizer comes back.

    Args:
        tokenizer: `model.tokenizer`, or any other.
    """
    if isinstance(tokenizer, FolderTokenizer):
        return tokenizer
    if tokenizer not in _own:
        _own[tokenizer] = _read_again(tokenizer)
    return _own[tokenizer] or tokenizer


def tokenizer_for_bridge(own: Any) -> Any:
    """A copy of a tokenizer of transformers for a bridge to change; `own_tokenizer` gives `own`."""
    changed = copy.deepcopy(own)
    changed.init_kwargs.setdefault("name_or_path", "")
    if changed.bos_token is not None:
        # Else the bridge would read the folder again for it, and there may be none.
        with suppress(ValueError):  # a BOS token that templates cannot express
            changed.add_bos_token = True
    _own[changed] = own
    return changed


# {the tokenizer of a bridge: the same as its folder has it; None where that is not known}
_own: WeakKeyDictionary[Any, Tokenizer | None] = WeakKeyDictionary()


def _read_again(tokenizer: Any) -> Tokenizer | None:
    """The tokenizer of the same folder; None if there is none, or no bridge made this one anew."""
    from transformers import AutoTokenizer, PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.name_or_path:
        return None
    if not tokenizer.init_kwargs.get("add_bos_token"):
        return None
    try:
        own = AutoTokenizer.from_pretrained(tokenizer.name_or_path, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    # Another tokenizer may lie there by now; a bridge only adds tokens.
    return own if own.get_vocab().items() <= tokenizer.get_vocab().items() else None


class FolderTokenizer:
    """The tokenizer of a model's folder, in milliseconds.

    Its token ids are those of `own_tokenizer` of the loaded model.

    Args:
        folder: holds ``tokenizer.json`` and ``tokenizer_config.json``.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Rust

        file = folder / "tokenizer.json"
        try:
            self._rust = Rust.from_file(str(file))
        except Exception as error:  # the library raises nothing more special
            raise ModelError(
                f"{file} is no tokenizer ({error}); save it there with "
                "tokenizer.save_pretrained(folder)"
            ) from None
        # A text is read as it is, whatever batches the file was last used for.
        self._rust.no_padding()
        self._rust.no_truncation()
        self._config = read_fields(folder / "tokenizer_config.json")
        self._bos, self._unk = self._special("bos_token"), self._special("unk_token")

    @staticmethod
    def reads(folder: Path) -> bool:
        """Whether the folder's tokenizer is wholly told by its ``tokenizer.json``."""
        try:
            described = read_fields(folder / "tokenizer.json")
            config = read_fields(folder / "tokenizer_config.json")
            model = read_fields(folder / "config.json")
            if config.get("tokenizer_class") not in _PLAIN:
                return False
            if model.get("model_type") not in _BELIEVED:
                return False
            if "auto_map" in config or config.get("split_special_tokens"):
                return False
            # Transformers adds what is declared special and is not so in the file.
            named = {_content(config[name]) for name in _NAMED if config.get(name) is not None}
            named |= {_content(token) for token in config.get("extra_special_tokens") or ()}
            return named <= {token["content"] for token in described.get("added_tokens", ())}
        except (ModelError, TypeError, KeyError):  # transformers may know better what it says
            return False

    @property
    def bos_token_id(self) -> int | None:
        return self._bos

    @property
    def unk_token_id(self) -> int | None:
        return self._unk

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Encoded:
        try:
            return Encoded(self._rust.encode(text, add_special_tokens=add_special_tokens).ids)
        except BaseException as error:
            # The library panics, which is no Exception, on files that contradict themselves.
            if type(error).__name__ != "PanicException":
                raise
            raise ModelError(
                f"the tokenizer cannot read {quoted(text)} ({error}); save it anew with "
                "tokenizer.save_pretrained(folder)"
            ) from None

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [str(self._rust.id_to_token(number)) for number in ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of such ids."""
        return self._rust.decode(list(ids), skip_special_tokens=False)

    def _special(self, name: str) -> int | None:
        token = self._config.get(name)
        return None if token is None else self._rust.token_to_id(_content(token))


def _content(token: Any) -> str:
    """The text of a special token as configurations write it."""
    return token["content"] if isinstance(token, dict) else str(token)
