"""Scenes with a class for each token, and how well tokens tell the classes apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray
import xarray as xr
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import recall_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

VEGETATION = 4  # of SCL
COLOUR_CLASSES, REFERENCES, NEIGHBOURS = 8, 3000, 20
LEAST_SHARE = 0.01  # of the tokens that a class must have


@dataclass(frozen=True)
class Scene:
    """Pixels, and what is known of each.

    Attributes
    ----------
    name : str
        Name of the file or folder.
    pixels : xarray.DataArray
        Red, green and blue ``(3, H, W)``, in memory, with CRS and transform.
    classes : numpy.ndarray or None
        ``(H, W)`` scene classes of Sen2Cor (SCL); None if there are none, which means that classes
        are made of colours.
    """

    name: str
    pixels: xr.DataArray
    classes: NDArray[np.uint8] | None

    def labels(self, rows: int, columns: int, patch: int) -> NDArray[np.int64]:
        """Return the class of each token's footprint, ``(rows, columns)``; -1 where it has none.

        With SCL, the most frequent class but vegetation if it takes up a tenth of the footprint,
        else vegetation. Without, the nearest of eight k-means centres of the logarithms of mean
        values. Footprints that are less than nine tenths valid, and classes of less than 1 % of the
        tokens, are left out.
        """
        blocks = _blocks(self.pixels.values, rows, columns, patch)  # 3 rows columns pixels
        valid = (blocks[0] > 0).mean(axis=-1) > 0.9
        labels = np.full((rows, columns), -1)
        if self.classes is None:
            colours = np.log1p(blocks).mean(axis=-1)
            means = KMeans(COLOUR_CLASSES, n_init=3, random_state=0)
            labels[valid] = means.fit_predict(colours[:, valid].T)
        else:
            (codes,) = _blocks(self.classes[None], rows, columns, patch)
            shares = np.stack([(codes == code).mean(axis=-1) for code in range(12)])
            shares[[0, VEGETATION]] = 0  # 0: nodata
            found = np.where(shares.max(axis=0) > 0.1, shares.argmax(axis=0), VEGETATION)
            labels[valid] = found[valid]
        for label in np.unique(labels):
            if (labels == label).mean() < LEAST_SHARE:
                labels[labels == label] = -1
        return labels


def opened(path: Path, side: int | None = None) -> Scene:
    """Open a GeoTIFF of red, green and blue, or a folder of `B04.tif`, `B03.tif`, .., `SCL.tif`."""

    def read(file: Path) -> Any:
        raster: Any = rioxarray.open_rasterio(file)
        return raster[:3, :side, :side].load()

    if not path.is_dir():
        return Scene(path.stem, read(path), None)
    pixels = xr.concat([read(path / f"B0{band}.tif") for band in (4, 3, 2)], "band")
    pixels = pixels.assign_coords(band=[1, 2, 3])
    pixels.attrs["long_name"] = ("B04", "B03", "B02")
    return Scene(path.name, pixels, read(path / "SCL.tif").values[0])


def scores(tokens: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``(5, 2)``: mean recall of the classes by k-NN and by a linear probe (ridge).

    In each split trained on 3,000 tokens of one half of the scene and tested on the other: west,
    east, north, south, and two opposite quarters.
    """
    known = (labels >= 0) & ~np.isnan(tokens[..., 0])
    rows = []
    for half in _halves(labels.shape):
        train, test = known & half, known & ~half
        chosen = np.random.default_rng(0).permutation(int(train.sum()))[:REFERENCES]
        given, wanted = tokens[train][chosen], labels[train][chosen]
        mean = given.mean(axis=0)
        nearest = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(given - mean, wanted)
        probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=100, class_weight="balanced"))
        probe.fit(given, wanted)
        found = (nearest.predict(tokens[test] - mean), probe.predict(tokens[test]))
        both = np.intersect1d(wanted, labels[test])
        rows.append(
            [recall_score(labels[test], one, labels=both, average="macro") for one in found]
        )
    return np.array(rows)


def _blocks(values: NDArray[Any], rows: int, columns: int, patch: int) -> NDArray[np.float64]:
    """Return ``(B, rows, columns, patch * patch)``: the pixels of each token, 0 outside."""
    padded = np.zeros((len(values), rows * patch, columns * patch))
    given = values[:, : padded.shape[1], : padded.shape[2]]
    padded[:, : given.shape[1], : given.shape[2]] = given
    blocks = padded.reshape(-1, rows, patch, columns, patch).swapaxes(2, 3)
    return np.asarray(blocks.reshape(len(values), rows, columns, -1))


def _halves(shape: tuple[int, ...]) -> Iterator[NDArray[np.bool_]]:
    """Yield which cells are trained on."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    west, north = column < shape[1] // 2, row < shape[0] // 2
    yield from (west, ~west, north, ~north, west == north)
