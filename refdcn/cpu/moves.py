"""Between the caller's layouts and ours: transpositions, which Numba compiles.

Arrays are flat. Ours are an image [(H + 3) * (W + 2), C_in] with zeros around, weights
[K * C, C_out] a group, products [P, C_out].
"""

import numpy as np

from refdcn.cpu.vectors import transpose
from refdcn.jit import jitable

CALLED = "6ab44a395997"  # as in kernels.py, of vectors.py and jit.py


@jitable
def pixels(H, W, C_in, begin):
    """Where channel `begin` of each pixel of x stands in the padded image."""
    places = np.empty(H * W, np.int64)
    for r in range(H):
        for s in range(W):
            places[r * W + s] = ((r + 1) * (W + 2) + s + 1) * C_in + begin
    return places


@jitable
def rows(first, size, count):
    """first, first + size, ...: where `count` rows of one size begin."""
    return first + size * np.arange(count)


def image_in(x, first, sizes, begin, end, image):
    """Channels begin ... end - 1 of x [C_in, H, W] from `first` on, in zeros."""
    C_in, H, W = sizes
    for r in range(H + 3):
        step = W + 1 if 0 < r <= H else 1  # of a middle row, its first and last pixel
        for s in range(0, W + 2, step):
            at = (r * (W + 2) + s) * C_in
            for c in range(begin, end):
                image[at + c] = 0
    source = rows(first + begin * H * W, H * W, end - begin)
    transpose(x, source, image, pixels(H, W, C_in, begin))


def image_out(image, sizes, x, first):
    """The middle of the padded image, all channels: the inverse of `image_in`."""
    C_in, H, W = sizes
    transpose(image, pixels(H, W, C_in, 0), x, rows(first, H * W, C_in))


def planes_in(x, first, sizes, planes):
    """x [C_in, H, W] from `first` on into [C_in, H + 3, W + 2], in zeros."""
    C_in, H, W = sizes
    area = (H + 3) * (W + 2)
    for c in range(C_in):
        plane = planes[c * area : (c + 1) * area].reshape(H + 3, W + 2)
        plane[0], plane[H + 1 :], plane[:, 0], plane[:, W + 1] = 0, 0, 0, 0
        for r in range(H):
            at = first + (c * H + r) * W
            plane[r + 1, 1 : W + 1] = x[at : at + W]


def product_out(product, P, bias, y, channel, pixels, first):
    """product [P, O] + bias into channels `channel` ... of y, from output `first` on.

    `bias` is empty where there is none.
    """
    O = product.size // P
    if bias.size > 0:
        for p in range(P):
            row = product[p * O : (p + 1) * O]
            for o in range(O):  # as `row += bias` it takes 7 times as long
                row[o] += bias[o]
    target = rows(channel * pixels + first, pixels, O)
    transpose(product, rows(0, O, P), y, target)


@jitable
def weight_rows(first, C, K, O):
    """Where the O weights of each (c, k) stand in a run of C channels from `first`."""
    places = np.empty(C * K, np.int64)
    for c in range(C):
        for k in range(K):
            places[c * K + k] = first + (k * C + c) * O
    return places


def weights_in(weight, sizes, runs, origin, w):
    """weight [C_out, C, K] into w: for each run (group, channels of x) [K, C, O].

    w begins with channel `origin` of x.
    """
    C, K, O = sizes
    for b, begin, end in runs:
        source = rows((b * O * C + begin - b * C) * K, C * K, O)
        target = weight_rows((begin - origin) * K * O, end - begin, K, O)
        transpose(weight, source, w, target)


def weights_out(w, sizes, runs, origin, weight):
    """The inverse of `weights_in`."""
    C, K, O = sizes
    for b, begin, end in runs:
        target = rows((b * O * C + begin - b * C) * K, C * K, O)
        source = weight_rows((begin - origin) * K * O, end - begin, K, O)
        transpose(w, source, weight, target)
