"""Products as people have them on disk: single-band files, pictures, dates, mirrored items.

Each situation is a row: files as their publishers name them, and the scenes that are right, from
the product specifications.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from rs_embed import (
    LocalProvider,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
    embed_area,
    inspect_input,
)
from rs_embed.embedding.inspection import Inspection
from rs_embed.errors import ProviderError
from rs_embed.providers.scenes.scene import Scene

LON, LAT = Transformer.from_crs(32633, 4326, always_xy=True).transform(400640, 5199360)
PLACE = PointBuffer(LON, LAT, 300)
BANDS = ("B4", "B3", "B2")
RED, GREEN, BLUE, OTHER = 3000, 2500, 2000, 4000


def looked_at(**given: Any) -> Inspection:
    """Return what a model would see; warnings are looked at in ``meta``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return inspect_input("scalemae", variant="tiny", display="visual", **given)


def write(
    path: Path, value: int | list[int], *, pixel: int = 10, dtype: str = "uint16", **profile: Any
) -> None:
    """Write a file over the same ground, with a band for each value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [value] if isinstance(value, int) else value
    side = 1280 // pixel
    tags = profile.pop("tags", {})
    scales = profile.pop("scales", None)
    jp2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(
        path, "w",
        **{
            **(jp2 if path.suffix == ".jp2" else {"driver": "GTiff"}),
            "count": len(values), "height": side, "width": side, "dtype": dtype,
            "crs": "EPSG:32633", "transform": Affine(pixel, 0, 4e5, 0, -pixel, 52e5), **profile,
        },
    ) as file:  # fmt: skip
        for at, each in enumerate(values, 1):
            file.write(np.full((side, side), each, dtype), at)
        file.update_tags(**tags)
        if scales:
            file.scales = scales


SAFE = "S2B_MSIL2A_20230815T100559_N{}_R022_T33TVN_20230815T130000.SAFE"
OLD_SAFE = "S2A_OPER_PRD_MSIL1C_PDMC_20160504T203418_R122_V20160504T100028_20160504T100028.SAFE"


def safe(root: Path, baseline: str = "0509", offset: int = 1000) -> None:
    """Write a Level-2A product: each band at up to three sizes, pictures, classes, a mask."""
    granule = root / SAFE.format(baseline) / "GRANULE/L2A_T33TVN_A033643_20230815T100601"
    stem = "T33TVN_20230815T100559"
    for band, value in (("B04", RED), ("B03", GREEN), ("B02", BLUE)):
        for pixel in (10, 20, 40):
            write(granule / f"IMG_DATA/R{pixel}m/{stem}_{band}_{pixel}m.jp2",
                  value + offset + (pixel > 10), pixel=pixel)  # fmt: skip
    for pixel in (10, 20, 40):
        write(granule / f"IMG_DATA/R{pixel}m/{stem}_TCI_{pixel}m.jp2", [90, 80, 70],
              pixel=pixel, dtype="uint8")  # fmt: skip
    write(granule / f"IMG_DATA/R20m/{stem}_SCL_20m.jp2", 4, pixel=20, dtype="uint8")
    write(granule / f"QI_DATA/{stem}_PVI.jp2", [90, 80, 70], pixel=40, dtype="uint8")
    write(granule / "QI_DATA/MSK_CLDPRB_20m.jp2", 0, pixel=20, dtype="uint8")


def old_safe(root: Path) -> None:
    """Write a Level-1C product as before December 2016: the tile's name says when it was made."""
    tile = "S2A_OPER_MSI_L1C_TL_SGS__20160504T173538_A004520_T33TVN"
    folder = root / OLD_SAFE / f"GRANULE/{tile}_N02.01/IMG_DATA"
    for band, value in (("B04", RED), ("B03", GREEN), ("B02", BLUE)):
        write(folder / f"{tile}_{band}.jp2", value)


def bands(root: Path, pattern: str, names: dict[str, int], **profile: Any) -> Path:
    for name, value in names.items():
        write(root / pattern.format(name), value, **profile)
    return root


def planet(root: Path) -> None:
    bands(root, "20230815_{}.tif", {"B01": BLUE, "B02": GREEN, "B03": RED, "B04": OTHER})
    (root / "20230815_metadata.xml").write_text("<eop:shortName>PlanetScope</eop:shortName>")


