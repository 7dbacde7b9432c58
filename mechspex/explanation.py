"""What a run found: the recovered function, its held-out scores, and its validated terms."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechspex.errors import Refused
from mechspex.runs import EXPLANATION, write_json
from mechspex.scores import non_additive_share
from mechspex.set_function import SetFunction
from mechspex.units import Unit, UnitSet
from mechspex.validation import Validation

SCHEMA = "mechspex.explanation/1"
# What tells two configurations apart, and no reader.
_DIGEST = re.compile(r" [0-9a-f]{16}$")


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        masks: different masks whose values the answer rests on.
        measured: those measured by this call; the others were in the store.
        seconds_measuring, seconds: of this call, spent in the value function and in all.
    """

    masks: int
    measured: int
    seconds_measuring: float
    seconds: float


@dataclass(frozen=True)
class Recovery:
    """A recovered set function and how well it predicts.

    Attributes:
        function: of the mean over outputs.
        additive: the best function of singles from the same masks.
        r2, additive_r2: R² of both on `n_test` masks that neither has seen; where all 2^n masks
            were measured (`n_test` = 0), R² over all of them.
        n_train, n_test, n_failed: masks decoded, held out, and left out as not finite.
    """

    function: SetFunction
    additive: SetFunction
    r2: float
    additive_r2: float
    n_train: int
    n_test: int
    n_failed: int

    @property
    def non_additive_share(self) -> float:
        """How much of what singles leave unexplained the interactions explain."""
        return non_additive_share(self.r2, self.additive_r2)

    @property
    def exact(self) -> bool:
        """Whether all 2^n masks were measured, so that nothing is estimated."""
        return self.n_test == 0


