"""The ways to a candidate: what a SPEC may be, and which file turns it into functions.

A SPEC is PREFIX:PLACE with a prefix of ROUTES, or else names a Python function. An
adapter's file has `attach(place, how)`, which loads the candidate in its own process
and returns its Target: functions on NumPy arrays, called as f(x, offset, weight, mask,
bias, stride=(..), padding=(..), dilation=(..)) and, where there are gradients, as
f_grad(grad_y, x, offset, ...). It raises SpecError with one sentence that says what is
missing. Nothing of refdcn but this folder is in that process, under Python 3.8 too.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

PYTHON = ""  # the prefix of what has none


class SpecError(ValueError):
    """The SPEC names nothing that can be called."""


class Target(NamedTuple):
    """The candidate's functions."""

    name: str
    forward: Callable[..., Any]
    grad: Callable[..., Any] | None
    device: Any = None  # where its tensors are, if that is asked for


class How(NamedTuple):
    """What was asked for beside the SPEC; sent to the candidate's process as JSON."""

    array: str = "numpy"
    like: str | None = None  # how it is called: a name of argument_orders.py
    companion: str | None = None  # the SPEC of its gradients
    runtime: str | None = None  # what runs a model of ONNX
    device: str | None = None  # where torch's tensors are


class Route(NamedTuple):
    """One way to a candidate."""

    adapter: str  # the module of this folder that attaches it
    form: str  # how the SPEC is written
    what: str  # what the candidate is
    heeds: tuple[str, ...] = ()  # which of OPTIONS


ROUTES = {
    PYTHON: Route(
        "candidates",
        "module:function or path/to/file.py:function",
        "a Python function",
        ("like", "companion"),
    ),
    "cabi": Route(
        "adapters.cabi", "library.so:function", "a function that includes refdcn.h"
    ),
    "cmd": Route(
        "adapters.commands",
        "'./run {in} {out}'",
        "a program that reads a file of arrays and writes another",
    ),
    "onnx": Route(
        "adapters.onnx_model", "MODEL.onnx", "a model of ONNX", ("companion", "runtime")
    ),
    "torch": Route(
        "adapters.torch_operator", "namespace::name", "a registered operator"
    ),
    "kernelbench": Route(
        "adapters.kernelbench", "FILE", "a file with Model or ModelNew"
    ),
}


def forms() -> str:
    """What a SPEC may look like."""
    prefixed = [f"{k}:{r.form}" for k, r in ROUTES.items() if k]
    return ", ".join([ROUTES[PYTHON].form, *prefixed])


def parted(spec: str) -> tuple[str, str]:
    """Prefix and place of a SPEC."""
    prefix, colon, place = spec.partition(":")
    if not colon or prefix not in ROUTES:
        return PYTHON, spec
    if not place:
        raise SpecError(
            f"SPEC is {spec!r}; nothing follows {prefix}:, where "
            f"{ROUTES[prefix].form} is wanted"
        )
    return prefix, place


PLAIN = How()
OPTIONS = {"like": "--as", "companion": "--grad", "runtime": "--runtime"}


def check_heeded(route: Route, how: How) -> None:
    """Raise SpecError where an option would be passed over."""
    for name, option in OPTIONS.items():
        value = getattr(how, name)
        if value is not None and name not in route.heeds:
            raise SpecError(f"{option} is {value!r}, which {route.what} has no use for")


def load(spec: str, how: How = PLAIN) -> Target:
    """Attach the candidate; only ever called in the candidate's process."""
    prefix, place = parted(spec)
    check_heeded(ROUTES[prefix], how)
    package = __name__.rpartition(".")[0]
    adapter = import_module(f"{package}.{ROUTES[prefix].adapter}")
    target: Target = adapter.attach(place, how)
    if how.device is not None and target.device is None:
        raise SpecError(
            f"device is {how.device!r}, and the candidate takes no tensors that could "
            "be there; --array torch gives it such"
        )
    return target
