"""Everyday values: what people write for a place, a period, an output; taken, or refused by name.

A row is a situation: its name, what is written, and what it means or what the refusal says.
"""

from __future__ import annotations

import base64
import io
import json
import re
import warnings
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray
import shapely
import torch
from PIL import Image
from rasterio.io import MemoryFile
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from typer.testing import CliRunner

import rs_embed
from rs_embed import (
    BBox,
    Embedding,
    FetchSpec,
    LocalProvider,
    PointBuffer,
    StacProvider,
    TemporalSpec,
    embed_area,
    estimate,
    export_batch,
    get_embedding,
    get_embeddings_batch,
    inspect_input,
    load_export,
    open_map,
)
from rs_embed.cli import app
from rs_embed.cli.wording import as_options
from rs_embed.errors import (
    CheckpointError,
    GsdWarning,
    ImageryError,
    ImageryWarning,
    ProviderError,
    SpecError,
    UnknownNameError,
)
from rs_embed.testing.providers import write_contract_scenes
from tests.processes import completed
from tests.stac_server import StacServer

# UTM zone 33N, 10 m; the middle of the scene in longitude and latitude, by pyproj.
LEFT, TOP, SIDE = 500000, 5200000, 128
BOX = (15.001, 46.945, 15.009, 46.950)
POINT = (15.005, 46.948)
BANDS = ("B4", "B3", "B2")
MODEL: dict[str, Any] = {"variant": "tiny"}
THERE: dict[str, Any] = {"spatial": BOX, "temporal": 2022}
JUNE_TO_AUGUST = ("2022-06-01", "2022-09-01")

