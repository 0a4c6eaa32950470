"""Earth Engine, by its real client: the contract, the requests, and what goes wrong."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import ee
import ee.deprecation
import numpy as np
import pytest
import rasterio
import rasterio.warp
from affine import Affine
from google.oauth2.credentials import Credentials
from pyproj import CRS

from rs_embed import BBox, FetchSpec, PointBuffer, TemporalSpec, get_embedding, inspect_input
from rs_embed.errors import (
    CoverageWarning,
    ProviderError,
    RsEmbedError,
    SpecError,
    UnknownNameError,
)
from rs_embed.geo.grid import Grid, known_crs, roi_grid
from rs_embed.geo.raster import Raster
from rs_embed.network.retrying import Patience
from rs_embed.providers.base import Provider
from rs_embed.providers.earth_engine.provider import EarthEngineProvider
from rs_embed.specs import SensorSpec
from rs_embed.testing.providers import JUNE, NORTH, SENSOR, STEPS, ProviderContract
from tests.conftest import python_environment
from tests.earth_engine_server import (
    S2,
    SCORES,
    Asked,
    Fault,
    Lattice,
    Service,
    ServiceError,
    Stored,
    contract_service,
    serve,
    stored,
)
from tests.processes import completed

QUICK = Patience(attempts=5, wait_initial_s=0.001, wait_max_s=0.01)
SECRET = "ya29.secret"  # noqa: S105
CREDENTIALS = Credentials(SECRET)  # type: ignore[no-untyped-call]
SMALL = NORTH[0].grid.window(10, 30, 40, 70)
LANDSAT = "LANDSAT/LC09/C02/T1_L2"


@pytest.fixture(scope="module")
def shared_service() -> Iterator[Service]:
    with serve(contract_service()) as service:
        yield service


@pytest.fixture(scope="module")
def client(shared_service: Service) -> Iterator[None]:
    """The client for the module, without the catalogue that it would fetch from elsewhere."""
    patch = pytest.MonkeyPatch()
    patch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)
    yield
    ee.Reset()
    patch.undo()


@pytest.fixture
def service(shared_service: Service, client: None) -> Iterator[Service]:
    """The service of the module, behaving well, with nothing asked so far."""
    before = dict(shared_service.collections)
    provider_of(shared_service).status(online=True)  # initialised: that is not counted
    shared_service.asked.clear()
    shared_service.peak = 0
    yield shared_service
    shared_service.collections = before
    shared_service.faults.clear()
    shared_service.refusal = None
    shared_service.latency_s = 0
    shared_service.faulty_share = 0
    shared_service.memory_px = 10**9


@pytest.fixture
def fresh(service: Service) -> Iterator[Service]:
    """The service, and a client that is not initialised."""
    ee.Reset()
    yield service
    ee.Reset()


def provider_of(service: Service, **options: Any) -> EarthEngineProvider:
    given = {"credentials": CREDENTIALS, "endpoint": service.url, "patience": QUICK, **options}
    return EarthEngineProvider("p", **given)


def fetch(
    service: Service,
    grid: Grid = SMALL,
    period: TemporalSpec = JUNE,
    provider: EarthEngineProvider | None = None,
    **changes: Any,
) -> Raster:
    sensor = replace(SENSOR, **changes)
    return (provider or provider_of(service)).fetch(grid, temporal=period, sensor=sensor)


def asked_pixels(service: Service) -> list[Asked]:
    return service.of("image:computePixels")


class TestEarthEngineProvider(ProviderContract):
    @pytest.fixture
    def provider(self, shared_service: Service, client: None) -> Provider:
        return provider_of(shared_service)


# What is asked


@pytest.mark.parametrize(
    ("place", "crs"),
    [
        (PointBuffer(15.003, 46.952, 320), "EPSG:32633"),
        (PointBuffer(39.28, -7.86, 320), "EPSG:32737"),
        (PointBuffer(25.0, 60.1, 333), "EPSG:32635"),
        (PointBuffer(11.9999, 47.0, 320), "EPSG:32632"),
        (PointBuffer(12.0001, 47.0, 320), "EPSG:32633"),
        (PointBuffer(179.9999, -16.5, 320), "EPSG:32760"),
        (BBox(-70.001, -33.002, -69.996, -32.997), "EPSG:32719"),
    ],
)
@pytest.mark.parametrize("scale_m", [10, 13.7])
def test_the_grid_on_the_wire(service: Service, place: Any, crs: str, scale_m: float) -> None:
    grid = roi_grid(place, scale_m)
    covering(service, grid)
    assert fetch(service, grid).grid == grid
    (one,) = asked_pixels(service)
    sent = one.body["grid"]
    assert sent["crsCode"] == crs
    assert sent["dimensions"] == {"width": grid.shape[1], "height": grid.shape[0]}
    names = ("scaleX", "shearX", "translateX", "shearY", "scaleY", "translateY")
    assert [sent["affineTransform"][name] for name in names] == list(grid.transform)[:6]
    assert sent["affineTransform"]["scaleX"] == scale_m


def covering(service: Service, grid: Grid, collection: str = S2, value: int = 700) -> None:
    """Let the service have one image, of one value, that covers the grid."""
    assert grid.crs is not None
    around = grid.enlarged(grid.shape[0] + 20, grid.shape[1] + 20)
    lattice = Lattice(CRS.from_user_input(grid.crs), around.transform, around.shape)
    pixels = {band: np.full(around.shape, value, np.uint16) for band in ("B4", "B3", "B2")}
    said = {
        "system:time_start": datetime(2023, 6, 2, tzinfo=UTC).timestamp() * 1000,
        "CLOUDY_PIXEL_PERCENTAGE": 3.0,
        "MGRS_TILE": (lattice.crs.utm_zone or "")[:-1],
    }
    image = Stored("covering", said, pixels, np.ones(around.shape, bool), lattice)
    service.collections = {**service.collections, collection: [image]}


@pytest.mark.parametrize(("lat", "method"), [(86.2, 90), (-85.0, -90)])
def test_a_polar_grid_is_sent_as_wkt(service: Service, lat: float, method: int) -> None:
    grid = roi_grid(PointBuffer(40, lat, 320), 10)
    covering(service, grid)
    assert fetch(service, grid).valid.all()
    (one,) = asked_pixels(service)
    assert "crsCode" not in one.body["grid"]
    sent = CRS.from_wkt(one.body["grid"]["crsWkt"])
    here = rasterio.warp.transform("EPSG:4326", sent.to_wkt(), [40], [lat])
    there = rasterio.warp.transform("EPSG:4326", grid.crs.to_wkt() if grid.crs else "", [40], [lat])
    assert np.allclose(here, there, atol=1e-6, rtol=0)


def test_two_boxes_across_the_antimeridian(service: Service) -> None:
    grid = roi_grid(PointBuffer(179.9999, -16.5, 320), 10)
    covering(service, grid)
    with pytest.raises(ProviderError, match="0 images touch the place"):
        fetch(service, grid.window(0, 5000, 64, 64))
    fetch(service, grid)
    text = json.dumps(service.of("value:compute")[-1].body)
    assert text.count("GeometryConstructors.Rectangle") == 2


def test_requests_are_few_and_tagged(service: Service) -> None:
    fetch(service)
    assert sorted(one.path for one in service.asked) == [
        "/v1/projects/p/image:computePixels",
        "/v1/projects/p/value:compute",
    ]
    assert {one.body["workloadTag"] for one in service.asked} == {"rs-embed"}
    (pixels,) = asked_pixels(service)
    assert pixels.body["fileFormat"] == "NPY"
    text = json.dumps(pixels.body["expression"])
    assert '"Filter.lessThan"' not in text  # cloudy_pct=100 is no filter
    fetch(service, cloudy_pct=30)
    text = json.dumps(asked_pixels(service)[-1].body["expression"])
    assert '"leftField": {"constantValue": "CLOUDY_PIXEL_PERCENTAGE"}' in text
    assert '"rightValue": {"constantValue": 30}' in text


def test_provenance(service: Service) -> None:
    raster = fetch(service, cloudy_pct=30)
    assert raster.source == {
        "collection": S2,
        "endpoint": service.url,
        "composite": "median",
        "cloud_mask": None,
        "resampling": ["none"],
        "items": [
            {
                "id": "north-1", "acquired": "2023-06-01T00:00:00+00:00", "cloud_pct": 5,
                "baseline": "05.09",
            },
            {
                "id": "north-2", "acquired": "2023-06-11T23:59:00+00:00", "cloud_pct": 20,
                "baseline": "05.09",
            },
        ],
        "items_not_listed": 0,
        "image_count": 2,
        "acquired": ["2023-06-01T00:00:00+00:00", "2023-06-11T23:59:00+00:00"],
        "counts": {"images": 2, "resampled": 0},
    }  # fmt: skip
    assert raster.reflectance == (1e-4, 0.0)
    assert raster.data.dtype == np.float32
    assert raster.notes == ()


def test_only_the_first_hundred_images_are_listed(service: Service) -> None:
    many = [
        stored(replace(NORTH[0], id=f"image-{n:03}", acquired=f"2023-06-05T10:{n % 60:02}:00Z"))
        for n in range(103)
    ]
    service.collections = {**service.collections, S2: many}
    source = fetch(service, SMALL.window(0, 0, 16, 16)).source
    assert len(source["items"]) == 100
    assert source["items_not_listed"] == 3
    assert source["image_count"] == 103


@pytest.mark.parametrize(
    ("grid", "resampling"),
    [
        (SMALL, ["none"]),
        (SMALL.window(0, 0, 40, 40).resized(20, 20), ["average"]),
        (SMALL.window(0, 0, 40, 40).resized(27, 27), ["bilinear"]),
        (replace(SMALL, transform=SMALL.transform @ Affine.translation(0.5, 0)), ["bilinear"]),
        (replace(SMALL, crs=known_crs(32632)), None),
    ],
)
def test_resampling_is_recorded(service: Service, grid: Grid, resampling: list[str] | None) -> None:
    if resampling is None:
        grid, resampling = roi_grid(PointBuffer(15.004, 46.95, 100), 10, "EPSG:32632"), ["bilinear"]
    assert fetch(service, grid).source["resampling"] == resampling


def test_both_zones_of_a_mosaic_in_order(service: Service) -> None:
    """One zone as it is, the other one resampled; the later one is on top wherever it lies."""
    from rs_embed.testing.providers import ZONES

    grid = ZONES[1].grid.window(0, 20, 60, 60)
    august = TemporalSpec.range("2023-08-01", "2023-08-02")
    raster = fetch(service, grid, august, composite="mosaic")
    assert raster.source["resampling"] == ["bilinear", "none"]
    assert raster.source["counts"] == {"images": 2, "resampled": 1}
    assert (raster.data[2] == 6 * STEPS).all()
    assert np.array_equal(raster.data, ZONES[1].pixels[:, :60, 20:80])


def test_averages_of_a_mosaic_in_order(service: Service) -> None:
    """The latest on top, though the service does not say that averages keep their time."""
    grid = NORTH[1].grid.window(20, 40, 60, 60).resized(15, 15)
    mosaic = fetch(service, grid, cloudy_pct=30, composite="mosaic")
    first, last = (
        fetch(service, grid, TemporalSpec.range(f"2023-06-{day}1", f"2023-06-{day}2"))
        for day in (0, 1)
    )
    assert last.valid.any()
    assert not np.allclose(first.data, last.data)
    assert np.array_equal(mosaic.data[:, last.valid], last.data[:, last.valid])
    only = first.valid & ~last.valid
    assert np.array_equal(mosaic.data[:, only], first.data[:, only])


def test_averages_leave_out_what_is_not_valid(service: Service) -> None:
    scene = NORTH[1]
    grid = scene.grid.window(20, 40, 60, 60).resized(15, 15)
    raster = fetch(service, grid, TemporalSpec.range("2023-06-11", "2023-06-12"))
    blocks = scene.pixels[:, 20:80, 40:100].reshape(3, 15, 4, 15, 4).astype(float)
    blocks[blocks == 0] = np.nan
    assert np.allclose(raster.data, np.nanmean(blocks, axis=(2, 4)), rtol=1e-6)


def test_coarse_grids_begin_with_a_coarser_level(service: Service) -> None:
    wide = replace(NORTH[0], shape=(420, 420))
    service.collections = {**service.collections, S2: [stored(wide)]}
    grid = Grid(known_crs(32633), Affine(2000, 0, 500000, 0, -2000, 5200000), (2, 2))
    raster = fetch(service, grid)
    assert raster.valid.all()
    assert np.allclose(raster.data[0], [[10000, 30000]] * 2)
    text = json.dumps(asked_pixels(service)[0].body)
    assert '"bestEffort": {"constantValue": true}, ' in text
    assert '"maxPixels": {"constantValue": 65536}' in text


def test_finer_grids_are_noted(service: Service) -> None:
    grid = SMALL.window(0, 0, 10, 10).resized(40, 40)
    assert fetch(service, grid).notes == (
        "imagery of 10 m was upsampled to 2.5 m; state scale_m=10",
    )


# Clouds and units


@pytest.mark.parametrize(("mask", "every"), [("scl", 5), ("cloud_score_plus", 4)])
def test_cloud_masks(service: Service, mask: Any, every: int) -> None:
    grid = NORTH[0].grid.window(0, 0, 40, 60)
    one_day = TemporalSpec.range("2023-06-01", "2023-06-02")
    raster = fetch(service, grid, one_day, cloud_mask=mask)
    expected = np.broadcast_to(np.arange(60) % every != 0, (40, 60))
    assert np.array_equal(raster.valid, expected)
    assert (raster.data[:, ~expected] == 0).all()
    assert np.array_equal(raster.data[:, expected], NORTH[0].pixels[:, :40, :60][:, expected])
    coarse = fetch(service, grid.resized(10, 15), one_day, cloud_mask=mask)
    assert coarse.valid.all()
    columns = NORTH[0].pixels[0, 0, :60].astype(float)
    columns[::every] = np.nan
    assert np.allclose(coarse.data[0, 0], np.nanmean(columns.reshape(15, 4), axis=1))


def test_an_image_without_a_cloud_score_is_left_out(service: Service) -> None:
    """The service masks the bands of what it does not find."""
    scores = [one for one in service.collections[SCORES] if one.id != "north-2"]
    service.collections = {**service.collections, SCORES: scores}
    both = fetch(service, cloudy_pct=30, cloud_mask="cloud_score_plus")
    first = fetch(service, cloudy_pct=6, cloud_mask="cloud_score_plus")
    assert (both.source["image_count"], first.source["image_count"]) == (2, 1)
    assert np.array_equal(both.data, first.data)


def test_dark_values_and_gaps_are_told_apart(service: Service) -> None:
    """A reflectance of 0 is valid where the service says so."""
    covering(service, SMALL, value=0)
    raster = fetch(service)
    assert raster.valid.all()
    assert (raster.data == 0).all()


def test_nothing_valid_is_an_error(service: Service) -> None:
    covering(service, SMALL)
    (image,) = service.collections[S2]
    service.collections = {**service.collections, S2: [replace(image, valid=image.valid & False)]}
    with pytest.raises(ProviderError, match=r"none of the 1 images .*covering.*another place"):
        fetch(service)


def landsat_image() -> Stored:
    pixels = {f"SR_B{n}": np.full((50, 50), 7300 + n, np.uint16) for n in range(1, 8)}
    own = Lattice(CRS.from_epsg(32633), Affine(30, 0, 500115, 0, -30, 5200015), (50, 50))
    said = {"system:time_start": datetime(2023, 6, 2, tzinfo=UTC).timestamp() * 1000,
            "CLOUD_COVER": 12.0}  # fmt: skip
    return Stored("LC09_1", said, pixels, np.ones((50, 50), bool), own)


def test_landsat(service: Service) -> None:
    service.collections = {**service.collections, LANDSAT: [landsat_image()]}
    grid = Grid(known_crs(32633), Affine(30, 0, 500190, 0, -30, 5199990), (20, 20))
    changes: dict[str, Any] = {
        "collection": LANDSAT,
        "bands": ("SR_B4", "sr_b3", "SR_B2"),
        "cloudy_pct": 30,
    }
    raster = fetch(service, grid, **changes)
    assert raster.reflectance == (2.75e-5, -0.2)
    assert [float(v) for v in raster.data[:, 5, 5]] == [7304, 7303, 7302]
    assert raster.source["resampling"] == ["bilinear"]
    assert raster.source["items"][0]["cloud_pct"] == 12
    with pytest.raises(ProviderError, match=r"less than 12 % cloud \(the clearest has 12 %\)"):
        fetch(service, grid, **{**changes, "cloudy_pct": 12})


def test_a_collection_that_is_not_known(service: Service) -> None:
    covering(service, SMALL, "users/me/mosaics")
    raster = fetch(service, collection="users/me/mosaics", cloudy_pct=30, reflectance_scale=1e-4)
    assert (raster.data == 700).all()
    assert raster.reflectance is None
    assert "cloudy_pct=30 was not applied" in raster.notes[1]
    assert "resampled bilinearly" in raster.notes[0]
    assert raster.source["items"][0]["cloud_pct"] is None
    with pytest.raises(ProviderError, match=r"Band pattern 'B77'.*name bands"):
        fetch(service, collection="users/me/mosaics", bands=("B4", "B77", "B2"))
    with pytest.raises(ProviderError, match=r"'users/me/none' not found .*correct the collection"):
        fetch(service, collection="users/me/none")


def test_top_of_atmosphere_is_noted(service: Service) -> None:
    covering(service, SMALL, "COPERNICUS/S2_HARMONIZED")
    raster = fetch(service, collection="COPERNICUS/S2_HARMONIZED")
    assert any("top of the atmosphere" in note for note in raster.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("B4", "B3", "B77")}, r"no band B77, expected some of B1, B2, .*B8A"),
        ({"bands": ("B4", "B3", "SCL")}, "no reflectance in SCL"),
        ({"bands": ("B4", "B04", "B2")}, "two of which are the same band"),
        ({"fill_value": -9999}, "fill_value=-9999.*masks nodata itself"),
        ({"collection": "COPERNICUS/S2_SR"}, "offset of 1000.*COPERNICUS/S2_SR_HARMONIZED"),
        ({"collection": "COPERNICUS/S2"}, "use 'COPERNICUS/S2_HARMONIZED'"),
        ({"collection": LANDSAT}, "no band B4, B3, B2"),
        ({"collection": "users/me/x"}, "'users/me/x', whose units are not known"),
        (
            {"collection": "users/me/x", "reflectance_scale": 1e-4, "cloudy_pct": 30},
            "which property holds the cloud cover",
        ),
        (
            {"collection": LANDSAT, "bands": ("SR_B4",), "cloud_mask": "scl"},
            f"'scl' for '{LANDSAT}', expected COPERNICUS/S2_SR_HARMONIZED,",
        ),
        ({"collection": "COPERNICUS/S2_HARMONIZED", "cloud_mask": "scl"}, "leave cloud_mask out"),
    ],
)
def test_sensors_are_refused_without_asking(changes: dict[str, Any], message: str) -> None:
    provider = EarthEngineProvider("p", credentials=CREDENTIALS)
    with pytest.raises(ProviderError, match=message) as info:
        provider.check_sensor(replace(SENSOR, **changes))
    assert not info.value.transient


def test_sensors_are_taken() -> None:
    provider = EarthEngineProvider("p", credentials=CREDENTIALS)
    provider.check_sensor(SensorSpec(S2, ("B04", "green", "b02", "B8A"), cloud_mask="scl"))
    provider.check_sensor(SensorSpec("users/me/x", ("r",), reflectance_scale=1.0))
    for name in ("LC08", "LC09", "LE07", "LT05"):
        provider.check_sensor(SensorSpec(f"LANDSAT/{name}/C02/T1_L2", ("SR_B3", "SR_B2")))
    with pytest.raises(ProviderError, match="no band SR_B6"):
        provider.check_sensor(SensorSpec("LANDSAT/LT05/C02/T1_L2", ("SR_B6",)))


# Nothing there


@pytest.mark.parametrize(
    ("period", "cloudy_pct", "message"),
    [
        (TemporalSpec.year(2020), 100,
         r"3 images touch the place, 0 of them are in 2020-01-01 to 2021-01-01 \(they are from "
         r"2023-06-01 to 2023-06-21\); choose another period"),
        (JUNE, 5, r"3 images touch the place, 3 of them are in 2023-06-01 to 2023-07-01, 0 have "
         r"less than 5 % cloud \(the clearest has 5 %\); raise cloudy_pct"),
    ],
)  # fmt: skip
def test_how_many_each_filter_leaves(
    service: Service, period: TemporalSpec, cloudy_pct: float, message: str
) -> None:
    with pytest.raises(ProviderError, match=message):
        fetch(service, period=period, cloudy_pct=cloudy_pct)
    assert [one.path for one in service.of("value:compute")] == ["/v1/projects/p/value:compute"] * 2
    assert len(asked_pixels(service)) == 1  # of no image


# Parts


def test_parts_are_one_image(service: Service) -> None:
    """Split for the service's limit, with the same numbers as at once."""
    grid = NORTH[0].grid.window(-3, -5, 90, 110)
    whole = fetch(service, grid)
    assert len(asked_pixels(service)) == 1
    service.limit_bytes = 900 * 3 * 5
    try:
        provider = provider_of(service)
        with pytest.raises(ProviderError, match=r"Total request size \(148500 bytes\)"):
            fetch(service, grid, provider=provider)
        service.asked.clear()
        provider._request_bytes = service.limit_bytes
        assert provider.cost(grid, sensor=SENSOR).requests == 1 + 12
        service.latency_s = 0.02
        parts = fetch(service, grid, provider=provider)
    finally:
        service.limit_bytes = 50_331_648
    assert len(asked_pixels(service)) == 12
    assert 1 < service.peak <= 10
    assert np.array_equal(parts.data, whole.data)
    assert np.array_equal(parts.valid, whole.valid)


