"""torch's own tools meet the operator and the layer: storages, tracers, counters."""

import copy
import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torchvision
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from refdcn.torch import (
    DeformConv2d,
    accelerate_torchvision,
    deform_conv2d,
    deform_conv2d_grad,
    deformable,
)

torchvision_op = torchvision.ops.deform_conv2d


def operands(dtype=torch.float32):
    rng = torch.Generator().manual_seed(3)
    sizes = (2, 4, 7, 8), (2, 18, 7, 8), (6, 4, 3, 3), (2, 9, 7, 8), (6,)
    return [torch.randn(s, generator=rng).to(dtype) for s in sizes]


def moved(model, std=0.3):
    """The same model, whose offsets and masks are far from rest."""
    rng = torch.Generator().manual_seed(5)
    for layer in model.modules():
        if isinstance(layer, DeformConv2d):
            for branch in filter(None, (layer.offset, layer.mask)):
                nn.init.normal_(branch.weight, std=std, generator=rng)
    return model


def network(padding=1, **options):
    torch.manual_seed(0)
    layer = DeformConv2d(4, 6, 3, padding=padding, **options)
    return moved(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), layer, nn.ReLU())).eval()


# --- Storages: FSDP2 frees and refills them -----------------------------------------


@pytest.mark.parametrize("groups, C_out", [(1, 6), (4, 4), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("backward", [False, True])
def test_a_call_leaves_storages_resizable(groups, C_out, dtype, backward):
    """Those of its arguments, of y and of the gradients, large or small."""
    for size in (3, 24):
        x, offset, weight, mask, bias = operands(dtype)
        weight, bias = weight[:C_out, : 4 // groups].clone(), bias[:C_out].clone()
        x, offset, mask = (t.repeat(size, 1, 1, 1) for t in (x, offset, mask))
        given = x, offset, weight, mask, bias
        y = deform_conv2d(*given, padding=1)
        made = deform_conv2d_grad(y, *given, padding=1) if backward else (y,)
        for tensor in (*given, *made):
            assert tensor.untyped_storage().resizable()
    assert not x.requires_grad
    weight.untyped_storage().resize_(0)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: torch._neg_view(-t),
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: torch.cat([t, t])[::2],
    ],
)
def test_memory_is_read_as_torch_reads_it(view):
    x, offset, weight, *_ = operands()
    seen = view(x)[: len(x)]
    wanted = deform_conv2d(seen.clone(), offset, weight, padding=1)
    assert torch.equal(deform_conv2d(seen, offset, weight, padding=1), wanted)


FSDP2 = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from refdcn.torch import DeformConv2d

store = dist.FileStore(sys.argv[1], 1)
dist.init_process_group("gloo", store=store, rank=0, world_size=1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 4, 3), DeformConv2d(4, 4, 3), nn.ReLU())
torch.nn.init.normal_(model[1].offset.bias, std=0.5)
x = torch.randn(2, 3, 9, 9)
wanted = model(x).detach()
mesh = init_device_mesh("cpu", (1,))
for layer in model[:2]:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    y = model(x)
    if step == 0:
        assert torch.equal(y, wanted)
    y.square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
