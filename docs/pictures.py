"""The pictures of the site, each drawn in a light and a dark form when it is built.

Those of models need torch; all others only NumPy, refdcn and Matplotlib.
"""

import matplotlib
import numpy as np
from matplotlib.figure import Figure

import refdcn
from refdcn import plot

matplotlib.use("Agg")
# Colours that nothing else has: the dark form is the light one with these exchanged.
LIGHT = {"paper": "#fffffe", "ink": "#1b2431"}
DARK = {"paper": "#131416", "ink": "#e7ebf0"}  # furo's own
SIDE = 28

INKED = (
    "text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor",
    "axes.titlecolor",
)  # fmt: skip
PAPERED = "figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"
STYLE = (
    dict.fromkeys(INKED, LIGHT["ink"])
    | dict.fromkeys(PAPERED, LIGHT["paper"])
    | {"svg.hashsalt": "refdcn", "svg.fonttype": "none", "font.size": 10}
)


def panels(columns, width=8.0, height=2.6, rows=1):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns)


def tents():
    """The tent and its slope."""
    figure, axes = panels(2)
    t = np.linspace(-2, 2, 401)
    axes[0].plot(t, np.maximum(0, 1 - abs(t)))
    axes[0].set(title="tent(q - r)", xlabel="q - r", ylim=(-1.2, 1.2))
    for left, right, value in ((-2, -1, 0), (-1, 0, 1), (0, 1, -1), (1, 2, 0)):
        axes[1].plot([left, right], [value, value], color="C3")
        axes[1].plot(left, value, "o", color="C3", markersize=6)
        axes[1].plot(right, value, "o", color="C3", mfc="none", markersize=6)
    axes[1].set(title="d tent / dq: the filled end counts", xlabel="q - r")
    axes[1].set(ylim=(-1.2, 1.2), xlim=(-2.1, 2.1))
    return figure


def at(row, x, slope=False):
    """x(q) of a column image at (row, 0), or its slope along rows."""
    offset = np.stack([row, np.zeros_like(row)])[None, :, :, None]
    offset[0, 0, :, 0] -= np.arange(len(row))  # outputs lie at 0, 1, 2, ...
    image = np.asarray(x, float)[None, None, :, None]
    weight = np.ones((1, 1, 1, 1))
    if not slope:
        return refdcn.formula.deform_conv2d(image, offset, weight)[0, 0, :, 0]
    ones = np.ones((1, 1, len(row), 1))
    grads = refdcn.formula.deform_conv2d_grad(ones, image, offset, weight)
    return grads[1][0, 0, :, 0]


# How libraries read a row q of an image of H rows, as functions of `at`.
RULES = {
    "the definition": lambda q, x: at(q, x),
    "0 below row 0, the last row repeated above": lambda q, x: np.where(
        q < 0, 0, at(np.minimum(q, len(x) - 1), x)
    ),
    "0 unless all corners are inside": lambda q, x: np.where(
        (q < 0) | (q > len(x) - 1), 0, at(q, x)
    ),
    "the border repeated": lambda q, x: at(np.clip(q, 0, len(x) - 1), x),
}


def border_rules():
    """The value and the slope of a column of four pixels under each rule."""
    figure, axes = panels(len(RULES), 10, 4.2, rows=2)
    x, step = [3.0, 1.0, 2.0, 4.0], 1e-3
    q = np.arange(-1.75, 4.75, step)
    for column, (name, rule) in enumerate(RULES.items()):
        top, below = axes[0][column], axes[1][column]
        value = rule(q, x)
        top.plot(q, value)
        top.plot(range(4), x, "o", color="C1")
        words = name.split()
        top.set_title(" ".join(words[:5]) + "\n" + " ".join(words[5:]), fontsize=8)
        slope = np.diff(value) / step
        slope[abs(slope) > 20] = np.nan  # a jump has no slope
        below.plot(q[:-1], slope, color="C3")
        for one in (top, below):
            one.set(xlim=(-1.8, 4.8), xticks=[-1, 0, 3, 4])
            one.set_xticklabels(["-1", "0", "H-1", "H"], fontsize=8)
            for edge in (-1, 0, 3, 4):
                one.axvline(edge, color="gray", linewidth=0.5, linestyle=":")
        top.set_ylim(-0.4, 4.6)
        below.set_ylim(-4.6, 4.6)
    axes[0][0].set_ylabel("x(q)")
    axes[1][0].set_ylabel("dx / dq")
    return figure


