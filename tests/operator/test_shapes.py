"""The geometry that shapes and windows describe, and each error's text."""

import numpy as np
import pytest
from hypothesis import given

from refdcn import shapes

from strategies import cases, examples

GOOD = {
    "x": (2, 4, 5, 6),
    "offset": (2, 18, 3, 4),
    "weight": (6, 4, 3, 3),
    "mask": (2, 9, 3, 4),
    "bias": (6,),
    "stride": 1,
    "padding": 0,
    "dilation": 1,
}


def geometry(**changed):
    return shapes.geometry(**GOOD | changed)


def test_sizes_follow_from_the_shapes():
    g = geometry()
    assert g == shapes.Geometry(2, 4, 5, 6, 6, 3, 4, 3, 3, 1, 1, (1, 1), (0, 0), (1, 1))
    assert all(type(size) is int for size in g[:11])


@examples(300)
@given(cases())
def test_the_geometry_of_drawn_cases(case):
    s = case.sizes
    g = shapes.geometry(
        *(a if a is None else a.shape for a in case.inputs), **case.windows
    )
    assert (g.N, g.C_in, g.H, g.W, g.C_out) == (s.N, s.C_in, s.H, s.W, s.C_out)
    assert (g.H_out, g.W_out) == s.out and (g.K_h, g.K_w) == s.kernel
    assert (g.groups, g.offset_groups) == (s.groups, s.offset_groups)
    assert (g.stride, g.padding, g.dilation) == case[5:8]
    assert shapes.check_grad_y(case.grad_y.shape, g) is None


