"""The vectors: the same bytes everywhere, right kernels pass, mistakes show."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from unlisted_mistakes import MISTAKES, seeded

import refdcn
from refdcn import formula, loops
from refdcn.grading.catalogue.steps import evaluate, shaped
from refdcn.vectors.cases import Plan, plain
from refdcn.vectors.files import safetensors, write
from refdcn.vectors.vector import vectors

SAFETENSORS = "ab1a7b9837d5bfd2461ac5df3813586e27dde165b6d8323b5cdc130aa44b103e"
NPZ = "021dc257ce2b5af32339eaebfc2494e5bce6eb1928fa89157b11cd345ccd5f82"
# What the processor may change: the kernels of NumPy, of its BLAS, its threads.
OTHER_MACHINE = {
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F",
    "OPENBLAS_CORETYPE": "Prescott",
    "OPENBLAS_NUM_THREADS": "2",
}
DOCS = Path(__file__).parents[2] / "docs"
HAS_SAFETENSORS = find_spec("safetensors") is not None
has_safetensors = pytest.mark.skipif(not HAS_SAFETENSORS, reason="needs safetensors")
SMOKE = list(vectors("smoke"))
pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The smoke set, as the command writes it."""
    folder = tmp_path_factory.mktemp("vectors") / "set"
    run = command(folder)
    assert (run.returncode, run.stderr) == (0, "")
    assert "mistakes of value that have names" in run.stdout
    return folder


