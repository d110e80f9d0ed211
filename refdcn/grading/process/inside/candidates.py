"""A candidate that is a Python function: a known name, `module:f` or `path/file.py:f`.

It is called as f(x, offset, weight, mask, bias, stride=(..), padding=(..),
dilation=(..)). A companion f_grad(grad_y, x, ...) beside it returns the five
gradients; a candidate on torch tensors (array torch) has them by autograd.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .called import Called, adapter, device_of, numbers, parameters, tensors
from .routes import PLAIN, PYTHON, How, SpecError, Target, forms, parted

HERE = os.path.dirname(os.path.abspath(__file__))
OURS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "own_operators")
ON_TORCH = "torchvision"  # the one of these that takes tensors
# Ours are graded like any other: against formula.py, in a process of their own.
BUILT_IN = {
    "torchvision": f"{HERE}{os.sep}adapters{os.sep}torchvision.py:torchvision",
    "formula": "refdcn.formula:deform_conv2d",
    "loops": f"{OURS}{os.sep}loops.py:deform_conv2d",
    "refdcn": "refdcn:deform_conv2d",
}
INPUTS = "x", "offset", "weight", "mask", "bias"
GROUPS = "groups", "offset_groups"
WINDOWS = "stride", "padding", "dilation"


LIBRARIES = ".so", ".dylib", ".dll"


def split(spec: str) -> tuple[str, str]:
    """Module or file, and function, of a SPEC without a prefix."""
    place, colon, name = BUILT_IN.get(spec, spec).rpartition(":")
    if not colon or not place or not name:
        raise SpecError(
            f"SPEC is {spec!r}; it must be {', '.join(BUILT_IN)}, {forms()}, so that "
            "the grader knows what to call"
        )
    if place.endswith(LIBRARIES):
        raise SpecError(
            f"SPEC is {spec!r}, a function of a library that Python cannot import; "
            f"with a C interface it is cabi:{spec}"
        )
    return place, name


def check(spec: str) -> None:
    """Raise SpecError where a SPEC cannot name a candidate."""
    if parted(spec)[0] == PYTHON:
        split(spec)


def from_file(path: str, name: str) -> ModuleType:
    """The module in a file, outside of any package."""
    if not os.path.exists(path):
        raise SpecError(f"SPEC names the file {path}, which does not exist")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"SPEC names the file {path}, which is none of Python's")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def attach(spec: str, how: How) -> Target:
    """Import the candidate; only ever called in the candidate's process."""
    f, grad = functions(spec)
    if how.companion is not None:
        grad, _ = functions(how.companion)
    how = how._replace(array="torch") if spec == ON_TORCH else how
    return adapted(spec, f, grad, how)


def functions(spec: str) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
    """The function of a SPEC, and the companion beside it."""
    place, name = split(spec)
    if place.endswith(".py"):
        if spec not in BUILT_IN:  # beside those lie modules with common names
            sys.path.insert(0, os.path.dirname(os.path.abspath(place)))
        module = from_file(place, "candidate")
    else:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(place)
    f = within(module, name)
    if not callable(f):
        raise SpecError(f"{place} has no function {name}")
    return f, within(module, f"{name}_grad")


def within(module: ModuleType, name: str) -> Any:
    """What a module holds under a name, which may have dots; None where it does not."""
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def check_signature(name: str, f: Callable[..., Any], *inputs: str) -> None:
    """Raise SpecError where a function cannot be called as candidates are."""
    try:
        given = inspect.signature(f)
    except (TypeError, ValueError):
        return  # compiled without one: the calls will tell
    try:
        given.bind(*inputs, **dict.fromkeys([*WINDOWS, *groups_of(f)]))
    except TypeError as e:
        windows = [f"{window}=(.., ..)" for window in WINDOWS]
        raise SpecError(
            f"{name} has the signature {given}; it must be callable as "
            f"({', '.join([*inputs, *windows])}): {e}"
        ) from None


def groups_of(f: Callable[..., Any]) -> list[str]:
    """Which of the numbers of groups a function asks for by name."""
    named = parameters(f) or {}
    return [name for name in GROUPS if name in named]


def with_groups(f: Callable[..., Any], given: int = 0) -> Callable[..., Any]:
    """f, given the numbers of groups that it asks for; `given` inputs come before x."""
    names = groups_of(f)
    if not names:
        return f

    def call(*inputs: Any, **windows: Any) -> Any:
        found = numbers(inputs[given:], windows)
        return f(*inputs, **windows, **{name: found[name] for name in names})

    return call


def adapted(
    name: str,
    f: Callable[..., Any],
    grad: Callable[..., Any] | None,
    how: How = PLAIN,
) -> Target:
    """Functions on NumPy arrays; those on torch tensors have autograd's gradients."""
    if how.like is not None:
        called = Called(how, f, grad)
        back = called.grad if called.has_grad else None
        return Target(name, called.forward, back, device_of(called.arrays))
    on_torch = how.array == "torch"
    check_signature(name, f, *INPUTS)
    if grad is not None and not on_torch:
        check_signature(f"{name}_grad", grad, "grad_y", *INPUTS)
        grad = with_groups(grad, 1)
    f = with_groups(f)
    if how.array == "numpy":
        return Target(name, f, grad)
    if how.array == "cupy":
        cupy = adapter("cupy_arrays")
        arrays = tensors(how._replace(device=how.device or "cuda"))
        back = None if grad is None else arrays.several_of(cupy.on_tensors(grad))
        return Target(name, arrays.forward_of(cupy.on_tensors(f)), back, arrays)
    arrays = tensors(how)
    return Target(name, arrays.forward_of(f), arrays.grad_of(f), device_of(arrays))


def own(spec: str, package: str) -> bool:
    """Whether a SPEC names a package that holds the operator, or a part of it."""
    prefix, place = parted(spec)
    if prefix != PYTHON:
        return place.partition(":")[0] == package
    if spec in BUILT_IN:
        return package == (spec if spec == "torchvision" else "refdcn")
    return split(spec)[0].partition(".")[0] == package
