"""Compiling the kernels for a card without one: PTX, machine code, ptxas's report."""

import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import cuda_ir  # lets numba-cuda compile without a driver
import nvidia
from numba import cuda, int64, types, void

from refdcn.cuda import kernels

ARCHITECTURES = {(8, 0): "sm_80", (9, 0): "sm_90", (10, 0): "sm_100"}
(TOOLS,) = {
    tool.parent for path in nvidia.__path__ for tool in Path(path).glob("cu*/bin/ptxas")
}


def signatures(T):
    flat, four = types.Array(T, 1, "C"), types.Array(T, 4, "C")
    steps = types.UniTuple(int64, 4)

    def sizes(cls):
        return types.NamedUniTuple(int64, len(cls._fields), cls)

    tile, layout = sizes(kernels.Tile), sizes(kernels.Layout)
    return {
        "clear": (flat,),
        "cast": (types.Array(types.float16, 4, "A"), four),
        "cast_vector": (flat, types.Array(types.float16, 1, "C")),
        "permute": (flat, steps, flat, steps, steps),
        "planes_to_rows": (flat, flat, layout),
        "rows_to_planes": (flat, flat, flat, layout),
        "sample": (flat, four, four, tile, flat),
        "spread": (flat, flat, four, four, tile, flat, four, four),
        "spread_in_order": (flat, four, four, tile, flat),
        "sum_rows": (flat, int64, int64, flat, int64),
        "product": (flat, flat, flat, sizes(kernels.Product)),
    }


NAMES = tuple(signatures(types.float32))


class Code(NamedTuple):
    ptx: str
    sass: str
    registers: int
    spilled: int
    stack: int


@cache
def compiled(name, dtype, cc):
    signature = signatures(getattr(types, dtype))[name]
    return build(getattr(kernels, name), signature, cc)


def build(kernel, signature, cc):
    ptx, _ = cuda.compile_ptx(kernel, void(*signature), cc=cc)
    with TemporaryDirectory() as folder:
        source, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [TOOLS / "ptxas", "-v", f"--gpu-name={ARCHITECTURES[cc]}"]
        said = run(*command, "-o", binary, source).stderr
        sass = run(TOOLS / "cuobjdump", "-sass", binary).stdout
    numbers = [
        int(re.search(pattern, said)[1])
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores",
                        r"(\d+) bytes stack frame")
    ]  # fmt: skip
    return Code(ptx, sass, *numbers)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


assert cuda_ir.CC in ARCHITECTURES
