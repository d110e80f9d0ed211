"""Puts the questions to a candidate: calls, repeats, and when to give up."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np

from refdcn.grading.expected.case import NAMES, Array, Case
from refdcn.grading.expected.expectation import TARGETS, Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.judge import judged
from refdcn.grading.judging.verdicts import Verdict, worst
from refdcn.grading.options import Options
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.isolation import FIRST, SECOND, Process
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.process.reply_parser import INTRUDED
from refdcn.grading.progress import Progress
from refdcn.grading.questions import sweeps, timed

Runner = Process | InProcess
Pair = tuple[Expected, Expected]
ELSEWHERE = 2**28  # a second address for the inputs
GIVE_UP = 3  # deaths or timeouts in one group before its rest is left out
HANGS = 6  # timeouts in all before everything else is left out
DOUBTS = 3  # failing calls of one function that are repeated
# By what a process ends whose memory is damaged, perhaps long before.
SIGNALS = "SIGABRT", "SIGBUS", "SIGILL", "SIGSEGV"  # not every system has all
DAMAGED = {getattr(signal, name, None) for name in SIGNALS}


def ask(
    runner: Runner, options: Options, cases: Sequence[Expected], done: Progress
) -> Iterator[Finding]:
    """The findings of every call: drawn cases, sweeps, timed calls."""
    wanted = [e for e in cases if options.wants(e.case.group)]
    patience = Patience()
    yield from drawn_cases(runner, wanted, done, patience)
    swept = sweeps.chosen(options.dtypes)
    if swept and options.border == "corners" and options.wants("sweeps"):
        yield from swept_calls(runner, options, swept, done, patience)
    if options.timed and not done.spent():
        yield from timed_calls(runner, options, done)


class Patience:
    """Deaths and timeouts so far; calls that would repeat them are left out."""

    def __init__(self) -> None:
        self.deaths: Counter[tuple[str, str]] = Counter()
        self.hangs: Counter[str] = Counter()
        self.doubts: Counter[str] = Counter()

    def over(self, group: str, which: str) -> bool:
        """Whether the rest of a group is not worth a call."""
        return self.deaths[which, group] >= GIVE_UP or self.hangs[which] >= HANGS

    def note(self, group: str, which: str, found: Sequence[Finding]) -> None:
        """Count what a case's calls came to."""
        verdict = worst(f.verdict for f in found)
        lost = verdict <= Verdict.TIMEOUT or any(INTRUDED in f.faults for f in found)
        self.deaths[which, group] += lost
        self.hangs[which] += verdict is Verdict.TIMEOUT

    def repeats(self, case: Case, which: str, found: Sequence[Finding]) -> bool:
        """Whether a call is made again: right ones of y, and the first failing ones."""
        if case.kind == "malformed" or worst(f.verdict for f in found) <= (
            Verdict.INTEGRITY
        ):
            return False
        if any(f.verdict is Verdict.WRONG and f.got is not None for f in found):
            self.doubts[which] += 1
            return case.group == "repeat" or self.doubts[which] <= DOUBTS
        if case.group == "repeat" and which == "grad":
            return True
        return which == "forward" and found[0].verdict is Verdict.PASS


def drawn_cases(
    runner: Runner,
    cases: Sequence[Expected],
    done: Progress,
    patience: Patience,
) -> Iterator[Finding]:
    """The findings of every case; a group that keeps dying is cut short.

    A companion that dies costs its own calls, not those of the forward.
    """
    last: Expected | None = None  # the first of two with the same shapes
    for expected in cases:
        case = expected.case
        group = f"{case.dtype} {case.group}"
        done.step(case.group)
        if done.spent():
            continue
        if patience.over(group, "forward"):
            done.left_out += 1
            continue
        pair = (last, expected) if case.group == "repeat" and last else None
        found = asked(runner, expected, "forward", patience, pair)
        patience.note(group, "forward", found)
        yield from found
        if has_gradients(runner, case) and found[0].verdict > Verdict.INTEGRITY:
            if patience.over(group, "grad"):
                done.left_out_gradients += 1
            else:
                found = asked(runner, expected, "grad", patience, pair)
                patience.note(group, "grad", found)
                yield from found
        if case.group == "repeat":
            last = expected if last is None else None


def has_gradients(runner: Runner, case: Case) -> bool:
    """Whether the five are asked for."""
    lost = case.kind == "hostile" and bool(np.isfinite(case.x).all())
    return runner.has_grad and (lost or case.kind in ("bound", "exact"))


