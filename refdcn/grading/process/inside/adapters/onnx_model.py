"""A candidate that is a model of ONNX: `onnx:FILE`, or the operator, `onnx:DeformConv`.

Each call has its own stride, padding, dilation, groups and dtype: a model that is one
node DeformConv is written anew with them, and nodes DeformConv within a larger one are
given them. A model without such a node has them fixed. Inputs are told by their names
(X, W, B of the operator among them), or else by their order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..called import numbers
from ..candidates import functions
from ..named import MEANING
from ..routes import How, SpecError, Target

OPERATOR = "DeformConv"
ORDER = "x", "weight", "offset", "bias", "mask"  # of the operator
NAMES = dict(MEANING, X="x", W="weight", B="bias")
VERSIONS = 19, 22
IR = 10  # of the models that are written: known to runtimes of 2024 and later
PACKAGES = {"onnxruntime": "onnxruntime", "reference": "onnx", "openvino": "openvino"}


def attach(place: str, how: How) -> Target:
    """The model's function; it has no gradients but a companion's."""
    model = loaded(place)
    run = runtime(how.runtime)
    grad = None if how.companion is None else functions(how.companion)[0]
    return Target(place, Model(model, run).forward, grad)


def needed(package: str, why: str) -> Any:
    """A package, or a sentence that says what for."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as e:
        raise SpecError(f"{why} needs {e.name}, which is not installed here") from e


def loaded(place: str) -> Any:
    """The model of a file, or one that is the operator alone."""
    onnx = needed("onnx", "an ONNX model")
    name, dash, version = place.partition("-")
    if name == OPERATOR:
        known = [str(v) for v in VERSIONS]
        if dash and version not in known:
            raise SpecError(
                f"SPEC is 'onnx:{place}'; {OPERATOR} has the versions "
                f"{' and '.join(known)} alone"
            )
        return alone(onnx, int(version or VERSIONS[0]))
    if not os.path.exists(place):
        raise SpecError(f"SPEC names the model {place}, which does not exist")
    try:
        model = onnx.load(place)
        onnx.checker.check_model(model)
    except Exception as e:
        first = str(e).strip().partition("\n")[0]
        raise SpecError(f"{place} is no model of ONNX: {first}") from e
    checked(model, place)
    return model


def checked(model: Any, place: str) -> None:
    """Raise SpecError where a model cannot take these tensors."""
    found = roles(model.graph)
    lacking = [r for r in ("x", "offset", "weight") if r not in found]
    if lacking:
        given = ", ".join(i.name for i in model.graph.input) or "nothing"
        raise SpecError(
            f"{place} has no input for {', '.join(lacking)}; it takes {given}, and the "
            "grader gives x, offset, weight, mask and bias: weights must be inputs, too"
        )


def alone(onnx: Any, version: int, domain: str = "") -> Any:
    """A model that is one node, with all its inputs."""
    make, names = onnx.helper, list(ORDER)
    node = make.make_node(OPERATOR, names, ["y"], domain=domain)
    infos = [
        make.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names
    ]
    y = make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = make.make_graph([node], "refdcn", infos, [y])
    opset = make.make_opsetid(domain, version)
    return make.make_model(graph, opset_imports=[opset], ir_version=IR)


def roles(graph: Any) -> dict[str, str]:
    """The input for each of our tensors: by the names, or else by the operator's order.

    An initializer that is an input too, as a default, is one.
    """
    names = [i.name for i in graph.input]
    found = {NAMES[n]: n for n in names if n in NAMES}
    if len(found) == len(names):
        return found
    nodes = [n for n in graph.node if n.op_type == OPERATOR]
    if len(nodes) == 1:  # the names are its own
        found = {r: n for r, n in zip(ORDER, nodes[0].input) if n in names}
        if len(found) == len(names):
            return found
    return dict(zip(("x", "offset", "weight", "mask", "bias"), names))


