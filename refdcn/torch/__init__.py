"""Deformable convolution as a torch operator, with derivatives of every order."""

from refdcn.torch.accelerate import accelerate_torchvision, torchvision_is_native
from refdcn.torch.detectron2 import load_checkpoint
from refdcn.torch.layer import DeformConv2d
from refdcn.torch.op import deform_conv2d, deform_conv2d_grad
from refdcn.torch.statistics import OffsetStatistics, OffsetSummary
from refdcn.torch.to_deformable import deformable
from refdcn.torch.to_plain import PlainLayer, plain
from refdcn.torch.training import parameter_groups

__all__ = [
    "DeformConv2d",
    "OffsetStatistics",
    "OffsetSummary",
    "PlainLayer",
    "accelerate_torchvision",
    "deform_conv2d",
    "deform_conv2d_grad",
    "deformable",
    "load_checkpoint",
    "parameter_groups",
    "plain",
    "torchvision_is_native",
]