def kinks():
    """The slope at whole numbers, where a choice has to be made."""
    figure, axes = panels(1, 6, 2.8)
    x = [3.0, 1.0, 2.0, 4.0]
    cells = [(-2, -1, 0.0), (-1, 0, 3.0), (0, 1, -2.0), (1, 2, 1.0), (2, 3, 2.0)]
    cells += [(3, 4, -4.0), (4, 5, 0.0)]
    for left, right, value in cells:
        axes.plot([left, right], [value, value], color="C0")
    q = np.arange(-1.0, 5)
    axes.plot(q, at(q, x, slope=True), "o", color="C0", label="right-hand (here)")
    axes.plot(q, at(q - 1e-9, x, slope=True), "x", color="C3", label="left-hand")
    mean = (at(q, x, slope=True) + at(q - 1e-9, x, slope=True)) / 2
    axes.plot(q, mean, "+", color="C2", label="the mean")
    axes.set(xlabel="q", ylabel="dx / dq", xlim=(-2, 5), xticks=range(-2, 6))
    axes.legend(fontsize=8, ncols=3, loc="lower left")
    return figure


def by_hand():
    """The output that the definition's page computes by hand."""
    figure, axes = panels(1, 4.6, 4.2)
    x = np.arange(1.0, 10).reshape(3, 3)
    padded = np.pad(x, 1)
    axes.imshow(padded, cmap="Blues", vmin=-4, vmax=16, extent=(-1.5, 3.5, 3.5, -1.5))
    for r in range(-1, 4):
        for c in range(-1, 4):
            inside = 0 <= r < 3 and 0 <= c < 3
            said = f"{x[r, c]:g}" if inside else "0"
            color = "black" if inside else "gray"
            axes.text(c - 0.38, r - 0.32, said, color=color, fontsize=9)
            axes.add_patch(box((c - 0.5, r - 0.5), 1, 1, color="gray", width=0.4))
    for k, (place, q, text) in enumerate(
        [((0, 0), (0.5, 0.25), "2.75 · 2 · 1"), ((1, 0), (-0.5, 1), "1 · (-1) · 0.5")]
    ):
        start = (place[0], place[1])  # (x, y)
        end = (q[1], q[0])
        axes.plot(*start, "o", mfc="none", color="C3", markersize=9)
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "C3"})
        axes.plot(*end, "o", color="C3", markersize=7)
        shift = (0.14, 0.28) if k == 0 else (0.14, -0.12)
        axes.text(end[0] + shift[0], end[1] + shift[1], f"tap {k}: {text}",
                  color="black", fontsize=8, bbox={"facecolor": "white", "alpha": 0.8,
                  "edgecolor": "none", "pad": 1})  # fmt: skip
    axes.set(xticks=range(-1, 4), yticks=range(-1, 4), xlabel="column", ylabel="row")
    axes.set_title("y(0, 0) = 5.5 - 0.5 = 5", fontsize=10)
    return figure


def operator():
    """A kernel on the grid, and its taps where their offsets have moved them."""
    figure, axes = panels(2, 7.2, 3.0)
    y, z = np.mgrid[:9, :9]
    image = np.exp(-((z - 4 - 1.6 * np.sin(y / 2)) ** 2) / 3)
    taps = np.stack(np.meshgrid([3, 4, 5], [3, 4, 5], indexing="ij"), -1).reshape(-1, 2)
    goal = taps.astype(float)
    goal[:, 0] = 4 + 1.9 * (taps[:, 0] - 4)
    goal[:, 1] = 4 + 1.6 * np.sin(goal[:, 0] / 2) + 0.7 * (taps[:, 1] - 4)
    for one, places, title in (
        (axes[0], taps, "convolution"), (axes[1], goal, "deformable convolution"),
    ):  # fmt: skip
        one.imshow(image, cmap="Blues", vmin=0, vmax=1.6)
        one.set(title=title, xticks=[], yticks=[])
        for (r, c), (q_y, q_x) in zip(taps, places, strict=True):
            one.plot([c, q_x], [r, q_y], color="C1", linewidth=1, linestyle=":")
        one.plot(places[:, 1], places[:, 0], "o", color="C3", markersize=6)
        one.plot(4, 4, "+", color="C1", markersize=9)
    return figure


