"""Named places to one file of vectors: what is done is kept, and the same call goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from rs_embed.embedding.identity import identity, which_weights
from rs_embed.embedding.many_places import ON_ERROR, embed_places
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Task, settle
from rs_embed.errors import CheckpointError, ExportError, RsEmbedError, SpecError, UnknownNameError
from rs_embed.files.places import NamedPlace
from rs_embed.files.vectors import MANY_VECTORS, VectorRow, write_vectors
from rs_embed.runs.journal import Journal, discard
from rs_embed.settings import Settings
from rs_embed.specs import (
    BBox,
    FetchSpec,
    InputPrepSpec,
    OutputSpec,
    SensorSpec,
    TemporalSpec,
    to_json,
)

if TYPE_CHECKING:
    import xarray as xr

    from rs_embed.embedding.result import Embedding
    from rs_embed.geo.raster import Raster
    from rs_embed.providers.base import Provider


@dataclass(frozen=True)
class Report:
    """What came of a batch.

    Attributes
    ----------
    path : pathlib.Path
        The file that was written.
    places : int
        Rows in it.
    resumed : int
        How many of them earlier runs had done.
    errors : dict
        Id -> error of the places that failed; their rows are NaN.
    seconds : float
        What the other places took in this run.
    """

    path: Path
    places: int
    resumed: int
    errors: dict[str, str]
    seconds: float

    @property
    def places_per_s(self) -> float:
        """Places a second in this run."""
        return (self.places - self.resumed) / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "file": str(self.path),
            "places": self.places,
            "failed": len(self.errors),
            "resumed": self.resumed,
            "seconds": round(self.seconds, 3),
            "places_per_s": round(self.places_per_s, 3),
            "errors": self.errors,
        }


class ResumableBatch:
    """Embed named places into one ``.npz``, keeping each result on disk as it comes.

    A context manager. The results are kept beside the file, in ``<file>.partial``, until all
    places are done; the same request goes on from there, wherever it was interrupted, and another
    one is refused. A place that changed under the same id is embedded anew, one that failed is
    tried again.

    Parameters
    ----------
    path : path
        The ``.npz`` to write at the end.
    places : sequence of NamedPlace
        As `read_places` returns them.
    model : str
        Id or alias, see ``list_models()``.
    overwrite : bool
        Whether to throw away what is kept, and begin anew.
    **arguments
        As for ``iter_embeddings``, except ``spatials``, ``on_error``, ``progress`` and
        ``keep_images``; the output is pooled.

    Attributes
    ----------
    resumed : int
        How many places were done before.
    kept : int
        How many are done by now.

    Raises
    ------
    UnknownNameError
        If ``path`` is no ``.npz``.
    SpecError
        If the output is a grid.
    ExportError
        If the file is there already and finished, or cannot be written, or what is kept belongs
        to another request, is damaged, or in use by another process.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        places: Sequence[NamedPlace],
        model: str,
        *,
        overwrite: bool = False,
        **arguments: Any,
    ) -> None:
        self.path = Path(path)
        MANY_VECTORS.check(self.path)
        output = arguments.get("output")
        if isinstance(output, OutputSpec) and output.mode == "grid":
            raise SpecError("got a grid as output, expected a pooled one: one vector a place")
        for name in ("temporal", "fetch"):
            if isinstance(arguments.get(name), Iterable):
                raise SpecError(
                    f"got {name} for each place, expected one for all: places may come and go when "
                    "a batch is resumed"
                )
        self._places = {_key(place): place for place in places}
        if len(self._places) < len(places):
            raise SpecError(
                f"got {len(places)} places, of which {len(places) - len(self._places)} are there "
                "twice with id and place; expected each once"
            )
        self.journal_path = self.path.with_name(f"{self.path.name}.partial")
        if self.path.exists() and not overwrite and not self.journal_path.exists():
            raise ExportError(
                f"{self.path} is there already, and finished; choose another name, or replace it "
                "(--overwrite)"
            )
        self._settings = Settings.from_environ()
        self._task, self._source = _settled(model, self._settings, **arguments)
        request = json.dumps(identity(self._task, self._source))
        if overwrite:
            discard(self.journal_path)
        self._journal = Journal(self.journal_path, request)
        self._done = self._journal.done() & self._places.keys()
        self.resumed = self.kept = len(self._done)
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # What holds nothing must not stand in the way of a corrected request.
        if self._finished or not self._journal.done():
            self._journal.delete()
        else:
            self._journal.close()

    def run(
        self, on_error: Literal["raise", "return"] = "return", *, progress: bool | None = None
    ) -> Report:
        """Embed the places that are left, write the file, and return what came of it.

        Parameters
        ----------
        on_error : {"raise", "return"}
            Whether the first place that fails ends it, or becomes a row of NaN.
        progress : bool, optional
            Whether a bar counts places on standard error; None where that is a terminal.

        Raises
        ------
        RsEmbedError
            As `iter_embeddings`; the error of a place names its id, and what was done is kept.
        """
        if on_error not in ON_ERROR:
            raise UnknownNameError.among("on_error", on_error, ON_ERROR)
        began = time.monotonic()
        left = [key for key in self._places if key not in self._done]
        if left:
            self._embed(left, on_error, progress)
        errors = self._write()
        self._finished = not errors
        seconds = time.monotonic() - began
        return Report(self.path, len(self._places), self.resumed, errors, seconds)

    def _embed(self, left: list[str], on_error: str, progress: bool | None) -> None:
        results = embed_places(
            self._task,
            self._source,
            {"spatials": [self._places[key].spatial for key in left]},
            {"temporal": self._source.temporal, "fetch": self._source.fetch},
            settings=self._settings,
            on_error="return",
            progress=progress,
        )
        weights = self._weights_so_far()
        with closing(results):
            for key, result in zip(left, results, strict=True):
                if isinstance(result, RsEmbedError):
                    if on_error == "raise":
                        raise self._named(key, result)
                    self._journal.add(key, None, None, str(result))
                    continue
                weights = self._same_weights(weights, result)
                self._journal.add(key, result.data, result.meta, None)
                self.kept += 1

    def _named(self, key: str, error: RsEmbedError) -> RsEmbedError:
        """Return the error with the id of its place, and its number among all places."""
        error.args = (f"place {self._places[key].id!r}: {error}",)
        error.index = list(self._places).index(key)
        error.__notes__ = []  # they number the places that were left
        return error

    def _weights_so_far(self) -> dict[str, Any] | None:
        """Return which weights the results have that are kept; None where there are none."""
        for result in self._journal.results(list(self._done)[:1]):
            return which_weights(result.meta or {})
        return None

    def _same_weights(self, before: dict[str, Any] | None, result: Embedding) -> dict[str, Any]:
        """Return which weights a result has; refuse to mix them: a name can get other content."""
        now = which_weights(result.meta)
        if before is not None and now != before:
            raise CheckpointError(
                f"got weights {now}, but the {self.kept} places in {self.journal_path} have "
                f"{before} under the same name; bring those back, or begin anew (--overwrite)"
            )
        return now

    def _write(self) -> dict[str, str]:
        """Write the file; return the errors of the places that failed, by id."""
        errors: dict[str, str] = {}

        def rows() -> Iterator[VectorRow]:
            results = self._journal.results(list(self._places))
            for place, result in zip(self._places.values(), results, strict=True):
                if result.error is not None:
                    errors[place.id] = result.error
                yield VectorRow(
                    place.id, *place.spatial.centre, result.vector, result.meta, result.error
                )

        write_vectors(self.path, rows(), len(self._places))
        return errors


def _settled(
    model: str,
    settings: Settings,
    *,
    temporal: TemporalSpec | None = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | None = None,
    output: OutputSpec | None = None,
    backend: str | Provider = "auto",
    imagery: str | os.PathLike[str] | xr.DataArray | Raster | None = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    **options: Any,
) -> tuple[Task, Source]:
    """Return task and source of all places; the model is loaded if that tells its sizes."""
    task = settle(
        model,
        output=output,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=options,
        settings=settings,
    )
    if not task.plan.sizes_known:
        task.plan.load()  # sizes that a download brings are part of the identity
    source = Source(
        spatial=BBox(0, 0, 1, 1),  # any: whether the request is valid does not depend on it
        temporal=temporal,
        sensor=sensor,
        fetch=fetch,
        backend=backend,
        imagery=imagery,
        cache=cache,
    )
    return task, source.resolved(settings)


def _key(place: NamedPlace) -> str:
    """Return the name of a result: another place under the same id is another result."""
    return json.dumps([place.id, type(place.spatial).__name__, to_json(place.spatial)])
