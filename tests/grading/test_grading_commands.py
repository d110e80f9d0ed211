"""Programs in any language: graded by the files that they read and write."""

import os
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from refdcn.cli import main
from refdcn.grading import grade
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.process import system
from refdcn.grading.process.inside.adapters import tensor_files

import told

KERNELS = Path(__file__).parents[2] / "docs" / "kernels"
CANDIDATES = Path(__file__).parents[1] / "support" / "candidates"
SOME = {"dtypes": ["float32"], "seed": 3, "only": ["random"]}
MOST = ["exact", "random", "layout", "repeat", "malformed"]


@pytest.fixture
def program(tmp_path):
    """The command of a Python program that starts with some lines."""

    def made(text, form):
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text))
        return f"cmd:{sys.executable} {path} {form}"

    return made


@pytest.fixture
def undiagnosed(monkeypatch):
    """Which mistake it is takes hundreds of calls, and is not asked here."""
    monkeypatch.setattr("refdcn.grading.grader.diagnose", lambda *_: Diagnosis())


def run_py(old="", new=""):
    """The program of the docs, with a part of it changed."""
    text = (KERNELS / "run.py").read_text()
    assert old in text
    return text.replace(old, new)


def test_a_program_that_stays_is_right(program):
    report = grade(program(run_py(), "--serve"), **SOME | {"only": MOST})
    assert report.exit_code == 0 and report.scope == "forward and gradients"
    assert "is right: all " in report.sentence


def test_a_program_that_starts_for_each_call_is_right(program):
    few = SOME | {"only": ["optional"]}
    report = grade(program(run_py(), "{call} {in} {out}"), **few)
    assert report.exit_code == 0 and report.scope == "forward and gradients"
    report = grade(program(run_py(), "forward {in} {out}"), **few)
    assert report.exit_code == 0 and report.scope == "forward only"


def test_a_mistake_is_told_as_that_of_a_function_is(program):
    text = run_py("refdcn.formula import", "languages import")
    text = text.replace("deform_conv2d", "unmasked")
    text = f"import sys\nsys.path.insert(0, {str(CANDIDATES)!r})\n{text}"
    how = SOME | {"only": MOST}
    report = grade(program(text, "--serve"), **how)
    python = grade(f"{CANDIDATES}/languages.py:unmasked", **how)
    assert report.exit_code == python.exit_code == 1
    assert "lacks the mask" in str(told.first_sentences(report))
    assert told.first_sentences(report) == told.first_sentences(python)


def test_a_mistake_of_one_that_starts_for_each_call_is_told_so_too(program):
    text = run_py(
        "refdcn.formula import deform_conv2d", "others_call import refdcn_swapped"
    )
    text = text.replace("deform_conv2d(*", "refdcn_swapped(*", 1)
    text = text.replace(", deform_conv2d_grad ", "  ", 1)
    text = f"import sys\nsys.path.insert(0, {str(CANDIDATES)!r})\n{text}"
    report = grade(program(text, "forward {in} {out}"), **told.SOME)
    found = report.exit_code, told.first_sentences(report)
    assert found == told.swapped_in_python()


def test_arrays_come_and_go_as_safetensors(program):
    """By the library that defines the format."""
    text = run_py("np.load(given)", "load_file(given)")
    text = text.replace("np.savez(made, **{", "save_file({", 1)
    text = text.replace("if a is not None})", "if a is not None}, made)", 1)
    text = text.replace("name: a for", "name: np.ascontiguousarray(a) for", 1)
    text = f"from safetensors.numpy import load_file, save_file\n{text}"
    few = SOME | {"only": ["optional"]}
    for form in ("{call} {in.safetensors} {out.safetensors}", "--serve=safetensors"):
        spec = program(text.replace('["--serve"]', '["--serve=safetensors"]'), form)
        report = grade(spec, **few)
        assert (report.exit_code, report.scope) == (0, "forward and gradients"), form


@pytest.mark.parametrize("ending", tensor_files.ENDINGS)
def test_what_is_written_is_read(tmp_path, ending):
    arrays = {
        "x": np.arange(12, dtype=np.float32).reshape(2, 3, 2)[:, :, ::-1],
        "none": np.zeros((0, 3), np.float16),
        "bits": np.array([1, 2], np.uint16),
        "groups": np.array(3, np.int64),
        "w": np.eye(2),
    }
    path = str(tmp_path / f"in{ending}")
    tensor_files.write(path, arrays)
    found = tensor_files.read(path)
    assert list(found) == list(arrays)
    for name, a in arrays.items():
        np.testing.assert_array_equal(found[name], a, strict=True)


