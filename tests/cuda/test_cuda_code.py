"""What the kernels become for sm_80, sm_90 and sm_100. Nothing here ran on a card."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("needs the compiler, not the simulator", allow_module_level=True)

from cuda_code import ARCHITECTURES, NAMES, build, compiled, signatures
from numba import cuda, types

from refdcn.cuda import kernels

REGISTERS = {"float32": 96, "float64": 128}
every = pytest.mark.parametrize("cc", ARCHITECTURES, ids=ARCHITECTURES.values())
dtypes = pytest.mark.parametrize("dtype", REGISTERS)


def doubles(code):
    """Float64 in a kernel: types in PTX, instructions in machine code."""
    machine = r"\b(?:D(?:ADD|MUL|FMA|SETP|MNMX)|[FI]2F\.F64\S*)\b"
    return re.findall(r"\.f64\b", code.ptx) + re.findall(machine, code.sass)


@every
@dtypes
@pytest.mark.parametrize("name", NAMES)
def test_compiles_into_registers_alone(name, dtype, cc):
    code = compiled(name, dtype, cc)
    assert code.spilled == code.stack == 0
    assert code.registers <= REGISTERS[dtype]
    assert not re.search(r"\b(LDL|STL)\b", code.sass)
    if dtype == "float32":
        assert not doubles(code)


@every
def test_gradients_are_added_by_atomics(cc):
    """Four a channel, whose old value nobody asks for; the ordered form has none."""
    sass = compiled("spread", "float32", cc).sass
    adds = re.findall(r"\bRED\w*\.\S*ADD\.F32\S*", sass)
    assert adds and len(adds) % 4 == 0
    assert not re.search(r"\bATOMG?\b", sass)
    ordered = compiled("spread_in_order", "float32", cc)
    assert not re.search(r"\b(RED|ATOM)\w*\b", ordered.sass)


@every
def test_shuffles_and_barriers_are_there(cc):
    shuffles = re.findall(r"\bSHFL\.BFLY\b", compiled("spread", "float32", cc).sass)
    assert len(shuffles) >= 4
    for name in ("planes_to_rows", "rows_to_planes", "product"):
        code = compiled(name, "float32", cc)
        assert len(re.findall(r"\bBAR\.SYNC\b", code.sass)) >= 2
        assert re.search(r"\bLDS\b", code.sass) and re.search(r"\bSTS\b", code.sass)


@every
def test_a_channel_is_one_load_of_each_corner(cc):
    """32 bits a lane from 64-bit addresses; adjacency of lanes: test_cuda_ir."""
    sass = compiled("sample", "float32", cc).sass
    loads = re.findall(r"\bLDG\.\S+ \w+, \S*\[\w+\.64", sass)
    assert len(loads) >= 4
    assert not re.search(r"\bLDG\.\S*(U8|U16|S16)", sass)


def test_a_double_in_a_single_kernel_is_found():
    def widened(a):
        i = cuda.grid(1)
        if i < a.size:
            a[i] = a[i] * 0.1 + 1

    assert doubles(build(widened, signatures(types.float32)["clear"], (9, 0)))


def test_a_spill_is_found():
    def indexed(a):
        kept = cuda.local.array(64, np.float32)
        for i in range(64):
            kept[i] = a[i]
        for i in range(64):
            a[i] = kept[int(a[i]) % 64]

    code = build(indexed, signatures(types.float32)["clear"], (9, 0))
    assert code.stack > 0 and re.search(r"\b(LDL|STL)\b", code.sass)


def test_every_kernel_is_compiled():
    source = Path(kernels.__file__).read_text(encoding="utf-8")
    launched = set(re.findall(r"^def (\w+)\(", source, re.M))
    helpers = {"divided", "at", "cell", "tap_at", "column", "row_at", "load"}
    assert launched - helpers == set(NAMES)
