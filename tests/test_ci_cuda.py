"""CI's last line: the sum of both runs of tox, and what failed in either."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOX = """#!/bin/sh
case "$*" in
"") echo "3 passed, 1 skipped"; echo "30 passed, 0 failed" ;;
"-e cuda") echo "{line}"; exit {code} ;;
esac
"""


@pytest.mark.parametrize(
    "line, code, last",
    [
        ("12 passed, 0 failed", 0, "42 passed, 0 failed"),
        ("11 passed, 1 failed", 1, "41 passed, 1 failed"),
        ("ptxas is missing", 1, "30 passed, 1 failed"),  # and no count at all
    ],
)
def test_the_cuda_checks_are_counted(tmp_path, line, code, last):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    readme = "```sh\necho demo\n```\n```sh\necho grade\ntox\n```\n"
    (tmp_path / "README.md").write_text(readme)
    for name, text in (
        ("python3", "#!/bin/sh\n"), ("tox", TOX.format(line=line, code=code))
    ):  # fmt: skip
        program = tmp_path / name
        program.write_text(text)
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", ".ci/run"], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last), done.stderr
    assert done.stdout.index("$ tox\n") < done.stdout.index("$ tox -e cuda\n")
