"""Fetching is quick: which requests are made at once, and that results are the same as one by one.

Rows of `PLACES` say what a place is, whether its pixels are requested together with the list of its
images, and how often they are requested in all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ee
import ee.deprecation
import numpy as np
import pytest
from affine import Affine
from google.oauth2.credentials import Credentials

from rs_embed.errors import ProviderError
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.network.retrying import Patience
from rs_embed.providers.earth_engine.provider import EarthEngineProvider
from rs_embed.providers.stac.provider import StacProvider
from rs_embed.specs import TemporalSpec
from rs_embed.testing.providers import JUNE, NORTH, SENSOR, ZONES, write_contract_scenes
from tests.earth_engine_server import S2, Fault, Service, contract_service, serve, stored
from tests.stac_server import StacServer
from tests.threads import at_work

QUICK = Patience(attempts=4, wait_initial_s=0.01, wait_max_s=0.02)
LIST, PIXELS = "value:compute", "image:computePixels"
GRID = NORTH[0].grid.window(10, 30, 40, 60)
EMPTY = TemporalSpec.year(2020)
AUGUST = TemporalSpec.range("2023-08-01", "2023-08-02")


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    patch = pytest.MonkeyPatch()
    patch.setattr(ee.deprecation, "_FetchDataCatalogStac", dict)  # of another server
    ee.Reset()
    with serve(contract_service()) as service:
        yield service
    ee.Reset()
    patch.undo()


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    collections = running.collections
    provider_of(running).status(online=True)
    running.asked.clear()
    running.peak = 0
    yield running
    running.collections = collections
    running.latency_s = 0
    running.faults.clear()
    running.refusal = None


def provider_of(service: Service, **options: Any) -> EarthEngineProvider:
    credentials = _CREDENTIALS
    options = {"endpoint": service.url, "patience": QUICK, **options}
    return EarthEngineProvider("p", credentials=credentials, **options)


_CREDENTIALS = Credentials("x")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Place:
    grid: Grid = GRID
    period: TemporalSpec = JUNE
    tiles: str | None = "33TWN"  # of the images; None for those of the contract
    sensor: dict[str, Any] | None = None


PLACES = {
    # name: (place, requested together, requests of pixels)
    "inside a zone, all images of it": (Place(), True, 1),
    "of a zone written with a letter": (Place(tiles="T33TWN"), True, 1),
    "a mosaic": (Place(sensor={"composite": "mosaic"}), True, 1),
    "with masked clouds": (Place(sensor={"cloud_mask": "scl"}), True, 1),
    "coarser pixels": (Place(GRID.resized(20, 30)), True, 1),
    "off the lattice": (
        Place(replace(GRID, transform=GRID.transform @ Affine.translation(0.3, 0))), True, 1,
    ),
    "in another CRS": (
        Place(Grid(known_crs(3857), Affine(15, 0, 1670000, 0, -15, 5930000), (20, 20))), True, 1,
    ),
    "near the edge of a zone": (
        Place(ZONES[1].grid.window(0, 20, 60, 60), AUGUST, None), False, 1,
    ),
    "inside a zone, images of the next one": (Place(tiles="32TQT"), True, 2),
    "inside a zone, images of no tile": (Place(tiles=""), True, 2),
    "no image in the period": (Place(period=EMPTY), True, 1),
}  # fmt: skip


def outcome(provider: EarthEngineProvider, place: Place) -> Raster | str:
    sensor = replace(SENSOR, **(place.sensor or {}))
    try:
        return provider.fetch(place.grid, temporal=place.period, sensor=sensor)
    except ProviderError as exc:
        return str(exc)


def same(one: Raster | str, other: Raster | str) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    rest = [(r.source, r.notes, r.grid, r.bands, r.reflectance) for r in (one, other)]
    pixels = zip((one.data, one.valid), (other.data, other.valid), strict=True)
    return rest[0] == rest[1] and all(a.tobytes() == b.tobytes() for a, b in pixels)


def settled(service: Service) -> None:
    """Wait until no request is answered and no thread of a stage is left."""
    deadline = time.monotonic() + 10
    while at_work() or service.running:
        assert time.monotonic() < deadline, at_work()
        time.sleep(0.01)


@pytest.mark.parametrize("name", PLACES)
def test_pixels_are_requested_together_with_the_list(service: Service, name: str) -> None:
    place, together, pixels = PLACES[name]
    if place.tiles is not None:
        images = [stored(scene, MGRS_TILE=place.tiles) for scene in NORTH]
        service.collections = {**service.collections, S2: images}
    expected = outcome(provider_of(service, max_requests=1), place)
    assert service.peak == 1
    service.asked.clear()
    service.peak, service.latency_s = 0, 0.1
    assert same(outcome(provider_of(service), place), expected)
    settled(service)
    assert (service.peak == 2) == together
    assert len(service.of(PIXELS)) == pixels
    assert len(service.of(LIST)) == (1 if isinstance(expected, Raster) else 2)


REFUSED = Fault("status", 403, "Quota exceeded", on="value")
FAULTS = {
    # name: (faults, requests of the list, requests of the pixels)
    "the list fails once": ([Fault("status", 503, "Busy", on="value")], 2, 1),
    "the pixels fail once": ([Fault("reset", on="Pixels")], 1, 2),
    "both fail once": ([Fault("html", on="value"), Fault("truncated", on="Pixels")], 2, 2),
    "the list is refused": ([REFUSED], 1, 1),
    "the pixels are refused": ([replace(REFUSED, on="Pixels")], 1, 1),
    "the list fails too often": ([Fault("status", 429, "Too many", on="value")] * 4, 4, 1),
    "the pixels fail too often": ([Fault("status", 500, "Bug", on="Pixels")] * 4, 1, 4),
}


@pytest.mark.parametrize("name", FAULTS)
def test_requests_fail_as_one_by_one(service: Service, name: str) -> None:
    faults, lists, pixels = FAULTS[name]
    service.faults.extend(faults)
    expected = outcome(provider_of(service, max_requests=1), Place(tiles=None))
    service.asked.clear()
    service.faults.clear()
    service.faults.extend(faults)
    assert same(outcome(provider_of(service), Place(tiles=None)), expected)
    settled(service)
    assert (len(service.of(LIST)), len(service.of(PIXELS))) == (lists, pixels)


@pytest.mark.parametrize("why", ["no image", "a refusal"])
def test_pixels_that_are_not_needed_are_not_tried_again(service: Service, why: str) -> None:
    patience = replace(QUICK, attempts=8, wait_initial_s=0.3)
    service.faults.extend([Fault("status", 503, "Busy", on="Pixels")] * 8)
    service.faults.extend([REFUSED] if why == "a refusal" else [])
    place = Place(period=EMPTY if why == "no image" else JUNE)
    assert isinstance(outcome(provider_of(service, patience=patience), place), str)
    settled(service)
    assert len(service.of(PIXELS)) == 1


def test_parts_are_requested_after_the_list(service: Service) -> None:
    provider = provider_of(service)
    provider._request_bytes = 900 * 3 * 5
    service.latency_s = 0.05
    assert same(outcome(provider, Place()), outcome(provider_of(service), Place()))
    assert [LIST in one.path for one in service.asked[:3]] == [True, False, False]


def test_scenes_of_many_places_are_read_in_the_same_threads(tmp_path: Path) -> None:
    grid = NORTH[0].grid.window(10, 70, 9, 9)
    with StacServer().running() as server:
        server.add(write_contract_scenes(tmp_path))
        provider = StacProvider(server.url, patience=QUICK, readers=3)
        seen = []
        for row in range(6):
            raster = provider.fetch(grid.window(row, 0, 9, 9), temporal=JUNE, sensor=SENSOR)
            assert raster.source["image_count"] == len(NORTH)
            assert np.array_equal(raster.data[1, :, 0], np.arange(10.5 + row, 19 + row) * 100)
            assert not at_work()
            seen.append({t for t in threading.enumerate() if t.name.startswith("idle rs_embed")})
    assert seen[0]
    assert len(set().union(*seen) - seen[0]) <= 2  # one for each thread that was idle for too long
