"""What a map takes, and what came of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MapPlan:
    """What a map takes.

    Attributes
    ----------
    windows : int
        Windows to go through the model.
    images : int
        Images to go through it: each window once for every pass.
    shape : tuple of int
        Rows and columns of cells.
    tokens : int
        Cells asked for, each of which gets a token where there are valid pixels.
    dimensions : int
        Length of a token.
    cell : float
        Side of a cell, metres of the CRS.
    crs : str
        CRS of the map.
    output_bytes : int
        Values that are stored, before compression.
    kept_bytes : int
        Disk that finished windows take until the map is written.
    seconds : float or None
        Time that the model takes, measured on blank images; None if it was not.
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


@dataclass(frozen=True)
class MapReport:
    """What came of a map.

    Attributes
    ----------
    path : pathlib.Path
        The map.
    item : pathlib.Path or None
        The STAC Item that describes it; None where the time of the imagery is not known.
    windows : int
        Windows that the map is made of.
    resumed : int
        How many of them earlier runs had done.
    failed : dict
        Bounds of each window that failed (left, bottom, right, top) -> why; nodata in the map,
        but for cells that a neighbour gives.
    valid_tokens, tokens : int
        Cells that hold a token, and cells asked for.
    seconds : float
        What this run took.
    bytes : int
        Size of the map on disk.
    peak_memory_bytes : int or None
        Greatest memory of the process so far; None where the system does not say.
    encoding_error : dict or None
        How far the stored values are from the tokens; None where they are the same.
    """

    path: Path
    item: Path | None
    windows: int
    resumed: int
    failed: dict[tuple[float, float, float, float], str]
    tokens: int
    valid_tokens: int
    seconds: float
    bytes: int
    peak_memory_bytes: int | None
    encoding_error: dict[str, Any] | None = None

    @property
    def windows_per_s(self) -> float:
        """Windows a second in this run."""
        return (self.windows - self.resumed) / max(self.seconds, 1e-9)

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
        }