def test_limits_of_the_service(service: Service) -> None:
    """1831 x 1831 px of three float32 bands fit in a request (FAQ of the service), 1832 do not."""
    provider = provider_of(service)
    grid = NORTH[0].grid
    for height, width, requests in (
        (1831, 1831, 1),
        (1832, 1832, 2),
        (20, 32769, 2),
        (2, 65536, 2),
    ):
        cost = provider.cost(grid.window(0, 0, height, width), sensor=SENSOR)
        assert cost.requests == 1 + requests
        assert cost.download_bytes == height * width * 3 * 4
        assert "Cloud Monitoring" in cost.more
    assert provider.cost(grid.window(0, 0, 10980, 10980), sensor=SENSOR).requests == 1 + 36


def test_what_is_too_much_at_once_is_split(service: Service) -> None:
    grid = NORTH[0].grid.window(-40, -40, 160, 180)
    whole = fetch(service, grid)
    service.asked.clear()
    service.memory_px = 8000
    parts = fetch(service, grid)
    assert np.array_equal(parts.data, whole.data)
    assert np.array_equal(parts.valid, whole.valid)
    sizes = [one.body["grid"]["dimensions"] for one in asked_pixels(service)]
    assert len(sizes) == 1 + 4
    service.memory_px = 100
    with pytest.raises(ProviderError, match=r"User memory limit exceeded.*smaller place") as info:
        fetch(service, grid)
    assert not info.value.transient
    service.memory_px = 10**9
    service.faults.append(Fault("status", 400, "Computation timed out.", on="Pixels"))
    assert np.array_equal(fetch(service, grid).data, whole.data)


