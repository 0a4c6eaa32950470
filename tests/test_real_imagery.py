"""Real scenes that are not part of the repository; skipped where they are absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from typer.testing import CliRunner

from rs_embed import (
    Embedding,
    FetchSpec,
    OutputSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    get_embedding,
    read_vectors,
)
from rs_embed.cli import app
from rs_embed.errors import ImageryError, ProviderError
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.providers.local import LocalProvider

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")


@pytest.fixture
def embed(checkpoint: Path) -> Callable[..., Embedding]:
    """``get_embedding`` of imagery as a grid on the small checkpoint."""

    def run(path: Path, **kwargs: Any) -> Embedding:
        options = {"output": OutputSpec.grid(), "weights": str(checkpoint), "image_size": 256}
        return get_embedding("scalemae", imagery=path, **{**options, **kwargs})

    return run


def test_the_sample_scene_is_a_cut_of_its_source(shared_data: Path) -> None:
    with (
        rasterio.open(Path(__file__).parents[1] / "src/rs_embed/data/sample_s2.tif") as ours,
        rasterio.open(shared_data / "s2" / "chesapeake_l1c_10m.tif") as source,
    ):
        theirs = source.read(window=source.window(*ours.bounds))  # ends 40 columns earlier
        assert np.array_equal(ours.read()[:, :, :600], theirs)
        assert ours.tags()["ATTRIBUTION"] == "Contains modified Copernicus Sentinel data"
        assert ours.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize(
    ("name", "gsd"),
    [
        ("s2/chesapeake_l1c_10m.tif", 10),
        ("s2/inn_l2a_20210617_10m.tif", 10),  # four bands, picked by name
        ("s2/lommel_s2_boa_20190411_10m.tif", 10),
        ("s2/rufiji_20m/rufiji_boa_20180725_20m.tif", 20),  # clouds set to nodata
    ],
)
def test_real_scenes_come_out_in_place(
    embed: Callable[..., Embedding], shared_data: Path, name: str, gsd: float
) -> None:
    embedding = embed(shared_data / name)
    meta = embedding.meta
    assert meta["used_scale_m"] == gsd
    with rasterio.open(shared_data / name) as file:
        short = min(file.shape)
        assert meta["input_res_m"] == pytest.approx(gsd * short / 256)
        left, bottom, right, top = embedding.data.rio.bounds()
        assert file.bounds.left - 1 <= left < right <= file.bounds.right + 1
        assert file.bounds.bottom - 1 <= bottom < top <= file.bounds.top + 1
        assert embedding.data.rio.crs == file.crs
        valid = float((file.read((1, 2, 3)) != 0).any(0).mean())
    if short == max(meta["grid"]["shape"]):
        assert meta["valid_fraction"] == pytest.approx(valid, abs=1e-6)
    finite = np.isfinite(embedding.data.values).all(0)
    assert finite.sum() == meta["valid_tokens"]


def test_web_mercator_scene_is_told_its_ground_metres(
    embed: Callable[..., Embedding], shared_data: Path
) -> None:
    path = shared_data / "s2" / "oyeplage_toc_20200405_epsg3857.tif"
    with rasterio.open(path) as file:
        projected = file.res[0]
        middle = (
            (file.bounds.left + file.bounds.right) / 2,
            (file.bounds.bottom + file.bounds.top) / 2,
        )
    _, lat = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(*middle)
    embedding = embed(path, min_valid=0.1)
    assert embedding.meta["used_scale_m"] == pytest.approx(
        projected * np.cos(np.radians(lat)), rel=4e-3
    )
    with pytest.raises(ImageryError, match=r"got scale_m=9\.55.*covers 6\.0\d+ m on the ground"):
        embed(path, min_valid=0.1, fetch=FetchSpec(scale_m=round(projected, 2)))


def test_aerial_photographs_are_refused_until_their_units_are_stated(
    embed: Callable[..., Embedding], shared_data: Path
) -> None:
    path = next((shared_data / "naip_5m").glob("*.tif"))
    with pytest.raises(ImageryError, match=r"look 8-bit|not found"):
        embed(path)
    with rasterio.open(path) as file:
        names = tuple(n or str(i) for i, n in enumerate(file.descriptions, 1))
    sensor = SensorSpec("naip", names[:3], reflectance_scale=1 / 255)
    embedding = embed(path, sensor=sensor)
    assert embedding.meta["used_scale_m"] == pytest.approx(5, rel=0.01)


def test_two_seasons_of_one_place_differ_and_two_crops_agree(
    embed: Callable[..., Embedding], shared_data: Path
) -> None:
    june, september = (shared_data / "s2" / f"inn_l2a_2021{d}_10m.tif" for d in ("0617", "0925"))
    with rasterio.open(june) as file:
        x, y = file.xy(file.height // 2, file.width // 2)
        to_geographic = Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True)
    place = PointBuffer(*to_geographic.transform(x, y), 1280)
    first, second = (embed(path, spatial=place) for path in (june, september))
    assert first.meta["grid"] == second.meta["grid"]
    assert first.meta["grid"]["shape"] == [256, 256]
    assert np.abs(first.data - second.data).max() > 0.1
    assert np.array_equal(first.data, embed(june, spatial=place).data)


DATES = ("0810", "0813", "0815", "0818", "0820")
AUGUST = TemporalSpec.range("2023-08-01", "2023-09-01")
# Window of the 120 m pixels of 33TWM, part of it in the nodata wedge of three dates.
TWM = Grid(known_crs(32633), Affine(120, 0, 499980, 0, -120, 5167020), (640, 640))
WEST = TWM.window(100, 80, 60, 80)
SERIES = SensorSpec("sentinel-2-l2a", ("B4", "B3", "B2"), 120, 100, "median", 0)


def fetch(root: Path, grid: Grid, period: TemporalSpec = AUGUST, **kwargs: Any) -> Raster:
    provider = LocalProvider(root)
    sensor = SensorSpec(**{**vars(SERIES), **kwargs})
    return provider.fetch(grid, temporal=period, sensor=sensor)


def series(shared_data: Path, name: str, top: int, left: int, grid: Grid) -> NDArray[np.uint16]:
    """Windows of one band of 33TWM on the five dates ``(date, height, width)``."""
    folder = shared_data / "s2/33tw_202308"
    height, width = grid.shape
    window = rasterio.windows.Window(left, top, width, height)
    windows = []
    for day in DATES:
        (path,) = folder.glob(f"*_33TWM_2023{day}_0_L2A/{name}.tif")
        with rasterio.open(path) as file:
            windows.append(file.read(1, window=window))
    return np.stack(windows)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@pytest.mark.parametrize("cloud_mask", [None, "scl"])
def test_median_of_five_dates(shared_data: Path, cloud_mask: str | None) -> None:
    raster = fetch(shared_data / "s2/33tw_202308", WEST, cloud_mask=cloud_mask)
    bands = np.stack(
        [series(shared_data, name, 100, 80, WEST) for name in ("B04", "B03", "B02")], 1
    )
    usable = (bands != 0).any(axis=1)
    assert usable.mean() < 1  # the wedge
    if cloud_mask:
        usable &= np.isin(series(shared_data, "SCL", 100, 80, WEST), [2, 4, 5, 6, 7, 11])
    expected = np.nanmedian(np.where(usable[:, None], bands, np.nan), axis=0).astype(np.float32)
    assert np.array_equal(raster.valid, usable.any(axis=0))
    assert np.array_equal(raster.data[:, raster.valid], expected[:, raster.valid])
    assert raster.source["resampling"] == ["none"]
    assert raster.source["image_count"] == (4 if cloud_mask else 5)  # one is cloud all over


def test_the_offset_is_not_taken_off_twice(shared_data: Path) -> None:
    forest = TWM.window(300, 300, 40, 40)
    day = TemporalSpec.range("2023-08-15", "2023-08-16")
    raster = fetch(shared_data / "s2/33tw_202308", forest, day)
    red = series(shared_data, "B04", 300, 300, forest)[DATES.index("0815")]
    assert red.min() < 1000  # what a second subtraction would push to the floor
    assert raster.data.dtype == np.uint16
    assert np.array_equal(raster.data[0], red)
    assert raster.reflectance == (1e-4, 0.0)
    (item,) = raster.source["items"]
    assert item["id"] == "S2A_33TWM_20230815_0_L2A"
    assert item["offset"].startswith("already applied")


def test_scenes_are_picked_by_their_cloud_cover(shared_data: Path) -> None:
    folder = shared_data / "s2/33tw_202308"
    middle = TWM.window(300, 300, 40, 40)
    clear = fetch(folder, middle, cloudy_pct=1.2)
    assert [item["acquired"][:10] for item in clear.source["items"]] == ["2023-08-13", "2023-08-15"]
    assert clear.source["counts"] == {
        "scenes": 10, "bands": 10, "place": 5, "period": 5, "cloud": 2, "newest": 2, "used": 2,
    }  # fmt: skip
    match = r"5 touch the place, 5 are in .*, 0 have less than 0.1 % cloud \(the clearest has 0.207"
    with pytest.raises(ProviderError, match=match):
        fetch(folder, middle, cloudy_pct=0.1)


def test_tiles_are_joined_across_their_half_pixel_shift(shared_data: Path) -> None:
    border = TWM.window(530, 400, 60, 50)  # the southern tile begins in row 558.5
    day = TemporalSpec.range("2023-08-15", "2023-08-16")
    raster = fetch(shared_data / "s2/33tw_202308", border, day, composite="mosaic")
    assert raster.valid.all()
    assert raster.source["image_count"] == 2
    assert raster.source["resampling"] == ["bilinear", "none"]
    northern = series(shared_data, "B04", 530, 400, border)[DATES.index("0815")]
    assert np.array_equal(raster.data[0, :28], northern[:28])
    (path,) = (shared_data / "s2/33tw_202308").glob("*_33TWL_20230815_0_L2A/B04.tif")
    with rasterio.open(path) as file:
        southern = file.read(1, window=rasterio.windows.Window(400, 0, 50, 32)).astype(float)
    # Row r is centred on the line between the southern tile's rows r - 29 and r - 28.
    between = (southern[:-1] + southern[1:]) / 2
    assert np.abs(raster.data[0, 29:] - between).max() <= 0.5


def test_only_windows_are_read(shared_data: Path, tmp_path: Path) -> None:
    # A sparse scene of 3 TB, on disk a few kB: more than any whole reading could hold.
    path = tmp_path / "wide_20230815.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=700_000, width=700_000, dtype="uint16",
        crs="EPSG:32633", transform=Affine(1, 0, 400000, 0, -1, 5600000), sparse_ok=True,
        tiled=True, blockxsize=4096, blockysize=4096, bigtiff="yes", nodata=0,
    ) as file:  # fmt: skip
        window = rasterio.windows.Window(8192, 8192, 64, 64)
        file.write(np.full((3, 64, 64), 900, np.uint16), window=window)
    there = Grid(known_crs(32633), Affine(2, 0, 408192, 0, -2, 5591808), (32, 32))
    raster = fetch(path, there, cloudy_pct=100, collection="wide")
    assert (raster.data == 900).all()
    assert raster.source["resampling"] == ["average"]


def test_a_folder_is_dated_by_its_file_names(shared_data: Path) -> None:
    folder = shared_data / "s2/rufiji_20m"
    with rasterio.open(folder / "rufiji_boa_20180725_20m.tif") as file:
        own = Grid(known_crs(32737), file.transform, file.shape)
        pixels = file.read()
    assert LocalProvider(folder).status().endswith("dates 2016-03-12 to 2020-01-01")
    july = TemporalSpec.range("2018-07-25", "2018-07-26")
    raster = fetch(folder, own, july, collection="rufiji")
    assert np.array_equal(raster.data, pixels)
    assert np.array_equal(raster.valid, (pixels != 0).any(axis=0))
    year = fetch(folder, own, TemporalSpec.year(2018), collection="rufiji", cloudy_pct=30)
    assert year.source["image_count"] == 6
    assert year.valid.mean() > raster.valid.mean()
    assert "was not applied to 6 scenes that state no cloud cover" in year.notes[0]


def test_local_imagery_is_embedded(
    checkpoint: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_LOCAL", str(shared_data / "s2/33tw_202308"))
    embedding = get_embedding(
        "scalemae", spatial=PointBuffer(15.5, 46.3, 15360), temporal=AUGUST, backend="local",
        fetch=FetchSpec(scale_m=120), weights=checkpoint, image_size=256,
    )  # fmt: skip
    assert np.isfinite(embedding.data).all()
    assert embedding.meta["used_scale_m"] == 120
    assert embedding.meta["source"]["image_count"] == 3
    assert embedding.meta["temporal"] == {"start": "2023-08-01", "end": "2023-09-01"}
    assert embedding.meta["warnings"] == []


def test_the_command_line_reads_a_catalogue(shared_data: Path, tmp_path: Path) -> None:
    place = ["--lon", "15.5", "--lat", "46.1", "--buffer-m", "12000", "--scale-m", "120"]
    source = ["--local", str(shared_data / "s2/33tw_202308"), "--cloud-mask", "scl"]
    when = ["--start", "2023-08-10", "--end", "2023-08-19", "--cloudy-pct", "100"]
    options = ["--input-prep", "tile", "--weights", "random-init", "--variant", "tiny"]
    inspected = CliRunner().invoke(
        app, ["inspect", *place, *source, *when, *options, "--png", str(tmp_path / "x.png")]
    )
    assert inspected.exit_code == 0, inspected.output
    assert (tmp_path / "x.png").stat().st_size > 10_000
    assert "2023-08-10" in inspected.output
    table = tmp_path / "places.csv"
    table.write_text("id,lon,lat,buffer_m\na,15.5,46.1,6000\nb,15.4,46.2,6000\nc,0,0,6000\n")
    batch = CliRunner().invoke(
        app,
        ["batch", str(table), "-o", str(tmp_path / "v.npz"), *source, *when, *options,
         "--scale-m", "120"],
    )  # fmt: skip
    assert batch.exit_code == 1
    assert "failed c: no imagery for the place and period" in batch.output
    vectors = read_vectors(tmp_path / "v.npz")
    assert vectors.ok.tolist() == [True, True, False]
    meta = json.loads(vectors.meta[0])
    assert meta["source"]["cloud_mask"] == "scl"
    assert meta["source"]["image_count"] == 8
