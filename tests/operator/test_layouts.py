"""Other libraries' layouts: round trips, single numbers, DCNv3 and v4 by their sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdcn import formula, layouts

SIZES = st.integers(1, 3)
NAMES = sorted(layouts.LIBRARIES)


def drawn(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@given(st.sampled_from(NAMES), SIZES, SIZES, SIZES, st.integers(0, 9))
def test_there_and_back(name, groups, K_h, K_w, seed):
    if layouts.LIBRARIES[name].one_group:
        groups = 1
    taps, kernel = groups * K_h * K_w, (K_h, K_w)
    offset, mask = drawn((2, 2 * taps, 2, 3), seed), drawn((2, taps, 2, 3), seed)
    there = layouts.to_library(name, offset, mask, kernel_size=kernel)
    back = layouts.from_library(name, *there, kernel_size=kernel)
    assert np.array_equal(back[0], offset) and np.array_equal(back[1], mask)


def test_single_numbers_lie_where_the_libraries_say():
    """Tap (1, 2) of group 1 of 2, in a 2x3 kernel: k = 5, m = 11."""
    offset, mask = np.zeros((1, 24, 1, 1)), np.zeros((1, 12, 1, 1))
    offset[0, 22], offset[0, 23], mask[0, 11] = 1, 2, 3  # dy, dx, dm
    (packed,) = layouts.to_library("mindspore", offset, mask, kernel_size=(2, 3))
    assert packed.shape == (1, 36, 1, 1)
    assert [packed[0, c].item() for c in (11, 23, 35)] == [2, 1, 3]  # x, y, mask
    planar, _ = layouts.to_library("chainer", offset[:, 12:], kernel_size=(2, 3))
    assert [planar[0, c].item() for c in (5, 11)] == [2, 1]
    same, _ = layouts.to_library("torchvision", offset, kernel_size=(2, 3))
    assert np.array_equal(same, offset)


def dcnv3_sum(x, offset, mask, kernel, group, window, scale, remove_center):
    """The sum of InternImage's kernel, over taps column by column."""
    (K_h, K_w), (s, p, d) = kernel, window
    N, H, W, C = x.shape
    _, H_out, W_out, _ = offset.shape
    dp = offset.reshape(N, H_out, W_out, group, -1, 2)
    dm = mask.reshape(N, H_out, W_out, group, -1)
    y = np.zeros((N, H_out, W_out, group, C // group))
    c_y, c_x = (d[0] * (K_h - 1)) >> 1, (d[1] * (K_w - 1)) >> 1
    for n, u, v, g in np.ndindex(N, H_out, W_out, group):
        t = 0
        for j in range(K_w):
            for i in range(K_h):
                if remove_center and (i, j) == (K_h // 2, K_w // 2):
                    continue
                dx, dy = dp[n, u, v, g, t]
                q_y = u * s[0] - p[0] + c_y + scale * (i * d[0] - c_y + dy)
                q_x = v * s[1] - p[1] + c_x + scale * (j * d[1] - c_x + dx)
                tents = (
                    formula.tent(np.array([q_y]), H)[0][0][:, None]
                    * formula.tent(np.array([q_x]), W)[0][0]
                )
                image = x[n].reshape(H, W, group, -1)[:, :, g]
                y[n, u, v, g] += dm[n, u, v, g, t] * np.einsum(
                    "hw,hwc->c", tents, image
                )
                t += 1
    return y.reshape(N, H_out, W_out, C)


KERNELS = [(3, 3), (2, 3), (1, 5)]


@pytest.mark.parametrize("remove_center", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1.0, 2.0, 0.5])
def test_dcnv3_is_dcnv2_with_unit_weights(kernel, scale, remove_center):
    group, C, (K_h, K_w) = 2, 6, kernel
    window = (2, 1), (1, 2), (1, 2)
    taps = group * (K_h * K_w - remove_center)
    x, offset = drawn((2, 7, 9, C)), drawn((2, 3, 4, 2 * taps), 1)
    mask = drawn((2, 3, 4, taps), 2)
    want = dcnv3_sum(x, offset, mask, kernel, group, window, scale, remove_center)
    options = {
        "kernel_size": kernel,
        "stride": window[0],
        "padding": window[1],
        "dilation": window[2],
        "offset_scale": scale,
        "remove_center": remove_center,
    }
    given = layouts.dcnv3(x, offset, mask, group=group, **options)
    y = formula.deform_conv2d(**given).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-13)
    packed = np.zeros((2, 3, 4, -(-3 * taps // 8) * 8))
    apart = (a.reshape(2, 3, 4, group, -1) for a in (offset, mask))
    each = np.concatenate([*apart], -1).reshape(2, 3, 4, -1)
    packed[..., : 3 * taps] = each
    other = layouts.dcnv4(x, packed, group=group, **options)
    assert all(np.array_equal(given[k], other[k]) for k in given)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_dcnv3_and_back(scale):
    offset, mask = drawn((2, 24, 3, 4)), drawn((2, 12, 3, 4), 1)
    options = {"kernel_size": (2, 3), "dilation": (1, 2), "offset_scale": scale}
    there = layouts.as_dcnv3(offset, mask, **options)
    back = layouts.dcnv3(drawn((2, 5, 5, 4)), *there, group=2, **options)
    np.testing.assert_allclose(back["offset"], offset, rtol=0, atol=1e-15)
    assert np.array_equal(back["mask"], mask)
    packed = layouts.as_dcnv4(offset, mask, **options)
    assert packed.shape == (2, 3, 4, 40)
    back = layouts.dcnv4(drawn((2, 5, 5, 4)), packed, group=2, **options)
    np.testing.assert_allclose(back["offset"], offset, rtol=0, atol=1e-15)


@pytest.mark.torch
@pytest.mark.parametrize("name", NAMES)
def test_tensors_stay_tensors(name):
    import torch

    offset, mask = torch.randn(2, 8, 2, 3), torch.randn(2, 4, 2, 3)
    there = layouts.to_library(name, offset, mask, kernel_size=2)
    back = layouts.from_library(name, *there, kernel_size=2)
    assert torch.equal(back[0], offset) and torch.equal(back[1], mask)
    x = torch.randn(1, 5, 5, 4, dtype=torch.float16)
    given = layouts.dcnv4(x, torch.zeros(1, 3, 3, 32), group=1, kernel_size=3)
    assert given["weight"].dtype == torch.float16
    assert given["offset"].shape == (1, 18, 3, 3)


@pytest.mark.parametrize(
    "name, channels, said",
    [
        ("onyx", 18, "name is 'onyx'"),
        ("onnx", 17, "offset has 17 channels; wanted a multiple of 18"),
        ("ncnn", 36, "offset has 36 channels; wanted 18"),
        ("mindspore", 18, "wanted a multiple of 27"),
    ],
)
def test_what_fits_no_layout_is_said(name, channels, said):
    with pytest.raises(ValueError, match=said):
        layouts.from_library(name, np.zeros((1, channels, 1, 1)), kernel_size=3)
    with pytest.raises(ValueError, match="mask is None"):
        layouts.to_library("mindspore", np.zeros((1, 18, 1, 1)), kernel_size=3)
