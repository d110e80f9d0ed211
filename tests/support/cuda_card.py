"""The drawn geometries on a card: refdcn's CUDA target against a witness.

Plain functions: `refdcn bench --device cuda --check` calls them where no pytest is.
"""

import checks
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import refdcn

from bounds import bounds, results, settled
from strategies import cases, examples

DEVICE = "cuda"
COUNT = 200
DTYPES = (np.float32, np.float64)


class Card:
    """refdcn on torch tensors of the device, called with NumPy arrays."""

    @staticmethod
    def op(x, offset, weight, mask, bias, **windows):
        return refdcn.deform_conv2d(x, offset, weight, mask, bias, **windows)

    @classmethod
    def deform_conv2d(cls, *inputs, **windows):
        return on_host(cls.op(*map(on_device, inputs), **windows))

    @classmethod
    def deform_conv2d_grad(cls, grad_y, *inputs, **windows):
        leaves = [a if a is None else on_device(a).requires_grad_() for a in inputs]
        cls.op(*leaves, **windows).backward(on_device(grad_y))
        return tuple(a if a is None else on_host(a.grad) for a in leaves)


class Torchvision(Card):
    @staticmethod
    def op(x, offset, weight, mask, bias, **windows):
        from torchvision.ops import deform_conv2d

        return deform_conv2d(x, offset, weight, bias, mask=mask, **windows)


def on_device(a):
    return None if a is None else torch.from_numpy(a).to(DEVICE)


def on_host(a):
    return a.detach().cpu().numpy()


def agrees_with_torchvision(case):
    """Both round positions to the case's dtype, so that they sample the same cells."""
    info = np.finfo(case.x.dtype)
    bound = bounds(settled(case), float(info.eps), 2 * float(info.tiny))
    got, wanted = results(Card, case), results(Torchvision, case)
    checks.assert_all_within(got, wanted, bound)


def agrees_with_formula(case):
    checks.agrees_with_formula(Card, case)


WITNESSES = {"formula": agrees_with_formula, "torchvision": agrees_with_torchvision}


def agrees(witness, deterministic):
    """Draws geometries until one disagrees, or COUNT of them."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    # torchvision has no deterministic form and would refuse.
    if witness == "torchvision":
        torch.use_deterministic_algorithms(deterministic, warn_only=True)

    @examples(COUNT)
    @given(cases(), st.sampled_from(DTYPES))
    def check(case, dtype):
        WITNESSES[witness](case.astype(dtype))

    try:
        check()
    finally:
        torch.use_deterministic_algorithms(before)
