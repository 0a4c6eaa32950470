"""Tables of embeddings as people open them: with GeoPandas, DuckDB and pyarrow.

A row of ``PLACES`` is a table that people have: its name and how it is made. All of it must come
back unchanged beside the embeddings. A row of ``REFUSED`` is an output that must not be written:
its name, what is there before, the arguments, and what the refusal says.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from numpy.typing import NDArray
from pandas.testing import assert_frame_equal
from pyproj import CRS
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from typer.testing import CliRunner

from rs_embed import (
    BBox,
    EmbeddingTable,
    LocalProvider,
    NamedPlace,
    PointBuffer,
    RsEmbedWarning,
    embed_table,
    export_batch,
    get_embeddings_batch,
    load_export,
    load_model,
    places_of,
)
from rs_embed.cli import app
from rs_embed.errors import ExportError, ProviderError, SpecError, UnknownNameError
from rs_embed.providers.sample import CENTRE
from rs_embed.runs.journal import JournalResult, shown_differences
from rs_embed.tables.columns import RESULT_COLUMNS, TableContent, place_columns
from rs_embed.tables.formats import TABLES
from rs_embed.tables.summary import summary
from tests.conftest import python_environment
from tests.processes import completed

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.CoverageWarning")
LON, LAT = CENTRE
COUNT = 7
NEAR = [NamedPlace(f"{n:03}", PointBuffer(LON + 0.001 * n, LAT, 640)) for n in range(3)]
BOX = NamedPlace("box", BBox(LON, LAT, LON + 0.02, LAT + 0.01))  # not whole patches
FAR = NamedPlace("far", PointBuffer(0, 0, 640))
ADDED = {name for name in RESULT_COLUMNS if name != "embedding_scale"}


@pytest.fixture
def asked(checkpoint: Path) -> dict[str, Any]:
    return {"backend": "sample", "weights": checkpoint, "input_prep": "tile"}


# --- tables that people have ---------------------------------------------------------------


def points(crs: Any = 4326, name: str = "geometry", **columns: Any) -> geopandas.GeoDataFrame:
    rng = np.random.default_rng(3)
    shapes = geopandas.points_from_xy(rng.uniform(10, 20, COUNT), rng.uniform(40, 50, COUNT))
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
    return frame if name == "geometry" else frame.rename_geometry(name)


def several_geometries() -> geopandas.GeoDataFrame:
    frame = points(id=range(COUNT))
    frame["field"] = frame.geometry.to_crs(32633).buffer(100)
    return frame


def with_holes() -> geopandas.GeoDataFrame:
    frame = points(id=range(COUNT))
    frame.loc[2, "geometry"] = None
    frame.loc[3, "geometry"] = shapely.Point()
    return frame


TYPES = {
    "yield_t": pd.array([1, None, 3, 4, 5, 6, 7], "Int64"),
    "crop": pd.Categorical(list("mwmwbbm"), categories=list("wmb")),
    "sown": pd.date_range("2022-04-01", periods=COUNT, tz="Europe/Paris").astype(
        "datetime64[ms, Europe/Paris]"
    ),
    "irrigated": [True, False, True, True, False, False, True],
    "note": ["NA", None, "ä, ö\nü", '"', "007", "NaN", "x"],
    "moisture": np.arange(COUNT, dtype=np.float32) / 3,
}
PLACES: dict[str, Callable[[], geopandas.GeoDataFrame]] = {
    "points, ids with leading zeros": lambda: points(id=[f"{n:03}" for n in range(COUNT)]),
    "ids that no decimal number holds": lambda: points(id=[2**53 + 1 + n for n in range(COUNT)]),
    "no ids": points,
    "a projection": lambda: points(32633, id=range(COUNT)),
    "a CRS without a code": lambda: points("+proj=laea +lat_0=52 +lon_0=10", id=range(COUNT)),
    "boxes": lambda: points(3857, id=range(COUNT)).assign(geometry=lambda f: f.buffer(1).envelope),
    "columns of many types": lambda: points(id=range(COUNT), **TYPES),
    "another name of the geometry": lambda: points(name="geom", id=range(COUNT)),
    "two geometries": several_geometries,
    "missing and empty geometries": with_holes,
    "columns that results have too": lambda: points(
        id=range(COUNT), start="a", error="b", emb_error="c", embedding=1.5, bbox="d"
    ),
}


def vectors(width: int, seed: int = 1) -> list[NDArray[np.float32]]:
    return list(np.random.default_rng(seed).normal(size=(COUNT, width)).astype(np.float32))


def write(
    path: Path, frame: geopandas.GeoDataFrame, results: Sequence[JournalResult], dtype: str,
    order: str,
) -> None:  # fmt: skip
    """Write a table as `export_batch` does, with results that are known."""
    id_column = "id" if "id" in frame else None
    ids = frame.id.tolist() if id_column else list(range(len(frame)))
    columns = place_columns(frame, ids, id_column, order)
    request = {"model": "scalemae", "table": {**columns.to_json(), "dtype": dtype, "order": order}}
    done = [result.vector for result in results if result.vector is not None]
    emb = summary(
        columns, [result.meta for result in results if result.meta is not None], request,
        failed=len(results) - len(done), width=done[0].size if done else 0,
    )  # fmt: skip
    content = TableContent(
        ids, [], lambda numbers: (results[n] for n in numbers), request, columns, emb
    )
    TABLES.of(path).write_all(path, content)


def made(failed: Sequence[int] = (2,), width: int = 5) -> list[JournalResult]:
    return [
        JournalResult(str(n), None, error=f"reason {n}") if n in failed
        else JournalResult(str(n), vector, {"coverage": n / 10, "fingerprint": f"f{n}"})
        for n, vector in enumerate(vectors(width))
    ]  # fmt: skip


@pytest.mark.parametrize("order", ["hilbert", "input"])
@pytest.mark.parametrize("name", PLACES)
def test_parquet_has_all_that_the_places_had(tmp_path: Path, name: str, order: str) -> None:
    frame, path = PLACES[name](), tmp_path / "v.parquet"
    write(path, frame, made(), "float32", order)
    back = geopandas.read_parquet(path)
    row = "input_row"
    in_order = back.sort_values(row, ignore_index=True)
    if order == "input":
        assert back[row].tolist() == list(range(COUNT))
    assert_frame_equal(in_order[frame.columns], frame)
    assert in_order.crs == frame.crs
    assert in_order.geometry.name == frame.geometry.name
    stored = {f"emb_{n}" if n in frame else n for n in ADDED}
    stored = {"emb_emb_error" if n == "emb_error" and n in frame else n for n in stored}
    assert set(back.columns) - set(frame.columns) - {"id"} == stored
    cells = in_order["emb_embedding" if "embedding" in frame else "embedding"]
    for cell, expected in zip(cells, made(), strict=True):
        assert cell is None if expected.vector is None else (cell == expected.vector).all()
    _check_geoparquet(path, frame)


def _check_geoparquet(path: Path, frame: geopandas.GeoDataFrame) -> None:
    """Check the rules of https://geoparquet.org/releases/v1.1.0/ and the storage."""
    file = pq.ParquetFile(path)
    geo = json.loads(file.schema_arrow.metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == frame.geometry.name
    assert set(geo["columns"]) == set(frame.columns[frame.dtypes == "geometry"])
    for name, about in geo["columns"].items():
        leaf = next(c for c in map(file.schema.column, range(len(file.schema))) if c.path == name)
        assert (leaf.physical_type, leaf.max_repetition_level) == ("BYTE_ARRAY", 0)
        assert about["encoding"] == "WKB"
        assert set(about["geometry_types"]) == set(frame[name].dropna().geom_type)
        assert CRS.from_json_dict(about["crs"]) == frame[name].crs
        np.testing.assert_allclose(about["bbox"], frame[name].total_bounds)
    if "bbox" not in frame:
        corners = ("xmin", "ymin", "xmax", "ymax")
        about = geo["columns"][geo["primary_column"]]["covering"]["bbox"]
        assert about == {corner: ["bbox", corner] for corner in corners}
        table = file.read(["bbox", "input_row"]).to_pandas().sort_values("input_row")
        boxes = pd.DataFrame(table.bbox.tolist())[list(corners)].to_numpy(float)
        np.testing.assert_allclose(boxes, frame.geometry.bounds, atol=1e-5)
    for group in range(file.num_row_groups):
        chunks = map(file.metadata.row_group(group).column, range(len(file.schema)))
        assert {chunk.compression for chunk in chunks} == {"ZSTD"}


@pytest.mark.parametrize(
    ("dtype", "most"), [("float32", 0), ("float16", 2**-11), ("int8", 0.5 / 127)]
)
def test_duckdb_and_pyarrow_read_each_type(tmp_path: Path, dtype: str, most: float) -> None:
    """``most`` is half a step of the type, relative to the largest value of a row."""
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "v.parquet"
    write(path, points(id=range(COUNT)), made(), dtype, "hilbert")
    scale = "embedding_scale" if dtype == "int8" else "1"
    table = duckdb.read_parquet(str(path)).order("input_row")
    vector = f"list_transform(embedding, lambda x : x * {scale})"
    rows = table.project(f"{vector}, error, coverage").fetchall()
    back = load_export(path)
    assert pq.read_schema(path).field("embedding").type.list_size == 5
    for (cell, error, coverage), result, vector in zip(rows, made(), back.embeddings, strict=True):
        assert error == result.error
        if result.vector is None:
            assert cell is coverage is None
            assert np.isnan(vector).all()
            continue
        assert coverage == result.meta["coverage"]  # type: ignore[index]
        largest = np.abs(result.vector).max()
        assert np.abs(np.array(cell) - result.vector).max() <= most * largest * 1.001
        np.testing.assert_allclose(vector, cell, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in PLACES if n != "missing and empty geometries"])
