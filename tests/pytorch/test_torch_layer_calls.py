"""A DeformConv2d that is told its offsets, half layers, and norms on its branches."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from refdcn.torch import DeformConv2d, deform_conv2d


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random(layer, std=0.3):
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=std)
    return layer.eval()  # in training, random branches would be told of


# Two branches, one convolution


def apart(layer, x):
    """What the layer must compute, branch by branch."""
    scale = {"sigmoid": 1, "2sigmoid": 2}[layer.modulation]
    offset, mask = layer.offset(x), scale * torch.sigmoid(layer.mask(x))
    return layer(x, offset=offset, mask=mask)


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("modulation", ["sigmoid", "2sigmoid"])
def test_one_convolution_computes_what_both_branches_do(modulation, mode):
    settings = {"stride": 2, "padding": (2, 1), "padding_mode": mode}
    layer = DeformConv2d(4, 6, 3, offset_groups=2, modulation=modulation, **settings)
    layer = random(layer).double()
    x = torch.randn(2, 4, 7, 8).double()
    assert torch.equal(layer(x), apart(layer, x))  # to be differentiated
    with torch.no_grad():
        assert layer.branches_are_one()
        y = layer(x)
    torch.testing.assert_close(y, apart(layer, x), rtol=1e-12, atol=1e-12)


def watched(layer):
    seen = []
    layer.mask.register_forward_hook(lambda *_: seen.append(1))
    return lambda: seen


def watched_from_everywhere(layer):
    seen = []

    def see(called, *_):
        if called is layer.mask:
            seen.append(1)

    handle = nn.modules.module.register_module_forward_hook(see)
    return lambda: handle.remove() or seen


def normed(layer):
    calls = []
    parametrizations.weight_norm(layer.mask)
    wrap(layer.mask, calls)
    return lambda: calls


def replaced(layer):
    calls = []
    layer.mask = nn.Sequential(layer.mask)
    wrap(layer.mask, calls)
    return lambda: calls


def moved(layer):
    calls = []
    layer.mask.dilation, layer.mask.padding = (2, 2), (2, 2)
    wrap(layer.mask, calls)
    return lambda: calls


def patched(layer):
    calls = []
    wrap(layer.mask, calls)
    return lambda: calls


def wrap(branch, calls):
    old = branch.forward
    branch.forward = lambda x: calls.append(1) or old(x)


@pytest.mark.parametrize(
    "change", [watched, watched_from_everywhere, normed, replaced, moved, patched]
)
def test_a_branch_that_somebody_watches_or_changed_is_called(change):
    layer = random(DeformConv2d(4, 6, 3, padding=1))
    x = torch.randn(2, 4, 7, 8)
    called = change(layer)
    with torch.no_grad():
        y = layer(x)
    assert called() == [1]
    torch.testing.assert_close(y, apart(layer, x))


class Convolutions(TorchFunctionMode):
    """Whose weights are convolved with."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.conv2d or function is nn.functional.conv2d:
            self.weights.append(args[1])
        return function(*args, **(kwargs or {}))


def test_a_mode_that_reads_the_graph_finds_both_branches():
    layer = random(DeformConv2d(4, 6, 3, padding=1))
    with torch.no_grad(), Convolutions() as seen:
        layer(torch.randn(2, 4, 7, 8))
    first, second = seen.weights
    assert first is layer.offset.weight and second is layer.mask.weight


# What the caller gives


@pytest.mark.parametrize("masked", [False, True])
def test_without_branches_it_is_torchvision_s_layer(masked):
    settings = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2, "bias": False}
    mine = DeformConv2d(4, 6, 3, branches=False, **settings).double()
    theirs = torchvision.ops.DeformConv2d(4, 6, 3, **settings).double()
    assert not any(mine.load_state_dict(theirs.state_dict()))
    assert list(mine.state_dict()) == ["weight"]
    x = torch.randn(2, 4, 9, 8).double()
    offset = torch.randn(2, 36, 5, 4).double()
    mask = torch.rand(2, 18, 5, 4).double() if masked else None
    y, wanted = mine(x, offset=offset, mask=mask), theirs(x, offset, mask)
    torch.testing.assert_close(y, wanted, rtol=1e-12, atol=1e-12)
    one = mine(x[0], offset=offset[0], mask=None if mask is None else mask[0])
    assert torch.equal(one, y[0])


