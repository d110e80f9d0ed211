"""DeformConv2d, the learning rates of its branches, and what its taps do."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import refdcn.torch
from refdcn.torch import DeformConv2d, parameter_groups


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


START = {"sigmoid": 0.5, "2sigmoid": 1.0, None: 1.0}


def dot_bound(terms, sums):
    """gamma_n * sum |a| |b|, twice: two sums of n products, each with its rounding.

    A sample at an integer position is exact, and so is the mask of 1 or 0.5.
    """
    u = torch.finfo(sums.dtype).eps / 2
    n = terms + 1  # the bias
    return 2 * n * u / (1 - n * u) * sums


def assert_conv(layer, plain, x, scale):
    """layer(x) is scale * (plain(x) - b) + b within the bound."""
    wanted, terms = plain(x), plain.weight[0].numel()
    b = 0 if plain.bias is None else plain.bias[:, None, None]
    wanted = scale * (wanted - b) + b
    absolute = copy.deepcopy(plain)
    for parameter in absolute.parameters():
        parameter.data.abs_()
    # scale * (y - b) + b adds two roundings to plain's own.
    bound = dot_bound(terms + 2, absolute(x.abs()))
    assert bool(((layer(x) - wanted).abs() <= bound).all())


def sampler(offset, mask=0.0, **kwargs):
    """A layer with one 1x1 tap of weight 1, moved by constant offsets."""
    layer = DeformConv2d(1, 1, 1, bias=False, **kwargs)
    nn.init.ones_(layer.weight)
    layer.offset.bias.data = torch.tensor(offset)
    if layer.mask is not None:
        nn.init.constant_(layer.mask.bias, mask)
    return layer


SETTINGS = [
    {},
    {"padding": 1, "bias": False},
    {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
    {"kernel_size": (2, 4), "padding": "same"},
    {"kernel_size": (3, 2), "padding": "valid", "groups": 2},
    {"padding": 2, "groups": 4, "offset_groups": 2},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": (1, 2), "padding_mode": "circular", "stride": 2},
    {"kernel_size": 2, "padding": "same", "padding_mode": "replicate"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch's
@pytest.mark.parametrize("modulation", START)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_plain_state_loads_and_starts_as_the_paper_says(settings, modulation, dtype):
    settings = {"kernel_size": 3, "dtype": dtype, **settings}
    layer = DeformConv2d(4, 8, modulation=modulation, **settings)
    settings.pop("offset_groups", None)
    plain = nn.Conv2d(4, 8, **settings)
    result = layer.load_state_dict(plain.state_dict(), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    x = torch.randn(3, 4, 9, 8, dtype=dtype)
    offset, mask = layer.sampling(x)
    assert not offset.any()
    assert mask is None or bool((mask == START[modulation]).all())
    assert_conv(layer, plain, x, START[modulation])
    assert_conv(layer, plain, x[0], START[modulation])  # no batch axis


def test_the_same_seed_gives_a_plain_convolution_s_weights():
    torch.manual_seed(3)
    plain = nn.Conv2d(4, 6, 3)
    torch.manual_seed(3)
    layer = DeformConv2d(4, 6, 3)
    assert torch.equal(layer.weight, plain.weight)
    assert torch.equal(layer.bias, plain.bias)


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_state():
    layer = DeformConv2d(2, 3, 3)
    assert list(layer.state_dict()) == [
        "weight", "bias", "offset.weight", "offset.bias", "mask.weight", "mask.bias",
    ]  # fmt: skip
    assert list(DeformConv2d(2, 3, 3, modulation=None).state_dict())[2:] == [
        "offset.weight", "offset.bias",
    ]  # fmt: skip
    other = DeformConv2d(2, 3, 3)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    layer.load_state_dict(other.state_dict())
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(layer(x), other(x))
    assert torch.equal(copy.deepcopy(layer)(x), other(x))


def test_reset_parameters_starts_the_branches_at_zero_again():
    layer = DeformConv2d(2, 3, 3)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
    layer.apply(lambda module: module.reset_parameters())
    assert layer.weight.std() > 0
    assert not any(p.any() for b in (layer.offset, layer.mask) for p in b.parameters())


def test_samples_where_the_offsets_say():
    x = torch.arange(20.0).reshape(1, 1, 4, 5)
    y = sampler([0.5, 0.0], mask=40.0)(x)  # half a row down: the mean of two rows
    assert torch.equal(y[0, 0, :3], (x[0, 0, :3] + x[0, 0, 1:]) / 2)
    assert torch.equal(y[0, 0, 3], x[0, 0, 3] / 2)  # beyond the last row is zero
    y = sampler([0.0, 1.0], modulation=None)(x)  # one column to the right
    assert torch.equal(y[..., :4], x[..., 1:])
    assert not y[..., 4].any()
    y = sampler([0.0, 0.0], mask=-math.log(3), modulation="2sigmoid")(x)
    torch.testing.assert_close(y, x / 2)  # 2 * sigmoid(-log 3) = 1/2


def test_the_branches_read_the_input():
    layer = DeformConv2d(1, 1, 3, padding=1, modulation=None)
    nn.init.normal_(layer.offset.weight)
    x = torch.randn(2, 1, 7, 7)
    offset = functional.conv2d(x, layer.offset.weight, layer.offset.bias, padding=1)
    y = refdcn.torch.deform_conv2d(x, offset, layer.weight, None, layer.bias, padding=1)
    assert torch.equal(layer(x), y)


def test_a_padded_image_is_what_is_sampled():
    layer = DeformConv2d(1, 1, 1, padding=1, padding_mode="replicate", modulation=None)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    layer.offset.bias.data = torch.tensor([-1.0, 0.0])
    y = layer(torch.ones(1, 1, 3, 3))
    assert not y[0, 0, 0].any()  # row -1 of the padded image
    assert bool((y[0, 0, 1:] == 1).all())  # the padding, then the image


@pytest.mark.filterwarnings("ignore:.*random weights")
def test_every_parameter_gets_its_gradient():
    layer = DeformConv2d(2, 3, 3, padding=1, offset_groups=2).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def call(x, *values):
        state = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, state, x)

    assert torch.autograd.gradcheck(call, (x, *values), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    layer = DeformConv2d(2, 3, 3, padding=1, dtype=dtype, modulation="2sigmoid")
    x = torch.randn(1, 2, 6, 6, dtype=dtype)
    wide = copy.deepcopy(layer).float()
    torch.testing.assert_close(layer(x).float(), wide(x.float()), atol=0.02, rtol=0.02)


def test_under_autocast_offsets_keep_their_digits():
    layer = DeformConv2d(2, 3, 3, padding=1)
    nn.init.constant_(layer.offset.bias, 10.03)  # bfloat16 would say 10.0
    x = torch.randn(1, 2, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        offset, _ = layer.sampling(x.bfloat16())
        y = nn.Sequential(nn.Conv2d(2, 2, 1), layer)(x)
    assert offset.dtype == torch.float32
    assert bool((offset == torch.tensor(10.03)).all())
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"modulation": "tanh"}, ValueError, "modulation is 'tanh'; wanted 'sigmoid'"),
        ({"offset_groups": 3}, ValueError, "offset_groups is 3; wanted a divisor of "
         "in_channels = 4"),
        ({"offset_groups": 0}, ValueError, "offset_groups is 0"),
        ({"offset_groups": 2.0}, TypeError, "offset_groups is 2.0, a float"),
        ({"feature_channels": 0}, ValueError, "feature_channels is 0; wanted the"),
        ({"groups": 3}, ValueError, "in_channels must be divisible by groups"),
        ({"padding_mode": "ones"}, ValueError, "padding_mode"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(settings, error, text):
    with pytest.raises(error, match=text):
        DeformConv2d(4, 6, 3, **settings)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"x has shape \[1, 3, 5, 5\]; .* = 4"):
        DeformConv2d(4, 6, 3)(torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match=r"x has shape \[5, 5\]"):
        DeformConv2d(4, 6, 3)(torch.zeros(5, 5))
    with pytest.raises(TypeError, match="x is torch.float32 and the layer's weight"):
        DeformConv2d(4, 6, 3).double()(torch.zeros(1, 4, 5, 5))


def test_repr_says_all():
    text = repr(DeformConv2d(4, 6, 3, padding=1, offset_groups=2, modulation=None))
    assert "padding=(1, 1), offset_groups=2, modulation=None" in text


# parameter_groups


def network():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), DeformConv2d(4, 4, 3), nn.Flatten(),
        nn.Linear(16, 2),
    )  # fmt: skip
    for branch in (model[2].offset, model[2].mask):
        nn.init.normal_(branch.weight, std=0.2)
        nn.init.uniform_(branch.bias)  # off the kinks
    return model


def backward(model):
    torch.manual_seed(0)
    model(torch.randn(3, 1, 6, 6)).square().sum().backward()


def step(model, optimizer):
    """Sizes of the step, and of the gradient, of every parameter."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    backward(model)
    optimizer.step()
    return {n: (p.detach() - before[n], p.grad) for n, p in model.named_parameters()}