def rungs():
    """What each rung of the ladder touches for one sample, one output, one tile."""
    figure, axes = panels(4, 10, 2.9)
    q_y, q_x = 2.3, 3.6
    rows, columns = np.arange(6), np.arange(7)
    tent = np.outer(
        np.maximum(0, 1 - abs(rows - q_y)), np.maximum(0, 1 - abs(columns - q_x))
    )
    axes[0].imshow(np.full((6, 7), 0.25), cmap="Blues", vmin=0, vmax=1)
    for (r, c), weight in np.ndenumerate(tent):
        axes[0].text(c, r, f"{weight:.2g}", ha="center", va="center", fontsize=7,
                     color="black")  # fmt: skip
    axes[0].set_title("formula: every pixel\ntimes its tents", fontsize=9)
    axes[1].imshow((tent > 0) * 0.6, cmap="Blues", vmin=0, vmax=1)
    axes[1].plot(q_x, q_y, "o", color="C3", markersize=5)
    axes[1].set_title("loops: a floor and\nfour pixels", fontsize=9)
    matrix = np.zeros((6, 7))
    matrix[2] = 0.6
    axes[2].imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    axes[2].set_title("columns: all samples of an output\nin a row, then one product",
                      fontsize=9)  # fmt: skip
    axes[2].set(xlabel="tap and channel", ylabel="output")
    tile = np.zeros((6, 7))
    tile[2:4, 1:4] = 0.6
    axes[3].imshow(tile, cmap="Blues", vmin=0, vmax=1)
    axes[3].set_title("cpu: a tile at a time,\nkept in the cache", fontsize=9)
    axes[3].set(xlabel="some taps", ylabel="some outputs")
    for one in axes:
        one.set(xticks=[], yticks=[])
        for edge in range(1, 7):
            one.axvline(edge - 0.5, color="gray", linewidth=0.3)
            one.axhline(edge - 0.5, color="gray", linewidth=0.3)
    return figure


def box(corner, w, h, color, width):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, w, h, fill=False, edgecolor=color, linewidth=width)


def groups():
    """Which channels share offsets, and which an output sums."""
    figure, axes = panels(1, 7.2, 2.9)
    C = 6
    for c in range(C):
        axes.text(c + 0.45, 1.4, f"c {c}", ha="center", va="center", fontsize=9)
    spans = [(2, 3, "C0", "offset group"), (3, 2, "C1", "group")]
    for (n, width, color, name), y in zip(spans, (2.1, 0.5), strict=True):
        for g in range(n):
            axes.plot([g * width + 0.05, (g + 1) * width - 0.15], [y, y], color=color,
                      linewidth=6, solid_capstyle="round")  # fmt: skip
            axes.text(g * width + width / 2 - 0.05, y + (0.3 if y > 1 else -0.35),
                      f"{name} {g}", ha="center", va="center", color=color)  # fmt: skip
    for c in range(C):
        axes.add_patch(box((c, 1), 0.9, 0.8, "gray", 1))
    axes.text(6.2, 2.1, "share offsets and masks", va="center", fontsize=9)
    axes.text(6.2, 1.4, "channels of x", va="center", fontsize=9)
    axes.text(6.2, 0.5, "are summed by one run of outputs", va="center", fontsize=9)
    axes.set(xlim=(-0.2, 9.6), ylim=(-0.2, 2.8))
    axes.axis("off")
    return figure


