"""What a report says of a mistake, to be compared with what another way says of it."""

from functools import cache
from pathlib import Path

from refdcn.grading import grade

NUMPY = Path(__file__).parent / "candidates" / "others_call.py"
SOME = {"dtypes": ["float32"], "seed": 1, "only": ["exact", "random"]}


def first_sentences(report):
    """The verdict and the mistake, whatever the candidate is called and wherever."""
    text = report.sentence.removeprefix(report.candidate).removeprefix(" on cpu")
    return text.split(". ")[:2]


@cache
def swapped_in_python():
    """What is said of a plain function that reads offsets as (x, y)."""
    report = grade(f"{NUMPY}:refdcn_swapped", **SOME)
    said = first_sentences(report)
    assert said[1] == "Offsets are read as (x, y); the definition is (y, x)"
    return report.exit_code, said
