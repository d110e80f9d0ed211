"""torchvision's operator with refdcn's kernels behind it."""

import threading
from unittest import mock

import pytest
import torch
import torchvision
import transforms
from transforms import arguments, backward, refdcn_op, same, torchvision_op

import refdcn.cpu
from refdcn.torch import accelerate_torchvision, torchvision_is_native

pytestmark = [pytest.mark.filterwarnings(f"ignore:{m}") for m in transforms.TORCHS_OWN]


@pytest.fixture(autouse=True)
def torchvision_before_and_after():
    assert torchvision_is_native()
    yield
    assert torchvision_is_native()


@pytest.mark.parametrize("mask", [True, False])
def test_refdcn_answers_and_agrees_with_torchvision(mask):
    tensors = list(arguments(grad=True))
    if not mask:
        tensors[3] = None
    own_y, own_grads = backward(torchvision_op, tensors)
    wanted = backward(refdcn_op, tensors, 2 * own_y.detach())
    F = mock.patch.object(refdcn.cpu, "forward", wraps=refdcn.cpu.forward)
    B = mock.patch.object(refdcn.cpu, "backward", wraps=refdcn.cpu.backward)
    with accelerate_torchvision(), F as forward, B as backwards:
        assert not torchvision_is_native()
        y, grads = backward(torchvision_op, tensors, 2 * own_y.detach())
        with torch.no_grad():
            assert torch.equal(torchvision_op(*tensors), y)
    assert (forward.call_count, backwards.call_count) == (2, 1)
    assert all(map(torch.equal, (y, *grads), (wanted[0], *wanted[1])))
    same((y, *grads), (own_y, *own_grads))


@pytest.mark.parametrize(
    "name",
    [
        "first derivatives, all five",
        "second derivatives (double backward)",
        "torch.library.opcheck",
        "torch.compile(fullgraph=True), forward and backward",
        "torch.export, batch and size dynamic, trained after it",
        "bfloat16, computed in float32",
        "many Python threads",
    ],
)
def test_supports(name):
    verdict, error = transforms.outcome(name, "accelerated")
    if verdict != "yes":
        raise error


@pytest.mark.parametrize("mask", [True, False])
def test_the_backward_operator_alone(mask):
    """Who calls torchvision's backward directly gets its five tensors."""
    x, offset, weight, m, bias = arguments()
    m = m if mask else x.new_zeros(2, 1)
    y = torchvision_op(x, offset, weight, m if mask else None, bias)
    sizes = (1, 1, 1, 1, 1, 1, 2, 2, mask)
    operator = torch.ops.torchvision._deform_conv2d_backward
    wanted = operator(y, x, weight, offset, m, bias, *sizes)
    B = mock.patch.object(refdcn.cpu, "backward", wraps=refdcn.cpu.backward)
    with accelerate_torchvision(), B as kernel:
        got = operator(y, x, weight, offset, m, bias, *sizes)
        assert kernel.call_count == 1
        torch.library.opcheck(
            operator.default, (y, x, weight, offset, m, bias, *sizes),
            test_utils=("test_schema", "test_faketensor"),
        )  # fmt: skip
    same(got, wanted)


def test_a_model_stays_as_it_is():
    torch.manual_seed(0)
    layer = torchvision.ops.DeformConv2d(4, 4, (2, 3), padding=1, groups=2)
    x, offset, *_ = arguments(torch.float32)
    plain = layer(x, offset)
    with accelerate_torchvision():
        same(layer(x, offset), plain)


def test_in_force_at_once_until_undone():
    acceleration = accelerate_torchvision()
    assert not torchvision_is_native()
    acceleration.undo()
    assert torchvision_is_native()
    acceleration.undo()  # a second time: nothing
    assert torchvision_is_native()


def test_several_at_once():
    first = accelerate_torchvision()
    with accelerate_torchvision():
        first.undo()
        assert not torchvision_is_native()


def test_undone_after_an_error():
    with pytest.raises(ZeroDivisionError), accelerate_torchvision():
        1 / 0  # noqa: B018
    assert torchvision_is_native()


def test_from_many_threads():
    wanted = torchvision_op(*arguments())
    found = []

    def work():
        for _ in range(20):
            with accelerate_torchvision():
                found.append(torchvision_op(*arguments()))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 80
    same(found, [wanted] * 80)


@pytest.mark.parametrize("name", ["deform_conv2d", "_deform_conv2d_backward"])
def test_another_replacement_is_noticed(name):
    other = torch.library.Library("torchvision", "IMPL")
    other.impl(name, lambda *a: a[0], "CPU")
    try:
        assert not torchvision_is_native()
    finally:
        other._destroy()
    assert torchvision_is_native()


def test_func_transforms_are_refused_with_the_way_out():
    tensors = arguments()
    with accelerate_torchvision(), pytest.raises(NotImplementedError, match="refdcn"):
        torch.func.grad(lambda x: torchvision_op(x, *tensors[1:]).sum())(tensors[0])


def test_wrong_sizes_are_named():
    x, offset, weight, *_ = arguments()
    with accelerate_torchvision(), pytest.raises(ValueError, match="offset has shape"):
        torchvision.ops.deform_conv2d(x, offset, weight, padding=2)
