"""One call's outcome against its expectation: a finding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from refdcn.formula import sample
from refdcn.grading.expected import bounds, oracle
from refdcn.grading.expected.case import Array, Case, offset_shape
from refdcn.grading.expected.expectation import TARGETS, Expected, Range
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.outcome import Outcome

COMPANION = "the gradient companion: "  # before what it did
ORDERS = {"<": "little", ">": "big"}


@dataclass
class Finding:
    """The verdict on one output of one case."""

    case: Case
    target: str
    verdict: Verdict
    text: str = ""
    ratio: float = 0.0  # largest |error| / bound
    values: int = 0
    failing: Array | None = None
    got: Array | None = None  # what came, where it is not right
    expected: Expected | None = None
    cause: str = ""  # the precision or the mistake that explains it
    choice: tuple[str, str] | None = None  # a convention and its value
    equal: tuple[str, ...] = ()  # other values that are the same here
    declared: bool = False  # the candidate's owner said so beforehand


def unanswered(case: Case, outcome: Outcome) -> Finding | None:
    """The finding when there is no result to judge."""
    if outcome.status == "crash":
        return Finding(case, "call", Verdict.CRASH, outcome.text)
    if outcome.status == "timeout":
        return Finding(case, "call", Verdict.TIMEOUT, outcome.text)
    if outcome.faults:
        return Finding(case, "call", Verdict.INTEGRITY, "; ".join(outcome.faults))
    if outcome.status == "raised":
        if case.kind == "malformed":
            return Finding(case, "call", Verdict.PASS, outcome.text)
        return Finding(case, "call", Verdict.UNSUPPORTED, outcome.text)
    if case.kind == "malformed":
        text = f"accepted in silence: {case.note}"
        return Finding(case, "call", Verdict.WRONG, text)
    return None


def misshapen(case: Case, y: Any, name: str, like: Array, shape: Any) -> Finding | None:
    """The finding when the result is not the array it must be."""
    if not isinstance(y, np.ndarray):
        text = f"{name} is {y if isinstance(y, str) else type(y).__name__}, no array"
        return Finding(case, name, Verdict.WRONG, text)
    if y.shape != tuple(shape):
        text = f"{name} has shape {list(y.shape)}; it must be {list(shape)}"
        return Finding(case, name, Verdict.WRONG, text)
    wanted = np.dtype(np.uint16) if case.bfloat16 else like.dtype
    if y.dtype != wanted:
        order = "" if y.dtype.isnative else f"{ORDERS[y.dtype.byteorder]}-endian "
        text = f"{name} is {order}{y.dtype.name} for {case.dtype} inputs"
        return Finding(case, name, Verdict.WRONG, text)
    return None


def forward(expected: Expected, outcome: Outcome) -> Finding:
    """The verdict on y."""
    case = expected.case
    found = unanswered(case, outcome)
    y: Any = outcome.results[0] if found is None else None
    found = found or misshapen(case, y, "y", case.x, case.y_shape)
    if found is not None:
        return found
    y = case.numbers(y)
    if case.kind == "hostile":
        return judge_hostile(case, y, expected)
    return compare(expected, "y", y)


def gradients(expected: Expected, outcome: Outcome) -> list[Finding]:
    """The verdicts on the five gradients."""
    case = expected.case
    found = unanswered(case, outcome)
    if found is not None:
        return [of_companion(found, "gradients")]
    if len(outcome.results) != 5:
        text = f"it returned {len(outcome.results)} gradients; it must return five"
        found = Finding(case, "gradients", Verdict.WRONG, text)
        return [of_companion(found, "gradients")]
    findings = []
    triples = zip(
        TARGETS, outcome.results, case.inputs, expected.gradients, strict=True
    )
    for name, got, like, want in triples:
        if like is None or want is None:
            if got is not None:
                text = f"{name} is no None though {name[5:]} was None"
                found = Finding(case, name, Verdict.WRONG, text)
                findings.append(of_companion(found, name))
            continue
        found = misshapen(case, got, name, like, like.shape)
        findings.append(
            of_companion(found, name)
            if found
            else compare(expected, name, case.numbers(got))
        )
    if findings[1].verdict is Verdict.PASS:
        findings += slopes(expected, case.numbers(outcome.results[1]))
    return findings


def of_companion(finding: Finding, target: str) -> Finding:
    """The same finding, said of the gradient companion."""
    finding.target = target
    if finding.text:
        finding.text = COMPANION + finding.text
    return finding


def first_failure(name: str, ok: Array, y: Array, want: Range) -> str:
    """Where, what came and what was wanted, of the worst failing element."""
    with np.errstate(invalid="ignore", over="ignore"):
        excess = np.nan_to_num(outside(y, want), nan=np.inf)
        excess = np.where(ok, -1.0, excess)
    at = np.unravel_index(np.argmax(excess), y.shape)
    index = ", ".join(map(str, map(int, at)))
    low, high = float(want.low[at]), float(want.high[at])
    said = f"{low:.9g}" if low == high else f"{low:.9g} to {high:.9g}"
    return (
        f"{name}[{index}] = {float(y[at]):.9g}, the definition gives {said} with a "
        f"bound of {float(want.bound[at]):.2g}; "
        f"{np.count_nonzero(~ok)} of {y.size} values are outside"
    )


def outside(y: Array, want: Range) -> Array:
    """The distance from the range."""
    return np.asarray(np.maximum(np.maximum(want.low - y, y - want.high), 0))


def compare(expected: Expected, name: str, y: Array) -> Finding:
    """Exact data must match to the bit, all other lie within the bound."""
    case, want = expected.case, expected.range(name)
    with np.errstate(invalid="ignore"):  # memory never written may hold any NaN
        y = y.astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = outside(y, want)
    # An infinite bound says that a step may overflow, and inf - inf is NaN.
    ok = within(error, want.bound) | np.isinf(want.bound)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.nan_to_num(error / want.bound, nan=0.0, posinf=np.inf)
    worst = float(ratio.max(initial=0.0))
    found = Finding(case, name, Verdict.PASS, "", worst, y.size, expected=expected)
    if case.kind == "exact" and expected.standard.exact:
        loose = ~within(error, np.zeros_like(error))
        why = "inexact on dyadic data, where every order of evaluation is exact"
        found.ratio = worst = 0.0
    else:
        loose = ~within(error, want.usual) & np.isfinite(want.usual)
        why = "less accurate than the usual orders of summation"
    if not ok.all():
        found.verdict, found.failing = Verdict.WRONG, ~ok
        found.text = first_failure(name, ok, y, want)
    elif loose.any():
        found.verdict, found.failing = Verdict.IMPRECISE, loose
        found.text = f"{name}: {np.count_nonzero(loose)} of {y.size} values are {why}"
    if found.verdict is not Verdict.PASS:
        found.got = y
    return found


def slopes(expected: Expected, got: Array) -> list[Finding]:
    """Which one-sided slope it takes where the position is an integer."""
    found = []
    for key, border in (("slope at -1", True), ("slope at integers", False)):
        fits = slope_fits(expected, got, border)
        if not fits:
            continue
        sides = [side for side in fits if fits[side]] or ["mixed"]
        right = sides[0] == "right-hand"
        verdict = Verdict.PASS if right else Verdict.CONVENTION
        text = "" if right else f"the {key} is {sides[0]}"
        one = Finding(expected.case, "grad_offset", verdict, text)
        one.choice, one.equal = (key, sides[0]), tuple(sides[1:])
        found.append(one)
    return found


def slope_fits(expected: Expected, got: Array, border: bool) -> dict[str, bool]:
    """Whether each choice fits everywhere; empty where no place tells them apart."""
    case, want = expected.case, expected.range("grad_offset")
    shape = offset_shape(case.sizes)
    got, bound = (a.astype(float).reshape(shape) for a in (got, want.bound))
    fits: dict[str, bool] = {}
    for axis, q in enumerate(oracle.positions(case)):
        told = (q == np.round(q)) & ((q == -1) == border)
        if not told.any():
            continue
        (below, above), E = expected.sides[axis], bound[:, :, :, axis]
        told &= np.abs(above - below) > 8 * E
        if not told.any():
            continue
        for side, value in choices(below, above).items():
            ok = within(np.abs(got[:, :, :, axis] - value), E)
            fits[side] = fits.get(side, True) and bool(ok[told].all())
    return fits


def choices(below: Array, above: Array) -> dict[str, Array]:
    """What an implementation may take for the slope at an integer."""
    middle = (below + above) / 2
    zero = np.zeros_like(middle)
    return {"right-hand": above, "0": zero, "left-hand": below, "the mean": middle}


def within(error: Array, bound: Array) -> Array:
    """NaN is not within anything."""
    return np.asarray(error <= bound)


def judge_hostile(case: Case, y: Array, expected: Expected) -> Finding:
    """Non-finite inputs: the definition leaves a choice only where they are used."""
    bad_x = ~np.isfinite(case.x)
    q_y, q_x = oracle.positions(case)
    lost = ~np.isfinite(q_y) | ~np.isfinite(q_x) | (abs(q_y) + abs(q_x) > 1e6)
    far = np.broadcast_to(lost[:, :, :, None], offset_shape(case.sizes))
    tame = replace(
        case,
        kind="bound",
        x=np.where(bad_x, 0, case.x).astype(case.x.dtype),
        offset=np.where(far.reshape(case.offset.shape), -1000, case.offset).astype(
            case.offset.dtype
        ),
    )
    want = Expected(tame, expected.standard, expected.border).y
    with np.errstate(invalid="ignore", over="ignore"):
        fits = within(outside(y.astype(np.float64), want), want.bound)
    if bad_x.any():
        sure, maybe = touched(tame, bad_x)
        ok = np.where(sure, ~np.isfinite(y), fits | (maybe & ~np.isfinite(y)))
        choice = np.compress(~sure.ravel() & floor_reads(tame, bad_x).ravel(), fits)
        chose = (
            "skipped" if choice.all() else "in part read" if choice.any() else "read"
        )
        note = f"a {case.note} at weight 0 is {chose}"
        choice_of = "zero weight", chose
        open_choice = bool(choice.size)
    else:
        used = np.broadcast_to(np.any(lost, (1, 2))[:, None], y.shape)
        infinite = ~np.isfinite(case.offset).all()
        ok = fits | (used & ~np.isfinite(y) & infinite)
        gives = "0" if fits.all() else "NaN"
        note = f"{case.note} gives {gives}"
        choice_of = "nan" if "nan" in case.note else "infinite", gives
        open_choice = bool(infinite)
    if not ok.all():
        text = f"{case.note}: " + first_failure("y", ok, y, want)
        return Finding(case, "y", Verdict.WRONG, text, failing=~ok)
    verdict = Verdict.CONVENTION if open_choice else Verdict.PASS
    chosen = choice_of if open_choice else None
    return Finding(case, "y", verdict, note, values=y.size, choice=chosen)


def touched(case: Case, bad: Array) -> tuple[Array, Array]:
    """Outputs that use a bad pixel with a weight, and those that may read it."""
    flags = replace(
        case,
        x=bad.astype(np.float64),
        weight=(case.weight != 0).astype(np.float64),
        mask=None if case.mask is None else (case.mask != 0).astype(np.float64),
        bias=None,
        offset=case.offset.astype(np.float64),
    )
    sure = oracle.forward(flags) > 0
    wide = bad.copy()
    for axis in (2, 3):  # the pixel and its eight neighbours
        line = wide.swapaxes(0, axis)
        before = line.copy()
        line[1:] |= before[:-1]
        line[:-1] |= before[1:]
    near = replace(
        flags,
        x=wide.astype(np.float64),
        weight=np.ones_like(flags.weight),
        mask=None,
    )
    return sure, oracle.forward(near) > 0


def floor_reads(case: Case, bad: Array) -> Array:
    """Outputs that read a bad pixel as one of floor(q), floor(q) + 1."""
    reads = []
    for q, n in zip(oracle.positions(case), case.x.shape[2:], strict=True):
        r, p = np.arange(n), q[..., None]
        reads.append(1.0 * ((r - 1 <= p) & (p < r + 1) & (p > -1) & (p < n)))
    N, C_in, H, W = bad.shape
    og = case.sizes.offset_groups
    flags = 1.0 * bad.reshape(N, og, C_in // og, H, W)
    met = sample(flags, *reads) > 0
    by_group = bounds.by_weight_group(case, met).any((2, 3))
    return np.repeat(by_group, case.y_shape[1] // case.sizes.groups, 1)
