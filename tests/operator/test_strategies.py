"""The drawn geometries meet what the operator's users and bugs meet."""

from collections import Counter

import numpy as np
from hypothesis import given, settings

from strategies import OFFSETS, Sizes, cases, examples, fill


def places(case, axis):
    """The positions along one axis, and the image's size there."""
    s = case.sizes
    q = case.offset.reshape(s.N, s.offset_groups, s.taps, 2, *s.out)[:, :, :, axis]
    return q + s.base[axis], (s.H, s.W)[axis]


def traits(case):
    s = case.sizes
    yield f"N = {s.N}"
    yield "a kernel that is not square" * (s.kernel[0] != s.kernel[1])
    yield "a kernel larger than the image" * (s.kernel[0] > s.H or s.kernel[1] > s.W)
    yield "H = 1" * (s.H == 1) or "H > 1"
    yield "W = 1" * (s.W == 1) or "W > 1"
    yield "1x1 image" * (s.H == s.W == 1)
    nested = s.groups % s.offset_groups == 0 or s.offset_groups % s.groups == 0
    yield "groups that do not nest" * (not nested)
    for name in ("stride", "padding", "dilation"):
        value = getattr(s, name)
        yield f"uneven {name}" * (value[0] != value[1])
    yield "no mask" if case.mask is None else "mask"
    yield "no bias" if case.bias is None else "bias"
    for axis in (0, 1):
        q, n = places(case, axis)
        yield "q on an integer inside" * bool(np.any((q == np.floor(q)) & (q > 0)))
        for name, at in (("-1", -1), ("0", 0), ("size - 1", n - 1), ("size", n)):
            yield f"q = {name}" * bool(np.any(q == at))
            near = (q != at) & (abs(q - at) < 1e-6)
            yield f"q beside {name}" * bool(np.any(near))
        yield "far" * bool(np.any(abs(q) > 1e6))
        yield "between pixels" * bool(np.any((q != np.floor(q)) & (q > 0)))


def test_every_trait_is_drawn():
    seen = Counter()

    @examples(600)
    @given(cases())
    def draw(case):
        seen.update(set(traits(case)))
        assert case.x.shape[1] % case.weight.shape[1] == 0
        assert case.grad_y.shape[2:] == case.sizes.out

    draw()
    wanted = {f"N = {n}" for n in (0, 1, 2, 3, 33, 65)}
    wanted |= {t for kind in OFFSETS for t in traits(fill(Sizes(), rng(), kind))}
    wanted |= {
        "a kernel that is not square", "a kernel larger than the image", "H = 1",
        "W = 1", "1x1 image", "groups that do not nest", "uneven stride",
        "uneven padding", "uneven dilation", "no mask", "no bias",
        "q = -1", "q = 0", "q = size - 1", "q = size", "q beside -1",
        "q beside 0", "q beside size - 1", "q beside size", "far", "between pixels",
    }  # fmt: skip
    assert {t: seen[t] for t in wanted if seen[t] < 5 and t} == {}


def rng():
    return np.random.default_rng(0)


def test_a_case_names_its_geometry():
    case = fill(Sizes(), rng(), mask=False)
    assert case.sizes == Sizes()
    assert repr(case) == f"Case({Sizes()}, float64, ['bias'])"
    assert settings.default.deadline is None
