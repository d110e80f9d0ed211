"""The torch operator: values, derivatives, transforms, and what it refuses."""

from unittest import mock

import numpy as np
import pytest
import torch
import transforms
from checks import agrees_with_formula
from hypothesis import given
from torch import func
from transforms import EVERY, arguments, backward, refdcn_op, same, tiny

import refdcn
import refdcn.cpu
from refdcn.torch import deform_conv2d, deform_conv2d_grad, library

from strategies import Sizes, cases, examples, fill

pytestmark = [pytest.mark.filterwarnings(f"ignore:{m}") for m in transforms.TORCHS_OWN]


def tensor(a):
    return None if a is None else torch.from_numpy(a)


class Target:
    """The operator and its autograd on NumPy arrays."""

    @staticmethod
    def deform_conv2d(*inputs, **windows):
        return deform_conv2d(*map(tensor, inputs), **windows).numpy()

    @staticmethod
    def deform_conv2d_grad(grad_y, *inputs, **windows):
        leaves = [a if a is None else tensor(a).requires_grad_() for a in inputs]
        deform_conv2d(*leaves, **windows).backward(tensor(grad_y))
        return [a if a is None else a.grad.numpy() for a in leaves]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_formula(dtype):
    @examples(60)
    @given(cases(dtype))
    def check(case):
        agrees_with_formula(Target, case)

    check()


# --- Transforms, the others in test_torch_op_table.py ---------------------------------


@pytest.mark.parametrize("needs", [(True,) * 5, (False, True, False, False, False)])
def test_raw_operators_pass_opcheck(needs):
    x, offset, weight, mask, _ = tiny(grad=True)
    mask, conv = (mask if needs[3] else None), ((1, 1), (1, 1, 1, 1), (1, 1))
    torch.library.opcheck(library.forward, (x, offset, weight, mask, None, *conv))
    grad_y = refdcn_op(x, offset, weight, mask).detach().requires_grad_()
    inputs = (grad_y, x, offset, weight, mask, *conv, needs)
    torch.library.opcheck(library.backward, inputs)


def test_raw_operators_have_vmap():
    conv = (1, 1), (1, 1, 1, 1), (1, 1)
    tensors = arguments()
    stacked = torch.stack([tensors[0], 2 * tensors[0]])
    y = torch.vmap(lambda x: library.forward(x, *tensors[1:], *conv))(stacked)
    same(y, torch.stack([refdcn_op(x, *tensors[1:]) for x in stacked]))
    needs = (True, False, True, True, False)
    operands = *tensors[1:4], *conv, needs
    grads = torch.vmap(lambda y, x: library.backward(y, x, *operands))(y, stacked)
    each = [library.backward(*one, *operands) for one in zip(y, stacked, strict=True)]
    for grad, wanted, need in zip(grads, zip(*each, strict=True), needs, strict=True):
        if need:
            same(grad, torch.stack(wanted))


@pytest.mark.parametrize("kind", ["integer", "edge", "zero", "random", "far"])
def test_forward_mode_takes_the_slopes_of_the_gradient(kind):
    """<grad_y, dF v> = <grad_offset, v>, also where slopes jump."""
    sizes = Sizes(groups=2, offset_groups=2, stride=(2, 1), dilation=(1, 2))
    case = fill(sizes, np.random.default_rng(3), kind)
    x, offset, weight, mask, bias = map(tensor, case.inputs)

    def f(offset):
        return deform_conv2d(x, offset, weight, mask, bias, **case.windows)

    v, grad_y = torch.cos(7 * offset + 1), tensor(case.grad_y)
    slope = func.jvp(f, (offset,), (v,))[1]
    grad_offset = func.vjp(f, offset)[1](grad_y)[0]
    same((grad_y * slope).sum(), (grad_offset * v).sum())
    assert kind == "far" or (grad_offset != 0).any()


@pytest.mark.parametrize("far", [float("inf"), -float("inf"), float("nan"), 1e30])
def test_tangent_at_far_and_nan_offsets(far):
    x, offset, weight, mask, bias = arguments()
    offset = torch.full_like(offset, far)
    tangent = func.jvp(lambda o: refdcn_op(x, o, weight, mask, bias),
                       (offset,), (torch.ones_like(offset),))[1]  # fmt: skip
    assert tangent.isnan().all() if np.isnan(far) else (tangent == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_higher_orders_of_half_types_are_formed_in_float32(dtype):
    tensors = arguments(dtype, size=(4, 40))
    wide = tuple(t.float() for t in tensors)
    low = func.jvp(refdcn_op, tensors, tensors)[1]
    assert torch.equal(low, func.jvp(refdcn_op, wide, wide)[1].to(dtype))


def test_backward_computes_what_needs_grad_only():
    asked = []
    real = refdcn.cpu.backward

    def spy(*args, **kwargs):
        asked.append(tuple(args[3]))
        return real(*args, **kwargs)

    with mock.patch.object(refdcn.cpu, "backward", spy):
        for some in ((0,), (1, 3), (2, 4)):
            tensors = arguments()
            for i in some:
                tensors[i].requires_grad_()
            backward(refdcn_op, tensors)
    assert asked == [tuple(i in some for i in EVERY) for some in ((0,), (1, 3), (2, 4))]


def test_sizes_found_wrong_when_an_exported_graph_runs():
    sizes = {2: torch.export.Dim("H"), 3: torch.export.Dim("W")}

    class Free(torch.nn.Module):
        def forward(self, x, offset, weight):
            return deform_conv2d(x, offset, weight, padding=1)

    x, offset, weight, *_ = arguments(size=(7, 9))
    free = {2: torch.export.Dim("P"), 3: torch.export.Dim("Q")}
    shapes = (sizes, free, None)
    graph = torch.export.export(Free(), (x, offset, weight), dynamic_shapes=shapes)
    same(graph.module()(x, offset, weight), deform_conv2d(x, offset, weight, padding=1))
    with pytest.raises(ValueError, match="offset has shape"):
        graph.module()(x[:, :, :-1], offset, weight)


# --- Contract ------------------------------------------------------------------------


def test_the_public_functions_take_tensors():
    tensors = arguments()
    y = refdcn.deform_conv2d(*tensors, padding=1)
    assert torch.equal(y, refdcn_op(*tensors))
    grads = refdcn.deform_conv2d_grad(y, *tensors, padding=1)
    for got, wanted in zip(grads, backward(refdcn_op, arguments(grad=True), y)[1],
                           strict=True):  # fmt: skip
        assert torch.equal(got, wanted)
    without = refdcn.deform_conv2d_grad(y, *tensors[:3], padding=1)
    assert without.mask is None and without.bias is None


def test_gradients_are_differentiable():
    tensors = arguments(grad=True)
    y = refdcn_op(*tensors)
    grads = deform_conv2d_grad(2 * y, *tensors, padding=1)
    by_graph = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)
    same(grads, by_graph)
    second = [
        torch.autograd.grad(
            sum(g.square().sum() for g in some), tensors, retain_graph=True
        )
        for some in (grads, by_graph)
    ]
    same(*second)


