"""Suites that tests of other packages inherit: what every provider passes. Needs pytest."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from affine import Affine

from rs_embed.errors import NoImageryError, ProviderError
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.providers.base import Provider
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec, TemporalSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIXEL_M = 10
STEPS = 100
"""Digital numbers per pixel: column 7 has its centre at 7.5 and the value 750."""
BANDS = ("B4", "B3", "B2")
_ASSETS = {"B4": "red", "B3": "green", "B2": "blue"}
SENSOR = SensorSpec("COPERNICUS/S2_SR_HARMONIZED", BANDS, PIXEL_M, 100, "median", 0)
JUNE = TemporalSpec.range("2023-06-01", "2023-07-01")


@dataclass(frozen=True)
class ContractScene:
    """A scene whose pixels store where they are: column, row and scene number in B4, B3, B2.

    Attributes
    ----------
    id : str
        Id of the item.
    number : int
        What B2 holds, times `STEPS`.
    acquired : str
        ISO date and time, UTC.
    cloud_pct : float
        Cloud cover that the item states.
    epsg : int
        CRS of its pixels of 10 m.
    left, top : int
        Outer corner of the first pixel, metres.
    wedge : bool
        Whether its western corner is nodata.
    shape : tuple of int
        Height and width, pixels.
    """

    id: str
    number: int
    acquired: str
    cloud_pct: float
    epsg: int
    left: int
    top: int
    wedge: bool = False
    shape: tuple[int, int] = (96, 120)

    @property
    def grid(self) -> Grid:
        """Its own grid."""
        transform = Affine(PIXEL_M, 0, self.left, 0, -PIXEL_M, self.top)
        return Grid(known_crs(self.epsg), transform, self.shape)

    @property
    def pixels(self) -> NDArray[np.uint16]:
        """Digital numbers ``(3, height, width)``, 0 where nothing is valid."""
        rows, columns = np.mgrid[: self.shape[0], : self.shape[1]]
        numbers = np.full(self.shape, self.number)
        data = np.stack([(columns + 0.5) * STEPS, (rows + 0.5) * STEPS, numbers * STEPS])
        if self.wedge:
            data[:, columns < 60 - rows] = 0
        return data.astype(np.uint16)


NORTH = (
    ContractScene("north-1", 1, "2023-06-01T00:00:00Z", 5, 32633, 500000, 5200000),
    ContractScene("north-2", 2, "2023-06-11T23:59:00Z", 20, 32633, 500000, 5200000, wedge=True),
    ContractScene("north-7", 7, "2023-06-21T10:00:00Z", 60, 32633, 500000, 5200000),
)
SOUTH = ContractScene("south-4", 4, "2023-06-05T07:30:00Z", 1, 32737, 530000, 9130000)
# The same ground in two zones: 12 degrees east, 47 north.
ZONES = (
    ContractScene("zone-32", 5, "2023-08-01T10:00:00Z", 0, 32632, 727500, 5209800),
    ContractScene("zone-33", 6, "2023-08-01T10:00:30Z", 0, 32633, 272200, 5209900),
)
SCENES = (*NORTH, SOUTH, *ZONES)


def write_contract_scenes(folder: Path, scenes: Sequence[ContractScene] = SCENES) -> Path:
    """Write scenes as STAC items with one COG per band, and return ``folder``.

    Each item is at ``<id>/<id>.json`` with relative hrefs beside its files.
    """
    import rasterio

    for scene in scenes:
        home = folder / scene.id
        home.mkdir(parents=True)
        for band, values in zip(BANDS, scene.pixels, strict=True):
            with rasterio.open(
                home / f"{band}.tif", "w", driver="COG", count=1, dtype="uint16", nodata=0,
                height=scene.shape[0], width=scene.shape[1], crs=f"EPSG:{scene.epsg}",
                transform=scene.grid.transform,
            ) as file:  # fmt: skip
                file.write(values, 1)
        (home / f"{scene.id}.json").write_text(json.dumps(contract_item(scene)))
    return folder


def contract_item(scene: ContractScene) -> dict[str, Any]:
    """Return the STAC item of a scene, hrefs relative to it."""
    west, south, east, north = scene.grid.geographic_bounds()
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": scene.id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": scene.acquired,
            "eo:cloud_cover": scene.cloud_pct,
            "proj:epsg": scene.epsg,
            "s2:processing_baseline": "05.09",
            "earthsearch:boa_offset_applied": True,
        },
        "links": [],
        "assets": {
            _ASSETS[band]: {
                "href": f"./{band}.tif",
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data", "reflectance"],
                "eo:bands": [{"name": _ASSETS[band], "common_name": _ASSETS[band]}],
                "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
            }
            for band in BANDS
        },
    }


class ProviderContract:
    """What every provider of dated imagery must do, on the scenes of `write_contract_scenes`.

    A test class inherits it and defines a fixture ``provider`` that serves these scenes, from
    ``contract_scenes`` (the folder) or a server of its own. A class that an entry point names is
    also built by ``from_settings``::

        class TestMine(ProviderContract):
            @pytest.fixture
            def provider(self, contract_scenes):
                return MyProvider(contract_scenes)
    """

    sensor = SENSOR
    """The sensor of the requests; replace its collection if another one has the scenes."""

    @pytest.fixture(scope="class")
    @classmethod
    def contract_scenes(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder with the scenes."""
        return write_contract_scenes(tmp_path_factory.mktemp("contract"))

    @pytest.fixture
    def provider(self) -> Provider:
        """Return the provider under test."""
        raise NotImplementedError

    def fetch(
        self, provider: Provider, grid: Grid, period: TemporalSpec = JUNE, **changes: Any
    ) -> Raster:
        """Return the pixels of ``grid``, having checked the sensor."""
        sensor = replace(self.sensor, **changes)
        provider.check_sensor(sensor)
        return provider.fetch(grid, temporal=period, sensor=sensor)

    def test_name_and_status(self, provider: Provider) -> None:
        """It has a name and dates, and its status is one line that says that it is ready."""
        assert provider.name
        assert provider.dated
        assert provider.status().startswith("ready: ")
        assert provider.status(online=True).startswith("ready: ")
        assert "\n" not in provider.status(online=True)

    def test_cost(self, provider: Provider) -> None:
        """It grows with the place."""
        small, large = (
            provider.cost(NORTH[0].grid.window(0, 0, side, side), sensor=self.sensor)
            for side in (64, 4096)
        )
        assert small.requests <= large.requests
        assert small.download_bytes <= large.download_bytes

    def test_identity(self, provider: Provider) -> None:
        """It stays the same as long as nothing changes."""
        before = provider.identity()
        assert before
        self.fetch(provider, NORTH[0].grid.window(20, 70, 20, 20))
        assert provider.identity() == before

    def test_pickle(self, provider: Provider) -> None:
        """A copy of a provider that was used gives the same pixels, and is the same one."""
        grid = NORTH[0].grid.window(20, 70, 20, 20)
        raster = self.fetch(provider, grid)
        copy = pickle.loads(pickle.dumps(provider))  # noqa: S301  # our own bytes
        copied = self.fetch(copy, grid)
        assert np.array_equal(copied.data, raster.data)
        assert np.array_equal(copied.valid, raster.valid)
        assert copied.source == raster.source
        assert copy.identity() == provider.identity()

    def test_from_settings(self, provider: Provider) -> None:
        """Settings without any variable build one; its ``status`` says what is missing."""
        build = getattr(type(provider), "from_settings", None)
        if build is None:
            pytest.skip("no entry point can name a class without from_settings")
        built = build(Settings.from_environ({}))
        assert built.name == provider.name
        assert built.status().startswith(("ready: ", "missing: "))

    @pytest.mark.parametrize("scene", [NORTH[0], SOUTH], ids=lambda scene: scene.id)
    def test_pixels_on_the_lattice_are_those_of_the_file(
        self, provider: Provider, contract_scenes: Path, scene: ContractScene
    ) -> None:
        """On exactly the grid, north up, in the bands' order, bit for bit."""
        import rasterio
        from rasterio.windows import Window

        grid = scene.grid.window(10, 30, 40, 70)
        day = scene.acquired[:10]
        period = TemporalSpec.range(day, f"{day[:8]}{int(day[8:]) + 1:02}")
        for bands in (BANDS, ("B2", "B4", "B3")):
            raster = self.fetch(provider, grid, period, bands=bands)
            assert raster.grid == grid
            assert raster.bands == bands
            assert raster.valid.all()
            for band, values in zip(bands, raster.data, strict=True):
                with rasterio.open(contract_scenes / scene.id / f"{band}.tif") as file:
                    assert np.array_equal(values, file.read(1, window=Window(30, 10, 70, 40)))

    @pytest.mark.parametrize(
        ("scene", "crs", "pixel_m", "shift_m"),
        [
            (NORTH[0], "EPSG:32633", 10, 3.7),
            (NORTH[0], "EPSG:32633", 13, 0),
            (NORTH[0], "EPSG:32633", 40, 0),
            (NORTH[0], "EPSG:32632", 10, 5),
            (NORTH[0], "EPSG:3857", 10, 0),
            (SOUTH, "EPSG:32737", 10, 3.7),
            (SOUTH, "EPSG:32737", 40, 0),
            (SOUTH, "EPSG:3857", 10, 0),
        ],
    )
    def test_pixels_off_the_lattice_are_where_they_belong(
        self, provider: Provider, scene: ContractScene, crs: str, pixel_m: float, shift_m: float
    ) -> None:
        """Within a tenth of a pixel, on other lattices, pixel sizes and CRSs."""
        from pyproj import Transformer

        target = known_crs(crs)
        to_target = Transformer.from_crs(scene.grid.crs, target, always_xy=True)
        x, y = to_target.transform(scene.left + 600, scene.top - 480)
        half = pixel_m * 8
        corner = Affine(pixel_m, 0, x - half + shift_m, 0, -pixel_m, y + half - shift_m)
        grid = Grid(target, corner, (16, 15))
        period = TemporalSpec.range(scene.acquired[:10], "2023-06-10")
        raster = self.fetch(provider, grid, period)
        assert raster.grid == grid
        assert raster.valid.all()
        columns, rows = true_pixels(grid, scene)
        assert np.abs(raster.data[0] / STEPS - columns).max() < 0.1
        assert np.abs(raster.data[1] / STEPS - rows).max() < 0.1

    def test_outside_and_nodata_are_invalid(self, provider: Provider) -> None:
        """And no valid pixel is 0."""
        scene = NORTH[1]
        grid = scene.grid.window(-10, -20, 60, 90)
        raster = self.fetch(provider, grid, TemporalSpec.range("2023-06-11", "2023-06-12"))
        expected = np.zeros(grid.shape, bool)
        expected[10:, 20:] = (scene.pixels != 0).all(axis=0)[:50, :70]
        assert np.array_equal(raster.valid, expected)
        assert (raster.data[:, raster.valid] > 0).all()
        shifted = replace(grid, transform=grid.transform @ Affine.translation(0.5, 0.3))
        raster = self.fetch(provider, shifted, TemporalSpec.range("2023-06-11", "2023-06-12"))
        assert raster.valid.any()
        columns, rows = true_pixels(shifted, scene)
        off = np.maximum(abs(raster.data[0] / STEPS - columns), abs(raster.data[1] / STEPS - rows))
        assert off[raster.valid].max() < 1  # nothing was mixed with nodata

    @pytest.mark.parametrize(
        ("start", "end", "numbers"),
        [
            ("2023-06-01", "2023-06-11", {1}),
            ("2023-06-11", "2023-06-12", {2}),
            ("2023-06-02", "2023-06-11", None),
            ("2023-06-12", "2023-06-21", None),
        ],
    )
    def test_the_period_is_half_open(
        self, provider: Provider, start: str, end: str, numbers: set[int] | None
    ) -> None:
        """The start day belongs to it until midnight UTC, the end day does not."""
        grid = NORTH[0].grid.window(20, 70, 20, 20)
        period = TemporalSpec.range(start, end)
        if numbers is None:
            with pytest.raises(NoImageryError) as info:
                self.fetch(provider, grid, period)
            assert not info.value.transient
            return
        raster = self.fetch(provider, grid, period)
        assert {int(n) for n in np.unique(raster.data[2] / STEPS)} == numbers

    @pytest.mark.parametrize(
        ("cloudy_pct", "ids"),
        [
            (20, ["north-1"]),
            (20.5, ["north-1", "north-2"]),
            (100, ["north-1", "north-2", "north-7"]),
        ],
    )
    def test_scenes_have_less_cloud(
        self, provider: Provider, cloudy_pct: float, ids: list[str]
    ) -> None:
        """Strictly less; provenance names the scenes and their dates."""
        grid = NORTH[0].grid.window(20, 70, 20, 20)
        source = self.fetch(provider, grid, cloudy_pct=cloudy_pct).source
        assert [item["id"] for item in source["items"]] == ids
        assert [item["acquired"][:10] for item in source["items"]] == [
            scene.acquired[:10] for scene in NORTH[: len(ids)]
        ]
        assert source["image_count"] == len(ids)
        assert json.loads(json.dumps(source)) == source

    def test_median(self, provider: Provider) -> None:
        """The median of the valid pixels, the two middle ones averaged."""
        grid = NORTH[0].grid.window(0, 0, 60, 60)
        raster = self.fetch(provider, grid)
        stack = np.stack([scene.pixels[:, :60, :60].astype(float) for scene in NORTH])
        expected = np.nanmedian(np.where(stack == 0, np.nan, stack), axis=0)
        assert set(np.unique(expected[2])) == {2 * STEPS, 4 * STEPS}  # 1, 2, 7 and 1, 7
        assert raster.valid.all()
        assert np.array_equal(raster.data, expected)

    def test_mosaic(self, provider: Provider) -> None:
        """The latest valid pixel."""
        grid = NORTH[0].grid.window(0, 0, 60, 60)
        raster = self.fetch(provider, grid, composite="mosaic", cloudy_pct=30)
        first, second = (scene.pixels[:, :60, :60] for scene in NORTH[:2])
        assert np.array_equal(raster.data, np.where(second == 0, first, second))
        latest = self.fetch(provider, grid, composite="mosaic")
        assert (latest.data[2] == 7 * STEPS).all()

    def test_tiles_of_neighbouring_zones(self, provider: Provider) -> None:
        """Each pixel comes from one of them, and from its place in it."""
        grid = ZONES[1].grid.window(-60, -40, 180, 160)
        period = TemporalSpec.range("2023-08-01", "2023-08-02")
        raster = self.fetch(provider, grid, period, composite="mosaic")
        numbers = np.where(raster.valid, raster.data[2] // STEPS, 0)
        for scene in ZONES:
            columns, rows = true_pixels(grid, scene)
            height, width = scene.shape
            inside = (columns > 1) & (columns < width - 1) & (rows > 1) & (rows < height - 1)
            mine = inside & (numbers == scene.number)
            assert mine.sum() > 500
            assert np.abs(raster.data[0] / STEPS - columns)[mine].max() < 0.1
            assert np.abs(raster.data[1] / STEPS - rows)[mine].max() < 0.1
            assert (numbers[inside] > 0).all()

    def test_a_place_without_imagery(self, provider: Provider) -> None:
        """Is an error that is not transient."""
        grid = NORTH[0].grid.window(5000, 5000, 20, 20)
        with pytest.raises(NoImageryError) as info:
            self.fetch(provider, grid)
        assert not info.value.transient

    def test_only_clouds(self, provider: Provider) -> None:
        """Is an error that names the limit and is not transient."""
        grid = NORTH[0].grid.window(20, 70, 20, 20)
        with pytest.raises(NoImageryError, match=r"\b5\b.*cloudy_pct") as info:
            self.fetch(provider, grid, cloudy_pct=5)
        assert not info.value.transient

    @pytest.mark.parametrize(
        "change", [{"bands": ("B4", "B3", "B77")}, {"collection": "no-such-collection"}]
    )
    def test_what_it_does_not_have_is_refused(
        self, provider: Provider, change: dict[str, Any]
    ) -> None:
        """By ``check_sensor``, which reads no pixels."""
        with pytest.raises(ProviderError, match=r"B77|no-such-collection"):
            provider.check_sensor(replace(self.sensor, **change))

    def test_many_threads_get_the_same(self, provider: Provider) -> None:
        """From one provider at the same time."""
        grid = NORTH[0].grid.window(0, 0, 60, 60)
        with ThreadPoolExecutor(4) as pool:
            rasters = list(pool.map(lambda _: self.fetch(provider, grid), range(8)))
        for raster in rasters[1:]:
            assert np.array_equal(raster.data, rasters[0].data)
            assert raster.source == rasters[0].source


def true_pixels(grid: Grid, scene: ContractScene) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return where the centres of ``grid`` fall in a scene: columns and rows, centres at .5."""
    from pyproj import Transformer

    to_scene = Transformer.from_crs(grid.crs, scene.grid.crs, always_xy=True)
    x, y = to_scene.transform(*np.meshgrid(grid.x, grid.y))
    columns, rows = ~scene.grid.transform @ (x, y)
    return columns, rows
