"""The one loop: pixels are read and prepared ahead in threads, run through the model in batches."""

from __future__ import annotations

import os
import traceback
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rs_embed.embedding.pooling import Assembly
from rs_embed.embedding.preparation import normalised
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.source import PixelRequest
from rs_embed.embedding.task import MIN_VALID, Sight, Sizes, Task, settle
from rs_embed.errors import GsdWarning, ModelError, Note, RsEmbedError, give_warnings
from rs_embed.geo.raster import Raster
from rs_embed.pipeline import grouped, in_order, ordered
from rs_embed.progress import Bar
from rs_embed.specs import FetchSpec, InputPrepSpec, OutputSpec, SensorSpec, Spatial, TemporalSpec

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Tile
    from rs_embed.models.base import Encoder
    from rs_embed.providers.base import Provider

# A GSD more than this factor outside the range of the training is worth a word.
_FAR_FACTOR = 4
# What is made ready ahead where nobody states the batch size, which the device decides later.
_BATCH_SIZE = 16
VIEW_WORKERS = min(os.cpu_count() or 1, 8)


def get_embedding(
    model: str,
    *,
    spatial: Spatial | None = None,
    temporal: TemporalSpec | None = None,
    sensor: SensorSpec | None = None,
    fetch: FetchSpec | None = None,
    output: OutputSpec | None = None,
    backend: str | Provider = "auto",
    input_chw: Any = None,
    imagery: str | os.PathLike[str] | xr.DataArray | Raster | None = None,
    cache: str | os.PathLike[str] | None = None,
    input_prep: InputPrepSpec | Literal["resize", "tile", "auto"] = "resize",
    min_valid: float = MIN_VALID,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    progress: bool | None = None,
    **options: Any,
) -> Embedding:
    """Return the embedding of one place.

    The pixels come from ``input_chw`` (own array), ``imagery`` (own file or array with CRS), or a
    provider (``spatial``, ``temporal``, ``backend``).

    Parameters
    ----------
    model : str
        Id or alias, see ``list_models()``: ``"scalemae"``.
    spatial : BBox or PointBuffer, optional
        The place. With ``imagery``, the window to read; not with ``input_chw``.
    temporal : TemporalSpec, optional
        The period; providers only. None is the model's default period, with a warning.
    sensor : SensorSpec, optional
        Replaces the model's default sensor; not together with ``fetch``.
    fetch : FetchSpec, optional
        Overrides single values of the model's default sensor, such as ``scale_m``.
    output : OutputSpec, optional
        ``OutputSpec.pooled()`` (the default) or ``OutputSpec.grid()``.
    backend : str or Provider
        Name of a provider, ``"auto"`` (the first that is configured), or a provider such as
        ``LocalProvider("folder")``.
    input_chw : array-like, optional
        ``(3, height, width)``, red, green, blue; any integer or floating dtype; surface
        reflectance as digital numbers 0..10000. State its GSD: ``fetch=FetchSpec(scale_m=...)``.
    imagery : path, xarray.DataArray or Raster, optional
        Georeferenced pixels in the same units; GSD, CRS and nodata are read from it.
    cache : path, optional
        Folder that keeps the pixels of providers for later calls, made if it is not there;
        ``RS_EMBED_CACHE_DIR`` if not given, and nothing is kept without either. Not with own
        pixels.
    input_prep : {"resize", "tile", "auto"} or InputPrepSpec
        How an image becomes the model's input: one resized and cropped image, or tiles of its own
        pixels.
    min_valid : float
        Least share of valid pixels, 0..1; fewer is an error.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the model runs; one that is not available is an error.
    progress : bool, optional
        Whether a bar counts tiles on standard error; None where that is a terminal.
    **options
        The model's own options, see ``describe_model(model)["options"]``.

    Returns
    -------
    Embedding
        ``data`` is float32 ``(D,)``, or an `xarray.DataArray` ``(d, y, x)`` for a grid.

    Raises
    ------
    SpecError
        If the request cannot be meant; `UnknownNameError` for names.
    SettingsError
        If an environment variable holds nonsense.
    ImageryError, GridError
        If the pixels or their georeference must not reach the model.
    ProviderError
        If no imagery can be had.
    ModelError
        If the model or device cannot do it; `CheckpointError` for weights.

    Warns
    -----
    GsdWarning, CoverageWarning, TemporalWarning, ImageryWarning
        Where something was assumed or left out; ``meta`` says the same.

    Examples
    --------
    >>> from rs_embed import get_embedding, PointBuffer
    >>> emb = get_embedding(
    ...     "scalemae",
    ...     spatial=PointBuffer(lon=-75.6156, lat=37.6942, buffer_m=1280),
    ...     backend="sample",
    ...     variant="tiny",
    ...     image_size=256,
    ... )
    >>> emb.data.shape
    (192,)
    """
    task = settle(
        model,
        output=output,
        input_prep=input_prep,
        min_valid=min_valid,
        device=device,
        options=options,
    )
    request = PixelRequest(
        spatial, temporal, sensor, fetch, backend, input_chw, imagery, cache=cache
    )
    with Bar(progress, unit="tile") as bar:
        outcomes = embed(task, [request.checked()], fetch_workers=0, keep_images=True, tiles=bar)
        (outcome,) = outcomes
    if isinstance(outcome, RsEmbedError):
        raise outcome
    return outcome


