"""What may be passed: sizes, strides and dtypes, and every error message."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

Shape: TypeAlias = Sequence[int]
Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = int | Sequence[int] | Sequence[Sequence[int]] | str

AXES = ("rows", "columns")
LARGEST = 2**31 - 1  # keeps stride * p - padding + dilation * k inside int64
DTYPES = ("float16", "float32", "float64")
PADDING = "an int, (rows, columns), ((top, bottom), (left, right)), 'same' or 'valid'"
OUTPUT = (
    "N is that of x, and H_out and W_out follow from x, weight, stride, padding "
    "and dilation"
)


class Geometry(NamedTuple):
    """The sizes of one deformable convolution; padding is (top, left)."""

    N: int
    C_in: int
    H: int
    W: int
    C_out: int
    H_out: int
    W_out: int
    K_h: int
    K_w: int
    groups: int
    offset_groups: int
    stride: Pair
    padding: Pair
    dilation: Pair


def geometry(
    x: Shape,
    offset: Shape,
    weight: Shape,
    mask: Shape | None,
    bias: Shape | None,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
) -> Geometry:
    """The sizes that these shapes and strides describe, or a clear error."""
    sizes = [a if a is None else tuple(a) for a in (x, offset, weight, mask, bias)]
    windows = stride, padding, dilation
    # To find a call that was checked before takes 2 us, to check it 12: a quarter of
    # 1x8x8x8. 1, 1.0 and True are equal, and of these 1 alone is a stride.
    known = _checked if all(map(_is_plain, windows)) else _checked.__wrapped__
    return known(*sizes, *windows)


def _is_plain(value: Any) -> bool:
    """Whether it is made of ints, tuples and strings alone."""
    kind = type(value)
    return kind in (int, str) or (kind is tuple and all(map(_is_plain, value)))


@lru_cache(1024)
def _checked(
    x: Shape,
    offset: Shape,
    weight: Shape,
    mask: Shape | None,
    bias: Shape | None,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
) -> Geometry:
    """As `geometry`, which remembers the answers: so the arguments are hashed."""
    N, C_in, H, W = _sizes("x", x, "[N, C_in, H, W]")
    C_out, C, K_h, K_w = _sizes("weight", weight, "[C_out, C_in / groups, K_h, K_w]")
    groups = _groups(C_in, C_out, C)
    strides = pair("stride", stride, least=1)
    dilations = pair("dilation", dilation, least=1)
    pads = paddings(padding, strides, dilations, (K_h, K_w))
    axes = zip(AXES, (H, W), (K_h, K_w), strides, pads, dilations, strict=True)
    H_out, W_out = (_y_size(*axis) for axis in axes)
    offset_groups = _offset_groups(offset, C_in, K_h, K_w)
    g = Geometry(
        N, C_in, H, W, C_out, H_out, W_out, K_h, K_w, groups, offset_groups,
        strides, (pads[0][0], pads[1][0]), dilations,
    )  # fmt: skip
    _matches("offset", offset, (N, offset[1], H_out, W_out), OUTPUT)
    if mask is not None:
        layout = "[N, offset_groups*K_h*K_w, H_out, W_out]"
        _sizes("mask", mask, layout)
        wanted = (N, offset_groups * K_h * K_w, H_out, W_out)
        _matches("mask", mask, wanted, f"{layout}, as many groups as offset has")
    if bias is not None:
        _matches("bias", bias, (C_out,), "[C_out], the first size of weight")
    return g


def kind(a: Any) -> str:
    """numpy.ndarray, cupy.ndarray, torch.Tensor: libraries share names of classes."""
    library = type(a).__module__.partition(".")[0]
    name = type(a).__name__
    return name if library == "builtins" else f"{library}.{name}"


def two_kinds(name: str, a: Any, other: str, b: Any) -> TypeError:
    """The error that says why arrays of two libraries do not go together."""
    return TypeError(
        f"{name} is {kind(a)} and {other} is {kind(b)}; all arguments need one kind, "
        "since the kind that comes in goes out"
    )


def check_grad_y(grad_y: Shape, g: Geometry) -> None:
    """grad_y must have the shape of y."""
    wanted = (g.N, g.C_out, g.H_out, g.W_out)
    _matches("grad_y", grad_y, wanted, "[N, C_out, H_out, W_out], the shape of y")


def check_dtypes(dtypes: dict[str, str], allowed: Sequence[str] = DTYPES) -> None:
    """One floating-point dtype for all arguments; `dtypes` maps names to names."""
    for name, dtype in dtypes.items():
        if dtype not in allowed:
            raise TypeError(
                f"{name} is {dtype}; the operator is defined for {', '.join(allowed)}"
            )
        if dtype != dtypes["x"]:
            raise TypeError(
                f"{name} is {dtype} and x is {dtypes['x']}; "
                "all arguments need one dtype, since a silent cast loses digits"
            )


def pair(
    name: str,
    value: int | Sequence[int],
    least: int,
    wanted: str = "an int or (rows, columns)",
) -> Pair:
    """(rows, columns) of an int or a pair of ints."""
    if type(value) is int and least <= value <= LARGEST:  # the usual, in 0.1 us
        return value, value
    values = value if isinstance(value, Sequence) else (value, value)
    if isinstance(value, str | bytes) or len(values) != 2:
        raise ValueError(f"{name} is {value!r}; wanted {wanted}")
    rows, columns = (_integer(name, v, value, least) for v in values)
    return rows, columns


def _integer(name: str, item: Any, whole: Any, least: int) -> int:
    if isinstance(item, bool):
        raise TypeError(f"{name} is {whole!r}; wanted integers, {item!r} is a bool")
    try:
        number = operator.index(item)
    except TypeError:
        raise TypeError(
            f"{name} is {whole!r}; wanted integers, "
            f"{item!r} is of type {type(item).__name__}"
        ) from None
    if not least <= number <= LARGEST:
        raise ValueError(f"{name} is {whole!r}; wanted at least {least}, below 2**31")
    return number


def paddings(
    padding: Padding, stride: Pair, dilation: Pair, kernel: Pair
) -> tuple[Pair, Pair]:
    """((top, bottom), (left, right))."""
    if isinstance(padding, str):
        return _named_padding(padding, stride, dilation, kernel)
    if isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding):
        if len(padding) != 2 or not all(
            isinstance(p, Sequence) and len(p) == 2 for p in padding
        ):
            raise ValueError(
                f"padding is {padding!r}; wanted ((top, bottom), (left, right))"
            )
        rows, columns = (_pads(p) for p in padding)
        return rows, columns
    top, left = _pads(padding)
    return (top, top), (left, left)


def _pads(padding: Any) -> Pair:
    return pair("padding", padding, least=0, wanted=PADDING)


def _named_padding(
    padding: str, stride: Pair, dilation: Pair, kernel: Pair
) -> tuple[Pair, Pair]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding != "same":
        raise ValueError(f"padding is {padding!r}; wanted {PADDING}")
    if stride != (1, 1):
        raise ValueError(
            f"padding is 'same' and stride is {stride}; 'same' keeps the image "
            "size, which needs stride 1"
        )
    rows, columns = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    # An odd total puts the extra zero at the bottom and right, as torch does.
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def output_size(size: int, kernel: int, stride: int, pads: int, dilation: int) -> int:
    """H_out or W_out, as of nn.Conv2d; `pads` is the padding of both sides."""
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def _y_size(
    axis: str, size: int, kernel: int, stride: int, pads: Pair, dilation: int
) -> int:
    padded = size + sum(pads)
    span = dilation * (kernel - 1) + 1
    if span > padded:
        raise ValueError(
            f"weight has a kernel of {kernel} {axis}, which spans {span} with "
            f"dilation {dilation}; x with its padding has {padded}, so y would be empty"
        )
    return output_size(size, kernel, stride, sum(pads), dilation)


def _groups(C_in: int, C_out: int, C: int) -> int:
    if C_in % C:
        raise ValueError(
            f"weight has {C} input channels a group and x has {C_in}; "
            "groups = C_in / weight.shape[1] must be whole"
        )
    if C_out % (C_in // C):
        raise ValueError(
            f"weight has {C_out} output channels, which {C_in // C} groups "
            f"(C_in / weight.shape[1] = {C_in} / {C}) do not divide"
        )
    return C_in // C


def _offset_groups(offset: Shape, C_in: int, K_h: int, K_w: int) -> int:
    layout = "[N, offset_groups*K_h*K_w*2, H_out, W_out]"
    channels = _four("offset", offset, layout)[1]
    one = 2 * K_h * K_w
    if channels == 0 or channels % one:
        groups = max(1, round(channels / one))
        raise ValueError(
            f"offset has {channels} channels; a {K_h}x{K_w} kernel with {groups} "
            f"offset group{'s' if groups > 1 else ''} needs 2*{groups}*{K_h * K_w} "
            f"= {groups * one}"
        )
    if C_in % (channels // one):
        raise ValueError(
            f"offset has {channels} channels, so {channels // one} offset groups of "
            f"2*{K_h * K_w}; they do not divide the {C_in} channels of x"
        )
    return channels // one


def _sizes(name: str, shape: Shape, layout: str) -> tuple[int, ...]:
    """Four sizes, of which only the batch may be 0."""
    sizes = _four(name, shape, layout)
    batch = 1 if layout.startswith("[N,") else 0
    if any(size < 1 for size in sizes[batch:]):
        raise ValueError(
            f"{name} has shape {_text(shape)}; each size of {layout} must be "
            f"at least 1{' (N may be 0)' if batch else ''}"
        )
    return sizes


def _four(name: str, shape: Shape, layout: str) -> tuple[int, ...]:
    if len(shape) != 4:
        raise ValueError(
            f"{name} has {len(shape)} dimensions, shape {_text(shape)}; wanted {layout}"
        )
    return tuple(shape)


def _matches(name: str, shape: Shape, wanted: Shape, why: str) -> None:
    if tuple(shape) != tuple(wanted):
        raise ValueError(
            f"{name} has shape {_text(shape)}; wanted {_text(wanted)}: {why}"
        )


def _text(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
