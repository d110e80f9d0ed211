"""CI's last line: the sum of all runs of tox, and what failed in any."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOX = """#!/bin/sh
case "$*" in
"") echo "3 passed, 1 skipped"; {first} ;;
"-e whole") echo "2 passed, 0 failed" ;;
"-e cuda") {second} ;;
"-e tools") echo "5 passed, 0 failed" ;;
esac
"""
THIRTY = 'echo "30 passed, 0 failed"'


@pytest.mark.parametrize(
    "first, second, code, last",
    [
        (THIRTY, 'echo "12 passed, 0 failed"', 0, "49 passed, 0 failed"),
        (THIRTY, 'echo "11 passed, 1 failed"; exit 1', 1, "43 passed, 1 failed"),
        (THIRTY, 'echo "ptxas is missing"; exit 1', 1, "32 passed, 1 failed"),
        # Done, but nothing says that a test was run, or which count it is.
        (THIRTY, "echo OK", 1, "32 passed, 1 failed"),
        ("echo OK", 'echo "12 passed, 0 failed"', 1, "0 passed, 1 failed"),
        (f"{THIRTY}; {THIRTY}", "echo OK", 1, "60 passed, 1 failed"),
    ],
)
def test_the_counts_of_all_runs_are_added(tmp_path, first, second, code, last):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    readme = "```sh\necho demo\n```\n```sh\necho grade\ntox\n```\n"
    (tmp_path / "README.md").write_text(readme)
    for name, text in (
        ("python3", "#!/bin/sh\n"), ("chromedriver", "#!/bin/sh\n"),
        ("tox", TOX.format(first=first, second=second)),
    ):  # fmt: skip
        program = tmp_path / name
        program.write_text(text)
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", ".ci/run"], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last), done.stderr
    if first == THIRTY:  # else the second is not begun
        assert done.stdout.index("$ tox\n") < done.stdout.index("$ tox -e cuda\n")
