"""CPU target: columns are sampled and multiplied tile by tile, compiled by Numba."""

from refdcn.cpu.backward import Gradients, Inputs, backward
from refdcn.cpu.forward import forward

__all__ = ["Gradients", "Inputs", "backward", "forward"]