assert not torch.equal(model(x), wanted)
dist.destroy_process_group()
"""


def test_fsdp2_trains(tmp_path):
    """One process of gloo: storages are freed and refilled all the same."""
    root = str(Path(__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", FSDP2, str(tmp_path / "store")],
        capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": root},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr


def test_the_layer_on_the_meta_device():
    with torch.device("meta"):
        layer = DeformConv2d(4, 6, 3, padding=1)
        y = layer(torch.empty(2, 4, 7, 8))
    assert (y.shape, y.device.type) == ((2, 6, 7, 8), "meta")


# --- Half types ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_positions_may_be_finer_than_a_half_type(dtype):
    x, offset, weight, mask, bias = operands(dtype)
    offset, mask = offset.float() + 0.013, mask.float() + 1e-4
    y = deform_conv2d(x, offset, weight, mask, bias, padding=1)
    exact = [t.float() for t in (x, offset, weight, mask, bias)]
    assert y.dtype == dtype
    assert torch.equal(y, deform_conv2d(*exact, padding=1).to(dtype))
    rounded = deform_conv2d(x, offset.to(dtype), weight, mask, bias, padding=1)
    assert not torch.equal(y, rounded)
    leaf = offset.requires_grad_()
    deform_conv2d(x, leaf, weight, mask, bias, padding=1).float().sum().backward()
    assert leaf.grad.dtype == torch.float32
    with pytest.raises(TypeError, match="weight is float32 and x is "):
        deform_conv2d(x, offset, weight.float(), mask, bias)
    with pytest.raises(TypeError, match="offset is float64 and x is "):
        deform_conv2d(x, offset.double(), weight, mask, bias, padding=1)


def test_a_half_layer_with_branches_in_float32():
    layer = moved(DeformConv2d(4, 6, 3, padding=1)).bfloat16()
    layer.offset.float(), layer.mask.float()
    x = operands()[0].bfloat16()
    offset, mask = layer.sampling(x)
    assert offset.dtype == mask.dtype == torch.float32
    exact = deform_conv2d(
        x.float(), offset, layer.weight.float(), mask, layer.bias.float(), padding=1
    )
    assert torch.equal(layer(x), exact.bfloat16())


def test_a_half_layer_names_its_own_dtype():
    layer, x = DeformConv2d(4, 6, 3).half(), operands()[0]
    text = r"x is torch.float32 and the layer's weight is torch.float16"
    with pytest.raises(TypeError, match=text):
        layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)


# --- TorchScript --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("modulation, padding", [("sigmoid", 1), (None, "same")])
def test_a_trace_is_saved_and_loaded(modulation, padding):
    model = network(modulation=modulation, padding=padding)
    x, buffer = torch.randn(2, 3, 9, 8), io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), buffer)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)
    for size in ((2, 3, 9, 8), (3, 3, 12, 11)):
        x = torch.randn(size)
        found = []
        for module in (model, loaded):
            module.zero_grad()
            y = module(x)
            y.square().sum().backward()
            found.append([y, *(p.grad for _, p in sorted(module.named_parameters()))])
        assert all(map(torch.equal, *found))


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_script_is_refused_with_the_way_out():
    for module in (DeformConv2d(4, 4, 3), network()):
        with pytest.raises(TypeError, match=r"torch\.jit\.trace"):
            torch.jit.script(module)


# --- FLOPs --------------------------------------------------------------------------


def flops(call, *tensors):
    with FlopCounterMode(display=False) as counter:
        call(*tensors).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("accelerated", [False, True])
def test_flops_are_those_of_a_convolution(accelerated):
    x, offset, weight, mask, bias = (t.requires_grad_() for t in operands())
    wanted = flops(lambda: nn.functional.conv2d(x, weight, bias, padding=1))
    assert wanted == 3 * 2 * (2 * 6 * 7 * 8) * (4 * 9)
    own = flops(lambda: deform_conv2d(x, offset, weight, mask, bias, padding=1))
    assert own == wanted

    def theirs():
        return torchvision_op(x, offset, weight, bias, mask=mask, padding=1)

    if accelerated:
        with accelerate_torchvision():
            assert flops(theirs) == wanted
    else:
        assert flops(theirs) == wanted


def test_flops_of_what_is_needed():
    x, offset, weight, *_ = operands()
    forward = 2 * (2 * 6 * 7 * 8) * (4 * 9)
    for needed, times in (((x,), 2), ((weight,), 2), ((offset, weight), 3)):
        for tensor in needed:
            tensor.requires_grad_()
        counted = flops(lambda: deform_conv2d(x, offset, weight, padding=1))
        assert counted == times * forward
        for tensor in needed:
            tensor.requires_grad_(False)


def test_flops_of_a_layer():
    layer, x = DeformConv2d(4, 6, 3, padding=1), operands()[0].requires_grad_()
    parts = [flops(m, x) for m in (nn.Conv2d(4, 6, 3, padding=1), *layer.children())]
    assert flops(layer, x) == sum(parts)


def test_flops_of_torchvision_whoever_was_first():
    code = """
import refdcn.torch
import torch, torchvision
from torch.utils.flop_counter import FlopCounterMode
layer = torchvision.ops.DeformConv2d(1, 1, 1)
with FlopCounterMode(display=False) as counter:
    layer(torch.ones(1, 1, 2, 2), torch.ones(1, 2, 2, 2))
print(counter.get_total_flops())
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.stdout.split() == ["8"], run.stderr


# --- torch.fx -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    deformable(model, 3)
    return moved(model, 0.02), torch.randn(1, 3, 64, 64)


def test_fx_takes_a_layer_as_one_node(resnet):
    model, x = resnet
    traced = fx.symbolic_trace(model)
    assert torch.equal(traced(x), model(x))
    targets = [n.target for n in traced.graph.nodes if n.op == "call_module"]
    assert "layer4.1.conv2" in targets
    bare = fx.symbolic_trace(nn.Sequential(DeformConv2d(4, 4, 3)))
    assert bare(torch.ones(4, 5, 5)).shape == (4, 3, 3)  # its checks are at work
    with pytest.raises(ValueError, match="in_channels = 4"):
        bare(torch.ones(1, 3, 5, 5))
    with pytest.raises(TypeError, match=r"trace torch\.nn\.Sequential\(layer\)"):
        fx.symbolic_trace(DeformConv2d(4, 4, 3))


