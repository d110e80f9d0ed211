"""A mistake of one path of a kernel is told with what leads there."""

import re
from types import SimpleNamespace

import numpy as np
from outdoor_mistakes import MISTAKES, said_of

from refdcn.grading.catalogue.mistakes import CATALOGUE
from refdcn.grading.catalogue.steps import functions
from refdcn.grading.diagnosis import probes
from refdcn.grading.diagnosis.answers import answer_of
from refdcn.grading.diagnosis.conditions import fitting, path_of
from refdcn.grading.expected.case import Sizes
from refdcn.grading.process.in_process import InProcess
from refdcn.grading.words.facts import brief

BY_NAME = {m.name: m for m in CATALOGUE}
SIZES = Sizes(2, 4, 4, 1, 1, 3, 3, 9, 9)


def call(*edits):
    one = InProcess(functions(edits)[0])
    return lambda case: answer_of(one, case)


def given(mask=True, **sizes):
    """What conditions see of a call."""
    z = SIZES._replace(**sizes)
    return SimpleNamespace(sizes=z, mask=mask or None, bias=True)


def test_exchanged_fractions_are_no_exchanged_coordinates():
    for name in ("fractions exchanged", "fractions exchanged, from -1 on"):
        (fact,) = probes.offsets(call(*BY_NAME[name].edits), "float32")
        assert fact.kind == "fractions exchanged"
        assert brief(fact).startswith("the fractions of y and x are exchanged")
    (fact,) = probes.offsets(call(*BY_NAME["xy"].edits), "float32")
    assert brief(fact) == "offsets are read as (x, y); the definition is (y, x)"


def test_what_whole_pixels_do_not_confirm_is_not_told_as_exchanged():
    def turned(s):
        """Fractions of each other, and no whole pixels."""
        part = s.dp - np.trunc(s.dp)
        s.dp = part[:, :, :, ::-1]

    (fact,) = probes.offsets(call(("read", turned)), "float32")
    assert brief(fact) == "offset is read from other elements"


def test_positions_name_the_kernels_that_are_right():
    edits = BY_NAME["window centre of 3x3, (K - 1) // 2"].edits
    facts = [f for f in probes.kernel_taps(call(*edits), "float32") if not f.right]
    assert {f.subject for f in facts} == {"row"}
    assert brief(facts[0]) == (
        "rows are shifted by 3 at stride 2, padding 1 and dilation 3 of a 2x3 kernel "
        "(3x3 is right)"
    )


def test_a_condition_is_what_all_have_that_fail_and_none_that_is_right():
    bare, masked = given(mask=False), given()
    found = [text for text, _ in fitting([bare] * 3, [masked] * 40)]
    assert found == ["without a mask"]
    assert fitting([bare] * 3, [*[masked] * 40, bare]) == []
    assert fitting([bare], [masked] * 40) == []  # one of 41 calls is no proof
    few, many = [given(N=n) for n in (3, 4, 8)] * 4, [given(N=n) for n in (33, 64)] * 3
    found = [text for text, _ in fitting(many, few)]
    assert found == ["where N >= 33 (up to 8 it is right)"]


def test_of_many_images_it_is_told_whose_offsets_are_read():
    def moved_by_one(s):
        if s.z.N > 32:
            s.dp = np.roll(s.dp, -1, 0)

    facts = probes.as_in_call(call(("read", moved_by_one)), "float32", 33, 2, 3)
    assert [brief(f) for f in facts] == [
        "images 0, 1, 2, 3, 4 read the offset of images 1, 2, 3, 4, 5, ..."
    ]


def test_of_a_result_that_lies_elsewhere_no_input_is_told_as_misread():
    edits = BY_NAME["result of block b of 2 images from image b on"].edits
    assert probes.as_in_call(call(*edits), "float32", 3, 2, 3) == []


def test_a_backward_that_is_wrong_in_some_calls_is_one_mistake():
    """Not one of each gradient."""
    head = said_of("mask_of_several_groups_back").headline()
    text = "In the gradients, for several weight groups, the mask is ignored."
    assert text in head and head.count("several weight groups") == 1, head
    assert head.endswith("With that changed, every element is within the bound."), head


def test_what_a_probe_saw_is_told_with_the_path_that_is_wrong():
    for name in ("dx_scaled_with_mask", "dx_scaled_of_one_image", "dx_scaled_of_3x3"):
        head = said_of(name).headline()
        assert re.search(MISTAKES[name].said, head, re.I), head


def test_of_one_gradient_no_more_is_said_than_of_it():
    """The others are right, so that not all gradients ignore the dilation."""
    head = said_of("grad_x_undilated").headline()
    assert "In the gradient of x, the dilation is ignored." in head, head
    head = said_of("no_offset_gradient_without_mask").headline()
    assert "Without a mask, the gradient of offset is 0." in head, head


def test_a_path_is_told_where_drawn_calls_do_not_have_it_by_chance():
    alone, several = given(N=1), given(N=2)
    assert path_of([alone] * 6, [several] * 40) == "for one image"
    assert path_of([alone] * 6, [alone] * 5 + [several] * 40) == "for one image"
    assert path_of([alone] * 6, [alone] * 40 + [several] * 6) == ""
    assert path_of([alone, several], [several] * 40) == ""


def test_samples_that_vanish_inside_are_no_law_of_taps():
    """Group 0 has no mask left; what group 1 reads looks like another dilation."""
    edits = BY_NAME["offset and mask concatenated"].edits
    facts = [f for f in probes.kernel_taps(call(*edits), "float32") if not f.right]
    assert facts and not any(f.measured["affine"] for f in facts)
