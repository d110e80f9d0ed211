"""Mistakes in reading the inputs: channel orders, taps, groups, batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations, product
from typing import Any

import numpy as np

from refdcn.grading.catalogue.mistake import Mistake, add, both, put
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def split(s: State, *order: str) -> Array:
    """The offset's channels read in another order: g group, i, j tap, d axis."""
    return viewed(s, s.offset, (*order, "u", "v"))


def viewed(s: State, a: Array, order: Sequence[str]) -> Array:
    """The memory of offset or mask taken to be in another order.

    g group, i, j tap, d axis (of the offset), u, v output pixel.
    """
    z = s.z
    sizes = {"g": z.offset_groups, "i": z.K_h, "j": z.K_w, "d": 2}
    sizes |= dict(zip("uv", s.out, strict=True))
    due = [k for k in "gijduv" if k in order]
    a = a.reshape(z.N, *(sizes[k] for k in order))
    a = a.transpose(0, *(1 + order.index(k) for k in due))
    axis = (2,) * ("d" in order)
    return np.asarray(a.reshape(z.N, z.offset_groups, s.K, *axis, *s.out))


def tap_major(s: State, a: Array) -> Array:
    """[N, og, K, H_out, W_out] with taps read column by column."""
    N, og, K, *out = a.shape
    return a.reshape(N, og, s.z.K_w, s.z.K_h, *out).swapaxes(2, 3).reshape(a.shape)


def pitched(planes: Array, pitch: int) -> Array:
    """Planes [..., H_out, W_out] indexed as u * pitch + v in flat memory."""
    h, w = planes.shape[-2:]
    u, v = np.indices((h, w))
    return in_memory(planes, u * pitch + v, h * w)


PASTS = "anything", "nothing", "wrap"  # what lies past the end of a memory


def fetched(a: Array, at: Array, past: str = "anything") -> Array:
    """What lies at other addresses of an array's memory; NaN where it is anything."""
    flat = a.reshape(-1)
    if past == "wrap" and flat.size:
        at = at % flat.size
    there = at < flat.size
    end = 0 if past == "nothing" else np.nan
    found = np.where(there, flat[np.where(there, at, 0)] if flat.size else 0, end)
    return np.asarray(found)


def in_memory(planes: Array, pixel: Array, plane: int, past: str = "anything") -> Array:
    """Planes [..., h, w] whose pixels are elsewhere in memory."""
    lead = planes.shape[:-2]
    at = (np.arange(int(np.prod(lead))) * plane).reshape(lead)[..., None, None] + pixel
    return fetched(planes, at, past).reshape(planes.shape)


def spaced(
    s: State,
    planes: Array,
    of: tuple[str, ...],
    past: str = "anything",
    block: int = 0,
) -> Array:
    """Planes of an input: steps along some axes as if they were those of the image.

    `block`: images up to which a divisor of N is taken, each with a pointer of its own.
    """
    at, first, size = plane_addresses(s, planes, of, block)
    at = at % size if past == "wrap" else at
    return fetched(planes, first + at, past).reshape(planes.shape)


def plane_addresses(
    s: State, planes: Array, of: tuple[str, ...], block: int = 0
) -> tuple[Array, Array, int]:
    """Such addresses in the memory of a block, where it begins, and its size.

    "x" in `of`: they are planes of the image, and steps as if of the output.
    """
    lead, (h, w) = planes.shape[:-2], planes.shape[-2:]
    far, due = s.z.H * s.z.W, s.out[0] * s.out[1]
    if "x" in of:
        far, due = due, far
    images = block_of(block, s.z.N)
    own = int(np.prod(lead[1:])) * due  # numbers of an image
    at = first = np.zeros(lead, int)
    for k, i in enumerate(np.indices(lead)):
        name = ("image", "group")[k] if k < 2 else "channel"
        step = int(np.prod(lead[k + 1 :])) * (far if name in of else due)
        if k == 0:
            first, i = (i - i % images) * own, i % images
        at = at + i * step
    pixel = np.arange(due).reshape(h, w)
    return at[..., None, None] + pixel, first[..., None, None], max(1, images * own)


def block_of(most: int, N: int) -> int:
    """The largest divisor of N up to a number of images; 0: all are one block."""
    fit = (k for k in range(min(most, N), 0, -1) if N % k == 0)
    return next(fit, max(1, N))