def test_feature_extractors(resnet):
    from torchvision.models.feature_extraction import create_feature_extractor

    model, x = resnet
    features = create_feature_extractor(model, {"layer4.1.conv2": "last"})(x)["last"]
    seen = []
    hook = model.layer4[1].conv2.register_forward_hook(lambda *a: seen.append(a[-1]))
    model(x)
    hook.remove()
    assert torch.equal(features, seen[0])


def test_fx_fuses_the_rest(resnet):
    from torch.fx.experimental.optimization import fuse

    model, x = resnet
    wanted = model(x)
    assert (fuse(model)(x) - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_fx_quantisation_leaves_the_layers_whole(resnet):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is on its way out
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        model, x = resnet
        prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
        prepared(x)
        quantised = convert_fx(prepared)
        wanted = model(x)
        assert (quantised(x) - wanted).abs().max() <= 0.2 * wanted.abs().max()
    kept = [m for m in quantised.modules() if isinstance(m, DeformConv2d)]
    assert len(kept) == 3


# --- An initialiser that reaches the branches -----------------------------------------


def initialise(kind, model):
    """Loops that people write."""
    for m in model.modules():
        if kind == "kaiming" and isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
    for p in model.parameters():
        if kind == "xavier" and p.ndim > 1:
            nn.init.xavier_uniform_(p)
        if kind == "data":
            p.data.normal_(0, 0.02)
    for m in model.modules():
        if kind == "new data" and isinstance(m, nn.Conv2d):
            m.weight.data = torch.randn_like(m.weight)


def deep():
    layer = DeformConv2d(4, 4, 3, padding=1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(layer))


@pytest.mark.parametrize("kind", ["kaiming", "xavier", "data", "new data"])
@pytest.mark.parametrize("converted", [True, False])
def test_an_overwritten_start_is_told_once(kind, converted, recwarn):
    if converted:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3)))
        deformable(model, "1.0")
    else:
        model = deep()
    initialise(kind, model)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        model(x)  # a dry run for the sizes says nothing
    model.eval()(x)
    assert not recwarn
    with pytest.warns(UserWarning, match=r"^1\.0: its offset branch .*reset_"):
        model.train()(x)
    recwarn.clear()
    model(x)
    assert not recwarn


@pytest.mark.parametrize("way", ["to_empty", "skip_init", "copy before", "copy after"])
def test_a_start_overwritten_in_a_layer_that_was_moved_or_copied(way):
    model = deep()
    if way == "to_empty":
        model = deep().to("meta").to_empty(device="cpu")
    elif way == "skip_init":
        made = nn.utils.skip_init(DeformConv2d, 4, 4, 3, padding=1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(made))
    elif way == "copy before":
        model = copy.deepcopy(model)
    initialise("kaiming", model)
    if way == "copy after":
        model = copy.deepcopy(model)
    with pytest.warns(UserWarning, match=r"^1\.0: its offset branch"):
        model.train()(torch.randn(1, 3, 8, 8))


def test_no_false_alarm_about_the_start(recwarn):
    """Fresh, mended, loaded, trained, averaged, copied models; a branch set alone."""
    from torch.optim.swa_utils import AveragedModel

    x = torch.randn(1, 3, 8, 8)
    mended, loaded, trained, alone, replaced = (deep() for _ in range(5))
    initialise("kaiming", mended)
    mended[1][0].offset.reset_parameters()
    initialise("kaiming", loaded)
    loaded.load_state_dict(moved(deep()).state_dict())
    nn.init.normal_(alone[1][0].offset.weight)
    replaced[1][0].offset.weight = nn.Parameter(torch.randn(18, 4, 3, 3))
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    average = AveragedModel(trained, multi_avg_fn=None)
    for _ in range(3):
        trained(x).square().sum().backward()
        optimizer.step()
        average.update_parameters(trained)
    average.eval()(x)
    for model in (deep(), mended, loaded, alone, replaced, copy.deepcopy(trained)):
        model.train()(x)
    torch.func.functional_call(deep(), dict(trained.named_parameters()), (x,))
    handed = deep()  # as loaders do that know no load_state_dict
    for name, p in trained.named_parameters():
        owner, _, kind = name.rpartition(".")
        setattr(handed.get_submodule(owner), kind, nn.Parameter(p.detach().clone()))
    handed.train()(x)
    deep().half().float().train()(x)
    assert not recwarn
