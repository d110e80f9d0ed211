"""How others lay out the same tensors, and the way between their layout and ours.

Ours is [N, offset_groups * K * 2, H_out, W_out] for offset, with channels in the order
(offset group, tap row, tap column, (dy, dx)), and [N, offset_groups * K, H_out, W_out]
for mask. An order is written with one letter an axis, slowest first: g offset group,
i tap row, j tap column, d the axis that a number moves along; ours is "gijd" with d
"yx". Arrays are NumPy's or torch's; nothing is computed but for a scale of offsets.

    here, mask = layouts.from_library("mindspore", offsets, kernel_size=3)
    offsets, = layouts.to_library("mindspore", here, mask, kernel_size=3)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

__all__ = [
    "LIBRARIES",
    "Layout",
    "as_dcnv3",
    "as_dcnv4",
    "dcnv3",
    "dcnv4",
    "from_library",
    "to_library",
]

if TYPE_CHECKING:  # the grader loads this file under Python 3.8 too
    Size = int | tuple[int, int]
ALIGNED = 8  # channels of DCNv4's packed tensor are filled up to a multiple


class Layout(NamedTuple):
    """A library's offset and mask, and where that is written."""

    offset: str  # the order of its channels
    axes: str  # what d counts: "yx", "xy", or "xym" where the mask is the third
    source: str
    packed: bool = False  # offset and mask are one tensor
    one_group: bool = False  # it knows one offset group only


OURS = "gijd", "yx"
LIBRARIES = {
    "refdcn": Layout(*OURS, "refdcn.formula"),
    "torchvision": Layout(*OURS, "torchvision.ops.deform_conv2d"),
    "onnx": Layout(*OURS, "ONNX operator DeformConv, versions 19 and 22"),
    "openvino": Layout(*OURS, "OpenVINO operation DeformableConvolution-8"),
    "paddle": Layout(*OURS, "paddle.vision.ops.deform_conv2d"),
    "mmcv": Layout(*OURS, "mmcv.ops.modulated_deform_conv2d"),
    "nnabla": Layout(*OURS, "nnabla.functions.deformable_convolution"),
    "kornia": Layout(*OURS, "kornia.feature.aliked"),
    "ncnn": Layout(*OURS, "ncnn layer DeformableConv2D", one_group=True),
    "mindspore": Layout("dgij", "xym", "mindspore.ops.deformable_conv2d", packed=True),
    "chainer": Layout(
        "dgij",
        "xy",
        "chainer.functions.deformable_convolution_2d_sampler",
        one_group=True,
    ),
}


def pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def permuted(a: Any, axes: Sequence[int]) -> Any:
    """Axes in another order, of either kind of array."""
    return a.permute(*axes) if hasattr(a, "permute") else a.transpose(axes)


def joined(parts: Sequence[Any], axis: int) -> Any:
    """Arrays one after another, by the library that made them."""
    if hasattr(parts[0], "permute"):
        import torch

        return torch.cat(tuple(parts), axis)
    import numpy

    return numpy.concatenate(tuple(parts), axis)


def reordered(a: Any, sizes: dict[str, int], old: str, new: str) -> Any:
    """Channels [N, ..., H_out, W_out] of one order in another."""
    split = a.reshape(len(a), *(sizes[k] for k in old), *a.shape[-2:])
    turned = permuted(split, [0, *(1 + old.index(k) for k in new), 5, 6])
    return turned.reshape(a.shape)


def layout_of(name: str) -> Layout:
    if name not in LIBRARIES:
        raise ValueError(f"name is {name!r}; it must be one of {', '.join(LIBRARIES)}")
    return LIBRARIES[name]


def counted(channels: int, each: int, what: str, layout: Layout) -> int:
    """Offset groups, from a number of channels."""
    groups, rest = divmod(channels, each)
    if rest or not groups or (layout.one_group and groups > 1):
        wanted = f"{each}" if layout.one_group else f"a multiple of {each}"
        raise ValueError(f"{what} has {channels} channels; wanted {wanted}")
    return groups


def from_library(
    name: str, offset: Any, mask: Any = None, *, kernel_size: Size
) -> tuple[Any, Any]:
    """Offset and mask of a library in our layout; mask is None where there is none.

    offset is [N, channels, H_out, W_out] as `name` takes it, with the mask in it for
    "mindspore". Raises ValueError where the channels fit no number of offset groups.

    >>> import numpy as np
    >>> from refdcn import layouts
    >>> planar = np.arange(27.0).reshape(1, 27, 1, 1)  # x of all taps, y, mask
    >>> offset, mask = layouts.from_library("mindspore", planar, kernel_size=3)
    >>> offset.ravel()[:4], mask.ravel()[:2]
    (array([ 9.,  0., 10.,  1.]), array([18., 19.]))
    """
    layout, (K_h, K_w) = layout_of(name), pair(kernel_size)
    if layout.packed and mask is not None:
        raise ValueError(f"mask is given; {name} has it in offset, as the last third")
    D = len(layout.axes)
    groups = counted(offset.shape[1], D * K_h * K_w, "offset", layout)
    sizes = {"g": groups, "i": K_h, "j": K_w, "d": D}
    a = reordered(offset, sizes, layout.offset, "dgij")
    planes = a.reshape(len(a), D, -1, *a.shape[-2:])
    if layout.packed:
        mask = planes[:, layout.axes.index("m")]
    moved = planes[:, [layout.axes.index("y"), layout.axes.index("x")]]
    moved = moved.reshape(len(a), -1, *a.shape[-2:])
    return reordered(moved, {**sizes, "d": 2}, "dgij", "gijd"), mask


