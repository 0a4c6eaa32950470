"""STAC over a loopback server: the contract, signing, faults, and what real items look like."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rs_embed import PointBuffer, get_embedding, inspect_input
from rs_embed.errors import ProviderError
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.network.retrying import Patience
from rs_embed.providers.base import Provider
from rs_embed.providers.local import LocalProvider
from rs_embed.providers.scenes.scene import BandAt, Scene
from rs_embed.providers.stac.catalogues import Address
from rs_embed.providers.stac.provider import StacProvider
from rs_embed.providers.stac.signing import signed
from rs_embed.specs import SensorSpec, TemporalSpec
from rs_embed.testing.providers import (
    JUNE,
    NORTH,
    SENSOR,
    ProviderContract,
    write_contract_scenes,
)
from tests.conftest import python_environment
from tests.processes import WAIT_S, called, completed, errors_of, line_of, running
from tests.stac_server import Fault, StacServer
from tests.threads import at_work

QUICK = Patience(attempts=3, wait_initial_s=0.01, wait_max_s=0.02, timeout_s=5)
FEW = 2  # each thread takes GDAL and PROJ 30 ms to begin with
GRID = NORTH[0].grid.window(20, 70, 20, 20)


class TestStacProvider(ProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, contract_scenes: Path) -> Iterator[StacServer]:
        with StacServer().running() as server:
            server.add(contract_scenes)
            yield server

    @pytest.fixture
    def provider(self, server: StacServer) -> Provider:
        return StacProvider(server.url, patience=QUICK, readers=FEW)


class TestStaticCatalogue(ProviderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, contract_scenes: Path) -> Iterator[StacServer]:
        with StacServer(folders={"files": contract_scenes}).running() as server:
            yield server

    @pytest.fixture
    def provider(self, server: StacServer, contract_scenes: Path) -> Provider:
        link_catalogue(contract_scenes)
        return StacProvider(f"{server.url}/files/catalog.json", patience=QUICK, readers=FEW)


def link_catalogue(folder: Path) -> Path:
    """Write a catalogue of a collection that links to the items below ``folder``."""
    items = sorted(path.relative_to(folder) for path in folder.glob("*/*.json"))
    links = [{"rel": "item", "href": f"./{path.as_posix()}"} for path in items]
    collection = {
        "type": "Collection", "id": "sentinel-2-l2a", "stac_version": "1.0.0", "links": links,
        "description": "", "license": "proprietary", "extent": {},
    }  # fmt: skip
    (folder / "collection.json").write_text(json.dumps(collection))
    top = {
        "type": "Catalog", "id": "top", "stac_version": "1.0.0", "description": "",
        "links": [{"rel": "child", "href": "./collection.json"},
                  {"rel": "root", "href": "./catalog.json"}],
    }  # fmt: skip
    path = folder / "catalog.json"
    path.write_text(json.dumps(top))
    return path


Served = Callable[..., StacServer]


@pytest.fixture
def serve() -> Iterator[Callable[..., StacServer]]:
    """Return a function that starts a server; all end with the test."""
    with ExitStack() as stack:
        yield lambda **kwargs: stack.enter_context(StacServer(**kwargs).running())


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_contract_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def server(serve: Served, scenes_folder: Path) -> StacServer:
    """The contract's scenes."""
    server = serve()
    server.add(scenes_folder)
    return server


def fetch(
    server: StacServer | StacProvider,
    grid: Grid = GRID,
    period: TemporalSpec = JUNE,
    sensor: SensorSpec = SENSOR,
    **changes: Any,
) -> Raster:
    provider = (
        StacProvider(server.url, patience=QUICK, readers=FEW)
        if isinstance(server, StacServer)
        else server
    )
    sensor = replace(sensor, **changes)
    provider.check_sensor(sensor)
    return provider.fetch(grid, temporal=period, sensor=sensor)


def ids(raster: Raster) -> list[str]:
    return [item["id"] for item in raster.source["items"]]


ALL_NORTH = ["north-1", "north-2", "north-7"]


@pytest.mark.parametrize("post", [True, False])
def test_searches_go_through_all_pages(server: StacServer, post: bool) -> None:
    server.page, server.post = 2, post
    raster = fetch(server)
    assert ids(raster) == ALL_NORTH
    searches = [r for r in server.requests if "datetime" in f"{r.query} {r.body}"]
    assert [r.method for r in searches] == ["POST" if post else "GET"] * 2
    if post:
        asked = searches[0].body
        assert asked["datetime"] == "2023-06-01T00:00:00Z/2023-07-01T00:00:00Z"
        assert asked["collections"] == ["sentinel-2-l2a"]
        assert asked["bbox"] == pytest.approx(GRID.geographic_bounds())
    about = raster.source
    assert about["catalogue"] == server.url
    assert about["collection"] == "sentinel-2-l2a"
    assert about["items"][0]["files"][0] == f"{server.url}/files/north-1/B4.tif"


def test_the_catalogue_is_asked_once_for_what_does_not_change(server: StacServer) -> None:
    provider = StacProvider(server.url, patience=QUICK)
    for _ in range(3):
        fetch(provider)
    assert len(server.paths("^/$")) == 1
    assert len(server.paths("^/collections")) == 1
    assert len(server.paths("^/search$")) == 1 + 3


