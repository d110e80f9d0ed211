"""The public functions: what may come in, what goes out, and each error's text."""

import hashlib
import inspect
import subprocess
import sys
import warnings

import numpy as np
import pytest
from checks import agrees_with_formula, assert_same
from hypothesis import given
from hypothesis import strategies as st

import refdcn

from bounds import NAMES, results
from strategies import Sizes, cases, examples, fill

DTYPES = [np.float16, np.float32, np.float64]
SIZES = [
    Sizes(2, 6, 4, 2, 3, 5, 4, stride=(2, 1), dilation=(1, 2)),
    Sizes(2, 20, 6, 1, 2, 9, 8, kernel=(3, 3)),
]
ARRAYS = ("x", "offset", "weight", "mask", "bias", "grad_y")
geometry = pytest.mark.parametrize("sizes", SIZES, ids=str)
precision = pytest.mark.parametrize("dtype", DTYPES)


def draw(sizes=SIZES[0], dtype=np.float64):
    return fill(sizes, np.random.default_rng(0), dtype=dtype)


def with_arrays(case, change):
    return case._replace(**{name: change(getattr(case, name)) for name in ARRAYS})


def outputs(case):
    return [a for a in results(refdcn, case) if a is not None]


# --- Layouts and dtypes --------------------------------------------------------------


def channels_last(a):
    if a.ndim != 4:
        return a
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def fortran(a):
    return np.asfortranarray(a)


def every_second(a):
    memory = np.zeros([2 * n for n in a.shape], a.dtype)
    memory[tuple(slice(None, None, 2) for _ in a.shape)] = a
    return memory[tuple(slice(None, None, 2) for _ in a.shape)]


def negative_strides(a):
    flip = tuple(slice(None, None, -1) for _ in a.shape)
    return a[flip].copy()[flip]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def byte_swapped(a):
    return a.astype(a.dtype.newbyteorder())


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    view = memory[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    assert a.itemsize == 1 or not view.flags.aligned
    return view


def subclass(a):
    class Tagged(np.ndarray):
        pass

    return a.view(Tagged)


LAYOUTS = [
    channels_last, fortran, every_second, negative_strides, read_only, byte_swapped,
    unaligned, subclass,
]  # fmt: skip


@geometry
@precision
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_any_layout_gives_the_same_bits(layout, sizes, dtype):
    case = draw(sizes, dtype)
    wanted = outputs(case)
    got = outputs(with_arrays(case, layout))
    assert_same(got, wanted)
    for a in got:
        assert type(a) is np.ndarray and a.dtype == np.dtype(dtype)
        assert a.dtype.isnative and a.flags.c_contiguous and a.flags.writeable


@geometry
@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)
def test_one_array_in_another_layout(name, layout, sizes):
    case = draw(sizes, np.float32)
    wanted = outputs(case)
    assert_same(outputs(case._replace(**{name: layout(getattr(case, name))})), wanted)


def test_a_broadcast_view_is_an_array():
    """All strides 0: one number, seen everywhere."""
    case = draw()
    mask = np.broadcast_to(np.float64(0.5), case.mask.shape)
    x = np.broadcast_to(case.x[:1], case.x.shape)
    wanted = outputs(case._replace(mask=mask.copy(), x=x.copy()))
    assert_same(outputs(case._replace(mask=mask, x=x)), wanted)


@examples(60)
@given(cases(), st.sampled_from(LAYOUTS))
def test_layouts_of_drawn_cases(case, layout):
    arrays = {n: getattr(case, n) for n in ARRAYS if getattr(case, n) is not None}
    arrays = {n: layout(a) for n, a in arrays.items()}
    assert_same(results(refdcn, case._replace(**arrays)), results(refdcn, case))


@geometry
def test_half_precision_is_float32_rounded_once(sizes):
    case = draw(sizes, np.float16)
    wide = results(refdcn, case.astype(np.float32))
    assert_same(results(refdcn, case), [a.astype(np.float16) for a in wide])


