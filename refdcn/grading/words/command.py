"""What repeats a grade, to be pasted: a command, or a call where only Python has it."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from shlex import quote
from typing import Any

from refdcn.grading.options import Options
from refdcn.grading.record import Record

FLAGS = {
    "dtypes": "dtype",
    "conventions": "convention",
    "gaps": "gap",
    "like": "as",
    "companion": "grad",
}
LAST = "level", "seed"  # named also where they are the default
# What is shown beside, not what is graded.
LEFT_OUT = "explain", "smallest", "evidence", "progress"


def repeating(record: Record) -> str:
    """The command with every option that is not the default."""
    options, candidate = record.options, record.candidate
    changed = [f.name for f in fields(options) if differs(options, f)]
    if record.run.forked:
        name = candidate.rpartition(".")[2]
        function = name if name.isidentifier() else "f"
        given = [f"{n}={shown(getattr(options, n))}" for n in (*changed, *LAST)]
        return f"refdcn.grade({', '.join([function, *given])})"
    words = ["refdcn", "grade", quote(candidate)]
    for name in (*changed, *LAST):
        words += flag(name, getattr(options, name))
    return " ".join(words)


def differs(options: Options, f: Field[Any]) -> bool:
    """Whether an option has to be said."""
    if f.name in LAST or f.name in LEFT_OUT or f.default is MISSING:
        return False
    return bool(getattr(options, f.name) != f.default)


def shown(value: Any) -> str:
    """A value in Python; a list, as `grade` takes it."""
    return repr(list(value) if isinstance(value, tuple) else value)


def flag(name: str, value: Any) -> list[str]:
    """An option of the command."""
    word = f"--{FLAGS.get(name, name)}"
    if value is True:
        return [word]
    if name == "memory":
        return [word, repr(value / 2**30)]
    if name in ("dtypes", "only"):
        return [word, *value]
    if isinstance(value, tuple):
        return [part for one in value for part in (word, quote(one))]
    return [word, quote(str(value))]
