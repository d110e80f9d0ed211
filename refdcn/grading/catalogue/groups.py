"""Mistakes in the sum over channels and taps, in groups, bias and the ends of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake, add, put
from refdcn.grading.catalogue.steps import Edit, State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def result(
    name: str,
    text: str,
    f: Callable[[State], Array],
    kind: str = "tails",
    step: str = "finish",
) -> None:
    """A mistake in the finished sum."""
    add(MISTAKES, kind, step, name, text, put("y", f))


def part(a: Array, axis: int, first: int) -> Array:
    """Zero from index `first` on along `axis`."""
    b = a.copy()
    b[(slice(None),) * axis + (slice(first, None),)] = 0
    return b


def whole_blocks(n: int, block: int) -> int:
    """n rounded down to a multiple."""
    return n - n % block


def unwritten(axis: int, block: int) -> Callable[[State], Array]:
    """The result without what lies beyond whole blocks of an axis."""
    return lambda s: part(s.y, axis, whole_blocks(s.y.shape[axis], block))


def ended(axis: int, first: int) -> Callable[[State], Array]:
    """The result without what lies from `first` on."""
    return lambda s: part(s.y, axis, first)


def narrowed(block: int) -> Callable[[State], Array]:
    """The columns without the channels beyond whole blocks."""
    return lambda s: part(s.col, 2, whole_blocks(s.col.shape[2], block))


def tails() -> None:
    """Ends of axes that a blocked loop forgets."""
    axes = ("images", "output channels", "output rows", "output columns")
    for axis, what in enumerate(axes):
        for block in (4, 8, 16, 32) if axis else ():
            text = f"{what} beyond the last multiple of {block} are not written"
            result(f"{what} mod {block}", text, unwritten(axis, block))
        text = f"{what} from 32 on are not written"
        result(f"{what} from 32", text, ended(axis, 32))
    for block in (2, 4, 8):
        text = f"input channels beyond the last multiple of {block} of a group are lost"
        name = f"input channels mod {block}"
        add(MISTAKES, "tails", "columns", name, text, put("col", narrowed(block)))


tails()


def cut(order: tuple[int, ...], inner: int, block: int) -> Callable[[State], Array]:
    """Columns [n, c, k, pixel] without what lies beyond whole blocks of an order.

    The last `inner` axes of the order are one entry; -1: each image has its own end.
    """

    def edit(s: State) -> Array:
        a = s.col.reshape(s.z.N, s.z.C_in, s.K, -1).transpose(order).copy("C")
        if inner < 0:
            one = a.reshape(s.z.N, int(np.prod(a.shape[1:])))
            one[:, whole_blocks(one.shape[1], block) :] = 0
        else:
            many = int(np.prod(a.shape[: 4 - inner]))
            flat = a.reshape(many, int(np.prod(a.shape[4 - inner :])))
            flat[whole_blocks(many, block) :] = 0
        back = a.transpose(np.argsort(order))
        return np.asarray(back.reshape(s.col.shape))

    return edit


for said, order, inner in (
    ("(image, channel, tap, pixel)", (0, 1, 2, 3), 0),
    ("(channel, tap, image, pixel)", (1, 2, 0, 3), 0),
    ("(channel, image, pixel)", (1, 0, 3, 2), 1),
    ("(channel, tap, pixel) of an image", (0, 1, 2, 3), -1),
):
    for block in (32, 64):
        add(
            MISTAKES,
            "tails",
            "columns",
            f"columns {said} mod {block}",
            f"columns beyond the last multiple of {block} of all {said} are lost",
            put("col", cut(order, inner, block)),
        )
add(
    MISTAKES,
    "groups",
    "columns",
    "first channel only",
    "only the first channel of a group is used",
    put("col", lambda s: part(s.col, 2, 1)),
)
add(
    MISTAKES,
    "groups",
    "columns",
    "last tap lost",
    "the last tap is not summed",
    put("col", lambda s: part(s.col, 3, s.K - 1)),
)
add(
    MISTAKES,
    "groups",
    "columns",
    "nine taps",
    "taps beyond the ninth are not summed",
    put("col", lambda s: part(s.col, 3, 9)),
)
add(
    MISTAKES,
    "groups",
    "columns",
    "first tap only",
    "only the first tap is summed",
    put("col", lambda s: part(s.col, 3, 1)),
)


def interleaved(s: State) -> None:
    """Channel c uses offset group c % og instead of c // (C / og)."""
    s.x = s.image.reshape(s.z.N, -1, s.z.offset_groups, s.z.H, s.z.W).swapaxes(1, 2)


