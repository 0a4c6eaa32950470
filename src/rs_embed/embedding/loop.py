"""The one loop over places: read and prepared ahead in threads, encoded in batches."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rs_embed.embedding.encoding import (
    Capacity,
    GsdImage,
    ImageTokens,
    encode,
    gsd_notes,
    network_input,
)
from rs_embed.embedding.pooling import Assembly
from rs_embed.embedding.result import Embedding
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import Sight, Sizes, Task
from rs_embed.errors import ModelError, RsEmbedError, give_warnings
from rs_embed.parallel.cores import cores
from rs_embed.parallel.pipeline import grouped, in_order, ordered
from rs_embed.progress import Bar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.geo.tiling import Tile
    from rs_embed.models.base import Encoder

VIEW_WORKERS = min(cores(), 8)
# One that the model has, one that waits for it, and one that is being kept.
_BATCHES_AHEAD = 3


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
    """One tile of a place: the model's image, and the input of the network."""

    place: _Place
    tile: Tile
    image: NDArray[Any]  # H W C
    input: GsdImage


class _Model:
    """The model of a task, loaded when the first pixels are known to be good."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._encoder: Encoder | None = None
        self.sizes = task.sizes()
        self.capacity = Capacity()
        self.slots: int = getattr(task.plan, "slots", 1)

    @property
    def loaded(self) -> bool:
        return self._encoder is not None

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            loaded = self._task.plan.load()
            # Weights that came just now can bring a config.json with other sizes. They are set
            # before the encoder: a thread that finds the model loaded takes them as final.
            sizes = self._task.sizes()
            self.sizes = Sizes(loaded.image_size, loaded.patch_size, sizes.decided)
            self._encoder = loaded
        return self._encoder


def embed(
    task: Task,
    sources: Iterable[Source],
    *,
    fetch_workers: int,
    batch_size: int | None,
    keep_images: bool,
    tiles: Bar,
    shard_of: Callable[[int], int] = lambda _: 0,
) -> Generator[Embedding | RsEmbedError, None, None]:
    """Yield the embedding of each place, in order, or the error that prevents it.

    Memory holds a few batches and the places being read, however many there are.

    Parameters
    ----------
    task : Task
        What is wanted of every place.
    sources : iterable of Source
        Resolved; consumed in the caller's thread, no further ahead than needed.
    fetch_workers : int
        Threads that read and prepare; 0 does all in the caller's thread.
    batch_size : int or None
        Images per forward pass; None leaves it to the device.
    keep_images : bool
        Whether the embeddings carry the image that the model saw.
    tiles : Bar
        Counts tiles that went through the model.
    shard_of : callable
        Returns the shard of a place by its number; only places of one shard share a forward pass,
        so that their embeddings do not depend on other shards, down to the last bit.

    Raises
    ------
    ModelError
        If the model cannot be loaded; `CheckpointError` for its weights.
    """
    model = _Model(task)
    if fetch_workers and not task.plan.sizes_known:
        _ = model.encoder  # what a place is refused for must not depend on its number
    # Rasters that wait for their tiles stay in memory; resized ones are small.
    ready = batch_size or task.batch_size()
    ahead = fetch_workers + (ready if task.prep.mode == "resize" else 0)
    seen = ordered(
        enumerate(sources), partial(_look, task, model), workers=fetch_workers, ahead=ahead
    )
    with closing(seen):
        yield from _embedded(
            seen,
            task,
            model,
            view_workers=VIEW_WORKERS if fetch_workers or task.prep.mode != "resize" else 0,
            batch_size=ready,
            keep_images=keep_images,
            tiles=tiles,
            shard_of=shard_of,
            apart=fetch_workers > 0,
        )


def read_places(task: Task, sources: Sequence[Source], *, fetch_workers: int) -> list[Looked]:
    """Return what the model will see of places, for `embed_read`; no network is loaded."""
    looks = ordered(
        enumerate(sources),
        partial(_look, task, _Model(task)),
        workers=fetch_workers,
        ahead=len(sources),
    )
    with closing(looks):
        return list(looks)


def embed_read(
    task: Task, looked: Iterable[Looked], *, batch_size: int | None
) -> Generator[Embedding | RsEmbedError, None, None]:
    """Yield what `embed` yields for places of one shard, once `read_places` has read them."""
    return _embedded(
        looked,
        task,
        _Model(task),
        view_workers=VIEW_WORKERS,
        batch_size=batch_size or task.batch_size(),
        keep_images=False,
        tiles=Bar(show=False, unit="tile"),
        shard_of=lambda _: 0,
        apart=False,
    )


def _embedded(
    looked: Iterable[Looked],
    task: Task,
    model: _Model,
    *,
    view_workers: int,
    batch_size: int,
    keep_images: bool,
    tiles: Bar,
    shard_of: Callable[[int], int],
    apart: bool,
) -> Generator[Embedding | RsEmbedError, None, None]:
    cut = _tiles(looked, task, model, keep_images=keep_images, bar=tiles)
    views = ordered(cut, partial(_view, task), workers=view_workers, ahead=2 * batch_size)
    with closing(views):
        yield from in_order(_finished(views, model, batch_size, tiles, shard_of, apart=apart))


@dataclass(frozen=True, eq=False)
class Looked:
    """What came of reading and preparing one place; its source while it may be needed again."""

    index: int
    outcome: Sight | RsEmbedError
    source: Source | None


def _look(task: Task, model: _Model, numbered: tuple[int, Source]) -> Looked:
    index, source = numbered
    kept = None if model.loaded else source
    try:
        return Looked(index, task.see(source, model.sizes), kept)
    except RsEmbedError as exc:
        return Looked(index, exc, kept)
    except Exception as exc:
        exc.add_note(f"while reading or preparing number {index}: {source.label()}")
        raise


def _forget_pixels(error: BaseException) -> None:
    """Let go of the local variables behind an error that is kept: rasters are among them."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__


