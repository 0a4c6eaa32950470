"""Many places in one call: reads overlap the model, memory is bounded, errors know their place."""

from __future__ import annotations

import inspect
import os
import reprlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sized
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from rs_embed.embedding.arguments import fetch_of, is_day, period_of
from rs_embed.embedding.covering import check_pooling
from rs_embed.embedding.kept import KeptModel
from rs_embed.embedding.loop import embed
from rs_embed.embedding.place_arguments import arguments_of, as_places
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import MIN_VALID, Task, settle
from rs_embed.errors import RsEmbedError, SpecError, UnknownNameError, give_warnings
from rs_embed.geo.raster import Raster
from rs_embed.progress import Bar
from rs_embed.settings import Settings
from rs_embed.specs import (
    BBox,
    FetchSpec,
    InputPrepSpec,
    OutputSpec,
    PointBuffer,
    SensorSpec,
    TemporalSpec,
)

if TYPE_CHECKING:
    import xarray as xr

    from rs_embed.models.base import InputContract
    from rs_embed.providers.base import Provider

ON_ERROR = ("raise", "return")
_FIELDS = {"spatials": "spatial", "input_chws": "input_chw", "imageries": "imagery"}
_KINDS: dict[str, type] = {"temporal": TemporalSpec, "fetch": FetchSpec}


def get_embeddings_batch(
    model: str | KeptModel,
    *,
    spatials: Any = None,
    buffer_m: float | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
    temporal: TemporalSpec | Iterable[TemporalSpec] | Any = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | Mapping[str, Any] | Iterable[FetchSpec] | None = None,
    scale_m: float | None = None,
    output: OutputSpec | Literal["pooled", "grid", "mean", "max", "cls"] | None = None,
    backend: str | os.PathLike[str] | Provider = "auto",
    input_chws: Iterable[Any] | None = None,
    imageries: Iterable[str | os.PathLike[str] | xr.DataArray | Raster | Any] | None = None,
    imagery: str | os.PathLike[str] | xr.DataArray | xr.Dataset | Raster | Any = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] | Any = "auto",
    on_error: Literal["raise", "return"] = "raise",
    progress: bool | None = None,
    keep_images: bool = False,
    **options: Any,
) -> list[Embedding | RsEmbedError]:
    """Return the embeddings of many places, in order; arguments as for :func:`iter_embeddings`.

    Returns
    -------
    list of Embedding
        One for each place. With ``on_error="return"`` the error stands in place of an embedding
        that could not be made.

    Raises
    ------
    RsEmbedError
        As for `iter_embeddings`.

    Examples
    --------
    >>> from rs_embed import PointBuffer, get_embeddings_batch
    >>> places = [PointBuffer(-75.62 + 0.005 * i, 37.694, buffer_m=640) for i in range(3)]
    >>> embeddings = get_embeddings_batch(
    ...     "scalemae",
    ...     spatials=places,
    ...     backend="sample",
    ...     input_prep="tile",
    ...     variant="tiny",
    ... )
    >>> [embedding.data.shape for embedding in embeddings]
    [(192,), (192,), (192,)]
    """
    return list(
        iter_embeddings(
            model,
            spatials=spatials,
            buffer_m=buffer_m,
            layer=layer,
            polygons=polygons,
            temporal=temporal,
            sensor=sensor,
            fetch=fetch,
            scale_m=scale_m,
            output=output,
            backend=backend,
            input_chws=input_chws,
            imageries=imageries,
            imagery=imagery,
            cache=cache,
            input_prep=input_prep,
            min_valid=min_valid,
            device=device,
            on_error=on_error,
            progress=progress,
            keep_images=keep_images,
            **options,
        )
    )


