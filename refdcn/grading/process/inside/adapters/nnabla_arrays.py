"""A function on nnabla's variables, whose gradients are nnabla's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nnabla as nn
import numpy as np


def variable(a: Any) -> Any:
    """A variable of the same values."""
    if a is None:
        return None
    return nn.Variable.from_numpy_array(np.ascontiguousarray(a)).apply(need_grad=True)


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on NumPy arrays."""

    def forward(*inputs: Any) -> Any:
        y = f(*map(variable, inputs))
        y.forward()
        return np.array(y.d)

    return forward


def grad_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """The gradients of f on NumPy arrays, each added to 0."""

    def grad(grad_y: Any, *inputs: Any) -> list[Any]:
        leaves = [variable(a) for a in inputs]
        for a in leaves:
            if a is not None:
                a.g = 0
        y = f(*leaves)
        y.forward()
        y.backward(np.array(grad_y))
        return [None if a is None else np.array(a.g) for a in leaves]

    return grad
