"""A model's state from libraries that keep a layer's offsets beside the layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn

from refdcn.torch.layer import DeformConv2d


def load_checkpoint(
    model: nn.Module, state_dict: Mapping[str, Any], strict: bool = True,
    *, sibling: str = "{}_offset",
) -> Any:  # fmt: skip
    """load_state_dict, from a state whose offsets stand beside their layers.

        conv2.weight, conv2_offset.weight -> conv2.weight, conv2.offset.weight, ...

    as detectron2 has them. Layouts that keep them within the layer
    (`conv2.conv_offset` of mmcv, `conv2.conv_offset_mask` of CharlesShang's DCNv2) need
    no help: load_state_dict reads those by itself.

    Parameters
    ----------
    model : nn.Module
        With `DeformConv2d` layers; modulation="sigmoid" where the sibling has
        3 * offset_groups * K channels, None where it has 2 * offset_groups * K.
    state_dict : mapping
        Names to tensors. It is not changed.
    strict : bool
        As for load_state_dict.
    sibling : str
        The sibling's name; {} stands for the layer's own.

    Returns
    -------
    What load_state_dict returns: missing_keys and unexpected_keys.

    Raises
    ------
    RuntimeError
        load_state_dict's, naming each key that does not fit.
    ValueError
        sibling has no {}.

    Examples
    --------
    >>> import torch
    >>> from refdcn.torch import DeformConv2d, load_checkpoint
    >>> block = torch.nn.ModuleDict({"conv2": DeformConv2d(4, 4, 3, padding=1)})
    >>> weight, offset = torch.rand(4, 4, 3, 3), torch.rand(27, 4, 3, 3)
    >>> bias = {"conv2.bias": torch.zeros(4), "conv2_offset.bias": torch.zeros(27)}
    >>> state = {"conv2.weight": weight, "conv2_offset.weight": offset, **bias}
    >>> load_checkpoint(block, state)
    <All keys matched successfully>
    >>> torch.equal(block.conv2.mask.weight, offset[18:])
    True
    """
    if "{}" not in sibling:
        raise ValueError(f"sibling is {sibling!r}; wanted {{}} for the layer's name")
    inside: OrderedDict[str, Any] = OrderedDict(state_dict)
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, module in modules.items():
        parent, _, own = name.rpartition(".")
        beside = f"{parent}." * bool(parent) + sibling.format(own)
        if not isinstance(module, DeformConv2d) or not own or beside in modules:
            continue
        for kind in ("weight", "bias"):
            if f"{beside}.{kind}" in inside:
                inside[f"{name}.conv_offset.{kind}"] = inside.pop(f"{beside}.{kind}")
    if (metadata := getattr(state_dict, "_metadata", None)) is not None:
        inside._metadata = metadata  # type: ignore[attr-defined]
    return model.load_state_dict(inside, strict=strict)