pytestmark = pytest.mark.filterwarnings(
    "ignore::rs_embed.errors.CoverageWarning",
    "ignore::rs_embed.errors.GsdWarning",
    "ignore:cloudy_pct=30 was not applied:rs_embed.errors.ImageryWarning",
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with scenes of three days."""
    home = tmp_path_factory.mktemp("scenes")
    values = np.random.default_rng(0).integers(200, 2500, (3, SIDE, SIDE), dtype=np.uint16)
    for day in ("20220615", "20211205", "20200210"):
        with rasterio.open(
            home / f"scene_{day}.tif", "w", driver="GTiff", width=SIDE, height=SIDE, count=3,
            dtype="uint16", crs="EPSG:32633", transform=from_origin(LEFT, TOP, 10, 10), nodata=0,
        ) as file:  # fmt: skip
            file.write(values)
            file.descriptions = BANDS
    return home


def inspected(folder: Path, **given: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"spatial": BOX, "backend": folder, **MODEL, **given}
    return inspect_input("scalemae", **request).meta


PERIODS: dict[str, tuple[Any, tuple[str, str]]] = {
    "text of two days": ("2022-06-01/2022-09-01", JUNE_TO_AUGUST),
    "text of two days with blanks": ("2022-06-01 / 2022-09-01", JUNE_TO_AUGUST),
    "STAC's interval at midnight": ("2022-06-01T00:00:00Z/2022-09-01T00:00:00Z", JUNE_TO_AUGUST),
    "month": ("2022-06", ("2022-06-01", "2022-07-01")),
    "December": ("2021-12", ("2021-12-01", "2022-01-01")),
    "February of a leap year": ("2020-02", ("2020-02-01", "2020-03-01")),
    "year": (2022, ("2022-01-01", "2023-01-01")),
    "year as text": ("2022", ("2022-01-01", "2023-01-01")),
    "year of NumPy": (np.int64(2022), ("2022-01-01", "2023-01-01")),
    "year as datetime64": (np.datetime64("2022"), ("2022-01-01", "2023-01-01")),
    "month as datetime64": (np.datetime64("2022-06"), ("2022-06-01", "2022-07-01")),
    "day": ("2022-06-15", ("2022-06-15", "2022-06-16")),
    "date": (date(2022, 6, 15), ("2022-06-15", "2022-06-16")),
    "midnight": (datetime(2022, 6, 15), ("2022-06-15", "2022-06-16")),
    "pair of texts": (JUNE_TO_AUGUST, JUNE_TO_AUGUST),
    "list of two": (list(JUNE_TO_AUGUST), JUNE_TO_AUGUST),
    "pair of dates": ((date(2022, 6, 1), date(2022, 9, 1)), JUNE_TO_AUGUST),
    "pair in UTC": (
        (datetime(2022, 6, 1, tzinfo=UTC), datetime(2022, 9, 1, tzinfo=UTC)), JUNE_TO_AUGUST,
    ),
    "pair of datetime64": (tuple(map(np.datetime64, JUNE_TO_AUGUST)), JUNE_TO_AUGUST),
    "pair of nanoseconds": (
        tuple(np.datetime64(day, "ns") for day in JUNE_TO_AUGUST), JUNE_TO_AUGUST,
    ),
    "pair of Timestamps": (tuple(map(pd.Timestamp, JUNE_TO_AUGUST)), JUNE_TO_AUGUST),
    "slice": (slice(*JUNE_TO_AUGUST), JUNE_TO_AUGUST),
    "specification": (TemporalSpec.range(*JUNE_TO_AUGUST), JUNE_TO_AUGUST),
}  # fmt: skip


@pytest.mark.parametrize("name", PERIODS)
def test_periods(folder: Path, name: str) -> None:
    written, (start, end) = PERIODS[name]
    meta = inspected(folder, temporal=written)
    assert meta["temporal"] == {"start": start, "end": end}


NOT_PERIODS: dict[str, tuple[Any, str]] = {
    "day and month": ("06/07/2022", "did you mean '2022-06-07' or '2022-07-06'"),
    "only one reading": ("13.07.2022", r"did you mean '2022-07-13'\?"),
    "no year": ("22-06-01", "expected a calendar day as 'YYYY-MM-DD'"),
    "time of day": ("2022-06-01T10:30", "periods are whole days; state the day '2022-06-01'"),
    "datetime with a time": (datetime(2022, 6, 1, 10), "periods are whole days"),
    "datetime64 with a time": (np.datetime64("2022-06-01T10"), "periods are whole days"),
    "another zone": ("2022-06-01T00:00+02:00", "another time zone than UTC"),
    "naive and aware": (
        (datetime(2022, 6, 1), datetime(2022, 9, 1, tzinfo=UTC)),
        "one time with and one without a time zone",
    ),
    "month as an end": (
        "2022-06-01/2022-09", "it may mean up to 2022-09-01, or all of it: state the day after",
    ),
    "open interval": ("2022-06-01/..", r"got end='\.\.'"),
    "not a time": (pd.NaT, "expected a day"),
    "last day of the calendar": ("9999-12-31", "expected a year"),
    "year 0": ("0000-06", "expected a year"),
    "13th month": ("2022-13", "got temporal='2022-13' .str., expected a year"),
    "three days": (("2022-06-01",) * 3, "expected a year .2022., a month"),
    "number that is not whole": (2022.5, "expected a year"),
    "day as a number": (20220601, "expected a whole number from 1 to 9998"),
    "stepped slice": (slice("2022-06-01", "2022-09-01", 2), "expected a year"),
    "swapped": (("2022-09-01", "2022-06-01"), "expected start < end"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PERIODS)
def test_not_periods(folder: Path, name: str) -> None:
    written, refusal = NOT_PERIODS[name]
    with pytest.raises(SpecError, match=refusal):
        inspected(folder, temporal=written)


SQUARE = PointBuffer(*POINT, 320)
PLACES: dict[str, tuple[dict[str, Any], Any]] = {
    "tuple of four": ({"spatial": BOX}, BBox(*BOX)),
    "list of four": ({"spatial": list(BOX)}, BBox(*BOX)),
    "array of four": ({"spatial": np.array(BOX)}, BBox(*BOX)),
    "bounds of shapely": ({"spatial": shapely.box(*BOX).bounds}, BBox(*BOX)),
    "bounds of rasterio": ({"spatial": rasterio.coords.BoundingBox(*BOX)}, BBox(*BOX)),
    "longitudes in 0..360": ({"spatial": (360 + BOX[0], BOX[1], 360 + BOX[2], BOX[3])}, BBox(*BOX)),
    "pair": ({"spatial": POINT, "buffer_m": 320}, SQUARE),
    "point of shapely": ({"spatial": shapely.Point(POINT), "buffer_m": 320}, SQUARE),
    "GeoJSON point": (
        {"spatial": {"type": "Point", "coordinates": list(POINT)}, "buffer_m": 320}, SQUARE,
    ),
    "polygon of shapely": ({"spatial": shapely.box(*BOX)}, BBox(*BOX)),
    "GeoJSON polygon": ({"spatial": shapely.geometry.mapping(shapely.box(*BOX))}, BBox(*BOX)),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_places(folder: Path, name: str) -> None:
    written, spec = PLACES[name]
    meta = inspected(folder, temporal=2022, **written)
    stated = dict(meta["spatial"])
    assert stated.pop("type") == type(spec).__name__
    assert stated == pytest.approx(vars(spec), abs=1e-9)


NOT_PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "point without size": ({"spatial": POINT}, "point without buffer_m, expected half the side"),
    "shapely point without size": ({"spatial": shapely.Point(POINT)}, "point without buffer_m"),
    "latitude first": (
        {"spatial": (37.6, -105.2, 37.8, -105.0)},
        r"got lat=-105.2.*with latitude first it may be BBox\(minlon=-105.2, minlat=37.6",
    ),
    "edges by axis": ({"spatial": (37.0, 38.0, -76.0, -75.0)}, "expected minlon < maxlon"),
    "metres": ({"spatial": (500000, 5198720, 501280, 5200000)}, "expected degrees"),
    "three numbers": ({"spatial": (1, 2, 3)}, r"got spatial=\(1, 2, 3\).*expected \(lon, lat\)"),
    "box with a size": ({"spatial": BOX, "buffer_m": 320}, "expected .lon, lat. with buffer_m"),
    "BBox with a size": ({"spatial": BBox(*BOX), "buffer_m": 320}, "got buffer_m=320 with"),
    "polygon with a size": ({"spatial": shapely.box(*BOX), "buffer_m": 1}, "leave buffer_m out"),
    "text": ({"spatial": "here"}, r"got spatial='here' \(str\), expected a BBox"),
    "line": ({"spatial": shapely.LineString([POINT, BOX[:2]])}, "LineString"),
}


@pytest.mark.parametrize("name", NOT_PLACES)
def test_not_places(folder: Path, name: str) -> None:
    written, refusal = NOT_PLACES[name]
    with pytest.raises(SpecError, match=refusal):
        inspected(folder, temporal=2022, **written)


def dataset(path: Path) -> Any:
    array: Any = rioxarray.open_rasterio(path)
    return array.assign_coords(band=list(BANDS)).to_dataset(dim="band")


PIXELS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "path": lambda scene: {"imagery": scene},
    "dataset of rasterio": lambda scene: {"imagery": rasterio.open(scene)},
    "Dataset of bands": lambda scene: {"imagery": dataset(scene)},
}


@pytest.mark.parametrize("name", PIXELS)
def test_own_pixels(folder: Path, name: str) -> None:
    scene = folder / "scene_20220615.tif"
    given = PIXELS[name](scene)
    image = inspect_input("scalemae", **given, **MODEL).image
    assert np.array_equal(image, inspect_input("scalemae", imagery=scene, **MODEL).image)


def closed(scene: Path) -> Any:
    with rasterio.open(scene) as file:
        return file


NOT_PIXELS: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "closed dataset": (lambda scene: {"imagery": closed(scene)}, "closed.*expected a dataset open"),
    "file in memory": (
        lambda scene: {"imagery": MemoryFile(scene.read_bytes()).open()}, "open_rasterio",
    ),
    "warped dataset": (
        lambda scene: {"imagery": WarpedVRT(rasterio.open(scene), crs="EPSG:32632")},
        r"rioxarray.open_rasterio\(dataset\)",
    ),
    "no such folder": (
        lambda scene: {"backend": f"{scene.parent}/none", "spatial": BOX}, "does not exist",
    ),
    "no such name": (lambda _: {"backend": "lokal", "spatial": BOX}, "did you mean 'local'"),
    "image as a catalogue": (
        lambda _: {"backend": "https://example.com/a.tif", "spatial": BOX}, "pass it as imagery=",
    ),
    "list of one file twice": (lambda scene: {"imagery": [scene, scene]}, "twice in a list"),
    "list of folders": (
        lambda scene: {"backend": WRONG.LocalProvider([scene.parent])},
        r"LocalProvider\('folder'\)",
    ),
    "both pixel sizes": (
        lambda scene: {"imagery": scene, "scale_m": 10, "fetch": {"scale_m": 10}}, "one of the two",
    ),
    "unknown field": (
        lambda scene: {"imagery": scene, "fetch": {"gsd": 10}}, "did you mean 'scale_m'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PIXELS)
def test_not_pixels(folder: Path, name: str) -> None:
    make, refusal = NOT_PIXELS[name]
    with pytest.raises((SpecError, ProviderError, ImageryError), match=refusal):
        inspect_input("scalemae", **make(folder / "scene_20220615.tif"), **MODEL)


def test_a_warped_dataset_as_the_refusal_says(folder: Path) -> None:
    with (
        rasterio.open(folder / "scene_20220615.tif") as file,
        WarpedVRT(file, crs="EPSG:32632") as warped,
    ):
        array = rioxarray.open_rasterio(warped)
        meta = inspect_input("scalemae", imagery=array, min_valid=0, **MODEL).meta
    assert meta["grid"]["crs"] == "EPSG:32632"


WRONG: Any = rs_embed  # untyped: mypy sees these mistakes too
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "box of a tuple": (
        lambda: WRONG.BBox((1, 2, 3, 4)),
        r"minlon=\.\.\..*did you mean BBox\(\*values",
    ),
    "two of four": (lambda: WRONG.BBox(1, 2), r"expected BBox\(minlon=\.\.\., minlat"),
    "buffer": (lambda: WRONG.PointBuffer(lon=1, lat=2, buffer=3), "did you mean 'buffer_m'"),
    "gsd": (lambda: WRONG.FetchSpec(gsd=10), "did you mean 'scale_m'"),
    "cloud": (lambda: WRONG.FetchSpec(cloud_pct=10), "did you mean 'cloudy_pct'"),
    "one day": (lambda: WRONG.TemporalSpec("2022-06-01"), "missing a required argument: 'end'"),
    "output": (lambda: WRONG.OutputSpec(pool="max"), "did you mean 'pooling'"),
    "tiles": (lambda: WRONG.InputPrepSpec("tile", overlap=32), "did you mean 'overlap_px'"),
    "sensor": (lambda: WRONG.SensorSpec(BANDS), "missing a required argument: 'bands'"),
}


@pytest.mark.parametrize("name", CALLS)
def test_wrong_calls(name: str) -> None:
    call, refusal = CALLS[name]
    with pytest.raises(SpecError, match=refusal):
        call()


OUTPUTS: dict[str, tuple[Any, tuple[str, str | None]]] = {
    "none": (None, ("pooled", "patch_mean")),
    "pooled": ("pooled", ("pooled", "patch_mean")),
    "grid": ("grid", ("grid", None)),
    "mean": ("mean", ("pooled", "patch_mean")),
    "max": ("max", ("pooled", "patch_max")),
    "cls": ("cls", ("pooled", "cls")),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(folder: Path, name: str) -> None:
    written, expected = OUTPUTS[name]
    made = get_embedding(
        "scalemae", spatial=BOX, backend=folder, temporal=2022, output=written,
        device=torch.device("cpu"), **MODEL,
    )  # fmt: skip
    assert (made.meta["output"], made.meta["pooling"]) == expected
    assert made.meta["device"] == "cpu"


@pytest.mark.parametrize(
    ("written", "refusal"),
    [("gird", "unknown output 'gird'.*did you mean 'grid'"), ("out.tif", "Embedding.save"),
     (3, "expected an OutputSpec or one of 'pooled'")],
)  # fmt: skip
def test_not_outputs(folder: Path, written: Any, refusal: str) -> None:
    with pytest.raises(SpecError, match=refusal):
        get_embedding("scalemae", spatial=BOX, backend=folder, output=written, **MODEL)


EVERYDAY: dict[str, Any] = {
    "temporal": "2022-06", "scale_m": 20, "fetch": {"composite": "mosaic"}, **MODEL,
}  # fmt: skip


def meta_of(door: Any, **given: Any) -> dict[str, Any]:
    meta: dict[str, Any] = door("scalemae", **given)[0].meta
    return meta


def of_map(folder: Path, to: Path) -> dict[str, Any]:
    given = {**EVERYDAY, "spatial": POINT, "buffer_m": 640, "backend": str(folder)}
    report = embed_area("scalemae", output=to / "map.zarr", **given)
    meta: dict[str, Any] = json.loads(open_map(report.path).attrs["meta"])
    return meta


def of_table(folder: Path, to: Path) -> dict[str, Any]:
    export_batch("scalemae", [BOX], output=to / "table.npz", backend=folder, **EVERYDAY)
    return load_export(to / "table.npz").meta


DOORS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "get_embedding": lambda folder, _: (
        get_embedding("scalemae", spatial=BOX, backend=folder, **EVERYDAY).meta
    ),
    "inspect_input": lambda folder, _: inspected(folder, **EVERYDAY),
    "get_embeddings_batch": lambda folder, _: (
        meta_of(get_embeddings_batch, spatials=[BOX], backend=str(folder), **EVERYDAY)
    ),
    "one for each": lambda folder, _: (
        meta_of(
            get_embeddings_batch, spatials=[BOX], backend=folder,
            **{**EVERYDAY, "temporal": ["2022-06"], "scale_m": None,
               "fetch": [{"scale_m": 20, "composite": "mosaic"}]},
        )
    ),
    "export_batch": of_table,
    "embed_area": of_map,
}  # fmt: skip


@pytest.mark.parametrize("name", DOORS)
def test_every_door(folder: Path, tmp_path: Path, name: str) -> None:
    meta = DOORS[name](folder, tmp_path)
    assert meta["temporal"] == {"start": "2022-06-01", "end": "2022-07-01"}
    stated = meta.get("sensor") or meta["fetch"]
    assert (stated["scale_m"], stated["composite"]) == (20, "mosaic")


def test_an_estimate_takes_the_same(folder: Path) -> None:
    written = estimate("scalemae", spatials=[BOX], backend=folder, **EVERYDAY)
    spelled = estimate(
        "scalemae", spatials=[BBox(*BOX)], backend=LocalProvider(folder),
        temporal=TemporalSpec.range("2022-06-01", "2022-07-01"),
        fetch=FetchSpec(scale_m=20, composite="mosaic"), **MODEL,
    )  # fmt: skip
    assert written == spelled
    assert written.pixels > 0


def test_two_days_for_two_places_may_be_two_things(folder: Path) -> None:
    with pytest.raises(SpecError, match="a period for both or a day for each; write '2022-06-01/"):
        get_embeddings_batch(
            "scalemae", spatials=[BOX, BOX], backend=folder, temporal=JUNE_TO_AUGUST, **MODEL
        )
    three = get_embeddings_batch(
        "scalemae", spatials=[BOX] * 3, backend=folder, temporal=JUNE_TO_AUGUST, **MODEL
    )
    metas = [embedding.meta for embedding in three if isinstance(embedding, Embedding)]
    assert len(metas) == 3
    assert {meta["temporal"]["end"] for meta in metas} == {"2022-09-01"}


NAMES: dict[str, tuple[str, str]] = {
    "place of rasterio": ("bbox", "'spatial'"),
    "bounds": ("bounds", "'spatial'"),
    "plural": ("temporals", "'temporal'"),
    "dates": ("dates", "'temporal'"),
    "short for metres": ("scale", "'scale_m'"),
    "resolution": ("resolution", "'scale_m'"),
    "buffer": ("buffer", "'buffer_m'"),
    "provider": ("provider", "'backend'"),
    "option of the model": ("displai", "'display'"),
}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_arguments(name: str) -> None:
    written, meant = NAMES[name]
    with pytest.raises(UnknownNameError, match=f"unknown argument '{written}'.*mean {meant}"):
        WRONG.get_embedding("scalemae", **MODEL, **{written: 1})


@pytest.mark.parametrize(
    ("door", "written", "meant"),
    [
        (get_embeddings_batch, "bbox", "spatials"),
        (inspect_input, "dates", "temporal"),
        (lambda model, **given: estimate(model, spatials=[], **given), "resolution", "scale_m"),
        (lambda model, **given: export_batch(model, [BOX], output="a.npz", **given),
         "temporals", "temporal"),
        (lambda model, **given: embed_area(model, output="a.zarr", **given), "bbox", "spatial"),
        (lambda model, **given: WRONG.evaluate("a.zip", model=model, **given), "limits", "limit"),
    ],
)  # fmt: skip
def test_unknown_arguments_at_every_door(door: Any, written: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown argument '{written}'.*mean '{meant}'"):
        door("scalemae", **{written: 1})


FLAGS: dict[str, tuple[list[str], str]] = {
    "file as a kind": (["embed", "--output", "tok.tif"], r"did you mean -o tok\.tif\?"),
    "scale": (["embed", "--scale", "10"], "Possible options: --scale-m"),
    "resolution": (["map", "--resolution", "10"], "--scale-m"),
    "date": (["embed", "--date", "2022"], "--temporal"),
    "plural": (["batch", "--temporals", "2022"], "--temporal"),
    "provider": (["embed", "--provider", "stac"], "--backend"),
    "two periods": (
        ["embed", "--temporal", "2022", "--start", "2022-01-01"], "expected one period",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLAGS)
def test_unknown_options_of_the_command_line(name: str) -> None:
    given, meant = FLAGS[name]
    result = CliRunner().invoke(app, given)
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", result.output).replace("\u2502", " ").split())
    assert result.exit_code != 0
    assert re.search(meant, text + str(result.exception))


def test_everyday_values_on_the_command_line(folder: Path) -> None:
    given = [
        "embed", "--bbox", ",".join(map(str, BOX)), "--backend", str(folder), "--temporal",
        "2022-06", "--output", "max", "--variant", "tiny", "--json",
    ]  # fmt: skip
    meta = json.loads(CliRunner().invoke(app, given, catch_exceptions=False).stdout)["meta"]
    assert meta["temporal"] == {"start": "2022-06-01", "end": "2022-07-01"}
    assert (meta["backend"], meta["pooling"]) == ("local", "patch_max")


@pytest.fixture(scope="session")
def made(folder: Path) -> dict[str, Any]:
    request: dict[str, Any] = {**THERE, "backend": folder, **MODEL}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vector, grid = (get_embedding("scalemae", output=o, **request) for o in ("mean", "grid"))
        return {"vector": vector, "grid": grid, "seen": inspect_input("scalemae", **request)}


ARRAYS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], Any]]] = {
    "asarray": (lambda v, _: np.asarray(v), lambda v, _: v),
    "asarray of a grid": (lambda _, g: np.asarray(g), lambda _, g: g),
    "another type": (lambda v, _: np.asarray(v, dtype="f8"), lambda v, _: v.astype("f8")),
    "stack": (lambda v, _: np.stack([v, v]), lambda v, _: np.stack([v, v])),
    "len": (lambda v, _: len(v), lambda v, _: len(v)),
    "shape": (lambda _, g: g.shape, lambda _, g: g.shape),
    "item": (lambda v, g: (v[3], g[0][2, 1]), lambda v, g: (v[3], g[0][2, 1])),
    "dot": (lambda v, _: v @ v, lambda v, _: v @ v),
    "matrix from the left": (
        lambda v, _: np.ones((2, 192), "f4") @ v, lambda v, _: np.ones((2, 192), "f4") @ v,
    ),
    "matrix from the right": (
        lambda v, _: v @ np.ones((192, 2), "f4"), lambda v, _: v @ np.ones((192, 2), "f4"),
    ),
    "norm": (lambda v, _: np.linalg.norm(v), lambda v, _: np.linalg.norm(v)),
    "tensor": (lambda v, _: torch.as_tensor(v).numpy(), lambda v, _: v),
    "tensor of a grid": (lambda _, g: torch.as_tensor(g).numpy(), lambda _, g: g),
    "tensor by DLPack": (lambda _, g: torch.utils.dlpack.from_dlpack(g).numpy(), lambda _, g: g),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_an_embedding_is_an_array(made: dict[str, Any], name: str) -> None:
    of_embeddings, of_arrays = ARRAYS[name]
    vector, grid = made["vector"], made["grid"]
    expected = of_arrays(vector.data, grid.data.values)
    assert np.array_equal(of_embeddings(vector, grid), expected)


@pytest.mark.parametrize("name", ["vector", "grid", "seen"])
def test_notebooks_show_a_picture_and_what_is_known(made: dict[str, Any], name: str) -> None:
    page = made[name]._repr_html_()
    picture = re.search(r'src="data:image/png;base64,([^"]+)"', page)
    assert picture is not None
    shown = Image.open(io.BytesIO(base64.b64decode(picture[1])))
    assert min(shown.size) > 50
    text = re.sub("<[^>]+>", " ", page)
    for known in ("scalemae", "minlon=15.001", "2022-06-15", "10 m in the source", "central"):
        assert known in text
    assert len(page) < 500_000


def test_nothing_in_a_notebook_is_markup() -> None:
    page = WRONG.SensorSpec("<script>alert(1)</script>", BANDS)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_plain_text_of_an_inspection_is_short(made: dict[str, Any]) -> None:
    text = repr(made["seen"])
    assert len(text.splitlines()) <= 10
    assert "10 m in the source" in text


def test_completion_and_help_begin_with_what_people_need() -> None:
    assert set(dir(rs_embed)) == set(rs_embed.__all__)
    assert "get_embedding(" in (rs_embed.__doc__ or "")[:400]


# The keys of config.json beside the shipped weights, what is stated, and who decides what.
SETTLED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing stated": (
        {}, {},
        {"display": "reflectance", "display_source": "default", "image_size": 224,
         "image_size_source": "default", "gsd_policy": "metres", "gsd_source": "default"},
    ),
    "all by the weights": (
        {"display": "visual", "image_size": 64, "gsd": "relative"}, {},
        {"display": "visual", "display_source": "weights", "image_size": 64,
         "image_size_source": "weights", "gsd_policy": "relative", "gsd_source": "weights"},
    ),
    "MAE's name of the size": (
        {"img_size": 64}, {}, {"image_size": 64, "image_size_source": "weights"},
    ),
    "a number as GSD": (
        {"gsd": 5}, {}, {"gsd_policy": "number", "input_res": 5.0, "gsd_source": "weights"},
    ),
    "all stated": (
        {"display": "visual", "image_size": 64, "gsd": 5},
        {"display": "visual", "image_size": 48, "gsd": "metres"},
        {"display": "visual", "display_source": "stated", "image_size": 48,
         "image_size_source": "stated", "gsd_policy": "metres", "gsd_source": "stated"},
    ),
}  # fmt: skip


def with_config(folder: Path, **more: Any) -> Path:
    """Return a copy of the shipped weights whose config.json states sizes and ``more``."""
    home = Path(rs_embed.__file__).parent / "data" / "scalemae-tiny"
    config = json.loads((home / "config.json").read_text())
    sizes = {key: config[key] for key in ("embed_dim", "depth", "num_heads", "patch_size")}
    (folder / "model.safetensors").symlink_to(home / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(sizes | more))
    return folder


@pytest.mark.parametrize("name", SETTLED)
def test_defaults_of_the_weights(folder: Path, tmp_path: Path, name: str) -> None:
    config, stated, expected = SETTLED[name]
    weights = with_config(tmp_path, **config)
    request: dict[str, Any] = {
        "spatial": BOX,
        "backend": folder,
        "temporal": 2022,
        "weights": weights,
    }
    meta = inspect_input("scalemae", **request, **stated).meta
    assert {key: meta[key] for key in expected} == expected
    made = get_embedding("scalemae", **request, **stated)
    assert {key: made.meta[key] for key in expected} == expected


NOT_DEFAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "display": ({"display": "bright"}, "config.json: got display='bright', expected one of refle"),
    "gsd": ({"gsd": "meters"}, "config.json: unknown gsd 'meters'"),
    "negative gsd": ({"gsd": -1}, "config.json: got gsd=-1, expected more than 0"),
    "size": ({"image_size": "big"}, "config.json: got image_size='big'"),
    "windows": ({"map_tile_size": 448.0}, "config.json: got map_tile_size=448.0, expected a whole"),
    "windows, no multiple": ({"map_tile_size": 450}, "map_tile_size=450, expected a multiple of"),
    "no multiple": ({"image_size": 65}, "config.json: image_size=65, expected a multiple"),
    "two sizes": ({"image_size": 64, "img_size": 224}, "image_size=64 and img_size=224"),
}


@pytest.mark.parametrize("name", NOT_DEFAULTS)
def test_not_defaults(folder: Path, tmp_path: Path, name: str) -> None:
    config, refusal = NOT_DEFAULTS[name]
    with pytest.raises((CheckpointError, SpecError), match=refusal):
        inspect_input(
            "scalemae", spatial=BOX, backend=folder, weights=with_config(tmp_path, **config)
        )


def test_stated_or_by_default_is_one_request(folder: Path) -> None:
    request: dict[str, Any] = {**THERE, "backend": folder, **MODEL}
    by_default = get_embedding("scalemae", **request)
    stated = get_embedding("scalemae", **request, display="visual", image_size=256, gsd="metres")
    assert by_default.meta["display_source"] == "weights"
    assert stated.meta["display_source"] == "stated"
    assert by_default.meta["fingerprint"] == stated.meta["fingerprint"]
    other = get_embedding("scalemae", **request, gsd="relative")
    assert other.meta["fingerprint"] != stated.meta["fingerprint"]


def test_a_map_continues_whether_stated_or_by_default(folder: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {**THERE, "backend": folder, **MODEL}
    embed_area("scalemae", output=tmp_path / "map.zarr", **request)
    again = embed_area("scalemae", output=tmp_path / "map.zarr", **request, display="visual")
    assert again.finished_before


def test_a_display_that_contradicts_the_weights(folder: Path) -> None:
    request: dict[str, Any] = {**THERE, "backend": folder, **MODEL}
    with pytest.warns(ImageryWarning, match="display='reflectance' .* expect 'visual'; leave"):
        made = get_embedding("scalemae", **request, display="reflectance")
    assert any("expect 'visual'" in text for text in made.meta["warnings"])


# Metres of a pixel, how it is prepared, and what the warning says of 0.15 to 80 m; None is silence.
SCALES: dict[str, tuple[float, Any, str | None]] = {
    "as trained": (10, "tile", None),
    "coarser than trained": (120, "tile", "input is 120, outside the 0.15 to 80"),
    "enlarged": (100, "resize", "the imagery is 100 m, outside .*enlarged to .*no more detail"),
    "finer than trained": (0.1, "tile", "input is 0.1, outside .*use a larger scale_m"),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_gsd_that_the_weights_never_saw(name: str) -> None:
    scale_m, prep, told = SCALES[name]
    pixels = np.random.default_rng(0).integers(200, 2500, (3, 32, 32), dtype=np.uint16)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        made = get_embedding(
            "scalemae", input_chw=pixels, scale_m=scale_m, input_prep=prep, **MODEL
        )
    texts = [str(one.message) for one in given if one.category is GsdWarning]
    assert (told is None) is (not texts)
    assert told is None or re.search(told, texts[0])
    assert all(text in made.meta["warnings"] for text in texts)


@pytest.mark.parametrize(
    ("gsd", "told"),
    [(None, r"so 10 m per pixel was assumed; state it with scale_m"),
     (0.5, r"was assumed for meta \(the model is given gsd=0.5\)"),
     ("relative", r"was assumed for meta \(the model is given gsd='relative'\)")],
)  # fmt: skip
def test_an_assumed_gsd_is_said_to_be_given_only_where_it_is(gsd: Any, told: str) -> None:
    pixels = np.full((3, 32, 32), 900, np.uint16)
    with pytest.warns(GsdWarning, match=told):
        inspect_input("scalemae", input_chw=pixels, gsd=gsd, **MODEL)


def test_the_crop_is_told_once_in_a_process_and_always_in_meta(folder: Path) -> None:
    request: dict[str, Any] = {
        "spatial": BOX,
        "backend": folder,
        "temporal": 2022,
        "image_size": 224,
        **MODEL,
    }
    code = (
        "import json, sys, rs_embed\n"
        "request = json.loads(sys.argv[1])\n"
        "for _ in range(3):\n"
        "    print(rs_embed.inspect_input('scalemae', **request).meta['warnings'])"
    )
    done = completed("-W", "always", "-c", code, json.dumps(request, default=str))
    assert done.stderr.count("the model sees the central") == 1
    assert done.stdout.count("the model sees the central") == 3


WORDS: dict[str, tuple[str, str]] = {
    "number": ("the place is 8 px at scale_m=120", "the place is 8 px at --scale-m 120"),
    "text": ("input_prep='tile' keeps all", "--input-prep tile keeps all"),
    "to fill in": ("state it with scale_m=...", "state it with --scale-m ..."),
    "specification": ("state it: fetch=FetchSpec(fill_value=...)", "state it: --fill-value ..."),
    "field": ("state it: fetch={'fill_value': ...}", "state it: --fill-value ..."),
    "provider": ("or use LocalProvider(root)", "or use --local"),
    "no option": ("got spatial='here'; crs=EPSG:4326", "got spatial='here'; --crs EPSG:4326"),
    "at an end": ("own pixels as input_chw= or imagery=", "own pixels as --input or --imagery"),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_command_line_speaks_in_its_options(name: str) -> None:
    of_the_library, of_the_command = WORDS[name]
    assert as_options(of_the_library) == of_the_command


def test_the_url_of_a_catalogue_is_a_backend(tmp_path: Path) -> None:
    with StacServer().running() as server:
        server.add(write_contract_scenes(tmp_path))
        by_url, by_provider = (
            estimate("scalemae", spatials=[BOX], temporal="2022-06", backend=backend, **MODEL)
            for backend in (server.url, StacProvider(server.url))
        )
    assert by_url == by_provider
    assert by_url.backend == "stac"


def test_band_files_in_a_folder_as_the_refusal_says(tmp_path: Path) -> None:
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": SIDE, "height": SIDE, "count": 1, "dtype": "uint16",
        "crs": "EPSG:32633", "transform": from_origin(LEFT, TOP, 10, 10), "nodata": 0,
    }  # fmt: skip
    for value, band in enumerate(("B02", "B03", "B04"), 5):
        path = tmp_path / f"T33TVM_20220615T100031_{band}_10m.tif"
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.full((1, SIDE, SIDE), value * 200, np.uint16))
    seen = inspect_input("scalemae", spatial=BOX, backend=tmp_path, temporal=2022, **MODEL)
    assert {name: spread["mean"] for name, spread in seen.raw.items()} == {
        "B4": 1400, "B3": 1200, "B2": 1000,
    }  # fmt: skip
