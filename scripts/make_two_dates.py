"""Cut the two dates of the Inn that docs/tutorial-change.md compares.

    python scripts/make_two_dates.py FOLDER

FOLDER holds inn_l2a_20210617_10m.tif and inn_l2a_20210925_10m.tif (see tests/data/README.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import rasterio
from rasterio.windows import Window

TARGET = Path(__file__).parents[1] / "tests" / "data" / "inn"
DAYS = ("2021-06-17", "2021-09-25")
PIXELS = Window(220, 60, 256, 256)


def main(folder: Path) -> None:
    """Write red, green and blue of 2.56 km, pixel values untouched."""
    TARGET.mkdir(exist_ok=True)
    for day in DAYS:
        with rasterio.open(folder / f"inn_l2a_{day.replace('-', '')}_10m.tif") as file:
            pixels = file.read([1, 2, 3], window=PIXELS)
            profile = {
                "driver": "GTiff", "dtype": "uint16", "nodata": 0, "count": 3, "crs": file.crs,
                "transform": file.window_transform(PIXELS), "width": 256, "height": 256,
                "compress": "deflate", "zlevel": 9, "predictor": 2, "interleave": "band",
            }  # fmt: skip
        with rasterio.open(TARGET / f"{day}.tif", "w", **profile) as file:
            file.write(pixels)
            file.descriptions = ("B04", "B03", "B02")
            file.update_tags(ATTRIBUTION="Contains modified Copernicus Sentinel data 2021")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
