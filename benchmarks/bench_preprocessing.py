"""Time to prepare one image, from raw values to the normalised input of the network.

    python benchmarks/bench_preprocessing.py [--repeats 15]

The image is 410 x 410 px, uint16. The baseline is the bare arithmetic: clip, uint8, resize, crop,
normalise, without grid, GSD and validity. The script first checks that both give the same numbers.
The wedge is 10 % of nodata, filled from the nearest valid pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from measure import Disturbance, arguments, comparison, in_turns, machine
from numpy.typing import NDArray
from PIL import Image

from rs_embed.embedding.model_input import prepare
from rs_embed.embedding.source import DEFAULT_REFLECTANCE
from rs_embed.geo.raster import Raster
from rs_embed.models.scalemae.description import DESCRIPTION
from rs_embed.models.scalemae.preparation import ScaleMaePreparation

SIDE = 410
IMAGES = 20
BARE = "bare Pillow steps"
MEAN, STD = DESCRIPTION.inputs.mean, DESCRIPTION.inputs.std

PREPARATION = ScaleMaePreparation("reflectance")


def _pixels(nodata_share: float) -> NDArray[np.uint16]:
    """Return random reflectance with a wedge of nodata (0) in the corner at the top left."""
    values = np.random.default_rng(0).integers(300, 3000, (3, SIDE, SIDE), dtype=np.uint16)
    row, column = np.ogrid[:SIDE, :SIDE]
    values[:, row + column < SIDE * (2 * nodata_share) ** 0.5] = 0
    return values


def _bare(pixels: NDArray[np.uint16]) -> NDArray[np.float32]:
    unit = np.clip(pixels.astype(np.float32) / np.float32(10000), 0, 1)
    image = (unit * np.float32(255)).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture = picture.resize((256, 256), Image.Resampling.BICUBIC).crop((16, 16, 240, 240))
    channels = np.asarray(picture).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (MEAN, STD))
    result: NDArray[np.float32] = (channels - mean) / std
    return result


def _ours(raster: Raster) -> NDArray[np.float32]:
    seen = prepare(
        raster,
        scale_m=10,
        image_size=224,
        patch_size=16,
        reflectance=DEFAULT_REFLECTANCE,
        preparation=PREPARATION,
    )
    (tile,) = seen.tiles
    return PREPARATION.tensor(seen.cut(tile))


def _raster(pixels: NDArray[np.uint16]) -> Raster:
    return Raster.from_array(pixels, bands=DESCRIPTION.inputs.bands, nodata=0)


def _ours_from_array(pixels: NDArray[np.uint16]) -> NDArray[np.float32]:
    return _ours(_raster(pixels))


def _milliseconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(IMAGES):
        action()
    return (time.perf_counter() - start) / IMAGES * 1000


def main() -> None:
    repeats = arguments(__doc__, repeats=15).parse_args().repeats
    whole, wedge = _pixels(0), _pixels(0.1)
    if not np.array_equal(_ours(_raster(whole)), _bare(whole)):
        raise SystemExit("the baseline does not give the same numbers")
    actions: dict[str, Callable[[], Any]] = {
        BARE: partial(_bare, whole),
        "prepare, normalised": partial(_ours, _raster(whole)),
        "the same from an array": partial(_ours_from_array, whole),
        "prepare, normalised; wedge": partial(_ours, _raster(wedge)),
        "the same from an array; wedge": partial(_ours_from_array, wedge),
    }
    disturbance = Disturbance()
    samples = in_turns(
        {name: partial(_milliseconds, act) for name, act in actions.items()}, repeats
    )
    print(f"Preprocessing of one image, means of {IMAGES} ({machine()})\n")
    print(comparison(samples, baselines=[BARE], unit="ms"))
    print("\n" + disturbance.report())


if __name__ == "__main__":
    main()
