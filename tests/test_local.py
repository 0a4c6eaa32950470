"""Local imagery: the contract, and what folders, files and catalogues hold in practice."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.vrt import WarpedVRT
from typer.testing import CliRunner

from rs_embed import FetchSpec, PointBuffer, TemporalSpec, get_embedding
from rs_embed.cli import app
from rs_embed.errors import ImageryError, ImageryWarning, ProviderError
from rs_embed.files.gdal import OpenFiles
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.providers.base import Provider
from rs_embed.providers.local import LocalProvider
from rs_embed.providers.scenes.products import baseline_number, product_of_name
from rs_embed.providers.scenes.scene import boxes, grid_boxes, scene_from_item, touch
from rs_embed.registry import find_provider
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec
from rs_embed.testing.providers import SCENES, SENSOR, ProviderContract, write_contract_scenes

GRID = Grid(known_crs(32633), Affine(10, 0, 400000, 0, -10, 5200000), (30, 40))
JUNE = TemporalSpec.range("2023-06-01", "2023-07-01")
BANDS = ("B4", "B3", "B2")


class TestLocalProvider(ProviderContract):
    @pytest.fixture
    def provider(self, contract_scenes: Path) -> Provider:
        return LocalProvider(contract_scenes)

    def test_messages(self, provider: Provider) -> None:
        """They say how many scenes each filter left, and what exists."""
        grid = SCENES[0].grid.window(20, 70, 20, 20)
        with pytest.raises(ProviderError, match=r"of 6 scenes .* 3 touch .*, 0 are in 2020-01-01"):
            self.fetch(provider, grid, TemporalSpec.year(2020))
        with pytest.raises(ProviderError, match=r"3 .* 0 have less than 5 %.*clearest has 5 %"):
            self.fetch(provider, grid, cloudy_pct=5)
        with pytest.raises(ProviderError, match="no imagery for the place and period"):
            self.fetch(provider, SCENES[0].grid.window(5000, 5000, 20, 20))


@pytest.fixture(scope="module")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes of the contract."""
    return write_contract_scenes(tmp_path_factory.mktemp("scenes"))


def write(
    path: Path,
    data: NDArray[Any] | int,
    *,
    grid: Grid = GRID,
    names: tuple[str, ...] | None = ("B04", "B03", "B02"),
    dtype: str = "uint16",
    tags: dict[str, str] | None = None,
    nodata: float | None = 0,
    **profile: Any,
) -> Path:
    """Write a GeoTIFF, of one value if no array is given."""
    pixels = np.full((3, *grid.shape), data, dtype) if isinstance(data, int) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(pixels), height=grid.shape[0], width=grid.shape[1],
        dtype=pixels.dtype, crs=grid.crs.to_wkt() if grid.crs else None, transform=grid.transform,
        nodata=nodata, **profile,
    ) as file:  # fmt: skip
        file.write(pixels)
        if names is not None:
            file.descriptions = names
        file.update_tags(**(tags or {}))
    return path


def write_item(
    folder: Path,
    name: str,
    value: int = 900,
    *,
    assets: dict[str, Any] | None = None,
    collection: str | None = None,
    grid: Grid = GRID,
    properties: dict[str, Any] | None = None,
) -> Path:
    """Write an item whose asset ``image`` holds three bands of one value."""
    write(folder / f"{name}.tif", value, grid=grid)
    west, south, east, north = grid.geographic_bounds()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    bands = [{"name": n} for n in ("red", "green", "blue")]
    image = {"href": f"./{name}.tif", "roles": ["data"], "eo:bands": bands}
    content = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "links": [],
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [west, south, east, north],
        "properties": {"datetime": "2023-06-10T10:00:00Z", **(properties or {})},
        "assets": {"image": image} if assets is None else assets,
        **({} if collection is None else {"collection": collection}),
    }  # fmt: skip
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_file_urls_are_decoded(tmp_path: Path) -> None:
    folder = tmp_path / "a folder, 100%"
    image = {
        "href": (folder / "item.tif").as_uri(), "roles": ["data"],
        "eo:bands": [{"name": n} for n in ("red", "green", "blue")],
    }  # fmt: skip
    item = write_item(folder, "item", assets={"image": image})
    for root in (item, folder):
        raster = fetch(root)
        assert (raster.data == 900).all()
        assert raster.source["image_count"] == 1  # and the file is no scene of its own
    link_catalog(folder, "catalog", "Catalog", ("item", item.as_uri()))
    assert fetch(folder / "catalog.json").source["items"][0]["files"] == ["item.tif"]


def fetch(
    root: Path | LocalProvider,
    period: TemporalSpec | None = JUNE,
    grid: Grid = GRID,
    **changes: Any,
) -> Raster:
    provider = root if isinstance(root, LocalProvider) else LocalProvider(root)
    sensor = replace(SENSOR, **changes)
    provider.check_sensor(replace(sensor, fill_value=changes.get("fill_value")))
    return provider.fetch(grid, temporal=period, sensor=sensor)


