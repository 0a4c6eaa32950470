"""One map in the making: windows are kept as they come, and the map is written from them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rs_embed._version import __version__
from rs_embed.embedding.encoding import gsd_notes
from rs_embed.embedding.identity import determining_keys, which_weights
from rs_embed.embedding.task import gsd_for_model
from rs_embed.errors import (
    CheckpointError,
    ExportError,
    ImageryError,
    RsEmbedError,
    give_warnings,
)
from rs_embed.files.writing import check_place
from rs_embed.geo.grid import gsd_m
from rs_embed.maps.blending import strips
from rs_embed.maps.finished_windows import SeenWindows, seen_windows, window_meta
from rs_embed.maps.first_look import probe, with_message
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.formats.writing import write_map
from rs_embed.maps.planning import plan_of
from rs_embed.maps.report import MapPlan, MapReport
from rs_embed.maps.request import AreaTask
from rs_embed.maps.window_tokens import WindowTokens, window_tokens
from rs_embed.progress import Bar
from rs_embed.runs.journal import Journal, JournalResult, discard

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Tile
    from rs_embed.models.base import Encoder

# Groups after which the time that is left is told; the first one waits for the model.
_MEASURED_AFTER = 3
# What a source says of single windows; all scenes together are the map's ``source_items``.
_OF_ONE_WINDOW = ("counts", "left_out", "items", "items_not_listed", "image_count", "acquired")
# Key of the record that says of all windows how they were made.
_COMMON = "common"
# What determines tokens besides the model and the pixels.
_OF_THE_MAP = ("tile_size", "overlap_px", "stride_px", "seams")
_ABOUT_PIXELS = (
    "backend", "backend_asked", "temporal", "sensor", "scale_m_source", "reflectance_source",
    "reflectance_scale", "reflectance_offset",
)  # fmt: skip


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a map to write, once it is clear that it can be.

    Raises
    ------
    UnknownNameError
        If its suffix is not that of a map.
    ExportError
        If its folder is missing or read-only, or it is a folder that holds no map.
    """
    target = Path(path)
    MAPS.check(target)
    check_place(target.with_name(f"{target.name}.partial"))
    return target


def windows_left(path: str | os.PathLike[str], asked: AreaTask, *, overwrite: bool) -> int:
    """Return how many windows a run would have to make; what is kept stays as it is.

    Raises
    ------
    ExportError
        As `AreaRun`.
    """
    target = checked_path(path)
    if not overwrite:
        _check_unfinished(target)
    if overwrite or not _journal_path(target).exists():
        return len(asked.layout.tiles)
    run = AreaRun(target, asked)
    run.close()
    return run.windows - run.resumed


def _journal_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _check_unfinished(path: Path) -> None:
    if path.exists() and not _journal_path(path).exists():
        raise ExportError(
            f"{path} is there already, and finished; choose another name, or replace it "
            "(--overwrite)"
        )


