"""Mistakes after public bug reports: the first sentence names each of them."""

import re

import numpy as np
import pytest
from outdoor_mistakes import KERNEL, MISTAKES, said_of, seeded

from refdcn.grading import grade
from refdcn.grading.diagnosis.gradient_probes import BATCH, blocks_of
from refdcn.grading.judging.verdicts import Verdict

pytestmark = pytest.mark.whole  # each is a grade and a search for explanations

# One of each kind of sentence; outdoor_mistakes.py prints those of all.
SAMPLE = (
    "pixel_by_height",
    "width_three",
    "offset_plane_of_image",
    "local_group",
    "grid_sizes_exchanged",
    "grid_border",
    "clamped_indices",
    "stale_columns",
    "grad_x_of_first_block",
    "dy_gradient_negated",
    "gradient_by_half_size",
    "column_tail",
    "columns_by_height",
    "guard_exchanged",
    "indices_by_height",
    "guard_of_gradients_by_height",
    "grid_row_by_width",
    "scatter_row_by_height",
    "step_not_transposed",
    "both_blocks_not_transposed",
    "offset_base_of_image",
    "each_corner_exchanged",
    "border_of_unpadded",
    "grid_of_one_line",
    "last_block_dropped",
    "grad_weight_of_last_block",
    "tree_of_channels",
    "taps_in_pairs",
    "offset_not_advanced",
    "group_of_pack",
    "weight_of_all_channels",
    "mask_of_tile",
    "overlapped_tail",
    "dilation_of_3x3",
    "rounded_base",
    "halo_of_eight",
    "corner_of_other_sign",
    "weight_of_first_group_back",
    "sampler_sizes_exchanged",
    "sampler_sizes_exchanged_inside",
    "centre_not_dilated_half",
    "start_not_dilated_middle",
    "last_group_reads_first",
    "last_group_without_offset",
    "last_odd_group_reads_first",
    "grid_true_false",
    "grid_true_false_columns",
    "half_positions",
    "half_accumulation_of_channels",
    "truncated_index_floor_fraction",
    "floored_at_last",
    "floor_then_clamp",
    "bias_each_tile_4",
    "bias_of_first_image",
    "offset_view_guvkd",
    "offset_view_kdguv",
    "both_channels_last",
    "neighbour_clamped_in_grad_offset",
    "expanded_grad_y",
    "address_int16",
    "slab_of_eight",
)
# Made on one path of a kernel, or by a pointer that advances by a block's number.
PATHS = (
    "fractions_exchanged",
    "fractions_exchanged_from_border",
    "slope_of_whole_samples",
    "centre_of_3x3",
    "taps_of_3x3",
    "centre_of_even",
    "offset_at_block_number",
    "image_at_block_number",
    "bias_without_mask",
    "bias_of_several_groups",
    "mask_of_one_image",
    "offset_of_1x1",
    "x_then_y_without_mask",
    "depthwise_flipped",
    "result_at_block_number",
    "offset_gradient_without_mask_1x1",
    "gradient_at_unequal_strides",
    "grad_y_of_first_block",
    "grad_x_of_last_block",
    "grad_bias_of_blocks",
    "taps_reversed_of_even_width",
    "paddings_exchanged_back",
    "grad_bias_of_one_pixel",
    "grad_weight_of_several_groups_by_mask",
)
# Told by probes alone once, in part or astray; a row says each of them whole.
ROWS = (
    "grad_x_at_images_of_offset",
    "grad_x_at_images_of_offset_cut",
    "grad_offset_at_images_of_mask",
    "x_at_images_of_result",
    "mask_at_images_of_offset",
    "bases_of_image_wrapped",
    "offset_base_of_blocks",
    "grad_mask_base_of_image",
    "grad_bias_untransposed",
    "grad_bias_of_channels_last",
    "grad_weight_untransposed",
    "grad_mask_by_weight_group",
    "grad_offset_by_weight_group",
    "group_by_share",
    "group_by_index",
    "dense_weight",
    "dense_weight_repeated",
    "grad_weight_of_first_channels",
    "border_within_a_pixel_by_grid",
    "address_float16",
    "clamped_rows",
    "column_weights_of_clipped",
    "grad_weight_of_dealt_grad_y",
    "samples_of_dealt_grad_y",
    "grad_offset_planar",
    "grad_weight_transposed",
    "grad_weight_into_first_group",
    "grad_offset_counted_by_group",
    "offsets_by_output",
    "flat_test",
    "offset_and_mask_concatenated",
    "columns_not_cleared",
    "grad_offset_of_last_weight_group",
    "grid_and_dy_gradient_negated",
)
# Whose gradients take the mistake along: what is read past an input's memory may be
# anything, and a sample moved onto a pixel may have any slope there.
EXPLAINED = "offset_row_of_image", "offset_plane_of_image", "offset_row_of_rows"


