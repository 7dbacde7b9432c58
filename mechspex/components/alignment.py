"""Positions of different prompts that stand for each other."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

Spans = Mapping[str, range]

# In brackets, so that no span of a task is called so.
FIRST, END = "(first token)", "(last token)"


def segments(length: int, spans: Spans) -> dict[str, range]:
    """A prompt in pieces: its first position, its spans, its last position, and all between them.

    Args:
        length: the length of the prompt, in tokens.
        spans: {name: its positions}, from left to right.
    """
    pieces: dict[str, range] = {}
    named = list(spans.items())
    if length > 1 and not any(0 in span for span in spans.values()):
        named.insert(0, (FIRST, range(1)))
    if not any(length - 1 in span for span in spans.values()):
        named.append((END, range(length - 1, length)))
    done, before = 0, "start"
    for name, span in named:
        if span.start > done:
            pieces[f"(after {before})"] = range(done, span.start)
        pieces[name] = span
        done, before = span.stop, name
    return pieces


def labels(pieces: Sequence[Mapping[str, range]]) -> list[list[Hashable]]:
    """What each position of each prompt is called; those of one name stand for each other.

    A piece that has the same length in all prompts is matched token by token, any other one as a
    whole. So prompts of one length without spans are matched position by position.

    Args:
        pieces: the `segments` of each prompt.
    """
    sizes: dict[str, set[int]] = {}
    for one in pieces:
        for name, positions in one.items():
            sizes.setdefault(name, set()).add(len(positions))
    for name in sizes:
        if not all(name in one for one in pieces):
            sizes[name].add(0)
    called: list[list[Hashable]] = []
    for one in pieces:
        names: list[Hashable] = []
        for name, positions in one.items():
            alike = len(sizes[name]) == 1
            names += [(name, i) if alike else name for i in range(len(positions))]
        called.append(names)
    return called


def counterparts(one: Mapping[str, range], other: Mapping[str, range]) -> list[int]:
    """For each position of a prompt the one of another prompt that stands for it.

    Within a piece positions keep their order and are spread evenly; a piece that the other prompt
    lacks is matched to where it would stand.

    Args:
        one, other: their `segments`.
    """
    found: list[int] = []
    last = 0
    for name, positions in one.items():
        there = other.get(name, range(0))
        if len(there):
            found += [there[i * len(there) // len(positions)] for i in range(len(positions))]
            last = there[-1]
        else:
            found += [last] * len(positions)
    return found


def common_ends(one: Sequence[int], other: Sequence[int]) -> tuple[dict[str, range], ...]:
    """Two prompts in pieces: what they share at the beginning, what differs, what they share last.

    Args:
        one, other: their token ids.
    """
    shorter = min(len(one), len(other))
    begin = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    rest = shorter - begin
    end = next((i for i in range(rest) if one[-1 - i] != other[-1 - i]), rest)
    return tuple(
        {
            "shared beginning": range(begin),
            "what differs": range(begin, length - end),
            "shared end": range(length - end, length),
        }
        for length in (len(one), len(other))
    )
