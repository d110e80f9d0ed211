"""Mistakes in where the taps lie: stride, padding, dilation, shifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from refdcn.grading.catalogue.layout import in_memory
from refdcn.grading.catalogue.mistake import Mistake, add
from refdcn.grading.catalogue.steps import State
from refdcn.grading.expected.case import Array

MISTAKES: list[Mistake] = []


def windows(**change: Callable[[Any], tuple[float, float]]) -> Callable[[State], None]:
    """Taps laid out with other strides, paddings or dilations."""

    def edit(s: State) -> None:
        z = s.z
        (sy, sx), (py, px), (dy, dx) = (
            change[k](z) if k in change else getattr(z, k)
            for k in ("stride", "padding", "dilation")
        )
        u, v = np.indices(s.out)
        i, j = np.indices((z.K_h, z.K_w)).reshape(2, s.K, 1, 1)
        s.by, s.bx = sy * u - py + dy * i, sx * v - px + dx * j

    return edit


Split = Callable[[Array, Any], tuple[Array, Array]]  # of a flat index, and the sizes


def output_split(split: Split) -> Callable[[State], None]:
    """Positions of output pixels whose flat index is split in another way."""

    def edit(s: State) -> None:
        u, v = split(np.arange(s.out[0] * s.out[1]).reshape(s.out), s.z)
        own_u, own_v = np.indices(s.out)
        s.by = s.by + s.z.stride[0] * (u - own_u)
        s.bx = s.bx + s.z.stride[1] * (v - own_v)

    return edit


def reread(split: Split) -> Callable[[State], None]:
    """Offsets and mask of the pixel that such an index leads to."""

    def edit(s: State) -> None:
        u, v = split(np.arange(s.out[0] * s.out[1]).reshape(s.out), s.z)
        plane = s.out[0] * s.out[1]
        s.dp = in_memory(s.dp, u * s.out[1] + v, plane)
        s.m = in_memory(s.m, u * s.out[1] + v, plane)

    return edit


def tap_split(split: Split) -> Callable[[State], None]:
    """Positions of taps whose flat index is split in another way."""

    def edit(s: State) -> None:
        k = np.arange(s.K)[:, None, None]
        i, j = split(k, s.z)
        s.by = s.by + s.z.dilation[0] * (i - k // s.z.K_w)
        s.bx = s.bx + s.z.dilation[1] * (j - k % s.z.K_w)

    return edit


def moved(f: Callable[[State], tuple[Any, Any]]) -> Callable[[State], None]:
    """Taps moved by (rows, columns)."""

    def edit(s: State) -> None:
        dy, dx = f(s)
        s.by, s.bx = s.by + dy, s.bx + dx

    return edit


def geometry(name: str, text: str, edit: Callable[[State], None]) -> None:
    """A mistake in where taps lie."""
    add(MISTAKES, "geometry", "grid", name, text, edit)


for key in ("stride", "padding", "dilation"):
    geometry(
        f"{key} swapped",
        f"the two {key}s are exchanged",
        windows(**{key: lambda z, k=key: getattr(z, k)[::-1]}),
    )
    geometry(
        f"{key} of rows",
        f"the {key} of the rows is used for both axes",
        windows(**{key: lambda z, k=key: (getattr(z, k)[0],) * 2}),
    )
    geometry(
        f"{key} of columns",
        f"the {key} of the columns is used for both axes",
        windows(**{key: lambda z, k=key: (getattr(z, k)[1],) * 2}),
    )
geometry(
    "dilation ignored", "the dilation is ignored", windows(dilation=lambda z: (1, 1))
)
geometry("padding ignored", "the padding is ignored", windows(padding=lambda z: (0, 0)))
geometry("stride ignored", "the stride is ignored", windows(stride=lambda z: (1, 1)))
geometry(
    "padding doubled",
    "the padding is applied twice",
    windows(padding=lambda z: (2 * z.padding[0], 2 * z.padding[1])),
)
geometry(
    "padding added",
    "the padding is added, not subtracted",
    windows(padding=lambda z: (-z.padding[0], -z.padding[1])),
)
geometry(
    "same padding",
    "the padding is half the kernel, whatever is passed",
    windows(padding=lambda z: (z.K_h // 2, z.K_w // 2)),
)


def ignored_along(name: str, axis: int) -> Callable[[Any], tuple[int, int]]:
    """One window parameter whose one axis has its default."""
    default = 0 if name == "padding" else 1

    def pair(z: Any) -> tuple[int, int]:
        found = list(getattr(z, name))
        found[axis] = default
        return found[0], found[1]

    return pair


def of_windows() -> None:
    """Parameters ignored along one axis, and such as have another meaning."""
    for name in ("stride", "padding", "dilation"):
        for axis, lines in enumerate(("rows", "columns")):
            geometry(
                f"{name} ignored along {lines}",
                f"the {name} along {lines} is ignored",
                windows(**{name: ignored_along(name, axis)}),
            )
    geometry(
        "dilation as holes",
        "the dilation is taken for the number of pixels left out between taps: taps "
        "are dilation + 1 apart",
        windows(dilation=lambda z: (z.dilation[0] + 1, z.dilation[1] + 1)),
    )
    geometry(
        "padding by dilation",
        "the padding is multiplied by the dilation",
        windows(
            padding=lambda z: (
                z.padding[0] * z.dilation[0],
                z.padding[1] * z.dilation[1],
            )
        ),
    )
    geometry(
        "padding one less",
        "the padding is one less than what is passed",
        windows(padding=lambda z: (z.padding[0] - 1, z.padding[1] - 1)),
    )


of_windows()
geometry(
    "stride for dilation",
    "the stride is used as dilation",
    windows(dilation=lambda z: z.stride),
)
geometry(
    "dilation for stride",
    "the dilation is used as stride",
    windows(stride=lambda z: z.dilation),
)
geometry(
    "padding by stride",
    "the padding is multiplied by the stride",
    windows(padding=lambda z: tuple(np.multiply(z.padding, z.stride))),
)
geometry(
    "centred taps",
    "taps are centred on the kernel",
    moved(
        lambda s: (
            -s.z.dilation[0] * ((s.z.K_h - 1) // 2),
            -s.z.dilation[1] * ((s.z.K_w - 1) // 2),
        )
    ),
)


CENTRES: dict[str, Callable[[int], float]] = {
    "K // 2": lambda K: K // 2,
    "(K - 1) // 2": lambda K: (K - 1) // 2,
    "(K - 1) / 2": lambda K: (K - 1) / 2,
}


def by_centre(of: Callable[[int], float], sign: int) -> Callable[[State], None]:
    """Taps moved by what a dilated step to the kernel's centre differs from a plain."""
    return moved(
        lambda s: (
            sign * (s.z.dilation[0] - 1) * of(s.z.K_h),
            sign * (s.z.dilation[1] - 1) * of(s.z.K_w),
        )
    )


