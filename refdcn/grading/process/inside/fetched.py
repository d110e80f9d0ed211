"""A result that lies on a device: what the worker reads of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

# What was seen during calls, by names that the grader knows.
CALLS_TORCHVISION, LEAVES_DEVICE = "calls torchvision", "leaves its device"
SEEN: Any = []


class Fetched(NamedTuple):
    """Where it lies, and how it is read, now or after later calls."""

    read: Callable[[], Any]  # its numbers, as an array of NumPy
    address: int  # one within the grader's memory where it lies in an input's copy
    strides: tuple[int, ...]  # in bytes
