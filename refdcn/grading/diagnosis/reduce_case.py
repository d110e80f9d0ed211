"""The smallest case that still fails: halves are left out while it does.

Every reduction is a case of its own right, judged anew; it need not compute
what the larger one did. It ends after so many cases, or on a slow machine after so
many seconds: then the case is larger, its verdict and what is named are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array, Case, Pair, Sizes
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import Standard
from refdcn.grading.judging import judge
from refdcn.grading.judging.finding import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.process.isolation import Process

CASES = 1500  # that are tried
SECONDS = 20.0  # of wall time
ABOUT_VALUES = Verdict.WRONG, Verdict.IMPRECISE  # the same finding, more or less of it
Fails = Callable[[Case], Finding | None]


def reduced_finding(
    runner: Process | InProcess, found: Finding, standard: Standard, border: str
) -> Finding:
    """The finding on the smallest case with the same verdict on the same output."""
    if found.case.kind in ("hostile", "malformed") or found.verdict is Verdict.TIMEOUT:
        return found

    def fails(case: Case) -> Finding | None:
        if not possible(case):
            return None
        expected = Expected(case, standard, border)
        if found.target.startswith("grad"):
            findings = judge.gradients(expected, runner.call(case, "grad"))
        else:
            findings = [judge.forward(expected, runner.call(case))]
        alike = ABOUT_VALUES if found.verdict in ABOUT_VALUES else (found.verdict,)
        for f in findings:
            if f.target == found.target and f.verdict in alike:
                return f
        return None

    whole, tried, end = found, count(), time.monotonic() + SECONDS

    def late() -> bool:
        return next(tried) >= CASES or time.monotonic() > end

    found = greedy(found, GEOMETRIES, fails, late)
    for name in VALUED:
        found = plainer(found, name, fails, late)
    if found is whole:
        return found
    # What was drawn is not what is left: offsets of a kind may all be 0 now.
    return replace(found, case=replace(found.case, note=""))


def greedy(
    found: Finding,
    reductions: Sequence[Callable[[Case], Iterator[Case]]],
    fails: Fails,
    late: Callable[[], bool],
) -> Finding:
    """Take what still fails, until nothing smaller does."""
    more = True
    while more:
        more = False
        for reduction in reductions:
            smaller: Finding | None = found
            while smaller is not None:
                found, smaller = smaller, None
                for case in reduction(found.case):
                    if late():
                        return found
                    smaller = fails(case)
                    if smaller is not None:
                        more = True
                        break
    return found


def plainer(
    found: Finding, name: str, fails: Fails, late: Callable[[], bool]
) -> Finding:
    """Plain numbers in one input, else zeros in as many parts as still fails."""
    a = getattr(found.case, name)
    if a is None or not a.any():
        return found
    for plain in (np.zeros_like(a), np.ones_like(a), np.round(a)):
        smaller = (
            fails(altered(found.case, name, plain)) if is_simpler(plain, a) else None
        )
        if smaller is not None:
            found, a = smaller, plain
            break
    size = max(1, a.size // 2)
    while size:
        for start in range(0, a.size, size):
            b = a.copy()
            block = b.reshape(-1)[start : start + size]
            if not block.any() or late():
                continue
            block[:] = 0
            smaller = fails(altered(found.case, name, b))
            if smaller is not None:
                found, a = smaller, b
        size //= 2
    return found


def optional(case: Case) -> Iterator[Case]:
    """No mask, no bias, the usual layout."""
    for name in ("mask", "bias"):
        if getattr(case, name) is not None:
            yield altered(case, name, None)
    if case.layout != "contiguous":
        yield replace(case, layout="contiguous")


def possible(case: Case) -> bool:
    """Whether something is left to compute, and the shapes fit."""
    s = case.sizes
    return min(s.out) >= 1 and s.out == case.offset.shape[2:]


def altered(case: Case, name: str, value: Any) -> Case:
    """The case with one of its fields replaced."""
    fields = {name: value}
    return replace(case, **fields)


def parts_of(n: int) -> Iterator[slice]:
    """Halves of n things, then all but one."""
    if n > 1:
        yield from (slice(0, n // 2), slice(n // 2, n))
    if n > 2:
        yield from (slice(1, n), slice(0, n - 1))


def at(a: Array | None, axis: int, part: slice) -> Array | None:
    """A part of an array that may be None."""
    return None if a is None else a[(slice(None),) * axis + (part,)]


def fewer_images(case: Case) -> Iterator[Case]:
    """Fewer images."""
    for part in parts_of(len(case.x)):
        yield replace(
            case,
            x=case.x[part],
            offset=case.offset[part],
            mask=at(case.mask, 0, part),
            grad_y=at(case.grad_y, 0, part),
        )


def fewer_groups(case: Case) -> Iterator[Case]:
    """One offset group for all channels; one weight group with its channels."""
    s = case.sizes
    K = s.K_h * s.K_w
    if s.offset_groups > 1:
        offset, mask = case.offset[:, : 2 * K], at(case.mask, 1, slice(0, K))
        yield replace(case, offset=offset, mask=mask)
    C_in, C_out = s.C_in // s.groups, s.C_out // s.groups
    if s.groups > 1 and C_in % s.offset_groups == 0:
        yield kept_outputs(replace(case, x=case.x[:, :C_in]), slice(0, C_out))


def kept_outputs(case: Case, part: slice | Array) -> Case:
    """Some of the output channels."""
    bias, grad_y = case.bias, case.grad_y
    return replace(
        case,
        weight=case.weight[part],
        bias=None if bias is None else bias[part],
        grad_y=None if grad_y is None else grad_y[:, part],
    )


def fewer_outputs(case: Case) -> Iterator[Case]:
    """Fewer output channels in each group."""
    s = case.sizes
    index = np.arange(s.C_out).reshape(s.groups, -1)
    for part in parts_of(index.shape[1]):
        yield kept_outputs(case, index[:, part].reshape(-1))


def fewer_channels(case: Case) -> Iterator[Case]:
    """Fewer input channels, as many in each group."""
    s = case.sizes
    blocks = int(np.lcm(s.groups, s.offset_groups))
    index = np.arange(s.C_in).reshape(blocks, -1)
    of_weight = np.arange(s.C_in // s.groups).reshape(blocks // s.groups, -1)
    for part in parts_of(index.shape[1]):
        yield replace(
            case,
            x=case.x[:, index[:, part].reshape(-1)],
            weight=case.weight[:, of_weight[:, part].reshape(-1)],
        )


def fewer_taps(case: Case) -> Iterator[Case]:
    """Fewer rows or columns of the kernel, on a smaller image."""
    s = case.sizes
    for axis, n in ((0, s.K_h), (1, s.K_w)):
        for part in parts_of(n):
            fewer = case.weight.take(range(*part.indices(n)), 2 + axis)
            grid = (s.N, s.offset_groups, s.K_h, s.K_w)
            offset = at(case.offset.reshape(*grid, 2, *s.out), 2 + axis, part)
            mask = case.mask
            if mask is not None:
                mask = at(mask.reshape(*grid, *s.out), 2 + axis, part)
                assert mask is not None
                rows, columns = mask.shape[2:4]
                mask = mask.reshape(s.N, grid[1] * rows * columns, *s.out)
            assert offset is not None
            rows, columns = offset.shape[2:4]
            offset = offset.reshape(s.N, grid[1] * rows * columns * 2, *s.out)
            smaller = replace(case, weight=fewer, offset=offset, mask=mask)
            yield resized(smaller, s.out)


def resized(case: Case, out: Pair) -> Case:
    """The image cut, or padded by zeros, so that the output has size `out`."""
    K_h, K_w = case.weight.shape[2:]
    x = case.x
    both = zip(out, (K_h, K_w), case.stride, case.padding, case.dilation, strict=True)
    for axis, (n, k, s, p, d) in enumerate(both, 2):
        size = max(1, (n - 1) * s + d * (k - 1) + 1 - 2 * p)
        more = max(0, size - x.shape[axis])
        x = np.pad(x, [(0, more if a == axis else 0) for a in range(4)])
        x = x.take(range(size), axis)
    window = (slice(None), slice(None), slice(0, out[0]), slice(0, out[1]))
    return replace(
        case,
        x=x,
        offset=case.offset[window],
        mask=None if case.mask is None else case.mask[window],
        grad_y=None if case.grad_y is None else case.grad_y[window],
    )


def fewer_pixels(case: Case) -> Iterator[Case]:
    """Fewer output rows or columns."""
    h, w = case.sizes.out
    for part in parts_of(h):
        yield resized(case, (part.stop - part.start, w))
    for part in parts_of(w):
        yield resized(case, (h, part.stop - part.start))


def plain_windows(case: Case) -> Iterator[Case]:
    """Stride and dilation 1, padding 0, along one axis or both."""
    sizes: Sizes = case.sizes
    for name, plain in (("stride", 1), ("dilation", 1), ("padding", 0)):
        y, x = getattr(case, name)
        for pair in ((plain, plain), (plain, x), (y, plain)):
            if pair != (y, x):
                yield resized(altered(case, name, pair), sizes.out)


def is_simpler(plain: Array, a: Array) -> bool:
    """Fewer elements that are no 0, else fewer that are no whole number."""

    def cost(b: Array) -> tuple[int, int, int]:
        fractions = int(np.count_nonzero(b != np.round(b)))
        others = int(np.count_nonzero((b != 0) & (b != 1)))
        return fractions, others, int(np.count_nonzero(b))

    return cost(plain) < cost(a)


GEOMETRIES = (
    optional,
    fewer_images,
    fewer_groups,
    fewer_outputs,
    fewer_channels,
    fewer_taps,
    fewer_pixels,
    plain_windows,
)
VALUED = ("mask", "offset", "weight", "x", "bias", "grad_y")
