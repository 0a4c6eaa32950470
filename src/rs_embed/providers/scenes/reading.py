"""From a scene to its pixels on a grid: open files, harmonise units, mask clouds."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.addresses import shown_path
from rs_embed.errors import GridError, ImageryError, NoImageryError, ProviderError, some
from rs_embed.files.gdal import OpenFiles, environment, may_pass, read_again
from rs_embed.files.rasters import (
    AVERAGED_FROM,
    BandFile,
    Header,
    declared_units,
    read_header,
    read_rows,
    read_thinned,
)
from rs_embed.geo.bands import canonical_band
from rs_embed.geo.grid import Grid, gsd_m, pixels_per_pixel
from rs_embed.geo.raster import Raster
from rs_embed.parallel.pipeline import apart, ordered
from rs_embed.providers.scenes.compositing import DIGITAL_NUMBERS, Layer, composite
from rs_embed.providers.scenes.products import MASKED_CLASSES
from rs_embed.providers.scenes.scene import BandAt, Scene
from rs_embed.providers.scenes.selection import Selection
from rs_embed.specs import Composite, SensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BOA_OFFSET = 1000
# Share of valid values below the offset above which it was already subtracted.
_APPLIED_SHARE = 0.01
_SAMPLE_PX = 512
# Greatest plausible reflectance: snow and glint exceed 1.
_TOP_REFLECTANCE = 2
_LISTED_ITEMS = 100
_LISTED_NOTES = 3
_TREATMENTS = {
    "declared": "as declared",
    "none": "none before baseline 04.00",
    "applied": "already applied (earthsearch:boa_offset_applied)",
    "subtract": "1000 subtracted",
}


@dataclass(frozen=True, eq=False)
class SceneOnGrid:
    """A scene as it is read on one grid."""

    scene: Scene
    grid: Grid
    files: tuple[BandFile, ...]  # its bands, in the order of the request
    dtype: np.dtype[Any]
    # (scale, offset) of the values; None if they are not declared.
    reflectance: tuple[float, float] | None
    coarser: float  # side of a source pixel in pixels of the grid
    resampling: str
    treatment: str  # how the offset of Sentinel-2's digital numbers is handled
    subtracts: bool  # whether it is subtracted
    scl: BandFile | None  # classification that masks clouds; None for no mask
    opened: OpenFiles
    notes: tuple[str, ...]  # what is doubtful about it
    below: Counter[bool]  # values that were read: whether they are below the offset
    # First row of the grid at which a block of the first file begins, and rows of a block; None
    # where it is reprojected.
    blocks: tuple[int, int] | None

    def read(self, rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return data ``(bands, rows, width)`` and valid ``(rows, width)`` of some rows."""
        with _named(self.scene), environment(self.files[0].path):

            def read(file: BandFile) -> Raster:
                return read_again(file.path, lambda: read_rows(file, self.grid, rows, self.opened))

            data, valid = _joined(list(map(read, self.files)))
            if self.subtracts or self.scene.offset_rule == "applied":
                low = int((data[:, valid] < _BOA_OFFSET).sum())
                self.below.update({True: low, False: len(data) * int(valid.sum()) - low})
            if self.subtracts:
                data = np.where(valid, _without_offset(data), data)
            if self.scl is not None:
                classes = read(self.scl)
                valid &= classes.valid & ~np.isin(classes.data[0], MASKED_CLASSES)
            return data, valid

    @property
    def is_odd(self) -> bool:
        """Whether the values that were read contradict what is stated about the offset."""
        low, total = self.below[True], self.below.total()
        return total > 0 and (low > _APPLIED_SHARE * total) == self.subtracts

    def as_json(self, home: str) -> dict[str, Any]:
        """Return its entry in ``source``, with paths relative to ``home``."""
        scene = self.scene
        files = dict.fromkeys(shown_path(file.path).removeprefix(home) for file in self.files)
        return {
            "id": scene.id,
            "acquired": None if scene.acquired is None else scene.acquired.isoformat(),
            "cloud_pct": scene.cloud_pct,
            "baseline": scene.baseline,
            "offset": self.treatment,
            "files": list(files),
            **({} if scene.href is None else {"href": scene.href}),
            **({"files_from": "beside the item, which links to the web"} if scene.beside else {}),
        }


