"""Right operators in other precisions, with other conventions, with gaps."""

import numpy as np

from refdcn import formula

right = formula.deform_conv2d


def half_positions(x, offset, *rest, **windows):
    return right(x, offset.astype(np.float16).astype(x.dtype), *rest, **windows)


def tf32_weights(x, offset, weight, *rest, **windows):
    cut = weight.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)
    weight = cut.view(np.float32).astype(x.dtype)
    return right(x, offset, weight, *rest, **windows)


def single(x, *rest, **windows):
    y = right(x, *rest, **windows)
    return y.astype(np.float32).astype(x.dtype)


def texture_positions(x, offset, *rest, **windows):
    offset = (np.round(offset.astype(float) * 256) / 256).astype(offset.dtype)
    return right(x, offset, *rest, **windows)


def inside_only(x, offset, weight, mask, bias, **windows):
    from refdcn.grading.expected.case import Case
    from refdcn.grading.expected.oracle import border

    c = Case("", "", x, offset, weight, mask, bias, **windows)
    return right(*border(c, "inside").inputs, **windows)


def no_groups(x, offset, weight, mask, bias, **windows):
    if x.shape[1] != weight.shape[1] or x.dtype == np.float64:
        raise NotImplementedError("one group of float32 only")
    return right(x, offset, weight, mask, bias, **windows)


def evaluated(edits, *inputs, **windows):
    """The operator with some steps rounded."""
    from refdcn.grading.catalogue.steps import functions

    return functions(edits)[0](*inputs, **windows)


def to_half(a):
    return a.astype(np.float16).astype(float)


def to_tf32(a):
    bits = a.astype(np.float32).view(np.uint32) + np.uint32(0x1000)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32).astype(float)


def to_bfloat16(a):
    bits = a.astype(np.float32).view(np.uint32) + np.uint32(0x8000)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32).astype(float)


def half_coordinates(*inputs, **windows):
    def rounded(s):
        s.qy, s.qx = to_half(s.qy), to_half(s.qx)

    return evaluated([("position", rounded)], *inputs, **windows)


def half_columns(*inputs, **windows):
    def rounded(s):
        s.col = to_half(s.col)

    return evaluated([("columns", rounded)], *inputs, **windows)


def half_sums(*inputs, **windows):
    def added(s):
        w, col = s.w[None, ..., None, None], s.col[:, :, None]
        terms = w * col
        y = np.zeros((s.z.N, s.z.groups, s.w.shape[1], *s.out), np.float16)
        for c in range(s.w.shape[2]):
            for k in range(s.K):
                y = (y + terms[:, :, :, c, k]).astype(np.float16)
        s.y = y.reshape(s.z.N, s.z.C_out, *s.out).astype(float)

    return evaluated([("contract", added)], *inputs, **windows)


def tf32_products(*inputs, **windows):
    def rounded(s):
        s.col, s.w = to_tf32(s.col), to_tf32(s.w)

    return evaluated([("columns", rounded)], *inputs, **windows)


def bfloat16_weights(*inputs, **windows):
    def rounded(s):
        s.w = to_bfloat16(s.w)

    return evaluated([("read", rounded)], *inputs, **windows)


def any_rounding(x, *rest, **windows):
    """Right; the last bits vary from call to call, as those of atomics do.

    Of sums of four terms or more: of fewer, one bit is more than their rounding.
    """
    wide = [a if a is None else a.astype(np.float64) for a in (x, *rest)]
    exact = right(*wide, **windows)
    y = exact.astype(x.dtype)
    up = np.random.default_rng().integers(0, 2, y.shape) & (y != exact)
    up &= rest[1][0].size >= 4
    other = np.nextafter(y, np.where(exact > y, np.inf, -np.inf).astype(x.dtype))
    return np.where(up.astype(bool), other, y)


def inside_only_grad(grad_y, *inputs, **windows):
    """The definition's, which is no derivative of inside_only."""
    return formula.deform_conv2d_grad(grad_y, *inputs, **windows)