def restore(s: State) -> None:
    """The samples of interleaved channels, back in channel order."""
    N, og, C, K, *out = s.S.shape
    S = (s.S * s.m[:, :, None]).swapaxes(1, 2)
    s.col = S.reshape(s.col.shape)


MISTAKES.append(
    Mistake(
        "groups",
        "offset groups interleaved",
        "channel c uses offset group c % offset_groups; the definition gives each "
        "group a run of channels",
        (("read", interleaved), ("columns", restore)),
    )
)


def spread_groups(
    first: Callable[[State], Array], inputs: tuple[str, ...] = ("offset", "mask")
) -> tuple[Edit, ...]:
    """Each channel takes the offset group of another channel, which `first` names."""

    def spread(s: State) -> None:
        c, n = np.arange(s.z.C_in), s.z.C_in // s.z.offset_groups
        s.group = {
            name: (first(s) if name in inputs else c) // n
            for name in ("offset", "mask")
        }
        s.dp, s.m = s.dp[:, s.group["offset"]], s.m[:, s.group["mask"]]
        s.x = s.image[:, :, None].copy()
        s.shape = s.z.N, s.z.C_in, s.K, *s.out

    def gather(s: State) -> None:
        for name in ("offset", "mask"):
            found = s.grads[name]
            summed = np.zeros((s.z.N, s.z.offset_groups, *found.shape[2:]))
            for c, group in enumerate(s.group[name]):
                summed[:, group] += found[:, c]
            s.grads[name] = summed

    return ("read", spread), ("backward", gather)


def within_group(*inputs: str) -> tuple[Edit, ...]:
    """Each channel takes the offset group of its index within its weight group."""
    return spread_groups(lambda s: np.arange(s.z.C_in) % s.w.shape[2], inputs)


for inputs in (("offset", "mask"), ("offset",), ("mask",)):
    taken = " and ".join(inputs)
    MISTAKES.append(
        Mistake(
            "groups",
            f"{taken} within group",
            f"channel c takes the {taken} of the offset group of its index within its "
            "weight group, c % (C_in / groups)",
            within_group(*inputs),
        )
    )


def by_group(s: State) -> Array:
    """The output channels in the order of o % groups."""
    return np.argsort(np.arange(s.z.C_out) % s.z.groups, kind="stable")


def dealt(s: State) -> None:
    """Weights, and their outputs' gradients, in that order: group by group."""
    s.w = s.weight[by_group(s)].reshape(s.w.shape)
    if s.grad_y is not None:
        s.grad_y = s.grad_y[:, by_group(s)]


def collect(s: State) -> None:
    """The outputs back in their places."""
    s.y = s.y[:, np.argsort(by_group(s))]


def collect_gradients(s: State) -> None:
    """The gradients of what each output has for itself, back in their places."""
    for name in ("weight", "bias"):
        found = s.grads[name].reshape(s.z.C_out, -1)
        s.grads[name] = found[np.argsort(by_group(s))]


MISTAKES.append(
    Mistake(
        "groups",
        "output channels dealt to groups",
        "output channel o reads group o % groups; the definition gives "
        "o // (C_out / groups)",
        (("read", dealt), ("contract", collect), ("backward", collect_gradients)),
    )
)
add(
    MISTAKES,
    "groups",
    "columns",
    "weight groups interleaved",
    "weight group b reads channels b, b + groups, ...; the definition gives it a run",
    put(
        "col",
        lambda s: s.col.reshape(s.z.N, -1, s.z.groups, s.K, *s.out).swapaxes(1, 2),
    ),
)
add(
    MISTAKES,
    "groups",
    "columns",
    "groups ignored",
    "every output reads the channels of group 0",
    put("col", lambda s: np.repeat(s.col[:, :1], s.z.groups, 1)),
)
add(
    MISTAKES,
    "groups",
    "columns",
    "groups reversed",
    "weight groups read channel runs in reverse",
    put("col", lambda s: s.col[:, ::-1]),
)
result(
    "output groups interleaved",
    "output channels of groups are interleaved",
    lambda s: (
        (s.y - s.b[:, None, None])
        .reshape(s.z.N, s.z.groups, -1, *s.out)
        .swapaxes(1, 2)
        .reshape(s.y.shape)
        + s.b[:, None, None]
    ),
    "groups",
)
result(
    "bias missing",
    "the bias is not added",
    lambda s: s.y - s.b[:, None, None],
    "groups",
)
result(
    "bias doubled",
    "the bias is added twice",
    lambda s: s.y + s.b[:, None, None],
    "groups",
)
result(
    "bias per tap",
    "the bias is added once a tap",
    lambda s: s.y + (s.K - 1) * s.b[:, None, None],
    "groups",
)


