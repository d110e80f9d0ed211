"""A function of another library, called with our arrays as its convention says."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from .argument_orders import DTYPES, convention_of
from .routes import How, SpecError

REFDCN = os.path.abspath(__file__)
for _ in range(4):
    REFDCN = os.path.dirname(REFDCN)
INPUTS = "x", "offset", "weight", "mask", "bias"
# What is no array and no size of a call: choices of a library.
FIXED = {
    "True": True,
    "offset_scale": 1.0,
    "im2col_step": 256,
    "remove_center": 0,
    "group_channels": 1,
    "d_stride": 1,
    "softmax": False,
}


def adapter(name: str) -> ModuleType:
    """A file of adapters/; one on another library's arrays imports that library."""
    package = __name__.rpartition(".")[0]
    try:
        return importlib.import_module(f"{package}.adapters.{name}")
    except ModuleNotFoundError as e:
        raise SpecError(f"this needs {e.name}, which is not installed here") from e


def tensors(how: How) -> Any:
    """What makes functions on torch's tensors functions on NumPy arrays."""
    if how.device is None:
        return adapter("torch_arrays")
    return adapter("torch_device").Device(how.device)


def device_of(arrays: Any) -> Any:
    """The device of such functions, where one was asked for."""
    return arrays if hasattr(arrays, "device") else None


