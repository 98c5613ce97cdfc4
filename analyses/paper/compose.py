"""A `Sheet` as a picture, and as the table of exactly the numbers in it."""

import textwrap
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FixedLocator, NullLocator

from analyses.figures import RARE
from analyses.paper.sheets import Line, Matrix, Mosaic, Panel, Sheet, image_shape
from analyses.style import number_ticks, shade

__all__ = ["compose", "tabulate"]

LETTERS_PER_INCH = 17
"""Of the small print under the title."""
TITLE_LETTERS_PER_INCH = 12
MISSING = 0.8
"""Grey level of an image that was not measured."""
RARELY = f"rare in training (< {RARE:.0%})"


def compose(sheet: Sheet, title: str, source: str = "") -> Figure:
    """The sheet drawn, with its title and its small print, which begins with the `source`."""
    width, height = sheet.size
    drawn = Figure(figsize=sheet.size, layout="constrained")
    heading = textwrap.fill(title, int(TITLE_LETTERS_PER_INCH * width))
    drawn.suptitle(heading, fontsize=11, x=0.01, ha="left")
    body = drawn.subfigures()
    # The small print is as wide as the figure; what it needs is added to the height.
    lines = [
        part
        for line in small_print(sheet, source)
        for part in textwrap.wrap(line, int(LETTERS_PER_INCH * width))
    ]
    drawn.set_size_inches(width, height + 0.14 * len(lines))
    body.suptitle("\n".join(lines), fontsize=8, color="0.3", x=0.01, ha="left")
    blocks = [body]
    if sheet.panels and sheet.pictures:
        blocks = list(body.subfigures(1, 2, width_ratios=(1.0, sheet.share)))
    if sheet.panels:
        _draw_panels(blocks[0], sheet.panels)
    if sheet.pictures:
        _draw_pictures(blocks[-1], sheet.pictures, sheet.across)
    return drawn


def small_print(sheet: Sheet, source: str = "") -> list[str]:
    """Which cells are shown, the counts, what the bands are, and the sheet's own notes."""
    counts = ", ".join(f"{n} {d}{'s' * (n != 1)}" for d, n in sheet.replicates.items())
    lines = [each for panel in sheet.panels for each in panel.lines]
    cells = f"Cells: {sheet.where}." if sheet.where else ""
    text = [f"{source} {cells}".strip()]
    if lines:
        bands = sorted({each.band for each in lines if each.band})
        text.append(f"Lines: mean over replicates, the (seed, draw) pairs: {counts}.")
        text[-1] += f" Band: {'; '.join(bands) if bands else 'none, a single replicate'}."
    if any(isinstance(p, Mosaic) for p in sheet.pictures):
        text.append("Images: first seed and draw, fixed range [-1, 1].")
    if any(isinstance(p, Matrix) for p in sheet.pictures):
        text.append("Matrices: first seed and draw.")
    if any(panel.exposure is not None for panel in sheet.panels):
        text[1] += f" Grey: under {RARE:.0%} of the training noise is within a factor sqrt 2."
    return [each for each in (*text, *sheet.notes) if each]


def _draw_panels(block: SubFigure, panels: Sequence[Panel]) -> None:
    places = block.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(places, panels, strict=True):
        _draw_panel(axes, panel)
    groups: list[list[int]] = []
    for i, axes in enumerate(places):
        here = set(_labels(axes))
        before = set(_labels(places[groups[-1][0]])) if groups else set()
        if groups and (here <= before or before <= here):
            groups[-1].insert(0 if before < here else len(groups[-1]), i)
        else:
            groups.append([i])
    sides = {1: ("center",), 2: ("left", "right"), 3: ("left", "center", "right")}[len(groups)]
    for side, group in zip(sides, groups, strict=True):
        room = len(group) / len(places)
        _draw_legend(block, places[group[0]], panels[group[0]].legend, side, room)


