"""Draw the picture of docs/maps.md: the map of the sample scene by different weights and seams.

    python scripts/make_map_pictures.py --former WEIGHTS [FOLDER]

WEIGHTS is a folder with the weights that shipped before tokens were trained to be local:
`git show 58f9c01:src/rs_embed/data/scalemae-tiny/model.safetensors`, and its `config.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rs_embed import PointBuffer, embed_area, open_map
from rs_embed.providers.sample import CENTRE, HALF_SIDE_M

FOLDER = Path(__file__).parents[1] / "docs" / "images"
PANELS = (("former", "blend"), ("former", "harmonise"), ("shipped", "blend"))
SIDE_PX, GAP_PX = 320, 14


def tokens_of(out: Path, weights: str, seams: str) -> NDArray[np.float32]:
    """Return the map, ``(rows, columns, D)``."""
    embed_area(
        "scalemae",
        spatial=PointBuffer(*CENTRE, HALF_SIDE_M),
        backend="sample",
        output=out,
        weights=weights,
        display="visual",
        tile_size=224,
        seams=seams,  # type: ignore[arg-type]
    )
    values: NDArray[np.float32] = open_map(out).values.transpose(1, 2, 0)
    return values


def coloured(maps: list[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
    """Return maps as principal components of the first, so that their colours are comparable."""
    known = maps[0].reshape(-1, maps[0].shape[-1])
    mean = known.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(known - mean, rowvar=False))
    main_axes = axes[:, :-4:-1]
    low, high = np.percentile((known - mean) @ main_axes, [2, 98], axis=0)
    shares = [((tokens - mean) @ main_axes - low) / (high - low) for tokens in maps]
    return [(share.clip(0, 1) * 255).astype(np.uint8) for share in shares]


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--former", required=True, help="folder of the former weights")
    options = parser.parse_args()
    weights = {"former": options.former, "shipped": "scalemae-tiny"}
    with tempfile.TemporaryDirectory() as temporary:
        maps = [
            tokens_of(Path(temporary, f"{name}-{seams}.zarr"), weights[name], seams)
            for name, seams in PANELS
        ]
    panels = [*coloured(maps[:2]), *coloured(maps[2:])]
    canvas = Image.new(
        "RGB", (SIDE_PX * len(panels) + GAP_PX * (len(panels) - 1), SIDE_PX), "white"
    )
    for number, colours in enumerate(panels):
        panel = Image.fromarray(colours).resize((SIDE_PX, SIDE_PX), Image.Resampling.NEAREST)
        canvas.paste(panel, (number * (SIDE_PX + GAP_PX), 0))
    canvas.quantize(128).save(options.folder / "map-seams.png", optimize=True)


if __name__ == "__main__":
    main()
