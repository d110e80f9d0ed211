"""grade_many: each verdict once and right, whatever happens to a worker; the score."""

import json
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import thousand
from thousand import QUICK, written

from refdcn import cli
from refdcn.gate import many
from refdcn.gate.rows import Kept, Results, ResultsError, Row
from refdcn.gate.score import scored
from refdcn.grading.catalogue.contract import BREACHES, GATE, OUTSIDE, Breach
from refdcn.grading.judging.finding import Finding, Kind
from refdcn.grading.judging.gaps import DeclarationError
from refdcn.grading.judging.verdicts import Verdict
from refdcn.grading.options import NAMES, Options
from refdcn.grading.questions import timed
from refdcn.grading.questions.draw import draw_case
from refdcn.grading.questions.timed import Timing, geometry
from refdcn.grading.record import Record, Run

joblib = pytest.importorskip("joblib")


def test_a_killed_worker_costs_no_verdict(tmp_path):
    bad, killed = thousand.run(tmp_path, 20)
    assert len(killed) == 1 and bad == []


@pytest.mark.whole
def test_a_killed_worker_of_a_cluster_costs_no_verdict(tmp_path):
    """Two workers of dask on this machine."""
    pytest.importorskip("distributed")
    script = [sys.executable, thousand.__file__, "--candidates", "20"]
    run = subprocess.run(
        [*script, "--backend", "dask"], capture_output=True, text=True, timeout=300
    )
    assert "20 of 20 verdicts are right, with 1 worker killed" in run.stdout, run.stderr
    assert run.returncode == 0


def test_a_killed_call_goes_on_where_it_was(tmp_path):
    """The lines that are there are kept, a torn one is not, the rest is graded."""
    due, file = written(tmp_path, 6), tmp_path / "results.jsonl"
    first = many.grade_many(due, results=file, seed=1, **QUICK)
    lines = file.read_text().splitlines()
    assert len(lines) == 7
    marked = [line.replace('"seed": 1', '"seed": 77') for line in lines[1:4]]
    file.write_text("\n".join([lines[0], *marked, lines[4][:40]]))
    again = many.grade_many(due, results=file, seed=1, **QUICK)
    assert [row.verdict for row in again.rows] == [row.verdict for row in first.rows]
    assert sum(row.seed == 77 for row in again.rows) == sum(
        '"seed": 77' in line for line in marked
    )
    assert len(file.read_text().splitlines()) == 7
    with pytest.raises(ResultsError, match="other candidates or options"):
        many.grade_many(due, results=file, seed=2, **QUICK)


class Dying(many.Pool):
    """Workers that die of one task, and take their neighbours with them."""

    def __init__(self, poison):
        self.jobs, self.poison, self.deaths = 2, poison, (BrokenExecutor,)

    def run(self, tasks):
        for place, spec in tasks:
            if spec in self.poison:
                raise BrokenExecutor
            yield Row(place, spec, "pass", 0, 1.0, 1.0, 1.0, 0.0, 1, "")


@pytest.mark.parametrize("poison", ["", "a", "c", "z", "abc", "az"])
def test_only_what_kills_its_worker_alone_too_is_lost(poison):
    tasks = list(enumerate("abcdefghijklmnopqrstuvwxyz"))
    rows = list(many.graded(Dying(poison), dict.fromkeys(tasks)))
    assert sorted((row.place, row.candidate) for row in rows) == tasks
    assert {row.candidate for row in rows if row.verdict == "lost"} == set(poison)
    assert all(row.exit_code == 3 for row in rows if row.verdict == "lost")


def test_a_row_survives_its_file(tmp_path):
    row = Row(3, 'a "b"\n.py:f', "wrong", 1, 0.0, None, 0.5, 1.25, 7, "é")
    Kept(tmp_path / "file", {"a": 1}).add(row)
    assert Kept(tmp_path / "file", {"a": 1}).rows == [row]


def test_the_table_begins_with_the_best():
    rows = [
        Row(k, f"c{k}", "pass", 0, s, s, s, 1.0, 1, "")
        for k, s in enumerate((0.2, 0.9))
    ]
    lines = Results(rows).text().splitlines()
    assert [line.split()[-1] for line in lines[1:3]] == ["c1", "c0"]
    assert lines[-1] == "2 of 2 are right."
    assert Results(rows).dicts()[0]["candidate"] == "c0"


CASE = draw_case(
    np.random.default_rng(0), geometry(np.random.default_rng(0))._replace(N=1, C_in=2),
    "float32", "timed",
)  # fmt: skip


def record(verdict=Verdict.PASS, ratio=0.0, seconds=(1.0,)):
    """A grade of one finding."""
    kind = Kind.RIGHT if verdict is Verdict.PASS else Kind.VALUES
    finding = Finding(CASE, "y", verdict, kind, values=9, ratio=ratio)
    timing = seconds and Timing("", seconds, 0.0)
    return Record(Options(seed=1), (finding,), run=Run("a", timing=timing or None))


