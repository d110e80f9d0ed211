"""Mistakes of kernels that take blocks of images.

A product over a block of images gives (output channel, image, pixel); the result is
(image, output channel, pixel), and a block that is not turned back holds another's.
The last block may be smaller than the others: it is left out, or alone remains.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import Edit, State, upstream
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
SIZES = (2, 4, 8, 16, 32, 64)
DIVISORS = (4, 8, 32)  # up to which a divisor of N is taken
WHOLE = 0  # all images are one block


def at_most(size: int, N: int) -> int:
    """Images a block; the last block is what is left."""
    return min(size, N) if size else N


def divisor(size: int, N: int) -> int:
    """The largest number of images up to `size` that divides the batch."""
    return max((k for k in range(1, min(size, N) + 1) if N % k == 0), default=1)


def unturned(a: Array, step: int, back: bool) -> Array:
    """(image, channel, ...) kept block by block in the other order, and read as is.

    `back`: what is (image, channel) in memory is read as (channel, image).
    """
    found = a.copy()
    for first in range(0, len(a), max(1, step)):
        block = a[first : first + step]
        n, channels, *rest = block.shape
        if back:
            turned = block.reshape(channels, n, *rest).swapaxes(0, 1)
        else:
            turned = block.swapaxes(0, 1).reshape(block.shape)
        found[first : first + step] = turned
    return found


def of_result(size: int, rule: Callable[[int, int], int]) -> Callable[[State], None]:
    """y of each block in the order of the product."""

    def edit(s: State) -> None:
        s.y = unturned(s.y, rule(size, s.z.N), False)

    return edit


def of_grad_y(size: int, rule: Callable[[int, int], int]) -> Callable[[State], None]:
    """grad_y of each block read in the order of the product; not for the bias."""

    def edit(s: State) -> None:
        s.own_grad_y = s.grad_y
        s.grad_y = unturned(s.grad_y, rule(size, s.z.N), True)
        upstream(s)

    return edit


def own_bias(s: State) -> None:
    """The gradient of the bias is a sum of grad_y as it came."""
    s.grads["bias"] = s.own_grad_y.sum((0, 2, 3))


def unturned_alone(
    of: str, size: int, rule: Callable[[int, int], int]
) -> Callable[[State], None]:
    """One gradient alone of a grad_y that is read in the order of the product."""

    def edit(s: State) -> None:
        go = unturned(s.grad_y, rule(size, s.z.N), True)
        s.grads[of] = of_grad_y_as(s, go, of)

    return edit


def of_grad_y_as(s: State, go: Array, of: str) -> Array:
    """The gradient of the bias or the weight with another grad_y."""
    if of == "bias":
        return np.asarray(go.sum((0, 2, 3)))
    go = go.reshape(s.go.shape)
    return np.asarray(np.einsum("nbouv,nbckuv->bock", go, s.col, optimize=True))


def unturned_columns(size: int, rule: Callable[[int, int], int]) -> Edit:
    """The gradient of the weight with columns in the order of the product."""

    def edit(s: State) -> None:
        step, z = rule(size, s.z.N), s.z
        col = s.col.reshape(z.N, z.C_in * s.K, *s.out)
        col = unturned(col, step, True).reshape(s.col.shape)
        found = np.einsum("nbouv,nbckuv->bock", s.go, col, optimize=True)
        s.grads["weight"] = found

    return "backward", edit


def channels_last(of: str) -> Callable[[State], None]:
    """One gradient of a grad_y whose memory is taken for (image, pixel, channel)."""

    def edit(s: State) -> None:
        N, C, *out = s.grad_y.shape
        go = s.grad_y.reshape(N, -1, C).swapaxes(1, 2).reshape(N, C, *out)
        s.grads[of] = of_grad_y_as(s, go, of)

    return edit


def left_out(s: State, size: int) -> slice:
    """The images beyond whole blocks."""
    return slice(s.z.N - s.z.N % max(1, at_most(size, s.z.N)), None)


def without(a: Array, images: slice) -> Array:
    """Zero where those images are."""
    b = a.copy()
    b[images] = 0
    return b


def without_rest(size: int) -> tuple[Edit, ...]:
    """The images beyond whole blocks are neither computed nor given gradients."""

    def forward(s: State) -> None:
        s.y = without(s.y, left_out(s, size))

    def back(s: State) -> None:
        s.own_grad_y = s.grad_y
        s.go, s.g = (without(a, left_out(s, size)) for a in (s.go, s.g))

    return ("contract", forward), ("upstream", back), ("backward", own_bias)


def first_of_last(N: int, size: int, rule: Callable[[int, int], int]) -> int:
    """The first image of the last block."""
    step = max(1, rule(size, N))
    return (N - 1) // step * step


def last_block(size: int, rule: Callable[[int, int], int]) -> Callable[[State], None]:
    """The gradient of the weight from the last block alone."""

    def edit(s: State) -> None:
        first = first_of_last(s.z.N, size, rule)
        go, col = s.go[first:], s.col[first:]
        s.grads["weight"] = np.einsum("nbouv,nbckuv->bock", go, col, optimize=True)

    return edit


def last_blocks() -> None:
    """What becomes of the last block, for each size."""
    for size in SIZES:
        rest = f"images beyond the last multiple of {size} are not computed"
        MISTAKES.append(Mistake("layout", rest, rest, without_rest(size)))
    rules = *((size, at_most) for size in SIZES), *((n, divisor) for n in DIVISORS)
    for size, rule in rules:
        images = f"{'up to ' * (rule is divisor)}{size} images"
        keeps = f"the gradient of weight keeps only the last block of {images}"
        edits = (("backward", last_block(size, rule)),)
        name = f"d weight of the last block of {images}"
        MISTAKES.append(Mistake("gradients", name, keeps, edits))


def blocks() -> None:
    """Blocks of each size, with what is left in the last, and of divisors of N."""
    for size, rule in (
        (WHOLE, at_most),
        *((n, at_most) for n in SIZES),
        *((n, divisor) for n in DIVISORS),
    ):
        images = f"a block of {size} images" if size else "the batch"
        if rule is divisor:
            images = f"a block of up to {size} images"
        text = f"images and {{}}channels of {images} are interchanged"
        name = f"channels of {images} first"
        y = text.format("output ") + ": its result is not transposed back"
        MISTAKES.append(
            Mistake("layout", name, y, (("contract", of_result(size, rule)),))
        )
        edits = ("upstream", of_grad_y(size, rule)), ("backward", own_bias)
        of_grads = text.format("") + " in grad_y: it is not transposed"
        MISTAKES.append(Mistake("gradients", f"{name} in grad_y", of_grads, edits))
        if size == SIZES[-1]:
            continue  # one gradient is seen in smaller batches alone
        for of in ("bias", "weight"):
            one = f"the gradient of {of} takes grad_y of {images} for (channel, image)"
            said = f"{one}: it is not transposed"
            alone = (("backward", unturned_alone(of, size, rule)),)
            MISTAKES.append(Mistake("gradients", f"d {of} with {name}", said, alone))
        one = f"the gradient of weight takes the columns of {images} for"
        said = f"{one} (channel, image): they are not transposed"
        made = (unturned_columns(size, rule),)
        MISTAKES.append(
            Mistake("gradients", f"d weight with columns, {name}", said, made)
        )
    for of in ("bias", "weight"):
        said = f"the gradient of {of} takes the memory of grad_y for channels last"
        last = (("backward", channels_last(of)),)
        MISTAKES.append(Mistake("gradients", f"d {of} of channels last", said, last))


blocks()
last_blocks()