def test_a_file_is_one_scene(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(1, 9000, (3, 30, 40)).astype(np.int16)
    path = write(tmp_path / "mine.tif", data, nodata=-9999)
    provider = LocalProvider(path)
    assert not provider.dated
    assert provider.status() == f"ready: 1 scenes in {path}, undated"
    raster = fetch(provider, None)
    assert raster.data.dtype == np.int16
    assert np.array_equal(raster.data, data)
    assert raster.source["resampling"] == ["none"]
    assert raster.source["acquired"] is None
    assert raster.source["items"] == [
        {
            "id": "mine.tif", "acquired": None, "cloud_pct": None, "baseline": None,
            "offset": "as declared", "files": ["mine.tif"],
        }
    ]  # fmt: skip
    assert fetch(provider, None, cloudy_pct=30).notes == (
        "cloudy_pct=30 was not applied to 1 scenes that state no cloud cover",
    )


@pytest.mark.parametrize(
    ("name", "tags", "day"),
    [
        ("s2_20230610.tif", {}, "2023-06-10"),
        ("s2_2023-06-10_20230611.tif", {}, "2023-06-10"),
        ("T33TWM_20230610T100031_B04.tif", {}, "2023-06-10"),
        ("tile_20231399_20230610.tif", {}, "2023-06-10"),  # the first is no date
        ("mosaic_120230610.tif", {}, None),
        ("a.tif", {"TIFFTAG_DATETIME": "2023:06:10 10:20:30"}, "2023-06-10T10:20:30"),
        ("a_20200101.tif", {"ACQUISITIONDATETIME": "2023-06-10T10:00:00Z"}, "2023-06-10T10"),
        ("a.tif", {"datetime": "2023-06-10T23:30:00-02:00"}, "2023-06-11T01:30"),
        ("a.tif", {"datetime": "some day"}, None),
    ],
)
def test_dates_of_files(tmp_path: Path, name: str, tags: dict[str, str], day: str | None) -> None:
    write(tmp_path / name, 900, tags=tags)
    provider = LocalProvider(tmp_path)
    assert provider.dated is (day is not None)
    (item,) = fetch(provider, JUNE if day else None).source["items"]
    assert (item["acquired"] or "").startswith(day or "")


def test_undated_files_pass_no_period(tmp_path: Path) -> None:
    write(tmp_path / "undated.tif", 500)
    write(tmp_path / "dated_20230610.tif", 900)
    raster = fetch(tmp_path)
    assert raster.source["image_count"] == 1
    assert (raster.data == 900).all()
    with pytest.raises(ProviderError, match=r"from 2023-06-10 to 2023-06-10, 1 have no date\)"):
        fetch(tmp_path, TemporalSpec.year(2020))


def link_catalog(folder: Path, name: str, kind: str, *links: tuple[str, str]) -> Path:
    content: dict[str, Any] = {
        "type": kind, "stac_version": "1.0.0", "id": name, "description": name,
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }  # fmt: skip
    if kind == "Collection":
        extent = {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [[None] * 2]},
        }
        content |= {"license": "other", "extent": extent}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_catalogues_hold_the_same_as_their_folder(scenes_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scenes_folder, tmp_path / "scenes"))
    grid = SCENES[0].grid.window(0, 0, 60, 60)
    expected = fetch(folder, grid=grid)
    items = [("item", f"./{scene.id}/{scene.id}.json") for scene in SCENES]
    contents = [json.loads((folder / href).read_text()) for _, href in items]
    for content, (_, href) in zip(contents, items, strict=True):
        for asset in content["assets"].values():
            asset["href"] = f"{Path(href).parent}/{asset['href']}"
    back = ("child", "./catalog.json")  # catalogues may go in circles
    link_catalog(folder, "part", "Collection", *items[:2], back)
    link_catalog(folder, "catalog", "Catalog", ("child", "./part.json"), *items[2:])
    collected = folder / "found.json"
    collected.write_text(json.dumps({"type": "FeatureCollection", "features": contents}))
    for root in (folder / "catalog.json", folder, collected):
        provider = LocalProvider(root)
        assert provider.status().startswith("ready: 6 scenes"), root
        raster = fetch(provider, grid=grid)
        assert np.array_equal(raster.data, expected.data)
        ids = [item["id"] for item in raster.source["items"]]
        assert ids == [item["id"] for item in expected.source["items"]]
    one = fetch(folder / "north-1" / "north-1.json", grid=grid)
    assert [item["id"] for item in one.source["items"]] == ["north-1"]
    link_catalog(folder, "part", "Collection", *items[:2], ("item", "./gone.json"))
    part = fetch(folder / "part.json", grid=grid)
    assert part.source["counts"]["scenes"] == 2
    assert list(part.source["left_out"]) == ["gone.json"]
    assert part.source["items"][0]["files"][0] == "north-1/B4.tif"
    (folder / "catalog.json").unlink()
    (folder / "north-2" / "north-2.json").unlink()
    (folder / "north-7" / "north-7.json").write_text('{"type": "Feature"')
    left = fetch(folder, grid=grid)
    assert left.source["image_count"] == 1
    assert list(left.source["left_out"]) == ["found.json", "north-7/north-7.json"]
    assert "use it as the root" in left.source["left_out"]["found.json"]
    assert left.source["counts"]["scenes"] == 6  # 4 items, and the files of 2 that no item claims


def test_roots_without_imagery(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match=r"gone'.*does not exist; correct RS_EMBED_LOCAL"):
        fetch(tmp_path / "gone")
    with pytest.raises(ProviderError, match="no STAC item and no georeferenced raster"):
        fetch(tmp_path)
    (tmp_path / "x.json").write_text('{"type": "FeatureCollection2"}')
    with pytest.raises(ProviderError, match="is not a STAC Item.*its type is 'FeatureCollection2'"):
        fetch(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ProviderError, match="is not a STAC Item.*cannot be read as JSON"):
        fetch(tmp_path / "x.json")
    (tmp_path / "catalog.json").write_text('{"type": "Catalog", "stac_version": "1.0.0"}')
    with pytest.raises(ProviderError, match="it has no STAC item"):
        fetch(tmp_path)
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(ProviderError, match="no georeferenced raster.*left out: text.tif: cannot"):
        fetch(tmp_path / "text.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write(tmp_path / "good_20230610.tif", 900)
    for i in range(4):
        (tmp_path / f"broken{i}.tif").write_bytes(b"II*\0 no image")
    write(tmp_path / "nowhere.tif", 900, grid=replace(GRID, crs=None))
    (tmp_path / "other.json").write_text('{"type": "Feature", "geometry": null}')
    (tmp_path / "listing.json").write_text("[1, 2]")
    raster = fetch(tmp_path)
    assert (raster.data == 900).all()
    assert raster.notes == (
        "5 files that cannot be used were left out: broken0.tif, broken1.tif, broken2.tif and 2 "
        "more; meta['source']['left_out'] says why",
    )
    assert "has no CRS" in raster.source["left_out"]["nowhere.tif"]
    assert "5 files left out" in LocalProvider(tmp_path).status()


def test_a_truncated_scene_is_an_error_that_names_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 9000, (3, 30, 40)).astype(np.uint16)
    write(tmp_path / "good_20230610.tif", 900)
    path = write(tmp_path / "short_20230611.tif", noise)
    provider = LocalProvider(tmp_path)
    assert provider.dated
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ProviderError, match=r"scene 'short_20230611\.tif' cannot be used.*take it"):
        fetch(provider)


def test_items_without_the_bands_are_counted(tmp_path: Path) -> None:
    write_item(tmp_path, "rgb")
    sar = {"vv": {"href": "./sar.tif", "roles": ["data"]}}
    write_item(tmp_path, "sar", assets=sar)
    raster = fetch(tmp_path)
    assert raster.source["counts"] == {
        "scenes": 2, "bands": 1, "place": 1, "period": 1, "newest": 1, "used": 1,
    }  # fmt: skip
    with pytest.raises(ProviderError, match=r"none of 2 scenes .* has the bands B8 .*red, vv\)"):
        fetch(tmp_path, bands=("B8",))