SENTINEL = {"B04": RED, "B03": GREEN, "B02": BLUE}
OLI = {"B4": 18000, "B3": 16000, "B2": 14000, "B5": 20000, "B1": 9000}
ETM = {"B3": 18000, "B2": 16000, "B1": 14000, "B4": 20000}

# Files -> reflectance of red, green and blue, the day, and the number of scenes.
PRODUCTS: dict[str, tuple[Callable[[Path], Any], tuple[float, ...], str | None]] = {
    "SAFE, offset": (safe, (0.3, 0.25, 0.2), "2023-08-15T10:05:59"),
    "SAFE, before the offset": (
        lambda r: safe(r, "0301", 0), (0.3, 0.25, 0.2), "2023-08-15T10:05:59"
    ),
    "SAFE of 2016": (old_safe, (0.3, 0.25, 0.2), "2016-05-04T10:00:28"),
    "files of a SAFE in a plain folder": (
        lambda r: bands(r, "T33TVN_20230815T100559_{}_10m.jp2", SENTINEL),
        (0.3, 0.25, 0.2), "2023-08-15T10:05:59",
    ),
    "the archive on AWS": (
        lambda r: bands(r / "tiles/33/T/VN/2023/8/5/0/R10m", "{}.jp2", SENTINEL),
        (0.3, 0.25, 0.2), "2023-08-05T00:00:00",
    ),
    "B04.tif": (
        lambda r: bands(r / "2023-08-15", "{}.tif", SENTINEL), (0.3, 0.25, 0.2),
        "2023-08-15T00:00:00",
    ),
    "red.tif": (
        lambda r: bands(r, "valley_20230815_{}.tif", {"red": RED, "green": GREEN, "blue": BLUE}),
        (0.3, 0.25, 0.2), "2023-08-15T00:00:00",
    ),
    "HLS S30": (
        lambda r: bands(r, "HLS.S30.T33TVN.2023227T100559.v2.0.{}.tif", SENTINEL, nodata=-9999,
                        dtype="int16"),
        (0.3, 0.25, 0.2), "2023-08-15T10:05:59",
    ),
    "HLS L30, scale stated by the files": (
        lambda r: bands(r, "HLS.L30.T33TVN.2023227T100559.v2.0.{}.tif", SENTINEL, nodata=-9999,
                        dtype="int16", scales=(0.0001,)),
        (0.3, 0.25, 0.2), "2023-08-15T10:05:59",
    ),
    "Landsat 9": (
        lambda r: bands(r, "LC09_L2SP_190028_20230815_20230822_02_T1_SR_{}.TIF", OLI, pixel=20),
        (0.295, 0.24, 0.185), "2023-08-15T00:00:00",
    ),
    "Landsat 5": (
        lambda r: bands(r, "LT05_L2SP_190028_20030815_20200904_02_T1_SR_{}.TIF", ETM, pixel=20),
        (0.295, 0.24, 0.185), "2003-08-15T00:00:00",
    ),
    "PlanetScope with its metadata": (
        lambda r: planet(r),
        (0.3, 0.25, 0.2), "2023-08-15T00:00:00",
    ),
}  # fmt: skip


def found(root: Path) -> tuple[Scene, ...]:
    return LocalProvider(root)._indexed().scenes


@pytest.mark.parametrize(("make", "reflectance", "moment"), PRODUCTS.values(), ids=PRODUCTS)
def test_the_files_of_a_product_are_one_scene(
    make: Callable[[Path], Any], reflectance: tuple[float, ...], moment: str | None, tmp_path: Path
) -> None:
    make(tmp_path)
    (scene,) = found(tmp_path)
    assert scene.acquired is not None
    assert scene.acquired.isoformat() == f"{moment}+00:00"
    seen = looked_at(
        spatial=PLACE, backend=LocalProvider(tmp_path),
        temporal=TemporalSpec.range("1990-01-01", "2030-01-01"),
    )  # fmt: skip
    scale, offset = seen.meta["reflectance_scale"], seen.meta["reflectance_offset"]
    medians = [seen.raw[band]["median"] * scale + offset for band in BANDS]
    assert medians == pytest.approx(reflectance, abs=1e-6)
    assert seen.meta["source"]["image_count"] == 1