def open_scene(scene: Scene, grid: Grid, sensor: SensorSpec, opened: OpenFiles) -> SceneOnGrid:
    """Return a scene ready to be read on ``grid``; only headers have been read so far.

    If it is doubtful whether the offset of Sentinel-2 was already subtracted, the whole scene is
    read once at low resolution.

    Raises
    ------
    ProviderError
        If a file cannot be opened, or contradicts its metadata.
    """
    places = scene.find(sensor.bands)
    if places is None:
        raise ProviderError(f"scene {scene.id!r} lacks one of the bands {', '.join(sensor.bands)}")
    with _named(scene), environment(places[0].path):
        files = _band_files(places, sensor)
        headers = [read_again(file.path, partial(read_header, file.path, opened)) for file in files]
        stated = [_with_nodata(file, places, h) for file, h in zip(files, headers, strict=True)]
        files = tuple(file for file, _ in stated)
        notes = [f"{scene.id}: {note}" for _, note in stated if note is not None]
        if contested := scene.contested & {canonical_band(band) for band in sensor.bands}:
            notes.append(
                f"{scene.id}: {some(sorted(contested))} were taken by the common names of its "
                "bands, though other bands of it are called so; state common names, e.g. "
                "bands=('red', 'green', 'blue')"
            )
        finest = max(pixels_per_pixel(grid, header.grid) for header in headers)
        dtype = _dtype_of(files, headers)
        _check_digital_numbers(scene, files, dtype)
        treatment, subtracts = _offset_treatment(scene, files)
        declared = _units_of(places, files, headers)
        return SceneOnGrid(
            scene=scene,
            grid=grid,
            files=files,
            dtype=dtype,
            reflectance=declared if scene.offset_rule == "declared" else DIGITAL_NUMBERS,
            coarser=1 / finest,
            resampling=_resampling(grid, headers, finest),
            treatment=treatment,
            subtracts=subtracts,
            scl=_scl_file(scene) if sensor.cloud_mask == "scl" else None,
            opened=opened,
            notes=(*scene.notes, *notes),
            below=Counter(),
            blocks=_blocks(grid, headers[0]),
        )


def _scl_file(scene: Scene) -> BandFile:
    if scene.scl is None:
        raise ProviderError(
            f"scene {scene.id!r} has no asset 'scl', expected one for cloud_mask='scl'; leave "
            "cloud_mask out, or remove the scene"
        )
    return BandFile(scene.scl.path, ("SCL",), (scene.scl.index,), classes=True)


def _band_files(places: Sequence[BandAt], sensor: SensorSpec) -> tuple[BandFile, ...]:
    """Return the bands by file: a file with all of them is read once."""
    # 0 is the default of every contract: what a file declares overrides it, but not other values.
    fill = sensor.fill_value or None
    if len({place.path for place in places}) == 1:
        indexes = tuple(place.index for place in places)
        return (BandFile(places[0].path, sensor.bands, indexes, fill),)
    return tuple(
        BandFile(place.path, (band,), (place.index,), fill, of_several=True)
        for place, band in zip(places, sensor.bands, strict=True)
    )


