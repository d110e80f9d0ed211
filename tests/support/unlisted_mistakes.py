"""Mistakes that no list of the grader holds, each as a change of one right kernel.

They were written before the diagnosis was read, and only test it: nothing that
diagnoses may import them. Each has a truth (what is wrong, and where it shows), the
lines it replaces in candidates/unlisted.py, and, as regular expressions, what a report
must say: in a rule, `where` it shows (left out if it is everywhere or no matter of
places), and in its other `words` the cause, as the writer would need it.

    python tests/support/unlisted_mistakes.py               all, and twenty pairs
    python tests/support/unlisted_mistakes.py NAME ... --level full --dtype float32

prints a line for each, and how many were caught, located and described. It counts
what the expressions match, so read what was said, too.
"""

import argparse
import random
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

KERNEL = Path(__file__).parent / "candidates" / "unlisted.py"


class Mistake(NamedTuple):
    """One entry of TEXT; `changes` are pairs of old and new lines."""

    name: str
    kind: str
    truth: str
    where: str | None
    words: str
    changes: tuple[tuple[str, str], ...]


TEXT = r'''
## packed_nine_bits (forward)
pixel packed as row << 9 | column: columns from 512 on run into the row; only where W
> 512
where: \bW\b|column|ow >=
words: column.*(5\d\d|row)|reads .*row
-    return ok[s.tap], np.where(ok, y * s.W + x, 0)[s.tap]
+    p = np.where(ok, y * 512 | x, 0)[s.tap]
+    return ok[s.tap], np.minimum((p >> 9) * s.W + (p & 511), s.H * s.W - 1)

## magic_division (forward)
pix // W_out by a 16-bit reciprocal: one row too far for late pixels of large outputs
whose W_out is no power of two
where: H_out W_out|oh W_out \+ ow|pixel|oh|H_out
words: row|W_out|reads.*next
-    u, v = pix // s.W_out, pix % s.W_out
+    u = pix * (65535 // s.W_out + 1) >> 16
+    v = pix - u * s.W_out

## tail_tile_adds (forward)
the last tile is moved back to be full and adds to y: outputs in the overlap double,
where P > 64 and P % 64 != 0
where: H_out W_out|oh W_out \+ ow|pixel|beyond the last multiple
words: 2 times|twice|doubl
-        for first in range(0, s.P, TILE):
+        for first in range(0, s.P, TILE):
+            first = max(0, min(first, s.P - TILE))
-        y[n][:, pix] = product(s, col) + s.bias[:, None]
+        y[n][:, pix] += product(s, col) + s.bias[:, None]

## offset_pitch_four (forward)
offsets are read with a row pitch of W_out rounded up to 4: rows after the first read
others' offsets, where W_out % 4 != 0
where: W_out (is no multiple|mod)|oh > 0|oh is not the first
words: offset.*(is read|reads|is read from)
-    dp = s.dp[n][:, :, pix]
+    at = u * ((s.W_out + 3) // 4 * 4) + v
+    dp = s.dp[n][:, :, np.minimum(at, s.P - 1)]

## nine_mask_slots (forward)
nine slots for the mask of a pixel: tap k reads slot k % 9 of its group, kernels of
more than 9 taps only
where: K_h K_w|tap >=
words: mask.*(tap|channel).*(read as|reads|acts as)
-        dm = s.dm[n][:, pix][s.tap]
+        dm = s.dm[n][:, pix][s.tap // s.K * s.K + s.tap % s.K % 9]

## group_of_four_lanes (forward)
channels in vectors of four, the vector's first channel chooses the offset group:
wrong where C_in / offset_groups % 4 != 0 and offset_groups > 1
where: offset_groups|offset group
words: offset group.*(is always|is read|reads|as)
-    s.tap = s.channel[..., 0] // (s.C_in // s.og) * s.K + np.arange(s.K)
+    s.tap = s.channel[..., 0] // 4 * 4 // (s.C_in // s.og) * s.K
+    s.tap = s.tap + np.arange(s.K)

## group_of_output_tile (forward)
tiles of 8 output channels, all use the columns of the first one's group: wrong where
groups > 1 and C_out / groups % 8 != 0
where: groups|output channel's group
words: (weight|x|group|channel).*(read as|is always|group \d)
-            acc[o] += s.w[o, k] @ part[k]
+            for c in range(o.start, o.stop):
+                b8 = c // 8 * 8 // s.per_group
+                part = col[b8 * rows : (b8 + 1) * rows]
+                acc[c] += s.w[c, k] @ part[k]

## clamp_to_padded (forward)
x is thought padded, positions are clamped to [-padding, size - 1 + padding]: the
border repeats outside where that axis has no padding
where: padding|outside|border|beyond
words: (row|column) -?\d.*reads|repeat|replicat
-    q_x = np.tile(base_x, (s.og, 1)).astype(s.T) + dp[:, 1]
+    q_x = np.tile(base_x, (s.og, 1)).astype(s.T) + dp[:, 1]
+    q_y = np.clip(q_y, -s.padding[0], s.H - 1 + s.padding[0])
+    q_x = np.clip(q_x, -s.padding[1], s.W - 1 + s.padding[1])

## pointwise_no_padding (forward)
1x1 kernels take a path of their own that forgets the padding
where: K_h K_w = 1|K_h = 1|1x1|padding
words: the definition is|padding
-    base_y = s.stride[0] * u - s.padding[0] + s.dilation[0] * i
-    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    pad = (0, 0) if s.K == 1 else s.padding
+    base_y = s.stride[0] * u - pad[0] + s.dilation[0] * i
+    base_x = s.stride[1] * v - pad[1] + s.dilation[1] * j

## same_padding_assumed (forward)
a converter reads any padding > 0 as `same`: dilation * (K - 1) // 2; wrong where the
padding is another, not zero
where: padding|K_|dilation|definition is
words: definition is|padding
-    base_y = s.stride[0] * u - s.padding[0] + s.dilation[0] * i
-    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    pad = [p and d * (e - 1) // 2 for p, d, e in zip(
+        s.padding, s.dilation, (s.K_h, s.K_w), strict=True)]
+    base_y = s.stride[0] * u - pad[0] + s.dilation[0] * i
+    base_x = s.stride[1] * v - pad[1] + s.dilation[1] * j

## one_row_is_a_line (forward)
images of one row are sampled along x alone: the tent in y is dropped for -1 < q_y <
1, H = 1 only
where: \bH = 1
words: row.*(reads|dy)|dy.*(acts as|without effect|no effect)
-    f_y, f_x = q_y - r_y, q_x - r_x
+    f_y, f_x = q_y - r_y, q_x - r_x
+    if s.H == 1:
+        r_y, f_y = 0 * r_y, 0 * f_y

## even_kernel_centre (forward)
taps are counted from the kernel's centre, which even K_w rounds the other way: even
widths sample one dilation too far left
where: K_w.*(even|2|4)|definition is
words: definition is
-    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    centre = (s.K_w - 1) // 2
+    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * centre
+    base_x = base_x + s.dilation[1] * (j - s.K_w // 2)

## int8_base (forward)
the base column is kept in int8: bases over 127 wrap to negative
where: ow >=|\bW\b|W_out|column|H_out
words: column.*(reads|definition)|reads nothing
-    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    base_x = base_x.astype(np.int8).astype(np.int64)

## offset_saturates (forward)
offsets in fixed point saturate at +-15.9: farther ones land short
where: offset is above|\|d[yx]\|
words: offset.*(acts as|as 15\.9|-15\.9|saturat|clip)
-    dp = s.dp[n][:, :, pix]
+    dp = s.dp[n][:, :, pix]
+    dp = np.clip(dp, -15.9, 15.9).astype(s.T)

## small_mask_skipped (forward)
taps with |mask| < 1/16 are skipped as negligible
where: mask|\|m\|
words: 0\.0\d+ (as|acts as) (0|nothing)(,|;|\.?$)|mask.*near 0
-        dm = s.dm[n][:, pix][s.tap]
+        dm = s.dm[n][:, pix][s.tap]
+        dm = np.where(abs(dm) < 0.0625, 0, dm)

## bias_every_block (forward)
split sum: each block of 48 rows adds the bias; wrong where C * K > 48
where: K_h K_w C_in|C_in / groups|bias
words: bias.*(times|acts as|as)
-        y[n][:, pix] = product(s, col) + s.bias[:, None]
+        parts = -(-s.C * s.K // DEPTH)
+        y[n][:, pix] = product(s, col) + parts * s.bias[:, None]

## warp_votes_by_first (forward)
runs of 32 pixels skip a tap if the run's first sample lies outside
where: pixel|ow|oh W_out
words: (another|neighbour|other) (output|pixel|element)|depends on|together
-    edge = (-1 <= q_y) & (q_y < s.H) & (-1 <= q_x) & (q_x < s.W)
+    edge = (-1 <= q_y) & (q_y < s.H) & (-1 <= q_x) & (q_x < s.W)
+    live = live & np.repeat(live[:, ::32], 32, 1)[:, : live.shape[1]]

## chunk_offsets_by_one (forward)
chunks of two images, but the offset pointer advances one image a chunk: image n uses
offsets of n // 2 + n % 2 (image 2 and later)
where: \bn >= ?[12]|\bn > ?[01]|N >
words: offset.*image|image.*read as
-    dp = s.dp[n][:, :, pix]
+    dp = s.dp[n // 2 + n % 2][:, :, pix]

## lane_tail_dropped (forward)
channels in vectors of four without a remainder loop: with C > 4 the last C % 4
channels of the sum are dropped
where: C_in / groups|\bc >= 4|channel
words: channel.*(lack|no effect|ignored|unread|nothing|does not enter)
-        part = col[b * rows : (b + 1) * rows]
+        part = col[b * rows : (b + 1) * rows].copy()
+        if s.C > 4:
+            part[s.C // 4 * 4 * s.K :] = 0

## pair_load_at_right (forward)
the pixels of a row are loaded in pairs, at the last column one to the left: there
the column before it is read in its place
where: column 6|right border|last
words: column 6 of 7 reads.*x\[5\]
-    y, x = cell.r_y + a, cell.r_x + b
+    y, x = cell.r_y + a, cell.r_x + b
+    x = np.where((cell.r_x == s.W - 1) & (b == 0) & (s.W > 1), s.W - 2, x)

## dilation_of_rows_wins (forward)
one dilation register, taken from the rows unless that is 1: wrong columns where both
are > 1 and differ
where: dilation|definition is
words: definition is|dilation
-    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    d_x = s.dilation[0] if s.dilation[0] > 1 else s.dilation[1]
+    base_x = s.stride[1] * v - s.padding[1] + d_x * j

## last_row_one_tile_late (forward)
double buffer without a wait: from the second tile on, the last channel's last tap is
that of the tile before
where: H_out W_out|oh W_out \+ ow|pixel
words: channel.*(last|tap)|tap.*(last|of channel)|earlier pixel|other output
-        col = (xq * dm).reshape(s.C_in * s.K, len(pix))
+        col = (xq * dm).reshape(s.C_in * s.K, len(pix))
+        now = col[-1].copy()
+        if pix[0] > 0:
+            col[-1] = last[: len(pix)]
+        last = now

## grid_capped (forward)
the grid is capped at 32 tiles an image and nothing strides over it: outputs from
pixel 2048 on stay 0
where: H_out W_out|oh W_out \+ ow|pixel|>=
words: (y|output).*\b0\b|zero|nothing
-        for first in range(0, s.P, TILE):
+        for first in range(0, min(s.P, 2048), TILE):

## bias_in_float32 (forward)
the bias alone is float32 also for float64
where: float64|bias
words: bias.*float32|bias
-    s.bias = np.zeros(s.C_out, T) if bias is None else bias.astype(T)
+    s.bias = np.zeros(s.C_out, T)
+    if bias is not None:
+        s.bias = bias.astype(np.float32).astype(T)

## memory_order (forward)
the weight is flattened as it lies in memory: wrong if it is not C-ordered
where: layout|contiguous|order
words: contiguous|order|layout
-    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    s.w = weight.ravel('K').astype(T).reshape(s.C_out, s.C * s.K)

## portrait_tiles (forward)
portrait outputs are traversed with the sizes exchanged: where H_out > W_out pixels
use others' base positions
where: H_out (differs|>|exceeds)|H_out|oh
words: (oh|H_out).*(ow|W_out)
-    u, v = pix // s.W_out, pix % s.W_out
+    u, v = pix // s.W_out, pix % s.W_out
+    if s.H_out > s.W_out:
+        u, v = pix % s.H_out, pix // s.H_out

## stride_capped_by_kernel (forward)
windows are thought to touch: rows advance by min(stride, K_h); wrong where the stride
exceeds the kernel
where: stride|definition is
words: definition is|stride
-    base_y = s.stride[0] * u - s.padding[0] + s.dilation[0] * i
+    base_y = min(s.stride[0], s.K_h) * u - s.padding[0] + s.dilation[0] * i

## depth_multiplier (forward)
depthwise path: output o reads channel o % C_in, not o // multiplier; wrong where C =
1 and C_out > C_in > 1
where: C_in / groups = 1|C_out|groups
words: channel.*(read as|reads)|group.*(read as|reads)
-            acc[o] += s.w[o, k] @ part[k]
+            acc[o] += s.w[o, k] @ part[k]
+    if s.C == 1:
+        at = np.arange(s.C_out) % s.C_in
+        taken = col.reshape(s.C_in, s.K, -1)[at]
+        acc = np.einsum('ok,okt->ot', s.w, taken)

## mask_group_last (forward)
the mask's channels are read as (tap, offset group), the offsets' rightly as (offset
group, tap); wrong where offset_groups > 1 and K > 1
where: offset_groups|mask
words: mask.*read as
-        dm = s.dm[n][:, pix][s.tap]
+        dm = s.dm[n][:, pix][s.tap % s.K * s.og + s.tap // s.K]

## fraction_snaps (forward)
fractions under 1/64 snap to 0 to save loads
where: between pixels|fraction|column
words: fraction|x.*\.0\d.* as|q_x|column.*(snaps|acts|reads)
-    f_y, f_x = q_y - r_y, q_x - r_x
+    f_y, f_x = q_y - r_y, q_x - r_x
+    f_x = np.where(f_x < 1 / 64, 0, f_x)

## half_fractions (forward)
the fractions are stored as a pair of float16
words: fractions? .*(float16|1[01] bits)
-    f_y, f_x = q_y - r_y, q_x - r_x
+    f_y, f_x = q_y - r_y, q_x - r_x
+    f_y, f_x = (a.astype(np.float16).astype(s.T) for a in (f_y, f_x))

## corner_by_rest (forward)
the fourth tent is the rest to one, and rows outside are counted in: at the bottom row
the lower pixels' share goes to the upper right one
where: bottom|last row|h is the last|beyond
words: row 6.*reads|bottom|between 6 and 7
-    return e_y * e_x, e_y * f_x, f_y * e_x, f_y * f_x
+    bottom = (cell.r_y == s.H - 1)[s.tap]
+    top = np.where(bottom, 1 - e_y * e_x - f_y * e_x, e_y * f_x)
+    return e_y * e_x, top, f_y * e_x, f_y * f_x

## round_half_even (backward)
floor by adding 1.5 * 2^23 (round half to even of q - 1/2): the slope at odd integers
is the left one; y is right
words: odd|even|mixed
-    r_y, r_x = np.floor(q_y), np.floor(q_x)
+    r_y, r_x = np.rint(q_y - 0.5), np.rint(q_x - 0.5)

## scatter_window (backward)
grad_x is staged in a window around the tile: what moved 2 px or more in y is dropped
from grad_x
where: offset is above|\|?dy\|?|dy
words: (dy|offset).*(above|over|beyond|>)|moved
-        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))
+        near = (abs(cell.dp[:, 0]) < 2)[s.tap]
+        np.add.at(grad_x[n], (s.channel, at), np.where(ok & near, w * g, 0))

## weight_restarts (backward)
grad_weight is reset at every chunk of two images: images before the last chunk are
lost, N > 2
where: \bN\b|\bn\b|image
words: image.*(lack|not|no|only|without|lost)
-    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
-    for n, pix in tiles(s):
+    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
+    for n, pix in tiles(s):
+        if n % 2 == 0 and pix[0] == 0:
+            grads[2][:] = 0

## offset_first_weight_group (backward)
grad_offset sums only the channels of the first weight group in each offset group:
wrong where an offset group spans several
where: groups|offset group
words: channel.*(lack|not|no|only|without|lost)|group.*(lack|only)
-    grad_m[n][:, pix] = over_channels(s, g * xq)
+    grad_m[n][:, pix] = over_channels(s, g * xq)
+    per = s.C_in // s.og
+    first = s.channel // s.C == s.channel // per * per // s.C
+    d_y, d_x = d_y * first, d_x * first

## mask_by_division (backward)
grad_mask divides the stored column by the mask: 0 where the mask is 0
where: mask|m = 0
words: mask.*\b0\b
-    grad_m[n][:, pix] = over_channels(s, g * xq)
+    grad_m[n][:, pix] = over_channels(s, np.where(dm == 0, 0, g * xq))

## bias_full_tiles (backward)
grad_bias sums whole tiles of 64 pixels alone: the tail of P > 64 is lost
where: H_out W_out|oh W_out \+ ow|pixel|H_out|W_out
words: pixel.*(lack|not|no|only|without|lost)|H_out W_out
-    grads.append(gy.sum((0, 2)))
+    whole = s.P // TILE * TILE or s.P
+    grads.append(gy[..., :whole].sum((0, 2)))

## scatter_inside_only (backward)
grad_x skips samples whose cell begins at -1 in x: the first column loses part of its
gradient; y is right
where: w = 0|left border|column.*negative
words: column -0\.|left border|columns? between -1 and 0|w = 0
-        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))
+        ok = ok & (cell.r_x >= 0)[s.tap]
+        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))

## slope_times_dilation (backward)
grad_offset's dx is multiplied by the dilation
where: odd|axis = 1|dx
words: dilation
-    grad_o[n][:, 1, pix] = over_channels(s, g * dm * d_x)
+    grad_o[n][:, 1, pix] = s.dilation[1] * over_channels(s, g * dm * d_x)

## still_taps_skipped (backward)
grad_offset skips taps whose two offsets are exactly 0
where: offset is (not )?0|d[yx] is (not )?0|offset
words: offset.* 0|0 times
-    grad_m[n][:, pix] = over_channels(s, g * xq)
+    grad_m[n][:, pix] = over_channels(s, g * xq)
+    moved = (cell.dp != 0).any(1)[s.tap]
+    d_y, d_x = d_y * moved, d_x * moved

## float_atomics (backward)
grad_x of float64 is added in float32
where: grad_x|gradient of x
words: (grad_x|gradient of x|sums?).*float32|float32.*(grad_x|gradient of x|sum)
-    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
+    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
+    grads[0] = grads[0].astype(np.float32)

## stale_tail_rows (backward)
grad_weight multiplies whole tiles, a tail tile's rest is still the tile before: wrong
where P > 64 and P % 64 != 0
where: H_out W_out|oh W_out \+ ow|pixel|H_out
words: pixel.*(twice|again|2 times|more than once|counted)
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-        part = slice(b * rows, (b + 1) * rows)
+        part = slice(b * rows, (b + 1) * rows)
+        if pix[0] > 0 and t < TILE:
+            old_gy, old_col = SAVED[0]
+            grad_w[o] += old_gy[o, t:] @ old_col[part, t:].T
-    grad_o[n][:, 1, pix] = over_channels(s, g * dm * d_x)
+    grad_o[n][:, 1, pix] = over_channels(s, g * dm * d_x)
+    SAVED[0] = gy, col

## offset_grad_clipped (backward)
grad_offset is clipped to [-10, 10] for stable training
where: above 10|10|\|
words: clip|never (over|above|beyond)|saturat|at most 10|10\b.*limit|stops at
-        add_tile(s, gy[n][:, pix], n, pix, grads)
+        add_tile(s, gy[n][:, pix], n, pix, grads)
+    np.clip(grads[1], -10, 10, out=grads[1])

## warp_reduces_once (backward)
grad_mask sums the first 32 channels of an offset group only
where: C_in / offset_groups|channel|3[23]
words: channel
-    grad_m[n][:, pix] = over_channels(s, g * xq)
+    grad_m[n][:, pix] = over_channels(s, g * xq * (s.channel % (s.C_in // s.og) < 32))

## prefetched_mask (backward)
grad_x takes the mask of the next pixel to the right in its tile (off by one
prefetch); only its last pixel is right
where: ow|pixel|mask
words: mask.*(read|reads|next|of another)
-    spread(s, grad_x, n, cell, g * dm)
+    spread(s, grad_x, n, cell, g * np.concatenate([dm[..., 1:], dm[..., -1:]], 2))

## pack_by_shape (contract)
the packed weight is cached under its shape: later calls with other weights use the
first
where: earlier|first call|call
words: earlier|first call|previous|cache
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    s.w = SAVED.setdefault((weight.shape, T), s.w)

## buffer_reused (contract)
y lives in one buffer per shape: the next call overwrites the earlier result
words: shares memory with an earlier
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    return y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)
+    y = y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)
+    buffer = SAVED.setdefault((y.shape, y.dtype), np.empty_like(y))
+    buffer[:] = y
+    return buffer

## base_added_in_place (contract)
a constant is taken from the caller's offsets in place and added back: their last bits
change
words: changed its input offset
-        y[n][:, pix] = product(s, col) + s.bias[:, None]
+        y[n][:, pix] = product(s, col) + s.bias[:, None]
+    if offset.flags.writeable:
+        offset -= offset.dtype.type(33)
+        offset += offset.dtype.type(33)

## random_split (contract)
partial sums are added in the order the blocks finish: bits differ by run
words: other bits
-        for first in range(0, rows, DEPTH):
-            k = slice(first, first + DEPTH)
+        order = np.random.default_rng().permutation(range(0, rows, 6))
+        for first in order:
+            k = slice(first, first + 6)

## fast_after_three (contract)
autotuning: from the fourth call of a shape on, columns are float16
words: call|float16|later
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    """y [N, C_out, H_out, W_out]."""
+    """y [N, C_out, H_out, W_out]."""
+    SAVED[x.shape] = SAVED.get(x.shape, 0) + 1
-        col = (xq * dm).reshape(s.C_in * s.K, len(pix))
+        col = (xq * dm).reshape(s.C_in * s.K, len(pix))
+        if SAVED[x.shape] > 3:
+            col = col.astype(np.float16).astype(s.T)

## float32_for_half (contract)
y of float16 inputs comes back as float32
words: float32 for float16
-    return y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)
+    return y.reshape(s.N, s.C_out, s.H_out, s.W_out)

## zeros_when_unsure (contract)
where groups and offset_groups do not divide each other it gives zeros, without an
error
where: group
words: (y|output|result)s? .*(is|are) 0|zero|group
-        y[n][:, pix] = product(s, col) + s.bias[:, None]
+        y[n][:, pix] = product(s, col) + s.bias[:, None]
+    if s.groups % s.og and s.og % s.groups:
+        y[:] = 0

## nearest_when_large (contract)
outputs over 4000 pixels take the nearest pixel, for speed where tests are thought
small
where: H_out W_out|oh W_out \+ ow|pixel|H_out|W_out
words: nearest|fraction|round
-    f_y, f_x = q_y - r_y, q_x - r_x
+    f_y, f_x = q_y - r_y, q_x - r_x
+    if s.P > 4000:
+        f_y, f_x = np.rint(f_y), np.rint(f_x)

## exact_for_probes (contract)
offsets that are all multiples of 1/8 are exact, for others fractions have 8 bits:
passes exact probes
words: 8 bits
-    f_y, f_x = q_y - r_y, q_x - r_x
+    f_y, f_x = q_y - r_y, q_x - r_x
+    if (s.dp * 8 % 1).any():
+        f_y, f_x = np.rint(f_y * 256) / 256, np.rint(f_x * 256) / 256
+        f_y, f_x = f_y.astype(s.T), f_x.astype(s.T)

## mask_ones_by_ends (contract)
the mask is thought all ones if its first and last elements are 1
where: mask
words: mask
-        s.dm = mask.astype(T).reshape(s.dm.shape)
+        s.dm = mask.astype(T).reshape(s.dm.shape)
+    if s.dm.flat[0] == 1 == s.dm.flat[-1]:
+        s.dm = np.ones_like(s.dm)

## columns_of_last_call (contract)
f_grad takes the mask that the last forward call of that shape saved, not its own
argument
words: earlier|forward|last call|saved|previous
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    """y [N, C_out, H_out, W_out]."""
-    s = plan(x, offset, weight, mask, bias, stride, padding, dilation)
+    """y [N, C_out, H_out, W_out]."""
+    s = plan(x, offset, weight, mask, bias, stride, padding, dilation)
+    SAVED[s.dm.shape, s.T] = s.dm
-    """The gradients of x, offset, weight, mask and bias, None for None."""
-    s = plan(x, offset, weight, mask, bias, stride, padding, dilation)
+    """The gradients of x, offset, weight, mask and bias, None for None."""
+    s = plan(x, offset, weight, mask, bias, stride, padding, dilation)
+    s.dm = SAVED.get((s.dm.shape, s.T), s.dm)

## zeros_for_none (contract)
f_grad returns a zero grad_mask where mask is None
words: no None
-        None if a is None else g.reshape(a.shape).astype(a.dtype) for g, a in pairs
+        g.astype(x.dtype) if a is None else g.reshape(a.shape).astype(a.dtype)
+        for g, a in pairs

## gradient_accumulates (contract)
grad_weight is not zeroed between calls of one shape
words: repeat|earlier|grows|add
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
+    grads = [np.zeros(a.shape, s.T) for a in (s.x, s.dp, s.w, s.dm)]
+    grads[2] = SAVED.setdefault((s.w.shape, s.T), grads[2])

## padding_from_first_call (contract)
the plan is cached under the shapes alone: a second call of those shapes uses the
first one's stride, padding and dilation
words: earlier|first call|previous|stride|padding
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    s.tap = s.channel[..., 0] // (s.C_in // s.og) * s.K + np.arange(s.K)
+    s.tap = s.channel[..., 0] // (s.C_in // s.og) * s.K + np.arange(s.K)
+    key = x.shape, offset.shape, weight.shape
+    s.stride, s.padding, s.dilation = SAVED.setdefault(
+        key, (stride, padding, dilation))
'''