# What is in the place of a file -----------------------------------------------------


WRITE = """
import os
import sys
import numpy as np
call, given, made = sys.argv[1:4]
offset, weight = np.load(given)["offset"], np.load(given)["weight"]
y = np.zeros((len(offset), len(weight), *offset.shape[2:]), np.float32)
"""
FILES = {
    "pass": "y is a file that was never written, no array",
    "open(made, 'w').write('hello')": "y is a file that cannot be read as .npz (",
    "open(made, 'w')": "y is a file that cannot be read as .npz (",
    "np.savez(made, x=y)": "y is not in the file, which holds x, no array",
    "np.savez(made)": "y is not in the file, which holds nothing, no array",
    "np.savez(made, y=np.array([{}]))": "y is a file that cannot be read as .npz (",
    "np.savez(made, y=y); os.truncate(made, 99)": "y is a file that cannot be read as",
    "np.savez(made, y=y[:, :0])": "y has shape [",
    "np.savez(made, y=y.astype(int))": "y is int64 for float32 inputs",
    "np.savez(made, y=y.astype(str))": "y is numpy.ndarray of str",
    "np.savez(made, y=y)": "60 of 60 values are outside",
}


@pytest.mark.parametrize("line", FILES)
def test_what_is_no_right_file_is_a_wrong_result(line, program, undiagnosed):
    few = SOME | {"only": ["optional"]}
    report = grade(program(WRITE + line, "forward {in} {out}"), **few)
    assert report.exit_code == 1 and FILES[line] in report.text(), report.text()


SAFE = """
import json, struct, sys
made = sys.argv[3]
def save(header, data):
    text = json.dumps(header).encode()
    open(made, "wb").write(struct.pack("<Q", len(text)) + text + data)
y = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
"""
TENSORS = {
    "save({'y': y}, bytes(7))": "(y ends at byte 8 of 7)",
    "save({'y': y}, bytes(9))": "(1 bytes lie behind the last array)",
    "save({'y': {**y, 'shape': [3]}}, bytes(8))": "(y has 8 bytes, not those of its",
    "save({'y': {**y, 'dtype': 'Q4'}}, bytes(8))": "cannot be read as .safetensors (",
    "save([1], b'')": "cannot be read as .safetensors (",
    "open(made, 'wb').write(b'\\xff' * 100)": "cannot be read as .safetensors (",
    "save({'y': y}, bytes(8))": "y has shape [2]; it must be [",
    "save({}, b'')": "y is not in the file, which holds nothing",
}


@pytest.mark.parametrize("line", TENSORS)
def test_what_is_no_right_safetensors_file_is_a_wrong_result(line, program):
    few = SOME | {"only": ["optional"]}
    form = "forward {in} {out.safetensors}"
    report = grade(program(SAFE + line, form), **few)
    assert report.exit_code == 1 and TENSORS[line] in report.text(), report.text()


# What a program does instead of answering -------------------------------------------


DEATHS = {
    "os.kill(os.getpid(), 11)": (3, "killed by SIGSEGV"),
    "os._exit(139)": (3, "killed by SIGSEGV"),  # as a shell tells it
    "os.abort()": (3, "killed by SIGABRT"),
    "time.sleep(99)": (3, "no answer in 2 s"),
    "sys.exit('no groups here')": (4, "exit status 1: no groups here"),
    "sys.exit(7)": (4, "exit status 7"),
    "raise ValueError('no')": (4, "exit status 1: ValueError: no"),
    "raise MemoryError('unable to allocate')": (3, "out of memory"),
    "print('x' * 10**7)": (1, "y is a file that was never written, no array"),
}


@pytest.mark.parametrize("line", DEATHS)
def test_how_a_program_ends_is_a_verdict(line, program):
    few = SOME | {"only": ["optional"], "timeout": 2}
    text = f"import os, sys, time\n{line}"
    report = grade(program(text, "{in} {out}"), **few)
    code, text = DEATHS[line]
    assert (report.exit_code, text in report.text()) == (code, True), report.text()


