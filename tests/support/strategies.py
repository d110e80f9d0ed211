"""Whole geometries of deformable convolution, drawn by hypothesis; NumPy only.

Any target is tested on them: a test asks for `cases()` and calls the target with
`*case.inputs, **case.windows`. The numbers come from a seeded generator, which is
faster than drawing each; shapes, kinds and windows shrink one by one.

    REFDCN_EXAMPLES=20 pytest tests    20 times the examples, a new draw at each run
"""

import os
from math import lcm
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SCALE = float(os.environ.get("REFDCN_EXAMPLES", "1"))
# As plain Python the kernels are some hundred times slower.
SLOW = os.environ.get("NUMBA_DISABLE_JIT") == "1"


def examples(count):
    """`count` drawn cases, the same ones at each run.

    A run that fails is so repeated by running it again, and a change is never blamed
    for what another draw would have found. New ground is searched by asking for it:
    with REFDCN_EXAMPLES set, each run draws anew.
    """
    return settings(
        max_examples=min(count, 10) if SLOW else max(1, int(count * SCALE)),
        derandomize="REFDCN_EXAMPLES" not in os.environ,
        deadline=None,  # the first example compiles
        suppress_health_check=[HealthCheck.too_slow],
    )


class Sizes(NamedTuple):
    """One geometry; the rest follows. Pairs are (rows, columns)."""

    N: int = 2
    C_in: int = 4
    C_out: int = 6
    groups: int = 1
    offset_groups: int = 1
    H: int = 7
    W: int = 6
    kernel: tuple = (3, 2)
    stride: tuple = (1, 1)
    padding: tuple = (1, 1)
    dilation: tuple = (1, 1)

    @property
    def taps(self):
        return self.kernel[0] * self.kernel[1]

    @property
    def out(self):
        """H_out, W_out."""
        axes = zip(
            (self.H, self.W), self.kernel, self.stride, self.padding, self.dilation,
            strict=True,
        )  # fmt: skip
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)

    @property
    def base(self):
        """stride * p - padding + dilation * k: [K, H_out, 1] and [K, 1, W_out]."""
        i, j = np.indices(self.kernel).reshape(2, self.taps, 1, 1)
        u, v = (np.arange(n) for n in self.out)
        (s_y, s_x), (p_y, p_x), (d_y, d_x) = self.stride, self.padding, self.dilation
        return s_y * u[:, None] - p_y + d_y * i, s_x * v - p_x + d_x * j


class Case(NamedTuple):
    """One call and the grad_y of its backward."""

    x: np.ndarray
    offset: np.ndarray
    weight: np.ndarray
    mask: np.ndarray | None
    bias: np.ndarray | None
    stride: tuple
    padding: tuple
    dilation: tuple
    grad_y: np.ndarray

    @property
    def inputs(self):
        """x, offset, weight, mask, bias."""
        return self[:5]

    @property
    def windows(self):
        """stride, padding, dilation, by name."""
        names = ("stride", "padding", "dilation")
        return dict(zip(names, self[5:8], strict=True))

    @property
    def sizes(self):
        (N, C_in, H, W), (C_out, C, *kernel) = self.x.shape, self.weight.shape
        offset_groups = self.offset.shape[1] // (2 * kernel[0] * kernel[1])
        return Sizes(
            N, C_in, C_out, C_in // C, offset_groups, H, W, tuple(kernel), *self[5:8]
        )

    def __repr__(self):
        kinds = {"mask": self.mask, "bias": self.bias}
        given = [name for name, a in kinds.items() if a is not None]
        return f"Case({self.sizes}, {self.x.dtype}, {given})"

    def astype(self, dtype):
        with np.errstate(over="ignore"):  # far offsets are infinite in float16
            arrays = (a if a is None else a.astype(dtype) for a in self.inputs)
            return Case(*arrays, *self[5:8], self.grad_y.astype(dtype))


# --- Numbers -------------------------------------------------------------------------


def dp(sizes, rows, columns):
    """The offset with which samples land on (rows, columns), each [N, g, K, u, v]."""
    base_y, base_x = sizes.base
    both = np.stack(np.broadcast_arrays(rows - base_y, columns - base_x), 3)
    shape = (sizes.N, sizes.offset_groups, sizes.taps, 2, *sizes.out)
    channels = 2 * sizes.offset_groups * sizes.taps
    return np.broadcast_to(both, shape).reshape(sizes.N, channels, *sizes.out).copy()


def _zero(rng, n, shape):
    return None


def _random(rng, n, shape):
    return 2 * rng.standard_normal(shape)


def _integer(rng, n, shape):
    return rng.integers(-3, 4, shape).astype(float)


def _inside(rng, n, shape):
    return rng.uniform(-1, n, shape)


def _edge(rng, n, shape):
    return rng.choice([-1.0, 0.0, n - 1.0, float(n)], shape)


def _beside(rng, n, shape):
    """Next to a kink, by less than a rounding of 1 and by more."""
    near = rng.choice([1e-30, 1e-8, 1e-3, 0.5], shape) * rng.choice([-1, 1], shape)
    return _edge(rng, n, shape) + near


