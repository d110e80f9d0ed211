"""Kernels of compiled libraries: graded as Python functions are, by refdcn.h alone."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import refdcn
from refdcn.cli import main
from refdcn.grading import grade
from refdcn.grading.process.inside.adapters import cabi

import told

KERNELS = Path(__file__).parents[2] / "docs" / "kernels"
CANDIDATES = Path(__file__).parents[1] / "support" / "candidates"
SOME = {"dtypes": ["float32"], "seed": 3, "only": ["exact", "random", "malformed"]}
STRICT = "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"
COMPILERS = {".c": ("cc", "-std=c99"), ".cpp": ("c++", "-std=c++14")}
# A kernel whose functions do what is wanted of a test.
HEAD = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <refdcn.h>
"""


def compiled(folder, source, name="made.c"):
    """The library of a source text."""
    path = folder / name
    path.write_text(source)
    compiler, standard = COMPILERS[path.suffix]
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    library = path.with_suffix(".so")
    include = f"-I{refdcn.get_include()}"
    command = [compiler, standard, *STRICT, "-shared", "-fPIC", include]
    subprocess.run([*command, "-o", library, path, "-lm"], check=True)
    return library


def source(name, old="", new=""):
    """A kernel of the docs, with one line of it changed."""
    text = (KERNELS / name).read_text()
    assert old in text
    return text.replace(old, new)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """The library of a kernel of the docs, changed."""

    def made(name, *change):
        folder = tmp_path_factory.mktemp("kernel")
        return compiled(folder, source(name, *change), name)

    return made


def test_the_kernel_in_c_is_right(kernel):
    library = kernel("deform_conv2d.c")
    report = grade(f"cabi:{library}:deform_conv2d", dtypes=["float32"], seed=3)
    assert report.exit_code == 0 and report.scope == "forward only"
    assert f"cabi:{library}:deform_conv2d is right: all " in report.sentence
    assert "wrong shapes are refused" in report.text()


def test_planar_offsets_in_c_are_told_as_those_in_python_are(kernel):
    rows = "2 * tap, i, j", "tap + tap / K * K, i, j"
    library = kernel("deform_conv2d.c", *rows)
    text = library.with_suffix(".c").read_text()
    text = text.replace("2 * tap + 1, i, j", "tap + tap / K * K + K, i, j")
    library = compiled(library.parent, text)
    how = SOME | {"gaps": ["offset_groups > 1"]}
    report = grade(f"cabi:{library}:deform_conv2d", **how)
    python = grade(f"{CANDIDATES}/languages.py:planar", **how)
    assert report.exit_code == python.exit_code == 1
    assert "Offsets are read as all y then all x" in str(told.first_sentences(report))
    assert told.first_sentences(report) == told.first_sentences(python)
    page = (KERNELS.parent / "grade_c.md").read_text()
    assert told.first_sentences(report)[1] in page.replace("\n", " ")


def test_the_kernel_in_cpp_and_its_gradients_are_right(kernel):
    library = kernel("deform_conv2d.cpp")
    report = grade(
        f"cabi:{library}:deform_conv2d", dtypes=["float64", "float32"], seed=3
    )
    assert report.exit_code == 0 and report.scope == "forward and gradients"


def test_a_kernel_that_reads_x_before_y_is_told_as_in_python(kernel):
    library = kernel("deform_conv2d.c", "2 * tap, i, j", "1 + 2 * tap, i, j")
    text = library.with_suffix(".c").read_text()
    text = text.replace("offset, n, 2 * tap + 1, i, j", "offset, n, 2 * tap, i, j")
    report = grade(f"cabi:{compiled(library.parent, text)}:deform_conv2d", **told.SOME)
    found = report.exit_code, told.first_sentences(report)
    assert found == told.swapped_in_python()


def test_a_gradient_without_mask_in_cpp_is_told_as_that_in_python_is(kernel):
    library = kernel("deform_conv2d.cpp", "+= flow * t.mask * d", "+= flow * d")
    report = grade(f"cabi:{library}:deform_conv2d", **SOME)
    python = grade(f"{CANDIDATES}/languages.py:unmasked", **SOME)
    assert report.exit_code == python.exit_code == 1
    assert "lacks the mask" in str(told.first_sentences(report))
    assert told.first_sentences(report) == told.first_sentences(python)


