"""How far two correct results may be apart where both sample the same cells.

Each target forms a position as a whole number plus dp, rounded once. So two targets of
one dtype hold the same q, bit for bit, and only the roundings of their sums differ:

    |error| <= ((1 + u)^(terms + STEPS) - 1) * sum of |factors|

in any order of evaluation, with or without fused multiply-adds. The error of a tent is
absolute, so each tent and slope counts as 1 on its cell. Both sums are the formula's:
of the magnitudes, and of ones. `refdcn.grading.expected.bounds` is tighter, and holds
for targets that round positions differently.
"""

from unittest import mock

import numpy as np

from refdcn import formula

from strategies import Case

STEPS = 16  # one term's roundings: two tents, corner, dm, w, grad_y, bias, the result
NAMES = ("y", "grad_x", "grad_offset", "grad_weight", "grad_mask", "grad_bias")


def box(q, size):
    """1 on the two pixels of q's cell, for `formula.tent`."""
    cell, r = np.floor(q)[..., None], np.arange(size)
    one = 1.0 * ((r == cell) | (r == cell + 1))
    return one, one


def results(target, case):
    """(y, grad_x, grad_offset, grad_weight, grad_mask, grad_bias), as NAMES."""
    y = target.deform_conv2d(*case.inputs, **case.windows)
    grads = target.deform_conv2d_grad(case.grad_y, *case.inputs, **case.windows)
    return y, *grads


def sums(case, magnitude):
    with mock.patch.object(formula, "tent", box):
        arrays = (a if a is None else magnitude(a) for a in case.inputs)
        sized = Case(*arrays, *case[5:8], magnitude(case.grad_y))
        return results(formula, sized._replace(offset=case.offset))


def bounds(case, u, tiny):
    """For each of NAMES; u and tiny add up the unit roundoffs of the two results."""
    terms = sums(case, np.ones_like)
    sizes = sums(case, np.abs)
    given = [a for a in (case.x, case.weight, case.mask, case.grad_y) if a is not None]
    # Each product may underflow, and what is lost meets the factors that follow.
    lost = STEPS * tiny * np.prod([1 + np.abs(a).max(initial=0) for a in given])
    return [
        a if a is None else np.expm1((n + STEPS) * np.log1p(u)) * a + lost * (1 + n)
        for n, a in zip(terms, sizes, strict=True)
    ]


def settled(case):
    """`case` in float64, its offsets giving the positions that its dtype rounds to."""
    s, T = case.sizes, case.x.dtype.type
    q = case.offset.reshape(s.N, s.offset_groups, s.taps, 2, *s.out)
    rounded = [
        (q[:, :, :, axis] + base.astype(T)).astype(float) - base
        for axis, base in enumerate(s.base)
    ]
    offset = np.stack(rounded, 3).reshape(case.offset.shape)
    return case.astype(np.float64)._replace(offset=offset)


def assert_within(got, wanted, bound, what):
    """|got - wanted| <= bound everywhere; NaN fails."""
    assert (got is None) == (wanted is None), f"{what}: one is None, the other not"
    if got is None:
        return
    assert got.shape == wanted.shape, f"{what}: {got.shape}, wanted {wanted.shape}"
    error = np.abs(got.astype(np.float64) - wanted)
    if not (inside := error <= bound).all():
        at = tuple(map(int, np.argwhere(~inside)[0]))
        raise AssertionError(
            f"{what}[{at}] is {got[at]}, wanted {wanted[at]} within {bound[at]:.2g}; "
            f"{(~inside).sum()} of {inside.size} are outside"
        )
