"""Who is timed: each makes a call of no arguments, told its inputs and its threads.

A call returns (y,) or (y, grad_x, grad_offset, grad_weight, grad_mask, grad_bias) with
None for what the contestant has no gradient of, so that what is timed is also checked.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import refdcn
from refdcn.bench.workload import Arrays, Workload

Results: TypeAlias = tuple[Any, ...]
Call: TypeAlias = Callable[[], Results]

INPUTS = ("x", "offset", "weight", "mask", "bias")
TILE_BYTES = 1 << 20  # of the columns that `product` multiplies again and again


class SkippedError(Exception):
    """Why a contestant is left out."""


class WrongError(Exception):
    """A contestant is not what it should be, or computes something else."""


class Task(NamedTuple):
    """One thing to be timed."""

    workload: Workload
    arrays: Arrays
    direction: str  # "forward", or "training": forward and all gradients
    threads: int

    @property
    def dtype(self) -> str:
        """The dtype of all arrays."""
        return str(self.arrays["x"].dtype)

    @property
    def window(self) -> dict[str, int]:
        """stride, padding, dilation."""
        w = self.workload
        return {"stride": w.stride, "padding": w.padding, "dilation": w.dilation}


def load(*names: str) -> list[Any]:
    """Optional packages, or SkippedError naming the missing one."""
    try:
        return [importlib.import_module(name) for name in names]
    except ImportError as e:
        missing = e.name or str(e)
        raise SkippedError(f"{missing.partition('.')[0]} is not installed") from e


def ours(task: Task) -> Call:
    """refdcn on NumPy arrays."""
    given = [task.arrays[name] for name in INPUTS]
    window, grad_y = task.window, task.arrays["grad_y"]

    def forward() -> Results:
        return (refdcn.deform_conv2d(*given, **window),)

    def training() -> Results:
        y = refdcn.deform_conv2d(*given, **window)
        return (y, *refdcn.deform_conv2d_grad(grad_y, *given, **window))

    return forward if task.direction == "forward" else training


def ours_torch(task: Task) -> Call:
    """refdcn on torch tensors, through autograd."""
    (library,) = load("refdcn.torch")
    return on_torch(task, INPUTS, lambda *a: library.deform_conv2d(*a, **task.window))


def dense(task: Task) -> Call:
    """The ordinary convolution of the same sizes: torch's conv2d."""
    (functional,) = load("torch.nn.functional")
    groups, names = task.workload.groups, ("x", "weight", "bias")

    def conv2d(x: Any, weight: Any, bias: Any) -> Any:
        return functional.conv2d(x, weight, bias, groups=groups, **task.window)

    return on_torch(task, names, conv2d)


def torchvision(task: Task) -> Call:
    """torchvision's operator, which must be its own kernel's."""
    ops, library = load("torchvision.ops", "refdcn.torch")

    def deform_conv2d(x: Any, offset: Any, weight: Any, mask: Any, bias: Any) -> Any:
        return ops.deform_conv2d(x, offset, weight, bias, mask=mask, **task.window)

    if not library.torchvision_is_native():
        raise WrongError(
            "torchvision::deform_conv2d runs another kernel than torchvision's own; "
            "undo what replaced it"
        )
    return on_torch(task, INPUTS, deform_conv2d)


def on_torch(task: Task, names: tuple[str, ...], function: Callable[..., Any]) -> Call:
    """Call a torch function on the named inputs, with autograd for training."""
    (torch,) = load("torch")
    tensors = [torch.from_numpy(task.arrays[name]) for name in names]
    grad_y = torch.from_numpy(task.arrays["grad_y"])
    leaves = [t.clone().requires_grad_() for t in tensors]

    def forward() -> Results:
        with torch.no_grad():
            return (function(*tensors),)

    def training() -> Results:
        y = function(*leaves)
        found = dict(zip(names, torch.autograd.grad(y, leaves, grad_y), strict=True))
        return (y.detach(), *(found.get(name) for name in INPUTS))

    return forward if task.direction == "forward" else training


