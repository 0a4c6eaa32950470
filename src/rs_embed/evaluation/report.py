"""Results of an evaluation: rows, and how they become JSON and a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rs_embed._optional import require
from rs_embed.addresses import path_of
from rs_embed.errors import SpecError
from rs_embed.files.formats import PICTURES, REPORTS
from rs_embed.files.writing import written

_PURPOSE = "the picture of an evaluation"


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    features : str
        ``"model"``, ``"colours"``, ``"colours, z-scored"``, or the column of a table.
    pooling : str or None
        ``"cls"``, ``"mean"`` or ``"max"``; None where there is none.
    scale : float or None
        Share of full resolution; None for tables.
    side_px : int or None
        Side of the image as it was shown, pixels.
    gsd : str or None
        ``"told"`` if the GSD of the image as it was shown was given to the model, ``"not told"``
        if it was that of full resolution; None without a model.
    input_res : float or None
        The GSD given to the model, the median of all images.
    protocol : str
        ``"knn"`` or ``"probe"``.
    accuracy : float
        Share of the queries whose class was found, 0..1.
    references, queries : int
        How many there were.
    """

    features: str
    pooling: str | None
    scale: float | None
    side_px: int | None
    gsd: str | None
    input_res: float | None
    protocol: str
    accuracy: float
    references: int
    queries: int


@dataclass(frozen=True)
class EvaluationReport:
    """Accuracy of embeddings and of baselines on one labelled set.

    Attributes
    ----------
    rows : tuple of Row
        Every figure.
    about : mapping
        JSON values: sources, limit, classes with their counts, protocol, model, weights, options.
    notes : tuple of str
        What was assumed or left out.
    """

    rows: tuple[Row, ...]
    about: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "about": dict(self.about),
            "notes": list(self.notes),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything as JSON, whole or not at all; return the path.

        Raises
        ------
        UnknownNameError
            If the name does not end in ``.json``.
        ExportError
            If it cannot be written.
        """
        target = path_of(path)
        REPORTS.check(target)
        with written(target) as partial:
            text = json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"
            # File names may be invalid Unicode; JSON writes such characters with a backslash.
            partial.write_text(text, "utf-8", "backslashreplace")
        return target

    def save_png(self, path: str | os.PathLike[str]) -> Path:
        """Draw accuracy against scale, one panel for each protocol; return the path.

        Raises
        ------
        SpecError
            If the rows have no scales, as in a report on a table.
        UnknownNameError
            If the name does not end in ``.png``.
        ExportError
            If it cannot be written.
        MissingDependencyError
            If matplotlib is not installed.
        """
        target = path_of(path)
        check_drawable(target)
        if all(row.gsd is None for row in self.rows):
            raise SpecError("got a report without scales, expected one of images to draw")
        figure = _drawn(self.rows)
        with written(target) as partial:
            figure.savefig(partial, format="png", dpi=120)
        return target


def check_drawable(path: Path) -> None:
    """Raise before any work is done if a picture cannot be drawn and written to ``path``."""
    PICTURES.check(path)
    require("matplotlib.figure", extra="train", purpose=_PURPOSE)


_MARKS = {"cls": ("C0", "o"), "mean": ("C1", "s"), "max": ("C2", "^")}
_LINES = {"colours": ("0.55", ":"), "colours, z-scored": ("0.25", "-.")}


def _drawn(rows: tuple[Row, ...]) -> Any:
    # The class itself, not pyplot: it draws without a window and keeps no global state.
    figures = require("matplotlib.figure", extra="train", purpose=_PURPOSE)
    protocols = sorted({row.protocol for row in rows})
    figure = figures.Figure(figsize=(1 + 5.2 * len(protocols), 4.6), layout="constrained")
    panels = figure.subplots(1, len(protocols), sharey=True, squeeze=False)[0]
    for panel, protocol in zip(panels, protocols, strict=True):
        _draw_panel(panel, [row for row in rows if row.protocol == protocol])
        panel.set_title({"knn": "k nearest neighbours", "probe": "linear probe"}[protocol])
    panels[0].set_ylabel("accuracy on the held-out images")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _draw_panel(panel: Any, rows: list[Row]) -> None:
    for pooling, gsd in sorted({(row.pooling, row.gsd) for row in rows if row.gsd}):
        colour, mark = _MARKS.get(str(pooling), ("C3", "d"))
        line = sorted(
            (row.scale, row.accuracy) for row in rows if (row.pooling, row.gsd) == (pooling, gsd)
        )
        style, face = ("-", colour) if gsd == "told" else ("--", "white")
        panel.plot(
            *zip(*line, strict=True), style, color=colour, marker=mark, markerfacecolor=face,
            label=f"{pooling}, GSD {gsd}",
        )  # fmt: skip
    for row in rows:
        if row.gsd is None:
            grey, style = _LINES.get(row.features, ("0.4", ":"))
            panel.axhline(row.accuracy, color=grey, linestyle=style, label=row.features)
    sides = sorted({(row.scale, row.side_px) for row in rows if row.gsd})
    panel.set_xscale("log", base=2)
    panel.set_xticks(
        [scale for scale, _ in sides], [f"{scale:g}\n{side} px" for scale, side in sides]
    )
    panel.set_xticks([], minor=True)
    panel.set_xlabel("scale (share of full resolution)")
    panel.grid(alpha=0.3)
