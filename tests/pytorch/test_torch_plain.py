"""plain: back to nn.Conv2d, exactly where offsets are whole numbers."""

import copy
import math

import pytest
import torch
from torch import nn

from refdcn.torch import DeformConv2d, deformable, plain


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def model_of(layer):
    return nn.Sequential(nn.Conv2d(3, layer.in_channels, 1), layer, nn.ReLU()).double()


def set_constant(layer, dp):
    """Offsets that are dp everywhere, and masks that differ by tap."""
    layer.offset.bias.data = dp.reshape(-1).to(layer.offset.bias)
    if layer.mask is not None:
        nn.init.normal_(layer.mask.bias)


def assert_same(model, old, x):
    y, wanted = model(x), old(x)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)


SETTINGS = [
    {"padding": 1},
    {"stride": 2, "padding": (1, 2), "dilation": 2, "groups": 2, "offset_groups": 4},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": 1, "groups": 4, "offset_groups": 2},
    {"kernel_size": (3, 1), "stride": (1, 3), "bias": False, "dilation": (2, 3)},
    {"padding": 1, "padding_mode": "reflect"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's
@pytest.mark.parametrize("modulation", ["sigmoid", "2sigmoid", None])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_exact_for_an_untrained_layer(settings, modulation):
    layer = DeformConv2d(8, 8, **{"kernel_size": 3, **settings}, modulation=modulation)
    model = model_of(layer)
    old, x = copy.deepcopy(model), torch.randn(2, 3, 12, 11).double()
    (found,) = plain(model)
    assert found == ("1", layer.kernel_size, layer.padding, 0.0, None)
    assert type(model[1]) is nn.Conv2d
    assert model[1].dilation == layer.dilation and model[1].stride == layer.stride
    assert (model[1].weight is layer.weight) == (modulation != "sigmoid")
    assert_same(model, old, x)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("modulation", ["2sigmoid", None])
@pytest.mark.parametrize("settings", SETTINGS[:-1], ids=str)
def test_exact_for_taps_moved_by_whole_pixels(settings, modulation, sampled, capsys):
    """Each to a place of its own, those of other offset groups to others."""
    layer = DeformConv2d(8, 8, **{"kernel_size": 3, **settings}, modulation=modulation)
    model = model_of(layer)
    set_constant(layer, torch.randint(-3, 4, layer.offset.bias.shape))
    old = copy.deepcopy(model)
    x = torch.randn(2, 3, 12, 11).double()
    (found,) = plain(model, sample=[x] if sampled else None)
    assert found.moved > 0.5 and found.kernel_size == model[1].kernel_size
    assert found.error is None if not sampled else found.error < 1e-13
    assert ("kernel" in capsys.readouterr().out) == sampled
    assert_same(model, old, x)


def test_taps_that_move_along_the_old_lattice_keep_the_dilation():
    layer = DeformConv2d(4, 4, 3, padding=2, dilation=2, modulation=None)
    dp = torch.zeros(9, 2)
    dp[0, 0] = -2
    set_constant(layer, dp)
    model = model_of(layer)
    old = copy.deepcopy(model)
    plain(model)
    assert model[1].kernel_size == (5, 3) and model[1].dilation == (2, 2)
    assert model[1].padding == (4, 2)
    assert_same(model, old, torch.randn(1, 3, 9, 9).double())


def test_offsets_round_to_the_nearest_pixel():
    layer = DeformConv2d(4, 4, 3, padding=1, modulation=None)
    set_constant(layer, torch.tensor([0.4, -0.6]).repeat(9))
    whole = copy.deepcopy(layer)
    set_constant(whole, torch.tensor([0.0, -1.0]).repeat(9))
    model, old = model_of(layer), model_of(whole)
    old[0].load_state_dict(model[0].state_dict())
    plain(model)
    assert_same(model, old, torch.randn(1, 3, 9, 9).double())


def test_the_mean_is_that_of_the_sample_and_the_error_what_remains(capsys):
    layer = DeformConv2d(4, 4, 3, padding=1, modulation="sigmoid")
    for branch in (layer.offset, layer.mask):
        nn.init.normal_(branch.weight, std=0.05)
    model = model_of(layer).train()
    model[1].offset.train(False)
    old = copy.deepcopy(model)
    sample = [torch.randn(2, 3, 9, 9).double() + 1, torch.randn(1, 3, 7, 8).double()]
    inside = [old[0](x).detach() for x in sample]
    offsets, masks = zip(*(old[1].sampling(x) for x in inside), strict=True)
    dp, dm = (
        torch.cat([t.movedim(1, 0).flatten(1) for t in ts], 1).mean(1)
        for ts in (offsets, masks)
    )
    (found,) = plain(model, "1", (x for x in sample))
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "layer  kernel  moved taps  error",
        f"1      3x3     {found.moved:10.1%}  {found.error:5.1%}",
    ]
    assert not dp.round().any()
    weight = old[1].weight * dm.reshape(3, 3)
    torch.testing.assert_close(model[1].weight, weight, rtol=1e-12, atol=1e-12)
    y = [old[1](x) for x in inside]
    errors = [model[1](x) - wanted for x, wanted in zip(inside, y, strict=True)]
    norms = [
        math.sqrt(sum(float(t.detach().square().sum()) for t in ts))
        for ts in (errors, y)
    ]
    assert found.error == pytest.approx(norms[0] / norms[1], rel=1e-9)
    assert 0 < found.error < 1
    assert model.training and model[1].training  # and the model has no hooks left
    assert not any(m._forward_hooks for m in model.modules())


def test_samples_may_be_tuples_or_dicts_of_arguments(capsys):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = DeformConv2d(2, 2, 3)

        def forward(self, x, scale):
            return self.layer(x[0]) * scale  # without a batch axis

    x = torch.randn(1, 2, 8, 8)
    for sample in ([(x, 2)], [{"x": x, "scale": 2}]):
        (found,) = plain(Two(), sample=sample)
        assert found.error < 1e-6


def test_where_chooses_and_what_a_layer_was_given_is_carried():
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    model[1].register_buffer("scale", torch.ones(1))
    model[1].tag = "mine"
    state = model.state_dict()
    weights = [conv.weight for conv in model]
    deformable(model, "*")
    assert [f.name for f in plain(model, 1)] == ["2"]
    assert [type(m).__name__ for m in model] == ["DeformConv2d"] * 2 + ["Conv2d"]
    assert [f.name for f in plain(model)] == ["0", "1"]
    assert model[1].tag == "mine"
    model.load_state_dict(state)
    assert all(conv.weight is w for conv, w in zip(model, weights, strict=True))
    with pytest.raises(ValueError, match="chooses none of the model's 0 deformable"):
        plain(model)


def test_a_shared_layer_stays_shared():
    layer = DeformConv2d(3, 3, 3)
    model = nn.Sequential(layer, nn.Sequential(layer))
    assert len(plain(model)) == 1
    assert model[0] is model[1][0] and type(model[0]) is nn.Conv2d


def fed():
    class Fed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = DeformConv2d(3, 3, 3)

        def forward(self, x):
            return self.layer(x, x)

    return Fed()


def with_layer(change):
    layer = DeformConv2d(3, 3, 3)
    return nn.Sequential(change(layer) or layer)


def overridden(layer):
    class Own(DeformConv2d):
        def convolve(self, image, offset, mask):
            return super().convolve(image, 2 * offset, mask)

    return Own(3, 3, 3)


REFUSED = {
    "0 was chosen and has hooks": lambda layer: (
        layer.offset.register_forward_hook(print) and None
    ),
    "0 was chosen and is a Own that computes something else": overridden,
    "0 was chosen and is parametrised": nn.utils.parametrizations.spectral_norm,
    "0 was chosen and takes its offsets": lambda layer: DeformConv2d(
        3, 3, 3, branches=False
    ),
    "0 was chosen and takes its offsets, or a feature": lambda layer: DeformConv2d(
        3, 3, 3, feature_channels=5
    ),
    "0 was chosen and is on the meta device": lambda layer: layer.to("meta"),
    "0 was chosen and its offsets or its mask are not fin": lambda layer: (
        nn.init.constant_(layer.offset.bias, math.nan) is None
    ),
    "0 has a branch that is no Branch": lambda layer: setattr(
        layer, "mask", nn.Sequential(nn.Conv2d(3, 9, 3))
    ),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_plain_is_refused_by_name(text):
    model = with_layer(REFUSED[text])
    with pytest.raises(ValueError, match=text):
        plain(model)
    assert isinstance(model[0], DeformConv2d)


def test_what_only_a_sample_shows():
    with pytest.raises(ValueError, match="layer was chosen and takes its offsets"):
        plain(fed(), sample=[torch.randn(1, 3, 5, 5)])
    model = nn.Sequential(nn.Identity())
    model.unused = DeformConv2d(3, 3, 3)
    model.forward = lambda x: x
    with pytest.raises(ValueError, match="unused was chosen and is not reached"):
        plain(model, sample=[torch.randn(1, 3, 5, 5)])
    layer = DeformConv2d(3, 3, 3)
    layer.offset = nn.Sequential(nn.Conv2d(3, 18, 3))
    (found,) = plain(nn.Sequential(layer), sample=[torch.randn(1, 3, 9, 9)])
    assert found.error > 0
    with pytest.raises(ValueError, match="model is itself a DeformConv2d"):
        plain(layer)