@dataclass(eq=False)
class _Place:
    """A place on its way through the model."""

    index: int
    sight: Sight
    assembly: Assembly
    error: RsEmbedError | None = None

    def fail(self, error: RsEmbedError) -> tuple[int, RsEmbedError]:
        """Give the place up; return its number and the error."""
        self.error = error
        return self.index, error


@dataclass(frozen=True, eq=False)
class _Failed:
    """A place that will have no embedding."""

    index: int
    error: RsEmbedError


@dataclass(frozen=True, eq=False)
class _View:
    """One tile of a place, its image and its tensor."""

    place: _Place
    tile: Tile
    image: NDArray[np.uint8]  # H W 3
    pixels: NDArray[np.float32]  # 3 H W


class _Model:
    """The model of a task, loaded when the first pixels are known to be good."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._encoder: Encoder | None = None
        self.sizes = task.sizes()

    @property
    def loaded(self) -> bool:
        return self._encoder is not None

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            loaded = self._task.plan.load()
            # Weights that came just now can bring a config.json with other sizes. They are set
            # before the encoder: a thread that finds the model loaded takes them as final.
            self.sizes = Sizes(loaded.image_size, loaded.patch_size)
            self._encoder = loaded
        return self._encoder

    @property
    def batch_size(self) -> int:
        return self._task.plan.batch_size or self.encoder.batch_size


def embed(
    task: Task,
    requests: Iterable[PixelRequest],
    *,
    fetch_workers: int,
    keep_images: bool,
    tiles: Bar,
) -> Generator[Embedding | RsEmbedError, None, None]:
    """Yield the embedding of each request, in order, or the error that prevents it.

    Memory holds a few batches and the places being read, however many there are.

    Parameters
    ----------
    task : Task
        What is asked of every place.
    requests : iterable of PixelRequest
        Checked; consumed in the caller's thread, no further ahead than needed.
    fetch_workers : int
        Threads that read and prepare; 0 does all in the caller's thread.
    keep_images : bool
        Whether the embeddings carry the image that the model saw.
    tiles : Bar
        Counts tiles that went through the model.

    Raises
    ------
    ModelError
        If the model cannot be loaded; `CheckpointError` for its weights.
    """
    model = _Model(task)
    if fetch_workers and not task.plan.sizes_known:
        _ = model.encoder  # what a place is refused for must not depend on its number
    batch_size = task.plan.batch_size or _BATCH_SIZE
    # Rasters that wait for their tiles stay in memory; resized ones are small.
    ahead = fetch_workers + (batch_size if task.prep.mode == "resize" else 0)
    view_workers = VIEW_WORKERS if fetch_workers or task.prep.mode != "resize" else 0
    with ExitStack() as stages:
        sights = stages.enter_context(
            closing(
                ordered(
                    enumerate(requests),
                    partial(_look, task, model),
                    workers=fetch_workers,
                    ahead=ahead,
                )
            )
        )
        views = stages.enter_context(
            closing(
                ordered(
                    _tiles(sights, task, model, keep_images=keep_images, bar=tiles),
                    partial(_view, task),
                    workers=view_workers,
                    ahead=2 * batch_size,
                )
            )
        )
        yield from in_order(_finished(views, model, tiles))


@dataclass(frozen=True, eq=False)
class _Looked:
    """What came of reading and preparing one place; the request while it may be needed again."""

    index: int
    outcome: Sight | RsEmbedError
    request: PixelRequest | None


def _look(task: Task, model: _Model, numbered: tuple[int, PixelRequest]) -> _Looked:
    index, request = numbered
    kept = None if model.loaded else request
    try:
        return _Looked(index, task.see(request, model.sizes), kept)
    except RsEmbedError as exc:
        return _Looked(index, exc, kept)
    except Exception as exc:
        exc.add_note(f"while reading or preparing number {index}: {request.label()}")
        raise


def _forget_pixels(error: BaseException) -> None:
    """Let go of the local variables behind an error that is kept: rasters are among them."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _tiles(
    looked: Iterable[_Looked], task: Task, model: _Model, *, keep_images: bool, bar: Bar
) -> Iterator[tuple[_Place, Tile] | _Failed]:
    """Yield the tiles of each place, or its failure."""
    for look in looked:
        outcome = look.outcome
        if isinstance(outcome, Sight):
            encoder = model.encoder  # only now may gigabytes move: the pixels are known to be good
            if outcome.sizes != model.sizes and look.request is not None:
                outcome = _look(task, model, (look.index, look.request)).outcome
        if isinstance(outcome, RsEmbedError):
            _forget_pixels(outcome)
            yield _Failed(look.index, outcome)
            continue
        seen = outcome.seen
        assembly = Assembly(seen, task.output, encoder.patch_size, keep_image=keep_images)
        place = _Place(look.index, outcome, assembly)
        bar.expect(len(seen.tiles))
        for tile in seen.tiles:
            yield place, tile