def test_csv_has_text_and_numbers(tmp_path: Path, name: str) -> None:
    frame, path = PLACES[name](), tmp_path / "v.csv"
    write(path, frame, made(), "float32", "input")
    plain = pd.read_csv(path, dtype={"id": str}, keep_default_na=False)
    assert len(plain) == COUNT
    back = load_export(path)
    for column in set(frame.columns) - {"crop", "sown"}:  # text in CSV
        assert_frame_equal(
            pd.DataFrame(back.frame[[column]]), pd.DataFrame(frame[[column]]),
            check_dtype=False, check_exact=True,
        )  # fmt: skip
    assert back.frame.crs == frame.crs
    for vector, result in zip(back.embeddings, made(), strict=True):
        assert np.isnan(vector).all() if result.vector is None else (vector == result.vector).all()
    assert back.errors == {back.ids[2]: "reason 2"}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("failed", [(), range(COUNT)], ids=["none failed", "all failed"])
def test_none_or_all_failed(tmp_path: Path, suffix: str, failed: Sequence[int]) -> None:
    path = tmp_path / f"v{suffix}"
    write(path, points(id=range(COUNT)), made(failed), "float32", "input")
    back = load_export(path)
    assert back.embeddings.shape == (COUNT, 0 if failed else 5)
    assert back.errors == {n: f"reason {n}" for n in failed}


