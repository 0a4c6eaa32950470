"""What maps say of the imagery and the model that they came from, on the way of each source."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ee
import numpy as np
import pystac
import pytest
import torch
from affine import Affine
from google.oauth2.credentials import Credentials
from pyproj import CRS
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from rs_embed import (
    LocalProvider,
    PointBuffer,
    Raster,
    StacProvider,
    embed_area,
)
from rs_embed.embedding.provenance import artifact_type, input_bands, source_addresses
from rs_embed.geo.grid import Grid
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.writing import write_map
from rs_embed.providers.earth_engine.provider import EarthEngineProvider
from rs_embed.testing.providers import JUNE, NORTH, write_contract_scenes
from tests.conftest import small_network
from tests.earth_engine_server import contract_service, serve
from tests.stac_server import StacServer

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.RsEmbedWarning")

SAMPLE_PLACE = PointBuffer(lon=-75.6156, lat=37.6942, buffer_m=400)


@pytest.fixture
def made(checkpoint: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Return a function that maps an area, and returns the STAC item and Zarr attributes of it."""

    def make(**asked: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        options = {"weights": str(checkpoint), "image_size": 64, "acquired": "2021-06-17", **asked}
        if options["acquired"] is None:
            del options["acquired"]
        out = tmp_path / "map.zarr"
        embed_area("scalemae", output=out, **options)
        item = json.loads(out.with_name("map.zarr.json").read_text())
        schemas = JsonSchemaSTACValidator()
        schemas.validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
        return item, json.loads((out / "zarr.json").read_text())["attributes"]

    return make


def sources(item: dict[str, Any]) -> list[str]:
    return [link["href"] for link in item["links"] if link["rel"] == "emb:source-data"]


def test_the_sample_scene_is_no_surface_reflectance(made: Callable[..., Any]) -> None:
    item, attributes = made(backend="sample", spatial=SAMPLE_PLACE)
    assert sources(item) == ["urn:rs-embed:imagery:rs_embed%2Fdata%2Fsample_s2.tif"]
    assert attributes["geoemb:source_data"] == sources(item)
    (title,) = [link["title"] for link in item["links"] if link["rel"] == "emb:source-data"]
    assert title.startswith("Sentinel-2 L1C (top of atmosphere)")


@pytest.mark.parametrize("way", ["imagery", "file", "folder"])
def test_files_are_linked(
    made: Callable[..., Any], write_scene: Callable[..., Path], way: str
) -> None:
    pixels = np.random.default_rng(3).integers(500, 4000, (3, 80, 96), np.uint16)
    scene = write_scene(pixels, name="sc ene.tif")
    if way == "imagery":
        item, attributes = made(imagery=scene)
    else:
        place = PointBuffer(lon=13.6985, lat=46.9441, buffer_m=300)
        backend = LocalProvider(scene if way == "file" else scene.parent)
        item, attributes = made(backend=backend, spatial=place)
    assert sources(item) == [scene.as_uri()] == attributes["geoemb:source_data"]
    assert "%20" in scene.as_uri()
    assert item["properties"]["mlm:input"][0]["bands"] == ["B4", "B3", "B2"]
    # The MLM schema wants a description of every band that is named there.
    for described in (item["properties"], item["assets"]["model"]):
        assert [band["name"] for band in described["bands"]] == ["B4", "B3", "B2"]
    assert "bands" not in item["assets"]["embeddings"]


def test_a_relative_path_is_linked_from_the_root(
    made: Callable[..., Any], write_scene: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_scene(np.full((3, 80, 96), 900, np.uint16) + np.arange(96, dtype=np.uint16))
    monkeypatch.chdir(scene.parent)
    item, _ = made(imagery=scene.name)
    assert sources(item) == [scene.as_uri()]


def test_pixels_without_a_file_are_unstated(
    made: Callable[..., Any], write_scene: Callable[..., Path]
) -> None:
    pixels = np.random.default_rng(3).integers(500, 4000, (3, 80, 96), np.uint16)
    place = Affine(10, 0, 400000, 0, -10, 5200000)
    raster = Raster.from_array(pixels, bands=("B4", "B3", "B2"), crs="EPSG:32633", transform=place)
    item, _ = made(imagery=raster)
    assert sources(item) == ["urn:rs-embed:imagery:unstated"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_contract_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.mark.parametrize("own_links", [True, False])
def test_items_of_a_catalogue_are_linked(
    made: Callable[..., Any], scenes: Path, own_links: bool
) -> None:
    with StacServer().running() as server:
        server.add(scenes)
        if own_links:
            for item in server.items["sentinel-2-l2a"]:
                href = f"{server.url}/collections/sentinel-2-l2a/items/{item['id']}"
                item["links"] = [{"rel": "self", "href": f"{href}?key=secret"}]
        west, south, east, north = NORTH[0].grid.geographic_bounds()
        item, attributes = made(
            backend=StacProvider(server.url, readers=2),
            spatial=PointBuffer((west + east) / 2, (south + north) / 2, 200),
            temporal=JUNE,
            acquired=None,
        )
        found = sources(item)
        assert found == attributes["geoemb:source_data"]
        assert found
        if own_links:
            start = f"{server.url}/collections/sentinel-2-l2a/items/"
            assert all(href.startswith(start) and "secret" not in href for href in found)
            derived = [link["href"] for link in item["links"] if link["rel"] == "derived_from"]
            assert derived == found
        else:
            assert all(href.startswith(f"{server.url}/files/") for href in found)


def test_images_of_earth_engine_are_linked(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The catalogue that the client would fetch from elsewhere.
    monkeypatch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)
    west, south, east, north = NORTH[0].grid.geographic_bounds()
    try:
        with serve(contract_service()) as service:
            backend = EarthEngineProvider(
                "p",
                credentials=Credentials("secret"),  # type: ignore[no-untyped-call]
                endpoint=service.url,
            )
            item, attributes = made(
                backend=backend,
                spatial=PointBuffer((west + east) / 2, (south + north) / 2, 200),
                temporal=JUNE,
                acquired=None,
            )
    finally:
        ee.Reset()
    page, *images = sources(item)
    assert page == (
        "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_SR_HARMONIZED"
    )
    assert images
    assert all(image.startswith("urn:rs-embed:item:north-") for image in images)
    assert attributes["geoemb:source_data"] == [page, *images]


def test_the_page_of_earth_engine_is_that_of_its_backend() -> None:
    page = "https://developers.google.com/earth-engine/datasets/catalog/COPERNICUS_S2_HARMONIZED"
    gee = {
        "backend": "gee",
        "sensor": {"collection": "COPERNICUS/S2_SR_HARMONIZED"},
        "source": {"collection": "COPERNICUS/S2_HARMONIZED"},
        "source_items": [{"id": "COPERNICUS/S2_HARMONIZED/20230601T1"}],
    }
    image = "urn:rs-embed:item:COPERNICUS%2FS2_HARMONIZED%2F20230601T1"
    assert source_addresses(gee) == [page, image]
    for backend in ("sample", "local", "imagery", "theirs"):
        assert source_addresses({**gee, "backend": backend, "source_items": []}) == [
            "urn:rs-embed:imagery:unstated"
        ]


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("https://example.org/a.tif", "https://example.org/a.tif"),
        ("s3://bucket/a.tif", "s3://bucket/a.tif"),
        ("/vsicurl/https://example.org/a.tif", "https://example.org/a.tif"),
        ("/vsizip/a.zip/a.tif", "urn:rs-embed:imagery:%2Fvsizip%2Fa.zip%2Fa.tif"),
        ("/data/a b.tif", "file:///data/a%20b.tif"),
    ],
)
def test_addresses_of_files(path: str, address: str) -> None:
    assert source_addresses({"backend": "imagery", "source": {"path": path}}) == [address]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("model.safetensors", "safetensors.torch.save_file"), ("model.pth", "torch.save")],
)
def test_the_kind_of_the_weights_file(
    made: Callable[..., Any], checkpoint: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Also where a folder, not the file, is named as weights."""
    folder = checkpoint
    if name == "model.pth":
        folder = tmp_path / "weights"
        folder.mkdir()
        torch.save({"model": small_network().state_dict()}, folder / name)
        (folder / "config.json").write_text((checkpoint / "config.json").read_text())
    item, _ = made(backend="sample", spatial=SAMPLE_PLACE, weights=str(folder))
    assert item["assets"]["model"]["mlm:artifact_type"] == kind
    parameters = item["properties"]["emb:runtime_parameters"]
    assert parameters["weights_file"] == name


def test_kinds_that_no_run_shows() -> None:
    assert artifact_type({"weights": "runs/last.safetensors"}) == "safetensors.torch.save_file"
    assert artifact_type({"weights": "a/b", "weights_file": "pytorch_model.bin"}) == "torch.save"
    assert artifact_type({"weights": "random"}) == "unstated"


def test_bands_are_those_of_the_sensor_or_the_model() -> None:
    assert input_bands({"model": "m", "sensor": {"bands": ["red", "green"]}}) == ["red", "green"]
    assert input_bands({"model": "scalemae", "sensor": None}) == ["B4", "B3", "B2"]
    assert input_bands({"model": "m"}) == []


TWELVE_BANDS = """
    from dataclasses import replace
    from rs_embed.models.scalemae.description import DESCRIPTION

    BANDS = tuple(f"B{number}" for number in range(1, 13))

    class Twelve:
        def __init__(self, **changed):
            inputs = replace(DESCRIPTION.inputs, **changed)
            self.description = replace(
                DESCRIPTION, id="twelve", aliases=(), family="TwelveNet", inputs=inputs
            )

        def plan(self, options, *, device, settings):
            raise NotImplementedError

    PLAIN = Twelve(bands=BANDS, mean=(), std=())
    NORMALISED = Twelve(bands=BANDS, mean=(0.5,) * 12, std=(0.25,) * 12)
    COLOURS = Twelve(bands=("red", "green", "blue"), mean=(), std=())
    SWAPPED = Twelve(bands=("blue", "green", "red"), mean=(), std=())
"""


@pytest.mark.parametrize(
    ("model", "name", "count", "scaling"),
    [
        ("PLAIN", "pixels", 12, None),
        ("NORMALISED", "pixels", 12, [{"type": "z-score", "mean": 0.5, "stddev": 0.25}] * 12),
        ("COLOURS", "RGB", 3, None),
        ("SWAPPED", "pixels", 3, None),
    ],
)
def test_the_item_describes_any_model(
    install: Callable[..., Path], tmp_path: Path, model: str, name: str, count: int, scaling: Any
) -> None:
    module = f"bands_{model.lower()}"  # a module is imported once
    install(module, f"[rs_embed.models]\ntwelve = {module}:{model}\n", **{module: TWELVE_BANDS})
    grid = Grid(CRS.from_epsg(32633), Affine(160, 0, 5e5, 0, -160, 5e6), (2, 3))
    meta = {"model": "twelve", "sensor": None, "used_patch_size": 4}
    content = MapContent(grid, 5, lambda _: iter([np.ones((2, 3, 5), np.float32)]), meta)
    when = datetime(2024, 6, 3, tzinfo=UTC)
    done = write_map(tmp_path / "map.zarr", content, when=when)
    assert done.item is not None
    item = json.loads(done.item.read_text())
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    properties = item["properties"]
    (described,) = properties["mlm:input"]
    bands = [band["name"] for band in properties["bands"]]
    assert described["name"] == name
    assert described["bands"] == bands
    assert len(bands) == count
    assert described["input"]["shape"] == [-1, count, -1, -1]
    assert described["value_scaling"] == scaling
    assert properties["mlm:architecture"] == "TwelveNet"
    assert "mlm:framework" not in properties


def test_the_item_of_scalemae_stays_as_it_is(made: Callable[..., Any]) -> None:
    item, _ = made(backend="sample", spatial=SAMPLE_PLACE)
    properties = item["properties"]
    assert properties["mlm:architecture"] == "Vision Transformer"
    assert properties["mlm:framework"] == "PyTorch"
    assert properties["mlm:input"] == [
        {
            "name": "RGB",
            "bands": ["B4", "B3", "B2"],
            "input": {
                "shape": [-1, 3, -1, -1],
                "dim_order": ["batch", "channel", "height", "width"],
                "data_type": "float32",
            },
            "value_scaling": [
                {"type": "z-score", "mean": mean, "stddev": std}
                for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
            ],
        }
    ]


def test_a_model_that_is_not_installed_is_described_as_unknown(tmp_path: Path) -> None:
    grid = Grid(CRS.from_epsg(32633), Affine(160, 0, 5e5, 0, -160, 5e6), (2, 3))
    content = MapContent(
        grid, 5, lambda _: iter([np.ones((2, 3, 5), np.float32)]), {"model": "gone"}
    )
    done = write_map(tmp_path / "map.tif", content, when=datetime(2024, 6, 3, tzinfo=UTC))
    assert done.item is not None
    properties = json.loads(done.item.read_text())["properties"]
    assert properties["mlm:architecture"] == "unknown"
    (described,) = properties["mlm:input"]
    assert (described["name"], described["bands"]) == ("pixels", [])
    assert described["input"]["shape"] == [-1, -1, -1, -1]
    assert described["value_scaling"] is None
