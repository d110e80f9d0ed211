"""Handwritten digits, and how they are rotated."""

from __future__ import annotations

import gzip
import math
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Array = np.ndarray[Any, np.dtype[np.uint8]]

# Every 12th training digit and every 5th test digit, in the order of the files: both
# halves of the test set, whose writers differ, are there.
EVERY = {"train": 12, "t10k": 5}


class Digits(NamedTuple):
    """Images uint8 [N, 28, 28], white on black, and labels uint8 [N]."""

    name: str
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array

    def first(self, train: int, test: int) -> Digits:
        return Digits(
            self.name, self.train_images[:train], self.train_labels[:train],
            self.test_images[:test], self.test_labels[:test],
        )  # fmt: skip


def embedded() -> Digits:
    """5,000 training and 2,000 test digits of MNIST, inside this package."""
    file = resources.files("refdcn") / "data" / "digits.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        return Digits("7,000 digits of MNIST", *(arrays[f] for f in Digits._fields[1:]))


def mnist(directory: str | Path) -> Digits:
    """All 70,000, from the four idx files, gzipped or not.

    They lie in `directory`, or below it as torchvision.datasets.MNIST leaves them.
    """
    arrays = [
        read_idx(find(Path(directory), f"{part}-{kind}-ubyte"))
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    return Digits("MNIST", *arrays)


def find(directory: Path, name: str) -> Path:
    folders = directory, directory / "raw", directory / "MNIST" / "raw"
    for folder in folders:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    places = ", ".join(map(str, folders))
    raise FileNotFoundError(f"--data: no {name} or {name}.gz in {places}")


def read_idx(path: Path) -> Array:
    """An array of bytes: two zeros, the type 8, the number of axes, sizes, values."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    axes = data[3] if data[:3] == b"\0\0\x08" else 0
    sizes = np.frombuffer(data[4:], ">u4", count=axes)
    if axes not in (1, 3) or len(data) != 4 + 4 * axes + math.prod(map(int, sizes)):
        raise ValueError(f"{path} is no idx file of bytes, or is cut off")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(sizes)


def subset(digits: Digits) -> dict[str, Array]:
    """What digits.npz holds, of all 70,000: np.savez_compressed(file, **subset(..))."""
    steps = (EVERY["train"],) * 2 + (EVERY["t10k"],) * 2
    fields = zip(Digits._fields[1:], digits[1:], steps, strict=True)
    return {name: array[::step] for name, array, step in fields}


def pixels(images: Array) -> Tensor:
    """float32 in [0, 1], [N, 1, 28, 28]."""
    return torch.from_numpy(images.copy()).float().div_(255).unsqueeze_(1)


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Each image [N, 1, H, W] turned by its angle [N], bilinear, zero outside."""
    a = torch.deg2rad(degrees)
    zero, cos, sin = torch.zeros_like(a), torch.cos(a), torch.sin(a)
    rows = torch.stack([cos, -sin, zero, sin, cos, zero], 1).reshape(-1, 2, 3)
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
