"""One training step with refdcn and with torchvision's operator: the same network."""

import copy

import pytest
import torch
from networks import (
    assert_closer_than_roundings,
    disturbed,
    operator,
    resnet50,
    segmenter,
    torchvision_op,
)  # fmt: skip
from torch.nn import functional

from refdcn.torch import (
    DeformConv2d,
    accelerate_torchvision,
    deform_conv2d,
    torchvision_is_native,
)

MODELS = {"resnet50": (resnet50, 64, ()), "segmenter": (segmenter, 24, (24, 24))}


def step(name, op, seed=None):
    """Loss and weights after one step of stochastic gradient descent, float32."""
    build, size, target_size = MODELS[name]
    model = copy.deepcopy(build())
    rng = torch.Generator().manual_seed(9)
    x = torch.randn(2, 3, size, size, generator=rng)
    classes = torch.randint(0, 4, (2, *target_size), generator=rng)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with operator(op):
        if seed is None:
            loss = functional.cross_entropy(model(x), classes)
        else:
            with disturbed(model, seed):
                loss = functional.cross_entropy(model(x), classes)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        loss.backward()
        optimizer.step()
    for n, m in model.named_modules():
        if isinstance(m, DeformConv2d):  # or the comparison would be of nothing
            assert (m.weight != before[f"{n}.weight"]).any(), n
            assert (m.offset.weight != before[f"{n}.offset.weight"]).any(), n
    return {"loss": loss.detach(), **model.state_dict()}


@pytest.mark.parametrize("name", MODELS)
def test_same_losses_and_weights(name):
    assert torchvision_is_native()
    theirs, ours = step(name, torchvision_op), step(name, deform_conv2d)
    disturbances = [step(name, deform_conv2d, seed) for seed in (1, 2)]
    assert_closer_than_roundings(theirs, ours, disturbances, name)


def test_accelerated_trains_to_the_same_bits():
    got = step("segmenter", deform_conv2d)
    with accelerate_torchvision():
        accelerated = step("segmenter", torchvision_op)
    assert all(torch.equal(accelerated[n], got[n]) for n in got)


def test_a_mistake_is_seen():
    """Offsets read as (x, y) lie outside what roundings do."""
    wanted = step("segmenter", deform_conv2d)
    disturbances = [step("segmenter", deform_conv2d, seed) for seed in (1, 2)]

    def swapped(x, offset, *rest, **windows):
        pairs = offset.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
        return deform_conv2d(x, pairs, *rest, **windows)

    with pytest.raises(AssertionError, match="above"):
        got = step("segmenter", swapped)
        assert_closer_than_roundings(got, wanted, disturbances, "segmenter")
