"""The memory that grader and candidate share; the grader owns and checks it.

Inputs lie between guards of NaN, results are copied behind them, over a
pattern that the grader left there.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array

REGION = 2**28  # bytes; a sparse file: only pages that are used cost
INPUTS, ELSEWHERE, RESULTS, EARLIER, SIZE = (k * REGION for k in range(5))
GUARD = b"\xff" * 64  # NaN in every dtype
Span = tuple[int, int]


class ReplyError(ValueError):
    """What came over the channel is no reply."""


def bytes_of(array: Array, layout: str) -> tuple[bytes, tuple[int, ...], int]:
    """The memory image, strides and start of `array` in one layout."""
    if layout == "contiguous" or array.ndim < 4 or array.size == 0:
        a = np.ascontiguousarray(array)
        return a.tobytes(), a.strides, 0
    if layout == "channels last":
        a = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        return a.tobytes(), a.transpose(0, 3, 1, 2).strides, 0
    N, C, h, w = array.shape  # every second column of a larger array
    wide = np.full((N, C, h, 2 * w + 1), 7, array.dtype)
    wide[..., 1::2] = array
    return wide.tobytes(), wide[..., 1::2].strides, array.itemsize


def sealed(name: str, size: int = 0) -> int:
    """A file in memory that no holder can make shorter, where the system can."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


class Arena:
    """The shared file, and what the grader put where."""

    def __init__(self) -> None:
        self.fd = sealed("refdcn", SIZE)
        self.map = mmap.mmap(self.fd, SIZE)
        self.images: dict[str, tuple[int, bytes]] = {}

    @property
    def base(self) -> int:
        """Its address in this process and in a fork of it."""
        first = np.frombuffer(self.map, np.uint8, 1)
        return int(first.__array_interface__["data"][0])

    def place(
        self, arrays: Mapping[str, Array | None], layout: str, at: int
    ) -> list[dict[str, Any] | None]:
        """Write the inputs from byte `at` on; the entries of a request."""
        entries: list[dict[str, Any] | None] = []
        self.images = {}
        for name, a in arrays.items():
            if a is None:
                entries.append(None)
                continue
            image, strides, start = bytes_of(a, layout)
            guarded = GUARD + image + GUARD
            self.map[at : at + len(guarded)] = guarded
            self.images[name] = at, guarded
            start += at + len(GUARD)
            entries.append(
                {
                    "dtype": a.dtype.name,
                    "shape": a.shape,
                    "strides": strides,
                    "at": start,
                }
            )
            at += len(guarded) + 64 - len(guarded) % 64
        return entries

    def changed(self) -> list[str]:
        """The inputs, guards included, that no longer hold what was put there."""
        return [
            name
            for name, (at, image) in self.images.items()
            if self.map[at : at + len(image)] != image
        ]

    def poison(self, nbytes: int, pattern: int) -> None:
        """Fill the place of the results."""
        nbytes = min(nbytes, REGION)
        self.map[RESULTS : RESULTS + nbytes] = bytes([pattern]) * nbytes

    def results(self, told: list[dict[str, Any]], at: int) -> list[Any]:
        """Copies of results that begin at `at`; of other objects their description.

        `told` is what the candidate's process says; nothing in it is trusted.
        """
        found: list[Any] = []
        end = at + REGION
        for one in told:
            if one["type"] != "array":
                found.append(None if one["type"] == "None" else str(one["type"]))
                continue
            shape, dtype = shape_of(one), np.dtype(one["dtype"])
            n = math.prod(shape)
            if dtype.hasobject or at + n * dtype.itemsize > end:
                raise ReplyError("a result that cannot lie where it must")
            a = np.frombuffer(self.map, dtype, n, at)
            found.append(a.reshape(shape).copy())
            at += n * dtype.itemsize
        return found

    def again(self, kept: list[Array]) -> list[bytes]:
        """What earlier results hold now, as the candidate's process copied it."""
        at, found = EARLIER, []
        for a in kept:
            found.append(self.map[at : at + a.nbytes])
            at += a.nbytes
        return found

    def sharing(self, told: list[dict[str, Any]], base: int) -> list[str]:
        """The inputs whose memory a result lies in; `base` the arena's address."""
        found: list[str] = []
        for span in filter(None, map(span_of, told)):
            low, high = span[0] - base, span[1] - base
            if low < SIZE and high > 0:
                inputs = [
                    name
                    for name, (at, image) in self.images.items()
                    if low < at + len(image) and high > at
                ]
                found += inputs or ["the grader's buffer"]
        return found

    def close(self) -> None:
        """Release it."""
        self.map.close()
        os.close(self.fd)


def shape_of(one: dict[str, Any]) -> tuple[int, ...]:
    """The shape that a reply tells, if it is one."""
    shape = one["shape"]
    if not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 32:
        raise ReplyError("a shape that is none")
    return tuple(shape)


def span_of(one: dict[str, Any]) -> Span | None:
    """First address of a result and the one behind its last; None if empty."""
    if one["type"] != "array" or 0 in shape_of(one):
        return None
    steps = [
        (n - 1) * int(s) for n, s in zip(one["shape"], one["strides"], strict=True)
    ]
    low = int(one["address"]) + sum(min(0, s) for s in steps)
    high = int(one["address"]) + sum(max(0, s) for s in steps)
    return low, high + np.dtype(one["dtype"]).itemsize