def command(folder, *more, **environment):
    formats = ["safetensors", "npz"] if HAS_SAFETENSORS else ["npz"]
    arguments = ["vectors", folder, "--format", *formats, *more]
    return subprocess.run(
        [sys.executable, "-m", "refdcn", *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | environment,
    )  # fmt: skip


def digest(folder, kind):
    """Of all files of a kind, in the order of their names."""
    files = sorted(folder.glob(f"*.{kind}"))
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def test_seed_0_is_these_bytes(folder):
    assert digest(folder, "npz") == NPZ
    assert not HAS_SAFETENSORS or digest(folder, "safetensors") == SAFETENSORS


def test_another_processor_writes_the_same_bytes(folder, tmp_path):
    run = command(tmp_path / "other", **OTHER_MACHINE)
    assert run.returncode == 0, run.stderr
    for file in folder.iterdir():
        if file.is_file():
            assert (tmp_path / "other" / file.name).read_bytes() == file.read_bytes()


def test_another_seed_writes_other_numbers():
    one, other = Plan("a", "", plain()).case(0), Plan("a", "", plain()).case(1)
    assert (one.x != other.x).mean() > 0.9


def test_the_size_is_that_of_a_download(folder):
    assert 5e6 < sum(f.stat().st_size for f in folder.rglob("*")) < 20e6


def test_float64_holds_every_answer_exactly():
    """Two programs that add in different orders agree to the bit."""
    for vector in SMOKE:
        state = evaluate(vector.case, (), grads=True)
        for name in vector.targets:
            other = shaped(vector.case, state, name)
            if f"{name}.low" not in vector.arrays:  # else slopes are chosen
                assert np.array_equal(vector.arrays[name], other), vector.plan.name


@pytest.mark.parametrize("name", ["one_pixel", "one_row"])
def test_fractions_give_the_same_answer(name):
    case = next(v for v in SMOKE if v.plan.name == name).case
    want = next(v for v in SMOKE if v.plan.name == name).arrays["y"]
    s, (h, w) = case.sizes, case.sizes.out
    for n, o, u, v in product(range(1), range(1), range(h), range(w)):
        y = Fraction(float(case.bias[o]))
        for c, i, j in product(range(s.C_in), range(s.K_h), range(s.K_w)):
            k = i * s.K_w + j
            dy, dx = (Fraction(float(case.offset[n, 2 * k + a, u, v])) for a in (0, 1))
            m = 1 if case.mask is None else Fraction(float(case.mask[n, k, u, v]))
            q_y = s.stride[0] * u - s.padding[0] + s.dilation[0] * i + dy
            q_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j + dx
            for r, t in product(range(s.H), range(s.W)):
                tent = max(0, 1 - abs(q_y - r)) * max(0, 1 - abs(q_x - t))
                pixel = Fraction(float(case.x[n, c, r, t]))
                y += Fraction(float(case.weight[o, c, i, j])) * m * tent * pixel
        assert y == Fraction(float(want[n, o, u, v]))


def results(vector, forward, backward=None):
    """By name, of a pair of functions on NumPy arrays."""
    case = vector.case
    found = {"y": forward(*case.inputs, **case.windows)}
    if backward is not None:
        grads = backward(case.grad_y, *case.inputs, **case.windows)
        names = "grad_x", "grad_offset", "grad_weight", "grad_mask", "grad_bias"
        found |= {n: g for n, g in zip(names, grads, strict=True) if g is not None}
    return found


def wrong(forward, backward=None, set_of=SMOKE):
    """The vectors and results of which a number is outside."""
    return [
        (vector.plan.name, name)
        for vector in set_of
        for name, n in vector.failures(results(vector, forward, backward)).items()
        if n
    ]


@pytest.mark.parametrize("module", [formula, refdcn])
def test_our_own_pass(module):
    assert wrong(module.deform_conv2d, module.deform_conv2d_grad) == []


def test_the_loops_pass():
    loop = [v for v in SMOKE if v.case.dtype != "float16" and v.case.x.size < 80]
    assert len(loop) > 2
    assert wrong(loops.deform_conv2d, loops.deform_conv2d_grad, loop) == []


@pytest.mark.torch
def test_torchvision_passes():
    import torch
    from torchvision.ops import deform_conv2d

    def tensors(arrays):
        return [None if a is None else torch.from_numpy(a.copy()) for a in arrays]

    def forward(*arrays, **windows):
        x, offset, weight, mask, bias = tensors(arrays)
        y = deform_conv2d(x, offset, weight, bias, mask=mask, **windows)
        return y.numpy()

    def backward(grad_y, *arrays, **windows):
        given = tensors(arrays)
        for t in given:
            if t is not None:
                t.requires_grad_()
        x, offset, weight, mask, bias = given
        y = deform_conv2d(x, offset, weight, bias, mask=mask, **windows)
        y.backward(torch.from_numpy(grad_y))
        return [None if t is None else t.grad.numpy() for t in given]

    wide = [v for v in SMOKE if v.case.dtype != "float16"]
    assert wrong(forward, backward, wide) == []


@pytest.mark.torch  # whose environment has it
def test_onnx_runtime_passes():
    onnx, runtime = map(pytest.importorskip, ("onnx", "onnxruntime"))
    make = onnx.helper

    def forward(*arrays, stride, padding, dilation):
        x, offset, weight, mask, bias = arrays
        given = {"X": x, "W": weight, "offset": offset, "B": bias, "mask": mask}
        feed = {name: a for name, a in given.items() if a is not None}
        K = weight.shape[2] * weight.shape[3]
        node = make.make_node(
            "DeformConv", [n if n in feed else "" for n in given], ["Y"],
            kernel_shape=weight.shape[2:], strides=stride, pads=[*padding, *padding],
            dilations=dilation, group=x.shape[1] // weight.shape[1],
            offset_group=offset.shape[1] // (2 * K),
        )  # fmt: skip
        kind = make.np_dtype_to_tensor_dtype(x.dtype)
        told = [make.make_tensor_value_info(n, kind, a.shape) for n, a in feed.items()]
        y = make.make_tensor_value_info("Y", kind, None)
        graph = make.make_graph([node], "one", told, [y])
        versions = {"opset_imports": [make.make_opsetid("", 19)], "ir_version": 9}
        model = make.make_model(graph, **versions).SerializeToString()
        session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return session.run(None, feed)[0]

    known = [v for v in SMOKE if v.case.dtype != "float16"]
    assert wrong(forward, set_of=known) == []


def test_the_smoke_set_catches_the_mistakes_that_have_names(folder):
    """At least 90 % is promised; docs/vectors.md says how many it is."""
    told = manifest(folder)
    assert told["caught"] == len({n for c in told["cases"] for n in c["catches"]})
    assert told["caught"] + len(told["missed"]) == told["mistakes"]
    assert told["caught"] >= 0.9 * told["mistakes"]
    said = f"{told['caught']} of the {told['mistakes']} mistakes"
    assert said in (DOCS / "vectors.md").read_text(encoding="utf-8")


def test_no_case_shows_a_mistake_that_no_kernel_has():
    from refdcn.grading.catalogue.mistake import Mistake
    from refdcn.vectors.coverage import shows

    for kind in ("layout", "gradients"):
        assert not any(shows(v, Mistake(kind, "", "", ())) for v in SMOKE)


def test_mistakes_that_no_list_has_are_caught_too():
    missed = []
    for mistake in MISTAKES.values():
        space = {}
        exec(seeded(mistake), space)
        try:
            found = wrong(space["f"], space["f_grad"])
        except (IndexError, ValueError):
            found = ["raises"]
        if not found:
            missed.append(mistake.name)
    assert len(missed) <= 0.1 * len(MISTAKES), missed


def test_npz_and_manifest_hold_the_same(folder):
    for case in manifest(folder)["cases"]:
        file = case["files"]["npz"]
        data = (folder / file["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        with np.load(folder / file["file"], allow_pickle=False) as arrays:
            shapes = {n: (a.dtype.name, list(a.shape)) for n, a in arrays.items()}
        told = case["arrays"].items()
        assert shapes == {n: (a["dtype"], a["shape"]) for n, a in told}
        assert case["why"] and case["catches"]
        assert {f"{name}.bound" for name in case["results"]} <= set(shapes)


@has_safetensors
def test_safetensors_hold_what_npz_hold(folder):
    from safetensors.numpy import load_file

    for path in folder.glob("*.npz"):
        other = load_file(path.with_suffix(".safetensors"))
        with np.load(path) as arrays:
            assert set(arrays) == set(other)
            for name, a in arrays.items():
                assert a.tobytes() == other[name].tobytes()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    run = command(tmp_path)
    assert run.returncode == 2
    assert "which is not empty" in run.stderr and "Traceback" not in run.stderr
    with pytest.raises(FileExistsError, match="not empty"):
        write(tmp_path)


def test_without_safetensors_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"refdcn\[vectors\]"):
        safetensors({})


# What is exchanged in each wrong kernel: row and column of an offset.
JS_MISTAKE = "offset.data[2 * m * P + p]", "offset.data[(2 * m + 1) * P + p]"


def swapped(text, *pair):
    """The text with two of its parts exchanged."""
    a, b = pair
    assert text.count(a) == text.count(b) == 1
    return text.replace(a, "\0").replace(b, a).replace("\0", b)


@has_safetensors
@pytest.mark.parametrize("right", [True, False])
def test_a_kernel_in_c_is_held_to_them(folder, tmp_path, right):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    readers = shutil.copytree(folder / "readers", tmp_path / "readers")
    kernel = readers / "kernel.c"
    if not right:
        dy, dx = "float dy =", ", dx ="
        text = kernel.read_text()
        assert text.count(dy) == text.count(dx) == 1
        kernel.write_text(text.replace(dy, "float dx =").replace(dx, ", dy ="))
    build = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "check.c"]
    subprocess.run([*build, "kernel.c", "-lm", "-o", "check"], cwd=readers, check=True)
    run = subprocess.run(
        [readers / "check", *sorted(folder.glob("*.safetensors"))],
        capture_output=True, text=True,
    )  # fmt: skip
    assert_held(run, right, "fractions.safetensors: grad_offset: ", 35)


@has_safetensors
@pytest.mark.parametrize("right", [True, False])
def test_a_kernel_in_javascript_is_held_to_them(folder, tmp_path, right):
    if shutil.which("node") is None:
        pytest.skip("needs node")
    readers = shutil.copytree(folder / "readers", tmp_path / "readers")
    kernel = readers / "kernel.mjs"
    if not right:
        kernel.write_text(swapped(kernel.read_text(), *JS_MISTAKE))
    run = subprocess.run(
        ["node", "check.mjs", kernel, *sorted(folder.glob("*.safetensors"))],
        cwd=readers, capture_output=True, text=True,
    )  # fmt: skip
    assert_held(run, right, "fractions.safetensors: y: ", 37)


def assert_held(run, right, said, files):
    """What a check of the right kernel and of the wrong one must say."""
    assert run.stderr == ""
    lines = run.stdout.splitlines()
    assert run.returncode == (0 if right else 1), run.stdout
    assert lines[-1].startswith(f"{files} files checked, ")
    assert right == lines[-1].endswith(" 0 results wrong")
    assert right != any(said in line for line in lines)


@has_safetensors
@pytest.mark.parametrize("cut", [0, 7, 100, 3000])
def test_the_reader_in_c_refuses_a_torn_file(folder, tmp_path, cut):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes((folder / "fractions.safetensors").read_bytes()[:cut])
    build = ["cc", "-std=c99", "check.c", "kernel.c", "-lm", "-o", tmp_path / "check"]
    subprocess.run(build, cwd=folder / "readers", check=True)
    run = subprocess.run([tmp_path / "check", torn], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (2, f"{torn} cannot be read\n")
