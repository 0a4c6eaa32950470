"""Which pixels: an array, imagery of one's own, or a place and period at a provider."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import install
from rs_embed.addresses import path_of, shown_path
from rs_embed.embedding.arguments import fetch_of, imagery_of, period_of
from rs_embed.embedding.checks import MIN_SIDE_PX, check_side
from rs_embed.errors import (
    ImageryError,
    ImageryWarning,
    NoImageryError,
    Note,
    ProviderError,
    SpecError,
    TemporalWarning,
    UnknownNameError,
)
from rs_embed.files.identity import imagery_identity
from rs_embed.files.imagery import read_imagery
from rs_embed.geo.grid import MAX_PIXELS, Grid, gsd_m, roi_grid
from rs_embed.geo.raster import Raster
from rs_embed.providers.cache import CachedProvider, PatchCache, open_cache
from rs_embed.providers.scenes.joined import JoinedFiles
from rs_embed.registry import AUTO_ORDER, find_provider, first_configured, provider_names
from rs_embed.settings import LOCAL, Settings
from rs_embed.specs import (
    BBox,
    FetchSpec,
    PointBuffer,
    SensorSpec,
    Spatial,
    TemporalSpec,
    to_json,
)

if TYPE_CHECKING:
    from rs_embed.models.base import InputContract
    from rs_embed.providers.base import Cost, Provider

_log = logging.getLogger("rs_embed")
# What a provider searches or warps by, and own pixels cannot honour.
_ONLY_PROVIDERS = [f.name for f in fields(FetchSpec) if f.name not in ("scale_m", "fill_value")]
# Digital numbers of Sentinel-2: reflectance = value * scale + offset.
DEFAULT_REFLECTANCE = (1 / 10000, 0.0)


@dataclass(frozen=True, eq=False)
class Acquired:
    """The pixels of one place, and what is known of them.

    Attributes
    ----------
    raster : Raster
        Raw values.
    scale_m : float
        Ground metres per pixel.
    reflectance : tuple of float
        Scale and offset: reflectance = value * scale + offset.
    vouched : bool
        Whether the caller or the imagery states the units.
    meta : dict
        JSON values for ``Embedding.meta``.
    notes : tuple of Note
        Warnings to give.
    """

    raster: Raster
    scale_m: float
    reflectance: tuple[float, float]
    vouched: bool
    meta: dict[str, Any]
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """Which pixels are wanted: own ones, or a place and period at a provider. Picklable.

    Attributes
    ----------
    spatial : BBox, PointBuffer or None
        The place.
    shape : shapely geometry or None
        What of the place is pooled over, longitude and latitude; None is all of it. A place that
        is smaller than an image must be is then read with its surroundings.
    temporal : TemporalSpec or None
        The period; None is the model's default.
    sensor, fetch : SensorSpec, FetchSpec or None
        What replaces the model's default sensor, or overrides single values of it.
    backend : str or Provider
        Where pixels come from.
    input_chw, imagery : object
        Own pixels instead.
    cache : path, PatchCache or None
        Where pixels of providers are kept.
    window : Grid or None
        The grid to read or request, instead of that of ``spatial``; on the lattice of the imagery.
    provider : Provider or None
        The provider, once it is found; see `resolved`.
    backend_stated : str or None
        The backend as it was stated, perhaps ``"auto"``; set with the provider.
    """

    spatial: Spatial | None = None
    shape: Any = None
    temporal: TemporalSpec | None = None
    sensor: SensorSpec | None = None
    fetch: FetchSpec | None = None
    backend: str | os.PathLike[str] | Provider = "auto"
    input_chw: Any = None
    imagery: Any = None
    cache: str | os.PathLike[str] | PatchCache | None = None
    window: Grid | None = None
    provider: Provider | None = None
    backend_stated: str | None = None

    def __post_init__(self) -> None:
        for name, meant in (("temporal", period_of), ("fetch", fetch_of), ("imagery", imagery_of)):
            object.__setattr__(self, name, meant(getattr(self, name)))

    def check(self) -> None:
        """Raise `SpecError` where arguments are of the wrong type or contradict each other."""
        self._check_types()
        if self.sensor is not None and self.fetch is not None:
            raise SpecError(
                "got both sensor and fetch (or scale_m), expected one: sensor replaces the model's "
                "default, fetch overrides single values of it; put the values into sensor"
            )
        if self.input_chw is not None and self.imagery is not None:
            raise SpecError("got both input_chw and imagery, expected one source of pixels")
        own = next((n for n in ("input_chw", "imagery") if getattr(self, n) is not None), None)
        if own is not None:
            self._check_own(own)
        elif self.spatial is None and self.window is None:
            raise SpecError(
                "got no spatial, expected a place (PointBuffer or BBox) for a provider, or own "
                "pixels as input_chw= or imagery="
            )

    @property
    def own_pixels(self) -> bool:
        """Whether the pixels are the caller's, not a provider's."""
        return self.input_chw is not None or self.imagery is not None

    def resolved(self, settings: Settings) -> Source:
        """Return the source, checked, with its provider found if it needs one.

        What ``backend="auto"`` chose is logged, and stays: no place goes on to another provider.

        Raises
        ------
        SpecError
            See `check`; `UnknownNameError` for the backend.
        ProviderError
            If there is no source of imagery.
        SettingsError
            If the folder of ``RS_EMBED_CACHE_DIR`` cannot be used.
        """
        self.check()
        return self if self.own_pixels else self.with_provider(settings)

    def with_provider(self, settings: Settings) -> Source:
        """Return the source with its provider found; see `resolved`."""
        provider = resolved_provider(self.backend, settings)
        named = isinstance(self.backend, str) and self.backend in ("auto", *provider_names())
        stated = str(self.backend) if named else provider.name
        name = provider.name if stated == "auto" else stated
        if stated == "auto":
            _log.info("backend='auto' takes %r (%s)", name, provider.status())
        cache = open_cache(self.cache, settings)
        if cache is not None:
            provider = CachedProvider(provider, cache)
        return replace(self, backend=name, provider=provider, backend_stated=stated)

    def settled(self, contract: InputContract) -> dict[str, Any]:
        """Return what identifies the pixels of all places, as JSON values; see `identity`.

        Raises
        ------
        SpecError
            If the sensor has another number of bands than the model, or ``imagery`` is computed
            when it is read.
        RsEmbedError
            If the provider does not know what it serves.
        """
        stated = self._stated(contract)
        if self.imagery is not None:
            # There scale_m is only a check.
            return {
                "imagery": imagery_identity(self.imagery),
                "sensor": to_json(replace(stated, scale_m=None)),
            }
        if self.input_chw is not None:
            raster = self._from_array(stated, contract).raster
            return {"imagery": imagery_identity(raster), "sensor": to_json(stated)}
        provider = self.provider
        if provider is None:
            raise SpecError("got a source without provider, expected Source.resolved() before")
        period, _ = self._period(contract, dated=provider.dated)
        return {
            "backend": {"name": provider.name, "identity": provider.identity()},
            "temporal": None if period is None else to_json(period),
            "sensor": to_json(contract_defaults(stated, contract)),
        }

    def check_source(self, contract: InputContract) -> None:
        """Raise the provider's objections to the sensor, before any place is read.

        Raises
        ------
        SpecError
            If the sensor has another number of bands than the model.
        ProviderError
            If the provider has no such imagery.
        """
        stated = self._stated(contract)
        if self.provider is not None:
            self.provider.check_sensor(stated)

    def check_gsd(self, grid: Grid, contract: InputContract) -> None:
        """Raise `ImageryError` if the stated GSD differs from that of a grid."""
        _check_stated_gsd(self._stated(contract), grid)

    def _check_types(self) -> None:
        """Raise `SpecError` where arguments are of the wrong type."""
        for name, value, kinds in (
            ("spatial", self.spatial, (BBox, PointBuffer)),
            ("sensor", self.sensor, (SensorSpec,)),
            ("fetch", self.fetch, (FetchSpec,)),
        ):
            check_type(name, value, kinds)

    def label(self) -> str:
        """Return a name for this place, for messages about a batch."""
        if self.input_chw is not None:
            return f"an array of shape {getattr(self.input_chw, 'shape', 'unknown')}"
        place = "" if self.spatial is None else repr(self.spatial)
        if isinstance(self.imagery, str | os.PathLike):
            return " of ".join(filter(None, (place, shown_path(os.fspath(self.imagery)))))
        if isinstance(self.imagery, JoinedFiles):
            return " of ".join(filter(None, (place, str(self.imagery))))
        return place or f"a {type(self.imagery).__name__}"

    def _check_own(self, own: str) -> None:
        if self.cache is not None:
            raise SpecError(f"got cache with {own}: only the pixels of a provider are kept")
        if self.temporal is not None or self.backend != "auto":
            given = "temporal" if self.temporal is not None else "backend"
            raise SpecError(f"got {given} with {own}: own pixels are not searched by a provider")
        if own == "input_chw" and self.spatial is not None:
            raise SpecError(
                "got spatial with input_chw, which has no place to cut it from; use imagery= with "
                "Raster.from_array(..., crs=..., transform=...)"
            )
        for name in _ONLY_PROVIDERS:
            if getattr(self.sensor or self.fetch, name, None) is not None:
                raise SpecError(
                    f"got {name} with {own}: own pixels are neither searched nor warped"
                )

    def acquire(self, contract: InputContract, fit: Callable[[Grid], Grid]) -> Acquired:
        """Return the pixels, from the caller or from a provider; runs in any thread.

        Parameters
        ----------
        contract : InputContract
            What the model expects.
        fit : callable
            Returns the window to read instead of the place's own, on the same lattice; not called
            if all of the caller's own pixels are used.

        Raises
        ------
        SpecError
            If the sensor has another number of bands than the model.
        ImageryError, GridError, ProviderError
            See ``get_embedding``.
        """
        stated = self._stated(contract)
        if self.input_chw is not None:
            acquired = self._from_array(stated, contract)
        elif self.imagery is not None:
            acquired = self._from_imagery(stated, fit)
        else:
            acquired = self._from_provider(stated, contract, fit)
        spatial = self.spatial
        acquired.meta.update(
            spatial=spatial and {"type": type(spatial).__name__, **to_json(spatial)},
            source=dict(acquired.raster.source),
            grid=acquired.raster.grid.to_json(),
            used_scale_m=acquired.scale_m,
            reflectance_scale=acquired.reflectance[0],
            reflectance_offset=acquired.reflectance[1],
        )
        return acquired

    def expected(
        self, contract: InputContract, fit: Callable[[Grid], Grid]
    ) -> tuple[Grid, Cost] | None:
        """Return the grid that `acquire` would ask a provider for, and what that costs.

        Nothing is requested from the provider. None for own pixels.

        Raises
        ------
        SpecError, ImageryError, GridError, ProviderError
            What `acquire` raises before it asks for pixels.
        """
        if self.own_pixels or self.provider is None:
            return None
        sensor, grid = self._for_provider(self._stated(contract), contract, fit)
        return grid, self.provider.cost(grid, sensor=sensor)

    def settled_sensor(self, contract: InputContract) -> SensorSpec:
        """Return the sensor that a provider would receive: with all defaults.

        Raises
        ------
        SpecError
            If the sensor has another number of bands than the model.
        """
        return contract_defaults(self._stated(contract), contract)

    def _stated(self, contract: InputContract) -> SensorSpec:
        """Return the model's sensor, or the caller's, with what ``fetch`` overrides."""
        stated = self.sensor or SensorSpec(contract.collection, contract.bands)
        stated = stated.with_fetch(self.fetch) if self.fetch is not None else stated
        if len(stated.bands) != len(contract.bands):
            raise SpecError(
                f"got {len(stated.bands)} bands {stated.bands}, expected {len(contract.bands)} in "
                f"the order of {contract.bands}"
            )
        return stated

    def _from_array(self, stated: SensorSpec, contract: InputContract) -> Acquired:
        if hasattr(self.input_chw, "rio") and self.input_chw.rio.crs is not None:
            raise ImageryError(
                "got input_chw with a CRS, whose place and GSD would be lost; pass it as imagery="
            )
        shape: tuple[int, ...] = tuple(getattr(self.input_chw, "shape", ()))
        if len(shape) == 3 and math.prod(shape[1:]) > MAX_PIXELS:
            raise ImageryError(
                f"got input_chw of {shape[1]} x {shape[2]} px, expected at most {MAX_PIXELS:,} px; "
                "pass parts of it, or map it as imagery= with embed_area"
            )
        nodata = contract.fill_value if stated.fill_value is None else stated.fill_value
        raster = Raster.from_array(self.input_chw, bands=stated.bands, nodata=nodata)
        if stated.scale_m is not None:
            return self._own(raster, stated, float(stated.scale_m), "stated")
        return self._own(raster, stated, float(contract.scale_m), "assumed")

    def _from_imagery(self, stated: SensorSpec, fit: Callable[[Grid], Grid]) -> Acquired:
        raster = read_imagery(
            self.imagery,
            bands=stated.bands,
            spatial=self.spatial,
            fill_value=stated.fill_value,
            fit=lambda window: fit(self._with_surroundings(window)),
            window=self.window,
        )
        _check_stated_gsd(stated, raster.grid)
        read = gsd_m(raster.grid)
        if self.spatial is not None:
            check_side(raster.grid, "the place is", read)
        return self._own(raster, stated, read, "georeference")

    def _own(self, raster: Raster, stated: SensorSpec, scale_m: float, scale_from: str) -> Acquired:
        """Return own pixels; ``meta`` names a sensor only where the caller did."""
        meta = {
            "backend": "imagery" if self.input_chw is None else "input_chw",
            "backend_asked": None,
            "temporal": None,
            "sensor": None if self.sensor is None else to_json(self.sensor),
            "scale_m_source": scale_from,
        }
        return _with_units(raster, stated, scale_m, meta, ())

    def _from_provider(
        self, stated: SensorSpec, contract: InputContract, fit: Callable[[Grid], Grid]
    ) -> Acquired:
        provider = self.provider
        if provider is None:
            raise SpecError("got a source without provider, expected Source.resolved() before")
        provider.check_sensor(stated)
        sensor, grid = self._for_provider(stated, contract, fit)
        temporal, notes = self._period(contract, dated=provider.dated)
        try:
            raster = provider.fetch(grid, temporal=temporal, sensor=sensor)
        except NoImageryError as exc:
            if temporal is None or self.temporal is not None:
                raise
            message = (
                f"{exc}; no period was given, so the model's default was used: state temporal="
            )
            raise NoImageryError(message) from exc
        if raster.grid != grid or raster.bands != sensor.bands:
            raise ProviderError(
                f"backend={self.backend!r} returned {raster.bands} on {raster.grid.to_json()}, "
                f"expected {sensor.bands} on {grid.to_json()}; report it to its authors"
            )
        meta = {
            "backend": self.backend,
            "backend_asked": self.backend_stated,
            "temporal": None if temporal is None else to_json(temporal),
            "sensor": to_json(sensor),
            "scale_m_source": "default" if stated.scale_m is None else "stated",
        }
        return _with_units(raster, stated, gsd_m(grid), meta, notes)

    def _for_provider(
        self, stated: SensorSpec, contract: InputContract, fit: Callable[[Grid], Grid]
    ) -> tuple[SensorSpec, Grid]:
        """Return the sensor with all defaults, and the grid to sample it on."""
        sensor = contract_defaults(stated, contract)
        if self.window is not None:
            return sensor, self.window
        if self.spatial is None or sensor.scale_m is None:
            raise SpecError("got no spatial or scale_m, expected both")
        grid = roi_grid(self.spatial, sensor.scale_m, sensor.crs)
        if self.shape is None:
            check_side(grid, "the place is", sensor.scale_m)
        return sensor, fit(self._with_surroundings(grid))

    def _with_surroundings(self, grid: Grid) -> Grid:
        """Return the window of a place, grown to the least size if only a part is pooled over."""
        if self.shape is None:
            return grid
        return grid.enlarged(*(max(side, MIN_SIDE_PX) for side in grid.shape))

    def _period(
        self, contract: InputContract, *, dated: bool
    ) -> tuple[TemporalSpec | None, tuple[Note, ...]]:
        """Return the period to fetch: as stated, the model's default, or None if none applies."""
        if dated and self.temporal is not None:
            return self.temporal, ()
        if dated:
            period = TemporalSpec.range(*contract.temporal)
            message = (
                f"no period was given, so the model's default was used: {period.start} up to "
                f"{period.end}; state it with temporal='{period.start}/{period.end}'"
            )
            return period, (Note(message, TemporalWarning),)
        if self.temporal is None:
            return None, ()
        message = (
            f"the imagery of backend={self.backend!r} has no recorded day, so the period "
            f"{self.temporal.start} to {self.temporal.end} was not applied"
        )
        return None, (Note(message, TemporalWarning),)