def test_a_script_shows_what_a_kernel_in_c_does_wrong(kernel, tmp_path):
    library = kernel("deform_conv2d.cpp", "+= flow * t.mask * d", "+= flow * d")
    spec, script = f"cabi:{library}:deform_conv2d", tmp_path / "smallest.py"
    options = ["--dtype", "float32", "--only", "random", "--script", str(script)]
    assert main(["grade", spec, *options]) == 1
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert run.returncode == 1 and "AssertionError: " in run.stderr
    assert "grad_offset[" in run.stdout


def test_what_it_has_no_dtype_for_is_unsupported(kernel):
    library = kernel("deform_conv2d.c")
    report = grade(f"cabi:{library}:deform_conv2d", dtypes=["float64"], seed=3)
    assert report.exit_code == 4
    assert "deform_conv2d returned 1, REFDCN_UNSUPPORTED" in report.sentence


def test_the_header_and_the_grader_mean_one_layout(tmp_path):
    fields = [
        (name, kind._fields_, kind)
        for name, kind in (("refdcn_tensor", cabi.Tensor), ("refdcn_call", cabi.Call))
    ]
    lines, here = [], [cabi.VERSION]
    for name, members, kind in fields:
        lines.append(f'printf("%d\\n", (int)sizeof({name}));')
        here.append(ctypes.sizeof(kind))
        for member, _ in members:
            lines.append(f'printf("%d\\n", (int)offsetof({name}, {member}));')
            here.append(getattr(kind, member).offset)
    body = "\n".join(lines)
    code = "#include <stddef.h>\n#include <stdio.h>\n#include <refdcn.h>\n"
    code += f'int main(void) {{ printf("%d\\n", REFDCN_VERSION); {body} return 0; }}'
    (tmp_path / "layout.c").write_text(code)
    program = tmp_path / "layout"
    include = f"-I{refdcn.get_include()}"
    if shutil.which("cc") is None:
        pytest.skip("no cc here")
    command = ["cc", include, "-o", program, tmp_path / "layout.c"]
    subprocess.run(command, check=True)
    said = subprocess.run([program], capture_output=True, text=True, check=True)
    assert list(map(int, said.stdout.split())) == here


def test_numbers_of_the_header_are_the_grader_s():
    text = (Path(refdcn.get_include()) / "refdcn.h").read_text()
    numbers = {name: int(n) for name, n in re.findall(r"REFDCN_(\w+) = (\d+)", text)}
    for dtype, number in cabi.DTYPES.items():
        name = {"uint16": "BFLOAT16"}.get(dtype, dtype.upper())
        assert numbers[name] == number
    for number, (_, name) in cabi.REFUSALS.items():
        assert numbers[name.removeprefix("REFDCN_")] == number
    assert numbers["CPU"] == cabi.CPU


