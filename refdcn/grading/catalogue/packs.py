"""Mistakes of kernels that work in packs: of channels, taps, output pixels or images.

A tree of halves loses what is odd, a pack's result takes the place of the one before,
what all of a pack share is loaded once, and a pack across a border has one side's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from refdcn.grading.catalogue.blocks import SIZES
from refdcn.grading.catalogue.groups import part, spread_groups, whole_blocks
from refdcn.grading.catalogue.mistake import Mistake, add, both, put
from refdcn.grading.catalogue.steps import State, copied, interpolate
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []
PACKS = 2, 4, 8, 16
CHANNELS, TAPS = 2, 3  # axes of the columns [n, b, c, k, u, v]


def column(name: str, text: str, f: Callable[[State], Array]) -> None:
    """A mistake in what is summed."""
    add(MISTAKES, "tails", "columns", name, text, put("col", f))


WEIGHTED = {  # what the blocks hold: its axis of the weight [b, o, c, k], and the words
    "output channels of a group": 1,
    "input channels of a group": 2,
}


def weight_of_first(axis: int, size: int) -> Callable[[State], Array]:
    """The weight of the first block of an axis for all blocks."""
    return lambda s: np.take(s.w, np.arange(s.w.shape[axis]) % size, axis)


def columns_of_first(size: int) -> Callable[[State], Array]:
    """The columns of the first block of input channels for all."""
    return lambda s: np.take(s.col, np.arange(s.col.shape[CHANNELS]) % size, CHANNELS)


def bias_of_first(size: int) -> Callable[[State], Array]:
    """The bias of the first block of output channels for all."""
    return lambda s: s.b[np.arange(s.z.C_out) % size]


def kept_sums(size: int) -> Callable[[State], Array]:
    """Sums that are not cleared between blocks of an image's output channels."""

    def edit(s: State) -> Array:
        y = s.y.copy()
        for o in range(size, s.z.C_out):
            y[:, o] += y[:, o - size]
        return np.asarray(y)

    return edit


def pointers() -> None:
    """Blocks that use what is the first's, or go on from the sums before."""
    for size in PACKS[1:]:
        for what, axis in WEIGHTED.items():
            text = f"every block of {size} {what} uses the weights of the first"
            name = f"weight of the first {size} {what}"
            add(
                MISTAKES,
                "layout",
                "read",
                name,
                text,
                put("w", weight_of_first(axis, size)),
            )
        text = f"every block of {size} input channels of a group samples the first"
        name = f"samples of the first {size} channels of a group"
        add(
            MISTAKES,
            "groups",
            "columns",
            name,
            text,
            put("col", columns_of_first(size)),
        )
        text = f"every block of {size} output channels uses the bias of the first"
        name = f"bias of the first {size} output channels"
        add(MISTAKES, "groups", "read", name, text, put("b", bias_of_first(size)))
    for size in (1, *PACKS):
        block = f"block of {size} output channels" if size > 1 else "output channel"
        add(
            MISTAKES,
            "tails",
            "contract",
            f"sums kept from the {block} before",
            f"sums are not cleared: each {block} goes on from those of the one before",
            put("y", kept_sums(size)),
        )


def of_halves(n: int) -> Array:
    """Which of n entries a tree of halves, rounded down, adds up."""
    shares = np.eye(n)
    while n > 1:
        n //= 2
        shares[:n] += shares[n : 2 * n]
    return np.asarray(shares[0])


def halved(axis: int) -> Callable[[State], Array]:
    """The columns that a tree over one axis adds up."""

    def edit(s: State) -> Array:
        kept = of_halves(s.col.shape[axis])
        return np.asarray(s.col * kept.reshape(-1, *[1] * (s.col.ndim - 1 - axis)))

    return edit


def last_pack(axis: int, size: int) -> Callable[[State], Array]:
    """The columns of the last pack alone."""

    def edit(s: State) -> Array:
        n = s.col.shape[axis]
        kept = np.arange(n) >= (n - 1) // size * size
        return np.asarray(s.col * kept.reshape(-1, *[1] * (s.col.ndim - 1 - axis)))

    return edit


def whole_taps(size: int) -> Callable[[State], Array]:
    """The columns without the taps beyond whole packs, where there is one."""
    return lambda s: part(s.col, TAPS, whole_blocks(s.K, size) or s.K)


