"""deformable: which convolutions, and that a trained model stays what it was."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from refdcn.torch import DeformConv2d, OffsetStatistics, deformable, parameter_groups


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ModuleDict({"a": nn.Conv2d(8, 8, 1), "b": nn.Conv2d(8, 8, (3, 3))}),
        nn.Conv2d(8, 4, 5),
        nn.Conv2d(
            4, 4, 3, groups=2, bias=False, padding="same", padding_mode="reflect"
        ),
    )


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (1, ["3"]),
        (3, ["0", "1.b", "3"]),
        ("1.*", ["1.a", "1.b"]),
        ("*", ["0", "1.a", "1.b", "2", "3"]),
        (lambda name, conv: conv.kernel_size == (5, 5), ["2"]),
        (lambda name, conv: name.endswith("b"), ["1.b"]),
    ],
)
def test_where(where, names):
    model = small()
    old = dict(model.named_modules())
    assert deformable(model, where, offset_groups=1) == names
    for name, module in model.named_modules():
        if name in names:
            assert type(module) is DeformConv2d
            assert module.modulation == "2sigmoid"
            assert module.weight is old[name].weight  # optimizers keep it
            assert module.bias is old[name].bias
        elif name in old:
            assert module is old[name]


def test_all_of_a_convolution_is_kept():
    model = small().double().eval()
    model[3].weight.requires_grad_(False)
    plain = copy.deepcopy(model)
    deformable(model, lambda name, conv: name in {"0", "3"})
    for mine, its in ((model[0], plain[0]), (model[3], plain[3])):
        x = torch.randn(2, mine.in_channels, 9, 9, dtype=torch.float64)
        torch.testing.assert_close(mine(x), its(x), rtol=1e-13, atol=1e-13)
    assert not model[3].weight.requires_grad
    assert model[3].offset.weight.requires_grad
    assert model[3].offset.weight.dtype == torch.float64
    assert not model[3].training


def test_a_shared_convolution_stays_shared():
    model = small()
    model.append(model[0])
    assert deformable(model, "0") == ["0"]
    assert model[4] is model[0] and isinstance(model[0], DeformConv2d)


def test_branches_are_not_converted_again():
    model = small()
    deformable(model, "0")
    before = copy.deepcopy(model.state_dict())
    deformable(model, "*")
    assert not any(name.startswith("0.offset.offset") for name in model.state_dict())
    assert before.keys() < model.state_dict().keys()


def test_meta_models_too():
    with torch.device("meta"):
        model = small()
    deformable(model, 1)
    assert model[3].offset.weight.is_meta


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (4, "where is 4; the model has 3 plain 3x3 convolutions"),
        (0, "where is 0"),
        ("layer4.*", r"where is 'layer4\.\*', which chooses none of the model's 5"),
        (lambda name, conv: False, "chooses none"),
    ],
)
def test_where_must_choose(where, text):
    with pytest.raises(ValueError, match=text):
        deformable(small(), where)


def test_refusals_leave_the_model_as_it_was():
    model = small()
    with pytest.raises(TypeError, match="where is None; wanted a pattern"):
        deformable(model, None)
    with pytest.raises(TypeError, match="where is True"):
        deformable(model, True)
    with pytest.raises(ValueError, match="offset_groups is 8; .* in_channels = 3"):
        deformable(model, 3, offset_groups=8)
    with pytest.raises(ValueError, match="modulation is 'relu'"):
        deformable(model, 3, modulation="relu")
    model[3].register_forward_hook(lambda *args: None)
    with pytest.raises(ValueError, match="3 was chosen and has hooks"):
        deformable(model, 3)
    assert not any(isinstance(m, DeformConv2d) for m in model.modules())
    with pytest.raises(ValueError, match="model is itself a convolution"):
        deformable(nn.Conv2d(3, 3, 3), 1)
    with pytest.raises(ValueError, match="none of the model's 0 plain convolutions$"):
        deformable(nn.Sequential(nn.Linear(2, 2)), "*")


def test_what_a_convolution_was_given_goes_with_it():
    model = small()
    conv = model[0]
    conv.register_buffer("scale", torch.ones(2))
    conv.register_buffer("hidden", torch.ones(1), persistent=False)
    conv.register_parameter("gain", nn.Parameter(torch.ones(1)))
    conv.add_module("quantiser", nn.Identity())
    conv.tag = "mine"
    state = model.state_dict()
    deformable(model, "0")
    for name in ("scale", "hidden", "gain", "quantiser", "tag"):
        assert getattr(model[0], name) is getattr(conv, name)
    model.load_state_dict(state)
    assert "0.hidden" not in model.state_dict()
    with pytest.raises(ValueError, match="2 was chosen and has 'offset', which is"):
        model[2].offset = 3
        deformable(model, "2")


def test_subclasses_that_compute_what_a_convolution_does():
    class Named(nn.Conv2d):
        """As libraries have them, to set their own defaults."""

        def __init__(self, *args):
            super().__init__(*args, padding=1)

    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight - self.weight.mean(), self.bias)

    class Inner(nn.Conv2d):
        def _conv_forward(self, *args):
            return super()._conv_forward(*args).relu()

    model = nn.Sequential(
        Named(3, 4, 3), Standardised(4, 4, 3), Inner(4, 4, 3), nn.Conv2d(4, 4, 3)
    )
    model[3].forward = lambda x: x
    x, wanted = torch.randn(1, 3, 9, 9), copy.deepcopy(model[0])
    assert deformable(model, 1) == ["0"]
    torch.testing.assert_close(model[0](x), wanted(x))
    for name, kind in (("1", "Standardised"), ("2", "Inner"), ("3", "Conv2d")):
        text = f"{name} was chosen and is a {kind} with a forward of its own"
        with pytest.raises(ValueError, match=text):
            deformable(model, name)


def test_a_parametrised_convolution_keeps_its_parametrisation():
    """Its estimate of the norm, which each look in training mode changes, too."""
    conv = nn.Conv2d(3, 4, 3)
    nn.utils.parametrizations.spectral_norm(conv)
    model, x = nn.Sequential(conv), torch.randn(1, 3, 9, 9)
    wanted = copy.deepcopy(model).eval()(x)
    parameters = dict(model.named_parameters())
    deformable(model, "0")
    assert model[0].parametrizations.weight[0].training
    torch.testing.assert_close(model.eval()(x), wanted)
    found = dict(model.named_parameters())
    assert all(found[name] is p for name, p in parameters.items())
    assert "0.parametrizations.weight.original" in found
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)))
    text = r"0 was chosen and has hooks \(load_state_dict_pre_hooks\).*convert before"
    with pytest.raises(ValueError, match=text):
        deformable(model, "0")


@pytest.mark.parametrize("container", [list, tuple, lambda m: dict(enumerate(m))])
def test_a_convolution_in_a_python_list_would_stay(container):
    model = small()
    model.order = container([model[0], model[2]])
    with pytest.raises(ValueError, match="0 was chosen and stands in the model.order"):
        deformable(model, "0")
    model.order = None
    model[1].alias = [model[2]]
    with pytest.raises(ValueError, match="2 was chosen and stands in 1.alias too"):
        deformable(model, "2")
    assert not any(isinstance(m, DeformConv2d) for m in model.modules())


def test_convolutions_of_a_branch_are_no_convolutions_of_the_model():
    model = small()
    deformable(model, "0")
    model[0].offset = nn.Sequential(nn.Conv2d(3, 18, 3, padding=1, stride=2))
    assert "0.offset.0" not in deformable(model, "*")


class Pack(nn.Module):
    """torchvision's layer as models have it, with what computes its offsets."""

    def __init__(self, kind, **settings):
        super().__init__()
        self.kind = kind
        settings = {"stride": 2, "padding": 1, "dilation": 1, **settings}
        self.conv = torchvision.ops.DeformConv2d(4, 6, 3, groups=2, **settings)
        channels = 27 if kind in ("one", "tanh", "xy") else 18
        self.steer = nn.Conv2d(4, 2 * channels, 3, bias=kind != "none", **settings)
        if kind in ("two", "doubled"):
            self.modulate = nn.Conv2d(4, 18, 3, **settings)

    def forward(self, x):
        out = self.steer(x)
        if self.kind in ("two", "doubled"):
            scale = 2 if self.kind == "doubled" else 1
            return self.conv(x, out, scale * self.modulate(x).sigmoid())
        if self.kind in ("none", "relu"):
            return (
                self.conv(x, out).relu() if self.kind == "relu" else self.conv(x, out)
            )
        offset, mask = out[:, :36], out[:, 36:]
        if self.kind == "xy":
            offset = offset.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
        return self.conv(
            x, offset, mask.tanh() if self.kind == "tanh" else mask.sigmoid()
        )


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    "kind, modulation",
    [("none", None), ("one", "sigmoid"), ("two", "sigmoid"), ("doubled", "2sigmoid")],
)
def test_torchvision_s_layer_with_the_convolutions_beside_it(kind, modulation, device):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Pack(kind))
    old, random = copy.deepcopy(model), torch.random.get_rng_state()
    pack = model.to(device)[1]
    assert deformable(model, "*.conv") == ["1"]
    assert torch.equal(random, torch.random.get_rng_state())
    layer = model[1]
    assert type(layer) is DeformConv2d and layer.modulation == modulation
    assert layer.offset_groups == 2 and layer.groups == 2
    assert layer.weight is pack.conv.weight
    if kind != "one":  # whose rows are two parameters now
        assert layer.offset.weight is pack.steer.weight
    if device == "cpu":
        x = torch.randn(2, 3, 12, 12)
        torch.testing.assert_close(model(x), old(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["tanh", "relu", "xy", "dilated", "more", "hooked"])
def test_packs_that_are_none_are_refused_by_name(kind):
    model = nn.Sequential(
        Pack("one" if kind in ("dilated", "more", "hooked") else kind)
    )
    if kind == "dilated":
        model[0].steer = nn.Conv2d(4, 54, 3, stride=2, dilation=2, padding=2)
    elif kind == "more":
        model[0].norm = nn.BatchNorm2d(6)
    elif kind == "hooked":
        model[0].steer.register_forward_hook(print)
    before = model[0]
    text = "0 was chosen and has hooks" if kind == "hooked" else "0 has torchvision's"
    with pytest.raises(ValueError, match=text):
        deformable(model, "0.conv")
    assert model[0] is before
    with pytest.raises(ValueError, match="conv is torchvision's DeformConv2d and its"):
        deformable(before, "conv")


def test_sigmoid_halves_and_no_mask_keeps():
    for modulation, scale in (("sigmoid", 0.5), (None, 1.0)):
        model = small()
        plain = copy.deepcopy(model[3])
        deformable(model, "3", modulation=modulation)
        x = torch.randn(1, 4, 6, 6)
        torch.testing.assert_close(model[3](x), scale * plain(x))


def test_resnet50():
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None).eval()
    plain = copy.deepcopy(model)
    names = deformable(model, "layer[34].*.conv2")
    assert len(names) == 9
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        y, wanted = model(x), plain(x)
    # Nine sums of up to 4608 products, in another order.
    assert float((y - wanted).abs().max() / wanted.abs().max()) < 1e-4
    model.load_state_dict(plain.state_dict(), strict=True)
    optimizer = torch.optim.SGD(parameter_groups(model, 0.01), momentum=0.9)
    model.train()
    with OffsetStatistics(model) as statistics:
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), torch.tensor([1, 2])).backward()
            optimizer.step()
    summaries = statistics.summaries()
    assert [*summaries] == names
    assert all(s.max > 0 for s in summaries.values())
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_detector():
    torch.manual_seed(0)
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=96, max_size=128
    ).eval()
    plain = copy.deepcopy(model)
    body = model.backbone.body
    assert deformable(body, 3) == [f"layer4.{i}.conv2" for i in range(3)]
    images = [torch.rand(3, 96, 120), torch.rand(3, 100, 96)]
    with torch.no_grad():
        x = images[0][None]
        features, wanted = model.backbone(x), plain.backbone(x)
        assert all(set(d) == {"boxes", "labels", "scores"} for d in model(images))
    for level, value in wanted.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(features[level], value, rtol=0, atol=1e-5 * scale)
    target = {
        "boxes": torch.tensor([[10.0, 10.0, 60.0, 70.0]]), "labels": torch.tensor([1]),
    }  # fmt: skip
    losses = model.train()(images, [target, target])
    sum(losses.values()).backward()
    grads = [body.layer4[i].conv2.offset.weight.grad for i in range(3)]
    assert all(g is not None and bool(g.isfinite().all()) and g.any() for g in grads)
