"""Blocks of images that are read or written from another image than their own first.

A pointer that advances by the block's number, not by its images; one that does not
advance at all is in packs.py for blocks of one size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.blocks import (
    DIVISORS,
    SIZES,
    at_most,
    divisor,
    first_of_last,
    own_bias,
)
from refdcn.grading.catalogue.mistake import Mistake, add, both, put
from refdcn.grading.catalogue.steps import State, upstream
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
FIELDS = {
    "image": ("x",),
    "offset": ("dp",),
    "mask": ("m",),
    "offset and mask": ("dp", "m"),
}
Rule = Callable[[int, int], int]  # images a block, of a size and the batch


def begun(field: str, size: int, rule: Rule, by: int) -> Callable[[State], Array]:
    """What block b finds from image `by` * b on, where it must be b blocks on."""

    def edit(s: State) -> Array:
        step = max(1, rule(size, s.z.N))
        block, own = np.divmod(np.arange(s.z.N), step)
        return np.asarray(getattr(s, field)[by * block + own])

    return edit


def written(size: int, rule: Rule, by: int) -> Callable[[State], None]:
    """Block b of the result lies from image `by` * b on; what is left over is 0."""

    def edit(s: State) -> None:
        step, y = max(1, rule(size, s.z.N)), np.zeros_like(s.y)
        for block, first in enumerate(range(0, s.z.N, step)):
            part = s.y[first : first + step]
            y[by * block : by * block + len(part)] = part
        s.y = y

    return edit


def led(size: int, rule: Rule, by: int) -> Callable[[State], None]:
    """grad_y of block b from image `by` * b on; not for the bias."""

    def edit(s: State) -> None:
        s.own_grad_y = s.grad_y
        s.grad_y = begun("grad_y", size, rule, by)(s)
        upstream(s)

    return edit


def last_alone(of: str, size: int, rule: Rule) -> Callable[[State], None]:
    """The gradient of the last block of images; that of all others is 0."""

    def edit(s: State) -> None:
        found = s.grads[of].copy()
        found[: first_of_last(s.z.N, size, rule)] = 0
        s.grads[of] = found

    return edit


def each_block(size: int) -> Callable[[State], None]:
    """The gradient of the bias, added once for each block of images."""

    def edit(s: State) -> None:
        blocks = -(-s.z.N // max(1, at_most(size, s.z.N)))
        s.grads["bias"] = s.grads["bias"] * blocks

    return edit


RULES: tuple[tuple[int, Rule], ...] = (
    *((n, at_most) for n in SIZES),
    *((n, divisor) for n in DIVISORS),
)


def images_of(size: int, rule: Rule) -> str:
    """The images of a block in words."""
    return f"{'up to ' if rule is divisor else ''}{size} images"


def by_own_size(field: str, size: int) -> Callable[[State], Array]:
    """What a last, smaller block finds from its number times its own size on."""

    def edit(s: State) -> Array:
        step, a = max(1, at_most(size, s.z.N)), getattr(s, field).copy()
        left = s.z.N % step
        if left:
            first = s.z.N // step * left
            a[s.z.N - left :] = getattr(s, field)[first : first + left]
        return np.asarray(a)

    return edit


def last_starts() -> None:
    """Where the inputs of a smaller last block begin."""
    for what, fields in FIELDS.items():
        for size in SIZES:
            text = (
                f"the {what} of a last block of fewer than {size} images is read from "
            )
            text += f"its number times its own size on, not times {size}"
            name = f"{what} of a last block of {size} images by its own size"
            edits = [put(field, by_own_size(field, size)) for field in fields]
            add(MISTAKES, "layout", "read", name, text, both(*edits))


def stale(size: int, modulated: bool) -> Callable[[State], None]:
    """Columns of samples outside are not written: they are those of the block before.

    `modulated`: with the mask, as they were summed; else the samples are kept.
    """

    def edit(s: State) -> None:
        inside = (s.qy > -1) & (s.qy < s.z.H) & (s.qx > -1) & (s.qx < s.z.W)
        m, written = s.m[:, :, None], inside[:, :, None]
        kept = (s.S * m if modulated else s.S).copy()
        step = max(1, at_most(size, s.z.N))
        for n in range(step, s.z.N):
            kept[n] = np.where(written[n], kept[n], kept[n - step])
        s.col = (kept if modulated else kept * m).reshape(s.col.shape)

    return edit


def left_over() -> None:
    """A workspace of columns that is not cleared."""
    for size in (1, *SIZES):
        block = f"block of {size} images" if size > 1 else "image"
        for modulated in (True, False):
            text = "samples outside the image are not written: their columns are those "
            text += f"of the {block} before, left in the workspace"
            name = f"columns of the {block} before{' and their mask' * modulated}"
            add(MISTAKES, "layout", "columns", name, text, stale(size, modulated))


def overlapped(of: str, size: int) -> Callable[[State], None]:
    """A gradient summed over a last block of images that is moved back to be whole."""

    def edit(s: State) -> None:
        N, once = s.z.N, s.grads[of]
        if N <= size or N % size == 0:
            return
        twice = slice(N - size, N // size * size)
        if of == "bias":
            more = s.go[twice].sum((0, 3, 4)).reshape(-1)
        else:
            terms = "nbouv,nbckuv->bock"
            more = np.einsum(terms, s.go[twice], s.col[twice], optimize=True)
        s.grads[of] = once + more.reshape(once.shape)

    return edit


def overlaps() -> None:
    """The sums over images of a last block that reaches back."""
    for size in SIZES:
        for of in ("weight", "bias"):
            name = f"d {of} of overlapping blocks of {size} images"
            text = f"the last block of {size} images is moved back to be whole: the "
            text += f"gradient of {of} counts the images that it shares twice"
            edits = (("backward", overlapped(of, size)),)
            MISTAKES.append(Mistake("gradients", name, text, edits))


def results() -> None:
    """Blocks of the result, and of grad_y."""
    for size, rule in RULES:
        images = images_of(size, rule)
        due = "not from b times the block's size on"
        at_number = f"the {{}} of block b of {images} is {{}} from image b on, {due}"
        for by, where, of_result, of_grad_y in (
            (
                1,
                f"of block b of {images} from image b on",
                at_number.format("result", "written"),
                at_number.format("grad_y", "read"),
            ),
            (
                0,
                f"of every block of {images} at the first",
                f"every block of {images} writes its result over that of the first",
                f"every block of {images} uses the grad_y of the first block",
            ),
        ):
            edits = (("contract", written(size, rule, by)),)
            MISTAKES.append(Mistake("layout", f"result {where}", of_result, edits))
            back = ("upstream", led(size, rule, by)), ("backward", own_bias)
            MISTAKES.append(Mistake("gradients", f"grad_y {where}", of_grad_y, back))
    for size, rule in RULES:
        for of in ("x", "offset", "mask"):
            name = f"d {of} of the last block of {images_of(size, rule)}"
            text = f"the gradient of {of} is 0 but for the last block of "
            text += images_of(size, rule)
            edits = (("backward", last_alone(of, size, rule)),)
            MISTAKES.append(Mistake("gradients", name, text, edits))
    for size in SIZES:
        name = f"d bias for each block of {size} images"
        text = f"the gradient of bias is added once for each block of {size} images"
        edits = (("backward", each_block(size)),)
        MISTAKES.append(Mistake("gradients", name, text, edits))


def starts() -> None:
    """Blocks of each size, and of divisors of the batch."""
    for what, fields in FIELDS.items():
        for size, rule in RULES:
            images = images_of(size, rule)
            edits = [put(f, begun(f, size, rule, 1)) for f in fields]
            add(
                MISTAKES,
                "layout",
                "read",
                f"{what} of block b of {images} from image b on",
                f"the {what} of block b of {images} is read from image b on, not from "
                "b times the block's size on",
                both(*edits),
            )
            if rule is divisor or what == "image":
                edits = [put(f, begun(f, size, rule, 0)) for f in fields]
                add(
                    MISTAKES,
                    "layout",
                    "read",
                    f"{what} of the first block of {images}",
                    f"every block of {images} uses the {what} of the first block",
                    both(*edits),
                )


starts()
last_starts()
results()
overlaps()
left_over()
