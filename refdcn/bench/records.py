"""What a run found, as plain data that JSON can hold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from statistics import geometric_mean, median
from typing import Any

from refdcn.bench.timing import Rounds, flat, ratio
from refdcn.bench.workload import Workload, parse

BESIDE = ", beside a process that keeps a core busy"


@dataclass(frozen=True)
class Timing:
    """The calls of one contestant on one workload."""

    shape: str
    dtype: str
    direction: str
    load: str  # "quiet", or "busy": a competing process ran
    contestant: str
    threads: int
    rounds: Rounds  # seconds

    @property
    def workload(self) -> Workload:
        """What was called."""
        return parse(self.shape)

    @property
    def median(self) -> float:
        """Seconds, over all calls."""
        return median(flat(self.rounds))

    @property
    def fastest(self) -> float:
        """Seconds."""
        return min(flat(self.rounds))


@dataclass
class Record:
    """A whole run."""

    machine: dict[str, Any]
    clock: str = "wall"  # or "cpu": the work of all threads
    timings: list[Timing] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    same_bits: dict[str, bool] = field(default_factory=dict)
    memory: list[dict[str, Any]] = field(default_factory=list)
    overhead: dict[str, dict[str, Any]] = field(default_factory=dict)
    many: dict[str, float] = field(default_factory=dict)  # small images
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)  # by direction
    first_calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: list[Timing] = field(default_factory=list)
    growth: list[Timing] = field(default_factory=list)

    @property
    def disturbed(self) -> bool:
        """Whether other processes wanted the cores when it began."""
        load = self.machine.get("load average before")
        return load is not None and load > 0.3 * self.machine["cores"]

    def select(self, **wanted: Any) -> list[Timing]:
        """The timings whose fields are as wanted, in the order they were made."""
        return [
            t
            for t in self.timings
            if all(getattr(t, name) == value for name, value in wanted.items())
        ]

    def beside(self, timing: Timing, **changed: Any) -> Timing | None:
        """The timing of the same rounds that differs in these fields."""
        names = ("shape", "dtype", "direction", "load", "contestant", "threads")
        wanted = {name: getattr(timing, name) for name in names} | changed
        return next(iter(self.select(**wanted)), None)

    def against(self, timing: Timing, **changed: Any) -> float | None:
        """How many times as long as the one beside it; None where there is none."""
        other = self.beside(timing, **changed)
        return None if other is None else ratio(timing.rounds, other.rounds)


def mean_ratio(ratios: list[float]) -> float:
    """The geometric mean: of a and 1 / a it is 1."""
    return geometric_mean(ratios)


def load_average() -> float | None:
    """Processes that wanted to run during the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
