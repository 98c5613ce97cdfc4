r"""The four figures of a sweep, each from a table of exactly the numbers it shows.

`plotted(name, cube, phase)` is that table; `FIGURES[name](cube, phase)` draws it. Values are means
over the replicates, the (seed, draw) pairs; below four of them the band is their range. Of every
further axis (split, hyper-parameters) the first value is shown and named. Cells that were not
measured stay grey and hatched: nothing is interpolated over them.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.phase import LEVELS
from analyses.style import figure, line_style, log_edges, number_ticks, shade
from analyses.tables import (
    plotted,
    table_distance,
    table_kimg,
    table_linearity,
    table_width,
)
from analyses.trials import across
from analyses.wording import subject

__all__ = ["FIGURES", "plotted"]

KIMG = "training time (kimg: thousands of images)"
RARE = 0.05
"""Share of training draws within a factor sqrt 2 of a noise level, below which it is shaded."""
BOUNDARY = {LEVELS[0]: ("#ffffff", "-"), LEVELS[1]: ("#ff7f0e", (0, (4, 1.5)))}
"""Colour and dash of the boundary at each memorized fraction."""


def draw_width(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Phase diagram over n_train and width at the last kimg."""
    place = f"at {cube['kimg'].values[-1]:g} kimg"
    return _diagram(cube, table_width(cube, phase), place, "width", "width", "width")