def iter_embeddings(
    model: str | KeptModel,
    *,
    spatials: Any = None,
    buffer_m: float | None = None,
    layer: str | None = None,
    polygons: Literal["cover", "box"] = "cover",
    temporal: TemporalSpec | Iterable[TemporalSpec] | Any = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | Mapping[str, Any] | Iterable[FetchSpec] | None = None,
    scale_m: float | None = None,
    output: OutputSpec | Literal["pooled", "grid", "mean", "max", "cls"] | None = None,
    backend: str | os.PathLike[str] | Provider = "auto",
    input_chws: Iterable[Any] | None = None,
    imageries: Iterable[str | os.PathLike[str] | xr.DataArray | Raster | Any] | None = None,
    imagery: str | os.PathLike[str] | xr.DataArray | xr.Dataset | Raster | Any = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] | Any = "auto",
    on_error: Literal["raise", "return"] = "raise",
    progress: bool | None = None,
    keep_images: bool = False,
    **options: Any,
) -> Generator[Embedding | RsEmbedError, None, None]:
    """Return an iterator over the embeddings of many places, in order, made as it is consumed.

    Pixels are read in ``RS_EMBED_SCALEMAE_FETCH_WORKERS`` threads while earlier ones are in the
    model, ``RS_EMBED_SCALEMAE_BATCH_SIZE`` to a forward pass. Memory holds a few batches and the
    places being read, however many there are. Results equal those of ``get_embedding`` within
    1e-5.

    Parameters
    ----------
    model : str or LoadedModel
        Id or alias, see ``list_models()``, or a model of `load_model`.
    spatials : object, optional
        The places: of a provider, or windows of ``imagery``. BBox or PointBuffer objects, of which
        an iterator is consumed no further ahead than needed and a list is checked as a whole
        first; or whatever people have: a GeoDataFrame, a table or layer in a file, polygons,
        points, chips (see `export_batch`).
    buffer_m, layer, polygons
        As for `export_batch`.
    input_chws, imageries : iterable, optional
        Instead of places: own arrays or own imagery, each as `get_embedding` takes it.
    imagery : path, list of paths, xarray.DataArray or Raster, optional
        The one imagery that all ``spatials`` are windows of.
    temporal, fetch : spec or iterable of specs, optional
        One for all places, or one for each, as `get_embedding` takes them; a None among periods is
        the model's default.
    on_error : {"raise", "return"}
        Whether the first place that fails ends it all, after the embeddings before it, or its
        error is given in its place. The error carries the place's number as ``index``. A place
        that is not a place, or an iterator that raises, always ends the batch.
    progress : bool, optional
        Whether a bar counts places on standard error; None: in a terminal or notebook.
    keep_images : bool
        Whether ``Embedding.image`` holds what the model saw; off, since images are larger than
        vectors.
    sensor, scale_m, output, backend, cache, input_prep, min_valid, device, **options
        As for `get_embedding`.

    Returns
    -------
    generator of Embedding
        Closing it (``.close()``, or leaving it to the garbage collector) stops its threads.

    Raises
    ------
    SpecError
        Immediately: if the request is invalid, the list is empty, or one of its items is not a
        place.
    RsEmbedError
        When the place is reached: whatever `get_embedding` raises for it.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        As `get_embedding`, for each place.
    """
    if on_error not in ON_ERROR:
        raise UnknownNameError.among("on_error", on_error, ON_ERROR)
    settings = Settings.from_environ()
    task = settle(
        model,
        output=output,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=options,
        settings=settings,
        arguments=inspect.signature(iter_embeddings).parameters,
    )
    items = {"spatials": spatials, "input_chws": input_chws, "imageries": imageries}
    temporal = _periods(temporal, spatials, input_chws, imageries)
    fetch = fetch_of(fetch, scale_m)
    shared: dict[str, Any] = {"temporal": temporal, "fetch": fetch}
    places = as_places(spatials, buffer_m=buffer_m, layer=layer, polygons=polygons)
    if places is not None and input_chws is None and imageries is None:
        own, shared, notes = arguments_of(places, temporal, fetch, own_pixels=imagery is not None)
        items = {"spatials": None, **own}
        give_warnings((*places.notes, *notes))
    return embed_places(
        task,
        Source(sensor=sensor, backend=backend, imagery=imagery, cache=cache),
        items,
        shared,
        settings=settings,
        on_error=on_error,
        progress=progress,
        keep_images=keep_images,
    )


def embed_places(
    task: Task,
    common: Source,
    items: Mapping[str, Iterable[Any] | None],
    shared: Mapping[str, Any],
    *,
    settings: Settings,
    on_error: Literal["raise", "return"],
    progress: bool | None,
    keep_images: bool = False,
) -> Generator[Embedding | RsEmbedError, None, None]:
    """Return an iterator over the embeddings of many places; see `iter_embeddings`.

    Parameters
    ----------
    task : Task
        What is wanted of every place.
    common : Source
        What is the same of all pixels.
    items : mapping
        ``spatials``, ``input_chws`` and ``imageries``; exactly one is not None.
    shared : mapping
        ``temporal`` and ``fetch``: one spec for all, or an iterable of one for each; perhaps
        ``shape``: a list of the polygons to pool over, see `Source`.
    settings : Settings
        What the environment states.
    on_error, progress, keep_images
        As for `iter_embeddings`.
    """
    check_pooling(task.output, shared.get("shape"))
    sources = _Sources(common, items, shared, settings)
    sources.check_source(task.description.inputs)
    made = embed(
        task,
        sources,
        fetch_workers=settings.scalemae_fetch_workers,
        batch_size=settings.scalemae_batch_size,
        keep_images=keep_images,
        tiles=Bar(show=False, unit="tile"),
    )
    return _outcomes(made, sources, on_error, progress)


def _outcomes(
    made: Generator[Embedding | RsEmbedError, None, None],
    sources: _Sources,
    on_error: str,
    progress: bool | None,
) -> Generator[Embedding | RsEmbedError, None, None]:
    with closing(made) as outcomes, Bar(progress, unit="place", total=sources.count) as bar:
        for index, outcome in enumerate(outcomes):
            label = sources.labels.popleft()
            if isinstance(outcome, RsEmbedError):
                outcome.index = index
                outcome.add_note(f"in the batch this is number {index}: {label}")
                if on_error == "raise":
                    raise outcome
            bar.advance()
            yield outcome


