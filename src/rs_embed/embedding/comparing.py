"""Whether embeddings were made alike, so that the distance between them means something."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rs_embed.embedding.identity import determining_keys
from rs_embed.errors import ImageryWarning, Note, RsEmbedWarning, SpecError, UnknownNameError
from rs_embed.geo.bands import canonical_band
from rs_embed.registry import find_model

# Vectors of different values of these cannot be compared.
VECTOR_KEYS = (
    *("model", "network", "loader", "weights_sha256", "weights_seed", "output", "pooling"),
    *("tokens_kind", "gsd_policy", "display"),
)
# Nor can those of one place at two dates, where these differ too.
_SAME_PLACE = (
    *("grid", "spatial", "polygon", "input_prep", "image_size", "input_res", "precision"),
    *("used_patch_size", "stride_px", "tiles.size", "tiles.overlap_px", "tiles.seams"),
    "request.screen",
)


def check_made_alike(
    meta: Mapping[str, Any],
    other: Mapping[str, Any],
    *,
    names: tuple[str, str] = ("query", "table"),
    keys: Sequence[str] = VECTOR_KEYS,
) -> list[Note]:
    """Raise `SpecError` if two embeddings cannot be compared; return what cannot be known.

    Parameters
    ----------
    meta, other : mapping
        How each was made; a key that one of them lacks is not compared.
    names : tuple of str
        What each is called in messages.
    keys : sequence of str
        What must be the same; ``a.b`` is the key ``b`` of the object ``a``.
    """
    for key in keys:
        mine, theirs = _value(meta, key), _value(other, key)
        if mine is not None and theirs is not None and not _same(mine, theirs):
            fix = (
                "make both with embed_area, or both with output='grid' or 'pooled'"
                if key == "output"
                else f"embed the {names[0]} again with that"
            )
            raise SpecError(
                f"got a {names[0]} made with {key}={mine!r}, expected {theirs!r} as in the "
                f"{names[1]}, since others cannot be compared; {fix}"
            )
    mine, theirs = _stated_weights(meta), _stated_weights(other)
    if mine.keys() & theirs.keys():
        return []
    if mine and theirs:
        raise SpecError(
            f"got a {names[0]} made with {_described(mine)}, expected {_described(theirs)} as in "
            f"the {names[1]}: vectors of random and of trained weights cannot be compared; embed "
            f"the {names[0]} again with the weights of the {names[1]}"
        )
    both = " and ".join(names)
    message = f"it is not known whether {both} were made with the same weights"
    return [Note(message, RsEmbedWarning)]


def check_same_place(
    meta: Mapping[str, Any], other: Mapping[str, Any], names: tuple[str, str]
) -> list[Note]:
    """Raise `SpecError` if two embeddings of one place differ by more than their imagery.

    Return warnings of what may differ: weights, bands, version of the package.
    """
    try:
        own = determining_keys(find_model(str(meta.get("model"))).description.options)
    except UnknownNameError:  # of a package that is not installed
        own = ()
    keys = dict.fromkeys((*VECTOR_KEYS, *_SAME_PLACE, *own))
    for name in ("rs_embed_version", "runtime"):  # the numbers are the same within 1e-5
        keys.pop(name, None)
    notes = check_made_alike(meta, other, names=names, keys=[*keys])
    versions = [str(each.get("rs_embed_version") or "") for each in (meta, other)]
    kinds: dict[str, type[RsEmbedWarning]] = {"bands": ImageryWarning, "version": RsEmbedWarning}
    for what, mine, theirs in (("bands", _bands(meta), _bands(other)), ("version", *versions)):
        if mine and theirs and mine != theirs:
            message = (
                f"the {names[0]} was made with {what}={mine!r}, the {names[1]} with {theirs!r}: a "
                "part of their distance may come from that"
            )
            notes.append(Note(message, kinds[what]))
    return notes


def _stated_weights(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return the digest of the weights, or the seed of random ones, if it is stated."""
    return {key: meta[key] for key in ("weights_sha256", "weights_seed") if meta.get(key)}


def _described(weights: Mapping[str, Any]) -> str:
    return " and ".join(f"{key}={value!r}" for key, value in weights.items())


def _bands(meta: Mapping[str, Any]) -> list[str]:
    """Return the bands that were stated; none where they are those of the model."""
    sensor = meta.get("sensor")
    bands = sensor.get("bands") if isinstance(sensor, Mapping) else None
    return [canonical_band(str(band)) for band in bands or ()]


def _value(meta: Mapping[str, Any], key: str) -> Any:
    outer, _, inner = key.partition(".")
    value = meta.get(outer)
    return (value or {}).get(inner) if inner else value


def _same(one: Any, other: Any) -> bool:
    """Return whether JSON values are equal, numbers but for rounding."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-9)
    return bool(one == other)
