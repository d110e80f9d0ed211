"""The catalogue: every mistake, in the order in which a diagnosis looks at them."""

from __future__ import annotations

from refdcn.grading.catalogue import (
    apart,
    axes_alone,
    blocks,
    by_output,
    extents,
    flat,
    geometry,
    gradient_orders,
    gradient_sums,
    gradients,
    groups,
    layout,
    mask,
    narrow,
    packs,
    sampling,
    starts,
)
from refdcn.grading.catalogue.mistake import Mistake

CATALOGUE: list[Mistake] = [
    *layout.MISTAKES,
    *mask.MISTAKES,
    *geometry.MISTAKES,
    *sampling.MISTAKES,
    *axes_alone.MISTAKES,
    *extents.MISTAKES,
    *flat.MISTAKES,
    *blocks.MISTAKES,
    *groups.MISTAKES,
    *by_output.MISTAKES,
    *packs.MISTAKES,
    *starts.MISTAKES,
    *narrow.MISTAKES,
    *apart.MISTAKES,
    *gradients.MISTAKES,
    *gradient_orders.MISTAKES,
    *gradient_sums.MISTAKES,
]

# What a test proves to be one function: a gradient's mistake, and one of the forward
# that is made in this gradient alone.
ALIKE = {
    name: f"{other} in the gradients"
    for name, other in {
        "d offset without mask": "mask missing",
        "d offset mask squared": "mask squared",
        "d offset zero at border": "whole sample",
        "d offset zero beyond neighbours": "weights of clipped neighbours",
        "d x inside neighbours only": "weights of clipped neighbours",
        "d x without mask": "mask missing",
        "d x nearest": "nearest even",
        "d x floor": "floor",
        "d x clamped": "clamp",
        "d x inside only": "whole sample",
        "d weight without mask": "mask missing",
        "d weight padding of rows": "padding of rows",
        "d weight stride of rows": "stride of rows",
    }.items()
}
