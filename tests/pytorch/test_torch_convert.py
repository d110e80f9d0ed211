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
