"""Simulator results against torchvision, on torch tensors of this machine.

Run by test_torch_cuda.py with NUMBA_ENABLE_CUDASIM=1: drawn geometries that a few
simulated threads can do, by what launches and multiplies for torch tensors on a card.
"""

import cuda_card
import numpy as np
import pytest
import torch
from cuda_machines import geometry, prepare_simulator, shrink
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import cuda

from refdcn.cuda import arrays, operator

from strategies import Sizes, cases, examples, fill


class Simulated(arrays.TorchArrays):
    def __init__(self):
        self.torch, self.device = torch, torch.device("cpu")

    def launch(self, kernel, blocks, threads, *args):
        views = [a.numpy() if isinstance(a, torch.Tensor) else a for a in args]
        cuda.jit(kernel)[blocks, threads](*views)


class Target:
    """refdcn's CUDA target, called with NumPy arrays."""

    deterministic = False

    @staticmethod
    def tensors(*arrays):
        """As users have them: with gradients to come, and not row-major."""
        apart = [a if a is None else np.repeat(a, 2, -1)[..., ::2] for a in arrays]
        return [a if a is None else torch.from_numpy(a).requires_grad_() for a in apart]

    @classmethod
    def deform_conv2d(cls, *inputs, **windows):
        g = geometry(inputs, **windows)
        return operator.forward(Simulated(), cls.tensors(*inputs), g).numpy()

    @classmethod
    def deform_conv2d_grad(cls, grad_y, *inputs, **windows):
        g, needs = geometry(inputs, **windows), (True,) * 5
        given = cls.tensors(grad_y, *inputs)
        grads = operator.backward(
            Simulated(), given[0], given[1:], g, needs, cls.deterministic
        )
        return tuple(a if a is None else a.numpy() for a in grads)


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    prepare_simulator(monkeypatch)
    shrink(monkeypatch)
    monkeypatch.setattr(cuda_card, "DEVICE", "cpu")
    monkeypatch.setattr(cuda_card, "Card", Target)


def work(case):
    s = case.sizes
    return s.N * s.C_in * s.taps * s.out[0] * s.out[1]


@settings(examples(3), suppress_health_check=list(HealthCheck))
@given(
    cases(batches=(1, 2)).filter(lambda case: work(case) < 200),
    st.sampled_from((np.float32, np.float64)),
)
def test_agrees_with_torchvision(case, dtype):
    cuda_card.agrees_with_torchvision(case.astype(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_single_precision_rounded_once(dtype):
    """Numba has no bfloat16: what is launched on is float32."""
    case = fill(Sizes(1, 2, 2, H=2, W=3), np.random.default_rng(0), dtype=np.float32)
    given = [torch.from_numpy(a).to(dtype) for a in (*case.inputs, case.grad_y)]
    g = geometry(case.inputs, **case.windows)

    def both(tensors):
        *inputs, grad_y = tensors
        y = operator.forward(Simulated(), inputs, g)
        needs = (True,) * 5
        return [y, *operator.backward(Simulated(), grad_y, inputs, g, needs, True)]

    for half, single in zip(both(given), both([a.float() for a in given]), strict=True):
        assert half.dtype == dtype and torch.equal(half, single.to(dtype))


def test_a_wrong_gradient_is_no_agreement(monkeypatch):
    right = Target.deform_conv2d_grad

    def wrong(*args, **windows):
        grads = list(right(*args, **windows))
        grads[1] = grads[1] * 1.001
        return grads

    monkeypatch.setattr(Target, "deform_conv2d_grad", wrong)
    case = fill(Sizes(1, 2, 2, H=3, W=3), np.random.default_rng(0))
    with pytest.raises(AssertionError, match="grad_offset"):
        cuda_card.agrees_with_torchvision(case)
