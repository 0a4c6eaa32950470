"""Harmonised maps against blended ones: agreement of windows and maps, gains of classifiers.

    python benchmarks/bench_harmonise.py --scenes ../shared/data/s2/chesapeake_l1c_10m.tif ...
        [--screens 0.05 0.1 0.2] [--side 1024] [--weights scalemae-tiny]

For each scene, and for blended and harmonised tokens:

- apart: mean cosine distance of two windows' tokens for one cell over that of neighbours in one
  window;
- shift: the scene is mapped twice, the second time from 88 px further south-east, so that windows
  are elsewhere; the mean cosine distance of both maps' tokens for one cell over that of neighbours
  in a map. "less one vector": after subtracting the one vector by which the maps differ as wholes;
- same class: share of cells that get the same of eight k-means classes (fitted on the first map) in
  both maps;
- k-NN, probe: accuracy for eight classes of colour (k-means of the logarithms of the mean values of
  a token's footprint), trained on 3,000 tokens of one half of the scene and tested on the other:
  west, east, north, south, and two opposite quarters; the mean of the five differences to blended
  tokens, and their standard deviation.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rioxarray
from bench_seams import embedded
from measure import arguments, machine, table
from numpy.typing import NDArray
from scenes import SAMPLE
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rs_embed.embedding.similarity import cosine_distances
from rs_embed.errors import RsEmbedWarning
from rs_embed.maps.blending import strips
from rs_embed.maps.harmonising import Windows, differences, shifted
from rs_embed.maps.layout import Layout
from rs_embed.maps.request import settle_area

SHIFT_PX, CLASSES, REFERENCES, NEIGHBOURS = 88, 8, 3000, 20
Tokens = NDArray[np.float32]


def windows_of(pixels: Any, weights: str) -> tuple[Layout, Windows]:
    """Return the windows of some imagery, embedded."""
    area = settle_area("scalemae", imagery=pixels, weights=weights, display="visual")
    found, _ = embedded(area)
    return area.layout, partial(map, found.__getitem__)


def mapped(layout: Layout, windows: Windows, dimensions: int) -> Tokens:
    return np.concatenate(list(strips(layout, windows, dimensions, "blend", 64)))


def common(one: Tokens, other: Tokens, patch: int) -> tuple[Tokens, Tokens]:
    """Return what both maps of a scene have of the same cells, ``(n, D)``."""
    start = SHIFT_PX // patch
    first = one[start : start + len(other), start : start + other.shape[1]]
    second = other[: len(first), : first.shape[1]]
    known = ~(np.isnan(first[..., 0]) | np.isnan(second[..., 0]))
    return first[known], second[known]


def shift(one: Tokens, other: Tokens, patch: int) -> tuple[float, float, float]:
    """Return the distance of two maps as they are and less one vector, and the share of a class."""
    first, second = common(one, other, patch)
    neighbours = [cosine_distances(tokens[:, :-1], tokens[:, 1:]) for tokens in (one, other)]
    unit = float(np.nanmean(np.concatenate([each.ravel() for each in neighbours])))
    moved = second + (first - second).mean(axis=0)
    distances = [float(np.nanmean(cosine_distances(first, to))) / unit for to in (second, moved)]
    classes = KMeans(CLASSES, n_init=3, random_state=0).fit(first)
    same = float(np.mean(classes.predict(first) == classes.predict(second)))
    return distances[0], distances[1], same


def colour_classes(pixels: Any, shape: tuple[int, ...], patch: int) -> NDArray[np.int64]:
    """Return the colour class of each token's footprint; -1 where it is not valid."""
    height, width = shape[0] * patch, shape[1] * patch
    values = np.zeros((3, height, width))
    given = pixels.values[:3, :height, :width]
    values[:, : given.shape[1], : given.shape[2]] = given
    blocks = values.reshape(3, shape[0], patch, shape[1], patch)
    valid = (blocks[0] > 0).mean((1, 3)) > 0.9
    colours = np.log1p(blocks).mean((2, 4))
    labels = np.full(shape[:2], -1)
    labels[valid] = KMeans(CLASSES, n_init=3, random_state=0).fit_predict(colours[:, valid].T)
    return labels


