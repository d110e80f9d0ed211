"""Sweeps: one size at a time, and edge values, on data without any rounding.

A kernel changes its path with a size: a tile, a tail, a batch of 32, a kernel
of nine taps. Every other size stays as it is while one runs through its range,
so that the calls which fail name the size and the value where it begins.
Inputs are dyadic: every order of evaluation gives the same bits, and a call is
right when it gives those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import islice
from math import lcm
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading.expected import oracle
from refdcn.grading.expected.case import Array, Case, Sizes, offset_shape
from refdcn.grading.expected.expectation import TARGETS, Expected, Range
from refdcn.grading.expected.precision import Standard
from refdcn.grading.judging import judge
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.gaps import first_that_holds
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.isolation import Process
from refdcn.grading.process.outcome import Outcome
from refdcn.grading.questions.draw import exact_case, landing
from refdcn.grading.questions.room import Call, within

Runner = Process | InProcess


class Plan(NamedTuple):
    """The sizes of a call, each free of the others; the default is uneven."""

    N: int = 2
    c: int = 2  # input channels in the smallest run that both groupings share
    o: int = 2  # output channels a group
    groups: int = 2
    offset_groups: int = 2
    K_h: int = 2
    K_w: int = 3
    H_out: int = 4
    W_out: int = 5
    stride_h: int = 2
    stride_w: int = 1
    padding_h: int = 1
    padding_w: int = 2
    dilation_h: int = 1
    dilation_w: int = 2
    mask: bool = True
    bias: bool = True

    @property
    def sizes(self) -> Sizes:
        """The geometry; the image has a remainder that the stride skips."""
        image = []
        for out, k, s, p, d in (
            (self.H_out, self.K_h, self.stride_h, self.padding_h, self.dilation_h),
            (self.W_out, self.K_w, self.stride_w, self.padding_w, self.dilation_w),
        ):
            fewest = d * (k - 1) + 1 - 2 * p
            image.append(max(1, fewest, fewest + (out - 1) * s + (s - 1) // 2))
        H, W = image
        return Sizes(
            self.N,
            self.c * lcm(self.groups, self.offset_groups),
            self.o * self.groups,
            self.groups,
            self.offset_groups,
            self.K_h,
            self.K_w,
            H,
            W,
            (self.stride_h, self.stride_w),
            (self.padding_h, self.padding_w),
            (self.dilation_h, self.dilation_w),
        )


LONG = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 32, 33, 48, 63, 64, 65)
SHORT = (1, 2, 3, 4, 5, 6, 7)
RANGES: dict[str, tuple[int, ...]] = {
    "N": (*LONG, 129),
    "c": LONG,
    "o": (*LONG, 10, 40),
    "groups": SHORT[:5],
    "offset_groups": SHORT[:5],
    "K_h": SHORT,
    "K_w": SHORT,
    "H_out": (*LONG, 129),
    "W_out": (*LONG, 129),
    "stride_h": SHORT[:4],
    "stride_w": SHORT[:4],
    "padding_h": (0, *SHORT[:4]),
    "padding_w": (0, *SHORT[:4]),
    "dilation_h": SHORT[:4],
    "dilation_w": SHORT[:4],
}
FEW: dict[str, tuple[int, ...]] = {
    "N": (1, 5, 33, 65),
    "c": (1, 3, 4, 5, 9, 17, 33),
    "o": (1, 3, 4, 5, 8, 9, 12, 17, 24, 33),
    "groups": (1, 3),
    "offset_groups": (1, 3),
    "K_h": (1, 3, 4, 5),
    "K_w": (1, 2, 4, 5),
    "H_out": (1, 2, 3, 9, 17, 33, 65),
    "W_out": (1, 2, 3, 8, 17, 33, 65),
    "stride_h": (1, 3),
    "stride_w": (2, 3),
    "padding_h": (0, 2, 4),
    "padding_w": (0, 1, 4),
    "dilation_h": (2, 3),
    "dilation_w": (1, 3),
}


MOST_SWEPT = 65  # of a size that stands in for one which the gaps shut out
BASE = "", 0  # what is swept in the call that all sweeps start from
Swept = tuple[str, int]


def swept(level: str) -> Iterator[tuple[Plan, Swept]]:
    """The calls in which one size runs through its range."""
    yield Plan(), BASE
    for name, values in (FEW if level == "smoke" else RANGES).items():
        for value in values:
            if value != getattr(Plan(), name):
                change: dict[str, Any] = {name: value}
                yield Plan(**change), (name, value)


def plans() -> Iterator[tuple[Plan, str]]:
    """Other calls with sizes of their own, and what they are for."""
    yield Plan(mask=False), "no mask"
    yield Plan(bias=False), "no bias"
    yield Plan(mask=False, bias=False), "no mask, no bias"
    plain = Plan(K_h=3, K_w=3, padding_w=1, dilation_w=1, stride_h=1)
    yield plain, "3x3, padding 1"
    other = plain._replace(padding_h=2, padding_w=2, dilation_h=2, dilation_w=2)
    yield other, "the same shapes, padding 2, dilation 2"
    yield Plan(c=1, groups=4, offset_groups=1, o=1), "depthwise"
    thin = Plan(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, bias=False)
    yield thin._replace(W_out=700), "700 columns"
    yield thin._replace(H_out=700), "700 rows"
    yield thin._replace(H_out=67, W_out=71), "67 rows of 71 columns"
    yield thin._replace(c=40, K_h=1, K_w=2), "40 channels an offset group"
    yield thin._replace(c=300, o=4, W_out=9), "300 channels"


def drawn(plan: Plan, dtype: str, seed: int, note: str) -> Case:
    """The call of a plan, its numbers drawn from the seed."""
    rng = np.random.default_rng([seed, 41])
    case = exact_case(rng, plan.sizes, dtype, "exact", plan.mask, plan.bias)
    mask = case.mask
    if mask is not None:  # a mask of 0 has a gradient of its own
        mask = np.where(rng.random(mask.shape) < 0.2, 0, mask).astype(mask.dtype)
    # A 0 elsewhere would only hide what is wrong behind it.
    full: dict[str, Any] = {
        name: np.where(a == 0, 1, a).astype(a.dtype)
        for name in ("x", "weight", "grad_y")
        if (a := getattr(case, name)) is not None
    }
    return replace(case, mask=mask, note=note, **full)


ATOM = Plan(2, 1, 1, 1, 1, 1, 1, 7, 9, 1, 1, 2, 1, 1, 1, bias=False)


def atoms(dtype: str, seed: int, lines: tuple[str, ...] = ()) -> Iterator[Case]:
    """One sample an output: what an output meets is what its sample meets."""

    def fits(plan: Plan) -> Plan:
        return inside(plan, dtype, lines, ("K_h", "K_w")) or plan

    for k in range(4):
        case = telling(fits(ATOM._replace(mask=k % 2 == 0)), dtype, seed + k)
        weight = case.weight.copy()
        weight.reshape(*weight.shape[:2], -1)[..., 1:] = 0  # a gap may want more taps
        yield replace(case, weight=weight)
    plan = fits(ATOM._replace(K_h=3, K_w=3, stride_h=2, dilation_w=2, padding_h=1))
    if plan[5:7] != (3, 3):
        return
    for k in range(9):
        case = telling(plan, dtype, seed + k)
        weight = np.zeros_like(case.weight)
        weight[..., k // 3, k % 3] = 1
        yield replace(case, weight=weight, note=f"tap {k} alone")
    plan = fits(plan._replace(c=2, o=2, groups=2, offset_groups=2, H_out=4, W_out=4))
    if plan[1:5] != (2, 2, 2, 2):
        return
    for k in range(2):
        for c in range(2):
            case = telling(plan, dtype, seed + k + c)
            weight = np.zeros_like(case.weight)
            weight[2 * k : 2 * k + 2, c, 1, 1] = 1, 2
            yield replace(case, weight=weight, note=f"channel {2 * k + c} alone")


def telling(plan: Plan, dtype: str, seed: int) -> Case:
    """Pixels that all differ, so that few wrong values are right by chance."""
    case = drawn(plan, dtype, seed, "one sample an output")
    rng = np.random.default_rng([seed, 47])
    x = 1 + rng.permutation(case.x.size).reshape(case.x.shape) % 251
    step = 4 if dtype == "float16" else 16
    offset = np.round(case.offset.astype(float) * step + rng.integers(0, 2)) / step
    go = 1 + case.grad_y % 2 if case.grad_y is not None else None
    return replace(case, x=x.astype(dtype), offset=offset.astype(dtype), grad_y=go)


def edges(dtype: str, seed: int, lines: tuple[str, ...] = ()) -> Iterator[Case]:
    """Values instead of sizes: what a kernel may round, clip or lose.

    Those whose numbers stay exact in any geometry are drawn outside of the gaps.
    """
    rng = np.random.default_rng([seed, 43])

    def exact(z: Sizes, bias: bool = True) -> Case:
        call = Call(z, True, bias)
        found = within(lines, call, dtype) or call
        return exact_case(rng, found.sizes, dtype, "exact", found.mask, found.bias)

    yield curve(rng, dtype)
    yield pile(exact(Sizes(2, 2, 2, 1, 1, 3, 3, 9, 11, padding=(1, 1))))
    yield cancelling(rng, dtype)
    yield far(rng, dtype)
    yield large(rng, dtype)
    yield from scaled(exact, dtype)
    yield backwards(inside(Plan(), dtype, lines, ()) or Plan(), dtype, seed)
    kinked = Sizes(2, 2, 2, 1, 2, 2, 3, 4, 5, padding=(1, 1))
    yield from kinks(rng, exact(kinked))


def curve(rng: np.random.Generator, dtype: str) -> Case:
    """Positions over [-2, n + 1] in steps of 1/16, masks over [-2, 3]."""
    n = 4
    at = -2 + np.arange(16 * (n + 3) + 1) / 16
    z = Sizes(1, 1, 1, 1, 1, 1, 1, n, len(at), padding=(0, 0))
    case = exact_case(rng, z, dtype, mask=True)
    rows = rng.permutation(at)[: n * len(at)].reshape(1, 1, -1)
    q = landing(z, np.broadcast_to(rows, (1, n, len(at))), at % (n + 3) - 2)
    m = (np.arange(n * len(at)) % 21 / 4 - 2).reshape(1, 1, n, len(at))
    step = 4 if dtype == "float16" else 16
    q = np.round(q * step) / step
    note = "positions in steps of 1/16, masks from -2 to 3"
    return replace(
        case,
        x=np.sign(case.x - 0.5).astype(dtype),
        offset=q.astype(dtype),
        mask=m.astype(dtype),
        weight=np.ones_like(case.weight),
        bias=None,
        note=note,
    )


def pile(case: Case) -> Case:
    """Every sample falls onto one pixel, or between the same four."""
    z = case.sizes
    half = np.arange(z.out[1]) % 2 / 2
    offset = landing(z, 4 + half[None, None], np.full((1, 1, 1), 5.0))
    note = "all samples on one pixel"
    return replace(case, offset=offset.astype(case.dtype), note=note)


def cancelling(rng: np.random.Generator, dtype: str) -> Case:
    """Large terms that cancel and leave small ones, in every order."""
    z = Sizes(1, 8, 2, 1, 1, 2, 2, 4, 5)
    case = exact_case(rng, z, dtype)
    p = {2: 11, 4: 24, 8: 53}[np.dtype(dtype).itemsize]
    big = 2.0 ** (p - 10)
    x = np.ones(case.x.shape)
    x[:, 0::4] += big
    x[:, 2::4] -= big
    weight, mask = np.ones(case.weight.shape), np.ones((1, 4, *z.out))
    note = f"terms of {big:g} that cancel"
    small: dict[str, Any] = {"offset": np.zeros_like(case.offset), "bias": None}
    arrays = {"x": x, "weight": weight, "mask": mask}
    typed: dict[str, Any] = {k: a.astype(dtype) for k, a in arrays.items()}
    return replace(case, **typed, **small, note=note)


def far(rng: np.random.Generator, dtype: str) -> Case:
    """Positions up to 4,200 with fractions of 1/4 (float16: up to 400)."""
    n = 400 if dtype == "float16" else 4200
    z = Sizes(1, 1, 1, 1, 1, 1, 1, 1, n, stride=(1, 41))
    case = exact_case(rng, z, dtype)
    quarter = rng.integers(0, 4, z.out[1]) / 4
    offset = np.stack([0 * quarter, quarter])[None, :, None]
    note = f"positions up to {n}"
    return replace(case, offset=offset.astype(dtype), note=note)


def large(rng: np.random.Generator, dtype: str) -> Case:
    """An image of more than 2^16 pixels, seen in few places."""
    z = Sizes(1, 2, 2, 1, 1, 1, 1, 270, 260, stride=(33, 31))
    case = exact_case(rng, z, dtype)
    offset = rng.integers(-4, 5, case.offset.shape) / 4
    note = "an image of 70,200 pixels"
    return replace(case, offset=offset.astype(dtype), note=note)


def scaled(exact: Callable[..., Case], dtype: str) -> Iterator[Case]:
    """Pixels times a power of two: beyond the range of float16, and below it."""
    case = exact(Sizes(2, 2, 2, 1, 1, 2, 2, 4, 5), bias=False)
    for power in (18, -40) if dtype != "float16" else ():
        times = np.asarray(2.0**power, dtype)
        bias = None if case.bias is None else case.bias * times
        yield replace(case, x=case.x * times, bias=bias, note=f"pixels times 2^{power}")


def backwards(plan: Plan, dtype: str, seed: int) -> Case:
    """The first call's numbers in reverse order: shapes, sums and sizes are its."""
    case = drawn(plan, dtype, seed, "the same numbers in reverse order")
    turned: dict[str, Any] = {
        name: a.reshape(-1)[::-1].reshape(a.shape).copy()
        for name in ("x", "offset", "weight", "mask", "bias", "grad_y")
        if (a := getattr(case, name)) is not None
    }
    return replace(case, **turned)


