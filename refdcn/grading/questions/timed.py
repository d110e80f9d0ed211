"""Timed calls: fresh values each time, the clock on this side, answers checked.

A program that is rewarded for speed may answer without the work. So the
geometry is drawn, no two calls share values or memory, calls chosen by the seed
are judged, no time may lie under what this machine can do at best, and nothing
may go on computing after an answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from refdcn.grading.expected.case import Array, Case, Sizes, kept
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import Standard
from refdcn.grading.judging import judge
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process import system
from refdcn.grading.process.arena import REGION
from refdcn.grading.process.isolation import FIRST, SECOND, Process
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.questions.draw import draw_case

WORK = 1.2e9  # floating-point operations of a timed call
SLACK = 2.0  # a measured peak may be another load's, or spare a multiplication
STRIDES = 5, 7, 8, 9, 11, 13  # between the pixels that are judged
JUDGED = 4  # output channels
CHOSEN = 8  # calls that are judged, at most
NEARER = 0.5  # of its length, that an answer must be from the definition
NO_WORK = "its answer to a large call is hardly nearer to the definition than zeros"
GOES_ON = "it went on computing after its answer"


class Roofline(NamedTuple):
    """What this machine does at best."""

    flops: float  # per second
    bytes: float  # per second, read from the nearest cache

    def floor(self, case: Case, compute: bool) -> float:
        """Seconds that no implementation can stay below."""
        inputs = sum(a.nbytes for a in case.inputs if a is not None)
        seconds = inputs / self.bytes
        if compute:
            seconds = max(seconds, work(case.sizes) / self.flops)
        return seconds / SLACK


class Timing(NamedTuple):
    """The times of the calls after the first, and their floor."""

    case: str
    seconds: tuple[float, ...]
    floor: float
    memory: int | None = None  # bytes at the peak, beyond inputs and result


class Beside(NamedTuple):
    """Another implementation on the same calls."""

    name: str
    timing: Timing | None = None
    verdict: Verdict | None = None  # on its answers; None where it computes another sum
    why: str = ""  # it is not timed


def work(s: Sizes) -> float:
    """Operations of the weighted sum alone."""
    P = s.out[0] * s.out[1]
    return 2.0 * s.N * P * s.K_h * s.K_w * s.C_out * (s.C_in // s.groups)


def fastest(call: Callable[[], object], calls: int) -> float:
    """The shortest time of one call, on the clock of this thread.

    That clock stops while others have the processor: a busy machine must not
    look slow here and let an honest candidate look impossibly fast later.
    """
    times = []
    for _ in range(calls):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    return min(times)


@lru_cache(maxsize=1)
def roofline() -> Roofline:
    """A float32 product and a copy in cache on one core, times the cores."""
    n, cores = 512, os.cpu_count() or 1
    a, near = np.ones((n, n), np.float32), np.ones(2**20, np.uint8)
    out, copy = np.empty_like(a), np.empty_like(near)
    with threadpool_limits(1):
        product = fastest(lambda: np.matmul(a, a, out=out), 20)
    moved = fastest(lambda: np.copyto(copy, near), 50)
    return Roofline(cores * 2 * n**3 / product, cores * near.nbytes / moved)


def geometry(rng: np.random.Generator) -> Sizes:
    """A layer's size that nobody can know beforehand.

    Many channels are read and few written: the sum takes longer than the copy
    of the result, so that an answer without it is seen.
    """
    C_in, C_out = 8 * int(rng.integers(24, 41)), 8 * int(rng.integers(4, 9))
    H, W = (int(rng.integers(24, 57)) for _ in range(2))
    one = Sizes(1, C_in, C_out, 1, 1, 3, 3, H, W, padding=(1, 1))
    return one._replace(N=int(np.ceil(WORK / work(one))))


def fresh(rng: np.random.Generator, case: Case, dtype: str) -> Case:
    """The same sizes with other values."""
    fields: dict[str, Any] = {
        name: kept(scale * rng.standard_normal(a.shape, np.float32), dtype)
        for name, scale, a in (("x", 1, case.x), ("offset", 2, case.offset))
    }
    weight = kept(rng.permutation(case.weight.reshape(-1)), dtype)
    return replace(case, weight=weight.reshape(case.weight.shape), **fields)


def thinned(rng: np.random.Generator, case: Case, y: Array) -> tuple[Case, Array]:
    """One image, a few channels and a grid of pixels: a case of its own."""
    n = int(rng.integers(len(case.x)))
    o = rng.choice(len(case.weight), JUDGED, replace=False)
    s, t = (int(k) for k in rng.choice(STRIDES, 2))
    assert case.mask is not None and case.bias is not None
    one = replace(
        case,
        x=case.x[n : n + 1],
        offset=case.offset[n : n + 1, :, ::s, ::t],
        mask=case.mask[n : n + 1, :, ::s, ::t],
        weight=case.weight[o],
        bias=case.bias[o],
        stride=(case.stride[0] * s, case.stride[1] * t),
        grad_y=None,
        note="one timed call, thinned",
    )
    return one, y[n : n + 1, o, ::s, ::t]


def somewhere(rng: np.random.Generator, case: Case) -> int:
    """A place for the inputs that no earlier call is likely to have had."""
    need = sum(a.nbytes + 256 for a in case.inputs if a is not None)
    return 64 * int(rng.integers(max(1, (REGION - need) // 64)))


def judged(
    rng: np.random.Generator,
    case: Case,
    outcome: Outcome,
    standard: Standard,
    border: str,
) -> Finding:
    """The verdict on one timed call."""
    found = judge.unanswered(case, outcome)
    y = outcome.results[0] if outcome.results else None
    found = found or judge.misshapen(case, y, "y", case.x, case.y_shape)
    if found is not None:
        return found
    one, part = thinned(rng, case, np.asarray(y))
    expected, numbers = Expected(one, standard, border), one.numbers(part)
    found = judge.compare(expected, "y", numbers)
    want = expected.range("y").low
    # In a half precision the longest sums may lose everything: their bound admits it.
    far = np.linalg.norm(numbers - want) > NEARER * np.linalg.norm(want)
    if far and found.verdict > Verdict.WRONG:
        return Finding(case, "y", Verdict.INTEGRITY, Kind.BREACH, faults=(NO_WORK,))
    return found


def begin(seed: int, dtype: str) -> tuple[np.random.Generator, Case]:
    """What draws the timed calls, and the first of them."""
    rng = np.random.default_rng([seed, 1])
    case = draw_case(rng, geometry(rng), dtype, "timed", "normal")
    return rng, replace(case, note="timed", grad_y=None)


def run(
    runner: Process,
    seed: int,
    dtype: str,
    standard: Standard,
    border: str,
    calls: int,
) -> tuple[list[Finding], Timing | None]:
    """Time `calls` calls after a first one; judge the first and some of them."""
    rng, case = begin(seed, dtype)
    chosen = {0, *(1 + rng.choice(calls, min(calls, CHOSEN), replace=False))}
    compute = standard.wrong.product <= 2.0**-24  # else units of lower precision
    findings: list[Finding] = []
    seconds: list[float] = []
    memory: int | None = None
    for k in range(calls + 1):
        now = fresh(rng, case, dtype)
        how: dict[str, Any] = {"at": somewhere(rng, now)}
        how["pattern"] = SECOND if k % 2 else FIRST
        if k:
            outcome = runner.call(now, **how)
        else:
            outcome, memory = watched(runner, now, how)
        if k in chosen and system.goes_on(runner.session):
            outcome.faults.append(GOES_ON)
        if k in chosen or outcome.status != "ok" or outcome.faults:
            findings.append(judged(rng, now, outcome, standard, border))
        if outcome.status != "ok":
            return findings, None
        seconds.append(outcome.seconds)
    # Looked up after the calls: a candidate may open a device late.
    compute = compute and not system.accelerated(runner.session)
    floor = roofline().floor(case, compute)
    timing = Timing(str(case.sizes), tuple(seconds[1:]), floor, memory)
    findings.append(too_fast(case, timing))
    return findings, timing


def watched(
    runner: Process, case: Case, how: dict[str, Any]
) -> tuple[Outcome, int | None]:
    """A first call, and what it took at its peak beside inputs and result (Linux).

    The pages of the grader's memory that it touches are its inputs and its result's
    copy; the result itself is its own.
    """
    pid = runner.session
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is now the present
    before = system.status(pid)
    outcome = runner.call(case, **how)
    after = system.status(pid)
    known = pid == runner.session and "VmHWM" in after and "VmRSS" in before
    if not known or outcome.status != "ok":
        return outcome, None
    inputs = after.get("RssShmem", 0) - before.get("RssShmem", 0)
    result = sum(a.nbytes for a in outcome.results if isinstance(a, np.ndarray))
    return outcome, max(0, after["VmHWM"] - before["VmRSS"] - inputs - result)


def dtype_of(dtypes: Sequence[str]) -> str:
    """In which of them calls are timed: float32, where it is one."""
    return "float32" if "float32" in dtypes else dtypes[0]


def too_fast(case: Case, timing: Timing) -> Finding:
    """Integrity, when a time lies under the floor."""
    low = min(timing.seconds)
    if low >= timing.floor:
        return Finding(case, "time", Verdict.PASS)
    told: dict[str, Any] = {"measured": low, "defined": timing.floor}
    return Finding(case, "time", Verdict.INTEGRITY, Kind.TOO_FAST, **told)
