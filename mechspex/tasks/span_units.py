"""The named spans of a task's prompts as units."""

from __future__ import annotations

from mechspex.core.checks import Only
from mechspex.core.doors import door
from mechspex.core.errors import TaskError
from mechspex.core.units import Unit, UnitSet
from mechspex.tasks.task import Task


@door(task=Only((Task,), "a Task whose prompts have named spans", TaskError))
def spans(task: Task, *, hidden: bool = False) -> UnitSet:
    """The named spans that every prompt of a task has, one unit each: ``IO``, ``S1``, ``S2``.

    A unit stands for another word in every prompt, at the place that it has there, so that its
    effects are means over prompts, with intervals.

    Args:
        task: prompts with spans, given as `Task.spans` or drawn by ``load_task(…, spans=True)``.
        hidden: whether the spans are hidden from attention; else they are replaced at their
            embeddings.

    Raises:
        TaskError: no span that every prompt has.
    """
    named = task.spans or ({},)
    names = [name for name in named[0] if all(name in one for one in named)]
    if not names:
        raise TaskError(
            f"task {task.name!r} has no span that all of its prompts have; give it "
            'spans=[{"IO": "Mary"}, …], or load_task(…, spans=True)'
        )
    kind = "hidden_word" if hidden else "word"
    return UnitSet(tuple(Unit(kind, 0, n, None, name) for n, name in enumerate(names)))