def test_hilbert_order_keeps_neighbours_together(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).uniform(0, 1, (2, 400))
    frame = geopandas.GeoDataFrame(
        {"id": range(400)}, geometry=geopandas.points_from_xy(x, y), crs=3857
    )
    result = JournalResult("", np.zeros(2, np.float32), {})
    write(tmp_path / "v.parquet", frame, [result] * 400, "float32", "hilbert")
    shapes = geopandas.read_parquet(tmp_path / "v.parquet").geometry
    # A random order has steps of 0.52 on average, a shortest way through 400 points 0.036.
    assert shapes[1:].distance(shapes.shift()[1:]).mean() < 0.06


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    width, count = 1_000_000, 40  # 4 MB a row
    frame = geopandas.GeoDataFrame(
        {"id": range(count)}, geometry=[shapely.Point(0, 0)] * count, crs=4326
    )
    result = JournalResult("", np.zeros(width, np.float32), {})
    write(tmp_path / "v.parquet", frame, [result] * count, "float32", "hilbert")
    metadata = pq.ParquetFile(tmp_path / "v.parquet").metadata
    assert [metadata.row_group(n).num_rows for n in range(2)] == [33, 7]


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"n": [1, "a", 2, 3, 4, 5, 6]}, "cannot be written .* n with type object"),
        ({1: range(COUNT)}, "cannot be written .*string"),
    ],
)
def test_columns_that_cannot_be_stored(columns: dict[Any, Any], match: str) -> None:
    frame = points().assign(**{str(k): v for k, v in columns.items()})
    frame = frame.rename(columns={str(k): k for k in columns})
    with pytest.raises(SpecError, match=match):
        place_columns(frame, range(COUNT), None, "input")


