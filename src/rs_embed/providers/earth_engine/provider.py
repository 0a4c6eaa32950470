"""Imagery that Earth Engine composes: ``backend="gee"``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rs_embed._optional import require
from rs_embed.errors import NoImageryError, ProviderError, some
from rs_embed.files.rasters import AVERAGED_FROM
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.network.answers import why_unreachable
from rs_embed.network.retrying import Patience, is_transient
from rs_embed.parallel.pipeline import ordered
from rs_embed.providers.base import Cost
from rs_embed.providers.earth_engine.failures import too_much
from rs_embed.providers.earth_engine.known_collections import COLLECTIONS, UNHARMONISED, Collection
from rs_embed.providers.earth_engine.pixels import (
    BYTES_PER_VALUE,
    REQUEST_BYTES,
    Part,
    decoded,
    parts_of,
    quarters,
    wire_grid,
)
from rs_embed.providers.earth_engine.query import (
    CLEAR_SCORE,
    SENTINEL,
    Image,
    Query,
    Resampling,
    names_of,
    resampling_of,
)
from rs_embed.providers.earth_engine.session import Account, Session, is_users, url_of
from rs_embed.providers.scenes.products import MASKED_CLASSES
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec, TemporalSpec, check_positive, check_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LISTED_ITEMS = 100
# A request that waits blocks a worker, and most failures concern one request alone. Eight workers
# that all exceed a quota retry 40 times in the first 1.5 s, and 100 requests a second are allowed;
# what lasts longer is retried in doubling steps, for 51 s and more in all.
_PATIENCE = Patience(attempts=11, wait_initial_s=0.05)
# A person waits for the status; batches can wait for the service.
_STATUS_ATTEMPTS = 3
_MORE = (
    "compute time (EECU) is not known beforehand: Cloud Monitoring shows it per workload tag "
    "rs-embed; the service allows 40 requests at once and 100 a second"
)


class _AbandonedError(Exception):
    """Another part of the place has failed, so this one is not retried."""


class EarthEngineProvider:
    """Imagery that Google Earth Engine selects, masks, composes and resamples on its side.

    Parameters
    ----------
    project : str, optional
        Google Cloud project that requests are counted to; that of ``settings`` (``EE_PROJECT``,
        then ``GOOGLE_CLOUD_PROJECT``), then that of the credentials, if not given.
    credentials : google.auth.credentials.Credentials, optional
        Those of ``earthengine authenticate``, then Google's application-default ones, if not
        given.
    endpoint : str, optional
        ``"standard"``, ``"high-volume"`` or a URL; that of ``settings`` if not given.
    patience : Patience, optional
        How often, and for how long, a request is tried.
    max_requests : int, optional
        Requests that run at once, of all threads together. In a session that the caller began,
        more than 10 overflow the client's pool of connections.
    timeout_s : float, optional
        Seconds after which a request without an answer is given up, to be tried again.
    settings : Settings, optional
        What the environment configures; read when the provider is built if not given.

    Raises
    ------
    SpecError
        If ``max_requests`` is not a whole number of at least 1, or ``timeout_s`` not above 0.

    Notes
    -----
    Earth Engine's client has one session per process. One that the caller began with
    ``ee.Initialize`` is used as it is; project, credentials and endpoint given here are then
    ignored.

    Images of Sentinel-2 with pixels on the grid's own lattice are not resampled, others are:
    averaged to at least 1.5 times coarser pixels, bilinear otherwise. The service approximates
    medians of more than 500 images.
    """

    name = "gee"
    dated = True

    def __init__(
        self,
        project: str | None = None,
        *,
        credentials: Any = None,
        endpoint: str | None = None,
        patience: Patience = _PATIENCE,
        max_requests: int = 10,
        timeout_s: float = 300.0,
        settings: Settings | None = None,
    ) -> None:
        check_whole("max_requests", max_requests, 1)
        check_positive("timeout_s", timeout_s, "seconds")
        if endpoint is not None:
            url_of(endpoint)  # an invalid name is refused at once
        if not (project and endpoint):
            settings = settings or Settings.from_environ()
            project, endpoint = project or settings.ee_project, endpoint or settings.ee_endpoint
        self._account = Account(project, credentials, endpoint, timeout_s)
        self._session = Session(self._account, max_requests)
        self._patience = patience
        self._max_requests = max_requests
        self._request_bytes = REQUEST_BYTES

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the provider of the project and endpoint that the environment names."""
        return cls(settings=settings)

    def configured(self) -> bool:
        """Return whether client, credentials and project are available.

        The project was given or set (``EE_PROJECT``, ``GOOGLE_CLOUD_PROJECT``), or the credentials
        name one. Makes no request.
        """
        return self._account.missing() is None

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Raise `ProviderError` for a collection, bands, nodata or mask that is not available.

        Makes no request: bands of collections that are not known here are only checked by the
        service, when pixels are fetched.
        """
        if sensor.fill_value not in (None, 0):
            raise ProviderError(
                f"got fill_value={sensor.fill_value:g}, but Earth Engine masks nodata itself; "
                "leave fill_value out"
            )
        if sensor.collection in UNHARMONISED:
            raise ProviderError(
                f"got collection={sensor.collection!r}, whose values have an offset of 1000 since "
                f"January 2022; use {UNHARMONISED[sensor.collection]!r}, where it is subtracted"
            )
        known = COLLECTIONS.get(sensor.collection)
        _check_cloud_mask(sensor, known)
        if known is not None:
            known.names(sensor.bands)
            return
        if sensor.reflectance_scale is None:
            raise ProviderError(
                f"got collection={sensor.collection!r}, whose units are not known, expected "
                f"one of {', '.join(COLLECTIONS)}, or another one with its units stated: "
                "sensor=SensorSpec(..., reflectance_scale=..., reflectance_offset=...)"
            )
        if sensor.cloudy_pct is not None and sensor.cloudy_pct < 100:
            raise ProviderError(
                f"got cloudy_pct={sensor.cloudy_pct:g} for {sensor.collection!r}, for which it is "
                "not known which property holds the cloud cover; leave cloudy_pct out"
            )

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return the composite that Earth Engine computes for a place and period.

        One request lists the images, one or more fetch the pixels; see `Provider.fetch`. The pixels
        are requested together with the list where it hardly changes the request, and again if it
        does.

        Raises
        ------
        NoImageryError
            If no image remains, or none has a valid pixel at the place.
        ProviderError
            If the service fails.
        MissingDependencyError
            If ``earthengine-api`` is not installed.
        """
        query = Query.of(self._ee(self._patience), grid, temporal, sensor)
        images, data = self._listed_early(query)
        if not images:
            raise self._nothing(query)
        plan = resampling_of(query, images)
        data = self._pixels(query, plan) if data is None else data
        valid = ((data != np.float32(SENTINEL)) & np.isfinite(data)).all(axis=0)
        if not valid.any():
            raise NoImageryError(
                f"none of the {len(images)} images of {sensor.collection} for the place and period "
                f"has a valid pixel there ({some([image.id for image in images])}); choose another "
                "place or period"
                + ("" if sensor.cloud_mask is None else ", or leave cloud_mask out")
            )
        data[:, ~valid] = 0
        return Raster(
            data,
            valid,
            sensor.bands,
            grid,
            None if query.known is None else query.known.reflectance,
            self._source(query, images, plan),
            (*query.notes, *plan.notes),
        )

    def identity(self) -> str:
        """Return the service and everything on our side that determines the pixels.

        Reprocessed collections do not change it, since the service does not report them.
        """
        endpoint = self._account.shown_endpoint
        where = endpoint if "://" in endpoint else "Google Earth Engine"
        return (
            f"{where}: bilinear, mean from {AVERAGED_FROM:g} times coarser, "
            f"SCL without {', '.join(map(str, MASKED_CLASSES))}, Cloud Score+ of {CLEAR_SCORE:g}"
        )

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        """Return one request for the list, the requests for pixels, and the bytes of the pixels.

        Parts that the service then refuses as too large take more requests.
        """
        bands = len(sensor.bands)
        height, width = grid.shape
        parts = parts_of(grid.shape, bands, self._request_bytes)
        return Cost(1 + len(parts), height * width * bands * BYTES_PER_VALUE, _MORE)

    def status(self, *, online: bool = False) -> str:
        """Return the project and the endpoint, or what is missing.

        Online, the client is initialised and adds two numbers; a request that fails is retried
        at most twice.
        """
        endpoint = self._account.shown_endpoint
        missing = self._account.missing()
        if missing is not None:
            return f"missing: {missing}"
        if online:
            attempts = min(self._patience.attempts, _STATUS_ATTEMPTS)
            patience = replace(self._patience, attempts=attempts)
            ee = self._ee(patience)
            patience.persist(lambda: self._session.value(ee.Number(1).add(1)))
            if is_users(ee):
                return "ready: the session that ee.Initialize began"
        project = self._account.project or self._account.carried_project()
        return f"ready: project {project}, {endpoint} endpoint"

    def _ee(self, patience: Patience) -> Any:
        """Return the initialised client, without which there are no expressions."""
        require("ee", extra="gee", purpose="backend='gee'")

        def passes(error: Exception) -> bool:
            return is_transient(error) and why_unreachable(error) is None

        return patience.persist(self._session.client, passes=passes)

    def _listed_early(self, query: Query) -> tuple[list[Image], NDArray[np.float32] | None]:
        """Return the images, and the pixels if these were requested together with the list.

        That spares a place half its time. The list may contradict how the images were expected to
        be resampled; it is then as if the pixels had not been requested.
        """
        guess = query.likely
        whole = len(parts_of(query.grid.shape, len(query.names), self._request_bytes)) == 1
        if guess is None or not whole or self._max_requests == 1:
            return self._listed(query), None
        enough: list[Exception] = []
        both: list[Callable[[], Any]] = [
            partial(self._listed, query),
            partial(self._pixels, query, guess, enough),
        ]
        with closing(ordered(both, operator.call, workers=2, ahead=2, stop_s=0)) as answers:
            try:
                images = next(answers)
                right = images and resampling_of(query, images).request == guess.request
                return images, next(answers) if right else None
            finally:
                enough.append(_AbandonedError())

    def _listed(self, query: Query) -> list[Image]:
        """Return the images that pass the query, oldest first."""
        listing = query.listing()
        answer = self._patience.persist(lambda: self._session.value(listing))
        try:
            return sorted(map(query.read_image, answer["list"]), key=lambda image: image.order)
        except (KeyError, TypeError, ValueError, IndexError) as exc:
            raise ProviderError(
                f"Earth Engine's list of {query.sensor.collection} is not as expected "
                f"({type(exc).__name__}: {exc}); report it with the request that was made"
            ) from exc

    def _nothing(self, query: Query) -> NoImageryError:
        """Return the error that states how many images passed each filter."""
        counts = query.counts()
        place, period, clouds, clearest, days = self._patience.persist(
            lambda: self._session.value(counts)
        )
        parts = [f"{place} images touch the place"]
        if not place:
            parts[-1] += "; choose another place or collection"
        elif not period:
            span = f" (they are from {_day(days[0])} to {_day(days[-1])})" if days else ""
            parts.append(f"0 of them are in {query.shown_period}{span}; choose another period")
        else:
            least = f"the clearest has {clearest[0]:.3g} %" if clearest else "none states any"
            parts += [
                f"{period} of them are in {query.shown_period}",
                f"{clouds} have less than {query.cloudy_pct or 0:g} % cloud ({least}); raise "
                "cloudy_pct",
            ]
        return NoImageryError(
            f"no imagery for the place and period in {query.sensor.collection}: {', '.join(parts)}"
        )

    def _pixels(
        self, query: Query, plan: Resampling, failures: list[Exception] | None = None
    ) -> NDArray[np.float32]:
        """Return ``(bands, height, width)``, the sentinel at invalid pixels.

        Nothing more is requested once there are ``failures``, which others may add.
        """
        image, grid, bands = query.image(plan), query.grid, len(query.names)
        data = np.empty((bands, *grid.shape), np.float32)
        failures = [] if failures is None else failures

        def attempt(part: Part) -> NDArray[np.float32]:
            if failures:
                raise _AbandonedError
            body = self._session.pixels(image, wire_grid(part.of(grid)))
            return decoded(body, names_of(bands), (part.height, part.width))

        def fetch_part(part: Part) -> tuple[Part, ...]:
            """Fetch a part; return the parts to fetch instead if it is too much at once."""
            try:
                data[part.index] = self._patience.persist(lambda: attempt(part))
            except _AbandonedError:
                raise failures[0] from None
            except ProviderError as exc:
                smaller = quarters(part) if too_much(exc) else ()
                if not smaller:
                    failures.append(exc)
                    raise
                return smaller
            return ()

        waiting = parts_of(grid.shape, bands, self._request_bytes)
        while waiting:
            workers = min(len(waiting), self._max_requests) if len(waiting) > 1 else 0
            left = ordered(waiting, fetch_part, workers=workers, ahead=2 * workers)
            waiting = tuple(part for smaller in left for part in smaller)
        return data

    def _source(self, query: Query, images: Sequence[Image], plan: Resampling) -> dict[str, Any]:
        sensor = query.sensor
        items = [image.as_json() for image in images[:_LISTED_ITEMS]]
        users = is_users(query.ee)
        return {
            "collection": sensor.collection,
            "endpoint": "as initialised" if users else self._account.shown_endpoint,
            "composite": query.composite,
            "cloud_mask": sensor.cloud_mask,
            "resampling": plan.used,
            "items": items,
            "items_not_listed": len(images) - len(items),
            "image_count": len(images),
            "acquired": [images[0].acquired, images[-1].acquired],
            "counts": {"images": len(images), "resampled": plan.resampled},
        }


def _check_cloud_mask(sensor: SensorSpec, known: Collection | None) -> None:
    mask = sensor.cloud_mask
    if mask is None or (known is not None and mask in known.masks):
        return
    available = [one.id for one in COLLECTIONS.values() if mask in one.masks]
    raise ProviderError(
        f"got cloud_mask={mask!r} for {sensor.collection!r}, expected {' or '.join(available)}, "
        "the only collections with this mask; leave cloud_mask out"
    )


def _day(time_ms: float) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()
