"""What every target must satisfy, each a function of the target and a case.

A target is anything with `deform_conv2d` and `deform_conv2d_grad` that are called as
the formula's are: `refdcn`, `refdcn.loops`, or a copy with a mistake in it.
"""

import numpy as np

from refdcn import formula

from bounds import NAMES, assert_within, bounds, results, settled
from strategies import Case, Sizes, dp, dyadic, fill

U64, TINY64 = 2.0**-53, np.finfo(np.float64).tiny


def roundoff(dtype):
    """Unit roundoff and smallest normal number of a result, with the formula's own."""
    info = np.finfo(dtype)
    return float(info.eps) / 2 + U64, float(info.tiny) + TINY64


def assert_all_within(got, wanted, bound):
    for name, *triple in zip(NAMES, got, wanted, bound, strict=True):
        assert_within(*triple, name)


def assert_same(got, wanted, names=NAMES):
    """The same bits, or both None."""
    for name, a, b in zip(names, got, wanted, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            np.testing.assert_array_equal(a, b, err_msg=name, strict=True)


def agrees_with_formula(target, case):
    """y and all gradients, at positions rounded to the case's dtype."""
    got, exact = results(target, case), settled(case)
    bound = bounds(exact, *roundoff(case.x.dtype))
    assert_all_within(got, results(formula, exact), bound)
    assert all(a is None or a.dtype == case.x.dtype for a in got)


def equals_formula(target, case):
    """y and all gradients of dyadic numbers, with no tolerance."""
    case = dyadic(case)
    got, exact = results(target, case), results(formula, case.astype(np.float64))
    wanted = [a if a is None else a.astype(case.x.dtype) for a in exact]
    assert_same(got, wanted)


def is_linear(target, case):
    """In x, in weight and in mask: the values of a sum, and twice the bits of twice."""
    case = case._replace(bias=None)
    rng = np.random.default_rng(0)
    u, tiny = roundoff(case.x.dtype)
    for name in ("x", "weight", "mask"):
        whole = getattr(case, name)
        if whole is None:
            continue
        # Multiples of 1/64 add without a rounding.
        whole = np.round(whole * 64) / 64
        part = np.round(rng.standard_normal(whole.shape) * 64).astype(whole.dtype) / 64
        cases = [case._replace(**{name: a}) for a in (whole, part, whole - part)]
        y, *parts = (target.deform_conv2d(*c.inputs, **c.windows) for c in cases)
        bound = sum(bounds(settled(c), 2 * u, 2 * tiny)[0] for c in cases)
        assert_within(y, parts[0].astype(float) + parts[1], bound, f"linear in {name}")
        twice = case._replace(**{name: 2 * whole})
        doubled = target.deform_conv2d(*twice.inputs, **twice.windows)
        np.testing.assert_array_equal(doubled, 2 * y, f"doubled {name}")


def gradients_are_adjoint(target, case):
    """y is linear in x, weight and mask: <grad_z, z> = <grad_y, y> for each z."""
    case = case._replace(bias=None)
    y, *grads = results(target, case)
    exact = settled(case)
    u, tiny = roundoff(case.x.dtype)
    bound = bounds(exact, u, tiny)
    inner = (case.grad_y.astype(float) * y).sum()
    slack = (np.abs(exact.grad_y) * bound[0]).sum()
    for at in (0, 2, 3):
        z, grad, error = exact[at], grads[at], bound[at + 1]
        if z is None:
            continue
        total = slack + (np.abs(z) * error).sum()
        # Summing a product's terms once more, in float64.
        total += U64 * z.size * (np.abs(z) * np.abs(grad)).sum()
        total += U64 * y.size * (np.abs(exact.grad_y) * np.abs(y)).sum()
        found = (z * grad).sum()
        assert abs(found - inner) <= total, f"<grad, {Case._fields[at]}>"


def integer_offset_shifts(target, sizes, rng, shift, dtype=np.float64):
    """The same bits as x moved by -shift, in y and every gradient."""
    wide = sizes._replace(H=sizes.H + 6, W=sizes.W + 6)
    case = fill(wide, rng, "zero", dtype=dtype)
    rows, columns = (slice(3 + s, -3 + s or None) for s in shift)
    still = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    moved = (slice(None), slice(None), rows, columns)
    x, shifted = np.zeros_like(case.x), np.zeros_like(case.x)
    shifted[still] = x[moved] = case.x[still]
    offset = case.offset.copy()
    offset[:, 0::2], offset[:, 1::2] = shift
    a = list(results(target, case._replace(x=x, offset=offset)))
    b = list(results(target, case._replace(x=shifted)))
    a[1], b[1] = a[1][moved], b[1][still]
    assert_same(a, b)


def convolution(x, weight, bias, stride, padding, dilation, grad_y):
    """Plain convolution by slices, and its gradients: y, grad_x, grad_weight."""
    (N, C_in, H, W), (C_out, C, K_h, K_w) = x.shape, weight.shape
    (top, left), (d_y, d_x), groups = padding, dilation, C_in // C
    H_out, W_out = grad_y.shape[2:]
    shape = (N, C_in, H + 2 * top, W + 2 * left)
    z, grad_z = np.zeros(shape), np.zeros(shape)
    z[:, :, top : top + H, left : left + W] = x
    y, grad_weight = np.zeros(grad_y.shape), np.zeros(weight.shape)
    for o in range(C_out):
        first = o // (C_out // groups) * C
        channels = slice(first, first + C)
        for i in range(K_h):
            for j in range(K_w):
                rows = slice(d_y * i, d_y * i + stride[0] * (H_out - 1) + 1, stride[0])
                cols = slice(d_x * j, d_x * j + stride[1] * (W_out - 1) + 1, stride[1])
                seen, w = z[:, channels, rows, cols], weight[o, :, i, j]
                y[:, o] += np.einsum("nchw,c->nhw", seen, w)
                grad_weight[o, :, i, j] = np.einsum("nchw,nhw->c", seen, grad_y[:, o])
                grad_z[:, channels, rows, cols] += np.einsum(
                    "nhw,c->nchw", grad_y[:, o], w
                )
    y += 0 if bias is None else bias[:, None, None]
    return y, grad_z[:, :, top : top + H, left : left + W], grad_weight


def zero_offset_convolves(target, case):
    """At zero offset and mask None it is a convolution."""
    case = case._replace(offset=np.zeros_like(case.offset), mask=None)
    exact = case.astype(np.float64)
    y, grad_x, grad_weight = convolution(
        exact.x, exact.weight, exact.bias, *case[5:8], exact.grad_y
    )
    got = results(target, case)
    bound = bounds(exact, *roundoff(case.x.dtype))
    for at, wanted in ((0, y), (1, grad_x), (3, grad_weight)):
        assert_within(got[at], wanted, bound[at], f"convolution's {NAMES[at]}")


def batches_are_apart(target, case, order):
    """Images in another order, and one alone: the same bits for each."""
    some = case._replace(
        x=case.x[order],
        offset=case.offset[order],
        mask=None if case.mask is None else case.mask[order],
        grad_y=case.grad_y[order],
    )
    a, b = results(target, case), results(target, some)
    for at in (0, 1, 2, 4):
        if a[at] is not None:
            np.testing.assert_array_equal(a[at][order], b[at], NAMES[at], strict=True)


def groups_are_apart(target, sizes, rng, order, dtype=np.float64):
    """Weight groups in another order give y's channels in that order, bit for bit."""
    case = fill(sizes._replace(offset_groups=1), rng, dtype=dtype)
    b = sizes.groups

    def moved(a, axis):
        runs = np.split(a, b, axis)
        return np.concatenate([runs[i] for i in order], axis)

    other = case._replace(
        x=moved(case.x, 1), weight=moved(case.weight, 0), bias=moved(case.bias, 0),
        grad_y=moved(case.grad_y, 1),
    )  # fmt: skip
    y, grad_x, _, grad_weight, _, grad_bias = results(target, case)
    got = results(target, other)
    wanted = (moved(y, 1), moved(grad_x, 1), moved(grad_weight, 0), moved(grad_bias, 0))
    names = ("y", "grad_x", "grad_weight", "grad_bias")
    assert_same((got[0], got[1], got[3], got[5]), wanted, names)


def offset_groups_are_apart(target, sizes, rng, order, dtype=np.float64):
    """Offset groups in another order, with their channels: the same sums."""
    case = fill(sizes._replace(groups=1), rng, dtype=dtype)
    runs = np.arange(sizes.C_in).reshape(sizes.offset_groups, -1)[list(order)].ravel()

    def moved(a):
        shape = (a.shape[0], sizes.offset_groups, -1, *a.shape[2:])
        return a.reshape(shape)[:, list(order)].reshape(a.shape)

    other = case._replace(
        x=case.x[:, runs].copy(), weight=case.weight[:, runs].copy(),
        offset=moved(case.offset), mask=moved(case.mask),
    )  # fmt: skip
    y, grad_x, grad_offset, grad_weight, grad_mask, grad_bias = results(target, case)
    moved_back = (
        y, grad_x[:, runs], moved(grad_offset), grad_weight[:, runs],
        moved(grad_mask), grad_bias,
    )  # fmt: skip
    u, tiny = roundoff(dtype)
    bound = bounds(settled(other), 2 * u, 2 * tiny)
    assert_all_within(results(target, other), moved_back, bound)


def one_sample(shape, q, dtype=np.float64, x=None):
    """A 1x1 kernel that reads x [1, 1, H, W] once, at q = (row, column)."""
    sizes = Sizes(1, 1, 1, H=shape[0], W=shape[1], kernel=(1, 1), padding=(0, 0))
    sizes = sizes._replace(stride=shape)  # one output
    rng = np.random.default_rng(1)
    rows, columns = (np.full((1, 1, 1, 1, 1), a, float) for a in q)
    case = fill(sizes, rng, dp(sizes, rows, columns), bias=False)
    one = np.ones((1, 1, 1, 1))
    case = case._replace(weight=one, mask=one, grad_y=one)
    case = case if x is None else case._replace(x=x)
    return case.astype(dtype)
