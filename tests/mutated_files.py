"""Files as they should not be: bytes flipped, cut and put in, entries of records replaced."""

import copy
import json
import math
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mechspex.core.errors import MechspexError
from mechspex.core.json_values import CHECKSUM, checked
from mechspex.core.result import same

# What stands in the place of an entry.
JUNK: list[Any] = [
    None, True, -1, 0, 3, 10**30, 1.5, math.nan, math.inf, "", "x", "\ud800", [], [1], [[1]],
    {}, {"a": 1}, ["a"], [None],
]  # fmt: skip
# What is put into bytes: numbers of any size, deep nesting, and what parsers are wary of.
PIECES = [
    b"null", b"NaN", b"-1", b"0", b"1e999", b"9" * 5000, b"1000000000000", b"[" * 3000,
    b'{"a":' * 3000, b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"\\ud800", b"{", b"}", b"]",
    b",", b"\n", b"\r\n", b"#", b"=1+1", b"'''", b"inf", b"x" * 200_000,
]  # fmt: skip
_NUMBER = re.compile(rb"\d+")
# Seconds after which reading is said to hang.
PATIENCE = 20


class Hang(BaseException):
    """Reading took so long that no one would wait for it."""


@dataclass(frozen=True)
class FileKind:
    """A kind of file that is read.

    Attributes:
        name: what it is.
        make: writes a good one in an empty folder and returns the file that is damaged.
        read: reads that file and uses what it says; the answer can be compared.
        seal: the name of its checksum in the file, by which bytes that were changed show; empty
            where there is none.
        is_json: whether entries of its record are replaced as well as bytes.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    seal: bytes = b""
    is_json: bool = False


@dataclass
class Tally:
    """What became of mutated files of one kind.

    Attributes:
        inputs: how many there were.
        refused: typed errors.
        equal: read, with the answer of the file that was whole.
        other: read, with another answer.
        unsealed: of these, files that lost the name of their checksum with other bytes, and read
            as files of older versions that had none.
        wrong: of these, files whose checksum was there and did not help.
        raw: {error of any other kind: how often}, hangs and memory errors among them.
        slowest: the most processor seconds that one took.
    """

    inputs: int = 0
    refused: int = 0
    equal: int = 0
    other: int = 0
    unsealed: int = 0
    wrong: int = 0
    raw: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0


def mutated(record: Any, rng: random.Random) -> Any:
    """The record with one or two entries replaced, taken away or doubled."""
    record = copy.deepcopy(record)
    for _ in range(rng.choice([1, 1, 2])):
        there = [path for path in places(record) if path != ("schema",)]
        if not there:
            break
        *way, last = rng.choice(there)
        at: Any = record
        for key in way:
            at = at[key]
        how = rng.random()
        if how < 0.6:
            at[last] = copy.deepcopy(rng.choice(JUNK))
        elif how < 0.8:
            del at[last]
        elif isinstance(at, list):
            at.append(copy.deepcopy(rng.choice([*at, *JUNK])))
    return record


def places(record: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path to every entry of a record."""
    if path:
        yield path
    if not isinstance(record, dict | list):
        return
    for key, entry in record.items() if isinstance(record, dict) else enumerate(record):
        yield from places(entry, (*path, key))


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four places changed."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        place = rng.randrange(len(content) + 1)
        end = place + rng.choice([1, 1, 4, 64, 4096])
        how = rng.randrange(7)
        if how == 0 and place < len(content):
            flipped = content[place] ^ 1 << rng.randrange(8)
            content = content[:place] + bytes([flipped]) + content[place + 1 :]
        elif how == 1:
            content = content[:place] + content[end:]
        elif how == 2:
            content = content[:end] + content[place:end] + content[end:]
        elif how == 3:
            content = content[:place] + rng.choice(PIECES) + content[place:]
        elif how == 4:
            content = content[:place] + rng.randbytes(end - place) + content[end:]
        elif how == 5 and rng.random() < 0.3:
            content = content[:place]
        else:
            numbers = [m.span() for m in _NUMBER.finditer(content[:20_000])]
            if numbers:
                start, stop = rng.choice(numbers)
                number = rng.choice([b"-1", b"0", b"1", b"2", b"7", b"1000", b"1000000000", b"1.5"])
                content = content[:start] + number + content[stop:]
    return content


def mutation(kind: FileKind, content: bytes, rng: random.Random) -> tuple[bytes, bool]:
    """A mutated file, and whether it was changed behind the back of its checksum."""
    if not (kind.is_json and rng.random() < 0.5):
        return mutated_bytes(content, rng), True
    record = json.loads(content)
    sealed = isinstance(record, dict) and record.pop(CHECKSUM, None) is not None
    record = mutated(record, rng)
    # As another program would write it: the checksum is right, and says nothing.
    record = checked(record) if sealed and isinstance(record, dict) else record
    return json.dumps(record).encode(), False


def tally_of(kind: FileKind, folder: Path, n_inputs: int, seed: int) -> Tally:
    """Read so many mutated files of a kind.

    Args:
        kind: the kind.
        folder: an empty one.
        n_inputs: how many.
        seed: of the mutations; each input has its own, so that one alone can be read again.
    """
    file = kind.make(folder)
    content, whole = file.read_bytes(), kind.read(file)
    found = Tally()
    for number in range(n_inputs):
        rng = random.Random(f"{seed} {kind.name} {number}")
        damaged, behind = mutation(kind, content, rng)
        file.write_bytes(damaged)
        start = time.process_time()
        try:
            with no_longer_than(PATIENCE):
                answer = kind.read(file)
        except MechspexError:
            found.refused += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # hangs and panics of libraries are no Exceptions
            told = f"{type(error).__name__}: {error}"[:100] + f" (input {number})"
            found.raw[told] = found.raw.get(told, 0) + 1
        else:
            if same(answer, whole):
                found.equal += 1
            else:
                found.other += 1
                if kind.seal and behind:
                    found.wrong += kind.seal in damaged
                    found.unsealed += kind.seal not in damaged
        found.inputs += 1
        found.slowest = max(found.slowest, time.process_time() - start)
    file.write_bytes(content)
    return found


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Ends what takes longer, in the main thread."""

    def stop(*_: object) -> None:
        raise Hang(f"{seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
