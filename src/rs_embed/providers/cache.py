"""Pixels from providers, kept in a folder of bounded size and served again.

One file per entry, named by the SHA-256 of everything that determines its pixels. No maintained
library does this: diskcache unpickles what it finds (CVE-2025-69872) and is unmaintained.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rs_embed._version import __version__
from rs_embed.addresses import path_of
from rs_embed.errors import ExportError, ImageryError, RsEmbedError, SettingsError, SpecError
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.providers.cache_files import (
    FORMAT,
    NAME,
    Entry,
    UntrustedError,
    entry_of,
    is_ours,
    name_of,
    parts_of,
    read,
)
from rs_embed.providers.sharing import Latest
from rs_embed.settings import CACHE_DIR, CACHE_SHARED, Settings
from rs_embed.specs import SensorSpec, TemporalSpec, to_json

if TYPE_CHECKING:
    from rs_embed.providers.base import Cost, Provider

_PARTIAL = re.compile(r"\.[0-9a-f]{32}\.part")
# No write takes so long: older ones were left behind by a process that was killed.
_PARTIAL_AGE_S = 3600
# Scenes arrive late and are reprocessed soon after acquisition.
SETTLED_AFTER = timedelta(days=30)
# The folder is listed each time that this share of its bound was written, and this share stays
# free: eight processes that write at once do not exceed the bound in between.
_WRITTEN_SHARE = 128
_FREE_SHARE = 16
_FIRST_IDENTITY = "_rs_embed_first_identity"


class PatchCache:
    """A folder of pixels; threads and processes may share it.

    Every file appears whole or not at all, and is checked when it is read.

    Parameters
    ----------
    folder : path
        An existing folder. Other files in it are left alone.
    max_bytes : int
        Greatest size. The least recently used go first. A sixteenth stays free for what other
        processes write at the same time, and an entry that is larger than the rest is not kept.
    shared : bool
        Whether entries are used that other users wrote or can write. By default they are not:
        whoever writes an entry decides what is seen at that place.
    """

    def __init__(
        self, folder: str | PathLike[str], max_bytes: int, *, shared: bool = False
    ) -> None:
        self.folder = path_of(folder)
        self.max_bytes = max_bytes
        self.shared = shared
        self._room = max_bytes - max_bytes // _FREE_SHARE
        self._lock = threading.Lock()
        self._written = math.inf  # what the folder holds is not known yet

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), shared=self.shared), (self.folder.absolute(), self.max_bytes)

    def get(self, key: Mapping[str, Any], grid: Grid) -> Raster | None:
        """Return the pixels that were put under ``key``, or None.

        Parameters
        ----------
        key : mapping
            JSON values that determine the pixels, ``grid`` among them.
        grid : Grid
            Their grid.

        Returns
        -------
        Raster or None
            As it was put; ``source["cached"]`` says when it was fetched (ISO 8601, UTC).

        Raises
        ------
        ImageryError
            If an entry is damaged, foreign or cannot be read, or others can write it. A damaged
            one is removed.
        """
        path = self.folder / name_of(key)
        try:
            content = read(path, key, grid, shared=self.shared)
        except FileNotFoundError:
            return None
        except UntrustedError as exc:
            raise ImageryError(
                f"the pixels cached in {self.folder} are not used, since {exc}; correct that with "
                f"chown and chmod, or, if you trust all who can write there, set "
                f"{CACHE_SHARED.name}=1 (--cache-shared)"
            ) from exc
        except OSError as exc:
            raise ImageryError(f"the cached pixels in {path} cannot be read: {exc}") from exc
        if content is None:
            with suppress(OSError):  # a read-only folder, or another process was faster
                path.unlink()
            raise ImageryError(
                f"the cached pixels in {path} are damaged, or belong to another request or version"
            )
        with suppress(OSError):  # a read-only folder serves as well
            os.utime(path)
        head, data, valid = content
        return Raster(
            data,
            valid,
            tuple(head["bands"]),
            grid,
            reflectance=head["reflectance"] and tuple(head["reflectance"]),
            source={**head["source"], "cached": head["fetched"]},
            notes=tuple(head["notes"]),
        )

    def put(self, key: Mapping[str, Any], raster: Raster) -> None:
        """Keep ``raster`` under ``key``, and remove the least recently used if need be.

        Raises
        ------
        ExportError
            If it cannot be written.
        """
        parts = parts_of(key, raster)
        size = sum(map(len, parts))
        if size > self._room:
            return
        path = self.folder / name_of(key)
        unfinished = self.folder / f".{uuid.uuid4().hex}.part"
        try:
            try:
                with open(unfinished, "xb", opener=_own) as file:
                    file.writelines(parts)
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)
            self._count(size)
        except OSError as exc:
            raise ExportError(f"the pixels cannot be cached in {self.folder}: {exc}") from exc

    def ls(self) -> list[Entry]:
        """Return the entries, the most recently used first; no pixels are read.

        Raises
        ------
        ExportError
            If the folder cannot be listed.
        """
        entries = [entry_of(Path(file.path), status) for file, status in self._files(NAME)]
        known = [entry for entry in entries if entry is not None]
        return sorted(known, key=lambda entry: entry.used, reverse=True)

    def usage(self) -> tuple[int, int]:
        """Return how many entries there are, and their bytes; none is opened.

        Raises
        ------
        ExportError
            If the folder cannot be listed.
        """
        sizes = [status.st_size for _, status in self._files(NAME)]
        return len(sizes), sum(sizes)

    def clear(self, *, older_than: timedelta | None = None) -> tuple[int, int]:
        """Remove entries and leftovers of killed processes; return the number and their bytes.

        Parameters
        ----------
        older_than : datetime.timedelta, optional
            Only entries that were fetched longer ago than this.

        Raises
        ------
        ExportError
            If the folder cannot be listed, or an entry not be removed.
        """
        self._remove_abandoned()
        removed = [0, 0]
        for entry in self.ls():
            if older_than is not None and datetime.now(UTC) - entry.fetched <= older_than:
                continue
            try:
                entry.path.unlink()
            except FileNotFoundError:
                continue
            except OSError as exc:
                raise ExportError(f"cannot remove {entry.path}: {exc}") from exc
            removed[0] += 1
            removed[1] += entry.size
        return removed[0], removed[1]

    def _count(self, size: int) -> None:
        """Count what was written; when it is due, remove entries until the rest fits."""
        with self._lock:
            self._written += size
            if self._written <= self.max_bytes // _WRITTEN_SHARE:
                return
            self._written = 0
        self._remove_abandoned()
        files = [
            (status.st_mtime_ns, file.path, status.st_size) for file, status in self._files(NAME)
        ]
        total = sum(size for _, _, size in files)
        for _, path, size in sorted(files):  # the least recently used first
            if total <= self._room:
                return
            total -= size
            _remove_ours(path)

    def _remove_abandoned(self) -> None:
        """Remove what processes left behind that were killed while writing."""
        longest_ago = time.time() - _PARTIAL_AGE_S
        for file, status in self._files(_PARTIAL):
            if status.st_mtime < longest_ago:
                _remove_ours(file.path)

    def _files(self, names: re.Pattern[str]) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
        """Yield the files with such names that still exist."""
        try:
            listing = os.scandir(self.folder)
        except OSError as exc:
            raise ExportError(f"the folder {self.folder} cannot be listed: {exc}") from exc
        with listing as files:
            for file in files:
                if names.fullmatch(file.name) and file.is_file(follow_symlinks=False):
                    try:
                        yield file, file.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue


def _own(path: str, flags: int) -> int:
    """Open a file that others may read but not write, whatever the umask is."""
    return os.open(path, flags, 0o644)


def _remove_ours(path: str) -> None:
    """Remove a file if it is ours; another process may have been faster."""
    if is_ours(path):
        with suppress(FileNotFoundError):
            os.unlink(path)


def _today() -> date:
    return datetime.now(UTC).date()


class CachedProvider:
    """A provider whose pixels are kept; it is that provider in everything else.

    Pixels are kept if their period ended at least 30 days ago: until then, scenes still arrive and
    are reprocessed. Without a period it is not known when they are final, so they are not kept, and
    neither are errors. Nor is anything kept or served for a provider whose ``identity`` is no
    longer the first one of the same object, or of the one that it is a copy of: it may serve what
    it looked up before, which a new object does not.

    Parameters
    ----------
    provider : Provider
        Source of what is not kept yet. Its ``identity`` is called once, when first needed.
    cache : PatchCache
        Where pixels are kept.
    today : callable
        Returns the day in UTC.

    Notes
    -----
    An entry that cannot be read, and pixels that cannot be kept, are a note on the raster, not an
    error.
    """

    def __init__(
        self, provider: Provider, cache: PatchCache, *, today: Callable[[], date] = _today
    ) -> None:
        self._provider = provider
        self._cache = cache
        self._today = today
        self._identified: Latest[None, tuple[str, bool]] = Latest()
        self._failure: Latest[None, str] = Latest()

    @property
    def name(self) -> str:
        """Name of the provider."""
        return self._provider.name

    @property
    def dated(self) -> bool:
        """Whether the provider's imagery has dates."""
        return self._provider.dated

    def configured(self) -> bool:
        """Return whether the provider is set up."""
        return self._provider.configured()

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Raise what the provider raises."""
        self._provider.check_sensor(sensor)

    def identity(self) -> str:
        """Return the current identity of the provider."""
        return self._provider.identity()

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        """Return the cost at the provider, as if nothing were kept."""
        return self._provider.cost(grid, sensor=sensor)

    def status(self, *, online: bool = False) -> str:
        """Return the status of the provider."""
        return self._provider.status(online=online)

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return the kept pixels, else the provider's; see `Provider.fetch`.

        ``source["cached"]`` is when kept ones were fetched.
        """
        if temporal is None or self._today() - temporal.end < SETTLED_AFTER:
            return self._provider.fetch(grid, temporal=temporal, sensor=sensor)
        key = self.key(grid, temporal, sensor)
        _, unchanged = self._identified.get(None, self._identify)
        if not unchanged:
            return self._provider.fetch(grid, temporal=temporal, sensor=sensor)
        notes: tuple[str, ...] = ()
        try:
            kept = self._cache.get(key, grid)
        except ImageryError as exc:
            kept, notes = None, (f"{exc}; they were fetched again",)
        if kept is not None:
            return kept
        raster = self._provider.fetch(grid, temporal=temporal, sensor=sensor)
        if raster.grid == grid and raster.bands == sensor.bands:  # others are refused later
            notes += self._put(key, raster)
        return replace(raster, notes=(*raster.notes, *notes)) if notes else raster

    def key(self, grid: Grid, temporal: TemporalSpec, sensor: SensorSpec) -> dict[str, Any]:
        """Return everything that determines the pixels, as JSON values.

        Raises
        ------
        RsEmbedError
            If the provider cannot state its identity.
        """
        identity, _ = self._identified.get(None, self._identify)
        return {
            "format": FORMAT,
            "rs_embed": __version__,
            "provider": self.name,
            "identity": identity,
            "grid": grid.to_json(),
            "temporal": to_json(temporal),
            "sensor": {name: _number(value) for name, value in to_json(sensor).items()},
        }

    def _put(self, key: Mapping[str, Any], raster: Raster) -> tuple[str, ...]:
        """Write the pixels; return why that failed, once for all places."""
        try:
            self._cache.put(key, raster)
        except ExportError as exc:
            note = f"{exc}; free some space, or name another folder as cache="
            return (note,) if self._failure.get(None, lambda _: note) is note else ()
        return ()

    def _identify(self, _: None) -> tuple[str, bool]:
        """Return the identity of the provider, and whether it is still its first one.

        The provider itself carries the first, since what it looked up is as old.
        """
        identity = self._provider.identity()
        return identity, identity == vars(self._provider).setdefault(_FIRST_IDENTITY, identity)