def _far(rng, n, shape):
    far = rng.choice([2.0, 40.0, 1e6, 2.0**30], shape)
    return np.where(rng.random(shape) < 0.5, -1 - far, n + far)


RELATIVE = {"zero": _zero, "random": _random, "integer": _integer}  # to the tap
PLACED = {"inside": _inside, "edge": _edge, "beside": _beside, "far": _far}
OFFSETS = (*RELATIVE, *PLACED, "mixed")


def offsets(rng, sizes, kind):
    """[N, offset_groups * K * 2, H_out, W_out], float64."""
    shape = (sizes.N, sizes.offset_groups, sizes.taps, *sizes.out)
    if kind == "zero":
        return np.zeros((sizes.N, sizes.offset_groups * sizes.taps * 2, *sizes.out))
    axes = []
    for n, base in zip((sizes.H, sizes.W), sizes.base, strict=True):
        drawn = [RELATIVE[k](rng, n, shape) + base for k in ("random", "integer")]
        drawn += [place(rng, n, shape) for place in PLACED.values()]
        names = ("random", "integer", *PLACED)
        if kind == "mixed":
            pick = rng.choice(len(names), shape, p=[0.3, 0.2, 0.2, 0.15, 0.1, 0.05])
            axes.append(np.choose(pick, drawn))
        else:
            axes.append(drawn[names.index(kind)])
    return dp(sizes, *axes)


def fill(sizes, rng, offset="mixed", mask=True, bias=True, dtype=np.float64):
    """Normal numbers of either sign; `offset` is one of OFFSETS or an array."""
    s, normal = sizes, rng.standard_normal
    offset = offsets(rng, s, offset) if isinstance(offset, str) else offset
    case = Case(
        normal((s.N, s.C_in, s.H, s.W)),
        offset,
        normal((s.C_out, s.C_in // s.groups, *s.kernel)),
        normal((s.N, s.offset_groups * s.taps, *s.out)) if mask else None,
        normal(s.C_out) if bias else None,
        s.stride,
        s.padding,
        s.dilation,
        normal((s.N, s.C_out, *s.out)),
    )
    return case.astype(dtype)


def dyadic(case, fraction=2):
    """`case` with small integers, and offsets in multiples of 1 / fraction.

    Every product and sum is then exact, in float32 too and in any order, so that two
    correct results are the same, bit for bit.
    """
    rng = np.random.default_rng(0)

    def small(a, choices):
        return a if a is None else rng.choice(choices, a.shape).astype(a.dtype)

    offset = np.round(case.offset * fraction) / fraction
    return case._replace(
        x=small(case.x, [-2, -1, 0, 1, 2]),
        offset=offset.astype(case.x.dtype),
        weight=small(case.weight, [-1, 0, 1]),
        mask=small(case.mask, [-1, 1, 2]),
        bias=small(case.bias, [-1, 1]),
        grad_y=small(case.grad_y, [-1, 0, 1]),
    )


# --- Geometries ----------------------------------------------------------------------

GROUPS = [  # (groups, offset_groups)
    (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2), (1, 3), (4, 2), (2, 4), (4, 6),
]  # fmt: skip


def _axis(draw, large):
    """(size, kernel, stride, padding, dilation) of one axis."""
    kernel = draw(st.integers(1, 2 if large else 5))
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding, out = draw(st.integers(0, 4)), draw(st.integers(1, 2 if large else 6))
    span = dilation * (kernel - 1) + 1
    if draw(st.integers(0, 5)) == 5:  # a single row or column
        return 1, kernel, stride, max(padding, span // 2), dilation
    unread = draw(st.integers(0, stride - 1))  # rows that no window reaches
    size = (out - 1) * stride + span - 2 * padding + unread
    return max(1, size, span - 2 * padding), kernel, stride, padding, dilation


BATCHES = [1] * 8 + [2] * 6 + [3] * 3 + [0, 33, 65]  # shrinks to 1


@st.composite
def geometries(draw, batches=BATCHES):
    """Sizes: uneven kernels and windows, groups that need not divide each other."""
    N = draw(st.sampled_from(batches))
    large = N > 3  # then all else is small, for speed
    groups, offset_groups = draw(st.sampled_from(GROUPS))
    C_in = lcm(groups, offset_groups) * (1 if large else draw(st.integers(1, 2)))
    C_out = groups * draw(st.integers(1, 3))
    y_axis, x_axis = _axis(draw, large), _axis(draw, large)
    (H, W), kernel, stride, padding, dilation = zip(y_axis, x_axis, strict=True)
    return Sizes(
        N, C_in, C_out, groups, offset_groups, H, W, kernel, stride, padding, dilation
    )


@st.composite
def cases(draw, dtype=np.float64, offset=OFFSETS, batches=BATCHES):
    """A Case on a drawn geometry, with or without mask and bias."""
    sizes = draw(geometries(batches))
    kind = draw(st.sampled_from(offset))
    mask, bias = draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return fill(sizes, rng, kind, mask, bias, dtype)
