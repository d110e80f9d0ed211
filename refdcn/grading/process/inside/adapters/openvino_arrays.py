"""A function that makes a node of OpenVINO's graphs, compiled for its CPU and run.

In float32, as asked for: its default may be bfloat16 on processors that have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on NumPy arrays; each call compiles a graph of its sizes."""

    def forward(*inputs: Any) -> Any:
        nodes = [
            None if a is None else openvino.opset8.parameter(a.shape, a.dtype)
            for a in inputs
        ]
        y = f(*nodes)
        used = {node.get_friendly_name() for node in openvino_inputs(y)}
        held = [
            (node, a)
            for node, a in zip(nodes, inputs)
            if node is not None and node.get_friendly_name() in used
        ]
        model = openvino.Model([y], [node for node, _ in held])
        how = {"INFERENCE_PRECISION_HINT": "f32"}
        run = openvino.Core().compile_model(model, "CPU", how)
        return np.array(run([np.ascontiguousarray(a) for _, a in held])[0])

    return forward


def openvino_inputs(node: Any) -> list[Any]:
    """The nodes whose outputs a node takes."""
    return [node.input_value(k).get_node() for k in range(node.get_input_size())]
