"""Many places on the command line: counted, kept through every end, refused before any work."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
from shapely.geometry import Point, box
from typer.testing import CliRunner, Result

from rs_embed import OutputSpec, PointBuffer, get_embedding, load_export
from rs_embed.cli import app
from rs_embed.errors import ExportError
from rs_embed.files.vectors import read_vectors
from rs_embed.providers.sample import CENTRE
from rs_embed.runs.journal import Journal
from tests.conftest import python_environment
from tests.processes import WAIT_S, errors_of, running
from tests.test_batches import SLOW

LON, LAT = CENTRE
OPTIONS = ["--backend", "sample", "--input-prep", "tile"]
COUNT = 20
CODE = "from rs_embed.cli import main; main()"


def write_places(path: Path, count: int = 3, *rows: str) -> Path:
    near = [f"p{i},{LON + 0.0004 * i:.5f},{LAT}" for i in range(count)]
    path.write_text("\n".join(["id,lon,lat", *near, *rows]) + "\n")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npz"


@pytest.fixture
def batch(checkpoint: Path, out: Path) -> Callable[..., Result]:
    """Return a function that runs the command on a file of places."""

    def run(places: Path, *args: str) -> Result:
        common = ["-o", str(out), "--weights", str(checkpoint), *OPTIONS]
        buffer = [] if places.suffix == ".geojson" else ["--buffer-m", "640"]
        return CliRunner().invoke(app, ["batch", str(places), *common, *buffer, *args])

    return run


def test_a_table_becomes_one_file(
    batch: Callable[..., Result], tmp_path: Path, checkpoint: Path, out: Path
) -> None:
    done = batch(write_places(tmp_path / "places.csv"), "--pooling", "max")
    assert done.exit_code == 0, done.output
    assert re.search(rf"wrote {re.escape(str(out))}: 3 of 3 places; [\d.]+ places/s", done.output)
    vectors = read_vectors(out)
    assert list(vectors.id) == ["p0", "p1", "p2"]
    assert vectors.ok.all()
    assert vectors.lat == pytest.approx([LAT] * 3)
    alone = get_embedding(
        "scalemae", spatial=PointBuffer(round(LON + 0.0004, 5), LAT, 640), backend="sample",
        weights=checkpoint, input_prep="tile", output=OutputSpec.pooled("max"),
    )  # fmt: skip
    assert np.abs(vectors.embedding[1] - alone.data).max() <= 1e-5
    assert json.loads(vectors.meta[1])["fingerprint"] == alone.meta["fingerprint"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["places.csv", "vectors.npz"]


def test_features_one_of_them_outside(
    batch: Callable[..., Result], tmp_path: Path, out: Path
) -> None:
    def square(name: str, lon: float) -> dict[str, Any]:
        ring = [[lon, LAT], [lon + 0.01, LAT], [lon + 0.01, LAT + 0.01], [lon, LAT]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        return {"type": "Feature", "id": name, "properties": None, "geometry": geometry}

    features = [square("far", 10), square("bay", LON)]
    places = tmp_path / "places.geojson"
    places.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    done = batch(places)
    assert done.exit_code == 1
    assert "1 of 2 places, 1 failed (rows of NaN); " in done.output
    assert "failed far: the requested place" in done.output
    vectors = read_vectors(out)
    assert list(vectors.ok) == [False, True]
    assert np.isnan(vectors.embedding[0]).all()
    assert np.isfinite(vectors.embedding[1]).all()
    assert "is outside the imagery" in vectors.error[0]
    report = json.loads(batch(places, "--json").stdout)
    assert (report["places"], report["failed"], report["resumed"]) == (2, 1, 1)  # tried again
    assert report["file"] == str(out)
    assert "is outside" in report["errors"]["far"]


def test_windows_of_one_file(
    checkpoint: Path, tmp_path: Path, out: Path, write_scene: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(5)
    scene = write_scene(rng.integers(200, 3000, (3, 96, 96), dtype=np.uint16))
    places = tmp_path / "places.csv"
    places.write_text("lon,lat,buffer_m\n13.6895,46.9430,160\n13.6900,46.9430,160\n")
    done = CliRunner().invoke(app, ["batch", str(places), "-o", str(out), "--imagery", str(scene),
                                    "--weights", str(checkpoint), *OPTIONS[2:]])  # fmt: skip
    assert done.exit_code == 0, done.output
    vectors = read_vectors(out)
    assert list(vectors.id) == ["0", "1"]
    assert json.loads(vectors.meta[0])["backend"] == "imagery"


def test_the_first_error_can_end_it(
    batch: Callable[..., Result], tmp_path: Path, out: Path
) -> None:
    places = write_places(tmp_path / "places.csv", 3, "far,0,0", f"last,{LON},{LAT}")
    done = batch(places, "--on-error", "raise")
    assert done.exit_code == 1
    assert str(done.exception).startswith("place 'far': the requested place")
    assert "stopped: 4 of 5 places are kept; run it again to continue" in done.output
    assert not out.exists()
    done = batch(places)
    assert "resuming: 4 of 5 places are done" in done.output
    assert "4 of 5 places, 1 failed (rows of NaN), 4 done before" in done.output


def test_a_request_that_cannot_be_meant_leaves_nothing(
    batch: Callable[..., Result], tmp_path: Path
) -> None:
    places = write_places(tmp_path / "places.csv")
    for wrong in (["--display", "visaul"], ["--on-error", "skip"], ["--weights", "gone.bin"]):
        done = batch(places, *wrong)
        assert done.exit_code == 1
        assert [p.name for p in tmp_path.iterdir()] == ["places.csv"]


def test_an_unwritable_place_is_refused_before_any_work(
    batch: Callable[..., Result], out: Path
) -> None:
    out.mkdir()
    done = batch(Path("gone.csv"))
    assert isinstance(done.exception, ExportError)
    assert "it is a folder" in str(done.exception)


@pytest.fixture
def slow_command(
    checkpoint: Path, install: Callable[..., Path], tmp_path: Path, out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:  # fmt: skip
    """Arguments of a command that never comes to an end in a process with ``PAUSED``."""
    install(
        "slowness", "[rs_embed.providers]\nslow = slowness:Slow\n",
        slowness=SLOW.format(seconds="600 if 'PAUSED' in __import__('os').environ "
                                     f"and self.reads > {COUNT // 2} else 0"),
    )  # fmt: skip
    monkeypatch.delitem(sys.modules, "slowness", raising=False)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_FETCH_WORKERS", "1")
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "1")
    places = write_places(tmp_path / "places.csv", COUNT)
    return [
        "batch", str(places), "-o", str(out), "--buffer-m", "640", "--weights", str(checkpoint),
        "--backend", "slow", "--input-prep", "tile",
    ]  # fmt: skip


def begun(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until some places are kept."""
    partial = out.with_name(f"{out.name}.partial")
    while not partial.exists() or partial.stat().st_size < 30_000:
        assert process.poll() is None, errors_of(process)
        time.sleep(0.05)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_it_goes_on_where_it_was_ended(
    slow_command: list[str], out: Path, end: signal.Signals
) -> None:
    own = {name: value for name, value in os.environ.items() if name.startswith("RS_EMBED_")}
    paused = python_environment(PAUSED="1", **own)
    with running("-c", CODE, *slow_command, env=paused) as process:
        begun(process, out)
        process.send_signal(end)
        _, err = process.communicate(timeout=WAIT_S)
    assert not out.exists()
    if end == signal.SIGINT:
        assert process.returncode == 130
        (line,) = err.splitlines()
        kept = re.fullmatch(
            rf"interrupted: (\d+) of {COUNT} places (?:is|are) kept; run it again to continue", line
        )
        assert kept
        assert 0 < int(kept[1]) < COUNT

    if end == signal.SIGINT:
        other = CliRunner().invoke(app, [*slow_command, "--display", "visual"])
        assert other.exit_code == 1
        assert (
            'was started with another request (options.display was "reflectance", is now "visual")'
            in str(other.exception)
        )
        assert "--overwrite" in str(other.exception)

    again = CliRunner().invoke(app, [*slow_command, "--json"])
    assert again.exit_code == 0, again.output
    report = json.loads(again.stdout)
    assert re.fullmatch(
        rf"resuming: {report['resumed']} of {COUNT} places (is|are) done\n", again.stderr
    )
    assert 0 < report["resumed"] < COUNT
    if end == signal.SIGINT:
        assert kept
        assert report["resumed"] == int(kept[1])
    vectors = read_vectors(out)
    assert list(vectors.id) == [f"p{i}" for i in range(COUNT)]
    assert vectors.ok.all()
    assert not out.with_name(f"{out.name}.partial").exists()


