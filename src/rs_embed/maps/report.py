"""The cost of a map, and the outcome of making it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rs_embed.printable import html_text

if TYPE_CHECKING:
    from rs_embed import Explorer

_SHOWN_ERRORS = 10


@dataclass(frozen=True)
class MapPlan:
    """What a map takes; ``print(plan)`` shows a summary.

    Attributes
    ----------
    windows : int
        Windows still to be embedded.
    images : int
        Images to go through the model: each window once for every pass.
    shape : tuple of int
        Rows and columns of cells.
    tokens : int
        Cells of the area, each of which gets a token where there are valid pixels.
    dimensions : int
        Length of a token.
    cell : float
        Side of a cell, metres of the CRS.
    crs : str
        CRS of the map.
    output_bytes : int
        Stored values, before compression.
    kept_bytes : int
        Disk space of finished windows until the map is written.
    seconds : float or None
        Time in the model; None if it was not measured.
    """

    windows: int
    images: int
    shape: tuple[int, int]
    tokens: int
    dimensions: int
    cell: float
    crs: str
    output_bytes: int
    kept_bytes: int
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        return {**asdict(self), "shape": list(self.shape)}

    def _repr_html_(self) -> str:
        return html_text(str(self))

    def __str__(self) -> str:
        rows, columns = self.shape
        return (
            f"{counted(self.windows)}, {counted(self.images, 'image')} through the model, {rows} x "
            f"{columns} cells of {self.cell:g} m ({self.crs}), {self.tokens} tokens of "
            f"{self.dimensions}\n{self.cost()}"
        )

    def cost(self) -> str:
        """Return disk space and time in words."""
        time = "" if self.seconds is None else f"; the model takes {_duration(self.seconds)}"
        return (
            f"the map takes up to {_size(self.output_bytes)}, finished windows "
            f"{_size(self.kept_bytes)} until it is written{time}"
        )


@dataclass(frozen=True)
class MapReport:
    """The outcome of `embed_area`; ``print(report)`` shows a summary.

    Attributes
    ----------
    path : pathlib.Path or str
        The map; its URL if it is on an object store.
    item : pathlib.Path, str or None
        The STAC Item that describes it; None where the time of the imagery is not known.
    windows : int
        Windows of the map.
    resumed : int
        Windows that earlier runs had done.
    failed : dict
        Bounds of each window that failed (left, bottom, right, top) -> why; nodata in the map,
        except for cells that a neighbouring window covers.
    valid_tokens, tokens : int
        Cells that hold a token, and cells of the area.
    seconds : float
        Duration of this run.
    bytes : int
        Size of the map on disk.
    peak_memory_bytes : int or None
        Greatest memory of the process so far; None where the system does not report it.
    encoding_error : dict or None
        How far the stored values are from the tokens; None where they are the same.
    finished_before : bool
        Whether there was nothing left to do, so that nothing was written.
    apart : float or None
        How much windows differ where they overlap: mean cosine distance of their tokens for one
        cell, divided by that of neighbouring tokens of one window; None without overlap.
    apart_harmonised : float or None
        The same after ``seams="harmonise"``.
    """

    path: Path | str
    item: Path | str | None
    windows: int
    resumed: int
    failed: dict[tuple[float, float, float, float], str]
    tokens: int
    valid_tokens: int
    seconds: float
    bytes: int
    peak_memory_bytes: int | None
    encoding_error: dict[str, Any] | None = None
    finished_before: bool = False
    apart: float | None = None
    apart_harmonised: float | None = None

    @property
    def windows_per_s(self) -> float:
        """Windows per second in this run."""
        return (self.windows - self.resumed) / max(self.seconds, 1e-9)

    def explore(self, output: str | os.PathLike[str] | None = None, **options: Any) -> Explorer:
        """Write a page to look at the map in a browser; see `rs_embed.explore`."""
        import rs_embed

        return rs_embed.explore(self, output=output, **options)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "file": str(self.path),
            "item": None if self.item is None else str(self.item),
            "windows": self.windows,
            "resumed": self.resumed,
            "failed": [{"bounds": list(at), "error": why} for at, why in self.failed.items()],
            "tokens": self.tokens,
            "valid_tokens": self.valid_tokens,
            "seconds": round(self.seconds, 3),
            "windows_per_s": round(self.windows_per_s, 3),
            "bytes": self.bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "encoding_error": self.encoding_error,
            "finished_before": self.finished_before,
            "apart": self.apart,
            "apart_harmonised": self.apart_harmonised,
        }

    def _repr_html_(self) -> str:
        return html_text(str(self))

    def __str__(self) -> str:
        nodata, memory, error = (
            self.tokens - self.valid_tokens, self.peak_memory_bytes, self.encoding_error
        )  # fmt: skip
        if self.finished_before:
            return f"already finished: {self.path}, {self.valid_tokens} tokens"
        lines = [
            f"wrote {self.path} ({_size(self.bytes)}){f' and {self.item}' if self.item else ''}: "
            f"{self.valid_tokens} tokens{f', {nodata} cells without' if nodata else ''}",
            f"{counted(self.windows)}{f', {self.resumed} done before' if self.resumed else ''}; "
            f"{self.windows_per_s:.2f} windows/s"
            f"{f'; peak memory {_size(memory)}' if memory else ''}",
        ]
        if self.apart is not None:
            after = f", {self.apart_harmonised:.2f} harmonised" if self.apart_harmonised else ""
            lines.append(
                f"where windows overlap, their tokens differ {self.apart:.2f} times as much as "
                f"neighbours in one window{after}"
            )
        if error is not None:
            lines.append(
                f"stored values against tokens: cosine distance {error['cosine_distance_mean']:.2g}"
                f" on average, {error['cosine_distance_max']:.2g} at most; relative RMSE "
                f"{error['rmse_relative']:.2g}"
            )
        for bounds, why in list(self.failed.items())[:_SHOWN_ERRORS]:
            lines.append(f"failed {', '.join(f'{v:.10g}' for v in bounds)}: {why}")
        if len(self.failed) > _SHOWN_ERRORS:
            lines.append(f"and {len(self.failed) - _SHOWN_ERRORS} more windows, in failed (--json)")
        return "\n".join(lines)


def counted(count: int, name: str = "window") -> str:
    """Return a number of things in words."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"about {hours} h {minutes} min"
    return f"about {minutes} min {rest} s" if minutes else f"about {rest} s"


def _size(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
