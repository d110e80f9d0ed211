"""NaN, infinite and far offsets, NaN and infinite pixels, by the conventions.

What is expected is the formula's on the same numbers with the bad ones taken out, and
NaN at the places that the convention names, all others untouched.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checks import assert_all_within, assert_same, one_sample, roundoff

import refdcn
from refdcn import formula, loops

from bounds import NAMES, bounds, box, results, settled
from strategies import Sizes, fill

SUPPORT = str(Path(__file__).parents[1] / "support")

FAR = [np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**31), 2.0**63, 3e38]
OUTSIDE = -1000.0  # an offset with which no sample of these cases reads a pixel
DTYPES = [np.float32, np.float64]
SIZES = [
    Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2)),
    Sizes(3, 40, 6, 1, 2, 9, 8, kernel=(3, 3)),
    Sizes(1, 12, 6, 3, 2, 1, 9, kernel=(1, 3), padding=(0, 1)),
]
geometry = pytest.mark.parametrize("sizes", SIZES, ids=str)
precision = pytest.mark.parametrize("dtype", DTYPES)
everyone = pytest.mark.parametrize(
    "target", [formula, loops, refdcn], ids=lambda m: m.__name__
)
compiled = pytest.mark.parametrize("target", [loops, refdcn], ids=lambda m: m.__name__)


def draw(sizes, dtype, seed=0):
    """Some of mask and weight are 0: 0 * NaN is NaN all the same."""
    case = fill(sizes, np.random.default_rng(seed), dtype=dtype)
    case.mask.flat[::3] = 0
    case.weight.flat[::4] = 0
    return case


def positions(case):
    """q_y and q_x [N, offset_groups, K, H_out, W_out]."""
    s = case.sizes
    dp = case.offset.astype(float)
    dp = dp.reshape(s.N, s.offset_groups, s.taps, 2, *s.out)
    return [dp[:, :, :, axis] + base for axis, base in enumerate(s.base)]


def spread(case, samples):
    """Which of y, grad_offset, grad_weight, grad_mask use any of these samples.

    samples: [N, C_in, K, H_out, W_out], true where a sample is marked.
    """
    s = case.sizes
    C = s.C_in // s.groups
    grouped = samples.reshape(s.N, s.groups, C, s.taps, *s.out)
    y = np.repeat(grouped.any((2, 3)), s.C_out // s.groups, 1)
    w = np.repeat(grouped.any((0, 4, 5)), s.C_out // s.groups, 0)
    runs = s.N, s.offset_groups, s.C_in // s.offset_groups, s.taps, *s.out
    mask = samples.reshape(runs).any(2).reshape(case.mask.shape)
    return y, np.repeat(mask, 2, 1), w.reshape(case.weight.shape), mask


def marks(case, samples, sloped=None):
    """As NAMES: y, grad_x, grad_offset, grad_weight, grad_mask, grad_bias."""
    y, offset, weight, mask = spread(case, samples)
    if sloped is not None:
        offset = spread(case, sloped)[1]
    none = np.zeros_like(case.x, bool), np.zeros_like(case.bias, bool)
    return y, none[0], offset, weight, mask, none[1]


def assert_marked(got, clean, marked, is_bad=np.isnan):
    """Bad exactly where marked; elsewhere the formula's on the clean case."""
    exact = settled(clean)
    wanted, bound = results(formula, exact), bounds(exact, *roundoff(clean.x.dtype))
    for name, a, where in zip(NAMES, got, marked, strict=True):
        np.testing.assert_array_equal(is_bad(a), where, f"{name} is bad elsewhere")
    repaired = [
        np.where(where, b, a) for a, b, where in zip(got, wanted, marked, strict=True)
    ]
    assert_all_within(repaired, wanted, bound)


