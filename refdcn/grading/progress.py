"""What is asked and left out, and a bar on standard error for who looks on."""

from __future__ import annotations

import sys
import time

from refdcn.grading.questions.timed import Timing


class Progress:
    """Counts calls that are asked, and those that are not, with the reason."""

    def __init__(self, total: int, show: bool, budget: float | None = None) -> None:
        self.done, self.total, self.show = 0, total, show and sys.stderr.isatty()
        self.left_out = 0  # cases not called after repeated deaths
        self.left_out_gradients = 0  # of their gradients alone
        self.over_budget = 0  # cases not called since the time was spent
        self.timing: Timing | None = None
        self.end = None if budget is None else time.monotonic() + budget

    def step(self, what: str) -> None:
        """One more case is done."""
        self.done += 1
        if self.show:
            full = 30 * self.done // max(1, self.total)
            bar = "#" * full + "." * (30 - full)
            sys.stderr.write(f"\r[{bar}] {self.done}/{self.total} {what:<24.24}")
            sys.stderr.flush()

    def spent(self) -> bool:
        """Whether the budget is spent: then one more case is not called."""
        over = self.end is not None and time.monotonic() > self.end
        self.over_budget += over
        return over

    def close(self) -> None:
        """Leave a clean line."""
        if self.show:
            sys.stderr.write("\r" + " " * 72 + "\r")
