"""Pictures of the operator; needs Matplotlib (`pip install "refdcn[plot]"`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
            axes.plot(j, i, "o", color="black", markersize=7)
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
