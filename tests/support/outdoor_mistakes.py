"""Mistakes after the kinds of public bug reports, as changes of one right kernel.

Each is what was wrong, what its first sentence must say (a regular expression, in
any case), and the lines of candidates/blocked.py that it replaces.

    python tests/support/outdoor_mistakes.py [NAME ...]

prints what is said first of each, with the processor time of the grade.
"""

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

KERNEL = Path(__file__).parent / "candidates" / "blocked.py"


class Mistake(NamedTuple):
    truth: str
    said: str
    changes: tuple[tuple[str, str], ...]


MISTAKES: dict[str, Mistake] = {}


def mistake(name, truth, said, *changes):
    MISTAKES[name] = Mistake(truth, said, changes)


DECODE = "oh, ow = pix // s.Wo, pix % s.Wo"
TAP = "i, j = k // s.kw, k % s.kw"
PLANE = "plane = (n * s.og + g) * 2 * s.K + 2 * k"
DY = "dy = load(offset, plane * s.P + pixel)"
DX = "dx = load(offset, (plane + 1) * s.P + pixel)"
H = "h = (oh * s.sh - s.ph + i * s.dh).astype(s.T) + dy"
W = "w = (ow * s.sw - s.pw + j * s.dw).astype(s.T) + dx"
RETURN = "    return h, w\n"
MASK = "load(mask, ((n * s.og + g) * s.K + k) * s.P + oh * s.Wo + ow)"
CORNERS = "    inside = (h > -1)"
FLOOR = "h_low, w_low = np.floor(h), np.floor(w)"
INSIDE = "inside = (h > -1) & (w > -1) & (h < s.H) & (w < s.W)"
WIDE = "h, w = np.where(inside, h, 0), np.where(inside, w, 0)"
HIGH = "h_high, w_high = h_low + 1, w_low + 1"
DY_DX = "    return dy, dx, (g * value).sum(2)"
BIAS = "return y if bias is None else y + bias[:, None, None]"
ADD = "np.add.at(into, at[ok], (g * m * weight)[ok])"
FLAT = "flat(x, s, first), flat(offset, s, first), m\n        columns = im2col(s, last"
ONES = "inside = np.ones(np.broadcast_shapes(h.shape, w.shape), bool)"
CUT = "h, w = (np.clip(np.nan_to_num(a), -1e6, 1e6).astype(s.T) for a in (h, w))"
MODULATED = "columns = value * modulation(s, b, mask)"

# Flat indices -------------------------------------------------------------------

mistake(
    "row_by_height",
    "pixel / H_out in place of / W_out",
    "H_out",
    (DECODE, "oh, ow = pix // s.Ho, pix % s.Wo"),
)
mistake(
    "pixel_by_height",
    "pixel / H_out and pixel % H_out in place of W_out",
    "H_out",
    (DECODE, "oh, ow = pix // s.Ho, pix % s.Ho"),
)
mistake(
    "position_by_height",
    "the same for positions alone; offsets are read by the pixel",
    "H_out",
    (DECODE, "oh, ow = pix // s.Ho, pix % s.Ho"),
    ("pixel = oh * s.Wo + ow", "pixel = np.arange(s.P)"),
    ("s.P + oh * s.Wo + ow", "s.P + np.arange(s.P)"),
)
mistake(
    "width_three",
    "the kernel's width is 3 in the tap's decode",
    "width",
    (TAP, "i, j = k // 3, k % 3"),
)
mistake(
    "tap_by_height",
    "k / K_h in place of k / K_w",
    "K_h",
    (TAP, "i, j = k // s.kh, k % s.kh"),
)
mistake(
    "taps_column_major",
    "taps are walked column by column",
    "tap.*(column by column|exchanged)|column by column",
    (TAP, "i, j = k % s.kh, k // s.kh"),
)
mistake(
    "offset_plane_of_image",
    "the offset's planes are H W long, not H_out W_out",
    "offset.*H W",
    ("STEP = 2", "STEP = 1"),
    (DY, "dy = load(offset, plane * s.H * s.W + pixel)"),
    (DX, "dx = load(offset, (plane + 1) * s.H * s.W + pixel)"),
)
mistake(
    "mask_plane_of_image",
    "the mask's planes are H W long, not H_out W_out",
    "mask.*H W",
    ("STEP = 2", "STEP = 1"),
    (MASK, MASK.replace("s.P + oh", "s.H * s.W + oh")),
)
BASE = "(n * s.og + g) * 2 * s.K * s.H * s.W + 2 * k * s.P"
mistake(
    "offset_base_of_image",
    "an image's and offset group's offsets begin as if planes were H W long",
    "offset.*image and offset group.*H W",
    ("STEP = 2", "STEP = 10**6"),
    (DY, f"dy = load(offset, {BASE} + pixel)"),
    (DX, f"dx = load(offset, {BASE} + s.P + pixel)"),
)
mistake(
    "offset_row_of_image",
    "the offset's rows are W long, not W_out",
    "offset.*(image's width|W\\b)",
    ("pixel = oh * s.Wo + ow", "pixel = oh * s.W + ow"),
)
mistake(
    "image_row_by_height",
    "the image's rows are H long, not W",
    "(x|image|row|pixel).*\\bH\\b",
    (
        "load(x, image + r * s.W + q, ok)\n    columns",
        "load(x, image + r * s.H + q, ok)\n    columns",
    ),
)
mistake(
    "offset_row_of_rows",
    "the offset's and the mask's rows are H_out long, not W_out",
    "offset and mask.*H_out",
    ("pixel = oh * s.Wo + ow", "pixel = oh * s.Ho + ow"),
    ("s.P + oh * s.Wo + ow", "s.P + oh * s.Ho + ow"),
)
mistake(
    "scatter_row_by_height",
    "the rows of grad_x are H long, not W",
    "gradient of x.*rows of H pixels",
    ("STEP = 2", "STEP = 10**6"),
    (
        "np.broadcast_to(image + r * s.W + q, g.shape)",
        "np.broadcast_to(image + r * s.H + q, g.shape)",
    ),
    (
        "np.broadcast_to(ok, g.shape)",
        "np.broadcast_to(ok & (at < grad_x.size), g.shape)",
    ),
)
mistake(
    "float_index",
    "the flat address of a pixel is float32, in one plane",
    "2\\^24|16777216|float32|large",
    (
        "load(x, image + r * s.W + q, ok)\n    columns",
        "load(x, image + (r.astype(np.float32) * np.float32(s.W) + "
        "q).astype(np.int64), ok)\n"
        "    columns",
    ),
)

# Layouts ------------------------------------------------------------------------

mistake(
    "x_then_y",
    "offsets are (x, y)",
    r"\(x, y\)",
    ("    h = (oh", "    dy, dx = dx, dy\n    h = (oh"),
)
mistake(
    "planar",
    "all y of a group, then all x",
    "all y then all x",
    (PLANE, "plane = (n * s.og + g) * 2 * s.K + k"),
    ("(plane + 1)", "(plane + s.K)"),
)
mistake(
    "planar_of_all",
    "all y of all groups, then all x",
    "all y.*then all x",
    (PLANE, "plane = n * s.og * 2 * s.K + g * s.K + k"),
    ("(plane + 1)", "(plane + s.og * s.K)"),
)
mistake(
    "mask_tap_first",
    "mask channels are (tap, group)",
    "mask.*tap, group",
    (MASK, "load(mask, (n * s.og * s.K + k * s.og + g) * s.P + oh * s.Wo + ow)"),
)
mistake(
    "mask_after_offset",
    "the mask of every group is that of group 0",
    "group.*(mask).*group 0|mask.*group 0",
    (MASK, MASK.replace("n * s.og + g", "n * s.og")),
)
mistake(
    "local_group",
    "the offset group comes of the channel's index within its weight group",
    "offset group.*within",
    (
        "n, g, c, k, pix = np.ogrid[:b, : s.og, : s.cg, : s.K, : s.P]",
        "n, g, c, k, pix = np.ogrid[:b, : s.og, : s.cg, : s.K, : s.P]\n"
        "    ch = g * s.cg + c",
    ),
    (
        PLANE,
        "ch = g * s.cg + np.arange(s.cg)[:, None, None]\n    g = ch % s.c // s.cg\n    "
        + PLANE,
    ),
)
mistake(
    "groups_by_modulo",
    "channel c uses offset group c % groups",
    "c % offset_groups|interleaved",
    (PLANE, "g = (g * s.cg + np.arange(s.cg)[:, None, None]) % s.og\n    " + PLANE),
    (
        "    if mask is None:\n",
        "    g = (g * s.cg + np.arange(s.cg)[:, None, None]) % s.og\n"
        "    if mask is None:\n",
    ),
)
mistake(
    "kernel_flipped",
    "a true convolution",
    "flipped",
    (
        "w = weight.reshape(s.G, s.O // s.G, s.c * s.K)\n    for",
        "w = weight[..., ::-1, ::-1].reshape(s.G, s.O // s.G, s.c * s.K)\n    for",
    ),
)

# Windows ------------------------------------------------------------------------

mistake(
    "dilation_swapped",
    "dilations are exchanged",
    "dilation",
    ("(s.dh, s.dw) = stride", "(s.dw, s.dh) = stride"),
    ("    s.Ho =", "    dh, dw = s.dw, s.dh\n    s.Ho ="),
    ("2 * s.ph - s.dh", "2 * s.ph - dh"),
    ("2 * s.pw - s.dw", "2 * s.pw - dw"),
)
mistake(
    "stride_of_rows",
    "the stride of rows for columns, too",
    "stride",
    (W, W.replace("s.sw", "s.sh")),
)
mistake(
    "padding_of_rows",
    "the padding of rows for columns, too",
    "padding|shifted",
    (W, W.replace("s.pw", "s.ph")),
)
mistake(
    "bias_missing",
    "no bias",
    "bias is (not added|ignored|lost)",
    (BIAS, "return y"),
)
mistake(
    "bias_each_group",
    "the bias is added once a weight group",
    "bias",
    (BIAS, "return y if bias is None else y + s.G * bias[:, None, None]"),
)

# Border and grid ------------------------------------------------------------------

mistake(
    "border_without_fraction",
    "inside means 0 <= q <= size - 1",
    "corner is outside|inside|outside the image",
    (INSIDE, "inside = (h >= 0) & (w >= 0) & (h <= s.H - 1) & (w <= s.W - 1)"),
)
mistake(
    "border_low",
    "inside means q >= 0 and q < size",
    "negative|below 0",
    (INSIDE, "inside = (h >= 0) & (w >= 0) & (h < s.H) & (w < s.W)"),
)
mistake(
    "truncation",
    "(int) in place of floor",
    "truncat",
    (FLOOR, "h_low, w_low = np.trunc(h), np.trunc(w)"),
)
mistake(
    "clamped_indices",
    "indices are clamped, and the fraction is of the clamped one",
    "clamp",
    (INSIDE, ONES),
    (WIDE, CUT),
    (
        FLOOR,
        "h_low, w_low = np.clip(np.floor(h), 0, s.H - 1), np.clip(np.floor(w), "
        "0, s.W - 1)",
    ),
    (
        HIGH,
        "h_high, w_high = np.minimum(h_low + 1, s.H - 1), np.minimum(w_low + "
        "1, s.W - 1)",
    ),
)
mistake(
    "clamped_low_index",
    "the lower index is clamped into [0, size - 2], the fraction is of it",
    "clamp",
    (INSIDE, ONES),
    (WIDE, CUT),
    (
        FLOOR,
        "h_low = np.clip(np.floor(h), 0, max(0, s.H - 2))\n"
        "    w_low = np.clip(np.floor(w), 0, max(0, s.W - 2))",
    ),
)
mistake(
    "clamped_corners",
    "each corner's index is clamped, with the weights as they are",
    "clamp",
    (INSIDE, ONES),
    (WIDE, CUT),
    (
        "    ok_t, ok_b",
        "    h_low, h_high = (np.clip(a, 0, s.H - 1) for a in (h_low, h_high))\n"
        "    w_low, w_high = (np.clip(a, 0, s.W - 1) for a in (w_low, w_high))\n"
        "    ok_t, ok_b",
    ),
)