def axes(dy: float, dx: float) -> Callable[[State], None]:
    """Offsets multiplied along each axis."""
    return put("dp", lambda s: s.dp * np.array([dy, dx])[:, None, None])


def weight_as(s: State) -> Array:
    """[b, o, c, K_h, K_w]."""
    return np.asarray(s.w.reshape(*s.w.shape[:3], s.z.K_h, s.z.K_w))


def reweigh(f: Callable[[Array], Array]) -> Callable[[State], None]:
    """An edit of the weight's taps."""
    return put("w", lambda s: f(weight_as(s)).reshape(s.w.shape))


def layout(name: str, text: str, edit: Callable[[State], Any]) -> None:
    """A layout mistake: it is made while reading the inputs."""
    add(MISTAKES, "layout", "read", name, text, edit)


layout(
    "xy",
    "offsets are read as (x, y); the definition is (y, x)",
    put("dp", lambda s: s.dp[:, :, :, ::-1]),
)
layout(
    "planar",
    "offsets are read as all y then all x of a group; the definition "
    "interleaves (y, x) tap by tap",
    put("dp", lambda s: split(s, "g", "d", "i", "j")),
)
layout(
    "planar xy",
    "offsets are read as all x then all y of a group",
    put("dp", lambda s: split(s, "g", "d", "i", "j")[:, :, :, ::-1]),
)
layout(
    "planar all",
    "offsets are read as all y of all groups, then all x",
    put("dp", lambda s: split(s, "d", "g", "i", "j")),
)
layout(
    "planar all xy",
    "offsets are read as all x of all groups, then all y",
    put("dp", lambda s: split(s, "d", "g", "i", "j")[:, :, :, ::-1]),
)
layout(
    "tap before group",
    "offset channels are read as (tap, group, axis); the "
    "definition is (group, tap, axis)",
    put("dp", lambda s: split(s, "i", "j", "g", "d")),
)
ORDERS = ("tap", "group", "axis"), ("tap", "axis", "group"), ("axis", "tap", "group")
LETTERS = {
    "group": "g",
    "tap": "ij",
    "axis": "d",
    "oh": "u",
    "ow": "v",
}
# The offset's memory taken for that of another shape.
VIEWS = (
    ("oh", "ow", "group", "tap", "axis"),
    ("oh", "ow", "group", "axis", "tap"),
    ("oh", "ow", "axis", "group", "tap"),
    ("oh", "ow", "tap", "group", "axis"),
    ("group", "oh", "ow", "tap", "axis"),
    ("group", "oh", "ow", "axis", "tap"),
    ("group", "tap", "oh", "ow", "axis"),
    ("tap", "group", "oh", "ow", "axis"),
    ("group", "axis", "oh", "ow", "tap"),
    ("axis", "oh", "ow", "group", "tap"),
    ("axis", "group", "oh", "ow", "tap"),
)


def spelled(order: Sequence[str]) -> str:
    """The letters of an order."""
    return "".join(LETTERS[name] for name in order)


def orders() -> None:
    """Orders of channels, and of channels and pixels; with (x, y), too."""
    for order in (*ORDERS, *VIEWS):
        said, letters = ", ".join(order), spelled(order)
        if order in VIEWS:
            due = "it lies as (group, tap, axis, oh, ow)"
            text = f"the offset's memory is viewed as ({said}); {due}"
        else:
            due = "the definition is (group, tap, axis)"
            text = f"offset channels are read as ({said}); {due}"
            letters += "uv"
        for axes in ("", " xy"):
            if (said, axes) == ("tap, group, axis", ""):
                continue  # it has an older name
            pair = ", and each pair as (x, y)" if axes else ""

            name = f"offset as {said}{axes}"
            layout(name, text.replace("; ", f"{pair}; "), view("dp", letters, axes))


def view(field: str, letters: str, axes: str = "") -> Callable[[State], None]:
    """The offset, with " xy" its pairs turned, or a mask that was given."""

    def edit(s: State) -> None:
        if field == "dp":
            a = viewed(s, s.offset, tuple(letters))
            s.dp = a[:, :, :, ::-1] if axes else a
        elif s.mask is not None:
            s.m = viewed(s, s.mask, tuple(letters))

    return edit


