"""CPU target: Numba samples, BLAS multiplies."""

from refdcn.cpu.gradients import Gradients, backward
from refdcn.cpu.output import forward

__all__ = ["Gradients", "backward", "forward"]
