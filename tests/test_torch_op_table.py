"""The table of docs/torch.md says what the checks find."""

import pytest
import transforms

for module in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(module)


def test_the_page_is_up_to_date():
    """Else: python tests/transforms.py, with the pinned torch and torchvision."""
    text = transforms.PAGE.read_text(encoding="utf-8")
    assert transforms.page(text) == text
