"""A function on chainer's variables, whose gradients are chainer's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainer
import numpy as np


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on NumPy arrays, which chainer takes."""

    def forward(*inputs: Any) -> Any:
        with chainer.no_backprop_mode():
            return f(*inputs).array

    return forward


def grad_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """The gradients of f on NumPy arrays."""

    def grad(grad_y: Any, *inputs: Any) -> list[Any]:
        leaves = [None if a is None else chainer.Variable(a) for a in inputs]
        y = f(*leaves)
        y.grad = np.array(grad_y)
        y.backward()
        return [None if a is None else a.grad for a in leaves]

    return grad
