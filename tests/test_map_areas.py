"""Areas of maps, what is wrong with them, windows that fail, and what a map says of itself."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from typer.testing import CliRunner, Result

from rs_embed import (
    BBox,
    FetchSpec,
    InputPrepSpec,
    LocalProvider,
    OutputSpec,
    embed_area,
    get_embedding,
    open_map,
)
from rs_embed.cli import app
from rs_embed.errors import (
    CoverageWarning,
    ExportError,
    GridError,
    ImageryError,
    ImageryWarning,
    ModelError,
    ProviderError,
    RsEmbedError,
    SpecError,
    UnknownNameError,
)
from rs_embed.maps.first_look import scattered
from rs_embed.maps.request import settle_area
from rs_embed.runs.journal import Journal, JournalResult
from tests.coordinate_model import coordinate_scene
from tests.map_cases import NORTH_UP, Faulty, box, kept_windows, names
from tests.map_worker import digests

pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.TemporalWarning"),
    pytest.mark.filterwarnings("ignore:cloudy_pct:rs_embed.ImageryWarning"),
]


# --- windows that fail ---------------------------------------------------------------------


@pytest.fixture
def run_map(tmp_path: Path) -> Callable[..., Result]:
    def run(*args: str) -> Result:
        return CliRunner().invoke(app, ["map", *args])

    return run


def test_a_dry_run_counts_what_is_left_and_checks_what_a_run_would(
    coordinate_model: list[Any], scene: Path, folder: Path, run_map: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    out = folder / "map.zarr"
    command = ("--imagery", str(scene), "--model", "coordinates", "-o", str(out), "--dry-run")
    plan = json.loads(run_map(*command, "--json").stdout)
    assert (plan["windows"], plan["images"], plan["shape"]) == (16, 16, [6, 25])
    assert (plan["tokens"], plan["dimensions"], plan["output_bytes"]) == (150, 3, 150 * 3 * 4)
    assert plan["kept_bytes"] == 16 * 16 * 3 * 4
    assert names(folder) == []
    assert isinstance(run_map(*command, "--pca", "4").exception, SpecError)
    assert isinstance(run_map(*command, "--scale-m", "20").exception, ImageryError)
    partial = folder / "map.zarr.partial"
    identity = json.dumps(settle_area("coordinates", imagery=scene).identity)
    with Journal(partial, identity) as journal:
        journal.add(JournalResult("0 0", None, None, "unreadable"))
        assert "in use by another process" in str(run_map(*command).exception)
    assert "16 windows, " in run_map(*command).output
    partial.unlink()  # it is still there
    coordinate_model.clear()
    kept = len(kept_windows(scene, out).read_bytes())
    done = sum(int(shape[0]) for shape in coordinate_model)
    planned = run_map(*command, "--stride-px", "16")
    assert f"{done} of 16 windows are done; the plan is for the rest" in planned.stderr
    assert f"{16 - done} windows, " in planned.stdout
    assert "the map takes up to 1.8 kB" in planned.stdout
    assert names(folder) == ["map.zarr.partial"]
    assert (folder / "map.zarr.partial").stat().st_size == kept
    again = run_map(*command, "--stride-px", "8")
    assert isinstance(again.exception, ExportError)
    assert "stride_px was 16, is now 8" in str(again.exception)
    embed_area("coordinates", imagery=scene, output=out)
    finished = run_map(*command)
    assert f"{out} is finished already" in finished.stderr
    assert "0 windows, " in finished.stdout
    assert "16 windows, " in run_map(*command, "--overwrite").output
    assert out.exists()


@pytest.mark.parametrize("suffix", ["zarr", "tif"])
def test_a_broken_block_fails_the_windows_that_it_hits(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path,
    run_map: Callable[..., Result], suffix: str,
) -> None:  # fmt: skip
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write_scene(coordinate_scene(320, 400), interleave="pixel", **tiled)
    clean, out = folder / f"clean.{suffix}", folder / f"map.{suffix}"
    embed_area("coordinates", imagery=path, output=clean)
    with rasterio.open(path) as file:
        offset, size = (
            int(file.get_tag_item(f"BLOCK_{what}_2_1", "TIFF", bidx=1))
            for what in ("OFFSET", "SIZE")
        )
    whole = path.read_bytes()
    stamp = path.stat()
    content = bytearray(whole)
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    command = ("--imagery", str(path), "--model", "coordinates", "-o", str(out))
    done = run_map(*command, "--json")
    assert done.exit_code == 1, done.output
    # Windows of 64 px, 48 px apart, the last ones shifted inward; the block is rows 64..128 and
    # columns 128..192.
    starts = [[*range(0, side - 64, 48), side - 64] for side in (320, 400)]
    hit = [
        (row, column)
        for row in starts[0]
        for column in starts[1]
        if row < 128 and row + 64 > 64 and column < 192 and column + 64 > 128
    ]
    bounds = {
        (400000 + 10 * column, 5200000 - 10 * (row + 64), 400000 + 10 * (column + 64),
         5200000 - 10 * row)
        for row, column in hit
    }  # fmt: skip
    report = json.loads(done.stdout)
    assert {tuple(failure["bounds"]) for failure in report["failed"]} == bounds
    touched = np.zeros((20, 25), dtype=bool)
    covered = np.zeros((20, 25), dtype=bool)
    for row in starts[0]:
        for column in starts[1]:
            part = np.s_[row // 16 : row // 16 + 4, column // 16 : column // 16 + 4]
            (touched if (row, column) in hit else covered)[part] = True
    with_failure, without = open_map(out).values, open_map(clean).values
    np.testing.assert_array_equal(with_failure[:, ~touched], without[:, ~touched])
    assert np.isnan(with_failure[:, ~covered]).all()
    known = touched & covered
    np.testing.assert_allclose(with_failure[:, known], without[:, known], atol=1e-3)
    assert report["valid_tokens"] == int(covered.sum()) < report["tokens"] == 500
    meta = json.loads(open_map(out).attrs["meta"])
    assert meta["tiles"]["failed"] == len(hit)
    assert meta["tiles"]["empty"] == 0
    assert (folder / f"map.{suffix}.partial").exists()
    coordinate_model.clear()
    again = run_map(*command)
    assert again.exit_code == 1
    assert again.output.count("failed 4") == min(len(hit), 10)
    assert "run it again to retry" in again.stderr
    assert f"{len(starts[0]) * len(starts[1])} windows, " in again.output
    path.write_bytes(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    mended = run_map(*command)
    assert mended.exit_code == 0, mended.output
    assert sum(int(call[0]) for call in coordinate_model) == len(hit)
    np.testing.assert_array_equal(open_map(out).values, without)
    assert not (folder / f"map.{suffix}.partial").exists()


def test_a_broken_column_of_blocks_fails_the_windows_that_it_hits_alone(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path
) -> None:
    """Windows looked at first must not all lie in one column."""
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write_scene(coordinate_scene(320, 320), interleave="pixel", **tiled)
    report = embed_area("coordinates", imagery=path, output=folder / "a.zarr", overlap_px=0)
    clean = open_map(report.path).values
    for column in (0, 2, 4):
        with rasterio.open(path) as file:
            places = [
                [
                    int(file.get_tag_item(f"BLOCK_{what}_{column}_{row}", "TIFF", bidx=1))
                    for what in ("OFFSET", "SIZE")
                ]
                for row in range(5)
            ]
        whole = path.read_bytes()
        content = bytearray(whole)
        for offset, size in places:
            content[offset : offset + size] = b"\xff" * size
        path.write_bytes(content)
        report = embed_area(
            "coordinates", imagery=path, output=folder / "b.zarr", overlap_px=0, overwrite=True
        )
        assert {left for left, *_ in report.failed} == {400000 + 640 * column}
        assert len(report.failed) == 5
        rest = np.delete(np.arange(20), np.s_[4 * column : 4 * column + 4])
        np.testing.assert_array_equal(open_map(report.path).values[..., rest], clean[..., rest])
        path.write_bytes(whole)


@pytest.mark.parametrize("first_valid", [0, 130, 250])
def test_wrong_units_are_found_wherever_the_valid_pixels_are(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path, first_valid: int
) -> None:
    reflectance = coordinate_scene(256, 320).astype(np.float32) / 10_000  # 0..1
    reflectance[:, :, :first_valid] = np.nan
    with pytest.raises(ImageryError, match=r"look normalised to 0\.\.1"):
        embed_area("coordinates", imagery=write_scene(reflectance), output=folder / "map.zarr")
    assert not coordinate_model
    assert names(folder) == []


def test_wrong_units_in_one_window_of_hundreds_make_no_map(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path
) -> None:
    """Not all of a large image is read to find the few valid pixels that it may have."""
    reflectance = np.full((3, 1024, 1024), np.nan, np.float32)
    whole = settle_area("coordinates", overlap_px=0, imagery=write_scene(reflectance))
    *_, last = scattered(whole.layout.tiles)
    row, column, height, width = last.window
    reflectance[:, row : row + height, column : column + width] = (
        coordinate_scene(height, width) / 10_000
    )
    imagery = write_scene(reflectance)
    with pytest.raises(ImageryError, match=r"256 windows has tokens, 1 failed; .* normalised to 0"):
        embed_area("coordinates", imagery=imagery, output=folder / "map.zarr", overlap_px=0)
    assert not coordinate_model


def test_all_windows_left_may_fail_again(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    """A map whose last windows cannot be read is written all the same, however often."""
    path = write_scene(coordinate_scene(64, 1200), name="S2_20220704.tif")
    last = 400000 + 10 * 1030

    def east(grid: Any) -> ProviderError | None:
        return ProviderError("the server is tired") if grid.bounds[2] > last else None

    asked = {"spatial": box(4, 4, 56, 1180), "output": folder / "map.zarr"}
    reports = [
        embed_area("coordinates", backend=Faulty(path, east), **asked)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    first, second = reports
    assert first.failed == second.failed
    assert set(first.failed.values()) == {"the server is tired"}
    assert second.resumed == first.windows - len(first.failed) > 0
    assert first.valid_tokens == second.valid_tokens > 0
    third = embed_area("coordinates", backend=LocalProvider(path), **asked)  # type: ignore[arg-type]
    assert not third.failed
    embed_area("coordinates", backend=LocalProvider(path),
               **asked | {"output": folder / "clean.zarr"})  # type: ignore[arg-type]  # fmt: skip
    np.testing.assert_allclose(
        open_map(folder / "map.zarr").values, open_map(folder / "clean.zarr").values, atol=1e-5
    )
    assert names(folder) == ["clean.zarr", "clean.zarr.json", "map.zarr", "map.zarr.json"]


def test_nothing_that_can_be_read_is_one_error_and_leaves_nothing(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    path = write_scene(coordinate_scene(64, 200), name="S2_20220704.tif")
    down = Faulty(
        path, lambda _: ProviderError("the server is down", transient=True, retry_after_s=30)
    )
    with pytest.raises(ProviderError, match="the one at .*: the server is down") as raised:
        embed_area("coordinates", backend=down, spatial=box(4, 4, 56, 180),
                   output=folder / "map.zarr")  # fmt: skip
    assert (raised.value.transient, raised.value.retry_after_s) == (True, 30)
    assert len(down.fetched) <= 5
    assert names(folder) == []


def test_a_window_that_the_model_refuses_fails_alone(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    # In Mercator each row of windows is told another GSD, the most southern one the largest.
    transform = Affine(4000, 0, 222000, 0, -4000, 7000000)
    scene = write_scene(coordinate_scene(256, 64), crs="EPSG:3857", transform=transform)
    request: dict[str, Any] = {"imagery": scene, "output": folder / "map.zarr", "overlap_px": 0}
    embed_area("coordinates", **request)
    *_, third, last = (value for call in coordinate_model for value in call[4:])
    assert last > third
    limit = (third + last) / 2
    report = embed_area("coordinates", refuse=limit, overwrite=True, **request)
    assert list(report.failed.values()) == ["refused"]
    ((left, _, _, top),) = report.failed
    assert (left, top) == (222000, 7000000 - 4000 * 192)
    values = open_map(folder / "map.zarr").values
    assert np.isfinite(values[:, :12]).all()
    assert np.isnan(values[:, 12:]).all()
    with pytest.raises(
        ModelError, match=r"none of the \d+ windows has tokens, \d+ failed; .*refused"
    ):
        embed_area("coordinates", refuse=0, output=folder / "b.zarr",
                   **{k: v for k, v in request.items() if k != "output"})  # fmt: skip


def test_warnings_of_windows_are_kept_over_a_resume(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    pixels = coordinate_scene(96, 400)
    pixels[:, 5, ::40] = 60000  # no reflectance, in windows of the first row
    scene = write_scene(pixels)
    with pytest.warns(ImageryWarning, match="values outside the range of reflectance"):
        embed_area("coordinates", imagery=scene, output=folder / "a.zarr")
    partial = kept_windows(scene, folder / "b.zarr")
    assert partial.exists()
    with pytest.warns(ImageryWarning, match="values outside the range of reflectance") as given:
        embed_area("coordinates", imagery=scene, output=folder / "b.zarr")
    assert sum("outside the range of reflectance" in str(warning.message) for warning in given) == 1
    assert digests(folder / "a.zarr") == digests(folder / "b.zarr")


# --- areas ---------------------------------------------------------------------------------


def polygon_file(path: Path, *geometries: Any, layer: str = "a", crs: str = "EPSG:32633") -> Path:
    """Write polygons of pixels' places in a CRS as a layer of a GeoPackage."""
    import pyogrio.raw
    import shapely

    pyogrio.raw.write(
        path, np.array([shapely.to_wkb(g) for g in geometries], dtype=object), [], [],
        layer=layer, driver="GPKG", geometry_type="Polygon", crs=crs, append=path.exists(),
    )  # fmt: skip
    return path


