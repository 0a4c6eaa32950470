"""From pixels to the tokens of each window: prepared in threads, through the model in groups."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.checks import check_units, without_odd
from rs_embed.embedding.encoding import (
    Capacity,
    GsdImage,
    ImageTokens,
    encode,
    gsd_notes,
    network_input,
)
from rs_embed.embedding.input_colours import moments
from rs_embed.embedding.loop import VIEW_WORKERS
from rs_embed.embedding.model_input import MIN_TOKEN_VALID, image_of, patch_valid
from rs_embed.embedding.task import gsd_for_model
from rs_embed.errors import ImageryWarning, ModelError, Note, RsEmbedError
from rs_embed.geo.grid import gsd_m
from rs_embed.maps.blocks import WindowPixels, read_windows
from rs_embed.parallel.pipeline import ordered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.embedding.source import Acquired
    from rs_embed.embedding.task import Task
    from rs_embed.geo.grid import Grid
    from rs_embed.geo.tiling import Tile
    from rs_embed.maps.layout import Layout
    from rs_embed.models.base import Encoder


_ODD = Note(
    "some pixels have values outside the range of reflectance and were treated as nodata; if the "
    "imagery marks nodata with such a value, state it: fetch={'fill_value': ...}",
    ImageryWarning,
)


@dataclass(frozen=True, eq=False)
class WindowTokens:
    """What came of one window.

    Attributes
    ----------
    tile : Tile
        Which one.
    tokens : numpy.ndarray or None
        ``(k, k, h, w, D)`` float32: pass down, pass across, row, column, NaN where too little is
        valid; None where nothing of the window is.
    meta : dict
        JSON values: the GSD passed to the model, a digest of what it saw, the scenes used.
    error : RsEmbedError or None
        Why it has no tokens.
    notes : tuple of Note
        Warnings to give.
    kind : str
        How the tokens were obtained.
    provenance : mapping
        That of the model; empty where it was not needed.
    gsd_notes : tuple of Note
        Warnings about the GSD that the model was given, the same for most windows.
    acquired : mapping
        What is known of the source of the pixels.
    """

    tile: Tile
    tokens: NDArray[np.float32] | None
    meta: Mapping[str, Any] = field(default_factory=dict)
    error: RsEmbedError | None = None
    notes: tuple[Note, ...] = ()
    kind: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    gsd_notes: tuple[Note, ...] = ()
    acquired: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A window as the model will see it."""

    tile: Tile
    images: list[GsdImage]  # k*k of them
    valid: NDArray[np.bool_]  # k k h w
    meta: dict[str, Any]
    notes: tuple[Note, ...]
    acquired: Mapping[str, Any]


def window_tokens(
    task: Task,
    layout: Layout,
    shards: Iterable[Sequence[Tile]],
    read: Callable[[Grid], Acquired],
    encoder: Callable[[], Encoder],
    *,
    workers: int,
    batch_size: int,
    units_seen: bool = True,
) -> Generator[list[WindowTokens], None, None]:
    """Yield what comes of the windows of each shard, in order.

    Windows of one shard go through the model together. ``shards`` are the windows to embed, in the
    layout's order, read ahead of the model. ``read`` returns the pixels on a
    grid, in any of ``workers`` threads; ``encoder`` returns the model when the first window is
    known to be good; ``batch_size`` counts images per forward pass.
    ``units_seen`` states whether some windows together were found to be in their units, see
    `probe`. If not, each must be by itself; a window of dark water may then look like another unit.
    """
    counts: deque[int] = deque()

    def tiles() -> Iterator[Tile]:
        for shard in shards:
            counts.append(len(shard))
            yield from shard

    ahead, behind = tee(tiles())
    with ExitStack() as stages:
        pixels = stages.enter_context(closing(read_windows(layout, ahead, read, workers=workers)))
        seen = stages.enter_context(
            closing(
                ordered(
                    zip(behind, pixels, strict=True),
                    partial(_see, task, layout, units_seen),
                    workers=VIEW_WORKERS if workers else 0,
                    ahead=2 * VIEW_WORKERS,
                )
            )
        )
        # One pass at a time: what is made is kept before the next begins. Several: in threads.
        slots = getattr(task.plan, "slots", 1) if workers else 1
        encoded = ordered(
            _groups(seen, counts),
            partial(_encoded, layout, encoder, batch_size, Capacity()),
            workers=slots if slots > 1 else 0,
            ahead=slots + 1,
            stop_s=None,  # a process that ends while PyTorch computes in a thread is aborted
        )
        yield from stages.enter_context(closing(encoded))


def _groups(
    seen: Iterable[_Seen | WindowTokens], counts: deque[int]
) -> Iterator[list[_Seen | WindowTokens]]:
    """Yield as many windows together as ``counts`` says; a count is there before its windows."""
    group: list[_Seen | WindowTokens] = []
    for item in seen:
        group.append(item)
        if len(group) == counts[0]:
            counts.popleft()
            yield group
            group = []


def _see(
    task: Task, layout: Layout, units_seen: bool, given: tuple[Tile, WindowPixels | RsEmbedError]
) -> _Seen | WindowTokens:
    tile, pixels = given
    if isinstance(pixels, RsEmbedError):
        return WindowTokens(tile, None, error=pixels)
    try:
        return _prepared(task, layout, tile, pixels, units_seen=units_seen)
    except RsEmbedError as exc:
        return WindowTokens(tile, None, error=exc)


