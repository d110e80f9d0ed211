"""Mistakes seeded into a copy of the operator: the checks of every target catch each.

A mistake replaces text in the source of one module. The copy runs as plain Python, with
no compiled cache that could hide it. A mistake in a function of loops.py that breaks
the CPU target too shows that the target calls it and has none of its own.
"""

import importlib
import re
import shutil
import sys
from itertools import count
from pathlib import Path

import checks
import numpy as np
import pytest
from numba import config

import refdcn

from strategies import Sizes, fill

PACKAGE = Path(refdcn.__file__).parent
PARTS = (
    "__init__.py", "columns.py", "formula.py", "loops.py", "ops.py", "scratch.py",
    "shapes.py", "threads.py",
)  # fmt: skip
UNCOMPILED = """
def jitable(function):
    return function


def compiled(function, *fastmath):
    return function


c_address = compiled
PART = {}
"""
numbered = count()


@pytest.fixture
def copy_with(tmp_path, monkeypatch):
    """Makes a package of the operator's modules with text replaced in one of them."""
    name = f"copy_{next(numbered)}_of_the_operator"
    home = tmp_path / name
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(config, "DISABLE_JIT", 1)

    def make(file, replacements):
        home.mkdir()
        for part in PARTS:
            shutil.copy(PACKAGE / part, home)
        shutil.copytree(PACKAGE / "cpu", home / "cpu")
        (home / "jit.py").write_text(UNCOMPILED)
        for path in home.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if path == home / file:
                for right, wrong in replacements:
                    assert right in text, f"{file} has no {right!r}: seed it anew"
                    text = text.replace(right, wrong)
                    assert text.count(wrong)
            path.write_text(re.sub(r"\brefdcn\b", name, text), encoding="utf-8")
        package = importlib.import_module(name)
        return {
            "formula": importlib.import_module(f"{name}.formula"),
            "loops": importlib.import_module(f"{name}.loops"),
            "columns": importlib.import_module(f"{name}.columns"),
            "cpu": package,
        }

    yield make
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def fixed_cases():
    """Few and small, since Python runs them; each kind of place and of sizes."""
    rng = np.random.default_rng(0)
    small = Sizes(2, 6, 4, 2, 3, 4, 3, (2, 3), (2, 1), (1, 2), (1, 2))
    runs = Sizes(2, 6, 6, 3, 2, 3, 4, (3, 1), (1, 2), (2, 1), (2, 1))
    wide = Sizes(1, 9, 2, 1, 1, 3, 4, (1, 2))
    many = Sizes(1, 2, 2, 1, 2, 9, 10, (1, 2))
    grouped = Sizes(1, 16, 4, 2, 1, 3, 4, (1, 2))
    halves = Sizes(1, 8, 1, 1, 1, 14, 15, (1, 1))
    batch = Sizes(9, 1, 1, 1, 1, 2, 3, (1, 1))
    channels = Sizes(1, 35, 1, 1, 1, 3, 2, (2, 2))
    depthwise = Sizes(2, 70, 70, 70, 1, 3, 2, (1, 2))
    small_image = Sizes(1, 4, 40, 1, 1, 3, 2, (2, 1))
    single = Sizes(1, 4, 9, 1, 1, 3, 3, (3, 3), padding=(0, 0))
    outputs = Sizes(1, 2, 257, 1, 1, 2, 3, (1, 1))
    for sizes, kinds in (
        (small, ("random", "edge", "beside", "zero")),
        (runs, ("mixed", "integer", "inside")),
        (wide, ("mixed", "edge")),
        (many, ("random",)),
        (grouped, ("random",)),
        (halves, ("random",)),
        (batch, ("random",)),
        (channels, ("random",)),
        (outputs, ("random",)),
        (small_image, ("random",)),
        (single, ("random",)),
        (depthwise, ("random",)),
    ):
        for kind in kinds:
            yield fill(sizes, rng, kind, mask=kind != "zero")


CASES = list(fixed_cases())
CHECKS = [  # those that catch most come first
    checks.agrees_with_formula,
    checks.zero_offset_convolves,
    checks.gradients_are_adjoint,
    checks.is_linear,
]


def failures(target):
    """The names of the checks that fail, one by one, as they do."""
    for check in CHECKS:
        for case in CASES:
            try:
                check(target, case)
            except AssertionError:
                yield check.__name__
                break


