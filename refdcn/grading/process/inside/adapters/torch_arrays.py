"""A candidate that takes torch tensors, and has its gradients by autograd.

Imported in the candidate's process only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def tensor(a: Any) -> Any:
    """A tensor on the same memory, of bfloat16 for uint16; None stays None."""
    if a is None:
        return None
    if a.dtype == np.uint16:
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def plain(a: Any) -> Any:
    """The array behind a tensor; anything else is the grader's to judge."""
    if not isinstance(a, torch.Tensor):
        return a
    if a.dtype == torch.bfloat16:  # NumPy has none: its bits
        return a.detach().view(torch.int16).numpy().view(np.uint16)
    return a.detach().numpy()


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f on NumPy arrays."""

    def forward(*inputs: Any, **windows: Any) -> Any:
        with torch.no_grad():
            return plain(f(*map(tensor, inputs), **windows))

    return forward


def grad_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """The five gradients of f on NumPy arrays, by autograd.

    Autograd is given a copy of grad_y: for one image and one output pixel the bias
    gradient that it returns is the very memory it was given.
    """

    def grad(grad_y: Any, *inputs: Any, **windows: Any) -> list[Any]:
        leaves = [None if a is None else tensor(a).requires_grad_() for a in inputs]
        y = f(*leaves, **windows)
        y.backward(tensor(grad_y).clone())
        return [None if a is None else plain(a.grad) for a in leaves]

    return grad


def several_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """A companion, on NumPy arrays."""
    return lambda *inputs: [plain(a) for a in f(*map(tensor, inputs))]
