"""Many named places into one file of vectors, in a run that can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed.embedding.arguments import fetch_of, is_day, period_of
from rs_embed.embedding.covering import check_pooling
from rs_embed.embedding.estimate import Estimate, estimate, refuse_imagery
from rs_embed.embedding.identity import identity, which_weights
from rs_embed.embedding.kept import KeptModel, check_names
from rs_embed.embedding.many_places import ON_ERROR, embed_places
from rs_embed.embedding.place_arguments import arguments_of
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Task, settle
from rs_embed.errors import (
    Note,
    RsEmbedError,
    SpecError,
    UnknownNameError,
    give_warnings,
    some,
)
from rs_embed.files.identity import imagery_identity
from rs_embed.files.place_tables import Places, places_of
from rs_embed.geo.polygons import require_shapely
from rs_embed.printable import excerpt, html_text
from rs_embed.progress import Bar
from rs_embed.runs.engines import Engine
from rs_embed.runs.journal import JournalResult
from rs_embed.runs.remote import Destination, destination
from rs_embed.runs.run import DurableRun, check_same, is_finished, logger
from rs_embed.runs.shards import Shard, shards_of
from rs_embed.settings import Settings
from rs_embed.specs import (
    SPATIALS,
    BBox,
    FetchSpec,
    InputPrepSpec,
    OutputSpec,
    Spatial,
    TemporalSpec,
    to_json,
)
from rs_embed.tables.columns import PlaceColumns, TableContent, of_names, place_columns
from rs_embed.tables.formats import TABLES, TableFormat
from rs_embed.tables.summary import summary
from rs_embed.tables.work import PlaceWork

if TYPE_CHECKING:
    from rs_embed.embedding.result import Embedding

_SHOWN_ERRORS = 5
_FIELDS = {"spatials": "spatial", "imageries": "imagery"}
_PIXELS = ("temporal", "sensor", "fetch", "backend", "imagery", "cache")
_ARGUMENTS = (*_PIXELS, "scale_m", "input_prep", "min_valid", "device")


@dataclass(frozen=True, repr=False)
class BatchReport:
    """The outcome of `export_batch`; ``print(report)`` shows a summary.

    Attributes
    ----------
    path : pathlib.Path or str
        The file that was written; its URL if it is on an object store.
    places : int
        Rows in it.
    resumed : int
        Places that earlier runs had done.
    errors : dict
        Id -> error of the places that failed; their rows are NaN.
    seconds : float
        Duration of this run.
    finished_before : bool
        Whether there was nothing left to do, so that nothing was written.
    warnings : tuple of str
        What was assumed about the places, such as row numbers instead of repeated ids.
    """

    path: Path | str
    places: int
    resumed: int
    errors: dict[str, str]
    seconds: float
    finished_before: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def places_per_s(self) -> float:
        """Places per second in this run."""
        return (self.places - self.resumed) / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "file": str(self.path),
            "places": self.places,
            "failed": len(self.errors),
            "resumed": self.resumed,
            "finished_before": self.finished_before,
            "seconds": round(self.seconds, 3),
            "places_per_s": round(self.places_per_s, 3),
            "errors": self.errors,
            "warnings": list(self.warnings),
        }

    def __repr__(self) -> str:
        if self.finished_before:
            return f"already finished: {self.path}, {self.places} places"
        counts = [f"{self.places - len(self.errors)} of {self.places} places"]
        if self.errors:
            counts.append(f"{len(self.errors)} failed (rows of NaN)")
        if self.resumed:
            counts.append(f"{self.resumed} done before")
        lines = [f"wrote {self.path}: {', '.join(counts)}; {self.places_per_s:.1f} places/s"]
        failed: dict[str, list[str]] = {}
        for name, error in self.errors.items():
            failed.setdefault(error, []).append(excerpt(name))
        for error, names in list(failed.items())[:_SHOWN_ERRORS]:
            lines.append(f"failed {some(names)}: {error}")
        if len(failed) > _SHOWN_ERRORS:
            lines.append("the other errors are in the file")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_text(repr(self))


def export_batch(
    model: str | KeptModel,
    places: Any,
    *,
    output: str | os.PathLike[str],
    buffer_m: float | None = None,
    id_column: str | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
    pooling: Literal["mean", "max", "cls"] | None = None,
    overwrite: bool = False,
    on_error: Literal["raise", "return"] = "return",
    progress: bool | None = None,
    dtype: Literal["float32", "float16", "int8"] | None = None,
    order: Literal["hilbert", "input"] | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    **arguments: Any,
) -> BatchReport:
    """Embed many places into one file of vectors, which `load_export` reads.

    Results are kept in ``<output>.partial`` until all places are done, those of one shard (as many
    places as a forward pass has images) at once: the same call continues after an interruption,
    retries places that failed, and does nothing if all are done. Until then places may be added,
    removed or reordered; one that moved is embedded again. The file is the same, byte for byte,
    however often the run was interrupted, and on any engine.

    Parameters
    ----------
    model : str or LoadedModel
        Id or alias, see ``list_models()``, or a model of `load_model`.
    places : object
        A CSV, GeoJSON, GeoPackage, GeoParquet or (zipped) Shapefile; a GeoDataFrame or GeoSeries
        in any CRS, a DataFrame with columns ``lon`` and ``lat``; shapely geometries, (lon, lat)
        pairs, `BBox`, `PointBuffer` or `NamedPlace` objects; what has ``__geo_interface__``; a
        folder or a list of georeferenced images. Columns ``start`` and ``end`` (half-open) or
        ``date``, ``scale_m`` and ``buffer_m`` are of each row. A polygon is embedded on its
        bounding window and pooled over the tokens that it covers.
    output : path or URL
        The ``.parquet`` (GeoParquet), ``.csv`` or ``.npz`` to write, on this disk or an object
        store (``s3://...``, see docs/batches.md).
    buffer_m : float, optional
        Half the side of the square around points that state none, ground metres.
    pooling : {"mean", "max", "cls"}, optional
        How tokens become one vector, see `OutputSpec.pooled`.
    id_column : str, optional
        Column of the ids; ``id`` if there is one, else rows are numbered from 0.
    layer : str, optional
        Layer of a file that has several.
    polygons : {"cover", "box"}
        Whether a polygon is pooled over what it covers, or over its bounding window.
    overwrite : bool
        Whether to start again, and replace a finished file.
    on_error : {"raise", "return"}
        Whether the first place that fails ends the run, or becomes a row of NaN.
    progress : bool, optional
        Whether to show a progress bar on standard error; None: in a terminal or notebook.
    dtype : {"float32", "float16", "int8"}, optional
        How a ``.parquet`` stores vectors; int8 with a scale for each row. Default float32.
    order : {"hilbert", "input"}, optional
        The order of the rows of a ``.parquet``: by default along a Hilbert curve, so that places
        near each other are read together. `load_export` returns the order of the places.
    workers : int, optional
        Processes that embed at the same time: on this machine instead of this process, each with
        its own copy of the model and its share of the cores; on Ray see `Engine`. With several
        cards (``device="cuda:0,1"``) there is one for each, if no number is stated. A place that
        ends its process then becomes a row with the reason.
    engine : {"local", "ray"}
        This machine, or a Ray cluster (needs the extra ``ray``). A run may go on with another one.
    ray_address : str, optional
        Address of the cluster, see ``ray.init``; without it ``RAY_ADDRESS``, else Ray is started
        on this machine.
    **arguments
        ``temporal``, ``sensor``, ``fetch``, ``scale_m``, ``backend``, ``imagery``, ``cache``,
        ``input_prep``, ``min_valid``, ``device`` and the model's own options, as for
        `iter_embeddings`.

    Returns
    -------
    BatchReport
        What was written, and which places failed.

    Raises
    ------
    SpecError
        If the request is invalid; `UnknownNameError` for names and file types.
    ExportError
        If the file is finished and that of another request, or cannot be written, or if what is
        kept belongs to another request, is damaged, or is in use by another process.
    CheckpointError
        If places kept earlier were made with other weights of the same name.
    EngineError
        If workers cannot be started or reached, or keep ending.
    RsEmbedError
        As `iter_embeddings`. The error of a place names its id, and ``index`` is its number.
    """
    where = Engine(engine, workers, ray_address, arguments.get("device", "auto"))
    arguments["device"] = where.own_device
    table = {"buffer_m": buffer_m, "id_column": id_column, "layer": layer, "polygons": polygons}
    with destination(output, TABLES, overwrite=overwrite) as target:
        batch = _prepared(
            target, model, places, table, pooling, dtype, order, on_error, overwrite, arguments
        )
        asked, path, rows, by_key = batch.asked, target.path, batch.asked.rows, batch.asked.by_key
        if batch.run is None:
            if target.mirror is not None:
                target.mirror.tidy()
            count = len(by_key)
            return BatchReport(target.shown, count, count, {}, 0.0, True, asked.warnings)
        with batch.run as run:
            began = time.monotonic()
            _embed(run, asked, where, on_error=on_error, progress=progress)
            request = {**batch.request, **which_weights(run.shared or {})}
            batch.form.write_all(path, _content(run, asked, batch.columns, request))
            failed = run.failed()
            errors = {str(rows.ids[by_key[key]]): failed[key] for key in by_key if key in failed}
            run.finished(disposable=not errors)
        seconds = time.monotonic() - began
        return BatchReport(
            target.shown, len(by_key), run.resumed, errors, seconds, warnings=asked.warnings
        )


def plan_batch(
    model: str | KeptModel,
    places: Any,
    *,
    output: str | os.PathLike[str],
    buffer_m: float | None = None,
    id_column: str | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
    pooling: Literal["mean", "max", "cls"] | None = None,
    overwrite: bool = False,
    on_error: Literal["raise", "return"] = "return",
    progress: bool | None = None,  # noqa: ARG001  # accepted, so that the arguments are the same
    dtype: Literal["float32", "float16", "int8"] | None = None,
    order: Literal["hilbert", "input"] | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    **arguments: Any,
) -> Estimate:
    """Return what `export_batch` with these arguments would request, checked as it checks them.

    No pixels are fetched, and nothing is written. A finished table requests nothing; of an
    unfinished one, all places are counted.

    Raises
    ------
    RsEmbedError
        As `export_batch`, for all that is known before pixels are read; what is wrong with single
        places is in ``refused``. As `estimate` for own imagery.
    """
    refuse_imagery(arguments.get("imagery"))
    where = Engine(engine, workers, ray_address, arguments.get("device", "auto"))
    arguments["device"] = where.own_device
    table = {"buffer_m": buffer_m, "id_column": id_column, "layer": layer, "polygons": polygons}
    with destination(output, TABLES, overwrite=overwrite) as target:
        batch = _prepared(
            target, model, places, table, pooling, dtype, order, on_error, overwrite, arguments
        )
        count = len(batch.asked.by_key)
        if batch.run is None:
            return Estimate(str(arguments.get("backend", "auto")), 0, 0, 0, 0, 0, "", {})
        left = batch.run.remaining()
    if left < count:
        done = count - left
        logger.info("%d of %d places are done; the estimate is for all", done, count)
    # Its places, without the warnings that are given by now.
    rows = replace(batch.asked.rows, notes=())
    found = estimate(model, spatials=rows, **arguments)
    refused = {rows.ids[int(number)]: why for number, why in found.refused.items()}
    return replace(found, refused=refused)


@dataclass(frozen=True, eq=False)
class _Batch:
    """A table, checked: nothing is read or written yet. ``run`` is None if it is finished."""

    asked: Asked
    form: TableFormat
    columns: PlaceColumns | None
    request: dict[str, Any]
    run: DurableRun | None


def _prepared(
    target: Destination,
    model: str | KeptModel,
    places: Any,
    table: Mapping[str, Any],
    pooling: Literal["mean", "max", "cls"] | None,
    dtype: str | None,
    order: str | None,
    on_error: str,
    overwrite: bool,
    arguments: Mapping[str, Any],
) -> _Batch:
    """Return the table of places that `export_batch` would write to ``target``."""
    path = target.path
    form = TABLES.of(path)
    form.check(path)
    stored = form.storage(dtype, order)
    if on_error not in ON_ERROR:
        raise UnknownNameError.among("on_error", on_error, ON_ERROR)
    _check_arguments(arguments)
    check_known(model, arguments)
    rows = places_of(places, **table)
    notes = () if form.describe is None else of_names(rows.frame.columns)
    asked = asked_of(model, rows, pooling, arguments, notes)
    columns = None
    if form.describe is not None:
        columns = place_columns(rows.frame, rows.ids, rows.id_column, stored["order"])
    wanted = asked.identity()
    request = {**wanted, "places": _places_text(asked.by_key)}
    if columns is not None:
        request["table"] = {**columns.to_json(), **stored}
    if is_finished(path, overwrite=overwrite):
        check_same(target.shown, form.request_of(path), request, asked.task)
        return _Batch(asked, form, columns, request, None)
    run = DurableRun(
        path,
        wanted,
        asked.by_key,
        items=("place", "places"),
        overwrite=overwrite,
        mirror=target.mirror,
    )
    return _Batch(asked, form, columns, request, run)


@dataclass(frozen=True, eq=False)
class Asked:
    """Places, and what is asked of each of them."""

    rows: Places
    by_key: dict[str, int]  # number of each row by the name of its result
    task: Task
    source: Source
    each: dict[str, Any]  # arguments of `embed_places`: one for all, or a list
    settings: Settings
    warnings: tuple[str, ...]  # those about the places, given already

    def identity(self) -> dict[str, Any]:
        """Return what determines the results, apart from the places."""
        wanted = identity(self.task, self.source)
        if self.rows.imageries is not None:  # each is part of the key of its place
            wanted = {**wanted, "imagery": "of each place"}
        return wanted

    def item(self, number: int) -> dict[str, Any]:
        """Return what a row has of its own, see `PlaceWork`."""
        return {
            _FIELDS.get(name, name): values[number]
            for name, values in self.each.items()
            if isinstance(values, list)
        }

    def work(self) -> PlaceWork:
        """Return what is done with the rows; `SpecError` if arguments contradict a row."""
        once = {name: spec for name, spec in self.each.items() if not isinstance(spec, list)}
        imagery = None if self.rows.imageries is not None else self.source.imagery
        work = PlaceWork(
            self.task,
            replace(self.source, imagery=imagery, **once),
            self.settings.scalemae_fetch_workers,
            self.settings.scalemae_batch_size,
        )
        for number in range(len(self.rows)):
            work.source_of(self.item(number)).check()
        return work

    def results(
        self, numbers: Sequence[int], **how: Any
    ) -> Generator[Embedding | RsEmbedError, None, None]:
        """Return an iterator over the results of some rows; ``how`` as for `embed_places`."""
        own = {
            name: [values[number] for number in numbers] if isinstance(values, list) else values
            for name, values in self.each.items()
        }
        pixels: dict[str, Any] = {
            name: own.pop(name) for name in ("spatials", "imageries") if name in own
        }
        source = self.source
        if self.rows.imageries is not None:
            source = replace(source, imagery=None)
        return embed_places(self.task, source, pixels, own, settings=self.settings, **how)


def asked_of(
    model: str | KeptModel,
    rows: Places,
    pooling: Literal["mean", "max", "cls"] | None,
    arguments: Mapping[str, Any],
    notes: Iterable[Note] = (),
) -> Asked:
    """Return what is asked of places, checked; warnings about them, and ``notes``, are given."""
    fetch = fetch_of(arguments.get("fetch"), arguments.get("scale_m"))
    stated = {"temporal": period_of(arguments.get("temporal")), "fetch": fetch}
    arguments = {**arguments, **stated}
    arguments.pop("scale_m", None)
    items, shared, of_arguments = arguments_of(
        rows,
        arguments.get("temporal"),
        arguments.get("fetch"),
        own_pixels=arguments.get("imagery") is not None,
    )
    notes = [*rows.notes, *of_arguments, *notes]
    give_warnings(notes)
    by_key = _by_key(rows, shared)
    settings = Settings.from_environ()
    pixels = {} if rows.imageries is None else {"imagery": rows.imageries[0]}
    output = OutputSpec("pooled", pooling)
    task, source = _settled(model, settings, output=output, **{**arguments, **pixels})
    check_pooling(task.output, rows.shapes)
    warned = tuple(note.message for note in notes)
    return Asked(rows, by_key, task, source, {**items, **shared}, settings, warned)


def _by_key(rows: Places, shared: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of each row by the name of its result: one that moved has another."""
    each = {name: own for name, own in shared.items() if isinstance(own, list)}
    if rows.imageries is not None:
        each["imagery"] = [imagery_identity(path) for path in rows.imageries]
    if "shape" in each:
        each["shape"] = digests(each["shape"])
    by_key = {}
    for number, (name, place) in enumerate(zip(rows.ids, rows.spatials, strict=True)):
        key: list[Any] = [str(name)]
        if place is not None:
            key += [type(place).__name__, *map(float, vars(place).values())]
        if each:
            key.append({name: _json(values[number]) for name, values in each.items()})
        by_key[json.dumps(key)] = number
    return by_key


def place_of_key(key: str) -> tuple[str, Spatial | None, str | None]:
    """Return id, place and digest of the polygon of a result that a run has kept.

    `ValueError` if it is not one.
    """
    name, *place = json.loads(key)
    own = place.pop() if place and isinstance(place[-1], dict) else {}
    return name, SPATIALS[place[0]](*place[1:]) if place else None, own.get("shape")


def _json(value: Any) -> Any:
    """Return what a row states as JSON values."""
    return to_json(value) if isinstance(value, TemporalSpec | FetchSpec) else value


def digests(shapes: Sequence[Any]) -> list[str | None]:
    """Return a digest of each geometry."""
    contents = require_shapely().to_wkb(np.array(shapes, dtype=object))
    return [None if wkb is None else hashlib.sha256(wkb).hexdigest()[:32] for wkb in contents]


def _places_text(by_key: Mapping[str, int]) -> str:
    """Return what identifies the places and their order."""
    digest = hashlib.sha256("\n".join(by_key).encode()).hexdigest()
    return f"{len(by_key)} places, SHA-256 {digest[:32]}"


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    for name in ("spatials", "input_chws", "imageries", "keep_images"):
        if name in arguments:
            raise SpecError(f"got {name}=, which export_batch does not support; use places")
    for name in ("temporal", "fetch"):
        value = arguments.get(name)
        several = isinstance(value, Iterable) and not isinstance(value, str | Mapping)
        if several and not all(map(is_day, value or ())):
            raise SpecError(
                f"got {name} for each place, expected one for all: the list of places may change "
                "before a run is resumed"
            )


def _known() -> set[str]:
    """Return the arguments of a table that are not the model's."""
    return {*inspect.signature(export_batch).parameters, *_ARGUMENTS}


def check_known(model: str | KeptModel, arguments: Mapping[str, Any]) -> None:
    """Raise `UnknownNameError` for an argument that tables and the model do not have.

    Before the places are read: a misspelt ``buffer_m`` is named, not missed.
    """
    check_names(model, {k: v for k, v in arguments.items() if k not in _ARGUMENTS}, _known())


def _settled(
    model: str | KeptModel,
    settings: Settings,
    *,
    output: OutputSpec,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    **arguments: Any,
) -> tuple[Task, Source]:
    """Return task and source of all places."""
    pixels = {name: arguments.pop(name) for name in _PIXELS if name in arguments}
    task = settle(
        model,
        output=output,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=arguments,
        settings=settings,
        arguments=_known(),
    )
    # Any place: whether the rest of the request is valid does not depend on it.
    source = Source(spatial=BBox(0, 0, 1, 1), **pixels).resolved(settings)
    return task, replace(source, spatial=None)


def _embed(
    run: DurableRun,
    asked: Asked,
    engine: Engine,
    *,
    on_error: str,
    progress: bool | None,
) -> None:
    """Embed the places that are left, and keep the results of each shard as it comes."""
    left = len(run.fresh) + len(run.failed_before)
    if not left:
        return
    ids, work = asked.rows.ids, asked.work()
    results = engine.results(work, ([shard] for shard in _shards(run, asked)))
    with closing(results), Bar(progress, unit="place", total=left) as bar:
        for shard, outcomes in results:
            error, kept, shared = None, [], None
            for key, result in zip(shard.keys, outcomes, strict=True):
                if not isinstance(result, RsEmbedError):
                    run.check_weights(result.meta)
                    shared = shared or {**which_weights(result.meta), "places": len(ids)}
                    kept.append(JournalResult(key, result.data, result.meta))
                elif on_error == "raise":
                    error = error or _of_place(result, asked.by_key[key], ids)
                else:
                    kept.append(JournalResult(key, None, error=str(result)))
            if kept:
                run.keep(kept, shared)
            if error is not None:
                raise error from error.__cause__
            bar.advance(len(kept))


def _of_place(error: RsEmbedError, number: int, ids: Sequence[int | str]) -> RsEmbedError:
    """Return the error of a place with its name, and its number among all places."""
    restated = error.restated(f"place {ids[number]!r}: {error}")
    restated.index, restated.__cause__ = number, error
    return restated


def _shards(run: DurableRun, asked: Asked) -> Iterator[Shard]:
    """Yield what is left, in the same groups as if nothing had been done or had failed."""
    size = asked.settings.scalemae_batch_size or asked.task.batch_size()
    for wanted in (set(run.fresh), set(run.failed_before)):
        for keys in shards_of(asked.by_key, wanted, size=size):
            yield Shard(keys, tuple(asked.item(asked.by_key[key]) for key in keys))


def _content(
    run: DurableRun, asked: Asked, columns: PlaceColumns | None, request: Mapping[str, Any]
) -> TableContent:
    """Return what is written."""
    keys, failed, emb = list(asked.by_key), run.failed(), None
    if columns is not None:
        done = run.results(key for key in keys if key not in failed)
        width = next((result.vector.size for result in done if result.vector is not None), 0)
        metas = (meta for _, meta in run.metas())
        emb = summary(
            columns, metas, request, failed=len(failed), width=width, warnings=asked.warnings
        )
    return TableContent(
        list(map(str, asked.rows.ids)),
        [(math.nan, math.nan) if p is None else p.centre for p in asked.rows.spatials],
        lambda numbers: run.results(keys[number] for number in numbers),
        request,
        columns,
        emb,
    )
