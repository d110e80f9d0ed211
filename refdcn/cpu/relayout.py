"""Between the caller's layouts and ours: transpositions, which Numba compiles.

Arrays are flat. Ours are an image [(H + 3) * (W + 2), C_in] with zeros around, and
weights [K * C, C_out] and products [P, C_out] of each group in panels; see product.py.
"""

import numpy as np

from refdcn.cpu.product import panelled
from refdcn.cpu.vectors import clear, copy, transpose
from refdcn.jit import jitable

BAND = 4096  # pixels whose places are listed at a time


@jitable
def bands(H, W):
    """Rows of x whose pixels are listed at a time."""
    return max(1, min(H, BAND // max(W, 1)))


@jitable
def pixels(top, sizes, begin):
    """Where channel `begin` of each pixel of a band of x stands in the padded image."""
    H, W = sizes.H, sizes.W
    end = min(top + bands(H, W), H)
    places = np.empty((end - top) * W, np.int64)
    for r in range(top, end):
        for s in range(W):
            at = ((r + 1) * (W + 2) + s + 1) * sizes.C_in + begin
            places[(r - top) * W + s] = at
    return places


@jitable
def rows(first, size, count):
    """first, first + size, ...: where `count` rows of one size begin."""
    places = np.empty(count, np.int64)
    for i in range(count):
        places[i] = first + i * size
    return places


@jitable
def fill_up(array, places, inside, size):
    """Zeros after the first `inside` numbers of each row, up to `size`.

    They reach no result; but what is there else may be subnormal, which is slow.
    """
    if inside < size:
        for place in places:
            array[place + inside : place + size] = 0


@jitable
def clear_frame(sizes, begin, end, image):
    """Zeros around an image, in channels begin ... end - 1."""
    H, W = sizes.H, sizes.W
    for r in range(H + 3):
        step = W + 1 if 0 < r <= H else 1  # of a middle row, its first and last pixel
        for s in range(0, W + 2, step):
            at = (r * (W + 2) + s) * sizes.C_in
            clear(image, at + begin, at + end)


@jitable
def clear_channels(sizes, begin, end, image):
    """Zeros in channels begin ... end - 1 of all of an image."""
    for at in range(0, (sizes.H + 3) * (sizes.W + 2) * sizes.C_in, sizes.C_in):
        clear(image, at + begin, at + end)


@jitable
def image_in(x, n, sizes, begin, count, image):
    """Up to `count` channels of image n of x from `begin` on, in zeros."""
    C, C_in, H, W = sizes.C_x, sizes.C_in, sizes.H, sizes.W
    end, first = min(begin + count, C), n * C * H * W
    if C < C_in:
        clear_channels(sizes, 0, C_in, image)
    else:
        clear_frame(sizes, begin, end, image)
    if not sizes.last:
        for top in range(0, H, bands(H, W)):
            source = rows(first + begin * H * W + top * W, H * W, end - begin)
            transpose(x, source, image, pixels(top, sizes, begin))
        return
    for r in range(H):
        for s in range(W):
            of = first + (r * W + s) * C
            to = ((r + 1) * (W + 2) + s + 1) * C_in
            copy(x, of + begin, end - begin, image, to + begin)


@jitable
def image_out(image, n, sizes, begin, count, x):
    """The inverse of `image_in`, where x has its channels in planes."""
    C, H, W = sizes.C_x, sizes.H, sizes.W
    end, first = min(begin + count, C), n * C * H * W
    for top in range(0, H, bands(H, W)):
        target = rows(first + begin * H * W + top * W, H * W, end - begin)
        transpose(image, pixels(top, sizes, begin), x, target)


@jitable
def planes_in(x, n, sizes, begin, count, planes):
    """As `image_in`, into [C_in, H + 3, W + 2]."""
    H, W, C = sizes.H, sizes.W, sizes.C_x
    area = (H + 3) * (W + 2)
    if C < sizes.C_in:
        planes[: area * sizes.C_in] = 0
    step = C if sizes.last else 1
    for c in range(begin, min(begin + count, C)):
        plane = planes[c * area : (c + 1) * area].reshape(H + 3, W + 2)
        plane[0], plane[H + 1 :], plane[:, 0], plane[:, W + 1] = 0, 0, 0, 0
        first = n * C * H * W + (c if sizes.last else c * H * W)
        for r in range(H):
            for s in range(W):
                plane[r + 1, s + 1] = x[first + (r * W + s) * step]


@jitable
def product_out(product, tile, b, sizes, y):
    """A product [P, O] into the channels of group b of y [N, C_out, pixels]."""
    panel, O, P = sizes.panel, sizes.O, tile.P
    for o in range(0, O, panel):
        size, inside = min(panel, sizes.width - o), min(panel, O - o)
        channel = (tile.n * sizes.groups + b) * O + o
        target = rows(channel * sizes.pixels + tile.first, sizes.pixels, inside)
        transpose(product, rows((b * sizes.width + o) * P, size, P), y, target)


@jitable
def weight_rows(first, C, K, size):
    """Where the weights of each (c, k) stand in a panel [K, C, size] from `first`."""
    places = np.empty(C * K, np.int64)
    for c in range(C):
        for k in range(K):
            places[c * K + k] = first + (k * C + c) * size
    return places


@jitable
def weight_places(sizes, run, o, at):
    """Of a panel's weights, from output o of a run on: in the weight, in the panels."""
    C, K, O = sizes.C, sizes.K, sizes.O
    b, begin, end = run
    first = ((b * O + o) * C + begin - b * C) * K
    inside, size = min(sizes.panel, O - o), min(sizes.panel, sizes.width - o)
    mine = weight_rows(at + o * (end - begin) * K, end - begin, K, size)
    return rows(first, C * K, inside), mine, size


@jitable
def weights_in(weight, sizes, run, o, w, at):
    """weight [C_out, C, K] into a panel [K, C, size] of w [K, C, O] from `at` on.

    A run (group, begin, end) is of channels of x.
    """
    source, target, size = weight_places(sizes, run, o, at)
    transpose(weight, source, w, target)
    fill_up(w, target, len(source), size)


@jitable
def weights_out(w, sizes, run, o, weight, at):
    """The inverse of `weights_in`."""
    target, source, _ = weight_places(sizes, run, o, at)
    transpose(w, source, weight, target)


@jitable
def weights_turned(w, sizes, run, turned, at):
    """Panels [K, C, O] of a run of at most a panel into [K, O, C]."""
    K, O, panel, C = sizes.K, sizes.O, sizes.panel, run[2] - run[1]
    wide = panelled(C, w.itemsize)
    for k in range(K):
        for o in range(0, O, panel):
            size, inside = min(panel, sizes.width - o), min(panel, O - o)
            source = rows(at + (o * K + k * size) * C, size, C)
            target = rows(at + (k * O + o) * wide, wide, inside)
            transpose(w, source, turned, target)
            fill_up(turned, target, C, wide)


@jitable
def grad_y_in(grad_y, tile, b, sizes, panels):
    """The inverse of `product_out`, filled up, to the begin of panels."""
    panel, O, P = sizes.panel, sizes.O, tile.P
    for o in range(0, O, panel):
        size, inside = min(panel, sizes.width - o), min(panel, O - o)
        channel = (tile.n * sizes.groups + b) * O + o
        source = rows(channel * sizes.pixels + tile.first, sizes.pixels, inside)
        target = rows(o * P, size, P)
        transpose(grad_y, source, panels, target)
        fill_up(panels, target, inside, size)
