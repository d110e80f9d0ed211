"""Kernels with a mistake written into their text, and the text's place for each.

A mistake is (old, new, count): `old` stands `count` times in kernels.py, so that an
edit of the kernels cannot quietly leave a mistake out.
"""

import re
import sys
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from refdcn.cuda import kernels

SOURCE = Path(kernels.__file__).read_text(encoding="utf-8")

# Found by wrong numbers.
WRONG = {
    "row stride of the padded image": (
        "below = (t.W + 2) * t.C_in", "below = (t.W + 1) * t.C_in", 2,
    ),
    "strides swapped": ("(t.stride_y, t.stride_x)", "(t.stride_x, t.stride_y)", 1),
    "columns of a group": (
        "* t.K + k) * t.C + c - b * t.C", "* t.K + k) * t.C + c", 1,
    ),
    "channels of the second offset group": (
        "low = g * t.D + cuda.threadIdx.x", "low = cuda.threadIdx.x", 2,
    ),
    "grid stride": (
        "step = cuda.gridDim.x * cuda.blockDim.y", "step = t.images * t.span", 2,
    ),
    "one lane left out of the sums": (
        "other = cuda.blockDim.x // 2", "other = cuda.blockDim.x // 4", 1,
    ),
    "half of the lanes in a shuffle": ("WARP = 0xFFFFFFFF", "WARP = 0xFFFF", 1),
    "slope at -1 as elsewhere outside": ("if slope:", "if slope and False:", 1),
    "mask left out of grad_offset": ("= dm * d_y", "= d_y", 1),
    "NaN lost": ("nan = T(np.nan)", "nan = T(0)", 1),
    "the last image's outputs added twice": ("adds = mine and", "adds =", 1),
}  # fmt: skip
# Right on this machine, whose threads take turns; a card's do not.
RACES = {
    "lost atomic": (
        "cuda.atomic.add(grad_image, at(i), e_y * e_x * d)",
        "grad_image[at(i)] += e_y * e_x * d", 1,
    ),
    "two threads on one sum": (
        "for part in range(cuda.blockIdx.y, parts, cuda.gridDim.y)",
        "for part in range(0, parts)", 1,
    ),
}  # fmt: skip
BARRIERS = SOURCE.count("cuda.syncthreads()")
# Found as an address outside every array.
OUTSIDE = {
    "rows below the padding": (
        "r_y, r_x = t.H, -1", "r_y, r_x = t.H + 1, -1", 1,
    ),
    "an output past the last": (
        "p = min(start + cuda.threadIdx.y, rows - 1)",
        "p = start + cuda.threadIdx.y", 1,
    ),
    "a channel past the last": ("if c + x < sizes.channels and", "if", 2),
}  # fmt: skip
# Right below 2**31 elements.
NARROW = {
    "image": ("i = place * t.C_in + c", "i = np.int32(place * t.C_in + c)", 3),
    "columns": (
        "columns[at(column(p, k, c, t))]",
        "columns[at(np.int32(column(p, k, c, t)))]", 2,
    ),
    "rows": ("return (b * rows + row) * sizes.inner + o",
             "return np.int32((b * rows + row) * sizes.inner + o)", 1),
    "planes": ("planes[at(plane * sizes.pixels + s + x)]",
               "planes[at(np.int32(plane * sizes.pixels + s + x))]", 2),
    "product": ("place = at((batch * s.M + m) * s.N + n)",
                "place = at(np.int32((batch * s.M + m) * s.N + n))", 1),
}  # fmt: skip


def mistaken(old, new, count):
    """refdcn.cuda.kernels with `new` in place of each `old`."""
    assert SOURCE.count(old) == count, f"{old!r} stands {SOURCE.count(old)} times"
    return module(SOURCE.replace(old, new))


def without_barrier(n):
    """The kernel that has barrier n, and the module without it."""
    parts = SOURCE.split("cuda.syncthreads()")
    left, right = parts[: n + 1], parts[n + 1 :]
    joined = "cuda.syncthreads()".join(left) + "pass" + "cuda.syncthreads()".join(right)
    return re.findall(r"^def (\w+)", "".join(left), re.M)[-1], module(joined)


def module(source):
    name = f"mistaken_{abs(hash(source))}"
    made = module_from_spec(spec_from_loader(name, loader=None))
    made.__file__ = kernels.__file__
    sys.modules[name] = made  # Numba asks for it by name
    exec(compile(source, f"<{name}>", "exec"), made.__dict__)
    return made