def test_a_finished_file_is_not_replaced_unasked(
    batch: Callable[..., Result], tmp_path: Path, out: Path
) -> None:
    places = write_places(tmp_path / "places.csv", 2)
    assert batch(places).exit_code == 0
    before = out.read_bytes()
    done = batch(places)
    assert (done.exit_code, done.output.splitlines()[-1][:16]) == (0, "already finished")
    refused = batch(places, "--pooling", "max")
    assert "exists already and is finished, with another request" in str(refused.exception)
    assert 'pooling was "mean", is now "max"' in str(refused.exception)
    assert out.read_bytes() == before
    assert batch(places, "--pooling", "max", "--overwrite").exit_code == 0
    assert out.read_bytes() != before


def test_places_that_fail_alike_are_named_together(
    batch: Callable[..., Result], tmp_path: Path
) -> None:
    places = tmp_path / "places.csv"
    places.write_text("id,lon,lat,buffer_m\na,0,0,50\nb,1,1,50\nc,2,2,50\nd,3,3,50\n")
    done = batch(places)
    assert "4 failed (rows of NaN)" in done.output
    assert done.output.count("failed a, b, c and 1 more: the place is 10 x 10 px") == 1
    assert done.output.count("the place is 10 x 10 px") == 1


L_SHAPE = box(LON, LAT, LON + 0.02, LAT + 0.01).difference(
    box(LON + 0.01, LAT + 0.005, LON + 0.02, LAT + 0.01)
)
# Name -> options, ids, and what is true of the schema and the rows of the file.
OPTIONS_OF_TABLES: dict[str, tuple[list[str], list[Any], Callable[[Any, Any], bool]]] = {
    "first layer": (["--layer", "fields"], ["l", "far"], lambda schema, rows: True),
    "other layer": (["--layer", "plots", "--buffer-m", "640"], [1], lambda schema, rows: True),
    "id column": (["--layer", "fields", "--id-column", "code"], [7, 3],
                  lambda schema, rows: rows["id"].tolist() == ["l", "far"]),
    "covered": (["--layer", "fields", "--polygons", "cover"], ["l", "far"],
                lambda schema, rows: "covered" in rows["meta"][0]),
    "boxes": (["--layer", "fields", "--polygons", "box"], ["l", "far"],
              lambda schema, rows: "covered" not in rows["meta"][0]),
    "float16": (["--layer", "fields", "--dtype", "float16"], ["l", "far"],
                lambda schema, rows: "halffloat" in str(schema.field("embedding").type)),
    "int8": (["--layer", "fields", "--dtype", "int8"], ["l", "far"],
             lambda schema, rows: np.abs(rows["embedding"][0]).max() == 127),
    "input order": (["--layer", "fields", "--order", "input"], ["l", "far"],
                    lambda schema, rows: rows["input_row"].tolist() == [0, 1]),
    "hilbert order": (["--layer", "fields", "--order", "hilbert"], ["l", "far"],
                      lambda schema, rows: sorted(rows["input_row"]) == [0, 1]),
}  # fmt: skip
WRONG_OPTIONS: list[tuple[list[str], str]] = [
    ([], "holds the layers fields, plots, expected one"),
    (["--layer", "field"], "unknown layer.*'field'.*did you mean 'fields'"),
    (["--layer", "fields", "--id-column", "cod"], "unknown id column.*'cod'.*did you mean 'code'"),
    (["--layer", "fields", "--polygons", "covers"], "unknown polygons 'covers'.*'cover'"),
    (["--layer", "fields", "--dtype", "float64"], "unknown dtype 'float64'"),
    (["--layer", "fields", "--order", "Hilbert"], "unknown order 'Hilbert'.*'hilbert'"),
]


