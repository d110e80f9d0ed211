"""The kernels as compiled for CUDA: their IR, run on this processor, on the formula."""

import ctypes
import os
from contextlib import nullcontext
from types import SimpleNamespace

import checks
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("needs the compiler, not the simulator", allow_module_level=True)

import cuda_mistakes
from cuda_ir import CC, Processor, flattened, huge, run_block
from cuda_machines import Target, shrink
from numba.cuda import codegen
from numba.cuda import dispatcher as numbas
from numba.cuda.cudadrv import devicearray, devices, driver

from refdcn import loops
from refdcn.card import watched as card_watched
from refdcn.cuda import arrays, device, kernels, operator

from bounds import NAMES, results
from strategies import Sizes, cases, examples, fill

DTYPES = (np.float32, np.float64)
SMALL = Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2))
WIDE = Sizes(1, 40, 33, 1, 1, 2, 2, kernel=(2, 1))  # more channels than a warp


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


@examples(40)
@given(cases(batches=(1, 2, 3, 0)), st.sampled_from(DTYPES), st.booleans())
def test_agrees_with_formula(case, dtype, deterministic):
    target = Target(Processor(), deterministic)
    checks.agrees_with_formula(target, case.astype(dtype))
    assert not target.on.races


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [SMALL, WIDE], ids=["small", "wide"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_as_launched_on_a_card(monkeypatch, sizes, dtype, deterministic):
    """Blocks as large as there, and the product of our own."""
    monkeypatch.undo()
    case = fill(sizes, np.random.default_rng(0), dtype=dtype)
    target = Target(Processor(own_product=True), deterministic)
    checks.agrees_with_formula(target, case)
    launched = {report.kernel for report in target.on.reports}
    assert launched >= {"sample", "spread", "product", "sum_rows", "permute"}
    assert ("spread_in_order" in launched) == deterministic


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30, 2.0**31, -1.0])
def test_hostile_offsets_stay_inside_and_agree_with_the_loops(value, dtype):
    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    case.offset[:, 3, ::2] = value
    got, wanted = results(Target(Processor()), case), results(loops, case)
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
        slack = 1e-4 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(a, b, rtol=slack, atol=slack, err_msg=name)


