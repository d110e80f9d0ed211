"""How a deformable layer gets on with other tools: each row a check that is run.

    python tests/support/tools_table.py          writes the table of docs/tools.md anew
    python tests/support/tools_table.py --print  shows the page as it would be

A row has the tool as its users call it, and where that fails a recipe. What the table
says of each is what happened: it works, raises, or computes something else in silence.
"""

import copy
import io
import subprocess
import sys
import tempfile
import warnings
from functools import cache, partial
from pathlib import Path

import torch
import torchvision
from torch import fx, nn
from torch.nn.utils import fuse_conv_bn_eval, parametrizations

from refdcn.torch import DeformConv2d, deformable, parameter_groups
from refdcn.torch.pruning import pruning_arguments

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tools.md"
BEGIN, END = "<!-- tools: begin -->", "<!-- tools: end -->"


def moved(model):
    """Offsets and masks far from rest, as after training."""
    rng = torch.Generator().manual_seed(5)
    for layer in model.modules():
        if isinstance(layer, DeformConv2d):
            for branch in filter(None, (layer.offset, layer.mask)):
                nn.init.normal_(branch.weight, std=0.1, generator=rng)
    return model


def network():
    torch.manual_seed(0)
    layer = DeformConv2d(8, 12, 3, padding=1)
    bn = nn.BatchNorm2d(12)
    nn.init.normal_(bn.running_mean), nn.init.uniform_(bn.running_var, 0.5, 2)
    parts = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), layer, bn, nn.ReLU()
    return moved(nn.Sequential(*parts, nn.Conv2d(12, 6, 3))).eval()


def image(*size):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(*(size or (2, 3, 10, 9)), generator=rng)


def same(got, wanted, share=1e-5):
    assert got.shape == wanted.shape
    assert bool((got - wanted).abs().max() <= share * wanted.abs().max())


ROWS = {}


class Row:
    """As the tool's users call it, the recipe where that fails, and the words."""

    def __init__(self, words, needs):
        self.words, self.needs, self.recipe = words, needs, None

    def __call__(self, check):
        self.as_is = check
        return self

    def with_recipe(self, check):
        self.recipe = check
        return check


def row(name, words="", needs=None):
    ROWS[name] = Row(words, needs)
    return ROWS[name]


# --- Fusing, initialising, adapting --------------------------------------------------


@row("torch.nn.utils.fuse_conv_bn_eval")
def fuse():
    model, x = network(), image()
    fused = fuse_conv_bn_eval(model[2], model[3])
    same(fused(model[:2](x)), model[:4](x))


@row(
    "torch.fx: symbolic_trace, experimental.optimization.fuse",
    "the layer is one node; a layer that is itself the model: wrap it in nn.Sequential",
)
def trace_fx():
    model, x = network(), image()
    same(fx.symbolic_trace(model)(x), model(x), 0)
    from torch.fx.experimental.optimization import fuse

    same(fuse(model)(x), model(x))


def rebuilt(conv, bn):
    """A fuse that builds a new nn.Conv2d, as YOLOv5's does."""
    new = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
        conv.padding, groups=conv.groups, bias=True,
    )  # fmt: skip
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()
    new.weight.data = conv.weight * scale[:, None, None, None]
    new.bias.data = (conv.bias - bn.running_mean) * scale + bn.bias
    return new


@row(
    "YOLOv5's fuse, which builds a new nn.Conv2d",
    "the offsets are lost; fuse with `torch.nn.utils.fuse_conv_bn_eval`",
)
def yolov5():
    model, x = network(), image()
    same(rebuilt(model[2], model[3])(model[:2](x)), model[:4](x))


ROWS["YOLOv5's fuse, which builds a new nn.Conv2d"].with_recipe(fuse.as_is)


def kaiming(model):
    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight)


