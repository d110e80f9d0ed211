"""What users install, and the script that counts the tests."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import refdcn

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def installed():
    try:
        return metadata.distribution("refdcn")
    except metadata.PackageNotFoundError:
        pytest.skip("runs from a checkout; tox installs the wheel")


@pytest.mark.parametrize(
    "file, pattern",
    [("CITATION.cff", r"^version: (\S+)$"), ("CHANGELOG.md", r"^## \[([\d.]+)\]")],
)
def test_one_version(file, pattern):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(pattern, text, re.MULTILINE)[1] == refdcn.__version__


def test_metadata(installed):
    assert installed.version == refdcn.__version__
    assert installed.metadata["License-Expression"] == PROJECT["license"]
    assert installed.metadata["Requires-Python"] == PROJECT["requires-python"]
    (script,) = installed.entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("refdcn", "refdcn.cli:main")


def test_every_file_of_the_package_is_installed(installed):
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "refdcn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "refdcn/py.typed" in here
    listed = {file.as_posix() for file in installed.files}
    editable = not any(name.startswith("refdcn/") for name in listed)
    assert editable or here <= listed


def test_ranges_are_open():
    """A library that pins its dependencies cannot be installed beside others."""
    extras = PROJECT["optional-dependencies"].values()
    for requirement in PROJECT["dependencies"] + sum(extras, []):
        assert "<" not in requirement and "==" not in requirement


CASE = '<testcase classname="tests.test_a" name="{}">{}</testcase>'
SKIPPED = '<skipped type="pytest.skip" message="no torch"/>'


def report(folder, **files):
    """Exit code and last line of .ci/report.py on these environments' test cases."""
    for environment, cases in files.items():
        xml = "".join(CASE.format(name, inner) for name, inner in cases.items())
        if cases:
            path = folder / f"{environment}.xml"
            path.write_text(f"<testsuites><testsuite>{xml}</testsuite></testsuites>")
    script = [sys.executable, ROOT / ".ci" / "report.py", folder, *files]
    run = subprocess.run(script, capture_output=True, text=True)
    return run.returncode, run.stdout.splitlines()[-1]


def test_report_adds_up(tmp_path):
    cases = {"test_x": "", "test_y": ""}
    assert report(tmp_path, a=cases, b=cases) == (0, "4 passed, 0 failed")


def test_report_accepts_what_runs_elsewhere(tmp_path):
    a, b = {"test_x": SKIPPED, "test_y": ""}, {"test_x": ""}
    assert report(tmp_path, a=a, b=b) == (0, "2 passed, 0 failed")


@pytest.mark.parametrize(
    "b",
    [
        {"test_x": SKIPPED, "test_y": ""},
        {"test_x": "<failure/>", "test_y": ""},
        {"test_x": "", "test_y": "<error/>"},
    ],
    ids=["skipped everywhere", "failed", "error"],
)
def test_report_fails(tmp_path, b):
    a = {"test_x": SKIPPED, "test_y": ""}
    status, last = report(tmp_path, a=a, b=b)
    assert status == 1
    assert last.endswith(" passed, 1 failed")


def test_report_fails_without_a_file(tmp_path):
    assert report(tmp_path, a={"test_x": ""}, b={}) == (1, "1 passed, 1 failed")


def test_report_counts_nothing_that_is_older_than_the_tests(tmp_path):
    report(tmp_path, old={"test_x": ""})
    os.utime(tmp_path / "old.xml", (0, 0))
    assert report(tmp_path, new={"test_x": ""}) == (0, "1 passed, 0 failed")
    assert report(tmp_path, new={"test_x": ""}, old={}) == (1, "1 passed, 1 failed")


def test_report_fails_where_nothing_ran(tmp_path):
    a, b = {"test_x": ""}, {"test_x": SKIPPED}
    assert report(tmp_path, a=a, b=b) == (1, "1 passed, 1 failed")


def test_report_counts_no_expected_failure(tmp_path):
    a = {"test_x": '<skipped type="pytest.xfail"/>', "test_y": ""}
    assert report(tmp_path, a=a) == (0, "1 passed, 0 failed")


@pytest.mark.torch  # the environment that has the tools of a release
def test_what_a_release_would_upload_is_sound(tmp_path):
    """CONTRIBUTING.md's recipe; the sdist must be enough to build the wheel."""
    pytest.importorskip("build")
    pytest.importorskip("twine")
    made = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*made, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = sorted(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".whl", ".gz"]
    check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