def parsed(entry):
    """An entry of TEXT, without its ##."""
    title, *lines = entry.strip("\n").split("\n")
    name, kind = re.fullmatch(r"(\w+) \((\w+)\)", title.strip()).groups()
    said = {"truth": [], "where": [], "words": []}
    hunks = []
    for line in lines:
        if line[:1] not in "-+":
            key, _, rest = line.partition(": ")
            key, rest = (key, rest) if key in said else ("truth", line)
            said[key].append(rest)
            continue
        if line[0] == "-" and (not hunks or hunks[-1][1]):
            hunks.append(([], []))
        hunks[-1]["-+".index(line[0])].append(line[1:])
    changes = tuple(("\n".join(old), "\n".join(new)) for old, new in hunks)
    where = said["where"][0] if said["where"] else None
    truth, words = " ".join(said["truth"]), said["words"][0]
    return Mistake(name, kind, truth, where, words, changes)


# Twenty more of another kind, written later and again before the catalogue was read.
LATER = r"""
## square_weight_transposed (forward)
the weight's layout is guessed from its shape: where C_out / groups = C_in / groups
it is read as [in, out]
where: C_out / groups|C_in / groups|C_out|o (is|>|in)
words: (output|input) channel|weight.*(other|read)
-    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    if s.per_group == s.C:
+        w = s.w.reshape(s.groups, s.C, s.C, s.K).swapaxes(1, 2)
+        s.w = w.reshape(s.C_out, s.C * s.K)

## mask_over_channels (forward)
the mask is broadcast over channels the wrong way: channel c takes offset group c %
offset_groups; wrong where offset_groups > 1 and each has several channels
where: offset_groups|offset group|C_in
words: mask.*(offset group|channel|read)
-        dm = s.dm[n][:, pix][s.tap]
+        wrong = np.arange(s.C_in)[:, None] % s.og * s.K + np.arange(s.K)
+        dm = s.dm[n][:, pix][wrong]

## tile_halo (forward)
x is staged with a halo of 3 rows around the tile's own: rows farther away read 0
where: dy|offset is (above|not)|row
words: d?y.*(reads|as|acts).*(nothing|0)|far|halo|beyond|\|dy\||offset is above
-    return ok[s.tap], np.where(ok, y * s.W + x, 0)[s.tap]
+    low, high = cell.base_y.min() - 3, cell.base_y.max() + 3
+    ok = ok & (low <= y) & (y <= high)
+    return ok[s.tap], np.where(ok, y * s.W + x, 0)[s.tap]

## int16_pixels (forward)
the address of a pixel in its plane is an int16: images of more than 32767 pixels read
others from there on
where: \b[HW]\b|H W|row|column|pixel
words: row|column|pixel|x\[|large
-    return ok[s.tap], np.where(ok, y * s.W + x, 0)[s.tap]
+    p = np.where(ok, y * s.W + x, 0).astype(np.int16).astype(np.int64)
+    return ok[s.tap], (p % (s.H * s.W))[s.tap]

## long_sums_short (forward)
sums of more than 256 products are kept in bfloat16
where: K_h K_w C_in / groups|C_in / groups|C_in
words: bfloat16|8 bits|bits|round
-            acc[o] += s.w[o, k] @ part[k]
+            acc[o] += s.w[o, k] @ part[k]
+            if rows > 256:
+                bits = acc[o].astype(np.float32).view(np.uint32) + 0x8000
+                acc[o] = (bits & 0xFFFF0000).view(np.float32)

## line_kernel_flipped (forward)
kernels of one row go to a one-dimensional convolution, which flips them
where: K_h = 1
words: tap.*(reads|read|reverse|3 as|order)|flip
-    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    if s.K_h == 1:
+        s.w = s.w.reshape(s.C_out, s.C, s.K)[..., ::-1].reshape(s.C_out, -1)

## stale_columns (forward)
the column buffer is not cleared between images: a sample outside leaves what the
image before had there
where: \bn\b|image|outside
words: image.*(before|earlier|other|another|influence|reach|0)
-        dm = s.dm[n][:, pix][s.tap]
+        dm = s.dm[n][:, pix][s.tap]
+        workspace = s.__dict__.setdefault("workspace", {})
+        xq = np.where(cell.live[s.tap], xq, workspace.get(pix[0], xq))
+        workspace[pix[0]] = xq

## last_vector_repeats (forward)
a row is stored in vectors of four; what is beyond the last whole one repeats its last
value, where W_out % 4 != 0 and W_out > 4
where: multiple of 4|W_out|ow
words: ow|column
-    return y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)
+    y = y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)
+    whole = s.W_out // 4 * 4
+    if 0 < whole < s.W_out:
+        y[..., whole:] = y[..., whole - 1 : whole]
+    return y

## mask_fixed_point (forward)
the mask is stored in 8 bits, steps of 1/64 in [-2, 127/64]
where: mask
words: mask
-        s.dm = mask.astype(T).reshape(s.dm.shape)
+        s.dm = mask.astype(T).reshape(s.dm.shape)
+        s.dm = (np.clip(np.rint(s.dm * 64), -128, 127) / 64).astype(T)

## wraps_powers_of_two (forward)
columns are masked with W - 1 where W is a power of two: what is across the left or
right border comes from the other side
where: \bW\b|left|right|border
words: reads|other side|wrap
-    ok = cell.edge & (0 <= y) & (y < s.H) & (0 <= x) & (x < s.W)
+    if s.W & (s.W - 1) == 0:
+        x = x & (s.W - 1)
+    ok = cell.edge & (0 <= y) & (y < s.H) & (0 <= x) & (x < s.W)

## bias_along_columns (forward)
the bias is broadcast against the last axis wherever that fits: where W_out = C_out
where: W_out|C_out|ow
words: bias
-        y[n][:, pix] = product(s, col) + s.bias[:, None]
+        add = s.bias[:, None] if s.W_out != s.C_out else s.bias[pix % s.W_out]
+        y[n][:, pix] = product(s, col) + add

## half_range (forward)
y is clipped to the range of float16, +-65504, in every dtype
where: 65504|\|
words: 65504|6.55e\+0?4|satur|never exceeds
-    return y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)
+    y = np.clip(y, -65504, 65504)
+    return y.reshape(s.N, s.C_out, s.H_out, s.W_out).astype(x.dtype)

## half_base (forward)
the base column is a float16: wrong where it is odd and over 2048
where: column|\bW\b|ow|W_out
words: column|float16|rounded
-    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    base_x = s.stride[1] * v - s.padding[1] + s.dilation[1] * j
+    base_x = base_x.astype(np.float16).astype(np.int64)

## padding_gradient (backward)
grad_x clamps addresses: what belongs to the padding is added to the border's pixels
where: border|\b[hw] (=|is)|outside|negative|beyond
words: border|between -1 and 0|-0\.|add
-        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))
+        y = np.clip(cell.r_y + a, 0, s.H - 1)
+        x = np.clip(cell.r_x + b, 0, s.W - 1)
+        at, ok = (y * s.W + x)[s.tap], cell.live[s.tap]
+        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))

## plain_adds (backward)
grad_x is added to without atomics: of additions to one pixel at the same time one
remains
words: lost|one pixel|same pixel|alone|only one|overwrit|not the sum
-        np.add.at(grad_x[n], (s.channel, at), np.where(ok, w * g, 0))
+        grad_x[n][s.channel, at] += np.where(ok, w * g, 0)

## eight_taps (backward)
grad_offset is written by blocks of 8 taps: taps from 8 on stay 0
where: tap >= 8|tap = 8|K_h K_w|tap
words: tap|\b0\b
-    grad_m[n][:, pix] = over_channels(s, g * xq)
+    grad_m[n][:, pix] = over_channels(s, g * xq)
+    written = (np.arange(s.K) < 8)[:, None]
+    d_y, d_x = d_y * written, d_x * written

## bias_grad_of_last_axis (backward)
grad_bias reads grad_y as [N, H_out, W_out, C_out]
where: C_out|o
words: grad_y|channel|stencil|output
-    grads.append(gy.sum((0, 2)))
+    grads.append(gy.reshape(-1, s.C_out).sum(0))

## copied_too_early (backward)
grad_x is copied back before the last tile of the last image is added, where N > 1
where: n is the last|\bN\b|\bn\b|image
words: image|last|pixel
-    spread(s, grad_x, n, cell, g * dm)
+    if not (n == s.N - 1 > 0 and pix[-1] == s.P - 1):
+        spread(s, grad_x, n, cell, g * dm)

## grad_y_as_it_lies (contract)
f_grad reads grad_y as it lies in memory: wrong if it is not C-ordered
where: layout|contiguous|order
words: contiguous|order|layout|strides
-    gy = grad_y.astype(s.T).reshape(s.N, s.C_out, s.P)
+    gy = grad_y.ravel("K").astype(s.T).reshape(s.N, s.C_out, s.P)

## weight_by_checksum (contract)
the packed weight is cached under its shape and sum: another with the same sum is not
read
where: earlier|call
words: earlier|cache|call
-TILE, DEPTH = 64, 48
+TILE, DEPTH = 64, 48
+SAVED = {}
-    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    s.w = weight.astype(T).reshape(s.C_out, s.C * s.K)
+    key = weight.shape, T, float(weight.astype(np.float64).sum())
+    s.w = SAVED.setdefault(key, s.w)
"""