def starts_at_zero(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.train()(image())
    assert not model[2].offset.weight.any()


@row(
    "initialisers of every nn.Conv2d",
    "told by a warning when training starts; convert after them, or call "
    "`reset_parameters()` of `layer.offset` and `layer.mask`",
)
def initialisers():
    model = network()
    model[2] = DeformConv2d(8, 12, 3, padding=1)
    kaiming(model)
    starts_at_zero(model)


@ROWS["initialisers of every nn.Conv2d"].with_recipe
def initialisers_first(initialise=kaiming):
    model = network()
    model[2] = nn.Conv2d(8, 12, 3, padding=1)
    initialise(model)
    deformable(model, "2")
    starts_at_zero(model)


def by_exact_type(model):
    for m in model.modules():
        if type(m) is nn.Conv2d:
            nn.init.constant_(m.weight, 0.5)


@row(
    "initialisers of what has the type nn.Conv2d itself",
    "they pass by every subclass, so the layer keeps the weight that it has; convert "
    "after them",
)
def exact_initialisers():
    model = network()
    by_exact_type(model)
    assert bool((model[2].weight == 0.5).all())


@ROWS["initialisers of what has the type nn.Conv2d itself"].with_recipe
def exact_initialisers_first():
    model = network()
    model[2] = nn.Conv2d(8, 12, 3, padding=1)
    by_exact_type(model)
    deformable(model, "2")
    assert bool((model[2].weight == 0.5).all())


def mmengine_initialises(model):
    from mmengine.model import initialize

    initialize(model, dict(type="Kaiming", layer="Conv2d"))


@row(
    "mmengine: init_cfg of layer='Conv2d'",
    "as the first of these: it visits subclasses, too",
    "mmengine",
)
def mmengine_init():
    model = network()
    model[2] = DeformConv2d(8, 12, 3, padding=1)
    mmengine_initialises(model)
    starts_at_zero(model)


ROWS["mmengine: init_cfg of layer='Conv2d'"].with_recipe(
    lambda: initialisers_first(mmengine_initialises)
)


def rates_differ(model, optimizer):
    """The branches learn at 0.1 of the others' rate, 0.1."""
    rates = {
        p: group["lr"] for group in optimizer.param_groups for p in group["params"]
    }
    for name, p in model.named_parameters():
        wanted = 0.01 if ".offset." in name or ".mask." in name else 0.1
        assert abs(rates[p] - wanted) < 1e-9


def mmengine_rates(**options):
    from mmengine.optim import build_optim_wrapper

    model, optimizer = network(), dict(type="SGD", lr=0.1)
    config = dict(type="OptimWrapper", optimizer=optimizer, paramwise_cfg=options)
    rates_differ(model, build_optim_wrapper(model, config).optimizer)


@row(
    "mmengine: dcn_offset_lr_mult",
    "it looks for mmcv's layers; `custom_keys` of `.offset.` and `.mask.`, as in "
    "[the layer](layer.md)",
    "mmengine",
)
def mmengine_optimizer():
    mmengine_rates(dcn_offset_lr_mult=0.1)


@ROWS["mmengine: dcn_offset_lr_mult"].with_recipe
def mmengine_custom_keys():
    keys = {".offset.": dict(lr_mult=0.1), ".mask.": dict(lr_mult=0.1)}
    mmengine_rates(custom_keys=keys)


def ultralytics_optimizer(change):
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils import DEFAULT_CFG

    class Trainer(change(DetectionTrainer)):
        def __init__(self, model):  # it would ask for a data set
            self.args, self.data, self.model = DEFAULT_CFG, {"nc": 80}, model

    model = network()
    options = dict(name="SGD", lr=0.1, momentum=0.9, decay=1e-4)
    rates_differ(model, Trainer(model).build_optimizer(model, **options))


@row(
    "Ultralytics: the trainer's optimiser",
    "it has one rate; a trainer with `build_optimizer` of your own returns one of "
    "`parameter_groups(model, lr, weight_decay=decay)`",
    "ultralytics",
)
def ultralytics_rates():
    ultralytics_optimizer(lambda trainer: trainer)


@ROWS["Ultralytics: the trainer's optimiser"].with_recipe
def ultralytics_groups():
    def change(trainer):
        class Trainer(trainer):
            def build_optimizer(self, model, name, lr, momentum, decay, iterations=1e5):
                groups = parameter_groups(model, lr, weight_decay=decay)
                return torch.optim.SGD(groups, momentum=momentum, nesterov=True)

        return Trainer

    ultralytics_optimizer(change)


@row("weight_norm, spectral_norm of the layer")
def norm_layer():
    model, x = network(), image()
    wanted = model(x)
    parametrizations.weight_norm(model[2])
    same(model(x), wanted)
    model = network()
    parametrizations.spectral_norm(model[2])
    assert model(x).isfinite().all()


@row(
    "weight_norm, spectral_norm of every convolution",
    "0/0 at the zeros of a fresh branch; normalise the layer itself, not what is a "
    "`refdcn.torch.layer.Branch`",
)
def norm_all():
    model = network()
    model[2] = DeformConv2d(8, 12, 3, padding=1)
    for m in list(model.modules()):
        if isinstance(m, nn.Conv2d):
            parametrizations.weight_norm(m)
    y = model(image())
    assert y.isfinite().all()


@ROWS["weight_norm, spectral_norm of every convolution"].with_recipe
def norm_no_branch():
    from refdcn.torch.layer import Branch

    for norm in (parametrizations.weight_norm, parametrizations.spectral_norm):
        model = network()
        model[2] = DeformConv2d(8, 12, 3, padding=1)
        for m in list(model.modules()):
            if isinstance(m, nn.Conv2d) and not isinstance(m, Branch):
                norm(m)
        assert model(image()).isfinite().all()


def lora(target):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model, x = network(), image()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=[target]))
    for name, p in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(p, std=0.3)
    wanted = adapted(x)
    same(adapted.merge_and_unload()(x), wanted, 1e-4)


