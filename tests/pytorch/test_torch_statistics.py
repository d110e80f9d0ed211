"""OffsetStatistics: offsets of any model's deformable convolutions."""

import itertools
import math

import pytest
import torch
import torchvision
from torch import nn

from refdcn.torch import (
    DeformConv2d,
    OffsetStatistics,
    accelerate_torchvision,
    deform_conv2d,
    deformable,
)
from refdcn.torch.calls import Call


def expected(layer, x):
    """The same statistics, tap by tap."""
    offset = layer.sampling(x)[0].detach()
    size = layer.padded(x).shape[2:]
    pads = layer.padding if layer.padding_mode == "zeros" else (0, 0)
    distances, outside, at_rest = [], [], []
    N, channels, *out = offset.shape
    K = layer.kernel_size
    for n, tap, p in itertools.product(
        range(N), range(channels // 2), itertools.product(*map(range, out))
    ):
        taps = divmod(tap % (K[0] * K[1]), K[1])
        dp = [float(offset[n, 2 * tap + axis, *p]) for axis in (0, 1)]
        rest = [
            layer.stride[a] * p[a] - pads[a] + layer.dilation[a] * taps[a]
            for a in (0, 1)
        ]
        distances.append(math.hypot(*dp))
        for found, move in ((outside, 1), (at_rest, 0)):
            q = [r + move * d for r, d in zip(rest, dp, strict=True)]
            found.append(not all(-1 < c < s for c, s in zip(q, size, strict=True)))
    n = len(distances)
    return sum(distances) / n, max(distances), sum(outside) / n, sum(at_rest) / n


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": 1},
        {"stride": (2, 1), "dilation": (1, 2), "padding": (3, 0), "offset_groups": 2},
        {"padding": (2, 1), "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_statistics_are_those_of_the_taps(settings):
    layer = DeformConv2d(2, 3, (3, 2), **settings)
    nn.init.normal_(layer.offset.weight)
    model = nn.ModuleDict({"body": layer})
    batches = torch.randn(2, 2, 2, 6, 7)
    with OffsetStatistics(model) as statistics:
        for x in batches:
            layer(x)
    layer(10 * batches[0])  # seen no longer
    found = statistics.summaries()["body"]
    assert found == pytest.approx(expected(layer, batches.flatten(0, 1)), rel=1e-5)


def test_exploding_offsets_are_seen():
    layer = DeformConv2d(1, 1, 3, padding=1)
    model, x = nn.Sequential(layer), torch.rand(1, 1, 8, 8)
    with OffsetStatistics(model, max_mean=None, max_outside=None) as statistics:
        model(x)
        calm = statistics.summaries()["0"]
        statistics.reset()
        assert not statistics.summaries()
        nn.init.constant_(layer.offset.bias, 1e6)
        model(x)
        exploded = statistics.summaries()["0"]
        nn.init.constant_(layer.offset.bias, math.nan)
        model(x)
        model(x)
        lost = statistics.summaries()["0"]
    assert calm == (0, 0, calm.outside_at_rest, pytest.approx(1 - (22 / 24) ** 2))
    assert exploded.outside == 1
    assert exploded.mean == pytest.approx(math.sqrt(2) * 1e6)
    assert lost.outside == 1
    assert math.isnan(lost.mean) and math.isnan(lost.max)


@pytest.mark.parametrize("value", [60.0, math.nan])
def test_it_warns_once_past_a_limit(value, recwarn):
    model = nn.Sequential(DeformConv2d(1, 1, 3, padding=1), DeformConv2d(1, 1, 3))
    nn.init.constant_(model[0].offset.bias, value)
    x = torch.rand(1, 1, 8, 8)
    with OffsetStatistics(model):
        with pytest.warns(UserWarning, match=r"^0: mean \|dp\| is .* above 50; .*rate"):
            model(x)
        recwarn.clear()
        model(x)
    assert not recwarn
    nn.init.constant_(model[0].offset.bias, 7.0)
    with OffsetStatistics(model), pytest.warns(UserWarning, match="^0: 8[0-9]% of its"):
        model(x)
    with OffsetStatistics(model, max_mean=9, max_outside=0.9):
        model(x)  # and no warning


def test_padding_alone_is_no_reason_to_warn():
    """A 5x5 kernel on one pixel has 24 of 25 taps outside from the start."""
    model = nn.Sequential(DeformConv2d(1, 1, 5, padding=2))
    with OffsetStatistics(model) as statistics:
        model(torch.rand(1, 1, 1, 1))
    assert statistics.summaries()["0"].outside_at_rest == pytest.approx(0.96)


def test_statistics_change_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), DeformConv2d(4, 4, 3))
    x = torch.randn(2, 1, 6, 6)
    y = model(x)
    with OffsetStatistics(model) as statistics:
        watched = model(x)
    assert torch.equal(y, watched)
    seen = statistics.summaries()
    statistics.close()
    model(x)
    assert statistics.summaries() == seen


