"""Axes on the ground: coordinates of the CRS, scale bar, colour bar, legend; files of figures."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.addresses import path_of
from rs_embed.embedding.drawing import NORTH_UP_DEG, plain, scale_length
from rs_embed.errors import SpecError
from rs_embed.files.formats import PLOTS
from rs_embed.files.writing import written
from rs_embed.geo.grid import Grid
from rs_embed.geo.orientation import Orientation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NODATA = "0.82"
# The scale bar is below the numbers of the axis, beside its name.
_BAR_PT = -20
# Characters of a line of a title.
_TITLE = 60
_SIDE_IN, _MARGINS_IN = 4.6, (2.6, 1.2)
# Of the same figure the same bytes: no date, no version, no random names.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


def save(figure: Figure, path: str | os.PathLike[str], *, dpi: float = 120) -> Path:
    """Write a figure, whole or not at all, and return its path.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Any figure; one that is drawn in the same way gives the same bytes.
    path : path
        A ``.png``, ``.svg`` or ``.pdf``; a file that exists is replaced.
    dpi : float
        Pixels per inch of a PNG, and of the images in the others.

    Raises
    ------
    UnknownNameError
        If the suffix is another one.
    ExportError
        If the file cannot be written.
    """
    matplotlib: Any = require("matplotlib", extra="plot", purpose="a plot")
    target = path_of(path)
    PLOTS.check(target)
    suffix = target.suffix.lower()
    with matplotlib.rc_context({"svg.hashsalt": "rs-embed"}), written(target) as partial:
        how: Any = {"dpi": dpi, "bbox_inches": "tight", "metadata": _METADATA[suffix]}
        figure.savefig(partial, format=suffix[1:], **how)
    return target


def canvas(
    ax: Axes | Sequence[Axes] | None, count: int, *, shape: tuple[float, float] = (1, 1)
) -> tuple[Figure, list[Axes]]:
    """Return a figure and so many axes: those given, or new ones of the proportions ``shape``."""
    figures: Any = require("matplotlib.figure", extra="plot", purpose="a plot")
    if ax is not None:
        given = np.atleast_1d(np.asarray(ax, dtype=object)).ravel().tolist()
        if len(given) != count:
            raise SpecError(f"got {len(given)} axes, expected {count}: one for each panel")
        return given[0].figure, given
    height, width = (min(side / max(shape), 1) * _SIDE_IN for side in shape)
    size = count * (max(width, 2) + _MARGINS_IN[0]), max(height, 2) + _MARGINS_IN[1]
    figure: Figure = figures.Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0].tolist()


def on_the_ground(ax: Axes, grid: Grid, title: str) -> None:
    """Set up axes whose data are coordinates of a grid, with its extent, scale bar and title."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import FuncFormatter, MaxNLocator
    from matplotlib.transforms import ScaledTranslation
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    left, bottom, right, top = grid.bounds
    ax.set(xlim=(left, right), ylim=(bottom, top), facecolor=NODATA)
    crs: Any = grid.crs
    for axis, name in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        unit = crs.axis_info[0].unit_name.replace("metre", "m")
        if crs.is_geographic:
            name, unit = {"x": "longitude", "y": "latitude"}[name], "degrees"
        axis.set_major_locator(MaxNLocator(4))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.10g}"))
        axis.set_label_text(f"{name}, {unit}")
    if crs.is_geographic:  # beyond 180 degrees the other hemisphere begins
        ax.xaxis.set_major_formatter(
            FuncFormatter(lambda lon, _: f"{lon - 360 * round(lon / 360):.10g}")
        )
    code = crs.to_authority()
    shown = ":".join(code) if code else plain(crs.name, 40)
    ax.set_xlabel(f"{ax.get_xlabel()} ({shown})", loc="left")  # on the right is the scale bar
    # Pixels of the projection are square, degrees as on the ground in the middle.
    ax.set_aspect(1 / np.cos(np.radians((bottom + top) / 2)) if crs.is_geographic else "equal")
    ax.set_title("\n".join(_lines(title)), fontsize="small", parse_math=False)
    ground = Orientation.of(grid)
    if ground is None:
        return
    metres_per_unit = ground.cell_m / abs(grid.transform.a)
    metres, label = scale_length((right - left) * metres_per_unit / 4)
    length = metres / metres_per_unit
    # Below the axes, where it hides nothing.
    below = ax.transAxes + ScaledTranslation(0, _BAR_PT / 72, ax.figure.dpi_scale_trans)
    ax.add_artist(
        AnchoredSizeBar(
            ax.transData, length, label, "upper right", size_vertical=(top - bottom) / 150,
            frameon=False, pad=0, borderpad=0, bbox_to_anchor=(1, 0), bbox_transform=below,
            fontproperties=FontProperties(size="small"),
        )
    )  # fmt: skip
    if abs(ground.north_deg) > NORTH_UP_DEG:
        turn = np.radians(ground.north_deg)
        tip = 0.08 * np.sin(turn), 0.08 * np.cos(turn)
        ax.annotate(
            "N", (0.88 + tip[0], 0.88 + tip[1]), (0.88 - tip[0], 0.88 - tip[1]), "axes fraction",
            arrowprops={"arrowstyle": "->"}, ha="center", va="center",
        )  # fmt: skip


def _lines(title: str) -> list[str]:
    """Return at most three lines of a title, broken between its parts if these fit."""
    lines = [""]
    for part in plain(title).split(" | "):
        joined = f"{lines[-1]} | {part}" if lines[-1] else part
        lines[-1:] = [joined] if len(joined) <= _TITLE else [lines[-1], part]
    wrapped = [piece for line in filter(None, lines) for piece in textwrap.wrap(line, _TITLE)]
    return wrapped if len(wrapped) <= 3 else textwrap.wrap(" | ".join(lines), _TITLE, max_lines=3)


def colour_bar(ax: Axes, drawn: Any, label: str, **how: Any) -> None:
    """Draw a colour bar beside axes, as high as these."""
    beside = ax.inset_axes((1.03, 0, 0.05, 1))
    ax.figure.colorbar(drawn, cax=beside, label=label, **how)


def legend(ax: Axes, entries: Sequence[tuple[Any, str]]) -> None:
    """Draw a legend beside the axes: colours and what they mean."""
    from matplotlib.patches import Patch

    patches = [Patch(facecolor=colour, edgecolor="0.4", label=text) for colour, text in entries]
    ax.legend(handles=patches, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize="small")
