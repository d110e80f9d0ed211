"""Compiling with Numba: cached on disk where that is possible.

Numba's cache looks for changes in the file of the compiled function alone, and takes
what it finds for whole. This one also knows the files that a kernel calls, and checks
what it reads: a damaged file is compiled anew, and named.
"""

# mypy: disable-error-code="misc"
from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from itertools import count
from pathlib import Path
from secrets import randbits
from typing import Any

from numba import config, njit, types
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import register_jitable

__all__ = ["PART", "compiled", "jitable"]

HERE = Path(__file__).parent
CHECKED = sha256().digest_size  # bytes after those that they vouch for


class _Part(JITCodeLibrary):
    """The code of a function that is only ever part of others, as it was lowered.

    Numba optimises a function with all that it calls, makes machine code of it, and
    does both again at each level of calls. Here the kernel on top alone has that, with
    all its parts: of a first call 11.7 -> 5.6 s, of first gradients 17.4 -> 6.3 s, and
    what is inlined before it is optimised runs 1.1 to 1.3 times faster.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    # Nobody enters a part from Python: it has no address, and no place of its own for
    # an environment, which Numba would write there by its codegen.

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, env: Any) -> None:
        pass


class _Parts(Compiler):
    def define_pipelines(self) -> Any:
        codegen = self.state.targetctx.codegen()
        self.state.library = _Part(codegen, self.state.func_id.func_qualname)
        return super().define_pipelines()


# Wrappers, by which C would call, took 0.4 s of a first call and as much of gradients.
PART = {"pipeline_class": _Parts, "no_cfunc_wrapper": True}
jitable = register_jitable(**PART)  # for the CPU alone: CUDA has compilers of its own


@cache
def compiled(function: Callable[..., Any], *fastmath: str) -> Callable[..., Any]:
    """`function` under njit, without the GIL; `fastmath` names LLVM's flags.

    A read-only installation without a writable home has no place for a cache: Numba
    raises when it is made, and then the function is compiled in each process.
    """
    made: Any = njit(
        nogil=True, error_model="numpy", fastmath={*fastmath}, no_cfunc_wrapper=True
    )(function)
    if not config.DISABLE_JIT:
        with suppress(RuntimeError, OSError):
            made._cache = _Cache(function)
    return made  # type: ignore[no-any-return]


@cache
def c_address(function: Callable[..., None]) -> int:
    """Where C finds `function` of one address, as void f(void *); without the GIL."""
    made: Any = CFunc(function, ((types.intp,), types.void), {}, {"nopython": True})
    with suppress(RuntimeError, OSError):
        made._cache = _Cache(function)
    made.compile()
    return int(made.address)


@cache
def digest(folder: Path) -> str:
    """Of all that a kernel in `folder` may call: beside it, in loops, cpu and here."""
    files = {HERE / "loops.py", HERE / "jit.py", *folder.glob("*.py")}
    files |= {*(HERE / "cpu").glob("*.py")}  # of whose loops the bench has some alone
    return sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()


class _Files(IndexDataCacheFile):
    """Data with a digest after it: unchecked, a flipped bit would be run."""

    def _dump(self, obj: Any) -> bytes:
        data: bytes = super()._dump(obj)
        return data + sha256(data).digest()

    def _load_data(self, name: str) -> Any:
        data = Path(self._data_path(name)).read_bytes()
        if sha256(data[:-CHECKED]).digest() != data[-CHECKED:]:
            raise ValueError(f"{self._data_path(name)} is not what was written")
        return pickle.loads(data)


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        locator = self._impl.locator
        stamp = locator.get_source_stamp(), digest(Path(locator._py_file).parent)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # bytes that are none of ours may raise anything
            self._warn("is damaged", error)
            with suppress(OSError):
                self._cache_file.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # no room, or the index is damaged, too
            self._warn("takes nothing", error)

    def _warn(self, what: str, error: Exception) -> None:
        warnings.warn(
            f"the cache of compiled kernels {self._cache_file._index_path} {what} "
            f"({type(error).__name__}: {error}); this process compiles anew",
            RuntimeWarning,
            stacklevel=2,
        )


def _name_apart() -> None:
    """Gives what this process compiles names that no other process gives.

    Numba numbers functions from 1. So functions of one factory, for strips of 4 and of
    3 rows, had one name where two processes had filled the cache, and whichever was
    loaded first was called for both: results were wrong, and nothing said so.
    """
    FunctionIdentity._unique_ids = count(randbits(48))


_name_apart()

# A child that is forked while another thread compiles would wait for ever for a lock
# that nobody holds: so a fork waits until what is being compiled is done.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_name_apart)
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