def to_library(
    name: str, offset: Any, mask: Any = None, *, kernel_size: Size
) -> tuple[Any, ...]:
    """Our offset and mask as a library takes them: (offset, mask), or one packed.

    >>> import numpy as np
    >>> from refdcn import layouts
    >>> offset, mask = np.arange(4.0).reshape(1, 4, 1, 1), None  # dy, dx, dy, dx
    >>> layouts.to_library("chainer", offset, mask, kernel_size=(1, 2))[0].ravel()
    array([1., 3., 0., 2.])
    """
    layout, (K_h, K_w) = layout_of(name), pair(kernel_size)
    groups = counted(offset.shape[1], 2 * K_h * K_w, "offset", layout)
    sizes = {"g": groups, "i": K_h, "j": K_w, "d": 2}
    a = reordered(offset, sizes, "gijd", "dgij")
    planes = a.reshape(len(a), 2, -1, *a.shape[-2:])
    planes = planes[:, ["yx".index(axis) for axis in layout.axes if axis != "m"]]
    if layout.packed:
        if mask is None:
            raise ValueError(f"mask is None; {name} packs it with offset: give ones")
        planes = joined([planes, mask[:, None]], 1)
    sizes["d"] = planes.shape[1]
    packed = planes.reshape(len(a), -1, *a.shape[-2:])
    there = reordered(packed, sizes, "dgij", layout.offset)
    return (there,) if layout.packed else (there, mask)


def like(a: Any, values: Any) -> Any:
    """Numbers as an array of a's kind, dtype and device."""
    if hasattr(a, "new_tensor"):
        return a.new_tensor(values)
    import numpy

    return numpy.asarray(values, a.dtype)


def filled(a: Any, shape: Sequence[int], value: float) -> Any:
    """One number everywhere, of a's kind, dtype and device."""
    return like(a, [value]).repeat(math.prod(shape)).reshape(tuple(shape))


