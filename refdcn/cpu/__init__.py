"""CPU target: columns are sampled and multiplied tile by tile, compiled by Numba."""

from refdcn.cpu.gradients import Gradients, backward
from refdcn.cpu.output import forward

__all__ = ["Gradients", "backward", "forward"]
