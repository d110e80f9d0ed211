"""What a call needs before anything of Numba's CUDA target is imported."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any


@cache
def require_cuda() -> None:
    """Numba's CUDA target and a device, or an error that says what is missing.

    Asked at every call, and answered from memory once it was there.
    """
    if find_spec("numba_cuda") is None:
        raise ImportError(
            "the CUDA target needs the package numba-cuda, which is not installed: "
            'pip install "refdcn[cuda]"'
        )
    from numba import cuda

    if not cuda.is_available():
        raise RuntimeError(
            "numba-cuda finds no usable CUDA device; it needs an NVIDIA driver and, "
            'from pip, the toolkit of pip install "refdcn[cuda]" ("python -m numba -s" '
            "lists what it sees)"
        )


def library(a: Any) -> str:
    """The top module of the array's type: torch, cupy, numba, ..."""
    return type(a).__module__.partition(".")[0]