def test_columns_that_change_are_another_request() -> None:
    one, other = (
        place_columns(points(id=range(COUNT), n=n), range(COUNT), "id", "input").to_json()
        for n in (1, 1.5)
    )
    assert 'columns.n was "int64", is now "double"; content was' in shown_differences(one, other)


def test_values_that_float16_cannot_hold(tmp_path: Path) -> None:
    results = [JournalResult("", np.array([1, 70000], np.float32), {})] * COUNT
    with pytest.raises(ExportError, match="values up to 70000, which float16 .*dtype='float32'"):
        write(tmp_path / "v.parquet", points(), results, "float16", "input")
    assert not list(tmp_path.iterdir())
    write(tmp_path / "v.parquet", points(), results, "int8", "input")


# --- runs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.parquet", "v.csv", "v.npz"])
def test_failures_are_rows_and_are_tried_again(
    tmp_path: Path, asked: dict[str, Any], name: str
) -> None:
    path = tmp_path / name
    named = [*NEAR, FAR, BOX]
    report = export_batch("scalemae", named, output=path, **asked)
    assert list(report.errors) == ["far"]
    table = load_export(path)
    assert table.ids == [place.id for place in named]
    assert table.errors == report.errors
    alone = embed_table("scalemae", [*NEAR, BOX], **asked)
    ok = [0, 1, 2, 4]
    assert np.abs(table.embeddings[ok] - alone.embeddings).max() <= 1e-5
    assert np.isnan(table.embeddings[3]).all()
    assert table.frame.fingerprint[ok].tolist() == alone.frame.fingerprint.tolist()
    again = export_batch("scalemae", named, output=path, **asked)
    assert (again.resumed, list(again.errors), again.finished_before) == (4, ["far"], False)
    assert not export_batch("scalemae", [*NEAR, BOX], output=path, **asked).errors
    before = path.read_bytes()
    done = export_batch("scalemae", [*NEAR, BOX], output=path, **asked)
    assert done.finished_before
    assert path.read_bytes() == before
    beside = {path.name} if name == "v.npz" else {path.name, f"{path.name}.md"}
    assert {file.name for file in tmp_path.iterdir()} == beside


def test_a_table_that_was_cut_is_not_finished(tmp_path: Path, checkpoint: Path) -> None:
    places = [NamedPlace(f"p{n}", PointBuffer(LON + n / 1000, LAT, buffer_m=640)) for n in range(4)]
    out = tmp_path / "v.csv"
    request: dict[str, Any] = {
        "output": out, "backend": "sample", "weights": checkpoint, "input_prep": "tile",
    }  # fmt: skip
    export_batch("scalemae", places, **request)
    assert export_batch("scalemae", places, **request).finished_before
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (whole[: len(whole) // 2], b"".join(lines[:-1])):
        out.write_bytes(cut)
        with pytest.raises(ExportError, match="is not a finished table of embeddings"):
            export_batch("scalemae", places, **request)
    with pytest.raises(SpecError, match=r"got output= for embed_table.*use export_batch"):
        embed_table("scalemae", places, **request)


def test_a_misspelt_argument_is_named_before_the_places(tmp_path: Path) -> None:
    for points in ([(LON, LAT)], tmp_path / "gone.csv"):
        for call in (
            partial(embed_table, "scalemae"),
            partial(export_batch, "scalemae", output=tmp_path / "v.csv"),
            load_model("scalemae", variant="tiny").embed_table,
        ):
            with pytest.raises(UnknownNameError, match=r"'buffer'.*did you mean 'buffer_m'"):
                call(points, buffer=320, backend="sample")


def test_the_command(tmp_path: Path, checkpoint: Path) -> None:
    places = tmp_path / "places.csv"
    places.write_text(f"id,lon,lat\n007,{LON},{LAT}\n008,0,0\n")
    out = tmp_path / "v.parquet"
    command = ["batch", str(places), "-o", str(out), "--buffer-m", "640", "--backend", "sample",
               "--weights", str(checkpoint), "--input-prep", "tile", "--dtype", "int8"]  # fmt: skip
    assert CliRunner().invoke(app, command).exit_code == 1
    assert geopandas.read_parquet(out).error.notna().sum() == 1
    places.write_text(f"id,lon,lat\n007,{LON},{LAT}\n")
    assert CliRunner().invoke(app, command).exit_code == 0
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.output.splitlines()[-1][:16]) == (0, "already finished")
    refused = CliRunner().invoke(app, [*command[:-1], "float16", "--order", "input"])
    assert refused.exit_code == 1
    assert (
        'table.dtype was "int8", is now "float16"; table.order was "hilbert", is now "input"'
        in (str(refused.exception))
    )


def _text(path: Path) -> None:
    path.write_text("notes")


def _half(path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])


