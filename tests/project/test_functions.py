"""How long functions are and how many arguments stand in a row, over the package."""

import ast
from pathlib import Path

import pytest

import refdcn

PACKAGE = Path(refdcn.__file__).parent
LINES, ARGUMENTS = 40, 8  # of a body without its docstring; without self

# Public signatures, which are the definition's.
PUBLIC = {
    "columns.py: deform_conv2d",
    "columns.py: deform_conv2d_grad",
    "formula.py: deform_conv2d_grad",
    "loops.py: deform_conv2d",
    "loops.py: deform_conv2d_grad",
    "torch/layer.py: __init__",
}
# Kernels: barriers and shuffles need all threads at one place.
KERNELS = {"cuda/kernels.py: spread"}
# To be mended: nothing is added here, and what is mended is taken out.
LEFT = {
    "torch/library.py: _backward_cpu",
    "torch/library.py: _backward_cuda",
    "torch/library.py: _backward_fake",
}


def too_large(home):
    """file: function, of those beyond either limit."""
    for path in sorted(home.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            names = [a.arg for a in node.args.posonlyargs + node.args.args]
            arguments = len(names) - (names[:1] in (["self"], ["cls"]))
            if lines > LINES or arguments > ARGUMENTS:
                yield f"{path.relative_to(home).as_posix()}: {node.name}"


def test_functions_are_small():
    assert sorted(set(too_large(PACKAGE)) - PUBLIC - KERNELS - LEFT) == []


def test_no_exception_is_stale():
    assert sorted((PUBLIC | KERNELS | LEFT) - set(too_large(PACKAGE))) == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("def f(a, b, c, d, e, f, g, h): pass", []),
        ("def f(a, b, c, d, e, f, g, h, i): pass", ["a.py: f"]),
        ("class C:\n  def f(self, b, c, d, e, f, g, h, i): pass", []),
        ("def f():\n  'says'\n" + "  x = 1\n" * 40, []),
        ("def f():\n" + "  x = 1\n" * 41, ["a.py: f"]),
    ],
)
def test_what_is_too_large(tmp_path, text, found):
    (tmp_path / "a.py").write_text(text)
    assert list(too_large(tmp_path)) == found