@pytest.fixture
def tabled(tmp_path: Path, checkpoint: Path) -> Callable[..., Result]:
    """Return a function that runs the command on a GeoPackage of two layers."""
    far = box(*(edge + 0.02 for edge in L_SHAPE.bounds))
    fields = {"id": ["l", "far"], "code": [7, 3]}
    for name, rows in {
        "fields": gpd.GeoDataFrame(fields, geometry=[L_SHAPE, far], crs=4326).to_crs(32618),
        "plots": gpd.GeoDataFrame({"n": [5]}, geometry=[Point(LON, LAT)], crs=4326),
    }.items():
        rows.to_file(tmp_path / "places.gpkg", layer=name)
    common = [str(tmp_path / "places.gpkg"), "-o", str(tmp_path / "v.parquet"), *OPTIONS]
    run = CliRunner().invoke
    return lambda *more: run(app, ["batch", *common, "--weights", str(checkpoint), *more])


@pytest.mark.filterwarnings("ignore::rs_embed.CoverageWarning")
@pytest.mark.parametrize(
    ("options", "ids", "right"), OPTIONS_OF_TABLES.values(), ids=OPTIONS_OF_TABLES
)
def test_options_of_tables(
    tabled: Callable[..., Result], tmp_path: Path, options: list[str], ids: list[Any], right: Any
) -> None:
    done = tabled(*options)
    assert done.exit_code == 0, done.output
    assert load_export(tmp_path / "v.parquet").ids == ids
    schema = pq.read_schema(tmp_path / "v.parquet")
    assert right(schema, gpd.read_parquet(tmp_path / "v.parquet"))


