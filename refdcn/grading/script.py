"""A failing case as a script that needs NumPy and the candidate only."""

from __future__ import annotations

import os
from textwrap import wrap
from typing import Any

from refdcn.grading.expected.case import NAMES
from refdcn.grading.judging.judge import Finding
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.process.inside.candidates import split

HEAD = '''"""{title}

Needs NumPy and the candidate only; it fails while the candidate does.
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


def listed(a: Any) -> str:
    """An array as source text that keeps every bit."""
    if a is None:
        return "None"
    data = str(a.reshape(-1).tolist()).replace("nan", "np.nan").replace("inf", "np.inf")
    return f"np.array({data}, {a.dtype.name!r}).reshape({list(a.shape)})"


def loading(spec: str, array: str, grad: bool, bfloat16: bool) -> str:
    """How the script gets at the candidate, as `f`."""
    place, name = split(spec)
    on_torch = array == "torch" or spec == "torchvision"
    name += "_grad" if grad and not on_torch else ""
    if spec == "torchvision":
        text = TORCHVISION
    elif place.endswith(".py"):
        text = BY_PATH.format(path=os.path.abspath(place), name=name)
    else:
        text = f"from {place} import {name} as f"
    if on_torch:
        cast, back = (".bfloat16()", ".float()") if bfloat16 else ("", "")
        text += ON_TORCH.format(cast=cast, back=back)
        text += "\n\nf = f_grad\n" if grad else ""
    return text


def shows(f: Finding) -> bool:
    """Whether a script can show it: not what only the grader's memory tells."""
    if f.verdict is Verdict.INTEGRITY or f.verdict > Verdict.UNSUPPORTED:
        return False
    return f.case.kind != "hostile" or f.verdict is not Verdict.WRONG


def reproduction(spec: str, array: str, f: Finding) -> str:
    """The script of one finding."""
    grad, case = f.target.startswith("grad"), f.case
    inputs = dict(zip(NAMES, map(listed, case.inputs), strict=True))
    title = f"{spec}: {f.text or f.target} ({case})."
    title = title.replace("\\", "/").replace('"', "'")
    head = HEAD.format(
        title="\n".join(wrap(title, 80, break_long_words=False)),
        load=loading(spec, array, grad, case.bfloat16),
        windows=case.windows,
        **inputs,
    )
    if case.kind == "malformed":
        return head + REFUSED.format(note=case.note)
    call = "got = f(*inputs, **windows)"
    if grad:
        at = NAMES.index(f.target[5:]) if f.target != "gradients" else slice(None)
        call = f"# [N, C_out, H_out, W_out]\ngrad_y = {listed(case.grad_y)}\n"
        call += f"got = f(grad_y, *inputs, **windows)[{at}]"
    if f.expected is None or (grad and f.target == "gradients"):
        return f"{head}{call}\nprint(got)\n"
    want = f.expected.range(f.target if f.target != "call" else "y")
    bound = want.bound if f.verdict is not Verdict.IMPRECISE else want.usual
    ends = f"low = high = {listed(want.low)}"
    if (want.low != want.high).any():
        ends = f"low = {listed(want.low)}\nhigh = {listed(want.high)}"
    return head + VALUES.format(
        name="y" if f.target == "call" else f.target,
        range=ends,
        bound=listed(bound),
        call=call,
        dtype=case.x.dtype.name,
    )