def test_half_precision_overflows_to_infinity_without_a_warning():
    case = draw(SIZES[0], np.float16)
    case = case._replace(weight=np.full_like(case.weight, 60000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, *_ = results(refdcn, case)
    assert y.dtype == np.float16 and np.isinf(y).any()


def test_half_precision_takes_a_nan_offset():
    case = draw(SIZES[0], np.float16)
    case.offset[0, 0, 0, 0] = np.nan
    y = refdcn.deform_conv2d(*case.inputs, **case.windows)
    assert np.isnan(y[0, :2, 0, 0]).all() and np.isfinite(y[1]).all()


# --- Contract ------------------------------------------------------------------------


@geometry
@precision
def test_inputs_are_not_written(sizes, dtype):
    case = draw(sizes, dtype)
    case.offset.flat[::9] = np.nan

    def digests():
        return [hashlib.sha256(getattr(case, name)).digest() for name in ARRAYS]

    before = digests()
    results(refdcn, case)
    assert digests() == before


@geometry
@precision
def test_outputs_alias_nothing(sizes, dtype):
    case = draw(sizes, dtype)
    first, second = outputs(case), outputs(case)
    inputs = [getattr(case, name) for name in ARRAYS]
    everything = [*inputs, *first, *second]
    for i, a in enumerate(everything):
        for b in everything[i + 1 :]:
            assert not np.may_share_memory(a, b)
    # Nor is a kept buffer handed out: writing into one result changes no other.
    wanted = [a.copy() for a in second]
    for a in first:
        a.fill(np.nan)
    assert_same(second, wanted)
    assert_same(outputs(case), wanted)


def test_a_call_leaves_nothing_behind_for_the_next():
    """Large and small geometries in turn, which share buffers of a thread."""
    rng = np.random.default_rng(0)
    sizes = [SIZES[1], SIZES[0], Sizes(1, 1, 1, H=3, W=3, kernel=(1, 1)), SIZES[1]]
    work = [fill(s, rng, dtype=np.float32) for s in sizes]
    alone = [outputs(case) for case in work]
    for turn in range(3):
        for at in np.random.default_rng(turn).permutation(len(work)):
            assert_same(outputs(work[at]), alone[at])


def test_the_same_memory_with_new_numbers_is_computed_anew():
    case, other = draw(), fill(SIZES[0], np.random.default_rng(9))
    first = outputs(case)
    for name in ARRAYS:
        getattr(case, name)[...] = getattr(other, name)
    assert_same(outputs(case), outputs(other))
    assert not np.array_equal(outputs(case)[0], first[0])


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(1, 2, 2, H=1, W=1, kernel=(3, 3)),
        Sizes(2, 3, 1, H=1, W=1, kernel=(1, 1), padding=(0, 0)),
        Sizes(1, 2, 2, H=2, W=3, kernel=(5, 4), padding=(2, 2)),
        Sizes(1, 2, 2, H=1, W=8, kernel=(5, 1), padding=(2, 0)),
        Sizes(1, 1, 1, H=2, W=2, kernel=(1, 1), padding=(4, 4), stride=(3, 3)),
    ],
    ids=str,
)
def test_small_images_and_large_kernels(sizes):
    agrees_with_formula(refdcn, draw(sizes))


@pytest.mark.parametrize("N", [0, 1])
def test_gradients_have_the_shapes_of_their_arguments(N):
    case = draw(SIZES[0]._replace(N=N))
    grads = refdcn.deform_conv2d_grad(case.grad_y, *case.inputs, **case.windows)
    assert isinstance(grads, refdcn.Gradients)
    assert grads._fields == ("x", "offset", "weight", "mask", "bias")
    for name, grad in grads._asdict().items():
        assert grad.shape == getattr(case, name).shape


def test_mask_and_bias_may_be_absent():
    case = draw()._replace(mask=None, bias=None)
    grads = refdcn.deform_conv2d_grad(case.grad_y, *case.inputs[:3], **case.windows)
    assert grads.mask is None and grads.bias is None


