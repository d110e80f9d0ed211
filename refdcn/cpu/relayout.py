"""Between the caller's layouts and ours: transpositions, which Numba compiles.

Arrays are flat. Ours are an image [(H + 3) * (W + 2), C_in] with zeros around, and
weights [K * C, C_out] and products [P, C_out] of each group in panels; see product.py.
"""

import numpy as np

from refdcn.cpu.product import PANEL_BYTES, panelled
from refdcn.cpu.vectors import transpose
from refdcn.jit import jitable

BAND = 4096  # pixels whose places are listed at a time


@jitable
def bands(H, W):
    """Rows of x whose pixels are listed at a time."""
    return max(1, min(H, BAND // max(W, 1)))


@jitable
def pixels(top, end, W, C_in, begin):
    """Where channel `begin` of each pixel of rows of x stands in the padded image."""
    places = np.empty((end - top) * W, np.int64)
    for r in range(top, end):
        for s in range(W):
            places[(r - top) * W + s] = ((r + 1) * (W + 2) + s + 1) * C_in + begin
    return places


@jitable
def rows(first, size, count):
    """first, first + size, ...: where `count` rows of one size begin."""
    return first + size * np.arange(count)


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
    C_in, H, W = sizes
    for r in range(H + 3):
        step = W + 1 if 0 < r <= H else 1  # of a middle row, its first and last pixel
        for s in range(0, W + 2, step):
            at = (r * (W + 2) + s) * C_in
            for c in range(begin, end):
                image[at + c] = 0


@jitable
def image_in(x, first, sizes, begin, end, image):
    """Channels begin ... end - 1 of x [C_in, H, W] from `first` on, in zeros."""
    C_in, H, W = sizes
    clear_frame(sizes, begin, end, image)
    step = bands(H, W)
    for top in range(0, H, step):
        source = rows(first + begin * H * W + top * W, H * W, end - begin)
        band = pixels(top, min(top + step, H), W, C_in, begin)
        transpose(x, source, image, band)


@jitable
def image_out(image, sizes, begin, end, x, first):
    """Channels begin ... end - 1 of the image's middle: the inverse of `image_in`."""
    C_in, H, W = sizes
    step = bands(H, W)
    for top in range(0, H, step):
        target = rows(first + begin * H * W + top * W, H * W, end - begin)
        band = pixels(top, min(top + step, H), W, C_in, begin)
        transpose(image, band, x, target)


@jitable
def planes_in(x, n, sizes, planes):
    """Image n of x into [C_in, H + 3, W + 2], in zeros."""
    H, W, C = sizes.H, sizes.W, sizes.C_x
    area = (H + 3) * (W + 2)
    if C < sizes.C_in:
        planes[: area * sizes.C_in] = 0
    step = C if sizes.last else 1
    for c in range(C):
        plane = planes[c * area : (c + 1) * area].reshape(H + 3, W + 2)
        plane[0], plane[H + 1 :], plane[:, 0], plane[:, W + 1] = 0, 0, 0, 0
        first = n * C * H * W + (c if sizes.last else c * H * W)
        for r in range(H):
            for s in range(W):
                plane[r + 1, s + 1] = x[first + (r * W + s) * step]


@jitable
def image_part(x, n, sizes, begin, count, image):
    """Up to `count` channels of image n of x from `begin` on, in zeros."""
    C, C_in, H, W = sizes.C_x, sizes.C_in, sizes.H, sizes.W
    end, first = min(begin + count, C), n * C * H * W
    if C < C_in:
        for i in range((H + 3) * (W + 2) * C_in):
            image[i] = 0
    if not sizes.last:
        image_in(x, first, (C_in, H, W), begin, end, image)
        return
    clear_frame((C_in, H, W), begin, end, image)
    for r in range(H):
        for s in range(W):
            of = first + (r * W + s) * C
            to = ((r + 1) * (W + 2) + s + 1) * C_in
            for c in range(begin, end):
                image[to + c] = x[of + c]


@jitable
def product_out(product, P, O, y, n, first, channel):
    """A product [P, O] into O channels of y [N, C_out, pixels] from `channel` on."""
    panel, width = PANEL_BYTES // y.itemsize, panelled(O, y.itemsize)
    _, C_out, pixels = y.shape
    flat = y.reshape(-1)
    for o in range(0, O, panel):
        size, inside = min(panel, width - o), min(panel, O - o)
        begin = (n * C_out + channel + o) * pixels + first
        transpose(product, rows(o * P, size, P), flat, rows(begin, pixels, inside))


@jitable
def weight_rows(first, C, K, size):
    """Where the weights of each (c, k) stand in a panel [K, C, size] from `first`."""
    places = np.empty(C * K, np.int64)
    for c in range(C):
        for k in range(K):
            places[c * K + k] = first + (k * C + c) * size
    return places


@jitable
def group_runs(groups, C):
    """(group, begin, end): the channels of x of each group."""
    runs = np.empty((groups, 3), np.int64)
    for b in range(groups):
        runs[b, 0], runs[b, 1], runs[b, 2] = b, b * C, (b + 1) * C
    return runs


@jitable
def weights_in(weight, sizes, runs, share, w):
    """weight [C_out, C, K] into panels [K, C, O] for each run (group, channels of x).

    Of all panels every share[1]-th, from share[0] on.
    """
    C, K, O = sizes
    panel, width = PANEL_BYTES // w.itemsize, panelled(O, w.itemsize)
    panels = (O + panel - 1) // panel
    for t in range(share[0], len(runs) * panels, share[1]):
        b, begin, end = runs[t // panels]
        o = t % panels * panel
        size, inside = min(panel, width - o), min(panel, O - o)
        source = rows(((b * O + o) * C + begin - b * C) * K, C * K, inside)
        first = ((begin - runs[0, 1]) * width + o * (end - begin)) * K
        target = weight_rows(first, end - begin, K, size)
        transpose(weight, source, w, target)
        fill_up(w, target, inside, size)


@jitable
def weights_out(w, sizes, run, weight):
    """The inverse of `weights_in`."""
    C, K, O = sizes
    b, begin, end = run
    panel, width = PANEL_BYTES // w.itemsize, panelled(O, w.itemsize)
    for o in range(0, O, panel):
        size, inside = min(panel, width - o), min(panel, O - o)
        target = rows(((b * O + o) * C + begin - b * C) * K, C * K, inside)
        source = weight_rows(o * (end - begin) * K, end - begin, K, size)
        transpose(w, source, weight, target)


@jitable
def weights_turned(w, sizes, run, turned):
    """Panels [K, C, O] of a run of at most a panel into [K, O, C]."""
    _, K, O = sizes
    C, panel = run[2] - run[1], PANEL_BYTES // w.itemsize
    wide, width = panelled(C, w.itemsize), panelled(O, w.itemsize)
    for k in range(K):
        for o in range(0, O, panel):
            size, inside = min(panel, width - o), min(panel, O - o)
            source = rows((o * K + k * size) * C, size, C)
            target = rows((k * O + o) * wide, wide, inside)
            transpose(w, source, turned, target)
            fill_up(turned, target, C, wide)


@jitable
def grad_y_in(grad_y, n, channel, O, first, P, panels):
    """O channels of grad_y [N, C_out, pixels] into panels [P, O]."""
    panel, width = PANEL_BYTES // grad_y.itemsize, panelled(O, grad_y.itemsize)
    _, C_out, pixels = grad_y.shape
    flat = grad_y.reshape(-1)
    for o in range(0, O, panel):
        size, inside = min(panel, width - o), min(panel, O - o)
        source = rows((n * C_out + channel + o) * pixels + first, pixels, inside)
        target = rows(o * P, size, P)
        transpose(flat, source, panels, target)
        fill_up(panels, target, inside, size)
