"""The columns: against the formula, and graded as any implementation is."""

import checks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refdcn
from refdcn import columns, formula

from bounds import NAMES, results
from strategies import Sizes, cases, examples, fill

DTYPES = (np.float32, np.float64)
dtypes = st.sampled_from(DTYPES)
SMALL = Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2))


class Python:
    """The columns without a compiler."""

    @staticmethod
    def deform_conv2d(*arguments, **windows):
        return columns.deform_conv2d(*arguments, **windows, run=lambda f: f)

    @staticmethod
    def deform_conv2d_grad(*arguments, **windows):
        return columns.deform_conv2d_grad(*arguments, **windows, run=lambda f: f)


@examples(300)
@given(cases(batches=(1, 2, 0)), dtypes)
def test_agrees_with_formula(case, dtype):
    checks.agrees_with_formula(columns, case.astype(dtype))


@examples(100)
@given(cases(), dtypes)
def test_equals_formula_where_sums_are_exact(case, dtype):
    checks.equals_formula(columns, case.astype(dtype))


@examples(50)
@given(cases(), dtypes)
def test_gradients_are_adjoint(case, dtype):
    checks.gradients_are_adjoint(columns, case.astype(dtype))


@examples(10)
@given(cases(), dtypes)
def test_python_agrees_with_formula(case, dtype):
    checks.agrees_with_formula(Python, case.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -1.0])
def test_hostile_offsets_are_the_formulas(value, dtype):
    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    case.offset[:, 3, ::2] = value
    for name, got, wanted in zip(
        NAMES, results(columns, case), results(formula, case), strict=True
    ):
        close = np.isclose(got, wanted, 1e-4, 1e-4, equal_nan=True)
        assert close.all(), name


def test_float16_is_float32_rounded_once():
    case = fill(SMALL, np.random.default_rng(0), dtype=np.float16)
    wide = results(columns, case.astype(np.float32))
    for a, b in zip(results(columns, case), wide, strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float16), strict=True)


def test_the_arguments_are_left_as_they_are():
    case = fill(SMALL, np.random.default_rng(0), dtype=np.float64)
    before = [a.copy() for a in (*case.inputs, case.grad_y)]
    results(columns, case)
    for a, b in zip((*case.inputs, case.grad_y), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_grader_finds_it_right():
    report = refdcn.grade("refdcn.columns:deform_conv2d", seed=0)
    assert report.exit_code == 0, report.text()
    assert "refdcn.columns:deform_conv2d is right" in report.text()