@pytest.mark.parametrize(("options", "match"), WRONG_OPTIONS, ids=lambda value: str(value)[:40])
def test_options_of_tables_that_are_refused(
    tabled: Callable[..., Result], tmp_path: Path, options: list[str], match: str
) -> None:
    done = tabled(*options)
    assert done.exit_code == 1
    assert re.search(match, str(done.exception)), done.exception
    assert [path.name for path in tmp_path.iterdir()] == ["places.gpkg"]


def test_overwrite_begins_anew(batch: Callable[..., Result], tmp_path: Path, out: Path) -> None:
    places = write_places(tmp_path / "places.csv", 3, "far,0,0")
    batch(places, "--on-error", "raise")
    done = batch(places, "--on-error", "raise", "--display", "visual")
    assert "was started with another request" in str(done.exception)
    done = batch(places, "--display", "visual", "--overwrite")
    assert "3 of 4 places, 1 failed (rows of NaN); " in done.output
    assert json.loads(read_vectors(out).meta[0])["display"] == "visual"
    assert batch(places, "--overwrite").exit_code == 1  # with nothing kept it is as without
    assert json.loads(read_vectors(out).meta[0])["display"] == "reflectance"


def test_overwrite_spares_what_is_in_use(
    batch: Callable[..., Result], tmp_path: Path, out: Path
) -> None:
    partial = out.with_name(f"{out.name}.partial")
    with Journal(partial, "{}"):
        done = batch(write_places(tmp_path / "places.csv"), "--overwrite")
        assert "is in use by another process" in str(done.exception)
    partial.write_text("no journal at all")
    assert "is not a journal" in str(batch(tmp_path / "places.csv").exception)
    assert batch(tmp_path / "places.csv", "--overwrite").exit_code == 0


@pytest.mark.filterwarnings("ignore::rs_embed.RsEmbedWarning")
@pytest.mark.parametrize("command", ["embed", "inspect", "batch", "map"])
def test_every_interrupted_command_exits_with_130(
    checkpoint: Path, install: Callable[..., Path], tmp_path: Path, out: Path, command: str
) -> None:
    install(
        "interruption", "[rs_embed.providers]\nstopped = interruption:Stopped\n",
        interruption="""
        from rs_embed.providers.sample import SampleProvider

        class Stopped(SampleProvider):
            name = "stopped"

            def fetch(self, grid, **asked):
                raise KeyboardInterrupt
        """,
    )  # fmt: skip
    point = ["--lon", str(LON), "--lat", str(LAT)]
    place = [str(write_places(tmp_path / "places.csv"))] if command == "batch" else point
    target = {"batch": out, "map": out.with_suffix(".tif")}
    written = ["-o", str(target[command])] if command in target else []
    done = CliRunner().invoke(app, [command, *place, "--buffer-m", "640", "--backend", "stopped",
                                    "--weights", str(checkpoint), *written])  # fmt: skip
    assert done.exit_code == 130, done.output
    assert done.stdout == ""
    assert "Abort" not in done.stderr
    assert not target.get(command, out).exists()
    assert logging.getLogger("rs_embed.runs").handlers == []
