"""Each way to a candidate: a right one, a wrong one, and what is missing."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from refdcn import cli, layouts
from refdcn.cli import main
from refdcn.grading import CannotStartError, grade, options
from refdcn.grading.judging.gaps import parse
from refdcn.grading.process.inside import argument_orders, routes
from refdcn.grading.words.libraries_table import table
from refdcn.testing import assert_grades

import graphs
import told

pytest_plugins = ["pytester"]
SUPPORT = Path(__file__).parents[1] / "support"
CANDIDATES, STAND_INS = SUPPORT / "candidates", SUPPORT / "stand_ins"
NUMPY, TORCH = told.NUMPY, CANDIDATES / "torch_forms.py"
DEVICE = CANDIDATES / "on_device.py"
SOME = told.SOME
ENDED = "With that changed, every element is within the bound."


def of_swapped(spec, **how):
    """The report on one that reads (x, y), which is told as it is in Python."""
    report = grade(spec, **{**SOME, **how})
    found = report.exit_code, told.first_sentences(report)
    assert found == told.swapped_in_python()
    return report


def test_groups_are_given_to_a_function_that_names_them():
    assert grade(f"{NUMPY}:groups", **SOME).exit_code == 0
    assert ENDED in of_swapped(f"{NUMPY}:groups_swapped").sentence


def test_a_function_is_called_as_another_library_s():
    report = grade(f"{NUMPY}:onnx", like="onnx", **SOME | {"only": ["random"]})
    assert report.sentence.startswith(f"{NUMPY}:onnx is right")
    assert report.scope == "forward and gradients"
    assert "--as onnx" in report.text()


IN_THE_FORM_OF = [
    pytest.param(name, marks=[pytest.mark.torch] * (one.array == "torch"))
    for name, one in argument_orders.CONVENTIONS.items()
]


@pytest.mark.parametrize("name", IN_THE_FORM_OF)
def test_a_function_in_the_form_of_each_library(name, monkeypatch):
    """Where it needs the library's arrays, something small stands in for that."""
    monkeypatch.syspath_prepend(STAND_INS)
    array = argument_orders.CONVENTIONS[name].array
    place = {"numpy": NUMPY, "torch": TORCH}.get(array, array)
    right = "DCNv4.apply" if name == "dcnv4" else name
    report = grade(f"{place}:{right}", like=name, **SOME)
    assert report.exit_code == 0, report.text()
    assert report.has_grad is (name not in ("openvino", "ncnn"))
    of_swapped(f"{place}:{name}_swapped", like=name)


def test_a_companion_is_called_as_its_library_s_function_is():
    spec, wrong = f"{NUMPY}:onnx", f"{NUMPY}:onnx_doubled_grad"
    report = grade(spec, grad=wrong, like="onnx", **SOME)
    assert report.exit_code == 1
    assert {f.target for f in report.counted if f.failures} == {"grad_weight"}
    assert f"--grad {wrong}" in report.text()


def test_what_a_library_cannot_take_is_a_gap_of_its_own():
    report = grade(f"{NUMPY}:onnx", like="onnx", **SOME | {"dtypes": ["float64"]})
    assert "Declared gap: dtype == float64" in report.sentence
    drawn = grade(f"{NUMPY}:onnx", like="onnx", **SOME).findings
    assert min(min(f.case.x.shape[2:]) for f in drawn) > 1  # H < 2 and W < 2


def test_every_convention_is_known_everywhere():
    assert cli.LIBRARIES == tuple(argument_orders.CONVENTIONS)
    assert cli.RUNTIMES == options.CHOICES["runtime"]
    laid = {*layouts.LIBRARIES, "dcnv3", "dcnv4"}
    assert set(argument_orders.CONVENTIONS) == laid
    for one in argument_orders.CONVENTIONS.values():
        assert all(parse(gap) for gap in one.declared)


def test_the_docs_have_the_table_of_the_conventions():
    path = Path(__file__).parents[2] / "docs" / "routes" / "libraries.inc"
    assert path.read_text(encoding="utf-8") == table()


