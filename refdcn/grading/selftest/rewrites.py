"""Correct implementations in PyTorch, in the forms found in public code.

Each is a way to read samples and a way to sum products; gradients are autograd's.
`refdcn grade refdcn.grading.selftest.rewrites:ring_1 --array torch` grades one.
Imported only where torch is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional

Tensor = Any  # torch.Tensor, whose operators mypy sees as Any without torch


class Places(NamedTuple):
    """Along each axis; images are counted over offset groups: [M, ...]."""

    base: tuple[Tensor, Tensor]  # whole numbers [1, K, H_out, W_out]
    dp: tuple[Tensor, Tensor]  # [M, K, H_out, W_out]
    padding: tuple[int, int]

    def q(self, axis: int) -> Tensor:
        """Positions."""
        return self.base[axis] + self.dp[axis]


Read = Callable[[Tensor, Places], Tensor]  # [M, C, H, W] to [M, C, K, H_out, W_out]
Join = Callable[[Tensor, Tensor], Tensor]


def pick(x: Tensor, r: Tensor, c: Tensor) -> Tensor:
    """x at whole places, 0 outside: a gather over flat indices, kept inside."""
    M, C, H, W = x.shape
    inside = (r >= 0) & (r < H) & (c >= 0) & (c < W)
    r, c = (torch.nan_to_num(a.detach()) for a in (r, c))
    at = r.clamp(0, H - 1).long() * W + c.clamp(0, W - 1).long()
    at = at.flatten(1)[:, None].expand(-1, C, -1)
    found = x.reshape(M, C, H * W).gather(2, at)
    return found.reshape(M, C, *r.shape[1:]) * inside[:, None]


def blend(x: Tensor, cells: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The four corners of cells (first pixel, fraction), each times its weight."""
    (r, t), (c, s) = cells
    total = 0
    for i, f in ((0, 1 - t), (1, t)):
        for j, g in ((0, 1 - s), (1, s)):
            total = total + (f * g)[:, None] * pick(x, r + i, c + j)
    return total


def checked(x: Tensor, at: Places) -> Tensor:
    """Indices are clamped, and corners outside multiplied by 0."""
    return blend(x, [(at.q(a).floor(), at.q(a) - at.q(a).floor()) for a in (0, 1)])


def ring(more: int) -> Read:
    """The image is padded by padding + `more`, places are counted there."""

    def read(x: Tensor, at: Places) -> Tensor:
        top, left = (p + more for p in at.padding)
        x = functional.pad(x, (left, left, top, top))
        cells = []
        for axis, shift in enumerate((top, left)):
            q = (at.base[axis] + shift) + at.dp[axis]
            cells.append((q.floor(), q - q.floor()))
        return blend(x, cells)

    return read


def from_offset(x: Tensor, at: Places) -> Tensor:
    """Cell and fraction of the offset alone: dp + 1 - (floor(dp) + 1)."""
    cells = []
    for base, dp in zip(at.base, at.dp, strict=True):
        above = dp.detach().floor() + 1
        cells.append((base + above - 1, dp + 1 - above))
    return blend(x, cells)


def from_ceiling(x: Tensor, at: Places) -> Tensor:
    """The fraction is 1 - (ceil - q), so that a pixel belongs to the cell below."""
    cells = []
    for axis in (0, 1):
        above = at.q(axis).detach().ceil()
        cells.append((above - 1, 1 - (above - at.q(axis))))
    return blend(x, cells)


def lerp(x: Tensor, at: Places) -> Tensor:
    """Nested interpolation by torch.lerp."""
    (r, t), (c, s) = ((at.q(a).floor(), at.q(a) - at.q(a).floor()) for a in (0, 1))
    rows = [
        torch.lerp(pick(x, r + i, c), pick(x, r + i, c + 1), s[:, None]) for i in (0, 1)
    ]
    return torch.lerp(*rows, t[:, None])


def distances(x: Tensor, at: Places) -> list[Tensor]:
    """q - r to every row and to every column: [M, K, H_out, W_out, H or W]."""
    sizes = zip((0, 1), x.shape[2:], strict=True)
    return [at.q(a)[..., None] - torch.arange(n, dtype=x.dtype) for a, n in sizes]