def kinks(rng: np.random.Generator, case: Case) -> Iterator[Case]:
    """Integer positions: at -1, 0, n - 1, n and inside."""
    z, dtype = case.sizes, case.dtype
    N, og, K, _, *out = offset_shape(z)
    shape = N, og, K, *out
    rows = rng.choice([-1.0, 0.0, 2.0, z.H - 1.0, z.H], shape)
    columns = rng.choice([-1.0, 0.0, 1.0, z.W - 1.0, z.W], shape)
    both = landing(z, rows, columns)
    yield replace(case, offset=both.astype(dtype), note="integer positions")
    beside = landing(z, rows + rng.choice([-0.25, 0.25], shape), columns)
    yield replace(case, offset=beside.astype(dtype), note="a quarter beside integers")


class Exact(Expected):
    """What an equal result is held to: itself."""

    sweep: Sweep

    def range(self, target: str) -> Range:
        """The value, with no room around it."""
        a = self.sweep.y
        if target != "y":
            a = self.sweep.gradients[TARGETS.index(target)]
        return Range(a, a, np.zeros(a.shape), np.zeros(a.shape))


@dataclass
class Sweep:
    """One call and the bits it must give."""

    case: Case
    plan: Plan | None = None

    def expected(self, standard: Standard) -> Expected:
        """With its bound, computed for the first candidate that needs it."""
        if standard not in self.bounds:
            self.bounds[standard] = Expected(self.case, standard)
        return self.bounds[standard]

    @cached_property
    def bounds(self) -> dict[Standard, Expected]:
        """By standard."""
        return {}

    @cached_property
    def y(self) -> Array:
        """In float64, exact."""
        return oracle.forward(self.case)

    @cached_property
    def gradients(self) -> tuple[Any, ...]:
        """In float64, exact; at an integer position one of the slopes."""
        return oracle.gradients(self.case)

    def passed(self, target: str, standard: Standard) -> Finding:
        """Equal to the last bit, which needs no bound."""
        told = Exact(self.case, standard)
        told.sweep = self
        size = told.range(target).low.size
        return Finding(self.case, target, Verdict.PASS, values=size, expected=told)

    def right(self, outcome: Outcome) -> bool:
        """Whether y has these bits."""
        return not outcome.faults and same(outcome, [self.y], [self.case.x])

    def right_gradients(self, outcome: Outcome) -> bool:
        """Whether the five have these bits; slopes at integers may differ."""
        if outcome.faults or len(outcome.results) != 5:
            return False
        return same(outcome, self.gradients, self.case.inputs)