def test_a_feature_is_what_the_branches_read():
    """EDVR's layer: C_feature need not be C_in."""
    layer = random(DeformConv2d(4, 6, 3, padding=1, feature_channels=5))
    x, feature = torch.randn(2, 4, 7, 8), torch.randn(2, 5, 7, 8)
    offset, mask = layer.offset(feature), torch.sigmoid(layer.mask(feature))
    wanted = deform_conv2d(x, offset, layer.weight, mask, layer.bias, padding=1)
    torch.testing.assert_close(layer(x, feature), wanted)
    torch.testing.assert_close(layer(x[0], feature[0]), wanted[0])
    same = random(DeformConv2d(4, 6, 3, padding=1))
    assert torch.equal(same(x, x), same(x))
    assert not torch.equal(same(x, x.flip(0)), same(x))


def test_of_offset_and_mask_what_is_given_is_taken_and_the_rest_computed():
    layer = random(DeformConv2d(4, 6, 3, padding=1, modulation="2sigmoid"))
    x = torch.randn(1, 4, 7, 8)
    offset, mask = torch.randn(1, 18, 7, 8), torch.randn(1, 9, 7, 8)
    own = layer.sampling(x)
    for given, used in [
        ({"offset": offset}, (offset, own[1])),
        ({"mask": mask}, (own[0], mask)),
        ({"offset": offset, "mask": mask}, (offset, mask)),
    ]:
        dp, dm = used
        wanted = deform_conv2d(x, dp, layer.weight, dm, layer.bias, padding=1)
        assert torch.equal(layer(x, **given), wanted)
    unmasked = DeformConv2d(4, 6, 3, padding=1, modulation=None)
    assert unmasked(x, offset=offset, mask=mask).shape == (1, 6, 7, 8)


def test_gradients_reach_what_is_given():
    layer = DeformConv2d(2, 3, 3, branches=False).double()
    x = torch.randn(1, 2, 5, 5).double().requires_grad_()
    offset = torch.rand(1, 18, 3, 3).double().requires_grad_()
    mask = torch.rand(1, 9, 3, 3).double().requires_grad_()

    def call(x, offset, mask):
        return layer(x, offset=offset, mask=mask)

    assert torch.autograd.gradcheck(call, (x, offset, mask), fast_mode=True)


X = torch.zeros(1, 4, 5, 5)