def test_the_picture_for_the_eye_is_never_taken(tmp_path: Path) -> None:
    bands = [{"name": n, "common_name": n} for n in ("red", "green", "blue")]
    write(tmp_path / "tci.tif", 77)
    for band, value in (("B04", 4), ("B03", 3), ("B02", 2)):
        one = np.full((1, 30, 40), 1000 + value, np.uint16)
        write(tmp_path / f"{band}.tif", one, names=None)
    pictures = {
        "visual": {"href": "./tci.tif", "roles": ["data"], "eo:bands": bands},
        "tci": {"href": "./tci.tif", "roles": ["visual"], "eo:bands": bands},
        "red": {"href": "./tci.tif", "roles": ["overview"], "eo:bands": bands[:1]},
    }
    real = {
        band: {"href": f"./{band}.tif", "roles": ["data"], "eo:bands": [{"name": band}]}
        for band in ("B04", "B03", "B02")
    }
    write_item(tmp_path, "item", assets={**pictures, **real})
    raster = fetch(tmp_path)
    assert raster.data[:, 0, 0].tolist() == [1004, 1003, 1002]
    assert raster.source["items"][0]["files"] == ["B04.tif", "B03.tif", "B02.tif"]
    path = write_item(tmp_path, "item", assets=pictures)
    with pytest.raises(ProviderError, match=r"has the bands B4, B3, B2 \(there are none\)"):
        fetch(path)


@pytest.mark.parametrize("shift", [0, 0.3])
def test_a_pixel_needs_every_band_file(tmp_path: Path, shift: float) -> None:
    assets = {}
    for band in ("B04", "B03", "B02"):
        data = np.full((1, 30, 40), 900, np.uint16)
        data[:, 20:] = 0  # nodata in all of them
        if band == "B04":
            data[:, 5, 5] = 0  # dark water
            data = data[:, :, :35]  # and a strip that it does not cover
        grid = replace(GRID, shape=data.shape[1:])
        write(tmp_path / f"{band}.tif", data, grid=grid, names=None)
        assets[band] = {"href": f"./{band}.tif", "roles": ["data"]}
    path = write_item(tmp_path, "item", assets=assets)
    grid = replace(GRID, transform=GRID.transform @ Affine.translation(shift, shift))
    expected = np.zeros(GRID.shape, bool)
    expected[:20, :35] = True
    expected[5, 5] = shift == 0  # where pixels are mixed, 0 is nodata
    raster = fetch(path, grid=grid)
    assert np.array_equal(raster.valid, expected)
    assert (raster.data[1:, raster.valid] == 900).all()


@pytest.mark.parametrize("migrate", [False, True])
@pytest.mark.parametrize("written", ["1.0", "1.1", "common"])
def test_bands_by_position_in_one_file(tmp_path: Path, written: str, migrate: bool) -> None:
    names = ("nir", "blue", "green", "red")
    units = {"scale": 1e-4, "offset": -0.1}
    image: dict[str, Any] = {"href": "./stack.tif", "roles": ["data"]}
    if written == "1.0":
        image["eo:bands"] = [{"name": n} for n in names]
        image["raster:bands"] = [units] * 4
    elif written == "common":
        image["eo:bands"] = [{"name": f"x{i}", "common_name": n} for i, n in enumerate(names)]
        image["raster:bands"] = [units] * 4
    else:
        stated = {f"raster:{k}": v for k, v in units.items()}
        image["bands"] = [
            {"name": f"b{i}", "eo:common_name": n, **stated} for i, n in enumerate(names)
        ]
    stack = (np.arange(4)[:, None, None] + np.full((1, 30, 40), 1001)).astype(np.uint16)
    write(tmp_path / "stack.tif", stack, names=None)
    path = write_item(tmp_path, "item", assets={"image": image})
    raster = fetch(path)
    assert raster.data[:, 0, 0].tolist() == [1004, 1003, 1002]
    assert raster.reflectance == (1e-4, -0.1)
    # pystac brings what a catalogue links to up to STAC 1.1.
    extensions = ["https://stac-extensions.github.io/eo/v1.1.0/schema.json",
                  "https://stac-extensions.github.io/raster/v1.1.0/schema.json"]  # fmt: skip
    content = {**json.loads(path.read_text()), "stac_extensions": extensions}
    item = pystac.Item.from_dict(content, href=str(path), migrate=migrate)
    assert scene_from_item(item).find(BANDS) == LocalProvider(path)._indexed().scenes[0].find(BANDS)


