"""The property suite on a card: drawn geometries against the formula. Needs a GPU."""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

import checks
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import refdcn

from strategies import cases, examples


class Card:
    """refdcn on torch CUDA tensors, called with NumPy arrays."""

    @staticmethod
    def deform_conv2d(*inputs, **windows):
        return _host(refdcn.deform_conv2d(*map(_device, inputs), **windows))

    @staticmethod
    def deform_conv2d_grad(grad_y, *inputs, **windows):
        tensors = map(_device, (grad_y, *inputs))
        return tuple(map(_host, refdcn.deform_conv2d_grad(*tensors, **windows)))


def _device(a):
    return None if a is None else torch.from_numpy(a).cuda()


def _host(a):
    return None if a is None else a.cpu().numpy()


@pytest.mark.parametrize("deterministic", [False, True])
@examples(200)
@given(cases(), st.sampled_from((np.float32, np.float64)))
def test_agrees_with_formula(deterministic, case, dtype):
    torch.use_deterministic_algorithms(deterministic)
    try:
        checks.agrees_with_formula(Card, case.astype(dtype))
    finally:
        torch.use_deterministic_algorithms(False)
