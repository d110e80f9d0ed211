"""What a grade says of candidates met outdoors, and how it says it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields
from functools import cache
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from refdcn import cli, formula
from refdcn.grading import Interrupted, Options, Verdict, grade, grader
from refdcn.grading.diagnosis.diagnosis import Diagnosis
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.gaps import DeclarationError
from refdcn.grading.process.outcome import CannotStartError
from refdcn.grading.questions import suite
from refdcn.grading.record import Run
from refdcn.grading.report import Report
from refdcn.grading.words.command import repeating

FILE = Path(__file__).parents[1] / "support" / "candidates" / "outdoors.py"
UNCHECKED = "refdcn.grading.catalogue.breaches.misbehaving:unchecked"


@pytest.fixture(autouse=True)
def undiagnosed(monkeypatch):
    """Which mistake it is takes seconds, and is not asked here."""
    monkeypatch.setattr(grader, "diagnose", lambda *_: Diagnosis())


@cache
def graded(name, **options):
    spec = name if ":" in name else f"{FILE}:{name}"
    return grade(spec, **{"dtypes": ["float32"], "seed": 2} | options)


def kinds(report, verdict):
    return {f.kind for f in report.counted if f.verdict is verdict}


# Deaths ---------------------------------------------------------------------------


def dying(folder, when):
    """A file whose function dies in a call that itself is right, for `when`."""
    file = folder / "dying.py"
    file.write_text(
        "import os, signal, refdcn.formula\n"
        "calls = []\n"
        "def f(x, offset, weight, mask=None, bias=None, **how):\n"
        f"    if {when}:\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    calls.append(x.shape)\n"
        "    y = refdcn.formula.deform_conv2d(x, offset, weight, mask, bias, **how)\n"
        "    return y\n"
    )
    return f"{file}:f"


ONCE = "killed by SIGSEGV; the same call in a new process does not die"


def test_a_death_of_what_came_before_is_not_told_as_that_of_the_call(tmp_path):
    report = grade(dying(tmp_path, "len(calls) == 9"), dtypes=["float32"], seed=2)
    assert report.verdict is Verdict.CRASH
    assert ONCE in report.headline()


def test_a_call_that_dies_by_itself_says_no_more(tmp_path):
    report = grade(dying(tmp_path, "x.shape[0] > 1"), dtypes=["float32"], seed=2)
    assert report.verdict is Verdict.CRASH
    assert "killed by SIGSEGV" in report.headline()
    assert "a new process" not in report.text()


def test_so_it_is_in_sweeps(tmp_path, monkeypatch):
    spec = dying(tmp_path, "len(calls) == 9")
    report = grade(spec, dtypes=["float32"], seed=2, only=("sweeps",))
    assert report.verdict is Verdict.CRASH and ONCE in report.headline()


# Nothing is right that was not computed ------------------------------------------


def test_a_candidate_that_computes_nothing_is_not_right():
    report = graded("refuses_all", gaps=("N >= 0",))
    assert report.verdict is Verdict.NOTHING and report.exit_code == 4
    assert "computed nothing: none of " in report.headline()
    assert "NotImplementedError: nothing is supported" in report.sentence
    assert graded("refuses_all").exit_code == 4
    assert "is right" not in report.sentence


def test_what_was_compared_is_counted():
    report = graded("flat")
    c = report.compared
    assert 0 < c.calls < c.results < c.numbers
    assert f"all {c.results:,} results of {c.calls:,} calls lie" in report.headline()
    mine = [f for f in report.findings if f.case.kind in ("bound", "exact")]
    assert c.numbers == sum(f.values for f in mine)


def test_each_result_of_a_forward_is_a_call():
    report = graded("no_half")
    c = report.compared
    assert not report.has_grad and c.calls == c.results
    cases = {id(f.case) for f in report.findings if f.computes and f.values}
    assert c.calls > len(cases)  # of which some are asked three times


def test_a_refused_dtype_is_one_line_and_its_error_is_told_once():
    report = graded("no_half", dtypes=("float32", "float16"))
    rows = [line for line in report.text().splitlines() if line.startswith("float16")]
    assert len(rows) == 1 and "it refuses float16: error 1" in rows[0]
    assert report.text().count("TypeError: no kernel for half") == 2  # and first
    assert "of 5 elements" not in report.text()  # the rest of a long message
    assert "In float16 nothing was computed." in report.sentence
    assert report.exit_code == 4


# Unchecked, structure first ------------------------------------------------------


def test_unchecked_is_a_verdict_of_its_own():
    report = graded(UNCHECKED)
    assert report.verdict is Verdict.UNCHECKED and report.exit_code == 0
    assert "is right, and unchecked: all " in report.headline()
    assert "inputs whose shapes fit nothing; first: " in report.sentence
    strict = graded(UNCHECKED, only=("exact", "malformed"), strict=True)
    assert strict.verdict is Verdict.UNCHECKED and strict.exit_code == 1


def test_gradients_in_another_order_are_told_so():
    report = graded("turned")
    assert report.exit_code == 1
    order = "of offset, x, weight, mask, bias; it must be x, offset, weight, mask, bias"
    assert order in report.headline()
    assert Kind.ORDER in kinds(report, Verdict.WRONG)


def test_a_wrong_structure_comes_before_wrong_values():
    report = graded("turned")
    case = report.findings[0].case
    values = Finding(case, "y", Verdict.WRONG, Kind.VALUES, ratio=np.inf)
    shape = Finding(case, "y", Verdict.WRONG, Kind.SHAPE, measured=(1,), defined=(2,))
    assert report.worst_of([values, shape]) is shape
    told = grader.unexplained(report.findings)
    assert told and not any(f.of_gradients for f in told)


def test_a_tensor_instead_of_an_array_names_the_option():
    said = graded("tensors").headline()
    assert "y is torch.Tensor, no array; --array torch gives and takes tensors" in said


# A failing call is repeated ------------------------------------------------------


def test_other_bits_and_the_error_are_both_told():
    report = graded("lossy")
    assert report.verdict is Verdict.INTEGRITY and report.exit_code == 5
    assert "a repeat with the same inputs gave other bits" in report.headline()
    assert "and values are off by up to 75" in report.headline()
    assert grader.unexplained(report.findings) == []


def test_what_was_never_written_is_told_of_failing_calls():
    report = graded("tail")
    assert report.verdict is Verdict.INTEGRITY
    assert "1 values were never written" in report.headline()
    lost = {f.case.group for f in report.findings if f.kind is Kind.UNWRITTEN}
    assert "exact" in lost  # the first that failed, not the repeats alone


# Conventions ---------------------------------------------------------------------


def test_a_slope_of_0_at_integers_is_a_convention_that_can_be_declared():
    report = graded("flat")
    assert report.verdict is Verdict.CONVENTION and report.exit_code == 0
    assert "Convention: the slope at integers is 0." in report.sentence
    kept = ("slope at integers=0", "slope at -1=0")
    assert graded("flat", conventions=kept).exit_code == 0
    other = graded("flat", conventions=("slope at integers=left-hand",))
    assert other.exit_code == 1
    assert "slope at integers: 0; left-hand was declared" in other.headline()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_a_border_that_is_replicated_above_can_be_declared(dtype):
    kept = ("border=replicate above",)
    report = graded("replicated", dtypes=(dtype,), conventions=kept)
    assert report.exit_code == 0 and report.compared.numbers > 1000
    assert graded("flat", dtypes=(dtype,), conventions=kept).exit_code == 1


# Usage ---------------------------------------------------------------------------


def test_a_signature_that_does_not_fit_is_usage(capsys):
    assert cli.main(["grade", f"{FILE}:two_arguments"]) == 2
    said = capsys.readouterr().err
    assert "has the signature (x, weight); it must be callable as (x, offset, " in said
    assert "dilation=(.., ..))" in said and said.count("\n") == 1
    with pytest.raises(CannotStartError, match="must be callable as"):
        grade(f"{FILE}:two_arguments")


@pytest.mark.parametrize(
    "given, said",
    [
        ({"level": "quick"}, "level is 'quick'; it must be one of smoke, full"),
        ({"dtypes": ["int8"]}, "dtypes is 'int8'; it must be one of float64"),
        ({"dtypes": "float32"}, r"it must be a list of such, as \['float32'\]"),
        ({"only": ["fast"]}, "only is 'fast'; it must be one of exact, random"),
        ({"gaps": ["groups => 1"]}, "gap is"),
    ],
)
def test_options_say_what_they_must_be(given, said):
    with pytest.raises(DeclarationError, match=said):
        grade("formula", **given)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"grade\(\) has no option sede; it has level"):
        grade("formula", sede=1)


def test_the_options_of_grade_are_those_of_options():
    named = {f.name for f in fields(Options)}
    assert set(signature(grade).parameters) == {"candidate", "grad"} | named
    for name in named:
        assert f"\n        {name}: " in grade.__doc__  # below "Args:"


def test_the_groups_that_may_be_asked_for_are_those_that_are():
    asked = {case.group for case in suite.cases(0, "float32", "smoke")} | {"sweeps"}
    assert set(cli.GROUPS) == asked


# What repeats a grade ------------------------------------------------------------

CHANGED = Options(
    level="full",
    dtypes=("float32", "float16"),
    precision="fp32",
    conventions=("border=zero below", "nan=0"),
    gaps=("groups > 1 and N != 2",),
    seed=7,
    strict=True,
    array="torch",
    timeout=2.5,
    memory=3 * 2**28 + 1,
    timed=3,
    only=("exact", "sweeps"),
    budget=90.0,
)


@pytest.mark.parametrize("options", [Options(seed=1), CHANGED])
def test_the_command_that_repeats_a_grade_can_be_pasted(options):
    spec = "my kernels/it's.py:f"
    report = Report(options, (), run=Run(spec))
    program, command, *words = shlex.split(repeating(report))
    assert (program, command) == ("refdcn", "grade")
    given = cli.parser().parse_args(["grade", *words])
    assert given.spec == spec
    for f in fields(options):
        if f.name not in ("explain", "smallest", "evidence", "progress"):
            value = getattr(given, f.name)
            same = tuple(value) if isinstance(value, list) else value
            assert same == getattr(options, f.name), f.name


def test_a_function_of_this_process_is_repeated_in_python():
    def forward(*arguments, **windows):
        return formula.deform_conv2d(*arguments, **windows)

    report = grade(forward, dtypes=["float32"], seed=1, only=["exact"], memory=2**29)
    last = report.text().splitlines()[-1].removeprefix("Repeat it: ")
    again = eval(last, {"refdcn": __import__("refdcn"), "forward": forward})
    assert again.options == report.options
    assert again.headline() == report.headline()


# Only, budget, Ctrl-C ------------------------------------------------------------


def test_only_some_groups_are_asked_for():
    report = graded("flat", only=("random", "malformed"))
    assert {f.case.group for f in report.findings} == {"random", "malformed"}
    assert "Only these calls were asked for: random, malformed." in report.sentence
    nothing = graded("flat", only=("malformed",))
    assert nothing.exit_code == 0 and "no values were asked for" in nothing.headline()


def test_a_budget_ends_the_questions():
    report = graded("slow", budget=2.0)
    n = report.run.over_budget
    assert n > 10 and f"{n} cases were left out: 2 s were spent." in report.sentence
    assert "is right as far as it was graded: all " in report.headline()
    assert report.exit_code == 0


def test_all_that_is_left_out_is_counted():
    spec = "refdcn.grading.catalogue.breaches.misbehaving:segfault"
    report = graded(spec)
    asked = {id(f.case) for f in report.findings}
    cases = grader.prepare(report.options)
    swept = grader.asking.sweeps.prepare(2, "float32", "smoke", report.options.gaps)
    every = {id(e.case) for e in cases} | {id(s.case) for s in swept}
    assert report.run.left_out == len(every - asked)
    assert report.run.left_out > 30


def test_ctrl_c_prints_what_was_graded(tmp_path):
    command = [sys.executable, "-m", "refdcn", "grade", f"{FILE}:slow", "--seed", "1"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell has its background jobs ignore it, and all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 100
    while not children.read_text().strip() and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(5)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130 and "Traceback" not in err, err
    if out:  # else it had not been loaded
        assert "It was interrupted; this is what was graded until then." in out
        assert "is right as far as it was graded" in out


def test_an_interrupted_grade_carries_its_report(monkeypatch):
    asking = grader.asking.ask

    def interrupted(*arguments):
        found = asking(*arguments)
        yield from (next(found) for _ in range(7))
        raise KeyboardInterrupt

    monkeypatch.setattr(grader.asking, "ask", interrupted)
    with pytest.raises(Interrupted) as e:
        grade(f"{FILE}:flat", dtypes=["float32"], seed=1)
    assert len(e.value.report.findings) == 7 and e.value.report.exit_code == 130


# Scripts and JSON ----------------------------------------------------------------


def test_a_script_that_would_not_fail_is_none(tmp_path, capsys):
    file = tmp_path / "none.py"
    report = graded("keeps_shapes", smallest=True, only=("sweeps",))
    assert report.verdict is Verdict.WRONG
    assert report.smallest is not None and report.script == ""
    cli.write_script(report, file)
    assert not file.exists()
    assert (
        "does not fail alone; it needs the calls before it" in capsys.readouterr().err
    )


def test_a_script_shows_an_order_of_gradients():
    report = graded("turned", smallest=True, only=("exact", "random"))
    command = [sys.executable, "-"]
    done = subprocess.run(command, input=report.script, capture_output=True, text=True)
    assert done.returncode == 1 and "the gradients have shapes" in done.stderr


def test_the_json_report_holds_typed_facts():
    told = json.loads(graded("lossy").json())
    assert told["compared"]["numbers"] > 0 and told["options"]["seed"] == 2
    wrong = [f for f in told["findings"] if f["kind"] == "values"]
    assert wrong and all(f["verdict"] == "wrong" for f in wrong)
    worst = wrong[0]["worst"]
    assert worst["got"] - worst["high"] == pytest.approx(75, abs=1e-3)
    assert len(worst["at"]) == 4 and worst["bound"] < 1
    row = next(r for r in told["groups"] if r["group"] == "random")
    assert sum(row["counts"].values()) == row["cases"]
    turned = json.loads(graded("turned").json())
    order = next(f for f in turned["findings"] if f["kind"] == "order")
    assert order["measured"][:2] == ["offset", "x"] == order["defined"][1::-1]