HELD = "columns are held against H, the number of rows"
CORNERS_ARE = "    return (\n        (h_low"
OK_RIGHT = "w_high <= s.W - 1"
mistake(
    "guard_of_columns_by_height",
    "w < H in place of w < W before a sample is read",
    HELD,
    (INSIDE, INSIDE.replace("w < s.W", "w < s.H")),
)
mistake(
    "guard_of_rows_by_width",
    "h < W in place of h < H before a sample is read",
    "rows are held against W, the number of columns",
    (INSIDE, INSIDE.replace("h < s.H", "h < s.W")),
)
mistake(
    "guard_exchanged",
    "height and width are exchanged in the call of the guard",
    f"{HELD}, and rows against W",
    (INSIDE, INSIDE.replace("h < s.H", "h < s.W").replace("w < s.W", "w < s.H")),
)
mistake(
    "right_corner_by_height",
    "w_high <= H - 1 in place of W - 1",
    HELD,
    (OK_RIGHT, "w_high <= s.H - 1"),
)
mistake(
    "bottom_corner_by_width",
    "h_high <= W - 1 in place of H - 1",
    "rows are held against W, the number of columns",
    ("(h_high <= s.H - 1)", "(h_high <= s.W - 1)"),
)
mistake(
    "corners_exchanged",
    "height and width are exchanged in the call that interpolates, not in the guard",
    f"{HELD}, and rows against W",
    ("(h_high <= s.H - 1)", "(h_high <= s.W - 1)"),
    (OK_RIGHT, "w_high <= s.H - 1"),
)
mistake(
    "columns_by_height",
    "H in place of W in every test of a column",
    HELD,
    (INSIDE, INSIDE.replace("w < s.W", "w < s.H")),
    (OK_RIGHT, "w_high <= s.H - 1"),
)
mistake(
    "each_corner_exchanged",
    "rows against W and columns against H, corner by corner, of clamped indices",
    f"{HELD}, and rows against W",
    (INSIDE, ONES),
    (WIDE, "h, w = np.clip(h, -2, s.H + 1), np.clip(w, -2, s.W + 1)"),
    ("ok_t, ok_b = inside & (h_low >= 0)", "ok_t = (h_low >= 0) & (h_low < s.W)"),
    (", inside & (h_high <= s.H - 1)", "\n    ok_b = (h_high >= 0) & (h_high < s.W)"),
    ("ok_l, ok_r = w_low >= 0", "ok_l, ok_r = (w_low >= 0) & (w_low < s.H)"),
    ("w_high <= s.W - 1\n", "(w_high >= 0) & (w_high < s.H)\n"),
    (
        CORNERS_ARE,
        "    h_low, h_high = (np.clip(a, 0, s.H - 1) for a in (h_low, h_high))\n"
        "    w_low, w_high = (np.clip(a, 0, s.W - 1) for a in (w_low, w_high))\n"
        + CORNERS_ARE,
    ),
)
mistake(
    "far_index_by_height",
    "the right corner's index is kept below H, not W",
    HELD,
    (CORNERS_ARE, "    w_high = np.minimum(w_high, s.H - 1)\n" + CORNERS_ARE),
)
mistake(
    "indices_by_height",
    "both indices of columns are kept below H, not W",
    HELD,
    (
        CORNERS_ARE,
        "    w_low, w_high = np.minimum(w_low, s.H - 1), np.minimum(w_high, s.H - 1)\n"
        + CORNERS_ARE,
    ),
)
mistake(
    "guard_of_gradients_by_height",
    "w < H in place of w < W in the backward alone",
    f"in the gradients of x, offset and mask, {HELD}",
    ("def corners(s, h, w):", "def corners(s, h, w, limit=None):"),
    (INSIDE, INSIDE.replace("w < s.W", "w < (limit or s.W)")),
    (
        "along_h, along_w, ok in corners(s, *position(s, b, offset))",
        "along_h, along_w, ok in corners(s, *position(s, b, offset), s.H)",
    ),
    ("b, offset)):\n        at =", "b, offset), s.H):\n        at ="),
)


def through_grid(there, back):
    """The positions normalised and read again."""
    lines = "    H, W = s.T.type(s.H), s.T.type(s.W)\n    one = s.T.type(1)\n"
    lines += f"    gh, gw = {there}\n    h, w = {back}\n"
    return (RETURN, lines + "    return h.astype(s.T), w.astype(s.T)\n")


OFF = "((gh + 1) * H - 1) / 2, ((gw + 1) * W - 1) / 2"
ON = "(gh + 1) / 2 * (H - 1), (gw + 1) / 2 * (W - 1)"
TO_OFF = "(2 * h + 1) / H - 1, (2 * w + 1) / W - 1"
TO_ON = "2 * h / max(one, H - 1) - 1, 2 * w / max(one, W - 1) - 1"
mistake(
    "grid_sizes_exchanged",
    "a grid normalised with H and W exchanged, align_corners False",
    "H and W|W / H|H / W",
    through_grid("(2 * h + 1) / W - 1, (2 * w + 1) / H - 1", OFF),
)
mistake(
    "grid_sizes_exchanged_corners",
    "a grid normalised with H and W exchanged, align_corners True",
    "H and W|W / H|H / W",
    through_grid("2 * h / max(one, W - 1) - 1, 2 * w / max(one, H - 1) - 1", ON),
)
mistake(
    "grid_column_by_height",
    "the grid's column is normalised with H, align_corners False",
    "columns are normalised with H",
    through_grid("(2 * h + 1) / H - 1, (2 * w + 1) / H - 1", OFF),
)
mistake(
    "grid_row_by_width",
    "the grid's row is normalised with W - 1, align_corners True",
    "rows are normalised with W - 1",
    through_grid("2 * h / max(one, W - 1) - 1, 2 * w / max(one, W - 1) - 1", ON),
)
mistake(
    "grid_of_one_line",
    "a grid normalised by max(1, size - 1): along an axis of one line all is lost",
    "H = 1 or W = 1",
    through_grid(TO_ON, ON),
)
mistake(
    "grid_align_corners",
    "normalised as with align_corners True, read as with False",
    "align_corners",
    through_grid(TO_ON, OFF),
)
mistake(
    "grid_align_corners_off",
    "normalised as with align_corners False, read as with True",
    "align_corners",
    through_grid(TO_OFF, ON),
)
mistake(
    "grid_border",
    "grid_sample with padding_mode border",
    "clamped|border",
    through_grid(TO_OFF, OFF),
    (CORNERS, "    h, w = np.clip(h, 0, s.H - 1), np.clip(w, 0, s.W - 1)\n" + CORNERS),
)
CLIP = "    {0} = np.clip({0}, 0, s.{1} - 1) if s.p{0} == 0 else {0}\n"
mistake(
    "border_of_unpadded",
    "an image padded by `padding`, sampled with its border repeated",
    "clamped.*padding is 0",
    (CORNERS, CLIP.format("h", "H") + CLIP.format("w", "W") + CORNERS),
)
mistake(
    "grid_reflection",
    "grid_sample with padding_mode reflection",
    "reflect",
    through_grid(TO_OFF, OFF),
    (
        CORNERS,
        "    def fold(q, n):\n        t = np.abs(q + s.T.type(0.5)) % (2 * n)\n"
        "        q = np.minimum(t, 2 * n - t) - s.T.type(0.5)\n"
        "        return np.clip(q, 0, n - 1).astype(s.T)\n\n"
        "    h, w = fold(h, s.H), fold(w, s.W)\n" + CORNERS,
    ),
)
mistake(
    "grid_x_y",
    "a grid rewrite that reads offsets as (x, y)",
    r"\(x, y\)",
    through_grid(TO_OFF, OFF),
    ("    h = (oh", "    dy, dx = dx, dy\n    h = (oh"),
)
mistake(
    "grid_nearest",
    "grid_sample with mode nearest",
    "nearest",
    through_grid(TO_OFF, OFF),
    (
        CORNERS,
        "    h, w = np.floor(h + s.T.type(0.5)), np.floor(w + s.T.type(0.5))\n"
        + CORNERS,
    ),
)

# Blocks and buffers ---------------------------------------------------------------

mistake(
    "offset_of_first_block",
    "the offset's pointer does not advance by blocks of images",
    "image.*offset|offset.*image",
    (
        "flat(offset, s, first), m\n        columns",
        "flat(offset, s, 0), m\n        columns",
    ),
)
mistake(
    "image_of_first_block",
    "the image's pointer does not advance by blocks",
    "image of the first block",
    (FLAT, FLAT.replace("flat(x, s, first)", "flat(x, s, 0)")),
)
mistake(
    "last_block_dropped",
    "images beyond whole blocks are not computed",
    "images beyond the last multiple of 2",
    (
        "return [(n, min(n + step, s.N)) for n in range(0, s.N, step)]",
        "return [(n, n + step) for n in range(0, s.N - step + 1, step)]",
    ),
)
mistake(
    "stale_columns",
    "the column buffer is kept, and samples outside leave it as it is",
    "call before|earlier call|before it",
    (
        MODULATED,
        MODULATED + "\n"
        "    h, w = position(s, b, offset)\n"
        "    kept = KEPT.setdefault(columns.shape, np.zeros_like(columns))\n"
        "    there = np.broadcast_to((h > -1) & (w > -1) & (h < s.H) "
        "& (w < s.W), columns.shape)\n"
        "    kept[there] = columns[there]\n"
        "    columns = kept.copy()",
    ),
)
mistake(
    "stale_grad_weight",
    "grad_weight adds to that of the call before",
    "call before|earlier call|before it",
    (
        "grad_weight = np.zeros(w.shape, s.T)",
        "grad_weight = KEPT.setdefault(w.shape, np.zeros(w.shape, s.T))",
    ),
    (
        "        grad_weight.reshape(weight.shape),",
        "        grad_weight.reshape(weight.shape).copy(),",
    ),
)
mistake(
    "grad_x_of_first_block",
    "grad_x's pointer does not advance by blocks",
    "grad_x.*image|image.*grad_x",
    ("grad_x[first:last])", "grad_x[:b])"),
)
mistake(
    "grad_offset_of_first_block",
    "grad_offset's pointer does not advance by blocks",
    "grad_offset.*image|image.*grad_offset",
    ("grad_offset[first:last, :, :, 0]", "grad_offset[:b, :, :, 0]"),
    ("grad_offset[first:last, :, :, 1]", "grad_offset[:b, :, :, 1]"),
)
mistake(
    "grad_mask_of_first_block",
    "grad_mask's pointer does not advance by blocks",
    "grad_mask.*image|image.*grad_mask",
    ("grad_mask[first:last]", "grad_mask[:b]"),
)
mistake(
    "grad_weight_of_last_block",
    "grad_weight is overwritten by each block",
    "weight keeps only the last block of 2 images",
    ("grad_weight += (go", "grad_weight[...] = (go"),
)
mistake(
    "column_tail",
    "columns are computed in whole blocks of 64 entries, the tail stays 0",
    "multiple of 64",
    ("STEP = 2", "STEP = 1"),
    (MODULATED, MODULATED + "\n    columns.reshape(-1)[columns.size // 64 * 64 :] = 0"),
)
mistake(
    "pixel_tail",
    "pixels beyond whole tiles of 16 are not computed",
    "multiple of 16",
    (MODULATED, MODULATED + "\n    columns[..., s.P // 16 * 16 :] = 0"),
)
mistake(
    "channel_tail",
    "channels in vectors of four, the rest is lost",
    "multiple of 4",
    (
        MODULATED,
        MODULATED + "\n"
        "    columns = columns.reshape(b, s.G, s.c, s.K, s.P)\n"
        "    columns[:, :, s.c // 4 * 4 :] = 0",
    ),
)
mistake(
    "memory_order",
    "the image is read as it lies in memory",
    "contiguous|layout|memory",
    ("a = np.ascontiguousarray(a)\n    return a.reshape(-1)", "return a.ravel('K')"),
)

