"""Packs: a module of torchvision's DeformConv2d and the convolutions that steer it."""

from __future__ import annotations

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn

from refdcn.torch.layer import DeformConv2d, Modulation

AGREES = 1e-9  # relative, of sums of some thousand products in float64


def is_torchvision(module: nn.Module) -> bool:
    """torchvision's layer; where torchvision was not imported, nothing is."""
    ops = sys.modules.get("torchvision.ops")
    return ops is not None and isinstance(module, ops.DeformConv2d)


def around(model: nn.Module, name: str) -> tuple[str, nn.Module]:
    """Name and module of the pack around torchvision's layer."""
    parent, _, _ = name.rpartition(".")
    if not parent:
        raise ValueError(
            f"{name or 'model'} is torchvision's DeformConv2d and its pack would be "
            f"the model itself; wrap it, say in nn.Sequential"
        )
    return parent, model.get_submodule(parent)


def converted(name: str, pack: nn.Module) -> DeformConv2d:
    """The DeformConv2d that computes what the pack does, or a ValueError."""
    trial = copy.deepcopy(pack).to_empty(device="cpu").double().eval()
    generator = torch.Generator().manual_seed(0)
    for p in trial.parameters():  # at zero, all packs would be alike
        scale = p[0].numel() ** -0.5
        nn.init.normal_(p, std=scale, generator=generator)
    for modulation in (None, "sigmoid", "2sigmoid"):
        if (new := assembled(trial, modulation)) and agree(trial, new, generator):
            layer = assembled(pack, modulation)
            assert layer is not None, "the copy had the same parts"
            layer.train(pack.training)
            return layer
    raise ValueError(
        f"{name} has torchvision's DeformConv2d and is none of the packs that a "
        "DeformConv2d computes: that layer, one or two convolutions like it that give "
        "its offsets and its mask (sigmoid or 2 * sigmoid), and nothing else; "
        "accelerate_torchvision() runs it as it is"
    )


def agree(pack: nn.Module, layer: DeformConv2d, generator: torch.Generator) -> bool:
    """Whether both compute the same of a random image, larger than the kernel."""
    sizes = [
        d * (k - 1) + 8 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)
    ]
    x = torch.randn(1, layer.in_channels, *sizes, generator=generator).double()
    with torch.no_grad():
        try:
            y = pack(x)
        except (TypeError, ValueError, RuntimeError):  # it takes something else
            return False
        mine = layer(x)
    if not isinstance(y, Tensor) or y.shape != mine.shape:
        return False
    return bool((y - mine).abs().max() <= AGREES * y.abs().max())


def assembled(pack: nn.Module, modulation: Modulation) -> DeformConv2d | None:
    """A DeformConv2d of the pack's parameters, if they are as many as it needs."""
    children = list(pack.children())
    layers: list[Any] = [m for m in children if is_torchvision(m)]
    steering = [m for m in children if type(m) is nn.Conv2d]
    if len(layers) != 1 or len(steering) + 1 != len(children):
        return None
    (layer,) = layers
    parts = branches(layer, steering, modulation)
    if parts is None:
        return None
    K = layer.kernel_size[0] * layer.kernel_size[1]
    new = DeformConv2d(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
        layer.padding, layer.dilation, layer.groups, layer.bias is not None,
        device="meta", dtype=layer.weight.dtype,
        offset_groups=len(parts["offset"]["weight"]) // (2 * K), modulation=modulation,
    )  # fmt: skip
    new.weight, new.bias = layer.weight, layer.bias
    for name, values in parts.items():
        weight, bias = values["weight"], values["bias"]
        if bias is None:
            bias = nn.Parameter(weight.detach().new_zeros(len(weight)))
        branch = getattr(new, name)
        branch.weight, branch.bias = weight, bias
    new._started = None  # what stood beside the layer is meant
    return new


def branches(
    layer: Any, steering: list[nn.Conv2d], modulation: Modulation
) -> dict[str, dict[str, Tensor]] | None:
    """Weights and biases of the offset branch and the mask branch, if these are any."""
    same = "kernel_size", "stride", "padding", "dilation", "in_channels"
    for conv in steering:
        alike = all(getattr(conv, key) == getattr(layer, key) for key in same)
        if not alike or conv.groups != 1 or conv.padding_mode != "zeros":
            return None
    rows = sorted(steering, key=lambda conv: -conv.out_channels)
    whole = sum(conv.out_channels for conv in rows)
    parts = 2 if modulation is None else 3
    K = layer.kernel_size[0] * layer.kernel_size[1]
    offset_groups, rest = divmod(whole, parts * K)
    if rest or not offset_groups or layer.in_channels % offset_groups:
        return None
    cut = 2 * K * offset_groups
    if len(rows) == 1:
        return cut_in_two(rows[0], cut, modulation)
    if modulation is None or rows[0].out_channels != cut:
        return None
    return {n: tensors(c) for n, c in zip(("offset", "mask"), rows, strict=True)}


def tensors(conv: nn.Conv2d) -> dict[str, Any]:
    return {"weight": conv.weight, "bias": conv.bias}


def cut_in_two(
    conv: nn.Conv2d, cut: int, modulation: Modulation
) -> dict[str, dict[str, Any]]:
    """Offsets first, as mmcv has them; with no mask, the very parameters."""
    if modulation is None:
        return {"offset": tensors(conv)}
    names = {"offset": slice(None, cut), "mask": slice(cut, None)}
    return {
        name: {
            kind: value if value is None else nn.Parameter(value.detach()[rows].clone())
            for kind, value in tensors(conv).items()
        }
        for name, rows in names.items()
    }