def swept_calls(
    runner: Runner, options: Options, dtype: str, done: Progress, patience: Patience
) -> Iterator[Finding]:
    """The findings of the sweeps; only what differs needs a bound."""
    bounds, group = standard(dtype, options.precision), "sweeps"
    for sweep in sweeps.prepare(options.seed, dtype, options.level, options.all_gaps):
        if done.spent():
            continue
        if patience.over(group, "forward"):
            done.left_out += 1
            continue
        grads = runner.has_grad and not patience.over(group, "grad")
        found = sweeps.check(runner, sweep, bounds, grads)
        if found[-1].kind is Kind.DIED:
            which = "grad" if found[-1].of_gradients else "forward"
            dead = once_more(runner, sweep.expected(bounds), which, found[-1:])
            found = [*found[:-1], *dead]
        for which in ("forward", "grad"):
            mine = [f for f in found if f.of_gradients == (which == "grad")]
            patience.note(group, which, mine)
            yield from mine
            if any(f.got is not None for f in mine):
                yield from doubted(
                    runner, sweep.expected(bounds), which, mine, patience
                )
        if runner.has_grad and not grads and found[0].verdict > Verdict.INTEGRITY:
            done.left_out_gradients += 1


def timed_calls(runner: Runner, options: Options, done: Progress) -> Iterator[Finding]:
    """The findings of timed calls; what they took is kept."""
    assert isinstance(runner, Process)
    dtype = timed.dtype_of(options.dtypes)
    bounds = standard(dtype, options.precision)
    how = options.seed, dtype, bounds, options.border, options.timed
    found, done.timing = timed.run(runner, *how)
    yield from found


def asked(
    runner: Runner,
    expected: Expected,
    which: str,
    patience: Patience,
    pair: Pair | None = None,
) -> list[Finding]:
    """One function's findings on a case, and on two cases one after another."""
    outcome = runner.call(expected.case, which, pattern=FIRST)
    found = once_more(runner, expected, which, judged(expected, outcome, which))
    if patience.repeats(expected.case, which, found):
        found = repeated(runner, expected, which, outcome, found)
    if pair and worst(f.verdict for f in found) > Verdict.INTEGRITY:
        found += interleaved(runner, *pair, which)
    return found


def once_more(
    runner: Runner, expected: Expected, which: str, found: list[Finding]
) -> list[Finding]:
    """A death says so that the same call in the process after it does not repeat.

    A call that writes where it must not is often answered, and a later one dies of it.
    """
    fits, first = expected.case.kind != "malformed", found[0]
    if not (fits and first.kind is Kind.DIED and first.measured in DAMAGED):
        return found
    anew = judged(expected, runner.call(expected.case, which, pattern=FIRST), which)
    if worst(f.verdict for f in anew) <= Verdict.TIMEOUT:
        return found
    return [replace(found[0], kind=Kind.DIED_ONCE), *found[1:]]


def doubted(
    runner: Runner,
    expected: Expected,
    which: str,
    found: list[Finding],
    patience: Patience,
) -> list[Finding]:
    """What two more calls of one that failed show beside its failure."""
    if not patience.repeats(expected.case, which, found):
        return []
    outcome = runner.call(expected.case, which, pattern=FIRST)
    again = repeated(runner, expected, which, outcome, found)
    return [f for f in again if f not in found]


def repeated(
    runner: Runner,
    expected: Expected,
    which: str,
    first: Outcome,
    found: list[Finding],
) -> list[Finding]:
    """The worse findings of a call and its repeat elsewhere, and other bits."""
    again = runner.call(expected.case, which, at=ELSEWHERE, pattern=SECOND)
    anew = once_more(runner, expected, which, judged(expected, again, which))
    if worst(f.verdict for f in anew) < worst(f.verdict for f in found):
        found = anew
    other = repeat_finding(expected.case, which, first, again)
    if other is not None and other.kind is Kind.BITS:
        other = remembering(runner, other, which)
    return found + ([other] if other else [])


def remembering(runner: Runner, found: Finding, which: str) -> Finding:
    """Other bits that follow from the calls before are no chance: what is kept."""
    kept = what_is_kept(runner, found.case, which)
    return replace(found, measured=kept, choice=None) if kept else found


def what_is_kept(runner: Runner, case: Case, which: str) -> str | None:
    """Whether a call takes what an earlier one left: "sum", "buffer", or None."""

    def calls(*before: Case) -> list[Array]:
        for one in before:
            runner.call(one, which)
        return [a for a in runner.call(case, which).results if a is not None]

    def alike(one: list[Array], other: list[Array]) -> bool:
        return all(map(same_bits, one, other))

    if case.bfloat16 or not case.x.size:
        return None
    ones, twos = (
        replace(case, offset=0 * case.offset, x=np.full_like(case.x, v)) for v in (1, 2)
    )
    first, other, again = calls(ones), calls(twos), calls(ones)
    if alike(first, again) and not alike(first, other):
        return "buffer"
    a, b, c = calls(), calls(), calls()
    steps = [
        (y - x, z - y, abs(z).max(initial=0)) for x, y, z in zip(a, b, c, strict=False)
    ]
    grows = any(abs(one).max(initial=0) > 1e-3 * size for one, _, size in steps)
    if grows and all(
        (abs(one - two) <= 1e-3 * abs(one).max(initial=0) + 1e-5 * size).all()
        for one, two, size in steps
    ):
        return "sum"
    return None


