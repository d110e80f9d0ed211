"""The CPU target: against the formula, and the same bits whoever runs it."""

import multiprocessing
import threading
from itertools import product

import checks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refdcn
from refdcn import cpu, formula, loops, scratch, shapes
from refdcn.cpu import kernels, layout
from refdcn.grading.expected import bounds as grading_bounds
from refdcn.grading.expected.case import Case as GradingCase

from bounds import NAMES, results
from strategies import Sizes, cases, dyadic, examples, fill

DTYPES = (np.float32, np.float64)
dtypes = st.sampled_from(DTYPES)
SMALL = Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2))

# Larger than a tile, a block of outputs and a run of channels, with tails of each.
LARGE = [
    Sizes(1, 3, 5, 1, 1, 71, 69, (3, 3)),
    Sizes(2, 70, 9, 1, 1, 23, 21, (3, 3)),
    Sizes(3, 66, 6, 2, 3, 19, 18, (2, 3), dilation=(2, 1)),
    Sizes(9, 36, 8, 4, 6, 12, 11, (3, 1), stride=(1, 2)),
    Sizes(2, 3, 260, 1, 1, 9, 7, (2, 2)),
    Sizes(2, 16, 512, 1, 1, 7, 7, (2, 2)),
    Sizes(1, 96, 4, 1, 1, 40, 33, (5, 5), padding=(2, 2)),
]


@pytest.fixture
def thread_count():
    """Sets the number of threads, and puts back what was there."""
    before = refdcn.get_num_threads()
    yield refdcn.set_num_threads
    refdcn.set_num_threads(before)


@examples(800)
@given(cases(), dtypes)
def test_agrees_with_formula(case, dtype):
    checks.agrees_with_formula(refdcn, case.astype(dtype))