def resolved_provider(backend: str | os.PathLike[str] | Provider, settings: Settings) -> Provider:
    """Return the provider that ``backend`` names or is.

    An existing path is imagery for the provider ``local``, a URL a catalogue for ``stac``.

    Raises
    ------
    SpecError
        If it is neither a name nor a provider; `UnknownNameError` for an unknown name.
    ProviderError
        If it is ``"auto"`` and nothing is configured.
    """
    if not isinstance(backend, str | os.PathLike):
        if not callable(getattr(backend, "fetch", None)):
            raise SpecError(
                f"got backend={backend!r}, expected a name, a folder, the URL of a STAC catalogue, "
                "or a provider (rs_embed.providers.base.Provider)"
            )
        return backend
    names = provider_names()
    if isinstance(backend, os.PathLike) or backend not in ["auto", *names]:
        return _provider_at(os.fspath(backend), names, settings)
    name = first_configured(settings) if backend == "auto" else backend
    if name is None:
        raise ProviderError(
            f"no imagery source is configured for backend='auto', which takes the first of "
            f"{', '.join(AUTO_ORDER)}; set {LOCAL.name} to a folder of imagery, install one with "
            f"{install('stac')}, name one of "
            f"{', '.join(names)} as backend=, or pass own pixels as imagery= or input_chw="
        )
    return find_provider(name, settings)


