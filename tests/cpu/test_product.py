"""The loops that are emitted as vectors, against what they mean in Python."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from refdcn.cpu import product, vectors
from refdcn.cpu.product import Left, Product, Right
from refdcn.cpu.vectors import BLOCK, VECTOR_BYTES, Cells, Columns

DTYPES = (np.float32, np.float64)

# Processors with 16 registers of 32 bytes: a vector takes two.
AVX2 = "+avx,+avx2,+bmi,+bmi2,+fma,+sse,+sse2,+sse3,+sse4.1,+sse4.2,+ssse3"


@njit
def multiplied(left, right, product_of, fresh):
    product.multiply(left, right, product_of, fresh)


@njit
def blended(columns, source, begin, size, cells):
    vectors.blend(columns, source, begin, size, cells)


@njit
def exchanged(source, target, begin, size, columns, samples, sums, cells):
    vectors.exchange(source, target, begin, size, columns, samples, sums, cells)


def small(rng, shape, dtype):
    """Whole numbers, whose sums are exact in any order."""
    return rng.integers(-4, 5, shape).astype(dtype)


def check_products(dtype, vector_counts):
    rng = np.random.default_rng(0)
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    for rows in (1, 2, 4, 5, 7, 13):
        for n in (lanes * v for v in vector_counts):
            for depth in (1, 6, product.DEPTH, 2 * product.DEPTH + 3):
                for turned, fresh in ((False, True), (True, False)):
                    a = small(rng, (depth, rows) if turned else (rows, depth), dtype)
                    row, step = (1, rows) if turned else (depth, 1)
                    b, apart = small(rng, (depth, n), dtype), n + 3
                    target = small(rng, 2 + rows * apart, dtype)
                    wanted = target.copy()
                    inside = wanted[2:].reshape(rows, apart)[:, :n]
                    inside[:] = (0 if fresh else inside) + (a.T if turned else a) @ b
                    multiplied(
                        Left(a.reshape(-1), 0, row, step, rows),
                        Right(b.reshape(-1), 0, depth, n),
                        Product(target, 2, apart),
                        fresh,
                    )
                    np.testing.assert_array_equal(target, wanted)  # and nothing beside


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_exact_on_whole_numbers(dtype):
    check_products(dtype, (1, 2, 3, 4))


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="another kind of processor"
)
def test_products_on_a_processor_with_narrower_registers():
    code = "import numpy, test_product as t; t.check_products(numpy.float32, (1, 4))"
    code += "; assert not t.product._is_wide()"
    env = os.environ | {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2}
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    subprocess.run(
        [sys.executable, "-c", code], check=True, env=env | {"PYTHONPATH": path}
    )


@njit
def multiplied_by_one(left, column, begin, depth, product_of):
    product.multiply_one(left, column, begin, depth, product_of)


@pytest.mark.parametrize("multiply_one", [multiplied_by_one, product.multiply_one])
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_column_is_multiplied_along_its_terms(dtype, multiply_one):
    rng = np.random.default_rng(0)
    for rows in (1, 3, 4, 6):
        for depth in (1, 7, 16, 37):
            a, b = small(rng, (rows, depth), dtype), small(rng, depth + 2, dtype)
            target = small(rng, 1 + 3 * rows, dtype)
            wanted = target.copy()
            wanted[1::3] += a @ b[2:]
            left = Left(a.reshape(-1), 0, depth, 1, rows)
            multiply_one(left, b, 2, depth, Product(target, 1, 3))
            np.testing.assert_array_equal(target, wanted)  # and nothing beside


@pytest.mark.parametrize(
    "left, wanted",
    [(1, (1, 1)), (15, (15, 16)), (16, (16, 16)), (17, (16, 16)), (49, (48, 48)),
     (50, (50, 64)), (64, (64, 64)), (65, (64, 64))],
)  # fmt: skip
def test_a_last_column_is_a_panel_of_its_own(left, wanted):
    assert product.next_panel(left, 64, 4) == wanted


def test_python_means_the_same_product():
    rng = np.random.default_rng(0)
    a, b = small(rng, (3, 5), np.float32), small(rng, (5, 16), np.float32)
    target = small(rng, (3, 16), np.float32)
    wanted = target + a @ b
    left = Left(a.reshape(-1), 0, 5, 1, 3)
    right = Right(b.reshape(-1), 0, 5, 16)
    product.multiply(left, right, Product(target.reshape(-1), 0, 16), False)
    np.testing.assert_array_equal(target, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4, 7, 16, 31, 64, 101])
def test_samples_and_what_they_give_mean_the_same(size, dtype):
    """All pieces of a run of channels: four vectors, two, one, four channels, one."""
    rng = np.random.default_rng(size)
    count, taps, pixel, width = 9, 2, size + 2, 6
    row = width * pixel
    source = small(rng, 5 * row, dtype)
    places = np.zeros((taps, BLOCK), np.int64)
    places[:, :count] = rng.integers(0, 3 * width, (taps, count))
    weights = np.zeros((taps, 4, BLOCK), dtype)
    weights[:, :, :count] = small(rng, (taps, 4, count), dtype)
    room = count * taps * size + 1
    columns, target = small(rng, room, dtype), small(rng, source.size, dtype)
    cells = Cells(places, weights, count, taps, pixel, row)
    found = []
    for call, blend in ((exchanged, blended), (vectors.exchange, vectors.blend)):
        got, alone = target.copy(), np.zeros(room, dtype)
        sums, samples = np.zeros(taps * BLOCK * 4, dtype), np.zeros(room, dtype)
        old = Columns(columns, 0, size, count * size)
        new = Columns(samples, 1, taps * size, size)
        call(source, got, 1, size, old, new, sums, cells)
        blend(new._replace(array=alone), source, 1, size, cells)
        np.testing.assert_array_equal(alone, samples)
        found.append((got, sums, samples))
    for compiled, python in zip(*found, strict=True):
        np.testing.assert_array_equal(compiled, python)
    assert found[0][2].any()
