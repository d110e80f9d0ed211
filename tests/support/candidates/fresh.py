"""Mistakes that are in no list of the grader, as edits of its operator.

They were written to be caught and described by what the probes recover; the
catalogue must not hold them.
"""

import numpy as np

from refdcn.grading.catalogue.steps import hat


def paired_columns(s):
    """Neighbouring output columns exchange their offsets."""
    n = s.out[1] // 2 * 2
    order = np.arange(s.out[1])
    order[:n] = order[:n] ^ 1
    s.dp = s.dp[..., order]


def next_group_mask(s):
    """Offset group g takes the mask of group g + 1."""
    s.m = np.roll(s.m, -1, 1)


def eighths(s):
    """Positions are rounded to eighths of a pixel."""
    s.qy, s.qx = np.round(s.qy * 8) / 8, np.round(s.qx * 8) / 8


def columns_reflected(s):
    """Columns beyond the right border are reflected."""
    high = s.z.W - 1
    s.qx = np.where(s.qx > high, 2 * high - s.qx, s.qx)


def sizes_exchanged(s):
    """The border check compares rows with W and columns with H."""
    s.keep = s.keep * (s.qy < s.z.W) * (s.qx < s.z.H)


def half_batch(s):
    """Image n uses the offsets of image n // 2."""
    s.dp = s.dp[np.arange(s.z.N) // 2]


def channel_pairs(s):
    """Input channels are exchanged in pairs."""
    n = s.col.shape[2] // 2 * 2
    order = np.arange(s.col.shape[2])
    order[:n] = order[:n] ^ 1
    s.col = s.col[:, :, order]


def fast_path(s):
    """Kernels of three rows ignore the dilation of rows."""
    if s.z.K_h == 3:
        i = np.arange(s.K) // s.z.K_w
        s.by = s.by - (s.z.dilation[0] - 1) * i[:, None, None]


def four_pixels(s):
    """Offsets stop at four pixels."""
    s.dp = np.clip(s.dp, -4, 4)


def tiles_of_four(s):
    """Every tile of four output columns uses its first column's offsets."""
    s.dp = s.dp[..., np.arange(s.out[1]) // 4 * 4]


def last_row_repeated(s):
    """The last output row repeats the one before it."""
    if s.out[0] > 1:
        s.y[:, :, -1] = s.y[:, :, -2]


def groups_summed(s):
    """Every group's outputs hold the sum of all groups."""
    y = s.y.reshape(s.z.N, s.z.groups, -1 if s.y.size else 1, *s.out)
    y = np.repeat(y.sum(1, keepdims=True), s.z.groups, 1)
    s.y = y.reshape(s.y.shape)


def offset_drift(s):
    """Offsets are one per cent too long."""
    s.dp = 1.01 * s.dp


def odd_taps_dropped(s):
    """Odd taps are skipped where the mask is negative."""
    odd = (np.arange(s.K) % 2 == 1)[:, None, None]
    s.m = np.where(odd & (s.m < 0), 0, s.m)


def dy_leaks(s):
    """A tenth of dy is added to dx."""
    s.dp = s.dp + np.stack([0 * s.dp[:, :, :, 0], s.dp[:, :, :, 0] / 10], 3)


def tent_too_wide(s):
    """The interpolation reaches one and a half pixels, normalised."""
    for t, q, n in (("ty", s.qy, s.z.H), ("tx", s.qx, s.z.W)):
        wide = np.maximum(0, 1.5 - abs(q[..., None] - np.arange(n))) / 2.25
        setattr(s, t, wide)


def bias_by_mask(s):
    """The bias is multiplied by the mean mask."""
    s.b = s.b * s.m.mean() if s.m.size else s.b


def last_row_lacks_channel(s):
    """The last output row lacks the last channel."""
    lost = s.col.copy()
    lost[:, :, -1, :, -1] = 0
    s.col = lost


def squared_corner(s):
    """The upper corner of rows is weighted by the square of its fraction."""
    low = np.floor(s.qy)[..., None]
    t = s.qy[..., None] - low
    r = np.arange(s.z.H)
    s.ty = (r == low) * (1 - t) + (r == low + 1) * t * t


def weights_of_first_group(s):
    """Every group uses the weights of the first."""
    s.w = np.repeat(s.w[:1], s.z.groups, 0)


def grad_x_floor_row(s):
    """d x goes to the upper row only, along columns rightly."""
    ty = hat(np.floor(s.qy), s.z.H)[0]
    g = s.g * s.m[:, :, None]
    s.grads["x"] = np.einsum("ngckuv,ngkuvh,ngkuvw->ngchw", g, ty, s.tx, optimize=True)


def grad_offset_last_column(s):
    """d offset is not written in the last output column."""
    s.grads["offset"][..., -1] = 0


def grad_weight_half(s):
    """d weight counts the first image half."""
    half = np.einsum("nbouv,nbckuv->bock", s.go[:1], s.col[:1]) / 2
    s.grads["weight"] = s.grads["weight"] - half


def grad_mask_rows(s):
    """d mask samples at the rounded row."""
    s.ty = hat(np.round(s.qy), s.z.H)[0]
    S = np.einsum("ngchw,ngkuvh,ngkuvw->ngckuv", s.x, s.ty, s.tx, optimize=True)
    s.grads["mask"] = (s.g * S).sum(2)


def grad_offset_by_mask_sum(s):
    """d offset is multiplied by the absolute mask instead of the mask."""
    sign = np.sign(s.m)[:, :, :, None]
    s.grads["offset"] = s.grads["offset"] * sign


STEP = {
    "read": [
        paired_columns,
        next_group_mask,
        half_batch,
        four_pixels,
        tiles_of_four,
        offset_drift,
        odd_taps_dropped,
        dy_leaks,
        bias_by_mask,
        weights_of_first_group,
    ],
    "grid": [fast_path],
    "position": [eighths, columns_reflected],
    "kernel": [sizes_exchanged, tent_too_wide, squared_corner],
    "columns": [channel_pairs, last_row_lacks_channel],
    "finish": [last_row_repeated, groups_summed],
    "backward": [
        grad_x_floor_row,
        grad_offset_last_column,
        grad_weight_half,
        grad_mask_rows,
        grad_offset_by_mask_sum,
    ],
}
FRESH = [(step, edit) for step, edits in STEP.items() for edit in edits]