@pytest.mark.parametrize("dtype", library.DTYPES)
def test_nothing_is_aliased_or_written(dtype):
    tensors = arguments(getattr(torch, dtype), grad=True)
    before = [t.detach().clone() for t in tensors]
    y = refdcn_op(*tensors)
    grad_y = torch.ones_like(y)
    again = refdcn_op(*tensors)
    grads = torch.autograd.grad(y, tensors, grad_y)
    memory = [
        t.untyped_storage().data_ptr() for t in (*tensors, y, again, grad_y, *grads)
    ]
    assert len(set(memory)) == len(memory)
    assert all(map(torch.equal, tensors, before)) and bool((grad_y == 1).all())


@pytest.mark.parametrize(
    "padding, sides", [("same", ((0, 1), (1, 1))), (((2, 1), (0, 3)),) * 2]
)
def test_uneven_padding_equals_a_padded_image(padding, sides):
    (top, bottom), (left, right) = sides
    x, _, weight, *_ = arguments(size=(7, 6))
    wide = torch.nn.functional.pad(x, (left, right, top, bottom))
    rng = torch.Generator().manual_seed(2)
    N, _, H, W = wide.shape
    offset = torch.rand(N, 24, H - 1, W - 2, generator=rng, dtype=x.dtype)
    y = deform_conv2d(x, offset, weight, padding=padding)
    same(y, deform_conv2d(wide, offset, weight))
    if padding == "same":
        assert y.shape[2:] == x.shape[2:]


def test_the_same_bits_for_any_number_of_threads():
    tensors = arguments(N=3, C=32, O=32, size=(24, 25), grad=True)
    count = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, grads = backward(refdcn_op, tensors)
            found.append((y, *grads))
    finally:
        torch.set_num_threads(count)
    assert all(map(torch.equal, found[0], found[1]))
    assert all(map(torch.equal, found[0], found[2]))


WRONG = {
    "x is ndarray; wanted a torch tensor": {"x": np.zeros((2, 4, 4, 5))},
    "offset is NoneType; wanted a torch tensor": {"offset": None},
    "mask is float32 and x is float64; all arguments need one dtype": {
        "mask": torch.zeros(2, 12, 5, 5)
    },
    "x is complex128; the operator is defined for float16, bfloat16, float32": {
        "x": torch.zeros(2, 4, 4, 5, dtype=torch.complex128)
    },
    "weight is on meta and x is on cpu": {
        "weight": torch.zeros(4, 2, 2, 3, dtype=torch.float64, device="meta")
    },
    "offset has 23 channels; a 2x3 kernel": {"offset": arguments()[1][:, 1:]},
    "bias has shape [3]; wanted [4]": {"bias": arguments()[4][1:]},
    "weight has 3 dimensions": {"weight": arguments()[2][0]},
    "stride is 0; wanted at least 1": {"stride": 0},
    "padding is 'full'": {"padding": "full"},
}


@pytest.mark.parametrize("text", WRONG)
def test_bad_input_is_named(text):
    names = ("x", "offset", "weight", "mask", "bias")
    good = dict(zip(names, arguments(), strict=True)) | {"padding": 1}
    with pytest.raises((TypeError, ValueError)) as error:
        deform_conv2d(**(good | WRONG[text]))
    assert text in str(error.value)
    y = refdcn_op(*arguments())
    with pytest.raises((TypeError, ValueError)) as error:
        deform_conv2d_grad(y, **(good | WRONG[text]))
    assert text in str(error.value)


def test_a_wrong_grad_y_is_named():
    with pytest.raises(ValueError, match="grad_y has shape"):
        deform_conv2d_grad(torch.zeros(1, 4, 5, 5).double(), *arguments(), padding=1)
    with pytest.raises(TypeError, match="grad_y is float32"):
        deform_conv2d_grad(torch.zeros(2, 4, 5, 5), *arguments(), padding=1)


def test_other_devices_are_refused_by_torch():
    """The name is one for all devices; the CPU has a kernel, meta has shapes."""
    sparse = arguments()[0].to_sparse()
    with pytest.raises((NotImplementedError, TypeError)):
        refdcn_op(sparse, *arguments()[1:])
