"""The definition: its worked values, its derivatives, and torchvision as a witness."""

import inspect

import numpy as np
import pytest
from checks import (
    U64,
    convolution,
    gradients_are_adjoint,
    integer_offset_shifts,
    is_linear,
    offset_groups_are_apart,
    one_sample,
    zero_offset_convolves,
)
from hypothesis import given
from hypothesis import strategies as st

import refdcn
from refdcn import formula

from bounds import NAMES, assert_within, bounds, results
from strategies import Sizes, cases, dp, examples, fill

X = np.arange(1.0, 13).reshape(1, 1, 3, 4)


def at(q):
    """y, and the slopes along rows and columns, of X at q."""
    y, _, grad_offset, *_ = results(formula, one_sample((3, 4), q, x=X))
    return y.item(), *grad_offset.ravel()


@pytest.mark.parametrize(
    "q, wanted",
    [
        ((0, 0), (1, 4, 1)),
        ((1, 2), (7, 4, 1)),
        ((0.5, 0), (3, 4, 1)),
        ((0.25, 1.5), (0.75 * 2.5 + 0.25 * 6.5, 4, 1)),
        ((-0.5, 2), (1.5, 3, 0.5)),  # half of x(0, 2)
        ((2.5, 2), (5.5, -11, 0.5)),
        ((-1, 2), (0, 3, 0)),  # right-hand, also at -1
        ((2, 2), (11, -11, 1)),
        ((1, 3), (8, 4, -8)),
        ((3, 2), (0, 0, 0)),
        ((1, 4), (0, 0, 0)),
        ((-1.5, 2), (0, 0, 0)),
        ((-1, -1), (0, 0, 0)),
        ((1e30, 1), (0, 0, 0)),
    ],
)
def test_values_at_one_sample(q, wanted):
    assert at(q) == wanted


def test_the_slope_next_to_an_integer_is_that_of_its_own_cell():
    # The rounded difference -1e-20 - 1 is -1: only q itself tells the cell.
    assert at((-1e-20, 0))[1:] == (1, 1)
    assert at((1e-20, 0))[1:] == (4, 1)


def test_channels_of_offset_and_mask():
    """Tap (1, 2) of offset group 1 in a 3x3 kernel: dy in channel 28, dx in 29."""
    sizes = Sizes(1, 4, 1, offset_groups=2, H=3, W=3, kernel=(3, 3), padding=(0, 0))
    case = fill(sizes, np.random.default_rng(0), "zero", mask=True, bias=False)
    still = formula.deform_conv2d(*case.inputs, **case.windows)
    channel = 2 * ((1 * 3 + 1) * 3 + 2)
    assert channel == 28
    case.offset[0, channel] = 0.5
    case.offset[0, channel + 1] = -1
    moved = formula.deform_conv2d(*case.inputs, **case.windows)
    x, w, dm = case.x[0, 2:], case.weight[0, 2:, 1, 2], case.mask[0, 14, 0, 0]
    read = 0.5 * (x[:, 1, 1] + x[:, 2, 1]) - x[:, 1, 2]
    assert moved.item() - still.item() == pytest.approx(
        (w * read).sum() * dm, rel=1e-13
    )


