"""From the kept windows of a map to its file, with the meta that describes how it was made."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._version import __version__
from rs_embed.embedding.identity import recorded_values, which_weights
from rs_embed.embedding.stac import has_time, item_path, json_object, time_fields
from rs_embed.embedding.task import gsd_for_model
from rs_embed.errors import ExportError
from rs_embed.geo.grid import gsd_m
from rs_embed.maps.blending import strips
from rs_embed.maps.finished_windows import LAYOUT, SeenWindows, window_key
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.offsets import WindowOffsets
from rs_embed.maps.formats.opening import open_map
from rs_embed.maps.formats.paths import size_bytes
from rs_embed.maps.formats.stac_item import write_item
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.formats.writing import write_map
from rs_embed.maps.harmonising import Differences, Windows, differences, shifted
from rs_embed.maps.report import MapReport
from rs_embed.maps.request import NO_ITEM, AreaTask
from rs_embed.runs.remote import Destination
from rs_embed.runs.run import DurableRun, check_same, logger

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Tile

# What determines tokens besides the model and the pixels.
_OF_THE_MAP = ("tile_size", "overlap_px", "stride_px", "seams", "screen")


def finish_map(
    area: AreaTask,
    run: DurableRun,
    tiles: Mapping[str, Tile],
    seen: SeenWindows,
    began: float,
) -> MapReport:
    """Write the map from the windows that are kept, and return the report.

    At least one token must be kept. ``tiles`` are the windows by their keys in the order of the
    layout, ``seen`` is their summary, and ``began`` the `time.monotonic` of the start.
    """
    shared = run.shared or {}
    failed = run.failed()
    notes = {note.message: note for note in (*area.notes, *seen.notes)}
    valid_tokens = 0

    def tokens(wanted: list[Tile]) -> Iterator[NDArray[np.float32] | None]:
        """Yield what is kept of windows; None where there is nothing, or it failed."""
        layout = area.layout
        shape = (layout.passes, layout.passes, *layout.tile_patches, -1)
        for result in run.results(map(window_key, wanted)):
            vector = result.vector
            yield None if vector is None or not vector.size else vector.reshape(shape)

    compared = differences(area.layout, tokens, shared["dimensions"])
    harmony = _harmony(area, compared)
    windows: Windows = tokens
    agreed = None
    if harmony is not None:
        windows = shifted(area.layout, tokens, harmony.vectors)
        agreed = differences(area.layout, windows, shared["dimensions"]).apart

    def map_strips(rows: int) -> Iterator[NDArray[np.float32]]:
        """Yield the map strip by strip; how many tokens it has is known after the last one."""
        nonlocal valid_tokens
        count = 0
        for strip in strips(area.layout, windows, shared["dimensions"], area.seams, rows):
            count += int(np.count_nonzero(~np.isnan(strip[..., 0])))
            yield strip
        valid_tokens = count

    meta = _meta(area, shared, seen, len(failed), list(notes))
    meta["tiles"] |= {"apart": compared.apart, "apart_harmonised": agreed}
    content = MapContent(area.layout.tokens, shared["dimensions"], map_strips, meta, harmony)
    written = write_map(run.path, content, area.encoding, when=area.acquired)
    return MapReport(
        path=written.path,
        item=written.item,
        windows=len(tiles),
        resumed=run.resumed,
        failed={area.layout.window(tiles[key]).bounds: why for key, why in failed.items()},
        tokens=int(area.layout.wanted.sum()),
        valid_tokens=valid_tokens,
        seconds=time.monotonic() - began,
        bytes=written.bytes_written,
        peak_memory_bytes=_peak_memory(),
        encoding_error=None if written.error is None else written.error.to_json(),
        apart=compared.apart,
        apart_harmonised=meta["tiles"]["apart_harmonised"],
    )


def _harmony(area: AreaTask, compared: Differences) -> WindowOffsets | None:
    """Return what is added to the tokens of each window; None if nothing is."""
    if area.screen is None:
        return None
    layout = area.layout
    corners = [
        [(span.start - before) * layout.passes
         for span, before in zip((tile.rows, tile.columns), layout.offset, strict=True)]
        for tile in layout.tiles
    ]  # fmt: skip
    height, width = (side * layout.passes for side in layout.tile_patches)
    return WindowOffsets(
        compared.offsets(area.screen),
        np.array(corners, np.int64),
        (height, width),
        layout.overlap_px / layout.patch_size * layout.passes,
    )


def check_finished(area: AreaTask, target: Destination) -> xr.DataArray:
    """Return a map that is finished already; no token is read.

    Its request may lack the time of the imagery, which only its STAC Item tells.

    Raises
    ------
    ExportError
        If it is not the complete map of this request, or its Item has another time.
    """
    opened = open_map(_readable(target))
    meta = json.loads(opened.attrs["meta"])
    stored = None
    if "identity" in meta and not meta["tiles"]["failed"]:
        kept = {name: meta["request"].get(name) for name in area.storage}
        if kept["acquired"] is None:
            kept["acquired"] = area.storage["acquired"]
        stored = {**meta["identity"], **kept, **which_weights(meta)}
    check_same(target.shown, stored, {**area.identity, **area.storage}, area.task)
    if (opened.sizes["y"], opened.sizes["x"]) != area.layout.tokens.shape:
        check_same(target.shown, None, {}, area.task)  # cut since
    item = item_path(target.path)
    told = json_object(item, "properties")
    if told and area.acquired is not None:
        expected = time_fields(meta, area.acquired)
        found = {name: told.get(name) for name in expected}
        if found != expected:
            raise ExportError(
                f"got the time {area.acquired.isoformat()} for {target.shown}, whose STAC Item "
                f"{item.name} has {found['datetime']}; leave it out, or delete the Item to write "
                "it anew"
            )
    return opened


def finished_map(area: AreaTask, target: Destination) -> MapReport:
    """Return the report of a map that is finished already; write its STAC Item if it lacks one.

    Raises
    ------
    ExportError
        As `check_finished`, or if the Item cannot be written.
    """
    began = time.monotonic()
    opened = check_finished(area, target)
    path, mirror = target.path, target.mirror
    meta = json.loads(opened.attrs["meta"])
    item, windows = item_path(path), len(area.layout.tiles)
    if not item.exists() and (has_time(meta) or area.acquired is not None):
        _write_item_of(area, target, meta)
    if mirror is not None:
        mirror.tidy()
    return MapReport(
        path=path,
        item=item if item.exists() else None,
        windows=windows,
        resumed=windows,
        failed={},
        tokens=int(area.layout.wanted.sum()),
        valid_tokens=int(np.isfinite(opened.isel(d=0)).sum()),
        seconds=time.monotonic() - began,
        bytes=size_bytes(path) if mirror is None else mirror.size_bytes(),
        peak_memory_bytes=_peak_memory(),
        encoding_error=meta["encoding"].get("error"),
        apart=meta["tiles"]["apart"],
        apart_harmonised=meta["tiles"]["apart_harmonised"],
        finished_before=True,
    )


def _readable(target: Destination) -> Path | str:
    """Return where to read a map; of a folder on a store, nothing is downloaded unread."""
    return target.shown if target.path.is_dir() else target.path


def _write_item_of(area: AreaTask, target: Destination, meta: dict[str, Any]) -> None:
    """Write the STAC Item of a finished map, as if its time had been stated at once."""
    form, is_int8 = MAPS.of(target.path), meta["encoding"]["dtype"] == "int8"
    warnings = [text for text in meta["warnings"] if text != NO_ITEM]
    request = {**meta["request"], "acquired": area.storage["acquired"]}
    write_item(
        target.path,
        form.media_type,
        area.layout.tokens,
        {**meta, "request": request, "warnings": warnings},
        scales=form.scales(_readable(target)) if form.scales and is_int8 else None,
        when=area.acquired,
    )
    if target.mirror is not None:
        target.mirror.publish_beside(target.path)
    logger.info("wrote %s.json", target.shown)


def _meta(
    area: AreaTask,
    shared: Mapping[str, Any],
    seen: SeenWindows,
    failed: int,
    warnings: list[str],
) -> dict[str, Any]:
    """Return how the map was made, as JSON values."""
    layout = area.layout
    policy, gsd = area.task.plan.gsd, gsd_m(layout.area)
    windows = len(layout.tiles)
    meta = {
        "model": area.task.description.id,
        "rs_embed_version": __version__,
        **{key: value for key, value in shared.items() if key != LAYOUT},
        "output": "map",
        "grid": layout.tokens.to_json(),
        "area_grid": layout.area.to_json(),
        "gsd_m": gsd,
        "gsd_m_range": seen.gsd_m,
        "input_res": gsd_for_model(policy, gsd, layout.tile_size),
        "input_res_range": seen.input_res,
        **seen.colours,
        "gsd_policy": policy if isinstance(policy, str) else "number",
        **area.task.plan.input_meta,
        "used_patch_size": layout.patch_size,
        "stride_px": layout.stride_px,
        "tiles": {
            "count": windows, "size": layout.tile_size, "overlap_px": layout.overlap_px,
            "seams": area.seams, "empty": windows - seen.count - failed, "failed": failed,
        },
        "source_items": seen.items,
        "identity": area.identity,
        "request": {
            **area.stated, **area.storage
        },
        "warnings": warnings,
    }  # fmt: skip
    digest = hashlib.sha256(seen.sha256.encode())
    digest.update(json.dumps([area.identity[name] for name in _OF_THE_MAP]).encode())
    digest.update(repr(layout.wanted.shape).encode() + layout.wanted.tobytes())
    digest.update(json.dumps(recorded_values(area.task, meta)).encode())
    meta["fingerprint"] = digest.hexdigest()
    return meta


def _peak_memory() -> int | None:
    """Return the greatest memory that the process has had, bytes."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
