"""Draw the picture of docs/maps.md: the map of the sample scene with different windows.

python scripts/make_map_pictures.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rs_embed import PointBuffer, embed_area, open_map
from rs_embed.providers.sample import CENTRE, HALF_SIDE_M

FOLDER = Path(__file__).parents[1] / "docs" / "images"
CASES: dict[str, dict[str, Any]] = {
    "none": {"overlap_px": 0, "seams": "discard"},
    "default": {},
    "large": {"tile_size": 448},
}
SIDE_PX, GAP_PX = 320, 14


def tokens_of(folder: Path, name: str) -> NDArray[np.float32]:
    """Return the map, ``(rows, columns, D)``."""
    out = folder / f"{name}.zarr"
    embed_area(
        "scalemae",
        spatial=PointBuffer(*CENTRE, HALF_SIDE_M),
        backend="sample",
        output=out,
        variant="tiny",
        display="visual",
        **CASES[name],
    )
    values: NDArray[np.float32] = open_map(out).values.transpose(1, 2, 0)
    return values


def main() -> None:
    """Draw the picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    with tempfile.TemporaryDirectory() as temporary:
        maps = [tokens_of(Path(temporary), name) for name in CASES]
    # All maps use the components and colours of one map, so that colours are comparable.
    known = maps[1].reshape(-1, maps[1].shape[-1])
    mean = known.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(known - mean, rowvar=False))
    main_axes = axes[:, :-4:-1]
    low, high = np.percentile((known - mean) @ main_axes, [2, 98], axis=0)
    canvas = Image.new("RGB", (SIDE_PX * len(maps) + GAP_PX * (len(maps) - 1), SIDE_PX), "white")
    for number, tokens in enumerate(maps):
        colours = (((tokens - mean) @ main_axes - low) / (high - low)).clip(0, 1) * 255
        panel = Image.fromarray(colours.astype(np.uint8))
        panel = panel.resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST)
        canvas.paste(panel, (number * (SIDE_PX + GAP_PX), 0))
    canvas.quantize(128).save(folder / "map-seams.png", optimize=True)


if __name__ == "__main__":
    main()