@pytest.mark.parametrize(
    ("baseline", "applied", "collection", "expected", "offset"),
    [
        ("05.09", True, "sentinel-2-l2a", 1500, "already applied (earthsearch"),
        ("05.09", None, "sentinel-2-l2a", 500, "1000 subtracted"),
        ("05.09", False, "sentinel-2-c1-l2a", 500, "1000 subtracted"),
        ("04.00", None, None, 500, "1000 subtracted"),
        ("03.01", None, None, 1500, "none before baseline 04.00"),
        ("02.07", False, "sentinel-2-l2a", 1500, "none before baseline 04.00"),
    ],
)
def test_the_offset_is_taken_off_once(
    tmp_path: Path, baseline: str, applied: bool | None, collection: str | None, expected: int,
    offset: str,
) -> None:  # fmt: skip
    flag = {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    said = {"s2:processing_baseline": baseline, **flag}
    write_item(tmp_path, "item", 1500, collection=collection, properties=said)
    raster = fetch(tmp_path)
    assert (raster.data == expected).all()
    assert raster.data.dtype == np.uint16
    assert raster.reflectance == (1e-4, 0.0)
    assert raster.source["items"][0]["offset"].startswith(offset)
    assert raster.source["items"][0]["baseline"] == baseline


@pytest.mark.parametrize("stated", ["05.09", "5.09", 5.09, "N0509", "0509", " 05.09"])
def test_a_baseline_is_read_as_it_is_written(tmp_path: Path, stated: Any) -> None:
    assert baseline_number(stated) == 5.09
    write_item(tmp_path, "item", 1500, properties={"s2:processing_baseline": stated})
    raster = fetch(tmp_path)
    assert (raster.data == 500).all()
    assert raster.source["items"][0]["baseline"] == "05.09"


@pytest.mark.parametrize(("stated", "number"), [(4, 4.0), ("4", 4.0), (5.1, 5.1), ("05.10", 5.1)])
def test_baselines_as_numbers(stated: Any, number: float) -> None:
    assert baseline_number(stated) == number


@pytest.mark.parametrize("stated", ["", "unknown", 509, True, [5, 9], "05.09.1"])
def test_a_baseline_that_says_nothing_is_an_error(tmp_path: Path, stated: Any) -> None:
    write_item(tmp_path, "odd", 1500, properties={"s2:processing_baseline": stated})
    with pytest.raises(ProviderError, match="odd.*s2:processing_baseline=.*such as '05.09'"):
        LocalProvider(tmp_path / "odd.json").check_sensor(SENSOR)
    write_item(tmp_path, "good", 1500, properties={"s2:processing_baseline": "05.09"})
    raster = fetch(tmp_path)
    assert (raster.data == 500).all()
    assert "s2:processing_baseline" in raster.source["left_out"]["odd"]


def test_the_baseline_may_stand_in_the_name_of_the_product(tmp_path: Path) -> None:
    said = {"s2:product_uri": URI.format("N0509", "20230610T120000")}
    write_item(tmp_path / "item", "item", 1500, properties=said)
    assert (fetch(tmp_path / "item").data == 500).all()
    planetary = URI.replace("_{}_R", "_R").format("20230610T120000").removesuffix(".SAFE")
    write_item(tmp_path / "planetary", planetary, 1500, properties=said)
    assert (fetch(tmp_path / "planetary").data == 500).all()
    name = URI.format("N0509", "20230610T120000").removesuffix(".SAFE")
    for value, expected in ((1500, 500), (700, 700)):  # of a file only the pixels tell
        write(tmp_path / "file" / f"{name}.tif", value)
        raster = fetch(tmp_path / "file")
        assert (raster.data == expected).all()
        assert "judged by the pixels" in raster.source["items"][0]["offset"]
    with rasterio.open(tmp_path / "file" / f"{name}.tif", "r+") as file:
        file.scales, file.offsets = (1e-4,) * 3, (-0.1,) * 3
    raster = fetch(tmp_path / "file")
    assert (raster.data == 700).all()
    assert raster.reflectance == (1e-4, -0.1)


def test_dark_pixels_stay_valid_when_the_offset_is_taken_off(tmp_path: Path) -> None:
    data = np.full((3, 30, 40), 900, np.uint16)
    data[:, :10] = 0
    data[:, 10:20] = 1300
    write_item(tmp_path, "item", properties={"s2:processing_baseline": "05.00"})
    write(tmp_path / "item.tif", data)
    raster = fetch(tmp_path)
    assert np.array_equal(raster.valid, (data != 0).all(axis=0))
    assert raster.data[0, ::10, 0].tolist() == [0, 300, 1]


@pytest.mark.parametrize(("dark", "expected"), [(0.02, 1500), (0.005, 500)])
def test_a_doubtful_offset_is_judged_by_the_pixels(
    tmp_path: Path, dark: float, expected: int
) -> None:
    data = np.full((3, 30, 40), 1500, np.uint16)
    data.reshape(3, -1)[:, : round(dark * 1200)] = 400
    said = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}
    write_item(tmp_path, "item", collection="sentinel-2-l2a", properties=said)
    write(tmp_path / "item.tif", data)
    raster = fetch(tmp_path)
    assert raster.data[0, -1, -1] == expected
    assert "judged by the pixels" in raster.source["items"][0]["offset"]
    assert "judged by their pixels (item: " in raster.notes[0]


@pytest.mark.parametrize("apart", [False, True])
def test_a_doubtful_offset_is_judged_once_for_the_scene(tmp_path: Path, apart: bool) -> None:
    data = np.full((3, 1200, 1100), 1500, np.uint16)
    data[:, :600] = 400  # neighbouring windows alone would be judged differently
    data[:, :, :50] = 0
    grid = replace(GRID, shape=data.shape[1:])
    said = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}
    assets: dict[str, Any] = {}
    for band, values in zip(("B04", "B03", "B02"), data, strict=True):
        write(tmp_path / f"{band}.tif", values[None], grid=grid, names=None)
        assets[band] = {"href": f"./{band}.tif", "roles": ["data"]}
    write_item(
        tmp_path, "item", collection="sentinel-2-l2a", properties=said, grid=grid,
        assets=assets if apart else None,
    )  # fmt: skip
    write(tmp_path / "item.tif", data, grid=grid)
    provider = LocalProvider(tmp_path / "item.json")
    dark, bright = (
        fetch(provider, grid=grid.window(top, 500, 40, 40), composite="mosaic")
        for top in (500, 700)
    )
    assert (dark.data == 400).all()
    assert (bright.data == 1500).all()
    offsets = {raster.source["items"][0]["offset"] for raster in (dark, bright)}
    assert offsets == {"already applied (judged by the pixels: 50.0% are below 1000)"}
    for band in ("item", "B04", "B03", "B02"):  # the judgement stands, its pixels unread
        count = 3 if band == "item" else 1
        write(tmp_path / f"{band}.tif", np.full((count, *grid.shape), 1500, np.uint16), grid=grid,
              names=None if count == 1 else ("red", "green", "blue"))  # fmt: skip
    assert (fetch(provider, grid=grid.window(500, 500, 40, 40)).data == 1500).all()
    anew = LocalProvider(tmp_path / "item.json")
    assert (fetch(anew, grid=grid.window(500, 500, 40, 40)).data == 500).all()


@pytest.mark.parametrize("said", ["05.09", "02.07"])
def test_reflectance_is_not_taken_for_digital_numbers(tmp_path: Path, said: str) -> None:
    rng = np.random.default_rng(0)
    reflectance = rng.uniform(0.01, 1.2, (3, 30, 40)).astype(np.float32)
    write_item(tmp_path, "item", properties={"s2:processing_baseline": said})
    write(tmp_path / "item.tif", reflectance)
    with pytest.raises(
        ProviderError,
        match=rf"'item' states processing baseline {said}.*float32 of at most 1\.2; multiply",
    ):
        fetch(tmp_path)
    write(tmp_path / "item.tif", (reflectance * 10000 + 1000).round())
    expected = reflectance * 10000 + (0 if said == "05.09" else 1000)
    assert fetch(tmp_path).data == pytest.approx(expected, abs=1)
    write_item(tmp_path, "item")
    write(tmp_path / "item.tif", reflectance)
    assert np.array_equal(fetch(tmp_path).data, reflectance)


def test_a_scene_with_a_mask_is_judged_where_it_is_valid(tmp_path: Path) -> None:
    data = np.full((3, 30, 40), 1500, np.uint16)
    data[:, :, 25:] = 100
    said = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}
    path = write_item(tmp_path, "item", collection="sentinel-2-l2a", properties=said)
    write(tmp_path / "item.tif", data, nodata=None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(tmp_path / "item.tif", "r+") as file,
    ):
        file.write_mask((data[0] == 1500).astype(np.uint8) * 255)
    assert (fetch(path).data[:, :, :25] == 500).all()
    write(tmp_path / "item.tif", np.zeros_like(data))
    with pytest.raises(ProviderError, match="none of the 1 scenes"):
        fetch(path)


