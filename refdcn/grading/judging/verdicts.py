"""The verdicts, from worst to best, and the exit codes they mean."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class Verdict(IntEnum):
    """What one result says of the candidate; a smaller value is worse."""

    CRASH = 0
    TIMEOUT = 1
    INTEGRITY = 2
    WRONG = 3
    IMPRECISE = 4
    UNSUPPORTED = 5
    NOTHING = 6  # of a whole grade: no number was compared
    UNCHECKED = 7
    CONVENTION = 8
    PASS = 9

    def __str__(self) -> str:
        return self.name.lower()


EXIT_CODES = {
    Verdict.CRASH: 3,
    Verdict.TIMEOUT: 3,
    Verdict.INTEGRITY: 5,
    Verdict.WRONG: 1,
    Verdict.IMPRECISE: 1,
    Verdict.UNSUPPORTED: 4,
    Verdict.NOTHING: 4,
    Verdict.UNCHECKED: 0,  # 1 where it counts
    Verdict.CONVENTION: 0,
    Verdict.PASS: 0,
}
INTERRUPTED = 130  # as a shell reports Ctrl-C


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that decides; a pass when there is none."""
    return min(verdicts, default=Verdict.PASS)