@pytest.mark.parametrize(
    "layer, args, kwargs, text",
    [
        ({"branches": False}, (X,), {}, "made with branches=False and computes no"),
        ({"branches": False}, (X, X), {}, "made with branches=False"),
        ({"branches": False}, (X,), {"mask": X}, r"call layer\(x, offset=...\)"),
        ({"feature_channels": 5}, (X,), {}, r"feature is missing: .* read 5 channels"),
        ({"feature_channels": 5}, (X,), {"offset": X}, "feature is missing"),
        ({}, (X, torch.zeros(1, 18, 5, 5)), {},
         r"feature has shape \[1, 18, 5, 5\]; .* C_feature = feature_channels = 4; "
         r"an offset is given by its name, offset="),
        ({}, (X, X[0]), {}, r"feature has shape \[4, 5, 5\]"),
        ({}, (X,), {"offset": X}, "offset has 4 channels"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(layer, args, kwargs, text):
    with pytest.raises(ValueError, match=text):
        DeformConv2d(4, 6, 3, padding=1, **layer)(*args, **kwargs)


def test_repr_says_what_is_not_usual():
    assert "feature_channels=5" in repr(DeformConv2d(4, 6, 3, feature_channels=5))
    assert "branches=False" in repr(DeformConv2d(4, 6, 3, branches=False))
    assert "branches" not in repr(DeformConv2d(4, 6, 3))


def test_compiled_and_exported_with_a_feature():
    layer = random(DeformConv2d(4, 6, 3, padding=1))
    x, feature = torch.randn(2, 1, 4, 7, 8)
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x, feature), layer(x, feature))
    exported = torch.export.export(layer, (x, feature)).module()
    torch.testing.assert_close(exported(x, feature), layer(x, feature))


# A branch of the user's


def test_a_branch_may_be_any_module():
    layer = random(DeformConv2d(4, 6, 3, padding=1))
    layer.offset = nn.Sequential(
        nn.Conv2d(4, 8, 1), nn.ReLU(), nn.Conv2d(8, 18, 3, padding=1)
    )
    layer.mask = nn.AdaptiveAvgPool3d((9, 7, 8))  # without parameters
    x = torch.randn(2, 4, 7, 8)
    offset, mask = layer.offset(x), torch.sigmoid(layer.mask(x))
    wanted = deform_conv2d(x, offset, layer.weight, mask, layer.bias, padding=1)
    assert torch.equal(layer(x), wanted)
    half, wide = copy.deepcopy(layer).bfloat16(), x.bfloat16()
    assert half(wide).dtype == torch.bfloat16


# Half types


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_layer_and_an_image_of_two_dtypes(half):
    """Neither of them is an offset, which the user has not given."""
    name = str(half).removeprefix("torch.")
    layer, x = DeformConv2d(4, 6, 3).to(half), torch.randn(1, 4, 7, 7)
    with pytest.raises(TypeError, match=f"x is .*float32 and .*layer.*{name}"):
        layer(x)
    with pytest.raises(TypeError, match=f"x is .*{name} and .*layer.*float32"):
        layer.float()(x.to(half))


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_float32_branches_in_a_half_layer_keep_the_offsets_digits(half):
    layer = DeformConv2d(2, 3, 3, padding=1).to(half)
    layer.offset.float()
    layer.mask.float()
    nn.init.constant_(layer.offset.bias, 23.03)  # 23.0 in bfloat16
    x = torch.randn(1, 2, 40, 40, dtype=half)
    offset, _ = layer.sampling(x)
    assert offset.dtype == torch.float32
    y = layer(x)
    assert y.dtype == half
    wide = copy.deepcopy(layer).float()
    eps = torch.finfo(half).eps
    torch.testing.assert_close(y.float(), wide(x.float()), rtol=eps, atol=eps)
    y.float().square().sum().backward()
    assert layer.offset.bias.grad.dtype == torch.float32
    assert layer.weight.grad.dtype == half
    assert layer.offset.bias.grad.any() and layer.weight.grad.any()


# Norms on branches that are zero


OLD = "ignore:`torch.nn.utils.weight_norm` is deprecated"


@pytest.mark.filterwarnings(OLD)
@pytest.mark.parametrize(
    "norm",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
    ],
)
@pytest.mark.parametrize("name", ["offset", "mask"])
def test_a_norm_of_zeros_is_refused(norm, name):
    model = nn.Sequential(DeformConv2d(4, 6, 3))
    norm(getattr(model[0], name))
    x = torch.randn(1, 4, 7, 7)
    with pytest.raises(ValueError, match=rf"^0\.{name}: .* is NaN.*0 / 0"):
        model(x)
    layer = DeformConv2d(4, 6, 3)
    norm(layer)
    assert layer(x).isfinite().all()
    nn.init.normal_(layer.offset.weight)
    norm(layer.offset)
    assert layer(x).isfinite().all()


# Initialisers that reach the branches


def test_branches_are_set_to_zero_again():
    plain, x = nn.Conv2d(4, 6, 3), torch.randn(1, 4, 7, 7)
    layer = DeformConv2d(4, 6, 3, modulation="2sigmoid")
    layer.load_state_dict(plain.state_dict())
    for module in layer.modules():
        if isinstance(module, nn.Conv2d) and module is not layer:
            nn.init.kaiming_normal_(module.weight)
    assert not torch.allclose(layer(x), plain(x), atol=1e-3)
    layer.offset.reset_parameters()
    layer.mask.reset_parameters()
    torch.testing.assert_close(layer(x), plain(x))