def test_scenes_of_different_offsets_meet_harmonised(tmp_path: Path) -> None:
    write_item(tmp_path, "new", 2500, properties={"s2:processing_baseline": "05.00"})
    write_item(tmp_path, "old", 1300, properties={"s2:processing_baseline": "02.00"})
    assert (fetch(tmp_path).data == 1400).all()


def test_only_the_newest_processing_counts(tmp_path: Path) -> None:
    product = "S2A_MSIL2A_20230610T095031_{}_R079_T33TWM_{}"
    for value, baseline, made in (
        (100, "N0300", "20230610T120000"),
        (1200, "N0510", "20240101T0000"),
    ):
        write_item(
            tmp_path, f"v{value}", value,
            properties={"s2:product_uri": product.format(baseline, (made + "00")[:15]) + ".SAFE"},
        )  # fmt: skip
    said = {"s2:processing_baseline": "05.10"}
    write_item(tmp_path, "S2B_33TWM_20230611_0_L2A", 1600, properties=said)
    write_item(tmp_path, "S2B_33TWM_20230611_1_L2A", 1800, properties=said)
    raster = fetch(tmp_path)
    assert raster.source["counts"]["newest"] == 2
    assert (raster.data == 500).all()
    version = product_of_name(product.format("N0510", "20240101T000000")).version
    assert version == (5.1, "20240101000000", 0)


def ring_of(*corners: tuple[float, float]) -> dict[str, Any]:
    """A polygon from corners as shares of the extent of `GRID`, (0, 0) its south-west."""
    west, south, east, north = GRID.geographic_bounds()
    ring = [[west + x * (east - west), south + y * (north - south)] for x, y in corners]
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def box_of(shape: dict[str, Any]) -> list[float]:
    x, y = zip(*shape["coordinates"][0], strict=True)
    return [min(x), min(y), max(x), max(y)]


WHOLE = ring_of((0, 0), (1, 0), (1, 1), (0, 1))
NORTH_HALF = ring_of((0, 0.4), (1, 0.3), (1, 1), (0, 1))
SOUTH_HALF = ring_of((0, 0), (1, 0), (1, 0.3), (0, 0.4))
WEST_WEDGE = ring_of((0, 0), (1, 0), (0, 1))  # the boxes of both wedges are the whole tile
EAST_WEDGE = ring_of((1, 0), (1, 1), (0, 1))
URI = "S2A_MSIL2A_20230610T095031_{}_R079_T33TWM_{}.SAFE"
STRIP = "S2A_OPER_MSI_L2A_DS_2BPS_{}_S20230610T{}_N05.09"


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, ["second"]),
        ({"s2:generation_time": "2023-06-12T00:00:00Z"}, ["first"]),  # the first says the 13th
        ({"geometry": NORTH_HALF}, ["first", "second"]),
        ({"geometry": NORTH_HALF, "bbox": box_of(WHOLE)}, ["first", "second"]),
        ({"datetime": "2023-06-10T10:00:03Z"}, ["second"]),
        ({"datetime": "2023-06-10T10:00:30Z"}, ["first", "second"]),
        ({"s2:datastrip_id": STRIP.format("20240101T000000", "095302")}, ["second"]),
        ({"s2:datastrip_id": STRIP.format("20230610T120000", "095632")}, ["first", "second"]),
        ({"s2:datastrip_id": "of another kind"}, ["first", "second"]),
        ({"s2:datatake_id": "GS2A_20230610T095031_041600_N05.10"}, ["second"]),
        ({"s2:datatake_id": "GS2A_20230610T095031_041601_N05.09"}, ["first", "second"]),
        ({"s2:processing_baseline": "05.00"}, ["first"]),
    ],
)
@pytest.mark.parametrize("kind", ["esa", "earth-search"])
def test_only_what_is_the_same_acquisition_is_dropped(
    tmp_path: Path, kind: str, change: dict[str, Any], left: list[str]
) -> None:
    names = {"first": "S2A_33TWM_20230610_0_L2A", "second": "S2A_33TWM_20230610_1_L2A"}
    for name in names:
        said = {
            "datetime": "2023-06-10T10:00:00Z", "s2:processing_baseline": "05.09",
            "s2:datastrip_id": STRIP.format("20230610T120000", "095301"),
            "s2:datatake_id": "GS2A_20230610T095031_041600_N05.09",
            "s2:generation_time": "2023-06-13T00:00:00Z",
        }  # fmt: skip
        if kind == "esa":
            said["s2:product_uri"] = URI.format("N0509", f"20230610T12000{name == 'second':d}")
        if name == "second":
            said |= {"s2:generation_time": "2023-06-14T00:00:00Z", **change}
        shape = said.pop("geometry", WHOLE)
        box = said.pop("bbox", box_of(shape))  # type: ignore[arg-type]
        path = write_item(tmp_path, names[name], 1500, properties=said)
        content = {**json.loads(path.read_text()), "geometry": shape, "bbox": box}
        path.write_text(json.dumps(content))
    raster = fetch(tmp_path)
    assert [item["id"] for item in raster.source["items"]] == [names[name] for name in left]


def test_parts_of_a_split_tile_are_all_taken(tmp_path: Path) -> None:
    parts = (NORTH_HALF, SOUTH_HALF), (WEST_WEDGE, EAST_WEDGE)
    for day, pair in enumerate(parts, 10):
        for part, shape in enumerate(pair):
            name = f"S2A_33TWM_202306{day}_{part}_L2A"
            path = write_item(tmp_path, name, properties={"datetime": f"2023-06-{day}T10:00:00Z"})
            content = json.loads(path.read_text())
            content |= {"geometry": shape, "bbox": box_of(shape)}
            path.write_text(json.dumps(content))
    assert fetch(tmp_path).source["counts"]["newest"] == 4
    content["geometry"] = {"type": "MultiPolygon", "coordinates": [[], shape["coordinates"]]}
    path.write_text(json.dumps(content))
    assert fetch(tmp_path).source["counts"]["newest"] == 4
    for nowhere in (ring_of((0, 0), (0, 0), (0, 0)), {"type": "Point", "coordinates": [15, 46]}):
        content["geometry"] = nowhere
        path.write_text(json.dumps(content))
        assert fetch(tmp_path).source["counts"]["newest"] == 3  # only the boxes are known


def test_files_named_as_products(tmp_path: Path) -> None:
    name = URI.removesuffix(".SAFE") + ".tif"
    for value, made in ((1100, "20230610T120000"), (1200, "20230610T120001")):
        write(tmp_path / name.format("N0300", made), value)
    raster = fetch(tmp_path)  # perhaps parts, each of which covers the tile
    assert raster.source["image_count"] == 2
    write(tmp_path / name.format("N0500", "20230701T120000"), 1300)
    newest = fetch(tmp_path).source["items"]
    assert [item["baseline"] for item in newest] == ["05.00"]