def test_one_limit_for_all_threads(service: Service) -> None:
    provider = provider_of(service, max_requests=3)
    provider._request_bytes = 900 * 3 * 5
    service.latency_s = 0.02
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: fetch(service, provider=provider), range(4)))
    assert service.peak == 3
    assert all(np.array_equal(one.data, made[0].data) for one in made)


def test_a_failed_part_ends_the_others(service: Service) -> None:
    provider = provider_of(service, patience=Patience(wait_initial_s=0.2), max_requests=2)
    provider._request_bytes = 900 * 3 * 5
    service.faults.append(Fault("status", 429, "Too Many Requests", on="Pixels"))
    service.faults.append(Fault("status", 400, "Some bug.", on="Pixels"))
    before = threading.active_count()
    with pytest.raises(ProviderError, match="Some bug"):
        fetch(service, NORTH[0].grid.window(0, 0, 90, 110), provider=provider)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
    assert len(asked_pixels(service)) <= 4


# What goes wrong


TRANSIENT = {
    "429": (Fault("status", 429, "Too Many Requests"), "HTTP 429: Too Many Requests.*max_requests"),
    "500": (Fault("status", 500, "Internal error"), "HTTP 500: Internal error"),
    "503": (Fault("status", 503, "The service is unavailable"), "HTTP 503"),
    "reset": (Fault("reset"), r"connection to 127.0.0.1 failed \(Conn"),
    "cut off": (
        Fault("cut"),
        r"connection to the service failed \((Chunked|Incomplete)",
    ),
    "a page": (Fault("html"), "something other than Earth Engine answered"),
    "502 with a page": (Fault("html", 502), "HTTP 502"),
}
STRANGE = {
    "half of the JSON": Fault("truncated", on="value"),
    "bytes": Fault("bytes", on="value"),
    "nothing": Fault("nothing", on="value"),
}
PIXELS = {
    "truncated": (Fault("truncated"), r"cut off: \d+ of \d+ bytes"),
    "truncated header": (Fault("truncated header"), "cut off: 20 bytes"),
}


