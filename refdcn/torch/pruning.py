"""Channel pruning by torch-pruning (`pip install "refdcn[pruning]"`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from refdcn.torch.layer import Branch, DeformConv2d


def pruning_arguments(model: nn.Module) -> dict[str, Any]:
    """What torch-pruning needs to be told, so that branches follow their layer.

    A layer's input channels are its branches' too, and go from all three; the branches'
    outputs, two numbers a tap and one, are never pruned. Layers with offset groups are
    left as they are: a group must keep its equal run of channels.

    Parameters
    ----------
    model : nn.Module
        With any number of `DeformConv2d`.

    Returns
    -------
    dict
        customized_pruners and ignored_layers, for every pruner of torch_pruning and for
        DependencyGraph.build_dependency.

    Raises
    ------
    ImportError
        Where torch-pruning is not installed.
    """
    from torch_pruning.pruner.function import ConvPruner

    class DeformConvPruner(ConvPruner):
        def prune_in_channels(self, layer: Any, idxs: Sequence[int]) -> Any:
            if layer.feature_channels == layer.in_channels:  # they read x
                for branch in filter(None, (layer.offset, layer.mask)):
                    super().prune_in_channels(branch, idxs)
                layer.feature_channels -= len(idxs)
            return super().prune_in_channels(layer, idxs)

    layers = [m for m in model.modules() if isinstance(m, DeformConv2d)]
    branches = [m for m in model.modules() if isinstance(m, Branch)]
    fixed = [layer for layer in layers if layer.offset_groups > 1]
    return {
        "customized_pruners": {DeformConv2d: DeformConvPruner()},
        "ignored_layers": [*branches, *fixed],
    }
