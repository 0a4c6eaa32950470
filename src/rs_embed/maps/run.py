"""From a settled map to its file: windows are kept as they come, then the map is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rs_embed.addresses import path_of
from rs_embed.errors import ImageryError, RsEmbedError, give_warnings
from rs_embed.files.writing import check_place
from rs_embed.maps.blocks import BLOCK_PX
from rs_embed.maps.finished_windows import LAYOUT, seen_windows, window_key, window_meta
from rs_embed.maps.finishing import finish_map
from rs_embed.maps.first_look import probe
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.planning import check_disk, plan_of
from rs_embed.maps.report import MapReport, counted
from rs_embed.maps.request import AreaTask
from rs_embed.maps.window_tokens import WindowTokens
from rs_embed.maps.work import WindowWork
from rs_embed.progress import Bar
from rs_embed.runs.engines import LOCAL, Engine
from rs_embed.runs.journal import JournalResult
from rs_embed.runs.mirror import Mirror
from rs_embed.runs.run import DurableRun, logger, partial_path
from rs_embed.runs.shards import Shard, shards_of

# Groups after which the remaining time is logged; the first one waits for the model.
_MEASURED_AFTER = 3
# What a source states about single windows; all scenes together are the map's ``source_items``.
_OF_ONE_WINDOW = ("counts", "left_out", "items", "items_not_listed", "image_count", "acquired")
_ABOUT_PIXELS = (
    "backend", "backend_asked", "temporal", "sensor", "scale_m_source", "reflectance_source",
    "reflectance_scale", "reflectance_offset",
)  # fmt: skip


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a map to write, once it is clear that it can be written.

    Raises
    ------
    UnknownNameError
        If its suffix is not one of a map.
    ExportError
        If its folder is missing or read-only, or it is a folder that is not a map.
    """
    target = path_of(path)
    MAPS.check(target)
    check_place(partial_path(target))
    return target


def map_run(
    path: Path, area: AreaTask, *, overwrite: bool = False, mirror: Mirror | None = None
) -> DurableRun:
    """Return the run of a map, whose items are its windows."""
    return DurableRun(
        path,
        area.identity,
        map(window_key, area.layout.tiles),
        items=("window", "windows"),
        overwrite=overwrite,
        mirror=mirror,
    )


def make_map(
    area: AreaTask, run: DurableRun, *, engine: Engine = LOCAL, progress: bool | None = None
) -> MapReport:
    """Embed the windows that are left, write the map, and return the report.

    ``run`` is entered, see `map_run`; ``progress`` and errors are the same as for ``embed_area``.
    Finished windows are kept.
    """
    return _Making(area, run, engine).make(progress)