def test_the_order_of_the_arguments():
    order = ["x", "offset", "weight", "mask", "bias", "stride", "padding", "dilation"]
    for function, first in (
        (refdcn.deform_conv2d, []),
        (refdcn.deform_conv2d_grad, ["grad_y"]),
    ):
        parameters = inspect.signature(function).parameters
        assert list(parameters) == first + order
        by_name = [p for p in parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert [p.name for p in by_name] == order[5:]
        assert [parameters[n].default for n in order[3:]] == [None, None, 1, 0, 1]


def test_uneven_padding_is_that_of_a_padded_image():
    """((top, bottom), (left, right)): as x with zeros around it and padding 0."""
    case = draw(Sizes(2, 4, 3, H=6, W=5))
    x = np.pad(case.x, [(0, 0), (0, 0), (2, 1), (0, 3)])
    out = x.shape[2] - 2, x.shape[3] - 1
    offset = np.random.default_rng(1).standard_normal((2, 12, *out))
    grad_y = np.random.default_rng(2).standard_normal((2, 3, *out))
    padded = x, offset, case.weight
    plain = case.x, offset, case.weight
    padding = ((2, 1), (0, 3))
    a = refdcn.deform_conv2d(*padded)
    b = refdcn.deform_conv2d(*plain, padding=padding)
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    a = refdcn.deform_conv2d_grad(grad_y, *padded)
    b = refdcn.deform_conv2d_grad(grad_y, *plain, padding=padding)
    inside = a.x[:, :, 2:-1, :-3]
    for p, q in ((inside, b.x), (a.offset, b.offset), (a.weight, b.weight)):
        np.testing.assert_allclose(p, q, rtol=1e-12, atol=1e-12)


# --- Bad input -----------------------------------------------------------------------

KIND = "wanted a NumPy array or a torch tensor"
ONE_DTYPE = "all arguments need one dtype, since a silent cast loses digits"
DEFINED = "the operator is defined for float16, float32, float64"


def message(error, case, **changed):
    """What the gradient says; the forward says the same, except of grad_y."""
    case = case._replace(**changed)
    with pytest.raises(error) as backward:
        refdcn.deform_conv2d_grad(case.grad_y, *case.inputs, **case.windows)
    if "grad_y" not in changed:
        with pytest.raises(error) as forward:
            refdcn.deform_conv2d(*case.inputs, **case.windows)
        assert str(forward.value) == str(backward.value)
    return str(backward.value)


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_no_array(name):
    case = draw()
    array = getattr(case, name)
    assert (
        message(TypeError, case, **{name: array.tolist()}) == f"{name} is list; {KIND}"
    )
    assert message(TypeError, case, **{name: 1.5}) == f"{name} is float; {KIND}"
    masked = np.ma.masked_array(array, array > 0)
    assert message(TypeError, case, **{name: masked}) == (
        f"{name} is a masked array, whose mask would be lost; "
        "pass plain numbers, e.g. a.filled(0)"
    )
    if name not in ("mask", "bias"):
        assert message(TypeError, case, **{name: None}) == f"{name} is NoneType; {KIND}"


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize(
    "dtype", ["int64", "int32", "uint8", "bool", "complex128", "longdouble", "object_"]
)
def test_dtypes_that_are_not_defined(name, dtype):
    case = draw()
    other = getattr(case, name).astype(getattr(np, dtype))
    shown = other.dtype.type.__name__
    assert message(TypeError, case, **{name: other}) == f"{name} is {shown}; {DEFINED}"


@pytest.mark.parametrize("name", ARRAYS[1:])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_mixed_dtypes(name, dtype):
    case = fill(SIZES[0], np.random.default_rng(0), "random")
    other = getattr(case, name).astype(dtype)
    assert message(TypeError, case, **{name: other}) == (
        f"{name} is {other.dtype} and x is float64; {ONE_DTYPE}"
    )


def test_one_dtype_in_two_byte_orders_is_one():
    case = draw()
    swapped = case._replace(offset=byte_swapped(case.offset))
    assert_same(outputs(swapped), outputs(case))


def test_the_shape_of_grad_y():
    case = draw()
    for shape in [(2, 4, 3, 3), (1, *case.grad_y.shape[1:]), case.grad_y.shape[1:]]:
        text = message(ValueError, case, grad_y=np.ones(shape))
        assert text == (
            f"grad_y has shape {list(shape)}; wanted {list(case.grad_y.shape)}: "
            "[N, C_out, H_out, W_out], the shape of y"
        )


@pytest.mark.parametrize(
    "changed, error, text",
    [
        ({"stride": True}, TypeError,
         "stride is True; wanted integers, True is a bool"),
        ({"dilation": 0}, ValueError,
         "dilation is 0; wanted at least 1, below 2**31"),
        ({"padding": "full"}, ValueError,
         "padding is 'full'; wanted an int, (rows, columns), ((top, bottom), (left, "
         "right)), 'same' or 'valid'"),
        ({"x": np.ones((6, 5, 4))}, ValueError,
         "x has 3 dimensions, shape [6, 5, 4]; wanted [N, C_in, H, W]"),
        ({"offset": np.ones((2, 35, 3, 3))}, ValueError,
         "offset has 35 channels; a 3x2 kernel with 3 offset groups needs 2*3*6 = 36"),
        ({"bias": np.ones(3)}, ValueError,
         "bias has shape [3]; wanted [4]: [C_out], the first size of weight"),
        ({"weight": np.ones((4, 3, 9, 2))}, ValueError,
         "weight has a kernel of 9 rows, which spans 9 with dilation 1; x with its "
         "padding has 7, so y would be empty"),
    ],
)  # fmt: skip
def test_what_the_geometry_refuses(changed, error, text):
    assert message(error, draw(), **changed) == text


def test_windows_are_named():
    case = draw()
    with pytest.raises(TypeError, match="positional argument"):
        refdcn.deform_conv2d(*case.inputs, 1, 0, 1)


def test_an_error_comes_before_any_work(tmp_path):
    """A refused call needs no compiler, and says so at once."""
    code = """
import sys, numpy as np, refdcn
try:
    refdcn.deform_conv2d(np.ones((1, 1, 4)), *[np.ones((1, 1, 1, 1))] * 2)
except ValueError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout == "x has 3 dimensions, shape [1, 1, 4]; wanted [N, C_in, H, W]\n"


def test_unknown_names_of_the_package():
    with pytest.raises(AttributeError) as error:
        refdcn.deform_conv3d  # noqa: B018
    assert str(error.value) == "module 'refdcn' has no attribute 'deform_conv3d'"
    assert set(refdcn.__all__) <= set(dir(refdcn))
    for name in refdcn.__all__:
        assert getattr(refdcn, name) is not None


# --- Torch tensors -------------------------------------------------------------------


def tensors(case, **options):
    import torch

    return [
        None if a is None else torch.tensor(a, **options)
        for a in (*case.inputs, case.grad_y)
    ]


@pytest.mark.torch
@geometry
@precision
def test_tensors_in_tensors_out(sizes, dtype):
    import torch

    case = draw(sizes, dtype)
    *inputs, grad_y = tensors(case)
    y = refdcn.deform_conv2d(*inputs, **case.windows)
    grads = refdcn.deform_conv2d_grad(grad_y, *inputs, **case.windows)
    assert isinstance(grads, refdcn.Gradients)
    for a, b, name in zip((y, *grads), results(refdcn, case), NAMES, strict=True):
        assert isinstance(a, torch.Tensor), name
        np.testing.assert_array_equal(a.numpy(), b, err_msg=name, strict=True)


@pytest.mark.torch
@geometry
def test_autograd_is_deform_conv2d_grad(sizes):
    import torch

    case = draw(sizes)
    *inputs, grad_y = tensors(case)
    for a in inputs:
        a.requires_grad_()
    refdcn.deform_conv2d(*inputs, **case.windows).backward(grad_y)
    wanted = results(refdcn, case)[1:]
    for a, b in zip(inputs, wanted, strict=True):
        assert torch.equal(a.grad, torch.from_numpy(b))


@pytest.mark.parametrize("name", ARRAYS[:3])
def test_arrays_of_two_libraries_are_told_apart(name):
    """CuPy's class has the name of NumPy's."""
    cupy = type("ndarray", (), {"__module__": "cupy", "shape": (1, 1, 3, 3)})
    cupy.__cuda_array_interface__ = {}
    case = draw()
    inputs = dict(zip(ARRAYS, case.inputs, strict=False)) | {name: cupy()}
    other = "offset" if name == "x" else "x"
    told = {name: "cupy.ndarray", other: "numpy.ndarray"}
    first, second = ("offset", "x") if name == "x" else (name, "x")
    with pytest.raises(TypeError) as error:
        refdcn.deform_conv2d(**inputs, **case.windows)
    assert str(error.value) == (
        f"{first} is {told[first]} and {second} is {told[second]}; all arguments need "
        "one kind, since the kind that comes in goes out"
    )


@pytest.mark.torch
@pytest.mark.parametrize("name", ARRAYS[:5])
def test_arrays_and_tensors_do_not_mix(name):
    case = draw()
    *inputs, _ = tensors(case)
    first = ARRAYS[1] if name == "x" else "x"
    inputs[ARRAYS.index(name)] = getattr(case, name)
    with pytest.raises(TypeError) as error:
        refdcn.deform_conv2d(*inputs, **case.windows)
    assert str(error.value) == (
        f"{first} is torch.Tensor and {name} is numpy.ndarray; all arguments need "
        "one kind, since the kind that comes in goes out"
    )


@pytest.mark.torch
def test_arrays_are_arrays_with_torch_loaded():
    import torch  # noqa: F401

    assert all(type(a) is np.ndarray for a in outputs(draw()))
