"""A candidate on CuPy's arrays, which are tensors of torch in the same memory.

So guards, the wait for all streams and results are those of torch_device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cupy
import torch


def array(t: Any) -> Any:
    """CuPy's view of a tensor."""
    return None if t is None else cupy.from_dlpack(t)


def tensor(a: Any) -> Any:
    """The tensor of CuPy's array; anything else is the grader's to judge."""
    return torch.from_dlpack(a) if isinstance(a, cupy.ndarray) else a


def on_tensors(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, or a companion, made a function on tensors."""

    def call(*tensors: Any, **windows: Any) -> Any:
        found = f(*map(array, tensors), **windows)
        if type(found) in (tuple, list):
            return [tensor(a) for a in found]
        return tensor(found)

    return call