def open_cache(
    cache: str | PathLike[str] | PatchCache | None, settings: Settings
) -> PatchCache | None:
    """Return the cache in a folder, or in that of ``settings``; None without either.

    A folder that does not exist is made. ``settings`` bound its size (``RS_EMBED_CACHE_GB``).

    Raises
    ------
    SpecError
        If ``cache`` is not a path, or no folder can be made there.
    SettingsError
        If no folder can be made where ``RS_EMBED_CACHE_DIR`` says.
    """
    if isinstance(cache, PatchCache):
        return cache
    if cache is None:
        if settings.cache_dir is None:
            return None
        folder = _made(settings.cache_dir, CACHE_DIR.name, SettingsError)
    elif isinstance(cache, str | PathLike) and fspath(cache):
        folder = _made(cache, "cache", SpecError)
    else:
        raise SpecError(f"got cache={cache!r}, expected the path of a folder to keep pixels in")
    return _shared(folder, settings.cache_gb * 10**9, settings.cache_shared)


def _made(path: str | PathLike[str], name: str, error: type[RsEmbedError]) -> Path:
    """Return the folder, created if need be; raise ``error`` if that fails."""
    try:
        folder = path_of(path).expanduser().absolute()
        folder.mkdir(0o755, parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as exc:
        raise error(
            f"got {name}={fspath(path)!r}, expected a folder to keep pixels in: {exc}; name "
            "another one"
        ) from exc
    return folder


# One for all calls, so that not every call lists the folder again.
@lru_cache
def _shared(folder: Path, max_bytes: int, shared: bool) -> PatchCache:
    return PatchCache(folder, max_bytes, shared=shared)


def _number(value: Any) -> Any:
    """Return numbers as floats: 10 and 10.0 are the same request."""
    return float(value) if isinstance(value, Real) else value