@pytest.mark.parametrize(("offset_lr", "branch_lr"), [(None, 0.01), (0.03, 0.03)])
def test_branches_learn_at_their_rate(offset_lr, branch_lr):
    model = network()
    steps = step(model, torch.optim.SGD(parameter_groups(model, 0.1, offset_lr)))
    for name, (moved, grad) in steps.items():
        lr = branch_lr if name.startswith(("2.offset", "2.mask")) else 0.1
        torch.testing.assert_close(moved, -lr * grad, atol=1e-6, rtol=1e-4)
        assert grad.any()


def test_adam_too():
    model = network()
    steps = step(model, torch.optim.Adam(parameter_groups(model, 0.1), eps=1e-30))
    for name, (moved, grad) in steps.items():  # its first step is lr * sign
        lr = 0.01 if name.startswith(("2.offset", "2.mask")) else 0.1
        assert torch.allclose(moved, -lr * grad.sign(), atol=1e-6)


def test_a_hook_that_drops_its_result_scales_nothing():
    """What a popular port does: the scaled gradients are built and not returned."""

    def scale(module, grad_input, grad_output):
        grad_input = (0.1 * g for g in grad_input)  # noqa: F841

    model = network()
    hooked = copy.deepcopy(model)
    hooked[2].offset.register_full_backward_hook(scale)
    backward(model)
    backward(hooked)
    pairs = zip(model.parameters(), hooked.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_scaled_gradients_are_undone_by_adam():
    model = network()
    model[2].offset.weight.register_hook(lambda grad: 0.1 * grad)  # this one does scale
    steps = step(model, torch.optim.Adam(model.parameters(), lr=0.1, eps=1e-30))
    moved, grad = steps["2.offset.weight"]
    assert torch.allclose(moved, -0.1 * grad.sign(), atol=1e-6)


def test_every_parameter_is_in_one_group():
    model = nn.ModuleList([network(), nn.Linear(2, 2)])
    model.append(model[0])  # shared
    groups = parameter_groups(model, 1.0)
    counts = [len(group["params"]) for group in groups]
    assert counts == [8, 4]
    ids = {id(p) for group in groups for p in group["params"]}
    assert ids == {id(p) for p in model.parameters()}
    plain = parameter_groups(nn.Linear(2, 2), 1.0)
    assert [len(group["params"]) for group in plain] == [2, 0]
    torch.optim.Adam(plain)


def names(model, groups):
    """Of the parameters in each group."""
    found = {id(p): name for name, p in model.named_parameters()}
    return {g["name"]: [found[id(p)] for p in g["params"]] for g in groups}


def test_norms_and_biases_without_weight_decay():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), DeformConv2d(4, 4, 3),
        nn.LayerNorm([4, 2, 2]),
    )  # fmt: skip
    groups = parameter_groups(model, 0.1, weight_decay=0.05)
    assert names(model, groups) == {
        "main": ["0.weight", "2.weight"],
        "branches": ["2.offset.weight", "2.mask.weight"],
        "main_no_decay": [
            "0.bias", "1.weight", "1.bias", "2.bias", "3.weight", "3.bias",
        ],
        "branches_no_decay": ["2.offset.bias", "2.mask.bias"],
    }  # fmt: skip
    assert [g["weight_decay"] for g in groups] == [0.05, 0.05, 0.0, 0.0]
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.01, 0.1, 0.01])
    torch.optim.AdamW(groups)
    assert all("weight_decay" not in g for g in parameter_groups(model, 0.1))


