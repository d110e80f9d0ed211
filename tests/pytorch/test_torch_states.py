"""What a DeformConv2d loads: its own state, a plain convolution's, other libraries'."""

import copy
import io
import re
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from refdcn.torch import DeformConv2d, deformable, load_checkpoint

from bounds import assert_within, bounds
from foreign_layers import CharlesShang, Detectron2, Mmcv
from strategies import Case


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random(module, std=0.3):
    """With parameters that are all random, so that each one counts."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module


def branches(layer):
    return [p for b in (layer.offset, layer.mask) if b for p in b.parameters()]


def keys_of_branches(layer):
    return {k for k in layer.state_dict() if k.startswith(("offset", "mask"))}


PLAIN = {"padding": 1}


def skipped():
    return nn.utils.skip_init(DeformConv2d, 4, 6, 3, modulation="2sigmoid", **PLAIN)


def emptied():
    layer = DeformConv2d(4, 6, 3, modulation="2sigmoid", device="meta", **PLAIN)
    return layer.to_empty(device="cpu")


def trained():
    return random(DeformConv2d(4, 6, 3, modulation="2sigmoid", **PLAIN))


def on_meta():
    return DeformConv2d(4, 6, 3, modulation="2sigmoid", device="meta", **PLAIN)


# A plain convolution's state


@pytest.mark.parametrize("make", [skipped, emptied, on_meta, trained])
@pytest.mark.filterwarnings("ignore:the layer gets the state of a plain")
def test_a_plain_state_makes_the_layer_plain(make):
    plain, x = nn.Conv2d(4, 6, 3, **PLAIN), torch.randn(2, 4, 9, 8)
    layer = make()
    state = plain.state_dict()
    result = layer.load_state_dict(state, assign=make is on_meta)
    assert not result.missing_keys and not result.unexpected_keys
    assert list(state) == ["weight", "bias"]  # what the caller holds is as it was
    assert not any(p.is_meta or p.any() for p in branches(layer))
    torch.testing.assert_close(layer(x), plain(x))


def test_memory_that_torch_leaves_uninitialised_is_zero_in_the_branches():
    """As in nn.utils.skip_init, which calls to_empty; elsewhere nothing changes."""
    layer = DeformConv2d(4, 6, 3, device="meta")
    for parameter in layer.to_empty(device="cpu").parameters():
        if any(parameter is p for p in branches(layer)):
            assert not parameter.any()
    assert all(p.any() for p in branches(random(layer).double().float()))


def test_with_assign_the_branches_have_the_dtype_of_the_state():
    layer = on_meta()
    state = nn.Conv2d(4, 6, 3, dtype=torch.float64).state_dict()
    layer.load_state_dict(state, assign=True)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}


def test_a_trained_layer_says_once_that_its_offsets_go():
    model = nn.ModuleDict({"body": trained()})
    plain = nn.ModuleDict({"body": nn.Conv2d(4, 6, 3, **PLAIN)})
    text = "body gets the state of a plain convolution: its branches.* set to zero"
    with pytest.warns(UserWarning, match=text) as told:
        model.load_state_dict(plain.state_dict())
    assert len(told) == 1
    model.load_state_dict(plain.state_dict())  # nothing goes any more, nothing is said


# Its own


def test_a_state_of_its_own_comes_back():
    a, b = random(DeformConv2d(4, 6, 3)).eval(), DeformConv2d(4, 6, 3)
    b.load_state_dict(a.state_dict())
    x = torch.randn(2, 4, 7, 7)
    assert torch.equal(a(x), b(x))
    assert torch.equal(a(x), copy.deepcopy(b)(x))


@pytest.mark.parametrize(
    "absent", [["mask.weight", "mask.bias"], ["offset.weight"], ["mask.bias"]], ids=str
)
def test_each_key_of_a_branch_that_is_missing_is_named(absent):
    layer = DeformConv2d(4, 6, 3)
    state = {k: v for k, v in layer.state_dict().items() if k not in absent}
    assert DeformConv2d(4, 6, 3).load_state_dict(state, strict=False)[0] == absent
    with pytest.raises(RuntimeError, match=re.escape(absent[-1])):
        DeformConv2d(4, 6, 3).load_state_dict(state)


def test_nothing_at_all_is_all_missing():
    layer = DeformConv2d(4, 6, 3)
    missing, _ = layer.load_state_dict({}, strict=False)
    assert missing == list(layer.state_dict())


@pytest.mark.parametrize(
    "saved, loaded",
    [("sigmoid", "2sigmoid"), ("2sigmoid", "sigmoid"), (None, "sigmoid")],
)
def test_another_modulation_is_an_error(saved, loaded):
    """In a file too, also one that only tensors are read from."""
    a, file = nn.Sequential(DeformConv2d(4, 6, 3, modulation=saved)), io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    b = nn.Sequential(DeformConv2d(4, 6, 3, modulation=loaded))
    text = re.escape(f"0.modulation: the state is of a layer with modulation={saved!r}")
    with pytest.raises(RuntimeError, match=text):
        b.load_state_dict(state, strict=False)
    nn.Sequential(DeformConv2d(4, 6, 3, modulation=saved)).load_state_dict(state)


def test_without_metadata_the_keys_decide():
    """safetensors, for one, keeps tensors alone."""
    a = random(DeformConv2d(4, 6, 3, modulation="2sigmoid"))
    b = DeformConv2d(4, 6, 3, modulation="sigmoid")
    b.load_state_dict(dict(a.state_dict()))
    assert torch.equal(a.mask.weight, b.mask.weight)


# Other libraries'


def assert_computes(layer, pack, x):
    """The layer's own sampling is the pack's, and so is y where both are given it."""
    offset, mask = pack.sampling(x)
    found = layer.sampling(x)
    for mine, theirs in zip(found, (offset, mask), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:  # sums of 36 products, in another order
            torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)
    y = layer(x, offset=offset, mask=mask).detach().numpy()
    wanted = pack(x).detach().numpy()
    arrays = [
        t if t is None else t.detach().numpy()
        for t in (x, offset, layer.weight, mask, layer.bias)
    ]
    window = layer.stride, layer.padding, layer.dilation
    case = Case(*arrays, *window, np.zeros_like(y))
    u, tiny = np.finfo(float).eps / 2, np.finfo(float).tiny
    assert_within(y, wanted, bounds(case, 2 * u, 2 * tiny)[0], "y")
    torch.testing.assert_close(layer(x), pack(x), rtol=1e-11, atol=1e-11)


LAYOUTS = [
    {"offset_groups": 1},
    {"offset_groups": 2, "stride": 2},
    {"offset_groups": 4, "padding": 2, "dilation": 2, "bias": False},
]


@pytest.mark.parametrize("parts, modulation", [(2, None), (3, "sigmoid")])
@pytest.mark.parametrize("settings", LAYOUTS, ids=str)
@pytest.mark.parametrize("library", [Mmcv, CharlesShang, Detectron2])
def test_other_libraries_layers_are_loaded(library, settings, parts, modulation):
    theirs = random(library(4, 6, parts, **settings)).double()
    mine = DeformConv2d(4, 6, 3, modulation=modulation, **{**PLAIN, **settings})
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    if library is Detectron2:
        block = nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 1), "conv2": mine}).double()
        state = theirs.state_dict()
        before = list(state)
        assert not any(load_checkpoint(block, state))
        assert list(state) == before
        theirs, x = theirs.conv2, block["conv1"](x)
    else:
        mine.double().load_state_dict(theirs.state_dict())
    assert_computes(mine, theirs, x)


def test_a_whole_model_of_mmcv_s_packs():
    theirs = nn.Sequential(nn.Conv2d(3, 4, 1), random(Mmcv(4, 4, 3)), nn.ReLU())
    mine = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    deformable(mine, 1, modulation="sigmoid")
    mine.load_state_dict(theirs.state_dict(), assign=True)
    x = torch.randn(1, 3, 9, 9)
    torch.testing.assert_close(mine(x), theirs(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "parts, settings, text",
    [
        (3, {"modulation": "2sigmoid"}, "27 channels and .* not '2sigmoid'"),
        (3, {"modulation": None}, "27 channels and .* with modulation='sigmoid'"),
        (2, {"modulation": "sigmoid"}, "18 channels and .* modulation=None"),
        (
            3,
            {"modulation": "sigmoid", "offset_groups": 2},
            "27 channels and .* 36, or ",
        ),
    ],
)
def test_a_pack_that_does_not_fit_is_refused(parts, settings, text, strict):
    layer = DeformConv2d(4, 6, 3, **settings)
    state = Mmcv(4, 6, parts).state_dict()
    with pytest.raises(RuntimeError, match=f"conv_offset.weight has {text}"):
        layer.load_state_dict(state, strict=strict)


@pytest.mark.parametrize("strict", [True, False])
def test_a_sibling_is_seen_by_load_state_dict_itself(strict):
    block = nn.ModuleDict({"conv1": nn.Conv2d(4, 4, 1), "conv2": DeformConv2d(4, 6, 3)})
    state = Detectron2(4, 6, 3).state_dict()
    text = r"conv2_offset: the offsets of conv2 stand beside it.*load_checkpoint\(model"
    with pytest.raises(RuntimeError, match=text):
        block.load_state_dict(state, strict=strict)


def test_a_sibling_by_another_name():
    block = nn.ModuleDict({"dcn": DeformConv2d(4, 4, 3)})
    offset = nn.Conv2d(4, 27, 3)
    state = {f"dcn.{k}": v for k, v in nn.Conv2d(4, 4, 3).state_dict().items()}
    state |= {f"offset_of_dcn.{k}": v for k, v in offset.state_dict().items()}
    load_checkpoint(block, state, sibling="offset_of_{}")
    assert torch.equal(block["dcn"].offset.weight, offset.weight[:18])
    assert torch.equal(block["dcn"].mask.bias, offset.bias[18:])
    with pytest.raises(ValueError, match="sibling is 'offset'; wanted {}"):
        load_checkpoint(block, state, sibling="offset")


def test_load_checkpoint_keeps_what_load_state_dict_checks():
    model = nn.ModuleDict({"conv2": DeformConv2d(4, 4, 3)})
    other = nn.ModuleDict({"conv2": DeformConv2d(4, 4, 3, modulation="2sigmoid")})
    assert not any(load_checkpoint(model, model.state_dict()))
    with pytest.raises(RuntimeError, match="modulation"):
        load_checkpoint(model, other.state_dict())
    assert load_checkpoint(model, {}, strict=False)[0] == list(model.state_dict())


@pytest.mark.parametrize("key", ["dcn.p_conv.weight", "offset_conv.weight"])
def test_unknown_keys_beside_a_weight_are_not_half_loaded_in_silence(key):
    """Within the layer, or beside it with "offset" in the name."""
    model = nn.ModuleDict({"dcn": random(DeformConv2d(4, 4, 3))})
    before = copy.deepcopy(model["dcn"].offset.weight)
    state = {f"dcn.{k}": v for k, v in nn.Conv2d(4, 4, 3).state_dict().items()}
    state[key] = torch.zeros(18, 4, 3, 3)
    text = f"dcn gets a weight with no dcn.offset.weight.*{re.escape(key)} beside it"
    with pytest.warns(UserWarning, match=text):
        result = model.load_state_dict(state, strict=False)
    wanted = {f"dcn.{k}" for k in keys_of_branches(model["dcn"])}
    assert set(result.missing_keys) == wanted
    assert result.unexpected_keys == [key]
    assert torch.equal(model["dcn"].offset.weight, before)


def test_what_stands_beside_a_whole_state_does_not_matter():
    model = nn.ModuleDict({"conv2": random(DeformConv2d(4, 4, 3))})
    state = model.state_dict() | {"conv2_offset.weight": torch.zeros(27, 4, 3, 3)}
    state["conv2.conv_offset.weight"] = torch.zeros(27, 4, 3, 3)
    before = copy.deepcopy(model["conv2"].offset.weight)
    result = model.load_state_dict(state, strict=False)
    assert not result.missing_keys and len(result.unexpected_keys) == 2
    assert torch.equal(model["conv2"].offset.weight, before)


def test_a_user_s_own_conv_offset_is_left_alone():
    class Own(DeformConv2d):
        def __init__(self):
            super().__init__(4, 4, 3)
            self.conv_offset = nn.Conv2d(4, 27, 3)

    a, b = random(Own()), Own()
    b.load_state_dict(a.state_dict())
    assert torch.equal(a.conv_offset.weight, b.conv_offset.weight)
    assert torch.equal(a.offset.weight, b.offset.weight)


def test_a_branch_of_the_user_s_is_missing_where_it_is():
    """Zeros would mean nothing in a module that is not ours."""
    layer = DeformConv2d(4, 6, 3)
    layer.offset = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 18, 3))
    result = layer.load_state_dict(nn.Conv2d(4, 6, 3).state_dict(), strict=False)
    assert set(result.missing_keys) == {
        f"offset.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")
    }


def test_quantities_that_need_no_warning_give_none():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.Sequential(DeformConv2d(4, 4, 3))
        model.load_state_dict(nn.Sequential(nn.Conv2d(4, 4, 3)).state_dict())
        model.load_state_dict(model.state_dict())


def test_a_norm_that_has_no_place_is_told():
    """detectron2 keeps it inside of conv2, which this layer does not have."""
    layer = DeformConv2d(4, 6, 3, modulation="sigmoid")
    state = {
        "weight": torch.rand(6, 4, 3, 3),
        "bias": torch.rand(6),
        "conv_offset.weight": torch.rand(27, 4, 3, 3),
        "conv_offset.bias": torch.rand(27),
        "norm.weight": torch.ones(6),
    }
    with pytest.warns(UserWarning, match="no part for norm.weight"):
        layer.load_state_dict(state, strict=False)
    assert torch.equal(layer.offset.weight, state["conv_offset.weight"][:18])
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="norm.weight"):
        layer.load_state_dict(state)