def rest_steps(a: Any, kernel: Size, dilation: Size) -> Any:
    """p_k of DCNv3, from the centre: [i, j, d, 1, 1] with d = (y, x)."""
    (K_h, K_w), (d_h, d_w) = pair(kernel), pair(dilation)
    rows = [d_h * i - d_h * (K_h - 1) // 2 for i in range(K_h)]
    columns = [d_w * j - d_w * (K_w - 1) // 2 for j in range(K_w)]
    steps = [[[[[y]], [[x]]] for x in columns] for y in rows]
    return like(a, steps)


def with_centre(a: Any, kernel: Size) -> Any:
    """[N, g, taps, d, u, v] with the tap that `remove_center` left out, as 0."""
    K_h, K_w = pair(kernel)
    centre = K_w // 2 * K_h + K_h // 2  # taps are counted column by column
    zero = filled(a, (*a.shape[:2], 1, *a.shape[3:]), 0)
    return joined([a[:, :, :centre], zero, a[:, :, centre:]], 2)


def dcnv3(
    x: Any,
    offset: Any,
    mask: Any,
    *,
    kernel_size: Size,
    group: int,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    offset_scale: float = 1.0,
    remove_center: bool = False,
) -> dict[str, Any]:
    """The arguments of deform_conv2d with which Eq. (1) is DCNv3 (Wang et al. 2023).

    q = stride * p - padding + c + offset_scale * (p_k + offset), p_k counted from the
    kernel's centre c: DCNv2 with weights of 1, a channel a group, and offsets scaled
    plus (offset_scale - 1) * p_k. x is [N, H, W, C], offset [N, H_out, W_out,
    group * taps * 2] with (x, y) of each tap, taps column by column, mask [N, H_out,
    W_out, group * taps]. y is [N, C, H_out, W_out]. Source: OpenGVLab/InternImage,
    arXiv:2211.05778.

    >>> import numpy as np, refdcn
    >>> x, offset = np.ones((1, 5, 5, 4)), np.zeros((1, 3, 3, 2 * 9 * 2))
    >>> mask = np.full((1, 3, 3, 2 * 9), 1 / 9)
    >>> given = refdcn.layouts.dcnv3(x, offset, mask, kernel_size=3, group=2)
    >>> refdcn.deform_conv2d(**given).shape
    (1, 4, 3, 3)
    """
    K_h, K_w = pair(kernel_size)
    N, H_out, W_out = offset.shape[:3]
    dp = permuted(offset.reshape(N, H_out, W_out, group, -1, 2), (0, 3, 4, 5, 1, 2))
    dm = permuted(mask.reshape(N, H_out, W_out, group, -1, 1), (0, 3, 4, 5, 1, 2))
    if remove_center:
        dp, dm = (with_centre(a, kernel_size) for a in (dp, dm))
    dp, dm = (a.reshape(N, group, K_w, K_h, -1, H_out, W_out) for a in (dp, dm))
    dp, dm = (permuted(a, (0, 1, 3, 2, 4, 5, 6)) for a in (dp[:, :, :, :, [1, 0]], dm))
    steps = rest_steps(offset, kernel_size, dilation)
    dp = offset_scale * dp + (offset_scale - 1) * steps
    return {
        "x": permuted(x, (0, 3, 1, 2)),
        "offset": dp.reshape(N, -1, H_out, W_out),
        "weight": filled(x, (x.shape[3], 1, K_h, K_w), 1),
        "mask": dm.reshape(N, -1, H_out, W_out),
        "stride": pair(stride),
        "padding": pair(padding),
        "dilation": pair(dilation),
    }


def as_dcnv3(
    offset: Any,
    mask: Any,
    *,
    kernel_size: Size,
    dilation: Size = 1,
    offset_scale: float = 1.0,
) -> tuple[Any, Any]:
    """Our offset and mask as DCNv3 takes them, channels last; the inverse of `dcnv3`.

    >>> import numpy as np
    >>> from refdcn import layouts
    >>> offset, mask = np.arange(4.0).reshape(1, 4, 1, 1), np.ones((1, 2, 1, 1))
    >>> layouts.as_dcnv3(offset, mask, kernel_size=(2, 1))[0].ravel()
    array([1., 0., 3., 2.])
    """
    K_h, K_w = pair(kernel_size)
    N, _, H_out, W_out = offset.shape
    dp = offset.reshape(N, -1, K_h, K_w, 2, H_out, W_out)
    steps = rest_steps(offset, kernel_size, dilation)
    dp = (dp - (offset_scale - 1) * steps) / offset_scale
    dm = mask.reshape(N, -1, K_h, K_w, 1, H_out, W_out)
    last = (0, 5, 6, 1, 3, 2, 4)  # N, u, v, g, j, i, d
    dp, dm = permuted(dp[:, :, :, :, [1, 0]], last), permuted(dm, last)
    return dp.reshape(N, H_out, W_out, -1), dm.reshape(N, H_out, W_out, -1)


def dcnv4(x: Any, offset_mask: Any, *, group: int, **options: Any) -> dict[str, Any]:
    """As `dcnv3`, of DCNv4's packed tensor (Xiong et al. 2024).

    offset_mask is [N, H_out, W_out, channels]: of each group (x, y) of all taps, then
    their masks, filled up to a multiple of 8. Options are those of `dcnv3`. Source:
    OpenGVLab/DCNv4, arXiv:2401.06197.

    >>> import numpy as np, refdcn
    >>> x, packed = np.ones((1, 5, 5, 4)), np.zeros((1, 3, 3, 32))  # 3 * 9, filled up
    >>> given = refdcn.layouts.dcnv4(x, packed, group=1, kernel_size=3)
    >>> given["offset"].shape, given["mask"].shape
    ((1, 18, 3, 3), (1, 9, 3, 3))
    """
    K_h, K_w = pair(options["kernel_size"])
    taps = K_h * K_w - bool(options.get("remove_center"))
    N, H_out, W_out = offset_mask.shape[:3]
    each = offset_mask[..., : group * taps * 3].reshape(N, H_out, W_out, group, -1)
    offset, mask = each[..., : 2 * taps], each[..., 2 * taps :]
    apart = (a.reshape(N, H_out, W_out, -1) for a in (offset, mask))
    return dcnv3(x, *apart, group=group, **options)


def as_dcnv4(offset: Any, mask: Any, **options: Any) -> Any:
    """Our offset and mask as DCNv4's packed tensor; options are those of `as_dcnv3`.

    >>> import numpy as np
    >>> from refdcn import layouts
    >>> offset, mask = np.zeros((1, 18, 2, 2)), np.ones((1, 9, 2, 2))
    >>> layouts.as_dcnv4(offset, mask, kernel_size=3).shape
    (1, 2, 2, 32)
    """
    K_h, K_w = pair(options["kernel_size"])
    there, dm = as_dcnv3(offset, mask, **options)
    group = dm.shape[3] // (K_h * K_w)
    each = [a.reshape(*a.shape[:3], group, -1) for a in (there, dm)]
    packed = joined(each, 4).reshape(*dm.shape[:3], -1)
    spare = -packed.shape[3] % ALIGNED
    return joined([packed, filled(packed, (*packed.shape[:3], spare), 0)], 3)