def about_centre(of: Callable[[int], float]) -> Callable[[State], None]:
    """Taps beside one another about a centre that is where it must be."""

    def edit(s: State) -> None:
        windows(dilation=lambda z: (1, 1))(s)
        by_centre(of, 1)(s)

    return edit


for said, of in CENTRES.items():
    for start, sign, where in (
        ("step to the kernel's centre", -1, "up and left"),
        ("step back from the kernel's centre", 1, "down and right"),
    ):
        geometry(
            f"{start} not dilated, {said}",
            f"the {start} is not dilated: at dilations above 1 taps lie "
            f"(dilation - 1) * ({said}) {where}",
            by_centre(of, sign),
        )
    geometry(
        f"dilation ignored about the centre, {said}",
        "the dilation is ignored about the kernel's centre: taps lie side by side "
        f"around tap {said}",
        about_centre(of),
    )
geometry(
    "same padding, dilated",
    "the padding is half the dilated kernel, whatever is passed",
    windows(
        padding=lambda z: (
            z.dilation[0] * (z.K_h // 2),
            z.dilation[1] * (z.K_w // 2),
        )
    ),
)
for name, text, half in (
    ("(K - 1) // 2", "(K - 1) // 2", lambda k, d: (k - 1) // 2),
    ("d (K - 1) // 2", "dilation * (K - 1) // 2", lambda k, d: d * (k - 1) // 2),
    ("d ((K - 1) // 2)", "dilation * ((K - 1) // 2)", lambda k, d: d * ((k - 1) // 2)),
):
    geometry(
        f"same padding of {name}",
        f"the padding is {text}, whatever is passed",
        windows(
            padding=lambda z, f=half: (  # type: ignore[misc]
                f(z.K_h, z.dilation[0]),
                f(z.K_w, z.dilation[1]),
            )
        ),
    )


def by_kernel(f: Callable[[int], int], dilated: bool) -> Callable[[State], None]:
    """Taps moved by steps that follow the kernel's size along each axis."""
    return moved(
        lambda s: (
            f(s.z.K_h) * (s.z.dilation[0] if dilated else 1),
            f(s.z.K_w) * (s.z.dilation[1] if dilated else 1),
        )
    )


for said, of_size in (
    ("(K - 1) // 2", lambda K: (K - 1) // 2),
    ("K // 2", lambda K: K // 2),
):
    geometry(
        f"window centre of 3x3, {said}",
        "the window's centre is that of a 3x3 kernel, whatever the kernel's size: taps "
        f"begin {said} steps before it",
        by_kernel(lambda K, f=of_size: 1 - f(K), True),  # type: ignore[misc]
    )
    geometry(
        f"taps centred as of 3x3, {said}",
        "taps are centred as those of a 3x3 kernel, whatever the kernel's size: the "
        f"window's centre is {said} steps from its corner",
        by_kernel(lambda K, f=of_size: f(K) - 1, True),  # type: ignore[misc]
    )
for where, sign in (("up or left", -1), ("down or right", 1)):
    for dilated in (True, False):
        step = "dilated step" if dilated else "pixel"
        geometry(
            f"even kernels one {step} {where}",
            f"along an axis with an even kernel the window is shifted by one {step} "
            f"{where}",
            by_kernel(lambda K, s=sign: s * (K % 2 == 0), dilated),  # type: ignore[misc]
        )
geometry(
    "half pixel", "positions are shifted by half a pixel", moved(lambda s: (0.5, 0.5))
)
geometry(
    "minus half pixel",
    "positions are shifted by minus half a pixel",
    moved(lambda s: (-0.5, -0.5)),
)
geometry("one row late", "positions are one row too low", moved(lambda s: (1, 0)))
geometry(
    "one column late", "positions are one column too far right", moved(lambda s: (0, 1))
)
geometry("one early", "positions are one pixel up and left", moved(lambda s: (-1, -1)))


def tap_exchanged(s: State) -> None:
    """The tap's row steps along columns, and its column along rows."""
    i, j = np.indices((s.z.K_h, s.z.K_w)).reshape(2, s.K, 1, 1)
    s.by = s.by + s.z.dilation[0] * (j - i)
    s.bx = s.bx + s.z.dilation[1] * (i - j)


geometry(
    "taps transposed",
    "the tap's row and column are exchanged in its position",
    tap_exchanged,
)


def exchanged(s: State) -> None:
    """The output's row steps along columns, and its column along rows."""
    u, v = np.indices(s.out)
    s.by = s.by + s.z.stride[0] * (v - u)
    s.bx = s.bx + s.z.stride[1] * (u - v)


geometry(
    "output transposed",
    "the output's row and column are exchanged in positions",
    exchanged,
)


for name, how, split in (
    (
        "row by height",
        "oh = pixel / H_out, not pixel / W_out",
        lambda p, z: (p // max(1, z.out[0]), p % max(1, z.out[1])),
    ),
    (
        "pixel by height",
        "oh, ow = pixel / H_out, pixel % H_out, not / W_out, % W_out",
        lambda p, z: (p // max(1, z.out[0]), p % max(1, z.out[0])),
    ),
    (
        "pixel by columns",
        "oh, ow = pixel % H_out, pixel / H_out, not / W_out, % W_out",
        lambda p, z: (p % max(1, z.out[0]), p // max(1, z.out[0])),
    ),
):
    geometry(
        name, f"a flat pixel is split for its position as {how}", output_split(split)
    )
    MISTAKES.append(
        Mistake(
            "geometry",
            f"{name}, offsets too",
            f"a flat pixel is split as {how}",
            (("read", reread(split)), ("grid", output_split(split))),
            True,
        )
    )
geometry(
    "tap width three",
    "the kernel's width is taken to be 3: tap k lies at k / 3, k % 3",
    tap_split(lambda k, z: (k // 3, k % 3)),
)
geometry(
    "tap by height",
    "tap k lies at k / K_h, k % K_h, not at k / K_w, k % K_w",
    tap_split(lambda k, z: (k // z.K_h, k % z.K_h)),
)
geometry(
    "tap by columns",
    "taps lie column by column: tap k at k % K_h, k / K_h",
    tap_split(lambda k, z: (k % z.K_h, k // z.K_h)),
)


def positions(name: str, text: str, f: Callable[[State], tuple[Any, Any]]) -> None:
    """A mistake in the finished position."""

    def edit(s: State) -> None:
        s.qy, s.qx = f(s)

    add(MISTAKES, "geometry", "position", name, text, edit)


def corners_scale(q: Array, n: int) -> Array:
    """align_corners mixed up: [0, n - 1] stretched to [0, n]."""
    return np.asarray(q * n / max(n - 1, 1))


TRUE_FALSE = "the grid is made for align_corners=True and sampled with False"
FALSE_TRUE = "the grid is made for align_corners=False and sampled with True"


def true_false(q: Array, n: int) -> Array:
    """2 q / (n - 1) - 1, read as ((g + 1) n - 1) / 2."""
    return np.asarray(q * n / max(n - 1, 1) - 0.5)


def false_true(q: Array, n: int) -> Array:
    """(2 q + 1) / n - 1, read as (g + 1) (n - 1) / 2."""
    return np.asarray((q + 0.5) * (n - 1) / n)


def without_half(q: Array, n: int) -> Array:
    """2 q / n - 1, read as (g + 1) (n - 1) / 2."""
    return np.asarray(q * (n - 1) / n)


def along_axis(f: Callable[[Array, int], Array], axis: str) -> Callable[..., Any]:
    """Rows, columns or both read through a grid."""
    return lambda s: (
        f(s.qy, s.z.H) if axis != "columns" else s.qy,
        f(s.qx, s.z.W) if axis != "rows" else s.qx,
    )


for name, of_axis, way in (
    ("align corners off", TRUE_FALSE, true_false),
    ("align corners on", FALSE_TRUE, false_true),
):
    for axis in ("both", "rows", "columns"):
        positions(
            name if axis == "both" else f"{name} along {axis}",
            of_axis if axis == "both" else f"along {axis} {of_axis}",
            along_axis(way, axis),
        )
positions(
    "align corners",
    "positions are scaled by H / (H - 1) and W / (W - 1): half of an align_corners "
    "mismatch",
    along_axis(corners_scale, "both"),
)
positions(
    "align corners reversed",
    "positions are scaled by (H - 1) / H and (W - 1) / W: half of an align_corners "
    "mismatch",
    along_axis(without_half, "both"),
)
positions(
    "grid sizes exchanged",
    "positions are normalised with H and W exchanged (align_corners=False)",
    lambda s: (
        (s.qy + 0.5) * s.z.H / s.z.W - 0.5,
        (s.qx + 0.5) * s.z.W / s.z.H - 0.5,
    ),
)
positions(
    "grid frames exchanged",
    "positions are normalised with H - 1 and W - 1, of H and W exchanged "
    "(align_corners=True)",
    lambda s: (
        s.qy * (s.z.H - 1) / max(1, s.z.W - 1),
        s.qx * (s.z.W - 1) / max(1, s.z.H - 1),
    ),
)
positions(
    "column by height",
    "columns are normalised with H, the number of rows (align_corners=False)",
    lambda s: (s.qy, (s.qx + 0.5) * s.z.W / s.z.H - 0.5),
)
positions(
    "row by width",
    "rows are normalised with W, the number of columns (align_corners=False)",
    lambda s: ((s.qy + 0.5) * s.z.H / s.z.W - 0.5, s.qx),
)
positions(
    "column by frame of rows",
    "columns are normalised with H - 1, of the rows (align_corners=True)",
    lambda s: (s.qy * (s.z.H > 1), s.qx * (s.z.W - 1) / max(1, s.z.H - 1)),
)
positions(
    "row by frame of columns",
    "rows are normalised with W - 1, of the columns (align_corners=True)",
    lambda s: (s.qy * (s.z.H - 1) / max(1, s.z.W - 1), s.qx * (s.z.W > 1)),
)


def through_frame(made: str, sampled: str, aligned: bool) -> Callable[[State], Any]:
    """A grid made for one size and sampled in another; a frame is the padded image."""

    def size(s: State, of: str, axis: int) -> int:
        n, padding = (s.z.H, s.z.W)[axis], s.z.padding[axis]
        return int({"image": n, "frame": n + 2 * padding, "output": s.out[axis]}[of])

    def moved(s: State, q: Array, axis: int) -> Array:
        shift = s.z.padding[axis] * (sampled == "frame")
        a, b = size(s, made, axis), size(s, sampled, axis)
        if aligned:
            return np.asarray((q + shift) * (b - 1) / max(1, a - 1) - shift)
        return np.asarray((q + shift + 0.5) * b / a - 0.5 - shift)

    return lambda s: (moved(s, s.qy, 0), moved(s, s.qx, 1))


for aligned in (False, True):
    how = f"(align_corners={aligned})"
    for made, sampled, text in (
        (
            "image",
            "frame",
            "positions in the padded image are normalised with the size of the image "
            "without padding",
        ),
        (
            "frame",
            "image",
            "positions are normalised with the size of the padded image and sampled in "
            "the image",
        ),
        (
            "output",
            "image",
            "positions are normalised with H_out and W_out, not with H and W",
        ),
    ):
        positions(
            f"grid of the {made} in the {sampled} {how}",
            f"{text} {how}",
            through_frame(made, sampled, aligned),
        )
positions(
    "one line at 0",
    "where H = 1 or W = 1, every position along that axis is read as 0, as by a grid "
    "divided by max(size - 1, 1)",
    lambda s: (s.qy * (s.z.H > 1), s.qx * (s.z.W > 1)),
)
positions(
    "position swapped",
    "the sample is read at (x, y) instead of (y, x)",
    lambda s: (s.qx, s.qy),
)
positions(
    "dilated offset and tap",
    "the offset is dilated with the tap, from the corner",
    lambda s: (
        s.by + s.dp[:, :, :, 0] * s.z.dilation[0] * s.z.stride[0],
        s.bx + s.dp[:, :, :, 1] * s.z.dilation[1] * s.z.stride[1],
    ),
)


def in_3x3(edit: Callable[[State], None]) -> Callable[[State], None]:
    """Made by what is written for 3x3 kernels alone."""

    def edits(s: State) -> None:
        if s.z.K_h == s.z.K_w == 3:
            edit(s)

    return edits


for name, neutral in (("stride", 1), ("padding", 0), ("dilation", 1)):
    change: dict[str, Callable[[Any], tuple[float, float]]] = {
        name: lambda z, n=neutral: (n, n)  # type: ignore[misc]
    }
    add(
        MISTAKES,
        "geometry",
        "grid",
        f"{name} ignored in 3x3",
        f"3x3 kernels ignore the {name}",
        in_3x3(windows(**change)),
    )
