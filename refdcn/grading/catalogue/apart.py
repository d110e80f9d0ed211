"""Mistakes in where images begin: they lie as far apart as those of another array.

An address is n times the size of an image; taken from another array, it is right for
one image alone. What lies past the end of the memory depends on the kernel: anything,
nothing, or, where addresses are taken modulo its size, its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from refdcn.grading.catalogue.blocks import own_bias
from refdcn.grading.catalogue.layout import (
    APART,
    PASTS,
    fetched,
    plane_addresses,
    spaced,
)
from refdcn.grading.catalogue.mistake import Mistake
from refdcn.grading.catalogue.steps import Edit, State, upstream
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
FIELDS = {"x": "x", "offset": "dp", "mask": "m"}  # what of the state holds an input
SIZES: dict[str, Callable[[State], int]] = {  # of an image
    "x": lambda s: s.z.C_in * s.z.H * s.z.W,
    "offset": lambda s: 2 * s.z.offset_groups * s.K * s.out[0] * s.out[1],
    "mask": lambda s: s.z.offset_groups * s.K * s.out[0] * s.out[1],
    "y": lambda s: s.z.C_out * s.out[0] * s.out[1],
}


def starts(s: State, of: str) -> Array:
    """Where images begin that are as large as those of another array."""
    return np.asarray(np.arange(s.z.N) * SIZES[of](s))


def places(a: Array, first: Array) -> Array:
    """The addresses of an array's numbers, [image, number]."""
    size = a.size // max(1, len(a))
    return np.asarray(first[:, None] + np.arange(size))


def read_at(a: Array, first: Array, past: str) -> Array:
    """Images that are read from other addresses on."""
    return fetched(a, places(a, first), past).reshape(a.shape)


def written_at(a: Array, first: Array, past: str, adds: bool) -> Array:
    """Images that are written, or added, from other addresses on; 0 elsewhere."""
    return written(a, places(a, first), past, adds)


def written(a: Array, at: Array, past: str, adds: bool) -> Array:
    """What is written to other addresses, one image after another."""
    into, at = np.zeros(a.size), at.reshape(len(a), -1)
    if past == "wrap" and a.size:
        at = at % a.size
    for n, image in enumerate(a.reshape(len(a), -1)):
        there = at[n] < a.size
        if adds:
            np.add.at(into, at[n][there], image[there])
        else:
            into[at[n][there]] = image[there]
    return into.reshape(a.shape)


def reading(of: str, like: str, past: str) -> Callable[[State], None]:
    """An input whose images begin elsewhere."""

    def edit(s: State) -> None:
        if of == "mask" and s.mask is None:
            return
        a = getattr(s, FIELDS[of])
        setattr(s, FIELDS[of], read_at(a, starts(s, like), past))

    return edit


def reading_grad_y(like: str, past: str) -> tuple[Edit, ...]:
    """grad_y whose images begin elsewhere; not for the bias."""

    def edit(s: State) -> None:
        s.own_grad_y = s.grad_y
        s.grad_y = read_at(s.grad_y, starts(s, like), past)
        upstream(s)

    return ("upstream", edit), ("backward", own_bias)


def known(s: State, of: str) -> Array:
    """A gradient; of the offset NaN where samples lie on a whole row or column.

    A slope there is any, and no convention knows it where it has been moved to.
    """
    if of != "offset":
        return np.asarray(s.grads[of])
    whole = (s.qy == np.floor(s.qy)) | (s.qx == np.floor(s.qx))
    return np.where(whole[:, :, :, None], np.nan, s.grads[of])


def writing(of: str, like: str, past: str, adds: bool) -> Edit:
    """A result whose images begin elsewhere."""

    def result(s: State) -> None:
        s.y = written_at(s.y, starts(s, like), past, adds)

    def gradient(s: State) -> None:
        s.grads[of] = written_at(known(s, of), starts(s, like), past, adds)

    return ("contract", result) if of == "y" else ("backward", gradient)


def enter(kind: str, name: str, text: str, past: str, edits: tuple[Edit, ...]) -> None:
    """One of them."""
    beyond = past == "anything" or name.startswith("d offset")
    MISTAKES.append(Mistake(kind, f"{name}, {past} past it", text, edits, beyond))


def is_apart(of: str, like: str, past: str, adds: bool = True) -> bool:
    """Whether it is a row of its own.

    Images as large as those of the mask never leave the memory of the offset, and the
    other way round none meet before it ends.
    """
    if (of, like) == ("offset", "mask"):
        return past == "nothing"
    apart = (of, like, past) == ("mask", "offset", "nothing")
    return of != like and (adds or not apart)


def images() -> None:
    """Each array with the size of each other one."""
    for like in SIZES:
        at = f"at n times the size of an image of {like}, not of {{}}"
        for past in PASTS:
            for of in FIELDS:
                if is_apart(of, like, past):
                    edits: tuple[Edit, ...] = (("read", reading(of, like, past)),)
                    text = f"image n of {of} is read {at.format(of)}"
                    enter("layout", f"{of} at images of {like}", text, past, edits)
            if like != "y":
                text = f"image n of grad_y is read {at.format('y')}"
                back = reading_grad_y(like, past)
                enter("gradients", f"grad_y at images of {like}", text, past, back)
        for past in PASTS[1:]:
            if like != "y":
                text = f"image n of the result is written {at.format('y')}"
                edits = (writing("y", like, past, False),)
                enter("layout", f"result at images of {like}", text, past, edits)
            for of in FIELDS:
                for adds in (True, False) if of != "x" else (True,):
                    if not is_apart(of, like, past, adds):
                        continue
                    text = f"image n of the gradient of {of} is written"
                    text = f"{text} {at.format(of)}"
                    name = f"d {of} {'added' if adds else 'written'}"
                    edits = (writing(of, like, past, adds),)
                    enter("gradients", f"{name} at images of {like}", text, past, edits)