def mask_orders() -> None:
    """Orders of the mask, alone and with the offset's."""
    layout(
        "mask as tap, group",
        "mask channels are read as (tap, group); the definition is (group, tap)",
        view("m", "ijguv"),
    )
    layout(
        "offset and mask as tap, group",
        "channels of offset and mask are read with the tap first; the definition has "
        "the group first",
        both(view("dp", "ijgduv"), view("m", "ijguv")),
    )
    for order in (
        ("oh", "ow", "group", "tap"),
        ("oh", "ow", "tap", "group"),
        ("group", "oh", "ow", "tap"),
    ):
        said, letters = ", ".join(order), spelled(order)
        layout(
            f"mask as {said}",
            f"the mask's memory is viewed as ({said}); it lies as (group, tap, oh, ow)",
            view("m", letters),
        )
        layout(
            f"offset and mask as {said}",
            f"the memory of offset and mask is viewed as ({said}), the offset's axis "
            "last; each channel's pixels lie together",
            both(view("dp", letters + "d"), view("m", letters)),
        )


def concatenated(s: State) -> None:
    """All offsets, then all masks, taken to be offsets and masks group by group."""
    N, og, K, *out = s.shape
    both = s.dp.reshape(N, og * 2 * K, *out), s.m.reshape(N, og * K, *out)
    each = np.concatenate(both, 1).reshape(N, og, 3 * K, *out)
    s.dp = each[:, :, : 2 * K].reshape(s.dp.shape).copy()
    s.m = each[:, :, 2 * K :].copy()


def concatenated_back(s: State) -> None:
    """Their gradients, where they were read."""
    N, og, K, *out = s.shape
    both = s.grads["offset"].reshape(N, og, 2 * K, *out), s.grads["mask"]
    each = np.concatenate([a.reshape(N, og, -1, *out) for a in both], 2)
    flat = each.reshape(N, og * 3 * K, *out)
    s.grads["offset"], s.grads["mask"] = flat[:, : og * 2 * K], flat[:, og * 2 * K :]


orders()
mask_orders()
MISTAKES.append(
    Mistake(
        "layout",
        "offset and mask concatenated",
        "all offsets, then all masks, are viewed as 3 K_h K_w channels of each offset "
        "group: later groups take masks for offsets and offsets for masks",
        (("read", concatenated), ("backward", concatenated_back)),
    )
)


def of_last_group(field: str, way: str) -> Callable[[State], None]:
    """The last of several offset groups with what is another's, or nothing."""

    def edit(s: State) -> None:
        a = getattr(s, field).copy()
        if s.z.offset_groups > 1:
            if way == "none":
                a[:, -1] = field == "m"
            else:
                a[:, -1] = a[:, 0 if way == "first" else -2]
        setattr(s, field, a)

    return edit


LAST_GROUP = {
    "first": "the last offset group uses the {} of the first",
    "before": "the last offset group uses the {} of the one before",
    "none": "the last of several offset groups does not use its {}",
}


def last_groups() -> None:
    """What the last of several offset groups uses instead; and groups moved by one."""
    for of, fields, what in (
        ("offset", ("dp",), "offsets"),
        ("mask", ("m",), "mask"),
        ("offset and mask", ("dp", "m"), "offsets and mask"),
    ):
        for way, text in LAST_GROUP.items():
            edits = [of_last_group(field, way) for field in fields]
            layout(f"{of} of the last group: {way}", text.format(what), both(*edits))
        if "dp" in fields:
            text = (
                f"each offset group uses the {what} of the next, the last of the first"
            )
            layout(f"{of} of the next group", text, both(*map(next_group, fields)))


def next_group(field: str) -> Callable[[State], None]:
    """Offset groups moved by one."""
    return put(field, lambda s: np.roll(getattr(s, field), -1, 1))


