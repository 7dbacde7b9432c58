"""The choices of options are those of the library, in the order of its tables."""

from typing import get_args

from mechspex.circuits.goal import Objective
from mechspex.cli import choices
from mechspex.components.precision import AUTO, PRECISIONS
from mechspex.components.references import ABLATIONS
from mechspex.decoders import DECODERS
from mechspex.explanation.designs import DesignName
from mechspex.prompts.asked import ABLATIONS as REMOVALS
from mechspex.prompts.scoring import METRICS as SCORES
from mechspex.prompts.words import PARTITIONS
from mechspex.screening.methods import MethodName
from mechspex.truth import KNOWN_MODELS


def test_choices_are_what_the_library_takes():
    assert {*get_args(choices.Ablation)} == {*ABLATIONS}
    assert get_args(choices.Partition) == PARTITIONS
    assert get_args(choices.Removal) == REMOVALS
    assert get_args(choices.Score) == (*SCORES,)
    assert get_args(choices.Precision) == (*PRECISIONS, AUTO)
    assert {*get_args(choices.Decoder)} == {*DECODERS}
    assert get_args(choices.Design) == get_args(DesignName)
    assert get_args(choices.Screen) == get_args(MethodName)
    assert get_args(choices.ScreenOrNone) == (*get_args(MethodName), "none")
    assert get_args(choices.Objective) == get_args(Objective)
    assert [*choices.KnownModel] == [*KNOWN_MODELS]
    assert {*choices.BenchAblation} < {*ABLATIONS}