@row(
    "PEFT: LoRA of the layer",
    "the adapter runs as a plain convolution, and merged it is another one; target the "
    "model's other layers and the branches (`layer.offset`), which are plain",
    "peft",
)
def lora_layer():
    lora("2")


@ROWS["PEFT: LoRA of the layer"].with_recipe
def lora_branch():
    lora("2.offset")


# --- Counting ------------------------------------------------------------------------


def products():
    """Multiplications of the network for two images of 10 x 9."""
    convs = 3 * 8 + 8 * (12 + 18 + 9)
    return 2 * (90 * 9 * convs + 56 * 9 * 12 * 6)


@row("torch.utils.flop_counter.FlopCounterMode")
def flop_counter():
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network()(image())
    assert counter.get_total_flops() == 2 * products()


def fvcore(handles):
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(network(), image()).unsupported_ops_warnings(False)
    analysis.set_op_handle(**handles).uncalled_modules_warnings(False)
    counts = analysis.by_operator()
    assert counts["conv"] + counts["deform_conv2d"] == products()


@row(
    "fvcore: FlopCountAnalysis",
    'the operator is skipped, with a warning; `.set_op_handle("refdcn::deform_conv2d", '
    "f)` where `f(inputs, outputs)` returns `Counter(deform_conv2d=...)` of the sizes",
    "fvcore",
)
def fvcore_plain():
    fvcore({})


@ROWS["fvcore: FlopCountAnalysis"].with_recipe
def fvcore_handle():
    from collections import Counter
    from math import prod

    def count(inputs, outputs):
        sizes = [v.type().sizes() for v in (outputs[0], inputs[2])]
        return Counter(deform_conv2d=prod(sizes[0]) * prod(sizes[1][1:]))

    fvcore({"refdcn::deform_conv2d": count})