def sums() -> None:
    """What a sum in packs, or in a tree, forgets."""
    for axis, what in ((CHANNELS, "input channels of a group"), (TAPS, "taps")):
        column(
            f"tree of {what}",
            f"a sum over the {what} in halves, rounded down, loses the odd one: of 3 "
            "the last",
            halved(axis),
        )
        for size in (1, *PACKS):
            pack = f"block of {size}" if size > 1 else "one"
            column(
                f"last {size} of {what}",
                f"only the last {pack} of the {what} is summed: each takes the place "
                "of the one before",
                last_pack(axis, size),
            )
    for size in (2, 4, 8):
        column(
            f"taps mod {size}",
            f"taps beyond the last multiple of {size} are not summed, in kernels of "
            f"{size} taps or more",
            whole_taps(size),
        )
    for size in PACKS:
        add(
            MISTAKES,
            "tails",
            "contract",
            f"output channels of a group mod {size}",
            f"output channels of a group beyond the last multiple of {size} are not "
            "computed: they hold the bias",
            put("y", without_outputs(size)),
        )


def without_outputs(size: int) -> Callable[[State], Array]:
    """The result without the output channels beyond whole packs of each group."""

    def edit(s: State) -> Array:
        y = s.y.reshape(s.z.N, s.z.groups, -1, *s.out)
        return part(y, 2, whole_blocks(y.shape[2], size)).reshape(s.y.shape)

    return edit


def shared(field: str, at: Callable[[State], Array]) -> Callable[[State], None]:
    """An input whose output pixels hold what is at others."""

    def edit(s: State) -> None:
        a = getattr(s, field)
        flat = a.reshape(*a.shape[:-2], -1)
        setattr(s, field, flat[..., at(s).reshape(-1)].reshape(a.shape))

    return edit


def first_pixel(size: int) -> Callable[[State], Array]:
    """The first pixel of each run of all output pixels."""
    return lambda s: np.arange(s.out[0] * s.out[1]) // size * size