BLOCK = "y[first:last] = w @ columns"
WIDE_BLOCK = (
    "wide = columns.transpose(1, 2, 0, 3).reshape(s.G, s.c * s.K, -1)\n"
    "        y[first:last] = (w @ wide).reshape(y[first:last].shape)"
)
UNTURNED = "images and output channels of {} are interchanged"
mistake(
    "block_not_transposed",
    "a block's product (C_out, images, pixels) is stored as it is",
    UNTURNED.format("a block of 2 images"),
    (BLOCK, WIDE_BLOCK),
)
mistake(
    "step_not_transposed",
    "the same in blocks of up to 32 images, of which all are as large",
    UNTURNED.format("a block of up to 32 images"),
    (BLOCK, WIDE_BLOCK),
    (
        "    step = max(1, min(STEP, s.N))\n",
        "    step = next((k for k in range(min(32, s.N), 1, -1) if s.N % k == 0), 1)\n",
    ),
)
mistake(
    "batch_not_transposed",
    "the same of one product over the batch",
    UNTURNED.format("the batch"),
    (BLOCK, WIDE_BLOCK),
    ("STEP = 2", "STEP = 10**6"),
)
GO = "g = w.swapaxes(1, 2) @ go[first:last]\n"
GO_BLOCK = (
    "block = go[first:last].reshape(s.G, s.O // s.G, b, s.P)\n"
    "        block = block.transpose(2, 0, 1, 3)\n"
    "        g = w.swapaxes(1, 2) @ block\n"
)
GRAD_WEIGHT = "(go[first:last] @ columns"
mistake(
    "grad_block_not_transposed",
    "grad_y of a block is read as (C_out, images, pixels)",
    "images and channels of a block of 2 images are interchanged in grad_y",
    (GO, GO_BLOCK),
    (GRAD_WEIGHT, "(block @ columns"),
)
mistake(
    "both_blocks_not_transposed",
    "the result of a block and its grad_y",
    UNTURNED.format("a block of 2 images"),
    (BLOCK, WIDE_BLOCK),
    (GO, GO_BLOCK),
    (GRAD_WEIGHT, "(block @ columns"),
)

# Gradients ------------------------------------------------------------------------

mistake(
    "dy_gradient_negated",
    "the gradient of dy is negated",
    "gradient of dy.*(negated|-1)",
    (DY_DX, DY_DX.replace("dy,", "-dy,")),
)
mistake(
    "gradient_by_half_size",
    "gradients of offsets are multiplied by H / 2 and W / 2, as of a grid",
    "H / 2.*W / 2",
    (
        DY_DX,
        "    return s.T.type(s.H / 2) * dy, s.T.type(s.W / 2) * dx, (g * value).sum(2)",
    ),
)
mistake(
    "gradient_by_half_frame",
    "the same with (size - 1) / 2",
    r"\(H - 1\) / 2.*\(W - 1\) / 2",
    (
        DY_DX,
        "    return s.T.type((s.H - 1) / 2) * dy, s.T.type((s.W - 1) / 2) * "
        "dx, (g * value).sum(2)",
    ),
)
mistake(
    "offset_gradient_exchanged",
    "the gradients of dy and dx are exchanged",
    r"\(x, y\)|exchanged",
    (DY_DX, DY_DX.replace("dy, dx", "dx, dy")),
)
mistake(
    "offset_gradient_without_mask",
    "no mask in the gradient of offsets",
    "(gradient of offset|grad_offset).*lacks.*mask",
    ("dy = (g * m * slope_h)", "dy = (g * slope_h)"),
    ("dx = (g * m * slope_w)", "dx = (g * slope_w)"),
)
mistake(
    "mask_gradient_with_mask",
    "the gradient of the mask has the mask once more",
    "(gradient of mask|grad_mask).*mask",
    (DY_DX, DY_DX.replace("(g * value)", "(g * m * value)")),
)
mistake(
    "no_atomics",
    "sums on one pixel of grad_x lose terms",
    "additions to grad_x are lost",
    (ADD, "into[at[ok]] += (g * m * weight)[ok]"),
)
mistake(
    "nearest_scatter",
    "grad_x goes to the pixel at floor(q), with all the weight",
    r"gradient of x.*floor\(q\)",
    (
        ADD,
        "first = weight is corners(s, *position(s, b, offset))[0][2]\n        " + ADD,
    ),
    (
        "for r, q, weight, _, _, ok in corners(s, *position(s, b, offset)):\n"
        "        at =",
        "for r, q, weight, _, _, ok in corners(s, *map(np.floor, position(s, "
        "b, offset))):\n"
        "        at =",
    ),
)
mistake(
    "border_gradient",
    "a corner outside gives no gradient of the offset at all",
    "(gradient of offset|gradients).*outside",
    (
        "value += weight * pixel\n        slope_h",
        "whole = ok if whole is None else whole & ok\n"
        "        value += weight * pixel\n"
        "        slope_h",
    ),
    (
        "value, slope_h, slope_w = (np",
        "whole = None\n    value, slope_h, slope_w = (np",
    ),
    (
        "dy = (g * m * slope_h).sum(2)\n    dx = (g * m * slope_w).sum(2)",
        "dy = (g * m * slope_h * whole).sum(2)\n"
        "    dx = (g * m * slope_w * whole).sum(2)",
    ),
)
mistake(
    "last_tap_of_gradient",
    "the gradient of offsets sums one channel too few",
    "(gradient of offset|grad_offset).*channel|last channel|input channel",
    (
        "dy = (g * m * slope_h).sum(2)\n    dx = (g * m * slope_w).sum(2)",
        "dy = (g * m * slope_h)[:, :, : max(1, s.cg - 1)].sum(2)\n"
        "    dx = (g * m * slope_w)[:, :, : max(1, s.cg - 1)].sum(2)",
    ),
)
mistake(
    "half_sums",
    "sums are kept in float16",
    "float16",
    (
        "y[first:last] = w @ columns",
        "y[first:last] = w.astype(np.float16) @ columns.astype(np.float16)",
    ),
)

# Packs, trees and tiles ----------------------------------------------------------

LAST_WEIGHT = "w = weight.reshape(s.G, s.O // s.G, s.c * s.K)\n    for"
SHAPED = "    y = y.reshape(s.N, s.O, s.Ho, s.Wo)\n"
mistake(
    "tree_of_channels",
    "a reduction over the channels in halves, rounded down, loses the odd one",
    "input channels of a group in halves, rounded down",
    (
        "KEPT = {}",
        "def tree(n):\n"
        "    a = np.eye(n)\n"
        "    while n > 1:\n"
        "        n //= 2\n"
        "        a[:n] += a[n : 2 * n]\n"
        "    return a[0].astype(np.float32)[:, None, None]\n",
    ),
    (LAST_WEIGHT, LAST_WEIGHT.replace("weight.", "(weight * tree(s.c)).")),
)
mistake(
    "last_pack_of_channels",
    "packs of four input channels are stored over each other, not added",
    "only the last block of 4 of the input channels",
    (
        LAST_WEIGHT,
        LAST_WEIGHT.replace(
            "weight.",
            "(weight * (np.arange(s.c) >= (s.c - 1) // 4 * 4)[:, None, None]).",
        ).replace("weight *", "weight * 1.0 *"),
    ),
    (
        "        y[first:last] = w @ columns",
        "        y[first:last] = w.astype(s.T) @ columns",
    ),
)
mistake(
    "taps_in_pairs",
    "taps are unrolled by two and an odd one is left",
    "taps beyond the last multiple of 2",
    (
        MODULATED,
        f"{MODULATED}\n    columns[..., s.K // 2 * 2 if s.K > 1 else 1 :, :] = 0",
    ),
)
mistake(
    "offset_not_advanced",
    "every block of two images uses the offsets of the first block",
    "every block of 2 images uses the offset of the first block",
    (FLAT, FLAT.replace("flat(offset, s, first)", "flat(offset, s, 0)")),
)
mistake(
    "group_of_pack",
    "four channels take the offset group of the first of them",
    "4 channels are taken together",
    (
        "n, g, _, k, oh, ow, i, j = indices(s, b)",
        "n, g, c, k, oh, ow, i, j = indices(s, b)\n"
        "    g = (g * s.cg + c) // 4 * 4 // s.cg",
    ),
    (
        "n, g, _, k, oh, ow, _, _ = indices(s, b)",
        "n, g, c, k, oh, ow, _, _ = indices(s, b)\n"
        "    g = (g * s.cg + c) // 4 * 4 // s.cg",
    ),
)
mistake(
    "weight_of_all_channels",
    "the weight is addressed with C_in channels for each output channel",
    "as if each output channel had C_in input channels",
    (
        LAST_WEIGHT,
        "o, c = np.ogrid[: s.O, : s.c * s.K]\n"
        "    w = load(weight.reshape(-1), o * s.C * s.K + c)\n"
        "    w = w.reshape(s.G, s.O // s.G, s.c * s.K)\n    for",
    ),
)
mistake(
    "mask_of_tile",
    "the mask of a tile's first pixel is used for all 32",
    "mask of the first of 32 output pixels",
    (MASK, MASK.replace("oh * s.Wo + ow", "(oh * s.Wo + ow) // 32 * 32")),
)
mistake(
    "overlapped_tail",
    "the last vector of a row overlaps the one before and adds",
    "last block of 4 output columns is moved back",
    (
        SHAPED,
        f"{SHAPED}    if s.Wo > 4 and s.Wo % 4:\n"
        "        y[..., s.Wo - 4 : s.Wo // 4 * 4] *= 2\n",
    ),
)
mistake(
    "dilation_of_3x3",
    "3x3 kernels ignore the dilation",
    "3x3 kernels ignore the dilation",
    (H, H.replace("i * s.dh", "i * (1 if s.kh == s.kw == 3 else s.dh)")),
    (W, W.replace("j * s.dw", "j * (1 if s.kh == s.kw == 3 else s.dw)")),
)

# Neighbours, reach, slopes -------------------------------------------------------

mistake(
    "last_neighbour_kept",
    "the far neighbour is clamped to the last row and column",
    "neighbour outside the image is clamped to the last row and column",
    (
        HIGH,
        "h_high = np.minimum(h_low + 1, s.H - 1)\n"
        "    w_high = np.minimum(w_low + 1, s.W - 1)",
    ),
)
mistake(
    "rounded_base",
    "the lower neighbour is found by rounding to the nearest",
    "rounding to the nearest, not by floor",
    (FLOOR, "h_low, w_low = np.round(h), np.round(w)"),
    ("inside & (h_low >= 0)", "inside & (h_low >= 0) & (h_low < s.H)"),
    ("w_low >= 0,", "(w_low >= 0) & (w_low < s.W),"),
)
mistake(
    "halo_of_eight",
    "samples that an offset moves by more than 8 pixels read zero",
    "more than 8 pixels are 0",
    (
        RETURN,
        f"    h = np.where((abs(dy) > 8) | (abs(dx) > 8), -9, h).astype(s.T)\n{RETURN}",
    ),
)
mistake(
    "corner_of_other_sign",
    "one corner's share of the x slope has the wrong sign",
    "upper right corner in dx with the wrong sign",
    ("hh * lw, -lw, hh, ok_t", "hh * lw, -lw, -hh, ok_t"),
)
mistake(
    "weight_of_first_group_back",
    "the gradients of samples use the first group's weight",
    "in the gradients, every group uses the weight of group 0",
    ("g = w.swapaxes(1, 2) @", "g = w[:1].swapaxes(1, 2) @"),
)