def _foreign(path: Path) -> None:
    geopandas.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326).to_parquet(path)


FOREIGN = "exists already and is not a finished table of embeddings .*overwrite=True"
REFUSED: dict[str, tuple[str, Callable[[Path], None] | None, dict[str, Any], str]] = {
    "text": ("v.parquet", _text, {}, FOREIGN),
    "half a file": ("v.parquet", _half, {}, FOREIGN),
    "a file of GeoPandas": ("v.parquet", _foreign, {}, FOREIGN),
    "another CSV": ("v.csv", _text, {}, FOREIGN),
    "another card": ("v.parquet.md", _text, {}, "the model card of the table: there is another"),
    "another item": ("v.parquet.json", _text, {}, "the STAC Item of the table: there is another"),
    "a folder": ("v.parquet", Path.mkdir, {}, "it is a folder"),
    "no such folder": ("no/v.parquet", None, {}, "there is no folder"),
    "types of a .npz": ("v.npz", None, {"dtype": "int8"}, "dtype='int8' for NumPy archive, which"),
    "order of a .csv": ("v.csv", None, {"order": "hilbert"}, "order='hilbert' for CSV of emb.*"),
    "an unknown type": ("v.parquet", None, {"dtype": "float8"}, "unknown dtype 'float8'.*float16"),
    "another suffix": ("v.parquett", None, {}, "file type of many vectors.*did you mean '.parq"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_there_is_not_replaced(tmp_path: Path, asked: dict[str, Any], name: str) -> None:
    file, make, given, match = REFUSED[name]
    path = tmp_path / file
    if make is not None:
        make(path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    output = tmp_path / "v.parquet" if file.startswith("v.parquet.") else path
    with pytest.raises((ExportError, SpecError), match=match):
        export_batch("scalemae", NEAR, output=output, **given, **asked)
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    if match is FOREIGN:  # the fix works
        export_batch("scalemae", NEAR, output=output, overwrite=True, **given, **asked)
        assert len(load_export(output)) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder(tmp_path: Path, asked: dict[str, Any]) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="is read-only"):
        export_batch("scalemae", NEAR, output=tmp_path / "v.parquet", **asked)


@pytest.mark.parametrize(
    ("name", "make"),
    [("v.parquet", _text), ("v.parquet", _half), ("v.parquet", _foreign), ("v.parquet", None),
     ("v.csv", _text), ("v.npz", _text), ("v.npz.partial", _text), ("v.csv.partial", Path.touch)],
)  # fmt: skip
def test_other_files_are_not_read(
    tmp_path: Path, name: str, make: Callable[[Path], None] | None
) -> None:
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(ExportError, match=re.escape(name)):
        load_export(tmp_path / name)


@pytest.mark.parametrize("name", ["v.parquet", "v.npz"])
def test_an_unfinished_run_is_read_too(tmp_path: Path, asked: dict[str, Any], name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ProviderError, match="place 'far'"):
        export_batch("scalemae", [*NEAR[:2], BOX, FAR, NEAR[2]], output=path, on_error="raise",
                     **asked)  # fmt: skip
    for given in (path, f"{path}.partial"):
        with pytest.warns(RsEmbedWarning, match=r"v\.\w+\.partial is unfinished: 4 places, 1 miss"):
            table = load_export(given)
        assert (table.ids, table.missing) == (["000", "001", "box", "002"], 1)
    alone = embed_table("scalemae", [*NEAR[:2], BOX, NEAR[2]], **asked)
    assert np.abs(table.embeddings - alone.embeddings).max() <= 1e-5
    assert_frame_equal(table.frame, alone.frame)
    assert "1 missing" in repr(table)
    centres = [shapely.Point(*place.spatial.centre) for place in [NEAR[1], FAR, NEAR[0]]]
    columns = {"id": ["001", "far", "000"], "crop": ["maize", "wheat", "oats"]}
    mine = geopandas.GeoDataFrame(columns, geometry=centres, crs=4326)
    with pytest.warns(RsEmbedWarning, match="unfinished: 2 places, 1 missing"):
        table = load_export(path, places=places_of(mine, buffer_m=640))
    assert (table.ids, table.frame.crop.tolist()) == (["001", "000"], ["maize", "oats"])
    assert np.abs(table.embeddings - alone.embeddings[[1, 0]]).max() <= 1e-5
    with pytest.warns(RsEmbedWarning, match="0 places, 3 missing"):  # they have another size
        assert len(load_export(path, places=places_of(mine, buffer_m=641))) == 0
    assert export_batch("scalemae", NEAR, output=path, **asked).resumed == 3


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on file sizes fails a write where a full disk does, in the operating system."""
    code = f"""if True:
        import resource, signal
        from pathlib import Path
        from tests.test_field_tables_out import full_disk
        full_disk(Path({str(tmp_path)!r}))
    """
    done = completed("-c", code, env=python_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cannot write") == done.stdout.count("File too large") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "v.csv", "v.csv.md", "v.parquet", "v.parquet.md"
    ]  # fmt: skip


def full_disk(folder: Path) -> None:
    """Write tables, and again where there is room for nothing."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for name in ("v.parquet", "v.csv"):
        write(folder / name, points(), made(), "float32", "input")
        before = (folder / name).read_bytes()
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, most))
        try:
            write(folder / name, points(), made([], 5000), "float32", "input")
        except ExportError as exc:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            sys.stdout.write(f"{exc}\n")
        assert (folder / name).read_bytes() == before


