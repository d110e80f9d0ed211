"""Pictures of the operator; needs Matplotlib (`pip install "refdcn[plot]"`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure


def taps(K_h: int = 3, K_w: int = 3, offset_group: int = 0) -> Figure:
    """The taps of a kernel with the offset channels that move them.

        dy of tap (i, j): 2 * ((offset_group * K_h + i) * K_w + j);  dx: the next one

    Parameters
    ----------
    K_h, K_w : int
        Rows and columns of the kernel.
    offset_group : int
        Which group's channels are written on the taps.

    Returns
    -------
    matplotlib.figure.Figure
        Row i goes down and column j to the right. On each tap an arrow down carries
        the channel of dy and an arrow to the right that of dx.

    Raises
    ------
    ImportError
        Without Matplotlib.

    References
    ----------
    The layout of `offset` in `refdcn.formula`.

    Examples
    --------
    >>> from refdcn import plot
    >>> axes, = plot.taps(K_h=1, K_w=2).axes
    >>> [text.get_text() for text in axes.texts if text.get_text().isdigit()]
    ['0', '1', '2', '3']
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * K_w + 0.8, 1.5 * K_h + 0.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.4, K_w - 0.2), ylim=(K_h - 0.2, -0.4), aspect="equal")
    axes.set(xticks=range(K_w), yticks=range(K_h), xlabel="column j", ylabel="row i")
    axes.xaxis.set(label_position="top", ticks_position="top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i in range(K_h):
        for j in range(K_w):
            channel = 2 * ((offset_group * K_h + i) * K_w + j)
            axes.plot(j, i, "o", color="gray", markersize=7)
            for name, d, color in (("dy", (0, 1), "C0"), ("dx", (1, 0), "C3")):
                tip = j + 0.5 * d[0], i + 0.5 * d[1]
                arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 1.5}
                axes.annotate("", tip, (j, i), arrowprops=arrow)
                at = (j + 0.42, i - 0.12) if name == "dx" else (j - 0.14, i + 0.4)
                number = channel + (name == "dx")
                axes.text(*at, f"{number}", color=color, ha="center", va="center")
    for name, color, at in (("dy", "C0", (0.16, 0.4)), ("dx", "C3", (0.42, 0.14))):
        axes.text(*at, name, color=color, ha="center", va="center", style="italic")
    return figure


def sampling(
    model: Any, image: Any, unit: tuple[int, int], layers: Sequence[str] | None = None
) -> Figure:
    """Where one output unit samples the image, through stacked deformable layers.

        q = p + p_k + dp_k,  and again from each of the units between which q lies

    Parameters
    ----------
    model : torch.nn.Module
        Whose layers are refdcn's or torchvision's, or call either's operator.
    image : [C, H, W] or [1, C, H, W]
        What the model takes.
    unit : (row, column)
        Of the output of the last of the layers.
    layers : names, optional
        Those to go through, which the model runs one upon the other; all that it calls
        if None, so branches side by side need to be chosen from.

    Returns
    -------
    matplotlib.figure.Figure
        The image, the unit as a cross, and each point with an area proportional to its
        share: the product of modulations and bilinear weights on its way.

    Raises
    ------
    ImportError
        Without Matplotlib or torch.
    ValueError
        A unit outside the output, several images, or layers that were not called.

    Notes
    -----
    Other layers between are taken as keeping the place, edge to edge: exact where they
    keep the size, and within half their stride where they do not.

    Examples
    --------
    >>> import torch
    >>> from refdcn import plot
    >>> from refdcn.torch import DeformConv2d
    >>> model = DeformConv2d(1, 1, kernel_size=3, padding=1)
    >>> axes, = plot.sampling(model, torch.rand(1, 8, 8), unit=(2, 5)).axes
    >>> axes.collections[0].get_offsets()[:3].tolist()  # (x, y), still at rest
    [[4.0, 1.0], [5.0, 1.0], [6.0, 1.0]]
    """
    from matplotlib.figure import Figure

    from refdcn.torch.points import sampling_points

    points, shares, (row, column) = sampling_points(model, image, unit, layers)
    picture = (image if image.ndim == 3 else image[0]).detach().cpu().float()
    picture = picture[:3] if len(picture) >= 3 else picture[:1]
    low, high = picture.min(), picture.max()
    picture = ((picture - low) / (high - low).clamp(min=1e-12)).permute(1, 2, 0)
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1)
    sizes = shares.abs() / shares.abs().max().clamp(min=1e-300)
    axes.scatter(
        points[:, 1].numpy(), points[:, 0].numpy(), 4 + 40 * sizes.numpy(),
        color="yellow", alpha=0.7, edgecolors="black", linewidths=0.2,
    )  # fmt: skip
    axes.plot(column, row, "+", color="C3", markersize=14, markeredgewidth=2)
    axes.set(xlabel="x", ylabel="y")
    return figure
