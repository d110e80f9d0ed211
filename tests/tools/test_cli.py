"""What the command line refuses before it starts anything."""

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