def test_groups_and_offset_groups_split_in_runs():
    sizes = Sizes(1, 6, 4, groups=2, offset_groups=3, H=4, W=4, kernel=(1, 1))
    sizes = sizes._replace(padding=(0, 0))
    shift = np.array([0.0, 1, 2]).reshape(1, 3, 1, 1, 1)  # columns, by offset group
    _, base = sizes.base
    offset = dp(sizes, sizes.base[0] + 0 * shift, base + shift)
    case = fill(sizes, np.random.default_rng(0), offset, mask=False, bias=False)
    y = formula.deform_conv2d(*case.inputs)
    read = np.pad(case.x, [(0, 0)] * 3 + [(0, 2)])
    read = np.stack([read[0, c, :, c // 2 : c // 2 + 4] for c in range(6)])
    for o in range(4):
        run = slice(0, 3) if o < 2 else slice(3, 6)
        wanted = np.einsum("c,chw->hw", case.weight[o, :, 0, 0], read[run])
        np.testing.assert_allclose(y[0, o], wanted, rtol=1e-14, atol=1e-14)


@examples(100)
@given(cases())
def test_zero_offset_is_convolution(case):
    zero_offset_convolves(formula, case)


@examples(50)
@given(cases())
def test_linear(case):
    is_linear(formula, case)


@examples(100)
@given(cases())
def test_gradients_are_adjoint(case):
    gradients_are_adjoint(formula, case)


@pytest.mark.parametrize("shift", [(1, -2), (-3, 0), (2, 3)])
def test_integer_offset_is_a_shift(shift):
    sizes = Sizes(2, 6, 4, 2, 3, stride=(2, 1), dilation=(1, 2))
    integer_offset_shifts(formula, sizes, np.random.default_rng(0), shift)


def test_offset_groups_in_another_order():
    sizes = Sizes(2, 6, 4, 1, 3, stride=(2, 1))
    offset_groups_are_apart(formula, sizes, np.random.default_rng(0), (2, 0, 1))


@examples(100)
@given(cases(offset=("inside",)), st.sampled_from([0, 1]))
def test_grad_offset_is_a_difference_quotient_within_a_cell(case, axis):
    """Along one axis a sample is linear in its cell: any difference is the slope."""
    case = case._replace(offset=dp_centred(case))
    step = np.zeros_like(case.offset)
    step[:, axis::2] = 0.25  # from the middle of a cell, so that it stays inside
    ends = [case._replace(offset=case.offset + s * step) for s in (1, -1)]
    plus, minus = (formula.deform_conv2d(*c.inputs, **c.windows) for c in ends)
    quotient = (case.grad_y * (plus - minus)).sum() / 0.5
    grad_offset = results(formula, case)[2]
    bound = bounds(case, 4 * U64, 1e-300)
    slack = 4 * np.abs(case.grad_y * bound[0]).sum() + bound[2].sum()
    slack += grad_offset.size * U64 * np.abs(grad_offset).sum()
    assert abs(quotient - grad_offset[:, axis::2].sum()) <= slack


def dp_centred(case):
    """Offsets that put every sample in the middle of its cell."""
    return np.floor(case.offset) + 0.5


def test_float32_is_float64_rounded_once():
    case = fill(Sizes(), np.random.default_rng(3), dtype=np.float32)
    wide = results(formula, case.astype(np.float64))
    for a, b in zip(results(formula, case), wide, strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float32), strict=True)


def test_the_forward_fits_a_screen():
    parts = (formula.tent, formula.sample, formula.by_group, formula.deform_conv2d)
    assert sum(len(inspect.getsource(f).splitlines()) for f in parts) <= 60


def test_convolution_by_slices_is_one():
    """The witness of other tests, on a case computed by hand."""
    x, weight = X[:, :, :2, :2], np.array([1.0, 10]).reshape(1, 1, 1, 2)
    grad_y = np.ones((1, 1, 2, 2))
    y, grad_x, grad_weight = convolution(
        x, weight, np.array([100.0]), (1, 2), (0, 1), (1, 1), grad_y
    )
    np.testing.assert_array_equal(y.ravel(), [110, 102, 150, 106])
    np.testing.assert_array_equal(grad_x.ravel(), [10, 1, 10, 1])
    np.testing.assert_array_equal(grad_weight.ravel(), [2 + 6, 1 + 5])


def witness(case):
    """torchvision's y and gradients, as NAMES."""
    import torch
    import torchvision

    torch.set_num_threads(1)
    arrays = [
        None if a is None else torch.tensor(a, requires_grad=True) for a in case.inputs
    ]
    x, offset, weight, mask, bias = arrays
    y = torchvision.ops.deform_conv2d(x, offset, weight, bias, *case[5:8], mask)
    y.backward(torch.tensor(case.grad_y))
    grads = [None if a is None else a.grad.numpy() for a in arrays]
    return y.detach().numpy(), *grads


@pytest.mark.torch
@examples(2000)
@given(cases())
def test_formula_and_operator_against_torchvision(case):
    wanted, bound = witness(case), bounds(case, 2 * U64, 1e-300)
    for target in (formula, refdcn):
        got = results(target, case)
        for name, *triple in zip(NAMES, got, wanted, bound, strict=True):
            assert_within(*triple, f"{target.__name__}: {name}")
