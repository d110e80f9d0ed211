"""Correct implementations graded on drawn geometries: no alarm may be raised.

`python -m refdcn.grading.selftest.panel` grades every one of them on each geometry,
and whole at each seed; `--members ring relu` takes those whose names hold a word.
"""

from __future__ import annotations

import argparse
import sys
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
from refdcn.grading.judging.lower_precision import explained
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.inside.routes import How, load
from refdcn.grading.questions import draw
from refdcn.grading.questions.draw import draw_case, landing
from refdcn.grading.selftest.correct import Member, Style, by_image, member
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
    Style("Kahan", order="kahan", position=(2, 3, 1, 0)),
    Style(
        "ring of padding + 1", frame=(1, 1), position=(0, 2, 1, 4, 3), order="einsum"
    ),
    Style("offset first in a ring", frame=(1, 1), position=(3, 4, 2, 1, 0), lerp=True),
    Style("ring of padding + 2", frame=(1, 2), position=(3, 1, 4, 2, 0), flat=True),
    Style("padded twice", frame=(2, 2), position=(3, 2, 4, 0, 1)),
    Style("fraction of the offset", fraction="of the offset", weight_first=True),
    Style("fraction of the ceiling", fraction="of the ceiling", slope="left-hand"),
    Style("cell in a ring", frame=(2, 2), fraction="of a sum apart", corner_sums=True),
)
MEMBERS = [member(style) for style in PANEL]
MEMBERS += [by_image(MEMBERS[k], threads) for k, threads in ((1, 1), (3, 4))]
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


def brim(rng: np.random.Generator, dtype: str) -> Case:
    """Positions next to whole numbers, with offsets of nearly all the bits there are.

    In a wider frame some of them round, and to another cell.
    """
    d, p, k = (tuple(map(int, rng.integers(1, n, 2))) for n in (5, 18, 3))
    H, W = map(int, rng.permutation([5, 260]))
    fixed = {"N": 1, "C_in": 1, "C_out": 1, "H": H, "W": W, "stride": (9, 9)}
    taps = {"K_h": k[0], "K_w": k[1], "groups": 1, "offset_groups": 1, "dilation": d}
    sizes = draw.drawn(rng, padding=p if rng.integers(2) else (0, 0), **fixed, **taps)
    case = draw_case(rng, sizes, dtype, "panel", "zero", False, False)
    u, shape = 2.0 ** -BITS[dtype], case.offset.shape
    last = 4 * u * 2.0 ** rng.integers(0, 6, shape)
    ragged = np.rint(rng.standard_normal(shape) / last) * last
    whole = rng.choice([-1, 0, 1, 2, 4, 16, 64, 256], (2, k[0] * k[1], *sizes.out))
    near = landing(sizes, *(whole + rng.uniform(-2, 2, whole.shape) * u * abs(whole)))
    offset = np.where(rng.integers(0, 2, shape), ragged, near).astype(dtype)
    stripes = np.indices(case.x.shape)[2:].sum(0) % 2 * 2.0 - 1
    weight = np.zeros_like(case.weight)
    weight.reshape(-1)[rng.integers(weight.size)] = 1
    return replace(case, x=stripes.astype(dtype), weight=weight, offset=offset)


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
KINDS: tuple[Maker, ...] = (plain,) * 5 + (steep, brim, absorbing, uneven, faint)


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


def on_torch() -> list[Member]:
    """Those of rewrites.py, if torch is installed."""
    try:
        from refdcn.grading.selftest import rewrites
    except ImportError:
        return []
    found = []
    for name, kept in rewrites.REWRITES.items():
        spec, grid = f"{rewrites.__name__}:{name}", name.startswith("grid")
        f = load(spec, How("torch"))
        assert f.grad is not None
        found.append(Member(name, f.forward, f.grad, kept, spec, grid))
    return found


def everyone() -> list[Member]:
    """All that can be graded here."""
    return [*MEMBERS, *on_torch(), *others()]


def judged(expected: Expected, one: Member) -> list[Finding]:
    """The findings on y and the five gradients, held to its conventions."""
    runner, case = InProcess(one.forward, one.grad), expected.case
    with np.errstate(all="ignore"):  # faint cases overflow in the oracle too
        findings = [judge.forward(expected, runner.call(case))]
        findings += judge.gradients(expected, runner.call(case, "grad"))
    found = explained(findings) if one.grid else findings
    return declared.applied(found, one.conventions, ())


def alarms(
    seed: int,
    n: int,
    dtypes: Sequence[str] = ("float64", "float32", "float16"),
    members: Sequence[Member] | None = None,
    kinds: Sequence[Maker] = KINDS,
    each: bool = False,
) -> Iterator[Alarm | Finding]:
    """Grade members on `n` drawn geometries, one on each or `each`; what was found."""
    rng = np.random.default_rng(seed)
    panel = MEMBERS if members is None else list(members)
    for k in range(n):
        dtype = dtypes[k % len(dtypes)]
        kind = kinds[int(rng.integers(len(kinds)))]
        expected = Expected(kind(rng, dtype), standard(dtype))
        drawn = [panel[int(rng.integers(len(panel)))]]
        for one in panel if each else drawn:
            if dtype == "float16" and one.spec:
                continue  # torch's products in it are of the processor's own kind
            for finding in judged(expected, one):
                alarmed = finding.verdict in ALARMING
                # Half types have a precision of their own, and sums that lose one
                # term after another are longer than the usual ones.
                alarmed |= finding.verdict is Verdict.IMPRECISE and not (
                    dtype == "float16" or kind is absorbing
                )
                text = f"{finding.target}: {said(finding)}"
                yield Alarm(one.name, str(expected.case), text) if alarmed else finding


ALARMING = (Verdict.WRONG, Verdict.UNSUPPORTED, Verdict.INTEGRITY)


def whole(members: Sequence[Member], seed: int) -> list[Alarm]:
    """A whole smoke grade in float32 of each, in its own process; what was alarm."""
    found = []
    for one in members:
        kept = [f"{name}={value}" for name, value in one.conventions.items()]
        named = one.spec or (one.name if one.name in OTHERS else "")
        report = grade(
            named or one.forward,
            grad=None if named else one.grad,
            array="torch" if one.spec else "numpy",
            dtypes=["float32"],
            conventions=kept,
            seed=seed,
        )
        if report.exit_code or not report.has_grad:
            bad = report.worst_of(report.counted)
            found.append(Alarm(one.name, str(bad and bad.case), report.headline()))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Everyone, everywhere: hours on one core, so it can be had in pieces."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="the first")
    parser.add_argument("--seeds", type=int, default=20, help="whole grades of each")
    parser.add_argument("--geometries", type=int, default=5000, help="for each")
    parser.add_argument("--members", nargs="*", default=[""], help="words of names")
    o = parser.parse_args(arguments)
    panel = [one for one in everyone() if any(word in one.name for word in o.members)]
    print(f"{len(panel)} members: {', '.join(one.name for one in panel)}", flush=True)
    raised = 0
    for seed in range(o.seed, o.seed + o.seeds):
        for alarm in whole(panel, seed):
            raised += 1
            print(f"seed {seed}: false alarm: {alarm}", flush=True)
    n = 0
    for found in alarms(o.seed, o.geometries, members=panel, each=True):
        n += 1
        if isinstance(found, Alarm):
            raised += 1
            print(f"false alarm: {found}", flush=True)
    print(f"{raised} false alarms: {o.seeds} whole grades of each, {n:,} results")
    return 1 if raised else 0


if __name__ == "__main__":
    sys.exit(main())