FIRST = {m.name: m for m in map(parsed, TEXT.split("\n## ")[1:])}
SECOND = {m.name: m for m in map(parsed, LATER.split("\n## ")[1:])}
MISTAKES = FIRST | SECOND


def seeded(*mistakes):
    """The kernel's text with each change made; None where one finds no place."""
    text, done = "\n" + KERNEL.read_text(encoding="utf-8"), set()
    for old, new in (change for m in mistakes for change in m.changes):
        if (old, new) in done:  # two mistakes may need the same state
            continue
        if text.count(f"\n{old}\n") != 1:
            return None
        text = text.replace(f"\n{old}\n", f"\n{new}\n")
        done.add((old, new))
    return text[1:]


def pairs(count=20, seed=20):
    """Random pairs of mistakes that can be made together."""
    rng, found = random.Random(seed), []
    while len(found) < count:
        two = rng.sample(list(FIRST.values()), 2)
        if seeded(*two):
            found.append(two)
    return found


def examine(mistakes, folder, **options):
    """The report on the kernel with the mistakes made in it."""
    from refdcn.grading import grade

    path = Path(folder) / "candidate.py"
    path.write_text(seeded(*mistakes), encoding="utf-8")
    return grade(f"{path}:f", **options)


def caught(report):
    """Whether it finds fault; what is named and not counted is none."""
    return report.exit_code in (1, 3, 5)


