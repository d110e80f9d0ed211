"""How other libraries are called: `--as NAME`. The table is the only place.

An argument is written by the name of what is given; `keyword=what` gives it under a
name of the library's own, and `what?` only to a function that has one of that name.
How offset and mask lie is in refdcn.layouts, under the same name. What a library cannot
take is a gap, which `--as` declares.
"""

from __future__ import annotations

from typing import NamedTuple

from .routes import SpecError

DTYPES = "float64", "float32", "float16"


class Convention(NamedTuple):
    """How one library's function is called."""

    arguments: str
    array: str  # the adapter of its arrays
    function: str  # a real one, as a SPEC
    source: str  # where its arguments are written down
    dtypes: tuple[str, ...] = DTYPES  # others it refuses, or computes in one of these
    gaps: tuple[str, ...] = ()  # what it cannot take

    @property
    def declared(self) -> tuple[str, ...]:
        """Its gaps, those of its dtypes among them."""
        lacking = (d for d in DTYPES if d not in self.dtypes)
        return (*self.gaps, *(f"dtype == {d}" for d in lacking))


OF_TORCHVISION = "x offset weight bias stride padding dilation mask"
OF_DCNV3 = (
    "x offset mask K_h K_w stride_h stride_w pad_h pad_w dilation_h dilation_w "
    "group group_channels offset_scale im2col_step? remove_center?"
)
OF_DCNV4 = f"{OF_DCNV3} d_stride? block_thread? softmax?"
LIKE_THE_IMAGE = "only H_out == H and W_out == W and stride == 1 and dilation == 1"
CONVENTIONS = {
    "refdcn": Convention(
        "x offset weight mask bias stride=stride padding=padding dilation=dilation",
        "numpy",
        "refdcn:deform_conv2d",
        "refdcn.deform_conv2d",
    ),
    "torchvision": Convention(
        OF_TORCHVISION,
        "torch",
        "torchvision.ops:deform_conv2d",
        "pytorch.org/vision, torchvision.ops.deform_conv2d",
    ),
    "onnx": Convention(
        "x weight offset bias mask dilations=dilation group=groups "
        "kernel_shape=kernel_size offset_group=offset_groups pads=pads strides=stride",
        "numpy",
        "onnx.reference.ops.op_deform_conv:_deform_conv_implementation",
        "onnx.ai, operator DeformConv, versions 19 and 22",
        ("float32", "float16"),
        ("H < 2", "W < 2"),
    ),
    "openvino": Convention(
        "x offset weight stride pads_begin pads_end dilation mask=mask group=groups "
        "deformable_group=offset_groups bilinear_interpolation_pad=True",
        "openvino",
        "openvino.opset8:deformable_convolution",
        "docs.openvino.ai, DeformableConvolution-8",
        ("float32",),
    ),
    "paddle": Convention(
        "x offset weight bias stride padding dilation offset_groups groups mask",
        "paddle",
        "paddle.vision.ops:deform_conv2d",
        "paddlepaddle.org.cn, paddle.vision.ops.deform_conv2d",
        ("float64", "float32"),
        ("C_out % offset_groups != 0", "N == 0"),
    ),
    "mindspore": Convention(
        "x weight offset kernel_size strides_4 pads_4 bias dilations_4 groups "
        "offset_groups",
        "mindspore",
        "mindspore.ops:deformable_conv2d",
        "mindspore.cn, mindspore.ops.deformable_conv2d",
        ("float32", "float16"),
        ("mask == none", "N == 0"),
    ),
    "ncnn": Convention(
        "x offset weight mask bias stride=stride padding=padding dilation=dilation",
        "ncnn",
        "ncnn:Net",
        "github.com/Tencent/ncnn, layer DeformableConv2D",
        ("float32",),
        ("groups > 1", "offset_groups > 1", "N == 0"),
    ),
    "mmcv": Convention(
        "x offset mask weight bias stride padding dilation groups offset_groups",
        "torch",
        "mmcv.ops:modulated_deform_conv2d",
        "mmcv.readthedocs.io, mmcv.ops.ModulatedDeformConv2d",
        DTYPES,
        ("mask == none", "N == 0"),
    ),
    "chainer": Convention(
        "x offset weight bias stride=stride pad=padding",
        "chainer",
        "chainer.functions:deformable_convolution_2d_sampler",
        "docs.chainer.org, chainer.functions.deformable_convolution_2d_sampler",
        DTYPES,
        ("mask == given", "dilation > 1", "groups > 1", "offset_groups > 1", "N == 0"),
    ),
    "nnabla": Convention(
        "x weight offset mask bias pad=padding stride=stride dilation=dilation "
        "group=groups deformable_group=offset_groups",
        "nnabla",
        "nnabla.functions:deformable_convolution",
        "nnabla.readthedocs.io, nnabla.functions.deformable_convolution",
        ("float32",),
        ("N == 0", "C_out % offset_groups != 0", LIKE_THE_IMAGE),
    ),
    "kornia": Convention(
        OF_TORCHVISION,
        "torch",
        "kornia.feature.aliked.deform_conv2d:deform_conv2d",
        "github.com/kornia/kornia, kornia/feature/aliked/deform_conv2d.py",
    ),
    "dcnv3": Convention(
        OF_DCNV3,
        "torch",
        "ops_dcnv3.functions.dcnv3_func:dcnv3_core_pytorch",
        "github.com/OpenGVLab/InternImage, ops_dcnv3",
        DTYPES,
        ("N == 0",),
    ),
    "dcnv4": Convention(
        OF_DCNV4.replace("offset mask", "offset_mask"),
        "torch",
        "DCNv4.functions:DCNv4Function.apply",
        "github.com/OpenGVLab/DCNv4, DCNv4_op",
        DTYPES,
        ("N == 0",),
    ),
}


def convention_of(name: str) -> Convention:
    """The one of a name; SpecError lists what there is."""
    if name not in CONVENTIONS:
        raise SpecError(f"as is {name!r}; it must be one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]


def gaps(name: str | None) -> tuple[str, ...]:
    """What the library of a name cannot take."""
    return () if name is None else convention_of(name).declared
