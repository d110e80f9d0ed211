"""Export to ONNX: standard nodes, run by ONNX Runtime and by ONNX's own reference.

DeformConv from opset 19 on, and GridSample and Conv from 16 to 18.
"""

import copy
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import torchvision

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from networks import (  # noqa: E402
    assert_closer_than_roundings,
    disturbed,
    resnet50,
    segmenter,
    stack,
)
from onnx.reference import ReferenceEvaluator  # noqa: E402
from torch import nn  # noqa: E402
from torch.export import Dim  # noqa: E402

from refdcn.torch import (  # noqa: E402
    DeformConv2d,
    accelerate_torchvision,
    deform_conv2d,
    torchvision_is_native,
)

OPSETS = (18, 19, 22)
U = 2.0**-24


def export(model, args, opset, dynamic=None):
    with warnings.catch_warnings():
        # The exporter copies protobufs in a way that protobuf deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            model, args, dynamo=True, opset_version=opset, dynamic_shapes=dynamic,
            verbose=False,
        )  # fmt: skip
    return program.model_proto


def assert_standard(proto, count, opset):
    """So many of the operator, and nothing that a runtime would not know."""
    onnx.checker.check_model(proto, full_check=True)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", opset)]
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions
    nodes = [n.op_type for n in proto.graph.node]
    counts = nodes.count("GridSample"), nodes.count("DeformConv")
    assert counts == ((count, 0) if opset < 19 else (0, count))


def runtime(proto, *arrays):
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))[0]


def reference(proto, *arrays):
    names = [i.name for i in proto.graph.input]
    feed = dict(zip(names, arrays, strict=True))
    return ReferenceEvaluator(proto).run(None, feed)[0]


RUNNERS = {"ONNX Runtime": runtime, "ONNX's reference": reference}


def runners(opset, names=tuple(RUNNERS)):
    """ONNX's reference knows GridSample's modes by their names of opset 20 alone."""
    return [n for n in names if opset >= 19 or n == "ONNX Runtime"]


class Call(nn.Module):
    """One call of the operator, all tensors given."""

    def __init__(self, **windows):
        super().__init__()
        self.windows = windows

    def forward(self, x, offset, weight, mask=None, bias=None):
        return deform_conv2d(x, offset, weight, mask, bias, **self.windows)


def operands(mask, bias, size=(9, 11), out=(5, 11), seed=0):
    """float32, groups = offset_groups = 2, a 3x2 kernel."""
    rng = np.random.default_rng(seed)
    shapes = [(2, 4, *size), (2, 24, *out), (6, 2, 3, 2)]
    shapes += [(2, 12, *out)] if mask else []
    shapes += [(6,)] if bias else []
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def assert_equal_within(got, arrays, windows):
    """Both are float32, so each is within this of the exact sum.

    A position may pass through an image's normalised coordinates, whose roundings are
    8 u max(|q|, size); a sample moves by no more than that times 4 max|x|. The sums
    have n products of weight, mask and sample, 16 further roundings each.
    """
    exact = [torch.from_numpy(a).double() for a in arrays]
    exact += [None] * (5 - len(exact))
    wanted = deform_conv2d(*exact, **windows).numpy()
    x, offset, weight, mask, bias = (a if a is None else a.abs() for a in exact)
    terms = weight[0].numel() + 16
    reach = max(x.shape[2:]) + offset.max() + 3
    sample = x.max() * (4 * 8 * U * reach + terms * U)
    plain = torch.zeros_like(exact[1])
    sums = deform_conv2d(torch.ones_like(x), plain, weight, mask, **windows)
    bound = sample * sums.max() + terms * U * (0 if bias is None else bias.max())
    assert got.shape == wanted.shape and got.dtype == np.float32
    error = np.abs(got - wanted).max()
    assert error <= float(bound) + U * np.abs(wanted).max()
    assert np.abs(wanted).max() > 1e3 * float(bound)  # or the bound says nothing


WINDOWS = {"stride": (2, 1), "padding": ((1, 1), (0, 2)), "dilation": (1, 2)}