def pixels_box(row: int, column: int, height: int, width: int) -> Any:
    import shapely

    left, top = NORTH_UP @ (column, row)
    right, bottom = NORTH_UP @ (column + width, row + height)
    return shapely.box(left, bottom, right, top)


def mirrored_order(place: BBox) -> Any:
    """Return the box as someone draws it who gives latitude first."""
    import shapely

    return shapely.box(place.minlat, place.minlon, place.maxlat, place.maxlon)


def test_components_that_tokens_cannot_have_cost_no_window(
    checkpoint: Path, scene: Path, folder: Path
) -> None:
    request: dict[str, Any] = {
        "imagery": scene, "weights": str(checkpoint), "image_size": 64,
        "output": folder / "map.zarr",
    }  # fmt: skip
    with pytest.raises(SpecError, match="got pca=49 for tokens of 48 dimensions"):
        embed_area("scalemae", **request, pca=49)
    assert names(folder) == []
    assert embed_area("scalemae", **request, pca=48).resumed == 0


def test_bad_areas_are_named(
    coordinate_model: list[Any], scene: Path, folder: Path, tmp_path: Path
) -> None:
    import shapely

    bow_tie = shapely.Polygon([(400100, 5199900), (400900, 5199100), (400900, 5199900),
                               (400100, 5199100)])  # fmt: skip
    two = polygon_file(tmp_path / "two.gpkg", pixels_box(10, 10, 60, 60))
    polygon_file(two, shapely.box(13, 46, 14, 47), layer="b", crs="EPSG:4326")
    cases: list[tuple[dict[str, Any], type[RsEmbedError], str]] = [
        ({"spatial": polygon_file(tmp_path / "far.gpkg", pixels_box(5000, 5000, 60, 60))},
         ImageryError, "outside the imagery"),
        ({"spatial": polygon_file(tmp_path / "bow.gpkg", bow_tie)}, SpecError, "[Ss]elf-inters"),
        ({"spatial": two}, SpecError, "layer"),
        ({"spatial": two, "layer": "c"}, SpecError, "'?c'?"),
        ({"spatial": 7}, SpecError, "got .*7|int"),
        ({"spatial": [1, 2, 3]}, SpecError, r"got spatial=\[1, 2, 3\]"),
        ({"spatial": [1, 2, 3, 4]}, ImageryError, "outside the imagery"),
        ({"layer": "a"}, SpecError, "without a file of polygons"),
        ({"dtype": "float64"}, UnknownNameError, "float64"),
        ({"seams": "blur"}, UnknownNameError, "unknown seams 'blur', expected one of blend"),
        ({"overlap_px": 20}, SpecError, "overlap_px=20, expected a multiple of the patch size 16"),
        ({"tile_size": 100}, SpecError, "tile_size=100, expected a multiple of the patch size 16"),
        ({"stride_px": 5}, SpecError, "stride_px=5, expected one of 2, 4, 8, 16"),
        ({"overlap_px": 64}, SpecError, "overlap_px=64 for tiles of 64 px, expected less"),
        ({"pca": 0}, SpecError, "pca"),
        ({"pca": 2000}, SpecError, "got pca=2000 for a map of 150 tokens"),
        ({"spatial": mirrored_order(box(10, 10, 60, 60))}, ImageryError,
         "outside the imagery, which .* longitude and latitude swapped they would be there"),
        ({"stride": 4}, UnknownNameError, "unknown argument 'stride', .*mean 'stride_px'"),
    ]  # fmt: skip
    for given, kind, message in cases:
        with pytest.raises(kind, match=message):
            embed_area("coordinates", imagery=scene, output=folder / "map.zarr", **given)
    assert names(folder) == []
    assert not coordinate_model