def by_channel(case, taps):
    """[N, offset_groups, K, ...] for each channel of x."""
    s = case.sizes
    return np.repeat(taps, s.C_in // s.offset_groups, 1)


@everyone
@geometry
@precision
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_nan_and_far_offsets(target, sizes, dtype, share):
    case = draw(sizes, dtype)
    rng = np.random.default_rng(1)
    hit = rng.random(case.offset.shape) < share
    bad = rng.choice([np.nan, np.nan, *FAR], case.offset.shape)
    hit.flat[-1], bad.flat[-1] = True, np.nan
    offset = np.where(hit, bad, case.offset).astype(dtype)
    hostile = case._replace(offset=offset)
    finite = np.where(hit, OUTSIDE, case.offset).astype(dtype)
    lost = by_channel(case, np.isnan(positions(hostile)).any(0))
    assert lost.any()
    with np.errstate(invalid="ignore"):
        got = results(target, hostile)
    assert_marked(got, case._replace(offset=finite), marks(case, lost))


@everyone
@precision
@pytest.mark.parametrize("value", [np.nan, *FAR])
@pytest.mark.parametrize("axis", [0, 1])
def test_one_hostile_offset(target, dtype, value, axis):
    case = draw(SIZES[0], dtype)
    case.offset[1, axis, 1, 1] = value
    finite = case.offset.copy()
    finite[1, axis, 1, 1] = OUTSIDE
    lost = by_channel(case, np.isnan(positions(case)).any(0))
    with np.errstate(invalid="ignore"):
        got = results(target, case)
    assert_marked(got, case._replace(offset=finite), marks(case, lost))
    assert np.isnan(got[0]).any() == np.isnan(value)


@everyone
def test_nan_wins_over_infinity(target):
    for q in [(np.nan, np.inf), (-np.inf, np.nan), (np.nan, 1e30), (np.nan, 1.0)]:
        case = one_sample((3, 4), q)
        with np.errstate(invalid="ignore"):
            y, grad_x, grad_offset, grad_weight, grad_mask, _ = results(target, case)
        for name, a in (("y", y), ("grad_weight", grad_weight)):
            assert np.isnan(a).all(), name
        assert np.isnan(grad_offset).all() and np.isnan(grad_mask).all()
        np.testing.assert_array_equal(grad_x, 0)


def readers(case, bad):
    """Samples, and slopes, that read a pixel marked in bad [N, C_in, H, W]."""
    s = case.sizes
    q = positions(case)
    cells = [box(a, n)[0] for a, n in zip(q, (s.H, s.W), strict=True)]
    grouped = bad.astype(float).reshape(s.N, s.offset_groups, -1, s.H, s.W)
    met = formula.sample(grouped, *cells) > 0
    met = met.reshape(s.N, s.C_in, s.taps, *s.out)
    below = (q[0] < s.H) & (q[1] < s.W)
    inside = by_channel(case, (q[0] > -1) & (q[1] > -1) & below)
    sloped = by_channel(case, (q[0] >= -1) & (q[1] >= -1) & below)
    return met & inside, met & sloped


@compiled
@geometry
@precision
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("offset", ["mixed", "edge", "integer"])
def test_bad_pixels(target, sizes, dtype, value, offset):
    """NaN to whatever reads one, corners of weight 0 too; nothing else is touched."""
    rng = np.random.default_rng(2)
    case = fill(sizes, rng, offset, dtype=dtype)
    case = case._replace(offset=settled(case).offset.astype(dtype))
    bad = rng.random(case.x.shape) < 0.02
    bad[0, 0, 0, 0] = bad[-1, -1, -1, -1] = True
    hostile = case._replace(x=np.where(bad, value, case.x).astype(dtype))
    clean = case._replace(x=np.where(bad, 0, case.x).astype(dtype))
    got = results(target, hostile)
    read, sloped = readers(case, bad)
    is_bad = np.isnan if np.isnan(value) else lambda a: ~np.isfinite(a)
    assert read.any()
    assert_marked(got, clean, marks(case, read, sloped), is_bad)


@compiled
@pytest.mark.parametrize(
    "q, y",
    [
        ((1, 1), np.inf),
        ((0.5, 1.5), np.inf),
        ((0, 0.5), np.nan),  # the corner (1, 1) at weight 0
        ((2, 1), 1),  # floor(q) is below it
        ((-0.5, 1), 0.5),
    ],
)
def test_an_infinite_pixel_by_hand(target, q, y):
    x = np.ones((1, 1, 3, 4))
    x[0, 0, 1, 1] = np.inf
    np.testing.assert_equal(results(target, one_sample((3, 4), q, x=x))[0].item(), y)


@compiled
@precision
@pytest.mark.parametrize("H, W", [(1, 1), (1, 5), (5, 1)])
def test_slope_at_minus_one_reads_a_nan_that_the_sample_does_not(target, dtype, H, W):
    x = np.full((1, 1, H, W), np.nan)
    case = one_sample((H, W), (-1, 0), dtype, x)
    y, grad_x, grad_offset, grad_weight, grad_mask, _ = results(target, case)
    assert (y.item(), grad_weight.item(), grad_mask.item()) == (0, 0, 0)
    assert np.isnan(grad_offset).all()
    np.testing.assert_array_equal(grad_x, 0)


# --- Memory --------------------------------------------------------------------------


def guarded(a, margin=4096):
    """A copy of a between NaNs: contiguous, and the memory it stands in."""
    memory = np.full(a.size + 2 * margin, np.nan, a.dtype)
    view = memory[margin : margin + a.size].reshape(a.shape)
    view[...] = a
    return view, memory


def scattered(a):
    """A copy of a with NaNs on all sides of each row: strided."""
    memory = np.full([3 * n + 2 for n in a.shape], np.nan, a.dtype)
    view = memory[tuple(slice(1, 1 + 3 * n, 3) for n in a.shape)]
    view[...] = a
    return view, memory


@geometry
@precision
@pytest.mark.parametrize(
    "target, place", [(loops, guarded), (refdcn, guarded), (refdcn, scattered)]
)
def test_nothing_outside_the_arrays_is_read_or_written(sizes, dtype, target, place):
    case = draw(sizes, dtype)
    some = case.offset.flat[::7]
    case.offset.flat[::7] = np.resize(np.array(FAR, dtype), some.shape)
    wanted = results(target, case)
    names = ("x", "offset", "weight", "mask", "bias", "grad_y")
    views, memories = zip(*(place(getattr(case, n)) for n in names), strict=True)
    before = [m.tobytes() for m in memories]
    got = results(target, case._replace(**dict(zip(names, views, strict=True))))
    assert_same(got, wanted)
    assert [m.tobytes() for m in memories] == before


def child(code, *arguments, **environment):
    """Runs code in a new process that finds the tests' modules."""
    path = os.pathsep.join([SUPPORT, *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


CHECKED = [  # few and many channels
    Sizes(2, 6, 2, 2, 3, 3, 2, stride=(2, 1)),
    Sizes(1, 9, 2, 1, 1, 2, 3, kernel=(1, 2)),
]
HOSTILE_RUN = """
import warnings
import numpy as np
from bounds import results
from test_hostile import CHECKED, FAR, draw
import refdcn
from refdcn import loops
warnings.simplefilter("ignore", RuntimeWarning)
for target in (loops, refdcn):
    for sizes in CHECKED:
        for value in (0, np.nan, *FAR):
            case = draw(sizes, np.float32)
            case.offset.flat[::5] = value
            results(target, case)
print("done")
"""


@pytest.mark.whole
@pytest.mark.parametrize("mode", ["NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT"])
def test_every_index_is_checked_in(mode, tmp_path):
    """Numba and Python, which check each index, raise nothing on hostile input."""
    # What checks is there before LLVM, whose optimizations take a third of the time.
    options = {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "0", mode: "1"}
    run = child(HOSTILE_RUN, **options)
    assert (run.stdout, run.returncode) == ("done\n", 0), run.stderr


@pytest.mark.torch
def test_torchvision_dies_of_a_nan_offset():
    """Why the grader runs candidates in a child process."""
    code = """
import torch, torchvision
x, w = torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3)
off = torch.full((1, 18, 6, 6), float("nan"))
torchvision.ops.deform_conv2d(x, off, w)
print("survived")
"""
    run = child(code)
    assert run.returncode == -signal.SIGSEGV and "survived" not in run.stdout
