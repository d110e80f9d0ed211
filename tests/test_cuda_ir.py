"""The kernels as compiled for CUDA, their IR run on this processor, on the formula."""

import checks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba_cuda")

from cuda_ir import Processor
from cuda_machines import Target, shrink

from bounds import NAMES, results
from strategies import Sizes, cases, examples, fill

DTYPES = (np.float32, np.float64)
SMALL = Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@examples(10)
@given(cases(batches=(1, 2, 3, 0)), st.sampled_from(DTYPES), st.booleans())
def test_agrees_with_formula(case, dtype, deterministic):
    target = Target(Processor(), deterministic)
    checks.agrees_with_formula(target, case.astype(dtype))
    assert not target.on.races
