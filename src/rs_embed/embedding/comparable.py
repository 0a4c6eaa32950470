"""Whether embeddings were made alike, so that they can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rs_embed.errors import Note, RsEmbedWarning, SpecError, give_warnings

# Embeddings of different values of these cannot be compared.
SAME = (
    *("model", "network", "loader", "weights_sha256", "weights_seed", "output", "pooling"),
    *("tokens_kind", "gsd_policy", "display"),
)


def check_made_alike(
    meta: Mapping[str, Any], other: Mapping[str, Any], *, what: str, of: str
) -> None:
    """Raise `SpecError` if what has ``meta`` was not made like ``other``.

    Warns if one of them does not state its weights. ``what`` and ``of`` are the nouns of both.
    """
    for key in (key for key in SAME if key in meta and key in other):
        if meta[key] != other[key]:
            raise SpecError(
                f"got a {what} made with {key}={meta[key]!r}, expected {other[key]!r} as in the "
                f"{of}, since others cannot be compared; embed the {what} again with that"
            )
    if "weights_sha256" not in meta.keys() & other.keys():
        message = f"it is not known whether {what} and {of} were made with the same weights"
        give_warnings([Note(message, RsEmbedWarning)])