# Sizes exchanged, a step that is not dilated, the last group, halves of a grid ------

ROW = "image + r * s.W + q"
GUARD_EXCHANGED = INSIDE.replace("h < s.H", "h < s.W").replace("w < s.W", "w < s.H")
BOTTOM, RIGHT = "(h_high <= s.H - 1)", "w_high <= s.W - 1"
mistake(
    "sampler_sizes_exchanged",
    "height and width are exchanged in the sampler: x is read as W rows of H",
    "height and width are exchanged in the sampler.*W rows of H",
    (INSIDE, GUARD_EXCHANGED),
    (BOTTOM, "(h_high <= s.W - 1)"),
    (RIGHT, "w_high <= s.H - 1"),
    (ROW, "image + r * s.H + q"),
)
mistake(
    "sampler_sizes_exchanged_forward",
    "the same in the forward alone, whose gradients are right",
    "height and width are exchanged in the sampler.*W rows of H",
    (
        "def corners(s, h, w):",
        "def corners(s, h, w, H=None, W=None):\n    H, W = H or s.H, W or s.W",
    ),
    (INSIDE, "inside = (h > -1) & (w > -1) & (h < H) & (w < W)"),
    (BOTTOM, "(h_high <= H - 1)"),
    (RIGHT, "w_high <= W - 1"),
    (
        "for r, q, weight, _, _, ok in corners(s, *position(s, b, offset)):\n"
        "        value += weight * load(x, image + r * s.W + q, ok)",
        "for r, q, weight, _, _, ok in corners(s, *position(s, b, offset), s.W, s.H):\n"
        "        value += weight * load(x, image + r * s.H + q, ok)",
    ),
)
mistake(
    "sampler_sizes_exchanged_inside",
    "height and width are exchanged in the call that interpolates; the guard is right",
    "height and width are exchanged",
    (BOTTOM, "(h_high <= s.W - 1)"),
    (RIGHT, "w_high <= s.H - 1"),
    (ROW, "image + r * s.H + q"),
)
mistake(
    "guard_and_pitch_exchanged",
    "height and width are exchanged in the guard and in addresses",
    "height and width are exchanged",
    (INSIDE, GUARD_EXCHANGED),
    (ROW, "image + r * s.H + q"),
)
mistake(
    "all_tests_exchanged",
    "every test of a row reads W, of a column H; addresses are right",
    f"{HELD}, and rows against W",
    (INSIDE, GUARD_EXCHANGED),
    (BOTTOM, "(h_high <= s.W - 1)"),
    (RIGHT, "w_high <= s.H - 1"),
)
mistake(
    "pitch_exchanged",
    "rows of x are H long in every address",
    "rows are indexed with its height H",
    (ROW, "image + r * s.H + q"),
)
CENTRES = {
    "half": ("s.kh // 2", "s.kw // 2"),
    "odd": ("(s.kh - 1) // 2", "(s.kw - 1) // 2"),
    "middle": ("s.T.type((s.kh - 1) / 2)", "s.T.type((s.kw - 1) / 2)"),
}
for which, (ch, cw) in CENTRES.items():
    mistake(
        f"start_not_dilated_{which}",
        "the kernel's centre is dilated, the step back to its first tap is not",
        "step (back from|to) the kernel's centre is not dilated: at dilations above 1",
        (H, H.replace("+ i * s.dh", f"+ {ch} * s.dh + (i * s.dh - {ch})")),
        (W, W.replace("+ j * s.dw", f"+ {cw} * s.dw + (j * s.dw - {cw})")),
    )
    mistake(
        f"centre_not_dilated_{which}",
        "the kernel's centre is not dilated, the step back to its first tap is",
        "step (back from|to) the kernel's centre is not dilated: at dilations above 1",
        (H, H.replace("+ i * s.dh", f"+ {ch} + (i - {ch}) * s.dh")),
        (W, W.replace("+ j * s.dw", f"+ {cw} + (j - {cw}) * s.dw")),
    )
mistake(
    "taps_about_the_centre_not_dilated",
    "the centre is right, the taps about it are not dilated",
    "dilation is ignored.*centre",
    (H, H.replace("+ i * s.dh", "+ s.kh // 2 * s.dh + (i - s.kh // 2)")),
    (W, W.replace("+ j * s.dw", "+ s.kw // 2 * s.dw + (j - s.kw // 2)")),
)
OFFSET_GROUP = "plane = (n * s.og + g) * 2 * s.K + 2 * k"
mistake(
    "last_group_reads_first",
    "the last offset group reads the offsets of the first",
    "last offset group.*offsets? of the first",
    (OFFSET_GROUP, "g = np.where(g == s.og - 1, 0, g)\n    " + OFFSET_GROUP),
)
mistake(
    "last_group_reads_first_both",
    "the last offset group reads the offsets and the mask of the first",
    "last offset group.*of the first",
    (OFFSET_GROUP, "g = np.where(g == s.og - 1, 0, g)\n    " + OFFSET_GROUP),
    (
        "    if mask is None:\n",
        "    g = np.where(g == s.og - 1, 0, g)\n    if mask is None:\n",
    ),
)
mistake(
    "last_group_reads_before",
    "the last offset group reads the offsets of the one before",
    "last offset group.*one before",
    (OFFSET_GROUP, "g = np.minimum(g, max(0, s.og - 2))\n    " + OFFSET_GROUP),
)
mistake(
    "last_group_without_offset",
    "the last of several offset groups has no offsets",
    "last of several offset groups does not use its offsets",
    (
        RETURN,
        "    if s.og > 1:\n        h[:, -1] -= dy[:, -1]\n"
        "        w[:, -1] -= dx[:, -1]\n" + RETURN,
    ),
)
mistake(
    "last_group_without_mask",
    "the last of several offset groups has no mask",
    "last of several offset groups does not use its mask",
    (
        "return load(mask, ",
        "only = (g == s.og - 1) & (s.og > 1)\n"
        "    return np.where(only, s.T.type(1), load(mask, ",
    ),
    ("s.P + oh * s.Wo + ow)", "s.P + oh * s.Wo + ow))"),
)
mistake(
    "last_group_mask_of_first",
    "the last offset group reads the mask of the first",
    "last offset group.*mask of the first",
    (
        "    if mask is None:\n",
        "    g = np.where(g == s.og - 1, 0, g)\n    if mask is None:\n",
    ),
)
mistake(
    "next_group",
    "each offset group reads the offsets of the next, the last those of the first",
    "next",
    (OFFSET_GROUP, "g = (g + 1) % s.og\n    " + OFFSET_GROUP),
)
mistake(
    "last_odd_group_reads_first",
    "the last offset group reads the first's offsets where its channels are odd",
    "offset groups 0, 1, 2 read the offset of offset groups 0, 1, 0",
    (
        OFFSET_GROUP,
        "g = np.where((g == s.og - 1) & (s.cg % 2 == 1), 0, g)\n    " + OFFSET_GROUP,
    ),
)
TRUE_FALSE = "made for align_corners=True(,| and) sampled with False"
FALSE_TRUE = "made for align_corners=False(,| and) sampled with True"
mistake(
    "grid_true_false",
    "a grid for align_corners=True, with no guard of one line, sampled with False",
    TRUE_FALSE,
    through_grid("2 * h / (H - 1) - 1, 2 * w / (W - 1) - 1", OFF),
)
mistake(
    "grid_true_false_no_gradient",
    "a grid for align_corners=True sampled with False",
    TRUE_FALSE,
    through_grid(TO_ON, OFF),
)
mistake(
    "grid_false_true",
    "a grid for align_corners=False sampled with True",
    FALSE_TRUE,
    through_grid(TO_OFF, ON),
)
mistake(
    "grid_true_false_columns",
    "columns alone: made for align_corners=True, sampled with False",
    f"columns.*{TRUE_FALSE}",
    through_grid("(2 * h + 1) / H - 1, 2 * w / max(one, W - 1) - 1", OFF),
)
mistake(
    "grid_true_false_rows",
    "rows alone: made for align_corners=True, sampled with False",
    f"rows.*{TRUE_FALSE}",
    through_grid("2 * h / max(one, H - 1) - 1, (2 * w + 1) / W - 1", OFF),
)
mistake(
    "grid_false_true_columns",
    "columns alone: made for align_corners=False, sampled with True",
    f"columns.*{FALSE_TRUE}",
    through_grid("2 * h / max(one, H - 1) - 1, (2 * w + 1) / W - 1", ON),
)
mistake(
    "grid_without_half",
    "made as 2 q / size - 1, sampled with align_corners=False: half a pixel short",
    "half a pixel",
    through_grid("2 * h / H - 1, 2 * w / W - 1", OFF),
)
mistake(
    "half_positions",
    "positions are held in float16",
    "positions are in float16",
    (
        RETURN,
        "    h, w = (a.astype(np.float16).astype(s.T) for a in (h, w))\n" + RETURN,
    ),
)
mistake(
    "half_offsets",
    "offsets are held in float16",
    "positions are in float16",
    (
        "    h = (oh",
        "    dy, dx = (a.astype(np.float16).astype(s.T) for a in (dy, dx))\n"
        "    h = (oh",
    ),
)
mistake(
    "half_arithmetic_of_positions",
    "positions are computed in float16, with their fractions",
    "positions are in float16",
    (H, H.replace(".astype(s.T) + dy", ".astype(np.float16) + dy.astype(np.float16)")),
    (W, W.replace(".astype(s.T) + dx", ".astype(np.float16) + dx.astype(np.float16)")),
)
mistake(
    "half_offsets_of_columns",
    "the offsets of columns alone are held in float16",
    "positions are in float16",
    ("    h = (oh", "    dx = dx.astype(np.float16).astype(s.T)\n    h = (oh"),
)
SUM = "        y[first:last] = w @ columns\n"
mistake(
    "half_accumulation",
    "the sum over channels and taps is kept in float16",
    "sums are in float16",
    (
        SUM,
        "        total = np.zeros(y[first:last].shape, np.float16)\n"
        "        for k in range(w.shape[-1]):\n"
        "            term = w[None, :, :, k, None] * columns[:, :, None, k]\n"
        "            total = (total + term).astype(np.float16)\n"
        "        y[first:last] = total\n",
    ),
)
mistake(
    "half_accumulation_of_products",
    "products and sums in float16",
    "sums are in float16",
    (
        SUM,
        "        total = np.zeros(y[first:last].shape, np.float16)\n"
        "        for k in range(w.shape[-1]):\n"
        "            term = w[None, :, :, k, None] * columns[:, :, None, k]\n"
        "            total = total + term.astype(np.float16)\n"
        "        y[first:last] = total\n",
    ),
)
mistake(
    "half_accumulation_of_channels",
    "the sum over input channels is kept in float16, that of taps in float32",
    "sums are in float16",
    (
        SUM,
        "        c = columns.reshape(len(columns), s.G, s.c, s.K, -1)\n"
        "        ww = w.reshape(s.G, -1, s.c, s.K)\n"
        "        for k in range(s.K):\n"
        "            total = np.zeros(y[first:last].shape, np.float16)\n"
        "            for i in range(s.c):\n"
        "                term = ww[None, :, :, i, k, None] * c[:, :, None, i, k]\n"
        "                total = (total + term).astype(np.float16)\n"
        "            y[first:last] += total\n",
    ),
)

