"""The cases by name: what each is for, and its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from refdcn.grading.expected.case import Case, Sizes, offset_shape
from refdcn.vectors.portable_numbers import GRAD_Y, MASK, WEIGHT, Stream, X


class Plan(NamedTuple):
    """One case before its numbers are drawn."""

    name: str
    why: str
    sizes: Sizes
    offsets: str = "near"  # zero, whole, near, border or far: see draw.py
    mask: bool = True
    bias: bool = True
    dtype: str = "float32"

    def case(self, seed: int) -> Case:
        """The case that a seed gives."""
        s, draw = self.sizes, Stream(seed, self.name)
        N, og, K, _, *out = offset_shape(s)
        kernel = s.C_out, s.C_in // s.groups, s.K_h, s.K_w
        x = draw.numbers((N, s.C_in, s.H, s.W), X).astype(self.dtype)
        offset = draw.offset(s, self.offsets).astype(self.dtype)
        weight = draw.numbers(kernel, WEIGHT).astype(self.dtype)
        mask = draw.numbers((N, og * K, *out), MASK).astype(self.dtype)
        bias = draw.numbers((s.C_out,), WEIGHT).astype(self.dtype)
        grad_y = draw.numbers((N, s.C_out, *out), GRAD_Y).astype(self.dtype)
        return Case(
            "vectors",
            "bound",
            x,
            offset,
            weight,
            mask if self.mask else None,
            bias if self.bias else None,
            s.stride,
            s.padding,
            s.dilation,
            self.name,
            grad_y,
        )


def plain(**changed: Any) -> Sizes:
    """A small layer, with some sizes changed."""
    sizes = Sizes(2, 4, 6, 1, 1, 3, 3, 9, 7, (1, 1), (1, 1), (1, 1))
    return sizes._replace(**changed)


UNEVEN = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "K_w": 2}


def smoke() -> Iterator[Plan]:
    """Enough for every change of a kernel."""
    yield Plan("dense", "zero offsets, no mask: torch.nn.Conv2d without its bias",
               plain(), "zero", False, False)  # fmt: skip
    yield Plan("modulated", "zero offsets: the mask alone acts", plain(), "zero")
    yield Plan("whole", "samples on pixels: no interpolation, slopes at their kinks",
               plain(), "whole")  # fmt: skip
    yield Plan("fractions", "samples between pixels", plain())
    yield Plan("border", "samples on both sides of every border", plain(), "border")
    yield Plan("far", "samples 40 pixels outside, and in row -1 or H exactly",
               plain(), "far")  # fmt: skip
    yield Plan("uneven", "rows and columns differ in every setting",
               plain(**UNEVEN), "border")  # fmt: skip
    yield Plan("uneven_turned", "the same with rows and columns exchanged",
               plain(stride=(1, 3), padding=(2, 0), dilation=(3, 1), K_h=2, H=8, W=14),
               "border")  # fmt: skip
    yield Plan("dilated", "a kernel of 3 x 3 with gaps between its taps",
               plain(dilation=(2, 3), padding=(2, 3)), "border")  # fmt: skip
    yield from grouped()
    yield Plan("no_mask", "DCNv1: a mask that is left out is 1", plain(), mask=False)
    yield Plan("no_bias", "a bias that is left out is 0", plain(), bias=False)
    yield from thin()
    yield from tails()
    for dtype in ("float64", "float16"):
        yield Plan(f"border_{dtype}", f"samples around the borders in {dtype}",
                   plain(H=6, W=5), "border", dtype=dtype)  # fmt: skip
        yield Plan(f"groups_{dtype}", f"all settings at once in {dtype}",
                   plain(C_in=6, groups=3, offset_groups=2, **UNEVEN),
                   dtype=dtype)  # fmt: skip


def grouped() -> Iterator[Plan]:
    """Groups of channels."""
    yield Plan("groups", "two groups of the weight", plain(groups=2))
    yield Plan("offset_groups", "four channels with offsets of their own",
               plain(offset_groups=4, H=7, W=6))  # fmt: skip
    yield Plan("nested", "two groups in each of two offset groups",
               plain(C_in=8, C_out=8, groups=4, offset_groups=2),
               "border")  # fmt: skip
    yield Plan("crossed", "three groups and two offset groups",
               plain(C_in=6, groups=3, offset_groups=2, **UNEVEN),
               "border")  # fmt: skip
    yield Plan("crossed_turned", "two groups, three offset groups",
               plain(C_in=6, groups=2, offset_groups=3, K_h=2), "border")  # fmt: skip
    yield Plan("depthwise", "a channel a group, two outputs each",
               plain(C_in=4, C_out=8, groups=4, offset_groups=2))  # fmt: skip


def thin() -> Iterator[Plan]:
    """Kernels and images at their smallest."""
    yield Plan("one_tap", "a kernel of 1 x 1", plain(K_h=1, K_w=1, padding=(0, 0)))
    yield Plan("even", "a kernel of 2 x 4, without padding",
               plain(K_h=2, K_w=4, padding=(0, 0)))  # fmt: skip
    yield Plan("tall", "a kernel of 5 x 1", plain(K_h=5, K_w=1, padding=(2, 0)))
    yield Plan("wide", "a kernel of 1 x 7", plain(K_h=1, K_w=7, padding=(0, 3)))
    yield Plan("sixteen_taps", "a kernel of 4 x 4", plain(K_h=4, K_w=4))
    yield Plan("apart", "a stride beyond the kernel",
               plain(K_h=2, K_w=2, stride=(3, 4), H=13, W=14))  # fmt: skip
    yield Plan("one_row", "an image of one row", plain(H=1, W=9), "border")
    yield Plan("one_column", "an image of one column", plain(H=9, W=1), "border")
    yield Plan("one_pixel", "an image of one pixel, and a kernel around it",
               plain(H=1, W=1), "border")  # fmt: skip
    yield Plan("wide_image", "530 columns, more than 2,048 outputs, offsets across all",
               plain(N=1, C_in=1, C_out=1, K_h=1, K_w=1, H=4, W=530),
               "border")  # fmt: skip
    yield Plan("one_channel", "one channel in, one out", plain(C_in=1, C_out=1))
    yield Plan("no_padding", "no padding, a stride of 2",
               plain(padding=(0, 0), stride=(2, 2), H=9, W=8), "border")  # fmt: skip


def tails() -> Iterator[Plan]:
    """Sizes beyond those of a vector, a block, a warp."""
    one = {"N": 1, "H": 5, "W": 5}
    yield Plan("batch_33", "33 images", plain(N=33, C_in=2, C_out=2, H=4, W=3))
    yield Plan("inputs_67", "67 channels in", plain(C_in=67, C_out=5, **one))
    yield Plan("outputs_131", "131 channels out", plain(C_in=3, C_out=131, **one))
    yield Plan("columns_67", "67 columns", plain(N=1, C_in=2, C_out=3, H=3, W=67))
    yield Plan("rows_67", "67 rows", plain(N=1, C_in=2, C_out=3, H=67, W=3))
    yield Plan("offset_groups_9", "9 offset groups",
               plain(C_in=9, C_out=2, offset_groups=9, **one))  # fmt: skip


def full() -> Iterator[Plan]:
    """More of each, and layers as networks have them."""
    yield from smoke()
    yield Plan("layer", "a layer as networks have it, 3 x 3 with padding 1",
               plain(N=1, C_in=48, C_out=40, H=13, W=14))  # fmt: skip
    yield Plan("layer_groups", "the same with groups and offset groups, stride 2",
               plain(N=2, C_in=48, C_out=48, groups=4, offset_groups=6, H=15, W=17,
                     stride=(2, 2)), "border")  # fmt: skip
    yield Plan("layer_depthwise", "a depthwise layer, 5 x 5",
               plain(N=1, C_in=32, C_out=32, groups=32, K_h=5, K_w=5, H=12, W=10,
                     padding=(2, 2)), "border")  # fmt: skip
    yield Plan("batch_65", "65 images", plain(N=65, C_in=2, C_out=2, H=4, W=3))
    yield Plan("columns_131", "131 columns",
               plain(N=1, C_in=2, C_out=3, H=5, W=131), "border")  # fmt: skip
    yield Plan("inputs_259", "259 channels in", plain(C_in=259, C_out=3, N=1, H=3, W=3))
    yield Plan("kernel_9", "a kernel of 9 x 9",
               plain(N=1, K_h=9, K_w=9, padding=(4, 4)))  # fmt: skip
    yield Plan("empty", "no image at all", plain(N=0))
    for dtype in ("float64", "float16"):
        for kind in ("zero", "whole", "near", "far"):
            yield Plan(f"{kind}_{dtype}", f"{kind} offsets in {dtype}",
                       plain(N=1, C_in=6, groups=2, offset_groups=3), kind,
                       dtype=dtype)  # fmt: skip


PLANS = {"smoke": smoke, "full": full}
