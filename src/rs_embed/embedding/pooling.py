"""From the tokens of a place's tiles to its one vector or grid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.identity import recorded_values
from rs_embed.embedding.input_colours import colour_meta, moments
from rs_embed.embedding.model_input import ModelInput, paste
from rs_embed.embedding.result import Embedding, token_grid
from rs_embed.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rs_embed.embedding.encoding import ImageTokens
    from rs_embed.embedding.task import Task
    from rs_embed.geo.tiling import Tile


class Assembly:
    """The embedding of one place in the making: tokens come in tile by tile.

    Every token of the place counts once, from the one tile that gives it.

    Parameters
    ----------
    seen : ModelInput
        What the model sees of the place.
    task : Task
        Model and output.
    patch_size : int
        Side of a token's footprint, pixels.
    keep_image : bool
        Whether the embedding will carry the picture of what the model saw.
    """

    def __init__(self, seen: ModelInput, task: Task, patch_size: int, *, keep_image: bool) -> None:
        self._seen = seen
        self._output = task.output
        self._task = task
        self._preparation = task.plan.preparation
        self._patch_size = patch_size
        self._weights = seen.weights
        self._missing = len(seen.tiles)
        self._kind = ""
        self._pooling: str | None = None
        self._values: NDArray[Any] | None = None  # d y x, or the pooled D
        self._weight = 0.0
        self._moments: Any = 0
        self._image = np.zeros((*seen.grid.shape, 3), np.uint8) if keep_image else None
        self._digest = hashlib.sha256(seen.token_valid.tobytes())
        if seen.covered is not None:
            self._digest.update(seen.covered.tobytes())

    @property
    def complete(self) -> bool:
        """Whether the tokens of every tile are there."""
        return self._missing == 0

    def add(self, tile: Tile, image: NDArray[Any], tokens: ImageTokens) -> None:
        """Take in the tokens of one tile and of its image.

        Raises
        ------
        ModelError
            If the model does not give what the output needs.
        """
        self._digest.update(repr(tile.window).encode())
        self._digest.update(np.ascontiguousarray(image).data)
        self._moments = self._moments + moments(image)
        if self._image is not None:
            paste(self._image, tile, self._preparation.picture(image))
        self._kind = tokens.kind
        if self._output.mode == "grid":
            self._place(tile, tokens)
        else:
            self._pool(tile, tokens)
        self._missing -= 1

    def _place(self, tile: Tile, tokens: ImageTokens) -> None:
        own = tokens.patch_tokens("a grid")[tile.own_within]  # h w D
        if self._values is None:
            self._values = np.full((own.shape[-1], *self._weights.shape), np.nan, np.float32)
        valid = self._weights[tile.own] > 0
        self._values[:, *tile.own] = np.where(valid[..., None], own, np.nan).transpose(2, 0, 1)

    def _pool(self, tile: Tile, tokens: ImageTokens) -> None:
        weights = self._weights[tile.own]
        weight = float(weights.sum())
        pooling = self._output.pooling
        if pooling == "cls":
            if tokens.cls is None:
                raise ModelError("got no class token from the model; use pooling='mean' or 'max'")
            part, self._pooling = tokens.cls.astype(np.float64) * weight, "cls"
        elif tokens.patches is None:
            if tokens.pooled is None:
                raise ModelError(f"got {tokens.kind} output with neither tokens nor a vector")
            if self._seen.covered is not None:
                raise ModelError(
                    f"got {tokens.kind} output without tokens, so nothing can be pooled over a "
                    "polygon; use polygons='box'"
                )
            part = tokens.pooled.astype(np.float64) * weight
            self._pooling = "model_pooled"
        else:
            pooled = weights > 0
            chosen = tokens.patch_tokens("pooling")[tile.own_within][pooled]  # N D
            self._pooling = f"patch_{pooling}"
            if pooling == "max":
                highest = chosen.max(axis=0)
                known = highest if self._values is None else self._values
                self._values, self._weight = np.maximum(known, highest), 1.0
                return
            if self._seen.covered is None:
                part = chosen.sum(axis=0, dtype=np.float64)
            else:
                part = weights[pooled] @ chosen.astype(np.float64)
        self._values = part if self._values is None else self._values + part
        self._weight += weight

    def embedding(self, meta: Mapping[str, Any]) -> Embedding:
        """Return the embedding, once it is complete, with ``meta`` and its fingerprint."""
        if self._values is None or not self.complete:
            raise ModelError(f"{self._missing} tiles of the place have no tokens yet")
        if self._output.mode == "grid":
            data: Any = token_grid(self._values, self._seen.grid.patch_grid(self._patch_size))
        else:
            data = (self._values / self._weight).astype(np.float32)
        known = {
            **meta,
            "output": self._output.mode,
            "pooling": self._pooling,
            "tokens_kind": self._kind,
            **colour_meta(self._moments),
        }
        self._digest.update(json.dumps(recorded_values(self._task, known)).encode())
        known["fingerprint"] = self._digest.hexdigest()
        return Embedding(data, known, image=self._image)
