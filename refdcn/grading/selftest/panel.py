"""Correct implementations graded on drawn geometries: no alarm may be raised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from refdcn.grading.expected.case import BITS, Case
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.grader import grade
from refdcn.grading.judging import declared, judge
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.inside.candidates import load
from refdcn.grading.process.isolation import InProcess
from refdcn.grading.questions import draw
from refdcn.grading.questions.draw import draw_case, landing
from refdcn.grading.selftest.correct import Member, Style, member
from refdcn.grading.words.findings import said


class Alarm(NamedTuple):
    """A correct implementation that was called wrong."""

    member: str
    case: str
    text: str


PANEL = (
    Style("direct"),
    Style("backward", order="backward", position=(3, 2, 0, 1)),
    Style("random order", order="random", position=(3, 1, 2, 0)),
    Style("pairwise", order="pairwise", weight_first=True, position=(1, 3, 0, 2)),
    Style("nested lerp", lerp=True, weight_first=True),
    Style("corner by corner", corner_sums=True, position=(3, 2, 0, 1), flat=True),
    Style(
        "corners backward", corner_sums=True, order="backward", position=(1, 3, 0, 2)
    ),
    Style("float64 sums", accumulate="float64", order="random", flat=True),
    Style("float32 sums", accumulate="float32"),
    Style("float32 steps", work="float32", lerp=True, order="random"),
    Style("columns", work="float32", stored=True, order="einsum"),
    Style("fused", fma=True, flat=True),
    Style("fused lerp", fma=True, lerp=True, position=(1, 0, 2, 3)),
    Style("left-hand slope", slope="left-hand", order="pairwise"),
    Style("mean slope", slope="the mean", corner_sums=True),
    Style("no slope at -1", slope="0 at -1", fma=True, weight_first=True),
)
MEMBERS = [member(style) for style in PANEL]
OTHERS = ("formula", "loops", "refdcn", "torchvision")


def steep(rng: np.random.Generator, dtype: str) -> Case:
    """One pixel a sum, far from the origin, neighbours of opposite sign.

    The position's error is nearly all of the error here, so that its bound is
    tried where nothing else hides it: along rows, columns, or for slopes.
    """
    n, k = (64, 16) if dtype == "float16" else (300, 64)
    long = {"H": n, "K_h": 2, "K_w": 1, "dilation": (k, 1), "stride": (k, 1)}
    wide = {"W": n, "K_h": 1, "K_w": 2, "dilation": (1, k), "stride": (1, k)}
    fixed = (long, wide)[int(rng.integers(2))]
    other = {"H": 3} if "W" in fixed else {"W": 3}
    sizes = draw.drawn(rng, N=1, C_in=1, C_out=1, **fixed, **other)
    case = draw_case(rng, sizes, dtype, "panel", "normal", False, False)
    stripes = np.indices(case.x.shape)[2:].sum(0) % 2 * 2.0 - 1
    ones = np.ones_like(case.weight)
    ones[..., -1, -1] = rng.integers(2)  # one sample a sum, or two
    offset = case.offset + rng.integers(0, k, case.offset.shape)
    offset = offset.astype(dtype)
    return replace(case, x=stripes.astype(dtype), weight=ones, offset=offset)


def absorbing(rng: np.random.Generator, dtype: str) -> Case:
    """One large term and many that are lost beside it, one after another.

    Nearly every rounding of a sum is as large as it can be, and of one sign.
    """
    many = ({"C_in": 6, "K_h": 4, "K_w": 4}, {"C_out": 24, "C_in": 4}, {"N": 3})
    which = int(rng.integers(3))
    fixed = {"N": 1, "K_h": 1, "K_w": 1, "C_in": 1, "H": 5, "W": 5} | many[which]
    sizes = draw.drawn(rng, groups=1, offset_groups=1, dilation=(1, 1), **fixed)
    case = draw_case(rng, sizes, dtype, "panel", "zero")
    assert case.bias is not None
    one = {name: np.ones_like(getattr(case, name)) for name in ONES}
    corners = int(rng.integers(2))  # on one pixel, or between four of them
    small = 2.0 ** (2 * corners + int(rng.integers(3)) - BITS[dtype])
    outputs, weight = one["grad_y"], one["weight"]
    if rng.integers(2):  # or every pixel is 1, and no slope is left
        one["x"] *= (np.arange(sizes.H) % 2).reshape(-1, 1).astype(dtype)
    if which == 0:
        weight.reshape(len(weight), -1)[:, 1:] = small
    elif which == 1:
        outputs.reshape(-1)[1:] = small
    else:
        outputs[1:], outputs.reshape(len(outputs), len(weight), -1)[..., 1:] = (
            small,
            small,
        )
    place = rng.integers(1, 4, (2, 1, 1)) + 0.5 * corners
    offset, bias = landing(sizes, *place), np.zeros_like(case.bias)
    return replace(case, **one, offset=offset.astype(dtype), bias=bias)


ONES = ("x", "weight", "mask", "grad_y")


def plain(rng: np.random.Generator, dtype: str) -> Case:
    """Any geometry, with offsets of a random kind."""
    kind = str(rng.choice(["border", "normal", "integer", "zero"]))
    given = rng.integers(0, 2, 2).astype(bool)
    sizes = draw.drawn(rng, N=int(rng.integers(1, 3)), most=4)
    return draw_case(rng, sizes, dtype, "panel", kind, *map(bool, given))


def uneven(rng: np.random.Generator, dtype: str) -> Case:
    """Pixels of very different sizes side by side: a lerp loses the small ones."""
    case = plain(rng, dtype)
    power = 2.0 ** rng.integers(-6, 7, case.x.shape)
    return replace(case, x=(case.x * power).astype(dtype))


def faint(rng: np.random.Generator, dtype: str) -> Case:
    """Factors so far from 1 that products of some of them underflow or overflow."""
    sizes = draw.drawn(rng, N=1, most=4)
    case = draw_case(rng, sizes, dtype, "panel", "border")
    far = {2: 9, 4: 72, 8: 520}[np.dtype(dtype).itemsize] * rng.choice([-1, 1])
    powers = far * rng.permutation([1, 1, -1, 0])
    names = ("x", "weight", "mask", "grad_y")
    arrays = {name: getattr(case, name) for name in names}
    scaled = {
        name: np.ldexp(a, power).astype(dtype)
        for (name, a), power in zip(arrays.items(), powers, strict=True)
    }
    return replace(case, **scaled, bias=None)  # it would hide the rest


Maker = Callable[[np.random.Generator, str], Case]
KINDS: tuple[Maker, ...] = (plain,) * 5 + (steep, steep, absorbing, uneven, faint)


def others() -> list[Member]:
    """Real implementations, as far as they are installed."""
    found = []
    for name in OTHERS:
        try:
            target = load(name)
        except ImportError:
            continue
        assert target.grad is not None
        found.append(Member(name, target.forward, target.grad, {}))
    return found


def judged(expected: Expected, one: Member) -> list[Finding]:
    """The findings on y and the five gradients, held to its conventions."""
    runner, case = InProcess(one.forward, one.grad), expected.case
    with np.errstate(all="ignore"):  # faint cases overflow in the oracle too
        findings = [judge.forward(expected, runner.call(case))]
        findings += judge.gradients(expected, runner.call(case, "grad"))
    return declared.applied(findings, one.conventions, ())


def alarms(
    seed: int,
    n: int,
    dtypes: Sequence[str] = ("float64", "float32", "float16"),
    members: Sequence[Member] | None = None,
    kinds: Sequence[Maker] = KINDS,
) -> Iterator[Alarm | Finding]:
    """Grade a member on each of `n` drawn geometries; what was found, or alarms."""
    rng = np.random.default_rng(seed)
    panel = MEMBERS if members is None else list(members)
    for k in range(n):
        dtype = dtypes[k % len(dtypes)]
        case = kinds[int(rng.integers(len(kinds)))](rng, dtype)
        one = panel[int(rng.integers(len(panel)))]
        for finding in judged(Expected(case, standard(dtype)), one):
            if finding.verdict in (Verdict.WRONG, Verdict.UNSUPPORTED):
                text = f"{finding.target}: {said(finding)}"
                yield Alarm(one.name, str(case), text)
            else:
                yield finding


def whole(members: Sequence[Member], seed: int) -> list[Alarm]:
    """A whole smoke grade in float32 of each, in its own process; what was alarm."""
    found = []
    for one in members:
        kept = [f"{name}={value}" for name, value in one.conventions.items()]
        by_name = one.name in OTHERS
        report = grade(
            one.name if by_name else one.forward,
            grad=None if by_name else one.grad,
            dtypes=["float32"],
            conventions=kept,
            seed=seed,
        )
        if report.exit_code or not report.has_grad:
            bad = report.worst_of(report.counted)
            found.append(Alarm(one.name, str(bad and bad.case), report.headline()))
    return found