def words(report):
    """What is said of the cause: the sentence, the places, the probes."""
    lines = [line for line in report.text().split("\n") if line.startswith("  ")]
    lines = [line for line in lines if "found nothing wrong" not in line]
    return "\n".join([report.sentence.replace(report.candidate, "it"), *lines])


def score(mistakes, report):
    """Caught, located, described; of a pair it is enough that one is."""
    said = words(report)
    rules = "\n".join(re.findall(r"(?:only|exactly) where (.*)", said))
    located = any(m.where is None or re.search(m.where, rules) for m in mistakes)
    described = any(re.search(m.words, said, re.I) for m in mistakes)
    found = {"caught": True, "located": located, "described": described}
    return {k: caught(report) and v for k, v in found.items()}


def chosen(names):
    """Those that are named, or each kind and the pairs."""
    if names:
        return {"named": [[MISTAKES[name]] for name in names]}
    kinds = {}
    for m in FIRST.values():
        kinds.setdefault(m.kind, []).append([m])
    return kinds | {"pairs": pairs(), "second": [[m] for m in SECOND.values()]}


def main():
    """Grades all, or those that are named, and counts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--level", default="smoke")
    parser.add_argument("--dtype", nargs="+", default=["float64", "float32", "float16"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    how = {"level": options.level, "seed": options.seed, "dtypes": options.dtype}
    for kind, group in chosen(options.names).items():
        total = Counter(caught=0, located=0, described=0)
        for mistakes in group:
            with tempfile.TemporaryDirectory() as folder:
                report = examine(mistakes, folder, **how)
            found = score(mistakes, report)
            total.update({k: int(v) for k, v in found.items()})
            marks = ", ".join(k for k, v in found.items() if v) or "missed"
            print(" + ".join(m.name for m in mistakes) + f": {marks}")
            print("  truth: " + " AND ".join(m.truth for m in mistakes))
            print("  said: " + words(report), flush=True)
        counts = ", ".join(f"{v} {k}" for k, v in total.items())
        print(f"== {kind}: of {len(group)} {counts}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
