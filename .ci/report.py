"""Add up the JUnit files of several environments.

    python report.py FOLDER ENVIRONMENT...

Fails when an environment left no file, or one older than what it tests, when a test
failed, or when a test was skipped in every environment it came up in and
allowed_skips.txt gives no reason.
The last line is `N passed, N failed`.
"""

import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

ALLOWED = Path(__file__).with_name("allowed_skips.txt")
ROOT = Path(__file__).parents[1]
SOURCES = "refdcn/**/*.py", "tests/**/*.py", "docs/**/*.md", "*.toml", "tox.ini"


def results(path):
    """(test, "passed" | "failed" | "skipped" | "xfailed") of each test in a file."""
    for case in ET.parse(path).iter("testcase"):
        module, name = case.get("classname"), case.get("name")
        test = f"{module}::{name}" if module else name
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            yield test, "failed"
        elif skipped is None:
            yield test, "passed"
        elif skipped.get("type") == "pytest.xfail":
            yield test, "xfailed"
        else:
            yield test, "skipped"


def changed_since(path):
    """A source that is newer than a file of results, or None."""
    files = [file for pattern in SOURCES for file in ROOT.glob(pattern)]
    newest = max(files, key=lambda file: file.stat().st_mtime)
    return newest if newest.stat().st_mtime > path.stat().st_mtime else None


def never_run(outcomes):
    """Tests skipped wherever they came up.

    A module that skips as a whole is one entry without `::`; it has run where any
    of its tests did.
    """
    ran = {test for test, seen in outcomes.items() if seen != {"skipped"}}
    ran |= {test.split("::")[0] for test in ran}
    return sorted(set(outcomes) - ran)


def allowed(path=ALLOWED):
    """{start of a test's name: reason}; a line is `name  # reason`."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    pairs = [line.partition("#")[::2] for line in lines if not line.startswith("#")]
    for name, reason in pairs:
        if not reason.strip():
            raise SystemExit(f"{path.name}: {name.strip()} has no reason")
    return {name.strip(): reason.strip() for name, reason in pairs}


def main(folder, environments):
    counts, outcomes, problems = defaultdict(int), defaultdict(set), []
    for environment in environments:
        path = Path(folder, f"{environment}.xml")
        if not path.exists():
            counts["failed"] += 1
            problems.append(f"{environment}: no test results, it did not get that far")
            continue
        changed = changed_since(path)
        if changed:
            counts["failed"] += 1
            problems.append(f"{environment}: {changed.name} is newer than its results")
            continue
        here = defaultdict(int)
        for test, outcome in results(path):
            outcomes[test].add(outcome)
            here[outcome] += 1
            counts[outcome] += 1
        if not here["passed"] + here["failed"]:
            counts["failed"] += 1
            problems.append(f"{environment}: no test ran")
        print(f"{environment}: " + ", ".join(f"{n} {o}" for o, n in here.items()))
    reasons = allowed()
    for test in never_run(outcomes):
        reason = next((r for n, r in reasons.items() if test.startswith(n)), None)
        print(f"skipped everywhere: {test} ({reason or 'no reason given'})")
        if reason is None:
            counts["failed"] += 1
            problems.append(f"{test}: skipped in every environment")
    for problem in problems:
        print(f"FAILED {problem}")
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
