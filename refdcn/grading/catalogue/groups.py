"""Mistakes in the sum over channels and taps, in groups, bias and the ends of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdcn.grading.catalogue.layout import PASTS, fetched
from refdcn.grading.catalogue.mistake import Mistake, add, put
from refdcn.grading.catalogue.steps import Edit, State, interpolate
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


def owned(
    owner: Callable[[State], Array], inputs: tuple[str, ...] = ("offset", "mask")
) -> tuple[Edit, ...]:
    """Each channel takes the offset group that `owner` names."""

    def spread(s: State) -> None:
        c, n = np.arange(s.z.C_in), s.z.C_in // s.z.offset_groups
        s.group = {
            name: owner(s) if name in inputs else c // n for name in ("offset", "mask")
        }
        s.dp, s.m = s.dp[:, s.group["offset"]], s.m[:, s.group["mask"]]
        s.x = s.image[:, :, None].copy()
        s.shape = s.z.N, s.z.C_in, s.K, *s.out

    def gather(s: State) -> None:
        for name in ("offset", "mask"):
            s.grads[name] = by_owner(s, s.grads[name], s.group[name])

    return ("read", spread), ("backward", gather)


def by_owner(s: State, found: Array, owner: Array) -> Array:
    """The terms of channels, [image, channel, ...], summed by offset group."""
    summed = np.zeros((s.z.N, s.z.offset_groups, *found.shape[2:]))
    for c, group in enumerate(owner):
        summed[:, group] += found[:, c]
    return summed


def spread_groups(
    first: Callable[[State], Array], inputs: tuple[str, ...] = ("offset", "mask")
) -> tuple[Edit, ...]:
    """Each channel takes the offset group of another channel, which `first` names."""
    return owned(lambda s: first(s) // (s.z.C_in // s.z.offset_groups), inputs)


def share_of_groups(s: State) -> Array:
    """A weight group's whole share of the offset groups, and the channel's in it."""
    group, own = np.divmod(np.arange(s.z.C_in), s.w.shape[2])
    first = group * (s.z.offset_groups // s.z.groups)
    found = first + own // (s.z.C_in // s.z.offset_groups)
    return np.asarray(np.minimum(found, s.z.offset_groups - 1))


# Which offset group a channel takes: what it is called, what is said, and the map.
PLACE = "channel c takes the {} of offset group"
OWNERS: dict[str, tuple[str, Callable[[State], Array]]] = {
    "within group": (
        "channel c takes the {} of the offset group of its index within its "
        "weight group, c % (C_in / groups)",
        lambda s: np.arange(s.z.C_in) % s.w.shape[2] // (s.z.C_in // s.z.offset_groups),
    ),
    "by its share of a group": (
        f"{PLACE} c' * offset_groups / (C_in / groups), where c' is its index within "
        "its weight group",
        lambda s: (
            np.arange(s.z.C_in) % s.w.shape[2] * s.z.offset_groups // s.w.shape[2]
        ),
    ),
    "by its index in a group": (
        f"{PLACE} c' % offset_groups, where c' is its index within its weight group",
        lambda s: np.arange(s.z.C_in) % s.w.shape[2] % s.z.offset_groups,
    ),
    "by its weight group's share": (
        f"{PLACE} b * (offset_groups // groups) + c' // (C_in / offset_groups), where "
        "c' is its index within its weight group b",
        lambda s: share_of_groups(s),
    ),
    "by weight group": (
        f"{PLACE} b * offset_groups / groups, where b is its weight group",
        lambda s: np.arange(s.z.C_in) // s.w.shape[2] * s.z.offset_groups // s.z.groups,
    ),
    "by weight group's number": (
        f"{PLACE} b % offset_groups, where b is its weight group",
        lambda s: np.arange(s.z.C_in) // s.w.shape[2] % s.z.offset_groups,
    ),
    "interleaved": (
        f"{PLACE} c % offset_groups; the definition gives each group a run of channels",
        lambda s: np.arange(s.z.C_in) % s.z.offset_groups,
    ),
}
ENTERED = {  # under an older name
    ("by weight group", "offset and mask"),
    ("interleaved", "offset and mask"),
}


def owners() -> None:
    """Offset and mask, and each alone; and each gradient summed by such a map."""
    for name, (text, owner) in OWNERS.items():
        for inputs in (("offset", "mask"), ("offset",), ("mask",)):
            taken = " and ".join(inputs)
            if (name, taken) not in ENTERED:
                full, said = f"{taken} {name}", text.format(taken)
                MISTAKES.append(Mistake("groups", full, said, owned(owner, inputs)))
        for of in ("offset", "mask"):
            said = "the gradient of {} is summed over other channels than its offset "
            said += f"group's: {SUMMED[name]}"
            edits = (("backward", summed_by(owner, of)),)
            full = f"d {of} {name}"
            beyond = of == "offset"
            MISTAKES.append(Mistake("gradients", full, said.format(of), edits, beyond))


SUMMED = {
    "within group": "channel c goes to that of its index within its weight group",
    "by its share of a group": "channel c goes to c' * offset_groups / (C_in / "
    "groups), c' within its weight group",
    "by its index in a group": "channel c goes to c' % offset_groups, c' within its "
    "weight group",
    "by its weight group's share": "channel c goes to b * (offset_groups // groups) + "
    "c' // (C_in / offset_groups), c' within its weight group b",
    "by weight group": "all of weight group b go to b * offset_groups / groups",
    "by weight group's number": "all of weight group b go to b % offset_groups",
    "interleaved": "channel c goes to c % offset_groups",
}


def summed_by(owner: Callable[[State], Array], of: str) -> Callable[[State], None]:
    """One gradient summed over the channels that a map gives to each group."""

    def edit(s: State) -> None:
        if of == "mask":
            terms = s.g * s.S
        else:
            gm = s.g * s.m[:, :, None]
            slopes = interpolate(s, s.sy, s.tx), interpolate(s, s.ty, s.sx)
            terms = np.stack([gm * d for d in slopes], 4)
            # A slope on a whole row or column is any, and moves with its channel.
            whole = (s.qy == np.floor(s.qy)) | (s.qx == np.floor(s.qx))
            terms = np.where(whole[:, :, None, :, None], np.nan, terms)
        terms = terms.reshape(s.z.N, s.z.C_in, *terms.shape[3:])
        s.grads[of] = by_owner(s, terms, owner(s))

    return edit


owners()


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


def cut_joint(taps_first: bool) -> Callable[[State], Array]:
    """Columns in the order (tap, channel), cut into runs for weight groups.

    `taps_first`: the weight of a group is in that order, too.
    """

    def edit(s: State) -> Array:
        z, c = s.z, s.w.shape[2]
        flat = s.col.reshape(z.N, z.C_in, s.K, *s.out).swapaxes(1, 2)
        if taps_first:
            cut = flat.reshape(z.N, z.groups, s.K, c, *s.out).swapaxes(2, 3)
        else:
            cut = flat.reshape(z.N, z.groups, c, s.K, *s.out)
        return np.asarray(cut.reshape(s.col.shape))

    return edit


for taps_first, said in (
    (True, "and the weights of each so ordered"),
    (False, "and the weights of each in the order (channel, tap)"),
):
    add(
        MISTAKES,
        "groups",
        "columns",
        f"columns cut as (tap, channel), {said}",
        "columns in the order (tap, channel) are cut into runs for the weight groups, "
        f"{said}: a group has some taps of all channels",
        put("col", cut_joint(taps_first)),
    )


def dense_at(s: State, past: str) -> Array:
    """Where the numbers of a dense weight [C_out, C_in, K] lie in that of groups."""
    if past == "repeated":
        own = np.arange(s.weight.size).reshape(s.z.C_out, -1, s.K)
        return np.tile(own, (1, s.z.groups, 1))
    at = np.arange(s.z.C_out * s.z.C_in * s.K)
    at = at % s.weight.size if past == "wrap" and s.weight.size else at
    return np.asarray(at.reshape(s.z.C_out, s.z.C_in, s.K))


def dense(past: str) -> tuple[Edit, ...]:
    """Every output sums over all input channels, with weights from such addresses."""

    def taken(s: State) -> Array:
        return fetched(s.w, dense_at(s, past), past)

    def forward(s: State) -> None:
        col = s.col.reshape(s.z.N, s.z.C_in, s.K, *s.out)
        s.y = np.einsum("ock,nckuv->nouv", taken(s), col, optimize=True)

    def back(s: State) -> None:
        g = np.einsum("ock,nouv->nckuv", taken(s), s.grad_y, optimize=True)
        s.g = g.reshape(s.S.shape)

    def of_weight(s: State) -> None:
        col = s.col.reshape(s.z.N, s.z.C_in, s.K, *s.out)
        found = np.einsum("nouv,nckuv->ock", s.grad_y, col, optimize=True)
        into, at = np.zeros(s.weight.size), dense_at(s, past)
        np.add.at(into, at[at < into.size], found[at < into.size])
        s.grads["weight"] = into

    return ("contract", forward), ("upstream", back), ("backward", of_weight)


IGNORED = "groups are ignored: each output channel sums over all input channels, with"
for past in (*PASTS, "repeated"):
    text = f"{IGNORED} the weight's memory read as (C_out, C_in, K_h, K_w)"
    if past == "repeated":
        text = f"{IGNORED} its own weights again for each group"
    full = f"dense weight, {past} past it"
    MISTAKES.append(Mistake("groups", full, text, dense(past), past == "anything"))
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