def test_the_score_is_what_is_written_of_it(monkeypatch):
    monkeypatch.setattr("refdcn.gate.score.dense", lambda _: 1.0)
    assert scored(record()) == (1, 1, 1)
    assert scored(record(ratio=1.0)) == (0.5, 1, 0.5)
    assert scored(record(seconds=(4.0, 2.0, 9.0))) == (1, 0.25, 0.625)
    assert scored(record(ratio=0.5, seconds=(0.1,))) == (0.75, 1, 0.75)
    assert scored(record(seconds=())) == (1, None, None)
    assert scored(record(Verdict.WRONG)) == (0, 0, 0)


@pytest.mark.parametrize(
    "arguments, error, said",
    [
        ({"jobs": 0}, ValueError, "jobs is 0; it must be 1 or more"),
        ({"backend": "threads"}, ValueError, "it must be processes or dask"),
        ({"levl": "smoke"}, TypeError, "no option levl"),
        ({"level": "slow"}, DeclarationError, "level is 'slow'"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_is_graded(arguments, error, said):
    with pytest.raises(error, match=said):
        many.grade_many(["nothing.py:f"], **arguments)


def test_a_closure_is_refused():
    with pytest.raises(TypeError, match=r"candidates\[0\] .* must be a name"):
        many.grade_many([lambda *_: 0])


def test_a_library_that_lacks_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "joblib", None)
    with ExitStack() as stack, pytest.raises(ImportError, match=r"refdcn\[many\]"):
        many.Pool(1, "processes", None, {}, stack)


def test_the_command_prints_a_table_and_says_whether_all_are_right(tmp_path):
    files = [spec.rpartition(":")[0] for spec in written(tmp_path, 3)]
    (tmp_path / "list").write_text(
        f"# two more\n{files[1]}\n{files[2]}:deform_conv2d\n"
    )
    command = [sys.executable, "-m", "refdcn", "grade-many", files[0], "--no-gate"]
    command += ["--only", "optional", "--dtype", "float32"]
    one = subprocess.run(command, capture_output=True, text=True)
    assert (one.returncode, one.stdout.splitlines()[-1]) == (0, "1 of 1 are right.")
    more = ["--list", tmp_path / "list", "--results", tmp_path / "results"]
    all_three = subprocess.run([*command, *more], capture_output=True, text=True)
    assert all_three.returncode == 1, all_three.stderr
    assert all_three.stdout.splitlines()[-1] == "2 of 3 are right."
    assert len((tmp_path / "results").read_text().splitlines()) == 4
    typed = vars(cli.parser().parse_args(["grade-many", "a.py:f"]))
    assert set(NAMES) - set(typed) == {"explain", "smallest", "evidence", "progress"}
    none = subprocess.run(command[:4], capture_output=True, text=True)
    assert none.returncode == 2 and "SPEC is missing" in none.stderr


# The gate itself.

REWARDED = [b for b in BREACHES if b.place in (GATE, OUTSIDE)]
BUGS = "misbehaving", "misbehaving_gradients"  # ways to misbehave without a gain
FEW = ("exact", "repeat", "sizes", "random")


def gated(breach, **more):
    from refdcn.grading import grade

    how = {"dtypes": ["float32"], "only": FEW, "explain": False} | breach.options | more
    return grade(breach.spec, seed=3, **how)


def test_at_least_thirty_exploits_are_shipped():
    assert len([b for b in BREACHES if b.place not in BUGS]) >= 30


@pytest.mark.whole
@pytest.mark.parametrize("breach", REWARDED, ids=lambda b: b.way)
def test_an_exploit_is_caught(breach, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = gated(breach)
    assert report.verdict is breach.verdict
    assert breach.text in report.headline()
    assert scored(report).score == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.whole
@pytest.mark.parametrize(
    "way, verdict, said",
    [
        ("zeros", Verdict.WRONG, ""),
        ("first_image", Verdict.WRONG, ""),
        ("half_results", Verdict.IMPRECISE, "float16"),
        ("leaves_file", Verdict.INTEGRITY, "answers.npy"),
        ("", Verdict.INTEGRITY, "no implementation on this machine can"),
    ],
)
def test_a_time_is_impossible_for_right_answers_alone(way, verdict, said, monkeypatch):
    """Whether less work is also faster than can be depends on what else runs here."""
    slow = timed.Roofline(1.0, 1.0)
    monkeypatch.setattr(timed, "roofline", lambda: slow)
    own = Breach(GATE, "right", Verdict.INTEGRITY, said)
    breach = next((b for b in REWARDED if b.way == way), own)
    report = gated(breach, only=["exact", "random"])
    assert report.verdict is verdict and said in report.headline()
    (time,) = [f for f in report.findings if f.target == "time"]
    assert time.verdict is Verdict.INTEGRITY
    assert report.counts(time) == (not way)


@pytest.mark.torch
def test_a_candidate_that_calls_torchvision_is_caught():
    report = gated(Breach(OUTSIDE, "calls_torchvision", Verdict.INTEGRITY, ""))
    assert report.verdict is Verdict.INTEGRITY
    assert "loaded torchvision, which holds the operator" in report.headline()


def test_zeros_in_half_precision_are_caught_where_the_bound_admits_them():
    breach = next(b for b in REWARDED if b.way == "stops_clocks")
    report = gated(breach, dtypes=["float16"], only=["exact"])
    assert report.exit_code != 0


HONEST = """
import tempfile, pathlib
import helper

def deform_conv2d(*inputs, **windows):
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"scratch")
    scratch = pathlib.Path("scratch")
    scratch.touch()
    scratch.unlink()
    return helper.right(*inputs, **windows)
"""


def test_an_honest_candidate_passes_a_gate(tmp_path, monkeypatch):
    """It finds its own modules, and may use files that it takes away again."""
    from refdcn.grading import grade

    text = thousand.HEAD + thousand.RIGHT + "\nright = deform_conv2d\n"
    (tmp_path / "helper.py").write_text(text)
    (tmp_path / "mine.py").write_text(HONEST)
    monkeypatch.chdir(tmp_path)
    how = {"dtypes": ["float32"], "only": ["optional"], "timed": 1, "timeout": 5}
    for spec in ("mine.py:deform_conv2d", "mine:deform_conv2d"):
        report = grade(spec, gate=True, **how)
        drawn = [f for f in report.findings if f.case.group != "timed"]
        assert {f.verdict for f in drawn} == {Verdict.PASS}, report.text()
    assert {p.name for p in tmp_path.iterdir()} <= {
        "helper.py",
        "mine.py",
        "__pycache__",
    }


@pytest.mark.whole
@pytest.mark.parametrize("threads", ["1", "2"])
def test_our_own_operator_passes_a_gate(threads, monkeypatch):
    """Its helpers listen for a while after a call, and sleep before they are noted."""
    from refdcn.grading import grade

    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    how = {"dtypes": ["float32"], "only": ["exact", "repeat"], "timed": 9}
    report = grade("refdcn", gate=True, seed=5, **how)
    assert report.verdict is Verdict.PASS, report.text()
    own = [f for f in report.findings if f.case.group == "timed"]
    assert len(own) == 1 + 8 + 1 and {f.verdict for f in own} == {Verdict.PASS}


def test_what_lies_in_the_working_folder_is_told_and_removed(tmp_path):
    from refdcn.grading.process.gated import Gate

    gate = Gate("a.py:f", str(tmp_path))
    (Path(gate.work) / "a").mkdir()
    (Path(gate.work) / "b").touch()
    assert gate.left() == ["a", "b"] and gate.left() == []
    (Path(gate.temporary) / "c").touch()
    assert gate.faults((), ()) == []


def test_a_closure_has_no_gate():
    from refdcn.grading import grade

    with pytest.raises(
        DeclarationError, match="gate is True though candidate is a fun"
    ):
        grade(lambda *a, **k: 0, gate=True)


def test_what_goes_on_computing_is_seen_and_what_sleeps_is_not():
    from refdcn.grading.process.system import goes_on

    for code, busy in (
        ("while True: pass", True),
        ("import time; time.sleep(60)", False),
    ):
        process = subprocess.Popen([sys.executable, "-c", code])
        try:
            time.sleep(1)
            assert goes_on(process.pid) == busy
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "event, arguments, deeds",
    [
        ("import", ("torchvision.ops", None), [("imports", "name", "torchvision")]),
        ("import", ("numpy", None), []),
        ("open", ("/a/b", "r", 0), []),
        ("open", ("/a/b", "w", 1), [("wrote", "path", "/a/b")]),
        ("open", (b"/a/b", None, 2), [("wrote", "path", "/a/b")]),
        ("open", (3, "w", 1), []),
        ("os.rename", ("/x", "/y", -1, -1), [("wrote", "path", "/y")]),
        ("subprocess.Popen", ("/usr/bin/python3", [], None, None),
         [("started", "program", "python")]),
        ("subprocess.Popen", ("gcc", [], None, None), []),
        ("os.system", (b"python -c 1",), [("started", "program", "python")]),
    ],
)  # fmt: skip
def test_a_deed_is_told(event, arguments, deeds):
    from refdcn.grading.process.inside import confinement

    assert list(confinement.deeds(event, arguments)) == deeds


@pytest.mark.parametrize(
    "line",
    [{"status": "wrote", "path": 3}, {"status": "wrote"}, {"status": "started"},
     {"status": "wrote", "path": "a", "more": 1}],
)  # fmt: skip
def test_a_forged_deed_is_no_message(line):
    from refdcn.grading.process.reply_parser import ReplyError, parse

    with pytest.raises(ReplyError):
        parse(json.dumps(line).encode(), ())
