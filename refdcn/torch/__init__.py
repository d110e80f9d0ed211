"""Deformable convolution as a torch operator, with derivatives of every order."""

from refdcn.torch.accelerate import accelerate_torchvision, torchvision_is_native
from refdcn.torch.convert import deformable
from refdcn.torch.layer import DeformConv2d
from refdcn.torch.op import deform_conv2d, deform_conv2d_grad
from refdcn.torch.statistics import OffsetStatistics, OffsetSummary
from refdcn.torch.training import parameter_groups

__all__ = [
    "DeformConv2d",
    "OffsetStatistics",
    "OffsetSummary",
    "accelerate_torchvision",
    "deform_conv2d",
    "deform_conv2d_grad",
    "deformable",
    "parameter_groups",
    "torchvision_is_native",
]
