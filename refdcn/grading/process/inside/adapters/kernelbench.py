"""A candidate that is a module in a file: `kernelbench:FILE`, with ModelNew or Model.

Its `forward` takes these tensors, told by their names; a weight or bias that it does
not take is a parameter of the module, and is put in its place. Numbers, such as stride,
are arguments of `forward` or of `__init__`; what neither takes is fixed, and calls that
have another are refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..called import device_of, tensors
from ..candidates import from_file
from ..named import facts, meanings
from ..routes import How, SpecError, Target

CLASSES = "ModelNew", "Model"
PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
OF_WINDOWS = {
    "stride": ("stride", "stride_h"),
    "padding": ("padding", "pad_h", "pads"),
    "dilation": ("dilation", "dilation_h"),
}


def attach(place: str, how: How) -> Target:
    """The module's functions on NumPy arrays; its gradients are autograd's."""
    arrays = tensors(how)
    file = from_file(place, "candidate")
    name = next((c for c in CLASSES if isinstance(getattr(file, c, None), type)), None)
    if name is None:
        raise SpecError(f"{place} has neither a class {' nor a class '.join(CLASSES)}")
    f = Module(file, name, place).call
    return Target(place, arrays.forward_of(f), arrays.grad_of(f), device_of(arrays))


def arguments(f: Callable[..., Any], of: str) -> dict[str, str]:
    """What the arguments of a function are, told by their names."""
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    named = [p for p in inspect.signature(f).parameters.values() if p.kind not in kinds]
    names = [p.name for p in named if p.name != "self"]
    return meanings(names, [p.name for p in named if p.default is not p.empty], of)


class Module:
    """A class of modules, called as f(x, offset, weight, mask, bias, **windows)."""

    def __init__(self, file: ModuleType, name: str, place: str) -> None:
        self.kind, self.name = getattr(file, name), name
        self.taken = arguments(self.kind.forward, f"{name}.forward")
        lacking = {"x", "offset"} - set(self.taken.values())
        if lacking:
            raise SpecError(
                f"{name}.forward in {place} takes no {' and no '.join(sorted(lacking))}"
            )
        self.inputs: Callable[[], Any] = getattr(file, "get_init_inputs", list)
        self.made: dict[str, Any] = {}  # a module for each set of arguments
        try:
            self.made_with: dict[str, str] | None = arguments(self.kind.__init__, name)
        except SpecError:
            if not hasattr(file, "get_init_inputs"):
                raise
            self.made_with = None  # the file says what it is made with

    def model(self, of: dict[str, Any]) -> Any:
        """The module for the numbers of a call."""
        given = {name: of[what] for name, what in (self.made_with or {}).items()}
        for name, what in (self.made_with or {}).items():
            if what == "bias":  # whether it has one
                given[name] = of["bias"] is not None
        key = repr(sorted(given.items()))
        if key not in self.made:
            some = self.inputs() if self.made_with is None else []
            self.made[key] = self.kind(*some, **given).eval()
        return self.made[key]

    def check_fixed(self, model: Any, windows: dict[str, Any]) -> None:
        """Refuse a stride, padding or dilation that the module cannot be given."""
        known = {*self.taken.values(), *(self.made_with or {}).values()}
        for name, plain in PLAIN.items():
            if known & set(OF_WINDOWS[name]):
                continue
            fixed = getattr(model, name, plain)
            pair = (fixed, fixed) if isinstance(fixed, int) else tuple(fixed)
            if pair != tuple(windows[name]):
                only = f"only {name}_y == {pair[0]} and {name}_x == {pair[1]}"
                raise ValueError(
                    f"{name} is {pair} in every {self.name}; --gap '{only}' declares it"
                )

    def call(self, *inputs: Any, **windows: Any) -> Any:
        """y; a weight and bias that forward does not take become the module's."""
        from torch.func import functional_call

        of = facts(inputs, windows)
        model = self.model(of)
        self.check_fixed(model, windows)
        given = {name: of[what] for name, what in self.taken.items()}
        held = dict(model.named_parameters())
        own = {}
        for what in ("weight", "bias", "mask"):
            if what in self.taken.values() or of[what] is None:
                continue
            names = [n for n in held if n.rpartition(".")[2] == what]
            if what == "mask" or len(names) != 1:
                raise ValueError(f"{self.name} takes no {what} and holds none")
            own[names[0]] = of[what]
        return functional_call(model, own, (), given) if own else model(**given)