def by_tents(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Eq. (2) as a product with every pixel."""
    return torch.einsum("mchw,mkuvh,mkuvw->mckuv", x, rows, columns)


def relu_tents(x: Tensor, at: Places) -> Tensor:
    """relu(1 - |q - r|), whose slope is 0 where q is a whole number."""
    return by_tents(x, *(torch.relu(1 - d.abs()) for d in distances(x, at)))


def maximum_tents(x: Tensor, at: Places) -> Tensor:
    """max(0, 1 - |q - r|) shares the slope at its feet: the mean of both sides."""
    zero = torch.zeros((), dtype=x.dtype)
    tents = (torch.maximum(1 - d.abs(), zero) for d in distances(x, at))
    return by_tents(x, *tents)


def sparse(x: Tensor, at: Places) -> Tensor:
    """One sparse matrix of corner weights, samples by pixels of a ring of one."""
    M, C, H, W = x.shape
    wide = functional.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).reshape(-1, C)
    (r, t), (c, s) = ((at.q(a).floor(), at.q(a) - at.q(a).floor()) for a in (0, 1))
    image = torch.arange(M).reshape(M, 1, 1, 1) * ((H + 2) * (W + 2))
    places, weights = [], []
    for i, f in ((0, 1 - t), (1, t)):
        for j, g in ((0, 1 - s), (1, s)):
            row, column = (torch.nan_to_num(a.detach()) for a in (r + i, c + j))
            row, column = row.clamp(-1, H) + 1, column.clamp(-1, W) + 1
            places.append((image + row.long() * (W + 2) + column.long()).reshape(-1))
            weights.append((f * g).reshape(-1))
    index = torch.stack([torch.arange(r.numel()).repeat(4), torch.cat(places)])
    size, values = (r.numel(), wide.shape[0]), torch.cat(weights)
    sampling = torch.sparse_coo_tensor(index, values, size, check_invariants=True)
    samples = torch.sparse.mm(sampling, wide).reshape(*r.shape, C)
    return samples.permute(0, 4, 1, 2, 3)


def grid(align: bool, more: int = 0, wide: bool = False) -> Read:
    """functional.grid_sample; `more`: in an image padded so far; `wide`: in float64."""

    def read(x: Tensor, at: Places) -> Tensor:
        T, (H, W) = x.dtype, x.shape[2:]
        # The corners of a single row have no distance that a grid could be scaled by.
        after = [more + (align and n + 2 * more == 1) for n in (H, W)]
        x = functional.pad(x, (more, after[1], more, after[0]))
        x = x.double() if wide else x
        scaled = []
        for axis in (1, 0):
            n, q = x.shape[2 + axis], at.base[axis] + more + at.dp[axis].to(x.dtype)
            scaled.append(2 * q / (n - 1) - 1 if align else (2 * q + 1) / n - 1)
        places = torch.stack(scaled, -1)
        M, K, h, w = places.shape[:4]
        places = places.reshape(M, K * h, w, 2)
        y = functional.grid_sample(x, places, "bilinear", "zeros", align_corners=align)
        return y.unflatten(2, (K, h)).to(T)

    return read


def by_einsum(s: Tensor, w: Tensor) -> Tensor:
    """All products in one expression: s [N, groups, C, K, H_out, W_out]."""
    return torch.einsum("ngckuv,gock->ngouv", s, w)


def unfolded(s: Tensor, w: Tensor) -> Tensor:
    """Columns as unfold makes them, and one matrix product a group."""
    groups, C, K = s.shape[1:4]
    y = w.reshape(groups, -1, C * K) @ s.flatten(4).flatten(2, 3)
    return y.unflatten(3, s.shape[4:])


def spaced(s: Tensor, w: Tensor) -> Tensor:
    """Samples side by side as an image of K times the size, and conv2d over it."""
    N, groups, C, K, H_out, W_out = s.shape
    s = s.permute(0, 1, 2, 4, 5, 3).reshape(N, groups * C, H_out, W_out * K)
    y = functional.conv2d(s, w.reshape(-1, C, 1, K), stride=(1, K), groups=groups)
    return y.unflatten(1, (groups, -1))


def channels_last(s: Tensor, w: Tensor) -> Tensor:
    """The channels of a pixel side by side."""
    s = s.permute(0, 4, 5, 1, 3, 2).contiguous()  # [N, H_out, W_out, groups, K, C]
    return torch.einsum("nuvgkc,gkco->nuvgo", s, w.permute(0, 3, 2, 1)).permute(
        0, 3, 4, 1, 2
    )


def tap_by_tap(s: Tensor, w: Tensor) -> Tensor:
    """One product a tap."""
    products = (
        torch.einsum("ngcuv,goc->ngouv", s[:, :, :, k], w[..., k])
        for k in range(w.shape[3])
    )
    return sum(products)


def checked_shapes(
    x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor, windows: Any
) -> None:
    """Raise ValueError where the shapes do not fit each other."""
    (N, C_in, *image), (C_out, C, *taps) = x.shape, weight.shape
    K, og = taps[0] * taps[1], offset.shape[1] // (2 * taps[0] * taps[1])
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(image, taps, *windows, strict=True)
    ]
    fits = (
        C_in % C == 0
        and C_out % (C_in // C) == 0
        and og > 0
        and C_in % og == 0
        and tuple(offset.shape) == (N, 2 * og * K, *out)
        and (mask is None or tuple(mask.shape) == (N, og * K, *out))
    )
    if not fits:
        given = [list(a.shape) for a in (x, offset, weight) if a is not None]
        raise ValueError(f"x, offset, weight have shapes {given}, which do not fit")


def operator(read: Read, join: Join = by_einsum) -> Callable[..., Tensor]:
    """Eq. (1) from a way to sample and a way to sum."""

    def deform_conv(
        x: Tensor,
        offset: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        checked_shapes(x, offset, weight, mask, (stride, padding, dilation))
        (N, C_in, H, W), (C_out, C, K_h, K_w) = x.shape, weight.shape
        K, (h, w), groups = K_h * K_w, offset.shape[2:], C_in // C
        M = N * offset.shape[1] // (2 * K)
        tap = torch.arange(K)
        rows = torch.arange(h).reshape(h, 1) * stride[0] - padding[0]
        columns = torch.arange(w) * stride[1] - padding[1]
        base = (
            rows + (tap // K_w).reshape(1, K, 1, 1) * dilation[0],
            columns + (tap % K_w).reshape(1, K, 1, 1) * dilation[1],
        )
        dp = offset.reshape(M, K, 2, h, w).unbind(2)
        s = read(
            x.reshape(M, C_in * 2 * K // offset.shape[1], H, W),
            Places(base, dp, padding),
        )
        if mask is not None:
            s = s * mask.reshape(M, 1, K, h, w)
        s = s.reshape(N, groups, C, K, h, w)
        y = join(s, weight.reshape(groups, -1, C, K)).reshape(N, C_out, h, w)
        return y if bias is None else y + bias.reshape(-1, 1, 1)

    return deform_conv


def by_image(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One image after another."""

    def deform_conv(
        x: Tensor,
        offset: Tensor,
        weight: Tensor,
        mask: Tensor,
        bias: Tensor,
        **windows: Any,
    ) -> Tensor:
        parts = [
            f(
                x[n : n + 1],
                offset[n : n + 1],
                weight,
                None if mask is None else mask[n : n + 1],
                bias,
                **windows,
            )
            for n in range(len(x))
        ]
        return torch.cat(parts)

    return deform_conv


clamped = operator(checked)
ring_1 = operator(ring(1))
ring_2 = operator(ring(2), unfolded)
offset_fraction = operator(from_offset, spaced)
ceiling = operator(from_ceiling, tap_by_tap)
nested = operator(lerp, channels_last)
relu = operator(relu_tents)
maximum = operator(maximum_tents, unfolded)
matrix = operator(sparse, unfolded)
grid_corners = operator(grid(True))
grid_edges = operator(grid(False))
grid_corners_framed = operator(grid(True, 1), unfolded)
grid_edges_framed = operator(grid(False, 2), unfolded)
grid_corners_wide = operator(grid(True, wide=True))
grid_edges_wide = operator(grid(False, 1, wide=True))

LEFT = {"slope at -1": "left-hand", "slope at integers": "left-hand"}
FLAT = {"slope at -1": "0", "slope at integers": "0"}
MEAN = {"slope at -1": "the mean", "slope at integers": "the mean"}
# name here, and the conventions it keeps; a grid's slope is now one, now the other
REWRITES: dict[str, dict[str, str]] = {
    "clamped": {},
    "ring_1": {},
    "ring_2": {},
    "offset_fraction": {},
    "ceiling": LEFT,
    "nested": {},
    "relu": FLAT,
    "maximum": MEAN,
    "matrix": {},
    "grid_corners": {},
    "grid_edges": {},
    "grid_corners_framed": {},
    "grid_edges_framed": {},
    "grid_corners_wide": {},
    "grid_edges_wide": {},
}
