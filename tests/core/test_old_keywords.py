"""Old keywords: still taken, said to be old, never taken silently for something else."""

import inspect

import pytest

from mechspex.core.old_keywords import takes_old
from mechspex.errors import Refused


def into_a_pair(given, old):
    given["pair"] = (old.get("left", 0), old.get("right", 0))


@takes_old({"fresh": "held_out", "left": "pair=(…, 0)", "right": "pair=(0, …)"}, into_a_pair)
def function(value, held_out=None, *, pair=(0, 0)):
    """What it was given."""
    return value, held_out, pair


def test_calls_in_todays_words_pass_without_a_word():
    assert function(1, 2, pair=(3, 4)) == (1, 2, (3, 4))


def test_a_renamed_keyword_is_taken_under_its_new_name():
    with pytest.warns(DeprecationWarning, match="function: fresh= is now held_out"):
        assert function(1, fresh=2) == (1, 2, (0, 0))  # pyright: ignore[reportCallIssue]


def test_keywords_that_became_one_argument_are_put_into_it():
    with pytest.warns(DeprecationWarning, match=r"right= is now pair=\(0, …\)"):
        assert function(1, right=4) == (1, None, (0, 4))  # pyright: ignore[reportCallIssue]


def test_the_old_and_the_new_name_together_are_refused():
    with (
        pytest.warns(DeprecationWarning, match="fresh="),
        pytest.raises(Refused, match="give that alone"),
    ):
        function(1, 2, fresh=3)  # pyright: ignore[reportCallIssue]


def test_what_was_never_a_keyword_is_none_now():
    with pytest.raises(TypeError, match="stale"):
        function(1, stale=2)  # pyright: ignore[reportCallIssue]


def test_the_signature_shows_todays_words():
    assert list(inspect.signature(function).parameters) == ["value", "held_out", "pair"]
    assert function.__doc__ == "What it was given."