@dataclass(frozen=True)
class Explanation:
    """Which units act alone, which act together, and how sure that is.

    Attributes:
        units: what the masks' columns stand for.
        outputs: names of the value's columns (prompts).
        configuration: everything the values depend on but the mask.
        settings: budget, density, seeds, versions: what the answer depends on beyond the values.
        clean, ablated: the value with everything kept and with everything ablated, mean over
            outputs.
        recovery: the recovered set function and its held-out scores.
        validation: the strongest terms, measured exactly.
        cost: what it took.
        folder: of the run; None where values were kept in memory.
    """

    units: UnitSet
    outputs: tuple[str, ...]
    configuration: dict[str, str]
    settings: dict[str, Any]
    clean: float
    ablated: float
    recovery: Recovery
    validation: Validation
    cost: Cost
    folder: Path | None = None

    @property
    def function(self) -> SetFunction:
        """The recovered set function, mean over outputs."""
        return self.recovery.function

    @property
    def r2(self) -> float:
        """Its R² on fresh masks."""
        return self.recovery.r2

    @property
    def additive_r2(self) -> float:
        """R² on the same fresh masks of the best function of singles."""
        return self.recovery.additive_r2

    @property
    def non_additive_share(self) -> float:
        """How much of what singles leave unexplained the interactions explain, held out."""
        return self.recovery.non_additive_share

    def to_pandas(self) -> pd.DataFrame:
        """The validated terms: exact effect and interval, and beside it what was recovered.

        Both in the ``ablated`` basis: a single is the effect of ablating that unit, a pair the
        joint effect less the single ones.
        """
        frame = self.validation.to_pandas()
        recovered = self.function.to_basis("ablated").to_mapping()
        frame["recovered"] = [recovered.get(term, 0.0) for term in self.validation.terms]
        return frame

    def singles(self) -> pd.DataFrame:
        """The validated single units, strongest first."""
        return self._strongest(self.to_pandas().query("order == 1"))

    def interactions(self) -> pd.DataFrame:
        """The validated sets of two and more units, strongest first."""
        return self._strongest(self.to_pandas().query("order > 1"))

    @staticmethod
    def _strongest(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.sort_values("effect", key=np.abs, ascending=False, ignore_index=True)

    def __str__(self) -> str:
        return "\n".join([*self._headline(), *self._table(), *self._closing()])

    def _headline(self) -> list[str]:
        keys = ("task", "model", "units", "ablation", "metric")
        named = [self.configuration[key] for key in keys if key in self.configuration]
        what = " · ".join(_DIGEST.sub("", name) for name in named) or self.units.description
        recovery = self.recovery
        score = (
            f"exact: all {recovery.n_train:,} masks measured"
            if recovery.exact
            else f"held-out R² {self.r2:.3f} on {recovery.n_test:,} fresh masks, "
            f"decoded from {recovery.n_train:,}"
        )
        lines = [
            what,
            f"clean {self.clean:+.3f}   all ablated {self.ablated:+.3f}   "
            f"(mean over {len(self.outputs)} outputs)",
            score,
            f"additive R² {self.additive_r2:.3f}   non-additive share {self.non_additive_share:.2f}"
            "  (of what singles leave over, explained by interactions)",
        ]
        if recovery.n_failed:
            lines.append(f"{recovery.n_failed} masks had no finite value and were left out")
        if self.validation.failed.any():
            lines.append(
                f"{np.count_nonzero(self.validation.failed)} terms could not be tested: "
                "some of their masks have no finite value"
            )
        lines += list(self.function.notes)
        if not self.validation.terms:
            lines.append("nothing depends on the mask: no terms to report")
        return lines

    def _table(self) -> list[str]:
        lines: list[str] = []
        for title, frame in (
            ("units alone: effect of ablating one", self.singles()),
            (
                "units together: joint effect less what the smaller sets predict",
                self.interactions(),
            ),
        ):
            if not len(frame):
                continue
            width = max(len(units) for units in frame["units"])
            held = np.count_nonzero(frame["confirmed"])
            lines += [
                "",
                f"{title} (basis: ablated; {held} of {len(frame)} confirmed)",
                f"  {'':{width}} order   exact   interval         recovered",
            ]
            lines += [
                f"  {row['units']:{width}} {row['order']:5d} {row['effect']:+7.3f}   "
                f"[{row['low']:+.2f}, {row['high']:+.2f}] {row['recovered']:+10.3f}"
                f"{'' if row['confirmed'] else '   not confirmed'}"
                for row in frame.to_dict("records")
            ]
        return lines

    def _closing(self) -> list[str]:
        cost, n_outputs = self.cost, len(self.outputs)
        rate = cost.measured * n_outputs / max(cost.seconds_measuring, 1e-9)
        lines = [
            "",
            f"intervals over outputs; false discovery rate {self.validation.level:g} among the "
            f"{len(self.validation.terms)} terms tested",
        ]
        lines.append(
            f"{cost.masks:,} masks × {n_outputs} outputs = {cost.masks * n_outputs:,} forwards, "
            f"{cost.measured:,} masks measured now in {cost.seconds_measuring:.0f} s"
            + (f" ({rate:.0f} values/s)" if cost.measured else "")
            + f"; {cost.seconds:.0f} s in all"
        )
        if self.folder is not None:
            lines.append(f"saved in {self.folder}")
        return lines

    def _repr_html_(self) -> str:
        scores = (
            f"<p>clean {self.clean:+.3f}, all ablated {self.ablated:+.3f}; R² {self.r2:.3f}, "
            f"additive R² {self.additive_r2:.3f}, "
            f"non-additive share {self.non_additive_share:.2f}</p>"
        )
        style = {"index": False, "float_format": "{:+.3f}".format}
        return scores + self.singles().to_html(**style) + self.interactions().to_html(**style)

    def to_dict(self) -> dict[str, Any]:
        """The explanation as plain numbers and lists, with a schema name; JSON can hold it."""
        recovery, validation = self.recovery, self.validation
        return {
            "schema": SCHEMA,
            "units": [list(unit) for unit in self.units],
            "outputs": list(self.outputs),
            "configuration": self.configuration,
            "settings": self.settings,
            "clean": _plain(self.clean),
            "ablated": _plain(self.ablated),
            "recovery": {
                "r2": _plain(recovery.r2),
                "additive_r2": _plain(recovery.additive_r2),
                "non_additive_share": _plain(recovery.non_additive_share),
                "n_train": recovery.n_train,
                "n_test": recovery.n_test,
                "n_failed": recovery.n_failed,
                "function": recovery.function.to_dict(),
                "additive": recovery.additive.to_dict(),
            },
            "terms": [
                {key: _plain(value) for key, value in row.items()}
                for row in self.to_pandas().to_dict("records")
            ],
            "validation": {
                "terms": [list(term) for term in validation.terms],
                "output_effects": _plain(validation.output_effects),
                "intervals": _plain(validation.intervals),
                "level": validation.level,
            },
            "cost": asdict(self.cost),
        }

    def save(self, folder: Path) -> None:
        """Write ``explanation.json`` and ``terms.csv`` into a run's folder."""
        write_json(folder / EXPLANATION, self.to_dict())
        self.to_pandas().to_csv(folder / "terms.csv", index=False)

    @classmethod
    def load(cls, folder: str | Path) -> Explanation:
        """Read what `save` wrote.

        Raises:
            Refused: no explanation in that folder, or one of another schema.
        """
        path = Path(folder) / EXPLANATION
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise Refused(f"{folder} holds no explanation; run mechspex explain first") from None
        except (ValueError, RecursionError) as error:
            raise Refused(f"{path} is not JSON ({error})") from None
        try:
            return cls._from_record(record, Path(folder))
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise Refused(f"{path} is incomplete or malformed ({error!r})") from None

    @classmethod
    def _from_record(cls, record: Any, folder: Path) -> Explanation:
        found = record.get("schema") if isinstance(record, dict) else None
        if found != SCHEMA:
            raise Refused(f"{folder} has schema {found!r}, this version reads {SCHEMA!r}")
        units = UnitSet(tuple(Unit(*unit) for unit in record["units"]))
        stored = record["validation"]
        intervals = np.array(stored["intervals"], dtype=np.float64).reshape(-1, 2)
        validation = Validation(
            units=units,
            terms=tuple(tuple(term) for term in stored["terms"]),
            output_effects=np.array(stored["output_effects"], dtype=np.float64).reshape(
                len(stored["terms"]), len(record["outputs"])
            ),
            intervals=intervals,
            confirmed=(intervals[:, 0] > 0) | (intervals[:, 1] < 0),
            level=stored["level"],
        )
        recovered = record["recovery"]
        recovery = Recovery(
            function=SetFunction.from_dict(recovered["function"]),
            additive=SetFunction.from_dict(recovered["additive"]),
            r2=_number(recovered["r2"]),
            additive_r2=_number(recovered["additive_r2"]),
            **{key: recovered[key] for key in ("n_train", "n_test", "n_failed")},
        )
        return cls(
            units=units,
            outputs=tuple(record["outputs"]),
            recovery=recovery,
            validation=validation,
            cost=Cost(**record["cost"]),
            folder=folder,
            clean=_number(record["clean"]),
            ablated=_number(record["ablated"]),
            configuration=record["configuration"],
            settings=record["settings"],
        )


def _number(stored: float | None) -> float:
    return float("nan") if stored is None else stored


def _plain(value: Any) -> Any:
    """Numbers and lists of the standard library; what is not finite becomes null."""
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
