"""Clusters of embeddings: k-means, the largest cluster first."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from rs_embed._optional import require
from rs_embed.addresses import path_of
from rs_embed.classification.class_maps import (
    CLASS_MAPS,
    CLASS_NODATA,
    MUTED,
    as_classes,
    described,
    write_class_map,
)
from rs_embed.errors import SpecError
from rs_embed.maps.sampling import PlacedMap, placed_map, spread_tokens, valid_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

# Tokens that clusters are found with; all others then get the nearest.
_MOST_TOKENS = 100_000


def cluster_map(
    source: str | os.PathLike[str] | xr.DataArray,
    k: int,
    *,
    output: str | os.PathLike[str] | None = None,
) -> xr.DataArray:
    """Return the cluster of each token of a map, found by k-means without any label.

    Parameters
    ----------
    source : path or xarray.DataArray
        A map that :func:`rs_embed.open_map` opens, or such an array: ``(d, y, x)``, with CRS. It is
        read block by block; of more than 100,000 tokens, so many that are spread over the map
        determine the centres.
    k : int
        Number of clusters, 2 to 9: more cannot be told apart by colour.
    output : path, optional
        A ``.tif`` to write: a cloud-optimised GeoTIFF with a colour table, as of
        `Classifier.predict_map`.

    Returns
    -------
    xarray.DataArray
        ``(y, x)`` uint8: 0 is the largest cluster, 255 stands for no token.

    Raises
    ------
    SpecError
        If ``k`` or the map is invalid, or the map has fewer different tokens than clusters.
    ExportError
        If a file cannot be read or written.
    MissingDependencyError
        If scikit-learn is not installed.

    Notes
    -----
    Lloyd's algorithm from k-means++ (Arthur and Vassilvitskii 2007, SODA, 1027-1035) as in
    scikit-learn, the best of four starts from a fixed seed, on the tokens as they are: the same map
    gives the same clusters.
    """
    target = None if output is None else path_of(output)
    if target is not None:
        CLASS_MAPS.check(target)
    placed = placed_map(source)
    (found,) = clusters_of_maps([placed], k)
    if target is not None:
        write_class_map(target, found)
    return found


def clusters_of_maps(maps: Sequence[PlacedMap], k: int) -> list[xr.DataArray]:
    """Return the clusters of maps as `cluster_map` does, with the same clusters in all of them."""
    most = _MOST_TOKENS // len(maps)
    centres = kmeans(np.concatenate([spread_tokens(placed, most) for placed in maps]), k)
    grids = [np.full(placed.grid.shape, CLASS_NODATA, np.uint8) for placed in maps]
    for codes, placed in zip(grids, maps, strict=True):
        for cells, tokens in valid_cells(placed):
            if len(tokens):
                codes[cells] = centres.predict(np.ascontiguousarray(tokens, np.float32))
    order = by_size(np.concatenate([codes[codes != CLASS_NODATA] for codes in grids]), k)
    found = []
    for codes, placed in zip(grids, maps, strict=True):
        classes = as_classes(placed, np.append(order, np.full(256 - k, CLASS_NODATA))[codes])
        names = [f"cluster {number}" for number in range(1, k + 1)]
        found.append(classes.assign_attrs(described(names, {"clusters": k, "way": "k-means"})))
    return found


def kmeans(tokens: NDArray[Any], k: int) -> Any:
    """Return a fitted ``sklearn.cluster.KMeans``; `SpecError` if there are too few tokens."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 2 <= k <= len(MUTED):
        raise SpecError(
            f"got k={k!r} clusters, expected 2 to {len(MUTED)}: more cannot be told apart by colour"
        )
    cluster = require("sklearn.cluster", extra="plot", purpose="finding clusters")
    from sklearn.exceptions import ConvergenceWarning

    fitted = None
    if len(tokens) >= k:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # too few different tokens: below
            fitted = cluster.KMeans(k, n_init=4, random_state=0).fit(tokens.astype(np.float32))
    found = 0 if fitted is None else len(np.unique(fitted.labels_))
    if found < k:
        raise SpecError(
            f"got {len(tokens)} tokens, expected at least k={k} that differ; use a smaller k, or a "
            "larger area"
        )
    return fitted


def by_size(labels: NDArray[Any], k: int) -> NDArray[np.uint8]:
    """Return the rank of each label, 0 for the most frequent."""
    ranks = np.empty(k, np.uint8)
    ranks[np.argsort(-np.bincount(labels, minlength=k), kind="stable")] = np.arange(k)
    return ranks
