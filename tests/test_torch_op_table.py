"""The table of docs/torch.md says what the checks find."""

import subprocess
import sys

import pytest
import transforms

for module in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(module)


def test_the_page_is_up_to_date():
    """Else: python tests/transforms.py, with the pinned torch and torchvision.

    A process of its own: what torch traced in other tests would be in some answers.
    """
    command = [sys.executable, transforms.__file__, "--print"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == transforms.PAGE.read_text(encoding="utf-8")
