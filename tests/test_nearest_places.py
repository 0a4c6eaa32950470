"""Nearest neighbours in tables and maps, against the formula written out, and scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import xarray as xr
from pyproj import Geod
from shapely.geometry import Point, box
from sklearn.neighbors import NearestNeighbors
from typer.testing import CliRunner

from rs_embed import Embedding, get_embedding, nearest, similarity_map
from rs_embed.cli import app
from rs_embed.errors import (
    CoverageWarning,
    ExportError,
    RsEmbedError,
    RsEmbedWarning,
    SpecError,
    UnknownNameError,
)
from rs_embed.files.vectors import VectorRow, write_vectors

COUNT, DIM = 60, 12
FAILED = [3, 17]
META = {"model": "scalemae", "weights_sha256": "ab12", "pooling": "patch_mean", "display": "visual"}
LON, LAT = np.linspace(15.0, 15.59, COUNT), np.linspace(46.0, 46.3, COUNT)


def vectors() -> Any:
    """Crowded embeddings, as those of a model are: a large mean and small differences."""
    rng = np.random.default_rng(7)
    values = (3 + rng.normal(size=DIM) + 0.3 * rng.normal(size=(COUNT, DIM))).astype(np.float32)
    values[FAILED] = np.nan
    return values


def table(ids: Any = None, frame: Any = None, **changed: Any) -> Any:
    ids = [f"p{n}" for n in range(COUNT)] if ids is None else list(ids)
    crop = {"crop": ["maize", "wheat", "oats"] * (COUNT // 3)}
    places = gpd.GeoDataFrame(crop, geometry=gpd.points_from_xy(LON, LAT), crs="EPSG:4326")
    held = {
        "ids": ids,
        "embeddings": vectors(),
        "frame": places if frame is None else frame,
        "errors": {ids[n]: "no imagery" for n in FAILED},
        "meta": META,
    }
    return SimpleNamespace(**{**held, **changed})


def file_of(path: Path) -> Path:
    rows = (
        VectorRow(f"p{n}", LON[n], LAT[n], None, error="no imagery")
        if n in FAILED
        else VectorRow(f"p{n}", LON[n], LAT[n], vector, META)
        for n, vector in enumerate(vectors())
    )
    write_vectors(path, rows, COUNT)
    return path


def written_out(query: Any, *, own: int | None = None, centred: bool = True) -> list[tuple[int, float]]:
    """Row and similarity of all neighbours, by the formula: cos(a, b) = a . b / |a| |b|."""
    values = vectors().astype(np.float64)
    mean = np.nanmean(values, axis=0) if centred else np.zeros(DIM)
    a = np.asarray(query, np.float64) - mean
    pairs = []
    for row, b in enumerate(values - mean):
        if row not in FAILED and row != own:
            pairs.append((row, float(sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5))))
    return sorted(pairs, key=lambda pair: -pair[1])


def found(hits: Any) -> tuple[list[int], Any]:
    return [int(str(name).removeprefix("p")) for name in hits["id"]], hits["similarity"].to_numpy()


def embedding(**meta: Any) -> Embedding:
    return Embedding(np.linspace(2, 4, DIM, dtype=np.float32), {**META, **meta})


# name, query, the row that it is, the vector that it stands for
V = np.linspace(2, 4, DIM)
QUERIES = [
    ("id", "p5", 5),
    ("vector", V, None),
    ("list", V.tolist(), None),
    ("float32", V.astype("f4"), None),
    ("embedding", embedding(), None),
    ("embedding with more meta", embedding(input_res=2.5, backend="stac"), None),
    ("point", Point(LON[9] + 0.002, LAT[9]), 9),
    ("GeoJSON point", {"type": "Point", "coordinates": [LON[9] + 0.002, LAT[9]]}, 9),
    ("longitude from 0 to 360", Point(LON[9] + 0.002 + 360 - 360, LAT[9]), 9),
]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("query", "own"), [q[1:] for q in QUERIES], ids=[q[0] for q in QUERIES])
def test_a_query_finds_what_the_formula_says(query: Any, own: int | None, centred: bool) -> None:
    hits = nearest(table(), query, k=7, centred=centred)
    rows, similarity = found(hits)
    asked = V if own is None else vectors()[own]
    expected = written_out(asked.astype("f4"), own=own, centred=centred)[:7]
    assert rows == [row for row, _ in expected]
    np.testing.assert_allclose(similarity, [s for _, s in expected], atol=1e-6)
    assert list(hits["rank"]) == [1, 2, 3, 4, 5, 6, 7]
    assert list(hits.columns) == ["rank", "similarity", "id", "crop", "geometry"]
    assert list(hits["crop"]) == [["maize", "wheat", "oats"][row % 3] for row in rows]
    assert hits.crs == "EPSG:4326"
    assert hits.attrs["compared"] == COUNT - len(FAILED) - (own is not None)


@pytest.mark.parametrize("centred", [True, False])
def test_several_queries_agree_with_scikit_learn(centred: bool) -> None:
    queries = np.random.default_rng(1).normal(3, 1, (5, DIM))
    hits = nearest(table(), queries, k=4, centred=centred)
    ok = np.delete(np.arange(COUNT), FAILED)
    known = vectors()[ok].astype(np.float64)
    mean = known.mean(axis=0) * centred
    search = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(known - mean)
    distance, index = search.kneighbors(queries - mean)
    rows, similarity = found(hits)
    assert rows == ok[index].ravel().tolist()
    np.testing.assert_allclose(similarity, 1 - distance.ravel(), atol=1e-6)
    assert list(hits["query"]) == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4


def test_centring_spreads_what_raw_similarity_crowds() -> None:
    raw, centred = (nearest(table(), "p5", 57, centred=c)["similarity"] for c in (False, True))
    assert raw.min() > 0.95
    assert centred.min() < -0.4
    assert centred.max() > 0.4


def a_frame(**columns: Any) -> Any:
    return pd.DataFrame({name: [value] * COUNT for name, value in columns.items()})


FRAMES: list[tuple[str, Any, Any, list[str]]] = [
    ("integer ids", range(100, 160), None, ["crop", "geometry"]),
    ("its own id column", range(COUNT), pd.DataFrame({"id": range(COUNT)}), []),
    ("another id column", range(COUNT), a_frame(id=1.5), ["id_of_table"]),
    ("hits searched again", range(COUNT), a_frame(rank=1, similarity=0.5, x=1),
     ["rank_of_table", "similarity_of_table", "x"]),
    ("no columns", range(COUNT), pd.DataFrame(index=range(COUNT)), []),
    ("index by name", None, pd.DataFrame({"a": range(COUNT)}, index=list("ab") * 30), ["a"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "frame", "columns"), [f[1:] for f in FRAMES], ids=[f[0] for f in FRAMES]
)
def test_columns_of_the_table_come_back(ids: Any, frame: Any, columns: list[str]) -> None:
    searched = table(ids, frame)
    hits = nearest(searched, V, 5)
    assert list(hits.columns) == ["rank", "similarity", "id", *columns]
    assert list(hits["id"]) == [searched.ids[row] for row, _ in written_out(V)[:5]]


@pytest.mark.parametrize(("ids", "query"), [(range(COUNT), 5), (range(COUNT), "5"),
                                            (range(COUNT), np.int64(5)), (None, "p5")])  # fmt: skip
def test_ids_are_found_as_integers_and_as_text(ids: Any, query: Any) -> None:
    expected = [row for row, _ in written_out(vectors()[5], own=5)][:10]
    assert found(nearest(table(ids), query))[0] == expected


def bad(**changed: Any) -> Callable[[], Any]:
    return lambda: table(**changed)


# name, table, query, other arguments, error, words of its message
REFUSED: list[tuple[str, Any, Any, dict[str, Any], type[RsEmbedError], str]] = [
    ("unknown id", table, "p61x", {}, UnknownNameError, r"unknown id 'p61x'.*did you mean 'p\d+'"),
    ("far from any id", table, "zzz", {}, UnknownNameError, "unknown id 'zzz'.*p0, p1, p2 and 57"),
    ("an id of digits", bad(ids=range(100, 160)), "0100", {}, UnknownNameError, "mean '100'"),
    ("failed place", table, "p3", {}, SpecError, r"'p3' has no embedding \(no imagery\)"),
    ("point at a failed place", table, Point(LON[17], LAT[17]), {}, SpecError, "'p17' has no emb"),
    ("longer vector", table, np.ones(13), {}, SpecError, r"\(1, 13\), expected 12 numbers"),
    ("several, shorter", table, np.ones((4, 3)), {}, SpecError, r"\(4, 3\), expected 12"),
    ("no queries", table, np.ones((0, DIM)), {}, SpecError, r"\(0, 12\)"),
    ("cube", table, np.ones((2, 2, DIM)), {}, SpecError, r"\(2, 2, 12\)"),
    ("NaN in the second", table, [V, V * np.nan], {}, SpecError, "query 1 of 2 with NaN or inf"),
    ("infinite", table, V / 0, {}, SpecError, "query 0 of 1 with NaN or infinite"),
    ("zeros, raw", table, V * 0, {"centred": False}, SpecError, "equal to the origin"),
    ("the mean itself", table, np.nanmean(vectors().astype("f8"), axis=0), {}, SpecError,
     r"equal to the mean of the table.*centred=False"),
    ("texts", table, ["p1", "p2"], {}, SpecError, "type list.*expected an id of the table"),
    ("None", table, None, {}, SpecError, "query"),
    ("True", table, True, {}, SpecError, "shape"),
    ("grid", table, Embedding(xr.DataArray(np.ones((DIM, 2, 2))), META), {}, SpecError, "2, 2"),
    ("other weights", table, embedding(weights_sha256="cd"), {}, SpecError,
     "weights_sha256='cd', expected 'ab12' as in the table"),
    ("other pooling", table, embedding(pooling="cls"), {}, SpecError, "pooling='cls'.*patch_mean"),
    ("other display", table, embedding(display="reflectance"), {}, SpecError, "display='reflec"),
    ("k of 0", table, "p5", {"k": 0}, SpecError, "got k=0, expected .* 1 or more"),
    ("k of 2.5", table, "p5", {"k": 2.5}, SpecError, "got k=2.5"),
    ("line", table, box(0, 0, 1, 1).exterior, {}, SpecError, "expected a Point"),
    ("empty point", table, Point(), {}, SpecError, "expected a Point"),
    ("latitude of 91", table, Point(15, 91), {}, SpecError, "expected a Point of longitude"),
    ("point, no geometry", bad(frame=a_frame(x=1)), Point(15, 46), {}, SpecError, "without geom"),
    ("all failed", bad(embeddings=np.full((COUNT, DIM), np.nan)), V, {}, SpecError, "nothing to"),
    ("empty", bad(ids=[], embeddings=np.ones((0, DIM))), V, {}, SpecError, "without embeddings"),
    ("all equal", bad(embeddings=np.full((COUNT, DIM), 0.1, "f4")), V, {}, SpecError,
     "nothing to compare.*centred=False"),
    ("output as CSV", table, "p5", {"output": "hits.csv"}, UnknownNameError, "'.csv', expected"),
    ("output, no geometry", bad(frame=a_frame(x=1)), V, {"output": "hits.geojson"}, SpecError,
     "without geometry"),
    ("no such file", lambda: Path("missing.npz"), "p5", {}, ExportError, "no such file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "query", "more", "error", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_cannot_be_searched_is_refused(
    make: Any, query: Any, more: dict[str, Any], error: type[RsEmbedError], words: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"(?s){words}"):
        nearest(make(), query, **more)
    assert not list(tmp_path.iterdir())