def _tiles(
    looked: Iterable[Looked], task: Task, model: _Model, *, keep_images: bool, bar: Bar
) -> Iterator[tuple[_Place, Tile] | _Failed]:
    """Yield the tiles of each place, or its failure."""
    for look in looked:
        outcome = look.outcome
        if isinstance(outcome, Sight):
            encoder = model.encoder  # only now may gigabytes move: the pixels are known to be good
            if outcome.sizes != model.sizes and look.source is not None:
                outcome = _look(task, model, (look.index, look.source)).outcome
        if isinstance(outcome, RsEmbedError):
            _forget_pixels(outcome)
            yield _Failed(look.index, outcome)
            continue
        seen = outcome.seen
        assembly = Assembly(seen, task, encoder.patch_size, keep_image=keep_images)
        place = _Place(look.index, outcome, assembly)
        bar.expect(len(seen.tiles))
        for tile in seen.tiles:
            yield place, tile


def _view(task: Task, cut: tuple[_Place, Tile] | _Failed) -> _View | _Failed:
    if isinstance(cut, _Failed):
        return cut
    place, tile = cut
    image = place.sight.seen.cut(tile)
    prepared = network_input(task.plan.preparation, image, place.sight.input_res)
    return _View(place, tile, image, prepared)


@dataclass(frozen=True, eq=False)
class _Encoded:
    """What one forward pass made of views, and places that failed before."""

    views: Sequence[_View]
    outcomes: Sequence[ImageTokens | ModelError]
    failed: Sequence[_Failed]


def _encoded(model: _Model, size: int, batch: Sequence[_View | _Failed]) -> _Encoded:
    views = [item for item in batch if isinstance(item, _View)]
    images = [view.input for view in views]
    outcomes: list[ImageTokens | ModelError] = []
    if views:  # else the model may not be loaded, and need not be
        outcomes += encode(model.encoder, images, batch_size=size, capacity=model.capacity)
    return _Encoded(views, outcomes, [item for item in batch if isinstance(item, _Failed)])


def _finished(
    views: Iterator[_View | _Failed],
    model: _Model,
    size: int,
    bar: Bar,
    shard_of: Callable[[int], int],
    *,
    apart: bool,
) -> Iterator[tuple[int, Embedding | RsEmbedError]]:
    """Yield each place's number and outcome as soon as its last tile is through the model.

    With ``apart`` the model runs in threads of its own (one for each slot, see
    `rs_embed.models.base.Plan`), while the caller keeps what it has made.
    """

    def together(item: _View | _Failed) -> Hashable | None:
        """Return what images of one forward pass have in common."""
        if isinstance(item, _Failed):
            return None
        return shard_of(item.place.index), item.input.pixels.shape

    batches = ordered(
        grouped(views, together, size=size, hold=4 * size),
        partial(_encoded, model, size),
        workers=model.slots if apart else 0,
        ahead=_BATCHES_AHEAD,
        stop_s=None,  # a process that ends while PyTorch computes in a thread is aborted
    )
    with closing(batches):
        for batch in batches:
            yield from ((item.index, item.error) for item in batch.failed)
            for view, outcome in zip(batch.views, batch.outcomes, strict=True):
                yield from _taken_in(model.encoder, view, outcome)
            bar.advance(len(batch.views))


def _taken_in(
    encoder: Encoder, view: _View, outcome: ImageTokens | ModelError
) -> Iterator[tuple[int, Embedding | RsEmbedError]]:
    """Give tokens to their place; yield its number and outcome if that completes it."""
    place = view.place
    if place.error is not None:
        return
    try:
        if isinstance(outcome, ModelError):
            raise outcome
        place.assembly.add(view.tile, view.image, outcome)
    except ModelError as exc:
        _forget_pixels(exc)
        yield place.fail(exc)
        return
    if place.assembly.complete:
        yield place.index, _embedding(place, encoder)


def _embedding(place: _Place, encoder: Encoder) -> Embedding:
    """Return the embedding of a place whose tokens are all there, and give its warnings."""
    sight = place.sight
    notes = [*sight.notes, *gsd_notes(sight.input_res, sight.meta["used_scale_m"], encoder)]
    own = {**sight.meta, "warnings": [note.message for note in notes]}
    clash = own.keys() & encoder.provenance.keys()
    if clash:
        raise ModelError(
            f"the provenance of model {own['model']!r} has {', '.join(sorted(clash))}, which the "
            "library states itself; update the package that provides the model"
        )
    meta = {**own, **encoder.provenance}
    embedding = place.assembly.embedding(meta)
    give_warnings(notes)
    return embedding
