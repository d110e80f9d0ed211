"""What the command line refuses before it starts anything."""

import subprocess
import sys

import pytest

from refdcn import cli


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--seed", "-1"], "argument --seed: '-1'; wanted a whole number, 0 or more"),
        (["--seed", "x"], "argument --seed: 'x'; wanted a whole number, 0 or more"),
        (["--timeout", "0"], "--timeout: '0'; wanted a number more than 0"),
        (["--timeout", "nan"], "--timeout: 'nan'; wanted a number more than 0"),
        (["--timeout", "inf"], "--timeout: 'inf'; wanted a number more than 0"),
        (["--memory", "0"], "--memory: '0'; wanted a number more than 0"),
        (["--timed", "-2"], "--timed: '-2'; wanted a whole number, 0 or more"),
        (["--json", "none/a"], "--json: 'none/a'; wanted a file in a folder"),
        (["--script", "."], "--script: '.'; wanted a file in a folder"),
    ],
)
def test_usage_exits_with_2_and_says_why(arguments, text, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["grade", "refdcn:deform_conv2d", *arguments])
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_a_missing_spec_is_usage(capsys):
    assert cli.main(["grade"]) == 2
    assert "SPEC is missing" in capsys.readouterr().err


def test_the_help_tells_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["grade", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    codes = "0 pass, 1 wrong", "2 usage", "3 crash or timeout", "4 unsupported", "5 int"
    assert all(code in said for code in codes)
    assert "the worst in the order crash, timeout, integrity, wrong" in said


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["torchvision"], "SPEC"),
        (["--json", "report.json"], "--json"),
        (["--script", "case.py"], "--script"),
        (["--dtype", "float32"], "--dtype"),
        (["--convention", "border=inside"], "--convention"),
        (["--memory", "8"], "--memory"),
        (["--strict"], "--strict"),
    ],
)
def test_the_self_test_refuses_what_it_would_ignore(arguments, named, capsys):
    assert cli.main(["grade", "--self-test", "--seed", "3", *arguments]) == 2
    assert f"; {named} has no meaning there" in capsys.readouterr().err


def test_the_self_test_takes_seed_and_level(monkeypatch):
    from refdcn.grading.selftest import selftest

    def whole(seed, level):
        class Done:
            sound = (seed, level) == (3, "full")
            text = staticmethod(str)

        return Done

    monkeypatch.setattr(selftest, "whole", whole)
    assert cli.main(["grade", "--self-test", "--seed", "3", "--level", "full"]) == 0


def test_a_plot_without_matplotlib_is_refused_before_measuring(
    monkeypatch, capsys, tmp_path
):
    from refdcn.bench import command

    def measure(*given):
        raise AssertionError("it measures")

    monkeypatch.setattr(command, "bench", measure)
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert cli.main(["bench", "--plot", str(tmp_path / "plot")]) == 2
    assert "--plot needs matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "plot").exists()
    with pytest.raises(AssertionError, match="it measures"):
        cli.main(["bench"])


POSIX_ALONE = ("fcntl", "grp", "pwd", "resource", "termios")
WITHOUT_POSIX = f"""
import sys
sys.modules.update(dict.fromkeys({POSIX_ALONE}))
"""


def without_posix(code):
    command = [sys.executable, "-c", WITHOUT_POSIX + code]
    return subprocess.run(command, capture_output=True, text=True)


def test_operator_and_help_need_no_posix_system():
    """Modules that Windows lacks are taken away: nothing of ours asks for them."""
    done = without_posix("""
import numpy as np, refdcn
from refdcn import cli
one = np.ones((1, 1, 2, 2))
offset = np.zeros((1, 2, 2, 2))
print(refdcn.deform_conv2d(one, offset, one[..., :1, :1]).sum())
print(refdcn.deform_conv2d_grad(one, one, offset, one[..., :1, :1]).x.sum())
for command in ([], ["grade"], ["demo"], ["bench"]):
    try:
        cli.main([*command, "--help"])
    except SystemExit as end:
        assert end.code == 0
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4.0\n4.0\n")


@pytest.mark.parametrize("command", ["'grade', 'refdcn'", "'demo'"])
def test_the_grader_says_that_it_needs_one(command):
    done = without_posix(f"from refdcn import cli; sys.exit(cli.main([{command}]))")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "needs a POSIX system" in line


def test_grade_says_so_too():
    done = without_posix("import refdcn; refdcn.grade('formula')")
    assert "needs a POSIX system" in done.stderr.splitlines()[-1]