def test_scenes_of_other_crs_type_and_band_names_meet(tmp_path: Path) -> None:
    wide = GRID.window(-20, -20, 80, 80)
    write(tmp_path / "a_20230601.tif", 900, grid=wide)
    to_zone = Transformer.from_crs(32633, 32632, always_xy=True)
    x, y = (round(v) for v in to_zone.transform(400200, 5199850))
    zone = Grid(known_crs(32632), Affine(20, 0, x - 800, 0, -20, y + 800), (80, 80))
    write(
        tmp_path / "b_20230602.tif", 1100, grid=zone, dtype="int16", names=("red", "green", "blue")
    )
    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(400200, 5199850)
    place = Affine(1e-4, 0, lon - 0.01, 0, -1e-4, lat + 0.01)
    degrees = Grid(known_crs(4326), place, (200, 200))
    write(tmp_path / "c_20230603.tif", 2000, grid=degrees, names=("B4", "B3", "B2"))
    raster = fetch(tmp_path)
    assert raster.source["image_count"] == 3
    assert raster.source["resampling"] == ["bilinear", "none"]
    assert raster.data.dtype == np.float32
    assert (raster.data == 1100).all()


def test_units_that_do_not_fit_name_both_scenes(tmp_path: Path) -> None:
    write(tmp_path / "silent_20230601.tif", 900)
    path = write(tmp_path / "declared_20230602.tif", 900)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4,) * 3, (0.0,) * 3
    with pytest.raises(ProviderError, match="'declared_20230602.tif' declares.*'silent_2023"):
        fetch(tmp_path)


def test_a_mask_is_warped_with_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "masked_20230610.tif", 900, nodata=None)
    hidden = np.zeros(GRID.shape, bool)
    hidden[:, 25:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(np.where(hidden, 0, 255).astype(np.uint8))
    shifted = replace(GRID, transform=GRID.transform @ Affine.translation(0.3, 0.3))
    raster = fetch(tmp_path, grid=shifted)
    assert raster.source["resampling"] == ["bilinear"]
    assert np.array_equal(raster.valid, ~hidden)  # the pixel under each centre
    assert (raster.data[:, raster.valid] == 900).all()


def test_collections_are_honoured_or_refused(tmp_path: Path) -> None:
    write_item(tmp_path, "one", 100, collection="first")
    write_item(tmp_path, "two", 300, collection="second")
    assert (fetch(tmp_path).data == 200).all()
    assert (fetch(tmp_path, collection="second").data == 300).all()
    with pytest.raises(
        ProviderError, match="got collection='third', .*: first, second; 'COPERNICUS"
    ):
        LocalProvider(tmp_path).check_sensor(replace(SENSOR, collection="third"))
    write(tmp_path / "plain" / "a.tif", 900)
    LocalProvider(tmp_path / "plain").check_sensor(replace(SENSOR, collection="my label"))


def test_nodata_that_no_file_declares_is_stated(tmp_path: Path) -> None:
    data = np.full((3, 30, 40), 900, np.uint16)
    data[:, :, :10] = 65535
    write(tmp_path / "a.tif", data, nodata=None)
    raster = fetch(tmp_path, None, fill_value=65535)
    assert raster.valid.mean() == 0.75
    coarse = Grid(GRID.crs, Affine(20, 0, 400010, 0, -20, 5199990), (10, 15))
    warped = fetch(tmp_path, None, grid=coarse, fill_value=65535)
    assert (warped.data[:, warped.valid] == 900).all()
    assert 0 < warped.valid.sum() < warped.valid.size
    write(tmp_path / "a.tif", data, nodata=7)
    with pytest.raises(ProviderError, match=r"fill_value=65535, but 'a.tif' declares nodata 7"):
        LocalProvider(tmp_path).check_sensor(replace(SENSOR, fill_value=65535))
    plain = SensorSpec("x", BANDS)
    LocalProvider(tmp_path).check_sensor(plain)


def with_scl(folder: Path, name: str, value: int, classes: NDArray[np.uint8] | None) -> None:
    bands = [{"name": n} for n in ("red", "green", "blue")]
    assets = {"image": {"href": f"./{name}.tif", "roles": ["data"], "eo:bands": bands}}
    if classes is not None:
        write(folder / f"{name}_scl.tif", classes[None], names=None)
        assets["scl"] = {"href": f"./{name}_scl.tif", "roles": ["data"]}
    write_item(folder, name, value, assets=assets)


def test_clouds_are_masked_by_the_classification(tmp_path: Path) -> None:
    classes = np.resize(np.arange(12, dtype=np.uint8), GRID.shape)
    with_scl(tmp_path, "cloudy", 900, classes)
    kept = np.isin(classes, [2, 4, 5, 6, 7, 11])
    assert np.array_equal(fetch(tmp_path, cloud_mask="scl").valid, kept)
    assert fetch(tmp_path).valid.all()
    with_scl(tmp_path, "clear", 700, np.full(GRID.shape, 4, np.uint8))
    raster = fetch(tmp_path, cloud_mask="scl")
    assert np.array_equal(raster.data[0], np.where(kept, 800, 700))
    assert raster.source["cloud_mask"] == "scl"
    with_scl(tmp_path, "bare", 700, None)
    with pytest.raises(
        ProviderError, match="scene 'bare' has no asset 'scl'.*leave cloud_mask out"
    ):
        fetch(tmp_path, cloud_mask="scl")
    write(tmp_path / "plain" / "a.tif", 900)
    with pytest.raises(ProviderError, match="none of 1 scenes in .* has an asset 'scl'"):
        fetch(tmp_path / "plain", None, cloud_mask="scl")
    with pytest.raises(ProviderError, match="only backend='gee' has.*cloud_mask='scl'"):
        fetch(tmp_path, cloud_mask="cloud_score_plus")
    with_scl(tmp_path / "dark", "x", 700, np.full(GRID.shape, 9, np.uint8))
    with pytest.raises(ProviderError, match="none of the 1 scenes .* valid.*leave cloud_mask out"):
        fetch(tmp_path / "dark", cloud_mask="scl")


def test_upsampled_imagery_is_told(tmp_path: Path) -> None:
    coarse = Grid(GRID.crs, Affine(120, 0, 399960, 0, -120, 5200080), (20, 20))
    write(tmp_path / "a.tif", 900, grid=coarse)
    assert fetch(tmp_path, None).notes == (
        "imagery of 120 m was upsampled to 10 m; state scale_m=120",
    )
    assert fetch(tmp_path, None, grid=coarse).notes == ()


def test_a_long_list_of_items_is_cut(tmp_path: Path) -> None:
    first = write(tmp_path / "s000_20230601.tif", 900)
    for i in range(1, 103):
        shutil.copy(first, tmp_path / f"s{i:03}_20230601.tif")
    source = fetch(tmp_path).source
    assert (len(source["items"]), source["items_not_listed"], source["image_count"]) == (
        100,
        3,
        103,
    )


def test_twelve_hundred_files_are_looked_at_once(tmp_path: Path) -> None:
    tiny = Grid(GRID.crs, GRID.transform, (4, 4))
    content = write(tmp_path / "0_20230601.tif", 900, grid=tiny).read_bytes()
    for i in range(1, 1200):
        (tmp_path / f"{i}_20230601.tif").write_bytes(content)
    provider = LocalProvider(tmp_path)
    assert provider.dated
    for file in tmp_path.iterdir():
        file.unlink()
    assert provider.status().startswith("ready: 1200 scenes")


@pytest.fixture
def scans() -> Iterator[Callable[[Path], list[str]]]:
    """Count listings of a folder, each of which takes a while."""
    watched: dict[str, list[str]] = {}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.scandir" and str(arguments[0]) in watched:
            watched[str(arguments[0])].append(event)
            time.sleep(0.05)

    sys.addaudithook(hook)  # can never be removed
    yield lambda folder: watched.setdefault(str(folder), [])
    watched.clear()


def test_threads_look_a_folder_up_once(tmp_path: Path, scans: Callable[[Path], list[str]]) -> None:
    write(tmp_path / "a_20230610.tif", 900)
    provider, seen, start = (
        LocalProvider(tmp_path),
        scans(tmp_path),
        threading.Barrier(8, timeout=60),
    )

    def look(_: int) -> bool:
        start.wait()
        return provider.dated

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(look, range(8)))
    assert len(seen) == 2  # the other is for FIFOs beside the image