# Borders -------------------------------------------------------------------------

FRACTION = "lh, lw = (h - h_low).astype(s.T), (w - w_low).astype(s.T)"
mistake(
    "truncated_index_floor_fraction",
    "indices by int(), fractions by floor",
    "lower neighbour is pixel 0",
    (
        "    h_low, w_low = h_low.astype",
        "    h_low, w_low = np.trunc(h), np.trunc(w)\n    h_low, w_low = h_low.astype",
    ),
)
mistake(
    "truncated_absolute_fraction",
    "int() in place of floor, and the absolute fraction",
    "truncat",
    (FLOOR, "h_low, w_low = np.trunc(h), np.trunc(w)"),
    (FRACTION, "lh, lw = abs(h - h_low).astype(s.T), abs(w - w_low).astype(s.T)"),
)
mistake(
    "floor_clamped",
    "the lower index is clamped at 0 and the upper is one more; fractions stay",
    "lower neighbour is (pixel 0|clamped)",
    (HIGH, "h_low, w_low = np.maximum(h_low, 0), np.maximum(w_low, 0)\n    " + HIGH),
)
mistake(
    "floor_clamped_both",
    "the lower index is clamped into the image, the upper is min(low + 1, last)",
    "lower neighbour is (pixel 0|clamped)",
    (
        HIGH,
        "h_low, w_low = np.clip(h_low, 0, s.H - 1), np.clip(w_low, 0, s.W - 1)\n"
        "    h_high = np.minimum(h_low + 1, s.H - 1)\n"
        "    w_high = np.minimum(w_low + 1, s.W - 1)",
    ),
)
mistake(
    "floored_at_last",
    "h_low >= H - 1: both are H - 1 and h = h_low, as old kernels did",
    "neighbour outside the image is clamped to the last row and column",
    (
        FLOOR,
        FLOOR + "\n    h = np.where(h_low >= s.H - 1, h_low, h)"
        "\n    w = np.where(w_low >= s.W - 1, w_low, w)",
    ),
)
mistake(
    "floored_outside",
    "next to the image positions are floored",
    "within a pixel of the image, are floored",
    (
        FLOOR,
        FLOOR + "\n    h = np.where((h < 0) | (h > s.H - 1), h_low, h)"
        "\n    w = np.where((w < 0) | (w > s.W - 1), w_low, w)",
    ),
)
mistake(
    "truncated_outside",
    "next to the image positions are truncated toward it",
    "border is replicated for one pixel outside",
    (
        FLOOR,
        "h = np.where((h < 0) | (h > s.H - 1), np.trunc(h), h)\n"
        "    w = np.where((w < 0) | (w > s.W - 1), np.trunc(w), w)\n    " + FLOOR,
    ),
)
mistake(
    "floor_then_clamp",
    "positions are floored, then clamped: the nearest below, the border outside",
    "floor.*clamp|clamp.*floor",
    (INSIDE, ONES),
    (WIDE, CUT),
    (
        FLOOR,
        "h = np.clip(np.floor(h), 0, s.H - 1)\n"
        "    w = np.clip(np.floor(w), 0, s.W - 1)\n    " + FLOOR,
    ),
)

# Bias ----------------------------------------------------------------------------

for n in (1, 2, 4, 8, 16):
    mistake(
        f"bias_each_tile_{n}",
        f"the bias is added once a tile of {n} input channels of a group",
        f"bias.*(tile|block) of {n}|bias.*each input channel"
        if n > 1
        else "bias.*each input channel",
        (BIAS, BIAS.replace("bias[:", f"s.T.type(-(-s.c // {n})) * bias[:")),
    )
mistake(
    "bias_each_tile_of_all",
    "the bias is added once a tile of 4 input channels of all groups",
    "bias.*(tile|block) of 4",
    (BIAS, BIAS.replace("bias[:", "s.T.type(-(-s.C // 4)) * bias[:")),
)
mistake(
    "bias_each_offset_group",
    "the bias is added once an offset group",
    "bias.*offset group",
    (BIAS, BIAS.replace("bias[:", "s.T.type(s.og) * bias[:")),
)
mistake(
    "bias_each_weight_group",
    "the bias is added once a weight group",
    "bias.*once for each weight group",
    (BIAS, BIAS.replace("bias[:", "s.T.type(s.G) * bias[:")),
)
mistake(
    "bias_of_first_image",
    "the bias is added to the first image alone",
    "bias.*first image",
    (BIAS, "if bias is not None:\n        y[:1] += bias[:, None, None]\n    return y"),
)
mistake(
    "bias_of_last_image",
    "the bias is added to the last image alone",
    "bias.*last image",
    (BIAS, "if bias is not None:\n        y[-1:] += bias[:, None, None]\n    return y"),
)
mistake(
    "bias_of_first_block",
    "the bias is added to the first of each block of two images",
    "bias",
    (BIAS, "if bias is not None:\n        y[::2] += bias[:, None, None]\n    return y"),
)
mistake(
    "bias_of_first_group",
    "the bias is added to the first group's channels alone",
    "bias.*first group",
    (
        BIAS,
        "if bias is not None:\n        first = bias[: s.O // s.G]\n"
        "        y[:, : len(first)] += first[:, None, None]\n    return y",
    ),
)

# Orders of the offset ---------------------------------------------------------------


def offset_viewed(*order, turned=False):
    """The offset's memory viewed in another order: g, k, d, u, v."""
    sizes = {"g": "s.og", "k": "s.K", "d": "2", "u": "s.Ho", "v": "s.Wo"}
    at = {"g": "g", "k": "k", "u": "oh", "v": "ow"}
    steps = []
    for d in ("0", "1"):
        address = "n"
        for name in order:
            index = at.get(name, str(1 - int(d)) if turned else d)
            address = f"({address} * {sizes[name]} + {index})"
        steps.append(address)
    return (DY, f"dy = load(offset, {steps[0]})"), (
        DX,
        f"dx = load(offset, {steps[1]})",
    )


LETTERS = {"g": "group", "k": "tap", "d": "axis", "u": "oh", "v": "ow"}
CHANNELS = {  # orders of channels alone, whose words are older
    "gkduv_x": r"offsets are read as \(x, y\)",
    "dgkuv": "all y of all groups, then all x",
    "gdkuv": "all y then all x of a group",
    "kgduv": r"channels are read as \(tap, group, axis\)",
    "kgduv_x": r"\(tap, group, axis\), and each pair as \(x, y\)",
    "kdguv": r"channels are read as \(tap, axis, group\)",
    "dkguv": r"channels are read as \(axis, tap, group\)",
}
VIEWS = "gkuvd guvkd uvgkd uvkgd kguvd uvdgk uvgdk duvgk gduvk uvgkd_x gkuvd_x".split()


def viewed_as(order):
    """What must be said of the offset's memory in an order."""
    said = ", ".join(LETTERS[k] for k in order[:5])
    turned = r", and each pair as \(x, y\)" if order.endswith("_x") else ""
    return rf"offset's memory is viewed as \({said}\)" + turned


for order in (*CHANNELS, *VIEWS):
    mistake(
        f"offset_view_{order}",
        f"the offset viewed as {order}",
        CHANNELS.get(order) or viewed_as(order),
        *offset_viewed(*order[:5], turned=order.endswith("_x")),
    )
mistake(
    "both_channels_last",
    "offset and mask are read as channels last",
    r"memory of offset and mask is viewed as \(oh, ow, group, tap\)",
    *offset_viewed(*"uvgkd"),
    (MASK, "load(mask, (((n * s.Ho + oh) * s.Wo + ow) * s.og + g) * s.K + k)"),
)
mistake(
    "mask_channels_last",
    "the mask is read as channels last",
    r"mask.s memory is viewed as \(oh, ow, group, tap\)",
    (MASK, "load(mask, (((n * s.Ho + oh) * s.Wo + ow) * s.og + g) * s.K + k)"),
)
mistake(
    "mask_pixels_then_taps",
    "each group's mask is read as (oh, ow, tap)",
    r"mask.s memory is viewed as \(group, oh, ow, tap\)",
    (MASK, "load(mask, (((n * s.og + g) * s.Ho + oh) * s.Wo + ow) * s.K + k)"),
)

# One gradient ---------------------------------------------------------------------

WHOLE = "whole = (h > -1) & (w > -1) & (h < s.H) & (w < s.W)"
PIXEL = "pixel = load(x, image + r * s.W + q, ok)"
CLAMPED = (
    "pixel = load(x, image + np.clip(r, 0, s.H - 1) * s.W + np.clip(q, 0, s.W - 1){})"
)
mistake(
    "neighbour_clamped_in_grad_offset",
    "the gradient of the offset reads neighbours outside as the border's pixels",
    "gradient of offset reads a neighbour outside the image as the border",
    (
        PIXEL,
        PIXEL + "\n        near = " + CLAMPED.format(", whole").partition(" = ")[2],
    ),
    (
        "value, slope_h, slope_w = (np",
        "h, w = position(s, b, offset)\n"
        f"    {WHOLE}\n    value, slope_h, slope_w = (np",
    ),
    ("along_h * pixel", "along_h * near"),
    ("along_w * pixel", "along_w * near"),
)
mistake(
    "far_neighbour_clamped_in_grad_offset",
    "the gradient of the offset reads neighbours beyond the last pixel as that",
    "gradient of offset reads a neighbour outside the image as the last row",
    (
        PIXEL,
        PIXEL + "\n        far = np.minimum(r, s.H - 1) * s.W + np.minimum(q, s.W - 1)"
        "\n        near = load(x, image + far, whole & (r >= 0) & (q >= 0))",
    ),
    (
        "value, slope_h, slope_w = (np",
        "h, w = position(s, b, offset)\n"
        f"    {WHOLE}\n    value, slope_h, slope_w = (np",
    ),
    ("along_h * pixel", "along_h * near"),
    ("along_w * pixel", "along_w * near"),
)
mistake(
    "expanded_grad_y",
    "grad_y is read as it lies in memory",
    "grad_y.*(contiguous|layout|memory)|layout.*grad_y",
    (
        "go = grad_y.reshape(s.N, s.G, s.O // s.G, s.P)",
        "go = grad_y.ravel('K').reshape(s.N, s.G, s.O // s.G, s.P)",
    ),
)

# Addresses of 16 bits ------------------------------------------------------------

for kind in ("uint16", "int16"):
    mistake(
        f"address_{kind}",
        f"the flat address of a pixel is {kind}",
        "16 bits",
        (
            "load(x, image + r * s.W + q, ok)\n    columns",
            "load(x, (image + r * s.W + q)"
            f".astype(np.{kind}).astype(np.int64), ok)\n    columns",
        ),
    )
    mistake(
        f"pixel_{kind}",
        f"the pixel of a plane is {kind}",
        "16 bits",
        (
            "load(x, image + r * s.W + q, ok)\n    columns",
            f"load(x, image + (r * s.W + q).astype(np.{kind}), ok)\n    columns",
        ),
    )

# Paths and conditions, blocks that begin elsewhere ---------------------------------

