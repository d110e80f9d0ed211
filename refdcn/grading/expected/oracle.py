"""The values that grading trusts: Eqs. (1) to (4) of formula.py, in float64.

Only formula.py is called here, never loops.py, whose functions the kernels
under judgement share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from refdcn import formula
from refdcn.grading.expected.case import Array, Case, base, offset_shape

LIMIT = 2**23  # numbers in one tent or column array of a chunk


def widened(case: Case) -> list[Any]:
    """x, offset, weight, mask, bias in float64."""
    return [None if a is None else a.astype(np.float64) for a in case.inputs]


def forward(case: Case) -> Array:
    """y in float64, a run of output rows at a time to bound the memory."""
    x, offset, weight, mask, bias = widened(case)
    y = np.empty(case.y_shape)
    (s, *_), (top, left) = case.stride, case.padding
    for n in range(len(x)):
        for a, z in row_runs(case):
            y[n, :, a:z] = formula.deform_conv2d(
                x[n, None],
                offset[n, None, :, a:z],
                weight,
                None if mask is None else mask[n, None, :, a:z],
                bias,
                case.stride,
                (top - s * a, left),  # row a becomes row 0
                case.dilation,
            )[0]
    return y


def row_runs(case: Case) -> list[tuple[int, int]]:
    """Runs [a, z) of output rows whose tents and columns stay below LIMIT."""
    sizes = case.sizes
    h, w = sizes.out
    K = sizes.K_h * sizes.K_w
    wide = sizes.H + sizes.W + sizes.C_in * (1 + sizes.H / max(1, sizes.offset_groups))
    row = max(1, sizes.offset_groups * K * w * wide)
    step = int(max(1, LIMIT // row))
    return [(a, min(a + step, h)) for a in range(0, h, step)]


def positions(case: Case) -> tuple[Array, Array]:
    """q_y, q_x [N, offset_groups, K, H_out, W_out] in float64."""
    by, bx = base(case.sizes)
    dp = case.offset.astype(np.float64).reshape(offset_shape(case.sizes))
    return by + dp[:, :, :, 0], bx + dp[:, :, :, 1]


def modulation(case: Case) -> Array:
    """The mask [N, offset_groups, K, H_out, W_out] in float64; None is 1."""
    N, og, K, _, *out = offset_shape(case.sizes)
    if case.mask is None:
        return np.ones((N, og, K, *out))
    return case.mask.astype(np.float64).reshape(N, og, K, *out)


def gradients(case: Case) -> tuple[Any, ...]:
    """d sum(grad_y * y) / d x, offset, weight, mask, bias in float64."""
    assert case.grad_y is not None
    grad_y = case.grad_y.astype(np.float64)
    return formula.deform_conv2d_grad(  # type: ignore[no-any-return]
        grad_y, *widened(case), **case.windows
    )


def one_sided(case: Case, axis: int) -> tuple[Array, Array]:
    """The offset's gradient along one axis in the cells on each side of q.

    The slope is constant along its own axis within a cell, so half a pixel
    below and above the nearest integer it is that cell's; [N, offset_groups,
    K, H_out, W_out] each.
    """
    assert case.grad_y is not None
    q, sides = positions(case)[axis], []
    grad_y = case.grad_y.astype(np.float64)
    for half in (-0.5, 0.5):
        moved = widened(case)[:4]
        dp = moved[1].reshape(offset_shape(case.sizes))
        dp[:, :, :, axis] += np.round(q) + half - q
        sides.append(along_axis(grad_y, moved, case, axis))
    return sides[0], sides[1]


def along_axis(grad_y: Array, inputs: list[Any], case: Case, axis: int) -> Array:
    """deform_conv2d_grad's grad_dy or grad_dx alone, by the same lines.

    A test holds it to them; all five gradients took twice as long.
    """
    x, tents_y, tents_x, dm, w = formula.by_group(*inputs, **case.windows)
    go = grad_y.reshape(len(x), *w.shape[:2], *grad_y.shape[2:])
    G = np.einsum("bock,nbouv->nbckuv", w, go)
    (tent_y, slope_y), (tent_x, slope_x) = tents_y, tents_x
    pair = (slope_y, tent_x) if axis == 0 else (tent_y, slope_x)
    sloped = formula.sample(x, *pair)
    return np.asarray((G.reshape(sloped.shape) * dm * sloped).sum(2))


def border(case: Case, rule: str) -> Case:
    """The case whose definition value is that of `rule` on the given one.

    A border rule other than the paper's is the paper's sum on a changed mask
    and offset: samples beyond an edge get mask 0, and those between the last
    pixel and the edge are moved onto it where it is replicated.
    """
    if rule == "corners":
        return case
    sizes, shape = case.sizes, offset_shape(case.sizes)
    keep: Array = np.ones(modulation(case).shape, bool)
    dp = case.offset.reshape(shape).copy()
    axes = zip(positions(case), base(sizes), (sizes.H, sizes.W), strict=True)
    for axis, (q, start, n) in enumerate(axes):
        keep &= q >= 0
        if rule == "inside":
            keep &= q <= n - 1
        if rule == "replicate above":
            keep &= q < n
            last = np.broadcast_to(n - 1 - start, q.shape).astype(dp.dtype)
            dp[:, :, :, axis] = np.where(q > n - 1, last, dp[:, :, :, axis])
    N, og, K, _, *out = shape
    mask = (modulation(case) * keep).reshape(N, og * K, *out).astype(case.x.dtype)
    return replace(case, offset=dp.reshape(case.offset.shape), mask=mask)