def same(outcome: Outcome, wants: Any, likes: Any) -> bool:
    """Arrays of the right types, equal in every element."""
    if outcome.status != "ok":
        return False
    for got, want, like in zip(outcome.results, wants, likes, strict=True):
        if want is None or like is None:
            if got is not None:
                return False
            continue
        if not isinstance(got, np.ndarray) or got.dtype != like.dtype:
            return False
        if got.shape != want.shape or not np.array_equal(got, want):
            return False
    return True


@lru_cache(maxsize=8)
def prepare(
    seed: int, dtype: str, level: str, lines: tuple[str, ...] = ()
) -> tuple[Sweep, ...]:
    """The calls of a level outside of the gaps, with what they must give."""
    start = inside(Plan(), dtype, lines, ())
    found = [] if start is None else planned(start, seed, dtype, level, lines)
    found += [
        Sweep(case) for case in (*edges(dtype, seed, lines), *atoms(dtype, seed, lines))
    ]
    if lines and start is not None:
        room = [s for s in found if first_that_holds(lines, s.case) is None]
        missing = len(prepare(seed, dtype, level)) - len(room)
        more = others(start, [one for _, one in swept(level)], dtype, lines)
        found += [
            one_size(plan, name, value, dtype, seed)
            for plan, name, value in islice(more, max(0, missing))
        ]
    return tuple(found)


