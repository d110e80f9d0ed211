"""A function on NumPy arrays, as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def forward_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """f itself; a result of one element alone is that element."""

    def forward(*inputs: Any) -> Any:
        y = f(*inputs)
        return y[0] if type(y) is tuple and len(y) == 1 else y

    return forward


def several_of(f: Callable[..., Any]) -> Callable[..., Any]:
    """A companion, which returns several."""
    return f
