"""Imagery of a STAC API or a static STAC catalogue, whose COGs are read over HTTP."""

from __future__ import annotations

import difflib
import importlib.util
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Self

from rs_embed._optional import install
from rs_embed.addresses import shown_path
from rs_embed.errors import NoImageryError, ProviderError, some
from rs_embed.files.gdal import OpenFiles, is_denied, tried_again
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.network.retrying import Patience
from rs_embed.providers.base import Cost
from rs_embed.providers.scenes.indexing import fingerprint_of
from rs_embed.providers.scenes.items import usable_scenes
from rs_embed.providers.scenes.reading import compose, files_per_scene, with_left_out
from rs_embed.providers.scenes.scene import Box, Scene, grid_boxes
from rs_embed.providers.scenes.selection import (
    Selection,
    check_has_mask,
    scenes_fit_for,
    select_scenes,
)
from rs_embed.providers.sharing import Latest, Turns
from rs_embed.providers.stac.catalogues import (
    PRESETS,
    Address,
    Catalogue,
    address_of,
    open_catalogue,
)
from rs_embed.providers.stac.signing import Signer, signed
from rs_embed.providers.stac.web import api_io
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec, TemporalSpec

if TYPE_CHECKING:
    from pystac import Item

# The collection of models' contracts, and its id in STAC catalogues.
CONTRACT_COLLECTION = "COPERNICUS/S2_SR_HARMONIZED"
SENTINEL_2 = "sentinel-2-l2a"

# Buckets named s3:// are read without an account.
_UNSIGNED = {"AWS_NO_SIGN_REQUEST": "YES"}
# Side of a tile of the presets' COGs, and its size (uint16, compressed).
_TILE_PX = 1024
_TILE_MB = 1.5
# A person waits for the status.
_BRIEFLY = Patience(attempts=2)
_KEPT_SCENES = 4096
# Items read to learn what a collection has: one of them may be damaged.
_EXAMPLES = 5