def planned(
    start: Plan, seed: int, dtype: str, level: str, lines: tuple[str, ...]
) -> list[Sweep]:
    """The sizes of a level one at a time, and the other calls, in the room there is."""
    found = []
    for _, (name, value) in swept(level):
        fits = varied(start, name, value, dtype, lines)
        if fits is not None:
            found.append(one_size(fits, name, value, dtype, seed))
    for plan, note in plans():
        fits = inside(plan, dtype, lines, ())
        if fits is not None:
            found.append(Sweep(drawn(fits, dtype, seed, note), fits))
    return found


def varied(
    start: Plan, name: str, value: int, dtype: str, lines: tuple[str, ...]
) -> Plan | None:
    """The start with one size of that value, in the room of the gaps, if there is."""
    change: dict[str, Any] = {name: value} if name else {}
    plan = start._replace(**change)
    fits = inside(plan, dtype, lines, (IN_GAPS.get(name, name),))
    there = fits is not None and (not name or getattr(fits, name) == value)
    return fits if there else None


def one_size(plan: Plan, name: str, value: int, dtype: str, seed: int) -> Sweep:
    """The call of a sweep that gives a size this value."""
    note = f"{name} = {value}" if name else "sizes as they are"
    return Sweep(replace(drawn(plan, dtype, seed, note), swept=(name, value)), plan)


