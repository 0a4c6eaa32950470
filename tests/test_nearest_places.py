"""Nearest neighbours in tables and maps, against the formula written out, and scikit-learn."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  # registers the accessor ``.rio``
import xarray as xr
from pyproj import Geod
from shapely.geometry import Point, box
from sklearn.neighbors import NearestNeighbors
from typer.testing import CliRunner

from rs_embed import (
    Embedding,
    PointBuffer,
    embed_area,
    get_embedding,
    nearest,
    open_map,
    similarity_map,
)
from rs_embed.cli import app
from rs_embed.errors import (
    CoverageWarning,
    ExportError,
    GsdWarning,
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
        "errors": {ids[n]: "no imagery" for n in FAILED if ids},
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


def written_out(
    query: Any, *, own: int | None = None, centred: bool = True
) -> list[tuple[int, float]]:
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
    ("longitude from 0 to 360", Point(LON[9] + 0.002 + 360, LAT[9]), 9),
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
    ("id of two places", bad(ids=["a", "b"] * 30), "a", {}, SpecError, "'a' of several places"),
    ("failed place", table, "p3", {}, SpecError, r"'p3' has no embedding \(no imagery\)"),
    ("point at a failed place", table, Point(LON[17], LAT[17]), {}, SpecError, "'p17' has no emb"),
    ("longer vector", table, np.ones(13), {}, SpecError, r"\(1, 13\), expected 12 numbers"),
    ("several, shorter", table, np.ones((4, 3)), {}, SpecError, r"\(4, 3\), expected 12"),
    ("no queries", table, np.ones((0, DIM)), {}, SpecError, r"\(0, 12\)"),
    ("cube", table, np.ones((2, 2, DIM)), {}, SpecError, r"\(2, 2, 12\)"),
    ("NaN in the second", table, [V, V * np.nan], {}, SpecError, "query 1 of 2 with NaN or inf"),
    ("infinite", table, V * np.inf, {}, SpecError, "query 0 of 1 with NaN or infinite"),
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
    ("a frame as table", lambda: a_frame(x=1), V, {}, SpecError, "type DataFrame, expected one of"),
    ("no such file", lambda: Path("missing.npz"), "p5", {}, ExportError, "no such file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "query", "more", "error", "words"),
    [r[1:] for r in REFUSED],
    ids=[r[0] for r in REFUSED],
)
def test_what_cannot_be_searched_is_refused(
    make: Any, query: Any, more: dict[str, Any], error: type[RsEmbedError], words: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"(?s){words}"):
        nearest(make(), query, **more)
    assert not list(tmp_path.iterdir())


# name, query, other arguments, kind of warning, words, rows of the result
WARNED: list[tuple[str, Any, dict[str, Any], type[RsEmbedWarning], str, int]] = [
    ("k beyond the table", "p5", {"k": 60}, RsEmbedWarning, "k=60, but only 57 places", 57),
    ("point outside", Point(16.5, 46.1), {}, CoverageWarning, "outside.*'p59', is 7[0-9]", 10),
    ("swapped", Point(46.1, 15.1), {}, CoverageWarning, "outside the area of the table", 10),
    ("unknown weights", Embedding(V.astype("f4"), {}), {}, RsEmbedWarning, "not known", 10),
]


def test_a_query_of_another_gsd_is_told() -> None:
    held = gpd.GeoDataFrame({"input_res_m": [10.0, 10.2] * (COUNT // 2)})
    for own, far in ((10.0, False), (9.8, False), (5.0, True), (14.8, True)):
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            nearest(table(frame=held), embedding(input_res_m=own))
        assert [issubclass(w.category, GsdWarning) for w in given] == [True] * far


@pytest.mark.parametrize(
    ("query", "more", "kind", "words", "count"), [w[1:] for w in WARNED], ids=[w[0] for w in WARNED]
)
def test_what_is_doubtful_warns(
    query: Any, more: dict[str, Any], kind: Any, words: str, count: int
) -> None:
    with pytest.warns(kind, match=words):
        hits = nearest(table(), query, **more)
    assert len(hits) == count
    assert not set(hits["id"]) & {f"p{row}" for row in FAILED}


def test_the_place_nearest_to_a_point_is_recorded_with_its_distance() -> None:
    utm = table(frame=gpd.GeoDataFrame(
        geometry=[box(x - 500, y - 500, x + 500, y + 500) for x, y in gpd.GeoSeries(
            gpd.points_from_xy(LON, LAT), crs="EPSG:4326").to_crs("EPSG:32633").get_coordinates(
            ).to_numpy()], crs="EPSG:32633"))  # fmt: skip
    for searched in (table(), utm):
        hits = nearest(searched, Point(LON[9] + 0.002, LAT[9]))
        assert hits.attrs["query"] == "p9"
        _, _, metres = Geod(ellps="WGS84").inv(LON[9] + 0.002, LAT[9], LON[9], LAT[9])
        assert hits.attrs["distance_m"] == pytest.approx(metres, rel=1e-3)


def test_a_file_and_a_memory_map_give_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors())
    mapped = table(embeddings=np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    held, path = nearest(table(), "p5"), file_of(tmp_path / "v.npz")
    for other in (mapped, path, str(path)):
        hits = nearest(other, "p5")
        pd.testing.assert_frame_equal(
            pd.DataFrame(hits[["rank", "similarity", "id"]]), held[["rank", "similarity", "id"]]
        )
        assert hits.geometry.iloc[0].equals(held.geometry.iloc[0])


def test_parts_and_groups_change_nothing() -> None:
    """More rows than a part holds, and equal rows, which stay in the order of the table."""
    rng = np.random.default_rng(3)
    values = rng.normal(1, 1, (9000, 64)).astype(np.float32)
    values[[8000, 10, 5000]] = values[1]
    big = table(range(9000), pd.DataFrame(index=range(9000)), embeddings=values, errors={})
    hits = nearest(big, 1, 3)
    assert list(hits["id"]) == [10, 5000, 8000]
    np.testing.assert_allclose(hits["similarity"], 1, atol=1e-12)
    mean = values.mean(axis=0, dtype=np.float64)
    queries = rng.normal(1, 1, (2000, 64))  # 18 million similarities: more than one group
    several = nearest(big, queries, 1)
    known = (values - mean) / np.linalg.norm(values - mean, axis=1)[:, None]
    assert list(several["id"]) == ((queries - mean) @ known.T).argmax(axis=1).tolist()


@pytest.mark.parametrize("epsg", [4326, 32633])
def test_hits_are_written_as_geojson_in_degrees(tmp_path: Path, epsg: int) -> None:
    columns = {"when": pd.Timestamp("2022-06-01"), "score": np.nan, "name": "Žatec"}
    points = gpd.points_from_xy(LON, LAT, crs="EPSG:4326")
    frame = gpd.GeoDataFrame(a_frame(**columns), geometry=points).to_crs(epsg)
    hits = nearest(table(frame=frame), "p5", 4, output=tmp_path / "hits.geojson")
    read = gpd.read_file(tmp_path / "hits.geojson")
    assert read.crs == "EPSG:4326"
    assert list(read["id"]) == list(hits["id"])
    assert list(read["similarity"]) == list(hits["similarity"])
    assert list(read["name"]) == ["Žatec"] * 4
    rows, _ = found(hits)
    np.testing.assert_allclose(read.geometry.x, LON[rows], atol=1e-7)


def a_map(**changed: Any) -> xr.DataArray:
    """``(d, y, x)`` tokens; two cells have none."""
    values = (3 + np.random.default_rng(5).normal(size=(DIM, 6, 9))).astype(np.float32)
    values[:, 0, 0] = values[:, 4, 7] = np.nan
    coords = {"d": range(DIM), "y": 5000000 - 160 * np.arange(6), "x": 500000 + 160 * np.arange(9)}
    array = xr.DataArray(values, dims=("d", "y", "x"), coords=coords)
    placed: xr.DataArray = array.rio.write_crs("EPSG:32633").rio.write_nodata(np.nan)
    return placed


ONE, THREE = [(500320, 4999840)], [(500320, 4999840), (500480, 4999520), (500000, 4999200)]
MAPS: list[tuple[str, Callable[[xr.DataArray], xr.DataArray]]] = [
    ("in memory", lambda m: m),
    ("lazy", lambda m: m.chunk({"d": 5, "y": 4, "x": 3})),
    ("other order of dimensions", lambda m: m.transpose("y", "x", "d")),
    ("nodata of -9999", lambda m: m.fillna(-9999).rio.write_nodata(-9999)),
]


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("points", [ONE, THREE], ids=["one", "three"])
@pytest.mark.parametrize("changed", [m[1] for m in MAPS], ids=[m[0] for m in MAPS])
def test_similarity_of_a_map_is_what_the_formula_says(
    changed: Any, points: Any, centred: bool
) -> None:
    found = similarity_map(changed(a_map()), points, crs="EPSG:32633", centred=centred)
    tokens = a_map().values.astype(np.float64)
    mean = np.nanmean(tokens, axis=(1, 2)) if centred else np.zeros(DIM)
    cells = [(int((5000000 - y) / 160), int((x - 500000) / 160)) for x, y in points]
    query = np.mean([tokens[:, row, column] for row, column in cells], axis=0) - mean
    for row in range(6):
        for column in range(9):
            b = tokens[:, row, column] - mean
            cosine = sum(query * b) / (sum(query**2) ** 0.5 * sum(b**2) ** 0.5)
            np.testing.assert_allclose(found.values[row, column], cosine, atol=1e-6)
    assert np.isnan(found.values[0, 0])
    assert np.isnan(found.values[4, 7])
    assert found.rio.crs == "EPSG:32633"
    assert found.dims == ("y", "x")


MAPS_REFUSED: list[tuple[str, Any, Any, dict[str, Any], type[RsEmbedError], str]] = [
    ("no token", a_map, [ONE[0], (500000, 5000000)], {}, SpecError, r"from 0: \[1\]"),
    ("no points", a_map, [], {}, SpecError, "got 0 points"),
    ("one token everywhere", lambda: a_map() * 0 + 0.1, ONE, {}, SpecError, "mean of the map"),
    ("zeros, raw", lambda: a_map() * 0, ONE, {"centred": False}, SpecError, "the origin"),
    ("output as PNG", a_map, ONE, {"output": "similar.png"}, UnknownNameError, "'.png', expected"),
    ("output in no folder", a_map, ONE, {"output": "no/s.tif"}, ExportError, "no folder"),
    ("output is the map", lambda: "map.tif", ONE, {"output": "./map.tif"}, ExportError, "itself"),
]


@pytest.mark.parametrize(
    ("make", "points", "more", "error", "words"),
    [r[1:] for r in MAPS_REFUSED],
    ids=[r[0] for r in MAPS_REFUSED],
)
def test_what_cannot_be_mapped_is_refused(
    make: Any, points: Any, more: dict[str, Any], error: Any, words: str
) -> None:
    with pytest.raises(error, match=words):
        similarity_map(make(), points, crs="EPSG:32633", **more)


def test_a_point_outside_the_map_is_refused_and_warned_of() -> None:
    with (
        pytest.warns(CoverageWarning, match="1 of 2 points are outside the map"),
        pytest.raises(SpecError, match=r"from 0: \[1\]"),
    ):
        similarity_map(a_map(), [*ONE, (0, 0)], crs="EPSG:32633")


def test_similarity_is_written_as_cog(tmp_path: Path) -> None:
    path = tmp_path / "similarity.tif"
    found = similarity_map(a_map(), ONE, crs="EPSG:32633", output=path)
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.count, file.dtypes[0], file.crs.to_epsg()) == (1, "float32", 32633)
        assert file.transform.to_gdal() == (499920, 160, 0, 5000080, 0, -160)
        np.testing.assert_array_equal(file.read(1), found.values)
        assert np.isnan(file.nodata)
    with pytest.raises(ExportError, match="not a map of rs_embed"):
        open_map(path)


def run(*args: object) -> str:
    done = CliRunner().invoke(app, ["search", *map(str, args)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_writes_and_refuses(tmp_path: Path) -> None:
    path, out = file_of(tmp_path / "v.npz"), tmp_path / "hits.geojson"
    embedding().save(tmp_path / "query.npz")
    lines = run(path, "--like-id", "p5", "-k", 3).splitlines()
    assert lines[0] == "3 of 57 places, by centred cosine similarity to p5"
    assert lines[1].split()[:3] == ["rank", "similarity", "id"]
    assert len({len(line) for line in lines[1:]}) == 1
    asked = json.loads(run(path, "--like", tmp_path / "query.npz", "--raw", "--json", "-o", out))
    expected = nearest(path, V.astype("f4"), centred=False)
    assert [hit["id"] for hit in asked["hits"]] == list(expected["id"])
    assert asked["hits"][0]["similarity"] == pytest.approx(expected["similarity"][0], abs=1e-14)
    assert list(gpd.read_file(out)["id"]) == list(expected["id"])
    text = run(path, "--lon", LON[9] + 0.002, "--lat", LAT[9])
    assert "similarity to p9, 155 m from the point" in text
    for wrong in ([], ["--lon", 15], ["--like-id", "p5", "--lon", 15, "--lat", 46]):
        with pytest.raises(SpecError, match="expected one of --like-id, --like, and --lon with"):
            run(path, *wrong)
    for options in (["--display", "visual"], ["--pooling", "max"], ["--input-prep", "tile"]):
        with pytest.raises(SpecError, match="expected them only with --like image.tif"):
            run(path, "--like-id", "p5", *options)


def test_an_image_is_embedded_as_the_options_say(tmp_path: Path) -> None:
    import rs_embed

    scene = Path(rs_embed.__file__).parent / "data" / "sample_s2.tif"
    small: dict[str, Any] = {"variant": "tiny", "image_size": 64}
    with pytest.warns(RsEmbedWarning):
        made = get_embedding("scalemae", imagery=scene, **small)
    others = made.data + np.random.default_rng(0).normal(0, 0.1, (4, 192)).astype(np.float32)
    rows = [VectorRow(f"n{n}", 15, 46, v, made.meta) for n, v in enumerate([*others, made.data])]
    write_vectors(tmp_path / "v.npz", rows, 5)
    options = ["--like", scene, "-k", 1, "--json", "--variant", "tiny", "--image-size", 64]
    with pytest.warns(RsEmbedWarning):
        (hit,) = json.loads(run(tmp_path / "v.npz", *options))["hits"]
    assert hit["id"] == "n4"
    assert hit["similarity"] == pytest.approx(1)
    with pytest.warns(RsEmbedWarning), pytest.raises(SpecError, match="display='reflectance', exp"):
        run(tmp_path / "v.npz", *options, "--display", "reflectance")


def test_the_command_maps_similarity(tmp_path: Path) -> None:
    out, place = tmp_path / "similarity.tif", PointBuffer(-75.6156, 37.6942, buffer_m=1280)
    embed_area("scalemae", spatial=place, backend="sample", output=tmp_path / "map.zarr",
               acquired="2016-01-01", variant="tiny")  # fmt: skip
    at = ["--lon", place.lon, "--lat", place.lat]
    assert f"wrote {out}: cosine similarity -" in run(tmp_path / "map.zarr", *at, "-o", out)
    with rasterio.open(out) as file:
        highest = file.read(1).max()
        assert "in EPSG:4326" in file.tags()["points"]
    assert highest == pytest.approx(1)
    assert json.loads(run(tmp_path / "map.zarr", *at, "-o", out, "--json"))["max"] == highest
    with pytest.raises(ExportError, match="not a map of rs_embed"):
        open_map(out)
    with pytest.raises(SpecError, match="got a map, expected only --lon and --lat in it, and -o"):
        run(tmp_path / "map.zarr", *at)