def test_a_place_without_imagery_is_told_from_a_period_without(server: StacServer) -> None:
    provider = StacProvider(server.url, patience=QUICK)
    with pytest.raises(
        ProviderError, match=r"0 scenes in 2020-01-01 to 2021-01-01, .*one is from 2023-06-21"
    ) as info:
        fetch(provider, period=TemporalSpec.year(2020))
    assert not info.value.transient
    server.requests.clear()
    ocean = Grid(GRID.crs, Affine(10, 0, 500000, 0, -10, 100000), (20, 20))
    with pytest.raises(ProviderError, match="none at the place at any time; choose") as info:
        fetch(provider, ocean)
    assert not info.value.transient
    assert server.paths("") == ["/search", "/search"]


def test_items_across_the_antimeridian_are_one_scene(serve: Served, tmp_path: Path) -> None:
    grid = Grid(known_crs(32701), Affine(10, 0, 180050, 0, -10, 8130000), (64, 64))
    server = serve()
    item = make_item(server, tmp_path, "fiji", grid=grid)
    west, _, east, _ = grid.geographic_bounds()
    assert west > 179 > -179 > east
    item["bbox"] = [-180, -18, 180, -16]
    item["geometry"]["coordinates"] = [
        [[-180, -18], [180, -18], [180, -16], [-180, -16], [-180, -18]]
    ]
    raster = fetch(server, grid)
    assert ids(raster) == ["fiji"]
    boxes = [r.body["bbox"] for r in server.requests if r.body and "bbox" in r.body]
    assert [(box[0] == -180, box[2] == 180) for box in boxes] == [(False, True), (True, False)]


URI = "S2A_MSIL2A_20230610T100031_{}_R122_T33TWM_{}.SAFE"
SMALL = Grid(NORTH[0].grid.crs, Affine(10, 0, 400000, 0, -10, 5200000), (64, 64))


