"""The keys that a DeformConv2d may find in a state_dict: its own, those of a plain
convolution, which has no branch, and those of other libraries.

    here                        others
    offset.weight [2GK, ...]    the first 2GK rows of conv_offset.weight [3GK, ...]
    mask.weight   [ GK, ...]    the last GK rows

with G offset groups and K taps; the biases likewise. Others cut their branch's output
into three and join the first two again, which is the same order.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

PACKS = {
    "conv_offset": "mmcv's DeformConv2dPack and ModulatedDeformConv2dPack",
    "conv_offset_mask": "CharlesShang's DCNv2",
}
KINDS = "weight", "bias"


class Place(NamedTuple):
    """What torch hands to a module whose state it loads; the state may be edited."""

    state: dict[str, Any]
    prefix: str
    metadata: dict[str, Any]
    unexpected: list[str]  # of the modules around it


def translate(layer: Any, branches: dict[str, Any], place: Place) -> list[str]:
    """Edit the state until it has the keys of the layer, or say why it cannot be."""
    state, prefix, metadata, _ = place
    saved = metadata.get("modulation", layer.modulation)
    if saved != layer.modulation:
        return [
            f"{prefix}modulation: the state is of a layer with modulation={saved!r} "
            f"and this one has {layer.modulation!r}, another mask of the same numbers; "
            f"make it with modulation={saved!r}"
        ]
    own = {
        f"{prefix}{name}.{kind}": branch._parameters[kind]
        for name, branch in branches.items()
        for kind in KINDS
        if branch._parameters.get(kind) is not None
    }
    if own.keys() & state.keys():
        return []
    stem = prefix[:-1]
    if f"{stem}_offset.weight" in place.unexpected:
        return [
            f"{stem}_offset: the offsets of {stem} stand beside it, as in detectron2; "
            "refdcn.torch.load_checkpoint(model, state_dict) loads them"
        ]
    for pack in PACKS:
        if f"{prefix}{pack}.weight" in state and pack not in layer._modules:
            return split(layer, pack, place) or without_place(layer, place)
    if f"{prefix}weight" in state:
        if strange := strangers(layer, place):
            warnings.warn(
                f"{stem or 'the layer'} gets a weight with no {', '.join(own)}, and "
                f"{', '.join(strange)} beside it, which is unknown here: the branches "
                "keep their values, and are reported as missing",
                stacklevel=4,
            )
        else:
            start_anew(stem, own, place)
    return []


def without_place(layer: Any, place: Place) -> list[str]:
    """Tell what else a foreign layer held, such as a norm; that is no error yet."""
    if strange := strangers(layer, place):
        warnings.warn(
            f"{place.prefix[:-1] or 'the layer'} has no part for {', '.join(strange)} "
            "of the state, such as a norm after the convolution: what it computes is "
            "not what that state was trained for until they have a place",
            stacklevel=5,
        )
    return []


def split(layer: Any, pack: str, place: Place) -> list[str]:
    """The rows of one convolution to two."""
    state, prefix, *_ = place
    K_h, K_w = layer.kernel_size
    taps = layer.offset_groups * K_h * K_w
    source = f"{prefix}{pack}"
    rows = len(state[f"{source}.weight"])
    modulation = {2 * taps: None, 3 * taps: "sigmoid"}.get(rows, "unknown")
    if modulation != layer.modulation:
        wanted = (
            f"make this layer with modulation={modulation!r}, not {layer.modulation!r}"
            if modulation != "unknown"
            else f"a {K_h}x{K_w} kernel with offset_groups={layer.offset_groups} has "
            f"{2 * taps}, or with a mask {3 * taps}"
        )
        return [
            f"{source}.weight has {rows} channels and the layout of {PACKS[pack]}; "
            f"{wanted}"
        ]
    for kind in KINDS:
        if (whole := state.pop(f"{source}.{kind}", None)) is not None:
            state[f"{prefix}offset.{kind}"] = whole[: 2 * taps].clone()
            if layer.mask is not None:
                state[f"{prefix}mask.{kind}"] = whole[2 * taps :].clone()
    return []


def strangers(layer: Any, place: Place) -> list[str]:
    """Keys that are no part of a plain convolution, or stand beside it."""
    state, prefix, _, unexpected = place
    known = {*layer._parameters, *layer._buffers, *layer._modules}
    own = [key for key in state if key.startswith(prefix)]
    around = prefix[:-1].rpartition(".")[0]
    around = f"{around}." if around else ""
    return [
        key for key in own if key.removeprefix(prefix).split(".")[0] not in known
    ] + [
        key
        for key in unexpected
        if key.startswith(around) and "offset" in key.removeprefix(around).split(".")[0]
    ]


def start_anew(stem: str, own: dict[str, Any], place: Place) -> None:
    """Zero branches, which make the layer the convolution that the state is of."""
    if any(bool(p.any()) for p in own.values() if not p.is_meta):
        warnings.warn(
            f"{stem or 'the layer'} gets the state of a plain convolution: its "
            "branches, which were not zero, are set to zero",
            stacklevel=4,
        )
    weight = place.state[f"{place.prefix}weight"]
    place.state.update({key: weight.new_zeros(p.shape) for key, p in own.items()})