def gradients():
    """Where the gradients of one sample come from."""
    figure, axes = panels(2, 8, 3.4)
    x = np.array([[1.0, 4, 2], [3, 8, 6], [0, 5, 7]])
    grid = np.linspace(0, 2, 81)
    y, z = np.meshgrid(grid, grid, indexing="ij")
    flat = np.stack([y.ravel(), z.ravel()])
    n = flat.shape[1]
    offset = flat.T.reshape(n, 2, 1, 1)
    image = np.broadcast_to(x, (n, 1, 3, 3))
    weight, ones = np.ones((1, 1, 1, 1)), np.ones((n, 1, 1, 1))
    value = refdcn.formula.deform_conv2d(image, offset, weight).reshape(81, 81)
    axes[0].imshow(value, cmap="viridis", extent=(0, 2, 2, 0))
    some = np.array([(a, b) for a in np.arange(0.25, 2, 0.5)
                     for b in np.arange(0.25, 2, 0.5)])  # fmt: skip
    m = len(some)
    grads = refdcn.formula.deform_conv2d_grad(
        ones[:m], image[:m], some.reshape(m, 2, 1, 1), weight
    )[1].reshape(m, 2)
    axes[0].quiver(some[:, 1], some[:, 0], grads[:, 1], grads[:, 0], color="white",
                   angles="xy", scale=40)  # fmt: skip
    axes[0].set(title="x(q), and its slope: grad of offset", xlabel="q_x",
                ylabel="q_y")  # fmt: skip
    spread = refdcn.formula.deform_conv2d_grad(
        ones[:1], image[:1], np.array([0.75, 1.25]).reshape(1, 2, 1, 1), weight
    )[0][0, 0]
    axes[1].imshow(spread, cmap="Oranges", vmin=0, vmax=1)
    for (r, c), share in np.ndenumerate(spread):
        axes[1].text(c, r, f"{share:.4g}", ha="center", va="center", color="black")
    axes[1].plot(1.25, 0.75, "o", color="C0")
    axes[1].set(title="grad of x: G dm times the tents", xticks=range(3),
                yticks=range(3))  # fmt: skip
    return figure


def starts():
    """How the size of the activations goes through layers, by the mask's start."""
    rng = np.random.default_rng(0)
    figure, axes = panels(1, 5.4, 3)
    for start, color in ((1.0, "C0"), (0.5, "C3")):
        a, sizes = rng.normal(size=(1, 16, SIDE, SIDE)), [1.0]
        for _ in range(6):
            w = rng.normal(size=(16, 16, 3, 3)) / 12
            offset = np.zeros((1, 18, SIDE, SIDE))
            mask = np.full((1, 9, SIDE, SIDE), start)
            a = refdcn.deform_conv2d(a, offset, w, mask, padding=(1, 1))
            sizes.append(a[..., 6:-6, 6:-6].std())
        axes.semilogy(sizes, "o-", color=color, label=f"mask starts at {start}")
    axes.set(xlabel="layers", ylabel="standard deviation")
    axes.legend()
    return figure


def drag():
    """Offsets that learn a shift: gradient descent on dp and dm alone."""
    rng = np.random.default_rng(3)
    n = 16
    y, z = np.mgrid[:n, :n]
    blob = np.exp(-((y - 7) ** 2 + (z - 7) ** 2) / 18)
    want = np.exp(-((y - 9) ** 2 + (z - 5) ** 2) / 18)[None, None]
    x = blob[None, None] + 0.01 * rng.normal(size=(1, 1, n, n))
    weight = np.ones((1, 1, 1, 1))
    offset, mask = np.zeros((1, 2, n, n)), np.ones((1, 1, n, n))
    kept = {}
    for step in range(241):
        if step in (0, 30, 240):
            kept[step] = offset.copy(), mask.copy()
        got = refdcn.deform_conv2d(x, offset, weight, mask)
        grads = refdcn.deform_conv2d_grad(got - want, x, offset, weight, mask)
        offset, mask = offset - 6 * grads.offset, mask - 0.1 * grads.mask
    figure, axes = panels(3, 9, 3.2)
    for one, (step, (dp, dm)) in zip(axes, kept.items(), strict=True):
        one.imshow(dm[0, 0], cmap="gray", vmin=0, vmax=1.5)
        one.quiver(z, y, dp[0, 1], dp[0, 0], angles="xy", scale_units="xy", scale=1,
                   color="C1")  # fmt: skip
        one.set(title=f"after {step} steps", xticks=[], yticks=[])
    return figure