# What a step from image to image leaves out: of an input, a result, and its words.
LEFT_OUT: tuple[tuple[str, str, Callable[[State], int]], ...] = (
    ("offset", "offset_groups", lambda s: s.z.offset_groups),
    ("mask", "offset_groups", lambda s: s.z.offset_groups),
    ("x", "groups: it counts C_in / groups channels", lambda s: s.z.groups),
    ("y", "groups: it counts C_out / groups channels", lambda s: s.z.groups),
)


def short_starts(of: str, factor: Callable[[State], int]) -> Callable[[State], Array]:
    """Where images begin without a factor of their size."""
    return lambda s: starts(s, of) // factor(s)


def reading_short(
    fields: tuple[tuple[str, Callable[[State], Array]], ...],
) -> Callable[[State], None]:
    """Inputs whose images begin too near to one another."""

    def edit(s: State) -> None:
        for field, first in fields:
            if field != "m" or s.mask is not None:
                a = getattr(s, field)
                setattr(s, field, read_at(a, first(s), "nothing"))

    return edit


def short_grad_y(first: Callable[[State], Array]) -> tuple[Edit, ...]:
    """grad_y whose images begin too near to one another; not for the bias."""

    def edit(s: State) -> None:
        s.own_grad_y = s.grad_y
        s.grad_y = read_at(s.grad_y, first(s), "nothing")
        upstream(s)

    return ("upstream", edit), ("backward", own_bias)


def short_result(
    of: str, first: Callable[[State], Array], adds: bool
) -> tuple[Edit, ...]:
    """A result, or a gradient, whose images begin too near to one another."""

    def result(s: State) -> None:
        s.y = written_at(s.y, first(s), "nothing", adds)

    def gradient(s: State) -> None:
        s.grads[of] = written_at(known(s, of), first(s), "nothing", adds)

    return (("contract", result),) if of == "y" else (("backward", gradient),)


def short_images() -> None:
    """Steps from image to image that lack a factor: right for one group alone."""
    lacks = "the step from image to image of {} lacks the factor {}"
    for of, factor, count in LEFT_OUT:
        text, first = lacks.format(of, factor), short_starts(of, count)
        if of == "y":
            text = lacks.format("grad_y", factor)
            name = "grad_y at images without groups"
            MISTAKES.append(Mistake("gradients", name, text, short_grad_y(first)))
            text = lacks.format("the result", factor)
            name = "result at images without groups"
            MISTAKES.append(
                Mistake("layout", name, text, short_result(of, first, False))
            )
            continue
        fields = ((FIELDS[of], first),)
        name = f"{of} at images without {factor.split(':')[0]}"
        made = (("read", reading_short(fields)),)
        MISTAKES.append(Mistake("layout", name, text, made))
        for adds, how in ((True, "added"), (False, "written")):
            if of == "x" and not adds:
                continue
            text = lacks.format(f"the gradient of {of}", factor)
            name = f"d {of} {how} at images without {factor.split(':')[0]}"
            edits = short_result(of, first, adds)
            MISTAKES.append(Mistake("gradients", name, text, edits, of == "offset"))
    both = tuple((FIELDS[of], short_starts(of, n)) for of, _, n in LEFT_OUT[:2])
    text = lacks.format("offset and mask", "offset_groups")
    name = "offset and mask at images without offset_groups"
    MISTAKES.append(Mistake("layout", name, text, (("read", reading_short(both)),)))


def back_to_planes(
    name: str, of: tuple[str, ...], past: str
) -> Callable[[State], None]:
    """A gradient written to planes that lie as far apart as another array's."""

    def edit(s: State) -> None:
        found = known(s, name)
        at, first, _ = plane_addresses(s, found, of)
        s.grads[name] = written(found, first + at, past, name == "x")

    return edit


def planes_of_x(of: tuple[str, ...], past: str) -> Callable[[State], None]:
    """Planes of the image that lie as far apart as those of the output."""

    def edit(s: State) -> None:
        s.x = spaced(s, s.x, of, past)

    return edit


OF_X = {  # whose steps hold H_out W_out
    ("x", "image", "group", "channel"): "{}'s channels are taken to be H_out W_out "
    "apart, not H W",
    ("x", "image"): "{}'s base address of an image counts planes of H_out W_out, not "
    "of H W",
}


def planes() -> None:
    """Planes of x as large as the output's, and gradients' planes as x's."""
    for of, text in OF_X.items():
        which = " and ".join(of[1:])
        for past in PASTS:
            name = f"x planes H_out W_out by {which}"
            edits: tuple[Edit, ...] = (("read", planes_of_x(of, past)),)
            enter("layout", name, text.format("x"), past, edits)
        for past in PASTS[1:]:
            name = f"d x planes H_out W_out by {which}"
            edits = (("backward", back_to_planes("x", of, past)),)
            said = text.format("the gradient of x")
            enter("gradients", name, said, past, edits)
    for of, text in APART.items():
        which = " and ".join(of)
        for grad, past in product(("offset", "mask"), PASTS[1:]):
            name = f"d {grad} planes H W by {which}"
            edits = (("backward", back_to_planes(grad, of, past)),)
            said = text.format(f"gradient of {grad}")
            enter("gradients", name, said, past, edits)


images()
short_images()
planes()