WAYS = {
    "segfaults": ("*(volatile char *)0 = 1; return 0;", 3, "killed by SIGSEGV"),
    "aborts": ("abort();", 3, "killed by SIGABRT"),
    "leaves": ("exit(3);", 3, "its process exited with status 3"),
    "hangs": ("for (;;) sleep(1);", 3, "no answer in 1 s"),
    "refuses": ("return 7;", 4, "returned 7, which refdcn.h has no name for"),
    "starves": ("return REFDCN_OUT_OF_MEMORY;", 3, "out of memory"),
    "overruns": (
        "y[size] = 0; return 0;", 5, "it wrote behind the memory of y"
    ),
    "underruns": ("y[-1] = 0; return 0;", 5, "it wrote before the memory of y"),
    "overruns_far": ("y[1 << 18] = 0; return 0;", 3, "killed by SIGSEGV"),
    "underruns_far": ("y[-(1 << 18)] = 0; return 0;", 3, "killed by SIGSEGV"),
    "writes_x": ("((float *)a->x.data)[0] = 7; return 0;", 5, "changed its input x"),
    "keeps": (
        "static float *last; if (last) *last += 1; last = y; return 0;",
        5,
        "an earlier result changed: a reused buffer",
    ),
    "prints": ('printf("fine\\n"); return 0;', 5, "it wrote to standard output"),
    "does_nothing": ("return 0;", 5, "values were never written"),
    "zeroes": ("memset(y, 0, 4 * size); return 0;", 1, "each wrong value of y is 0"),
    "stretches": (
        "((char *)a->workspace)[100] = 1; return 0;",
        5,
        "it wrote behind the memory of workspace",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def misbehaving(tmp_path_factory):
    """A library with a function for each way."""
    text = HEAD
    for name, (body, *_) in WAYS.items():
        text += f"REFDCN_EXPORTS({name})\nint {name}(const refdcn_call *a) {{\n"
        text += "float *y = (float *)a->y.data; const int64_t *s = a->y.shape;\n"
        text += "int64_t size = s[0] * s[1] * s[2] * s[3]; (void)y; (void)size;\n"
        text += f"(void)memset; {body} }}\n"
    text += "int64_t stretches_workspace(const refdcn_call *a)"
    text += "{ return a->workspace_size + 100; }\n"
    return compiled(tmp_path_factory.mktemp("misbehaving"), text)


@pytest.mark.parametrize("way", WAYS)
def test_misbehaviour_in_c_is_a_verdict(way, misbehaving):
    _, code, text = WAYS[way]
    spec = f"cabi:{misbehaving}:{way}"
    report = grade(spec, dtypes=["float32"], seed=3, only=["random"], timeout=1)
    assert (report.exit_code, text in report.text()) == (code, True), report.text()


def test_a_workspace_of_the_asked_size_is_there(tmp_path):
    text = HEAD + "REFDCN_EXPORTS(f)\nint64_t f_workspace(const refdcn_call *a) {"
    text += "return 3 * a->x.shape[1]; }\nint f(const refdcn_call *a) {"
    text += "memset(a->workspace, 1, a->workspace_size);"
    text += "return a->workspace_size == 3 * a->x.shape[1] ? 8 : 9; }"
    spec = f"cabi:{compiled(tmp_path, text)}:f"
    report = grade(spec, dtypes=["float32"], seed=3, only=["random"])
    assert "f returned 8, " in report.text() and "f returned 9, " not in report.text()


@pytest.fixture
def plain(tmp_path):
    """A library that has a kernel f and one of another version, old."""
    text = HEAD + "REFDCN_EXPORTS(f)\nint f(const refdcn_call *a)"
    text += "{ return a->version - REFDCN_VERSION; }\n"
    text += "int bare(void) { return 0; }\nint old(void) { return 0; }\n"
    text += "const int32_t old_version = 7;\n"
    return compiled(tmp_path, text)


def refused(capsys, *arguments):
    """The exit code, and the one line on standard error."""
    code = main(["grade", *arguments, "--dtype", "float32"])
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "Traceback" not in err
    return code, err


@pytest.mark.parametrize(
    "spec, text",
    [
        ("cabi:{}.gone:f", "there is no library /"),
        ("cabi:{}:g", " exports no symbol g"),
        ("cabi:{}:bare", "has no bare_version, which REFDCN_EXPORTS(bare) of refdcn.h"),
        ("cabi:{}:old", "compiled with version 7 of refdcn.h; this grader calls vers"),
        ("cabi:{}", "must be cabi:LIBRARY:NAME"),
        ("cabi:", "nothing follows cabi:, where library.so:function is wanted"),
    ],
)
def test_a_library_that_will_not_do_is_one_sentence(spec, text, plain, capsys):
    code, err = refused(capsys, spec.format(plain))
    assert code == 2 and text in err


def test_a_library_for_another_machine_is_said(plain, capsys):
    image = bytearray(plain.read_bytes())
    if image[:4] != b"\x7fELF":
        pytest.skip("libraries are no ELF files here")
    image[18:20] = (22 if image[18] != 22 else 62).to_bytes(2, "little")
    plain.write_bytes(image)
    code, err = refused(capsys, f"cabi:{plain}:f")
    assert code == 2 and re.search(r"is compiled for \S+; this is \S+$", err)


def test_a_file_that_is_no_library_is_said(plain, capsys):
    plain.write_text("hello")
    code, err = refused(capsys, f"cabi:{plain}:f")
    assert code == 2 and "no library can be loaded from /" in err


def test_the_command_says_where_the_header_is(capsys):
    assert main(["grade", "--header"]) == 0
    folder = Path(capsys.readouterr().out.rstrip("\n"))
    assert folder == Path(refdcn.get_include()) and (folder / "refdcn.h").is_file()
