"""What the cache of compiled kernels knows."""

import hashlib
from pathlib import Path

from numba.core.codegen import JITCodeLibrary

import refdcn
from refdcn import jit

PACKAGE = Path(refdcn.__file__).parent


def test_a_change_in_any_file_that_a_kernel_calls_is_seen(tmp_path, monkeypatch):
    """Numba alone looks at the file of the compiled function."""
    (tmp_path / "cpu").mkdir()
    files = [tmp_path / f for f in ("loops.py", "jit.py", "cpu/a.py", "cpu/b.py")]
    for file in files:
        file.write_text("x = 1")
    monkeypatch.setattr(jit, "HERE", tmp_path)
    seen = set()
    for file in [None, *files]:
        if file:
            file.write_text("x = 2")
        seen.add(jit.digest.__wrapped__(tmp_path / "cpu"))
    assert len(seen) == 5


def test_the_cuda_kernels_name_what_they_call():
    """Numba's cache for CUDA is another one: a digest is kept by hand."""
    text = b"".join((PACKAGE / f).read_bytes() for f in ("loops.py", "jit.py"))
    digest = hashlib.sha256(text).hexdigest()[:12]
    assert f'CALLED = "{digest}"' in (PACKAGE / "cuda/kernels.py").read_text()


def test_a_part_of_a_kernel_is_made_machine_code_with_the_kernel_alone(monkeypatch):
    """A part by itself, optimised again at each level of calls, took half the time."""
    made = []
    finish = JITCodeLibrary._finalize_specific

    def noted(library):
        made.append(library.name)
        finish(library)

    monkeypatch.setattr(JITCodeLibrary, "_finalize_specific", noted)

    @jit.jitable
    def inner(x):
        return x + 1

    @jit.jitable
    def outer(x):
        return 2 * inner(x)

    def kernel(x):
        return outer(x) + inner(x)

    assert jit.compiled.__wrapped__(kernel)(3) == 12
    names = [name.rsplit(".")[-1] for name in made]
    assert [name for name in names if name in ("inner", "outer", "kernel")] == [
        "kernel"
    ]


def test_kernels_elsewhere_follow_those_of_the_cpu(tmp_path, monkeypatch):
    for name in ("loops.py", "jit.py", "cpu/product.py", "bench/parts.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(jit, "HERE", tmp_path)
    before = jit.digest.__wrapped__(tmp_path / "bench")
    (tmp_path / "cpu/product.py").write_text("changed")
    assert jit.digest.__wrapped__(tmp_path / "bench") != before
