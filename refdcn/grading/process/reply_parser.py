"""The one parser of all that a candidate's side can say.

The candidate shares its process with the few lines that answer for it, so each line
may be forged: it is one of the messages below, with exactly their fields, each of its
type and within its range, and it comes when it is due; or it is no message. What
passes may still be a lie, but one that no reader stumbles over.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from refdcn.grading.process.inside.fetched import CALLS_TORCHVISION, LEAVES_DEVICE

INTRUDED = "something else than its answer came over the grader's channel"
LONGEST = 2**20  # bytes of a line
TEXT = 2000  # characters of a text that are kept
ROOM = 2**28  # bytes that the results of one call may take
MOST = 16  # results of one call
REFERENCES = "refdcn", "torchvision", "mmcv"  # each holds the operator
SEEN = CALLS_TORCHVISION, LEAVES_DEVICE  # of a candidate on a device
NUMBERS = re.compile(r"[<>|][biufc]\d{1,2}")  # dtypes whose memory is numbers alone
COUNT, ADDRESS, STRIDE = 2**40, 2**64, 2**50


class ReplyError(ValueError):
    """What came over the channel is no message, or comes when none like it is due."""


class Imports(NamedTuple):
    """A reference that its process loads, or calls unasked; may come at any time."""

    name: str


class Wrote(NamedTuple):
    """A file that the candidate's process opens to write; may come at any time."""

    path: str


class Started(NamedTuple):
    """A Python that the candidate's process starts; may come at any time."""

    program: str


class Loaded(NamedTuple):
    """The candidate is there: `threads` that its import started and still run."""

    grad: bool
    base: int
    confined: bool
    threads: int
    device: str  # its name; "" where none was asked for


class Unloadable(NamedTuple):
    """The candidate could not be imported."""

    text: str


class Session(NamedTuple):
    """A process that answers calls from now on."""

    pid: int


class Died(NamedTuple):
    """The session ended; `code` as subprocess has it, a signal below 0."""

    code: int


class Placed(NamedTuple):
    """A result that lies in the arena, and where it lay before."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    address: int

    @property
    def nbytes(self) -> int:
        """Of its copy, which has no gaps."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def span(self) -> tuple[int, int] | None:
        """First address and the one behind its last; None if it is empty."""
        if 0 in self.shape:
            return None
        pairs = zip(self.shape, self.strides, strict=True)
        steps = [(n - 1) * s for n, s in pairs]
        low = self.address + sum(min(0, s) for s in steps)
        high = self.address + sum(max(0, s) for s in steps)
        return low, high + self.dtype.itemsize


class Reply(NamedTuple):
    """What became of a call; a result that is no array is None or described."""

    status: str  # ok, raised, broke, left, memory
    token: int
    sender: int
    text: str = ""
    results: tuple[Placed | str | None, ...] = ()


ANY_TIME = Imports, Wrote, Started
Message = Imports | Wrote | Started | Loaded | Unloadable | Session | Died | Reply
Check = Callable[[Any], Any]


def refuse(*_: object) -> NoReturn:
    """It is no message."""
    raise ReplyError(INTRUDED)


def whole(low: int, high: int) -> Check:
    """An int from `low` to below `high`; True is none."""

    def check(value: Any) -> Any:
        return value if type(value) is int and low <= value < high else refuse()

    return check


def flag(value: Any) -> Any:
    """True or False."""
    return value if type(value) is bool else refuse()


def one_of(*names: str) -> Check:
    """One of some words."""

    def check(value: Any) -> Any:
        return value if type(value) is str and value in names else refuse()

    return check


def text(value: Any) -> str:
    """A text that can be printed: it neither moves a cursor nor breaks an encoder."""
    if type(value) is not str:
        refuse()
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode()
        for c in value[:TEXT]
    )


def several(check: Check, most: int) -> Check:
    """A list of at most `most`, each of which passes."""

    def check_all(value: Any) -> Any:
        if type(value) is not list or len(value) > most:
            refuse()
        return tuple(map(check, value))

    return check_all


def dtype(value: Any) -> np.dtype[Any]:
    """A dtype of plain numbers, in NumPy's short form: <f4."""
    if type(value) is not str or not NUMBERS.fullmatch(value):
        refuse()
    try:
        return np.dtype(value)
    except TypeError:
        refuse()


def fields(raw: Any, checks: Mapping[str, Check]) -> dict[str, Any]:
    """Exactly these fields, each checked."""
    if type(raw) is not dict or set(raw) != set(checks):
        refuse()
    return {name: check(raw[name]) for name, check in checks.items()}


PLACED = {
    "dtype": dtype,
    "shape": several(whole(0, COUNT), 64),
    "strides": several(whole(-STRIDE, STRIDE), 64),
    "address": whole(0, ADDRESS),
}


def result(raw: Any) -> Placed | str | None:
    """One result: {"array": ..}, {"object": text}, or null."""
    if raw is None:
        return None
    if type(raw) is dict and set(raw) == {"object"}:
        return text(raw["object"])
    found = Placed(**fields(fields(raw, {"array": lambda a: a})["array"], PLACED))
    if len(found.shape) != len(found.strides):
        refuse()
    # NumPy multiplies the lengths of an empty array, too.
    if math.prod(max(1, n) for n in found.shape) * found.dtype.itemsize >= 2**63:
        refuse()
    return found


def results(raw: Any) -> tuple[Placed | str | None, ...]:
    """All of them: no more than the arena has room for."""
    found: tuple[Placed | str | None, ...] = several(result, MOST)(raw)
    if sum(one.nbytes for one in found if isinstance(one, Placed)) > ROOM:
        refuse()
    return found


PID, TOKEN = whole(2, 2**31), whole(1, 2**53)
ANSWER = {"status": one_of("ok", "raised", "broke", "left", "memory")}
ANSWER |= {"token": TOKEN, "sender": PID}
FORMS: dict[str, tuple[type[Message], dict[str, Check]]] = {
    "imports": (Imports, {"name": one_of(*REFERENCES, *SEEN)}),
    "wrote": (Wrote, {"path": text}),
    "started": (Started, {"program": text}),
    "loaded": (
        Loaded,
        {
            "grad": flag,
            "base": whole(0, ADDRESS),
            "confined": flag,
            "threads": whole(0, 2**22),
            "device": text,
        },
    ),
    "unloadable": (Unloadable, {"text": text}),
    "session": (Session, {"pid": PID}),
    "died": (Died, {"code": whole(-128, 256)}),
    "ok": (Reply, ANSWER | {"results": results}),
    "raised": (Reply, ANSWER | {"text": text}),
    "broke": (Reply, ANSWER | {"text": text}),
    "left": (Reply, ANSWER | {"text": text}),
    "memory": (Reply, ANSWER | {"text": text}),
}


def short(digits: str) -> int:
    """A number of JSON, if it is one that any field can hold."""
    return int(digits) if len(digits) <= 20 else refuse()


def parse(line: bytes, due: tuple[type[Message], ...]) -> Message:
    """The message in a line; ReplyError unless it is one of those that are due."""
    try:
        raw = json.loads(
            line.decode(), parse_int=short, parse_float=refuse, parse_constant=refuse
        )
    except (ValueError, RecursionError):
        refuse()
    status = raw.get("status") if type(raw) is dict else None
    if type(status) is not str or status not in FORMS:
        refuse()
    kind, checks = FORMS[status]
    if kind not in (*due, *ANY_TIME):
        refuse()
    if kind is not Reply:
        checks = {"status": one_of(status)} | checks
    found = fields(raw, checks)
    if kind is not Reply:
        del found["status"]
    return kind(**found)