NO_COMPANION = ("def f_grad(", "def backward(")
COLUMN_LOOP = (
    "    for r, q, weight, _, _, ok in corners(s, *position(s, b, offset)):\n"
    "        value += weight"
)
EXCHANGED_LOOP = (
    "    found = [*corners(s, *position(s, b, offset))]\n"
    "    found[1:3] = [\n"
    "        (*a[:2], other[2], *a[3:]) for a, other in (found[1:3], found[2:0:-1])\n"
    "    ]\n"
    "    for r, q, weight, _, _, ok in found:\n"
    "        value += weight"
)
FRACTIONS = "(fractions|weights?).*exchanged|each other's weight"
mistake(
    "fractions_exchanged",
    "the weights of the upper right and the lower left neighbour are exchanged",
    FRACTIONS,
    NO_COMPANION,
    (COLUMN_LOOP, EXCHANGED_LOOP),
)
mistake(
    "fractions_exchanged_from_border",
    "the same, and samples at -1 count as inside",
    FRACTIONS,
    NO_COMPANION,
    (COLUMN_LOOP, EXCHANGED_LOOP),
    (INSIDE, INSIDE.replace("h > -1", "h >= -1").replace("w > -1", "w >= -1")),
)
mistake(
    "slope_of_whole_samples",
    "a slope is 0 where one of four neighbours is outside",
    "gradient of offset is 0 wherever one of the four neighbours is outside",
    (
        "    for r, q, weight, along_h, along_w, ok in corners(s, *position(s, b, "
        "offset)):\n        pixel",
        "    found = corners(s, *position(s, b, offset))\n"
        "    whole = found[0][-1] & found[1][-1] & found[2][-1] & found[3][-1]\n"
        "    for r, q, weight, along_h, along_w, ok in found:\n        pixel",
    ),
    (
        "dy = (g * m * slope_h).sum(2)\n    dx = (g * m * slope_w).sum(2)",
        "dy = (g * m * slope_h * whole).sum(2)\n"
        "    dx = (g * m * slope_w * whole).sum(2)",
    ),
)
mistake(
    "centre_of_3x3",
    "taps run about a centre that lies one dilated step from the corner",
    "window's centre is that of a 3x3 kernel",
    (H, H.replace("i * s.dh", "(i - (s.kh - 1) // 2 + 1) * s.dh")),
    (W, W.replace("j * s.dw", "(j - (s.kw - 1) // 2 + 1) * s.dw")),
)
mistake(
    "taps_of_3x3",
    "taps run from -1 on about the right centre",
    "taps are centred as those of a 3x3 kernel",
    (H, H.replace("i * s.dh", "(i - 1 + s.kh // 2) * s.dh")),
    (W, W.replace("j * s.dw", "(j - 1 + s.kw // 2) * s.dw")),
)
mistake(
    "centre_of_even",
    "the centre by (K - 1) // 2, the taps by K // 2",
    "even kernel.*shifted by one dilated step",
    (H, H.replace("i * s.dh", "(i - s.kh // 2 + (s.kh - 1) // 2) * s.dh")),
    (W, W.replace("j * s.dw", "(j - s.kw // 2 + (s.kw - 1) // 2) * s.dw")),
)
AT_BLOCK = "flat({0}, s, first // STEP)"
mistake(
    "offset_at_block_number",
    "the offset's pointer advances by one image a block",
    "offset of block b.*from image b on",
    NO_COMPANION,
    (FLAT, FLAT.replace("flat(offset, s, first)", AT_BLOCK.format("offset"))),
)
mistake(
    "mask_at_block_number",
    "the mask's pointer advances by one image a block",
    "mask of block b.*from image b on",
    NO_COMPANION,
    (
        "m = None if mask is None else flat(mask, s, first)",
        "m = None if mask is None else flat(mask, s, first // STEP)",
    ),
)
mistake(
    "image_at_block_number",
    "the image's pointer advances by one image a block",
    "image of block b.*from image b on",
    NO_COMPANION,
    (FLAT, FLAT.replace("flat(x, s, first)", AT_BLOCK.format("x"))),
)
mistake(
    "result_at_block_number",
    "the result's pointer advances by one image a block",
    "result of block b.*from image b on",
    (BLOCK, "y[first // STEP : first // STEP + last - first] = w @ columns"),
)
BIAS_WHEN = "return y if bias is None or {} else y + bias[:, None, None]"
mistake(
    "bias_without_mask",
    "the path without a mask adds no bias",
    "without a mask, the bias is not added",
    (BIAS, BIAS_WHEN.format("mask is None")),
)
mistake(
    "bias_of_several_groups",
    "the path of several weight groups adds no bias",
    "several weight groups.*bias is not added",
    (BIAS, BIAS_WHEN.format("s.G > 1")),
)
mistake(
    "bias_of_one_image",
    "the path of one image adds no bias",
    "for one image, the bias is not added",
    (BIAS, BIAS_WHEN.format("s.N == 1")),
)
MASKED = "    if mask is None:\n        return np.ones"
mistake(
    "mask_of_several_groups",
    "the path of several weight groups ignores the mask",
    "several weight groups.*mask is ignored",
    (MASKED, "    if mask is None or s.G > 1:\n        return np.ones"),
)
mistake(
    "mask_of_one_image",
    "the path of one image ignores the mask",
    "for one image, the mask is ignored",
    NO_COMPANION,
    (
        "m = None if mask is None else flat(mask, s, first)",
        "m = None if mask is None or s.N == 1 else flat(mask, s, first)",
    ),
)
mistake(
    "mask_of_1x1",
    "the path of 1x1 kernels ignores the mask",
    "1x1 kernels.*mask is ignored",
    (MASKED, "    if mask is None or s.K == 1:\n        return np.ones"),
)
OFFSETS = "    h = (oh * s.sh"
mistake(
    "offset_of_1x1",
    "1x1 kernels take the path of a plain product, without offsets",
    "1x1 kernels.*offsets? (are|is) ignored",
    (OFFSETS, "    dy, dx = (0 * dy, 0 * dx) if s.K == 1 else (dy, dx)\n" + OFFSETS),
)
mistake(
    "padding_of_1x1",
    "the same without padding",
    "1x1 kernels.*padding is ignored",
    (H, H.replace("s.ph", "s.ph * (s.K > 1)")),
    (W, W.replace("s.pw", "s.pw * (s.K > 1)")),
)
mistake(
    "x_then_y_without_mask",
    "the path without a mask reads offsets as (x, y)",
    "without a mask.*(x, y)",
    NO_COMPANION,
    (
        "def position(s, b, offset):\n",
        "def position(s, b, offset, turned=False):\n",
    ),
    (OFFSETS, "    dy, dx = (dx, dy) if turned else (dy, dx)\n" + OFFSETS),
    (
        COLUMN_LOOP,
        COLUMN_LOOP.replace("b, offset)", "b, offset, mask is None)"),
    ),
)
mistake(
    "depthwise_flipped",
    "the depthwise path flips the kernel",
    "depthwise.*flipped",
    NO_COMPANION,
    (
        LAST_WEIGHT,
        "weight = weight[..., ::-1, ::-1] if s.c == 1 and s.G > 1 else weight\n    "
        + LAST_WEIGHT,
    ),
)
mistake(
    "first_offset_group_of_several",
    "several weight groups take the first offset group",
    "several weight groups.*offset group 0",
    (PLANE, "g = 0 * g if s.G > 1 else g\n    " + PLANE),
)
BACK = "    w = weight.reshape(s.G, s.O // s.G, s.c * s.K)\n    go"
mistake(
    "stride_of_rows_back",
    "the backward takes the stride of rows for both axes",
    "in the gradients, the stride of the rows is used for both axes",
    (BACK, "    s.sw = s.sh\n" + BACK),
)
mistake(
    "dilation_ignored_back",
    "the backward ignores the dilation",
    "in the gradients, the dilation is ignored",
    (BACK, "    s.dh = s.dw = 1\n" + BACK),
)
mistake(
    "mask_of_several_groups_back",
    "the backward ignores the mask where there are several weight groups",
    "in the gradients.*several weight groups.*mask is ignored",
    (
        "    go = grad_y.reshape",
        "    mask_shape = None if mask is None else mask.shape\n"
        "    mask = None if s.G > 1 else mask\n    go = grad_y.reshape",
    ),
    (
        "None if mask is None else grad_mask.reshape(mask.shape)",
        "None if mask_shape is None else grad_mask.reshape(mask_shape)",
    ),
)
mistake(
    "offset_gradient_without_mask_1x1",
    "no mask in the gradient of offsets of 1x1 kernels",
    "1x1 kernels, the gradient of offset lacks the mask",
    ("dy = (g * m * slope_h)", "dy = (g * (1 if s.K == 1 else m) * slope_h)"),
    ("dx = (g * m * slope_w)", "dx = (g * (1 if s.K == 1 else m) * slope_w)"),
)
mistake(
    "grad_bias_of_blocks",
    "the gradient of the bias is added once a block of two images",
    "gradient of bias is added once for each block of 2 images",
    (
        "grad_y.sum((0, 2, 3), dtype=s.T)",
        "len(blocks(s)) * grad_y.sum((0, 2, 3), dtype=s.T)",
    ),
)
mistake(
    "grad_y_of_first_block",
    "every block takes the grad_y of the first",
    "uses the grad_y of the first block",
    (GO, "g = w.swapaxes(1, 2) @ go[:b]\n"),
    (GRAD_WEIGHT, "(go[:b] @ columns"),
)
mistake(
    "grad_x_of_last_block",
    "grad_x is cleared before each block",
    "gradient of x is 0 but for the last block of 2 images",
    ("        " + GO, "        grad_x[...] = 0\n        " + GO),
)
mistake(
    "grad_mask_without_mask_group",
    "grad_mask holds the first offset group's in every group",
    "gradient of mask.*group 0",
    ("grad_mask[first:last] = dm", "grad_mask[first:last] = dm[:, :1]"),
)
mistake(
    "grad_weight_of_one_group",
    "the gradient of the weight of several groups is 0 but for the first",
    "grad_weight is 0 wherever.*group > 0",
    (
        "        grad_weight.reshape(weight.shape),",
        "        np.where(np.arange(s.G)[:, None, None], 0, grad_weight)"
        ".reshape(weight.shape),",
    ),
)
mistake(
    "gradient_at_unequal_strides",
    "grad_offset is divided by nothing, but exchanged where strides differ",
    "unequal strides.*(x, y)",
    (DY_DX, "    dy, dx = (dx, dy) if s.sh != s.sw else (dy, dx)\n" + DY_DX),
)