@pytest.mark.parametrize("opset", (16, 17, *OPSETS))
@pytest.mark.parametrize("mask, bias", [(True, True), (False, False)])
def test_the_operator(opset, mask, bias):
    arrays = operands(mask, bias)
    proto = export(Call(**WINDOWS).eval(), tuple(map(torch.from_numpy, arrays)), opset)
    assert_standard(proto, 1, opset)
    for name in runners(opset):
        assert_equal_within(RUNNERS[name](proto, *arrays), arrays, WINDOWS)


@pytest.mark.parametrize("opset", [18, 19])
def test_samples_outside_are_zero(opset):
    """At the edges, where roundings matter most, far away and infinitely far."""
    x, offset, weight = operands(False, False)
    for i, value in enumerate((-1.0, 0.5, 3.0, 1e6, -1e30, np.inf, -np.inf)):
        offset[:, i::7] = value
    arrays = x, offset, weight
    proto = export(Call(**WINDOWS).eval(), tuple(map(torch.from_numpy, arrays)), opset)
    wanted = deform_conv2d(*map(torch.from_numpy, arrays), **WINDOWS)
    got = torch.from_numpy(runtime(proto, *arrays))
    assert (got - wanted).abs().max() <= 1e-4 and wanted.abs().max() > 1


def test_a_mistake_is_seen():
    """A node whose pads are turned by a quarter computes something else."""
    arrays = operands(True, True, out=(6, 10))
    windows = {"padding": ((0, 1), (2, 0)), "stride": (1, 1), "dilation": (2, 3)}
    proto = export(Call(**windows).eval(), tuple(map(torch.from_numpy, arrays)), 19)
    assert_equal_within(runtime(proto, *arrays), arrays, windows)
    (node,) = proto.graph.node
    pads = next(a for a in node.attribute if a.name == "pads")
    assert list(pads.ints) == [0, 2, 1, 0]
    pads.ints[:] = [1, 0, 0, 2]
    with pytest.raises(AssertionError):
        assert_equal_within(runtime(proto, *arrays), arrays, windows)


def assert_network(model, proto, x, names, what):
    """What the exported network gives is what rounding may make of the model's."""
    with torch.no_grad():
        wanted = model(x)
        disturbances = []
        for seed in (1, 2):
            with disturbed(model, seed):
                disturbances.append({"y": model(x)})
    for name in names:
        got = torch.from_numpy(RUNNERS[name](proto, x.numpy()))
        assert_closer_than_roundings(
            {"y": got}, {"y": wanted}, disturbances, f"{what} by {name}"
        )


NETWORKS = {  # model, image, deformable layers, who runs it
    "two layers": (stack, (5, 7), 2, tuple(RUNNERS)),
    "narrow resnet50": (partial(resnet50, 1), (64, 64), 3, tuple(RUNNERS)),
    "resnet50": (resnet50, (64, 64), 3, ("ONNX Runtime",)),
    "segmenter": (segmenter, (24, 20), 3, ("ONNX Runtime",)),
}


# The two resnets take seconds, and have the same nodes.
OPSET_OF = [("narrow resnet50", 19), ("resnet50", 22)]
OPSET_OF += [(n, o) for n in ("two layers", "segmenter") for o in OPSETS]


@pytest.mark.parametrize("name, opset", OPSET_OF)
def test_networks_of_our_layer(name, opset):
    build, size, count, names = NETWORKS[name]
    model = copy.deepcopy(build()).eval()
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, *size, generator=rng)
    proto = export(model, (x,), opset)
    assert_standard(proto, count, opset)
    assert_network(model, proto, x, runners(opset, names), name)


@pytest.mark.parametrize("opset", OPSETS)
def test_batch_and_size_stay_dynamic(opset):
    model = copy.deepcopy(stack()).eval()
    sizes = {0: Dim("N"), 2: Dim("H", min=4), 3: Dim("W", min=4)}
    proto = export(model, (torch.randn(2, 3, 7, 9),), opset, dynamic=(sizes,))
    assert_standard(proto, 2, opset)
    for N, H, W in ((1, 6, 8), (3, 5, 7)):
        x = torch.randn(N, 3, H, W, generator=torch.Generator().manual_seed(N))
        assert_network(model, proto, x, ("ONNX Runtime",), (N, H, W))
    assert_network(model, proto, x[:1], runners(opset), "one image")


