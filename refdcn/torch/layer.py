"""DeformConv2d: a convolution that learns where to sample."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module

from refdcn.torch import checkpoints, rest, tracing
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

    def forward(self, x: Tensor) -> Tensor:
        # A weight that is no parameter is computed, by a norm for instance.
        if "weight" not in self._parameters and not torch.compiler.is_compiling():
            check_normed(self)
        return super().forward(x)

    def _apply(self, *args: Any, **kwargs: Any) -> Branch:
        # to_empty, and skip_init by it, would leave what the memory held before.
        meta = any(p.is_meta for p in self.parameters())
        super()._apply(*args, **kwargs)
        if meta and not any(p.is_meta for p in self.parameters()):
            self.reset_parameters()
        return self


def both(offset: Branch, mask: Branch, x: Tensor) -> tuple[Tensor, Tensor]:
    """What two branches make of x, by one convolution: 0.9 of a layer's time."""
    weight = torch.cat((offset.weight, mask.weight))
    bias = torch.cat((offset.bias, mask.bias))
    y = offset._conv_forward(x, weight, bias)
    one, other = y.split((len(offset.weight), len(mask.weight)), 1)
    return one, other


def is_bare(branch: Any) -> bool:
    """Whether it is as it was made, and nobody watches its calls."""
    if (
        type(branch) is not Branch
        or "forward" in vars(branch)
        or not (type(branch.weight) is type(branch.bias) is nn.Parameter)
    ):
        return False
    hooks = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks"
    return not any(getattr(branch, h) for h in (*hooks, "_backward_pre_hooks"))


def window_of(branch: Branch) -> tuple[Any, ...]:
    """What two branches must share to be one convolution."""
    weight = branch.weight
    return (
        branch.stride, branch.padding, branch.dilation, branch.padding_mode,
        branch.groups, weight.shape[1:], weight.dtype, weight.device,
    )  # fmt: skip