def profiled():
    from torch.profiler import ProfilerActivity, profile

    model, x = network(), image()
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as found:
        model(x)
    return sum(event.flops for event in found.key_averages())


@row(
    "torch.profiler: with_flops",
    "it counts torch's own operators, so the branches alone; count with "
    "`FlopCounterMode`",
)
def profiler():
    assert profiled() >= 2 * products()


@row("thop (ultralytics-thop)", needs="thop")
def thop():
    import thop

    # It counts the layer as a convolution, and a bias and normalisation nowhere.
    macs, _ = thop.profile(network(), (image(),), verbose=False)
    assert abs(macs / products() - 1) < 0.02


@row(
    "ptflops",
    "it knows torch's functions alone; count with `FlopCounterMode`",
    "ptflops",
)
def ptflops():
    from ptflops import get_model_complexity_info

    macs, _ = get_model_complexity_info(
        network(), (3, 10, 9), as_strings=False, print_per_layer_stat=False
    )
    assert abs(2 * macs / products() - 1) < 0.1


# --- Pruning and quantising ----------------------------------------------------------


def prune(arguments):
    import torch_pruning

    model, x = network(), image(1, 3, 10, 9)
    wanted = copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(model, example_inputs=x, **arguments(model))
    remove = torch_pruning.prune_conv_out_channels
    graph.get_pruning_group(model[0], remove, idxs=[1, 5]).prune()
    wanted[0].weight.data[[1, 5]] = wanted[0].bias.data[[1, 5]] = 0
    assert model[2].in_channels == model[2].offset.in_channels == 6
    same(model(x), wanted(x))


@row(
    "torch-pruning",
    "give it `**refdcn.torch.pruning.pruning_arguments(model)`; then the branches "
    "follow their layer",
    "torch_pruning",
)
def pruning():
    prune(lambda model: {})


ROWS["torch-pruning"].with_recipe(lambda: prune(pruning_arguments))


def prune_by_magnitude(arguments):
    import torch_pruning

    model, x = network(), image(1, 3, 10, 9)
    options = arguments(model)
    options["ignored_layers"] = [*options.get("ignored_layers", []), model[5]]
    torch_pruning.pruner.MagnitudePruner(
        model, x, torch_pruning.importance.MagnitudeImportance(), pruning_ratio=0.5,
        **options,
    ).step()  # fmt: skip
    layer = model[2]
    assert (layer.in_channels, layer.out_channels) == (4, 6)
    assert (layer.offset.out_channels, layer.mask.out_channels) == (18, 9)
    assert model(x).shape == (1, 6, 8, 7)


@row(
    "torch-pruning: MagnitudePruner",
    "the same arguments",
    "torch_pruning",
)
def pruning_by_magnitude():
    prune_by_magnitude(lambda model: {})


ROWS["torch-pruning: MagnitudePruner"].with_recipe(
    lambda: prune_by_magnitude(pruning_arguments)
)


@row("torch.nn.utils.prune")
def prune_mask():
    from torch.nn.utils import prune

    model = network()
    prune.l1_unstructured(model[2], "weight", amount=0.5)
    assert (model[2].weight == 0).float().mean() >= 0.5
    assert model(image()).isfinite().all()


