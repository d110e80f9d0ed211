"""Simulator results: the kernels' Python text against the formula, threads and all."""

import os

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1", allow_module_level=True)

import checks
import numpy as np
from cuda_machines import Simulator, Target, prepare_simulator, shrink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import cuda

from refdcn import loops

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