def repeat_finding(
    case: Case, which: str, first: Outcome, again: Outcome
) -> Finding | None:
    """The finding when a repeat gives other bits."""
    pairs = zip(first.results, again.results, strict=False)
    other = [(a, b) for a, b in pairs if not same_bits(a, b)]
    if not other:
        return None
    target = "y" if which == "forward" else "gradients"
    lost = sum(unwritten(a, FIRST) for a, _ in other)
    if lost:
        found = Finding(case, target, Verdict.INTEGRITY, Kind.UNWRITTEN)
        return replace(found, measured=lost)
    found = Finding(case, target, Verdict.INTEGRITY, Kind.BITS)
    return replace(found, choice=("bits", "vary"))


def unwritten(a: Any, pattern: int) -> int:
    """The elements that still hold the grader's pattern."""
    width = a.dtype.itemsize
    rows = np.ascontiguousarray(a).view(np.uint8).reshape(a.size, width)
    return int(np.count_nonzero((rows == pattern).all(1)))


def same_bits(a: Any, b: Any) -> bool:
    """Equal as bits, so that NaN equals itself."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return True  # no array at all: another verdict's matter
    return a.shape == b.shape and a.tobytes() == b.tobytes()


class Answer(NamedTuple):
    """A right answer of an earlier call."""

    expected: Expected
    target: str
    got: Any


def interleaved(
    runner: Runner, a: Expected, b: Expected, which: str = "forward"
) -> Iterator[Finding]:
    """A, B, A at one address, one element changed, and a call of nothing at all."""
    right: list[Answer] = []
    outcomes: list[Outcome] = []
    for k, expected in enumerate((a, b, a, *one_element_changed(a, which))):
        outcome = runner.call(expected.case, which, pattern=FIRST - k)
        outcomes.append(outcome)
        found = once_more(runner, expected, which, judged(expected, outcome, which))
        for finding in found:
            got = answered(outcome, finding.target)
            if finding.verdict is Verdict.PASS:
                right.append(Answer(expected, finding.target, got))
            elif finding.got is not None:
                finding = stale(expected, finding.target, got, right) or finding
            yield finding
    other = repeat_finding(a.case, which, outcomes[0], outcomes[2])
    if other is not None:
        yield other
    ghosts = judged(a, runner.call(a.case, which, ghost=True), which)
    if worst(f.verdict for f in ghosts) > Verdict.WRONG:
        target = "y" if which == "forward" else "gradients"
        yield Finding(a.case, target, Verdict.INTEGRITY, Kind.GHOST)


def answered(outcome: Outcome, target: str) -> Any:
    """What came for one target; None where nothing did."""
    if outcome.status != "ok" or outcome.faults or target == "gradients":
        return None
    k = 0 if target == "y" else TARGETS.index(target)
    return outcome.results[k]


def stale(
    now: Expected, target: str, got: Any, earlier: Sequence[Answer]
) -> Finding | None:
    """The finding when an answer was right in an earlier call, and is wrong now."""
    for before in earlier:
        if before.target != target or not same_bits(got, before.got):
            continue
        one, other = now.range(target), before.expected.range(target)
        apart = np.maximum(one.low - other.high, other.low - one.high)
        if (apart > one.bound + other.bound).any():
            return Finding(now.case, target, Verdict.INTEGRITY, Kind.STALE)
    return None


@lru_cache(maxsize=16)
def one_element_changed(a: Expected, which: str) -> tuple[Expected, ...]:
    """Each input in turn with one element changed, drawn from the values."""
    case, found = a.case, []
    rng = np.random.default_rng(crc32(case.x.tobytes()))
    for name in (*NAMES, "grad_y") if which == "grad" else NAMES:
        array = getattr(case, name)
        if array is None or not array.size:
            continue
        changed = array.copy()
        k = int(rng.integers(array.size))
        # A power of two: exact in every dtype, and not close to what it was.
        changed.reshape(-1)[k] = -2 if changed.reshape(-1)[k] > 0 else 2
        fields: dict[str, Any] = {name: changed, "note": f"one {name} element anew"}
        one = replace(case, **fields)
        found.append(Expected(one, a.standard, a.border))
    return tuple(found)
