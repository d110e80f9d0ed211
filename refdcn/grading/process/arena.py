"""The memory that grader and candidate share; the grader owns and checks it.

Inputs lie between guards of NaN, results are copied behind them, over a
pattern that the grader left there.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from refdcn.grading.expected.case import Array
from refdcn.grading.process.reply_parser import ROOM, Placed

REGION = ROOM  # bytes; a sparse file: only pages that are used cost
RESULTS, EARLIER, SIZE = 2 * REGION, 3 * REGION, 4 * REGION  # inputs have two
GUARD = b"\xff" * 64  # NaN in every dtype


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


def layout_of(layout: str, name: str) -> str:
    """The layout of one input: of "channels last of grad_y" the others lie in order."""
    how, _, only = layout.partition(" of ")
    return how if only in ("", name) else "contiguous"


def sealed(name: str, size: int = 0) -> int:
    """A file in memory that no holder can make shorter, where the system can."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    import fcntl

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
        end = (at // REGION + 1) * REGION
        for name, a in arrays.items():
            if a is None:
                entries.append(None)
                continue
            image, strides, start = bytes_of(a, layout_of(layout, name))
            guarded = GUARD + image + GUARD
            if at + len(guarded) > end:
                raise ValueError(
                    f"{name} needs {len(guarded)} bytes where {max(0, end - at)} are "
                    f"left; the inputs of a call must fit into {REGION} bytes, since "
                    "results lie behind them"
                )
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

    def results(self, told: Sequence[Placed | str | None]) -> list[Any]:
        """Copies of the results; of other objects what is told of them."""
        found: list[Any] = []
        at = RESULTS
        for one in told:
            if not isinstance(one, Placed):
                found.append(one)
                continue
            a = np.frombuffer(self.map, one.dtype, math.prod(one.shape), at)
            found.append(a.reshape(one.shape).copy())
            at += one.nbytes
        return found

    def again(self, kept: list[Array]) -> list[bytes]:
        """What earlier results hold now, as the candidate's process copied it."""
        at, found = EARLIER, []
        for a in kept:
            found.append(self.map[at : at + a.nbytes])
            at += a.nbytes
        return found

    def sharing(self, told: Sequence[Placed | str | None], base: int) -> list[str]:
        """The inputs whose memory a result lies in; `base` the arena's address."""
        found: list[str] = []
        spans = (one.span for one in told if isinstance(one, Placed))
        for span in filter(None, spans):
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
