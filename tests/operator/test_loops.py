"""The loops: against the formula, and the same bits as Python and compiled."""

import os
import subprocess
import sys
from pathlib import Path

import checks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refdcn import loops

from bounds import NAMES, results
from strategies import Sizes, cases, examples, fill

SUPPORT = str(Path(__file__).parents[1] / "support")

DTYPES = (np.float32, np.float64)
dtypes = st.sampled_from(DTYPES)
SMALL = Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2))


class Python:
    """The loops uncompiled."""

    @staticmethod
    def deform_conv2d(*arguments, **windows):
        return loops.deform_conv2d(*arguments, **windows, run=lambda f: f)

    @staticmethod
    def deform_conv2d_grad(*arguments, **windows):
        return loops.deform_conv2d_grad(*arguments, **windows, run=lambda f: f)


@pytest.mark.nojit
@examples(500)
@given(cases(), dtypes)
def test_agrees_with_formula(case, dtype):
    checks.agrees_with_formula(loops, case.astype(dtype))


@examples(200)
@given(cases(), dtypes)
def test_equals_formula_where_sums_are_exact(case, dtype):
    checks.equals_formula(loops, case.astype(dtype))


@examples(100)
@given(cases(), dtypes)
def test_linear(case, dtype):
    checks.is_linear(loops, case.astype(dtype))


@examples(100)
@given(cases(), dtypes)
def test_gradients_are_adjoint(case, dtype):
    checks.gradients_are_adjoint(loops, case.astype(dtype))


@examples(100)
@given(cases(), dtypes)
def test_zero_offset_is_convolution(case, dtype):
    checks.zero_offset_convolves(loops, case.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [(1, -2), (-3, 0), (2, 3)])
def test_integer_offset_is_a_shift(shift, dtype):
    rng = np.random.default_rng(0)
    checks.integer_offset_shifts(loops, SMALL, rng, shift, dtype)


@pytest.mark.nojit
@examples(40)
@given(cases(batches=(1, 2, 0)), dtypes)
def test_python_and_compiled_have_the_same_bits(case, dtype):
    case = case.astype(dtype)
    with np.errstate(under="ignore"):
        checks.assert_same(results(Python, case), results(loops, case), NAMES)


@pytest.mark.nojit
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -1.0])
def test_they_have_the_same_bits_at_hostile_offsets(value, dtype):
    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    case.offset[:, 3, ::2] = value
    case.x[0, 1, 2, 2] = np.inf
    case.x[1, 4, 1, 1] = np.nan
    with np.errstate(invalid="ignore"):
        checks.assert_same(results(Python, case), results(loops, case), NAMES)


@pytest.mark.skipif(
    os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="compares with compiled code"
)
def test_without_jit_it_gives_the_same_bits(tmp_path):
    """NUMBA_DISABLE_JIT=1 is how the lines are covered."""
    code = """
import sys, numpy as np
from bounds import results
from strategies import fill
from test_loops import SMALL
from refdcn import loops
from numba.core.registry import CPUDispatcher
from refdcn.jit import compiled
assert not isinstance(compiled(loops.forward), CPUDispatcher)
for dtype in (np.float32, np.float64):
    case = fill(SMALL, np.random.default_rng(7), dtype=dtype)
    np.savez(f"{sys.argv[1]}/{np.dtype(dtype)}", *results(loops, case))
"""
    environment = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join([SUPPORT, *sys.path]),
    }
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=True, env=environment
    )
    for dtype in DTYPES:
        case = fill(SMALL, np.random.default_rng(7), dtype=dtype)
        with np.load(tmp_path / f"{np.dtype(dtype)}.npz") as child:
            checks.assert_same(child.values(), results(loops, case), NAMES)