def test_a_folder_without_imagery_is_looked_up_once(
    tmp_path: Path, scans: Callable[[Path], list[str]]
) -> None:
    folder = tmp_path / "scenes"
    provider, seen = LocalProvider(folder), scans(folder)
    with pytest.raises(ProviderError, match="does not exist"):
        fetch(provider)
    folder.mkdir()
    for _ in range(3):
        with pytest.raises(ProviderError, match="no STAC item and no georeferenced raster"):
            fetch(provider)
    assert len(seen) == 1
    write(folder / "a_20230610.tif", 900)
    assert fetch(folder).valid.all()


def test_the_identity_changes_with_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    with_scl(folder, "one", 900, np.full(GRID.shape, 4, np.uint8))
    provider = LocalProvider(folder)
    seen = [provider.identity()]
    assert LocalProvider(folder).identity() == seen[0]
    (folder / "readme.txt").write_text("no imagery")
    assert provider.identity() == seen[0]

    def changed() -> bool:
        seen.append(provider.identity())
        assert seen[-1] == LocalProvider(folder).identity()
        return seen[-1] not in seen[:-1]

    write(folder / "two_20230610.tif", 900)
    assert changed()
    write(folder / "two_20230610.tif", 901)
    assert changed()
    for name in ("one_scl.tif", "one.json", "one.tif"):
        os.utime(folder / name, (1, 1))
        assert changed(), name
    (folder / "two_20230610.tif").unlink()
    assert changed()
    link_catalog(folder, "catalog", "Catalog", ("item", "./one.json"))
    provider = LocalProvider(folder)
    assert changed()
    for name in ("catalog.json", "one.json", "one.tif", "one_scl.tif"):
        os.utime(folder / name, (2, 2))
        assert changed(), name


def open_files() -> list[str]:
    """Paths of the files that this process has open."""
    folder = Path("/proc/self/fd")
    return [os.readlink(entry) for entry in folder.iterdir() if entry.exists()]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("shift", [0, 0.3])
def test_files_stay_open_with_their_provider(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, shift: float
) -> None:
    tall = replace(GRID, shape=(2500, 1000))
    rng = np.random.default_rng(0)
    stack = rng.integers(1, 9000, (3, 3, *tall.shape)).astype(np.uint16)
    for i, data in enumerate(stack):
        write(tmp_path / f"s{i}_2023061{i}.tif", data, grid=tall, tiled=True, blockysize=256)
    provider = LocalProvider(tmp_path)
    assert provider.dated
    grid = replace(tall, transform=tall.transform @ Affine.translation(shift, shift))
    grid = grid.window(100, 0, 2400, 1000)  # strips of four
    with caplog.at_level("DEBUG", logger="rasterio._base"):
        raster = fetch(provider, grid=grid)
    opened = [text for text in caplog.messages if "is started" in text]
    if not shift:
        assert np.array_equal(raster.data, np.median(stack[:, :, 100:], axis=0)[:, :2400])
        assert len(opened) == len(stack)
    path = tmp_path / "s2_20230612.tif"
    path.write_bytes(path.read_bytes()[:2_000_000])
    with pytest.raises(ProviderError, match="scene 's2_20230612.tif' cannot be used"):
        fetch(provider, grid=grid)


