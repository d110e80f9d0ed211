"""torchvision's operator, called as a candidate on torch tensors is called.

Imported in the candidate's process only.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision as package
from torchvision.ops import deform_conv2d

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


def torchvision(
    x: Any, offset: Any, weight: Any, mask: Any, bias: Any, **windows: Any
) -> Any:
    """torchvision.ops.deform_conv2d, which takes bias before mask."""
    own_kernel()
    return deform_conv2d(x, offset, weight, bias, mask=mask, **windows)