def _prepared(
    task: Task, layout: Layout, tile: Tile, pixels: WindowPixels, *, units_seen: bool
) -> _Seen | WindowTokens:
    """Return the images of a window, or that there is nothing to see."""
    raster = pixels.raster
    if raster is None or not raster.valid.any():
        return WindowTokens(tile, None, notes=pixels.notes)
    vouched = units_seen or pixels.meta["reflectance_source"] != "contract"
    check_units(raster, reflectance=pixels.reflectance, vouched=vouched)
    raster, odd = without_odd(raster, pixels.reflectance)
    valid = _valid_tokens(raster.valid, layout, tile)
    if not _wanted(valid, layout, tile).any():
        return WindowTokens(tile, None, notes=pixels.notes)
    preparation = task.plan.preparation
    image = image_of(raster, pixels.reflectance, preparation)
    gsd = gsd_m(raster.grid)
    input_res = gsd_for_model(task.plan.gsd, gsd, layout.tile_size)
    images = [network_input(preparation, image[part], input_res) for part in _passes(layout, tile)]
    digest = hashlib.sha256(np.packbits(valid).tobytes())
    digest.update(np.ascontiguousarray(image).data)
    scenes = (item for source in pixels.sources for item in source.get("items", ()))
    meta = {
        "input_res": input_res,
        "gsd_m": gsd,
        "seen_sha256": digest.hexdigest(),
        "valid": int(raster.valid.sum()),
        "moments": moments(image).tolist(),
        "items": list({str(item.get("id")): dict(item) for item in scenes}.values()),
    }
    return _Seen(tile, images, valid, meta, (*pixels.notes, *[_ODD] * bool(odd)), pixels.meta)


def _passes(layout: Layout, tile: Tile) -> list[tuple[slice, slice]]:
    """Return rows and columns of each pass within the pixels of a window, row by row."""
    _, _, height, width = tile.window
    starts = [shift * layout.stride_px for shift in range(layout.passes)]
    return [
        (slice(row, row + height), slice(column, column + width))
        for row in starts
        for column in starts
    ]


def _valid_tokens(valid: NDArray[np.bool_], layout: Layout, tile: Tile) -> NDArray[np.bool_]:
    """Return ``(k, k, h, w)``: which tokens have enough valid pixels."""
    size = layout.patch_size
    shares = [patch_valid(valid[part], size) for part in _passes(layout, tile)]
    passes = layout.passes
    enough: NDArray[np.bool_] = np.stack(shares) >= MIN_TOKEN_VALID
    return enough.reshape(passes, passes, *enough.shape[1:])


def interleaved(tokens: NDArray[Any]) -> NDArray[Any]:
    """Return ``(k, k, h, w, ...)`` of all passes as ``(h * k, w * k, ...)``."""
    passes, _, height, width, *rest = tokens.shape
    ordered_axes = tokens.transpose(2, 0, 3, 1, *range(4, tokens.ndim))  # h k w k ...
    return ordered_axes.reshape(height * passes, width * passes, *rest)


def _wanted(valid: NDArray[np.bool_], layout: Layout, tile: Tile) -> NDArray[np.bool_]:
    """Return which of a tile's valid tokens are in wanted cells of the area."""
    cells = layout.cells(tile)
    wanted = layout.wanted[cells]
    row, column = (
        cell.start - (span.start - before) * layout.passes
        for cell, span, before in zip(cells, (tile.rows, tile.columns), layout.offset, strict=True)
    )
    inside = interleaved(valid)[row : row + wanted.shape[0], column : column + wanted.shape[1]]
    found: NDArray[np.bool_] = inside & wanted
    return found


def _encoded(
    layout: Layout,
    encoder: Callable[[], Encoder],
    batch_size: int,
    capacity: Capacity,
    group: Sequence[_Seen | WindowTokens],
) -> list[WindowTokens]:
    """Return what comes of windows that go through the model together."""
    images = [image for item in group if isinstance(item, _Seen) for image in item.images]
    if not images:
        return [item for item in group if isinstance(item, WindowTokens)]
    model = encoder()
    outcomes = encode(model, images, batch_size=batch_size, capacity=capacity)
    return [
        _window(layout, model, item, [next(outcomes) for _ in item.images])
        if isinstance(item, _Seen)
        else item
        for item in group
    ]


def _window(
    layout: Layout,
    model: Encoder,
    seen: _Seen,
    outcomes: Sequence[ImageTokens | ModelError],
) -> WindowTokens:
    """Return the tokens of a window, or the first error of its passes.

    Raises
    ------
    ModelError
        If the model gives what makes no map, for any window.
    """
    patches = []
    for outcome in outcomes:
        if isinstance(outcome, ModelError):
            return WindowTokens(seen.tile, None, error=outcome)
        patches.append(outcome.patch_tokens("a map"))
        kind = outcome.kind
    passes = layout.passes
    tokens = np.stack(patches).reshape(passes, passes, *patches[0].shape)  # k k h w D
    return WindowTokens(
        seen.tile,
        np.where(seen.valid[..., None], tokens, np.float32(np.nan)),
        seen.meta,
        notes=seen.notes,
        kind=kind,
        provenance=model.provenance,
        gsd_notes=tuple(gsd_notes(seen.meta["input_res"], seen.meta["gsd_m"], model)),
        acquired=seen.acquired,
    )
