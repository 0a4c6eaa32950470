"""From a request to pixels: an array, imagery of one's own, or a provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rs_embed.errors import (
    GsdWarning,
    ImageryError,
    ProviderError,
    SpecError,
    TemporalWarning,
    UnknownNameError,
    warn,
)
from rs_embed.preprocessing import DEFAULT_REFLECTANCE, MIN_SIDE_PX
from rs_embed.raster import Raster
from rs_embed.registry import find_provider, provider_names
from rs_embed.specs import (
    BBox,
    FetchSpec,
    OutputSpec,
    PointBuffer,
    SensorSpec,
    Spatial,
    TemporalSpec,
    to_json,
)

if TYPE_CHECKING:
    from rs_embed.grid import Grid
    from rs_embed.models.base import InputContract


@dataclass(frozen=True, eq=False)
class Acquired:
    """Pixels that were taken for a request, and what is known of them."""

    raster: Raster
    scale_m: float
    reflectance: tuple[float, float]
    vouched: bool
    meta: dict[str, Any]


@dataclass(frozen=True, eq=False)
class PixelRequest:
    """Where the pixels come from, as it was asked."""

    spatial: Spatial | None
    temporal: TemporalSpec | None
    sensor: SensorSpec | None
    fetch: FetchSpec | None
    output: OutputSpec
    backend: str
    input_chw: Any
    imagery: Any

    def check(self) -> None:
        """Raise `SpecError` where arguments are of the wrong type or contradict each other."""
        for name, value, kinds in (
            ("spatial", self.spatial, (BBox, PointBuffer)),
            ("temporal", self.temporal, (TemporalSpec,)),
            ("sensor", self.sensor, (SensorSpec,)),
            ("fetch", self.fetch, (FetchSpec,)),
            ("output", self.output, (OutputSpec,)),
        ):
            if value is not None and not isinstance(value, kinds):
                expected = " or ".join(kind.__name__ for kind in kinds)
                raise SpecError(
                    f"got {name}={value!r} ({type(value).__name__}), expected {expected}"
                )
        if self.sensor is not None and self.fetch is not None:
            raise SpecError(
                "got both sensor and fetch, expected one: sensor replaces the model's default, "
                "fetch overrides single values of it; put the values into sensor"
            )
        if self.input_chw is not None and self.imagery is not None:
            raise SpecError("got both input_chw and imagery, expected one source of pixels")
        own = next((n for n in ("input_chw", "imagery") if getattr(self, n) is not None), None)
        if own is None:
            self._check_provider()
        else:
            self._check_own(own)

    def _check_provider(self) -> None:
        if self.spatial is None:
            raise SpecError(
                "got no spatial, expected a place (PointBuffer or BBox) for a provider, or own "
                "pixels as input_chw= or imagery="
            )
        names = provider_names()
        if self.backend == "auto":
            # The sample scene is never picked unasked, and there is no other source yet.
            raise ProviderError(
                "no imagery source is configured for backend='auto'; name one of "
                f"{', '.join(names)} as backend=, or pass own pixels as imagery= or input_chw="
            )
        if self.backend not in names:
            raise UnknownNameError.among("backend", self.backend, ["auto", *names])

    def _check_own(self, own: str) -> None:
        if self.temporal is not None or self.backend != "auto":
            given = "temporal" if self.temporal is not None else "backend"
            raise SpecError(f"got {given} with {own}: own pixels are not searched by a provider")
        if own == "input_chw" and self.spatial is not None:
            raise SpecError(
                "got spatial with input_chw, which has no place to cut it from; use imagery= with "
                "Raster.from_array(..., crs=..., transform=...)"
            )
        chosen = self.sensor or self.fetch
        stated = [] if self.fetch is None else ["cloudy_pct", "composite"]
        for name in [*stated, "crs"]:
            if chosen is not None and getattr(chosen, name) is not None:
                raise SpecError(
                    f"got {name} with {own}: own pixels are neither searched nor warped"
                )

    def acquire(self, contract: InputContract) -> Acquired:
        """Return the pixels, from the caller or from a provider."""
        sensor = self.sensor
        if sensor is None:
            sensor = SensorSpec(contract.collection, contract.bands)
            if self.fetch is not None:
                sensor = sensor.with_fetch(self.fetch)
        if len(sensor.bands) != len(contract.bands):
            raise SpecError(
                f"got {len(sensor.bands)} bands {sensor.bands}, expected {len(contract.bands)} in "
                f"the order of {contract.bands}"
            )
        if self.input_chw is not None:
            raster, scale_m, scale_source = self._take_array(sensor, contract)
            meta: dict[str, Any] = {"backend": "input_chw", "temporal": None}
        elif self.imagery is not None:
            raster, scale_m, scale_source = self._take_imagery(sensor)
            meta = {"backend": "imagery", "temporal": None}
        elif self.spatial is not None:
            raster, scale_m, scale_source, meta = self._take_provided(
                self.spatial, sensor, contract
            )
        else:
            raise SpecError("got neither pixels nor a place")
        reflectance, said_by = _reflectance(sensor, raster)
        meta |= {
            "spatial": None if self.spatial is None else {
                "type": type(self.spatial).__name__, **to_json(self.spatial)
            },
            "sensor": to_json(sensor),
            "source": dict(raster.source),
            "grid": raster.grid.to_json(),
            "used_scale_m": scale_m,
            "scale_m_source": scale_source,
            "reflectance_scale": reflectance[0],
            "reflectance_offset": reflectance[1],
            "reflectance_source": said_by,
        }  # fmt: skip
        return Acquired(raster, scale_m, reflectance, said_by != "contract", meta)

    def _take_array(self, sensor: SensorSpec, contract: InputContract) -> tuple[Raster, float, str]:
        fill_value = contract.fill_value if sensor.fill_value is None else sensor.fill_value
        raster = Raster.from_array(self.input_chw, bands=sensor.bands, nodata=fill_value)
        if sensor.scale_m is not None:
            return raster, float(sensor.scale_m), "stated"
        warn(
            f"input_chw came without its GSD, so {contract.scale_m:g} m per pixel was assumed and "
            "told to the model; state it with fetch=FetchSpec(scale_m=...)",
            GsdWarning,
        )
        return raster, float(contract.scale_m), "assumed"

    def _take_imagery(self, sensor: SensorSpec) -> tuple[Raster, float, str]:
        from rs_embed.grid import gsd_m
        from rs_embed.imagery import read_imagery

        raster = read_imagery(
            self.imagery, bands=sensor.bands, spatial=self.spatial, fill_value=sensor.fill_value
        )
        read = gsd_m(raster.grid)
        if sensor.scale_m is not None and abs(sensor.scale_m / read - 1) > 0.01:
            raise ImageryError(
                f"got scale_m={sensor.scale_m:g}, but a pixel of the imagery covers {read:.6g} m "
                "on the ground; leave scale_m out, or correct the georeference"
            )
        return raster, read, "georeference"

    def _take_provided(
        self, spatial: Spatial, sensor: SensorSpec, contract: InputContract
    ) -> tuple[Raster, float, str, dict[str, Any]]:
        from rs_embed.grid import gsd_m, roi_grid

        provider = find_provider(self.backend)
        provider.check_sensor(sensor)
        scale_m = contract.scale_m if sensor.scale_m is None else sensor.scale_m
        grid = roi_grid(spatial, scale_m, sensor.crs)
        _check_size(grid, scale_m)
        temporal = self.temporal
        if temporal is None and provider.dated:
            temporal = TemporalSpec.range(*contract.temporal)
            warn(
                f"no period was given, so the model's default was taken: {temporal.start} up to "
                f"{temporal.end}; state it with temporal=TemporalSpec.range(...)",
                TemporalWarning,
            )
        raster = provider.fetch(grid, temporal=temporal, sensor=sensor)
        meta = {
            "backend": self.backend,
            "temporal": None if temporal is None else to_json(temporal),
        }
        source = "default" if sensor.scale_m is None else "stated"
        return raster, gsd_m(raster.grid), source, meta


def _check_size(grid: Grid, scale_m: float) -> None:
    height, width = grid.shape
    if min(height, width) < MIN_SIDE_PX:
        raise ImageryError(
            f"the place is {height} x {width} px at scale_m={scale_m:g}, expected a short side of "
            f"at least {MIN_SIDE_PX} px; use a larger buffer or a smaller scale_m"
        )


def _reflectance(sensor: SensorSpec, raster: Raster) -> tuple[tuple[float, float], str]:
    """Return scale and offset, and who said so: the sensor, else the file, else the contract."""
    if sensor.reflectance_scale is not None or sensor.reflectance_offset is not None:
        scale = (
            DEFAULT_REFLECTANCE[0] if sensor.reflectance_scale is None else sensor.reflectance_scale
        )
        return (float(scale), float(sensor.reflectance_offset or 0)), "sensor"
    if raster.reflectance is not None:
        return raster.reflectance, "imagery"
    return DEFAULT_REFLECTANCE, "contract"
