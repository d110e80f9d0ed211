"""Plain convolutions of a model into deformable ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn
from torch.nn.utils import parametrize

from refdcn.torch import packs
from refdcn.torch.layer import DeformConv2d, Modulation, check_branches

Where: TypeAlias = str | int | Callable[[str, nn.Conv2d], bool]


def deformable(
    model: nn.Module, where: Where, *, offset_groups: int = 1,
    modulation: Modulation = "2sigmoid",
) -> list[str]:  # fmt: skip
    """Make chosen nn.Conv2d of a model deformable, in place, and keep their weights.

        y(p) = sum_k  w_k * x(p + p_k + 0) * 1 + b    right after it, by default

    The new layers hold the very parameters of the old ones, their parametrisations and
    whatever attributes and buffers they were given: an optimizer that has them already
    keeps them, and needs the branches added (`parameter_groups`).

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
        a convolution, or one that was chosen cannot be replaced: it has hooks, which
        would be lost, computes something else than nn.Conv2d does, or stands in a
        Python list too, where it would stay. The model is then unchanged.

    Notes
    -----
    Convert after the model's own initialisation: a loop that gives every nn.Conv2d
    random weights would reach the branches, which are convolutions too.

    A chosen torchvision.ops.DeformConv2d is replaced together with its parent, if that
    is a pack: the layer and the one or two convolutions that compute its offsets and
    mask, and a forward that equals a `DeformConv2d`, which is tried on a copy with
    random branches. The offset groups and the modulation are then the pack's.

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
    convs = convolutions(model)
    if isinstance(where, int):
        convs = {name: conv for name, conv in convs.items() if is_plain(conv)}
    chosen = choose(convs, where, "plain")
    new: dict[str, tuple[nn.Module, DeformConv2d]] = {}
    for name, conv in chosen.items():
        if packs.is_torchvision(conv):
            name, old = packs.around(model, name)
            check_replaceable(model, name, old)
            new[name] = old, packs.converted(name, old)
        else:
            check_branches(conv.in_channels, offset_groups, modulation)
            check_replaceable(model, name, conv)
            check_mathematics(name, conv)
            # In training mode spectral_norm changes with each look at its weight.
            with evaluating(conv):
                layer = from_conv(conv, offset_groups, modulation)
            new[name] = conv, layer.train(conv.training)
            carry(name, conv, new[name][1])
    replace(model, new)
    return list(new)


def convolutions(model: nn.Module) -> dict[str, nn.Module]:
    """By name, all but those of a DeformConv2d's branches."""
    layers = [m for m in model.modules() if isinstance(m, DeformConv2d)]
    inside = {m for layer in layers for m in layer.modules()}
    return {
        name: m
        for name, m in model.named_modules()
        if (isinstance(m, nn.Conv2d) and m not in inside) or packs.is_torchvision(m)
    }


def choose(convs: Mapping[str, Any], where: Where, kind: str) -> dict[str, Any]:
    """Those that `where` means, by name."""
    if isinstance(where, bool) or not (isinstance(where, str | int) or callable(where)):
        raise TypeError(
            f"where is {where!r}; wanted a pattern of names, a number of 3x3 "
            "convolutions, or a function of name and convolution"
        )
    if isinstance(where, int):
        square = {n: c for n, c in convs.items() if c.kernel_size == (3, 3)}
        if not 1 <= where <= len(square):
            raise ValueError(
                f"where is {where}; the model has {len(square)} {kind} 3x3 convolutions"
            )
        return dict(list(square.items())[-where:])
    if isinstance(where, str):
        chosen = {n: c for n, c in convs.items() if fnmatchcase(n, where)}
    else:
        chosen = {n: c for n, c in convs.items() if where(n, c)}
    if not chosen:
        names = list(convs)
        some = f" ({', '.join(names[:3])}{', ...' * (len(names) > 3)})" if names else ""
        raise ValueError(
            f"where is {where!r}, which chooses none of the model's {len(convs)} "
            f"{kind} convolutions{some}"
        )
    return chosen


def is_plain(conv: nn.Module) -> bool:
    """Whether it computes what nn.Conv2d does."""
    own = ("forward", "_conv_forward", "__call__")
    return (
        isinstance(conv, nn.Conv2d)
        and all(getattr(type(conv), name) is getattr(nn.Conv2d, name) for name in own)
        and "forward" not in vars(conv)
    )


def check_mathematics(name: str, conv: nn.Conv2d) -> None:
    if not is_plain(conv):
        raise ValueError(
            f"{name} was chosen and is a {type(conv).__name__} with a forward of its "
            "own, which a DeformConv2d would not have; let `where` leave it out"
        )


def check_replaceable(model: nn.Module, name: str, old: nn.Module) -> None:
    """Nothing of it would be lost, and no other reference to it would remain."""
    if kinds := {kind for module in old.modules() for kind in hooks(module)}:
        which = ", ".join(sorted(kinds))
        raise ValueError(
            f"{name} was chosen and has hooks ({which}), which a new layer would lose; "
            "remove them first, or convert before what adds them"
        )
    for owner, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute != "_modules" and holds(value, old):
                raise ValueError(
                    f"{name} was chosen and stands in "
                    f"{'the model' if not owner else owner}.{attribute} too, outside "
                    "the modules that torch knows, where the old one would stay; use "
                    "nn.ModuleList or nn.ModuleDict there"
                )


def holds(value: Any, module: nn.Module) -> bool:
    """Whether a Python attribute is this module, or a container with it."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return any(v is module for v in value)
    return value is module


def replace(model: nn.Module, new: Mapping[str, tuple[nn.Module, nn.Module]]) -> None:
    """A module may stand in several places: each gets the same new one."""
    by_id = {id(old): module for old, module in new.values()}
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in by_id:
                setattr(parent, name, by_id[id(child)])


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
    layer.train(conv.training)
    for kind in ("weight", "bias"):
        own = conv._parameters.get(kind)
        if own is None and getattr(conv, kind) is not None:  # parametrised: computed
            own = nn.Parameter(getattr(conv, kind).detach().clone())
        setattr(layer, kind, own)
    layer.add_branches(offset_groups, modulation)  # again, on the weight's device
    parametrize.transfer_parametrizations_and_params(conv, layer)
    return layer


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """eval mode, and each part's own mode again."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def carry(
    name: str, old: nn.Module, new: nn.Module, leave: Collection[str] = ()
) -> None:
    """What the old module was given beyond what its class makes goes to the new one."""
    registers = "_parameters", "_buffers", "_modules"
    for register in registers:
        for key, value in vars(old)[register].items():
            if key not in vars(new)[register] and key not in leave:
                check_free(name, key, new)
                vars(new)[register][key] = value
    new._non_persistent_buffers_set |= old._non_persistent_buffers_set
    for key, value in vars(old).items():
        if key not in vars(new) and key not in leave:
            check_free(name, key, new)
            vars(new)[key] = value


def check_free(name: str, key: str, new: nn.Module) -> None:
    if hasattr(new, key):
        raise ValueError(
            f"{name} was chosen and has {key!r}, which is something else in a "
            f"{type(new).__name__}; rename it first"
        )


def hooks(module: nn.Module) -> Iterator[str]:
    """The kinds of hooks that there are."""
    yield from (
        key.strip("_")
        for key, value in vars(module).items()
        if key.endswith("_hooks") and isinstance(value, dict) and value
    )