def test_the_classes_of_a_safe_mask_clouds(tmp_path: Path) -> None:
    safe(tmp_path)
    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", BANDS, cloud_mask="scl")
    period = TemporalSpec.range("2023-08-01", "2023-09-01")
    seen = looked_at(
        spatial=PLACE, temporal=period, backend=LocalProvider(tmp_path), sensor=sensor,
    )  # fmt: skip
    assert seen.meta["valid_fraction"] == 1


def test_the_baseline_in_the_metadata_counts_where_the_name_has_none(tmp_path: Path) -> None:
    safe(tmp_path)
    renamed = tmp_path / "alps.SAFE"
    (tmp_path / SAFE.format("0509")).rename(renamed)
    (renamed / "MTD_MSIL2A.xml").write_text(
        "<n1:x><PROCESSING_BASELINE>05.09</PROCESSING_BASELINE></n1:x>"
    )
    (scene,) = found(tmp_path)
    assert (scene.baseline, scene.offset_rule) == ("05.09", "subtract")


# Files that are no scenes -> what is said of them.
LEFT_OUT: dict[str, tuple[Callable[[Path], object], str]] = {
    "only pictures": (
        lambda r: write(r / "T33TVN_20230815T100559_TCI_10m.jp2", [9, 8, 7], dtype="uint8"),
        "no imagery in .*pictures, masks and angles of products are none",
    ),
    "a level without reflectance": (
        lambda r: bands(r, "LC09_L1TP_190028_20230815_20230822_02_T1_{}.TIF", OLI),
        "Level-1 product of Landsat.*L2SP",
    ),
    "one band twice": (
        lambda r: [bands(f, "B{}.tif", {"04": RED}) for f in (r, r / "R10m")],
        "B04.tif and B04.tif are the same band.*gdalbuildvrt -separate",
    ),
    "bands of other places": (
        lambda r: [bands(r, f"B{band}.tif", {"": RED}, transform=Affine(10, 0, x, 0, -10, 52e5))
                   for band, x in (("02", 4e5), ("08", 5e5))],
        "B08.tif covers other ground than B02.tif.*gdalbuildvrt -separate",
    ),
    "a band is missing": (
        lambda r: bands(r, "{}.tif", {"B04": RED, "B03": GREEN}),
        r"none of 1 scenes .* has the bands B4, B3, B2 \(the bands that exist are B3, B4\)",
    ),
    "archives": (
        lambda r: (r / "S2B.SAFE.zip").write_bytes(b"PK"),
        "no imagery in .*S2B.SAFE.zip: is the archive of a product; unpack it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "match"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_files_that_are_no_scene_are_named(
    make: Callable[[Path], Any], match: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(ProviderError, match=match):
        LocalProvider(tmp_path).check_sensor(SensorSpec("COPERNICUS/S2_SR_HARMONIZED", BANDS))


@pytest.mark.parametrize("several", [True, False], ids=["files", "one file"])
def test_bands_that_a_name_does_not_settle_are_told(several: bool, tmp_path: Path) -> None:
    """B04 is red of Sentinel-2 and near infrared of PlanetScope."""
    values = {"B01": BLUE, "B02": GREEN, "B03": RED, "B04": OTHER}
    if several:
        bands(tmp_path, "{}.tif", values)
        given: dict[str, Any] = {"spatial": PLACE, "backend": LocalProvider(tmp_path)}
    else:
        write(tmp_path / "scene.tif", list(values.values()))
        with rasterio.open(tmp_path / "scene.tif", "r+") as file:
            file.descriptions = list(values)
        given = {"imagery": tmp_path / "scene.tif"}
    said = looked_at(**given).meta["warnings"]
    assert any("B4 is red; if they are" in text and "PlanetScope" in text for text in said)


DATES: dict[str, tuple[str, dict[str, str], str, str | None]] = {
    "the name, not when it was written": (
        "S2_20220704.tif",
        {"TIFFTAG_DATETIME": "2024:01:31 08:00:00"},
        "2022-07-04",
        "of 2022-07-04, as its name says; TIFFTAG_DATETIME says 2024-01-31",
    ),
    "written on the day": (
        "S2_20220704.tif",
        {"TIFFTAG_DATETIME": "2022:07:04 08:00:00"},
        "2022-07-04",
        None,
    ),
    "metadata, not the name": (
        "S2_20220704.tif",
        {"datetime": "2022-07-03T10:00:00Z"},
        "2022-07-03",
        "as its metadata says; its name says 2022-07-04",
    ),
    "nothing but when it was written": (
        "scene.tif",
        {"TIFFTAG_DATETIME": "2024:01:31 08:00:00"},
        "2024-01-31",
        "no date but TIFFTAG_DATETIME, which is when the file was written",
    ),
    "a day of the year": ("x_2023227T100559.tif", {}, "2023-08-15", None),
    "a number that is no date": ("x_20231399_2023-08-15.tif", {}, "2023-08-15", None),
}


@pytest.mark.parametrize("door", ["provider", "imagery"])
@pytest.mark.parametrize(("name", "tags", "day", "doubt"), DATES.values(), ids=DATES)
def test_a_file_is_dated_by_one_rule(
    door: str, name: str, tags: dict[str, str], day: str, doubt: str | None, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(path, [RED, GREEN, BLUE], tags=tags)
    given: dict[str, Any] = {"imagery": path}
    if door == "provider":
        period = TemporalSpec.range("2020-01-01", "2025-01-01")
        given = {"spatial": PLACE, "backend": LocalProvider(path), "temporal": period}
    seen = looked_at(**given)
    assert [moment[:10] for moment in seen.meta["source"]["acquired"]] == [day, day]
    said = [text for text in seen.meta["warnings"] if "taken for" in text]
    assert len(said) == (doubt is not None)
    assert doubt is None or doubt in said[0]


def test_a_map_of_a_file_has_its_date(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "valley_20220704.tif"
    write(path, [RED, GREEN, BLUE])
    with rasterio.open(path, "r+") as file:
        file.write(rng.integers(500, 3000, (3, 128, 128)).astype("uint16"))
    common: dict[str, Any] = {
        "imagery": path, "variant": "tiny", "display": "visual", "progress": False, "tile_size": 64
    }  # fmt: skip
    embed_area("scalemae", output=tmp_path / "a.tif", **common)
    item = json.loads((tmp_path / "a.tif.json").read_text())
    assert item["properties"]["datetime"] == "2022-07-04T00:00:00Z"
    with pytest.warns(UserWarning, match="acquired=2021-01-01 was taken as stated, .* 2022-07-04"):
        embed_area("scalemae", output=tmp_path / "b.tif", acquired="2021-01-01", **common)
    item = json.loads((tmp_path / "b.tif.json").read_text())
    assert item["properties"]["datetime"] == "2021-01-01T00:00:00Z"


def test_an_item_that_links_to_the_web_is_read_from_the_files_beside_it(tmp_path: Path) -> None:
    assets = {}
    for name, value in SENTINEL.items():
        write(tmp_path / f"{name} 1.tif", value)
        url = f"https://example.com/collection/{name}%201.tif?signature=secret"
        assets[name] = {"href": url, "roles": ["data"], "eo:bands": [{"name": name}]}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "mirrored", "links": [],
        "bbox": [LON - 0.02, LAT - 0.02, LON + 0.02, LAT + 0.02],
        "geometry": {"type": "Point", "coordinates": [LON, LAT]},
        "properties": {"datetime": "2023-08-15T10:00:00Z", "eo:cloud_cover": 1}, "assets": assets,
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item))
    period = TemporalSpec.range("2023-08-01", "2023-09-01")
    for root in (tmp_path, tmp_path / "item.json"):
        seen = looked_at(
            spatial=PLACE, temporal=period, backend=LocalProvider(root),
            )  # fmt: skip
        (listed,) = seen.meta["source"]["items"]
        assert listed["files"] == ["B04 1.tif", "B03 1.tif", "B02 1.tif"]
        assert "beside the item" in listed["files_from"]
        assert seen.raw["B4"]["median"] == RED


def test_joined_bands_are_dated_by_their_metadata_before_names(tmp_path: Path) -> None:
    tags = {"ACQUISITIONDATETIME": "2023-08-15T10:00:00Z"}
    bands(tmp_path / "download_20240101", "{}.tif", SENTINEL, tags=tags)
    (scene,) = found(tmp_path)
    assert scene.acquired is not None
    assert scene.acquired.isoformat() == "2023-08-15T10:00:00+00:00"
    (note,) = scene.notes
    assert "as its metadata says; its name says 2024-01-01" in note
