"""What the cache of compiled kernels knows."""

import hashlib
from pathlib import Path

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
