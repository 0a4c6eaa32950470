"""What identifies a request: one table says of every field whether it determines numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from rs_embed._version import __version__

if TYPE_CHECKING:
    from rs_embed.embedding.source import Source
    from rs_embed.embedding.task import Task
    from rs_embed.models.base import Option


class Determines(Enum):
    """What changes in a result when a field of its request changes."""

    NUMBERS = "numbers"
    STORAGE = "storage"
    NEITHER = "neither"


class Field(NamedTuple):
    """A row of the table: what a field determines, and whether the fingerprint records it.

    A field that determines numbers and is not recorded acts on the pixels that the model sees,
    whose digest is part of every fingerprint.
    """

    determines: Determines
    recorded: bool = False


_RECORDED = Field(Determines.NUMBERS, recorded=True)
_NUMBERS = Field(Determines.NUMBERS)
_STORAGE = Field(Determines.STORAGE)
_NEITHER = Field(Determines.NEITHER)

# Arguments of the public functions, and keys of ``meta``. A model's own options are rows of its
# description. The order of the recorded ones is that of every fingerprint. "output" is what comes
# back; the path that batches and maps call so is not part of a request.
FIELDS: Mapping[str, Field] = {
    "model": _RECORDED,
    "rs_embed_version": _RECORDED,
    "input_res": _RECORDED,
    "output": _RECORDED,
    "pooling": _RECORDED,
    "tokens_kind": _RECORDED,
    "network": _RECORDED,
    "loader": _RECORDED,
    "precision": _RECORDED,
    "runtime": _RECORDED,
    "weights_sha256": _RECORDED,
    "weights_seed": _RECORDED,
    # Which pixels.
    **dict.fromkeys(
        ("spatial", "spatials", "places", "layer", "area", "buffer_m", "polygons", "id_column"),
        _NUMBERS,
    ),
    **dict.fromkeys(("input_chw", "input_chws", "imagery", "imageries"), _NUMBERS),
    **dict.fromkeys(("temporal", "sensor", "fetch", "scale_m", "backend", "min_valid"), _NUMBERS),
    # How they become images.
    **dict.fromkeys(("options", "input_prep", "tile_size", "overlap_px"), _NUMBERS),
    # How the tokens of windows become a map.
    **dict.fromkeys(("stride_px", "seams", "screen"), _NUMBERS),
    # How the result is kept; the same tokens can be stored again otherwise.
    **dict.fromkeys(("dtype", "order", "pca", "acquired"), _STORAGE),
    # Where and how fast: the numbers are the same within 1e-5.
    **dict.fromkeys(
        ("device", "cache", "fetch_workers", "batch_size", "workers", "engine", "ray_address"),
        _NEITHER,
    ),
    **dict.fromkeys(("overwrite", "progress", "on_error", "keep_images"), _NEITHER),
}
_WHICH_WEIGHTS = ("weights_sha256", "weights_revision")


def determining_keys(options: Iterable[Option]) -> tuple[str, ...]:
    """Return the keys of ``meta`` that a fingerprint records beside the pixels.

    Parameters
    ----------
    options : iterable of Option
        The model's own options.
    """
    own = (
        key
        for option in options
        for key in ((option.name,) if option.recorded_as is None else option.recorded_as)
    )
    recorded = (name for name, field in FIELDS.items() if field.recorded)
    return tuple(dict.fromkeys((*recorded, *own)))


def recorded_values(task: Task, meta: Mapping[str, Any]) -> list[Any]:
    """Return what a fingerprint records beside the pixels, as JSON values.

    Where ``meta`` lacks an option of the model, it is what the plan settled.
    """
    keys = determining_keys(task.description.options)
    settled = {} if meta.keys() >= set(keys) else task.plan.settled
    return [meta.get(key, settled.get(key)) for key in keys]


def identity(task: Task, source: Source, **more: Any) -> dict[str, Any]:
    """Return everything that determines the numbers of a request, as JSON values.

    All are settled: an alias, a default that is stated and one that is left out are the same.

    Parameters
    ----------
    task : Task
        What is wanted of every place.
    source : Source
        Which pixels, with its provider found.
    **more
        Further fields of `FIELDS`.

    Raises
    ------
    SpecError
        If ``imagery`` is computed when it is read, so that nothing identifies it.
    """
    pixels = source.settled(task.description.inputs)  # first: the task may have to download
    settled = {"rs_embed_version": __version__, **task.settled(), **pixels, **more}
    return {
        name: value
        for name, value in settled.items()
        if FIELDS[name].determines is Determines.NUMBERS
    }


def which_weights(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return which weights made an embedding: a name can get other content."""
    return {name: meta.get(name) for name in _WHICH_WEIGHTS}
