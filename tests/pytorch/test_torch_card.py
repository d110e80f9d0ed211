"""The property suite on a card: drawn geometries against two witnesses. Needs a GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or it cannot be in order

import cuda_card


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("witness", ["formula", "torchvision"])
@pytest.mark.filterwarnings("ignore:.*deterministic:UserWarning")
def test_agrees(witness, deterministic):
    cuda_card.agrees(witness, deterministic)
