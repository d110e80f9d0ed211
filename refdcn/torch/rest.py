"""Whether an initialiser has overwritten the zeros that a layer's branches start from.

Loops that give every nn.Conv2d random weights reach the branches, which are
convolutions too; offsets of several pixels at the start are hard to learn away.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from refdcn.torch.calls import running_modules

Written = tuple[tuple[int, int], ...]  # (which, how often) of the two weights


def written(layer: Any) -> Written | None:
    """How often the layer's own weight, and its offsets' one, were written to."""
    weights = [layer.weight, getattr(layer.offset, "weight", None)]
    if any(not isinstance(w, nn.Parameter) or w.is_inference() for w in weights):
        return None  # replaced for this call, or of another kind
    return tuple((id(w), int(w._version)) for w in weights)


def check(layer: Any, started: Written) -> bool:
    """Warn if this is so; False where it cannot be told yet, before training.

    Training from a state that was loaded, copies, and averages of weights are no
    matter: both weights were written to in place, in this very layer, before the first
    forward in training mode. Values are read only then, since that waits for a GPU.
    """
    if not (layer.training and torch.is_grad_enabled()):
        return False
    now = written(layer) or ()
    pairs = list(zip(started, now, strict=False))
    if not pairs or not all(a[0] == b[0] and a[1] < b[1] for a, b in pairs):
        return True
    if not bool(layer.offset.weight.any()):
        return True
    warnings.warn(
        f"{_name(layer)}: its offset branch has random weights and was not trained; an "
        "initialiser that visits every nn.Conv2d has overwritten its zeros. Call "
        "layer.offset.reset_parameters() and layer.mask.reset_parameters() after it. "
        "(If they are meant, as those of a trained model copied in, all is well.)",
        stacklevel=4,
    )
    return True


def _name(layer: nn.Module) -> str:
    """In the outermost module that is running."""
    outermost = (running_modules() or [layer])[-1]
    names = {id(m): name for name, m in outermost.named_modules()}
    return names.get(id(layer)) or type(layer).__name__
