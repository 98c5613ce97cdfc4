"""What every figure shares: log cell edges, lines told apart without colour, embedded fonts."""

import io
import textwrap

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1.5, 1)), (0, (3, 1, 1, 1, 1, 1)))
RC = {
    "pdf.fonttype": 42,  # TrueType: text stays text, and journals accept it
    "ps.fonttype": 42,
    "svg.fonttype": "none",
}


def log_edges(centres: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k+1"]:
    """Edges of cells around positive, increasing `centres`: geometric middles, ends mirrored.

    >>> log_edges(np.array([1.0, 4.0, 16.0])).tolist()
    [0.5, 2.0, 8.0, 32.0]
    """
    logs = np.log2(centres)
    if len(logs) == 1:
        return np.exp2([logs[0] - 0.5, logs[0] + 0.5])
    middles = (logs[1:] + logs[:-1]) / 2
    ends = [2 * logs[0] - middles[0]], [2 * logs[-1] - middles[-1]]
    return np.exp2(np.concatenate([ends[0], middles, ends[1]]))


def line_style(i: int, count: int) -> dict:
    """Colour (cividis, dark to light), marker and dash of line `i` of `count`."""
    # The lightest tenth of the map is too pale on white.
    colour = colormaps["cividis"](0.9 * i / max(count - 1, 1))
    return {
        "color": colour,
        "marker": MARKERS[i % 10],
        "linestyle": DASHES[i % 5],
        "markersize": 5,
        "linewidth": 1.6,
    }


def number_ticks(axes: Axes, which: str, values: np.ndarray) -> None:
    """Label a log axis at the values themselves, leaving out those whose labels would touch."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    span = abs(np.diff(np.log(np.asarray(axis.get_view_interval(), float)))[0])
    kept: list[float] = []
    for value in values:
        # Shares of the axis: a digit is about 0.018 wide, a line of text 0.05 high.
        letters = len(f"{value:g}") + (len(f"{kept[-1]:g}") if kept else 0)
        room = 0.018 * letters / 2 + 0.015 if which == "x" else 0.05
        if not kept or np.log(value / kept[-1]) > room * span:
            kept.append(float(value))
    axis.set_major_locator(FixedLocator(kept))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels([f"{value:g}" for value in kept])


def shade(
    axes: Axes,
    levels: Float[np.ndarray, " k"],
    flagged: Bool[np.ndarray, " k"],
    label: str,
) -> None:
    """Grey behind the flagged ones of positive, increasing `levels`, inside the axes' limits."""
    edges, limits = log_edges(levels), axes.get_xlim()
    for first, last in zip(edges[:-1][flagged], edges[1:][flagged], strict=True):
        ends = max(first, limits[0]), min(last, limits[1])
        if ends[0] < ends[1]:
            axes.axvspan(*ends, color="0.93", lw=0, zorder=0, label=label)
            label = "_more"
    axes.set_xlim(limits)


def figure(title: str, subtitle: str, width: float = 7.2, height: float = 4.6) -> tuple:
    """An empty figure with one axes, a title and a subtitle: (Figure, Axes)."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    drawn.suptitle(title, fontsize=11, x=0.01, ha="left")
    axes = drawn.add_subplot()
    lines = "\n".join(textwrap.fill(line, 92) for line in subtitle.splitlines())
    axes.set_title(lines, fontsize=8, loc="left", color="0.3")
    return drawn, axes


def render(drawn: Figure, form: str, dpi: int = 150) -> bytes:
    """The figure as the bytes of a "png", "pdf" or "svg" file, the same for the same figure."""
    dated = {"pdf": "CreationDate", "svg": "Date"}
    metadata = {dated[form]: None} if form in dated else None
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC | {"svg.hashsalt": "diffphase"}):
        drawn.savefig(buffer, format=form, dpi=dpi, metadata=metadata)
    return buffer.getvalue()
