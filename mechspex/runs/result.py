"""Results that a run keeps: `load` finds them by the name of their run."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, TypeVar

from mechspex.core.checks import PATH
from mechspex.core.doors import door
from mechspex.core.errors import Refused
from mechspex.core.result import Result
from mechspex.runs.run import named_folder

# `typing.Self` is refused by the checks of types in the tests.
K = TypeVar("K", bound="RunResult")


class RunResult(Result):
    """A result with a file of its own in the folder of a run.

    Attributes:
        file: the name of that file.
        made_by: the command that writes it.
    """

    file: ClassVar[str]
    made_by: ClassVar[str]

    def save(self, path: str | Path) -> None:
        """Write the result as JSON.

        Args:
            path: a folder, in which it gets its own name; or the file to write.

        Raises:
            StoreError: the file cannot be written.
        """
        path = Path(path)
        super().save(path / self.file if path.is_dir() else path)

    @classmethod
    @door(path=PATH)
    def load(cls: type[K], path: str | Path) -> K:
        """Read what `save` wrote, or a run has kept.

        Args:
            path: the name of a run, its folder, or a file.

        Raises:
            Refused: no such run or file, or one that holds no result of this kind.
        """
        file = cls.find(path)
        return cls._read(file)._in_folder(file.parent)

    @classmethod
    def find(cls, path: str | Path) -> Path:
        """The file of a result of this kind, from the name of its run, a folder or a file.

        Raises:
            Refused: the folder has none.
        """
        file = Path(path)
        if file.is_file() or file.suffix == ".json":
            return file
        folders = [file, *([] if isinstance(path, Path) else named_folder(path))]
        for folder in folders:
            if (folder / cls.file).exists():
                return folder / cls.file
        raise Refused(f"{folders[-1]} holds no {cls.called}; run {cls.made_by} first")

    def _in_folder(self: K, folder: Path) -> K:
        """The same, knowing where it lies; of results that have a folder."""
        return self