class Model:
    """A model, called as f(x, offset, weight, mask, bias, **windows)."""

    def __init__(self, model: Any, run: Callable[..., Any]) -> None:
        self.model, self.run = model, run
        self.one_node = [n.op_type for n in model.graph.node] == [OPERATOR]
        self.roles = roles(model.graph)

    def forward(self, *inputs: Any, **windows: Any) -> Any:
        """y."""
        named = dict(zip(("x", "offset", "weight", "mask", "bias"), inputs))
        given = self.one(named) if self.one_node else self.fed(named)
        model = self.written(given, inputs, windows)
        y = self.run(model, {n: np.ascontiguousarray(a) for n, a in given.items()})
        return np.array(y)

    def one(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of the operator: those that there are."""
        return {role: named[role] for role in ORDER if named[role] is not None}

    def fed(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of a graph, all of which must come."""
        x, offset, weight = named["x"], named["offset"], named["weight"]
        none = {"mask": np.ones_like(offset[:, ::2]), "bias": x[:0, 0, 0, 0]}
        none["bias"] = np.zeros(len(weight), x.dtype)
        given = {}
        for role, a in named.items():
            if role in self.roles:
                given[self.roles[role]] = none[role] if a is None else a
            elif a is not None:
                raise ValueError(f"the model takes no {role}")
        return given

    def written(
        self, given: Mapping[str, Any], inputs: Sequence[Any], windows: Any
    ) -> Any:
        """The model of one call."""
        import onnx

        if self.one_node:
            model = self.of_one(onnx, list(given), inputs[0].dtype)
        else:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            for info in (*model.graph.input, *model.graph.output):
                info.type.tensor_type.ClearField("shape")
                if info.name in given:  # OpenVINO takes none without
                    shaped(info.type.tensor_type.shape, given[info.name])
            del model.graph.value_info[:]
        for node in model.graph.node:
            if node.op_type == OPERATOR:
                del node.attribute[:]
                node.attribute.extend(attributes(onnx, numbers(inputs, windows)))
        return model

    def of_one(self, onnx: Any, given: list[str], dtype: Any) -> Any:
        """The operator with these inputs, in its model's version and domain."""
        domain = self.model.graph.node[0].domain
        versions = {o.domain: o.version for o in self.model.opset_import}
        model = alone(onnx, versions.get(domain, VERSIONS[0]), domain)
        names = [n if n in given else "" for n in ORDER]
        while not names[-1]:
            names.pop()
        model.graph.node[0].input[:] = names
        kept = [i for i in model.graph.input if i.name in given]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        for info in (*model.graph.input, *model.graph.output):
            info.type.tensor_type.elem_type = kind
        return model


def shaped(shape: Any, a: Any) -> None:
    """Write an array's sizes into a description of it."""
    for size in a.shape:
        shape.dim.add().dim_value = size


def attributes(onnx: Any, of: Mapping[str, Any]) -> list[Any]:
    """Those of the node, of one call."""
    named = {
        "dilations": list(of["dilation"]),
        "group": of["groups"],
        "kernel_shape": list(of["kernel_size"]),
        "offset_group": of["offset_groups"],
        "pads": of["pads"],
        "strides": list(of["stride"]),
    }
    return [onnx.helper.make_attribute(name, value) for name, value in named.items()]


def runtime(name: str | None) -> Callable[..., Any]:
    """What runs a model on inputs by name: the one asked for, or the first there is."""
    from importlib.util import find_spec

    if name is None:
        name = "onnxruntime" if find_spec("onnxruntime") else "reference"
    needed(PACKAGES[name], f"the runtime {name}")
    by_name = {"onnxruntime": by_onnxruntime, "reference": by_reference}
    return by_name.get(name, by_openvino)


def by_onnxruntime(model: Any, given: Mapping[str, Any]) -> Any:
    """ONNX Runtime's CPU kernels, with one thread."""
    import onnxruntime

    how = onnxruntime.SessionOptions()
    how.intra_op_num_threads = 1
    how.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), how, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(given))[0]


def by_reference(model: Any, given: Mapping[str, Any]) -> Any:
    """ONNX's own reference, in NumPy."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, dict(given))[0]


def by_openvino(model: Any, given: Mapping[str, Any]) -> Any:
    """OpenVINO's CPU kernels, in float32 and not in less."""
    import openvino

    core = openvino.Core()
    read = core.read_model(model.SerializeToString(), b"")
    run = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return run(dict(given))[0]
