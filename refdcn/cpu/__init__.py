"""CPU target: columns are sampled and multiplied tile by tile, compiled by Numba."""

from refdcn.cpu.forward import forward
from refdcn.cpu.gradients import Gradients, backward

__all__ = ["Gradients", "backward", "forward"]