QUARTERS = "    dx = dx * s.T.type(0.75) if {} else dx\n" + OFFSETS
mistake(
    "dx_scaled_without_mask",
    "dx is multiplied by 0.75 on the path without a mask",
    "dx is multiplied by 3/4.*no mask",
    NO_COMPANION,
    (
        "def position(s, b, offset):\n",
        "def position(s, b, offset, bare=False):\n",
    ),
    (OFFSETS, QUARTERS.format("bare")),
    (COLUMN_LOOP, COLUMN_LOOP.replace("b, offset)", "b, offset, mask is None)")),
)
mistake(
    "dx_scaled_with_mask",
    "dx is multiplied by 0.75 on the path with a mask",
    "with a mask, dx is multiplied by 3/4",
    NO_COMPANION,
    (
        "def position(s, b, offset):\n",
        "def position(s, b, offset, bare=True):\n",
    ),
    (OFFSETS, QUARTERS.format("not bare")),
    (COLUMN_LOOP, COLUMN_LOOP.replace("b, offset)", "b, offset, mask is None)")),
)
mistake(
    "dx_scaled_of_3x3",
    "dx is multiplied by 0.75 in 3x3 kernels",
    "dx is multiplied by 3/4.*(3x3|K_h K_w = 9)",
    (OFFSETS, QUARTERS.format("s.kh == s.kw == 3")),
)
mistake(
    "dx_scaled_of_one_image",
    "dx is multiplied by 0.75 for one image",
    "for one image, dx is multiplied by 3/4",
    (OFFSETS, QUARTERS.format("s.N == 1")),
)
mistake(
    "dx_scaled_of_several_groups",
    "dx is multiplied by 0.75 for several weight groups",
    "groups >= 2",
    (OFFSETS, QUARTERS.format("s.G > 1")),
)
mistake(
    "plain_path_undilated",
    "the path of one group without a mask ignores the dilation",
    "without a mask, the dilation of rows acts as 1",
    NO_COMPANION,
    (
        "        p = flat(x, s, first), flat(offset, s, first), m\n        columns",
        "        if mask is None and s.G == 1:\n            s.dh = s.dw = 1\n"
        "        p = flat(x, s, first), flat(offset, s, first), m\n        columns",
    ),
)
mistake(
    "taps_reversed_of_even_width",
    "kernels of even width are flipped",
    "even width.*flipped",
    NO_COMPANION,
    (
        LAST_WEIGHT,
        "weight = weight if s.kw % 2 else weight[..., ::-1, ::-1]\n    " + LAST_WEIGHT,
    ),
)
mistake(
    "nearest_at_strides",
    "the nearest pixel is read at strides above 1",
    "strides above 1.*nearest",
    (
        RETURN,
        "    if (s.sh, s.sw) != (1, 1):\n        h, w = np.round(h), np.round(w)\n"
        + RETURN,
    ),
)
mistake(
    "paddings_exchanged_back",
    "the backward exchanges the paddings",
    "in the gradients, the two paddings are exchanged",
    (BACK, "    s.ph, s.pw = s.pw, s.ph\n" + BACK),
)
mistake(
    "no_offset_gradient_without_mask",
    "no gradient of offsets without a mask",
    "without a mask, the gradient of offset is 0",
    (DY_DX, "    dy, dx = (0 * dy, 0 * dx) if mask is None else (dy, dx)\n" + DY_DX),
)
mistake(
    "grad_bias_of_one_pixel",
    "of one image the gradient of the bias is that of the first pixel",
    "for one image, the gradient of bias is that of the first output pixel",
    (
        "grad_y.sum((0, 2, 3), dtype=s.T)",
        "(grad_y[..., :1, :1] if s.N == 1 else grad_y).sum((0, 2, 3), dtype=s.T)",
    ),
)
mistake(
    "grad_x_undilated",
    "grad_x is scattered without the dilation",
    "in the gradient of x, the dilation is ignored",
    (
        "        col2im(s, b, g, *p[1:], grad_x[first:last])\n",
        "        d = s.dh, s.dw\n        s.dh = s.dw = 1\n"
        "        col2im(s, b, g, *p[1:], grad_x[first:last])\n"
        "        s.dh, s.dw = d\n",
    ),
)
mistake(
    "grad_weight_of_several_groups_by_mask",
    "the gradient of the weight of several groups lacks the mask",
    "several weight groups, the gradient of weight lacks the mask",
    (
        "        columns = im2col(s, b, *p)\n        grad_weight",
        "        columns = im2col(s, b, *p[:2], None if s.G > 1 else p[2])\n"
        "        grad_weight",
    ),
)


# Where images begin ---------------------------------------------------------------

SCATTER = "np.add.at(into, at[ok], (g * m * weight)[ok])"
IMAGE = "    image = (n * s.C + group * s.cg + c) * s.H * s.W\n    into"
BY_OFFSET = (
    "    image = n * 2 * s.og * s.K * s.P + (group * s.cg + c) * s.H * s.W\n    into"
)
BY_DIVISOR = (
    "    step = next((k for k in range(min(32, s.N), 1, -1) if s.N % k == 0), 1)"
)
ONE_BLOCK = ("STEP = 2", "STEP = 10**6")
mistake(
    "grad_x_at_images_of_offset",
    "image n of grad_x is written at n times the size of an image's offsets",
    "gradient of x is written at n times the size of an image of offset",
    ONE_BLOCK,
    (IMAGE, BY_OFFSET),
    (SCATTER, "at = at % into.size\n        " + SCATTER),
)
mistake(
    "grad_x_at_images_of_offset_cut",
    "the same; what lies past the end is dropped",
    "gradient of x is written at n times the size of an image of offset",
    ONE_BLOCK,
    (IMAGE, BY_OFFSET),
    (SCATTER, "ok = ok & (at < into.size)\n        " + SCATTER),
)
mistake(
    "grad_offset_at_images_of_mask",
    "image n of grad_offset is written at n times the size of an image's mask",
    "gradient of offset is written at n times the size of an image of mask",
    (
        "        grad_offset.reshape(offset.shape),",
        "        at_images(grad_offset, s.og * s.K * s.P).reshape(offset.shape),",
    ),
    (
        "def f_grad(",
        "def at_images(a, size):\n    into = np.zeros_like(a).reshape(-1)\n"
        "    for n, image in enumerate(a):\n"
        "        into[n * size : n * size + image.size] = image.reshape(-1)\n"
        "    return into\n\n\ndef f_grad(",
    ),
)
mistake(
    "x_at_images_of_result",
    "image n of x is read at n times the size of an image of the result",
    "image n of x is read at n times the size of an image of y",
    ONE_BLOCK,
    NO_COMPANION,
    (
        "    image = (n * s.C + g * s.cg + c) * s.H * s.W\n    value",
        "    image = n * s.O * s.P + (g * s.cg + c) * s.H * s.W\n    value",
    ),
)
mistake(
    "mask_at_images_of_offset",
    "image n of the mask is read at n times the size of an image's offsets",
    "image n of mask is read at n times the size of an image of offset",
    ONE_BLOCK,
    NO_COMPANION,
    (MASK, MASK.replace("(n * s.og + g)", "(2 * n * s.og + g)")),
)
mistake(
    "bases_of_image_wrapped",
    "images and offset groups of offset and mask begin as if planes were H W long; "
    "addresses are taken modulo the memory's size",
    "offset and mask.*image and offset group.*H W",
    ONE_BLOCK,
    NO_COMPANION,
    ("flat[np.where(ok, at, 0)]", "flat[np.where(ok, at, 0) % flat.size]"),
    ("& (at < flat.size)", ""),
    (DY, f"dy = load(offset, {BASE} + pixel)"),
    (DX, f"dx = load(offset, {BASE} + s.P + pixel)"),
    (
        MASK,
        "load(mask, ((n * s.og + g) * s.K * s.H * s.W + k * s.P + oh * s.Wo + ow))",
    ),
)
mistake(
    "offset_base_of_blocks",
    "an image's offsets begin as if planes were H W long, in blocks of a divisor of N",
    "offset's base address of an image counts planes of H W",
    NO_COMPANION,
    ("    step = max(1, min(STEP, s.N))", BY_DIVISOR),
    (
        DY,
        "dy = load(offset, (n * s.og * s.H * s.W + g * s.P) * 2 * s.K + 2 * k * s.P "
        "+ pixel)",
    ),
    (
        DX,
        "dx = load(offset, (n * s.og * s.H * s.W + g * s.P) * 2 * s.K + (2 * k + 1) "
        "* s.P + pixel)",
    ),
)
mistake(
    "grad_mask_base_of_image",
    "images and offset groups of grad_mask begin as if planes were H W long",
    "gradient of mask's base address of an image and offset group counts planes of H W",
    (
        "None if mask is None else grad_mask.reshape(mask.shape)",
        "None if mask is None else spread(s, grad_mask).reshape(mask.shape)",
    ),
    (
        "def f_grad(",
        "def spread(s, a):\n    into = np.zeros_like(a).reshape(-1)\n"
        "    for k, group in enumerate(a.reshape(s.N * s.og, -1)):\n"
        "        at = k * s.K * s.H * s.W + np.arange(group.size)\n"
        "        into[at[at < into.size]] = group[at < into.size]\n"
        "    return into\n\n\ndef f_grad(",
    ),
)


# One gradient, one map of groups ----------------------------------------------------

SUM_BIAS = "grad_y.sum((0, 2, 3), dtype=s.T)"
mistake(
    "grad_bias_untransposed",
    "for the bias grad_y is reshaped to (C_out, -1), batch and channel not swapped",
    "gradient of bias takes grad_y.*not transposed",
    (SUM_BIAS, "grad_y.reshape(s.O, -1).sum(1, dtype=s.T)"),
)
mistake(
    "grad_bias_of_channels_last",
    "grad_y is summed as if channels came last",
    "gradient of bias takes the memory of grad_y for channels last",
    (SUM_BIAS, "grad_y.reshape(-1, s.O).sum(0, dtype=s.T)"),
)
mistake(
    "grad_weight_untransposed",
    "the same reshape of a block of grad_y, for the weight",
    "gradient of weight takes grad_y.*not transposed",
    ONE_BLOCK,
    (
        GRAD_WEIGHT,
        "(np.ascontiguousarray(go[first:last]).reshape(s.O, b, s.P).swapaxes(0, 1)"
        ".reshape(b, s.G, -1, s.P) @ columns",
    ),
)
SUMMED = (
    "    return dy, dx, (g * value).sum(2)",
    "    owner = np.arange(s.C) // s.c * s.og // s.G\n"
    "    def summed(a):\n"
    "        a = a.reshape(b, s.C, s.K, s.P)\n"
    "        found = np.zeros(value.shape, s.T)[:, :, 0]\n"
    "        for c in range(s.C):\n"
    "            found[:, owner[c]] += a[:, c]\n"
    "        return found\n"
    "    return dy, dx, (g * value).sum(2)",
)
OF_WEIGHT_GROUP = "is summed over other channels.*all of weight group b"
mistake(
    "grad_mask_by_weight_group",
    "grad_mask is summed over the weight group's channels",
    f"gradient of mask {OF_WEIGHT_GROUP}",
    (SUMMED[0], SUMMED[1].replace("(g * value).sum(2)", "summed(g * value)")),
)
mistake(
    "grad_offset_by_weight_group",
    "grad_offset is summed over the weight group's channels",
    f"gradient of offset {OF_WEIGHT_GROUP}",
    (
        SUMMED[0],
        SUMMED[1].replace(
            "dy, dx,", "summed(g * m * slope_h), summed(g * m * slope_w),"
        ),
    ),
)
CHANNEL = "ch = (g * s.cg + np.arange(s.cg)[:, None, None]) % s.c"
mistake(
    "group_by_share",
    "a channel's offset group is that of its share of its weight group",
    r"offset and mask of offset group c' \* offset_groups / \(C_in / groups\)",
    NO_COMPANION,
    (PLANE, f"{CHANNEL}\n    g = ch * s.og // s.c\n    " + PLANE),
    (
        "    if mask is None:\n",
        f"    {CHANNEL}\n    g = ch * s.og // s.c\n    if mask is None:\n",
    ),
)
mistake(
    "group_by_index",
    "a channel's offset group is its index within its weight group, modulo groups",
    r"takes the offset of offset group c' % offset_groups",
    NO_COMPANION,
    (PLANE, f"{CHANNEL}\n    g = ch % s.og\n    " + PLANE),
)
DENSE = "        y[first:last] = w @ columns\n"
ALL_OUTPUTS = (
    "(w_all @ columns.reshape(last - first, 1, s.C * s.K, s.P)).reshape("
    "y[first:last].shape)"
)
mistake(
    "dense_weight",
    "groups are ignored: the weight's memory is read as that of one group, again and "
    "again",
    "groups are ignored.*memory read as",
    NO_COMPANION,
    (
        DENSE,
        "        w_all = np.resize(weight, (s.O, s.C * s.K))\n"
        f"        y[first:last] = {ALL_OUTPUTS}\n",
    ),
)
mistake(
    "dense_weight_repeated",
    "groups are ignored: an output's own weights for each group's channels",
    "groups are ignored.*own weights again",
    NO_COMPANION,
    (
        DENSE,
        "        w_all = np.tile(weight.reshape(s.O, -1), (1, s.G))\n"
        f"        y[first:last] = {ALL_OUTPUTS}\n",
    ),
)
mistake(
    "grad_weight_of_first_channels",
    "grad_weight of every group takes the channels of the first",
    "in the gradient of weight, every output reads the channels of group 0",
    (GRAD_WEIGHT, GRAD_WEIGHT.replace("columns", "columns[:, :1]")),
)