def others(
    start: Plan, known: Sequence[Swept], dtype: str, lines: tuple[str, ...]
) -> Iterator[tuple[Plan, str, int]]:
    """Further values of sizes, for those that the gaps shut out; small ones first."""
    for value in range(1, MOST_SWEPT + 1):
        for name, values in RANGES.items():
            if (name, value) in known or value > values[-1]:
                continue
            fits = varied(start, name, value, dtype, lines)
            if fits is not None and fits != start:
                yield fits, name, value


IN_GAPS = {"c": "C_in", "o": "C_out"} | {  # the sizes of a plan as gaps name them
    f"{name}_{mine}": f"{name}_{theirs}"
    for name in ("stride", "padding", "dilation")
    for mine, theirs in (("h", "y"), ("w", "x"))
}


def inside(
    plan: Plan, dtype: str, lines: tuple[str, ...], keep: Sequence[str]
) -> Plan | None:
    """The plan with as few changes as bring it outside of every gap, if any do."""
    call = within(lines, Call(plan.sizes, plan.mask, plan.bias), dtype, keep)
    if call is None or not lines:
        return plan if call is not None else None
    z, (H_out, W_out) = call.sizes, call.sizes.out
    found = Plan(
        z.N,
        z.C_in // lcm(z.groups, z.offset_groups),
        z.C_out // z.groups,
        *(z.groups, z.offset_groups, z.K_h, z.K_w, H_out, W_out),
        *(*z.stride, *z.padding, *z.dilation),
        mask=call.mask,
        bias=call.bias,
    )
    again = within(lines, Call(found.sizes, found.mask, found.bias), dtype, keep)
    return found if again is not None and again.sizes == found.sizes else None


