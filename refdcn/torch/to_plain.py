"""Deformable layers of a model back into plain convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from refdcn import shapes
from refdcn.torch import to_deformable
from refdcn.torch.layer import SCALE, Branch, DeformConv2d

FED = "takes its offsets, or a feature, from its caller; a plain convolution does not"


class PlainLayer(NamedTuple):
    """One layer that was converted.

    kernel_size and padding are those of the plain convolution; moved is the share of
    taps whose mean offset rounds to another pixel. error is that of the layer's
    output over the sample, `|y_plain - y| / |y|` in the Euclidean norm; None without
    one.
    """

    name: str
    kernel_size: tuple[int, int]
    padding: tuple[int, int] | str
    moved: float
    error: float | None


def plain(
    model: nn.Module, where: to_deformable.Where | None = None,
    sample: Iterable[Any] | None = None,
) -> list[PlainLayer]:  # fmt: skip
    """Make chosen DeformConv2d of a model plain convolutions, in place.

        w'(p_k + round(mean dp_k)) += mean dm_k * w_k

    where the mean is over sample, or is that of an image of zeros. Exact for a layer
    whose offsets are 0 and whose mask is constant, as an untrained one's, and a start
    for fine-tuning otherwise. A tap that moves makes the kernel larger, with zeros in
    between, and pads accordingly; taps of different offset groups move apart.

    Parameters
    ----------
    model : nn.Module
        Contains the layers; changed in place.
    where : str, int or callable, optional
        Which, as for `deformable`; None is all.
    sample : iterable, optional
        Inputs of the model: tensors, or tuples or dicts of its arguments. They are
        kept, so a few batches should do. The model runs on them in eval mode, without
        gradients; the error of each layer is printed and returned.

    Returns
    -------
    list of PlainLayer
        In the order of model.named_modules().

    Raises
    ------
    ValueError
        Nothing matches, model is itself a layer, or a chosen one cannot be folded: it
        has hooks or a forward of its own, takes its offsets or a feature from its
        caller, has branches that are no longer Branch and no sample tells what they
        give, is not reached by sample, or has offsets that are not finite. The model is
        then unchanged.

    Notes
    -----
    With a padding_mode other than "zeros" and moved taps the border is padded further
    in that mode, where the deformable layer has zeros.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import DeformConv2d, plain
    >>> _ = torch.manual_seed(0)
    >>> model = torch.nn.Sequential(DeformConv2d(3, 8, 3, padding=1))
    >>> _ = torch.nn.init.constant_(model[0].offset.bias, 0.25)
    >>> layers = plain(model, sample=[torch.rand(1, 3, 16, 16)])
    layer  kernel  moved taps  error
    0      3x3           0.0%  25.9%
    >>> model
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    )
    """
    if isinstance(model, DeformConv2d):
        raise ValueError("model is itself a DeformConv2d; wrap it, in nn.Sequential")
    layers = {n: m for n, m in model.named_modules() if isinstance(m, DeformConv2d)}
    chosen = to_deformable.choose(layers, "*" if where is None else where, "deformable")
    for name, layer in chosen.items():
        check(model, name, layer)
    batches = None if sample is None else list(sample)
    if batches is None:
        means = {name: at_rest(name, layer) for name, layer in chosen.items()}
    else:
        means = sampled_means(model, chosen, batches)
    new = {name: folded(name, layer, *means[name]) for name, layer in chosen.items()}
    errors = None if batches is None else sampled_errors(model, chosen, new, batches)
    to_deformable.replace(
        model, {name: (layer, new[name]) for name, layer in chosen.items()}
    )
    found = [
        PlainLayer(
            name, conv.kernel_size, conv.padding,
            float(means[name][0].round().any(-1).double().mean()),
            None if errors is None else errors[name],
        )
        for name, conv in new.items()
    ]  # fmt: skip
    if errors is not None:
        print(table(found))
    return found


def check(model: nn.Module, name: str, layer: DeformConv2d) -> None:
    """A layer whose offsets and mask are its own, and that nothing else holds."""
    to_deformable.check_replaceable(model, name, layer)
    own = "forward", "sampling", "padded", "convolve"
    why = None
    if any(getattr(type(layer), key) is not getattr(DeformConv2d, key) for key in own):
        why = f"is a {type(layer).__name__} that computes something else"
    elif parametrize.is_parametrized(layer):
        why = (
            "is parametrised; torch.nn.utils.parametrize.remove_parametrizations first"
        )
    elif layer.offset is None or layer.feature_channels != layer.in_channels:
        why = FED
    elif layer.weight.is_meta:
        why = "is on the meta device, where it has no values"
    if why is not None:
        raise ValueError(f"{name} was chosen and {why}")


def at_rest(name: str, layer: DeformConv2d) -> tuple[Tensor, Tensor]:
    """dp [G, K, 2] and dm [G, K] for an image of zeros, where the biases are all."""
    if not all(isinstance(b, Branch | None) for b in (layer.offset, layer.mask)):
        raise ValueError(
            f"{name} has a branch that is no Branch, and what it gives is not known; "
            "pass a sample of the model's inputs"
        )
    dp = layer.offset.bias.detach().double().cpu()
    if layer.mask is None or layer.modulation is None:
        dm = torch.ones(len(dp) // 2, dtype=torch.double)
    else:
        dm = torch.sigmoid(layer.mask.bias.detach().double().cpu())
        dm = SCALE[layer.modulation] * dm
    return by_group(layer, dp, dm)


def by_group(layer: DeformConv2d, dp: Tensor, dm: Tensor) -> tuple[Tensor, Tensor]:
    return dp.reshape(layer.offset_groups, -1, 2), dm.reshape(layer.offset_groups, -1)


def sampled_means(
    model: nn.Module, layers: Mapping[str, DeformConv2d], batches: list[Any]
) -> dict[str, tuple[Tensor, Tensor]]:
    """dp [G, K, 2] and dm [G, K], averaged over images and places."""
    counts = dict.fromkeys(layers, 0)
    sums: dict[str, list[Tensor | float]] = {name: [0.0, 0.0] for name in layers}

    def see(name: str, layer: DeformConv2d, x: Tensor, y: Tensor) -> None:
        dp, dm = layer.sampling(x)
        dm = torch.ones_like(dp[:, ::2]) if dm is None else dm
        counts[name] += dp[:, 0].numel()
        for i, values in enumerate((dp, dm)):
            sums[name][i] += values.cpu().double().sum((0, 2, 3))

    run(model, layers, batches, see)
    for name, count in counts.items():
        if not count:
            raise ValueError(f"{name} was chosen and is not reached by sample")
    return {
        name: by_group(layer, *(s / counts[name] for s in sums[name]))
        for name, layer in layers.items()
    }


def sampled_errors(
    model: nn.Module, layers: Mapping[str, DeformConv2d],
    new: Mapping[str, nn.Conv2d], batches: list[Any],
) -> dict[str, float]:  # fmt: skip
    """|y_plain - y| / |y| of each layer, on what it is given in the model as it is."""
    squares = {name: [0.0, 0.0] for name in layers}

    def see(name: str, layer: DeformConv2d, x: Tensor, y: Tensor) -> None:
        y = y.double()
        for i, values in enumerate((new[name](x).double() - y, y)):
            squares[name][i] += float(values.square().sum())

    run(model, layers, batches, see)
    return {
        name: math.sqrt(error / size) if size else math.inf if error else 0.0
        for name, (error, size) in squares.items()
    }


def run(
    model: nn.Module, layers: Mapping[str, DeformConv2d], batches: list[Any],
    see: Callable[[str, DeformConv2d, Tensor, Tensor], None],
) -> None:  # fmt: skip
    """The model on the sample; `see` gets each call of a layer, with a batch axis."""

    def hook(
        name: str, layer: DeformConv2d, args: Any, kwargs: dict[str, Any], y: Tensor
    ) -> None:
        if len(args) != 1 or kwargs:
            raise ValueError(f"{name} was chosen and {FED}")
        batch = (args[0], y) if y.ndim == 4 else (args[0][None], y[None])
        see(name, layer, *batch)

    handles = [
        layer.register_forward_hook(partial(hook, name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with torch.no_grad(), to_deformable.evaluating(model):
            for batch in batches:
                call(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def call(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, tuple):
        model(*batch)
    elif isinstance(batch, Mapping):
        model(**batch)
    else:
        model(batch)


def folded(name: str, layer: DeformConv2d, dp: Tensor, dm: Tensor) -> nn.Conv2d:
    """The plain convolution with the taps where dp, rounded, puts them."""
    if not (dp.isfinite().all() and dm.isfinite().all()):
        raise ValueError(
            f"{name} was chosen and its offsets or its mask are not finite"
        )
    moves = dp.round().long()
    if moves.any():
        axes = [grid(layer, axis, moves[..., axis]) for axis in (0, 1)]
        kernel, dilation, padding = zip(*(axis[:3] for axis in axes), strict=True)
        places = axes[0][3] * kernel[1] + axes[1][3]
    else:
        kernel, dilation = layer.kernel_size, layer.dilation
        padding = layer.padding
        places = torch.arange(dm.shape[1]).expand(dm.shape)
    conv = nn.Conv2d(
        layer.in_channels, layer.out_channels, kernel, layer.stride, padding, dilation,
        layer.groups, layer.bias is not None, layer.padding_mode, device="meta",
    )  # fmt: skip
    as_it_is = not moves.any() and bool((dm == 1).all())
    conv.weight = layer.weight if as_it_is else moved(layer, dm, places, kernel)
    conv.bias = layer.bias
    conv.train(layer.training)
    made = DeformConv2d(1, 1, 1, device="meta")
    to_deformable.carry(name, layer, conv, leave={*vars(made), *made._modules})
    return conv


def grid(layer: DeformConv2d, axis: int, moves: Tensor) -> tuple[int, int, int, Tensor]:
    """Kernel size, dilation and padding on an axis, and the taps' places [G, K] in it.

    Padding p on both sides, as nn.Conv2d has it, wants a kernel from `before - p` to
    `p - after` beyond the old one's end; its rim may be zeros.
    """
    K, d = layer.kernel_size[axis], layer.dilation[axis]
    taps = torch.arange(math.prod(layer.kernel_size))
    index = taps % K if axis else taps // layer.kernel_size[1]
    q = d * index + moves
    before, after = shapes.paddings(
        layer.padding, layer.stride, layer.dilation, layer.kernel_size
    )[axis]
    end = d * (K - 1)
    p = max(before - int(q.min()), after + int(q.max()) - end, 0)
    first, last = before - p, end + p - after
    # The largest step that meets all taps: the old dilation where nothing moved.
    step = math.gcd(last - first, *(q - first).flatten().tolist()) or d
    return (last - first) // step + 1, step, p, (q - first) // step


def moved(
    layer: DeformConv2d, dm: Tensor, places: Tensor, kernel: tuple[int, int]
) -> nn.Parameter:
    """The weights times dm, added up at their places."""
    weight = layer.weight.detach()
    C_out, C = weight.shape[:2]
    b = torch.arange(C_out) // (C_out // layer.groups)
    channel = b[:, None] * C + torch.arange(C)  # [C_out, C_in / groups]
    g = channel // (layer.in_channels // layer.offset_groups)
    sums = torch.zeros(C_out, C, math.prod(kernel), dtype=torch.double)
    sums.scatter_add_(2, places[g], weight.cpu().double().flatten(2) * dm[g])
    values = sums.unflatten(2, kernel).to(weight)
    return nn.Parameter(values, requires_grad=layer.weight.requires_grad)


def table(layers: list[PlainLayer]) -> str:
    width = max(len("layer"), *(len(layer.name) for layer in layers))
    lines = [f"{'layer':{width}}  kernel  moved taps  error"]
    for name, (K_h, K_w), _, share, error in layers:
        assert error is not None
        kernel = f"{K_h}x{K_w}"
        lines.append(f"{name:{width}}  {kernel:6}  {share:10.1%}  {error:5.1%}")
    return "\n".join(lines)