def bias_times(name: str, text: str, times: Callable[[State], Any]) -> None:
    """The bias added another number of times, of images and output channels."""
    result(
        f"bias {name}",
        text,
        lambda s: s.y + ((times(s) - 1) * s.b)[:, :, None, None],
        "groups",
    )


def tiles(n: int, size: int) -> int:
    """How many blocks of a size there are."""
    return -(-n // size)


for size in (1, 2, 4, 8, 16, 32):
    which = f"tile of {size} input channels" if size > 1 else "input channel"
    bias_times(
        f"each {which} of a group",
        f"the bias is added once for each {which} of a group",
        lambda s, n=size: np.full((s.z.N, 1), tiles(s.w.shape[2], n)),  # type: ignore[misc]
    )
    bias_times(
        f"each {which} of all",
        f"the bias is added once for each {which} of all groups",
        lambda s, n=size: np.full((s.z.N, 1), tiles(s.z.C_in, n)),  # type: ignore[misc]
    )
for which, count in (
    ("weight group", lambda s: s.z.groups),
    ("offset group", lambda s: s.z.offset_groups),
    ("image", lambda s: s.z.N),
    ("row of the kernel", lambda s: s.z.K_h),
    ("column of the kernel", lambda s: s.z.K_w),
):
    bias_times(
        f"each {which}",
        f"the bias is added once for each {which}",
        lambda s, f=count: np.full((s.z.N, 1), f(s)),  # type: ignore[misc]
    )
for which, images in (
    ("first image", lambda s: np.arange(s.z.N) == 0),
    ("last image", lambda s: np.arange(s.z.N) == s.z.N - 1),
):
    bias_times(
        f"of the {which} alone",
        f"the bias is added to the {which} alone",
        lambda s, f=images: 1 * f(s)[:, None],  # type: ignore[misc]
    )
for which, outputs in (
    ("first", lambda s: np.arange(s.z.C_out) < s.z.C_out // s.z.groups),
    ("last", lambda s: np.arange(s.z.C_out) >= s.z.C_out - s.z.C_out // s.z.groups),
):
    bias_times(
        f"of the {which} weight group alone",
        f"the bias is added to the {which} group's output channels alone",
        lambda s, f=outputs: 1 * f(s)[None],  # type: ignore[misc]
    )
result(
    "bias negated",
    "the bias is subtracted",
    lambda s: s.y - 2 * s.b[:, None, None],
    "groups",
)
result(
    "bias first only",
    "the first channel's bias is added everywhere",
    lambda s: s.y + (s.b[0] - s.b)[:, None, None],
    "groups",
)
result(
    "bias reversed",
    "the bias is read in reverse order",
    lambda s: s.y + (s.b[::-1] - s.b)[:, None, None],
    "groups",
)
result(
    "bias per group",
    "every group uses the bias of group 0",
    lambda s: (
        s.y + (np.tile(s.b[: s.z.C_out // s.z.groups], s.z.groups) - s.b)[:, None, None]
    ),
    "groups",
)
result("relu", "a relu is left in", lambda s: np.maximum(s.y, 0), "groups")
result(
    "mean of taps",
    "the sum over taps is a mean",
    lambda s: (s.y - s.b[:, None, None]) / s.K + s.b[:, None, None],
    "groups",
)
result(
    "mean of channels",
    "the sum over channels is a mean",
    lambda s: (s.y - s.b[:, None, None]) / s.w.shape[2] + s.b[:, None, None],
    "groups",
)
result("negated result", "the result is negated", lambda s: -s.y, "groups")
result(
    "doubled result",
    "the sum is doubled",
    lambda s: 2 * s.y - s.b[:, None, None],
    "groups",
)
result("batch reversed", "images are in reverse order", lambda s: s.y[::-1], "groups")
result(
    "batch rolled",
    "image n holds the result of image n + 1",
    lambda s: np.roll(s.y, -1, 0),
    "groups",
)
result(
    "columns reversed",
    "output columns are in reverse order",
    lambda s: s.y[..., ::-1],
    "groups",
)
result(
    "rows reversed",
    "output rows are in reverse order",
    lambda s: s.y[..., ::-1, :],
    "groups",
)
result(
    "batch averaged",
    "every image holds the mean over the batch",
    lambda s: np.repeat(s.y.sum(0, keepdims=True) / max(1, s.z.N), s.z.N, 0),
    "groups",
)
result(
    "channels rolled",
    "output channels are shifted by one",
    lambda s: np.roll(s.y, 1, 1),
    "groups",
)