def layouts() -> ModuleType:
    """refdcn.layouts, loaded from its file: refdcn itself is not imported here."""
    spec = importlib.util.spec_from_file_location(
        "layouts", os.path.join(REFDCN, "layouts.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def numbers(inputs: Sequence[Any], windows: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a call, under every name that a convention has for them.

    Wrongly sized inputs have some number of groups, too: the function must refuse.
    """
    x, offset, weight = inputs[:3]
    K = weight.shape[2], weight.shape[3]
    found = dict(FIXED, kernel_size=K, **windows)
    found["groups"] = max(1, x.shape[1] // max(1, weight.shape[1]))
    found["offset_groups"] = max(1, offset.shape[1] // (2 * K[0] * K[1]))
    for name, pair in (("K", K), ("stride", windows["stride"])):
        found[f"{name}_h"], found[f"{name}_w"] = pair
    found["dilation_h"], found["dilation_w"] = windows["dilation"]
    (p_h, p_w) = found["pad_h"], found["pad_w"] = windows["padding"]
    found.update(pads_begin=[p_h, p_w], pads_end=[p_h, p_w], pads=[p_h, p_w, p_h, p_w])
    found["pads_4"] = (p_h, p_h, p_w, p_w)
    found["strides_4"] = (1, 1, *windows["stride"])
    found["dilations_4"] = (1, 1, *windows["dilation"])
    return found


def parameters(f: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """Those that a function names; None where it takes whatever comes."""
    try:
        named = inspect.signature(f).parameters
    except (TypeError, ValueError):
        return None
    kinds = {p.kind for p in named.values()}
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else named


class Called:
    """f as `name` is called; forward and grad take and return NumPy arrays."""

    def __init__(
        self, how: How, f: Callable[..., Any], companion: Callable[..., Any] | None
    ) -> None:
        assert how.like is not None
        name = how.like
        self.name, self.companion = name, companion
        self.convention = convention_of(name)
        self.arrays, self.layouts = (
            adapter(f"{self.convention.array}_arrays"),
            layouts(),
        )
        self.f = getattr(self.arrays, "prepared", lambda f: f)(f)
        lays = self.layouts.LIBRARIES
        self.moves = name in lays and lays[name][:2] != lays["refdcn"][:2]
        self.depthwise = name not in lays  # no weight: DCNv3 and its like
        self.given = list(self.wanted(parameters(self.f)))
        self.whats = [what for _, what in self.given]
        self.has_grad = companion is not None or hasattr(self.arrays, "grad_of")
        self.check()

    def wanted(self, named: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
        """Keyword, if it has one, and what is given, of each argument."""
        for argument in self.convention.arguments.split():
            keyword, _, what = argument.rpartition("=")
            plain = what.rstrip("?")
            if plain == what or named is None or plain in named:
                yield keyword, plain

    def check(self) -> None:
        """Raise SpecError where the function cannot be called so."""
        arguments, keywords = self.arranged({what: None for what in self.whats})
        try:
            given = inspect.signature(self.f)
        except (TypeError, ValueError):
            return  # compiled without one: the calls will tell
        try:
            given.bind(*arguments, **keywords)
        except TypeError as e:
            written = self.convention.arguments.replace(" ", ", ")
            raise SpecError(
                f"the function has the signature {given}; as {self.name} it must be "
                f"callable as ({written}): {e}"
            ) from None

    def arranged(self, of: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments in their order, and those with keywords."""
        arguments = [of[what] for keyword, what in self.given if not keyword]
        return arguments, {keyword: of[what] for keyword, what in self.given if keyword}

    def forward(self, *inputs: Any, **windows: Any) -> Any:
        """y."""
        self.check_dtype(inputs[0])
        facts, bias = numbers(inputs, windows), inputs[4]

        def call(*tensors: Any) -> Any:
            return self.invoke(dict(zip(INPUTS, tensors), **facts))

        y = self.arrays.forward_of(call)(*self.there(inputs))
        if "bias" in self.whats or bias is None or self.depthwise:
            return y
        return y + bias[:, None, None]

    def invoke(self, of: Mapping[str, Any]) -> Any:
        """The library's y, of its tensors."""
        if self.depthwise:
            spread, y_of = adapter("depthwise").spread(self.layouts, of)
            of = dict(of, **spread)
        arguments, keywords = self.arranged(of)
        y = self.f(*arguments, **keywords)
        return y_of(y) if self.depthwise else y

    def grad(self, grad_y: Any, *inputs: Any, **windows: Any) -> Any:
        """The five gradients: of the companion, or by the library's own means.

        A companion is called as the function is, with grad_y before, and returns the
        gradients of the arrays in the order in which it takes them.
        """
        self.check_dtype(inputs[0])
        facts, there = numbers(inputs, windows), self.there(inputs)
        if self.companion is None:

            def call(*tensors: Any) -> Any:
                return self.invoke(dict(zip(INPUTS, tensors), **facts))

            return self.back(self.arrays.grad_of(call)(grad_y, *there), inputs[2])
        companion, names = self.companion, [w for w in self.whats if w in INPUTS]

        def both(grad: Any, *tensors: Any) -> Any:
            arguments, keywords = self.arranged(dict(zip(INPUTS, tensors), **facts))
            found = dict(zip(names, companion(grad, *arguments, **keywords)))
            return [found.get(name) for name in INPUTS]

        return self.back(self.arrays.several_of(both)(grad_y, *there), inputs[2])

    def check_dtype(self, x: Any) -> None:
        """Refuse what the library computes in another precision, or not at all."""
        name, known = x.dtype.name, self.convention.dtypes
        if name in DTYPES and name not in known:
            raise TypeError(
                f"{self.name} computes in {', '.join(known)}; not in {name}"
            )

    def there(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs, offset and mask as the library lays them out."""
        x, offset, weight, mask, bias = inputs
        if self.moves:
            kernel = weight.shape[2:]
            found = self.layouts.to_library(self.name, offset, mask, kernel_size=kernel)
            offset, mask = (*found, None)[:2]
        return [x, offset, weight, mask, bias]

    def back(self, grads: Sequence[Any], weight: Any) -> list[Any]:
        """Gradients of the library's offset and mask as those of ours."""
        x, offset, w, mask, bias = grads
        if self.moves and offset is not None:
            kernel = weight.shape[2:]
            offset, mask = self.layouts.from_library(
                self.name, offset, mask, kernel_size=kernel
            )
        return [x, offset, w, mask, bias]
