"""A learning rate of their own for the branches of deformable layers."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from refdcn.torch.layer import Branch

OFFSET_LR = 0.1  # Zhu et al. 2019 (arXiv:1811.11168), Section 3.1


def parameter_groups(
    model: nn.Module, lr: float, offset_lr: float | None = None
) -> list[dict[str, Any]]:
    """The parameters of a model as two groups for an optimizer.

        w <- w - lr * step(w),   branches: w <- w - offset_lr * step(w)

    A hook that scales the branches' gradients by 0.1 is no substitute: an optimizer
    that divides by the gradient's size, as Adam does, undoes the scale.

    Parameters
    ----------
    model : nn.Module
        Any model; what is in no `DeformConv2d` is in the first group.
    lr : float
        The learning rate of everything but the branches.
    offset_lr : float, optional
        That of the offset and mask branches; 0.1 * lr if None, as in the paper.

    Returns
    -------
    list of dict
        Two groups with the keys params, lr and name ("main" and "branches"); the
        second one is empty where the model has no DeformConv2d.

    Raises
    ------
    ValueError
        A rate is negative, infinite or NaN.

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
    """
    rates = {"lr": lr, "offset_lr": OFFSET_LR * lr if offset_lr is None else offset_lr}
    for name, rate in rates.items():
        if not (rate >= 0 and math.isfinite(rate)):
            raise ValueError(f"{name} is {rate!r}; wanted a finite rate of at least 0")
    branches = [m for m in model.modules() if isinstance(m, Branch)]
    # A parameter that two modules share comes once, and a branch's is the branch's.
    inside = {id(p): p for branch in branches for p in branch.parameters()}
    rest = [p for p in model.parameters() if id(p) not in inside]
    return [
        {"params": rest, "lr": rates["lr"], "name": "main"},
        {"params": [*inside.values()], "lr": rates["offset_lr"], "name": "branches"},
    ]
