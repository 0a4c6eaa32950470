"""Many named places into one file of vectors, in a run that can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rs_embed._optional import require
from rs_embed.addresses import path_of
from rs_embed.embedding.identity import identity, which_weights
from rs_embed.embedding.many_places import ON_ERROR, embed_places
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Task, settle
from rs_embed.errors import RsEmbedError, SpecError, UnknownNameError, some
from rs_embed.files.places import NamedPlace, read_places
from rs_embed.printable import excerpt
from rs_embed.runs.journal import JournalResult
from rs_embed.runs.run import DurableRun, check_same, is_finished
from rs_embed.settings import Settings
from rs_embed.specs import BBox, InputPrepSpec, OutputSpec, PointBuffer
from rs_embed.tables.columns import PlaceColumns, TableContent, place_columns
from rs_embed.tables.formats import TABLES
from rs_embed.tables.summary import summary

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from rs_embed.embedding.result import Embedding

_SHOWN_ERRORS = 5
_PIXELS = ("temporal", "sensor", "fetch", "backend", "imagery", "cache")


@dataclass(frozen=True)
class BatchReport:
    """The outcome of `export_batch`; ``print(report)`` shows a summary.

    Attributes
    ----------
    path : pathlib.Path
        The file that was written.
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
    """

    path: Path
    places: int
    resumed: int
    errors: dict[str, str]
    seconds: float
    finished_before: bool = False

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
        }

    def __str__(self) -> str:
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


def export_batch(
    model: str,
    places: str | os.PathLike[str] | Sequence[NamedPlace],
    *,
    output: str | os.PathLike[str],
    buffer_m: float | None = None,
    pooling: Literal["mean", "max", "cls"] | None = None,
    overwrite: bool = False,
    on_error: Literal["raise", "return"] = "return",
    progress: bool | None = None,
    dtype: Literal["float32", "float16", "int8"] | None = None,
    order: Literal["hilbert", "input"] | None = None,
    **arguments: Any,
) -> BatchReport:
    """Embed many places into one file of vectors, which `load_export` reads.

    Results are kept in ``<output>.partial`` until all places are done: the same call continues
    after an interruption, retries places that failed, and does nothing if all are done. Until then
    places may be added, removed or reordered; one that moved is embedded again.

    Parameters
    ----------
    model : str
        Id or alias, see ``list_models()``.
    places : path or sequence of NamedPlace
        A CSV or GeoJSON file, see `read_places`, or places with their ids.
    output : path
        The ``.parquet`` (GeoParquet), ``.csv`` or ``.npz`` to write.
    buffer_m : float, optional
        Half the side of the square around points of a file that have none, ground metres.
    pooling : {"mean", "max", "cls"}, optional
        How tokens become one vector, see `OutputSpec.pooled`.
    overwrite : bool
        Whether to start again, and replace a finished file.
    on_error : {"raise", "return"}
        Whether the first place that fails ends the run, or becomes a row of NaN.
    progress : bool, optional
        Whether to show a progress bar on standard error; None: if that is a terminal.
    dtype : {"float32", "float16", "int8"}, optional
        How a ``.parquet`` stores vectors; int8 with a scale for each row. Default float32.
    order : {"hilbert", "input"}, optional
        The order of the rows of a ``.parquet``: by default along a Hilbert curve, so that places
        near each other are read together. `load_export` returns the order of the places.
    **arguments
        ``temporal``, ``sensor``, ``fetch``, ``backend``, ``imagery``, ``cache``, ``input_prep``,
        ``min_valid``, ``device`` and the model's own options, as for `iter_embeddings`.

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
    RsEmbedError
        As `iter_embeddings`. The error of a place names its id, and ``index`` is its number.
    """
    path = path_of(output)
    form = TABLES.of(path)
    form.check(path)
    stored = form.storage(dtype, order)
    if on_error not in ON_ERROR:
        raise UnknownNameError.among("on_error", on_error, ON_ERROR)
    by_key = _by_key(named_places(places, buffer_m))
    columns = None
    if form.describe is not None:
        ids = [place.id for place in by_key.values()]
        columns = place_columns(frame_of(by_key.values()), ids, "id", stored["order"])
    task, source, settings = settled(model, pooling, arguments)
    wanted = identity(task, source)
    request = {**wanted, "places": _places_text(by_key)}
    if columns is not None:
        request["table"] = {**columns.to_json(), **stored}
    if is_finished(path, overwrite=overwrite):
        check_same(path, form.request_of(path), request, task)
        return BatchReport(path, len(by_key), len(by_key), {}, 0.0, finished_before=True)
    with DurableRun(
        path,
        wanted,
        by_key,
        items=("place", "places"),
        overwrite=overwrite,
    ) as run:
        began = time.monotonic()
        _embed(run, by_key, task, source, settings, on_error=on_error, progress=progress)
        request = {**request, **which_weights(run.shared or {})}
        form.write_all(path, _content(run, by_key, columns, request))
        failed = run.failed()
        errors = {by_key[key].id: failed[key] for key in by_key if key in failed}
        run.finished(disposable=not errors)
    return BatchReport(path, len(by_key), run.resumed, errors, time.monotonic() - began)


def named_places(
    places: str | os.PathLike[str] | Sequence[NamedPlace], buffer_m: float | None
) -> Sequence[NamedPlace]:
    """Return the places of a file, or the list itself; `SpecError` for anything else."""
    if isinstance(places, str | os.PathLike):
        return read_places(places, buffer_m=buffer_m)
    if buffer_m is not None:
        raise SpecError(
            f"got buffer_m={buffer_m!r} with places that have a size of their own; leave it out"
        )
    named = list(places)
    if not named or not all(isinstance(place, NamedPlace) for place in named):
        got = next((repr(p) for p in named if not isinstance(p, NamedPlace)), "none")
        raise SpecError(f"got {got} as places, expected a file or NamedPlace(id, spatial) objects")
    return named


def frame_of(places: Iterable[NamedPlace]) -> GeoDataFrame:
    """Return places as a table: their ids, and as geometry their points or boxes."""
    geopandas = require("geopandas", extra="tables", purpose="a table of places")
    shapely = require("shapely", extra="tables", purpose="a table of places")
    places = list(places)
    shapes = [
        shapely.box(*astuple(p.spatial)) if isinstance(p.spatial, BBox)
        else shapely.Point(*p.spatial.centre)
        for p in places
    ]  # fmt: skip
    return geopandas.GeoDataFrame({"id": [p.id for p in places]}, geometry=shapes, crs=4326)


def _by_key(places: Sequence[NamedPlace]) -> dict[str, NamedPlace]:
    """Return the places by the name of their result: one that moved has another result."""
    by_key = {_key(place): place for place in places}
    if len(by_key) < len(places):
        raise SpecError(
            f"got {len(places)} places, {len(places) - len(by_key)} of which repeat the id and "
            "place of another one; expected each once"
        )
    return by_key


def _key(place: NamedPlace) -> str:
    return json.dumps([place.id, type(place.spatial).__name__, *map(float, astuple(place.spatial))])


def place_of_key(key: str) -> NamedPlace:
    """Return the place of a result that a run has kept."""
    name, kind, *numbers = json.loads(key)
    return NamedPlace(name, {"BBox": BBox, "PointBuffer": PointBuffer}[kind](*numbers))


def _places_text(by_key: Mapping[str, NamedPlace]) -> str:
    """Return what identifies the places and their order."""
    digest = hashlib.sha256("\n".join(by_key).encode()).hexdigest()
    return f"{len(by_key)} places, SHA-256 {digest[:32]}"


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    for name in ("spatials", "input_chws", "imageries", "keep_images"):
        if name in arguments:
            raise SpecError(f"got {name}=, which export_batch does not support; use places")
    for name in ("temporal", "fetch"):
        if isinstance(arguments.get(name), Iterable):
            raise SpecError(
                f"got {name} for each place, expected one for all: the list of places may change "
                "before a run is resumed"
            )


def settled(
    model: str, pooling: str | None, arguments: Mapping[str, Any]
) -> tuple[Task, Source, Settings]:
    """Return what is wanted of all places, which pixels, and the settings."""
    _check_arguments(arguments)
    settings = Settings.from_environ()
    output = OutputSpec("pooled", pooling)  # type: ignore[arg-type]  # checked there
    return *_settled(model, settings, output=output, **arguments), settings


def _settled(
    model: str,
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
    )
    # Any place: whether the rest of the request is valid does not depend on it.
    source = Source(spatial=BBox(0, 0, 1, 1), **pixels).resolved(settings)
    return task, replace(source, spatial=None)


def _embed(
    run: DurableRun,
    places: Mapping[str, NamedPlace],
    task: Task,
    source: Source,
    settings: Settings,
    *,
    on_error: str,
    progress: bool | None,
) -> None:
    """Embed the places that are left, and keep each result as it comes."""
    left = (*run.fresh, *run.failed_before)
    if not left:
        return
    results = results_of(
        task,
        source,
        [places[key] for key in left],
        settings=settings,
        on_error="return",
        progress=progress,
    )
    with closing(results):
        for key, result in zip(left, results, strict=True):
            if not isinstance(result, RsEmbedError):
                run.check_weights(result.meta)
                kept = JournalResult(key, result.data, result.meta)
                run.keep([kept], {**which_weights(result.meta), "places": len(places)})
            elif on_error == "raise":
                error = result.restated(f"place {places[key].id!r}: {result}")
                error.index = list(places).index(key)  # among all places, not only what is left
                raise error from result
            else:
                run.keep([JournalResult(key, None, error=str(result))])


def results_of(
    task: Task, source: Source, places: Sequence[NamedPlace], **how: Any
) -> Generator[Embedding | RsEmbedError, None, None]:
    """Return an iterator over the results of places; ``how`` as for `embed_places`."""
    return embed_places(
        task,
        source,
        {"spatials": [place.spatial for place in places]},
        {"temporal": source.temporal, "fetch": source.fetch},
        **how,
    )


def _content(
    run: DurableRun,
    places: Mapping[str, NamedPlace],
    columns: PlaceColumns | None,
    request: Mapping[str, Any],
) -> TableContent:
    """Return what is written."""
    keys, failed, emb = list(places), run.failed(), None
    if columns is not None:
        done = run.results(key for key in keys if key not in failed)
        width = next((result.vector.size for result in done if result.vector is not None), 0)
        metas = (meta for _, meta in run.metas())
        emb = summary(columns, metas, request, failed=len(failed), width=width)
    return TableContent(
        [place.id for place in places.values()],
        [place.spatial.centre for place in places.values()],
        lambda numbers: run.results(keys[number] for number in numbers),
        request,
        columns,
        emb,
    )
