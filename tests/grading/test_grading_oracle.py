"""The oracles against exact rationals, and the bounds against what breaks them."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from refdcn.grading.expected import bounds, double, oracle
from refdcn.grading.expected.case import Case
from refdcn.grading.expected.expectation import Expected
from refdcn.grading.expected.precision import standard
from refdcn.grading.questions.draw import draw_case, drawn, exact_case


def rational(case, n, o, u, v):
    """One element of y, exactly."""
    s = case.sizes
    C, K = case.weight.shape[1], s.K_h * s.K_w
    per = s.C_in // s.offset_groups
    total = Fraction(0) if case.bias is None else Fraction(float(case.bias[o]))
    for c in range(C):
        channel = o // (s.C_out // s.groups) * C + c
        for k in range(K):
            at = (channel // per) * K + k
            i, j = divmod(k, s.K_w)
            y, x = (
                Fraction(case.stride[a] * (u, v)[a] - case.padding[a])
                + case.dilation[a] * (i, j)[a]
                + Fraction(float(case.offset[n, 2 * at + a, u, v]))
                for a in (0, 1)
            )
            w = Fraction(float(case.weight[o, c, i, j]))
            m = 1 if case.mask is None else Fraction(float(case.mask[n, at, u, v]))
            total += w * m * read(case.x[n, channel], y, x)
    return total


def read(image, y, x):
    total = Fraction(0)
    for r in (floor(y), floor(y) + 1):
        for c in (floor(x), floor(x) + 1):
            if 0 <= r < image.shape[0] and 0 <= c < image.shape[1]:
                weight = (1 - abs(y - r)) * (1 - abs(x - c))
                total += weight * Fraction(float(image[r, c]))
    return total


@pytest.mark.parametrize("kind", ["border", "normal", "integer"])
@pytest.mark.parametrize("seed", range(4))
def test_oracles_against_rationals(kind, seed):
    rng = np.random.default_rng(seed)
    case = draw_case(rng, drawn(rng), np.float64, "", kind, seed % 2 == 0, seed < 2)
    y, finer = oracle.forward(case), double.forward(case)
    bound = bounds.forward(case, y, bounds.FP64)
    for _ in range(10):
        at = tuple(int(rng.integers(n)) for n in y.shape)
        want = rational(case, *at)
        assert abs(Fraction(float(y[at])) - want) <= Fraction(float(bound[at]))
        half = Fraction(float(np.spacing(np.abs(finer[at])))) / 2
        tiny = Fraction(1, 2**100) * (1 + Fraction(float(np.abs(y).max())))
        assert abs(Fraction(float(finer[at])) - want) <= half + tiny


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_exact_probes_are_exact_in_any_order(dtype):
    rng = np.random.default_rng(5)
    small = {"K_h": 2, "K_w": 2} if dtype == np.float16 else {}
    for _ in range(10):
        case = exact_case(rng, drawn(rng, **small), dtype)
        y = oracle.forward(case)
        assert (y.astype(dtype) == y).all()
        assert (double.forward(case) == y).all()


def test_the_position_bound_covers_every_order():
    """(p + dp) + k loses dp = -1e-8 and takes the cell above, or neither's slope."""
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3) ** 2
    weight, offset = np.ones((1, 1, 2, 1)), np.zeros((1, 4, 4, 5))
    offset[0, 2, 1, 2] = -1e-8  # tap 1 of output row 1: row 1 - 1 + 1
    arrays = [a.astype(np.float32) for a in (x, offset, weight)]
    windows = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
    grad_y = np.ones((1, 1, 4, 5), np.float32)
    case = Case("", "bound", *arrays, None, None, **windows, grad_y=grad_y)
    want = Expected(case, standard("float32")).range("grad_offset")
    above, below = x[0, 0, 2, 1] - x[0, 0, 1, 1], x[0, 0, 1, 1] - x[0, 0, 0, 1]
    assert above != below and oracle.gradients(case)[1][0, 2, 1, 2] == below
    found = want.low[0, 2, 1, 2], want.high[0, 2, 1, 2]
    assert found == (min(above, below, 0), max(above, below, 0))


def test_double_double_is_not_float64():
    a = np.array([1 / 3]), np.array([1e-17])
    high, low = double.multiply(a, a)
    exact = (Fraction(1 / 3) + Fraction(1e-17)) ** 2
    error = abs(Fraction(float(high[0])) + Fraction(float(low[0])) - exact)
    assert error < Fraction(1, 2**100) and low[0] != 0


@pytest.mark.parametrize("axis", [0, 1])
def test_slopes_along_one_axis_are_the_definition_s_gradients(axis):
    """The oracle computes no other gradient for the cells beside an integer."""
    rng = np.random.default_rng(3)
    for offsets in ("border", "integer"):
        case = draw_case(rng, drawn(rng, N=2), "float64", "random", offsets)
        inputs = oracle.widened(case)
        got = oracle.along_axis(case.grad_y, inputs[:4], case, axis)
        want = oracle.gradients(case)[1].reshape(*got.shape[:3], 2, *got.shape[3:])
        assert np.array_equal(got, want[:, :, :, axis])