def make_item(
    server: StacServer,
    folder: Path,
    name: str,
    value: int = 1500,
    *,
    like: str = "earth-search",
    collection: str = "sentinel-2-l2a",
    grid: Grid = SMALL,
    host: StacServer | None = None,
    scl: int = 4,
    day: str = "2023-06-10T10:00:31.024000Z",
    properties: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Serve an item whose bands hold one value, in the shape of a preset's items."""
    host = host or server
    home = folder / collection / name
    home.mkdir(parents=True)
    blob = "/blob" if like == "planetary-computer" else ""
    host.folders[collection] = folder / collection

    def cog(file: str, number: int, count: int = 1, dtype: str = "uint16", step: int = 1) -> str:
        shape = (count, grid.shape[0] // step, grid.shape[1] // step)
        with rasterio.open(
            home / f"{file}.tif", "w", driver="COG", count=count, dtype=dtype, nodata=0,
            height=shape[1], width=shape[2], crs=grid.crs.to_wkt() if grid.crs else None,
            transform=grid.transform @ Affine.scale(step),
        ) as out:  # fmt: skip
            out.write(np.full(shape, number, dtype))
        return f"{host.url}{blob}/{collection}/{name}/{file}.tif"

    west, south, east, north = grid.geographic_bounds()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    proj = {"proj:shape": list(grid.shape), "proj:transform": list(grid.transform)[:6]}
    cog_type = "image/tiff; application=geotiff; profile=cloud-optimized"
    assets: dict[str, Any] = {}
    for band, colour in zip(("B04", "B03", "B02"), ("red", "green", "blue"), strict=True):
        described = {"name": band, "common_name": colour}
        asset = {"href": cog(band, value), "type": cog_type, "roles": ["data"], **proj}
        if like == "planetary-computer":
            assets[band] = {**asset, "eo:bands": [described], "gsd": 10.0}
        elif like == "landsat":
            assets[colour] = {
                **asset, "roles": ["data"], "eo:bands": [{**described, "name": f"OLI_{band}"}],
                "raster:bands": [{"nodata": 0, "scale": 2.75e-05, "offset": -0.2,
                                  "data_type": "uint16", "spatial_resolution": 30}],
            }  # fmt: skip
        else:
            assets[colour] = {
                **asset, "roles": ["data", "reflectance"], "eo:bands": [{**described,
                                                                         "name": colour}],
                "raster:bands": [{"nodata": 0, "data_type": "uint16", "bits_per_sample": 15,
                                  "spatial_resolution": 10, "scale": 0.0001, "offset": -0.1}],
            }  # fmt: skip
    if like != "landsat":
        classes = {"href": cog("SCL", scl, dtype="uint8", step=2), "type": cog_type, **proj}
        assets["SCL" if like == "planetary-computer" else "scl"] = {**classes, "roles": ["data"]}
        three = [{"name": b, "common_name": c} for b, c in (("B04", "red"), ("B03", "green"),
                                                           ("B02", "blue"))]  # fmt: skip
        assets["visual"] = {
            "href": cog("visual", 77, 3, "uint8"), "type": cog_type, "eo:bands": three,
            "roles": ["data"] if like == "planetary-computer" else ["visual"],
        }  # fmt: skip
    item = {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": name,
        "collection": collection, "links": [{"rel": "self", "href": f"{server.url}/{name}"}],
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [west, south, east, north],
        "properties": {"datetime": day, "eo:cloud_cover": 3.5,
                       "proj:epsg": grid.crs.to_epsg() if grid.crs else None, **(properties or {})},
        "assets": assets,
    }  # fmt: skip
    server.items.setdefault(collection, []).append(item)
    return item


@pytest.mark.parametrize(
    ("like", "collection", "baseline", "applied", "expected", "treatment"),
    [
        ("planetary-computer", "sentinel-2-l2a", "05.09", None, 500, "1000 subtracted"),
        ("planetary-computer", "sentinel-2-l2a", "04.00", None, 500, "1000 subtracted"),
        ("planetary-computer", "sentinel-2-l2a", "03.01", None, 1500, "none before"),
        ("earth-search", "sentinel-2-c1-l2a", "05.00", None, 500, "1000 subtracted"),
        ("earth-search", "sentinel-2-l2a", "05.09", True, 700, "already applied (earthsearch"),
        ("earth-search", "sentinel-2-l2a", "05.09", False, 500, "1000 subtracted (judged"),
        ("earth-search", "sentinel-2-l2a", "02.14", False, 1500, "none before"),
    ],
)
def test_the_offset_is_taken_off_once(
    serve: Served,
    tmp_path: Path,
    like: str,
    collection: str,
    baseline: str,
    applied: bool | None,
    expected: int,
    treatment: str,
) -> None:
    flag = {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    server, host = serve(), serve()
    make_item(
        server, tmp_path, "item", like=like, collection=collection, host=host,
        properties={"s2:processing_baseline": baseline, **flag}, value=700 if applied else 1500,
    )  # fmt: skip
    provider = StacProvider(Address(server.url, f"{server.url}/sas"), patience=QUICK)
    if like == "planetary-computer":
        host.tokens = server.tokens
    raster = fetch(provider, SMALL, collection=collection)
    assert (raster.data == expected).all()
    assert raster.valid.all()
    assert raster.reflectance == (1e-4, 0.0)
    (item,) = raster.source["items"]
    assert item["offset"].startswith(treatment)
    assert item["baseline"] == baseline
    assert [path.rsplit("/", 1)[1] for path in item["files"]] == ["B04.tif", "B03.tif", "B02.tif"]
    assert bool(raster.notes) is ("judged" in treatment)


def test_a_doubtful_offset_is_judged_once_and_by_overviews(serve: Served, tmp_path: Path) -> None:
    grid = Grid(SMALL.crs, SMALL.transform, (2048, 2048))
    server = serve()
    said = {"s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": False}
    item = make_item(server, tmp_path, "item", properties=said)
    rng = np.random.default_rng(0)
    for asset in ("red", "green", "blue"):
        path = tmp_path / "sentinel-2-l2a/item" / item["assets"][asset]["href"].rsplit("/", 1)[1]
        with rasterio.open(
            path, "w", driver="COG", count=1, dtype="uint16", nodata=0, height=2048, width=2048,
            crs="EPSG:32633", transform=grid.transform, overview_resampling="nearest",
        ) as out:  # fmt: skip
            out.write(rng.integers(1001, 9000, (2048, 2048)).astype(np.uint16), 1)
    item["bbox"] = list(grid.geographic_bounds())
    provider = StacProvider(server.url, patience=QUICK)
    first = fetch(provider, grid.window(100, 100, 32, 32))
    assert "1000 subtracted" in first.notes[0]
    read = sum(r.size for r in server.requests if r.path.endswith(".tif"))
    whole = 3 * path.stat().st_size
    assert read < whole / 3
    fetch(provider, grid.window(120, 120, 32, 32))
    again = sum(r.size for r in server.requests if r.path.endswith(".tif")) - read
    assert again < whole / 50


def test_landsat_comes_in_its_declared_units(serve: Served, tmp_path: Path) -> None:
    server = serve()
    make_item(server, tmp_path, "LC09", 14000, like="landsat", collection="landsat-c2-l2")
    sensor = SensorSpec("landsat-c2-l2", ("red", "green", "blue"), 10, 100, "median", 0)
    raster = fetch(server, SMALL, sensor=sensor)
    assert (raster.data == 14000).all()
    assert raster.reflectance == (2.75e-05, -0.2)
    assert raster.bands == ("red", "green", "blue")


def test_only_the_newest_processing_counts(serve: Served, tmp_path: Path) -> None:
    server = serve()
    for sequence, value in ((0, 1700), (1, 1900)):
        said = {
            "s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True,
            "s2:product_uri": URI.format("N0509", f"2023061{sequence}T120000"),
        }  # fmt: skip
        make_item(server, tmp_path, f"S2A_33TWM_20230610_{sequence}_L2A", value, properties=said)
    raster = fetch(server, SMALL)
    assert ids(raster) == ["S2A_33TWM_20230610_1_L2A"]
    assert (raster.data == 1900).all()
    assert raster.source["counts"]["newest"] == 1


def test_clouds_are_masked_by_the_classification(serve: Served, tmp_path: Path) -> None:
    server = serve()
    said = {"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}
    make_item(server, tmp_path, "clear", 1500, properties=said)
    make_item(server, tmp_path, "cloud", 9000, scl=9, day="2023-06-11T10:00:00Z", properties=said)
    raster = fetch(server, SMALL, cloud_mask="scl")
    assert ids(raster) == ["clear"]
    assert (raster.data == 1500).all()
    with pytest.raises(ProviderError, match="only backend='gee'"):
        fetch(server, SMALL, cloud_mask="cloud_score_plus")


def test_the_identity_of_a_catalogue_on_disk_changes_with_its_files(tmp_path: Path) -> None:
    catalogue = link_catalogue(write_contract_scenes(tmp_path))
    provider = StacProvider(catalogue)
    before = provider.identity()
    assert StacProvider(catalogue).identity() == before
    for path in ("north-1/B4.tif", "south-4/south-4.json", "collection.json"):
        changed = tmp_path / path
        changed.write_bytes(changed.read_bytes() + b" ")
        assert provider.identity() != before
        before = provider.identity()


def test_tokens_are_told_to_no_other_host() -> None:
    hosts = {
        "https://acc.blob.core.windows.net/c/B4.tif": True,
        "https://sas.example/c/B4.tif": True,
        "https://blob.core.windows.net.evil.example/c/B4.tif": False,
        "https://elsewhere.example/c/B4.tif": False,
        "https://acc.blob.core.windows.net/c/B4.tif?own=1": False,
        "s3://bucket/B4.tif": False,
    }
    bands = {href: BandAt(href, 1) for href in hosts}
    scene = Scene("x", None, None, bands, None)
    found = signed(scene, "sig=abc", "https://sas.example/v1").bands
    for href, signs in hosts.items():
        assert found[href].path == (f"{href}?sig=abc" if signs else href)


class TestSigning:
    @pytest.fixture
    def server(self, serve: Served, tmp_path: Path) -> StacServer:
        server = serve()
        said = {"s2:processing_baseline": "05.09"}
        make_item(server, tmp_path, "item", like="planetary-computer", properties=said)
        return server

    @pytest.fixture
    def provider(self, server: StacServer) -> StacProvider:
        return StacProvider(Address(server.url, f"{server.url}/sas"), patience=QUICK)

    @pytest.mark.parametrize("hours", [0, -7])
    def test_a_token_serves_while_it_is_valid(
        self, server: StacServer, provider: StacProvider, hours: int
    ) -> None:
        server.clock = timedelta(hours=hours)  # by ours it ended hours ago
        for _ in range(2):
            assert (fetch(provider, SMALL).data == 500).all()
        assert len(server.paths("^/sas")) == 1
        assert 403 not in {r.status for r in server.requests}

    @pytest.mark.parametrize("hours", [0, 7])
    def test_a_token_is_renewed_before_it_ends(
        self, server: StacServer, provider: StacProvider, hours: int
    ) -> None:
        server.clock = timedelta(hours=hours)  # by ours it is valid for hours
        server.token_s = 1
        fetch(provider, SMALL)
        time.sleep(1.1)
        assert (fetch(provider, SMALL).data == 500).all()
        assert len(server.paths("^/sas")) == 2
        assert 403 not in {r.status for r in server.requests}

    def test_a_revoked_token_is_renewed(
        self, server: StacServer, provider: StacProvider, tmp_path: Path
    ) -> None:
        make_item(server, tmp_path, "next", like="planetary-computer", day="2023-07-10T10:00:00Z")
        fetch(provider, SMALL)
        server.tokens.clear()
        raster = fetch(provider, SMALL, TemporalSpec.range("2023-07-01", "2023-08-01"))
        assert (raster.data == 1500).all()  # no baseline: as it is
        assert len(server.paths("^/sas")) == 2
        assert 403 in {r.status for r in server.requests}

    def test_a_lasting_refusal_says_what_to_do_and_no_secret(
        self, server: StacServer, provider: StacProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        fetch(provider, SMALL)
        raster = fetch(provider, SMALL)
        assert "hush" not in json.dumps(raster.source)
        server.faults = [Fault("^/blob", "403")]
        make = StacProvider(Address(server.url, f"{server.url}/sas"), patience=QUICK)
        with pytest.raises(ProviderError, match=r"'item'.*403.*refused twice.*account") as info:
            fetch(make, SMALL)
        assert not info.value.transient
        server.faults = [Fault("^/blob", "503")]
        with pytest.raises(ProviderError, match=r"'item'.*503") as passing:
            fetch(
                StacProvider(
                    Address(server.url, f"{server.url}/sas"), patience=Patience(attempts=1)
                ),
                SMALL,
            )
        assert passing.value.transient
        for said in (info, passing):
            assert "hush" not in "".join(traceback.format_exception(said.value))
        assert "503" in caplog.text
        assert "(signed)" in caplog.text
        assert "hush" not in caplog.text

    def test_a_service_that_gives_no_token(
        self, server: StacServer, provider: StacProvider
    ) -> None:
        server.faults = [Fault("^/sas", "html")]
        with pytest.raises(ProviderError, match="sas/token/sentinel-2-l2a.*page for people"):
            fetch(provider, SMALL)
        server.faults = [Fault("^/sas", "404")]
        with pytest.raises(ProviderError, match="answered HTTP 404") as info:
            fetch(provider, SMALL)
        assert not info.value.transient
        server.faults = [Fault("^/sas", "503", times=1)]
        fetch(provider, SMALL)

    def test_hrefs_elsewhere_with_a_query_stay_as_they_are(
        self, server: StacServer, provider: StacProvider
    ) -> None:
        (item,) = server.items["sentinel-2-l2a"]
        own = server.sign("sentinel-2-l2a")["token"]
        for asset in item["assets"].values():
            asset["href"] += f"?{own}"
        raster = fetch(provider, SMALL)
        assert {r.query for r in server.requests if r.path.startswith("/blob")} == {own}
        assert "hush" not in json.dumps(raster.source)


def once(path: str, kind: str, **more: Any) -> Fault:
    return Fault(path, kind, times=1, **more)


@pytest.mark.parametrize(
    "fault",
    [
        once("search", "429", retry_after="1"),
        once("search", "503"),
        once("search", "reset"),
        once("search", "truncate"),
        once("search", "html"),
        once("^/$", "html"),
        once("^/$", "502"),
        once("collections", "500"),
    ],
    ids=lambda fault: fault.kind,
)
def test_what_passes_is_asked_again(server: StacServer, fault: Fault) -> None:
    server.faults = [fault]
    began = time.monotonic()
    assert ids(fetch(server)) == ALL_NORTH
    assert fault.times == 0
    assert time.monotonic() - began >= (1 if fault.retry_after else 0)


@pytest.mark.parametrize(
    ("fault", "message", "transient"),
    [
        (
            Fault("search", "429", retry_after="3600"),
            "search' answered HTTP 429 .*wait 3600 s.*fewer",
            True,
        ),
        (Fault("search", "503"), "search' answered HTTP 503 .slow down.: try again later", True),
        (Fault("search", "truncate"), "cannot reach 'http://127.*search'.*was cut off", True),
        (Fault("search", "reset"), "cannot reach 'http://127.*search'.*check the network", True),
        (Fault("search", "html"), "search' answered a page for people.*log in", True),
        (Fault("search", "501"), "search' answered HTTP 501 .*correct", False),
        (Fault("search", "400"), "answered HTTP 400", False),
        (Fault("^/$", "403"), "answered HTTP 403 .*another catalogue", False),
        (Fault("^/$", "html"), "answered a page for people", True),
    ],
    ids=lambda value: f"{value.path} {value.kind}" if isinstance(value, Fault) else "",
)
def test_what_lasts_is_told(
    server: StacServer, fault: Fault, message: str, transient: bool
) -> None:
    server.faults = [fault]
    provider = StacProvider(server.url, patience=QUICK)
    with pytest.raises(ProviderError, match=message) as info:
        fetch(provider)
    assert info.value.transient is transient


def test_a_server_that_is_not_there(serve: Served) -> None:
    with StacServer().running() as server:
        url = server.url
    with pytest.raises(ProviderError, match="cannot reach .*check the network") as info:
        StacProvider(url, patience=QUICK).status(online=True)
    assert info.value.transient


@pytest.mark.parametrize("page", [[], {"hello": 1}, {"type": "Catalog", "links": [{"rel": "x"}]}])
def test_json_that_is_no_stac(serve: Served, tmp_path: Path, page: Any) -> None:
    (tmp_path / "page.json").write_text(json.dumps(page))
    server = serve(folders={"files": tmp_path})
    provider = StacProvider(f"{server.url}/files/page.json", patience=QUICK)
    with pytest.raises(ProviderError, match="page.json' answered JSON that is not STAC"):
        provider.check_sensor(SENSOR)


COG = "north-2/B3.tif"


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(COG, "reset", times=3)],
        [Fault(COG, "503", times=3, skip=1)],  # after the size was asked
        [Fault(COG, "truncate", times=2)],
        [once(COG, "404")],
        [once(COG, "html")],
        [Fault(COG, "503", times=6)],  # twice all that GDAL tries itself
    ],
    ids=lambda faults: f"{faults[0].kind} {faults[0].times} after {faults[0].skip}",
)
def test_reads_that_failed_succeed_later(server: StacServer, faults: list[Fault]) -> None:
    expected = fetch(server).data
    with StacServer(folders=dict(server.folders)).running() as host:
        for items in server.items.values():
            for item in items:
                for asset in item["assets"].values():
                    asset["href"] = asset["href"].replace(server.url, host.url)
        host.faults = faults
        assert np.array_equal(fetch(server).data, expected)
        assert faults[0].times == 0
        assert ids(fetch(server)) == ALL_NORTH  # nothing of it is remembered


def test_a_file_that_vanishes_while_it_is_read(serve: Served, tmp_path: Path) -> None:
    server = serve()
    grid = Grid(SMALL.crs, SMALL.transform, (1024, 1024))
    item = make_item(server, tmp_path, "item", grid=grid)
    path = tmp_path / "sentinel-2-l2a/item/B03.tif"
    with rasterio.open(
        path, "w", driver="COG", count=1, dtype="uint16", nodata=0, height=1024, width=1024,
        crs="EPSG:32633", transform=grid.transform, compress="none",
    ) as out:  # fmt: skip
        out.write(np.random.default_rng(0).integers(1, 9000, (1024, 1024)).astype(np.uint16), 1)
    server.faults = [Fault("B03", "404", skip=2)]  # after its size and its header
    with pytest.raises(ProviderError, match=r"scene 'item' cannot be used.*B03.tif") as info:
        fetch(server, grid.window(700, 700, 64, 64))
    assert not info.value.transient
    assert [r.status for r in server.requests if r.path.endswith("B03.tif")][:3] == [200, 206, 404]
    assert item["id"] == "item"


def test_a_server_of_files_that_stays_away_is_transient(server: StacServer) -> None:
    server.faults = [Fault("tif$", "503")]
    provider = StacProvider(server.url, patience=Patience(attempts=1))
    with pytest.raises(ProviderError, match=r"scene 'north-.' cannot .*503") as info:
        fetch(provider)
    assert info.value.transient


@pytest.mark.parametrize("most", [2, 12])
def test_reads_at_once_are_bounded_over_all_places(
    serve: Served, scenes_folder: Path, most: int
) -> None:
    server, host = serve(), serve(folders={"files": scenes_folder}, latency_s=0.02)
    server.add(scenes_folder)
    for asset in (a for i in server.items["sentinel-2-l2a"] for a in i["assets"].values()):
        asset["href"] = asset["href"].replace(server.url, host.url)
    provider = StacProvider(server.url, patience=QUICK, max_reads=most)
    with ThreadPoolExecutor(4) as pool:
        rasters = list(pool.map(lambda n: fetch(provider, GRID.window(n, 0, 20, 20)), range(4)))
    assert [ids(raster) for raster in rasters] == [ALL_NORTH] * 4
    assert host.peak <= most
    assert most == 2 or host.peak > 2
    time.sleep(0.05)
    assert not at_work()


def test_collections(serve: Served, tmp_path: Path) -> None:
    server = serve()
    sensor = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3", "B2"), 10, 100, "median", 0)
    make_item(server, tmp_path, "a", 1100, collection="only-one")
    assert fetch(server, SMALL, sensor=sensor).source["collection"] == "only-one"
    make_item(server, tmp_path, "b", 1200, collection="another-one")
    with pytest.raises(ProviderError, match="several collections.*only-one, another-one"):
        fetch(server, SMALL, sensor=sensor)
    make_item(server, tmp_path, "c", 1300)
    assert (fetch(server, SMALL, sensor=sensor).data == 1300).all()
    assert (fetch(server, SMALL, collection="another-one").data == 1200).all()
    with pytest.raises(ProviderError, match="'only-on'.*did you mean 'only-one'"):
        fetch(server, SMALL, collection="only-on")
    with pytest.raises(ProviderError, match="B9.*the bands that exist are .*red"):
        fetch(server, SMALL, bands=("B4", "B3", "B9"))


def test_items_that_are_none_are_left_out_and_told(serve: Served, tmp_path: Path) -> None:
    server = serve()
    make_item(server, tmp_path, "good")
    said = {"s2:processing_baseline": "unknown"}
    make_item(server, tmp_path, "odd", properties=said, day="2023-06-09T10:00:00Z")
    raster = fetch(server, SMALL)
    assert ids(raster) == ["good"]
    assert "such as '05.09'" in raster.source["left_out"]["odd"]
    assert raster.notes[-1].startswith("1 items that cannot be used were left out: odd")
    del make_item(server, tmp_path, "bare")["assets"]["red"]["href"]
    raster = fetch(server, SMALL)
    assert ids(raster) == ["good"]
    assert "KeyError: 'href'" in raster.source["left_out"]["bare"]
    july = TemporalSpec.range("2023-07-01", "2023-08-01")
    make_item(server, tmp_path, "newest", properties=said, day="2023-07-09T10:00:00Z")
    with pytest.raises(
        ProviderError, match=r"0 scenes .*used \(1 cannot; newest: .*one is from 2023"
    ):
        fetch(server, SMALL, july)


def test_pages_that_come_again_are_an_error(server: StacServer) -> None:
    server.page, server.repeats = 2, True
    with pytest.raises(ProviderError, match="search' returned no new items on 4 pages after 2"):
        StacProvider(server.url, patience=QUICK).fetch(GRID, temporal=JUNE, sensor=SENSOR)


def test_items_of_one_id_are_not_confused(serve: Served, tmp_path: Path) -> None:
    server = serve()
    features = [make_item(server, tmp_path, "same", n, collection=f"c{n}") for n in (1100, 2200)]
    for feature in features:
        del feature["collection"], feature["links"]
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    raster = fetch(StacProvider(path, patience=QUICK), SMALL)
    assert (raster.data == 1650).all()


def test_the_finest_asset_of_a_band_is_taken(serve: Served, tmp_path: Path) -> None:
    server = serve()
    assets = make_item(server, tmp_path, "item")["assets"]
    for band, colour in (("B04", "red"), ("B03", "green"), ("B02", "blue")):
        fine = {**assets.pop(colour), "gsd": 10, "eo:bands": [{"name": band}]}
        coarse = {**fine, "gsd": 60, "href": assets["scl"]["href"]}
        assets.update({f"{band}_60m": coarse, f"{band}_10m": fine})
    raster = fetch(server, SMALL)
    files = raster.source["items"][0]["files"]
    assert [path.rsplit("/", 1)[1] for path in files] == ["B04.tif", "B03.tif", "B02.tif"]


@pytest.mark.parametrize("kind", ["404", "503"])
def test_a_url_that_failed_once_is_not_lost_to_other_providers(
    serve: Served, tmp_path: Path, kind: str
) -> None:
    server = serve()
    item = make_item(server, tmp_path, "item")
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    server.faults = [Fault("B03", kind)]
    once = LocalProvider(path, patience=Patience(attempts=1))
    with pytest.raises(ProviderError, match=f"code: {kind}"):
        once.fetch(SMALL, temporal=JUNE, sensor=SENSOR)
    server.faults = []
    raster = LocalProvider(path).fetch(SMALL, temporal=JUNE, sensor=SENSOR)
    assert (raster.data == 1500).all()


@pytest.mark.parametrize(("readers", "most"), [(-1, 16), (8, 0)])
def test_readers_that_could_never_read(readers: int, most: int) -> None:
    with pytest.raises(ProviderError, match=f"got readers={readers} and max_reads={most}, expec"):
        StacProvider(readers=readers, max_reads=most)


@pytest.mark.parametrize("kind", ["median", "mosaic"])
@pytest.mark.parametrize("shift", [0, 3.7])
def test_threads_read_the_same(server: StacServer, kind: Any, shift: float) -> None:
    grid = GRID.window(-10, 0, 60, 40)
    grid = Grid(grid.crs, Affine.translation(shift, -shift) @ grid.transform, grid.shape)
    one_by_one, at_once = (
        fetch(StacProvider(server.url, patience=QUICK, readers=n), grid, composite=kind)
        for n in (0, 8)
    )
    assert np.array_equal(one_by_one.data, at_once.data)
    assert np.array_equal(one_by_one.valid, at_once.valid)
    assert one_by_one.source == at_once.source


def test_static_catalogues_on_disk(server: StacServer, tmp_path: Path) -> None:
    folder = write_contract_scenes(tmp_path / "scenes")
    top = link_catalogue(folder)
    expected = fetch(server)
    features = [json.loads(path.read_text()) for path in sorted(folder.glob("*/*.json"))]
    for feature in features:
        for asset in feature["assets"].values():
            asset["href"] = f"./{feature['id']}/{asset['href']}"
    collected = folder / "items.json"
    collected.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    for path in (top, folder / "collection.json", str(collected)):
        raster = fetch(StacProvider(path, patience=QUICK))
        assert np.array_equal(raster.data, expected.data)
        assert ids(raster) == ALL_NORTH


def test_a_static_catalogue_with_holes(serve: Served, tmp_path: Path) -> None:
    folder = write_contract_scenes(tmp_path / "scenes")
    link_catalogue(folder)
    (folder / "north-2/north-2.json").unlink()
    (folder / "north-7/north-7.json").write_text("<html>")
    server = serve(folders={"files": folder})
    provider = StacProvider(f"{server.url}/files/catalog.json", patience=QUICK)
    raster = fetch(provider)
    assert ids(raster) == ["north-1"]
    assert sorted(name.rsplit("/", 1)[1] for name in raster.source["left_out"]) == [
        "north-2.json", "north-7.json",
    ]  # fmt: skip
    server.faults = [Fault("north-1.json", "503")]
    other = StacProvider(f"{server.url}/files/catalog.json", patience=QUICK)
    with pytest.raises(ProviderError, match="answered HTTP 503") as info:
        fetch(other)
    assert info.value.transient
    server.faults = []
    assert ids(fetch(other)) == ["north-1"]


def test_an_empty_static_catalogue(serve: Served, tmp_path: Path) -> None:
    top = {"type": "Catalog", "id": "t", "stac_version": "1.0.0", "description": "", "links": []}
    (tmp_path / "catalog.json").write_text(json.dumps(top))
    with pytest.raises(ProviderError, match="no imagery in .*no items and no search"):
        StacProvider(tmp_path / "catalog.json").check_sensor(SENSOR)


def test_public_buckets_are_read_without_an_account(
    server: StacServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fetch(server).data
    for asset in (a for i in server.items["sentinel-2-l2a"] for a in i["assets"].values()):
        asset["href"] = asset["href"].replace(f"{server.url}/", "s3://")
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.url.removeprefix("http://"))
    monkeypatch.setenv("AWS_HTTPS", "NO")
    monkeypatch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
    raster = fetch(server)
    assert np.array_equal(raster.data, expected)
    assert raster.source["items"][0]["files"][0] == "s3://files/north-1/B4.tif"
    assert not [r for r in server.requests if "Authorization" in r.headers]


def test_status_identity_and_cost(
    server: StacServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    provider = StacProvider()
    assert provider.configured()
    assert provider.status() == "ready: earth-search (https://earth-search.aws.element84.com/v1)"
    planetary = StacProvider("planetary-computer")
    assert planetary.status().startswith("ready: planetary-computer (https://planetarycomputer.")
    assert "sas" in planetary.identity()
    secret = StacProvider(Address("http://me:hush@a/?key=hush", "http://me:hush@b/sas?key=hush"))
    assert secret.identity().startswith("http://a/ signed by http://b/sas,")
    assert planetary.identity() != provider.identity()
    monkeypatch.setenv("RS_EMBED_STAC", server.url)
    provider = StacProvider()
    assert provider.status(online=True) == f"ready: {server.url}"
    assert ids(fetch(provider)) == ALL_NORTH
    assert not [r for r in server.requests if r.status >= 400]
    with pytest.raises(ProviderError, match="got the STAC catalogue 'earth-serch', expected"):
        StacProvider("earth-serch").status()
    with pytest.raises(ProviderError, match="expected .* path"):
        StacProvider(tmp_path / "nothing.json").identity()
    cost = provider.cost(GRID.window(0, 0, 1024, 1024), sensor=SENSOR)
    # Four tiles of a file on average, and its header; three files.
    assert cost.requests == 1
    assert "about 15 reads and 18 MB" in cost.more


def test_no_pystac_client(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['pystac_client'] = None\n"
        "import importlib.util; importlib.util.find_spec = lambda name, *a: None\n"
        "from rs_embed.providers.stac.provider import StacProvider\n"
        "print(StacProvider().configured(), StacProvider().status())\n"
        "from rs_embed.specs import SensorSpec\n"
        "try:\n"
        "    StacProvider().check_sensor(SensorSpec('a', ('b',)))\n"
        "except ImportError as exc:\n"
        "    print(exc)\n"
        "print('pystac' in sys.modules, 'rasterio' in sys.modules)\n"
    )
    done = completed("-c", script, env=python_environment(), fresh=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("False missing: the package pystac-client is not installed; pip ")
    assert "pip install '.[stac]'" in said[1]
    assert said[2] == "False False"


@pytest.mark.filterwarnings("ignore")  # of the reference
@pytest.mark.parametrize(("shift", "resampling"), [(0, "nearest"), (3.7, "bilinear")])
def test_odc_stac_loads_the_same(server: StacServer, shift: float, resampling: str) -> None:
    odc_stac = pytest.importorskip("odc.stac")
    from odc.geo.geobox import GeoBox

    grid = GRID.window(-10, 0, 60, 40)
    grid = Grid(grid.crs, Affine.translation(shift, -shift) @ grid.transform, grid.shape)
    items = [pystac.Item.from_dict(i) for i in server.items["sentinel-2-l2a"]]
    north = [item for item in items if item.id in ALL_NORTH]
    theirs = odc_stac.load(
        north, geobox=GeoBox(grid.shape, Affine(*tuple(grid.transform)[:6]), "EPSG:32633"),
        resampling=resampling, bands=("red", "green", "blue"), groupby="id", chunks=None,
    )  # fmt: skip
    stack = np.stack([theirs[band].values for band in ("red", "green", "blue")], 1).astype(float)
    expected = np.nanmedian(np.where(stack == 0, np.nan, stack), axis=0)
    raster = fetch(server, grid)
    difference = np.abs(raster.data - expected)[:, raster.valid]
    assert raster.source["resampling"] == ["none" if not shift else "bilinear"]
    if shift:
        assert raster.valid.mean() > 0.9
        # Next to nodata theirs mixes fewer pixels; elsewhere rounding is the only difference.
        assert np.quantile(difference, 0.98) <= 2
    else:
        assert raster.valid.all()
        assert difference.max() == 0


def test_a_place_is_embedded(server: StacServer) -> None:
    provider = StacProvider(server.url, patience=QUICK)
    place = PointBuffer(15.0074, 46.9471, 200)
    embedding = get_embedding(
        "scalemae", spatial=place, temporal=JUNE, backend=provider, weights="random-init",
        variant="tiny", image_size=256,
    )  # fmt: skip
    assert embedding.meta["backend"] == "stac"
    assert embedding.meta["source"]["image_count"] == 2  # less than 30 % cloud
    assert embedding.meta["source"]["resampling"] == ["none"]
    assert embedding.meta["reflectance_source"] == "imagery"
    assert np.isfinite(embedding.data).all()
    seen = inspect_input("scalemae", spatial=place, temporal=JUNE, backend=provider, image_size=256)
    assert embedding.image is not None
    assert np.array_equal(seen.image, embedding.image)
    assert seen.meta["source"] == embedding.meta["source"]


@pytest.mark.parametrize("cloud_mask", [None, "scl"])
def test_real_scenes_equal_those_read_from_disk(
    serve: Served, shared_data: Path, cloud_mask: Any
) -> None:
    folder = shared_data / "s2/33tw_202308"
    server = serve()
    server.add(folder)
    sensor = SensorSpec(
        "sentinel-2-l2a", ("B4", "B3", "B2"), 120, 60, "median", 0, cloud_mask=cloud_mask
    )
    grid = Grid(known_crs(32633), Affine(120, 0, 520020, 0, -120, 5120020), (200, 120))
    august = TemporalSpec.range("2023-08-01", "2023-09-01")
    ours = fetch(server, grid, august, sensor)
    local = LocalProvider(folder).fetch(grid, temporal=august, sensor=sensor)
    assert np.array_equal(ours.data, local.data)
    assert np.array_equal(ours.valid, local.valid)
    assert ours.valid.mean() > 0.9
    assert ids(ours) == ids(local)
    assert ours.reflectance == local.reflectance
    assert len(ids(ours)) > 4


def pixels_of(provider: StacProvider) -> NDArray[Any]:
    return fetch(provider).data


@pytest.mark.parametrize("used", [False, True])
def test_another_process_fetches_the_same(serve: Served, scenes_folder: Path, used: bool) -> None:
    """With a catalogue, tokens and connections of its own."""
    server = serve()
    server.add(scenes_folder)
    provider = StacProvider(
        Address(server.url, f"{server.url}/sas"), patience=QUICK, readers=FEW, max_reads=3
    )
    expected = pixels_of(provider)
    server.requests.clear()
    here = provider if used else StacProvider(Address(server.url, f"{server.url}/sas"))
    there = called(pixels_of, here, env=python_environment())
    assert np.array_equal(there, expected)
    assert server.paths("/sas/token/")
    assert server.paths("/search$")


INTERRUPTED = """
import sys, threading
from rs_embed import PointBuffer, TemporalSpec, get_embedding, get_embeddings_batch
from rs_embed.providers.stac.provider import StacProvider
network = dict(weights="random-init", variant="tiny", image_size=224)
# Everything is imported and loaded before the signal: imports of others may swallow it.
get_embedding("scalemae", spatial=PointBuffer(-75.6156, 37.6942, 640), backend="sample", **network)
places = [PointBuffer(15.0074 + 1e-5 * i, 46.9471, 200) for i in range(1_000)]
print("ready", flush=True)
get_embeddings_batch("scalemae", spatials=places, backend=StacProvider(sys.argv[1]),
                     temporal=TemporalSpec.range("2023-06-01", "2023-07-01"),
                     progress=False, **network)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGINT of a process group")
def test_ctrl_c_waits_for_no_slow_read(server: StacServer) -> None:
    server.latency_s = 0.5
    with running("-c", INTERRUPTED, server.url, env=python_environment()) as process:
        assert line_of(process) == "ready\n", errors_of(process)
        while not server.paths("tif$"):
            assert process.poll() is None, errors_of(process)
            time.sleep(0.05)
        server.latency_s = 600  # what a read would take that is waited for
        time.sleep(0.8)  # in the midst of such reads
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == -signal.SIGINT  # it did not crash
    assert "KeyboardInterrupt" in err
