"""Whole areas: every token in its place, no seams, resumed without loss, failures named."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rs_embed import (
    CoverageWarning,
    FetchSpec,
    InputPrepSpec,
    LocalProvider,
    OutputSpec,
    PointBuffer,
    Raster,
    RsEmbedWarning,
    SpecError,
    TemporalWarning,
    embed_area,
    get_embedding,
    load_model,
    open_map,
    sample_points,
    zonal_mean,
)
from rs_embed.maps.request import settle_area
from rs_embed.specs import to_json
from tests.coordinate_model import coordinate_scene, decoded
from tests.seams import seam_metric

pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.TemporalWarning"),
    pytest.mark.filterwarnings("ignore:cloudy_pct:rs_embed.ImageryWarning"),
]

# Four CRSs, both hemispheres.
PLACES = {
    "utm north": ("EPSG:32633", 400000, 5200000),
    "utm south": ("EPSG:32737", 480000, 9120000),
    "web mercator": ("EPSG:3857", 222000, 6620000),
    "polar south": ("EPSG:3031", -1200000, 900000),
}
SCENE = coordinate_scene(200, 250)


def placed(crs: str, left: float, top: float) -> Affine:
    return Affine(10, 0, left, 0, -10, top)


def errors_px(map_: Any, transform: Affine) -> float:
    """Return the greatest distance, pixels, of a token from the middle of what it stands for."""
    x, y = np.meshgrid(map_.x.values, map_.y.values)
    column, row = ~transform @ (x, y)
    seen_column, seen_row = decoded(map_.values)
    # Where a footprint reaches beyond the scene, filled pixels move its mean colour.
    inside = (np.minimum(column, row) >= 8) & (column <= 250 - 8) & (row <= 200 - 8)
    known = ~np.isnan(map_.values[0]) & inside
    assert known.mean() > 0.5
    off = np.hypot(seen_column - column, seen_row - row)[known]
    return float(off.max())


@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
@pytest.mark.parametrize("place", PLACES)
def test_every_token_lies_where_its_pixels_are(
    coordinate_model: Any, write_scene: Callable[..., Path], tmp_path: Path, place: str, suffix: str
) -> None:
    crs, left, top = PLACES[place]
    transform = placed(crs, left, top)
    scene = write_scene(SCENE, crs=crs, transform=transform)
    for stride in (16, 8, 4):
        out = tmp_path / f"map{stride}{suffix}"
        embed_area("coordinates", imagery=scene, output=out, stride_px=stride)
        found = open_map(out)
        assert CRS(found.rio.crs) == CRS(crs)
        assert found.sizes["y"] == 208 // stride
        assert errors_px(found, transform) < 0.01


@pytest.mark.parametrize("name", ["provider", "array", "raster", "south up"])
def test_tokens_lie_in_place_whatever_holds_the_pixels(
    coordinate_model: Any, write_scene: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    crs, left, top = PLACES["utm south"]
    transform = placed(crs, left, top)
    path = write_scene(SCENE, crs=crs, transform=transform)
    given: dict[str, Any] = {}
    if name == "provider":
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(
            left + 1250, top - 1000
        )
        given = {"backend": LocalProvider(path), "spatial": PointBuffer(lon, lat, 700)}
    elif name == "raster":
        given = {
            "imagery": Raster.from_array(
                SCENE, bands=("B4", "B3", "B2"), crs=crs, transform=transform
            )
        }
    else:
        opened: Any = rioxarray.open_rasterio(path)
        array = opened.load()
        given = {"imagery": array if name == "array" else array.isel(y=slice(None, None, -1))}
    embed_area("coordinates", output=tmp_path / "map.zarr", stride_px=8, **given)
    assert errors_px(open_map(tmp_path / "map.zarr"), transform) < 0.01


def test_discarded_rims_give_the_grid_that_tiles_give(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene = write_scene(textured(176, 208))
    options: dict[str, Any] = {"weights": str(checkpoint), "image_size": 64}
    embed_area(
        "scalemae", imagery=scene, output=tmp_path / "map.zarr", overlap_px=32, seams="discard",
        **options,
    )  # fmt: skip
    grid = get_embedding(
        "scalemae",
        imagery=scene,
        input_prep=InputPrepSpec.tile(overlap_px=32),
        output=OutputSpec.grid(),
        **options,
    )
    found = open_map(tmp_path / "map.zarr")
    np.testing.assert_allclose(found.values, grid.data.values, atol=1e-5)
    np.testing.assert_array_equal(found.x, grid.data.x)
    np.testing.assert_array_equal(found.y, grid.data.y)


# Sides of an area, what is stated, and the windows of weights that state image_size 64 and
# map_tile_size 96.
WINDOWS: dict[str, tuple[tuple[int, int], dict[str, Any], int]] = {
    "as large": ((96, 112), {}, 96),
    "smaller on a side": ((80, 112), {}, 64),
    "an input size is stated": ((96, 112), {"image_size": 48}, 48),
    "windows are stated": ((96, 112), {"tile_size": 32}, 32),
}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_the_weights(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path, name: str, kept: bool
) -> None:
    shape, stated, expected = WINDOWS[name]
    config = json.loads((checkpoint / "config.json").read_text())
    sizes = {"image_size": 64, "map_tile_size": 96}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    (tmp_path / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
    options = {"weights": str(tmp_path)} | {k: v for k, v in stated.items() if k == "image_size"}
    request: dict[str, Any] = {
        "imagery": write_scene(textured(*shape)),
        "output": tmp_path / "map.zarr",
        "acquired": "2022-06-01",
        **{k: v for k, v in stated.items() if k == "tile_size"},
    }
    if kept:
        load_model("scalemae", **options).embed_area(**request)
    else:
        embed_area("scalemae", **request, **options)
    tiles = json.loads(open_map(tmp_path / "map.zarr").attrs["meta"])["tiles"]
    assert tiles["size"] == expected
    assert tiles["overlap_px"] == 16 * math.ceil(expected / 64)


def test_blending_is_the_mean_weighted_by_depth(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene = write_scene(textured(64, 144))
    options: dict[str, Any] = {"weights": str(checkpoint), "image_size": 64}
    embed_area(
        "scalemae", imagery=scene, output=tmp_path / "map.zarr", overlap_px=32, seams="blend",
        **options,
    )  # fmt: skip
    pixels = textured(64, 144)
    total, weights = np.zeros((4, 9, 48)), np.zeros((4, 9, 1))
    depth = np.array([0.5, 1.5, 1.5, 0.5])  # patches from the nearer edge of a window of 4
    weight = np.minimum(depth / 2, 1)
    for first in (0, 2, 4, 5):  # 64 px windows, 32 px apart, the last one shifted inward
        window = get_embedding(
            "scalemae",
            input_chw=pixels[:, :, first * 16 : first * 16 + 64],
            fetch=FetchSpec(scale_m=10),
            input_prep="tile",
            output=OutputSpec.grid(),
            **options,
        ).data.values.transpose(1, 2, 0)
        share = (weight[:, None] * weight[None, :])[..., None]
        total[:, first : first + 4] += share * window
        weights[:, first : first + 4] += share
    found = open_map(tmp_path / "map.zarr").values.transpose(1, 2, 0)
    np.testing.assert_allclose(found, total / weights, atol=1e-5)


def test_an_area_ends_with_the_imagery(
    coordinate_model: Any, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene = write_scene(SCENE)
    transform = Affine(10, 0, 400000, 0, -10, 5200000)
    area = outline(transform @ (-100, 40), transform @ (150, 140))
    with pytest.warns(CoverageWarning, match="ends within the area: 40% of the rectangle"):
        embed_area("coordinates", imagery=scene, spatial=area, output=tmp_path / "map.zarr")
    found = open_map(tmp_path / "map.zarr")
    assert found.shape == (3, 7, 10)  # 100 x 150 px in whole patches
    assert errors_px(found, transform) < 0.01


@pytest.mark.filterwarnings("default::rs_embed.TemporalWarning")
def test_imagery_has_an_item_once_somebody_says_when_it_was_taken(
    coordinate_model: Any, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene, out = write_scene(SCENE), tmp_path / "map.tif"
    with pytest.warns(TemporalWarning, match="acquired='YYYY-MM-DD'"):
        report = embed_area("coordinates", imagery=scene, output=out)
    assert report.item is None
    report = embed_area(
        "coordinates", imagery=scene, output=out, acquired="2021-06-17", overwrite=True
    )
    assert report.item == tmp_path / "map.tif.json"
    item = json.loads(report.item.read_text())
    assert item["properties"]["datetime"] == "2021-06-17T00:00:00Z"
    with pytest.raises(SpecError, match="acquired='June'.*such as '2021-06-17'"):
        embed_area("coordinates", imagery=scene, output=out, acquired="June")


@pytest.mark.parametrize("acquired", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_time_that_utc_cannot_hold_is_refused(
    acquired: str, coordinate_model: Any, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=r"got acquired='\d{4}-.*expected a day"):
        embed_area(
            "coordinates",
            imagery=write_scene(SCENE),
            output=tmp_path / "map.tif",
            acquired=acquired,
        )


def test_whole_numbers_may_be_those_of_numpy(
    coordinate_model: Any, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene, sizes = write_scene(SCENE), {"tile_size": 64, "overlap_px": 16, "stride_px": 8, "pca": 2}
    for name, kind in (("python", int), ("numpy", np.int64)):
        given: dict[str, Any] = {key: kind(value) for key, value in sizes.items()}
        embed_area("coordinates", imagery=scene, output=tmp_path / f"{name}.tif", **given)
    assert (tmp_path / "numpy.tif").read_bytes() == (tmp_path / "python.tif").read_bytes()
    small: Any = np.int16(64), np.uint8(16)
    tiled = InputPrepSpec.tile(*small)
    assert json.dumps(to_json(tiled)) == json.dumps(to_json(InputPrepSpec.tile(64, 16)))
    broken: Any = np.float64(2)
    with pytest.raises(SpecError, match=r"got pca=np.float64\(2.0\), expected a whole number"):
        embed_area("coordinates", imagery=scene, output=tmp_path / "no.tif", pca=broken)


def test_a_stride_gives_the_tokens_of_shifted_images(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = textured(96, 96)
    scene = write_scene(pixels)
    transform = Affine(10, 0, 400000, 0, -10, 5200000)
    corner, opposite = (transform @ at for at in ((16, 16), (80, 80)))
    area = outline(corner, opposite)
    options: dict[str, Any] = {"weights": str(checkpoint), "image_size": 64}
    embed_area(
        "scalemae", imagery=scene, spatial=area, output=tmp_path / "map.zarr", stride_px=8,
        **options,
    )  # fmt: skip
    found = open_map(tmp_path / "map.zarr")
    assert found.shape == (48, 8, 8)
    # Footprints of the first pass begin 4 px before the area, those of the second 4 px within.
    for shift, first in ((0, 12), (1, 20)):
        alone = get_embedding(
            "scalemae",
            input_chw=pixels[:, first : first + 64, first : first + 64],
            fetch=FetchSpec(scale_m=10),
            input_prep="tile",
            output=OutputSpec.grid(),
            **options,
        )
        np.testing.assert_allclose(
            found.values[:, shift::2, shift::2], alone.data.values, atol=1e-5
        )


def textured(height: int, width: int) -> NDArray[np.uint16]:
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[:height, :width]
    smooth = 1500 + 1000 * np.sin(rows / 9) * np.cos(columns / 7)
    noise = rng.normal(0, 300, (3, height, width))
    return np.asarray((smooth + noise).clip(1, 9999), dtype=np.uint16)


def outline(corner: tuple[float, float], opposite: tuple[float, float]) -> Any:
    """Return the box between two corners of EPSG:32633 as a polygon in degrees."""
    import shapely

    box = shapely.segmentize(shapely.box(*corner, *opposite), 50)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    shrunk = shapely.buffer(box, -0.01)
    return shapely.transform(shrunk, lambda at: np.column_stack(to_degrees.transform(*at.T)))


def test_cells_that_polygons_do_not_touch_are_nodata_and_the_others_as_without(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    import shapely

    scene = write_scene(textured(160, 160))
    triangle = [(400010, 5199990), (401500, 5199900), (400300, 5198500), (400010, 5199990)]
    hole = [(400500, 5199600), (400700, 5199600), (400600, 5199500)]
    area = shapely.Polygon(triangle, [hole])
    file = tmp_path / "area.geojson"
    crs = {"type": "name", "properties": {"name": "EPSG:4326"}}
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    degrees = shapely.transform(
        shapely.segmentize(area, 20), lambda at: np.column_stack(to_degrees.transform(*at.T))
    )
    feature = {
        "type": "Feature",
        "properties": {},
        "geometry": json.loads(shapely.to_geojson(degrees)),
    }
    file.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]}))
    options: dict[str, Any] = {"weights": str(checkpoint), "image_size": 64, "seams": "blend"}
    report = embed_area(
        "scalemae", imagery=scene, spatial=file, output=tmp_path / "part.zarr", **options
    )
    embed_area("scalemae", imagery=scene, output=tmp_path / "all.zarr", **options)
    part, whole = open_map(tmp_path / "part.zarr"), open_map(tmp_path / "all.zarr")
    inside = [
        [
            area.intersection(shapely.box(x - 80, y - 80, x + 80, y + 80)).area > 1
            for x in whole.x.values
        ]
        for y in whole.y.values
    ]
    known = ~np.isnan(part.values[0])
    assert known.sum() == report.tokens == report.valid_tokens
    rows, columns = known.shape
    np.testing.assert_array_equal(known, np.array(inside)[:rows, :columns])
    assert known.any()
    assert not known.all()
    shared = whole.values[:, :rows, :columns][:, known]
    np.testing.assert_allclose(part.values[:, known], shared, atol=1e-5)


@pytest.mark.parametrize(("suffix", "stored"), [(".zarr", {}), (".tif", {"dtype": "int8"})])
def test_a_map_is_read_back_by_its_path(
    coordinate_model: Any,
    write_scene: Callable[..., Path],
    tmp_path: Path,
    suffix: str,
    stored: dict[str, Any],
) -> None:
    out = tmp_path / f"map{suffix}"
    embed_area("coordinates", imagery=write_scene(SCENE), output=out, **stored)
    transform = Affine(10, 0, 400000, 0, -10, 5200000)
    at = [transform @ (40, 24), transform @ (-5, 5)]  # pixels of the scene
    with pytest.warns(CoverageWarning, match="1 of 2 points are outside the map"):
        found = sample_points(out, at, crs="EPSG:32633").values
    step = 255 / 127 if stored else 0.02
    np.testing.assert_allclose(found[0], [39.5, 23.5, 0], atol=step)  # the cell's middle
    assert np.isnan(found[1]).all()
    zone = outline(transform @ (32, 16), transform @ (64, 32))  # two cells
    mean = zonal_mean(out, zone)
    np.testing.assert_allclose(mean.values[0], [47.5, 23.5, 0], atol=step)
    np.testing.assert_allclose(mean.coverage, 1, atol=1e-3)


def test_nodata_is_never_zeros(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    pixels = textured(160, 160)
    pixels[:, :, :72] = 0  # 4.5 patches
    pixels[:, 96:] = 0
    scene = write_scene(pixels)
    report = embed_area(
        "scalemae", imagery=scene, output=tmp_path / "map.tif", weights=str(checkpoint),
        image_size=64,
    )  # fmt: skip
    with rasterio.open(tmp_path / "map.tif") as file:
        assert np.isnan(file.nodata)
        values = file.read()
    assert np.isnan(values[:, :, :4]).all()
    assert np.isnan(values[:, 6:]).all()
    assert np.isfinite(values[:, :6, 4:]).all()
    assert (report.tokens, report.valid_tokens) == (100, 36)


def test_windows_that_see_nothing_do_not_go_through_the_model(
    coordinate_model: list[tuple[float, ...]], write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    scene = np.zeros((3, 64, 640), np.uint16)
    scene[:, :, :64] = coordinate_scene(64, 64)
    embed_area("coordinates", imagery=write_scene(scene), output=tmp_path / "map.zarr")
    assert sum(shape[0] for shape in coordinate_model) == 2  # those that reach into the first 64 px


def test_each_window_is_told_the_metres_of_its_own_latitude(
    coordinate_model: list[tuple[float, ...]], write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    transform = Affine(4000, 0, 222000, 0, -4000, 7000000)
    scene = write_scene(coordinate_scene(240, 48), crs="EPSG:3857", transform=transform)
    with pytest.warns(RsEmbedWarning, match="only 240 x 48 px"):
        embed_area("coordinates", imagery=scene, output=tmp_path / "map.zarr", overlap_px=0)
    told = [value for call in coordinate_model for value in call[4:]]
    lat = np.radians(
        [
            Transformer.from_crs(3857, 4326, always_xy=True).transform(0, 7000000 - 4000 * row)[1]
            for row in (32, 96, 160, 208)
        ]
    )
    # Radius of curvature of WGS 84 across and along the meridian over the sphere's.
    a, e2 = 6378137.0, 0.00669437999014
    n = a / np.sqrt(1 - e2 * np.sin(lat) ** 2)
    m = a * (1 - e2) / (1 - e2 * np.sin(lat) ** 2) ** 1.5
    expected = 4000 * np.cos(lat) * np.sqrt(n * m) / a
    np.testing.assert_allclose(told, expected, rtol=1e-3)


def test_the_default_hides_seams_and_windows_without_overlap_show_them(tmp_path: Path) -> None:
    sample = Path(sys.modules["rs_embed"].__file__ or "").parent / "data" / "sample_s2.tif"
    whole: Any = rioxarray.open_rasterio(sample)
    part = whole[:, :448, :448].load()
    ratios = {}
    cases: dict[str, dict[str, Any]] = {
        "default": {},
        "discard": {"seams": "discard"},
        "none": {"overlap_px": 0, "seams": "discard"},
    }
    for name, settings in cases.items():
        given: dict[str, Any] = {
            "imagery": part, "variant": "tiny", "tile_size": 192, **settings,
        }  # fmt: skip
        out = tmp_path / f"{name}.zarr"
        embed_area("scalemae", output=out, **given)
        tokens = open_map(out).values.transpose(1, 2, 0)
        ratios[name] = seam_metric(tokens, settle_area("scalemae", **given).layout).ratio
    assert ratios["default"] < 1.10
    assert ratios["none"] > ratios["discard"] > 1.15