def _provider_at(address: str, names: list[str], settings: Settings) -> Provider:
    """Return the provider of the imagery at a path or URL."""
    if address.lower().startswith(("http://", "https://")):
        if address.partition("?")[0].lower().endswith((".tif", ".tiff", ".jp2")):
            raise SpecError(
                f"got backend={shown_path(address)!r}, an image, expected a catalogue; pass it as "
                "imagery="
            )
        return find_provider("stac", replace(settings, stac=address))
    path = path_of(address).expanduser().absolute()
    if not path.exists() and not (os.path.dirname(address) or os.path.isabs(address)):
        raise UnknownNameError.among("backend", address, ["auto", *names])
    return find_provider("local", replace(settings, local=path))


def check_type(name: str, value: object, kinds: tuple[type, ...]) -> None:
    """Raise `SpecError` unless ``value`` is None or of one of the ``kinds``."""
    if value is not None and not isinstance(value, kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise SpecError(f"got {name}={value!r} ({type(value).__name__}), expected {expected}")


def contract_defaults(stated: SensorSpec, contract: InputContract) -> SensorSpec:
    """Return ``stated`` with the model's defaults where it states nothing."""
    names = ("scale_m", "cloudy_pct", "composite", "fill_value")
    missing = {n: getattr(contract, n) for n in names if getattr(stated, n) is None}
    return replace(stated, **missing)


def _with_units(
    raster: Raster,
    stated: SensorSpec,
    scale_m: float,
    meta: dict[str, Any],
    notes: tuple[Note, ...],
) -> Acquired:
    """Return the pixels with the units of the sensor, the imagery or the contract.

    Scale and offset are settled independently.
    """
    own = (stated.reflectance_scale, stated.reflectance_offset)
    declared = raster.reflectance
    scale, offset = (
        float(default if value is None else value)
        for value, default in zip(own, declared or DEFAULT_REFLECTANCE, strict=True)
    )
    origin = "imagery" if declared else "contract"
    if own != (None, None):
        origin = "sensor"
        if declared is not None and not np.allclose((scale, offset), declared, rtol=1e-6, atol=0):
            raise ImageryError(
                f"the imagery declares reflectance_scale={declared[0]:g} and reflectance_offset="
                f"{declared[1]:g}, but the sensor states {scale:g} and {offset:g}; leave out what "
                "the imagery declares, or correct it"
            )
    meta["reflectance_source"] = origin
    of_pixels = tuple(Note(text, ImageryWarning) for text in raster.notes)
    vouched = origin != "contract"
    return Acquired(raster, scale_m, (scale, offset), vouched, meta, notes + of_pixels)


def _check_stated_gsd(stated: SensorSpec, grid: Grid) -> None:
    read = gsd_m(grid)
    if stated.scale_m is not None and abs(stated.scale_m / read - 1) > 0.01:
        raise ImageryError(
            f"got scale_m={stated.scale_m:g}, but a pixel of the imagery covers {read:.6g} m "
            "on the ground; leave scale_m out, or correct the georeference"
        )
