"""Tiles: every token once, from real pixels, exactly where it is on the ground."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rs_embed import (
    CoverageWarning,
    FetchSpec,
    ImageryError,
    InputPrepSpec,
    LocalProvider,
    OutputSpec,
    PointBuffer,
    Raster,
    SpecError,
    get_embedding,
)
from rs_embed.geo.tiling import tiles_of
from tests.coordinate_model import PATCH, coordinate_scene, decoded

BANDS = ("B4", "B3", "B2")
# Both hemispheres, a polar grid, and Web Mercator, with origins that are not round numbers.
PLACES = [
    ("EPSG:32633", 399_997.0, 5_200_003.0, 10.0),
    ("EPSG:32737", 399_997.0, 9_200_003.0, 10.0),
    ("EPSG:3413", -100_003.0, -600_007.0, 20.0),
    ("EPSG:3857", 1_500_001.0, 6_000_003.0, 10.0),
]
GRID = OutputSpec.grid()


@settings(deadline=None)
@given(
    st.integers(1, 700), st.integers(1, 700), st.integers(1, 9), st.integers(0, 8),
    st.sampled_from([8, 14, 16]),
)  # fmt: skip
def test_every_token_comes_once_from_the_tile_whose_edge_is_furthest(
    height: int, width: int, tile: int, overlap: int, patch: int
) -> None:
    overlap = min(overlap, tile - 1)
    tiles = tiles_of(
        (height, width), tile_size=tile * patch, overlap_px=overlap * patch, patch_size=patch
    )
    rows, columns = -(-height // patch), -(-width // patch)
    given_by = np.zeros((rows, columns), int)
    deepest = np.full((rows, columns), -1)
    chosen = np.full((rows, columns), -1)
    for one in tiles:
        given_by[one.own] += 1
        top, left, tall, wide = (side // patch for side in one.window)
        assert (tall, wide) == (min(tile, rows), min(tile, columns))
        assert 0 <= top <= rows - tall
        assert 0 <= left <= columns - wide
        inside = np.minimum(
            np.minimum(np.arange(tall), tall - 1 - np.arange(tall))[:, None],
            np.minimum(np.arange(wide), wide - 1 - np.arange(wide))[None, :],
        )
        here = (slice(top, top + tall), slice(left, left + wide))
        deepest[here] = np.maximum(deepest[here], inside)
        chosen[one.own] = inside[one.own_within]
    assert (given_by == 1).all()
    if overlap <= tile // 2 and rows <= tile:  # one axis in play: no other tile is deeper
        assert (chosen == deepest).all()
    neighbours = {(t.rows.start, t.rows.stop) for t in tiles}
    starts = sorted(neighbours)
    for (_, stop), (start, _) in pairwise(starts):
        assert stop - start >= overlap


def imagery_of(kind: str, scene: NDArray[np.uint16], place: Any, write: Callable[..., Path]) -> Any:
    crs, left, top, size = place
    transform = Affine(size, 0, left, 0, -size, top)
    if kind == "file":
        return write(scene, crs=crs, transform=transform, tiled=True)
    if kind == "raster":
        return Raster.from_array(scene, bands=BANDS, crs=crs, transform=transform)
    rows, columns = scene.shape[1:]
    array = xr.DataArray(
        scene,
        dims=("band", "y", "x"),
        coords={
            "band": list(BANDS),
            "y": top - size * (np.arange(rows) + 0.5),
            "x": left + size * (np.arange(columns) + 0.5),
        },
    )
    return array.rio.write_crs(crs)


@pytest.mark.parametrize("place", PLACES, ids=[p[0] for p in PLACES])
@pytest.mark.parametrize("kind", ["file", "raster", "xarray"])
@pytest.mark.parametrize(
    ("shape", "prep"),
    [
        ((300, 517), InputPrepSpec.tile()),
        ((300, 517), InputPrepSpec.tile(112, 48)),
        ((300, 517), InputPrepSpec.tile(1024)),
        ((40, 600), InputPrepSpec.tile(96, 16)),
        ((256, 256), InputPrepSpec.resize()),
    ],
    ids=["tiles", "overlap", "one", "strip", "resize"],
)
def test_every_token_is_within_a_hundredth_of_a_pixel(
    coordinate_model: object,
    write_scene: Callable[..., Path],
    place: tuple[str, float, float, float],
    kind: str,
    shape: tuple[int, int],
    prep: InputPrepSpec,
) -> None:
    imagery = imagery_of(kind, coordinate_scene(*shape), place, write_scene)
    size = 256 if prep.mode == "resize" else 64
    embedding = get_embedding(
        "coordinates", imagery=imagery, input_prep=prep, output=GRID, image_size=size
    )
    grid = embedding.data
    whole = tuple(-(-side // PATCH) for side in shape)
    assert grid.shape == (3, *whole)
    column, row = decoded(grid.values)
    crs, left, top, pixel = place
    assert CRS.from_user_input(grid.rio.crs) == CRS.from_user_input(crs)
    # The last patches of an axis are filled beyond the image: they are not means of coordinates.
    full = tuple(slice(side // PATCH) for side in shape)
    off_x = (left + pixel * column[full] - grid.x.values[None, full[1]]) / pixel
    off_y = (top - pixel * row[full] - grid.y.values[full[0], None]) / pixel
    assert np.abs(off_x).max() < 0.01
    assert np.abs(off_y).max() < 0.01
    # A patch that is less than half within the image has no token.
    missing = np.isnan(column)
    for axis, side in enumerate(shape):
        share = side % PATCH / PATCH
        edge = missing.take(-1, axis=axis)
        assert edge.all() if 0 < share < 0.5 else not edge[:1].any()
    # Each axis on its own: how much of each patch is within the image.
    within = [
        np.clip((side - 16 * np.arange(n)) / 16, 0, 1) for side, n in zip(shape, whole, strict=True)
    ]
    shares = np.outer(*within)
    seen = shares[shares >= 0.5].sum() * 256 / (shape[0] * shape[1])
    assert embedding.meta["coverage"] == pytest.approx(seen)
    assert embedding.meta["valid_fraction"] == 1
    west, _, east, north = grid.rio.bounds()
    assert (west, north) == pytest.approx((left, top))
    assert east - west == pytest.approx(whole[1] * PATCH * pixel)


def test_a_resize_keeps_tokens_in_place(coordinate_model: object) -> None:
    # Two pixels of one value become one, so that the resize by two is exact.
    scene = coordinate_scene(256, 256).repeat(2, axis=1).repeat(2, axis=2)
    raster = Raster.from_array(
        scene, bands=BANDS, crs="EPSG:32633", transform=Affine(10, 0, 4e5, 0, -10, 52e5)
    )
    embedding = get_embedding("coordinates", imagery=raster, output=GRID, image_size=256)
    column, row = decoded(embedding.data.values)
    assert np.abs((4e5 + 20 * column - embedding.data.x.values[None]) / 10).max() < 0.01
    assert np.abs((52e5 - 20 * row - embedding.data.y.values[:, None]) / 10).max() < 0.01


@pytest.mark.parametrize("buffer_m", [1000, 1003, 640])
def test_a_window_is_extended_to_whole_patches_with_real_pixels(
    coordinate_model: object, write_scene: Callable[..., Path], buffer_m: float
) -> None:
    scene = coordinate_scene(250, 250)
    path = write_scene(scene)
    to_geographic = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    place = PointBuffer(*to_geographic.transform(401_250, 5_198_750), buffer_m)
    embedding = get_embedding(
        "coordinates", imagery=path, spatial=place, input_prep="tile", output=GRID
    )
    side = round(2 * buffer_m / 10)
    patches = -(-side // PATCH)
    assert embedding.data.shape == (3, patches, patches)
    assert not np.isnan(embedding.data.values).any()  # the few more pixels are real
    column, row = decoded(embedding.data.values)
    assert np.abs(4e5 + 10 * column - embedding.data.x.values[None]).max() < 0.1
    assert np.abs(52e5 - 10 * row - embedding.data.y.values[:, None]).max() < 0.1
    left, bottom, right, top = embedding.data.rio.bounds()
    assert abs((left + right) / 2 - 401_250) <= 10
    assert abs((bottom + top) / 2 - 5_198_750) <= 10


@pytest.mark.parametrize(("crs", "left", "top"), [
    ("EPSG:32633", 400_000, 5_200_000), ("EPSG:32737", 400_000, 9_200_000),
])  # fmt: skip
def test_a_provider_returns_the_additional_real_pixels(
    coordinate_model: object, write_scene: Callable[..., Path], crs: str, left: int, top: int
) -> None:
    path = write_scene(
        coordinate_scene(250, 250), crs=crs, transform=Affine(10, 0, left, 0, -10, top)
    )
    to_geographic = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    place = PointBuffer(*to_geographic.transform(left + 1250, top - 1250), 1000)
    embedding = get_embedding(
        "coordinates", spatial=place, backend=LocalProvider(path), input_prep="tile", output=GRID,
        fetch=FetchSpec(cloudy_pct=100),
    )  # fmt: skip
    assert embedding.meta["grid"]["shape"] == [208, 208]  # of 200
    assert embedding.meta["source"]["resampling"] == ["none"]
    column, row = decoded(embedding.data.values)
    assert np.abs(left + 10 * column - embedding.data.x.values[None]).max() < 0.1
    assert np.abs(top - 10 * row - embedding.data.y.values[:, None]).max() < 0.1


def test_a_small_place_that_grows_much_gives_a_warning(
    coordinate_model: object, write_scene: Callable[..., Path]
) -> None:
    to_geographic = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    place = PointBuffer(*to_geographic.transform(401_250, 5_198_750), 90)
    path = write_scene(coordinate_scene(250, 250))
    with pytest.warns(CoverageWarning, match="18 x 18 px was enlarged to 32 x 32 px .* 216% more"):
        embedding = get_embedding("coordinates", imagery=path, spatial=place, input_prep="tile")
    assert embedding.meta["asked_shape"] == [18, 18]
    assert embedding.meta["grid"]["shape"] == [32, 32]


def test_pooling_counts_every_token_once(coordinate_model: object) -> None:
    scene = coordinate_scene(200, 230)
    scene[:, :90, :90] = 0
    asked: dict[str, Any] = {
        "input_chw": scene,
        "fetch": FetchSpec(scale_m=10),
        "input_prep": InputPrepSpec.tile(64, 16),
    }
    grid = get_embedding("coordinates", output=GRID, **asked)
    tokens = grid.data.values[:, np.isfinite(grid.data.values[0])]
    assert tokens.shape[1] == grid.meta["valid_tokens"] < grid.data[0].size
    mean, highest, cls = (
        get_embedding("coordinates", output=OutputSpec.pooled(pooling), **asked).data
        for pooling in ("mean", "max", "cls")
    )
    assert mean == pytest.approx(tokens.mean(axis=1, dtype=float), rel=1e-5)
    assert np.array_equal(highest, tokens.max(axis=1))
    assert np.isfinite(cls).all()
    # Tiles in the corner that would give no valid token did not go through the model.
    tiles = tiles_of((200, 230), tile_size=64, overlap_px=16, patch_size=16)
    valid = np.isfinite(grid.data.values[0])
    count = sum(bool(valid[tile.own].any()) for tile in tiles)
    assert count == len(tiles) - 3
    assert grid.meta["tiles"] == {"count": count, "size": 64, "overlap_px": 16}


def test_class_tokens_are_weighted_by_the_tokens_of_their_tiles(coordinate_model: object) -> None:
    # 80 px in tiles of 64: the second is shifted inward, five columns of tokens in all.
    scene = np.full((3, 64, 80), 1000, np.uint16)
    scene[:, :, 64:] = 9000
    embedding = get_embedding(
        "coordinates",
        input_chw=scene,
        fetch=FetchSpec(scale_m=10),
        input_prep="tile",
        output=OutputSpec.pooled("cls"),
    )
    low, high = int(1000 / 10000 * 255), int(9000 / 10000 * 255)
    first, second = low, low * 0.75 + high * 0.25
    own = 2 / 5, 3 / 5  # the border runs through the middle of the overlap
    assert embedding.data == pytest.approx([own[0] * first + own[1] * second] * 3, rel=1e-5)


def test_all_tiles_share_one_shape_and_the_gsd(coordinate_model: list[tuple[float, ...]]) -> None:
    scene = coordinate_scene(200, 330)
    get_embedding("coordinates", input_chw=scene, fetch=FetchSpec(scale_m=0.5), input_prep="tile")
    assert sum(batch[0] for batch in coordinate_model) == 4 * 6
    assert {batch[1:4] for batch in coordinate_model} == {(3, 64, 64)}
    assert {gsd for batch in coordinate_model for gsd in batch[4:]} == {0.5}


@pytest.mark.parametrize(
    ("shape", "prep", "tiles"),
    [
        ((73, 60), "auto", None),  # the resize makes 73 px of the short side
        ((74, 60), "auto", 2),
        ((60, 60), "tile", 1),
        ((74, 60), InputPrepSpec.auto(128), 1),
    ],
)
def test_auto_tiles_what_the_resize_would_shrink(
    coordinate_model: object, shape: tuple[int, int], prep: Any, tiles: int | None
) -> None:
    scene = coordinate_scene(*shape)
    with pytest.warns() if tiles is None else np.errstate():
        embedding = get_embedding(
            "coordinates", input_chw=scene, fetch=FetchSpec(scale_m=10), input_prep=prep
        )
    assert embedding.meta["input_prep"] == ("resize" if tiles is None else "tile")
    assert (embedding.meta["tiles"] or {}).get("count") == tiles


@pytest.mark.parametrize("width", [17, 19])
def test_a_sliver_is_embedded(coordinate_model: object, width: int) -> None:
    # 3 of 19 columns have no token: worth a warning.
    told = pytest.warns(CoverageWarning, match="15.8% of the area is in patches at the bottom")
    with told if width == 19 else nullcontext():
        embedding = get_embedding(
            "coordinates",
            input_chw=coordinate_scene(4000, width),
            fetch=FetchSpec(scale_m=10),
            input_prep="tile",
            output=GRID,
        )
    assert embedding.meta["valid_fraction"] == 1
    assert embedding.meta["coverage"] == pytest.approx(16 / width)
    assert embedding.data.shape == (3, 250, 2)
    assert np.isnan(embedding.data.values[:, :, 1]).all()  # 1 of its 16 columns is there
    assert np.isfinite(embedding.data.values[:, :, 0]).all()


@pytest.mark.parametrize(
    ("prep", "match"),
    [
        (
            lambda: InputPrepSpec.tile(100),
            "tile_size=100, expected a multiple of the patch size 16",
        ),
        (lambda: InputPrepSpec.tile(96, 20), "overlap_px=20, expected a multiple of .* 16 or 32"),
        (lambda: InputPrepSpec.tile(overlap_px=64), "overlap_px=64 for tiles of 64 px"),
        (
            lambda: InputPrepSpec.tile(96, 96),
            "overlap_px=96 with tile_size=96, expected an overlap smaller",
        ),
        (lambda: InputPrepSpec.tile(96, -16), "overlap_px=-16, expected a whole number"),
        (lambda: InputPrepSpec.tile(0), "tile_size=0, expected a whole number of at least 1"),
        (lambda: InputPrepSpec.tile(cast(int, 96.0)), "tile_size=96.0, expected a whole number"),
        (lambda: InputPrepSpec("resize", 64), "for 'resize', which has no tiles"),
        (lambda: "tiles", "unknown input_prep 'tiles'.*did you mean 'tile'"),
    ],
)
def test_invalid_tilings(coordinate_model: object, prep: Callable[[], Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        get_embedding(
            "coordinates", input_chw=np.zeros((3, 64, 64)), input_prep=prep(),
            fetch=FetchSpec(scale_m=10),
        )  # fmt: skip


def test_only_nodata_and_one_colour_are_refused(coordinate_model: list[Any]) -> None:
    asked: dict[str, Any] = {"fetch": FetchSpec(scale_m=10), "input_prep": "tile", "min_valid": 0}
    scattered = np.zeros((3, 200, 200), np.uint16)
    scattered[:, ::4, ::4] = 1000
    with pytest.raises(ImageryError, match="no token of which 50% is valid"):
        get_embedding("coordinates", input_chw=scattered, **asked)
    with pytest.raises(ImageryError, match="nothing but white"):
        get_embedding("coordinates", input_chw=np.full((3, 99, 99), 20_000), **asked)
    assert not coordinate_model  # before any forward pass
