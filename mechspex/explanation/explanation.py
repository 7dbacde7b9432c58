"""What a run found: the recovered function, its held-out scores, and its validated terms."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechspex.core.json_values import plain, plain_rows, write_json
from mechspex.core.statistics import rank_correlation
from mechspex.core.units import Term, Unit, UnitSet
from mechspex.effects.validation import Validation
from mechspex.errors import Refused
from mechspex.recovery.recovery import Recovery
from mechspex.runs.cost import Cost
from mechspex.runs.run import EXPLANATION
from mechspex.runs.text import effect_tables, last_lines, strongest, subject
from mechspex.screening import Screening
from mechspex.set_functions.set_function import SetFunction
from mechspex.set_functions.structure import Structure, structure_of

SCHEMA = "mechspex.explanation/2"

# The structure is that of this many terms. It is printed if their sets are small enough to read.
_MOST_TERMS, _LARGEST_READABLE = 2_000, 6
# Rows of each table in the text, where a screen has made them many.
_SHOWN = 30


@dataclass(frozen=True)
class Explanation:
    """Which units act alone, which act together, and how sure that is.

    Attributes:
        units: what the masks' columns stand for.
        outputs: names of the value's columns (prompts).
        configuration: everything the values depend on but the mask.
        settings: all that the answer depends on besides the values: budget, density, seeds,
            versions.
        clean, ablated: the value with everything kept and with everything ablated, mean over
            outputs.
        recovery: the recovered set function and its held-out scores.
        validation: the strongest terms, measured exactly.
        cost: how many masks and seconds it took.
        folder: the run's folder; None where values were kept in memory.
        screening: the screen that came first, if one did; `units` are then its survivors.
        in_contexts: the confirmed terms, measured among random masks of the other units; None if
            that was not asked for. The terms were chosen on the same outputs, so these intervals
            are no second test: they show how far the effects spread.
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
    screening: Screening | None = None
    in_contexts: Validation | None = None

    @property
    def function(self) -> SetFunction:
        """The recovered set function, mean over outputs."""
        return self.recovery.function

    @property
    def r2(self) -> float:
        """The function's R² on fresh masks."""
        return self.recovery.r2

    @property
    def additive_r2(self) -> float:
        """R² on the same fresh masks of the best function of singles."""
        return self.recovery.additive_r2

    @property
    def non_additive_share(self) -> float:
        """The share of the variance left by singles that interactions explain, on fresh masks."""
        return self.recovery.non_additive_share

    @cached_property
    def structure(self) -> Structure:
        """Energy by order and layer, synergy, redundancy and hierarchy of the largest terms."""
        known = all(unit.kind != "part" for unit in self.units)
        layers = [unit.layer for unit in self.units] if known else None
        return structure_of(self.function.truncate(_MOST_TERMS), layers)

    def to_pandas(self) -> pd.DataFrame:
        """The validated terms: exact effect and interval, and beside them the recovered effect.

        Both are in the ``ablated`` basis: a single is the effect of ablating that unit, a pair the
        joint effect less the single ones. ``in_contexts``, where it was asked for, is the mean
        effect of a confirmed term among random masks of the other units.
        """
        frame = self.validation.to_pandas()
        recovered = self.function.to_basis("ablated").to_mapping()
        frame["recovered"] = [recovered.get(term, 0.0) for term in self.validation.terms]
        if self.in_contexts is not None:
            around = zip(self.in_contexts.terms, self.in_contexts.effects.tolist(), strict=True)
            effect = dict(around)
            frame["in_contexts"] = [effect.get(t, np.nan) for t in self.validation.terms]
        return frame

    def singles(self) -> pd.DataFrame:
        """The validated single units, strongest first."""
        return strongest(self.to_pandas().query("order == 1"))

    def interactions(self) -> pd.DataFrame:
        """The validated sets of two and more units, strongest first."""
        return strongest(self.to_pandas().query("order > 1"))

    def ablated_effects(self) -> dict[Term, float]:
        """{term: its coefficient in the ``ablated`` basis, mean over outputs}."""
        return self.function.ablated_effects()

    @property
    def single_effects(self) -> Float[np.ndarray, " unit"]:
        """The recovered effect of ablating each unit alone, in the order of `units`."""
        effects = self.function.to_basis("ablated").to_mapping()
        return np.array([effects.get((column,), 0.0) for column in range(len(self.units))])

    @property
    def confirmed_singles(self) -> tuple[int, ...]:
        """Columns of the units whose exact effect is confirmed."""
        return self.validation.confirmed_singles

    def __str__(self) -> str:
        last = last_lines(
            self.cost,
            len(self.outputs),
            level=self.validation.level,
            tested=f"{len(self.validation.terms)} terms tested",
            folder=self.folder,
        )
        most = None if self.screening is None else _SHOWN
        table = effect_tables(self.to_pandas(), beside="recovered", most=most)
        return "\n".join([*self._headline(), *table, *last])

    def _headline(self) -> list[str]:
        recovery = self.recovery
        lines = [
            subject(self.configuration, self.units),
            f"clean {self.clean:+.3f}   all ablated {self.ablated:+.3f}   "
            f"(mean over {len(self.outputs)} outputs)",
            *self._screen_lines(),
            recovery.scores,
        ]
        if recovery.n_failed:
            lines.append(f"{recovery.n_failed} masks had no finite value and were left out")
        if self.validation.failed.any():
            lines.append(
                f"{np.count_nonzero(self.validation.failed)} terms could not be tested: "
                "some of their masks have no finite value"
            )
        if self.in_contexts is not None:
            lines.append(self._context_line(self.in_contexts))
        lines += recovery.notices
        if 1 <= self.function.max_order <= _LARGEST_READABLE:
            lines.append(self.structure.summary)
        if not self.validation.terms:
            lines.append("nothing depends on the mask: no terms to report")
        return lines

    def _context_line(self, around: Validation) -> str:
        exact = dict(zip(self.validation.terms, self.validation.effects.tolist(), strict=True))
        pairs = zip(around.terms, around.effects.tolist(), around.confirmed, strict=True)
        held = sum(bool(holds) and effect * exact[term] > 0 for term, effect, holds in pairs)
        return (
            f"among {self.settings['contexts']} random masks of the other units {held} of the "
            f"{len(around.terms)} confirmed terms keep their sign, beyond their intervals there"
        )

    def _screen_lines(self) -> list[str]:
        screening = self.screening
        if screening is None:
            return []
        lines = [str(screening)]
        if screening.agreement is not None:
            lines.append(f"the proxy agrees with the model {screening.agreement}")
        lines.append(self._agreement())
        return lines if screening.missed is None else [*lines, str(screening.missed)]

    def _agreement(self) -> str:
        """How well the screen's predictions agree with the exact effects of its proposals."""
        assert self.screening is not None
        validation = self.validation
        exact = dict(zip(validation.terms, validation.effects, strict=True))
        confirmed = dict(zip(validation.terms, validation.confirmed, strict=True))
        terms = self.screening.terms
        held = sum(bool(confirmed[term]) for term in terms)
        line = f"{len(terms):,} proposals tested exactly, {held:,} confirmed"
        if len(terms) < 3:
            return line
        measured = np.array([exact[term] for term in terms])
        scores = np.array(self.screening.scores)
        r = rank_correlation(scores, measured)
        signs = float(np.mean(np.sign(scores) == np.sign(measured)))
        return f"{line}; rank correlation with what was predicted {r:.2f}, same sign {signs:.0%}"

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
            "clean": plain(self.clean),
            "ablated": plain(self.ablated),
            "recovery": plain(recovery.to_dict()),
            "terms": plain_rows(self.to_pandas()),
            "validation": plain(validation.to_dict()),
            "in_contexts": None if self.in_contexts is None else plain(self.in_contexts.to_dict()),
            "cost": asdict(self.cost),
            "screening": None if self.screening is None else asdict(self.screening),
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
        around = record.get("in_contexts")
        return cls(
            units=units,
            outputs=tuple(record["outputs"]),
            recovery=Recovery.from_dict(record["recovery"]),
            validation=Validation.from_dict(units, record["validation"]),
            in_contexts=None if around is None else Validation.from_dict(units, around),
            cost=Cost(**record["cost"]),
            folder=folder,
            clean=_number(record["clean"]),
            ablated=_number(record["ablated"]),
            configuration=record["configuration"],
            settings=record["settings"],
            # Answers that were kept before there were screens have no such entry.
            screening=None
            if record.get("screening") is None
            else Screening.from_dict(record["screening"]),
        )


def _number(stored: float | None) -> float:
    return float("nan") if stored is None else stored
