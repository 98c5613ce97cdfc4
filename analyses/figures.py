r"""The four figures of a sweep, each from a table of exactly the numbers it shows.

`plotted(name, cube, phase)` is that table; `FIGURES[name](cube, phase)` draws it. Values are means
over seeds and draws; of every further axis (split, hyper-parameters) the first value is shown and
named. Cells that were not measured stay grey and hatched: nothing is interpolated over them.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.phase import LEVELS, across
from analyses.style import figure, line_style, log_edges, number_ticks
from analyses.tables import (
    plotted,
    table_distance,
    table_kimg,
    table_linearity,
    table_width,
)
from analyses.wording import subject

__all__ = ["FIGURES", "plotted"]

BOUNDARY = {LEVELS[0]: ("#ffffff", "-"), LEVELS[1]: ("#ff7f0e", (0, (4, 1.5)))}
"""Colour and dash of the boundary at each memorized fraction."""


def draw_width(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Phase diagram over n_train and width at the last kimg."""
    table = table_width(cube, phase)
    subtitle = f"at {cube['kimg'].values[-1]:g} kimg\n{_counts(cube, 'sample')}"
    drawn, axes = figure(f"Memorized fraction: {subject(cube)}", subtitle)
    _heat(drawn, axes, table, "width")
    axes.set_ylabel("width")
    for level, rows in table.groupby("level"):
        # One boundary per width: at the edge between the last n_train above the level and the
        # next; open where the grid never crosses.
        _boundary_line(axes, rows.drop_duplicates("width"), "width", float(level), along="x")
    _legend(axes)
    return drawn


def draw_kimg(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Phase diagram over n_train and kimg at the largest width."""
    table = table_kimg(cube, phase)
    subtitle = f"at width {cube['width'].values.max()}\n{_counts(cube, 'sample')}"
    drawn, axes = figure(f"Memorized fraction: {subject(cube)}", subtitle)
    _heat(drawn, axes, table, "kimg")
    axes.set_ylabel("training time (kimg: thousands of images)")
    for level, rows in table.groupby("level"):
        _boundary_line(axes, rows.drop_duplicates("n_train"), "n_train", float(level), along="y")
    _legend(axes)
    return drawn


def draw_distance(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Distance to the Gaussian denoiser over training time."""
    table = table_distance(cube, phase)
    subtitle = (
        f"at width {cube['width'].values.max()}, sigma {table['sigma'].iloc[0]:g}, held-out "
        f"inputs; {_band_text(table, 'denoiser_rmse')}\n{_counts(cube, 'image')}"
    )
    drawn, axes = figure(f"Distance to the Gaussian denoiser: {subject(cube)}", subtitle)
    axes.set_xscale("log")
    for i, (n, rows) in enumerate(groups := list(table.groupby("n_train"))):
        style = line_style(i, len(groups))
        axes.plot(rows["kimg"], rows["denoiser_rmse"], label=f"{n:g}", **style)
        _band(axes, rows, "kimg", "denoiser_rmse", style["color"])
        least = rows[rows["is_minimum"]]
        axes.plot(
            least["kimg"],
            least["denoiser_rmse"],
            "o",
            ms=12,
            mfc="none",
            mec=style["color"],
            mew=1.4,
            label="_minimum",
        )
    axes.plot([], [], "o", ms=11, mfc="none", mec="0.3", ls="none", label="minimum")
    axes.set_xlabel("training time (kimg: thousands of images)")
    axes.set_ylabel("RMSE to the Gaussian denoiser (pixel)")
    axes.set_ylim(bottom=0)
    number_ticks(axes, "x", np.unique(table["kimg"]))
    _side_legend(axes, "n_train")
    return drawn


def draw_linearity(cube: xr.Dataset, phase: xr.Dataset) -> Figure:
    """Centred linearity over noise level, between its oracle brackets."""
    table = table_linearity(cube, phase)
    subtitle = (
        f"at width {cube['width'].values.max()}, {cube['kimg'].values[-1]:g} kimg, held-out "
        f"inputs; {_band_text(table, 'linearity_cosine_centred')}\n{_counts(cube, 'pair')}"
    )
    drawn, axes = figure(f"Linearity: {subject(cube)}", subtitle)
    axes.set_xscale("log")
    name = "linearity_cosine_centred"
    for i, (n, rows) in enumerate(groups := list(table.groupby("n_train"))):
        style = line_style(i, len(groups))
        axes.plot(rows["sigma"], rows[name], label=f"{n:g}", **style)
        _band(axes, rows, "sigma", name, style["color"])
        axes.plot(
            rows["sigma"],
            rows[f"{name}_empirical"],
            color=style["color"],
            lw=0.8,
            ls=style["linestyle"],
            label="_empirical",
        )
    ceiling = table.groupby("sigma")[f"{name}_gaussian"].mean()
    axes.plot(ceiling.index, ceiling, color="0.2", lw=1, label="Gaussian oracle")
    axes.plot([], [], color="0.4", lw=0.8, label="empirical oracle\n(thin, same dash)")
    axes.set_xlabel("noise level sigma (pixel)")
    axes.set_ylabel("centred linearity (cosine, 1 = affine)")
    number_ticks(axes, "x", np.unique(table["sigma"]))
    _side_legend(axes, "n_train")
    return drawn


FIGURES: dict[str, Callable[[xr.Dataset, xr.Dataset], Figure]] = {
    "memorized_fraction_width": draw_width,
    "memorized_fraction_kimg": draw_kimg,
    "gaussian_distance": draw_distance,
    "linearity": draw_linearity,
}


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
        for (row, column), value in np.ndenumerate(grid.to_numpy(float)):
            if np.isfinite(value):
                axes.text(
                    grid.columns[column],
                    grid.index[row],
                    f"{value:.2f}",
                    fontsize=7,
                    ha="center",
                    va="center",
                    color="k" if value > 0.55 else "w",
                )


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


def _band(axes: Axes, rows: pd.DataFrame, x: str, name: str, colour: tuple) -> None:
    """Mean plus and minus 1.96 standard errors."""
    half = 1.96 * rows[f"{name}_se"]
    axes.fill_between(rows[x], rows[name] - half, rows[name] + half, color=colour, alpha=0.2, lw=0)


def _band_text(table: pd.DataFrame, name: str) -> str:
    """What the error band spans."""
    over = "seeds and draws" if table[f"{name}_replicates"].max() > 1 else "held-out images"
    return f"band: ± 1.96 s.e. over {over}"


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
