"""What is timed: sizes of a call, its inputs, and the least that it must cost."""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from refdcn.shapes import output_size

Arrays: TypeAlias = dict[str, Any]
OPTIONS = {"k": "K_size", "s": "stride", "d": "dilation", "g": "groups"}
OPTIONS |= {"og": "offset_groups"}


class Workload(NamedTuple):
    """One deformable convolution, padded so that stride 1 keeps the image's size."""

    N: int
    C_in: int
    H: int
    W: int
    C_out: int
    K_size: int = 3  # of both kernel axes
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    offset_groups: int = 1

    def __str__(self) -> str:
        sizes = "x".join(map(str, self[:4]))
        defaults = self._field_defaults
        changed = (
            f",{letter}{getattr(self, name)}"
            for letter, name in OPTIONS.items()
            if getattr(self, name) != defaults[name]
        )
        return f"{sizes}->{self.C_out}{''.join(changed)}"

    @property
    def K(self) -> int:
        """Taps."""
        return self.K_size**2

    @property
    def padding(self) -> int:
        """On each side of both axes."""
        return self.dilation * (self.K_size - 1) // 2

    @property
    def output(self) -> tuple[int, int]:
        """H_out, W_out."""
        kernel, pads = self.K_size, 2 * self.padding
        rows, columns = (
            output_size(size, kernel, self.stride, pads, self.dilation)
            for size in (self.H, self.W)
        )
        return rows, columns

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every argument, and of y."""
        N, og, K, out = self.N, self.offset_groups, self.K, self.output
        kernel = (self.K_size, self.K_size)
        return {
            "x": (N, self.C_in, self.H, self.W),
            "offset": (N, 2 * og * K, *out),
            "weight": (self.C_out, self.C_in // self.groups, *kernel),
            "mask": (N, og * K, *out),
            "bias": (self.C_out,),
            "y": (N, self.C_out, *out),
        }


def parse(text: str) -> Workload:
    """NxCxHxW->C_out[,k3][,s1][,d1][,g1][,og1]; a colon may stand for the arrow.

    >>> parse("1x64x56x56:128,s2,og4")
    Workload(N=1, C_in=64, H=56, W=56, C_out=128, K_size=3, stride=2, dilation=1, \
groups=1, offset_groups=4)
    """
    sizes = r"(\d+)x(\d+)x(\d+)x(\d+)(?:->|:)(\d+)"
    found = re.fullmatch(sizes + r"((?:,(?:k|s|d|g|og)\d+)*)", text)
    if not found:
        raise ValueError(
            f"shape is {text!r}; wanted NxCxHxW->C_out, in a shell quoted or with a "
            "colon as 1x64x56x56:64, and after it any of ,k3 ,s1 ,d1 ,g1 ,og1: kernel "
            "size, stride, dilation, groups, offset groups"
        )
    *numbers, rest = found.groups()
    options = {OPTIONS[a]: int(b) for a, b in re.findall(r"([a-z]+)(\d+)", rest)}
    made = Workload(*map(int, numbers), **options)
    groups = made.groups, made.offset_groups
    if not all((*made, *made.output)) or made.output[0] < 0 or made.output[1] < 0:
        raise ValueError(f"shape is {text!r}; no size may be 0, nor y be empty")
    if made.C_in % math.lcm(*groups) or made.C_out % made.groups:
        raise ValueError(
            f"shape is {text!r}; groups and offset groups must divide {made.C_in} "
            f"channels of x, and groups {made.C_out} of y"
        )
    return made


def arrays(workload: Workload, dtype: str, seed: int = 0) -> Arrays:
    """Inputs and grad_y: offsets of 2 pixels (standard deviation), masks in [0, 1)."""
    random = np.random.default_rng(seed)
    shapes = workload.shapes
    made = {n: random.standard_normal(s, np.float32) for n, s in shapes.items()}
    made["offset"] *= 2
    made["mask"] = random.random(shapes["mask"], np.float32)
    made["grad_y"] = made.pop("y")
    return {name: a.astype(dtype, copy=False) for name, a in made.items()}


def product_flops(w: Workload) -> int:
    """Operations of the product in Eq. (5), as in the dense convolution; forward."""
    return 2 * w.N * math.prod(w.output) * w.C_out * (w.C_in // w.groups) * w.K


def sampling_flops(w: Workload) -> int:
    """Four multiply-adds a sampled value, Eq. (2); forward."""
    return 8 * w.N * math.prod(w.output) * w.C_in * w.K


def moved_bytes(w: Workload, dtype: str) -> int:
    """Each input read once and y written once; forward."""
    return np.dtype(dtype).itemsize * sum(map(math.prod, w.shapes.values()))


def column_bytes(w: Workload, dtype: str) -> int:
    """All samples of one image, where they are kept at once."""
    return np.dtype(dtype).itemsize * math.prod(w.output) * w.C_in * w.K


def memory_limit(w: Workload, dtype: str, threads: int, direction: str) -> int:
    """Bytes beyond inputs and outputs that an operator needs whatever its batch.

    Forward: one image, channels last in a frame of zeros, and 8 MB a thread; backward
    also one image of grad_x and a buffer of the weight's size a thread.
    """
    size = np.dtype(dtype).itemsize
    image = size * w.C_in * (w.H + 3) * (w.W + 2)
    if direction == "forward":
        return image + 8 * 10**6 * threads
    weight = size * math.prod(w.shapes["weight"])
    return 2 * image + (8 * 10**6 + weight) * threads