# --- times, the STAC Item and the model card -----------------------------------------------


def test_times_and_what_is_beside(coordinate_model: object, dated: Path, tmp_path: Path) -> None:
    to_geographic = geopandas.GeoSeries.from_xy([400640, 402000], [5199360] * 2, crs=32633)
    named = [
        NamedPlace(f"p{n}", PointBuffer(point.x, point.y, 160))
        for n, point in enumerate(to_geographic.to_crs(4326))
    ]
    out = tmp_path / "v.parquet"
    with pytest.warns(RsEmbedWarning):
        export_batch("coordinates", named, output=out, backend=LocalProvider(dated), dtype="int8")
    frame = geopandas.read_parquet(out)
    day = pd.Timestamp("2022-07-04", tz="UTC")
    for name in ("start", "end", "datetime"):
        assert (frame[name] == day).all()
    assert [list(ids) for ids in frame.item_ids] == [["S2_20220704.tif"]] * 2
    item = pystac.Item.from_file(out.with_name("v.parquet.json"))
    JsonSchemaSTACValidator().validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
    assert item.datetime == day
    assert Path(item.assets["embeddings"].get_absolute_href() or "") == out
    np.testing.assert_allclose(item.bbox or [], frame.total_bounds)
    assert item.properties["emb:quantization"]["quantized_dtype"] == "int8"
    card = out.with_name("v.parquet.md").read_text()
    assert "# Embeddings of 2 places" in card
    assert "- licence of the weights: not stated" in card
    emb = json.loads(pq.read_schema(out).metadata[b"emb"])
    assert emb["request"]["table"]["dtype"] == "int8"
    assert emb == json.loads(card.split("\n---\n")[0].removeprefix("---\nemb: "))


@pytest.mark.parametrize(
    ("shapes", "crs", "right"),
    [
        ([(179.5, -17), (-179.5, -16), (178, -18)], 4326, (178, -18, -179.5, -16)),
        ([(190, -17), (170, -16)], 4326, (170, -17, -170, -16)),
        ([(10, 50), (-10, 40)], 4326, (-10, 40, 10, 50)),
        ([shapely.box(179.9, 10, 180.1, 10.1)], 32601, (179.9, 10, -179.9, 10.1)),
        ([shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])],
         4326, (179, 0, -179, 1)),
    ],
    ids=["points", "0..360", "Greenwich", "projected", "cut"],
)  # fmt: skip
def test_the_footprint_is_the_narrowest(
    tmp_path: Path, shapes: list[Any], crs: int, right: tuple[float, ...]
) -> None:
    """Across the antimeridian as in RFC 7946, sections 3.1.9 and 5.2."""
    shapes = [shapely.Point(*s) if isinstance(s, tuple) else s for s in shapes]
    frame = geopandas.GeoDataFrame({"id": range(len(shapes))}, geometry=shapes, crs=4326)
    meta = {"model": "scalemae", "temporal": {"start": "2022-06-01", "end": "2022-07-01"}}
    done = JournalResult("", np.zeros(3, np.float32), meta)
    write(tmp_path / "v.parquet", frame.to_crs(crs), [done] * len(shapes), "float32", "input")
    item = pystac.Item.from_file(tmp_path / "v.parquet.json")
    JsonSchemaSTACValidator().validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
    np.testing.assert_allclose(item.bbox or [], right, atol=2e-3)
    outline = shapely.geometry.shape(item.geometry)
    west, south, east, north = right
    assert outline.is_valid
    assert outline.area == pytest.approx((east - west) % 360 * (north - south), rel=0.05)
    assert outline.bounds[0] >= -180
    assert outline.bounds[2] <= 180