class Windowed(nn.Module):
    """A model written with torchvision's operator."""

    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(4, 36, 3, padding=1)
        self.layer = torchvision.ops.DeformConv2d(4, 4, 3, padding=1, groups=2)

    def forward(self, x):
        return self.layer(x, self.offset(x))


@pytest.mark.parametrize("opset", OPSETS)
def test_torchvisions_operator_under_the_accelerator(opset):
    torch.manual_seed(1)
    model, x = Windowed().eval(), torch.randn(1, 4, 5, 6)
    assert torchvision_is_native()
    with accelerate_torchvision():
        proto = export(model, (x,), opset)
        graph = torch.export.export(model, (x,))
        again = export(graph, (), opset)
    for exported in (proto, again):
        assert_standard(exported, 1, opset)
        # Compared with torchvision's own kernel: the accelerator is off again.
        assert_network(model, exported, x, runners(opset), "torchvision's")


@pytest.mark.parametrize("strict", [True, False])
def test_an_exported_program_goes_on_to_onnx(strict):
    arrays = operands(True, True)
    tensors = tuple(map(torch.from_numpy, arrays))
    graph = torch.export.export(Call(**WINDOWS).eval(), tensors, strict=strict)
    proto = export(graph, (), 19)
    assert_standard(proto, 1, 19)
    assert_equal_within(runtime(proto, *arrays), arrays, WINDOWS)


# --- The exporter of TorchScript, and opsets that have no node ----------------------


def export_torchscript(model, x, opset, path):
    axes = {0: "N", 2: "H", 3: "W"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), path, dynamo=False, opset_version=opset,
            input_names=["x"], output_names=["y"], dynamic_axes={"x": axes, "y": axes},
        )  # fmt: skip
    return onnx.load(path)


@pytest.mark.parametrize("opset", [16, 18, 19, 20])
@pytest.mark.parametrize(
    "modulation, bias", [("2sigmoid", True), ("sigmoid", False), (None, True)]
)
def test_the_torchscript_exporter(tmp_path, opset, modulation, bias):
    torch.manual_seed(0)
    layer = DeformConv2d(
        4, 6, 3, stride=2, padding=1, bias=bias, modulation=modulation, offset_groups=2
    )
    nn.init.normal_(layer.offset.weight, std=0.3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.ReLU()).eval()
    path = str(tmp_path / "model.onnx")
    proto = export_torchscript(model, torch.randn(2, 3, 9, 8), opset, path)
    assert_standard(proto, 1, opset)
    for size in ((2, 3, 9, 8), (1, 3, 14, 11)):
        x = torch.randn(size)
        with torch.no_grad():
            wanted = model(x)
        got = torch.from_numpy(runtime(proto, x.numpy()))
        assert (got - wanted).abs().max() <= 64 * 2 * U * (1 + wanted.abs().max())


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_opset_without_any_node_is_refused(tmp_path, dynamo):
    model = nn.Sequential(DeformConv2d(3, 4, 3)).eval()
    path, text = tmp_path / "model.onnx", "opset_version is 15; .* or 16, the first"
    with pytest.raises(Exception, match=text), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.randn(1, 3, 6, 6),), path, dynamo=dynamo, verbose=False,
            opset_version=15,
        )  # fmt: skip
    assert not path.exists()


@pytest.mark.filterwarnings("ignore")
def test_a_trace_has_the_node_alone(tmp_path):
    model, x = nn.Sequential(DeformConv2d(3, 4, 3)).eval(), torch.randn(1, 3, 6, 6)
    trace, path = torch.jit.trace(model, x), str(tmp_path / "model.onnx")
    assert_standard(export_torchscript(trace, x, 19, path), 1, 19)
    with pytest.raises(ValueError, match="export the model itself"):
        export_torchscript(trace, x, 18, path)