def halves(shape: tuple[int, ...]) -> Iterator[NDArray[np.bool_]]:
    """Yield which cells are trained on."""
    row, column = np.mgrid[: shape[0], : shape[1]]
    west, north = column < shape[1] // 2, row < shape[0] // 2
    yield from (west, ~west, north, ~north, west == north)


def accuracies(tokens: Tokens, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``(5, 2)``: accuracy of k-NN and of a linear probe in each split."""
    known = (labels >= 0) & ~np.isnan(tokens[..., 0])
    rows = []
    for half in halves(labels.shape):
        train, test = known & half, known & ~half
        chosen = np.random.default_rng(0).permutation(int(train.sum()))[:REFERENCES]
        given, wanted = tokens[train][chosen], labels[train][chosen]
        mean = given.mean(axis=0)
        nearest = KNeighborsClassifier(NEIGHBOURS, metric="cosine").fit(given - mean, wanted)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        probe.fit(given, wanted)
        rows.append(
            (
                nearest.score(tokens[test] - mean, labels[test]),
                probe.score(tokens[test], labels[test]),
            )
        )
    return np.array(rows)


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--scenes", nargs="+", type=Path, default=[SAMPLE])
    parser.add_argument("--screens", nargs="+", type=float, default=[0.05, 0.1, 0.2])
    parser.add_argument("--side", type=int, default=1024, help="pixels of each scene")
    parser.add_argument("--weights", default="scalemae-tiny")
    options = parser.parse_args()
    warnings.simplefilter("ignore", RsEmbedWarning)
    print(machine())
    rows = []
    for scene in options.scenes:
        opened: Any = rioxarray.open_rasterio(scene)
        pixels = opened[:3, : options.side, : options.side].load()
        layout, windows = windows_of(pixels, options.weights)
        second, others = windows_of(pixels[:, SHIFT_PX:, SHIFT_PX:], options.weights)
        first = next(tokens for tokens in windows(list(layout.tiles)) if tokens is not None)
        dimensions = first.shape[-1]
        between = [differences(of, read, dimensions)
                   for of, read in ((layout, windows), (second, others))]  # fmt: skip
        blended: NDArray[np.float64] | None = None
        for screen in (None, *options.screens):
            reads: tuple[Windows, Windows] = (windows, others)
            apart = between[0].apart
            if screen is not None:
                reads = (
                    shifted(layout, windows, between[0].offsets(screen)),
                    shifted(second, others, between[1].offsets(screen)),
                )
                apart = differences(layout, reads[0], dimensions).apart
            one, other = mapped(layout, reads[0], dimensions), mapped(second, reads[1], dimensions)
            as_is, less, same = shift(one, other, layout.patch_size)
            scored = accuracies(one, colour_classes(pixels, one.shape, layout.patch_size))
            text = [f"{value:.3f}" for value in scored.mean(axis=0)]
            if blended is not None:
                gain = scored - blended
                text = [f"{mean:+.3f} ± {std:.3f}"
                        for mean, std in zip(gain.mean(0), gain.std(0), strict=True)]  # fmt: skip
            blended = scored if blended is None else blended
            rows.append(
                [
                    scene.stem, "blend" if screen is None else f"harmonise {screen:g}",
                    str(len(layout.tiles)), f"{apart or 0:.2f}", f"{as_is:.2f}", f"{less:.2f}",
                    f"{same:.0%}", *text,
                ]
            )  # fmt: skip
            print(rows[-1], flush=True)
    head = ["scene", "seams", "windows", "apart", "shift", "less one vector", "same class", "k-NN",
            "probe"]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
