"""A learning rate of their own for the branches of deformable layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from refdcn.torch.layer import DeformConv2d

OFFSET_LR = 0.1  # Zhu et al. 2019 (arXiv:1811.11168), Section 3.1


def parameter_groups(
    model: nn.Module, lr: float, offset_lr: float | None = None, *,
    weight_decay: float | None = None, branches: str | Sequence[str] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """The parameters of a model that learn, in groups for an optimizer.

        w <- w - lr * step(w),   branches: w <- w - offset_lr * step(w)

    A hook that scales the branches' gradients by 0.1 is no substitute: an optimizer
    that divides by the gradient's size, as Adam does, undoes the scale.

    Parameters
    ----------
    model : nn.Module
        Any model. Parameters that need no gradient are left out.
    lr : float
        The learning rate of everything but the branches.
    offset_lr : float, optional
        That of the offset and mask branches, whatever module stands in their place;
        0.1 * lr if None, as in the paper.
    weight_decay : float, optional
        Puts norms and biases, all parameters of at most one axis and those of
        normalisation layers, into groups of their own with weight_decay = 0, the
        others having this one. None leaves it to the optimizer, for all alike.
    branches : str or sequence of str
        Patterns, as fnmatch reads them, of the names of further parameters that learn
        as branches do, such as "*conv_offset.*" in a model with mmcv's packs.

    Returns
    -------
    list of dict
        Groups with the keys params, lr and name, "main" and "branches"; with
        weight_decay that key too, and "main_no_decay" and "branches_no_decay" behind
        them. A group may be empty.

    Raises
    ------
    ValueError
        A rate or weight_decay is negative, infinite or NaN, or a pattern matches no
        parameter.

    References
    ----------
    Zhu et al. 2019 (arXiv:1811.11168), Section 3.1.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import DeformConv2d, parameter_groups
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), DeformConv2d(8, 8, 3))
    >>> groups = parameter_groups(model, lr=0.5)
    >>> optimizer = torch.optim.SGD(groups)
    >>> [(group["name"], group["lr"], len(group["params"])) for group in groups]
    [('main', 0.5, 4), ('branches', 0.05, 4)]
    >>> groups = parameter_groups(model, lr=0.5, weight_decay=1e-4)
    >>> [(group["name"], group["weight_decay"]) for group in groups[:2]]
    [('main', 0.0001), ('branches', 0.0001)]
    >>> [(group["name"], group["weight_decay"]) for group in groups[2:]]
    [('main_no_decay', 0.0), ('branches_no_decay', 0.0)]
    """
    rates = {"lr": lr, "offset_lr": OFFSET_LR * lr if offset_lr is None else offset_lr}
    decay = {} if weight_decay is None else {"weight_decay": weight_decay}
    for name, rate in (rates | decay).items():
        if not (rate >= 0 and math.isfinite(rate)):
            raise ValueError(f"{name} is {rate!r}; wanted a finite number, at least 0")
    patterns = [branches] if isinstance(branches, str) else list(branches)
    inside = {*in_branches(model), *matching(model, patterns)}
    kept = set() if weight_decay is None else undecayed(model)
    groups: list[dict[str, Any]] = []
    for suffix in [""] if weight_decay is None else ["", "_no_decay"]:
        for name, rate in zip(("main", "branches"), rates.values(), strict=True):
            # A parameter that two modules share comes once, and a branch's is that.
            params = [
                p
                for p in model.parameters()
                if p.requires_grad
                and (p in inside) == (name == "branches")
                and (p in kept) == bool(suffix)
            ]
            own = {} if not decay else {"weight_decay": 0.0} if suffix else decay
            groups.append({"params": params, "lr": rate, "name": name + suffix, **own})
    return groups


def in_branches(model: nn.Module) -> set[Tensor]:
    """Tensors hash by identity."""
    layers = [m for m in model.modules() if isinstance(m, DeformConv2d)]
    both = [branch for m in layers for branch in (m.offset, m.mask)]
    return {p for branch in both if branch is not None for p in branch.parameters()}


def matching(model: nn.Module, patterns: list[str]) -> set[Tensor]:
    """Parameters whose names, one of them where they are shared, fit a pattern."""
    named = list(model.named_parameters(remove_duplicate=False))
    found = set()
    for pattern in patterns:
        fit = {p for name, p in named if fnmatchcase(name, pattern)}
        if not fit:
            some = ", ".join(name for name, _ in named[:3])
            raise ValueError(
                f"branches has the pattern {pattern!r}, which fits none of the model's "
                f"{len(named)} parameters ({some}, ...)"
            )
        found |= fit
    return found


def undecayed(model: nn.Module) -> set[Tensor]:
    """Biases, scales and all of a normalisation layer, such as one of [C, H, W]."""
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)]
    wide = {p for norm in norms for p in norm.parameters()}
    return wide | {p for p in model.parameters() if p.ndim <= 1}