class AreaRun:
    """One map in the making. A context manager.

    Finished windows are kept beside the map, in ``<map>.partial``, until it is written; the same
    request goes on from there, and another one is refused.

    Parameters
    ----------
    path : path
        The map: ``.zarr``, ``.tif`` or ``.tiff``.
    asked : AreaTask
        What is asked for.
    overwrite : bool
        Whether to throw away what is kept, and replace a finished map.

    Attributes
    ----------
    windows : int
        Windows that the map takes.
    resumed : int
        How many of them earlier runs had done.

    Raises
    ------
    UnknownNameError
        If the file type is not one of these.
    ExportError
        If the map is there already, cannot be written, or what is kept belongs to another request,
        is damaged, or in use by another process.
    """

    def __init__(
        self, path: str | os.PathLike[str], asked: AreaTask, *, overwrite: bool = False
    ) -> None:
        self.path = checked_path(path)
        self._asked = asked
        self._tiles = {_key(tile): tile for tile in asked.layout.tiles}
        self.windows = len(self._tiles)
        self.journal_path = _journal_path(self.path)
        if not overwrite:
            _check_unfinished(self.path)
        else:
            discard(self.journal_path)
        self._disposable = False
        self._journal = Journal(self.journal_path, json.dumps(asked.identity))
        try:
            self.resumed = self.kept
            self._common = self._journal.meta_of(_COMMON)
        except BaseException:
            self._journal.close()
            raise
        self._encoder: Encoder | None = None
        self._failure: RsEmbedError | None = None
        self._units_seen = False
        self._valid_tokens = 0

    @property
    def kept(self) -> int:
        """How many windows are done and kept by now; 0 where there is nothing worth keeping."""
        return 0 if self._disposable else len(self._journal.done() & self._tiles.keys())

    def close(self) -> None:
        """Let go of what is kept, and leave it there."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What holds nothing must not stand in the way of a corrected request.
        try:
            self._disposable = self._disposable or not self.kept
        finally:
            if self._disposable:
                self._journal.delete()
            else:
                self._journal.close()

    def run(
        self,
        *,
        progress: bool | None = None,
        measured: Callable[[MapPlan], None] | None = None,
    ) -> MapReport:
        """Embed the windows that are left, write the map, and return what came of it.

        Parameters
        ----------
        progress : bool, optional
            Whether a bar counts windows on standard error; None where that is a terminal.
        measured : callable, optional
            Told what the windows left take, once the first ones have shown how long.

        Raises
        ------
        RsEmbedError
            As ``embed_area``; what was done is kept.
        """
        began = time.monotonic()
        give_warnings(self._asked.notes)
        if self._common is not None:
            self._asked.check_tokens(self._common["dimensions"])
        done, failed = self._journal.done(), self._journal.failed()
        # Those that failed come last: the others then go through the model in the same groups as
        # if nothing had ever failed.
        fresh = [t for key, t in self._tiles.items() if key not in done and key not in failed]
        again = [t for key, t in self._tiles.items() if key in failed]
        if fresh or again:
            # Of all windows, so that a run that goes on finds what the first one found.
            self._units_seen = probe(self._asked)
            with Bar(progress, unit="window", total=len(fresh) + len(again)) as bar:
                for tiles in (fresh, again):
                    self._embed(tiles, bar, measured)
        report = self._write(began)
        self._disposable = not report.failed
        return report

    def _embed(
        self, tiles: Sequence[Tile], bar: Bar, measured: Callable[[MapPlan], None] | None
    ) -> None:
        task = self._asked.task
        made = window_tokens(
            task,
            self._asked.layout,
            tiles,
            self._asked.read,
            self._loaded,
            workers=self._asked.settings.scalemae_fetch_workers,
            batch_size=self._asked.settings.scalemae_batch_size,
            units_seen=self._units_seen,
        )
        done, start = 0, time.monotonic()
        with closing(made):
            for number, group in enumerate(made, 1):
                self._keep(group)
                bar.advance(len(group))
                if number == 1:
                    start = time.monotonic()
                    continue
                done += len(group)
                if number == _MEASURED_AFTER and measured is not None and self._common:
                    left = self.windows - self.kept
                    if not left:
                        continue
                    seconds = (time.monotonic() - start) / done * left
                    measured(plan_of(self._asked, self._common["dimensions"], left, seconds))

    def _loaded(self) -> Encoder:
        """Return the model, loaded once, and refuse other weights than those of kept windows."""
        if self._encoder is None:
            encoder = self._asked.task.plan.load()
            now = which_weights(encoder.provenance)
            before = now if self._common is None else which_weights(self._common)
            if before != now:
                raise CheckpointError(
                    f"got weights {now}, but the windows in {self.journal_path} have {before} "
                    "under the same name; bring those back, or begin anew (--overwrite)"
                )
            self._encoder = encoder
        return self._encoder

    def _keep(self, group: Sequence[WindowTokens]) -> None:
        """Write what came of a group to the disk, all of it or nothing."""
        nothing = np.zeros(0, np.float32)
        results = []
        common: dict[str, Any] | None = None
        for window in group:
            self._failure = self._failure or window.error
            vector = nothing if window.tokens is None else window.tokens.ravel()
            notes = list(window.notes)
            if self._common is common is None and window.tokens is not None:
                common = self._common_of(window)
                self._asked.check_tokens(common["dimensions"])
                results.append(JournalResult(_COMMON, nothing, common, None))
                if self._encoder is not None:
                    notes.extend(gsd_notes(window.meta["input_res"], self._encoder))
            results.append(
                JournalResult(
                    _key(window.tile),
                    vector if window.error is None else None,
                    window_meta(window.meta, notes),
                    None if window.error is None else str(window.error),
                )
            )
        self._journal.add_all(results)
        self._common = self._common or common

    def _common_of(self, window: WindowTokens) -> dict[str, Any]:
        """Return what is the same of all windows: model, source of the pixels, kind of tokens."""
        about = window.acquired
        source = {k: v for k, v in about["source"].items() if k not in _OF_ONE_WINDOW}
        dimensions = 0 if window.tokens is None else window.tokens.shape[-1]
        return {
            **({} if self._encoder is None else self._encoder.provenance),
            **{key: about.get(key) for key in _ABOUT_PIXELS},
            "source": source, "dimensions": dimensions, "tokens_kind": window.kind,
        }  # fmt: skip

    def _write(self, began: float) -> MapReport:
        """Write the map from what is kept, and return what came of it."""
        failed = {key: why for key, why in self._journal.failed().items() if key in self._tiles}
        try:
            seen = seen_windows(self._journal.metas(self._tiles))
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise self._journal.damaged(f"the meta of a window makes no sense: {exc!r}") from exc
        notes = {note.message: note for note in (*self._asked.notes, *seen.notes)}
        give_warnings(seen.notes)
        if self._common is None:
            self._disposable = True
            raise self._nothing(failed)
        asked, layout = self._asked, self._asked.layout
        content = MapContent(
            layout.tokens,
            self._common["dimensions"],
            self._strips,
            self._meta(seen, len(failed), list(notes)),
        )
        written = write_map(self.path, content, asked.encoding, when=asked.acquired)
        return MapReport(
            path=written.path,
            item=written.item,
            windows=self.windows,
            resumed=self.resumed,
            failed={layout.window(self._tiles[key]).bounds: why for key, why in failed.items()},
            tokens=int(layout.wanted.sum()),
            valid_tokens=self._valid_tokens,
            seconds=time.monotonic() - began,
            bytes=written.bytes_written,
            peak_memory_bytes=_peak_memory(),
            encoding_error=None if written.error is None else written.error.to_json(),
        )

    def _strips(self, rows: int) -> Iterator[NDArray[np.float32]]:
        """Yield the map strip by strip; how many tokens it has is known after the last one."""
        dimensions = (self._common or {})["dimensions"]
        made = strips(self._asked.layout, self._tokens, dimensions, self._asked.seams, rows)
        count = 0
        for strip in made:
            count += int(np.count_nonzero(~np.isnan(strip[..., 0])))
            yield strip
        self._valid_tokens = count

    def _nothing(self, failed: dict[str, str]) -> RsEmbedError:
        """Return the error of a map without a single token."""
        if self._failure is not None:  # all that failed before were tried again
            message = (
                f"none of the {self.windows} windows has tokens, {len(failed)} failed; the first "
                f"failure: {self._failure}"
            )
            return with_message(self._failure, message)
        return ImageryError(
            f"got no valid pixel in any of the {self.windows} windows of the area, expected some; "
            "choose another area or period"
        )

    def _tokens(self, tiles: list[Tile]) -> Iterator[NDArray[np.float32] | None]:
        """Yield what is kept of tiles; None where there is nothing, or it failed."""
        layout = self._asked.layout
        shape = (layout.passes, layout.passes, *layout.tile_patches, -1)
        for result in self._journal.results([_key(tile) for tile in tiles]):
            vector = result.vector
            yield None if vector is None or not vector.size else vector.reshape(shape)

    def _meta(self, seen: SeenWindows, failed: int, warnings: list[str]) -> dict[str, Any]:
        """Return how the map was made, as JSON values."""
        asked, layout = self._asked, self._asked.layout
        policy, gsd = asked.task.plan.gsd, gsd_m(layout.area)
        meta = {
            "model": asked.task.description.id,
            "rs_embed_version": __version__,
            **(self._common or {}),
            "output": "map",
            "grid": layout.tokens.to_json(),
            "area_grid": layout.area.to_json(),
            "gsd_m": gsd,
            "gsd_m_range": seen.gsd_m,
            "input_res": gsd_for_model(policy, gsd, layout.tile_size),
            "input_res_range": seen.input_res,
            "gsd_policy": policy if isinstance(policy, str) else "number",
            **asked.task.plan.input_meta,
            "used_patch_size": layout.patch_size,
            "stride_px": layout.stride_px,
            "tiles": {
                "count": self.windows, "size": layout.tile_size, "overlap_px": layout.overlap_px,
                "seams": asked.seams, "empty": self.windows - seen.count - failed,
                "failed": failed,
            },
            "source_items": seen.items,
            "request": {
                **asked.stated,
                "dtype": asked.encoding.dtype,
                "pca": asked.encoding.pca,
                "acquired": None if asked.acquired is None else asked.acquired.isoformat(),
            },
            "warnings": warnings,
        }  # fmt: skip
        digest = hashlib.sha256(seen.sha256.encode())
        digest.update(json.dumps([asked.identity[name] for name in _OF_THE_MAP]).encode())
        digest.update(repr(layout.wanted.shape).encode() + layout.wanted.tobytes())
        digest.update(
            json.dumps(
                [meta.get(key) for key in determining_keys(asked.task.description.options)]
            ).encode()
        )
        meta["fingerprint"] = digest.hexdigest()
        return meta


def _key(tile: Tile) -> str:
    return f"{tile.rows.start} {tile.columns.start}"


def _peak_memory() -> int | None:
    """Return the greatest memory that the process has had, bytes."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