@row(
    "torch.ao FX quantisation",
    "the layers stay in floating point, their offsets exact",
)
def quantise_fx():
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    model, x = network(), image()
    prepared = prepare_fx(model, get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    quantised = convert_fx(prepared)
    assert any(isinstance(m, DeformConv2d) for m in quantised.modules())
    same(quantised(x), model(x), 0.1)


@row("torch.ao.quantization.quantize_dynamic", "it leaves convolutions as they are")
def quantise_dynamic():
    model, x = network(), image()
    same(torch.ao.quantization.quantize_dynamic(model)(x), model(x), 0)


@row(
    "torch.ao eager quantisation",
    "the layer stays in floating point and wants a `DeQuantStub` before it and a "
    "`QuantStub` after it; FX quantisation places them by itself",
)
def quantise_eager():
    quantised = eagerly(network())
    quantised(image())


def eagerly(model):
    """Static quantisation of a whole model, as the tutorials do it."""
    from torch.ao import quantization

    whole = nn.Sequential(quantization.QuantStub(), *model, quantization.DeQuantStub())
    whole.eval().qconfig = quantization.get_default_qconfig("x86")
    ready = quantization.prepare(whole)
    ready(image())
    return quantization.convert(ready)


@ROWS["torch.ao eager quantisation"].with_recipe
def quantise_eager_stubs():
    from torch.ao.quantization import DeQuantStub, QuantStub

    model, x = network(), image()
    model.insert(2, DeQuantStub())
    model.insert(4, QuantStub())
    same(eagerly(model)(x), model(x), 0.2)


def torchao(**options):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model, x = network(), image()
    wanted = model(x)
    quantize_(model, Int8WeightOnlyConfig(), **options)
    same(model(x), wanted, 0.1)


@row(
    "torchao: quantize_ with a filter of convolutions",
    "nor does a plain convolution pass; without a filter it leaves them as they are",
    "torchao",
)
def torchao_filter():
    torchao(filter_fn=lambda module, name: isinstance(module, nn.Conv2d))


ROWS["torchao: quantize_ with a filter of convolutions"].with_recipe(torchao)


def nncf(model, x):
    import nncf

    return nncf.quantize(model, nncf.Dataset([x]))


@row(
    "nncf: quantize",
    "its torch backend fails on plain models, too; give it "
    "`torch.export.export(model, (x,)).module()`, whose offsets stay in floating point",
    "nncf",
)
def nncf_torch():
    model, x = network(), image()
    same(nncf(model, x)(x), model(x), 0.1)


@ROWS["nncf: quantize"].with_recipe
def nncf_exported():
    model, x = network(), image()
    exported = torch.export.export(model, (x,)).module()
    same(nncf(exported, x)(x), model(x), 0.1)


# --- Saving and exporting ------------------------------------------------------------


@row("torchvision's create_feature_extractor", "the layer is one node")
def extractor():
    from torchvision.models.feature_extraction import create_feature_extractor

    model = torchvision.models.resnet18().eval()
    deformable(model, 2)
    x = image(1, 3, 64, 64)
    found = create_feature_extractor(moved(model), ["layer4.1.conv2", "fc"])(x)
    same(found["fc"], model(x), 0)


@row("torch.jit.trace, saved", "a program that loads it imports `refdcn.torch`")
def jit_trace():
    model, x = network(), image()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), buffer)
    buffer.seek(0)
    same(torch.jit.load(buffer)(x), model(x))


@row("torch.jit.script", "trace it")
def jit_script():
    torch.jit.script(network())


ROWS["torch.jit.script"].with_recipe(jit_trace.as_is)


def load_exported(first):
    program = torch.export.export(network(), (image(),))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "program.pt2"))
        torch.export.save(program, path)
        code = f"{first}import torch; torch.export.load({path!r}).module()"
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
        )
    if run.returncode:
        raise RuntimeError(run.stderr)


@row(
    "torch.export.save, loaded by another program",
    "that program imports `refdcn.torch`",
)
def export_load():
    load_exported("")


@ROWS["torch.export.save, loaded by another program"].with_recipe
def export_load_imported():
    load_exported("import refdcn.torch; ")


def onnx(opset, dynamo, model=None, x=None):
    import numpy as np
    import onnxruntime

    model, x = (network(), image()) if model is None else (model, x)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "model.onnx"))
        torch.onnx.export(
            model, (x,), path, dynamo=dynamo, opset_version=opset, verbose=False
        )
        session = onnxruntime.InferenceSession(path)
    y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    same(torch.from_numpy(np.asarray(y)), model(x).detach(), 1e-4)