SERVE = """
import os, sys, time
def say(line): print(line, flush=True)
say("refdcn 1 forward")
for line in sys.stdin:
"""
TALK = {
    "say('error no groups here')": (4, "RuntimeError: no groups here"),
    "say('ok')": (1, "y is a file that was never written, no array"),
    "say('loading ...'); say('ok')": (5, "its answer is 'loading ...', neither ok nor"),
    "say('ok'); say('ok')": (5, " when nothing was asked"),
    "say('')": (5, "its answer is '', neither ok nor error"),
    "sys.stdout.buffer.write(bytes(10**6))": (5, "neither ok nor error"),
    "os.kill(os.getpid(), 11)": (3, "killed by SIGSEGV"),
    "sys.exit(7)": (3, "its process exited with status 7"),
    "os._exit(0)": (3, "its process exited with status 0"),
    "time.sleep(99)": (3, "no answer in 2 s"),
    "os.close(1); time.sleep(99)": (3, "no answer in 2 s"),
}


@pytest.mark.parametrize("line", TALK)
def test_what_a_program_that_stays_says_instead_is_a_verdict(line, program):
    few = SOME | {"only": ["optional"], "timeout": 2}
    report = grade(program(f"{SERVE}    {line}", "--serve"), **few)
    code, text = TALK[line]
    assert (report.exit_code, text in report.text()) == (code, True), report.text()


def test_a_program_that_stays_starts_once_a_session(program, tmp_path):
    """And dies with it; so do its files."""
    starts, folders = tmp_path / "starts", tmp_path / "folders"
    note = f"open({str(starts)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
    note += f"FOLDERS = {str(folders)!r}\n"
    text = run_py("answer(*line", "open(FOLDERS, 'a').write(line); answer(*line")
    spec = program(f"import os\n{note}{text}", "--serve")
    report = grade(spec, **SOME | {"only": ["random", "optional", "sizes"]})
    assert report.exit_code == 0
    pids = list(map(int, starts.read_text().split()))
    assert len(pids) == 2  # once to hear what it computes
    assert system.within(10, lambda: not any(map(system.running, pids)))
    lines = [line.split("\t") for line in folders.read_text().splitlines()]
    assert len(lines) > 50
    assert not any(os.path.exists(os.path.dirname(line[1])) for line in lines)


def test_a_program_that_hangs_is_ended_with_its_session(program, tmp_path):
    pid = tmp_path / "pid"
    text = f"import os, time\nopen({str(pid)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
    few = SOME | {"only": ["optional"], "timeout": 2}
    report = grade(program(text + "time.sleep(99)", "{in} {out}"), **few)
    assert report.exit_code == 3
    pids = list(map(int, pid.read_text().split()))
    # Killed; on a busy machine it dies a moment later.
    assert system.within(10, lambda: not any(map(system.running, pids)))
    assert len(pids) >= 3


@pytest.mark.parametrize(
    "command, text",
    [
        ("./nothing_here {in} {out}", "./nothing_here cannot be started: No such file"),
        ("/ {in} {out}", "/ cannot be started: Permission denied"),
        ("./text {in} {out}", "it is for another machine, or a script without #!"),
        ("./lost {in} {out}", "it is there, but its loader, or what #! names, is not"),
        ("{in} {out}", "a command must hold {in} and {out}, the files that it reads"),
        ("./text", "a command must hold {in} and {out}, the files that it reads"),
        ("./text {in}", "a command must hold {in} and {out}"),
        ("./text --serve {in} {out}", "or --serve alone, to be told them line by line"),
        ("./text '{in} {out}", "cannot be read: No closing quotation"),
        ("true --serve", "it ended with status 0 before its first line"),
        ("echo --serve", "its first line is '--serve'; it must be 'refdcn 1 forward'"),
        ("", "{in} {out}"),
    ],
)
def test_a_command_that_will_not_do_is_one_sentence(
    command, text, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello")
    (tmp_path / "lost").write_text("#!/no/interpreter")
    for name in ("text", "lost"):
        (tmp_path / name).chmod(0o755)
    assert main(["grade", f"cmd:{command}"]) == 2
    out, err = capsys.readouterr()
    assert text in err and err.count("\n") == 1 and not out


def test_a_shell_script_is_a_program(tmp_path):
    script = tmp_path / "run.sh"
    script.write_text('#!/bin/sh\ncp "$1" "$2"\n')
    script.chmod(0o755)
    few = SOME | {"only": ["optional"]}
    report = grade(f"cmd:{script} {{in}} {{out}}", **few)
    assert report.exit_code == 1
    assert re.search(
        r"y is not in the file, which holds .*, x, no array", report.text()
    )
