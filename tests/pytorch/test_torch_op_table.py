"""What torch can do with the operator, and that the table of docs/torch.md says so."""

import json
import subprocess
import sys

import pytest
import transforms

REFUSED = {  # what torch would answer wrongly or not at all
    "forward mode of forward mode": "no forward-mode derivative of a forward-mode",
    "torch.compile of torch.func.grad": "outside torch.compile",
    "torch.compile of torch.func.jvp": "call torch.func.jvp or jacfwd outside",
    "torch.jit.script": "keyword-only arguments",
}


@pytest.fixture(scope="module")
def found():
    """The page, and what happened in each check of refdcn's operator.

    A process of its own: what torch traced in other tests would be in some answers.
    """
    command = [sys.executable, transforms.__file__, "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize(
    "name",
    [n for n in transforms.CHECKS if n not in REFUSED.keys() | transforms.OTHERS],
)
def test_supports(found, name):
    verdict, error = found[name]
    assert verdict == "yes", error


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(found, name):
    verdict, error = found[name]
    assert verdict == "no" and REFUSED[name] in error, error


def test_the_page_is_up_to_date(found):
    """Else: python tests/transforms.py, with the pinned torch and torchvision."""
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    assert found["page"] == transforms.PAGE.read_text(encoding="utf-8")