class Mixed(nn.Module):
    """Layers of two libraries and a bare call."""

    def __init__(self):
        super().__init__()
        self.conv_offset = nn.Conv2d(4, 18, 3, padding=1)
        self.theirs = torchvision.ops.DeformConv2d(4, 4, 3, padding=1)
        self.ours = nn.Sequential(DeformConv2d(4, 4, 3, padding=1))
        self.plain = nn.Conv2d(4, 4, 3, padding=1)
        nn.init.constant_(self.ours[0].offset.bias, 0.25)

    def forward(self, x):
        offset = self.conv_offset(x)
        x = self.plain(self.ours(self.theirs(x, offset)))
        op = torchvision.ops.deform_conv2d
        return op(x, 2 * offset, self.plain.weight, padding=1)


@pytest.mark.parametrize("accelerated", [False, True])
def test_every_library_s_layers_and_bare_calls(accelerated):
    model, x = Mixed(), torch.randn(2, 4, 9, 8)
    acceleration = accelerate_torchvision() if accelerated else None
    try:
        with OffsetStatistics(model) as statistics:
            model(x)
            deformable(model, "plain")  # after the watch began
            model(x)
            deform_conv2d(x, torch.full((2, 18, 7, 6), 1.5), torch.ones(4, 4, 3, 3))
            Mixed()(x)  # of no interest
    finally:
        if acceleration:
            acceleration.undo()
    found = statistics.summaries()
    assert [*found] == ["theirs", "ours.0", "Mixed", "plain", "deform_conv2d"]
    pairs = model.conv_offset(x).detach().unflatten(1, (-1, 2))
    mean = pairs.square().sum(2).sqrt().mean().item()
    assert found["theirs"].mean == pytest.approx(mean, rel=1e-5)
    assert found["Mixed"].mean == pytest.approx(2 * mean, rel=1e-5)
    assert found["ours.0"].max == pytest.approx(math.hypot(0.25, 0.25))
    assert found["deform_conv2d"].mean == pytest.approx(math.hypot(1.5, 1.5))
    scalars = statistics.scalars("dcn/")
    assert scalars["dcn/theirs/mean"] == found["theirs"].mean
    assert len(scalars) == 4 * len(found)


def test_a_layer_that_is_the_model_has_its_class_for_a_name():
    layer = DeformConv2d(1, 1, 3)
    with OffsetStatistics(layer) as statistics:
        layer(torch.rand(1, 1, 4, 4))
    assert [*statistics.summaries()] == ["DeformConv2d"]


def test_a_model_without_any_says_so():
    with OffsetStatistics(nn.Linear(1, 1)) as statistics:
        pass
    assert str(statistics) == "no deformable convolution was called"