def product(task: Task) -> Call:
    """The matrix products alone: one tile of columns that stays in the cache.

    What a BLAS can do with them: NumPy's.
    """
    w = task.workload
    groups, rows = w.groups, w.C_in // w.groups * w.K
    pixels, dtype = math.prod(w.output), np.dtype(task.dtype)
    P = max(1, min(pixels, TILE_BYTES // (groups * rows * dtype.itemsize)))
    weight = task.arrays["weight"].reshape(groups, -1, rows)
    columns = np.ones((groups, rows, P), dtype)
    grad_columns = np.empty_like(columns)
    y = np.empty((groups, weight.shape[1], P), dtype)
    grad_weight = np.empty_like(weight)

    def multiply(p: int) -> None:
        part = columns[..., :p]
        np.matmul(weight, part, out=y[..., :p])
        if task.direction != "forward":
            turned = weight.transpose(0, 2, 1)
            np.matmul(turned, y[..., :p], out=grad_columns[..., :p])
            np.matmul(y[..., :p], part.transpose(0, 2, 1), out=grad_weight)

    def call() -> Results:
        for _ in range(w.N):
            for first in range(0, pixels, P):
                multiply(min(P, pixels - first))
        return ()

    return call


def onnxruntime(task: Task) -> Call:
    """ONNX Runtime's DeformConv; weight and bias are constants, as in a model."""
    runtime, onnx = load("onnxruntime", "onnx")
    if task.direction != "forward":
        raise SkippedError("it has no gradients")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    session = runtime.InferenceSession(
        onnx_model(onnx, task), options, providers=["CPUExecutionProvider"]
    )
    feed = {name: task.arrays[name] for name in ("x", "offset", "mask")}
    return lambda: tuple(session.run(None, feed))


def onnx_model(onnx: Any, task: Task) -> Any:
    """A model of one DeformConv node, serialised."""
    w, make = task.workload, onnx.helper
    kind = make.np_dtype_to_tensor_dtype(np.dtype(task.dtype))
    node = make.make_node(
        "DeformConv",
        ["x", "weight", "offset", "bias", "mask"],
        ["y"],
        kernel_shape=[w.K_size] * 2,
        strides=[w.stride] * 2,
        pads=[w.padding] * 4,
        dilations=[w.dilation] * 2,
        group=w.groups,
        offset_group=w.offset_groups,
    )
    inputs, (y,) = (
        [make.make_tensor_value_info(n, kind, w.shapes[n]) for n in names]
        for names in (("x", "offset", "mask"), ("y",))
    )
    held = [onnx.numpy_helper.from_array(task.arrays[n], n) for n in ("weight", "bias")]
    graph = make.make_graph([node], "deform_conv2d", inputs, [y], held)
    versions = {"opset_imports": [make.make_opsetid("", 19)], "ir_version": 9}
    return make.make_model(graph, **versions).SerializeToString()


def openvino(task: Task) -> Call:
    """OpenVINO's DeformableConvolution-8 with zeros outside, and an addition."""
    ov, opset = load("openvino", "openvino.opset8")
    if task.direction != "forward":
        raise SkippedError("it has no gradients")
    if task.dtype != "float32":
        raise SkippedError("it computes in float32")
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": task.threads,
        "NUM_STREAMS": 1,
    }
    model = openvino_model(ov, opset, task)
    request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
    for at, name in enumerate(("x", "offset", "mask")):
        given = ov.Tensor(task.arrays[name], shared_memory=True)
        request.set_input_tensor(at, given)

    def call() -> Results:
        request.infer()
        return (request.get_output_tensor(0).data,)

    return call


def openvino_model(ov: Any, opset: Any, task: Task) -> Any:
    """Weight and bias are constants, as in a model."""
    w = task.workload
    inputs = [opset.parameter(w.shapes[n], np.float32) for n in ("x", "offset", "mask")]
    x, offset, mask = inputs
    windows = ([size] * 2 for size in (w.stride, w.padding, w.padding, w.dilation))
    y = opset.deformable_convolution(
        x,
        offset,
        opset.constant(task.arrays["weight"]),
        *windows,
        mask,
        group=w.groups,
        deformable_group=w.offset_groups,
        bilinear_interpolation_pad=True,
    )
    bias = opset.constant(task.arrays["bias"].reshape(1, -1, 1, 1))
    return ov.Model([opset.add(y, bias)], inputs)


MAKERS: dict[str, Callable[[Task], Call]] = {
    "refdcn": ours,
    "refdcn.torch": ours_torch,
    "dense": dense,
    "product": product,
    "torchvision": torchvision,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
}
DEFORMABLE = tuple(name for name in MAKERS if name not in ("dense", "product"))


def use_threads(threads: int) -> None:
    """Every library that is told by a global setting uses this many from now on."""
    refdcn.set_num_threads(threads)
    for library in blas():
        library.set_num_threads(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


@cache
def blas() -> list[Any]:
    """The BLAS libraries that are loaded, NumPy's above all."""
    from threadpoolctl import ThreadpoolController

    found = ThreadpoolController().lib_controllers
    return [library for library in found if library.user_api == "blas"]
