"""``--units latents:…``: latents of a dictionary, as the shell names them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechspex.core.errors import Refused

_BEGINS = "latents:"
_NAMED = re.compile(
    r"latents:(?P<folder>[^@]+?)(?::(?:top(?P<top>\d+)|(?P<numbers>\d+(?:,\d+)*)))?"
    r"(?:@(?P<hook>blocks\.\d+\.[\w.]+))?(?:@(?P<place>[^@]+))?"
)
# So many are chosen where no number is given, as by `mx.latents`.
_USUAL = 64


@dataclass(frozen=True)
class NamedLatents:
    """Latents of one dictionary, and its error term.

    Attributes:
        folder: where the dictionary lies, or the name of a shipped one.
        hook: the hook point of what it reads, where its files do not say so.
        numbers: the latents; chosen by prompts if None.
        most: how many are chosen at most, those that are most active.
        place: the position or span at which they are ablated; all positions if None.
    """

    folder: str
    hook: str | None = None
    numbers: tuple[int, ...] | None = None
    most: int = _USUAL
    place: int | str | None = None

    @classmethod
    def read(cls, text: str) -> NamedLatents:
        """The latents that ``latents:FOLDER:top200@blocks.3.hook_resid_mid@end`` names.

        Raises:
            Refused: it is not written so.
        """
        found = _NAMED.fullmatch(text)
        if found is None or found["top"] == "0":
            raise Refused(
                f"--units {text!r}: write latents:FOLDER, or the name of a shipped dictionary; "
                "behind it :top200 for how many, or :12,40 for which, and @HOOK, @SPAN"
            )
        numbers, place = found["numbers"], found["place"]
        whole = place is not None and place.removeprefix("-").isdecimal()
        return cls(
            found["folder"],
            found["hook"],
            None if numbers is None else tuple(map(int, numbers.split(","))),
            int(found["top"] or _USUAL),
            int(place) if place is not None and whole else place,
        )

    @property
    def path(self) -> Path:
        """The folder of the dictionary.

        Raises:
            DictionaryError: there is none.
        """
        from mechspex.models.shipped import dictionary_folder

        return dictionary_folder(self.folder)

    @property
    def at_most(self) -> int:
        """How many units they are at most."""
        return 1 + (self.most if self.numbers is None else len(self.numbers))

    @property
    def in_short(self) -> str:
        """The same without the folders above its own, for the name of a run."""
        return f"latents-{Path(self.folder).name}"

    def units(self, model: Any, searched: Any) -> Any:
        """The latents as units of a model.

        Args:
            model: the model, loaded.
            searched: the prompts by which they are chosen.
        """
        import mechspex as mx

        spans = self.place if isinstance(self.place, str) else None
        positions = self.place if isinstance(self.place, int) else None
        dictionary = mx.load_dictionary(self.folder, self.hook)
        options: dict[str, Any] = {"task": searched, "n_latents": self.most}
        if self.numbers is not None:
            options = {"chosen": self.numbers}
        return mx.latents(model, dictionary, **options, positions=positions, spans=spans)


def split_latents(units: str) -> tuple[str, tuple[NamedLatents, ...]]:
    """What a sum names beside latents, and these: ``heads+latents:smollm2-135m-l15``.

    Raises:
        Refused: latents that are not written as `NamedLatents.read` has them.
    """
    parts = units.split("+")
    latents = [part.strip() for part in parts if part.strip().startswith(_BEGINS)]
    others = "+".join(part for part in parts if not part.strip().startswith(_BEGINS))
    return others, tuple(map(NamedLatents.read, latents))
