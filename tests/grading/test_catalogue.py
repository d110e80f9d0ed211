"""The catalogue's rows as edits of the steps: none changes what others go on from."""

import numpy as np
import pytest

from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import evaluate, trail
from refdcn.grading.expected.case import Sizes
from refdcn.grading.questions.draw import draw_case

SIZES = Sizes(3, 6, 6, 2, 3, 3, 2, 7, 9, (2, 1), (1, 2), (1, 2))


@pytest.fixture(scope="module")
def case():
    return draw_case(np.random.default_rng(4), SIZES, "float64", "random")


def results(s):
    return {"y": s.y} | s.grads


def test_what_is_known_changes_no_prediction(case):
    known = trail(case, True)
    before = {
        (step, name): a.copy()
        for step, s in known.items()
        for name, a in vars(s).items()
        if isinstance(a, np.ndarray)
    }
    for m in CATALOGUE:
        with np.errstate(all="ignore"):
            try:
                anew = results(evaluate(case, m.edits, True))
            except (ValueError, IndexError):
                with pytest.raises((ValueError, IndexError)):
                    evaluate(case, m.edits, True, known)
                continue
            went_on = results(evaluate(case, m.edits, True, known))
        for name, a in anew.items():
            assert np.array_equal(a, went_on[name], equal_nan=True), (m.name, name)
    for (step, name), a in before.items():
        assert np.array_equal(a, getattr(known[step], name), equal_nan=True), name


def test_without_an_edit_the_last_state_is_the_definition_s(case):
    known = trail(case, True)
    anew, went_on = evaluate(case, (), True), evaluate(case, (), True, known)
    assert all(np.array_equal(a, went_on.grads[k]) for k, a in anew.grads.items())
    assert np.array_equal(anew.y, went_on.y)
