"""Embeddings as the rows that an estimator takes, and how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed.embedding.comparing import VECTOR_KEYS, check_made_alike
from rs_embed.errors import SpecError, give_warnings
from rs_embed.tables.export import load_export
from rs_embed.tables.picture import meta_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A GSD may differ by this share: the pixels of one product differ with their place.
_GSD_TOLERANCE = 0.05


@dataclass(frozen=True)
class Making:
    """How embeddings were made: what must be the same, GSD, and colours over all inputs.

    ``gsd_m`` is the least and greatest, metres; ``mean`` and ``std`` are those of each channel of
    the model's input. All are empty if unknown.
    """

    same: dict[str, Any] = field(default_factory=dict)
    gsd_m: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, metas: Iterable[Mapping[str, Any]]) -> Making:
        """Return how all were made; `SpecError` if some were made otherwise than others."""
        same: dict[str, Any] = {}
        gsds: list[float] = []
        colours = []
        for meta in metas:
            for key in (key for key in VECTOR_KEYS if key in meta):
                if same.setdefault(key, meta[key]) != meta[key]:
                    raise SpecError(
                        f"got embeddings made with {key}={same[key]!r} and {meta[key]!r}, expected "
                        "the same for all; embed all of them again with one of these"
                    )
            gsds += [meta["input_res_m"]] if "input_res_m" in meta else meta.get("gsd_m_range", [])
            if "input_mean" in meta:
                colours.append((meta["input_mean"], meta["input_std"]))
        gsd_m = [min(gsds), max(gsds)] if gsds else []
        if not colours:
            return cls(same, gsd_m)
        means, deviations = np.array(colours).transpose(1, 0, 2)
        std = np.sqrt(means.var(axis=0) + np.square(deviations).mean(axis=0))
        return cls(same, gsd_m, means.mean(axis=0).tolist(), std.tolist())

    def check(self, trained: Making, what: str) -> None:
        """Raise `SpecError` if ``what`` was made otherwise than the training set."""
        give_warnings(check_made_alike(self.same, trained.same, names=(what, "training set")))
        ends = [*self.gsd_m, *trained.gsd_m]
        if len(ends) == 4 and (
            ends[0] < ends[2] * (1 - _GSD_TOLERANCE) or ends[1] > ends[3] * (1 + _GSD_TOLERANCE)
        ):
            raise SpecError(
                f"got a {what} with a GSD from {ends[0]:.4g} to {ends[1]:.4g} m, expected "
                f"{ends[2]:.4g} to {ends[3]:.4g} m as in the training set; embed one of them again "
                "with the scale_m of the other, and places with input_prep='tile' as maps are"
            )


@dataclass(frozen=True, eq=False)
class Features:
    """Rows ``(N, D)``, NaN for rows without an embedding; how they were made; their columns."""

    rows: NDArray[Any]
    making: Making
    frame: Any = None


def features_of(source: Any) -> Features:
    """Return the rows of a table (or its file), of tokens with the meta of a map, or an array."""
    table = load_export(source) if isinstance(source, str | os.PathLike) else source
    if hasattr(table, "embeddings"):
        known = np.flatnonzero(np.isfinite(table.embeddings).all(axis=1)).tolist()
        making = Making.of(meta_of(table, row) for row in known)
        return Features(table.embeddings, making, table.frame)
    rows = np.asarray(source)
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise SpecError(
            f"got {type(source).__name__} of shape {rows.shape} and {rows.dtype}, expected a table "
            "of embeddings, tokens of sample_points or zonal_mean, or an array of floats (N, D)"
        )
    return Features(rows, making_of(getattr(source, "attrs", {})))


def making_of(attrs: Mapping[str, Any]) -> Making:
    """Return how a map, or tokens of it, were made, from its attributes and in terms of places."""
    if "meta" not in attrs:
        return Making()
    meta = json.loads(attrs["meta"])
    if meta.get("output") == "map":  # a token is the mean of itself
        meta |= {"output": "pooled", "pooling": "patch_mean"}
    if "pca" in attrs:  # each map has its own components
        meta["tokens_kind"] = f"principal components of the map {meta['fingerprint']}"
    return Making.of([meta])