@pytest.mark.parametrize("needs", np.eye(5, dtype=bool).tolist(), ids=NAMES[1:])
@pytest.mark.parametrize("deterministic", [False, True])
def test_one_gradient_alone(needs, deterministic):
    case = fill(SMALL, np.random.default_rng(0))
    target = Target(Processor())
    whole = results(target, case)[1:]
    g = target.geometry(case)
    some = operator.backward(
        target.on, case.grad_y, case.inputs, g, needs, deterministic
    )
    for need, alone, grad in zip(needs, some, whole, strict=True):
        assert (alone is not None) == need
        if need:
            np.testing.assert_allclose(alone, grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dy", [1e9, -1e9, np.inf, np.nan])
@pytest.mark.parametrize("H", [2**24 + 1, 2**24 + 3, 2**25 + 3])
def test_a_sample_outside_is_placed_in_the_frame(H, dy):
    """T(H) may round up: then the row of that number is none of the image's."""
    image, W, T = 1, 1, np.float32  # the second of two images
    t = kernels.Tile._make([0] * len(kernels.Tile._fields))._replace(H=H, W=W)
    for slope in (False, True):
        place, *tents = kernels.cell(T(dy), T(0), image, t, slope, T)
        last = place + W + 2 + 1  # of the cell's four pixels
        area = (H + 3) * (W + 2)
        assert image * area + (H + 1) * (W + 2) <= place and last < 2 * area
        assert np.isnan(tents).all() == np.isnan(dy)


def test_half_precision_has_single_positions_and_sums():
    """A position near 1500 keeps the 0.3 that float16 has no digits for."""
    sizes = Sizes(1, 3, 2, H=2, W=1504, kernel=(1, 1), padding=(0, 0), stride=(2, 750))
    case = fill(sizes, np.random.default_rng(0), "zero", dtype=np.float16)
    case.offset[:, 1] = 0.3
    half = results(Target(Processor()), case)
    single = results(Target(Processor()), case.astype(np.float32))
    for name, a, b in zip(NAMES, half, single, strict=True):
        assert a.dtype == np.float16
        np.testing.assert_array_equal(a, b.astype(np.float16), err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_loops_as_a_kernel_have_the_same_bits(dtype):
    """loops.py itself under cuda.jit, one thread: what njit gives, to the bit."""
    on = Processor()

    def run(loop):
        return lambda *args: on.launch(loop, (1,), (1,), *args)

    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    y = loops.deform_conv2d(*case.inputs, **case.windows, run=run)
    grads = loops.deform_conv2d_grad(case.grad_y, *case.inputs, **case.windows, run=run)
    checks.assert_same((y, *grads), results(loops, case))


# --- Numba's own arrays, their memory on the host ------------------------------------


class OnHost(arrays.NumbaArrays):
    """What Numba's device arrays are asked for, with the processor for a device."""

    def __init__(self):
        self.stream, self.processor = 0, Processor()

    def empty(self, shape, dtype):
        return device_array(np.full(shape, np.nan, dtype))

    def launch(self, kernel, blocks, threads, *args):
        is_array = devicearray.DeviceNDArray
        views = [host_array(a) if isinstance(a, is_array) else a for a in args]
        self.processor.launch(kernel, blocks, threads, *views)


def device_array(a):
    device = SimpleNamespace(device=SimpleNamespace(id=3))
    place = ctypes.c_void_p(a.ctypes.data)
    memory = driver.MemoryPointer(device, place, a.nbytes, owner=a)
    return devicearray.DeviceNDArray(a.shape, a.strides, a.dtype, gpu_data=memory)


def host_array(a):
    place = (ctypes.c_char * a.alloc_size).from_address(a.device_ctypes_pointer.value)
    return np.ndarray(a.shape, a.dtype, place, strides=a.strides)


@pytest.mark.parametrize(
    "dtype, deterministic", [(np.float16, False), (np.float64, True)]
)
def test_numba_arrays_in_and_out(monkeypatch, dtype, deterministic):
    """Slices, flat views and casts of Numba's class, with a product of our own."""
    monkeypatch.setattr(devices._runtime, "ensure_context", nullcontext)
    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    host = Target(Processor(own_product=True), deterministic)
    # Not row-major: as a slice of something else.
    apart = [np.repeat(a, 2, -1)[..., ::2] for a in (*case.inputs, case.grad_y)]
    *given, grad_y = kept = [device_array(a) for a in apart]
    assert {arrays.numba_device(a) for a in (*kept, kept[0][:1])} == {3}
    assert {device.library(a) for a in kept} == {"numba"}
    on, g = OnHost(), host.geometry(case)
    y = operator.forward(on, given, g)
    grads = operator.backward(on, grad_y, given, g, (True,) * 5, deterministic)
    got = [host_array(a) for a in (y, *grads)]
    checks.assert_same(got, results(host, case))


WATCHED = {  # a mistake in one form of the backward, which the other does not have
    "atomic": ("cuda.atomic.add(grad_image, at(i), e_y * e_x * d)",
               "cuda.atomic.add(grad_image, at(i), e_y * d)", 1),
    "in order": ("grad_image[at(i)] += e_y * e_x * d", "grad_image[at(i)] += e_y * d",
                 1),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WATCHED)
def test_the_program_that_sanitizers_watch(monkeypatch, mistake):
    """Both forms of the backward are compared: a mistake in either is found."""

    def copied(a):
        return host_array(a).copy()

    monkeypatch.setattr(devices._runtime, "ensure_context", nullcontext)
    monkeypatch.setattr(devicearray.DeviceNDArray, "copy_to_host", copied)
    monkeypatch.setattr("numba.cuda.to_device", device_array)
    monkeypatch.setattr("refdcn.cuda.target.require_cuda", lambda: None)
    monkeypatch.setattr(arrays, "working_on", lambda x: nullcontext(OnHost()))
    module = cuda_mistakes.mistaken(*WATCHED[mistake])
    monkeypatch.setattr(operator, "kernels", module)
    wrong = f"deterministic={mistake == 'in order'}"
    with pytest.raises(AssertionError, match=wrong):
        card_watched.main()


class OnCupy(arrays.CupyArrays):
    """What CuPy is asked for, NumPy in its place, and the processor for a device."""

    def __init__(self):
        self.cupy, self.processor = np, Processor()

    def launch(self, kernel, blocks, threads, *args):
        self.processor.launch(kernel, blocks, threads, *args)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_cupy_arrays_in_and_out(dtype):
    """CuPy's names and arguments are NumPy's: casts, strides, products into arrays."""
    case = fill(SMALL, np.random.default_rng(0), dtype=dtype)
    host, cupy = Target(Processor()), Target(OnCupy())
    checks.assert_same(results(cupy, case), results(host, case))
    if dtype == np.float64:
        checks.agrees_with_formula(cupy, case)


@pytest.mark.parametrize("wanted", [0, 0x77])
def test_what_a_card_would_be_given(monkeypatch, wanted):
    """Typed, compiled, linked and launched by Numba, all but the driver's part.

    The words of the arguments are those that this processor's runs are given.
    """
    given = []

    def launch(stream, config, kernel, *words):
        place = int(stream.handle), tuple(config.grid), tuple(config.block)
        given.append((*place, [int(getattr(w, "value", w)) for w in words]))

    library = codegen.CUDACodeLibrary
    function = SimpleNamespace(kernel=None, name="")
    monkeypatch.setattr(devices._runtime, "ensure_context", nullcontext)
    monkeypatch.setattr(codegen.JITCUDACodegen, "magic_tuple", lambda self: (13, CC))
    monkeypatch.setattr(library, "_ensure_cc", lambda self, cc: CC)
    monkeypatch.setattr(library, "get_cufunc", lambda self: function)
    monkeypatch.setattr(numbas._Kernel, "bind", lambda self: None)
    monkeypatch.setattr(numbas, "launch", launch)
    host = np.zeros(60, np.float32), np.zeros((2, 4, 3, 5), np.float32)
    image, offset = map(device_array, host)
    stream = driver.Stream(driver.binding.CUstream(wanted)) if wanted else 0
    kernel = arrays.configured(kernels.sample, (3, 2), (8, 4), stream)
    kernel(image, offset, offset[1:], TILE, image)
    words = flattened((host[0], host[1], host[1][1:], TILE, host[0]))
    assert given == [(wanted, (3, 2, 1), (8, 4, 1), words)]


def test_few_blocks_are_no_warning():
    """Numba warns of a grid that does not fill a card; sizes make it, not users."""
    settings = numbas.config
    assert settings.CUDA_LOW_OCCUPANCY_WARNINGS
    with pytest.warns(Warning, match="low occupancy"):
        arrays.dispatcher(kernels.clear)[(1,), (64,), 0]
    assert arrays.configured(kernels.clear, (1,), (32,), 0).griddim == (1, 1, 1)
    assert settings.CUDA_LOW_OCCUPANCY_WARNINGS


# --- The product, and memory seen by a warp ------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("turned", ["", "a", "b"])
@pytest.mark.parametrize("accumulate", [0, 1])
def test_product(monkeypatch, dtype, turned, accumulate):
    if accumulate:  # each block takes several turns, of batches and of columns
        shrink(monkeypatch, grid=1)
    rng, (batch, M, N, Q) = np.random.default_rng(0), (2, 66, 5, 9)
    if dtype == np.float64:
        M, N = N, M
    a, b, c = (
        rng.integers(-8, 9, shape).astype(dtype)
        for shape in ((batch, M, Q), (batch, Q, N), (batch, M, N))
    )
    wanted = a @ b + accumulate * c
    s_a, s_b = (M * Q, Q, 1), (Q * N, N, 1)
    if turned == "a":
        a, s_a = np.ascontiguousarray(a.transpose(0, 2, 1)), (M * Q, 1, M)
    if turned == "b":
        b, s_b = np.ascontiguousarray(b.transpose(0, 2, 1)), (Q * N, 1, Q)
    sizes = kernels.Product(batch, M, N, Q, *s_a, *s_b, accumulate)
    on = Processor()
    arrays.product(on, a.ravel(), b.ravel(), c.reshape(-1), sizes)
    np.testing.assert_array_equal(c, wanted)
    assert not on.races


def test_adjacent_threads_are_on_adjacent_channels(monkeypatch):
    """A warp's accesses touch as few 32-byte pieces of memory as they can."""
    monkeypatch.undo()
    sizes = Sizes(1, 64, 64, H=4, W=4, kernel=(1, 1), padding=(0, 0))
    case = fill(sizes, np.random.default_rng(0), dtype=np.float32)
    on = Processor()
    results(Target(on), case)
    by_kernel = {report.kernel: report for report in on.reports}
    image, _, _, columns = by_kernel["sample"].arrays
    assert by_kernel["sample"].sectors(image) < 1.3  # not all lines begin on a piece
    assert by_kernel["sample"].sectors(columns) < 1.3
    _, _, _, _, grad_image, *_ = by_kernel["spread"].arrays
    assert by_kernel["spread"].sectors(grad_image) < 1.3
    for array in by_kernel["planes_to_rows"].arrays:  # its rows are 16 pixels long
        assert by_kernel["planes_to_rows"].sectors(array, least_lanes=16) < 2


# --- Beyond 2**31 elements -----------------------------------------------------------


SIDE = 46_400
TILE = kernels.Tile(
    images=1, first=0, span=1, H=SIDE, W=SIDE, W_out=1, C_in=1, C=1, D=1, K=1, K_w=1,
    taps=1, stride_y=1, stride_x=1, top=0, left=0, dilation_y=1, dilation_x=1,
    masked=0, adds=1,
)  # fmt: skip


def far_sample(module):
    """The last pixel of an image of more than 2**31, read and added to."""
    image, grad_image = huge((SIDE + 3) * (SIDE + 2)), huge((SIDE + 3) * (SIDE + 2))
    last = SIDE * (SIDE + 2) + SIDE
    assert last > 2**31
    image[last] = 3
    offset = np.full((1, 2, 1, 1), SIDE - 1, np.float32)
    columns = np.zeros(1, np.float32)
    run_block(module.sample, (0,), (1,), (1,), image, offset, offset, TILE, columns)
    grads = np.zeros((1, 2, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    one = np.ones(1, np.float32)
    run_block(
        module.spread, (0,), (1,), (32,), image, one, offset, offset,
        TILE._replace(D=1), grad_image, *grads,
    )  # fmt: skip
    return columns[0], grad_image[last]


def far_column(module):
    """The last output of a tile with more than 2**31 columns."""
    C, K = 1 << 16, 1 << 12
    count = (2**31 // (C * K)) + 1
    t = TILE._replace(span=count, H=1, W=1, W_out=count, C_in=C, C=C, D=C, K=K, taps=K)
    t = t._replace(K_w=1, stride_x=0, dilation_y=0)
    image = np.full(4 * 3 * C, 0, np.float32)
    image[4 * C : 5 * C] = 3  # the one pixel
    offset = huge(2 * K * count).reshape(1, 2 * K, 1, count)
    columns = huge(count * K * C)
    grid = (count, K)
    run_block(
        module.sample, (count - 1, K - 1), grid, (32, 1), image, offset, offset, t,
        columns,
    )  # fmt: skip
    return columns[-1], columns[-2]


def far_rows(module):
    """The last pixels of planes and rows of more than 2**31, there and back."""
    pixels = 2**31 + 32
    sizes = kernels.Layout(1, 1, pixels, 0, pixels, 1, 0, 0, 0)
    planes, rows, back = huge(pixels), huge(pixels), huge(pixels)
    planes[-1] = 3
    blocks = pixels // kernels.SIDE
    last = (blocks - 1,)
    run_block(module.planes_to_rows, last, (blocks,), (32, 8), planes, rows, sizes)
    run_block(module.rows_to_planes, last, (blocks,), (32, 8), rows, rows, back, sizes)
    return rows[-1], back[-1]


def far_product(module):
    M = N = 1 << 16
    a, b, c = np.full(M, 3, np.float32), np.ones(N, np.float32), huge(M * N)
    sizes = kernels.Product(1, M, N, 1, M, 1, 1, N, N, 1, 0)
    blocks = M // kernels.BLOCK
    last = (blocks - 1, blocks - 1)
    run_block(module.product, last, (blocks, blocks), (16, 16), a, b, c, sizes)
    return c[-1], c[-2]


FAR = {
    "image": far_sample, "columns": far_column, "rows": far_rows,
    "planes": far_rows, "product": far_product,
}  # fmt: skip


@pytest.mark.parametrize("name", ["image", "columns", "rows", "product"])
def test_indices_of_more_than_31_bits(name):
    got = FAR[name](kernels)
    assert got in [(3, 1), (3, 3)]


# --- Mistakes must be found ----------------------------------------------------------


def run_with(monkeypatch, module, own_product=False):
    """Forward and backward by the mistaken kernels; the machine they ran on."""
    monkeypatch.setattr(operator, "kernels", module)
    monkeypatch.setattr(arrays, "kernels", module)
    case = fill(SMALL, np.random.default_rng(0), dtype=np.float32)
    case.offset[0, 0, 0, 0] = -1 + case.sizes.padding[0]  # q_y = -1 exactly ...
    case.offset[0, 0, 0, 0] = -1 - case.sizes.base[0][0, 0, 0]
    case.offset[0, 1, 0, 0] = 1 - case.sizes.base[1][0, 0, 0]  # ... and q_x inside
    on = Processor(own_product)
    return on, case, Target(on)


@pytest.mark.parametrize("name", cuda_mistakes.WRONG)
def test_wrong_numbers_are_found(monkeypatch, name):
    module = cuda_mistakes.mistaken(*cuda_mistakes.WRONG[name])
    _, case, target = run_with(monkeypatch, module)
    if name == "grid stride":
        shrink(monkeypatch, grid=1, tile_bytes=10_000)
    if name == "NaN lost":
        case.offset[0, 0, 0, 0] = np.nan
        y, wanted = (results(t, case)[0] for t in (target, loops))
        assert (np.isnan(y) != np.isnan(wanted)).any()
        return
    with pytest.raises(AssertionError, match="outside|(load|store) float"):
        checks.agrees_with_formula(target, case)


def test_the_case_they_are_found_on_is_right_without(monkeypatch):
    on, case, target = run_with(monkeypatch, kernels, own_product=True)
    checks.agrees_with_formula(target, case)
    assert not on.races


@pytest.mark.parametrize("name", cuda_mistakes.RACES)
def test_races_are_found(monkeypatch, name):
    module = cuda_mistakes.mistaken(*cuda_mistakes.RACES[name])
    on, case, target = run_with(monkeypatch, module)
    results(target, case)
    assert on.races


@pytest.mark.parametrize("n", range(cuda_mistakes.BARRIERS))
def test_a_missing_barrier_is_found(monkeypatch, n):
    name, module = cuda_mistakes.without_barrier(n)
    on, _, target = run_with(monkeypatch, module)
    shrink(monkeypatch, grid=1)
    if name == "product":
        a, c = np.ones(120, np.float32), np.ones(25, np.float32)
        sizes = kernels.Product(1, 5, 5, 24, 0, 24, 1, 0, 5, 1, 0)
        arrays.product(on, a, a, c, sizes)
    else:
        case = fill(WIDE, np.random.default_rng(0), dtype=np.float32)
        target.deform_conv2d(*case.inputs, **case.windows)
    assert {race.partition(":")[0] for race in on.races} == {name}


@pytest.mark.parametrize("name", cuda_mistakes.OUTSIDE)
def test_an_address_outside_is_found(monkeypatch, name):
    module = cuda_mistakes.mistaken(*cuda_mistakes.OUTSIDE[name])
    _, case, target = run_with(monkeypatch, module)
    with pytest.raises(AssertionError, match=r"(load|store) float"):
        results(target, case)


@pytest.mark.parametrize("name", cuda_mistakes.NARROW)
def test_a_narrow_index_is_found(name):
    module = cuda_mistakes.mistaken(*cuda_mistakes.NARROW[name])
    with pytest.raises(AssertionError, match=r"(load|store) float|machine_add"):
        FAR[name](module)
