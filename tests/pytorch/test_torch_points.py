"""plot.sampling: against the gradient of networks whose weights are all 1."""

import pytest
import torch
import torchvision
from torch import nn

from refdcn import plot
from refdcn.torch import DeformConv2d, accelerate_torchvision
from refdcn.torch.points import _spread, sampling_points

pytest.importorskip("matplotlib")


def ours(offset_groups=1, **options):
    """Offsets that differ from unit to unit, but have no derivative; weights of 1."""
    layer = DeformConv2d(
        offset_groups, offset_groups, (3, 2), padding=(1, 1), bias=False,
        offset_groups=offset_groups, groups=offset_groups, **options,
    ).double()  # fmt: skip
    nn.init.ones_(layer.weight)
    for branch in filter(None, (layer.offset, layer.mask)):
        nn.init.normal_(branch.weight)
        branch.register_forward_hook(lambda m, args, y: y.detach())
    return layer.eval()


class Theirs(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(1, 18, 3, stride=2, padding=1).double()
        self.layer = torchvision.ops.DeformConv2d(1, 1, 3, 2, 1, bias=False).double()
        nn.init.ones_(self.layer.weight)

    def forward(self, x):
        return self.layer(x, 2 * self.offset(x).detach())


NETWORKS = {
    "one": lambda: [ours()],
    "stacked": lambda: [ours(), ours(stride=2), ours(modulation=None, dilation=(1, 2))],
    "torchvision's": lambda: [Theirs(), ours(), Theirs()],
}


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_points_are_what_the_gradient_says(name, accelerated):
    torch.manual_seed(3)
    model = nn.Sequential(*NETWORKS[name]())
    x = torch.randn(1, 1, 14, 17, dtype=torch.float64).requires_grad_()
    acceleration = accelerate_torchvision() if accelerated else None
    try:
        y = model(x)
        unit = y.shape[2] // 2, y.shape[3] // 2
        (wanted,) = torch.autograd.grad(y[0, 0, unit[0], unit[1]], x)
        points, shares, _ = sampling_points(model, x[0], unit)
    finally:
        if acceleration:
            acceleration.undo()
    found = _spread(points, shares, (14, 17))
    assert wanted.count_nonzero() > 8
    assert (found - wanted[0, 0]).abs().max() <= 1e-12 * (1 + wanted.abs().max())


def test_the_mistakes_of_plotters_are_seen():
    """Without p_k, or with the channels read as all dy and then all dx."""
    torch.manual_seed(3)
    model = nn.Sequential(ours())
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    offset = model[0].offset(x)[0, :, 4, 4]
    points, _, place = sampling_points(model, x, (4, 4))
    assert place == (4, 3.5)
    taps = torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0)).double()
    right = taps + torch.tensor([3.0, 3.0]) + offset.view(6, 2)
    assert torch.allclose(points, right)
    assert not torch.allclose(points, 4 + offset.view(6, 2))
    assert not torch.allclose(points, taps + 3 + offset.view(2, 6).T)


def test_several_offset_groups_share_a_unit():
    model, x = ours(offset_groups=2), torch.randn(1, 2, 9, 9, dtype=torch.float64)
    points, shares, _ = sampling_points(model, x, (4, 4))
    assert len(points) == 12
    assert shares.sum() == pytest.approx(
        float(model.sampling(x)[1][..., 4, 4].mean() * 6)
    )


def test_between_layers_of_other_sizes():
    """A pooling by 2 makes a unit two pixels wide, whose centre is between them."""
    model = nn.Sequential(DeformConv2d(1, 1, 1), nn.AvgPool2d(2), DeformConv2d(1, 1, 1))
    points, shares, place = sampling_points(model, torch.rand(1, 8, 12), (1, 4))
    assert place == (2.5, 8.5)
    assert sorted(points.tolist()) == [[2, 8], [2, 9], [3, 8], [3, 9]]
    assert shares.tolist() == pytest.approx([1 / 16] * 4)
    only, _, _ = sampling_points(model, torch.rand(1, 8, 12), (1, 4), layers=["2"])
    assert only.tolist() == [[2.5, 8.5]]


def test_the_picture():
    model, image = nn.Sequential(DeformConv2d(3, 4, 3, padding=1)), torch.rand(3, 9, 7)
    nn.init.constant_(model[0].offset.bias, 0.5)
    (axes,) = plot.sampling(model, image, (4, 3)).axes
    drawn = axes.collections[0].get_offsets()
    points, _, place = sampling_points(model, image, (4, 3))
    assert drawn.tolist() == points.flip(1).tolist()
    assert [line.get_xydata()[0].tolist() for line in axes.lines] == [[3, 4]]
    assert axes.images[0].get_array().shape == (9, 7, 3)
    with pytest.raises(ValueError, match=r"unit is \(9, 0\); .* within \[9, 7\]"):
        plot.sampling(model, image, (9, 0))
    with pytest.raises(ValueError, match=r"layers is \['1'\]; .* are \['0'\]"):
        plot.sampling(model, image, (0, 0), layers=["1"])
    with pytest.raises(ValueError, match="wanted one image"):
        plot.sampling(model, image.expand(2, 3, 9, 7), (0, 0))