def errors():
    """An error map: what a kernel that reads (x, y) does to a layer's output."""
    from refdcn.demo.wrong import swapped

    rng = np.random.default_rng(5)
    x = rng.normal(size=(1, 4, SIDE, SIDE))
    w = rng.normal(size=(4, 4, 3, 3))
    y, z = np.mgrid[:SIDE, :SIDE]
    offset = np.zeros((1, 18, SIDE, SIDE))
    offset[:, 0::2], offset[:, 1::2] = y / SIDE, y / SIDE  # equal on both axes...
    offset[:, 1::2] += np.where(z > SIDE // 2, 0.5, 0)  # ... on the left half
    right = refdcn.deform_conv2d(x, offset, w, None, padding=(1, 1))
    wrong = swapped(x, offset, w, None, None, padding=(1, 1))
    figure, axes = panels(3, 9, 3.1)
    size = abs(right).max()
    named = ("as defined", right), ("offsets read as (x, y)", wrong)
    for one, (title, a) in zip(axes, named, strict=False):
        one.imshow(a[0, 0], cmap="RdBu", vmin=-size, vmax=size)
        one.set(title=title, xticks=[], yticks=[])
    shown = axes[2].imshow(abs(wrong - right)[0].max(0), cmap="magma")
    axes[2].set(title="largest error of a channel", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes[2])
    return figure


def layers(offset_size):
    """Two deformable layers with drawn offsets, as a torch model."""
    import torch

    from refdcn.torch import DeformConv2d

    torch.manual_seed(2)
    model = torch.nn.Sequential(
        DeformConv2d(1, 4, 3, padding=1), torch.nn.ReLU(),
        DeformConv2d(4, 1, 3, padding=1),
    )  # fmt: skip
    for layer in (model[0], model[2]):
        torch.nn.init.normal_(layer.offset.bias, 0, offset_size)
    return model


def sampling_points():
    """All points that one unit of the second layer reads."""
    import torch

    y, z = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    ring = torch.exp(-((((y - 12) ** 2 + (z - 12) ** 2) ** 0.5 - 7) ** 2) / 4)
    return plot.sampling(layers(1.5), ring[None], unit=(12, 12))


def receptive_field():
    """The gradient of one unit by the image, through plain and deformable layers."""
    import torch

    figure, axes = panels(2, 6.4, 3.2)
    for one, (name, size) in zip(
        axes, (("offsets 0", 0.0), ("offsets of 1.5 pixels", 1.5)), strict=True
    ):
        total = torch.zeros(24, 24)
        for seed in range(40):
            torch.manual_seed(seed)
            x = torch.rand(1, 1, 24, 24, requires_grad=True)
            model = layers(size)
            for layer in (model[0], model[2]):
                torch.nn.init.normal_(layer.weight)
            model(x)[0, 0, 12, 12].backward()
            total += x.grad[0, 0].abs()
        one.imshow(total.numpy() ** 0.5, cmap="magma")
        one.set(title=name, xticks=[], yticks=[])
    return figure


PICTURES = [
    plot.taps, tents, border_rules, kinks, by_hand, groups, gradients, starts, drag,
    errors, sampling_points, receptive_field, rungs,
]  # fmt: skip


def draw(folder, chosen=PICTURES):
    """NAME-light.svg and NAME-dark.svg of each."""
    for picture in chosen:
        path = folder / f"{picture.__name__}-light.svg"
        with matplotlib.rc_context(STYLE):
            picture().savefig(path, metadata={"Date": None})
        text = path.read_text(encoding="utf-8")
        for name, color in LIGHT.items():
            text = text.replace(color, DARK[name])
        path.with_name(f"{picture.__name__}-dark.svg").write_text(
            text, encoding="utf-8"
        )