@row(
    "torch.onnx.export, both exporters, opset 19 and later",
    "one node, DeformConv",
    "onnxruntime",
)
def onnx_both():
    for dynamo in (True, False):
        onnx(19, dynamo)


@row(
    "torch.onnx.export, both exporters, opset 16 to 18",
    "GridSample and Conv, since ONNX has no DeformConv before 19",
    "onnxruntime",
)
def onnx_sampled():
    onnx(16, False)
    onnx(18, True)


@row(
    "torch.onnx.export, opset 15 and earlier",
    "ONNX has no GridSample before 16; `opset_version=19`",
    "onnxruntime",
)
def onnx_early():
    onnx(15, False)


ROWS["torch.onnx.export, opset 15 and earlier"].with_recipe(onnx_both.as_is)


# --- Whole models --------------------------------------------------------------------


def yolo():
    """yolo11n of random weights, converted, trained for three steps, and an image."""
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG_DICT, IterableSimpleNamespace

    torch.manual_seed(0)
    wrapper = YOLO("yolo11n.yaml")
    model, x = wrapper.model.eval(), image(1, 3, 64, 64)
    before = model(x)[0]
    names = deformable(
        model, lambda name, conv: conv.kernel_size == (3, 3) and "model.8." in name
    )
    assert len(names) == 4
    same(model(x)[0], before, 1e-6)
    model.args = IterableSimpleNamespace(**DEFAULT_CFG_DICT)
    batch = {
        "img": image(2, 3, 64, 64), "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.ones(2, 1), "bboxes": torch.full((2, 4), 0.4),
    }  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(batch)[0].sum().backward()
        optimizer.step()
    model.args = DEFAULT_CFG_DICT | {"task": "detect", "imgsz": 64}
    return wrapper, moved(model).eval(), x


@row("Ultralytics: yolo11n converted, three training steps, fuse", needs="ultralytics")
def yolo_fuse():
    _, model, x = yolo()
    wanted = model(x)[0]
    same(copy.deepcopy(model).fuse(verbose=False)(x)[0], wanted, 1e-4)


def yolo_export(kind, **options):
    wrapper, model, x = yolo()
    wanted = model(x)[0].detach()
    with tempfile.TemporaryDirectory() as folder:
        wrapper.ckpt_path = model.pt_path = str(Path(folder, "yolo.pt"))
        model.yaml_file = "yolo.yaml"
        path = wrapper.export(format=kind, imgsz=64, **options)
        if kind == "torchscript":
            return same(torch.jit.load(path)(x), wanted, 1e-4)
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
    y = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return same(torch.from_numpy(y), wanted, 1e-4)


@row('Ultralytics: export(format="torchscript")', needs="ultralytics")
def yolo_torchscript():
    yolo_export("torchscript")


@row(
    'Ultralytics: export(format="onnx")',
    "its own choice of opset, 18, and `opset=19`",
    "ultralytics",
)
def yolo_onnx():
    yolo_export("onnx")
    yolo_export("onnx", opset=19)


@row("torchvision: convnext_tiny, deeplabv3_resnet50 to ONNX", needs="onnxruntime")
def torchvision_models():
    torch.manual_seed(0)
    convnext = torchvision.models.convnext_tiny().eval()
    deformable(convnext, lambda name, conv: conv.kernel_size == (2, 2))
    onnx(20, False, moved(convnext), image(1, 3, 64, 64))
    kind = torchvision.models.segmentation.deeplabv3_resnet50

    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = kind(weights=None, weights_backbone=None, num_classes=3)

        def forward(self, x):
            return self.net(x)["out"]

    deeplab = Logits().eval()
    deformable(deeplab, "net.backbone.layer4.*.conv2")
    onnx(20, False, moved(deeplab), image(1, 3, 64, 64))