FORMULA, LOOPS, COLUMNS = "formula.py", "loops.py", "columns.py"
KERNELS, LAYOUT = "cpu/kernels.py", "cpu/layout.py"
FORWARD, GRADIENTS = "cpu/forward.py", "cpu/backward.py"
DEPTHWISE, TURNS = "cpu/depthwise.py", "cpu/turns.py"
RELAYOUT, VECTORS = "cpu/relayout.py", "cpu/vectors.py"
DY, DX = "base_y, offset[n, 2 * tap, u, v]", "base_x, offset[n, 2 * tap + 1, u, v]"
MASK = "mask[n, g * K + k, u, v]"
WEIGHT = "weight[o, c, k // K_w, k % K_w]"

# name, the targets that it breaks, file, (source, mistaken source) ...
MISTAKES = [
    # layout of offsets, mask and weight
    ("offsets as (x, y)", "loops", LOOPS,
     (DY, "base_y, offset[n, 2 * tap + 1, u, v]"),
     (DX, "base_x, offset[n, 2 * tap, u, v]")),
    ("offsets as (x, y), definition", "formula", FORMULA,
     ("dy, dx = np.moveaxis", "dx, dy = np.moveaxis")),
    ("offsets planar", "loops", LOOPS,
     (DY, "base_y, offset[n, tap, u, v]"),
     (DX, "base_x, offset[n, tap + offset.shape[1] // 2, u, v]")),
    ("offset's sign flipped", "loops cpu", LOOPS,
     ("T(base) + dp", "T(base) - dp")),
    ("offset in rows only", "loops", LOOPS, (DX, "base_x, T(0)")),
    ("offset scaled by dilation", "loops", LOOPS,
     (DY, "base_y, T(dilation[0]) * offset[n, 2 * tap, u, v]")),
    ("offset clipped", "loops cpu", LOOPS,
     ("T(base) + dp", "T(base) + min(max(dp, T(-1)), T(1))")),
    ("offset of image 0", "loops", LOOPS, ("offset[n, ", "offset[0, ")),
    ("offset of image 0, target", "cpu", KERNELS, (" = offset[n, ", " = offset[0, ")),
    ("mask of image 0", "loops", LOOPS, (MASK, "mask[0, g * K + k, u, v]")),
    ("mask of image 0, target", "cpu", KERNELS,
     ("mask[block.n, tap, ", "mask[0, tap, ")),
    ("offsets of offset group 0", "loops", LOOPS,
     ("tap = n, g * K + k, k, u, v", "tap = n, k, k, u, v")),
    ("mask of offset group 0", "loops", LOOPS, (MASK, "mask[n, k, u, v]")),
    ("offset groups interleaved", "loops", LOOPS,
     ("(first + c) // per_offset_group", "(first + c) % (C_in // per_offset_group)")),
    ("offset group 0 alone, target", "cpu", LAYOUT,
     ("rows = first // per_offset,", "rows = first * 0,")),
    ("offset groups nest in groups, target", "cpu", LAYOUT,
     ("{*range(0, g.C_in, per_offset), *range", "{*range")),
    ("columns of a run counted by group, target", "cpu", GRADIENTS,
     ("segments[:, 1] - begins[run]", "segments[:, 4]")),
    ("groups interleaved", "loops", LOOPS,
     ("first = o // (C_out // (C_in // C)) * C", "first = o % (C_in // C) * C")),
    ("kernel flipped", "loops", LOOPS,
     (WEIGHT, "weight[o, c, K_h - 1 - k // K_w, K_w - 1 - k % K_w]")),
    ("kernel transposed", "loops", LOOPS,
     (WEIGHT, "weight[o, c, k % K_h, k // K_h]")),
    # mask
    ("mask missing", "loops", LOOPS, (f" * {MASK}", "")),
    ("mask missing at a corner, target", "cpu", KERNELS,
     ("tents[t, p] *= dm[p]", "tents[t, p] *= dm[p] if t != 2 else T(1)")),
    ("mask squared", "loops", LOOPS, (MASK, f"{MASK} ** 2")),
    ("mask squared, definition", "formula", FORMULA,
     ("sample(x_g, tent_y, tent_x) * dm", "sample(x_g, tent_y, tent_x) * dm * dm")),
    ("mask clipped", "loops", LOOPS, (MASK, f"min(max({MASK}, 0.0), 1.0)")),
    ("mask rectified", "loops", LOOPS, (MASK, f"max({MASK}, 0.0)")),
    ("mask of the next tap", "loops", LOOPS,
     (MASK, "mask[n, g * K + (k + 1) % K, u, v]")),
    # geometry
    ("stride swapped", "loops", LOOPS,
     ("stride[0] * u", "stride[1] * u"), ("stride[1] * v", "stride[0] * v")),
    ("stride swapped, target", "cpu", KERNELS, ("stride[0] * u", "stride[1] * u")),
    ("padding of rows for columns", "loops", LOOPS, ("- padding[1]", "- padding[0]")),
    ("padding ignored, definition", "formula", FORMULA, (" - padding[0]", "")),
    ("dilation ignored", "loops", LOOPS, ("dilation[0] * (k // K_w)", "(k // K_w)")),
    ("dilation swapped, target", "cpu", KERNELS,
     ("dilation[0] * (k // sizes.K_w)", "dilation[1] * (k // sizes.K_w)")),
    ("taps centred", "loops", LOOPS, ("(k % K_w)", "(k % K_w - K_w // 2)")),
    ("taps column by column", "loops", LOOPS,
     ("dilation[0] * (k // K_w)", "dilation[0] * (k % K_w)"),
     ("dilation[1] * (k % K_w)", "dilation[1] * (k // K_w)")),
    ("half a pixel off", "loops cpu", LOOPS, ("T(base) + dp", "T(base) + dp + T(0.5)")),
    # sampling
    ("clamped to the border", "loops", LOOPS,
     ("return x.dtype.type(0)\n\n\n@register_jitable\ndef bilinear",
      "return x[n, c, min(max(r_y, 0), x.shape[2] - 1), "
      "min(max(r_x, 0), x.shape[3] - 1)]\n\n\n@register_jitable\ndef bilinear")),
    ("wrapped to the other side", "loops", LOOPS, ("if 0 <= r_y and ", "if ")),
    ("truncated", "loops cpu", LOOPS, ("math.floor", "math.trunc")),
    ("nearest", "loops cpu", LOOPS,
     ("f_y = q_y - T(r_y)", "f_y = T(round(q_y - T(r_y)))")),
    ("floor only", "loops cpu", LOOPS, ("f_x = q_x - T(r_x)", "f_x = T(0)")),
    ("smoothstep", "loops cpu", LOOPS,
     ("e_y = T(1) - f_y", "f_y = f_y * f_y * (3 - 2 * f_y)\n    e_y = T(1) - f_y")),
    ("corner weights swapped", "loops", LOOPS,
     ("e_y * f_x * pixel", "e_x * f_y * pixel")),
    ("corner weights swapped, target", "cpu", KERNELS,
     ("e_y * e_x, e_y * f_x", "e_y * e_x, f_y * e_x")),
    ("nothing where a corner is above", "loops cpu", LOOPS,
     ("T(-1) < q_y", "T(0) <= q_y")),
    ("nothing where a corner is beyond", "loops cpu", LOOPS,
     ("q_x < T(W)", "q_x <= T(W - 1)")),
    ("tent not cut off, definition", "formula", FORMULA,
     ("np.maximum(0, 1 - abs(q - r))", "(1 - abs(q - r))")),
    ("a pixel's weight lost in the vector loops, target", "cpu", VECTORS,
     ("add_times(w_10, load(source, i + row), total)",
      "add_times(w_00, load(source, i + row), total)")),
    ("a pixel's gradient lost in the vector loops, target", "cpu", VECTORS,
     ("give(target, i + row, w_10, value)", "give(target, i + row, w_01, value)")),
    ("slopes of the last vector alone, target", "cpu", VECTORS,
     ("four if fresh else add(load_four(sums, cell), four)", "four")),
    # bias
    ("bias missing", "loops", LOOPS, ("bias[o] + output(", "output(")),
    ("bias by group, target", "cpu", FORWARD,
     ("repeat(call.bias, start, size", "repeat(call.bias, o, size")),
    ("bias of planes by group, target", "cpu", FORWARD,
     ("call.bias[channel + o]", "call.bias[outputs[0] + o]")),
    ("bias of a group that is a channel, target", "cpu", VECTORS,
     ("+= there[c]", "+= there[0]")),
    # tails
    ("channel tail lost, target", "cpu", KERNELS,
     ("for c in range(end - first):", "for c in range((end - first) // 4 * 4):")),
    ("row tail lost, target", "cpu", KERNELS,
     ("u, v = u + 1, 0", "u, v = u, 0")),
    ("image 0 for all, target", "cpu", RELAYOUT,
     ("min(begin + count, C), n * C * H * W", "min(begin + count, C), 0 * C * H * W")),
    ("planes of image 0 for all, target", "cpu", RELAYOUT,
     ("first = n * C * H * W + (c", "first = 0 * C * H * W + (c")),
    # gradients
    ("slope left-hand", "loops cpu", LOOPS,
     ("int(math.floor(q_y))", "int(math.ceil(q_y)) - 1")),
    ("slope left-hand, definition", "formula", FORMULA,
     ("(r - 1 <= q) & (q < r)", "(r - 1 < q) & (q <= r)"),
     ("(r <= q) & (q < r + 1)", "(r < q) & (q <= r + 1)")),
    ("slope of the rounded q - r, definition", "formula", FORMULA,
     ("(r - 1 <= q) & (q < r)", "(-1 <= q - r) & (q - r < 0)")),
    ("slope 0 at -1", "loops cpu", LOOPS,
     ("T(-1) <= q_x", "T(-1) < q_x")),
    ("grad_mask without weight", "loops", LOOPS, ("+= g * sample", "+= sample")),
    ("grad_mask times mask", "loops", LOOPS, ("+= g * sample", "+= g * sample * dm")),
    ("grad_mask of one run, target", "cpu", KERNELS,
     ("add_part(parts[s, k, 0], s == begin, total)",
      "add_part(parts[s, k, 0], True, total)")),
    ("grad_offset negated", "loops", LOOPS, ("+= g * dm * d_y", "-= g * dm * d_y")),
    ("grad_offset as (x, y)", "loops", LOOPS, ("return d_y, d_x", "return d_x, d_y")),
    ("grad_offset without mask", "loops", LOOPS, ("g * dm * d_x", "g * d_x")),
    ("grad_offset without mask, target", "cpu", KERNELS, ("d_y[p] *= dm[p]", "pass")),
    ("grad_offset without mask, definition", "formula", FORMULA,
     ("(G * dm * sample(x_g", "(G * sample(x_g")),
    ("grad_offset of one channel", "loops", LOOPS,
     ("grad_offset[n, 2 * tap, u, v] +=", "grad_offset[n, 2 * tap, u, v] =")),
    ("grad_offset of one run, target", "cpu", KERNELS,
     ("else total[p] + part[p]", "else part[p]")),
    ("grad_x without mask", "loops", LOOPS, ("q_y, q_x, g * dm)", "q_y, q_x, g)")),
    ("grad_x without mask, definition", "formula", FORMULA,
     ("einsum(to_x, G * dm,", "einsum(to_x, G,")),
    ("grad_x overwritten", "loops", LOOPS,
     ("grad_x[n, c, r_y, r_x] +=", "grad_x[n, c, r_y, r_x] =")),
    ("grad_x wrapped", "loops", LOOPS, ("if r_y >= 0 and r_x >= 0:", "if r_x >= 0:")),
    ("grad_x at one corner only", "loops", LOOPS,
     ("if r_y + 1 < H and r_x + 1 < W:", "if False:")),
    ("grad_weight without mask", "loops", LOOPS,
     ("grad_y[n, o, u, v] * dm * sample", "grad_y[n, o, u, v] * sample")),
    ("grad_weight of the last sample", "loops", LOOPS,
     ("grad_weight[o, c % C, i, j] +=", "grad_weight[o, c % C, i, j] =")),
    ("grad_weight without mask, definition", "formula", FORMULA,
     ("(sampled * dm).reshape(G.shape)", "sampled.reshape(G.shape)")),
    ("grad_mask times mask, definition", "formula", FORMULA,
     ("(G * sampled).sum(2)", "(G * dm * sampled).sum(2)")),
    ("channels regrouped out of order, definition", "formula", FORMULA,
     ("columns.reshape(N, groups, C, K, *outputs)",
      "columns.reshape(N, C, groups, K, *outputs).swapaxes(1, 2)")),
    ("grad_x of one half, target", "cpu", GRADIENTS,
     ("add_part(room.grad_image[1][begin:end], False, room.grad_image[0][begin:end])",
      "pass")),
    ("grad_weight of the first share, target", "cpu", GRADIENTS,
     ("for share in range(1, cut.shares):", "for share in range(0):")),
    ("grad_weight of the last tile, target", "cpu", GRADIENTS,
     ("tile.P, fresh)", "tile.P, True)")),
    ("weights of the first group, target", "cpu", RELAYOUT,
     ("((b * O + o) * C + begin - b * C) * K", "(o * C + begin - b * C) * K")),
    ("weights of the first run, target", "cpu", RELAYOUT,
     ("((b * O + o) * C + begin - b * C) * K", "(b * O + o) * C * K")),
    ("a last column lost, target", "cpu", "cpu/product.py",
     ("min(4, left.rows - r)", "min(3, left.rows - r)")),
    ("weights of the first tap, target", "cpu", FORWARD,
     ("start * K * C + k * C * size", "start * K * C")),
    ("weights of the first tap in backward, target", "cpu", GRADIENTS,
     ("w + (k * O + o) * wide", "w + o * wide")),
    ("depthwise, grad_weight of the last image, target", "cpu", DEPTHWISE,
     ("    if n == 0:", "    if True:")),
    ("depthwise, slopes' edges weighed, target", "cpu", VECTORS,
     ("value = times(load(data.w, at), grad)", "value = grad")),
    ("depthwise, one run of channels, target", "cpu", DEPTHWISE,
     ("(runs, RUN, n, 0)", "(1, RUN, n, 0)")),
    # columns
    ("offset's sign flipped, columns", "columns", LOOPS,
     ("T(base) + dp", "T(base) - dp")),
    ("truncated, columns", "columns", LOOPS, ("math.floor", "math.trunc")),
    ("mask missing at a corner, columns", "columns", COLUMNS,
     ("dm * (f_y * f_x)", "f_y * f_x")),
    ("offset group 0 alone, columns", "columns", COLUMNS,
     ("g, k, dm = tap // K,", "g, k, dm = 0,")),
    ("frame of one zero below, columns", "columns", COLUMNS,
     ("(1, 2), (1, 1)", "(0, 3), (1, 1)")),
    ("groups interleaved, columns", "columns", COLUMNS,
     ("K, groups, C_in // groups)\n    return split.transpose(2, 0, 1, 3)",
      "K, C_in // groups, groups)\n    return split.transpose(3, 0, 1, 2)")),
    ("slope 0 at -1, columns", "columns", COLUMNS,
     ("loops.slope_inside", "loops.inside")),
    ("grad_weight of the last image, columns", "columns", COLUMNS,
     ("grad_w += by_group", "grad_w[:] = by_group")),
    ("grad_x without mask, columns", "columns", COLUMNS,
     ("j, g * D :], dm * (e_y * e_x)", "j, g * D :], (e_y * e_x)")),
    ("grad_offset as (x, y), columns", "columns", COLUMNS,
     ("tap, u, v] = dm * d_y", "tap, u, v] = dm * d_x")),
    ("grad_mask times mask, columns", "columns", COLUMNS,
     ("= e_y * above", "= dm * e_y * above")),
    ("bias missing, columns", "columns", COLUMNS, (" + b[:, None, None]", "")),
    ("grad_bias a mean", "loops", LOOPS, ("grad_y.sum(", "grad_y.mean(")),
    ("grad_bias a mean, target", "cpu", GRADIENTS, ("grad_y.sum(", "grad_y.mean(")),
]  # fmt: skip


@pytest.mark.parametrize(
    "targets, file, replacements", [(t, f, r) for _, t, f, *r in MISTAKES],
    ids=[name for name, *_ in MISTAKES],
)  # fmt: skip
def test_each_mistake_is_caught(copy_with, targets, file, replacements):
    copies = copy_with(file, replacements)
    for name in targets.split():
        assert next(failures(copies[name]), None), f"{name} passes every check"


def test_the_copy_without_a_mistake_passes(copy_with):
    for name, target in copy_with(LOOPS, []).items():
        assert list(failures(target)) == [], name


def test_a_mistake_that_does_not_apply_is_an_error(copy_with):
    with pytest.raises(AssertionError, match="seed it anew"):
        copy_with(LOOPS, [("no such text", "")])


def test_the_mistakes_have_names_of_their_own():
    names = [name for name, *_ in MISTAKES]
    assert len(set(names)) == len(names) >= 15
