"""Plain convolutions of a model into deformable ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import TypeAlias

from torch import nn

from refdcn.torch.layer import DeformConv2d, Modulation, check_branches

Where: TypeAlias = str | int | Callable[[str, nn.Conv2d], bool]


def deformable(
    model: nn.Module, where: Where, *, offset_groups: int = 1,
    modulation: Modulation = "2sigmoid",
) -> list[str]:  # fmt: skip
    """Make chosen nn.Conv2d of a model deformable, in place, and keep their weights.

        y(p) = sum_k  w_k * x(p + p_k + 0) * 1 + b    right after it, by default

    The new layers hold the very parameters of the old ones: an optimizer that has
    them already keeps them, and needs the branches added (`parameter_groups`).

    Parameters
    ----------
    model : nn.Module
        Contains the convolutions; changed in place.
    where : str, int or callable
        A pattern of names ("layer4.*.conv2", as fnmatch reads it); or how many, the
        last so many 3x3 convolutions in the order of model.named_modules(); or
        `where(name, conv)` that says whether to convert this one.
    offset_groups : int
        As for `DeformConv2d`.
    modulation : "2sigmoid", "sigmoid" or None
        Only "2sigmoid" and None leave the outputs of a trained model unchanged;
        "sigmoid" halves those of each converted layer (all but its bias).

    Returns
    -------
    list of str
        The names of the converted convolutions.

    Raises
    ------
    ValueError
        Nothing matches, fewer than `where` 3x3 convolutions are there, model is itself
        a convolution, or one that was chosen has hooks, which would be lost. The model
        is then unchanged.

    Notes
    -----
    Only nn.Conv2d itself is considered, no subclass: what one adds would be lost.
    Convert after the model's own initialisation: a loop that gives every nn.Conv2d
    random weights would reach the branches, which are convolutions too.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import deformable
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 3))
    >>> deformable(model, 1)
    ['1']
    >>> model
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(1, 1), stride=(1, 1))
      (1): DeformConv2d(
        8, 8, kernel_size=(3, 3), stride=(1, 1), offset_groups=1, modulation='2sigmoid'
        (offset): Branch(8, 18, kernel_size=(3, 3), stride=(1, 1))
        (mask): Branch(8, 9, kernel_size=(3, 3), stride=(1, 1))
      )
    )
    """
    if isinstance(model, nn.Conv2d):
        raise ValueError("model is itself a convolution; wrap it, say in nn.Sequential")
    chosen = choose(model, where)
    for name, conv in chosen.items():
        check_branches(conv.in_channels, offset_groups, modulation)
        if any(hooks(conv)):
            raise ValueError(
                f"{name} was chosen and has hooks, which a new layer would lose; "
                "remove them first"
            )
    new = {
        id(conv): from_conv(conv, offset_groups, modulation) for conv in chosen.values()
    }
    # A module may stand in several places: each gets the same new one.
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in new:
                setattr(parent, name, new[id(child)])
    return list(chosen)


def choose(model: nn.Module, where: Where) -> dict[str, nn.Conv2d]:
    """The convolutions that `where` means, by name."""
    convs = {name: m for name, m in model.named_modules() if type(m) is nn.Conv2d}
    if isinstance(where, bool) or not (isinstance(where, str | int) or callable(where)):
        raise TypeError(
            f"where is {where!r}; wanted a pattern of names, a number of 3x3 "
            "convolutions, or a function of name and convolution"
        )
    if isinstance(where, int):
        square = {n: c for n, c in convs.items() if c.kernel_size == (3, 3)}
        if not 1 <= where <= len(square):
            raise ValueError(
                f"where is {where}; the model has {len(square)} plain 3x3 convolutions"
            )
        return dict(list(square.items())[-where:])
    if isinstance(where, str):
        chosen = {n: c for n, c in convs.items() if fnmatchcase(n, where)}
    else:
        chosen = {n: c for n, c in convs.items() if where(n, c)}
    if not chosen:
        some = ", ".join(list(convs)[:3])
        raise ValueError(
            f"where is {where!r}, which chooses none of the model's {len(convs)} plain "
            f"convolutions ({some}, ...)"
        )
    return chosen


def from_conv(
    conv: nn.Conv2d, offset_groups: int, modulation: Modulation
) -> DeformConv2d:
    """A deformable layer that holds the parameters of `conv`."""
    layer = DeformConv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
        conv.padding, conv.dilation, conv.groups, conv.bias is not None,
        conv.padding_mode, device="meta", dtype=conv.weight.dtype,
        offset_groups=offset_groups, modulation=modulation,
    )  # fmt: skip
    layer.weight, layer.bias = conv.weight, conv.bias
    layer.add_branches(offset_groups, modulation)  # again, on the weight's device
    layer.train(conv.training)
    return layer


def hooks(module: nn.Module) -> Iterator[bool]:
    """Whether there are any, by kind."""
    yield from (
        bool(value)
        for key, value in vars(module).items()
        if key.endswith("_hooks") and isinstance(value, dict)
    )
