"""Correct implementations graded on drawn geometries: no alarm may be raised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refdcn.grading import declared, judge, suite
from refdcn.grading.candidates import load
from refdcn.grading.cases import Case, draw_case
from refdcn.grading.isolation import InProcess
from refdcn.grading.members import Member, Style, member
from refdcn.grading.precision import standard
from refdcn.grading.verdicts import Verdict


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
    sizes = suite.drawn(rng, N=1, C_in=1, C_out=1, **fixed, **other)
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
    many = ({"C_in": 6, "K_h": 4, "K_w": 4}, {"C_out": 24}, {"N": 3})
    fixed = {"N": 1, "K_h": 1, "K_w": 1, "C_in": 1} | many[int(rng.integers(3))]
    sizes = suite.drawn(rng, groups=1, offset_groups=1, **fixed)
    case = draw_case(rng, sizes, dtype, "panel", "zero")
    half = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}[dtype]
    one = {name: np.ones_like(a) for name, a in vars(case).items() if name in ONES}
    offset = case.offset + rng.choice([0, 0.5])  # one corner, or all four
    small = half * 2.0 ** rng.integers(-1, 3)
    weight, grad_y = one["weight"], one["grad_y"]
    if rng.integers(2):
        weight[:, 1:], weight[:, :, 1:], weight[:, :, :, 1:] = small, small, small
    elif rng.integers(2):
        weight[1:] = small
    elif rng.integers(2):
        grad_y[:, 1:] = small
    else:
        grad_y[1:], grad_y[:, :, 1:], grad_y[:, :, :, 1:] = small, small, small
    return replace(case, **one, offset=offset.astype(dtype), bias=None)


ONES = ("x", "weight", "mask", "grad_y")


def uneven(rng: np.random.Generator, case: Case) -> Case:
    """Pixels of very different sizes side by side: a lerp loses the small ones."""
    power = 2.0 ** rng.integers(-6, 7, case.x.shape)
    return replace(case, x=(case.x * power).astype(case.x.dtype))


def faint(rng: np.random.Generator, case: Case) -> Case:
    """Factors so far from 1 that products of some of them underflow or overflow."""
    far = {2: 8, 4: 70, 8: 600}[case.x.dtype.itemsize]

    def scaled(a: Any) -> Any:
        power = 2.0 ** int(rng.integers(-far, far // 2))
        return None if a is None else (a * power).astype(a.dtype)

    with np.errstate(over="ignore", under="ignore"):
        found = replace(
            case,
            x=scaled(case.x),
            weight=scaled(case.weight),
            mask=scaled(case.mask),
            bias=scaled(case.bias),
            grad_y=scaled(case.grad_y),
        )
    arrays = [a for a in (*found.inputs, found.grad_y) if a is not None]
    return found if all(np.isfinite(a).all() for a in arrays) else case


def drawn(rng: np.random.Generator, dtype: str) -> suite.Expected:
    """One geometry with offsets of a random kind."""
    kind = str(rng.choice(["border", "normal", "integer", "zero"]))
    given = rng.integers(0, 2, 2).astype(bool)
    special = rng.integers(10)
    if special < 3:
        make = (steep, steep, absorbing)[special]
        return suite.Expected(make(rng, dtype), standard(dtype))
    sizes = suite.drawn(rng, N=int(rng.integers(1, 3)), most=4)
    case = draw_case(rng, sizes, dtype, "panel", kind, *map(bool, given))
    if special < 5:
        case = (faint, uneven)[special - 3](rng, case)
    return suite.Expected(case, standard(dtype))


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


def judged(expected: suite.Expected, one: Member) -> list[judge.Finding]:
    """The findings on y and the five gradients, held to its conventions."""
    runner, case = InProcess(one.forward, one.grad), expected.case
    with np.errstate(all="ignore"):  # faint cases overflow in the oracle too
        findings = [judge.forward(expected, runner.call(case))]
        findings += judge.gradients(expected, runner.call(case, "grad"))
    declared.apply(findings, one.conventions, ())
    return findings


def alarms(
    seed: int,
    n: int,
    dtypes: Sequence[str] = ("float64", "float32", "float16"),
    members: Sequence[Member] | None = None,
) -> Iterator[Alarm | float]:
    """Grade a member on each of `n` drawn geometries; its ratios, or alarms."""
    rng = np.random.default_rng(seed)
    panel = [member(style) for style in PANEL] if members is None else list(members)
    for k in range(n):
        dtype = dtypes[k % len(dtypes)]
        expected = drawn(rng, dtype)
        one = panel[int(rng.integers(len(panel)))]
        for finding in judged(expected, one):
            if finding.verdict in (Verdict.WRONG, Verdict.UNSUPPORTED):
                said = f"{finding.target}: {finding.text}"
                yield Alarm(one.name, str(expected.case), said)
            else:
                yield finding.ratio
