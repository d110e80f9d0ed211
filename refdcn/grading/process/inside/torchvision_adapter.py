"""torchvision's operator, called as a candidate is called.

Imported in the candidate's process only.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision as package
from torchvision.ops import deform_conv2d

Pair = tuple[int, int]
assert package.__version__  # importing it registers the operator


def own_kernel() -> None:
    """Raise unless torchvision's own CPU kernel answers its operator.

    Something in this process may have put another kernel behind it; a
    grade of that kernel must not be reported as torchvision's.
    """
    table = torch._C._dispatch_dump("torchvision::deform_conv2d")
    cpu = [line for line in table.splitlines() if line.startswith("CPU:")]
    if not cpu or "deform_conv2d_kernel.cpp" not in cpu[0]:
        raise SystemExit(
            "torchvision::deform_conv2d does not run torchvision's own CPU kernel "
            f"here ({cpu[0] if cpu else 'no CPU kernel'}); undo what replaced it"
        )


def tensor(a: Any) -> Any:
    """A tensor on the same memory; None stays None."""
    return None if a is None else torch.from_numpy(a)


def torchvision(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, **windows: Pair
) -> Any:
    """torchvision.ops.deform_conv2d on NumPy arrays."""
    own_kernel()
    x, offset, weight, mask, bias = map(tensor, (x, offset, weight, mask, bias))
    return deform_conv2d(x, offset, weight, bias, mask=mask, **windows).numpy()


def torchvision_grad(
    grad_y: Any, x: Any, offset: Any, weight: Any, mask: Any, bias: Any, **windows: Pair
) -> list[Any]:
    """Its gradients, by autograd."""
    own_kernel()
    leaves = [
        None if a is None else tensor(a).requires_grad_()
        for a in (x, offset, weight, mask, bias)
    ]
    x, offset, weight, mask, bias = leaves
    y = deform_conv2d(x, offset, weight, bias, mask=mask, **windows)
    y.backward(tensor(grad_y))
    return [None if a is None else a.grad.numpy() for a in leaves]