def _with_nodata(
    file: BandFile, places: Sequence[BandAt], header: Header
) -> tuple[BandFile, str | None]:
    """Return a file with the nodata value of the catalogue if it declares none, and a note."""
    values = {str(p.nodata): p.nodata for p in places if p.path == file.path}
    stated = [value for value in values.values() if value is not None]
    positions = file.positions(header.names)
    declared = {header.nodatavals[at - 1] for at in positions} - {None}
    if len(stated) > 1:
        raise ImageryError(
            f"its item states several nodata values {sorted(map(str, stated))}, expected one for "
            "all bands; correct the item"
        )
    if not stated:
        return file, None
    (value,) = stated
    if declared:
        same = {str(float(v)) for v in declared if v is not None} == {str(value)}
        return file, None if same else (
            f"the item states nodata {value:g}, but the file {some(sorted(map(str, declared)))}, "
            "which counts"
        )
    if file.fill_value not in (None, value):
        raise ImageryError(
            f"got fill_value={file.fill_value:g}, but its item states nodata {value:g}; leave "
            "fill_value out, or correct the item"
        )
    return replace(file, fill_value=value), None


def _units_of(
    places: Sequence[BandAt], files: Sequence[BandFile], headers: Sequence[Header]
) -> tuple[float, float] | None:
    """Return (scale, offset) of the bands in the catalogue, else in the files."""
    stated = {place.declared for place in places}
    if stated == {None}:
        stated = {
            declared_units(header, file.positions(header.names))
            for file, header in zip(files, headers, strict=True)
        }
    if len(stated) > 1:
        raise ImageryError(
            f"its bands declare different scales and offsets {sorted(map(str, stated))}, expected "
            "one for all; convert them first"
        )
    return stated.pop()


def _dtype_of(files: Sequence[BandFile], headers: Sequence[Header]) -> np.dtype[Any]:
    pairs = zip(files, headers, strict=True)
    return np.result_type(*(h.dtypes[i - 1] for file, h in pairs for i in file.positions(h.names)))


def _resampling(grid: Grid, headers: Sequence[Header], per_pixel: float) -> str:
    if all(grid.lies_on(header.grid) for header in headers):
        return "none"
    return "average" if per_pixel >= AVERAGED_FROM else "bilinear"


def _blocks(grid: Grid, header: Header) -> tuple[int, int] | None:
    if not grid.lies_on(header.grid):
        return None
    _, top = ~header.grid.transform @ (grid.transform.c, grid.transform.f)
    return -round(top) % header.block_rows, header.block_rows