@examples(200)
@given(cases(), dtypes)
def test_equals_formula_where_sums_are_exact(case, dtype):
    checks.equals_formula(refdcn, case.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", LARGE, ids=str)
def test_equals_loops_at_larger_sizes(sizes, dtype):
    """On dyadic numbers: the loops are the oracle where the formula is too slow."""
    case = dyadic(fill(sizes, np.random.default_rng(0), dtype=dtype))
    exact = results(loops, case.astype(np.float64))
    checks.assert_same(results(refdcn, case), [a.astype(dtype) for a in exact])


@examples(200)
@given(cases(batches=(1, 2, 3, 0)))
def test_float32_is_within_the_proven_bounds_wherever_positions_round(case):
    """The formula's positions are in float64: a sample may fall in another cell."""
    case = case.astype(np.float32)
    y, *grads = results(formula, case.astype(np.float64))
    graded = GradingCase("drawn", "bound", *case[:8], grad_y=case.grad_y)
    roundoff = grading_bounds.FP32.with_oracle()
    bound = grading_bounds.gradients(graded, grads, roundoff)
    bound[1] = np.where(at_kink(graded, roundoff), np.inf, bound[1])
    bound.insert(0, grading_bounds.forward(graded, y, roundoff))
    checks.assert_all_within(results(refdcn, case), (y, *grads), bound)


def at_kink(graded, roundoff):
    """Where either cell's slope is right; tests on settled positions judge those."""
    delta = tuple(d[:, :, None] for d in grading_bounds.deltas(graded, roundoff))
    axes = [grading_bounds.kinks(graded, delta, axis) for axis in (0, 1)]
    return np.stack(axes, 3).reshape(graded.offset.shape)


@examples(100)
@given(cases(), dtypes)
def test_linear(case, dtype):
    checks.is_linear(refdcn, case.astype(dtype))


@examples(100)
@given(cases(), dtypes)
def test_gradients_are_adjoint(case, dtype):
    checks.gradients_are_adjoint(refdcn, case.astype(dtype))


@examples(100)
@given(cases(), dtypes)
def test_zero_offset_is_convolution(case, dtype):
    checks.zero_offset_convolves(refdcn, case.astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shift", [(1, -2), (-3, 0), (2, 3)])
@pytest.mark.parametrize("sizes", [SMALL, LARGE[3]], ids=str)
def test_integer_offset_is_a_shift(sizes, shift, dtype):
    rng = np.random.default_rng(0)
    checks.integer_offset_shifts(refdcn, sizes, rng, shift, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [refdcn, loops], ids=lambda m: m.__name__)
@pytest.mark.parametrize("sizes", [SMALL._replace(N=5), LARGE[3]], ids=str)
def test_images_in_another_order(target, sizes, dtype):
    case = fill(sizes, np.random.default_rng(0), dtype=dtype)
    for order in (np.arange(sizes.N)[::-1], [2], [1, 1, 0]):
        checks.batches_are_apart(target, case, order)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [refdcn, loops], ids=lambda m: m.__name__)
@pytest.mark.parametrize("C_in", [6, 36])
def test_groups_in_another_order(target, C_in, dtype):
    sizes = Sizes(2, C_in, 9, groups=3, offset_groups=3, H=9, W=7)
    rng = np.random.default_rng(0)
    checks.groups_are_apart(target, sizes, rng, (2, 0, 1), dtype)
    checks.offset_groups_are_apart(target, sizes, rng, (2, 0, 1), dtype)


@examples(60)
@given(cases(), dtypes, st.tuples(*[st.booleans()] * 5))
def test_needs_leaves_out_what_is_not_asked(case, dtype, needs):
    case = case.astype(dtype)
    g = shapes.geometry(*(a if a is None else a.shape for a in case.inputs), *case[5:8])
    whole = cpu.backward(case.grad_y, cpu.Inputs(*case.inputs), g)
    part = cpu.backward(case.grad_y, cpu.Inputs(*case.inputs), g, needs=needs)
    wanted = [a if need else None for a, need in zip(whole, needs, strict=True)]
    checks.assert_same(part, wanted, NAMES[1:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [SMALL, *LARGE], ids=str)
def test_the_same_bits_again_and_on_any_number_of_threads(sizes, dtype, thread_count):
    case = fill(sizes, np.random.default_rng(0), dtype=dtype)
    thread_count(1)
    wanted = results(refdcn, case)
    checks.assert_same(results(refdcn, case), wanted)
    for count in (2, 3, 8):
        thread_count(count)
        checks.assert_same(results(refdcn, case), wanted)


@pytest.mark.parametrize("counts", [1, 3])
def test_the_same_bits_from_eight_threads_at_once(counts, thread_count):
    thread_count(counts)
    rng = np.random.default_rng(0)
    work = [fill(LARGE[i % 4], rng, dtype=DTYPES[i // 4]) for i in range(8)]
    wanted = [results(refdcn, case) for case in work]
    start, got = threading.Barrier(8), [None] * 8

    def call(i):
        start.wait()
        got[i] = [results(refdcn, work[i]) for _ in range(3)]

    callers = [threading.Thread(target=call, args=(i,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for repeats, answer in zip(got, wanted, strict=True):
        for again in repeats:
            checks.assert_same(again, answer)


def _send_results(pipe, case):
    pipe.send(results(refdcn, case))
    pipe.close()


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_same_bits_in_a_forked_child(thread_count):
    """After threads have run in the parent: the child has none of them."""
    thread_count(3)
    case = fill(LARGE[1], np.random.default_rng(0))
    wanted = results(refdcn, case)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_send_results, args=(there, case))
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        checks.assert_same(here.recv(), wanted)
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("dtype", DTYPES)
def test_none_is_mask_one_and_bias_zero(dtype):
    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    absent = results(refdcn, case._replace(mask=None, bias=None))
    ones, zeros = np.ones_like(case.mask), np.zeros_like(case.bias)
    given = results(refdcn, case._replace(mask=ones, bias=zeros))
    assert absent[4] is None and absent[5] is None
    checks.assert_same(absent[:4], given[:4], NAMES[:4])


def test_empty_batch():
    case = fill(SMALL._replace(N=0), np.random.default_rng(0))
    y, *grads = results(refdcn, case)
    assert y.shape == case.grad_y.shape
    for grad, a in zip(grads, case.inputs, strict=True):
        np.testing.assert_array_equal(grad, np.zeros_like(a), strict=True)


def test_every_combination_of_needs_returns_what_was_asked():
    case = fill(SMALL, np.random.default_rng(0))
    g = shapes.geometry(*(a.shape for a in case.inputs), *case[5:8])
    for needs in product((True, False), repeat=5):
        grads = cpu.backward(case.grad_y, cpu.Inputs(*case.inputs), g, needs=needs)
        assert tuple(a is not None for a in grads) == needs


@pytest.mark.parametrize("dy", [1e9, -1e9, np.inf, np.nan])
def test_a_sample_outside_is_placed_in_the_frame(dy):
    """T(H) may round up: then the row of that number is none of the image's."""
    H, W = 2**24 + 3, 1
    offset = np.full((1, 2, 1), dy, np.float32)
    shape = (1, 1, H, W), (1, 2, H, W), (1, 1, 1, 1), None, None
    sizes = layout.sizes(shapes.geometry(*shape), 1, False, 4)
    found = kernels.room_for(1, offset)
    block = kernels.block_of(kernels.Tile(0, 0, 1), 0, 1, sizes, found)
    for slope in (False, True):
        kernels.find_cells(offset, block, 0, 0, sizes, slope, found, 0)
        place = found.places[0, 0]
        assert 0 <= place and place + W + 3 < (H + 3) * (W + 2)


@pytest.mark.parametrize(
    "sizes",
    [
        (256, 256, 256, 256, 56, (3, 3)),  # depthwise
        (16, 1024, 1, 1, 200, (1, 1)),
        (256, 256, 1, 1, 60, (3, 3)),
        (64, 64, 1, 32, 40, (5, 5)),
    ],
    ids=["depthwise", "many outputs", "a little over a tile", "columns of all taps"],
)
def test_buffers_stay_within_what_a_thread_keeps(monkeypatch, sizes):
    C, O, groups, offset_groups, H, kernel = sizes
    case = fill(
        Sizes(1, C, O, groups, offset_groups, H, 16, kernel),
        np.random.default_rng(0),
        dtype=np.float32,
    )
    largest = {}
    array = scratch.array

    def watched(use, size, dtype, threads=1):
        of_one = size * np.dtype(dtype).itemsize // threads
        largest[use] = max(largest.get(use, 0), of_one)
        return array(use, size, dtype, threads)

    monkeypatch.setattr(scratch, "array", watched)
    results(refdcn, case)
    assert "parts" in largest and "image" in largest
    whole = ["image", "grad_image"]
    if groups == C:  # of every channel and tap of an image, as grad_offset is
        whole.append("parts")
    for use in whole:
        largest.pop(use, None)
    assert max(largest.values()) <= scratch.KEPT_BYTES, largest