class StacProvider:
    """Imagery of a STAC catalogue.

    Parameters
    ----------
    catalogue : str, path or Address, optional
        ``"earth-search"`` or ``"planetary-computer"``; URL or path of another API or of a static
        catalogue; or an `Address` with a service that signs. That of ``settings`` if not given.
    patience : Patience
        How often, and for how long, requests and reads that may succeed later are retried.
    readers : int
        Threads that read the scenes of one place; 0 reads them one after another.
    max_reads : int
        Reads at once, over all places.
    settings : Settings, optional
        What the environment configures; read when the provider is built if not given.

    Notes
    -----
    The collection of the models' contract, ``COPERNICUS/S2_SR_HARMONIZED``, stands for
    ``sentinel-2-l2a``, or for the only collection of a catalogue; others have their STAC id.
    A static catalogue is read once: make a new provider to see items that were added later.
    """

    name = "stac"
    dated = True

    def __init__(
        self,
        catalogue: str | PathLike[str] | Address | None = None,
        *,
        patience: Patience = Patience(),  # noqa: B008  # frozen
        readers: int = 8,
        max_reads: int = 16,
        settings: Settings | None = None,
    ) -> None:
        self._catalogue = (
            (settings or Settings.from_environ()).stac
            if catalogue is None
            else address_of(catalogue)
        )
        self._patience, self._readers = patience, readers
        if readers < 0 or max_reads < 1:
            raise ProviderError(
                f"got readers={readers} and max_reads={max_reads}, expected at least 0 and 1"
            )
        self._turns = Turns(max_reads)
        self._files = OpenFiles()
        self._opened: Latest[Address, _Source] = Latest()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the provider of the catalogue that ``RS_EMBED_STAC`` names."""
        return cls(settings=settings)

    def configured(self) -> bool:
        """Return whether pystac-client is installed."""
        return importlib.util.find_spec("pystac_client") is not None

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Raise `ProviderError` for a collection, bands or cloud mask that it does not have.

        Requests the collection and a few of its items, once.
        """
        check_has_mask(sensor, self._address().shown)
        source = self._source()
        scenes = source.examples(source.collection(sensor.collection))
        scenes_fit_for(sensor, scenes, source.address.shown)

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return the composite of the scenes for a place and period; see `Provider.fetch`.

        Scenes on the grid's own lattice come through untouched, others are reprojected: averaged
        to at least 1.5 times coarser pixels, bilinear otherwise.

        Raises
        ------
        ProviderError
            If the catalogue does not answer, no scene remains, or one cannot be read; transient if
            the same request may succeed later.
        """
        source = self._source()
        collection = source.collection(sensor.collection)
        place = grid_boxes(grid)
        if place is None:
            raise ProviderError(
                f"the place {grid.bounds} is outside the area of its CRS; use another crs"
            )
        scenes, left_out = source.scenes(collection, place, temporal)
        if not scenes:
            raise self._nothing(source, collection, place, temporal, left_out)
        selection = select_scenes(scenes, sensor, grid, temporal, where=source.address.shown)
        raster = self._read(source, selection, grid, sensor)
        about = {"catalogue": source.address.shown, "collection": collection}
        return with_left_out(replace(raster, source={**raster.source, **about}), left_out, "items")

    def identity(self) -> str:
        """Return the catalogue's address, and its id of the contract's collection.

        For a catalogue on disk also a digest of the current names, sizes and times of its files; a
        server does not report whether its content has changed.
        """
        address = self._address()
        signer = None if address.sas_url is None else shown_path(address.sas_url)
        identity = f"{address.shown} signed by {signer}, {CONTRACT_COLLECTION}={SENTINEL_2}"
        if "://" in address.url:
            return identity
        return f"{identity}, files {fingerprint_of(self._source().files())}"

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        """Return one search; the number of reads depends on how many scenes it finds."""
        height, width = grid.shape
        tiles = (height / _TILE_PX + 1) * (width / _TILE_PX + 1)  # on average, at any position
        files = files_per_scene(sensor)
        return Cost(
            requests=1,
            more=f"for each scene that is used about {files * (1 + tiles):.0f} reads and "
            f"{files * tiles * _TILE_MB:.0f} MB at the native resolution; no quota",
        )

    def status(self, *, online: bool = False) -> str:
        """Return the catalogue, or how to install what reads it."""
        if not self.configured():
            return f"missing: the package pystac-client is not installed; {install('stac')}"
        address = self._address()
        if online:
            open_catalogue(address, api_io(_BRIEFLY))
        name = next((name for name, known in PRESETS.items() if known == address), None)
        return f"ready: {address.shown}" if name is None else f"ready: {name} ({address.shown})"

    def _address(self) -> Address:
        return address_of(self._catalogue)

    def _source(self) -> _Source:
        return self._opened.get(self._address(), lambda at: _Source(at, self._patience))

    def _nothing(
        self,
        source: _Source,
        collection: str | None,
        place: Sequence[Box],
        period: TemporalSpec | None,
        left_out: Mapping[str, str],
    ) -> NoImageryError:
        """Return the error for a search without results; it says what exists at the place."""
        when = "at any time" if period is None else f"in {period.start} to {period.end}"
        days = source.days_at(collection, place)
        others = (
            "there are none at the place at any time; choose another place or collection"
            if not days
            else f"there are others at the place (one is from {days[0]}); choose another period"
        )
        unusable = "".join(f"; {name}: {why}" for name, why in list(left_out.items())[:3])
        return NoImageryError(
            f"no imagery for the place and period in {source.address.shown!r}: a search in "
            f"{collection!r} found 0 scenes {when}"
            + (f" that can be used ({len(left_out)} cannot{unusable})" if left_out else "")
            + f", and {others}"
        )

    def _read(
        self, source: _Source, selection: Selection, grid: Grid, sensor: SensorSpec
    ) -> Raster:
        def composed() -> Raster:
            with source.signed(selection.scenes) as scenes:
                return compose(
                    replace(selection, scenes=scenes),
                    grid,
                    sensor,
                    root=source.address.shown,
                    files=self._files,
                    readers=self._readers,
                    options=_UNSIGNED,
                    turn=self._turns,
                )

        def attempt() -> Raster:
            try:
                return composed()
            except ProviderError as exc:
                if not is_denied(exc):
                    raise
            try:
                return composed()  # with new tokens
            except ProviderError as exc:
                if not is_denied(exc):
                    raise
                raise ProviderError(
                    f"{exc}; access was refused twice, the second time with a new token if the "
                    "catalogue has any: the files may need an account, or the token of another "
                    "collection"
                ) from exc

        # Requests of tokens have their own patience.
        where = repr(source.address.shown)
        return self._patience.persist(attempt, passes=tried_again(), what=where)


class _Source:
    """A catalogue, opened on first use, and what is known about it; any thread may use it."""

    def __init__(self, address: Address, patience: Patience) -> None:
        self.address = address
        self._io = api_io(patience)
        self._signer = Signer(address.sas_url, self._io.session) if address.sas_url else None
        self._lock = threading.RLock()
        self._catalogue: Catalogue | None = None
        self._collections: dict[str, str | None] = {}
        self._examples: dict[str | None, list[Scene]] = {}
        self._scenes: dict[tuple[object, ...], Scene] = {}

    def collection(self, name: str) -> str | None:
        """Return the id of the collection of that name; None if items belong to no collection.

        Raises `ProviderError` if the catalogue does not have it.
        """
        with self._lock:
            if name not in self._collections:
                self._collections[name] = self._look_up(name)
            return self._collections[name]

    def _look_up(self, name: str) -> str | None:
        catalogue = self._open()
        wanted = SENTINEL_2 if name == CONTRACT_COLLECTION else name
        if catalogue.has(wanted):
            return wanted
        known = catalogue.collection_ids()
        if name != CONTRACT_COLLECTION:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
            raise ProviderError(
                f"got collection={name!r}, expected one that {self.address.shown!r} has; {hint}"
                f"it has {some(known, 12) or 'none'}"
            )
        if len(known) > 1:
            raise ProviderError(
                f"{self.address.shown!r} has several collections and none is {SENTINEL_2!r}, which "
                f"{name!r} stands for; name one with sensor=SensorSpec(collection=..., bands=...): "
                f"{some(known, 12)}"
            )
        return known[0] if known else None

    def examples(self, collection: str | None) -> Sequence[Scene]:
        """Return some scenes of a collection, or all of a static catalogue."""
        with self._lock:
            if collection not in self._examples:
                scenes, left_out = self._as_scenes(*self._open().items(collection, most=_EXAMPLES))
                if not scenes:
                    raise ProviderError(
                        f"no imagery in {self.address.shown!r}: {collection!r} has no usable item"
                        f"{''.join(f' ({name}: {why})' for name, why in left_out.items())}"
                    )
                self._examples[collection] = scenes
            return self._examples[collection]

    def scenes(
        self, collection: str | None, place: Sequence[Box], period: TemporalSpec | None
    ) -> tuple[list[Scene], dict[str, str]]:
        """Return the scenes at a place and time, and what was left out -> reason."""
        return self._as_scenes(*self._open().items(collection, place, period))

    def days_at(self, collection: str | None, place: Sequence[Box]) -> list[str]:
        """Return days of some scenes at a place at any time; empty if there are none."""
        scenes, _ = self._as_scenes(*self._open().items(collection, place, most=_EXAMPLES))
        return [str(s.acquired.date()) for s in scenes if s.acquired is not None]

    def files(self) -> set[str]:
        """Return the files of a static catalogue."""
        return self._open().files()

    @contextmanager
    def signed(self, scenes: tuple[Scene, ...]) -> Iterator[tuple[Scene, ...]]:
        """Yield the scenes with tokens, which are not used again if access is refused."""
        signer = self._signer
        service = self.address.sas_url
        if signer is None or service is None:
            yield scenes
            return
        tokens = {s.collection: signer.token(s.collection) for s in scenes if s.collection}
        try:
            yield tuple(
                signed(s, tokens[s.collection], service) if s.collection else s for s in scenes
            )
        except ProviderError as exc:
            if is_denied(exc):
                for collection, token in tokens.items():
                    signer.forget(collection, token)
            raise

    def _open(self) -> Catalogue:
        with self._lock:
            if self._catalogue is None:
                self._catalogue = open_catalogue(self.address, self._io)
            return self._catalogue

    def _as_scenes(
        self, items: Sequence[Item], left_out: dict[str, str]
    ) -> tuple[list[Scene], dict[str, str]]:
        """Return the scene of each item, the same object each time, and what was left out."""
        scenes: list[Scene] = []
        left_out = dict(left_out)
        for item in items:
            # Ids are unique only in a collection of an API, and few items state their last change.
            hrefs = tuple(asset.get_absolute_href() for asset in item.assets.values())
            key = (item.collection_id, item.id, str(item.properties.get("updated")), hrefs)
            known = self._scenes.get(key)
            for scene in usable_scenes([item], left_out) if known is None else [known]:
                if len(self._scenes) >= _KEPT_SCENES:
                    self._scenes.clear()
                self._scenes[key] = scene
                scenes.append(scene)
        return scenes, left_out