def test_other_layers_branches_by_the_names_of_their_parameters():
    model = nn.ModuleDict({"dcn": nn.ModuleDict({"conv_offset": nn.Conv2d(2, 27, 3)})})
    model["body"] = DeformConv2d(2, 2, 3, modulation=None)
    groups = parameter_groups(model, 1.0, branches="*conv_offset.*")
    assert names(model, groups) == {
        "main": ["body.weight", "body.bias"],
        "branches": [
            "dcn.conv_offset.weight", "dcn.conv_offset.bias", "body.offset.weight",
            "body.offset.bias",
        ],
    }  # fmt: skip
    with pytest.raises(ValueError, match="pattern 'conv_offset', which fits none of"):
        parameter_groups(model, 1.0, branches=["*conv_offset.*", "conv_offset"])


def test_frozen_parameters_are_left_out_and_a_user_s_branch_is_found():
    model = network()
    model[0].requires_grad_(False)
    model[2].mask.requires_grad_(False)
    model[2].offset = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 18, 3))
    found = names(model, parameter_groups(model, 1.0))
    assert found["main"] == ["2.weight", "2.bias", "4.weight", "4.bias"]
    assert found["branches"] == [
        f"2.offset.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    ]
    told = DeformConv2d(2, 2, 3, branches=False)
    assert names(told, parameter_groups(told, 1.0))["branches"] == []


def test_one_cycle_with_a_maximum_for_each_group():
    """A single max_lr would give the branches the rate of the rest."""
    model = network()
    groups = parameter_groups(model, 0.1, weight_decay=1e-4)
    optimizer = torch.optim.SGD(groups)
    maximal = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, maximal, total_steps=5)
    for _ in range(4):
        main, branches, *_ = (group["lr"] for group in optimizer.param_groups)
        assert branches == pytest.approx(0.1 * main)
        optimizer.step()
        schedule.step()


def test_the_keys_for_mmengine_name_the_branches():
    """A key there means the parameters whose name, behind a dot, contains it."""
    page = Path(__file__).parents[2] / "docs" / "layer.md"
    (block,) = re.findall(r"```python\n(optim_wrapper.*?)```", page.read_text(), re.S)
    found: dict = {}
    exec(block, found)
    keys = found["optim_wrapper"]["paramwise_cfg"]["custom_keys"]
    assert all(key == {"lr_mult": 0.1} for key in keys.values())
    model = nn.ModuleDict({"body": network()})
    groups = names(model, parameter_groups(model, 1.0))
    fit = [n for n, _ in model.named_parameters() if any(k in f".{n}" for k in keys)]
    assert fit == groups["branches"]


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["lr", "offset_lr", "weight_decay"])
def test_rates_are_checked(name, bad):
    with pytest.raises(ValueError, match=f"^{name} is {bad}"):
        parameter_groups(network(), **{"lr": 0.1, "offset_lr": 0.1, name: bad})
