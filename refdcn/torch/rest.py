"""Whether an initialiser has overwritten the zeros that a layer's branches start from.

Loops that give every nn.Conv2d random weights reach the branches, which are
convolutions too; offsets of several pixels at the start are hard to learn away.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from refdcn.torch.calls import running_modules

FIRST = 8  # numbers of a weight, which tell whether it was written to


class Start(NamedTuple):
    """A layer's own weight as it was made: which, and its first numbers."""

    weight: int
    numbers: Tensor | None  # None on the meta device


def start(layer: Any) -> Start | None:
    """What `check` compares with; None of a layer whose weight is no parameter."""
    weight = layer.weight
    if type(weight) is not nn.Parameter or weight.is_inference():
        return None  # replaced for this call, or of another kind
    numbers = None if weight.is_meta else weight.detach().reshape(-1)[:FIRST].clone()
    return Start(id(weight), numbers)


def check(layer: Any, started: Start) -> bool:
    """Warn if this is so; False where it cannot be told yet, before training.

    The layer's own weight, which such a loop visits too, has other values than it was
    made with, and the offset branch's weight is not zero, at the first forward in
    training mode: loading and training end the watch. However it was written. Values
    are read only then, since that waits for a GPU.
    """
    if not (layer.training and torch.is_grad_enabled()):
        return False
    now = start(layer)
    weight: Any = getattr(layer.offset, "weight", None)
    bias: Any = getattr(layer.offset, "bias", None)
    if now is None or type(weight) is not nn.Parameter or weight.is_meta:
        return True
    then = started.numbers
    if then is not None and torch.equal(now.numbers, then.to(now.numbers)):
        return True
    # Other parameters in their place, say a loader's: training leaves no zero bias.
    trained = now.weight != started.weight and bias is not None and bool(bias.any())
    if trained or not bool(weight.any()):
        return True
    warnings.warn(
        f"{name_of(layer)}: its offset branch has random weights and was not trained; "
        "an initialiser that visits every nn.Conv2d has overwritten its zeros. Call "
        "layer.offset.reset_parameters() and layer.mask.reset_parameters() after it. "
        "(If they are meant, as those of a trained model copied in, all is well.)",
        stacklevel=4,
    )
    return True


def name_of(layer: nn.Module) -> str:
    """Its name in the outermost module that is running."""
    outermost = (running_modules() or [layer])[-1]
    names = {id(m): name for name, m in outermost.named_modules()}
    return names.get(id(layer)) or type(layer).__name__