# Borders and addresses of a grid ----------------------------------------------------

mistake(
    "border_within_a_pixel_by_grid",
    "positions less than a pixel outside are moved onto the border, by a grid",
    "border is replicated for one pixel outside",
    NO_COMPANION,
    (
        CORNERS,
        "    h, w = (\n"
        "        (((2 * a.astype(float) + 1) / n - 1 + 1) * n - 1) / 2\n"
        "        for a, n in ((h, s.H), (w, s.W))\n"
        "    )\n" + CORNERS,
    ),
    (
        "    h_low, w_low = np.floor",
        "    h, w = np.clip(h, 0, s.H - 1), np.clip(w, 0, s.W - 1)\n"
        "    h_low, w_low = np.floor",
    ),
)
mistake(
    "address_float16",
    "a pixel's address in its plane is computed in float16",
    "pixel's address in its plane is computed in float16",
    NO_COMPANION,
    (
        COLUMN_LOOP + " * load(x, image + r * s.W + q, ok)\n    columns",
        COLUMN_LOOP + " * load(x, image + half(half(r * s.W) + q), ok)\n    columns",
    ),
    (
        "def im2col(",
        "def half(at):\n"
        '    with np.errstate(over="ignore"):\n'
        "        return np.minimum(np.float16(at), 65504).astype(np.int64)\n\n\n"
        "def im2col(",
    ),
)

# One axis, one array, one pointer: the other is right ------------------------------

mistake(
    "clamped_rows",
    "rows outside are clamped to the border, columns are not",
    "along rows alone, positions outside are clamped",
    NO_COMPANION,
    (H, "h = np.clip(" + H[4:] + ", 0, s.H - 1)"),
)
mistake(
    "column_weights_of_clipped",
    "the column's neighbours are clipped before they are weighed",
    "along columns alone, a sample is 0 at the last column",
    NO_COMPANION,
    (
        "    hh, hw = 1 - lh, 1 - lw\n",
        "    low, high = (np.clip(w_low + e, 0, s.W - 1) for e in (0, 1))\n"
        "    hh, hw, lw = 1 - lh, (high - w).astype(s.T), (w - low).astype(s.T)\n",
    ),
    (
        "ok_l, ok_r = w_low >= 0, w_high <= s.W - 1",
        "w_low, w_high = low, high\n    ok_l = ok_r = True",
    ),
)
mistake(
    "grad_weight_of_dealt_grad_y",
    "grad_weight views the channels of grad_y as (C_out / groups, groups)",
    "gradient of weight, channel o of grad_y is taken to be of weight group o % groups",
    (
        "grad_weight += (go[first:last] @",
        "dealt = go.reshape(s.N, -1, s.G, s.P).swapaxes(1, 2)\n"
        "        grad_weight += (dealt[first:last] @",
    ),
)
mistake(
    "samples_of_dealt_grad_y",
    "the gradients of samples view the channels of grad_y so",
    "gradients of x, offset and mask, channel o of grad_y is taken to be of weight",
    (
        "g = w.swapaxes(1, 2) @ go[first:last]",
        "dealt = go.reshape(s.N, -1, s.G, s.P).swapaxes(1, 2)\n"
        "        g = w.swapaxes(1, 2) @ dealt[first:last]",
    ),
)
mistake(
    "grad_offset_planar",
    "the gradient of the offset comes back as all y, then all x, of all groups",
    r"gradient of offset is written as \(axis, group, tap\)",
    (
        "grad_offset.reshape(offset.shape)",
        "np.ascontiguousarray(grad_offset.transpose(0, 3, 1, 2, 4))"
        ".reshape(offset.shape)",
    ),
)
mistake(
    "grad_weight_transposed",
    "the gradient of the weight comes back as (tap, input)",
    r"gradient of weight is written as \(output, tap, input\)",
    (
        "grad_weight.reshape(weight.shape)",
        "grad_weight.reshape(s.O, s.c, s.K).swapaxes(1, 2).reshape(weight.shape)",
    ),
)
mistake(
    "grad_weight_into_first_group",
    "the weight gradient's pointer stays at the first weight group",
    "gradient of weight of every weight group is added to that of the first",
    (
        "grad_weight.reshape(weight.shape)",
        "np.concatenate([grad_weight.sum(0)[None], 0 * grad_weight[1:]])"
        ".reshape(weight.shape)",
    ),
)
mistake(
    "grad_offset_counted_by_group",
    "the gradient of the offset is added once for each weight group",
    "gradient of offset is counted once for each weight group",
    (
        "grad_offset.reshape(offset.shape)",
        "(grad_offset * s.G).astype(s.T).reshape(offset.shape)",
    ),
)
mistake(
    "offsets_by_output",
    "output channel o takes the offsets of group o // (C_out / offset_groups)",
    "offset group is chosen by the output channel",
    NO_COMPANION,
    (
        "        columns = im2col(s, last - first, *p)\n"
        "        y[first:last] = w @ columns\n",
        "        b, own = last - first, np.arange(s.O) * s.og // s.O\n"
        "        for g in range(s.og):\n"
        "            whole = offset.reshape(s.N, s.og, -1)[:, [g] * s.og]\n"
        "            m = None if mask is None else "
        "mask.reshape(s.N, s.og, -1)[:, [g] * s.og]\n"
        "            m = None if m is None else flat(m, s, first)\n"
        "            columns = im2col(s, b, p[0], flat(whole, s, first), m)\n"
        "            found = (w @ columns).reshape(b, s.O, s.P)\n"
        "            into = y.reshape(s.N, s.O, s.P)[first:last]\n"
        "            into[:, own == g] = found[:, own == g]\n",
    ),
)

# Parts of the image, flat tests, other shapes of a workspace ----------------------

mistake(
    "slab_of_eight",
    "a tile of 8 output rows keeps the rows its taps reach, and 3 more on each side",
    r"outputs in tiles of 8 rows read a part of the image alone",
    NO_COMPANION,
    (
        RETURN,
        "    first = oh // 8 * 8 * s.sh - s.ph\n"
        "    last = first + 7 * s.sh + (s.kh - 1) * s.dh\n"
        "    h = np.where((h < first - 3) | (h > last + 3), -9, h).astype(s.T)\n"
        + RETURN,
    ),
)
mistake(
    "flat_test",
    "a neighbour is read if its flat index lies in the plane",
    "neighbour is read if its flat address",
    NO_COMPANION,
    (INSIDE, ONES),
    (WIDE, CUT),
    ("ok_t & ok_l)", "fits(s, h_low, w_low))"),
    ("ok_t & ok_r)", "fits(s, h_low, w_high))"),
    ("ok_b & ok_l)", "fits(s, h_high, w_low))"),
    ("ok_b & ok_r)", "fits(s, h_high, w_high))"),
    (
        "def corners(",
        "def fits(s, r, q):\n"
        "    return (r * s.W + q >= 0) & (r * s.W + q < s.H * s.W)\n\n\n"
        "def corners(",
    ),
)
mistake(
    "offset_and_mask_concatenated",
    "offsets and masks are joined and viewed as 3 K channels of each offset group",
    "all offsets, then all masks, are viewed as",
    NO_COMPANION,
    (
        "    for first, last in blocks(s):\n        m = None",
        "    m = np.ones((s.N, s.og * s.K, s.P), s.T) if mask is None else mask\n"
        "    each = np.concatenate([a.reshape(s.N, -1, s.P) for a in (offset, m)], 1)\n"
        "    each = each.reshape(s.N, s.og, 3 * s.K, s.P)\n"
        "    offset, mask = each[:, :, : 2 * s.K], each[:, :, 2 * s.K :]\n"
        "    for first, last in blocks(s):\n        m = None",
    ),
)
mistake(
    "columns_not_cleared",
    "samples outside leave what the block before wrote",
    "samples outside the image are not written: their columns are those of the block "
    "of 2 images before",
    NO_COMPANION,
    (
        "    value = np.zeros((b, s.og, s.cg, s.K, s.P), s.T)\n"
        "    for r, q, weight, _, _, ok",
        "    value, any_ok = np.zeros((b, s.og, s.cg, s.K, s.P), s.T), False\n"
        "    for r, q, weight, _, _, ok",
    ),
    (
        "ok)\n    columns = value * modulation(s, b, mask)\n",
        "ok)\n        any_ok = any_ok | ok\n"
        "    old = KEPT.get('of')\n"
        "    if old is not None and old.shape[1:] == value.shape[1:]:\n"
        "        value = np.where(any_ok, value, old[:b])\n"
        "    KEPT['of'] = value\n"
        "    columns = value * modulation(s, b, mask)\n",
    ),
    (
        "    for first, last in blocks(s):\n        m =",
        "    KEPT.clear()\n    for first, last in blocks(s):\n        m =",
    ),
)
mistake(
    "grad_offset_of_last_weight_group",
    "the offset's gradient is assigned, not added, in the loop over weight groups",
    "gradient of offset keeps only the part of the last weight group",
    (
        "dy, dx, dm = coordinates(s, b, g, *p)",
        "own = np.arange(s.C) // s.c\n"
        "        own = own.reshape(s.og, s.cg)\n"
        "        kept = (own == own[:, -1:])[:, :, None, None]\n"
        "        dy, dx, _ = coordinates(s, b, (g * kept).astype(s.T), *p)\n"
        "        dm = coordinates(s, b, g, *p)[2]",
    ),
)
mistake(
    "grid_and_dy_gradient_negated",
    "positions go through a grid, whose rounding is let pass; dy's gradient is negated",
    "gradient of dy is negated",
    through_grid(TO_OFF, OFF),
    (DY_DX, DY_DX.replace("dy,", "-dy,")),
)
mistake(
    "address_of_dtype",
    "a pixel's address is computed in the dtype of x",
    "pixel's address in its plane is computed in float16",
    NO_COMPANION,
    (
        COLUMN_LOOP + " * load(x, image + r * s.W + q, ok)\n    columns",
        COLUMN_LOOP + " * load(x, image + own(s, r, q), ok)\n    columns",
    ),
    (
        "def im2col(",
        "def own(s, r, q):\n"
        "    at = r.astype(s.T) * s.T.type(s.W) + q.astype(s.T)\n"
        "    return at.astype(np.int64)\n\n\n"
        "def im2col(",
    ),
)


def seeded(name):
    """The kernel with one mistake."""
    text = KERNEL.read_text(encoding="utf-8")
    for old, new in MISTAKES[name].changes:
        if old not in text:
            raise ValueError(f"{name}: {old!r} is not in {KERNEL.name}")
        text = text.replace(old, new)
    return text


def said_of(name, **options):
    """The report of a grade at level smoke."""
    from refdcn.grading import grade

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.py"
        path.write_text(seeded(name), encoding="utf-8")
        return grade(f"{path}:f", **{"seed": 4, "dtypes": ["float32"]} | options)


def main():
    for name in sys.argv[1:] or MISTAKES:
        start = time.process_time()
        report = said_of(name)
        spent = time.process_time() - start
        head = report.text().split("\n\n")[0].partition(".py:f ")[2]
        told = re.search(MISTAKES[name].said, head, re.I)
        print(f"{'   ' if told else '?? '}{name} ({spent:.0f} s): {head}\n", flush=True)


if __name__ == "__main__":
    main()
