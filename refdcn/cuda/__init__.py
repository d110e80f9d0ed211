"""CUDA target: the loops' scalar functions under cuda.jit, and their launches."""

from refdcn.cuda.device import require_cuda
from refdcn.cuda.entry import deform_conv2d, deform_conv2d_grad
from refdcn.cuda.target import backward, forward

__all__ = ["backward", "deform_conv2d", "deform_conv2d_grad", "forward", "require_cuda"]
