"""DeformConv2d: a convolution that learns where to sample."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from refdcn.torch import tracing
from refdcn.torch.library import under_autocast
from refdcn.torch.op import deform_conv2d

Modulation: TypeAlias = Literal["sigmoid", "2sigmoid"] | None
SCALE = {"sigmoid": 1, "2sigmoid": 2}


class Branch(nn.Conv2d):
    """The convolution that computes offsets or a mask; it starts at zero."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        # A plain convolution has no branch. With neither weight nor bias given,
        # both stay as they are; with one of the two, the other is missing.
        if any(prefix + name in state_dict for name in self._parameters):
            super()._load_from_state_dict(state_dict, prefix, *args)


class DeformConv2d(nn.Conv2d):
    """nn.Conv2d whose taps move: offsets and mask come from the input itself.

        y(p) = sum_k  w_k * x(p + p_k + dp_k) * dm_k + b
        dp = offset(x),  dm = s * sigmoid(mask(x)),  s = 1 or 2

    `offset` and `mask` are convolutions with this one's kernel, stride, padding and
    dilation. They start at zero, so dp = 0 and dm = s / 2: half a convolution with
    "sigmoid", as the paper has it, and exactly the convolution with "2sigmoid" or
    None. A state_dict of nn.Conv2d loads with strict=True and leaves them as they are.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, \
padding_mode, device, dtype
        As for nn.Conv2d. With a padding_mode other than "zeros" the image is padded
        first and is zero beyond that.
    offset_groups : int
        Runs of input channels that share offsets and mask.
    modulation : "sigmoid", "2sigmoid" or None
        dm in (0, 1), dm in (0, 2), or no mask (DCNv1).

    Shapes
    ------
    x [N, C_in, H, W] or [C_in, H, W]; y [N, C_out, H_out, W_out] or without N.
    weight [C_out, C_in / groups, K_h, K_w]; bias [C_out]. Offsets are in pixels of x,
    in the channel order of `refdcn.formula`. All are float16, bfloat16, float32 or
    float64. Under autocast the branches compute in the dtype of their weights, since
    an offset of 10 pixels in bfloat16 is 0.06 pixels coarse.

    Raises
    ------
    ValueError
        offset_groups does not divide in_channels, modulation is unknown, or x has
        other channels than in_channels.

    References
    ----------
    Zhu et al. 2019 (arXiv:1811.11168), Section 3.1.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import DeformConv2d
    >>> plain = torch.nn.Conv2d(3, 8, 3, padding=1)
    >>> layer = DeformConv2d(3, 8, 3, padding=1, modulation="2sigmoid")
    >>> layer.load_state_dict(plain.state_dict())
    <All keys matched successfully>
    >>> x = torch.rand(2, 3, 7, 7)
    >>> torch.allclose(layer(x), plain(x), atol=1e-6)
    True
    """

    offset: Branch
    mask: Branch | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None, *,
        offset_groups: int = 1, modulation: Modulation = "sigmoid",
    ) -> None:  # fmt: skip
        check_branches(in_channels, offset_groups, modulation)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
            bias, padding_mode, device, dtype,
        )  # fmt: skip
        self.add_branches(offset_groups, modulation)

    def add_branches(self, offset_groups: int, modulation: Modulation) -> None:
        """What a convolution lacks to be deformable."""
        self.offset_groups, self.modulation = offset_groups, modulation
        K = self.kernel_size[0] * self.kernel_size[1]

        def branch(channels: int) -> Branch:
            return Branch(
                self.in_channels, channels, self.kernel_size, self.stride, self.padding,
                self.dilation, padding_mode=self.padding_mode,
                device=self.weight.device, dtype=self.weight.dtype,
            )  # fmt: skip

        self.offset = branch(2 * offset_groups * K)
        self.mask = None if modulation is None else branch(offset_groups * K)

    def forward(self, x: Tensor) -> Tensor:
        if tracing.is_symbol(x):
            return tracing.leaf(self, x)
        if x.ndim not in (3, 4) or x.shape[-3] != self.in_channels:
            raise ValueError(
                f"x has shape {list(x.shape)}; wanted [N, C_in, H, W] or [C_in, H, W] "
                f"with C_in = in_channels = {self.in_channels}"
            )
        if x.dtype != self.weight.dtype and not under_autocast(x):
            raise TypeError(
                f"x is {x.dtype} and the layer's weight is {self.weight.dtype}; convert "
                "one of them, x.to(layer.weight.dtype) or layer.to(x.dtype)"
            )
        if x.ndim == 3:
            return self.forward(x[None])[0]
        offset, mask = self.sampling(x)
        return self.convolve(self.padded(x), offset, mask)

    def sampling(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Offsets (dp) and mask (dm) for x [N, C_in, H, W]."""
        x = x.to(self.offset.weight.dtype)
        autocast = under_autocast(x)
        with torch.autocast(x.device.type, enabled=False) if autocast else nullcontext():
            offset = self.offset(x)
            if self.mask is None or self.modulation is None:
                return offset, None
            return offset, SCALE[self.modulation] * torch.sigmoid(self.mask(x))

    def padded(self, x: Tensor) -> Tensor:
        """The image that is sampled; zeros need not be stored."""
        if self.padding_mode == "zeros":
            return x
        sides = self._reversed_padding_repeated_twice
        return functional.pad(x, sides, mode=self.padding_mode)

    def convolve(self, image: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        """Eq. (1)."""
        padding = self.padding if self.padding_mode == "zeros" else 0
        return deform_conv2d(
            image, offset, self.weight, mask, self.bias,
            stride=self.stride, padding=padding, dilation=self.dilation,
        )  # fmt: skip

    def extra_repr(self) -> str:
        own = f"offset_groups={self.offset_groups}, modulation={self.modulation!r}"
        return f"{super().extra_repr()}, {own}"


def check_branches(in_channels: int, offset_groups: int, modulation: Any) -> None:
    """What nn.Conv2d does not check."""
    if not isinstance(offset_groups, int) or isinstance(offset_groups, bool):
        kind = type(offset_groups).__name__
        raise TypeError(f"offset_groups is {offset_groups!r}, a {kind}; wanted an int")
    if offset_groups < 1 or in_channels % offset_groups:
        raise ValueError(
            f"offset_groups is {offset_groups}; wanted a divisor of in_channels = "
            f"{in_channels}, since each group is an equal run of input channels"
        )
    if modulation is not None and modulation not in SCALE:
        raise ValueError(
            f"modulation is {modulation!r}; wanted 'sigmoid' (a mask that starts at "
            "0.5), '2sigmoid' (at 1) or None (no mask)"
        )
