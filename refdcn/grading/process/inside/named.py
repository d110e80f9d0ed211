"""What an argument is, told by its name: of operators with a schema, and of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .called import numbers
from .routes import SpecError

ALIKE = {
    "x": ("x", "input", "inp", "im", "image", "data", "features"),
    "offset": ("offset", "offsets"),
    "weight": ("weight", "weights", "w", "filter", "filters", "kernel"),
    "mask": ("mask", "masks", "modulation"),
    "bias": ("bias", "b"),
    "stride": ("stride", "strides"),
    "padding": ("padding", "pad"),
    "pads": ("pads",),
    "dilation": ("dilation", "dilations"),
    "kernel_size": ("kernel_size", "kernel_shape"),
    "groups": ("groups", "group", "n_weight_grps", "weight_groups"),
    "offset_groups": (
        *("offset_groups", "offset_group", "n_offset_grps", "deform_groups"),
        *("deformable_groups", "deformable_group", "deform_group"),
    ),
    "use_mask": ("use_mask", "modulated"),
    "in_channels": ("in_channels", "C_in", "in_planes", "in_channel"),
    "out_channels": ("out_channels", "C_out", "planes", "out_channel"),
    "K_h": ("K_h", "kernel_h", "kernel_height"),
    "K_w": ("K_w", "kernel_w", "kernel_width"),
    "stride_h": ("stride_h", "stride_y"),
    "stride_w": ("stride_w", "stride_x"),
    "pad_h": ("pad_h", "padding_h", "pad_y", "padding_y"),
    "pad_w": ("pad_w", "padding_w", "pad_x", "padding_x"),
    "dilation_h": ("dilation_h", "dilation_y", "dil_h"),
    "dilation_w": ("dilation_w", "dilation_x", "dil_w"),
}
MEANING = {name: what for what, names in ALIKE.items() for name in names}


def meanings(names: Iterable[str], optional: Iterable[str], of: str) -> dict[str, str]:
    """What each argument is; one that has a default may be anything."""
    found, spare = {}, set(optional)
    for name in names:
        if name in MEANING:
            found[name] = MEANING[name]
        elif name not in spare:
            raise SpecError(
                f"{of} has the argument {name}, which the grader does not know; it "
                f"knows {', '.join(MEANING)}"
            )
    return found


def facts(inputs: Any, windows: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that an argument may be, of one call."""
    x, offset, weight, mask, bias = inputs
    found = dict(numbers(inputs, windows), x=x, offset=offset, weight=weight)
    found.update(mask=mask, bias=bias, use_mask=mask is not None)
    found.update(in_channels=x.shape[1], out_channels=weight.shape[0])
    return found
