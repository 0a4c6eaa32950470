"""Imagery on disk: a raster file, a folder of them, or a static STAC catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Self

from rs_embed.addresses import path_of
from rs_embed.errors import ProviderError, SpecError
from rs_embed.files.gdal import OpenFiles, may_wait, tried_again
from rs_embed.geo.grid import Grid
from rs_embed.geo.raster import Raster
from rs_embed.network.retrying import Patience
from rs_embed.providers.base import Cost
from rs_embed.providers.scenes.indexing import Index, index_root
from rs_embed.providers.scenes.reading import compose, with_left_out
from rs_embed.providers.scenes.scene import Scene
from rs_embed.providers.scenes.selection import scenes_fit_for, select_scenes
from rs_embed.providers.sharing import Latest
from rs_embed.settings import LOCAL, Settings
from rs_embed.specs import SensorSpec, TemporalSpec

# The collection of models' contracts: here it stands for any collection.
ANY_COLLECTION = "COPERNICUS/S2_SR_HARMONIZED"
# Threads that read the files to which items on disk link on the web.
_READERS = 4
_UNSET = f"{LOCAL.name} is not set"
_FIX = f"set {LOCAL.name} to a folder, a raster file or a STAC .json, or use LocalProvider(root)"


class LocalProvider:
    """Imagery under ``root``.

    Parameters
    ----------
    root : path, optional
        A raster file (one scene); a STAC Item, ItemCollection, Collection or Catalog ``.json``; or
        a folder, which is searched for STAC items and for rasters (.tif, .tiff, .vrt, .jp2, .img)
        that no item refers to, unless it has a ``catalog.json`` or ``collection.json``.
        That of ``settings`` if not given.
    patience : Patience
        How often, and for how long, files on servers are tried to which items on disk link.
    settings : Settings, optional
        What the environment configures; read when the provider is built if not given.

    Notes
    -----
    The root is searched once, when first needed, also if nothing is found. Make a new provider to
    see files that were added later.

    Files of single bands, as in a ``.SAFE``, are joined into scenes of their products. A raster
    file is dated by its metadata, else by the first date in its name, else by
    ``TIFFTAG_DATETIME``, which is when it was written.
    """

    name = "local"

    def __init__(
        self,
        root: str | PathLike[str] | None = None,
        *,
        patience: Patience = Patience(),  # noqa: B008  # frozen
        settings: Settings | None = None,
    ) -> None:
        self._patience = patience
        if not isinstance(root, str | PathLike | None):
            raise SpecError(
                f"got LocalProvider({root!r:.120}), expected one folder, raster file or STAC .json "
                "as root; move or link files into one folder: LocalProvider('folder')"
            )
        if root is None:
            self._root = (settings or Settings.from_environ()).local
        else:
            self._root = path_of(root).expanduser().absolute()
        self._found: Latest[Path, Index | ProviderError] = Latest()
        self._files = OpenFiles()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the provider of ``RS_EMBED_LOCAL``."""
        return cls(settings=settings)

    def configured(self) -> bool:
        """Return whether a root is given or named by ``RS_EMBED_LOCAL``."""
        return self._root is not None

    @property
    def dated(self) -> bool:
        """Whether any scene has a date."""
        return self._indexed().dated

    def check_sensor(self, sensor: SensorSpec) -> None:
        """Raise `ProviderError` for a collection, bands or nodata that no scene has.

        No pixel is read.
        """
        where = str(self._indexed().root)
        fitting = scenes_fit_for(sensor, self._scenes_of(sensor), where)
        for scene in fitting:
            if None not in (sensor.fill_value, scene.nodata) and sensor.fill_value != scene.nodata:
                raise ProviderError(
                    f"got fill_value={sensor.fill_value:g}, but {scene.id!r} declares nodata "
                    f"{scene.nodata:g}; leave fill_value out, or correct the file (gdal_edit "
                    "-a_nodata)"
                )

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        """Return the composite of the scenes for a place and period; see `Provider.fetch`.

        Scenes on the grid's own lattice come through untouched, others are reprojected: averaged
        to at least 1.5 times coarser pixels, bilinear otherwise.

        Raises
        ------
        ProviderError
            If no scene remains, or one that does cannot be read.
        """
        index = self._indexed()
        root = str(index.root)
        selection = select_scenes(self._scenes_of(sensor), sensor, grid, temporal, where=root)
        files = (band.path for scene in selection.scenes for band in scene.bands.values())
        if any(map(may_wait, files)):
            raster = self._patience.persist(
                lambda: compose(
                    selection, grid, sensor, root=root, files=self._files, readers=_READERS
                ),
                passes=tried_again(),
                what=f"a server to which {root!r} links",
            )
        else:
            raster = compose(selection, grid, sensor, root=root, files=self._files)
        return with_left_out(raster, index.left_out, "files")

    def identity(self) -> str:
        """Return a digest of the current names, sizes and times of all files.

        Files that were added, removed or replaced change it, though this object still serves what
        it found first. Files that a ``.vrt`` refers to do not count.
        """
        return self._indexed().fingerprint()

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:  # noqa: ARG002
        """Return no cost, though items may refer to a service."""
        return Cost()

    def status(self, *, online: bool = False) -> str:  # noqa: ARG002
        """Return the number and dates of the scenes, or how to set a root."""
        if not self.configured():
            return f"missing: {_UNSET}; {_FIX}"
        index = self._indexed()
        days = sorted(s.acquired.date() for s in index.scenes if s.acquired is not None)
        dates = f"dates {days[0]} to {days[-1]}" if days else "undated"
        left_out = f", {len(index.left_out)} files left out" if index.left_out else ""
        return f"ready: {len(index.scenes)} scenes in {index.root}, {dates}{left_out}"

    def _indexed(self) -> Index:
        if self._root is None:
            raise ProviderError(f"backend='local' has no imagery: {_UNSET}; {_FIX}")
        root = self._root.absolute()
        found = self._found.get(root, _look)
        if isinstance(found, ProviderError):
            if not root.exists():
                self._found.forget()  # searching again is quick, and it may be mounted later
            raise found.restated(str(found)) from found
        return found

    def _scenes_of(self, sensor: SensorSpec) -> Sequence[Scene]:
        """Return the scenes of the sensor's collection, to which plain files always belong."""
        index = self._indexed()
        known = {scene.collection for scene in index.scenes if scene.collection is not None}
        if sensor.collection == ANY_COLLECTION or not known:
            return index.scenes
        if sensor.collection not in known:
            raise ProviderError(
                f"got collection={sensor.collection!r}, expected one that {str(index.root)!r} has: "
                f"{', '.join(sorted(known))}; {ANY_COLLECTION!r} selects all of it"
            )
        return [scene for scene in index.scenes if scene.collection == sensor.collection]


def _look(root: Path) -> Index | ProviderError:
    """Return the imagery under ``root``, or why there is none."""
    try:
        return index_root(root)
    except ProviderError as exc:
        return exc
