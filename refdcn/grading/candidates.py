"""How a candidate is attached: `torchvision`, `module:f`, `path/file.py:f`.

It is called as f(x, offset, weight, mask, bias, stride=(..), padding=(..),
dilation=(..)). A companion f_grad(grad_y, x, ...) beside it returns the five
gradients; a candidate on torch tensors (array torch) has them by autograd.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

BUILT_IN = {"torchvision": "refdcn.grading.torchvision_adapter:torchvision"}


class SpecError(ValueError):
    """The SPEC names nothing that can be called."""


@dataclass(frozen=True)
class Target:
    """The candidate's functions."""

    name: str
    forward: Callable[..., Any]
    grad: Callable[..., Any] | None


def split(spec: str) -> tuple[str, str]:
    """Module or file, and function, of a SPEC."""
    spec = BUILT_IN.get(spec, spec)
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise SpecError(
            f"SPEC is {spec!r}; it must be torchvision, module:function or "
            "path/to/file.py:function, so that the grader knows what to call"
        )
    return place, name


def load(spec: str, array: str = "numpy") -> Target:
    """Import the candidate; only ever called in the candidate's process."""
    place, name = split(spec)
    if place.endswith(".py"):
        if not os.path.exists(place):
            raise SpecError(f"SPEC names the file {place}, which does not exist")
        sys.path.insert(0, os.path.dirname(os.path.abspath(place)))
        module_spec = importlib.util.spec_from_file_location("candidate", place)
        assert module_spec is not None and module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        sys.modules["candidate"] = module
        module_spec.loader.exec_module(module)
    else:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(place)
    f = getattr(module, name, None)
    if not callable(f):
        raise SpecError(f"{place} has no function {name}")
    grad = getattr(module, f"{name}_grad", None)
    if array == "torch":
        from refdcn.grading import torch_arrays

        return Target(spec, torch_arrays.forward_of(f), torch_arrays.grad_of(f))
    return Target(spec, f, grad)