class _Making:
    """What is known while the windows of a map are made."""

    def __init__(self, area: AreaTask, run: DurableRun, engine: Engine) -> None:
        self._area = area
        self._run = run
        self._engine = engine
        self._tiles = {window_key(tile): tile for tile in area.layout.tiles}
        self._first_failure: RsEmbedError | None = None

    def make(self, progress: bool | None) -> MapReport:
        began = time.monotonic()
        area, run = self._area, self._run
        if not run.resumed:
            rows, columns = area.layout.tokens.shape
            logger.info("%s for %d x %d tokens", counted(len(self._tiles)), rows, columns)
        give_warnings(area.notes)
        if run.shared is not None:
            self._check(run.shared["dimensions"])
        count = len(run.fresh) + len(run.failed_before)
        if count:
            # Of all windows, so that a resumed run finds the same as the first one.
            units_seen = probe(area)
            with Bar(progress, unit="window", total=count) as bar:
                self._embed(bar, units_seen=units_seen)
        try:
            seen = seen_windows(run.metas())
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise run.damaged(f"the meta of a window is invalid: {exc!r}") from exc
        give_warnings(seen.notes)
        if run.shared is None:
            run.finished(disposable=True)
            if self._first_failure is None:  # all that failed before were tried again
                raise ImageryError(
                    f"got no valid pixel in any of the {len(self._tiles)} windows of the area, "
                    "expected some; choose another area or period"
                )
            raise self._first_failure.restated(
                f"none of the {len(self._tiles)} windows has tokens, {len(run.failed())} failed; "
                f"the first failure: {self._first_failure}"
            ) from self._first_failure
        report = finish_map(area, run, self._tiles, seen, began)
        run.finished(disposable=not report.failed)
        return report

    def _check(self, dimensions: int) -> None:
        """Raise now if tokens of so many dimensions cannot be stored, or the disk is too full."""
        self._area.check_tokens(dimensions)
        left = len(self._tiles) - self._run.kept
        check_disk(self._run.path, self._area, dimensions, left)

    def _embed(self, bar: Bar, *, units_seen: bool) -> None:
        work = WindowWork(self._area, units_seen)
        done, start = 0, time.monotonic()
        made = self._engine.results(work, self._parcels(work.batch_size))
        with closing(made):
            for number, (_, group) in enumerate(made, 1):
                self._keep(group)
                bar.advance(len(group))
                if number == 1:
                    start = time.monotonic()
                    continue
                done += len(group)
                if number == _MEASURED_AFTER:
                    self._log_remaining((time.monotonic() - start) / done)

    def _parcels(self, batch_size: int) -> Iterator[Iterable[Shard]]:
        """Yield the shards of the windows that are left, those of some rows at a time.

        What failed before comes last: windows then go through the model in the same groups as if
        nothing had failed.
        """
        size = max(1, batch_size // self._area.layout.passes**2)
        for wanted in (set(self._run.fresh), set(self._run.failed_before)):
            shards = (
                Shard(keys, tuple(self._tiles[key] for key in keys))
                for keys in shards_of(self._tiles, wanted, size=size)
            )
            for _, some in groupby(shards, lambda shard: shard.items[0].window[0] // BLOCK_PX):
                yield list(some)

    def _log_remaining(self, seconds_per_window: float) -> None:
        left = len(self._tiles) - self._run.kept
        if left and self._run.shared is not None:
            dimensions, seconds = self._run.shared["dimensions"], seconds_per_window * left
            cost = plan_of(self._area, dimensions, left, seconds).cost()
            logger.info("%s left: %s", counted(left), cost)

    def _keep(self, group: Sequence[WindowTokens]) -> None:
        """Keep the results of a group: all of them, or none."""
        nothing = np.zeros(0, np.float32)
        shared: dict[str, Any] | None = None
        results = []
        for window in group:
            notes = list(window.notes)
            self._first_failure = self._first_failure or window.error
            if window.provenance:
                self._run.check_weights(window.provenance)
            if window.tokens is not None and self._run.shared is None and shared is None:
                shared = self._shared(window)
                self._check(shared["dimensions"])
                notes.extend(window.gsd_notes)
            vector = nothing if window.tokens is None else window.tokens.ravel()
            error = window.error
            results.append(
                JournalResult(
                    window_key(window.tile),
                    vector if error is None else None,
                    window_meta(window.meta, notes),
                    None if error is None else str(error),
                )
            )
        self._run.keep(results, shared)

    def _shared(self, window: WindowTokens) -> dict[str, Any]:
        """Return what is the same for all windows: model, source of the pixels, kind of tokens."""
        about = window.acquired
        source = {k: v for k, v in about["source"].items() if k not in _OF_ONE_WINDOW}
        dimensions = 0 if window.tokens is None else window.tokens.shape[-1]
        layout = self._area.layout
        return {
            LAYOUT: {
                "lattice": layout.lattice.to_json(), "windows": len(self._tiles),
                "tile_size": layout.tile_size, "overlap_px": layout.overlap_px,
                "patch_size": layout.patch_size,
            },
            **window.provenance,
            **{key: about.get(key) for key in _ABOUT_PIXELS},
            "source": source, "dimensions": dimensions, "tokens_kind": window.kind,
        }  # fmt: skip