def test_bad_imagery_is_named_before_the_model_is_loaded(
    write_scene: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    # Its sizes are known, the network cannot be loaded.
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"nothing")
    values = coordinate_scene(96, 96)
    degrees = Affine(0.0001, 0, 13, 0, -0.0001, 46)
    cases: list[tuple[Path, type[RsEmbedError], str]] = [
        (write_scene((values / 10000).astype(np.float32), name="unit.tif"),
         ImageryError, "reflectance"),
        (write_scene(values[:, :5, :5], name="five.tif"), ImageryError, "imagery of 5 x 5 px"),
        (write_scene(values, crs="EPSG:4326", transform=degrees, name="degrees.tif"), GridError,
         "gdalwarp"),
        (write_scene(values, crs=None, name="nowhere.tif"), ImageryError, "CRS"),
        (write_scene(values * 0, nodata=0, name="nodata.tif"), ImageryError,
         "no valid pixel in any of the 4 windows"),
        (tmp_path / "gone.tif", ImageryError, "gone.tif"),
    ]  # fmt: skip
    for path, kind, message in cases:
        with pytest.raises(kind, match=message):
            embed_area("scalemae", imagery=path, output=folder / "map.zarr", image_size=64,
                       weights=str(weights))  # fmt: skip
        assert names(folder) == []


