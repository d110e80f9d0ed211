"""Simulator results: the kernels' Python text against the formula, threads and all."""

import os

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)

import checks
import cuda_mistakes
import numpy as np
from cuda_machines import Simulator, Target, prepare_simulator, shrink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import cuda

from refdcn import loops
from refdcn.cuda import operator

from bounds import NAMES, results
from strategies import Sizes, cases, examples, fill

DTYPES = (np.float32, np.float64)
TINY = Sizes(2, 3, 2, H=3, W=4, kernel=(2, 1), padding=(1, 0))


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    prepare_simulator(monkeypatch)
    shrink(monkeypatch)


def tiny(dtype=np.float64):
    """Whole geometries that a simulated thread or two a second can run."""
    return cases(dtype, batches=(1, 2, 0)).filter(lambda case: case_size(case) < 400)


def case_size(case):
    s = case.sizes
    return s.N * s.C_in * s.taps * s.out[0] * s.out[1]


def few(count):
    return settings(
        examples(count),
        suppress_health_check=list(HealthCheck),
    )


@few(12)
@given(tiny(), st.sampled_from(DTYPES), st.booleans())
def test_agrees_with_formula(case, dtype, deterministic):
    target = Target(Simulator(), deterministic)
    checks.agrees_with_formula(target, case.astype(dtype))


@pytest.mark.parametrize("deterministic", [False, True])
def test_every_kernel(monkeypatch, deterministic):
    """Also the product of our own, and half precision."""
    case = fill(TINY, np.random.default_rng(0), dtype=np.float32)
    target = Target(Simulator(own_product=True), deterministic)
    checks.agrees_with_formula(target, case)
    single = results(target, case.astype(np.float16).astype(np.float32))
    half = results(target, case.astype(np.float16))
    checks.assert_same(half, [a.astype(np.float16) for a in single])


@few(10)
@given(tiny(), st.sampled_from(DTYPES))
def test_loops_as_a_kernel_have_the_same_bits(case, dtype):
    """loops.py itself under cuda.jit: what Python and njit give, to the bit."""
    case = case.astype(dtype)

    def run(loop):
        return cuda.jit(loop)[1, 1]

    y = loops.deform_conv2d(*case.inputs, **case.windows, run=run)
    grads = loops.deform_conv2d_grad(case.grad_y, *case.inputs, **case.windows, run=run)
    checks.assert_same((y, *grads), results(loops, case))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1.0])
def test_hostile_offsets(value):
    case = fill(TINY, np.random.default_rng(0))
    case.offset[:, 1] = value
    got, wanted = results(Target(Simulator()), case), results(loops, case)
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", ["rows below the padding", "a channel past the last"])
def test_an_address_outside_is_found(monkeypatch, name):
    module = cuda_mistakes.mistaken(*cuda_mistakes.OUTSIDE[name])
    monkeypatch.setattr(operator, "kernels", module)
    case = fill(TINY, np.random.default_rng(0))
    with pytest.raises(IndexError, match="out of bounds"):
        results(Target(Simulator()), case)


@pytest.mark.parametrize("name", ["strides swapped", "columns of a group"])
def test_wrong_numbers_are_found(monkeypatch, name):
    module = cuda_mistakes.mistaken(*cuda_mistakes.WRONG[name])
    monkeypatch.setattr(operator, "kernels", module)
    sizes = TINY._replace(C_in=4, groups=2, stride=(2, 1), H=5)
    case = fill(sizes, np.random.default_rng(0))
    with pytest.raises((AssertionError, IndexError)):
        checks.agrees_with_formula(Target(Simulator()), case)