@pytest.mark.parametrize(
    "changed, wanted",
    [
        ({"stride": 2}, {"stride": (2, 2), "H_out": 2, "W_out": 2}),
        ({"stride": (2, 1)}, {"stride": (2, 1), "H_out": 2, "W_out": 4}),
        ({"stride": [1, 3]}, {"stride": (1, 3), "H_out": 3, "W_out": 2}),
        ({"stride": np.int64(3)}, {"stride": (3, 3), "H_out": 1, "W_out": 2}),
        ({"dilation": (2, 1)}, {"dilation": (2, 1), "H_out": 1, "W_out": 4}),
        ({"padding": 1}, {"padding": (1, 1), "H_out": 5, "W_out": 6}),
        ({"padding": (1, 2)}, {"padding": (1, 2), "H_out": 5, "W_out": 8}),
        ({"padding": ((1, 0), (2, 3))}, {"padding": (1, 2), "H_out": 4, "W_out": 9}),
        ({"padding": ((0, 1), (3, 2))}, {"padding": (0, 3), "H_out": 4, "W_out": 9}),
        ({"padding": [[0, 1], [3, 2]]}, {"padding": (0, 3), "H_out": 4, "W_out": 9}),
        ({"padding": "valid"}, {"padding": (0, 0), "H_out": 3, "W_out": 4}),
        ({"padding": "same"}, {"padding": (1, 1), "H_out": 5, "W_out": 6}),
        (
            {"padding": "same", "dilation": (2, 3)},
            {"padding": (2, 3), "H_out": 5, "W_out": 6},
        ),
        # An odd sum of paddings puts more of it at the bottom and right.
        (
            {"padding": "same", "weight": (6, 4, 4, 2), "offset": (2, 16, 5, 6)},
            {"padding": (1, 0), "H_out": 5, "W_out": 6},
        ),
        # Pairs of pairs are told from a pair by their length alone.
        ({"padding": "valid", "stride": (3, 3)}, {"H_out": 1, "W_out": 2}),
    ],
)
def test_windows(changed, wanted):
    h, w = wanted["H_out"], wanted["W_out"]
    channels = changed.get("offset", GOOD["offset"])[1]
    g = geometry(**changed | {"offset": (2, channels, h, w), "mask": None})
    assert {name: getattr(g, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "changed, groups, offset_groups",
    [
        ({}, 1, 1),
        ({"weight": (6, 2, 3, 3)}, 2, 1),
        ({"offset": (2, 36, 3, 4), "mask": (2, 18, 3, 4)}, 1, 2),
        ({"x": (2, 6, 5, 6), "weight": (6, 2, 3, 3), "offset": (2, 36, 3, 4),
          "mask": (2, 18, 3, 4)}, 3, 2),
    ],
)  # fmt: skip
def test_groups_follow(changed, groups, offset_groups):
    g = geometry(**changed)
    assert (g.groups, g.offset_groups) == (groups, offset_groups)


BAD = [
    # dimensions and sizes
    ({"x": (4, 5, 6)}, "x has 3 dimensions, shape [4, 5, 6]; wanted [N, C_in, H, W]"),
    ({"weight": (6, 36)},
     "weight has 2 dimensions, shape [6, 36]; wanted [C_out, C_in / groups, K_h, K_w]"),
    ({"offset": (18, 3, 4)},
     "offset has 3 dimensions, shape [18, 3, 4]; "
     "wanted [N, offset_groups*K_h*K_w*2, H_out, W_out]"),
    ({"mask": (9,)},
     "mask has 1 dimensions, shape [9]; "
     "wanted [N, offset_groups*K_h*K_w, H_out, W_out]"),
    ({"bias": ()}, "bias has shape []; wanted [6]: [C_out], the first size of weight"),
    ({"bias": (1, 6)},
     "bias has shape [1, 6]; wanted [6]: [C_out], the first size of weight"),
    ({"x": (2, 4, 0, 6)},
     "x has shape [2, 4, 0, 6]; each size of [N, C_in, H, W] must be at least 1 "
     "(N may be 0)"),
    ({"weight": (0, 4, 3, 3)},
     "weight has shape [0, 4, 3, 3]; each size of [C_out, C_in / groups, K_h, K_w] "
     "must be at least 1"),
    ({"weight": (6, 4, 3, 0)},
     "weight has shape [6, 4, 3, 0]; each size of [C_out, C_in / groups, K_h, K_w] "
     "must be at least 1"),
    ({"bias": (0,)},
     "bias has shape [0]; wanted [6]: [C_out], the first size of weight"),
    # groups
    ({"weight": (6, 3, 3, 3)},
     "weight has 3 input channels a group and x has 4; "
     "groups = C_in / weight.shape[1] must be whole"),
    ({"weight": (6, 8, 3, 3)},
     "weight has 8 input channels a group and x has 4; "
     "groups = C_in / weight.shape[1] must be whole"),
    ({"weight": (6, 1, 3, 3)},
     "weight has 6 output channels, which 4 groups "
     "(C_in / weight.shape[1] = 4 / 1) do not divide"),
    # offset
    ({"offset": (2, 16, 3, 4)},
     "offset has 16 channels; a 3x3 kernel with 1 offset group needs 2*1*9 = 18"),
    ({"offset": (2, 37, 3, 4)},
     "offset has 37 channels; a 3x3 kernel with 2 offset groups needs 2*2*9 = 36"),
    ({"offset": (2, 0, 3, 4)},
     "offset has 0 channels; a 3x3 kernel with 1 offset group needs 2*1*9 = 18"),
    ({"offset": (2, 54, 3, 4)},
     "offset has 54 channels, so 3 offset groups of 2*9; they do not divide the 4 "
     "channels of x"),
    ({"offset": (2, 18, 5, 6)},
     "offset has shape [2, 18, 5, 6]; wanted [2, 18, 3, 4]: N is that of x, "
     "and H_out and W_out follow from x, weight, stride, padding and dilation"),
    ({"offset": (1, 18, 3, 4)},
     "offset has shape [1, 18, 3, 4]; wanted [2, 18, 3, 4]: N is that of x, "
     "and H_out and W_out follow from x, weight, stride, padding and dilation"),
    # mask and bias
    ({"mask": (2, 18, 3, 4)},
     "mask has shape [2, 18, 3, 4]; wanted [2, 9, 3, 4]: "
     "[N, offset_groups*K_h*K_w, H_out, W_out], as many groups as offset has"),
    ({"mask": (1, 9, 3, 4)},
     "mask has shape [1, 9, 3, 4]; wanted [2, 9, 3, 4]: "
     "[N, offset_groups*K_h*K_w, H_out, W_out], as many groups as offset has"),
    ({"bias": (4,)},
     "bias has shape [4]; wanted [6]: [C_out], the first size of weight"),
    # windows
    ({"stride": 0}, "stride is 0; wanted at least 1, below 2**31"),
    ({"stride": (1, -1)}, "stride is (1, -1); wanted at least 1, below 2**31"),
    ({"dilation": (0, 1)}, "dilation is (0, 1); wanted at least 1, below 2**31"),
    ({"padding": -1}, "padding is -1; wanted at least 0, below 2**31"),
    ({"padding": ((0, 0), (0, -1))}, "padding is (0, -1); wanted at least 0, below "
     "2**31"),
    ({"stride": 2**31}, "stride is 2147483648; wanted at least 1, below 2**31"),
    ({"stride": (1, 1, 1)}, "stride is (1, 1, 1); wanted an int or (rows, columns)"),
    ({"stride": ()}, "stride is (); wanted an int or (rows, columns)"),
    ({"stride": "same"}, "stride is 'same'; wanted an int or (rows, columns)"),
    ({"stride": b"ab"}, "stride is b'ab'; wanted an int or (rows, columns)"),
    ({"dilation": [2]}, "dilation is [2]; wanted an int or (rows, columns)"),
    ({"padding": (1, 1, 1, 1)},
     "padding is (1, 1, 1, 1); wanted an int, (rows, columns), ((top, bottom), (left, "
     "right)), 'same' or 'valid'"),
    ({"padding": ((1, 1), 1)},
     "padding is ((1, 1), 1); wanted ((top, bottom), (left, right))"),
    ({"padding": ((1, 1), (1, 1, 1))},
     "padding is ((1, 1), (1, 1, 1)); wanted ((top, bottom), (left, right))"),
    ({"padding": ((1, 1),)},
     "padding is ((1, 1),); wanted ((top, bottom), (left, right))"),
    ({"padding": "full"},
     "padding is 'full'; wanted an int, (rows, columns), ((top, bottom), (left, "
     "right)), 'same' or 'valid'"),
    ({"padding": "same", "stride": 2},
     "padding is 'same' and stride is (2, 2); 'same' keeps the image size, which "
     "needs stride 1"),
    # a kernel that does not fit
    ({"dilation": (3, 1)},
     "weight has a kernel of 3 rows, which spans 7 with dilation 3; x with its padding "
     "has 5, so y would be empty"),
    ({"weight": (6, 4, 3, 7)},
     "weight has a kernel of 7 columns, which spans 7 with dilation 1; x with its "
     "padding has 6, so y would be empty"),
]  # fmt: skip


@pytest.mark.parametrize("changed, text", BAD, ids=[str(c) for c, _ in BAD])
def test_a_value_error_says_what_came_and_what_was_wanted(changed, text):
    with pytest.raises(ValueError) as error:
        geometry(**changed)
    assert str(error.value) == text


@pytest.mark.parametrize(
    "changed, text",
    [
        ({"stride": True}, "stride is True; wanted integers, True is a bool"),
        ({"padding": (1, False)},
         "padding is (1, False); wanted integers, False is a bool"),
        ({"stride": 1.0}, "stride is 1.0; wanted integers, 1.0 is of type float"),
        ({"dilation": (1, None)},
         "dilation is (1, None); wanted integers, None is of type NoneType"),
        ({"padding": None},
         "padding is None; wanted integers, None is of type NoneType"),
        ({"padding": ((0, 0.5), (0, 0))},
         "padding is (0, 0.5); wanted integers, 0.5 is of type float"),
        ({"stride": np.array([1, 2])},
         "stride is array([1, 2]); wanted integers, "
         "array([1, 2]) is of type ndarray"),
        ({"stride": np.True_},
         "stride is np.True_; wanted integers, np.True_ is of type bool"),
    ],
)  # fmt: skip
def test_a_type_error_says_what_came_and_what_was_wanted(changed, text):
    with pytest.raises(TypeError) as error:
        geometry(**changed)
    assert str(error.value) == text


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize("value", [True, 1.0, (1, True), (1.0, 1), [1, 1.0]])
def test_what_equals_a_known_window_is_no_window(name, value):
    """Calls that were checked are known again, and True == 1.0 == 1."""
    for good in (1, (1, 1), [1, 1], np.int64(1)):
        assert geometry(**{name: good}) == geometry()
    with pytest.raises(TypeError, match=f"{name} is .*wanted integers"):
        geometry(**{name: value})


@pytest.mark.parametrize("shape", [(2, 6, 3, 5), (6, 3, 4), (1, 6, 3, 4), (2, 1, 3, 4)])
def test_grad_y_has_the_shape_of_y(shape):
    with pytest.raises(ValueError) as error:
        shapes.check_grad_y(shape, geometry())
    assert str(error.value) == (
        f"grad_y has shape {list(shape)}; wanted [2, 6, 3, 4]: "
        "[N, C_out, H_out, W_out], the shape of y"
    )


def test_one_dtype():
    assert shapes.check_dtypes({"x": "float16", "offset": "float16"}) is None
    allowed = ("bfloat16",)
    assert shapes.check_dtypes({"x": "bfloat16"}, allowed) is None
    for dtypes, text in [
        ({"x": "int64"},
         "x is int64; the operator is defined for float16, float32, float64"),
        ({"x": "float32", "mask": "bool"},
         "mask is bool; the operator is defined for float16, float32, float64"),
        ({"x": "float32", "weight": "float64"},
         "weight is float64 and x is float32; all arguments need one dtype, since a "
         "silent cast loses digits"),
    ]:  # fmt: skip
        with pytest.raises(TypeError) as error:
            shapes.check_dtypes(dtypes)
        assert str(error.value) == text


@pytest.mark.parametrize("N", [0, 1])
def test_an_empty_batch_is_one(N):
    g = geometry(x=(N, 4, 5, 6), offset=(N, 18, 3, 4), mask=(N, 9, 3, 4))
    assert g.N == N