def detections(model, x):
    """[detections, 6] by the model, and by ONNX Runtime: box, label, score.

    Labels and scores in units that make another label, or 1e-4 of score, a tenth.
    """
    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(model, ([x],), file, dynamo=False, opset_version=18)
    session = onnxruntime.InferenceSession(file.getvalue())
    got = map(
        torch.from_numpy, session.run(None, {session.get_inputs()[0].name: x.numpy()})
    )
    return [
        torch.cat([boxes, labels[:, None], 1e3 * scores[:, None]], 1).detach()
        for boxes, labels, scores in (found(model([x])[0].values()), found(got))
    ]


def found(tensors):
    """Boxes, labels, scores, in whatever order."""
    boxes, labels, scores = sorted(
        tensors, key=lambda t: (t.ndim == 1, t.is_floating_point())
    )
    return boxes, labels, scores


@row(
    "torchvision: fasterrcnn, retinanet to ONNX",
    "`dynamo=False, opset_version=18`, as the unconverted; of detections that overlap "
    "and have the same score another may be left",
    "onnxruntime",
)
def detectors():
    all_ = 100_000
    kind = torchvision.models.detection
    faster = partial(
        kind.fasterrcnn_mobilenet_v3_large_320_fpn, rpn_nms_thresh=1.0,
        rpn_pre_nms_top_n_test=all_, rpn_post_nms_top_n_test=all_, box_score_thresh=0.0,
        box_nms_thresh=1.0, box_detections_per_img=all_,
    )  # fmt: skip
    retina = partial(
        kind.retinanet_resnet50_fpn, score_thresh=0.0, nms_thresh=1.0,
        topk_candidates=all_, detections_per_img=all_,
    )  # fmt: skip
    # Whatever is found is kept: of almost equal scores another may be suppressed.
    for make, where in (
        (faster, "backbone.fpn.layer_blocks.*"),
        (retina, "backbone.body.layer4.*.conv2"),
    ):
        torch.manual_seed(0)
        model = make(
            weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
        )
        deformable(model.eval(), where)
        wanted, got = detections(moved(model), image(3, 64, 64))
        assert len(got) == len(wanted) > 100
        nearest = torch.cdist(wanted, got, p=torch.inf).min(1).values
        assert bool((nearest < 0.1).all())


@row(
    "torchvision: fasterrcnn by torch.export",
    "nor is the unconverted one: its code branches on values; train and evaluate it",
)
def detector():
    kind = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    model = kind(weights=None, weights_backbone=None, min_size=64, max_size=64).eval()
    torch.export.export(model, ([image(3, 64, 64)],))


@ROWS["torchvision: fasterrcnn by torch.export"].with_recipe
def detector_trains():
    torch.manual_seed(0)
    kind = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn
    model = kind(weights=None, weights_backbone=None, min_size=64, max_size=64)
    deformable(model, "backbone.fpn.layer_blocks.*")
    boxes = torch.tensor([[4.0, 4.0, 40.0, 50.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])}]
    sum(model.train()([image(3, 64, 64)], targets).values()).backward()
    assert model.eval()([image(3, 64, 64)])[0]["boxes"].shape[1] == 4


# --- What happened -------------------------------------------------------------------


def attempt(check):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tools
            check()
    except AssertionError:
        return "wrong"
    except UserWarning:
        return "a warning"
    except Exception as error:
        return f"no: {type(error).__name__}"
    return "yes"


@cache
def line(name):
    """The row as the page has it."""
    row = ROWS[name]
    recipe = "" if row.recipe is None else attempt(row.recipe)
    return f"| {name} | {attempt(row.as_is)} | {recipe} | {row.words} |"


def page(text):
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    head = ["| | as it is | with the recipe | |", "|---|---|---|---|"]
    return "\n".join([f"{before}{BEGIN}", *head, *map(line, ROWS), f"{END}{after}"])


if __name__ == "__main__":
    text = page(PAGE.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(text)
    else:
        PAGE.write_text(text, encoding="utf-8")
