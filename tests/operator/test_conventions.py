"""docs/conventions.md, each convention held on every rung. All numbers are exact."""

from itertools import product
from math import floor, inf, nan

import numpy as np
import pytest

import refdcn
from refdcn import columns, formula, loops

RUNGS = {"formula": formula, "loops": loops, "columns": columns, "refdcn": refdcn}
RAMP = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [64.0, 128.0, 256.0]])


@pytest.fixture(params=RUNGS)
def rung(request):
    return RUNGS[request.param]


@pytest.fixture(params=["loops", "columns", "refdcn"])
def compiled(request):
    """The rungs that say what a pixel which is not finite does."""
    return RUNGS[request.param]


def one_sample(x, q):
    """Arguments of a 1x1 kernel with one output, which samples x [H, W] at q."""
    x = np.asarray(x)
    offset = np.array(q, x.dtype).reshape(1, 2, 1, 1)
    one = np.ones((1, 1, 1, 1), x.dtype)
    return (x[None, None], offset, one, one, None), {"stride": x.shape}


def read(rung, x, q):
    arguments, sizes = one_sample(x, q)
    return rung.deform_conv2d(*arguments, **sizes).item()


def gradients(rung, x, q):
    """d x(q) / d each of x, offset, weight, mask."""
    arguments, sizes = one_sample(x, q)
    grads = rung.deform_conv2d_grad(np.ones_like(arguments[2]), *arguments, **sizes)
    return [np.squeeze(a) for a in grads[:4]]


def test_offset_channels(rung):
    x = np.broadcast_to(8.0 * np.arange(4)[:, None] + np.arange(4), (1, 2, 4, 4))
    channels = (np.arange(36.0) + 1) / 64
    offset = np.ones((1, 36, 2, 2)) * channels[:, None, None]
    for g, i, j in product(range(2), range(3), range(3)):
        weight = np.zeros((1, 2, 3, 3))
        weight[0, g, i, j] = 1
        y = rung.deform_conv2d(x, offset, weight)
        dy = 2 * ((g * 3 + i) * 3 + j)
        assert y[0, 0, 0, 0] == 8 * (i + channels[dy]) + j + channels[dy + 1]


def test_groups_and_mask_channels(rung):
    """2 groups and 3 offset groups of 6 channels: neither divides the other."""
    x = np.ones((1, 6, 2, 3)) * 2.0 ** np.arange(6)[:, None, None]
    mask = np.arange(1.0, 19).reshape(1, 18, 1, 1)
    for o, c, i, j in product(range(4), range(3), range(2), range(3)):
        weight = np.zeros((4, 3, 2, 3))
        weight[o, c, i, j] = 1
        y = rung.deform_conv2d(x, np.zeros((1, 36, 1, 1)), weight, mask).ravel()
        channel = o // 2 * 3 + c
        tap = (channel // 2 * 2 + i) * 3 + j
        assert y[o] == (tap + 1) * 2.0**channel
        assert np.count_nonzero(y) == 1


def test_position(rung):
    x = 64.0 * np.arange(9)[:, None] + np.arange(11)
    sizes = {"stride": (2, 3), "padding": (1, 2), "dilation": (3, 2)}
    offset = np.ones((1, 12, 4, 4)) * np.tile([0.25, 0.5], 6)[:, None, None]
    inside = 0
    for i, j in product(range(2), range(3)):
        weight = np.zeros((1, 1, 2, 3))
        weight[0, 0, i, j] = 1
        y = rung.deform_conv2d(x[None, None], offset, weight, **sizes)[0, 0]
        for u, v in product(range(4), range(4)):
            q_y, q_x = 2 * u - 1 + 3 * i + 0.25, 3 * v - 2 + 2 * j + 0.5
            if 0 <= q_y <= 8 and 0 <= q_x <= 10:
                inside += 1
                assert y[u, v] == 64 * q_y + q_x
    assert inside == 60


@pytest.mark.parametrize(
    "q, y",
    [
        ((-0.5, 2), RAMP[0, 2] / 2),
        ((2.75, 1), RAMP[2, 1] / 4),
        ((-0.75, -0.5), RAMP[0, 0] / 8),
        ((1, -1), 0),
        ((3, 1), 0),
        ((1.5, 0.5), (RAMP[1, 0] + RAMP[1, 1] + RAMP[2, 0] + RAMP[2, 1]) / 4),
    ],
)
def test_zero_outside_pixel_by_pixel(rung, q, y):
    assert read(rung, RAMP, q) == y


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "q, slope", [(-2, 0), (-1, 1), (0, 7), (1, 56), (2, -64), (3, 0)]
)
def test_slope_is_right_hand(rung, axis, q, slope):
    """The column 1, 8, 64 between zeros, and the same as a row."""
    x = RAMP if axis == 0 else RAMP.T
    grad_offset = gradients(rung, x, (q, 0) if axis == 0 else (0, q))[1]
    assert grad_offset[axis] == slope


