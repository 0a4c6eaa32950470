"""Harmonised maps against blended ones: agreement of windows and maps, gains of classifiers.

    python benchmarks/bench_harmonise.py --scenes ../shared/data/s2/chesapeake_l1c_10m.tif ...
        ../shared/data/s2/33tw_202308/S2A_33TWM_20230815_0_L2A ... [--screens 0.05 0.2] [--variants]
        [--side 1024] [--weights scalemae-tiny] [--tile-size 256]

For each scene, and for blended and harmonised tokens:

- apart: mean cosine distance of two windows' tokens for one cell over that of neighbours in one
  window;
- same class: the scene is mapped twice, the second time from half a window further south-east; the
  share of cells that get the same of eight k-means classes (fitted on the first map) in both maps;
- shift: the same with 88 px; the mean cosine distance of both maps' tokens for one cell over that
  of neighbours in a map. "less one vector": after subtracting the one vector by which the maps
  differ as wholes;
- to one: the same distance to the tokens of one window that sees the whole scene, less one vector;
- k-NN, probe: mean recall of the classes, see `labelled_scenes.scores`; the mean of the five
  differences to blended tokens, and their standard deviation.

``--variants`` adds what else could be solved from the overlaps: a plane for each window (offset and
two slopes), a gain for each window and dimension beside the offset, and offsets after the mean
token of each position in the windows was subtracted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from bench_seams import embedded
from labelled_scenes import opened, scores
from measure import arguments, machine, table
from numpy.typing import NDArray
from scenes import SAMPLE
from sklearn.cluster import KMeans

from rs_embed.embedding.similarity import cosine_distances
from rs_embed.errors import RsEmbedWarning
from rs_embed.maps.blending import strips
from rs_embed.maps.harmonising import Windows, differences, shifted
from rs_embed.maps.layout import Layout
from rs_embed.maps.request import settle_area

SHIFT_PX, CLASSES = 88, 8
Tokens = NDArray[np.float32]
Terms = Callable[[Tokens], NDArray[np.float64]]  # of a window's tokens h w D: h w D terms


class Mapped:
    """Some imagery, its windows embedded."""

    def __init__(self, pixels: Any, weights: str, tile_size: int | None = None) -> None:
        area = settle_area(
            "scalemae", imagery=pixels, weights=weights, display="visual", tile_size=tile_size
        )
        self.layout: Layout = area.layout
        self.found, _ = embedded(area)
        self.dimensions = next(t.shape[-1] for t in self.found.values() if t is not None)
        self.windows: Windows = partial(map, self.found.__getitem__)
        self.differences = differences(self.layout, self.windows, self.dimensions)

    def map(self, windows: Windows) -> Tokens:
        """Return the blended map of some windows."""
        parts = strips(self.layout, windows, self.dimensions, "blend", 64)
        return np.concatenate(list(parts))

    def harmonised(self, screen: float) -> Windows:
        """Return windows with the offsets that the library solves."""
        return shifted(self.layout, self.windows, self.differences.offsets(screen))

    def less_positions(self, screen: float) -> Windows:
        """Return windows without the mean of their position, then with offsets."""
        given = {tile: tokens for tile, tokens in self.found.items() if tokens is not None}
        every = np.concatenate([tokens[0] for tokens in given.values()])  # W h w D
        position = np.nan_to_num(np.nanmean(every, axis=0) - np.nanmean(every, axis=(0, 1, 2)))
        less = {tile: tokens - position for tile, tokens in given.items()}
        windows: Windows = partial(map, less.get)
        between = differences(self.layout, windows, self.dimensions)
        return shifted(self.layout, windows, between.offsets(screen))

    def fitted(self, terms: Terms, screen: float) -> Windows:
        """Return windows plus the terms of each, times what least squares over overlaps give."""
        given = {tile: tokens[0][0] for tile, tokens in self.found.items() if tokens is not None}
        tiles = list(given)
        of = {tile: terms(tokens) for tile, tokens in given.items()}  # each h w D terms
        count = of[tiles[0]].shape[-1]
        system = np.zeros((self.dimensions, len(tiles) * count, len(tiles) * count))
        wanted = np.zeros((self.dimensions, len(tiles) * count))
        for (i, one), (j, other) in combinations(enumerate(tiles), 2):
            rows = range(max(one.rows.start, other.rows.start), min(one.rows.stop, other.rows.stop))
            columns = range(
                max(one.columns.start, other.columns.start),
                min(one.columns.stop, other.columns.stop),
            )
            if not (rows and columns):
                continue
            mine, theirs = (
                np.ix_(
                    [row - tile.rows.start for row in rows],
                    [column - tile.columns.start for column in columns],
                )
                for tile in (one, other)
            )
            apart = given[other][theirs] - given[one][mine]  # h w D
            known = ~np.isnan(apart[..., 0])
            both = np.concatenate([of[one][mine][known], -of[other][theirs][known]], axis=-1)
            at = np.r_[i * count : (i + 1) * count, j * count : (j + 1) * count]
            system[:, at[:, None], at] += np.einsum("ndk,ndl->dkl", both, both) / apart[..., 0].size
            wanted[:, at] += np.einsum("ndk,nd->dk", both, apart[known]) / apart[..., 0].size
        system += screen * np.eye(system.shape[-1])
        solved = np.linalg.solve(system, wanted[..., None])[..., 0]
        solved = solved.reshape(self.dimensions, len(tiles), count)
        moved = {
            tile: (given[tile] + np.einsum("hwdk,dk->hwd", of[tile], solved[:, i]))[None, None]
            for i, tile in enumerate(tiles)
        }
        return partial(map, {**dict.fromkeys(self.found), **moved}.__getitem__)


def plane(tokens: Tokens) -> NDArray[np.float64]:
    row, column = np.mgrid[: tokens.shape[0], : tokens.shape[1]] / tokens.shape[0] - 0.5
    terms = np.stack([np.ones_like(row), row, column], axis=-1)
    return np.broadcast_to(terms[:, :, None], (*tokens.shape, 3))


def gain(tokens: Tokens) -> NDArray[np.float64]:
    known = np.nan_to_num(tokens.astype(np.float64))
    return np.stack([np.ones_like(known), known], axis=-1)


def seams_of(screens: list[float], variants: bool) -> Iterator[tuple[str, Any]]:
    yield "blend", lambda mapped: mapped.windows
    for screen in screens:
        yield f"harmonise {screen:g}", partial(Mapped.harmonised, screen=screen)
    if variants:
        screen = screens[0]
        yield f"plane {screen:g}", partial(Mapped.fitted, terms=plane, screen=screen)
        yield f"gain {screen:g}", partial(Mapped.fitted, terms=gain, screen=screen)
        yield f"position {screen:g}", partial(Mapped.less_positions, screen=screen)


def common(one: Tokens, other: Tokens, start: int) -> tuple[Tokens, Tokens]:
    """Return what both maps of a scene have of the same cells, ``(n, D)``."""
    first = one[start : start + len(other), start : start + other.shape[1]]
    second = other[: len(first), : first.shape[1]]
    known = ~(np.isnan(first[..., 0]) | np.isnan(second[..., 0]))
    return first[known], second[known]


def neighbours(*maps: Tokens) -> float:
    """Return the mean cosine distance of neighbouring tokens."""
    apart = [cosine_distances(tokens[:, :-1], tokens[:, 1:]).ravel() for tokens in maps]
    return float(np.nanmean(np.concatenate(apart)))


def distance(first: Tokens, second: Tokens) -> tuple[float, float]:
    """Return the mean cosine distance as they are, and less the one vector of their means."""
    moved = second + (first - second).mean(axis=0)
    as_is, less = (float(np.nanmean(cosine_distances(first, to))) for to in (second, moved))
    return as_is, less


def same_class(first: Tokens, second: Tokens) -> float:
    classes = KMeans(CLASSES, n_init=3, random_state=0).fit(first)
    return float(np.mean(classes.predict(first) == classes.predict(second)))


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--scenes", nargs="+", type=Path, default=[SAMPLE])
    parser.add_argument("--screens", nargs="+", type=float, default=[0.05, 0.2])
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--side", type=int, default=1024, help="pixels of each scene")
    parser.add_argument("--weights", default="scalemae-tiny")
    parser.add_argument("--tile-size", type=int, default=256, help="side of the windows, pixels")
    options = parser.parse_args()
    warnings.simplefilter("ignore", RsEmbedWarning)
    warnings.filterwarnings("ignore", "Mean of empty slice")
    print(machine())
    rows = []
    for path in options.scenes:
        scene = opened(path, options.side)
        side = max(scene.pixels.shape[-2:])
        mapped = Mapped(scene.pixels, options.weights, options.tile_size)
        patch = mapped.layout.patch_size
        half = mapped.layout.tile_size // 2
        others = {
            by: Mapped(scene.pixels[:, by:, by:], options.weights, options.tile_size)
            for by in (SHIFT_PX, half)
        }
        whole = Mapped(scene.pixels, options.weights, tile_size=-(-side // patch) * patch)
        seen = whole.map(whole.windows)
        labels = scene.labels(seen.shape[0], seen.shape[1], patch)
        blended: NDArray[np.float64] | None = None
        for name, seams in seams_of(options.screens, options.variants):
            windows = seams(mapped)
            one = mapped.map(windows)
            apart = differences(mapped.layout, windows, mapped.dimensions).apart
            second = others[SHIFT_PX].map(seams(others[SHIFT_PX]))
            as_is, less = distance(*common(one, second, SHIFT_PX // patch))
            unit = neighbours(one, second)
            same = same_class(*common(one, others[half].map(seams(others[half])), half // patch))
            _, to_one = distance(*common(seen, one, 0))
            scored = scores(one, labels)
            text = [f"{value:.3f}" for value in scored.mean(axis=0)]
            if blended is not None:
                gains = scored - blended
                text = [f"{mean:+.3f} ± {std:.3f}"
                        for mean, std in zip(gains.mean(0), gains.std(0), strict=True)]  # fmt: skip
            blended = scored if blended is None else blended
            rows.append(
                [
                    scene.name, name, str(len(mapped.layout.tiles)), f"{apart or 0:.2f}",
                    f"{same:.0%}", f"{as_is / unit:.2f}", f"{less / unit:.2f}",
                    f"{to_one / neighbours(one):.2f}", *text,
                ]
            )  # fmt: skip
            print(rows[-1], flush=True)
    head = ["scene", "seams", "windows", "apart", "same class", "shift", "less one vector",
            "to one", "k-NN", "probe"]  # fmt: skip
    print(table(head, rows))


if __name__ == "__main__":
    main()
