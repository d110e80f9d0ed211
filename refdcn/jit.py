"""Compiling with Numba: cached on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit
from numba.extending import register_jitable as jitable

__all__ = ["compiled", "jitable"]


@cache
def compiled(function: Callable[..., Any], *fastmath: str) -> Callable[..., Any]:
    """`function` under njit, without the GIL; `fastmath` names LLVM's flags.

    A read-only installation without a writable home has no place for a cache: Numba
    raises when it decorates, and then the function is compiled in each process.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        return njit(**options)(function)  # type: ignore[no-any-return]
