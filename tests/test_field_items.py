"""STAC Items as catalogues have them: what they state is believed, or told.

Each situation is a row: what is put into an otherwise plain Item, and what is right by the STAC
specifications and extensions.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from rs_embed import LocalProvider, PointBuffer, SensorSpec, TemporalSpec, embed_area, inspect_input
from rs_embed.addresses import linked_path
from rs_embed.embedding.inspection import Inspection
from rs_embed.providers.scenes.scene import scene_from_item

LON, LAT = Transformer.from_crs(32633, 4326, always_xy=True).transform(400320, 5199680)
PLACE = PointBuffer(LON, LAT, 300)
PERIOD = TemporalSpec.range("2023-06-01", "2023-09-01")
RGB = ["B4", "B3", "B2"]
Item = dict[str, Any]


def picture(seed: int = 0, low: int = 500, high: int = 3000, count: int = 3) -> Any:
    return np.random.default_rng(seed).integers(low, high, (count, 64, 64)).astype("uint16")


def write(path: Path, data: Any, **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w",
        **{"driver": "GTiff", "count": len(data), "height": 64, "width": 64, "dtype": data.dtype,
           "crs": "EPSG:32633", "transform": Affine(10, 0, 4e5, 0, -10, 52e5), **profile},
    ) as file:  # fmt: skip
        file.write(data)
    return path


def item_of(href: str, name: str = "one", **properties: Any) -> dict[str, Any]:
    """Return an Item with one asset of three bands."""
    box = [LON - 0.02, LAT - 0.02, LON + 0.02, LAT + 0.02]
    bands = [{"name": band} for band in RGB]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "bbox": box, "links": [],
        "geometry": {"type": "Point", "coordinates": [LON, LAT]},
        "properties": {"datetime": "2023-07-01T10:00:00Z", "eo:cloud_cover": 1, **properties},
        "assets": {"sr": {"href": href, "roles": ["data"], "eo:bands": bands}},
    }  # fmt: skip


def looked_at(root: Path, items: list[Item], bands: tuple[str, ...] = ()) -> Inspection:
    """Return what a model would see; warnings are looked at in ``meta``."""
    (root / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", bands) if bands else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return inspect_input(
            "scalemae", spatial=PLACE, temporal=PERIOD, backend=LocalProvider(root / "items.json"),
            sensor=sensor, variant="tiny", display="visual",
        )  # fmt: skip


def stac_1_0(value: object) -> Callable[[Item], None]:
    def put(item: Item) -> None:
        item["assets"]["sr"]["raster:bands"] = [{"nodata": value}] * 3

    return put


def stac_1_1(value: object) -> Callable[[Item], None]:
    def put(item: Item) -> None:
        item["stac_version"] = "1.1.0"
        asset = item["assets"]["sr"]
        del asset["eo:bands"]
        asset["bands"] = [{"name": band, "nodata": value} for band in RGB]

    return put


def of_asset(item: Item) -> None:
    item["stac_version"] = "1.1.0"
    item["assets"]["sr"]["nodata"] = 7


# How an Item states nodata -> the value, and the type of the file, which states none.
NODATA: dict[str, tuple[Callable[[Item], None], float, str]] = {
    "raster extension": (stac_1_0(7), 7, "uint16"),
    "raster extension, 8-bit": (stac_1_0(255), 255, "uint8"),
    "STAC 1.1, bands": (stac_1_1(7), 7, "uint16"),
    "STAC 1.1, asset": (of_asset, 7, "uint16"),
    "as text": (stac_1_0("nan"), np.nan, "float32"),
}


@pytest.mark.parametrize(("put", "value", "dtype"), NODATA.values(), ids=NODATA)
def test_nodata_that_only_the_item_states_counts(
    put: Callable[[Item], None], value: float, dtype: str, tmp_path: Path
) -> None:
    data = picture(low=1, high=250 if dtype == "uint8" else 3000).astype(dtype)
    data[:, :32] = value
    item = item_of(str(write(tmp_path / "a.tif", data)))
    if dtype == "uint8":
        item["assets"]["sr"]["raster:bands"] = [{"scale": 1 / 255}] * 3
        put_before = item["assets"]["sr"]["raster:bands"]
        put(item)
        stated = item["assets"]["sr"]["raster:bands"]
        item["assets"]["sr"]["raster:bands"] = [
            a | b for a, b in zip(put_before, stated, strict=True)
        ]
    else:
        put(item)
    assert looked_at(tmp_path, [item]).meta["valid_fraction"] == pytest.approx(0.5, abs=0.04)


def test_nodata_of_the_file_counts_before_that_of_its_item(tmp_path: Path) -> None:
    data = picture()
    data[:, :32] = 9
    item = item_of(str(write(tmp_path / "a.tif", data, nodata=9)))
    stac_1_0(7)(item)
    seen = looked_at(tmp_path, [item])
    assert seen.meta["valid_fraction"] == pytest.approx(0.5, abs=0.04)
    assert any("states nodata 7, but the file 9" in text for text in seen.meta["warnings"])


def test_an_item_that_is_listed_again_counts_once(tmp_path: Path) -> None:
    base = picture()
    one = item_of(str(write(tmp_path / "a.tif", base)), "A")
    two = item_of(str(write(tmp_path / "b.tif", base + np.uint16(1000))), "B")
    right = looked_at(tmp_path, [one, two])
    mirrored = {**one, "collection": "mirror"}
    for items in ([one, one, two], [one, two, mirrored]):
        seen = looked_at(tmp_path, items)
        assert seen.raw["B4"]["median"] == right.raw["B4"]["median"]
        assert seen.meta["source"]["image_count"] == 2
    # The same id for other files is another item.
    other = item_of(two["assets"]["sr"]["href"], "A")
    assert looked_at(tmp_path, [one, other]).meta["source"]["image_count"] == 2


def test_common_names_come_before_keys(tmp_path: Path) -> None:
    """Landsat 5: its B4 is near infrared, its B3 red."""
    values = {"B1": ("blue", 800), "B2": ("green", 900), "B3": ("red", 1000), "B4": ("nir08", 3000)}
    item = item_of("none")
    item["assets"] = {}
    for key, (common, value) in values.items():
        data = picture(low=value, high=value + 100, count=1)
        item["assets"][key] = {
            "href": str(write(tmp_path / f"{key}.tif", data)), "roles": ["data"],
            "eo:bands": [{"name": key, "common_name": common}],
        }  # fmt: skip
    by_default = looked_at(tmp_path, [item])
    assert [by_default.raw[band]["median"] // 100 for band in RGB] == [10, 9, 8]
    assert any("taken by the common names" in text for text in by_default.meta["warnings"])
    by_name = looked_at(tmp_path, [item], ("red", "green", "blue"))
    assert [by_name.raw[band]["median"] // 100 for band in ("red", "green", "blue")] == [10, 9, 8]
    assert looked_at(tmp_path, [item], ("nir08", "red", "green")).raw["nir08"]["median"] >= 3000


# Properties -> how the offset is treated, for pixels with dark ones (below 1000) or without.
BASELINES: dict[str, tuple[dict[str, Any], bool, str, str | None]] = {
    "with offset": ({"s2:processing_baseline": "05.10"}, False, "1000 subtracted", None),
    "with offset, but it is off": (
        {"s2:processing_baseline": "05.10"}, True, "1000 subtracted",
        r"of 1 scenes \(one\) a baseline with offset is stated.*more than 1 % .* below 1000",
    ),
    "off": (
        {"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": True}, True,
        "already applied", None,
    ),
    "off, stated as text": (
        {"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": "true"}, True,
        "already applied", None,
    ),
    "stated to be off, but it is not": (
        {"s2:processing_baseline": "05.10", "earthsearch:boa_offset_applied": True}, False,
        "already applied", r"of 1 scenes \(one\) the offset is stated to be subtracted already",
    ),
    "a baseline that says nothing": (
        {"s2:processing_baseline": "99.99"}, False, "1000 subtracted (judged",
        "do not state reliably",
    ),
    "a baseline that says nothing, off": (
        {"s2:processing_baseline": "99.99"}, True, "already applied (judged",
        "do not state reliably",
    ),
    "N9999 in the name": (
        {"s2:product_uri": "S2B_MSIL2A_20230701T100559_N9999_R022_T33TVN_20230815T130000.SAFE"},
        False, "1000 subtracted (judged", "do not state reliably",
    ),
    "Earth Search v0": ({"sentinel:processing_baseline": "05.10"}, False, "1000 subtracted", None),
    "Earth Search v0, off": (
        {"sentinel:processing_baseline": "05.10", "sentinel:boa_offset_applied": True}, True,
        "already applied", None,
    ),
    "processing extension": (
        {"processing:version": "05.11", "platform": "sentinel-2a"}, False, "1000 subtracted", None
    ),
    "version of other software": (
        {"processing:version": "5.11", "platform": "landsat-9"}, False, "as declared", None
    ),
    "version that is no baseline": (
        {"processing:version": "v2.1-rc1", "platform": "sentinel-2a"}, False, "as declared", None
    ),
    "version of Sentinel-2's older software": (
        {"processing:version": "5.1", "platform": "sentinel-2a"}, False, "as declared", None
    ),
    "before the offset": ({"s2:processing_baseline": "03.01"}, True, "none before", None),
}  # fmt: skip


@pytest.mark.parametrize(
    ("properties", "dark", "treated", "told"), BASELINES.values(), ids=BASELINES
)
def test_the_offset_of_sentinel_2(
    properties: dict[str, Any], dark: bool, treated: str, told: str | None, tmp_path: Path
) -> None:
    import re

    data = picture(low=300 if dark else 1100)
    item = item_of(str(write(tmp_path / "a.tif", data)), **properties)
    seen = looked_at(tmp_path, [item])
    (scene,) = seen.meta["source"]["items"]
    assert scene["offset"].startswith(treated)
    about = [text for text in seen.meta["warnings"] if "offset" in text]
    assert len(about) == (told is not None)
    assert told is None or re.search(told, about[0])


@pytest.mark.parametrize("stated", [float("nan"), "NaN", -1, None], ids=str)
def test_cloud_cover_that_is_no_percentage_is_unknown(stated: object, tmp_path: Path) -> None:
    properties: dict[str, Any] = {"eo:cloud_cover": stated}
    item = item_of("https://example.com/a.tif", **properties)
    assert scene_from_item(pystac.Item.from_dict(item)).cloud_pct is None


HREFS: dict[str, tuple[str, str]] = {
    "a blank": ("a b.tif", "a b.tif"),
    "a blank, encoded": ("a b.tif", "a%20b.tif"),
    "a number sign, encoded": ("a#1.tif", "./a%231.tif"),
    "a number sign": ("a#1.tif", "a#1.tif"),
    "letters": ("größe.tif", "gr%C3%B6%C3%9Fe.tif"),
    "letters, not encoded": ("größe.tif", "größe.tif"),
    "a percent sign": ("100%25.tif", "100%25.tif"),
}


@pytest.mark.parametrize(
    ("document", "href", "url"),
    [
        ("s3://bucket/a/item.json", "./b.tif", "s3://bucket/a/b.tif"),
        ("s3://bucket/a/item.json", "../b c.tif", "s3://bucket/b%20c.tif"),
        ("gs://bucket/a/item.json", "/b.tif", "gs://bucket/b.tif"),
        ("s3://bucket/item.json", "https://host/b.tif", "https://host/b.tif"),
        ("https://host/item.json", "s3://bucket/b.tif", "s3://bucket/b.tif"),
    ],
)
def test_hrefs_below_buckets(document: str, href: str, url: str) -> None:
    assert linked_path(href, document) == url


@pytest.mark.parametrize(("name", "href"), HREFS.values(), ids=HREFS)
@pytest.mark.parametrize("kind", ["item", "catalogue", "file URL", "number sign above"])
def test_hrefs_lead_to_files_encoded_or_not(
    kind: str, name: str, href: str, tmp_path: Path
) -> None:
    if kind == "number sign above":
        tmp_path /= "of #1"
    path = write(tmp_path / "of march" / name, picture())
    item = item_of(path.as_uri() if kind == "file URL" else href)
    (tmp_path / "of march" / "an item.json").write_text(json.dumps(item))
    root = tmp_path / "of march" / "an item.json"
    if kind in ("catalogue", "number sign above"):
        root = tmp_path / "catalog.json"
        link = {"rel": "item", "href": "./of%20march/an%20item.json"}
        root.write_text(json.dumps(
            {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c",
             "links": [link]}
        ))  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        seen = inspect_input(
            "scalemae", spatial=PLACE, temporal=PERIOD, backend=LocalProvider(root),
            variant="tiny", display="visual",
        )  # fmt: skip
    assert seen.meta["source"]["image_count"] == 1


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")
def test_the_links_of_an_item_of_a_map_are_encoded_and_lead_to_it(tmp_path: Path) -> None:
    path = write(tmp_path / "valley #1 20230701.tif", picture())
    output = tmp_path / "map of #1.tif"
    embed_area(
        "scalemae", imagery=path, output=output, variant="tiny", display="visual", tile_size=64,
        progress=False,
    )  # fmt: skip
    item = pystac.Item.from_dict(json.loads(Path(f"{output}.json").read_text()))
    hrefs = [asset.href for asset in item.assets.values()] + [link.href for link in item.links]
    assert "./map%20of%20%231.tif" in hrefs
    assert not any(" " in href or "#" in href for href in hrefs if isinstance(href, str))


def test_a_common_name_of_the_asset_counts_and_pictures_do_not_win(tmp_path: Path) -> None:
    item = item_of("none")
    item["assets"] = {}
    for key, common, value in (("B3", "red", 1000), ("B2", "green", 900), ("B1", "blue", 800)):
        data = picture(low=value, high=value + 100, count=1)
        href = str(write(tmp_path / f"{key}.tif", data))
        item["assets"][key] = {"href": href, "roles": ["data"], "eo:common_name": common}
    seen = looked_at(tmp_path, [item], ("red", "green", "blue"))
    assert [seen.raw[band]["median"] // 100 for band in ("red", "green", "blue")] == [10, 9, 8]
    for key, new in (("B3", "B04"), ("B2", "B03"), ("B1", "B02")):
        asset = item["assets"].pop(key)
        del asset["eo:common_name"]
        item["assets"][new] = asset
    href = str(write(tmp_path / "tci.tif", picture(low=1, high=90).astype("uint8")))
    names = [{"common_name": name} for name in ("red", "green", "blue")]
    item["assets"]["TCI_10m"] = {"href": href, "roles": ["data"], "eo:bands": names}
    seen = looked_at(tmp_path, [item])
    assert [seen.raw[band]["median"] // 100 for band in RGB] == [10, 9, 8]