class DeformConv2d(nn.Conv2d):
    """nn.Conv2d whose taps move: offsets and mask come from the input itself.

        y(p) = sum_k  w_k * x(p + p_k + dp_k) * dm_k + b
        dp = offset(x),  dm = s * sigmoid(mask(x)),  s = 1 or 2

    `offset` and `mask` are convolutions with this one's kernel, stride, padding and
    dilation. They start at zero, so dp = 0 and dm = s / 2: half a convolution with
    "sigmoid", as the paper has it, and exactly the convolution with "2sigmoid" or
    None. A state_dict of nn.Conv2d loads with strict=True and sets them to zero.

    Called as `layer(x)`, as `layer(x, feature)`, whose branches read feature, or as
    `layer(x, offset=dp, mask=dm)`, which computes neither. Of dp and dm, what is not
    given comes from its branch; without a mask branch dm is 1.

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
    feature_channels : int, optional
        C_feature, the channels that the branches read; in_channels if None.
    branches : bool
        False makes a layer of weight and bias alone, whose dp and dm are always given.

    Shapes
    ------
    x [N, C_in, H, W] or [C_in, H, W]; y [N, C_out, H_out, W_out] or without N.
    feature [N, C_feature, H, W]; offset [N, 2 * offset_groups * K, H_out, W_out] and
    mask [N, offset_groups * K, H_out, W_out], K = K_h * K_w; without N where x is.
    weight [C_out, C_in / groups, K_h, K_w]; bias [C_out]. Offsets are in pixels of x,
    in the channel order of `refdcn.formula`. All are float16, bfloat16, float32 or
    float64. Under autocast the branches compute in the dtype of their weights, since
    an offset of 10 pixels in bfloat16 is 0.06 pixels coarse; so they do in a layer of
    a half type whose branches are float32, as `layer.offset.float()` makes them.

    Raises
    ------
    ValueError
        offset_groups does not divide in_channels, modulation is unknown, x or feature
        has the wrong channels, or there is no branch for what is not given.
    TypeError
        x has another dtype than the layer, outside autocast.

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

    # A Branch, what a user has put in its place, or None.
    offset: Any
    mask: Any
    _started: rest.Start | None = None  # until it is loaded or trained

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None, *,
        offset_groups: int = 1, modulation: Modulation = "sigmoid",
        feature_channels: int | None = None, branches: bool = True,
    ) -> None:  # fmt: skip
        check_branches(in_channels, offset_groups, modulation)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups,
            bias, padding_mode, device, dtype,
        )  # fmt: skip
        self.add_branches(offset_groups, modulation, feature_channels, branches)

    def add_branches(
        self,
        offset_groups: int,
        modulation: Modulation,
        feature_channels: int | None = None,
        branches: bool = True,
    ) -> None:
        """What a convolution lacks to be deformable."""
        self.offset_groups, self.modulation = offset_groups, modulation
        if feature_channels is None:
            feature_channels = self.in_channels
        if not isinstance(feature_channels, int) or feature_channels < 1:
            raise ValueError(
                f"feature_channels is {feature_channels!r}; wanted the number of "
                "channels that the branches read, an int of at least 1, or None"
            )
        self.feature_channels = feature_channels
        taps = offset_groups * self.kernel_size[0] * self.kernel_size[1]

        def branch(channels: int) -> Branch:
            return Branch(
                self.feature_channels, channels, self.kernel_size, self.stride,
                self.padding, self.dilation, padding_mode=self.padding_mode,
                device=self.weight.device, dtype=self.weight.dtype,
            )  # fmt: skip

        masked = branches and modulation is not None
        self.offset = branch(2 * taps) if branches else None
        self.mask = branch(taps) if masked else None
        self._started = rest.start(self)

    def forward(
        self,
        x: Tensor,
        feature: Tensor | None = None,
        *,
        offset: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """y, with offset and mask from the branches where they are not given."""
        given = {"feature": feature, "offset": offset, "mask": mask}
        if tracing.is_symbol(x):
            given = {name: t for name, t in given.items() if t is not None}
            return tracing.leaf(self, x, **given)
        if not torch.jit.is_tracing():  # it would record the comparisons
            self.check(x, **given)
        if self._started and not torch.compiler.is_compiling():
            self._started = None if rest.check(self, self._started) else self._started
        if x.ndim == 3:
            x, feature, offset, mask = (
                t if t is None else t[None] for t in (x, feature, offset, mask)
            )
            return self.forward(x, feature, offset=offset, mask=mask)[0]
        offset, mask = self.sampling(x if feature is None else feature, offset, mask)
        return self.convolve(self.padded(x), offset, mask)

    def check(
        self,
        x: Tensor,
        feature: Tensor | None,
        offset: Tensor | None,
        mask: Tensor | None,
    ) -> None:
        """What the operator, which knows no layer, would blame on an offset."""
        check_channels("x", x, "in_channels", self.in_channels)
        if x.dtype != self.weight.dtype and not under_autocast(x):
            raise TypeError(
                f"x is {x.dtype} and the layer's weight is {self.weight.dtype}; "
                "convert one, by x.to(layer.weight.dtype) or layer.to(x.dtype)"
            )
        reads = offset is None or (mask is None and self.mask is not None)
        if self.offset is None and (offset is None or feature is not None):
            raise ValueError(
                "this layer was made with branches=False and computes no offsets; call "
                "layer(x, offset=...), with mask=... where there is one"
            )
        if feature is not None:
            wanted = "feature_channels", self.feature_channels
            check_channels("feature", feature, *wanted, ndim=x.ndim)
        elif reads and self.feature_channels != self.in_channels:
            raise ValueError(
                f"feature is missing: this layer's branches read "
                f"{self.feature_channels} channels (feature_channels) and x has "
                f"{self.in_channels}; call layer(x, feature)"
            )

    def sampling(
        self, x: Tensor, offset: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Offsets (dp) and mask (dm): what is not given, as the branches read x."""
        autocast = under_autocast(x)
        with (
            torch.autocast(x.device.type, enabled=False) if autocast else nullcontext()
        ):
            scale = self.modulation and SCALE[self.modulation]
            if offset is None and mask is None and scale and self.branches_are_one():
                x = x.to(dtype_of(self.offset, x))
                offset, mask = both(self.offset, self.mask, x)
                return offset, scale * torch.sigmoid(mask)
            if offset is None:
                offset = self.offset(x.to(dtype_of(self.offset, x)))
            if mask is None and self.mask is not None and scale:
                mask = torch.sigmoid(self.mask(x.to(dtype_of(self.mask, x))))
                mask = scale * mask
        return offset, mask

    def branches_are_one(self) -> bool:
        """Whether one convolution computes both branches: in inference, unwatched.

        Its last bits are others: what is trained, traced or watched keeps those of two.
        """
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        if torch.jit.is_tracing() or module._has_any_global_hook():
            return False
        if torch._C._len_torch_function_stack():  # a mode that reads the graph of calls
            return False
        return (
            is_bare(self.offset)
            and is_bare(self.mask)
            and window_of(self.offset) == window_of(self.mask)
        )

    def padded(self, x: Tensor) -> Tensor:
        """The image that is sampled; zeros need not be stored."""
        if self.padding_mode == "zeros":
            return x
        sides = self._reversed_padding_repeated_twice
        return functional.pad(x, sides, mode=self.padding_mode)

    def convolve(self, image: Tensor, offset: Tensor, mask: Tensor | None) -> Tensor:
        """Eq. (1)."""
        left, right, top, bottom = self._reversed_padding_repeated_twice
        padding = (top, bottom), (left, right)  # numbers, where self.padding is "same"
        if self.padding_mode != "zeros":
            padding = (0, 0), (0, 0)
        return deform_conv2d(
            image, offset, self.weight, mask, self.bias,
            stride=self.stride, padding=padding, dilation=self.dilation,
        )  # fmt: skip

    def __prepare_scriptable__(self) -> None:
        raise TypeError(
            "torch.jit.script does not know this layer's Python; use "
            "torch.jit.trace(model, example), whose result saves and loads"
        )

    def _save_to_state_dict(
        self, destination: Any, prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.offset is not None and hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]]["modulation"] = self.modulation

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:  # fmt: skip
        self._started = None
        names = "offset", "mask"
        own = {n: b for n in names if isinstance(b := getattr(self, n), Branch)}
        if own:
            place = checkpoints.Place(
                state_dict, prefix, local_metadata, unexpected_keys
            )
            error_msgs += checkpoints.translate(self, own, place)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
            error_msgs,
        )  # fmt: skip

    def extra_repr(self) -> str:
        own = f"offset_groups={self.offset_groups}, modulation={self.modulation!r}"
        if self.feature_channels != self.in_channels:
            own += f", feature_channels={self.feature_channels}"
        if self.offset is None:
            own += ", branches=False"
        return f"{super().extra_repr()}, {own}"


def dtype_of(branch: nn.Module, x: Tensor) -> torch.dtype:
    """What a branch computes in; one without parameters takes x as it is."""
    return next((p.dtype for p in branch.parameters()), x.dtype)


def check_normed(branch: Branch) -> None:
    """weight_norm and spectral_norm divide by a norm, which is 0 for a new branch."""
    if branch.weight.isnan().all():
        raise ValueError(
            f"{rest.name_of(branch)}: the weight of a branch is NaN: the branches of a "
            "DeformConv2d start at zero, and weight_norm or spectral_norm divides by "
            "their norm, 0 / 0; normalise the layer itself, not its branches"
        )


def check_channels(
    name: str, x: Tensor, argument: str, channels: int, ndim: int | None = None
) -> None:
    if x.ndim not in ((3, 4) if ndim is None else (ndim,)) or x.shape[-3] != channels:
        C = "C_in" if name == "x" else "C_feature"
        note = "" if name == "x" else "; an offset is given by its name, offset=..."
        raise ValueError(
            f"{name} has shape {list(x.shape)}; wanted [N, {C}, H, W] or [{C}, H, W] "
            f"with {C} = {argument} = {channels}{note}"
        )


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