# --- in memory -----------------------------------------------------------------------------


def test_a_geodataframe_in_and_out(asked: dict[str, Any]) -> None:
    spatials = [place.spatial for place in [*NEAR, FAR]]
    results = get_embeddings_batch("scalemae", spatials=spatials, on_error="return", **asked)
    frame = geopandas.GeoDataFrame(
        {"crop": list("abcd"), "error": 1}, geometry=[shapely.Point(*s.centre) for s in spatials],
        crs=4326, index=list("wxxz"),
    )  # fmt: skip
    table = EmbeddingTable.of(frame, list("wxyz"), results)
    back = table.to_geodataframe()
    assert_frame_equal(back[frame.columns], frame)
    assert back.index.tolist() == list("wxxz")
    assert back.embedding["z"] is None
    assert (back.embedding.iloc[1] == results[1].data).all()  # type: ignore[union-attr]
    assert list(table.errors) == ["z"]
    assert back.emb_error.notna().tolist() == [False] * 3 + [True]
    plain = table.to_pandas()
    assert "geometry" not in plain
    assert plain.crop.tolist() == list("abcd")
    assert plain.filter(like="embedding_").shape == table.embeddings.shape == (4, 48)
    assert len(repr(table).splitlines()) <= 10


# Name -> places, ids that are used, what is told of them.
ODD: dict[str, tuple[geopandas.GeoDataFrame, list[Any], str]] = {
    "repeated ids": (points(id=["a"] * COUNT), list(range(COUNT)), "have the id of an earlier one"),
    "missing ids": (points(id=["a"] * 6 + [None]), list(range(COUNT)), "row 6 has no id"),
    "decimal ids": (points(id=np.arange(COUNT) + 0.5), [f"{n}.5" for n in range(COUNT)], "decimal"),
    "names of ours": (points(id=range(COUNT), error=5, meta="x"), list(range(COUNT)),
                      "columns meta, error of their own, so .* are emb_meta, emb_error"),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "ids", "match"), ODD.values(), ids=ODD)
def test_what_is_odd_about_places_is_told_and_kept(
    asked: dict[str, Any], tmp_path: Path, frame: geopandas.GeoDataFrame, ids: list[Any],
    match: str,
) -> None:  # fmt: skip
    """In a warning, in the report, and in the meta of the table; and the columns are unchanged."""
    near = frame.set_geometry([shapely.Point(*place.spatial.centre) for place in NEAR] * 2 + [None])
    near = near.fillna({"geometry": shapely.Point(LON, LAT)})
    near = near.set_crs(4326, allow_override=True)
    path, given = tmp_path / "v.parquet", {"buffer_m": 640, **asked}
    with pytest.warns(RsEmbedWarning, match=match):
        report = export_batch("scalemae", near, output=path, **given)
    with pytest.warns(RsEmbedWarning, match=match):
        held = embed_table("scalemae", near, **given)
    (told,) = report.warnings
    assert re.search(match, told)
    assert report.to_json()["warnings"] == [told]
    back = load_export(path)
    for table in (back, held):
        assert table.meta["place_warnings"] == [told]
        assert table.frame[list(near)].equals(near)
        assert [str(name) for name in table.ids] == [str(name) for name in ids]


def test_failures_in_memory_are_told(asked: dict[str, Any]) -> None:
    with pytest.warns(RsEmbedWarning, match=r"1 of 2 places failed: far; see \.errors"):
        table = embed_table("scalemae", [NEAR[0], FAR], **asked)
    assert list(table.errors) == ["far"]
    with pytest.raises(ProviderError, match="outside the imagery"):
        embed_table("scalemae", [NEAR[0], FAR], on_error="raise", **asked)