def test_only_so_many_files_stay_open(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{i}.tif", 900)) for i in range(3)]
    kept = OpenFiles(most=2)

    def opened_after(path: str, kept: OpenFiles = kept) -> list[bool]:
        with kept.dataset(path) as dataset:
            assert dataset.read().max() == 900
        return [each in open_files() for each in paths]

    assert [opened_after(path) for path in (*paths, paths[1], paths[0])] == [
        [True, False, False], [True, True, False], [False, True, True], [False, True, True],
        [True, True, False],
    ]  # fmt: skip
    del kept, opened_after
    assert not [path for path in open_files() if path in paths]
    with pytest.raises(ImageryError, match="cannot read"), OpenFiles().dataset("gone.tif"):
        pass


def test_a_file_that_changes_is_opened_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", 900)
    vrt = tmp_path / "a.vrt"
    with rasterio.open(path) as source, WarpedVRT(source) as warped:
        rasterio.shutil.copy(warped, vrt, driver="VRT")
    kept = pickle.loads(pickle.dumps(OpenFiles()))  # noqa: S301

    def value(name: Path) -> int:
        with kept.dataset(str(name)) as dataset:
            return int(dataset.read().max())

    assert (value(path), value(vrt)) == (900, 900)
    write(path, 800)
    assert (value(path), value(vrt)) == (800, 800)
    write(tmp_path / "hidden.tif", 1)
    shutil.move(tmp_path / "hidden.tif", f"{path}.msk")  # a file that comes beside it
    with kept.dataset(str(path)) as dataset:
        assert f"{path}.msk" in dataset.files


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_fork_opens_files_anew(tmp_path: Path) -> None:
    """It shares the position in an open file with its parent, and would read elsewhere."""
    path = str(write(tmp_path / "a.tif", 900))
    kept = OpenFiles()
    with kept.dataset(path) as dataset:
        own = id(dataset)
    child = os.fork()
    if not child:
        try:
            with kept.dataset(path) as dataset:
                os._exit(int(id(dataset) == own or dataset.read().max() != 900))
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with kept.dataset(path) as dataset:
        assert id(dataset) == own


def test_a_file_is_not_closed_under_its_reader(tmp_path: Path) -> None:
    path, other = (str(write(tmp_path / name, 900)) for name in ("a.tif", "b.tif"))
    files = OpenFiles(most=1)
    with files.dataset(path) as dataset, files.dataset(path) as second:
        assert dataset is not second  # each has one reader
        with files.dataset(other):
            pass
        assert int(dataset.read().max()) == int(second.read().max()) == 900


def test_footprints_cross_the_antimeridian(tmp_path: Path) -> None:
    fiji = Grid(known_crs(32701), Affine(100, 0, 130000, 0, -100, 8150000), (600, 1000))
    (west, east) = grid_boxes(fiji) or ()
    assert west[2] == 180
    assert east[0] == -180
    assert touch([west], boxes(179, -17.5, -179, -17))
    assert touch([east], boxes(179, -17.5, 181, -17))
    assert not touch([east], boxes(170, -17.5, 179.9, -17))
    assert touch(None, [west])
    box = [179.0, -18.0, -178.0, -16.0]
    path = write_item(tmp_path, "fiji", grid=fiji)
    content = json.loads(path.read_text())
    for bbox in (box, [179.0, -18.0, 0.0, -178.0, -16.0, 100.0], None):
        path.write_text(
            json.dumps({**content, "bbox": bbox, **({} if bbox else {"geometry": None})})
        )
        assert fetch(path, grid=fiji.window(300, 500, 20, 20)).valid.all()
    with pytest.raises(ProviderError, match="0 touch the place"):
        fetch(write_item(tmp_path, "slovenia"), grid=fiji)


def test_an_item_over_a_span_counts_from_its_start(tmp_path: Path) -> None:
    span = {"start_datetime": "2023-06-05T00:00:00Z", "end_datetime": "2023-07-05T00:00:00Z"}
    path = write_item(tmp_path, "span", properties={"datetime": None, **span})
    scene = scene_from_item(pystac.Item.from_file(str(path)))
    assert scene.acquired == datetime(2023, 6, 5, tzinfo=UTC)
    assert fetch(tmp_path).valid.all()


def test_the_variable_names_the_root(
    scenes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = LocalProvider()
    monkeypatch.setenv("RS_EMBED_LOCAL", str(scenes_folder))
    assert provider.status() == (
        "missing: RS_EMBED_LOCAL is not set; set RS_EMBED_LOCAL to a folder, a raster file or a "
        "STAC .json, or use LocalProvider(root)"
    )
    with pytest.raises(ProviderError, match="RS_EMBED_LOCAL is not set; set RS_EMBED_LOCAL to"):
        provider.check_sensor(SENSOR)
    assert LocalProvider().status().startswith("ready: 6 scenes")
    monkeypatch.setenv("RS_EMBED_LOCAL", str(write(tmp_path / "a.tif", 900)))
    assert find_provider("local", Settings.from_environ()).status().startswith("ready: 1 scenes")


def test_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def findings() -> dict[str, Any]:
        output = CliRunner().invoke(app, ["doctor", "--json"]).output
        return {finding["what"]: finding for finding in json.loads(output)}

    found = findings()["backend local"]
    assert (found["state"], found["found"]) == ("missing", "RS_EMBED_LOCAL is not set")
    assert found["fix"].startswith("set RS_EMBED_LOCAL to a folder")
    monkeypatch.setenv("RS_EMBED_LOCAL", str(tmp_path / "gone"))
    assert findings()["backend local"]["state"] == "broken"
    monkeypatch.setenv("RS_EMBED_LOCAL", str(write(tmp_path / "a.tif", 900)))
    assert findings()["backend local"]["state"] == "ok"


def test_an_embedding_of_local_imagery(
    checkpoint: Path, scenes_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_LOCAL", str(scenes_folder))
    lon, lat = 15.0074, 46.9471

    def embed(**kwargs: Any) -> Any:
        return get_embedding(
            "scalemae", spatial=PointBuffer(lon, lat, 200), weights=checkpoint, image_size=256,
            temporal=JUNE, **{"backend": "local", **kwargs},
        )  # fmt: skip

    embedding = embed()
    for other in ("auto", LocalProvider(scenes_folder)):
        meta = {**embedding.meta, "backend_asked": "auto" if other == "auto" else "local"}
        assert embed(backend=other).meta == meta
    assert embedding.meta["backend"] == "local"
    assert embedding.meta["source"]["image_count"] == 2  # less than 30 % cloud
    assert embedding.meta["reflectance_source"] == "imagery"
    assert embedding.meta["source"]["resampling"] == ["none"]
    with pytest.warns(ImageryWarning, match="imagery of 10 m was upsampled to 5 m"):
        finer = embed(fetch=FetchSpec(scale_m=5))
    assert any("upsampled" in warning for warning in finer.meta["warnings"])
    with pytest.raises(ProviderError, match="0 have less than 5 % cloud"):
        embed(fetch=FetchSpec(cloudy_pct=5))


def test_files_of_a_broken_item_are_no_scenes_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a_20230610.tif", 900)
    write(tmp_path / "clouds_20230611.tif", 9000)
    item: dict[str, Any] = {
        "type": "Feature", "stac_version": "1.0.0", "id": "clouds", "geometry": None, "links": [],
        "properties": {"datetime": "broken", "eo:cloud_cover": 95},
        "assets": {"data": {"href": "./clouds_20230611.tif"}},
    }  # fmt: skip
    (tmp_path / "clouds.json").write_text(json.dumps(item))
    raster = fetch(tmp_path)
    assert [item["id"] for item in raster.source["items"]] == ["a_20230610.tif"]
    assert list(raster.source["left_out"]) == ["clouds.json (clouds)"]


def test_scenes_without_a_date_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a_20230610.tif", 900)
    write(tmp_path / "latest.tif", 2000)
    raster = fetch(tmp_path)
    assert raster.source["image_count"] == 1
    assert "1 scenes without a date were left out" in raster.notes[0]
