"""Symbolic tracing (torch.fx): a deformable layer is one node of the graph."""

from __future__ import annotations

from typing import Any

from torch import fx, nn


def is_symbol(x: Any) -> bool:
    """Whether a tracer passes a stand-in for a tensor."""
    return isinstance(x, fx.Proxy)


def leaf(layer: nn.Module, x: fx.Proxy, *args: Any, **kwargs: Any) -> Any:
    """A call of the layer as one node, as tracers treat the layers of torch.nn.

    Its checks and its autocast stay at work then, and quantisers leave it whole.
    """
    path = x.tracer.path_of_module(layer)
    if not path:
        raise TypeError(
            f"a {type(layer).__name__} by itself cannot be traced, since it is one "
            "node of a graph; trace torch.nn.Sequential(layer)"
        )
    return x.tracer.create_proxy("call_module", path, (x, *args), kwargs)
