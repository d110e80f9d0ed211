"""refdcn: the reference of deformable convolution (DCNv2).

    y(p) = sum_k  w_k * x(p + p_k + dp_k) * dm_k

`refdcn.formula` is the definition. Everything is loaded when first used, modules such
as `refdcn.torch` too: importing refdcn itself costs nothing beyond NumPy.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refdcn import columns as columns
    from refdcn import cuda as cuda
    from refdcn import formula as formula
    from refdcn import layouts as layouts
    from refdcn import loops as loops
    from refdcn import plot as plot
    from refdcn import torch as torch
    from refdcn.gate.many import grade_many as grade_many
    from refdcn.grading import grade as grade
    from refdcn.ops import Gradients as Gradients
    from refdcn.ops import deform_conv2d as deform_conv2d
    from refdcn.ops import deform_conv2d_grad as deform_conv2d_grad
    from refdcn.threads import get_num_threads as get_num_threads
    from refdcn.threads import set_num_threads as set_num_threads

__version__ = "0.1.0"

_HOME = {
    "Gradients": "refdcn.ops",
    "deform_conv2d": "refdcn.ops",
    "deform_conv2d_grad": "refdcn.ops",
    "get_num_threads": "refdcn.threads",
    "grade": "refdcn.grading",
    "grade_many": "refdcn.gate.many",
    "set_num_threads": "refdcn.threads",
}
_MODULES = ("columns", "cuda", "formula", "layouts", "loops", "plot", "torch")

__all__ = [
    "Gradients",
    "deform_conv2d",
    "deform_conv2d_grad",
    "get_include",
    "get_num_threads",
    "grade",
    "grade_many",
    "set_num_threads",
]


def get_include() -> str:
    """The folder of refdcn.h, by which `refdcn grade cabi:..` calls kernels in C."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"refdcn.{name}")
    raise AttributeError(f"module 'refdcn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