def _view(task: Task, cut: tuple[_Place, Tile] | _Failed) -> _View | _Failed:
    if isinstance(cut, _Failed):
        return cut
    place, tile = cut
    inputs = task.description.inputs
    image = place.sight.seen.cut(tile)
    return _View(place, tile, image, normalised(image, inputs.mean, inputs.std))


def _finished(
    views: Iterator[_View | _Failed], model: _Model, bar: Bar
) -> Iterator[tuple[int, Embedding | RsEmbedError]]:
    """Yield each place's number and outcome as soon as its last tile is through the model."""
    for first in views:
        if isinstance(first, _Failed):
            yield first.index, first.error
            continue
        size = model.batch_size
        for batch in grouped(chain([first], views), _shape, size=size, hold=4 * size):
            yield from ((item.index, item.error) for item in batch if isinstance(item, _Failed))
            tensors = [item for item in batch if isinstance(item, _View)]
            yield from _forward(model.encoder, tensors)
            bar.advance(len(tensors))


def _shape(item: _View | _Failed) -> tuple[int, ...] | None:
    return None if isinstance(item, _Failed) else item.pixels.shape


def _forward(
    encoder: Encoder, views: Sequence[_View]
) -> Iterator[tuple[int, Embedding | RsEmbedError]]:
    """Run views through the model; yield the number and outcome of places that this completes."""
    views = [view for view in views if view.place.error is None]
    if not views:
        return
    try:
        tokens = encoder.encode(
            np.stack([view.pixels for view in views]),  # B 3 H W
            [view.place.sight.told for view in views],
        )
    except ModelError as exc:
        if len(views) == 1:
            yield views[0].place.fail(exc)
            return
        for view in views:  # one by one: a place must not fail for its neighbour in the batch
            yield from _forward(encoder, [view])
        return
    for item, view in enumerate(views):
        place = view.place
        if place.error is not None:
            continue
        try:
            place.assembly.add(view.tile, view.image, tokens, item)
        except ModelError as exc:
            yield place.fail(exc)
            continue
        if place.assembly.complete:
            yield place.index, _embedding(place, encoder)


def _embedding(place: _Place, encoder: Encoder) -> Embedding:
    """Return the embedding of a place whose tokens are all there, and give its warnings."""
    sight = place.sight
    notes = [*sight.notes, *gsd_notes(sight.told, encoder)]
    meta = {
        **sight.meta,
        "warnings": [note.message for note in notes],
        **encoder.provenance,
    }
    embedding = place.assembly.embedding(meta)
    give_warnings(notes)
    return embedding


def gsd_notes(told: float, encoder: Encoder) -> Iterator[Note]:
    """Yield a warning where the GSD is far from what the weights were trained on."""
    if encoder.trained_input_res is None:
        return
    low, high = encoder.trained_input_res
    if not low / _FAR_FACTOR <= told <= high * _FAR_FACTOR:
        yield Note(
            f"the model is told a GSD of {told:.4g}, far from the {low:g} to {high:g} of its "
            "training; a smaller scale_m or place brings it closer, or see gsd='relative'",
            GsdWarning,
        )
