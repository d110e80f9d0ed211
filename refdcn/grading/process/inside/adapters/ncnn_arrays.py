"""ncnn's layer DeformableConv2D, in a network of its own for each call.

A network takes one image; images are called one after another. Its network's weights
come from a file, which lies in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import ncnn
import numpy as np

TYPE = "DeformableConv2D"
FLOAT32 = np.zeros(1, np.uint32)  # the mark before weights that are float32
EXTRACTED = 0  # what a network returns when all is well


def described(weight: Any, mask: Any, bias: Any, windows: dict[str, Any]) -> str:
    """The network: its inputs and the layer, whose numbers have numbers."""
    C_out, _, K_h, K_w = weight.shape
    (s_h, s_w), (p_h, p_w) = windows["stride"], windows["padding"]
    d_h, d_w = windows["dilation"]
    given = {0: C_out, 1: K_w, 11: K_h, 2: d_w, 12: d_h, 3: s_w, 13: s_h}
    given.update({4: p_w, 15: p_w, 14: p_h, 16: p_h, 6: weight.size})
    given[5] = int(bias is not None)
    names = ["x", "offset"] if mask is None else ["x", "offset", "mask"]
    layers = [f"Input {name} 0 1 {name}" for name in names]
    numbers = " ".join(f"{k}={value}" for k, value in sorted(given.items()))
    layers.append(f"{TYPE} y {len(names)} 1 {' '.join(names)} y {numbers}")
    return "\n".join(["7767517", f"{len(layers)} {len(names) + 1}", *layers, ""])


def images(make: Callable[..., Any], inputs: Any, windows: Any) -> Iterator[Any]:
    """y of each image in turn."""
    x, offset, weight, mask, bias = inputs
    weights = [FLOAT32.tobytes(), np.ascontiguousarray(weight).tobytes()]
    weights += [] if bias is None else [np.ascontiguousarray(bias).tobytes()]
    network = make()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = 1
    for k in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(network.opt, k, False)
    network.opt.use_bf16_storage = False
    file = os.memfd_create("weights")
    try:
        os.write(file, b"".join(weights))
        network.load_param_mem(described(weight, mask, bias, windows))
        if network.load_model(f"/proc/self/fd/{file}"):
            raise RuntimeError(f"ncnn cannot load {TYPE}")
        for n in range(len(x)):
            extractor = network.create_extractor()
            for name, a in (("x", x), ("offset", offset), ("mask", mask)):
                if a is not None:
                    extractor.input(name, ncnn.Mat(np.ascontiguousarray(a[n])).clone())
            code, y = extractor.extract("y")
            if code != EXTRACTED:
                raise RuntimeError(f"ncnn ends {TYPE} with {code}")
            yield np.array(y)
    finally:
        os.close(file)


def prepared(make: Callable[..., Any]) -> Callable[..., Any]:
    """y of all images, of the function that makes a network."""
    return lambda *given, **windows: np.stack(list(images(make, given, windows)))


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on NumPy arrays, which `prepared` takes."""
    return f