def test_derivatives_of_higher_order_are_no_calls():
    """Their sums sample at offsets that nobody computed."""
    layer = DeformConv2d(1, 1, 3).double()
    nn.init.constant_(layer.offset.bias, 0.25)
    x = torch.rand(1, 1, 5, 5).double().requires_grad_()
    with OffsetStatistics(layer) as statistics:
        (grad,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        grad.square().sum().backward()
    found = statistics.summaries()
    assert [*found] == ["DeformConv2d"]
    assert found["DeformConv2d"].max == pytest.approx(math.hypot(0.25, 0.25))


@pytest.mark.parametrize("way", ["vmap", "autocast", "compile", "checkpoint"])
def test_it_sees_through(way):
    model = nn.Sequential(DeformConv2d(2, 2, 3, padding=1))
    nn.init.constant_(model[0].offset.bias, 0.5)
    x = torch.randn(3, 2, 6, 5)
    with OffsetStatistics(model) as statistics:
        if way == "vmap":
            torch.func.vmap(lambda x: model(x[None])[0])(x)
        elif way == "autocast":
            with torch.autocast("cpu", torch.bfloat16):
                model(x)
        elif way == "compile":  # which torch runs uncompiled meanwhile
            torch.compile(model, backend="aot_eager")(x)
        else:
            again = torch.utils.checkpoint.checkpoint
            again(model, x.requires_grad_(), use_reentrant=False).sum().backward()
    found = statistics.summaries()
    assert found["0"].mean == pytest.approx(math.hypot(0.5, 0.5))
    assert len(found) == 1


class ModulatedDeformConv2d(nn.Module):
    """What mmcv's layer has for others to see: attributes, two or three arguments."""

    def __init__(self):
        super().__init__()
        self.kernel_size = self.stride = self.padding = self.dilation = (1, 1)
        self.kernel_size, self.deform_groups = (3, 3), 2

    def forward(self, x, offset, mask):
        return x


class ModulatedDeformConv2dPack(ModulatedDeformConv2d):
    """And its pack: offsets first, then masks, from one convolution."""

    def __init__(self):
        super().__init__()
        self.conv_offset = nn.Conv2d(4, 54, 3, padding=1)
        nn.init.zeros_(self.conv_offset.weight)
        with torch.no_grad():
            self.conv_offset.bias[:36], self.conv_offset.bias[36:] = 0.5, 100.0

    def forward(self, x):
        first, second, mask = self.conv_offset(x).chunk(3, 1)
        return super().forward(x, torch.cat([first, second], 1), mask.sigmoid())


ModulatedDeformConv2d.__module__ = "mmcv.ops.modulated_deform_conv"
ModulatedDeformConv2dPack.__module__ = "mmcv.ops.modulated_deform_conv"


def test_mmcvs_layers():
    """torch does not see their operators: their offsets are seen on the way there."""
    layer, pack = ModulatedDeformConv2d(), ModulatedDeformConv2dPack()
    model, x = nn.ModuleDict({"layer": layer, "pack": pack}), torch.randn(2, 4, 6, 5)
    with OffsetStatistics(model) as statistics:
        layer(x, torch.full((2, 36, 6, 5), 2.0), None)
        pack(x)
    layer(x, torch.full((2, 36, 6, 5), 2.0), None)
    found = statistics.summaries()
    assert found["layer"].mean == pytest.approx(math.hypot(2, 2))
    assert found["pack"].max == pytest.approx(math.hypot(0.5, 0.5))
    assert found["pack"].outside_at_rest == pytest.approx(1 - (16 / 18) * (13 / 15))


def test_positions_are_the_formula_s():
    call = Call((9, 9), (2, 3), stride=(2, 1), padding=(1, 2), dilation=(3, 1))
    q = call.grid((4, 5))
    assert q.shape == (6, 2, 4, 5)
    # Tap (1, 2) of output (3, 4): stride * p - padding + dilation * (i, j).
    assert q[5, :, 3, 4].tolist() == [2 * 3 - 1 + 3 * 1, 4 - 2 + 2]
