"""A graph of ONNX's plain operators that is the convolution of one tap, stride 1.

Every runtime reads it, those too that have no DeformConv.
"""

GAPS = [
    "only K_h == 1 and K_w == 1 and stride == 1 and padding == 0",
    "only groups == 1 and offset_groups == 1 and N >= 1 and C_out >= 1",
]
HEAD = """
<ir_version: 10, opset_import: ["" : 19]>
one_tap (float[N, C, H, W] x, float[N, 2, H, W] offset, float[O, C, 1, 1] weight,
         float[N, 1, H, W] mask, float[O] bias) => (float[N, O, H, W] y)
<int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3}, float f0 = {0},
 float f1 = {1}, int64[1] at0 = {0}, int64[1] at1 = {1}, int64[1] at2 = {2},
 int64[1] at4 = {4}, int64[1] rest = {-1}, int64[3] flat = {0, 0, -1},
 int64[3] plane = {0, 1, -1}, int64[3] points = {0, -1, 1},
 int64[2] matrix = {0, -1}, int64[2] column = {-1, 1}>
{
    sizes = Shape (x)
    H = Gather (sizes, i2)
    W = Gather (sizes, i3)
    rows = Range (i0, H, i1)
    columns = Range (i0, W, i1)
    row = Cast <to = 1> (rows)
    p_x = Cast <to = 1> (columns)
    p_y = Unsqueeze (row, at1)
    dy = Gather <axis = 1> (offset, DY)
    dx = Gather <axis = 1> (offset, DX)
    q_y = Add (p_y, dy)
    q_x = Add (p_x, dx)
    h0 = Floor (q_y)
    w0 = Floor (q_x)
    t_y1 = Sub (q_y, h0)
    t_x1 = Sub (q_x, w0)
    t_y0 = Sub (f1, t_y1)
    t_x0 = Sub (f1, t_x1)
    h1 = Add (h0, f1)
    w1 = Add (w0, f1)
    H_f = Cast <to = 1> (H)
    W_f = Cast <to = 1> (W)
    last_h = Sub (H_f, f1)
    last_w = Sub (W_f, f1)
    planes = Reshape (x, flat)
    pixels = Transpose <perm = [0, 2, 1]> (planes)
"""
CORNER = """
    h_{a}{b} = Clip (h{a}, f0, last_h)
    w_{a}{b} = Clip (w{b}, f0, last_w)
    start_{a}{b} = Mul (h_{a}{b}, W_f)
    number_{a}{b} = Add (start_{a}{b}, w_{a}{b})
    place_{a}{b} = Cast <to = 7> (number_{a}{b})
    places_{a}{b} = Reshape (place_{a}{b}, points)
    found_{a}{b} = GatherND <batch_dims = 1> (pixels, places_{a}{b})
    read_{a}{b} = Transpose <perm = [0, 2, 1]> (found_{a}{b})
    in_h_{a}{b} = Equal (h_{a}{b}, h{a})
    in_w_{a}{b} = Equal (w_{a}{b}, w{b})
    in_{a}{b} = And (in_h_{a}{b}, in_w_{a}{b})
    share_{a}{b} = Mul (t_y{a}, t_x{b})
    there_{a}{b} = Where (in_{a}{b}, share_{a}{b}, f0)
    shares_{a}{b} = Reshape (there_{a}{b}, plane)
    part_{a}{b} = Mul (read_{a}{b}, shares_{a}{b})
"""
END = """
    sample = Sum (part_00, part_01, part_10, part_11)
    masks = Reshape (mask, plane)
    masked = Mul (sample, masks)
    w = Reshape (weight, matrix)
    products = MatMul (w, masked)
    added = Reshape (bias, column)
    sums = Add (products, added)
    first = Slice (sizes, at0, at1)
    size = Slice (sizes, at2, at4)
    shape = Concat <axis = 0> (first, rest, size)
    y = Reshape (sums, shape)
}
"""


def one_tap(onnx, dy=0, dx=1):
    """The model; dy and dx are the channels that it takes for these."""
    head = HEAD.replace("DY", f"i{dy}").replace("DX", f"i{dx}")
    corners = [CORNER.replace("{a}", a).replace("{b}", b) for a in "01" for b in "01"]
    return onnx.parser.parse_model(head + "".join(corners) + END)


def saved(onnx, folder):
    """The files of the right one, and of one that takes x for y."""
    for name, channels in (("right", (0, 1)), ("swapped", (1, 0))):
        path = folder / f"{name}.onnx"
        onnx.save(one_tap(onnx, *channels), path)
        yield path
