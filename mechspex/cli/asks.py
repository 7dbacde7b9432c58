"""The options of an experiment as those of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, get_type_hints

import typer

from mechspex.cli.experiment import Experiment
from mechspex.cli.own_texts import OwnTexts
from mechspex.cli.search import Search
from mechspex.cli.training import explain_training
from mechspex.core.errors import Refused

# The options that say what becomes of the answer.
_OUTPUT = ("csv", "figure", "run", "as_json")
# Which options were typed.
_TYPED = inspect.Parameter("typed", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def asks(
    *,
    without: Iterable[str] = (),
    sets: str = "",
    texts: bool = False,
    searches: bool = False,
    named: Iterable[tuple[str, str]] = (),
    silences: Mapping[str, Iterable[str]] | None = None,
    **defaults: Any,
) -> Callable[..., Callable[..., None]]:
    """Splice the options of an `Experiment` into a command, whose first parameter takes it.

    The experiment is checked before the command begins.

    Args:
        without: options that this command does not have.
        sets: the command's own argument, a list; it begins in the task's place where prompts are
            of one's own.
        texts: whether its units may be parts of a text.
        searches: whether it has the options of a `Search`.
        named: options of the command's own, and the options of the experiment that they are.
        silences: {an option of the command's own: options that say nothing beside it}; where they
            were typed they are refused.
        **defaults: this command's own defaults of options.
    """

    def spliced(command: Callable[..., None]) -> Callable[..., None]:
        # The command's own parameters follow those of the experiment.
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        rare = {OwnTexts: texts, Search: searches}
        others = {o.name for options, has in rare.items() if not has for o in fields(options)}
        left_out = {*without, *others}
        shared = [option for option in _options(defaults) if option.name not in left_out]

        @wraps(command)
        def run(**given: Any) -> None:
            typed = given.pop(_TYPED.name)
            _refuse_silent(silences or {}, given, typed)
            asked = {"command": command.__name__, **given}
            chosen = {option.name: given.pop(option.name) for option in shared}
            if chosen.get("training") is not None:
                # Without model and prompts.
                explain_training(Experiment(**defaults | chosen, asked=asked), given)
                return
            chosen |= {option: given[own] for own, option in named}
            if sets and chosen["task"] and (chosen["prompts_from"] or chosen["prompt"]):
                given[sets] = [chosen.pop("task"), *(given[sets] or ())]
                asked |= {"task": None, sets: given[sets]}
            experiment = Experiment(**defaults | chosen, asked=asked)
            experiment.check()
            command(experiment, **given)

        own = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in own]
        # What belongs to the output stands at the end of the help.
        output = [option for option in shared if option.name in _OUTPUT]
        parameters = [_TYPED, *(o for o in shared if o not in output), *own, *output]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in parameters}
        return run

    return spliced


def _refuse_silent(
    silences: Mapping[str, Iterable[str]], given: Mapping[str, Any], typed: Any
) -> None:
    """Refuse options that were typed and say nothing; defaults are not typed."""
    for option, silent in silences.items():
        for name in silent if given[option] else ():
            # Of the click that typer has within.
            if typed.get_parameter_source(name).name == "COMMANDLINE":
                raise Refused(
                    f"--{name} and --{option} are given; with --{option} the former says nothing, "
                    "leave out one of them"
                )


def _options(defaults: dict[str, Any]) -> list[inspect.Parameter]:
    """The fields of `Experiment` as parameters of a command."""
    types = get_type_hints(Experiment, include_extras=True)
    empty = inspect.Parameter.empty
    return [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(
                option.name, empty if option.default is MISSING else option.default
            ),
            annotation=types[option.name],
        )
        for option in fields(Experiment)
        if option.name != "asked"
    ]