def test_options_that_contradict_each_other_on_the_command_line(
    run_map: Callable[..., Result], scene: Path, folder: Path, tmp_path: Path, coordinate_model: Any
) -> None:
    area = polygon_file(tmp_path / "area.gpkg", pixels_box(10, 10, 60, 60))
    common = ("--imagery", str(scene), "--model", "coordinates", "-o", str(folder / "map.zarr"))
    for args, message in (
        (("--area", str(area), "--bbox", "13,46,14,47"), "got --area with a point or --bbox"),
        (("--min-valid", "0.5"), "got --min-valid 0.5 for a map"),
        (("--bbox", "13,46,14"), "expected minlon,minlat,maxlon,maxlat"),
    ):
        done = run_map(*common, *args)
        assert done.exit_code == 1
        assert isinstance(done.exception, SpecError)
        assert message in str(done.exception)
    assert names(folder) == []


def test_polygons_of_another_crs_and_far_parts(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    """Rows of windows between the parts are not read: they are nodata, and none is missing."""
    import shapely

    path = write_scene(coordinate_scene(1400, 1200))
    near, far = pixels_box(40, 60, 30, 50), pixels_box(1300, 1100, 40, 40)
    to_mercator = Transformer.from_crs("EPSG:32633", "EPSG:3857", always_xy=True)
    parts = [
        shapely.transform(part, lambda at: np.column_stack(to_mercator.transform(*at.T)))
        for part in (near, far)
    ]
    area = polygon_file(tmp_path / "area.gpkg", *parts, crs="EPSG:3857")
    report = embed_area("coordinates", imagery=path, spatial=area, output=folder / "map.zarr")
    assert report.windows < 12
    found = open_map(folder / "map.zarr")
    known = ~np.isnan(found.values[0])
    assert report.tokens == report.valid_tokens == known.sum()
    inside = [
        [
            any(shapely.box(x - 80, y - 80, x + 80, y + 80).intersection(part).area > 100
                for part in (near, far))
            for x in found.x.values
        ]
        for y in found.y.values
    ]  # fmt: skip
    assert (known | ~np.array(inside)).all()
    assert known.sum() <= np.sum(inside) + 12  # edges bend a little between the CRSs
    whole = embed_area("coordinates", imagery=path, output=folder / "all.zarr", overlap_px=0)
    assert whole.windows > 400
    large = open_map(folder / "all.zarr").sel(x=found.x, y=found.y, method="nearest", tolerance=81)
    offset = (large.x.values - found.x.values, large.y.values - found.y.values)
    if not np.abs(np.concatenate(offset)).max():
        np.testing.assert_allclose(found.values[:, known], large.values[:, known], atol=1e-3)


def test_an_area_below_a_window_sees_its_surroundings(
    checkpoint: Path, write_scene: Callable[..., Path], folder: Path
) -> None:
    pixels = np.random.default_rng(2).integers(300, 4000, (3, 160, 192), dtype=np.uint16)
    scene = write_scene(pixels)
    options: dict[str, Any] = {"weights": str(checkpoint), "image_size": 64}
    shape = pixels_box(64, 80, 16, 32)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    import shapely

    def degrees(part: Any) -> Any:
        shrunk = shapely.segmentize(shapely.buffer(part, -0.1), 40)
        return shapely.transform(shrunk, lambda at: np.column_stack(to_degrees.transform(*at.T)))

    with pytest.warns(CoverageWarning, match="area of 16 x 32 px is smaller than a window of 64"):
        embed_area("scalemae", imagery=scene, spatial=degrees(shape), output=folder / "a.zarr",
                   **options)  # fmt: skip
    found = open_map(folder / "a.zarr")
    # One patch more below than above, and as many to both sides.
    crop = pixels[:, 48:112, 64:128]
    grid = get_embedding(
        "scalemae", input_chw=crop, fetch=FetchSpec(scale_m=10), input_prep=InputPrepSpec.tile(),
        output=OutputSpec.grid(), **options,
    ).data.values  # fmt: skip
    np.testing.assert_allclose(found.values, grid[:, 1:2, 1:3], atol=1e-5)
    x, y = NORTH_UP @ (88, 72)
    assert (found.x.values[0], found.y.values[0]) == (x, y)
    with pytest.warns(CoverageWarning, match="area of 16 x 16 px is smaller than a window"):
        report = embed_area("scalemae", imagery=scene, spatial=degrees(pixels_box(70, 90, 1, 1)),
                            output=folder / "pixel.zarr", **options)  # fmt: skip
    assert (report.windows, report.tokens, report.valid_tokens) == (1, 1, 1)
    with pytest.warns(CoverageWarning, match="only 48 x 48 px of imagery for windows of 64 px"):
        embed_area("scalemae", imagery=write_scene(pixels[:, :48, :48], name="small.tif"),
                   output=folder / "small.zarr", **options)  # fmt: skip
    assert open_map(folder / "small.zarr").shape[1:] == (3, 3)


@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_files_of_others_are_not_replaced(
    coordinate_model: list[Any], scene: Path, folder: Path, suffix: str
) -> None:
    """Not even with overwrite: the imagery itself may have been named."""
    foreign = folder / f"map{suffix}.json"
    foreign.write_text('{"type": "Polygon"}')
    with pytest.raises(ExportError, match="the STAC Item of the map: there is another file"):
        embed_area("coordinates", imagery=scene, output=folder / f"map{suffix}", overwrite=True)
    assert foreign.read_text() == '{"type": "Polygon"}'
    foreign.unlink()
    out = folder / "map.tif"
    out.write_bytes(b"of somebody")
    with pytest.raises(ExportError, match="cannot be read, so it may not be a map"):
        embed_area("coordinates", imagery=scene, output=out, overwrite=True)
    out.write_bytes(b"")  # reserved, as mkstemp does
    assert embed_area("coordinates", imagery=scene, output=out, overwrite=True).bytes > 0
    coordinate_model.clear()
    before = scene.read_bytes()
    with pytest.raises(
        ExportError, match="it is an image, but not a map of rs_embed; choose another name"
    ):
        embed_area("coordinates", imagery=scene, output=scene, overwrite=True)
    assert scene.read_bytes() == before
    assert not coordinate_model


def test_no_sidecar_of_another_image_is_read_with_a_map(
    coordinate_model: list[Any], scene: Path, folder: Path
) -> None:
    out = folder / "map.tif"
    wrong = "<PAMDataset><SRS>EPSG:4326</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform></PAMDataset>"
    sidecar = folder / "map.tif.aux.xml"
    sidecar.write_text(wrong)
    with pytest.raises(ExportError, match=r"map\.tif\.aux\.xml beside it would be read with it"):
        embed_area("coordinates", imagery=scene, output=out)
    sidecar.unlink()
    embed_area("coordinates", imagery=scene, output=out)
    sidecar.write_text(wrong)
    embed_area("coordinates", imagery=scene, output=out, overwrite=True)
    assert names(folder) == ["map.tif"]
    assert open_map(out).rio.crs.to_epsg() == 32633


def test_windows_of_more_tokens_than_can_be_kept_are_refused(
    coordinate_model: Any, scene: Path
) -> None:
    asked = settle_area("coordinates", imagery=scene, stride_px=2)
    tokens = asked.layout.tokens_per_window
    asked.check_tokens(int(0.9e9 / 4 / tokens))
    with pytest.raises(
        SpecError, match=r"got windows of 1\.1\d? GB of tokens each, expected at most"
    ):
        asked.check_tokens(int(1.1e9 / 4 / tokens) + 1)


# --- what a map says of itself -------------------------------------------------------------


def meta_of(path: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(
        open_map(path).attrs["meta"], parse_constant=lambda name: pytest.fail(name)
    )
    return meta


def test_the_fingerprint_tells_what_determines_a_map(
    checkpoint: Path, write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pixels = np.random.default_rng(2).integers(300, 4000, (3, 112, 112), dtype=np.uint16)
    other = pixels.copy()
    other[1, 50, 60] += 500
    scene = write_scene(pixels)
    changes: list[dict[str, Any]] = [
        {}, {"display": "visual"}, {"gsd": 3.0}, {"stride_px": 8}, {"overlap_px": 32},
        {"tile_size": 80}, {"seams": "discard"},
        {"tokens": "pre_norm"}, {"imagery": write_scene(other, name="other.tif")},
    ]  # fmt: skip

    def fingerprint(**given: Any) -> str:
        out = folder / f"{len(names(folder))}.zarr"
        embed_area("scalemae", output=out, **{
            "imagery": scene, "weights": str(checkpoint), "image_size": 64, **given,
        })  # fmt: skip
        return str(meta_of(out)["fingerprint"])

    found = [fingerprint(**change) for change in changes]
    assert len(set(found)) == len(changes)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "1")
    assert fingerprint(device="cpu") == found[0]
    assert fingerprint(dtype="int8", pca=2) == found[0]  # the same tokens, stored otherwise


def test_a_map_says_how_it_was_made(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    path = write_scene(coordinate_scene(128, 160), name="S2_20220704.tif")
    report = embed_area(
        "coordinates", backend=LocalProvider(path), spatial=box(20, 20, 90, 120),
        output=folder / "map.tif",
    )  # fmt: skip
    meta = meta_of(folder / "map.tif")
    expected = {
        "model", "weights", "backend", "sensor", "temporal", "source", "grid", "gsd_m", "input_res",
        "display", "tiles", "source_items", "request", "warnings", "fingerprint", "dimensions",
        "rs_embed_version", "encoding",
    }  # fmt: skip
    assert expected <= meta.keys()
    assert (meta["model"], meta["dimensions"], meta["backend"]) == ("coordinates", 3, "local")
    assert meta["gsd_m"] == meta["input_res"] == pytest.approx(10)
    assert meta["gsd_m_range"] == meta["input_res_range"] == pytest.approx([10, 10])
    assert len(meta["source_items"]) == 1
    assert meta["tiles"]["count"] == report.windows
    assert any("default was used" in text for text in meta["warnings"])


def test_output_without_patches_is_an_error_at_once(
    install: Callable[..., Path], write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    install(
        "pooling", "[rs_embed.models]\npooled = pooled_model:MODEL\n",
        pooled_model="""
        from dataclasses import replace
        from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan

        class Encoder(CoordinateEncoder):
            def encode(self, pixels, input_res_m):
                return replace(super().encode(pixels, input_res_m), patches=None)

        class Plan(CoordinatePlan):
            def load(self):
                return Encoder(64, Model.log)

        class Model(CoordinateModel):
            log = []
            def plan(self, options, **given):
                return Plan(**vars(super().plan(options, **given)))

        MODEL = Model()
        """,
    )  # fmt: skip
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    scene = write_scene(coordinate_scene(96, 400))
    with pytest.raises(ModelError, match="without patch tokens, which a map needs"):
        embed_area("pooled", imagery=scene, output=folder / "map.zarr")
    module = sys.modules["pooled_model"]
    assert sum(int(call[0]) for call in module.Model.log) == 2
    assert names(folder) == []
