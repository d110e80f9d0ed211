"""Inputs that are not finite, or far away: what the definition leaves open."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from refdcn.formula import deform_conv2d, deform_conv2d_grad, sample
from refdcn.grading.expected import bounds, oracle
from refdcn.grading.expected.case import Array, Case, offset_shape
from refdcn.grading.expected.expectation import Expected, Range
from refdcn.grading.judging.distance import first_failure, outside, within
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.verdicts import Verdict

Choice = tuple[str, str]


def judge_hostile(case: Case, y: Array, expected: Expected) -> Finding:
    """The definition leaves a choice only where such an input is used."""
    bad_x = ~np.isfinite(case.x)
    tame = tamed(case, bad_x, lost_samples(case))
    want = Expected(tame, expected.standard, expected.border).y
    with np.errstate(invalid="ignore", over="ignore"):
        fits = within(outside(y.astype(np.float64), want), want.bound)
    if bad_x.any():
        ok, choice = of_pixels(tame, bad_x, y, fits)
    else:
        ok, choice = of_offsets(case, y, fits)
    if not ok.all():
        return wrong(case, y, ok, want)
    if choice is None:
        return Finding(case, "y", Verdict.PASS, values=y.size)
    open_choice = Finding(case, "y", Verdict.CONVENTION, Kind.NOT_FINITE)
    return replace(open_choice, values=y.size, choice=choice)


def wrong(case: Case, y: Array, ok: Array, want: Range, target: str = "y") -> Finding:
    """The finding where no choice explains what came."""
    worst = first_failure(ok, y.astype(np.float64), want)
    if is_nan(case, target, worst.at):
        worst = worst._replace(low=np.nan, high=np.nan, bound=np.nan)
    found = Finding(case, target, Verdict.WRONG, Kind.VALUES, values=y.size)
    return replace(found, failing=~ok, worst=worst)


def is_nan(case: Case, target: str, at: tuple[int, ...]) -> bool:
    """Whether an offset that is no number makes this element NaN by the definition."""
    if not np.isnan(case.offset).any():
        return False
    wide = [None if a is None else a.astype(np.float64) for a in case.inputs]
    with np.errstate(all="ignore"):
        if target == "y":
            return bool(np.isnan(deform_conv2d(*wide, **case.windows)[at]))
        assert case.grad_y is not None
        due = deform_conv2d_grad(case.grad_y.astype(float), *wide, **case.windows)
    names = "x", "offset", "weight", "mask", "bias"
    return bool(np.isnan(due[names.index(target[5:])][at]))


def finite(expected: Expected) -> Expected:
    """What is expected where lost samples are outside: they add 0 to everything."""
    case = expected.case
    tame = tamed(case, np.zeros(case.x.shape, bool), lost_samples(case))
    return Expected(tame, expected.standard, expected.border)


def judge_gradient(case: Case, target: str, got: Array, want: Range) -> Finding:
    """0 or NaN where an offset that is not finite enters, and nothing elsewhere."""
    with np.errstate(invalid="ignore", over="ignore"):
        fits = within(outside(got.astype(np.float64), want), want.bound)
    ok = fits | (entered(case, target) & ~np.isfinite(got))
    if not ok.all():
        return wrong(case, got, ok, want, target)
    verdict, kind = Verdict.PASS, Kind.RIGHT
    if not fits.all():
        verdict, kind = Verdict.CONVENTION, Kind.NOT_FINITE
    return Finding(case, target, verdict, kind, values=got.size)


def entered(case: Case, target: str) -> Array:
    """Where in a gradient an offset that is not finite enters."""
    sizes = case.sizes
    q_y, q_x = oracle.positions(case)
    lost = ~np.isfinite(q_y) | ~np.isfinite(q_x)
    channels = sizes.C_in // sizes.offset_groups
    if target == "grad_x":
        by_image = np.repeat(lost.any((2, 3, 4)), channels, 1)
        return np.broadcast_to(by_image[:, :, None, None], case.x.shape)
    if target == "grad_weight":
        each = np.repeat(lost[:, :, None], channels, 2)
        taps = bounds.by_weight_group(case, each).any((0, 4, 5))
        full = np.repeat(taps, sizes.C_out // sizes.groups, 0)
        return full.reshape(case.weight.shape)
    if target == "grad_offset":
        return np.repeat(lost[:, :, :, None], 2, 3).reshape(case.offset.shape)
    shape = case.offset.shape
    if target == "grad_mask":
        return lost.reshape(shape[0], shape[1] // 2, *shape[2:])
    return np.zeros(sizes.C_out, bool)


def lost_samples(case: Case) -> Array:
    """Samples that are nowhere: [N, offset_groups, K, H_out, W_out]."""
    q_y, q_x = oracle.positions(case)
    with np.errstate(invalid="ignore"):
        far = abs(q_y) + abs(q_x) > 1e6
    return np.asarray(~np.isfinite(q_y) | ~np.isfinite(q_x) | far)


def tamed(case: Case, bad_x: Array, lost: Array) -> Case:
    """The same call with finite inputs: bad pixels 0, lost samples outside."""
    far = np.broadcast_to(lost[:, :, :, None], offset_shape(case.sizes))
    offset = np.where(far.reshape(case.offset.shape), -1000, case.offset)
    x = np.where(bad_x, 0, case.x).astype(case.x.dtype)
    return replace(case, kind="bound", x=x, offset=offset.astype(case.offset.dtype))


def of_pixels(
    tame: Case, bad_x: Array, y: Array, fits: Array
) -> tuple[Array, Choice | None]:
    """What is right beside bad pixels, and whether weights of 0 read them."""
    sure, maybe = users_of(tame, bad_x)
    ok = np.where(sure, ~np.isfinite(y), fits | (maybe & ~np.isfinite(y)))
    free = np.compress(~sure.ravel() & floor_reads(tame, bad_x).ravel(), fits)
    if not free.size:
        return ok, None
    chose = "skipped" if free.all() else "in part read" if free.any() else "read"
    return ok, ("zero weight", chose)


def of_offsets(case: Case, y: Array, fits: Array) -> tuple[Array, Choice | None]:
    """What is right beside a lost sample, and what it gives if it is not finite."""
    if np.isfinite(case.offset).all():
        return fits, None
    lost = lost_samples(case)
    used = np.broadcast_to(np.any(lost, (1, 2))[:, None], y.shape)
    key = "nan" if np.isnan(case.offset).any() else "infinite"
    return fits | (used & ~np.isfinite(y)), (key, "0" if fits.all() else "NaN")


def users_of(case: Case, bad: Array) -> tuple[Array, Array]:
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