@pytest.mark.parametrize(
    "arguments, missing",
    [
        (["onnx:none.onnx"], "SPEC names the model none.onnx, which does not exist"),
        (["onnx:"], "nothing follows onnx:, where MODEL.onnx is wanted"),
        (["kernelbench:none.py"], "the file none.py, which does not exist"),
        (["module"], "it must be torchvision, formula, loops, refdcn, module:function"),
        (["no_such:f", "--as", "paddle"], "No module named 'no_such'"),
        (["mine/lib.so:f"], "with a C interface it is cabi:mine/lib.so:f"),
        ([f"{NUMPY}:too_few", "--as", "refdcn"], "has the signature (x, offset)"),
        ([f"{NUMPY}:none"], "has no function none"),
        (["formula", "--grad", "refdcn.formula:none"], "has no function none"),
        (["formula", "--runtime", "reference"], "a Python function has no use for"),
        (["cabi:none.so:f", "--grad", "formula"], "--grad is 'formula', which a fu"),
        (["onnx:none.onnx", "--as", "paddle"], "--as is 'paddle', which a model"),
        (["formula", "--device", "cuda"], "takes no tensors that could be there"),
    ],
)  # fmt: skip
def test_what_is_missing_is_one_sentence(arguments, missing, capsys):
    if "model none" in missing and find_spec("onnx") is None:
        missing = "an ONNX model needs onnx, which is not installed here"
    if "file none.py" in missing and find_spec("torch") is None:
        missing = "needs torch, which is not installed here"
    assert main(["grade", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert missing in said and said.count("\n") == 0 and "Traceback" not in said


def test_an_import_that_says_much_is_one_sentence(tmp_path, capsys):
    (tmp_path / "raises.py").write_text("raise OSError('no card\\n\\n  here')")
    assert main(["grade", f"{tmp_path}/raises.py:f"]) == 2
    assert capsys.readouterr().err.endswith("cannot be loaded: OSError: no card here\n")


def test_help_names_every_way(capsys):
    with pytest.raises(SystemExit):
        main(["grade", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for prefix, route in routes.ROUTES.items():
        assert (f"{prefix}:{route.form}" if prefix else route.form) in said


# In a test suite ------------------------------------------------------------------


def test_assert_grades_fails_with_the_report():
    assert_grades("formula", **SOME)
    with pytest.raises(AssertionError, match="(?s)it takes nothing.*Repeat it: refdcn"):
        assert_grades(f"{NUMPY}:refuses", **SOME)
    with pytest.raises(AssertionError) as failure:
        assert_grades(f"{NUMPY}:refdcn_swapped", **SOME)
    said = " ".join(str(failure.value).split())
    assert ". ".join(told.swapped_in_python()[1]) in said


def test_pytest_grades_a_test_a_group(pytester):
    line = f"{NUMPY}:refuses --dtype float32 --seed 1 --only exact malformed"
    run = ["-p", "refdcn.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    found = pytester.runpytest_subprocess(*run, "--refdcn-grade", line)
    found.assert_outcomes(failed=2)  # nothing was computed: no group passes
    found.stdout.fnmatch_lines(["*refdcn grade*: exact*", "*it takes nothing*"])
    pytester.makeini(f"[pytest]\nrefdcn_grade = formula {line.partition(' ')[2]}\n")
    pytester.runpytest_subprocess(*run).assert_outcomes(passed=2)
    wrong = line.replace("refuses", "refdcn_swapped").replace("malformed", "random")
    pytester.makeini("[pytest]\n")
    found = pytester.runpytest_subprocess(*run, "--refdcn-grade", wrong)
    found.assert_outcomes(failed=2)
    said = " ".join(str(found.stdout).split())
    assert ". ".join(told.swapped_in_python()[1]) in said
    usage = pytester.runpytest_subprocess(*run, "--refdcn-grade", "f --none")
    assert usage.ret == 4
    lost = pytester.runpytest_subprocess(
        *run, "--refdcn-grade", "no_such:f --only exact"
    )
    lost.assert_outcomes(failed=1)
    lost.stdout.fnmatch_lines(["refdcn grade: no_such:f cannot be loaded: *"])


# On torch -------------------------------------------------------------------------


@pytest.mark.torch
def test_an_operator_s_arguments_are_told_by_its_schema(tmp_path, capsys):
    report = grade(f"torch:{TORCH}:refdcn_tests::right", **SOME)
    assert (report.exit_code, report.scope) == (0, "forward and gradients")
    of_swapped(f"torch:{TORCH}:refdcn_tests::swapped")
    image = bytearray(Path(sys.executable).read_bytes())
    image[18:20] = (22 if image[18] != 22 else 62).to_bytes(2, "little")
    (tmp_path / "other.so").write_bytes(image)
    for place, said in {
        f"{tmp_path}/other.so:a::b": "is compiled for|no library can be loaded",
        f"{TORCH}:refdcn_tests::strange": "has the argument a, which the grader",
        "refdcn_none::right": "torch has no operator refdcn_none::right here",
        f"{NUMPY.with_suffix('.so')}:a::b": "torch cannot load",
        "right": "it must be torch:namespace::name",
    }.items():
        assert main(["grade", f"torch:{place}"]) == 2
        assert re.search(said, capsys.readouterr().err), place


@pytest.mark.torch
def test_a_module_in_a_file(tmp_path, capsys):
    right, wrong = (CANDIDATES / f"module_{n}.py" for n in ("right", "swapped"))
    report = grade(f"kernelbench:{right}", **SOME)
    assert (report.exit_code, report.scope) == (0, "forward and gradients")
    gaps = ["only stride == 1", "only dilation == 1", "only padding == 1"]
    of_swapped(f"kernelbench:{wrong}", gaps=[*gaps, "mask == none"])
    refused = grade(f"kernelbench:{wrong}", **SOME)
    assert "--gap 'only stride_y == 1 and stride_x == 1' declares it" in refused.text()
    empty = tmp_path / "empty.py"
    empty.write_text("")
    assert main(["grade", f"kernelbench:{empty}"]) == 2
    assert "neither a class ModelNew nor a class Model" in capsys.readouterr().err
    (tmp_path / "text").write_text("hello")
    assert main(["grade", f"kernelbench:{tmp_path}/text"]) == 2
    assert "which is none of Python's" in capsys.readouterr().err


@pytest.mark.torch
def test_a_model_of_onnx(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    made = models(onnx)
    for name, model in made.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    for spec in ("DeformConv-22", tmp_path / "one.onnx", tmp_path / "cast.onnx"):
        report = grade(f"onnx:{spec}", **SOME)
        assert (report.exit_code, report.scope) == (0, "forward only"), report.text()
    of_swapped(f"onnx:{tmp_path / 'swapped.onnx'}")
    one = grade("onnx:DeformConv", runtime="reference", gaps=["H < 2", "W < 2"], **SOME)
    assert one.exit_code == 0 and "--runtime reference" in one.text()
    (tmp_path / "nonsense.onnx").write_bytes(b"no model")
    for spec, said in {
        tmp_path / "nonsense.onnx": "is no model of ONNX",
        tmp_path / "held.onnx": "has no input for weight",
        tmp_path / "early.onnx": "No Op registered for DeformConv with domain_version",
        "DeformConv-3": "has the versions 19 and 22 alone",
        "DeformConv-": "has the versions 19 and 22 alone",
    }.items():
        assert main(["grade", f"onnx:{spec}"]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_a_graph_of_plain_operators(runtime, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    right, swapped = graphs.saved(onnx, tmp_path)
    how = SOME | {"runtime": runtime, "gaps": graphs.GAPS}
    report = grade(f"onnx:{right}", **how)
    assert report.exit_code == 0, report.text()
    of_swapped(f"onnx:{swapped}", **how)


def models(onnx):
    """Graphs around a node DeformConv."""
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = ["X", "W", "offset", "B", "mask"]

    def model(nodes, inputs=names, held=(), version=19):
        ranks = {"B": 1}
        infos = [
            make.make_tensor_value_info(n, kind, [None] * ranks.get(n, 4))
            for n in inputs
        ]
        y = make.make_tensor_value_info("y", kind, [None] * 4)
        graph = make.make_graph(nodes, "g", infos, [y], held)
        return make.make_model(
            graph, opset_imports=[make.make_opsetid("", version)], ir_version=10
        )

    def conv(offset="offset"):
        given = ["X", "W", offset, "B", "mask"]
        return make.make_node("DeformConv", given, ["y"], kernel_shape=[3, 3])

    node = make.make_node
    order = make.make_tensor("order", onnx.TensorProto.INT64, [2], [1, 0])
    swap = [
        node("Shape", ["offset"], ["whole"]),
        node("Shape", ["offset"], ["out"], start=2),
        node("Shape", ["offset"], ["images"], end=1),
        node("Concat", ["images", "two", "out"], ["apart"], axis=0),
        node("Reshape", ["offset", "apart"], ["a"]),
        node("Gather", ["a", "order"], ["b"], axis=2),
        node("Reshape", ["b", "whole"], ["other"]),
    ]
    two = make.make_tensor("two", onnx.TensorProto.INT64, [2], [-1, 2])
    weight = make.make_tensor("W", kind, [1, 1, 1, 1], [1.0])
    cast = [node("Identity", ["offset"], ["same"]), conv("same")]
    return {
        "one": model([conv()]),
        "cast": model(cast),
        "early": model([conv()], version=18),
        "swapped": model([*swap, conv("other")], held=[two, order]),
        "held": model([conv()], ["X", "offset", "B", "mask"], [weight]),
    }


@pytest.mark.torch
def test_what_is_done_on_a_device_is_seen():
    how = {**SOME, "array": "torch", "device": "cpu", "only": ["exact", "repeat"]}
    right = grade(f"{DEVICE}:right", **how)
    assert right.sentence.startswith(f"{DEVICE}:right on cpu is right")
    assert "It calls torchvision's own operator." in right.sentence
    for name, said in {
        "writes": "it changed its input x",
        "beside": "it changed its input x",
        "buffer": "the result shares memory with an earlier one",
        "alias": "the result shares memory with x",
        "empty": "values were never written",
    }.items():
        report = grade(f"{DEVICE}:{name}", **how)
        assert report.exit_code == 5 and said in report.sentence, name
    swapped = of_swapped(f"{DEVICE}:swapped", array="torch", device="cpu")
    assert swapped.sentence.startswith(f"{DEVICE}:swapped on cpu is wrong")


@pytest.mark.torch
def test_arrays_of_cupy_lie_where_the_tensors_are(tmp_path, monkeypatch):
    """NumPy stands in for CuPy, of which the adapter asks from_dlpack and ndarray."""
    (tmp_path / "cupy.py").write_text("from numpy import from_dlpack, ndarray")
    monkeypatch.syspath_prepend(tmp_path)
    how = {**SOME, "array": "cupy", "device": "cpu"}
    report = grade("formula", **how)
    assert (report.exit_code, report.scope) == (0, "forward and gradients")
    refused = grade(f"{NUMPY}:writes", **how)
    assert refused.exit_code == 5 and "it changed its input x" in refused.sentence
    of_swapped(f"{NUMPY}:refdcn_swapped", array="cupy", device="cpu")


@pytest.mark.torch
def test_one_that_leaves_its_device_is_told():
    how = {**SOME, "array": "torch", "device": "cpu"}
    assert "on another device than" in grade(f"{DEVICE}:leaves", **how).sentence
    assert "on another device than" not in grade(f"{DEVICE}:right", **how).sentence


@pytest.mark.torch
def test_a_card_that_is_not_there_is_one_sentence(capsys):
    import torch

    given = ["grade", f"{DEVICE}:right", "--array", "torch", "--device"]
    for name, said in {"cuda": "finds none here", "abacus": "torch cannot use"}.items():
        if name == "cuda" and torch.cuda.is_available():
            continue
        assert main([*given, name]) == 2
        assert said in capsys.readouterr().err


# Real libraries, those of this environment; others are in test_peers.py ---------------


@pytest.mark.torch
@pytest.mark.parametrize("name", ["torchvision", "onnx"])
def test_a_real_library_is_right_without_any_file(name):
    pytest.importorskip(name)
    spec = argument_orders.CONVENTIONS[name].function
    report = grade(spec, like=name, **SOME)
    assert report.exit_code == 0, report.text()
    assert report.has_grad is (name == "torchvision")


@pytest.mark.torch
def test_torch_s_export_of_torchvision_s_operator_is_right():
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name)
    adapter = SUPPORT.parents[1] / "docs" / "peers" / "adapters" / "torch_onnx.py"
    report = grade(f"{adapter}:f", **SOME | {"only": ["optional"]})
    assert report.exit_code == 0, report.text()
    assert sum(f.values > 0 for f in report.findings) == 3


@pytest.mark.torch
def test_a_runtime_that_is_not_there_is_named():
    pytest.importorskip("onnx")
    if find_spec("openvino") is not None:
        pytest.skip("openvino is installed")
    with pytest.raises(CannotStartError, match="runtime openvino needs openvino"):
        grade("onnx:DeformConv", runtime="openvino")