last_groups()
layout(
    "offset column-major",
    "offset taps are read column by column; the definition is row-major",
    put("dp", lambda s: split(s, "g", "j", "i", "d")),
)
layout(
    "mask column-major",
    "mask taps are read column by column; the definition is row-major",
    put("m", lambda s: tap_major(s, s.m)),
)
layout(
    "both column-major",
    "offset and mask taps are read column by column",
    both(
        put("dp", lambda s: split(s, "g", "j", "i", "d")),
        put("m", lambda s: tap_major(s, s.m)),
    ),
)
layout(
    "weight column-major",
    "weight taps are read column by column",
    put(
        "w",
        lambda s: (
            s.w.reshape(*s.w.shape[:3], s.z.K_w, s.z.K_h)
            .swapaxes(3, 4)
            .reshape(s.w.shape)
        ),
    ),
)
layout("negated", "offsets are subtracted; the definition adds them", axes(-1, -1))
layout("dy negated", "dy is subtracted; the definition adds it", axes(-1, 1))
layout("dx negated", "dx is subtracted; the definition adds it", axes(1, -1))
layout("dy only", "dx is ignored", axes(1, 0))
layout("dx only", "dy is ignored", axes(0, 1))
layout("no offset", "offsets are ignored: it is a plain convolution", axes(0, 0))
layout("doubled offset", "offsets are doubled", axes(2, 2))
layout("halved offset", "offsets are halved", axes(0.5, 0.5))
layout(
    "offset by dilation",
    "offsets are multiplied by the dilation",
    put("dp", lambda s: s.dp * np.array(s.z.dilation)[:, None, None]),
)
layout(
    "offset by stride",
    "offsets are multiplied by the stride",
    put("dp", lambda s: s.dp * np.array(s.z.stride)[:, None, None]),
)
layout(
    "offset over stride",
    "offsets are divided by the stride",
    put("dp", lambda s: s.dp / np.array(s.z.stride)[:, None, None]),
)
layout(
    "offset by size",
    "offsets are taken as fractions of the image size",
    put("dp", lambda s: s.dp * np.array([s.z.H, s.z.W])[:, None, None]),
)
layout(
    "offset over dilation",
    "offsets are divided by the dilation",
    put("dp", lambda s: s.dp / np.array(s.z.dilation)[:, None, None]),
)
layout(
    "offset by half size",
    "offsets are added in units of a normalised grid: they are multiplied by H / 2 and "
    "W / 2",
    put("dp", lambda s: s.dp * np.array([s.z.H, s.z.W])[:, None, None] / 2),
)
layout(
    "offset by half frame",
    "offsets are added in units of a normalised grid: they are multiplied by "
    "(H - 1) / 2 and (W - 1) / 2",
    put("dp", lambda s: s.dp * np.array([s.z.H - 1, s.z.W - 1])[:, None, None] / 2),
)
layout(
    "offset by sizes exchanged",
    "dy is multiplied by H / W and dx by W / H: a grid's H and W are exchanged for "
    "offsets",
    put("dp", lambda s: s.dp * np.array([s.z.H / s.z.W, s.z.W / s.z.H])[:, None, None]),
)
layout(
    "clipped to 1",
    "offsets are clipped to [-1, 1]",
    put("dp", lambda s: np.clip(s.dp, -1, 1)),
)
layout(
    "clipped to kernel",
    "offsets are clipped to the kernel's size",
    put(
        "dp",
        lambda s: np.clip(
            s.dp,
            *(np.array([[-s.z.K_h, -s.z.K_w], [s.z.K_h, s.z.K_w]])[:, :, None, None]),
        ),
    ),
)
layout("tanh", "offsets pass through tanh", put("dp", lambda s: np.tanh(s.dp)))
layout("offset absolute", "the sign of offsets is lost", put("dp", lambda s: abs(s.dp)))
layout(
    "offset rounded",
    "offsets are rounded to integers",
    put("dp", lambda s: np.round(s.dp)),
)
layout(
    "offset of batch 0",
    "every image uses the offsets of image 0",
    put("dp", lambda s: np.repeat(s.dp[:1], s.z.N, 0)),
)
layout(
    "mask of batch 0",
    "every image uses the mask of image 0",
    put("m", lambda s: np.repeat(s.m[:1], s.z.N, 0)),
)
layout(
    "image of batch 0",
    "every result samples image 0",
    put("x", lambda s: np.repeat(s.x[:1], s.z.N, 0)),
)
layout(
    "offset of group 0",
    "every offset group uses the offsets of group 0",
    put("dp", lambda s: np.repeat(s.dp[:, :1], s.z.offset_groups, 1)),
)
layout(
    "mask of group 0",
    "every offset group uses the mask of group 0",
    put("m", lambda s: np.repeat(s.m[:, :1], s.z.offset_groups, 1)),
)
layout(
    "offset groups reversed",
    "offset groups are read in reverse order",
    both(put("dp", lambda s: s.dp[:, ::-1]), put("m", lambda s: s.m[:, ::-1])),
)
layout(
    "offset taps reversed",
    "offset taps are read in reverse order",
    put("dp", lambda s: s.dp[:, :, ::-1]),
)
layout(
    "mask taps reversed",
    "mask taps are read in reverse order",
    put("m", lambda s: s.m[:, :, ::-1]),
)
layout(
    "offset taps shifted",
    "each tap uses the offset of the next tap",
    put("dp", lambda s: np.roll(s.dp, -1, 2)),
)
layout(
    "mask taps shifted",
    "each tap uses the mask of the next tap",
    put("m", lambda s: np.roll(s.m, -1, 2)),
)
layout(
    "centre offset",
    "every tap uses the centre tap's offset",
    put("dp", lambda s: np.repeat(s.dp[:, :, s.K // 2, None], s.K, 2)),
)
layout(
    "mean offset",
    "every tap uses the mean offset",
    put("dp", lambda s: np.repeat(s.dp.mean(2, keepdims=True), s.K, 2)),
)


def misaddressed(
    name: str, text: str, edit: Callable[[State], Any], beyond: bool = True
) -> None:
    """An input whose addresses are formed with the sizes of another."""
    MISTAKES.append(Mistake("layout", name, text, (("read", edit),), beyond))


def pitched_planes() -> None:
    """Rows of another length: the image's width, or the number of rows."""
    for pitch, said in (("W", "the image's width"), ("H_out", "H_out, their height")):
        how = f"are indexed with {said}, not W_out"
        dp, m = pitching("dp", pitch), pitching("m", pitch)
        misaddressed(f"offset pitch {pitch}", f"offset planes {how}", dp)
        misaddressed(f"mask pitch {pitch}", f"mask planes {how}", m)
        text = f"planes of offset and mask {how}"
        misaddressed(f"offset and mask pitch {pitch}", text, both(dp, m))


def pitching(field: str, pitch: str) -> Callable[[State], None]:
    """An edit of one input's rows."""

    def of(s: State) -> Array:
        return pitched(getattr(s, field), s.z.W if pitch == "W" else s.out[0])

    return put(field, of)


pitched_planes()


APART = {  # whose steps hold H W: what is said of each input
    ("image", "group", "channel"): "the {}'s channels are taken to be H W apart, not "
    "H_out W_out",
    ("group", "channel"): "the {}'s channels are taken to be H W apart, not H_out W_out"
    ", image by image",
    ("image", "group"): "the {}'s base address of an image and offset group counts "
    "planes of H W, not of H_out W_out",
    ("image",): "the {}'s base address of an image counts planes of H W, not of "
    "H_out W_out",
    ("group",): "the {}'s base address of an offset group counts planes of H W, not "
    "of H_out W_out",
}


def spaced_planes() -> None:
    """Images, offset groups and channels as far apart as planes of the image."""
    for of, text in APART.items():
        which = " and ".join(of)
        blocks = (0, 32) if "image" in of and "channel" not in of else (0,)
        for past, block in product(PASTS, blocks):
            dp, m = (spacing(field, of, past, block) for field in ("dp", "m"))
            beyond = past == "anything"
            end = "" if beyond else f", {past} past it"
            end += f", in blocks of up to {block} images" if block else ""
            for what, edit in (
                ("offset", dp),
                ("mask", m),
                ("offset and mask", both(dp, m)),
            ):
                planes = "planes" if " and " in what else f"{what} planes"
                name = f"{planes} H W by {which}{end}"
                misaddressed(name, text.format(what), edit, beyond)


def spacing(
    field: str, of: tuple[str, ...], past: str, block: int
) -> Callable[[State], None]:
    """An edit of one input's planes; of a mask that is not given, none."""

    def edit(s: State) -> None:
        if field == "dp" or s.mask is not None or past == "anything":
            setattr(s, field, spaced(s, getattr(s, field), of, past, block))

    return edit


spaced_planes()


def of_image(planes: Array, s: State) -> Array:
    """Planes of an input in the rows and planes of the image's size."""
    lead = planes.shape[:-2]
    u, v = np.indices(s.out)
    plane = np.arange(int(np.prod(lead))).reshape(lead) * s.z.H * s.z.W
    return in_memory(planes, plane[..., None, None] + u * s.z.W + v, 0)


def of_nine(planes: Array, s: State) -> Array:
    """Planes [N, og, K, ...] of images and offset groups that have nine taps each."""
    N, og, K, *rest = planes.shape
    group = np.arange(N * og).reshape(N, og, *[1] * (len(rest) + 1)) * 9
    tap = np.arange(K).reshape(K, *[1] * len(rest))
    many = int(np.prod(rest))
    at = (group + tap) * many + np.arange(many).reshape(rest)
    return in_memory(planes, at, 0)


def readdressed(
    field: str, f: Callable[[Array, State], Array]
) -> Callable[[State], None]:
    """An edit of one input's addresses."""
    return put(field, lambda s: f(getattr(s, field), s))


def sized_otherwise() -> None:
    """Planes of the image's size, and kernels of nine taps."""
    for of, fields in {
        "offset": ("dp",),
        "mask": ("m",),
        "offset and mask": ("dp", "m"),
    }.items():
        image = [readdressed(field, of_image) for field in fields]
        nine = [readdressed(field, of_nine) for field in fields]
        text = f"planes of {of} are addressed with H and W, not with H_out and W_out"
        misaddressed(f"{of} of the image's size", text, both(*image))
        text = f"each image and offset group has nine taps in the address of {of}"
        misaddressed(f"{of} of nine taps", f"{text}: right for 3x3 alone", both(*nine))


sized_otherwise()


def reweighed(
    steps: Callable[[State], tuple[int, int, int, int]],
) -> Callable[..., None]:
    """The weight read at steps of its own: for group, output, input and tap."""

    def of(s: State) -> Array:
        index = np.indices(s.w.shape)
        at = sum(i * step for i, step in zip(index, steps(s), strict=True))
        return in_memory(s.w, np.asarray(at), 0)

    return put("w", of)


for name, text, steps in (
    (
        "weight of all channels",
        "the weight is addressed as if each output channel had C_in input channels, "
        "not C_in / groups",
        lambda s: (s.w.shape[1] * s.z.C_in * s.K, s.z.C_in * s.K, s.K, 1),
    ),
    (
        "weight of nine taps",
        "each input channel has nine taps in the weight's address: right for 3x3 alone",
        lambda s: (
            s.w.shape[1] * s.w.shape[2] * 9,
            s.w.shape[2] * 9,
            9,
            1,
        ),
    ),
    (
        "weight of group 0",
        "every group uses the weight of group 0",
        lambda s: (0, s.w.shape[2] * s.K, s.K, 1),
    ),
):
    misaddressed(name, text, reweighed(steps))


WEIGHT_AXES = {"o": "output", "c": "input", "k": "tap"}


def weight_viewed(order: Sequence[str], of_group: bool) -> Callable[[State], Array]:
    """The weight's memory, or each group's part of it, viewed in another order."""

    def edit(s: State) -> Array:
        groups = s.z.groups if of_group else 1
        outputs = s.z.C_out // groups
        size = {"o": outputs, "c": s.w.shape[2], "k": s.K}
        w = s.weight.reshape(groups, *(size[k] for k in order))
        due = w.transpose(0, *(1 + order.index(k) for k in "ock"))
        return np.asarray(due.reshape(s.w.shape))

    return edit


def weight_orders() -> None:
    """Orders of output, input and tap, of all of the weight and of each group's."""
    for order, of_group in product([*permutations("ock")][1:], (False, True)):
        same = order[0] == "o" and of_group
        if same or (order, of_group) == (("c", "o", "k"), True):
            continue  # it has an older name
        said = ", ".join(WEIGHT_AXES[k] for k in order)
        whose = "each group's weight" if of_group else "the weight's memory"
        text = f"{whose} is viewed as ({said}); it lies as (output, input, tap)"
        name = f"weight as {said}{' of each group' * of_group}"
        layout(name, text, put("w", weight_viewed(order, of_group)))


weight_orders()


def tap_pitch(field: str, past: str) -> Callable[[State], None]:
    """Tap (i, j) at i * K_h + j; past an image's channels, or the memory, what lies
    there, nothing, or the last."""

    def edit(s: State) -> None:
        if field == "m" and s.mask is None:
            return
        a = getattr(s, field)
        i, j = np.divmod(np.arange(s.K), s.z.K_w)
        lead = 3 if field == "w" else 2  # axes before the taps
        planes = a.reshape(-1, int(np.prod(a.shape[lead + 1 :])))
        at = np.arange(planes.shape[0]) // s.K * s.K + np.tile(
            i * s.z.K_h + j, planes.shape[0] // s.K
        )
        if past == "last":
            own = s.K * (s.z.offset_groups if field != "w" else s.w.shape[2])
            at = np.minimum(at, np.arange(len(at)) // own * own + own - 1)
        index = at[:, None] * planes.shape[1] + np.arange(planes.shape[1])
        setattr(s, field, fetched(planes, index, past).reshape(a.shape))

    return edit


def tap_pitches() -> None:
    """Offset, mask, both, and the weight."""
    for what, fields in (
        ("offset", ("dp",)),
        ("mask", ("m",)),
        ("offset and mask", ("dp", "m")),
        ("weight", ("w",)),
    ):
        for past in ("anything", "nothing", "last"):
            text = f"tap (i, j) takes the {what} of tap i * K_h + j, not i * K_w + j"
            edit = both(*(tap_pitch(field, past) for field in fields))
            name = f"{what} of tap by height, {past} past it"
            misaddressed(name, text, edit, past == "anything")


tap_pitches()


def beside(step: int) -> Callable[[State], Array]:
    """The weight of another tap."""
    return lambda s: s.w[..., np.clip(np.arange(s.K) + step, 0, s.K - 1)]


layout(
    "weight of the next tap",
    "each tap is multiplied by the weight of the next tap, the last by its own",
    put("w", beside(1)),
)
layout(
    "weight of the tap before",
    "each tap is multiplied by the weight of the tap before, the first by its own",
    put("w", beside(-1)),
)


def clipped_to(share: float, larger: bool) -> Callable[[State], Array]:
    """Offsets kept within a share of the image's sides, or of the larger one."""

    def edit(s: State) -> Array:
        sides = np.array([s.z.H, s.z.W], float)
        most = share * (np.full(2, sides.max()) if larger else sides)[:, None, None]
        return np.asarray(np.clip(s.dp, -most, most))

    return edit


for share, part in ((0.25, "a quarter of "), (0.5, "half "), (1, "")):
    for larger, side in (
        (True, "the image's larger side"),
        (False, "the image's size"),
    ):
        layout(
            f"clipped to {share} of {side}",
            f"offsets are clipped to {part}{side}",
            put("dp", clipped_to(share, larger)),
        )
misaddressed(
    "image pitch H",
    "the image's rows are indexed with its height H, not its width W",
    put("x", lambda s: pitched(s.x, s.z.H)),
)
layout(
    "offset transposed",
    "offset planes are read column by column",
    put(
        "dp",
        lambda s: (
            s.dp.reshape(*s.dp.shape[:4], -1)
            .reshape(*s.dp.shape[:4], *s.out[::-1])
            .swapaxes(-1, -2)
        ),
    ),
)
layout(
    "mask transposed",
    "mask planes are read column by column",
    put("m", lambda s: s.m.reshape(*s.m.shape[:3], *s.out[::-1]).swapaxes(-1, -2)),
)
layout(
    "weight flipped",
    "the weight is flipped in both axes (convolution, not correlation)",
    reweigh(lambda w: w[..., ::-1, ::-1]),
)
layout(
    "weight rows flipped",
    "the weight's rows are flipped",
    reweigh(lambda w: w[..., ::-1, :]),
)
layout(
    "weight columns flipped",
    "the weight's columns are flipped",
    reweigh(lambda w: w[..., ::-1]),
)
layout(
    "weight outputs reversed",
    "output channels are in reverse order within a group",
    put("w", lambda s: s.w[:, ::-1]),
)
layout(
    "weight inputs reversed",
    "input channels are in reverse order within a group",
    put("w", lambda s: s.w[:, :, ::-1]),
)
layout(
    "weight transposed",
    "the weight's axes are read as (input, output)",
    put(
        "w",
        lambda s: s.w.reshape(s.w.shape[0], s.w.shape[2], s.w.shape[1], s.K).swapaxes(
            1, 2
        ),
    ),
)
layout(
    "image transposed",
    "the image's rows and columns are exchanged",
    put("x", lambda s: s.x.reshape(*s.x.shape[:3], s.z.W, s.z.H).swapaxes(-1, -2)),
)
