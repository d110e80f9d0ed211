"""A function on paddle's tensors, whose gradients are paddle's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle


def tensor(a: Any) -> Any:
    """A tensor of the same values."""
    return None if a is None else paddle.to_tensor(np.ascontiguousarray(a))


def plain(t: Any) -> Any:
    """The array of a tensor; anything else is the grader's to judge."""
    return t.numpy() if isinstance(t, paddle.Tensor) else t


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on NumPy arrays."""

    def forward(*inputs: Any) -> Any:
        with paddle.no_grad():
            return plain(f(*map(tensor, inputs)))

    return forward


def grad_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """The gradients of f on NumPy arrays."""

    def grad(grad_y: Any, *inputs: Any) -> list[Any]:
        leaves = [tensor(a) for a in inputs]
        given = [a for a in leaves if a is not None]
        for a in given:
            a.stop_gradient = False
        found = iter(paddle.grad([f(*leaves)], given, [tensor(grad_y)]))
        return [None if a is None else plain(next(found)) for a in leaves]

    return grad


def several_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """A companion, on NumPy arrays."""
    return lambda *inputs: [plain(a) for a in f(*map(tensor, inputs))]