def first_column(size: int) -> Callable[[State], Array]:
    """The first pixel of each run of a row."""

    def at(s: State) -> Array:
        u, v = np.indices(s.out)
        return np.asarray(u * s.out[1] + v // size * size)

    return at


def overlap(n: int, size: int) -> slice:
    """What the last pack of an axis, moved back to end with it, shares with others."""
    return slice(n - size, n // size * size)


def counted_twice(field: str, axis: int, size: int) -> Callable[[State], None]:
    """What a last pack that is moved back adds once more."""

    def edit(s: State) -> None:
        a = getattr(s, field).copy()
        n = a.shape[axis]
        if n > size and n % size:
            a[(slice(None),) * (axis % a.ndim) + (overlap(n, size),)] *= 2
        setattr(s, field, a)

    return edit


def pixels_twice(size: int) -> Callable[[State], None]:
    """What a last tile of an image's pixels that is moved back adds once more."""

    def edit(s: State) -> None:
        P = s.out[0] * s.out[1]
        y = s.y.reshape(s.z.N, s.z.C_out, P).copy()
        if P > size and P % size:
            y[..., overlap(P, size)] *= 2
        s.y = y.reshape(s.y.shape)

    return edit


def past_edge(size: int) -> Callable[[State], None]:
    """Pixels at the start of a row hold what tiles computed beyond the row before."""

    def edit(s: State) -> None:
        u, v = np.indices(s.out)
        beyond = -s.out[1] % size
        moved = (u % size != 0) & (v < beyond) & (s.out[1] > size)
        s.by = s.by - s.z.stride[0] * moved
        s.bx = s.bx + s.z.stride[1] * s.out[1] * moved

    return edit


def tiles() -> None:
    """Last tiles that reach back, or past the edge of the result."""
    for size in (*PACKS, 32):
        for step, field, axis, what in (
            ("contract", "y", 3, "output columns"),
            ("contract", "y", 2, "output rows"),
            ("contract", "y", 1, "output channels"),
            ("columns", "col", CHANNELS, "input channels of a group"),
            ("columns", "col", TAPS, "taps"),
        ):
            if size == 32 and field == "col":
                continue
            add(
                MISTAKES,
                "tails",
                step,
                f"overlap of {what} in {size}",
                f"the last block of {size} {what} is moved back to end with them and "
                "adds, so that what it overlaps counts twice",
                counted_twice(field, axis, size),
            )
    for size in (8, 16, 24, 32, 48, 64, 96, 128, 256):
        add(
            MISTAKES,
            "tails",
            "contract",
            f"overlap of output pixels in {size}",
            f"the last tile of {size} of an image's H_out W_out pixels is moved back "
            "to end with them and adds, so that what it overlaps counts twice",
            pixels_twice(size),
        )
    for size in (4, 8, 16, 32):
        add(
            MISTAKES,
            "tails",
            "grid",
            f"tile of {size} past the right edge",
            f"columns of {size}x{size} tiles beyond the right edge are written into "
            "the row below: their guard tests the flat index",
            past_edge(size),
        )


TILED = {  # what takes the place within a tile for that in the result
    "base": (),
    "offset": ("dp",),
    "mask": ("m",),
    "offset and mask": ("dp", "m"),
}


def within_tile(fields: tuple[str, ...], axis: int, size: int) -> Callable[..., None]:
    """Rows, or columns, of the result counted within tiles."""

    def edit(s: State) -> None:
        own = np.arange(s.out[axis]) % size
        for field in fields or (("by",), ("bx",))[axis]:
            a = getattr(s, field)
            setattr(s, field, np.take(a, own, a.ndim - 2 + axis))

    return edit


def local_tiles() -> None:
    """Base positions and inputs by a row or column that is counted within a tile."""
    for what, fields in TILED.items():
        for axis, line in enumerate(("row", "column")):
            o = "oh" if axis == 0 else "ow"
            for size in (4, 8, 16, 32):
                text = f"the base position of a sample takes {o} within a tile of "
                if fields:
                    text = f"the {what} is read at {o} within a tile of "
                text += (
                    f"{size} {line}s, {o} % {size}: all tiles have that of the first"
                )
                name = f"{what} by the {line} within a tile of {size}"
                step, kind = ("read", "layout") if fields else ("grid", "tails")
                add(MISTAKES, kind, step, name, text, within_tile(fields, axis, size))


def of_all_pixels(field: str, size: int, own: bool) -> Callable[[State], None]:
    """The first of each run of the pixels of all images; `own`: that of its image."""

    def edit(s: State) -> None:
        a = getattr(s, field)
        P = s.out[0] * s.out[1]
        images = np.moveaxis(a.reshape(*a.shape[:-2], P), 0, -2)
        flat = np.arange(s.z.N * P)
        first = flat // size * size
        first = np.maximum(first, flat // P * P) if own else first
        found = images.reshape(*images.shape[:-2], -1)[..., first]
        setattr(
            s, field, np.moveaxis(found.reshape(images.shape), -2, 0).reshape(a.shape)
        )

    return edit


def images_of_first(s: State, size: int) -> Array:
    """How many images before its own each pixel's run begins: [N, H_out, W_out]."""
    P = s.out[0] * s.out[1]
    flat = np.arange(s.z.N * P)
    back = flat // P - flat // size * size // P
    return np.asarray(back.reshape(s.z.N, *s.out))


def sampling_first(size: int) -> Callable[[State], None]:
    """Samples of the image of a run's first pixel."""

    def edit(s: State) -> None:
        back, S = images_of_first(s, size), s.S.copy()
        for d in np.unique(back)[1:]:
            other = copied(s)
            other.x = np.roll(s.x, d, 0)
            at = (back == d)[:, None, None, None]
            S = np.where(at, interpolate(other, s.ty, s.tx), S)
        s.S = S
        s.col = (S * s.m[:, :, None]).reshape(s.col.shape)

    return edit


def first_gradients(size: int) -> Callable[[State], None]:
    """The gradients of offset and x by way of those images."""

    def edit(s: State) -> None:
        back, into = images_of_first(s, size), np.zeros_like(s.x)
        dp = np.zeros_like(s.grads["offset"])
        for d in np.unique(back):
            other = copied(s)
            other.x = np.roll(s.x, d, 0)
            g = s.g * s.m[:, :, None] * (back == d)[:, None, None, None]
            slopes = interpolate(other, s.sy, s.tx), interpolate(other, s.ty, s.sx)
            dp += np.stack([(g * a).sum(2) for a in slopes], 3)
            terms = "ngckuv,ngkuvh,ngkuvw->ngchw"
            found = np.einsum(terms, g, s.ty, s.tx, optimize=True)
            into += np.roll(found, -d, 0)
        s.grads["offset"], s.grads["x"] = dp, into

    return edit


def all_of_first(size: int) -> Callable[[State], Array]:
    """What the image of a run's first pixel has at the same pixel."""

    def edit(s: State) -> Array:
        n = np.arange(s.z.N)[:, None, None] - images_of_first(s, size)
        at = np.broadcast_to(n[:, None], s.y.shape)
        return np.take_along_axis(s.y, at, 0)

    return edit


def runs() -> None:
    """Runs of pixels over several images that all sample that of their first."""
    for size in (16, 32, 64, 128, 256, 512, 1024):
        text = f"each run of {size} output pixels of all images samples the image of "
        text += "its first: wrong where a run reaches into the next image"
        edits = ("columns", sampling_first(size)), ("backward", first_gradients(size))
        name = f"image of the first of {size} output pixels"
        MISTAKES.append(Mistake("layout", name, text, edits))
        text = f"each run of {size} output pixels of all images reads x, offset and "
        text += "mask of its first's image: wrong where it reaches into the next"
        name = f"all inputs of the first of {size} output pixels"
        add(MISTAKES, "layout", "contract", name, text, put("y", all_of_first(size)))


INPUTS = {"offset": ("dp",), "mask": ("m",), "offset and mask": ("dp", "m")}


def once() -> None:
    """What is loaded once for several outputs or images."""
    for name, names in INPUTS.items():
        for size in (2, 4, 8, 16, 32):
            for what, at in (
                (f"{size} output pixels", first_pixel(size)),
                (f"{size} columns of an output row", first_column(size)),
            ):
                add(
                    MISTAKES,
                    "layout",
                    "read",
                    f"one {name} for {what}",
                    f"the {name} of the first of {what} is used for all of them",
                    both(*(shared(field, at) for field in names)),
                )
        for size in (4, 8, 16, 32):
            for own in (False, True):
                where = ", or of its image's first" if own else ""
                add(
                    MISTAKES,
                    "layout",
                    "read",
                    f"one {name} for {size} output pixels of all images"
                    + ", own" * own,
                    f"each run of {size} output pixels of all images uses the {name} "
                    f"of its first{where}",
                    both(*(of_all_pixels(field, size, own) for field in names)),
                )
        for size in SIZES:
            add(
                MISTAKES,
                "layout",
                "read",
                f"{name} of the first {size} images",
                f"every block of {size} images uses the {name} of the first block",
                both(*(put(field, repeated(field, size)) for field in names)),
            )


def repeated(field: str, size: int) -> Callable[[State], Array]:
    """The images of the first block again and again."""
    return lambda s: getattr(s, field)[np.arange(s.z.N) % size]


def aligned(size: int) -> Callable[[State], Array]:
    """The channels of each offset group from a multiple on."""

    def edit(s: State) -> Array:
        og, n = s.x.shape[1:3]
        first = np.arange(og) * n
        at = (first // size * size)[:, None] + np.arange(n)
        return np.asarray(s.image[:, at])

    return edit


def first_channel(size: int) -> Callable[[State], Array]:
    """The first channel of each pack."""
    return lambda s: np.arange(s.z.C_in) // size * size


def first_of_group(size: int) -> Callable[[State], Array]:
    """The first channel of each pack, counted within a weight group."""

    def edit(s: State) -> Array:
        group, own = np.divmod(np.arange(s.z.C_in), s.w.shape[2])
        return np.asarray(group * s.w.shape[2] + own // size * size)

    return edit


def borders() -> None:
    """Packs that reach over the border between two groups of channels."""
    for size in PACKS[1:]:
        for of, first in (("", first_channel), (" of a weight group", first_of_group)):
            MISTAKES.append(
                Mistake(
                    "groups",
                    f"offset group of {size} channels{of}",
                    f"{size} channels{of} are taken together, in the offset group of "
                    "the first: wrong where a border of groups lies between them",
                    spread_groups(first(size)),
                )
            )
        add(
            MISTAKES,
            "groups",
            "read",
            f"offset group aligned to {size}",
            f"the channels of an offset group are read from the last multiple of "
            f"{size} on, not from its first channel",
            put("x", aligned(size)),
        )
    MISTAKES.append(
        Mistake(
            "groups",
            "offset group by weight group",
            "all channels of a weight group b take the offset group "
            "b * offset_groups / groups, that of its first channel",
            spread_groups(lambda s: np.arange(s.z.C_in) // s.w.shape[2] * s.w.shape[2]),
        )
    )


sums()
pointers()
tiles()
local_tiles()
runs()
once()
borders()
