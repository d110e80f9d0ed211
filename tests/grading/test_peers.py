"""Real libraries are graded without a file of anybody's, by one command each.

A library is reached where it is installed: here, or under the interpreter that the
variable REFDCN_PYTHON_<NAME> names, as REFDCN_PYTHON_PADDLE. Each has its own tox
environment, peers-paddle and so on; those that need an old Python are in peers-old.
"""

import os
from importlib.util import find_spec

import numpy as np
import pytest

from refdcn.grading import grade
from refdcn.grading.process.inside import argument_orders

import graphs
import told

SOME = told.SOME
LIBRARIES = "openvino", "paddle", "mindspore", "ncnn", "mmcv", "nnabla", "kornia"
GRADIENTS = "paddle", "mindspore", "mmcv", "nnabla", "kornia"


def there(name, package):
    """The interpreter that has a library; None is this one."""
    if find_spec(package) is not None:
        return None
    path = os.environ.get(f"REFDCN_PYTHON_{name.upper()}")
    return path or pytest.skip(f"needs {package}")


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_real_library_is_right_without_any_file(name):
    spec = argument_orders.CONVENTIONS[name].function
    python = there(name, spec.partition(":")[0].partition(".")[0])
    report = grade(spec, like=name, python=python, **SOME)
    assert report.exit_code == 0, report.text()
    assert report.has_grad is (name in GRADIENTS)


def test_chainer_divides_by_0_where_an_image_has_one_row_or_column():
    python = there("chainer", "chainer")
    how = SOME | {"like": "chainer", "python": python}
    spec = argument_orders.CONVENTIONS["chainer"].function
    found = grade(spec, **how | {"only": ["sizes"]}).findings
    lost = [f for f in found if f.worst is not None and np.isnan(f.worst.got)]
    assert lost and all(min(f.case.x.shape[2:]) == 1 for f in lost)


def test_onnxruntime_is_right_without_any_file():
    python = there("onnxruntime", "onnxruntime")
    report = grade("onnx:DeformConv", python=python, runtime="onnxruntime", **SOME)
    assert report.exit_code == 0, report.text()


def test_openvino_runs_a_graph_of_plain_operators(tmp_path):
    python = there("openvino", "openvino")
    right, swapped = graphs.saved(pytest.importorskip("onnx"), tmp_path)
    how = SOME | {"runtime": "openvino", "gaps": graphs.GAPS, "python": python}
    report = grade(f"onnx:{right}", **how)
    assert report.exit_code == 0, report.text()
    report = grade(f"onnx:{swapped}", **how)
    found = report.exit_code, told.first_sentences(report)
    assert found == told.swapped_in_python()
