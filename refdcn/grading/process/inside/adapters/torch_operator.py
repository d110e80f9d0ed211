"""A candidate that is an operator of torch: `torch:namespace::name`.

Its arguments are told by their names in its schema. Gradients are autograd's, where
something is registered for them. A file before it registers it:
`torch:file.py:namespace::name`, or a library that torch loads.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from ..called import device_of, tensors
from ..candidates import from_file
from ..named import facts, meanings
from ..routes import How, SpecError, Target
from .cabi import opened

WRITTEN = "torch:namespace::name, or torch:FILE:namespace::name"
AUTOGRAD = "Autograd", "AutogradCPU", "AutogradCUDA", "CompositeImplicitAutograd"


def attach(place: str, how: How) -> Target:
    """The operator's functions on NumPy arrays."""
    arrays = tensors(how)
    import torch

    before, colons, name = place.rpartition("::")
    file, _, namespace = before.rpartition(":")
    if not colons or not namespace or not name:
        raise SpecError(f"SPEC is 'torch:{place}'; it must be {WRITTEN}")
    register(file, namespace)
    operator = found(torch, namespace, name)
    f = by_schema(torch, operator)
    full = operator._schema.name, operator._schema.overload_name
    qualified = ".".join(filter(None, full))
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    grad = any(has(qualified, key) for key in AUTOGRAD)
    back = arrays.grad_of(f) if grad else None
    return Target(place, arrays.forward_of(f), back, device_of(arrays))


def register(file: str, namespace: str) -> None:
    """Import what registers the operator: a file, or the package of its name."""
    if file.endswith(".py"):
        from_file(file, "candidate")
    elif file:
        import torch

        try:
            torch.ops.load_library(file)
        except OSError as e:
            raise SpecError(f"torch cannot load {file}: {why_not(file) or e}") from e
    else:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(namespace)


def why_not(file: str) -> str:
    """What is wrong with a library, which torch does not say."""
    try:
        opened(file)
    except ImportError as e:
        return str(e)
    return ""


def found(torch: Any, namespace: str, name: str) -> Any:
    """The operator, of its first overload unless one is named."""
    name, _, overload = name.partition(".")
    try:
        packet = getattr(getattr(torch.ops, namespace), name)
        return getattr(packet, overload or packet.overloads()[0])
    except (AttributeError, RuntimeError) as e:
        raise SpecError(
            f"torch has no operator {namespace}::{name} here; what registers it must "
            f"be a package {namespace} or stand before it: {WRITTEN}"
        ) from e


def by_schema(torch: Any, operator: Any) -> Any:
    """The operator as f(x, offset, weight, mask, bias, **windows)."""
    arguments = operator._schema.arguments
    names = [a.name for a in arguments]
    spare = [a.name for a in arguments if a.has_default_value()]
    what = meanings(names, spare, str(operator._schema.name))
    tensors = {a.name for a in arguments if str(a.type) == "Tensor"}

    def f(*inputs: Any, **windows: Any) -> Any:
        of = facts(inputs, windows)
        given = {name: of[meant] for name, meant in what.items()}
        offset, weight = inputs[1], inputs[2]
        for name, meant in what.items():
            if given[name] is None and name in tensors:  # which stands for none
                ones = torch.ones_like(offset[:, ::2])
                none = {"mask": ones, "bias": weight.new_zeros(len(weight))}
                given[name] = none[meant]
        return operator(**given)

    return f