@pytest.mark.parametrize(
    ("fault", "message", "on"),
    [(*TRANSIENT[name], on) for name in TRANSIENT for on in ("value", "Pixels")]
    + [(*PIXELS[name], "Pixels") for name in PIXELS]
    + [(fault, "something other than Earth Engine", "value") for fault in STRANGE.values()]
    + [(replace(STRANGE["nothing"], on="Pixels"), r"other than pixels \(nothing\)", "Pixels")],
)
def test_what_passes_is_tried_again(service: Service, fault: Fault, message: str, on: str) -> None:
    """Once more for one failure, and given up with its message after five."""
    expected = NORTH[0].pixels[:, 10:50, 30:100]
    day = TemporalSpec.range("2023-06-01", "2023-06-02")
    fault = replace(fault, on=on)
    service.faults.append(fault)
    assert np.array_equal(fetch(service, period=day).data, expected)
    assert len(service.asked) == 3
    assert len([one for one in service.asked if one.fault]) == 1
    service.asked.clear()
    service.faults.extend([fault] * 5)
    with pytest.raises(ProviderError, match=message) as info:
        fetch(service, period=day)
    assert info.value.transient
    assert SECRET not in str(info.value)
    assert len(service.of("value:compute")) == (5 if on == "value" else 1)
    assert len(asked_pixels(service)) == (1 if on == "value" else 5)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", r"shape \(39, 70\).*expected \(40, 70\)"),
        ("dtype", "'<f8'.*expected.*'<f4'"),
        ("names", "'xb0'.*expected.*'b0'"),
    ],
)
def test_pixels_that_are_not_those_asked_for(service: Service, kind: str, message: str) -> None:
    service.faults.append(Fault(kind, on="Pixels"))
    with pytest.raises(ProviderError, match=message) as info:
        fetch(service)
    assert not info.value.transient
    assert len(asked_pixels(service)) == 1