def _joined(rasters: Sequence[Raster]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the bands of several files as one array.

    A pixel is valid if it is valid in every file and not all bands are 0.
    """
    if len(rasters) == 1:
        return rasters[0].data, rasters[0].valid
    data = np.concatenate([raster.data for raster in rasters])
    valid = np.logical_and.reduce([raster.valid for raster in rasters])
    return data, valid & (data != 0).any(axis=0)


def _without_offset(data: NDArray[Any]) -> NDArray[Any]:
    """Return digital numbers minus 1000, at least 1: 0 is nodata."""
    wide = data if data.dtype.kind == "f" else data.astype(np.int64)
    lowered: NDArray[Any] = np.maximum(wide - _BOA_OFFSET, 1).astype(data.dtype)
    return lowered


def _offset_treatment(scene: Scene, files: tuple[BandFile, ...]) -> tuple[str, bool]:
    """Return how the offset is handled, in words, and whether it is subtracted."""
    rule = scene.offset_rule
    if rule != "look":
        return _TREATMENTS[rule], rule == "subtract"
    share, _ = _sampled(scene, files)
    applied = share > _APPLIED_SHARE
    found = "already applied" if applied else "1000 subtracted"
    return f"{found} (judged by the pixels: {share:.1%} are below 1000)", not applied


def _check_digital_numbers(scene: Scene, files: tuple[BandFile, ...], dtype: np.dtype[Any]) -> None:
    """Raise if values are reflectance though the baseline implies digital numbers."""
    if scene.offset_rule == "declared" or dtype.kind != "f":
        return
    _, top = _sampled(scene, files)
    if top <= _TOP_REFLECTANCE:
        raise ProviderError(
            f"scene {scene.id!r} states processing baseline {scene.baseline}, so that its values "
            f"are expected to be digital numbers (reflectance * 10000), but they are {dtype} of at "
            f"most {top:.3g}; multiply them by 10000, or remove the baseline from the item (or "
            "the file's name) if they are reflectance without offset"
        )


@lru_cache(maxsize=4096)
def _sampled(scene: Scene, files: tuple[BandFile, ...]) -> tuple[float, float]:  # noqa: ARG001
    """Return the share of a scene's valid values below the offset, and the greatest.

    They are from all of it at low resolution: the same for every place in it.

    The scene is only part of the key: a new provider has new scenes, which are read again.
    """
    shapes = [read_header(file.path).grid.shape for file in files]
    height, width = (min(_SAMPLE_PX, *sides) for sides in zip(*shapes, strict=True))
    data, valid = _joined([read_thinned(file, (height, width)) for file in files])
    values = data[:, valid]
    if not values.size:
        return 0.0, np.inf
    return float((values < _BOA_OFFSET).mean()), float(values.max())


@contextmanager
def _named(scene: Scene) -> Iterator[None]:
    """Turn errors of a file into one that names the scene and the fix."""
    try:
        yield
    except (ImageryError, GridError) as exc:
        raise ProviderError(
            f"scene {scene.id!r} cannot be used: {exc}; replace its files, or take it out of the "
            "source",
            transient=may_pass(exc),
        ) from exc


def compose(
    selection: Selection,
    grid: Grid,
    sensor: SensorSpec,
    *,
    root: str,
    files: OpenFiles,
    readers: int = 0,
    options: Mapping[str, str] | None = None,
    turn: AbstractContextManager[Any] | None = None,
) -> Raster:
    """Return the composite of the selected scenes on ``grid``, with its provenance.

    Scenes are opened and read in ``readers`` threads (0: in this one), with these ``options`` of
    GDAL, and within ``turn``, a semaphore that several composites share. ``files`` keeps their
    files open for other places.

    Raises
    ------
    ProviderError
        If a scene cannot be read, or units do not fit together; `NoImageryError` if no pixel is
        valid.
    """
    import rasterio

    turn = turn or nullcontext()

    def environment() -> AbstractContextManager[Any]:
        return rasterio.Env(**options) if options else nullcontext()  # each thread has its own

    def opening(scene: Scene) -> SceneOnGrid:
        with turn, environment():
            return open_scene(scene, grid, sensor, files)

    def layer(scene: SceneOnGrid) -> Layer:
        def read(rows: slice) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            with turn, environment():
                return scene.read(rows)

        return Layer(scene.scene.id, read, scene.dtype, scene.reflectance, scene.blocks)

    workers = min(readers, len(selection.scenes))
    opened = list(ordered(selection.scenes, opening, workers=workers, ahead=2 * readers))
    layers = [layer(scene) for scene in opened]
    kind = sensor.composite or "median"
    made = composite(layers, kind, (len(sensor.bands), *grid.shape), readers=readers)
    used = list(compress(opened, made.used))
    if not used:
        raise NoImageryError(
            f"none of the {len(opened)} scenes for the place and period in {root!r} has a valid "
            f"pixel there ({some([s.scene.id for s in opened])}); choose another place or period"
            + ("" if sensor.cloud_mask is None else ", or leave cloud_mask out")
        )
    source = _source(root, kind, sensor, used)
    source["counts"] = {**selection.counts, "used": len(used)}
    notes = (
        *selection.notes,
        *_notes_of(used),
        *_offset_notes(used),
        *_contradictions(used),
        *_upsampling_notes(used, grid),
    )
    return Raster(made.data, made.valid, sensor.bands, grid, made.reflectance, source, notes)


def _source(
    root: str, kind: Composite, sensor: SensorSpec, used: Sequence[SceneOnGrid]
) -> dict[str, Any]:
    """Return the provenance of a composite, as JSON values."""
    dates = [s.scene.acquired for s in used if s.scene.acquired is not None]
    folder = root if os.path.isdir(root) else os.path.dirname(root)
    home = "" if "://" in root else folder.rstrip("/") + "/"
    items = [s.as_json(home) for s in used[:_LISTED_ITEMS]]
    return {
        "root": root,
        "composite": kind,
        "cloud_mask": sensor.cloud_mask,
        "resampling": sorted({s.resampling for s in used}),
        "items": items,
        "items_not_listed": len(used) - len(items),
        "image_count": len(used),
        "acquired": [min(dates).isoformat(), max(dates).isoformat()] if dates else None,
    }


def files_per_scene(sensor: SensorSpec) -> int:
    """Return how many files of a scene are read at most."""
    return len(sensor.bands) + (sensor.cloud_mask == "scl")


def with_left_out(raster: Raster, left_out: Mapping[str, str], kind: str) -> Raster:
    """Return ``raster`` with the files or items (``kind``) that could not be used, and a note."""
    listed = dict(list(left_out.items())[:_LISTED_ITEMS])
    notes = raster.notes
    if left_out:
        notes += (
            f"{len(left_out)} {kind} that cannot be used were left out: {some(list(left_out))}; "
            "meta['source']['left_out'] says why",
        )
    return replace(raster, source={**raster.source, "left_out": listed}, notes=notes)


def _notes_of(used: Sequence[SceneOnGrid]) -> Iterator[str]:
    """Yield what is doubtful about single scenes: of many, the first ones."""
    notes = list(dict.fromkeys(note for s in used for note in s.notes))
    yield from notes[:_LISTED_NOTES]
    if len(notes) > _LISTED_NOTES:
        yield f"{len(notes) - _LISTED_NOTES} further scenes are doubtful in such ways"


def _offset_notes(used: Sequence[SceneOnGrid]) -> Iterator[str]:
    judged = [s for s in used if s.scene.offset_rule == "look"]
    if judged:
        shown = some([f"{s.scene.id}: {s.treatment.partition(' (')[0]}" for s in judged])
        yield (
            f"{len(judged)} scenes do not state reliably whether the offset of Sentinel-2 was "
            f"already subtracted, so it was judged by their pixels ({shown})"
        )


def _contradictions(used: Sequence[SceneOnGrid]) -> Iterator[str]:
    """Yield the scenes whose pixels contradict what is stated about the offset.

    Negative reflectance is below the offset too, but seldom in a whole scene; and a place without
    dark pixels may lie in one that has them. So the whole scene is looked at where the place is
    odd.
    """
    odd = [s for s in used if s.is_odd]
    shares = apart(lambda: [_sampled(s.scene, s.files)[0] for s in odd]) if odd else []
    found = [
        s for s, share in zip(odd, shares, strict=True) if (share > _APPLIED_SHARE) == s.subtracts
    ]
    for subtracts, reading in (
        (True, "a baseline with offset is stated, and 1000 was subtracted, but more than 1 % of "
         "their values are below 1000, as if it were subtracted already (these are 1 now)"),
        (False, "the offset is stated to be subtracted already, but hardly any of their values are "
         "below 1000, as if it were not"),
    ):  # fmt: skip
        names = [s.scene.id for s in found if s.subtracts == subtracts]
        if names:
            yield f"of {len(names)} scenes ({some(names)}) {reading}; correct the items if so"


def _upsampling_notes(used: Sequence[SceneOnGrid], grid: Grid) -> Iterator[str]:
    coarser = [s.coarser for s in used if s.coarser > AVERAGED_FROM]
    if coarser:
        pixel_m = gsd_m(grid)
        least, most = (f"{pixel_m * times:.4g}" for times in (min(coarser), max(coarser)))
        span = least if least == most else f"{least} to {most}"
        yield (f"imagery of {span} m was upsampled to {pixel_m:.4g} m; state scale_m={least}")