class _Sources:
    """The source of each place, made and checked when its turn comes.

    Parameters
    ----------
    common : Source
        What is the same for all.
    items : mapping
        The places by the name of their argument; exactly one is not None.
    shared : mapping
        ``temporal`` and ``fetch``: one spec for all, or an iterable of one for each.
    settings : Settings
        What the environment states.

    Attributes
    ----------
    count : int or None
        How many there are; None for an iterator.
    labels : collections.deque of str
        What each place that is under way is called.
    """

    def __init__(
        self,
        common: Source,
        items: Mapping[str, Iterable[Any] | None],
        shared: Mapping[str, Any],
        settings: Settings,
    ) -> None:
        self._name, self._items = _only_one(items)
        self._field = _FIELDS[self._name]
        if self._field == "imagery" and common.imagery is not None:
            raise SpecError("got both imagery and imageries, expected one source of pixels")
        self._each = {name: each for name, each in shared.items() if _for_each(name, each)}
        once = {name: spec for name, spec in shared.items() if name not in self._each}
        self._common = replace(common, **once)
        self.count = len(self._items) if isinstance(self._items, Sized) else None
        self.labels: deque[str] = deque()
        if self.count == 0:
            raise SpecError(f"got {self._name} without a single item, expected at least one")
        self._check_lists()
        if self._field == "spatial" and not common.own_pixels and common.provider is None:
            self._common = self._common.with_provider(settings)

    def _check_lists(self) -> None:
        """Check every item, unless looking at the items uses them up."""
        several = [self._items, *self._each.values()]
        if any(isinstance(values, Iterator) for values in several):
            return
        for _ in self._rows():
            pass

    def check_source(self, contract: InputContract) -> None:
        """Raise, before any place is read, what is wrong with the sensor of all."""
        if "fetch" not in self._each:
            self._common.check_source(contract)

    def __iter__(self) -> Iterator[Source]:
        for row in self._rows():
            source = replace(self._common, **row)
            self.labels.append(source.label())
            yield source

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield what each place has of its own, checked."""
        checked = set()
        each = {name: iter(values) for name, values in self._each.items()}
        index = -1
        for index, item in enumerate(self._items):  # the last one is wanted below
            self._check_item(index, item)
            own = {name: self._next_of(name, values, index) for name, values in each.items()}
            row = {self._field: item, **own}
            # Only values of a FetchSpec matter to the check; of all else it is the type.
            kind = tuple(v if isinstance(v, FetchSpec) else type(v) for v in row.values())
            if kind not in checked:
                replace(self._common, **row).check()
                checked.add(kind)
            yield row
        for name, values in each.items():
            for _ in values:
                raise SpecError(
                    f"got more values of {name} than the {index + 1} {self._name}, expected one "
                    "for all or one for each"
                )

    def _check_item(self, index: int, item: object) -> None:
        kinds = (BBox, PointBuffer) if self._field == "spatial" else (object,)
        if item is None or not isinstance(item, kinds):
            pixels = "pixels" if self._field != "spatial" else "BBox or PointBuffer"
            raise SpecError(
                f"got {self._name}[{index}]={reprlib.repr(item)} ({type(item).__name__}), expected "
                f"{pixels}"
            )

    def _next_of(self, name: str, values: Iterator[Any], index: int) -> Any:
        for value in values:
            if value is None and name == "fetch":
                raise SpecError(f"got {name}[{index}]=None, expected a FetchSpec")
            return value
        raise SpecError(
            f"got {index} values of {name}, but more {self._name}; expected one for all or one for "
            "each"
        )


def _periods(temporal: Any, *items: Any) -> Any:
    """Return the one period of all places, or an iterable of one for each."""
    several = isinstance(temporal, Iterable) and not isinstance(temporal, str)
    pair = isinstance(temporal, tuple | list) and len(temporal) == 2 and all(map(is_day, temporal))
    counts = [len(each) if isinstance(each, Sized) else 2 for each in items if each is not None]
    if pair and 2 in counts:
        first, last = temporal
        raise SpecError(
            f"got temporal={temporal!r} for two places, which may be a period for both or a day "
            f"for each; write '{first}/{last}' for the period, or TemporalSpec objects for each"
        )
    return period_of(temporal) if pair or not several else temporal


def _for_each(name: str, value: Any) -> bool:
    """Return whether there is a spec for each place, not one or none for all."""
    if value is None or name == "shape":
        return value is not None
    kind = _KINDS[name]
    if isinstance(value, kind):
        return False
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SpecError(f"got {name}={value!r}, expected a {kind.__name__} or one for each place")
    return True


def _only_one(sources: Mapping[str, Any]) -> tuple[str, Iterable[Any]]:
    """Return the one argument that is given, and its items."""
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise SpecError(
            f"got {' and '.join(given) or 'no places'}, expected exactly one of "
            f"{', '.join(sources)}"
        )
    value = sources[given[0]]
    if isinstance(value, str | bytes | Mapping | BBox | PointBuffer | Raster) or not isinstance(
        value, Iterable
    ):
        raise SpecError(
            f"got {given[0]}={reprlib.repr(value)} ({type(value).__name__}), expected "
            "a list or an iterator; for one place use get_embedding"
        )
    return given[0], value