def test_pixels_that_a_sample_reads(compiled):
    """Those of its cell, at weight 0 too, and none unless -1 < q < size."""
    x = RAMP.copy()
    for bad in product(range(3), range(3)):
        x[:] = RAMP
        x[bad] = nan
        for q in product(np.arange(-2, 4.5, 0.5), repeat=2):
            in_cell = all(r - floor(p) in (0, 1) for r, p in zip(bad, q, strict=True))
            _, slope, *_ = gradients(compiled, x, q)
            assert np.isnan(read(compiled, x, q)) == (in_cell and -1 < min(q))
            assert np.isnan(slope).any() == in_cell


def test_pixels_outside_are_never_read(compiled):
    """x, in the middle of an array of NaN, is read where it is, and nothing else."""
    around = np.full((5, 5), nan)
    around[1:4, 1:4] = RAMP
    for q in product(np.arange(-2, 4.5, 0.5), repeat=2):
        assert read(compiled, around[1:4, 1:4], q) == read(formula, RAMP, q)


@pytest.mark.parametrize("q", [(nan, 1), (1, nan), (nan, inf), (-inf, nan)])
def test_nan_position(rung, q):
    grad_x, *others = gradients(rung, RAMP, q)
    assert np.isnan(read(rung, RAMP, q))
    assert all(np.isnan(a).all() for a in others)
    assert not grad_x.any()


@pytest.mark.parametrize("far", [inf, 1e30, 2.0**31, 2.0**63, 4.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_position(rung, far, dtype):
    x = RAMP.astype(dtype)
    for q in [(far, 1), (-far, 1), (1, far), (1, -far), (far, -far)]:
        assert read(rung, x, q) == 0
        assert not any(a.any() for a in gradients(rung, x, q))


def test_float16_positions_and_sums_are_wider():
    """Column 1500 + 0.25 is column 1500 in float16, and 2048 + 1 is 2048."""
    x = np.zeros((1, 1, 1, 1502), np.float16)
    x[..., 1501] = 1
    offset = np.full((1, 2, 1, 2), [[[[0]], [[0.25]]]], np.float16)
    one = np.ones((1, 1, 1, 1), np.float16)
    assert refdcn.deform_conv2d(x, offset, one, stride=1500)[..., 1] == 0.25
    half = np.ones((1, 4096, 1, 1), np.float16)
    y = refdcn.deform_conv2d(half, np.zeros((1, 2, 1, 1), np.float16), half)
    assert (y.item(), y.dtype) == (4096, np.float16)


def test_float64_stays_float64(rung):
    x = RAMP + 2.0**-40
    assert read(rung, x, (0.5, 0)) == (x[0, 0] + x[1, 0]) / 2


@pytest.mark.parametrize("m", [-2.5, 0.0, 3.0])
def test_mask_is_any_number(rung, m):
    (x, offset, weight, mask, _), sizes = one_sample(RAMP, (1, 1))
    y = rung.deform_conv2d(x, offset, weight, m * mask, None, **sizes)
    assert y.item() == 16 * m


def test_no_mask_is_one_and_no_bias_is_zero(rung):
    (x, offset, weight, mask, _), sizes = one_sample(RAMP, (0.5, 1))
    bare = rung.deform_conv2d(x, offset, weight, None, None, **sizes)
    full = rung.deform_conv2d(x, offset, weight, mask, np.zeros(1), **sizes)
    assert bare == full == 9
