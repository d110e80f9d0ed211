"""torchvision's operator with refdcn's kernels behind it."""

import contextlib
import threading
from typing import Optional
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
    text = "offset has shape"
    with accelerate_torchvision(), pytest.raises(RuntimeError, match=text):
        torchvision.ops.deform_conv2d(x, offset, weight, padding=2)


# --- As torchvision's own users and tests meet the operator --------------------------

raw = torch.ops.torchvision.deform_conv2d
NAMES = "x weight offset mask bias s_h s_w p_h p_w d_h d_w n_weight n_offset use_mask"


def call(**changed):
    """torchvision's raw operator on arguments of which some are changed."""
    x, offset, weight, mask, bias = arguments()
    values = (x, weight, offset, mask, bias, 1, 1, 1, 1, 1, 1, 2, 2, True)
    given = dict(zip(NAMES.split(), values, strict=True))
    assert changed.keys() <= given.keys()
    return raw(*(given | changed).values())


def wrong_calls():
    x, offset, weight, mask, bias = arguments()
    shape = r"{}\.shape\[1\] is not valid: got: {} expected: {}"
    return {
        "weight groups": ({"n_weight": 1}, "n_weight_grps is 1; .* of 2 groups"),
        "offset groups": ({"n_offset": 1}, shape.format("offset", 24, 12)),
        "offset channels": ({"offset": offset[:, :14]}, shape.format("offset", 14, 24)),
        "mask channels": ({"mask": mask[:, :6]}, shape.format("mask", 6, 12)),
        "offset batch": ({"offset": offset[:1]}, "invalid batch size of offset"),
        "mask batch": ({"mask": mask[:1]}, "invalid batch size of mask"),
        "offset size": (
            {"offset": offset[:, :, :3]},
            r"offset output dims: \(3, 5\) - computed output dims: \(5, 5\)",
        ),
        "mask size": ({"mask": mask[..., :2]}, r"mask output dims: \(5, 2\) - comp"),
        "offset dimensions": ({"offset": offset[0]}, "offset has 3 dimensions"),
        "mask dimensions": ({"mask": mask[0]}, "mask has 3 dimensions"),
        "stride": ({"s_h": 0}, r"stride is \(0, 1\); wanted at least 1"),
        "offset dtype": ({"offset": offset.float()}, "offset is float32 and x is fl"),
        "sizes come first": (
            {"offset": offset.float()[:, :14]}, shape.format("offset", 14, 24)
        ),
    }  # fmt: skip


NATIVE_DIFFERS = {
    "stride",
    "weight groups",
    "offset dtype",
}  # a crash; no words; torch's
NATIVE_DIFFERS |= {"offset dimensions", "mask dimensions"}  # a line of its source


@pytest.mark.parametrize("name", wrong_calls())
def test_a_wrong_call_raises_torchvisions_error_in_words_of_both(name):
    changed, text = wrong_calls()[name]
    if name not in NATIVE_DIFFERS:
        with pytest.raises(RuntimeError, match=text):
            call(**changed)
    elif name == "weight groups":
        with pytest.raises(RuntimeError):
            call(**changed)
    with accelerate_torchvision(), pytest.raises(RuntimeError, match=text) as caught:
        call(**changed)
    argument = name.split()[0]
    assert name == "sizes come first" or argument in str(caught.value)


def test_the_functions_own_checks_stay():
    x, offset, weight, *_ = arguments()
    with (
        accelerate_torchvision(),
        pytest.raises(RuntimeError, match="the shape of the"),
    ):
        torchvision.ops.deform_conv2d(x, offset[:, :4], weight, padding=1)


@pytest.mark.parametrize("channels", [0, 1])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_the_gradient_of_an_unused_mask(channels, value):
    """Zeros, whatever it holds."""
    found = []
    for accelerated in (False, True):
        mask = torch.full((2, channels), value).double().requires_grad_()
        x = arguments()[0].requires_grad_()
        with accelerate_torchvision() if accelerated else contextlib.nullcontext():
            y = call(x=x, mask=mask, use_mask=False)
            found.append((y, *torch.autograd.grad(y.square().sum(), (x, mask))))
    assert torch.equal(found[1][2], torch.zeros(2, channels).double())
    same(found[1], found[0])


def called(
    x: torch.Tensor, offset: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
    mask: Optional[torch.Tensor],  # noqa: UP045  (what torch.jit.script reads)
):  # fmt: skip
    return torchvision.ops.deform_conv2d(
        x, offset, weight, bias, (2, 1), (1, 0), (1, 2), mask
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of torchvision's code
@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("batch", [0, 5])
@pytest.mark.parametrize("use_mask", [True, False])
def test_answers_and_gradients_are_torchvisions(contiguous, batch, use_mask):
    """What its own tests check: layouts, empty batches, a layer, gradcheck."""
    rng = torch.Generator().manual_seed(1)

    def normal(*shape):
        t = torch.randn(*shape, generator=rng, dtype=torch.float64)
        if not contiguous and t.ndim == 4:
            t = t.permute(0, 1, 3, 2).contiguous().permute(0, 1, 3, 2)
        return t.requires_grad_()

    # groups 2, offset groups 3; every pair differs, the kernel is even and odd.
    x, weight, bias = normal(batch, 6, 5, 4), normal(2, 3, 3, 2), normal(2)
    offset, mask = normal(batch, 36, 3, 5), normal(batch, 18, 3, 5)
    layer = torchvision.ops.DeformConv2d(
        6, 2, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2
    ).double()
    layer.weight, layer.bias = map(torch.nn.Parameter, (weight.detach(), bias.detach()))
    offset, mask = offset[..., :2], mask[..., :2]
    tensors = [x, offset, weight, *([mask] if use_mask else []), bias]

    def op(x, offset, weight, *rest):
        return torchvision.ops.deform_conv2d(
            x, offset, weight, rest[-1], mask=rest[0] if use_mask else None,
            stride=(2, 1), padding=(1, 0), dilation=(1, 2),
        )  # fmt: skip

    wanted = backward(op, tensors)
    with accelerate_torchvision():
        got = backward(op, tensors, 2 * wanted[0].detach())
        same((got[0], *got[1]), (wanted[0], *wanted[1]))
        same(layer(x, offset, mask if use_mask else None), wanted[0])
        if batch:
            assert torch.autograd.gradcheck(op, tensors, fast_mode=True)
            traced = torch.jit.trace(op, tuple(tensors), check_trace=False)
            same(traced(*tensors), wanted[0])
        given = x, offset, weight, bias, mask if use_mask else None
        scripted = backward(lambda *_: torch.jit.script(called)(*given), tensors)
        same((scripted[0], *scripted[1]), (wanted[0], *wanted[1]))
