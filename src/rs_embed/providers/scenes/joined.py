"""Several files as one image: those of bands as scenes, and neighbouring scenes as a mosaic."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

from rs_embed.addresses import local_path, shown_path
from rs_embed.errors import ImageryError, some
from rs_embed.files.dates import Dated
from rs_embed.files.gdal import OpenFiles
from rs_embed.files.rasters import Header, nodata_value, read_header
from rs_embed.geo.grid import Grid, bounds_window
from rs_embed.geo.raster import Raster
from rs_embed.geo.windows import common_window
from rs_embed.providers.scenes.aligning import commands, same_pixels, shown_grid, window_within
from rs_embed.providers.scenes.band_files import is_picture, joined_scenes
from rs_embed.providers.scenes.indexing import scene_of_file
from rs_embed.providers.scenes.reading import compose
from rs_embed.providers.scenes.scene import Scene
from rs_embed.providers.scenes.selection import Selection, newest_products
from rs_embed.specs import SensorSpec

# Scenes with the grids of their bands, the grid of all, and doubts.
_Layout = tuple[list[tuple[Scene, Grid]], Grid, tuple[str, ...]]


@dataclass(frozen=True)
class JoinedFiles:
    """Files that are one image: bands of scenes, scenes beside each other, or both. Picklable.

    Files of bands are joined to scenes as in a folder. Scenes must have all wanted bands on one
    lattice; where they overlap, the last in the list that has a valid pixel counts.

    Parameters
    ----------
    paths : tuple of str
        At least one path or URL that GDAL opens.
    """

    paths: tuple[str, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedFiles, (self.paths,)

    def __str__(self) -> str:
        return f"{len(self.paths)} files ({some([shown_path(path) for path in self.paths])})"

    def grid(self, bands: Sequence[str]) -> Grid:
        """Return the grid of all scenes together."""
        return self._layout(bands)[1]

    def dated(self) -> Dated:
        """Return when all scenes were acquired, if on one day."""
        known = [s.acquired for s in self._scenes if s.acquired is not None]
        one_day = len(set(map(_day, self._scenes))) == 1
        return Dated(min(known) if known and one_day else None)

    def read(
        self, bands: Sequence[str], window_in: Callable[[Grid], Grid], fill_value: float | None
    ) -> Raster:
        """Return the window that ``window_in`` picks on the grid of all scenes.

        Raises
        ------
        ImageryError
            If a scene lacks a band, or the files are not one image.
        ProviderError
            If a file cannot be read; `NoImageryError` if no pixel of the window is valid.
        """
        scenes, whole, notes = self._layout(bands)
        window = window_in(whole)
        for scene in self._scenes:
            nodata_value(scene.nodata, fill_value)
        touched = tuple(s for s, grid in scenes if _overlap(window, grid)) or self._scenes[:1]
        sensor = SensorSpec("files", tuple(bands), composite="mosaic", fill_value=fill_value)
        first = shown_path(self.paths[0])
        root = str(self._base) if self._base.is_dir() else os.path.dirname(first)
        raster = compose(Selection(touched, {}), window, sensor, root=root, files=self._files)
        return replace(raster, notes=(*raster.notes, *notes))

    @cached_property
    def _files(self) -> OpenFiles:
        return OpenFiles()

    @cached_property
    def _keys(self) -> dict[Path, str]:
        """Absolute path of each file, by which names are read, and the name that GDAL opens."""
        names: dict[Path, str] = {}
        for name in self.paths:
            path = local_path(name)
            web = "://" in path
            key = Path("/", shown_path(path)) if web else Path(os.path.abspath(path))
            if key in names:
                raise ImageryError(f"got {shown_path(name)!r} twice in a list of imagery")
            if is_picture(key):
                raise ImageryError(
                    f"got {shown_path(name)!r} in a list of imagery, which by its name is a "
                    "picture, a mask or angles of a product; leave it out"
                )
            names[key] = str(key) if not web and key.exists() else name
        return names

    @cached_property
    def _base(self) -> Path:
        return Path(os.path.commonpath([key.parent for key in self._keys]))

    @cached_property
    def _headers(self) -> dict[str, Header]:
        return {name: read_header(name, self._files) for name in self._keys.values()}

    @cached_property
    def _scenes(self) -> tuple[Scene, ...]:
        """The scenes, in the order of their first files."""
        headers = {key: self._headers[name] for key, name in self._keys.items()}
        left_out: dict[str, str] = {}
        joined, others = joined_scenes(headers, self._base, left_out)
        for path, reason in left_out.items():
            raise ImageryError(f"{shown_path(self._keys[Path(path)])!r} {reason}")
        scenes = [*joined, *(scene_of_file(path, headers[path], self._base) for path in others)]
        if len(newest_products(scenes)) < len(scenes):
            raise ImageryError(
                f"got processings of one acquisition among {some([s.id for s in scenes])}, "
                "expected one of each; leave out the older files"
            )
        places = list(map(str, self._keys))
        scenes.sort(key=lambda s: min(places.index(band.path) for band in s.bands.values()))
        return tuple(replace(scene, bands=self._opened_by_name(scene)) for scene in scenes)

    def _opened_by_name(self, scene: Scene) -> Mapping[str, Any]:
        return {b: replace(at, path=self._keys[Path(at.path)]) for b, at in scene.bands.items()}

    @cached_property
    def _layouts(self) -> dict[tuple[str, ...], _Layout]:
        return {}

    def _layout(self, bands: Sequence[str]) -> _Layout:
        """Return the scenes with the grids of their bands, the grid of all, and doubts."""
        wanted = tuple(bands)
        if wanted not in self._layouts:
            scenes = [(scene, self._grid_of(scene, wanted)) for scene in self._scenes]
            self._layouts[wanted] = (scenes, _whole(scenes), _doubts(scenes))
        return self._layouts[wanted]

    def _grid_of(self, scene: Scene, wanted: tuple[str, ...]) -> Grid:
        """Return the grid that all wanted bands of a scene have."""
        places = scene.find(wanted)
        if places is None:
            has = ", ".join(scene.bands) if scene.named else f"{len(scene.bands)} without names"
            raise ImageryError(
                f"of {self}, {scene.id!r} has the bands {has}, expected {', '.join(wanted)}: name "
                "files of single bands B04.tif or scene_red.tif, or join them in this order with "
                "gdalbuildvrt -separate joined.vrt RED GREEN BLUE and pass imagery='joined.vrt'"
            )
        grids = {place.path: self._headers[place.path].grid for place in places}
        finest = min(grids.values(), key=lambda grid: abs(grid.transform.a))
        if not all(same_pixels(grid, finest) for grid in grids.values()):
            _refuse(grids, "one grid for all bands", window_within(finest, *grids.values()))
        return finest


def _whole(scenes: Sequence[tuple[Scene, Grid]]) -> Grid:
    """Return the grid of all scenes, on the lattice of the first."""
    first = scenes[0][1]
    for scene, grid in scenes:
        if not grid.lies_on(first):
            files = {at.path: grid for at in scene.bands.values()}
            known = {scenes[0][0].id: first, **files}
            _refuse(known, "one lattice for all files", window_within(first, grid), files)
    lefts, bottoms, rights, tops = zip(*(grid.bounds for _, grid in scenes), strict=True)
    return bounds_window(first, (min(lefts), min(bottoms), max(rights), max(tops)))


def _refuse(
    grids: Mapping[str, Grid],
    expected: str,
    target: Grid | None,
    moved: Mapping[str, Grid] | None = None,
) -> NoReturn:
    shown = [f"{shown_path(path)!r} of {shown_grid(grid)}" for path, grid in grids.items()]
    fix = (
        "they share no ground: pass those that belong together"
        if target is None
        else f"resample, and pass the new files instead: {commands(moved or grids, target)}"
    )
    raise ImageryError(f"got {some(shown, between='; ')}; expected {expected}; {fix}")


def _doubts(scenes: Sequence[tuple[Scene, Grid]]) -> tuple[str, ...]:
    """Return a note if scenes without date overlap; raise if scenes of several days do."""
    over = [pair for pair in combinations(scenes, 2) if _overlap(pair[0][1], pair[1][1])]
    for (one, _), (other, _) in over:
        if _day(one) != _day(other):
            raise ImageryError(
                f"got {one.id!r} of {_day(one)} and {other.id!r} of {_day(other)}, which overlap, "
                "in one list of imagery: that may mean a mosaic, a composite or a series; pass "
                "each as imagery= of its own, or put them into a folder and state backend='folder' "
                "with fetch={'composite': 'median'} or 'mosaic'"
            )
    names = dict.fromkeys(s.id for pair in over for s, _ in pair if s.acquired is None)
    return (
        (
            f"{some(list(names))} overlap and have no date, so the last in the list counts where "
            "both are valid",
        )
        if names
        else ()
    )


def _overlap(one: Grid, other: Grid) -> bool:
    rows, columns = common_window(one, other)
    return bool(rows.start < rows.stop and columns.start < columns.stop)


def _day(scene: Scene) -> str:
    return "unknown date" if scene.acquired is None else scene.acquired.date().isoformat()
