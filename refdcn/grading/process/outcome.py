"""What one call of a candidate came to."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any


class CannotStartError(RuntimeError):
    """The candidate could not be loaded at all."""


@dataclass
class Outcome:
    """What one call did; `results` only when `status` is "ok"."""

    status: str  # ok, raised, crash, timeout
    text: str = ""
    results: list[Any] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    signal: int = 0  # by which it was killed


def ran_out(text: str) -> bool:
    """Whether an error's text says that memory was refused."""
    said = text.lower()
    words = "out of memory", "allocate memory", "bad_alloc", "unable to allocate"
    return any(word in said for word in words)


def ending(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"its process exited with status {code}"
