"""The sentences and the frame of a script that shows a failing case."""

from __future__ import annotations

from refdcn.grading.record import Record

ALONE = "NumPy and the candidate only"
THROUGH = "NumPy, the candidate, and refdcn where it lay, which calls it"
HEAD = '''"""{title}

Needs {needs}; it fails while the candidate does.
"""

import sys

import numpy as np

sys.path.insert(0, ".")
{load}

# [N, C_in, H, W]
x = {x}
# [N, 2 offset_groups K_h K_w, H_out, W_out]: dy, dx of every tap in turn
offset = {offset}
# [C_out, C_in / groups, K_h, K_w]
weight = {weight}
# [N, offset_groups K_h K_w, H_out, W_out]
mask = {mask}
# [C_out]
bias = {bias}
inputs = x, offset, weight, mask, bias
windows = {windows}
'''
VALUES = """# What the definition gives, and how far from it rounding may lead.
{range}
bound = {bound}
{call}
assert isinstance(got, np.ndarray), f"it returned {{type(got)}}, no array"
assert got.shape == low.shape, f"its shape is {{got.shape}}, not {{low.shape}}"
assert got.dtype == {dtype!r}, f"its dtype is {{got.dtype}}, not {dtype}"
ok = (low - bound <= got) & (got <= high + bound)
for at in list(map(tuple, np.argwhere(~ok).tolist()))[:10]:
    a, b = low[at], high[at]
    want = f"{{a}}" if a == b else f"{{a}} to {{b}}"
    print(f"{name}{{list(at)}} = {{got[at]}}, it must be {{want}}", end="")
    print(f", give or take {{bound[at]:.2g}}")
assert ok.all(), f"{{np.count_nonzero(~ok)}} of {{ok.size}} values are outside"
print(f"all {{ok.size}} values are right")
"""
GRADIENTS = """{call}
wanted = {shapes}
came = [getattr(a, "shape", None) for a in got]
assert came == wanted, f"the gradients have shapes {{came}}, not {{wanted}}"
"""
NONE = """{call}
assert got is None, "{name} is no None though {input} is None"
"""
REFUSED = """try:
    got = f(*inputs, **windows)
except Exception as e:
    print("it refuses, as it must:", e)
else:
    raise AssertionError(f"it accepts in silence: {note}")
"""
BY_PATH = """import importlib.util
import os
path = {path!r}
sys.path.insert(0, os.path.dirname(path))
spec = importlib.util.spec_from_file_location("candidate", path)
candidate = importlib.util.module_from_spec(spec)
sys.modules["candidate"] = candidate
spec.loader.exec_module(candidate)
f = candidate.{name}"""
BY_ROUTE = """import importlib.util
# The grader's own lines turn the candidate into a function of these arrays.
spec = importlib.util.spec_from_file_location("worker", {worker!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
f = worker.routes.load({spec!r}, worker.routes.How(**{how!r})).{which}"""
TORCHVISION = """from torchvision.ops import deform_conv2d


def f(x, offset, weight, mask, bias, **windows):
    return deform_conv2d(x, offset, weight, bias, mask=mask, **windows)
"""
ON_TORCH = """
import torch

operator = f


def tensors(arrays, grad):
    made = [None if a is None else torch.from_numpy(a){cast} for a in arrays]
    return [None if a is None else a.detach().requires_grad_(grad) for a in made]


def f(*arrays, **windows):
    return operator(*tensors(arrays, False), **windows){back}.numpy()


def f_grad(grad_y, *arrays, **windows):
    leaves = tensors(arrays, True)
    operator(*leaves, **windows).backward(*tensors([grad_y], False))
    return [None if a is None else a.grad{back}.numpy() for a in leaves]
"""


def why_not(report: Record) -> str:
    """Why a grade has no script."""
    if report.run.forked:
        return "a function without a name of its own cannot be imported by a script"
    if report.smallest is None:
        return "no failure to show"
    return "what fails in a grade does not fail alone; it needs the calls before it"