def test_the_service_says_when(service: Service) -> None:
    header = {"Retry-After": "1"}
    service.faults.append(Fault("status", 429, "Too Many Requests", header, "Pixels"))
    start = time.monotonic()
    fetch(service)
    assert 1 <= time.monotonic() - start < 30
    later = formatdate(time.time() + 3600, usegmt=True)
    for stated in ("3600", later):
        header = {"Retry-After": stated}
        service.faults.append(Fault("status", 503, "Unavailable", header, "Pixels"))
        start = time.monotonic()
        with pytest.raises(ProviderError, match="HTTP 503") as info:
            fetch(service)
        assert info.value.retry_after_s == pytest.approx(3600, abs=5)
        assert time.monotonic() - start < 60
    past = formatdate(time.time() - 3600, usegmt=True)
    for stated in ("nan", "inf", "soon", "-1", past):  # no reason to wait longer than usual
        header = {"Retry-After": stated}
        service.faults.append(Fault("status", 503, "Unavailable", header, "Pixels"))
        assert fetch(service).valid.all()


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412])
def test_what_lasts_is_asked_once(service: Service, status: int) -> None:
    service.faults.append(Fault("status", status, "Quota exceeded for\nthe project", on="Pixels"))
    with pytest.raises(ProviderError, match=f"HTTP {status}: Quota .* project.; wait") as info:
        fetch(service)
    assert not info.value.transient
    assert len(asked_pixels(service)) == 1