def _draw_legend(block: SubFigure, axes: Axes, title: str, side: str, room: float) -> None:
    """The legend of an axes under its block, on a `room`-th of it."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    inches = block.figure.get_figwidth() * block.bbox.width / block.figure.bbox.width
    longest = max(len(label) for label in labels) + 7
    columns = int(0.8 * LETTERS_PER_INCH * inches * room / longest)
    block.legend(
        handles,
        labels,
        loc=f"outside lower {side}",
        title=title,
        title_fontsize=8,
        fontsize=8,
        frameon=False,
        ncols=min(max(columns, 1), len(handles)),
    )


def _labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_xscale(panel.x_scale)
    axes.set_yscale(panel.y_scale)
    for each in panel.lines:
        label = each.label if each.shown else f"_{each.label}"
        axes.plot(each.x, each.value, label=label, **each.style)
        colour = each.style["color"]
        if each.band and panel.places:
            axes.vlines(each.x, each.low, each.high, color=colour, lw=1.6)
        elif each.band:
            axes.fill_between(each.x, each.low, each.high, color=colour, alpha=0.2, lw=0)
    for label, style in panel.notes:
        axes.plot([], [], label=label, **style)
    if panel.limits:
        axes.set_xlim(*panel.limits)
    if panel.y_limits == (0.0, None):
        axes.set_ylim(0.0, 1.05 * axes.get_ylim()[1])
    else:
        axes.set_ylim(*panel.y_limits)
    if panel.exposure is not None:
        # There a network can be anything.
        exposure = panel.exposure.sortby("sigma")
        shade(axes, exposure["sigma"].values.astype(float), exposure.values < RARE, RARELY)
    if panel.places:
        axes.set_xticks(range(len(panel.places)), panel.places, fontsize=8)
        axes.set_xlim(-0.5, len(panel.places) - 0.5)
    elif panel.x_scale == "log":
        _log_ticks(axes, np.unique(np.concatenate([each.x for each in panel.lines])))
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xlabel("" if panel.places else panel.x)
    axes.set_ylabel(panel.y)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)


def _log_ticks(axes: Axes, values: Float[np.ndarray, " k"]) -> None:
    """Decades as plain numbers; where fewer than two are in view, the values themselves."""
    low, high = axes.get_xlim()
    decades = 10.0 ** np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    if len(decades) < 2 or len(values) < 5:
        number_ticks(axes, "x", values)
        return
    axes.xaxis.set_major_locator(FixedLocator(decades))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_ticklabels([f"{each:g}" for each in decades])


def _draw_pictures(block: SubFigure, pictures: Sequence[Mosaic | Matrix], across: int) -> None:
    rows = -(-len(pictures) // across)
    heights = [_rows_of(pictures[i * across]) for i in range(rows)]
    places = block.subplots(rows, across, squeeze=False, height_ratios=heights).ravel()
    for axes, picture in zip(places, pictures, strict=False):
        axes.set_title(picture.title, fontsize=9, loc="left")
        if isinstance(picture, Mosaic):
            _draw_mosaic(axes, picture)
        else:
            mesh = _draw_matrix(axes, picture)
    for axes in places[len(pictures) :]:
        axes.remove()
    if any(isinstance(each, Matrix) for each in pictures):
        block.colorbar(mesh, ax=list(places[: len(pictures)]), label=pictures[0].name, shrink=0.7)


def _rows_of(picture: Mosaic | Matrix) -> int:
    return len(picture.rows) if isinstance(picture, Mosaic) else 1


def _draw_mosaic(axes: Axes, mosaic: Mosaic) -> None:
    """All images as one, with white between them: they share scale and position exactly."""
    c, h, w = image_shape(mosaic.images.shape[2])
    gap = max(1, h // 8)
    below = 0 if mosaic.captions is None else max(3, round(0.35 * h))
    tall, wide = h + gap + below, w + gap
    rows, columns = mosaic.images.shape[:2]
    canvas = np.ones((rows * tall - gap, columns * wide - gap, 3))
    grey = (mosaic.images.clip(-1, 1) + 1) / 2
    for r, k in np.ndindex(rows, columns):
        image = np.nan_to_num(grey[r, k], nan=MISSING).reshape(c, h, w).transpose(1, 2, 0)
        canvas[r * tall : r * tall + h, k * wide : k * wide + w] = image
    axes.imshow(canvas, interpolation="nearest", vmin=0, vmax=1)
    if mosaic.captions is not None:
        for (r, k), number in np.ndenumerate(mosaic.captions):
            place = k * wide + (w - 1) / 2, r * tall + h + below / 2 - 0.5
            text = f"{number:.2f}" if np.isfinite(number) else ""
            axes.text(*place, text, fontsize=6, ha="center", va="center")
    axes.set_yticks([r * tall + (h - 1) / 2 for r in range(rows)], mosaic.rows, fontsize=7)
    middles = [k * wide + (w - 1) / 2 for k in range(columns)]
    shown = mosaic.columns or [""] * columns
    axes.set_xticks(middles, shown, fontsize=7)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_anchor("N")


def _draw_matrix(axes: Axes, matrix: Matrix) -> object:
    shown = np.ma.masked_invalid(matrix.values)
    axes.set_facecolor(str(MISSING))
    rows, columns = matrix.values.shape
    ends = (0.5, columns + 0.5, rows + 0.5, 0.5)
    axes.set_xlabel(matrix.x, fontsize=8)
    axes.set_ylabel(matrix.y, fontsize=8)
    axes.tick_params(labelsize=7)
    mesh = axes.imshow(shown, cmap="cividis", vmin=0, vmax=1, interpolation="nearest", extent=ends)
    return mesh


def tabulate(sheet: Sheet) -> pd.DataFrame:
    """Every number that `compose` draws, one row a point, pixel or matrix entry."""
    rows = [row for panel in sheet.panels for each in panel.lines for row in _points(panel, each)]
    for picture in sheet.pictures:
        if isinstance(picture, Mosaic):
            rows += _pixels(picture)
        else:
            rows += _entries(picture)
    return pd.DataFrame(rows)


def _points(panel: Panel, line: Line) -> Iterator[dict]:
    own = {"part": panel.title, "line": line.label, "variable": line.name, "axis": panel.x}
    columns = (line.x, line.value, line.low, line.high, line.replicates)
    for x, value, low, high, count in zip(*columns, strict=True):
        numbers = {"value": value, "low": low, "high": high, "replicates": int(count)}
        place = " ".join(panel.places[int(x)].split()) if panel.places else ""
        yield own | {"x": x, "place": place} | numbers | {"band": line.band}


def _pixels(mosaic: Mosaic) -> Iterator[dict]:
    own = {"part": mosaic.title, "axis": "image"}
    columns = mosaic.columns or [""] * mosaic.images.shape[1]
    for (r, k, pixel), value in np.ndenumerate(mosaic.images):
        place = {"line": mosaic.rows[r], "x": k, "place": columns[k]}
        yield own | place | {"variable": "pixel value", "pixel": pixel, "value": value}
    if mosaic.captions is not None:
        for (r, k), value in np.ndenumerate(mosaic.captions):
            place = {"line": mosaic.rows[r], "x": k, "place": columns[k]}
            if np.isfinite(value):
                yield own | place | {"variable": mosaic.caption, "value": value}


def _entries(matrix: Matrix) -> Iterator[dict]:
    own = {"part": matrix.title, "variable": matrix.name, "axis": matrix.x}
    for (r, k), value in np.ndenumerate(matrix.values):
        yield own | {"line": f"{r + 1}", "x": k + 1, "value": value}