def chosen(dtypes: Any) -> str | None:
    """The dtype that is swept: the first wide one."""
    return next((d for d in ("float32", "float64") if d in dtypes), None)


def check(
    runner: Runner, sweep: Sweep, standard: Standard, grads: bool = True
) -> list[Finding]:
    """y, and the gradients where the candidate has them."""
    case, outcome = sweep.case, runner.call(sweep.case)
    if sweep.right(outcome):
        found = [sweep.passed("y", standard)]
    else:
        found = [judge.forward(sweep.expected(standard), outcome)]
    if not (grads and runner.has_grad) or found[0].verdict <= Verdict.INTEGRITY:
        return found
    if sweep.case.swept == BASE:  # what f keeps for f_grad must not be the last call's
        runner.call(unlike(case))
    outcome = runner.call(case, "grad")
    if not sweep.right_gradients(outcome):
        return found + judge.gradients(sweep.expected(standard), outcome)
    pairs = zip(TARGETS, case.inputs, strict=True)
    return found + [sweep.passed(t, standard) for t, a in pairs if a is not None]


def unlike(case: Case) -> Case:
    """The same shapes, every number another."""
    return replace(
        case,
        x=-case.x,
        offset=case.offset + 1,
        weight=-case.weight,
        mask=None if case.mask is None else -case.mask - 1,
        bias=None if case.bias is None else -case.bias - 1,
    )


def differing(
    runner: Runner, dtype: str, known: Sequence[Finding], targets: Sequence[str]
) -> Iterator[tuple[Sweep, str, Array, Array]]:
    """(sweep, target, what came, what must come) of finer sweeps, unjudged.

    For a candidate that is proven wrong already: which value of a size makes it
    fail? Sizes at which it always or never failed are not swept again.
    """
    names = split_by(known, targets)
    for sweep in prepare(1, dtype, "full"):
        if sweep.plan is not None and sweep.plan != Plan():
            if (sweep.case.swept or BASE)[0] not in names:
                continue
        yield from compared(runner, sweep, targets)


def compared(
    runner: Runner, sweep: Sweep, targets: Sequence[str]
) -> Iterator[tuple[Sweep, str, Array, Array]]:
    """What came and what must come of one call."""
    if "y" in targets:
        y = runner.call(sweep.case).results
        yield from comparable(sweep, ("y",), y, (sweep.y,))
    if targets != ["y"] and runner.has_grad:
        five = runner.call(sweep.case, "grad").results
        found = comparable(sweep, TARGETS, five, sweep.gradients)
        yield from (row for row in found if row[1] in targets)


def split_by(known: Sequence[Finding], targets: Sequence[str]) -> list[str]:
    """The sizes of which some values fail and others do not."""
    seen: dict[str, set[bool]] = {}
    for f in known:
        name, _ = f.case.swept or BASE
        if f.target in targets and name:
            seen.setdefault(name, set()).add(f.verdict is Verdict.PASS)
    return [name for name, verdicts in seen.items() if len(verdicts) > 1]


def comparable(
    sweep: Sweep, names: Sequence[str], got: Sequence[Any], want: Sequence[Any]
) -> Iterator[tuple[Sweep, str, Array, Array]]:
    """The outputs that have the right shape."""
    for name, a, b in zip(names, got, want, strict=False):
        if isinstance(a, np.ndarray) and b is not None and a.shape == b.shape:
            yield sweep, name, a.astype(np.float64), b


def unequal(got: Array, want: Array) -> Array:
    """Beyond what a lower precision could do to small dyadic numbers."""
    scale = np.abs(want).max(initial=1.0)
    with np.errstate(invalid="ignore"):  # infinity less infinity is no number
        near = np.abs(got - want) <= 1e-3 * scale
    return np.asarray(~near & ~(got == want))