def test_a_slow_answer_ends(fresh: Service) -> None:
    """The time-out is the session's own; no request has none."""
    provider = provider_of(fresh, patience=Patience(attempts=1), timeout_s=0.3)
    provider.status(online=True)
    fresh.latency_s = 6.0
    start = time.monotonic()
    with pytest.raises(
        ProviderError, match="connection to 127.0.0.1 failed .it does not answer"
    ) as info:
        fetch(fresh, provider=provider)
    assert info.value.transient
    assert time.monotonic() - start < 5


@pytest.mark.fault
def test_no_fault_loses_or_doubles_a_place(
    service: Service, often: Callable[[int, int], int], tell: Callable[[str], None]
) -> None:
    count = often(16, 240)
    places = [NORTH[0].grid.window(n % 64, n // 64, 16, 16) for n in range(count)]
    expected = [NORTH[0].pixels[(slice(None), *_window(n % 64, n // 64))] for n in range(count)]
    day = TemporalSpec.range("2023-06-01", "2023-06-02")
    service.faulty_share = 0.2
    patience = Patience(wait_initial_s=0.001, wait_max_s=0.01)
    provider = provider_of(service, patience=patience)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda grid: fetch(service, grid, day, provider), places))
    wrong = sum(
        not np.array_equal(one.data, want) for one, want in zip(made, expected, strict=True)
    )
    faults = sum(bool(one.fault) for one in service.asked)
    tell(
        f"Earth Engine: {count} places, {faults} of {len(service.asked)} answers 429, 500, reset "
        f"or HTML: 0 lost, {wrong} wrong"
    )
    assert not wrong
    assert faults
    assert len(service.asked) == 2 * len(places) + faults


def _window(row: int, column: int) -> tuple[slice, slice]:
    return slice(row, row + 16), slice(column, column + 16)


# The session


REFUSALS = {
    "401": (ServiceError("Request had invalid authentication credentials.", 401,
                         "UNAUTHENTICATED"), r"does not accept the credentials.*authenticate"),
    "off": (ServiceError("Google Earth Engine API has not been used in project 12 before or it is "
                         "disabled. Enable it by visiting https://console.example/12 then retry.",
                         403, "PERMISSION_DENIED"),
            r"https://console\.example/12.*enable the Earth Engine API"),
    "project": (ServiceError("Caller does not have required permission to use project p. Grant the "
                             "caller the roles/serviceusage.serviceUsageConsumer role", 403,
                             "PERMISSION_DENIED"), r"HTTP 403.*EE_PROJECT"),
    "unregistered": (ServiceError("Project p is not registered to use Earth Engine.", 403,
                                  "PERMISSION_DENIED"), "earthengine.google.com/register"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_the_service_refuses_to_begin(fresh: Service, name: str) -> None:
    fresh.refusal, message = REFUSALS[name]
    provider = provider_of(fresh)
    for _ in range(2):  # a session that failed to begin is none
        with pytest.raises(ProviderError, match=message) as info:
            provider.status(online=True)
        assert SECRET not in str(info.value)
        assert "\n" not in str(info.value)
        assert not ee.data.is_initialized()
    assert provider.status() == f"ready: project p, {fresh.url} endpoint"
    fresh.refusal = None
    assert fetch(fresh, provider=provider).valid.all()


@pytest.mark.parametrize("on", ["discovery", "algorithms"])
@pytest.mark.parametrize("name", ["429", "reset", "a page", "502 with a page", "cut off"])
def test_beginning_is_tried_again(fresh: Service, name: str, on: str) -> None:
    fault, message = TRANSIENT[name]
    provider = provider_of(fresh, patience=replace(QUICK, attempts=2))
    fresh.faults.append(replace(fault, on=on))
    assert provider.status(online=True).startswith("ready: ")
    ee.Reset()
    fresh.faults.extend([replace(fault, on=on)] * 2)
    with pytest.raises(ProviderError, match=message) as info:
        provider.status(online=True)
    assert info.value.transient
    assert not ee.data.is_initialized()


def test_a_status_is_not_waited_for_as_long_as_pixels(fresh: Service) -> None:
    fresh.refusal = ServiceError("Unavailable", 503, "UNAVAILABLE")
    patient = provider_of(fresh, patience=Patience(attempts=11, wait_initial_s=0.001))
    with pytest.raises(ProviderError, match="HTTP 503"):
        patient.status(online=True)
    assert len(fresh.of("/algorithms")) == 3


def test_a_session_begins_once(fresh: Service) -> None:
    provider = provider_of(fresh)
    fresh.faults.append(Fault("status", 503, "Unavailable", on="algorithms"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: fetch(fresh, provider=provider), range(4)))
    assert len(fresh.of("/algorithms")) == 2
    assert ee.data.getWorkloadTag() == "rs-embed"
    headers = asked_headers(fresh)
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert headers["user-agent"].startswith("rs-embed/")


def asked_headers(service: Service) -> dict[str, str]:
    return {name.lower(): value for name, value in asked_pixels(service)[-1].headers.items()}


def test_forked_processes_get_their_own_answers(shared_service: Service) -> None:
    """Two that read from one connection would take each other's pixels for theirs."""
    code = f"""if True:
        import os
        import numpy as np
        import ee.deprecation
        from google.oauth2.credentials import Credentials
        from rs_embed import TemporalSpec
        from rs_embed.providers.earth_engine.provider import EarthEngineProvider
        from rs_embed.testing.providers import NORTH, SENSOR
        ee.deprecation._FetchDataCatalogStac = dict
        day = TemporalSpec.range("2023-06-01", "2023-06-02")
        provider = EarthEngineProvider(
            "p", credentials=Credentials("x"), endpoint={shared_service.url!r}
        )
        def right(row):
            grid = NORTH[0].grid.window(row, 0, 8, 8)
            data = provider.fetch(grid, temporal=day, sensor=SENSOR).data
            return np.array_equal(data, NORTH[0].pixels[:, row : row + 8, :8])
        assert right(0)
        children = []
        for first in (0, 20, 40):
            if not (child := os.fork()):
                os._exit(0 if all(right(first + n) for n in range(10)) else 1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    """
    shared_service.latency_s = 0.01
    try:
        done = completed("-c", code, env=python_environment())
        assert done.returncode == 0, done.stderr
    finally:
        shared_service.latency_s = 0
        shared_service.asked.clear()


def test_one_session_a_process(service: Service) -> None:
    with pytest.raises(ProviderError, match=r"project 'q' .*initialised for project 'p'.*one sess"):
        EarthEngineProvider("q", endpoint=service.url).fetch(SMALL, temporal=JUNE, sensor=SENSOR)
    with pytest.raises(ProviderError, match="project 'p' at high-volume, but Earth Engine"):
        provider_of(service, endpoint="high-volume").status(online=True)
    others = Credentials("y")  # type: ignore[no-untyped-call]
    with pytest.raises(ProviderError, match="other credentials"):
        provider_of(service, credentials=others).status(online=True)
    assert service.asked == []


def test_the_users_session_is_used_as_it_is(fresh: Service) -> None:
    ee.Initialize(credentials=CREDENTIALS, project="theirs", url=fresh.url)
    ee.data.setWorkloadTag("their-tag")
    ee.data.setMaxRetries(0)  # quick
    provider = EarthEngineProvider("p", credentials=CREDENTIALS, endpoint="high-volume")
    raster = fetch(fresh, provider=provider)
    assert raster.source["endpoint"] == "as initialised"
    (one,) = asked_pixels(fresh)
    assert one.path.startswith("/v1/projects/theirs/")
    assert one.body["workloadTag"] == "their-tag"
    assert ee.data.getUserAgent() is None
    assert provider.status(online=True) == "ready: the session that ee.Initialize began"
    cut_off = Fault("cut", on="Pixels")
    fresh.faults.extend([cut_off] * 2)
    assert np.array_equal(fetch(fresh, provider=provider).data, raster.data)


@pytest.mark.parametrize("endpoint", ["hi-volume", "earthengine.googleapis.com", "ftp://x"])
def test_unknown_endpoints(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = rf"'{endpoint}', expected one of a URL, high-volume, standard"
    with pytest.raises(UnknownNameError, match=expected):
        EarthEngineProvider("p", credentials=CREDENTIALS, endpoint=endpoint)
    monkeypatch.setenv("RS_EMBED_EE_ENDPOINT", endpoint)
    provider = EarthEngineProvider("p", credentials=CREDENTIALS)
    for call in (provider.status, provider.identity):
        with pytest.raises(UnknownNameError, match=expected):
            call()
    with pytest.raises(UnknownNameError, match="RS_EMBED_EE_ENDPOINT"):
        EarthEngineProvider("p", credentials=CREDENTIALS).status()


@pytest.mark.parametrize("number", [0, -1, 2.5, "10", True])
def test_as_many_requests_as_nothing_can_do(number: Any) -> None:
    with pytest.raises(SpecError, match=r"max_requests=.*whole number of at least 1"):
        EarthEngineProvider("p", max_requests=number)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attempts": 0}, "attempts=0, expected a whole number of at least 1"),
        ({"attempts": None}, "attempts=None"),
        ({"wait_initial_s": 0}, r"wait_initial_s=0, expected more than 0 \(seconds\)"),
        ({"wait_max_s": -1}, "wait_max_s=-1"),
        ({"timeout_s": float("inf")}, "timeout_s=inf, expected a finite number"),
    ],
)
def test_patience_that_is_none(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Patience(**changes)


def test_identities() -> None:
    standard, high = (
        EarthEngineProvider("p", credentials=CREDENTIALS, endpoint=name)
        for name in ("standard", "high-volume")
    )
    assert standard.identity() == high.identity() == EarthEngineProvider("q").identity()
    own = EarthEngineProvider("p", endpoint="https://user:word@ee.example:8443/x?key=abc")
    assert own.identity().startswith("https://ee.example:8443: ")
    assert own.identity() != standard.identity()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without credentials, on a machine without a metadata server."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "EE_PROJECT", "GOOGLE_CLOUD_PROJECT", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return tmp_path


def test_what_is_wrong_is_said_before_anyone_is_asked(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = home / ".config" / "earthengine" / "credentials"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({"refresh_token": SECRET}))

    def refused(match: str) -> None:
        began = time.monotonic()
        with pytest.raises(RsEmbedError, match=match):
            EarthEngineProvider().fetch(NORTH[0].grid, temporal=JUNE, sensor=SENSOR)
        assert time.monotonic() - began < 20  # trying to reach a token server takes a minute

    refused("cannot be used: no project; set EE_PROJECT")
    monkeypatch.setenv("EE_PROJECT", "p")
    monkeypatch.setenv("RS_EMBED_EE_ENDPOINT", "highvolume")
    refused("did you mean 'high-volume'")


def test_a_service_that_is_not_there_is_not_waited_for(fresh: Service) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    provider = EarthEngineProvider("p", credentials=CREDENTIALS, endpoint=url)
    began = time.monotonic()
    with pytest.raises(ProviderError, match="127.0.0.1 failed .it refuses connections") as info:
        provider.fetch(NORTH[0].grid, temporal=JUNE, sensor=SENSOR)
    assert time.monotonic() - began < 20  # all tries take a minute
    assert info.value.transient


def test_what_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = EarthEngineProvider()
    assert not provider.configured()
    assert provider.status() == "missing: no credentials; run: earthengine authenticate"
    own = home / ".config" / "earthengine" / "credentials"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({"refresh_token": SECRET}))
    assert not provider.configured()
    assert provider.status().startswith("missing: no project; set EE_PROJECT to a Google Cloud")
    own.write_text(json.dumps({"refresh_token": SECRET, "project": "carried"}))
    assert provider.status() == "ready: project carried, standard endpoint"
    assert provider.configured()
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "cloud")
    assert EarthEngineProvider().status() == "ready: project cloud, standard endpoint"
    monkeypatch.setenv("EE_PROJECT", "own")
    monkeypatch.setenv("RS_EMBED_EE_ENDPOINT", "high-volume")
    provider = EarthEngineProvider()
    assert provider.status() == "ready: project own, high-volume endpoint"
    assert EarthEngineProvider("given").status().startswith("ready: project given,")
    own.unlink()
    assert not provider.configured()
    default = home / "gcloud" / "application_default_credentials.json"
    default.parent.mkdir()
    default.write_text("{}")
    assert provider.configured()
    default.unlink()
    stated = home / "key.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(stated))
    assert "missing: GOOGLE_APPLICATION_CREDENTIALS names" in provider.status()
    stated.write_text("{}")
    assert provider.configured()
    assert EarthEngineProvider("given", credentials=CREDENTIALS).configured()


def test_damaged_credentials(home: Path, fresh: Service) -> None:
    own = home / ".config" / "earthengine" / "credentials"
    own.parent.mkdir(parents=True)
    own.write_text("{" + SECRET)
    with pytest.raises(
        ProviderError, match=r"cannot be read \(JSONDecodeError\).*authenticate"
    ) as info:
        EarthEngineProvider(endpoint=fresh.url).status()
    assert SECRET not in str(info.value)


def test_asking_without_credentials_or_project(fresh: Service, home: Path) -> None:
    with pytest.raises(ProviderError, match="no credentials; run: earthengine authenticate"):
        fetch(fresh, provider=EarthEngineProvider("p", endpoint=fresh.url))
    nobody = EarthEngineProvider(credentials=CREDENTIALS, endpoint=fresh.url)
    with pytest.raises(ProviderError, match="no project; set EE_PROJECT"):
        fetch(fresh, provider=nobody)


def test_naming_it_imports_no_client() -> None:
    """Nor does asking whether it is configured."""
    code = """if True:
        import sys
        from rs_embed.registry import find_provider
        from rs_embed.settings import Settings
        provider = find_provider("gee", Settings.from_environ())
        provider.configured(), provider.status()
        print(*[name for name in ("ee", "google.auth", "requests") if name in sys.modules])
    """
    done = completed("-c", code, env=python_environment(), fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_stored_credentials(fresh: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of ``earthengine authenticate``, with the project that they carry."""
    own = home / ".config" / "earthengine" / "credentials"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps({"refresh_token": SECRET, "project": "carried"}))
    monkeypatch.setattr(ee.oauth, "TOKEN_URI", f"{fresh.url}/token")
    provider = EarthEngineProvider(endpoint=fresh.url, patience=QUICK)
    assert fetch(fresh, provider=provider).valid.all()
    assert asked_pixels(fresh)[0].path.startswith("/v1/projects/carried/")
    assert asked_headers(fresh)["authorization"] == "Bearer t"
    ee.Reset()
    fresh.faults.append(Fault("status", 400, "invalid_grant", on="/token"))
    with pytest.raises(ProviderError, match="no longer accepts the stored credentials") as info:
        fetch(fresh, provider=provider)
    assert SECRET not in str(info.value)


def test_without_the_client(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ee", None)
    provider = EarthEngineProvider("p", credentials=CREDENTIALS)
    assert not provider.configured()
    assert provider.status() == (
        "missing: the package earthengine-api is not installed; pip install '.[gee]' in a clone of "
        "rs-embed"
    )


def test_a_service_account(fresh: Service, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is asked for with the scopes that Earth Engine needs, its project is taken."""
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    from cryptography.hazmat.primitives import serialization

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    file = home / "key.json"
    account = {"type": "service_account", "project_id": "sa", "private_key": pem,
               "private_key_id": "1", "client_email": "a@sa.iam.example", "client_id": "1",
               "token_uri": f"{fresh.url}/token"}  # fmt: skip
    file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    provider = EarthEngineProvider(endpoint=fresh.url, patience=QUICK)
    assert fetch(fresh, provider=provider).valid.all()
    assert asked_pixels(fresh)[0].path.startswith("/v1/projects/sa/")
    assert asked_headers(fresh)["authorization"] == "Bearer t"
    (token,) = fresh.of("/token")
    claims = claims_of(token.body.decode())
    assert "https://www.googleapis.com/auth/earthengine" in claims["scope"].split()
    ee.Reset()
    fresh.faults.extend([Fault("status", 400, "invalid_grant", on="/token")] * 9)
    with pytest.raises(ProviderError, match="does not accept the credentials.*renew") as info:
        fetch(fresh, provider=provider)
    assert "PRIVATE" not in str(info.value)


def claims_of(body: str) -> dict[str, Any]:
    from urllib.parse import parse_qs

    _, claims, _ = parse_qs(body)["assertion"][0].split(".")
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(claims + "=="))
    return found


def test_an_embedding(service: Service) -> None:
    place = PointBuffer(15.0065, 46.9485, 200)
    with pytest.warns(CoverageWarning):
        embedding = get_embedding(
            "scalemae", spatial=place, temporal=JUNE, fetch=FetchSpec(cloudy_pct=30),
            backend=provider_of(service), weights="random-init", variant="tiny",
        )  # fmt: skip
    seen = inspect_input(  # the warning about the crop was given before
        "scalemae", spatial=place, temporal=JUNE, fetch=FetchSpec(cloudy_pct=30),
        backend=provider_of(service), weights="random-init",
    )  # fmt: skip
    assert embedding.image is not None
    assert np.array_equal(seen.image, embedding.image)
    assert seen.meta["source"] == embedding.meta["source"]
    assert np.isfinite(np.asarray(embedding.data)).all()
    assert embedding.meta["backend"] == "gee"
    assert embedding.meta["source"]["image_count"] == 2
    assert embedding.meta["reflectance_source"] == "imagery"
    assert embedding.meta["input_res_m"] > 0
    assert SECRET not in json.dumps(embedding.meta)
    assert '"p"' not in json.dumps(embedding.meta)