def test_each_finds_its_place_and_changes_the_kernel():
    right = KERNEL.read_text(encoding="utf-8")
    for name in MISTAKES:
        text = seeded(name)
        assert text != right, name
        compile(text, name, "exec")


def test_the_right_kernel_passes():
    report = grade(f"{KERNEL}:f", seed=4, dtypes=["float32"])
    assert report.exit_code == 0, report.text()


@pytest.mark.parametrize("name", SAMPLE)
def test_the_first_sentence_says_what_is_wrong(name):
    report = said_of(name)
    assert report.exit_code not in (0, 4), report.text()
    assert re.search(MISTAKES[name].said, report.headline(), re.I), report.headline()


@pytest.mark.parametrize("name", PATHS + ROWS)
def test_it_is_named_and_nothing_else_is_wrong(name):
    head = said_of(name).headline()
    assert re.search(MISTAKES[name].said, head, re.I), head
    assert "With that changed, every element is within the bound" in head, head


@pytest.mark.parametrize("name", EXPLAINED)
def test_nothing_that_follows_is_said_not_to_be_explained(name):
    report = said_of(name)
    assert re.search(MISTAKES[name].said, report.headline(), re.I), report.headline()
    assert report.headline().endswith("every element is within the bound.")


def test_positions_in_float16_are_named_in_float64_too():
    head = said_of("half_positions", dtypes=["float64"]).headline()
    assert "Positions are in float16, rows and columns" in head, head


def test_an_address_of_the_dtype_shows_in_float16():
    assert said_of("address_of_dtype").exit_code == 0
    head = said_of("address_of_dtype", dtypes=["float16"]).headline()
    assert re.search(MISTAKES["address_of_dtype"].said, head, re.I), head


def test_no_rival_would_make_right_gradients_wrong():
    """The mask missing in all gradients is no rival where grad_x is right."""
    report = said_of("offset_gradient_without_mask")
    head = report.headline()
    assert "lacks the mask" in head and "No case here" not in head, head


def test_one_element_of_each_call_is_no_grid(tmp_path):
    """Twice a bound off in one element of large calls: no convention, no cause."""
    path = tmp_path / "picked.py"
    path.write_text(
        "import numpy as np\n"
        "from refdcn.formula import deform_conv2d as y, deform_conv2d_grad as g\n\n"
        "def f(*a, **k):\n"
        "    return y(*a, **k).astype(a[0].dtype)\n\n"
        "def f_grad(go, *a, **k):\n"
        "    five = [v if v is None else v.astype('f4') for v in g(go, *a, **k)]\n"
        "    if five[0].size > 200:\n"
        "        at = np.argmax(abs(five[0]))\n"
        "        five[0].flat[at] *= np.float32(1 + 6e-6)\n"
        "    return five\n"
    )
    report = grade(f"{path}:f", seed=4, dtypes=["float32"])
    assert report.verdict is Verdict.WRONG and not report.diagnosis.survivors
    assert report.headline().partition("is wrong. ")[2].startswith("grad_x ")


def test_blocks_of_images_are_found_by_whose_gradient_they_hold():
    one = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    codes = np.arange(1, BATCH + 1)
    own = codes[:, None, None, None] * one
    assert blocks_of("grad_x", one, own) == []
    for block in (1, 2, 32, 64):
        added = np.zeros_like(own)
        np.add.at(added, np.arange(BATCH) % block, own)
        (fact,) = blocks_of("grad_x", one, added)
        assert fact.measured == {"block": block, "how": "added to"}
        over = np.zeros_like(own)
        over[np.arange(BATCH) % block] = own
        (fact,) = blocks_of("grad_mask", one, over)
        assert fact.measured == {"block": block, "how": "written over"}


def test_a_pixel_of_one_plane_counted_in_float32_is_seen_at_full():
    report = said_of("float_index", level="full", only=["sizes"])
    assert report.verdict is Verdict.WRONG and report.exit_code == 1
    bad = [f for f in report.findings if f.verdict < Verdict.CONVENTION]
    assert {f.case.note for f in bad} == {"an image of 2^24 pixels"}
    assert {f.verdict for f in bad} == {Verdict.WRONG}