def draw_kimg(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Phase diagram over n_train and kimg at the largest width."""
    place = f"at width {cube['width'].values.max()}"
    return _diagram(cube, table_kimg(cube, phase), place, "kimg", "n_train", KIMG)


def draw_distance(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Distance to the Gaussian denoiser over training time."""
    table = table_distance(cube, phase)
    place = f"at width {cube['width'].values.max()}, sigma {table['sigma'].iloc[0]:g}"
    drawn, axes = figure(
        f"Distance to the Gaussian denoiser: {subject(cube)}",
        _line_subtitle(cube, table, place, "image"),
    )
    for rows, style in _lines(axes, table, "kimg", "denoiser_rmse"):
        least = rows[rows["is_minimum"]]
        ring = {"ms": 12, "mfc": "none", "mec": style["color"], "mew": 1.4}
        axes.plot(least["kimg"], least["denoiser_rmse"], "o", label="_minimum", **ring)
    axes.plot([], [], "o", ms=11, mfc="none", mec="0.3", ls="none", label="minimum")
    axes.set_xlabel(KIMG)
    axes.set_ylabel("RMSE to the Gaussian denoiser (pixel)")
    axes.set_ylim(bottom=0)
    _side_legend(axes, "n_train")
    return drawn


def draw_linearity(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Centred linearity over noise level, beside the two oracles."""
    table, name = table_linearity(cube, phase), "linearity_cosine_centred"
    place = f"at width {cube['width'].values.max()}, {cube['kimg'].values[-1]:g} kimg"
    drawn, axes = figure(f"Linearity: {subject(cube)}", _line_subtitle(cube, table, place, "pair"))
    for rows, style in _lines(axes, table, "sigma", name):
        thin = {"color": style["color"], "ls": style["linestyle"], "lw": 0.8}
        axes.plot(rows["sigma"], rows[f"{name}_empirical"], label="_empirical", **thin)
    _shade_untrained(axes, table)
    ceiling = table.groupby("sigma")[f"{name}_gaussian"].mean()
    axes.plot(ceiling.index, ceiling, color="0.2", lw=1, label="Gaussian oracle")
    axes.plot([], [], color="0.4", lw=0.8, label="empirical oracle\n(thin, same dash)")
    axes.set_xlabel("noise level sigma (pixel)")
    axes.set_ylabel("centred linearity (cosine, 1 = affine)")
    _side_legend(axes, "n_train")
    return drawn


FIGURES: dict[str, Callable[[xr.Dataset, xr.Dataset], Figure]] = {
    "memorized_fraction_width": draw_width,
    "memorized_fraction_kimg": draw_kimg,
    "gaussian_distance": draw_distance,
    "linearity": draw_linearity,
}


def _diagram(
    cube: xr.Dataset, table: pd.DataFrame, place: str, y: str, crossed: str, label: str
) -> Figure:
    """Memorized fraction over n_train and `y`, with one crossing per value of `crossed`.

    The crossing lies at the edge between the last cell on one side of the level and the next.
    """
    subtitle = f"{place}, mean over replicates (seed, draw)\n{_counts(cube, 'sample')}"
    drawn, axes = figure(f"Memorized fraction: {subject(cube)}", subtitle)
    _heat(drawn, axes, table, y)
    axes.set_ylabel(label)
    for level, rows in table.groupby("level"):
        once = rows.drop_duplicates(crossed)
        _boundary_line(axes, once, crossed, float(level), along="x" if y == crossed else "y")
    _legend(axes)
    return drawn


def _heat(drawn: Figure, axes: Axes, table: pd.DataFrame, y: str) -> None:
    """Cells of f_mem with true log edges; missing cells show the hatched background."""
    grid = table.drop_duplicates(["n_train", y]).pivot(
        index=y, columns="n_train", values="memorized_fraction"
    )
    x_edges, y_edges = (log_edges(a.to_numpy(float)) for a in (grid.columns, grid.index))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.patch.set(facecolor="0.88", hatch="////", edgecolor="0.65")
    mesh = axes.pcolormesh(
        x_edges,
        y_edges,
        np.ma.masked_invalid(grid.to_numpy(float)),
        cmap="cividis",
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    axes.set_xlim(x_edges[0], x_edges[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    number_ticks(axes, "x", grid.columns.to_numpy(float))
    number_ticks(axes, "y", grid.index.to_numpy(float))
    axes.set_xlabel("n_train (training images)")
    drawn.colorbar(mesh, ax=axes, label="memorized fraction of samples", pad=0.02)
    if grid.size <= 80:
        _write_values(axes, grid)


def _write_values(axes: Axes, grid: pd.DataFrame) -> None:
    """The number in each measured cell."""
    for (row, column), value in np.ndenumerate(grid.to_numpy(float)):
        if np.isfinite(value):
            place = grid.columns[column], grid.index[row]
            colour = "k" if value > 0.55 else "w"
            axes.text(*place, f"{value:.2f}", fontsize=7, ha="center", va="center", color=colour)


def _boundary_line(axes: Axes, rows: pd.DataFrame, key: str, level: float, along: str) -> None:
    """Steps through the crossing of each row or column, with an arrow where there is none."""
    colour, dash = BOUNDARY[level]
    rows = rows.sort_values(key)
    edges = log_edges(rows[key].to_numpy(float))
    limits = axes.get_xlim() if along == "x" else axes.get_ylim()
    path: list[tuple[float, float]] = []
    for (_, row), first, last in zip(rows.iterrows(), edges[:-1], edges[1:], strict=True):
        low, high = row["boundary_low"], row["boundary_high"]
        if np.isnan(low):
            path += [(np.nan, np.nan)]
            continue
        open_end = limits[0] if low == 0 else limits[1] if np.isinf(high) else None
        place = np.sqrt(low * high) if open_end is None else open_end
        path += [(place, first), (place, last)]
        if open_end is not None:
            # Side by side: the arrows of the two levels often share an edge.
            beside = first * (last / first) ** (0.35 if level == LEVELS[0] else 0.65)
            _arrow(axes, open_end, beside, along, bool(low == 0), colour)
    x, y = np.array(path).T if along == "x" else np.array(path).T[::-1]
    label = f"f_mem = {level:.0%}"
    axes.plot(x, y, color="k", lw=3.4, solid_capstyle="butt", clip_on=False, label="_edge")
    axes.plot(x, y, color=colour, lw=2, ls=dash, clip_on=False, label=label)


def _arrow(axes: Axes, end: float, across_: float, along: str, low: bool, colour: str) -> None:
    """Marker at the edge of the grid: the boundary lies beyond it."""
    marker = {("x", True): "<", ("x", False): ">", ("y", True): "v", ("y", False): "^"}[along, low]
    x, y = (end, across_) if along == "x" else (across_, end)
    axes.plot(x, y, marker, color=colour, mec="k", ms=9, clip_on=False, zorder=5, label="_beyond")


def _legend(axes: Axes) -> None:
    """Legend of a phase diagram, below it."""
    axes.plot([], [], ">", color="w", mec="k", ls="none", label="not crossed inside the grid")
    axes.fill([], [], facecolor="0.88", hatch="////", edgecolor="0.65", label="not measured")
    axes.figure.legend(loc="outside lower center", ncols=4, fontsize=8, facecolor="0.8")


def _side_legend(axes: Axes, title: str) -> None:
    """Legend of a line figure, to its right."""
    axes.grid(color="0.92")
    axes.figure.legend(loc="outside right upper", title=title, fontsize=8, frameon=False)


def _lines(
    axes: Axes, table: pd.DataFrame, x: str, name: str
) -> Iterator[tuple[pd.DataFrame, dict]]:
    """Draw one line per n_train with its band over a log axis; each one's rows and style."""
    axes.set_xscale("log")
    groups = list(table.groupby("n_train"))
    for i, (n, rows) in enumerate(groups):
        style = line_style(i, len(groups))
        axes.plot(rows[x], rows[name], label=f"{n:g}", **style)
        ends = rows["band_low"], rows["band_high"]
        axes.fill_between(rows[x], *ends, color=style["color"], alpha=0.2, lw=0)
        yield rows, style
    number_ticks(axes, "x", np.unique(table[x]))


def _shade_untrained(axes: Axes, table: pd.DataFrame) -> None:
    """Grey behind the noise levels that training rarely draws: there a network can be anything."""
    levels = table.drop_duplicates("sigma").sort_values("sigma")
    rare = levels["exposure"].to_numpy(float) < RARE
    label = f"under {RARE:.0%} of the training\nnoise is near this level"
    shade(axes, levels["sigma"].to_numpy(float), rare, label)


def _line_subtitle(cube: xr.Dataset, table: pd.DataFrame, place: str, own: str) -> str:
    """Where the lines are taken, what their band is, and the counts."""
    return (
        f"{place}, held-out inputs; mean over replicates (seed, draw)\n"
        f"band: {table['band'].iloc[0]}\n{_counts(cube, own)}"
    )


def _counts(cube: xr.Dataset, own: str) -> str:
    """Numbers of seeds, draws and of what is averaged, and the further axes' shown values."""
    parts = [f"{cube.sizes.get(d, 1)} {d}(s)" for d in ("seed", "draw")]
    if own in cube.sizes:
        parts.append(f"{cube.sizes[own]} {'held-out image' if own == 'image' else own}s each")
    for d in across(cube):
        if d not in ("width", "n_train", "seed", "draw"):
            parts.append(
                f"{d} {cube[d].values[0]} (first of {cube.sizes[d]})"
                if cube.sizes[d] > 1
                else f"{d} {cube[d].values[0]}"
            )
    return ", ".join(parts)
