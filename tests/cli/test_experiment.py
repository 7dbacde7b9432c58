"""The options that every command about an experiment shares."""

import inspect

from mechspex.cli import app
from mechspex.cli.experiment import Experiment

COMMANDS = [command.callback for command in app.registered_commands if command.callback]


def test_what_is_shared_is_written_once():
    """A command takes an experiment whole, and ten options of its own at most."""
    for command in COMMANDS:
        assert len(inspect.signature(inspect.unwrap(command)).parameters) <= 11


def test_the_name_of_the_run_and_the_form_end_the_help():
    asked = [[*inspect.signature(command).parameters] for command in COMMANDS]
    about_experiments = [options for options in asked if {"ablation", "run"} <= {*options}]
    assert len(about_experiments) == 9
    for options in about_experiments:
        assert options[-2:] == ["run", "as_json"]


def test_an_answer_is_shown_as_text_or_as_json(capsys):
    class Answer:
        def to_dict(self):
            return {"size": 3}

        def __str__(self):
            return "three"

    for as_json, said in ((False, "three\n"), (True, '{\n "size": 3\n}\n')):
        Experiment(task="ioi", as_json=as_json).show(Answer())
        assert capsys.readouterr().out == said
