"""What a page of `explore` holds, against rasterio and NumPy; what it refuses; how it is served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS, Geod, Transformer
from typer.testing import CliRunner

import rs_embed
from rs_embed import (
    Embedding,
    EmbeddingTable,
    Explorer,
    Grid,
    embed_area,
    explore,
    export_batch,
    get_embedding,
    load_export,
    nearest,
    open_map,
    similarity_map,
)
from rs_embed.cli import app
from rs_embed.errors import (
    ExportError,
    ImageryError,
    ImageryWarning,
    RsEmbedError,
    RsEmbedWarning,
    SpecError,
)
from rs_embed.explorer import vectors
from rs_embed.explorer.crs import browser_crs
from rs_embed.explorer.vectors import check_size
from tests.conftest import python_environment

SCENE = Path(rs_embed.__file__).parent / "data" / "sample_s2.tif"
SIDE, HOLE = 128, (slice(0, 40), slice(0, 24))  # nodata, pixels
TINY: dict[str, Any] = {"variant": "tiny"}
GRID: dict[str, Any] = {**TINY, "output": "grid", "input_prep": "tile"}


def write_scene(path: Path, gain: float) -> Path:
    """Write a part of the sample scene with a hole."""
    with rasterio.open(SCENE) as scene:
        window = rasterio.windows.Window(200, 300, SIDE, SIDE)
        pixels = (scene.read(window=window) * gain).round().astype(np.uint16)
        pixels[:, *HOLE] = 0
        profile = scene.profile | {
            "height": SIDE, "width": SIDE, "transform": scene.window_transform(window), "nodata": 0,
        }  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        file.descriptions = ("B4", "B3", "B2")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Images of two dates, maps and grids of them, and a table; by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small images
        return embedded(tmp_path_factory.mktemp("made"))


def embedded(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "image": write_scene(folder / "scene_20190615.tif", 1.0),
        "later image": write_scene(folder / "scene_20190809.tif", 1.1),
    }
    for name, image, suffix, more in (
        ("zarr", "image", "zarr", {}),
        ("later", "later image", "tif", {}),
        ("int8", "image", "tif", {"dtype": "int8"}),
        ("pca", "image", "zarr", {"pca": 12}),
    ):
        found[name] = folder / f"{name}.{suffix}"
        embed_area(
            "scalemae", imagery=found[image], output=found[name], tile_size=64, **TINY, **more
        )
    found["embedding"] = get_embedding("scalemae", imagery=found["image"], **GRID)
    found["grid"] = found["embedding"].save(folder / "grid.tif")
    found["netcdf"] = found["embedding"].save(folder / "grid.nc")
    with rasterio.open(found["image"]) as file:
        xs, ys = rasterio.transform.xy(file.transform, [70, 90, 100], [60, 80, 100])
        points = geopandas.GeoSeries(geopandas.points_from_xy(xs, ys), crs=file.crs).to_crs(4326)
    places = geopandas.GeoDataFrame({"id": ["a", "b", "c"]}, geometry=points)
    found["table"] = folder / "places.parquet"
    export_batch(
        "scalemae", places, buffer_m=160, imagery=found["image"], output=found["table"],
        image_size=64, **TINY,
    )  # fmt: skip
    return found


def table_of(embeddings: Any, **columns: Any) -> EmbeddingTable:
    """Return a table of places at whole degrees."""
    count = len(embeddings)
    points = geopandas.points_from_xy(np.arange(count) % 360 - 180, np.arange(count) % 80)
    frame = geopandas.GeoDataFrame(columns, geometry=points, crs=4326, index=range(count))
    meta = {"model": "scalemae", "weights": "own", "input_res_m": 10.0}
    ids = [f"p{number}" for number in range(count)]
    return EmbeddingTable(ids, np.asarray(embeddings, np.float32), frame, {}, meta)


def random_table(count: int = 50, depth: int = 16, **columns: Any) -> EmbeddingTable:
    return table_of(np.random.default_rng(0).normal(3, 1, (count, depth)), **columns)


def vectors_of(page: Explorer, number: int = 0) -> NDArray[np.float64]:
    layer = page.about["layers"][number]
    values = np.fromfile(page.path / layer["vectors"], np.int8)
    return values.reshape(layer["count"], page.about["dimensions"]).astype(np.float64)


def tokens_in(path: Path) -> tuple[NDArray[np.float64], rasterio.Affine]:
    """Return ``(d, y, x)`` of a map or grid as other software reads it, and the transform."""
    if path.suffix == ".tif":
        with rasterio.open(path) as file:
            bands = file.read(masked=True).astype(np.float64).filled(np.nan)
            return bands * np.array(file.scales)[:, None, None], file.transform
    import xarray as xr

    opened = (
        xr.open_zarr(path) if path.suffix == ".zarr" else xr.open_dataset(path, engine="h5netcdf")
    )
    array = opened["embedding"].transpose("d", "y", "x")
    x, y = array.x.values, array.y.values
    corner = rasterio.Affine.translation(x[0], y[0]) @ rasterio.Affine.scale(
        x[1] - x[0], y[1] - y[0]
    )
    return array.values.astype(np.float64), corner @ rasterio.Affine.translation(-0.5, -0.5)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("zarr", "unchanged"), ("later", "unchanged"), ("int8", "unchanged"), ("pca", "unchanged"),
        ("grid", "perhaps changed"), ("netcdf", "perhaps changed"),
    ],
)  # fmt: skip
def test_a_map_is_what_other_software_reads(
    name: str, image: str, made: dict[str, Any], tmp_path: Path
) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        page = explore(made[name], output=tmp_path / "site")
    assert any("may have changed" in str(one.message) for one in given) == (image != "unchanged")
    tokens, transform = tokens_in(made[name])
    rows, columns = tokens.shape[1:]
    valid = np.isfinite(tokens).all(axis=0)
    about = json.loads((page.path / "explore.json").read_text())
    (layer,) = about["layers"]
    assert 0 < layer["count"] == valid.sum() < valid.size
    assert layer["grid"]["rows"], layer["grid"]["columns"] == (rows, columns)
    np.testing.assert_allclose(layer["grid"]["transform"], transform[:6], rtol=1e-12)
    cells = np.fromfile(page.path / layer["cells"], "<u4")
    assert cells.tolist() == np.flatnonzero(valid).tolist()
    seen = tokens[:, valid].T - tokens[:, valid].mean(axis=1)
    largest = np.abs(seen).max(axis=1, keepdims=True)
    assert np.abs(vectors_of(page) * largest / 127 - seen).max() <= (largest / 254 * 1.01).max()
    picture = np.asarray(Image.open(page.path / layer["pca"]))
    assert picture.shape == (rows, columns, 4)
    assert (picture[..., 3] == np.where(valid, 255, 0)).all()
    with rasterio.open(made["image" if name != "later" else "later image"]) as file:
        np.testing.assert_allclose(layer["image"]["bounds"], [*file.bounds])
        known = file.dataset_mask() > 0
    shown = np.asarray(Image.open(page.path / layer["image"]["file"]))
    assert (shown[..., 3] > 0).tolist() == known.tolist()
    assert about["crs"] == "EPSG:32618"
    assert about["dimensions"] == len(tokens)
    assert (about["pca_variance"] is None) == (name != "pca")
    assert (about["model"], about["weights"]) == ("scalemae", "scalemae-tiny")
    assert about["gsd_m"] == 10
    assert layer["name"] == ("2019-08-09" if name == "later" else layer["name"])


def test_colours_are_those_of_the_quicklook(made: dict[str, Any], tmp_path: Path) -> None:
    from rs_embed.embedding.quicklook import Components

    embedding: Embedding = made["embedding"]
    page = explore(embedding, output=tmp_path / "site")
    tokens = embedding.data.values
    colours, known = Components.of([tokens]).colours(tokens)
    shown = np.asarray(Image.open(page.path / "data/0.pca.png"))
    assert np.abs(shown[known][:, :3].astype(int) - colours[known]).max() <= 1
    with Image.open(page.path / page.about["layers"][0]["image"]["file"]) as image:
        assert image.size == (SIDE, SIDE)


def test_the_most_similar_are_those_of_similarity_map_and_nearest(
    made: dict[str, Any], tmp_path: Path
) -> None:
    found = open_map(made["zarr"])
    cells = np.argwhere(np.isfinite(found.values).all(axis=0))
    seen = vectors_of(explore(found, output=tmp_path / "map"))
    units = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    for number in (3, 50, len(cells) - 1):
        row, column = cells[number]
        at = [(float(found.x[column]), float(found.y[row]))]
        expected = similarity_map(found, at, crs="EPSG:32618").values[tuple(cells.T)]
        assert np.abs(units @ units[number] - expected).max() < 5e-3
    table = random_table(400, 64)
    seen = vectors_of(explore(table, output=tmp_path / "table"))
    units = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    for number in (0, 7, 399):
        hits = nearest(table, f"p{number}", 10)
        order = np.argsort(-(units @ units[number]))[1:11]
        gaps = -np.diff(hits.similarity.tolist())
        if gaps.min() > 2e-3:  # nearer ones may swap
            assert [f"p{other}" for other in order] == hits.id.tolist()
        assert len({f"p{other}" for other in order} & {*hits.id}) >= 9


def test_two_dates_share_a_mean_and_a_contrast(made: dict[str, Any], tmp_path: Path) -> None:
    page = explore(made["zarr"], made["later"], output=tmp_path / "site")
    tokens = [tokens_in(made[name])[0] for name in ("zarr", "later")]
    rows = [t[:, np.isfinite(t).all(axis=0)].T for t in tokens]
    mean = np.concatenate(rows).mean(axis=0)
    assert [layer["name"] for layer in page.about["layers"]] == ["2019-06-15", "2019-08-09"]
    for number, own in enumerate(rows):
        seen = own - mean
        largest = np.abs(seen).max(axis=1, keepdims=True)
        assert np.abs(vectors_of(page, number) - seen / largest * 127).max() <= 0.51
    first, second = (
        np.asarray(Image.open(page.path / layer["image"]["file"])).astype(float)
        for layer in page.about["layers"]
    )
    assert second[..., :3].mean() > first[..., :3].mean() + 3  # brighter, as on the ground


def test_another_version_is_stated(made: dict[str, Any], tmp_path: Path) -> None:
    older = later_with(made, rs_embed_version="0.0.1")
    page = explore(older, output=tmp_path / "one")
    assert page.about["embedded_with"] == "rs-embed 0.0.1"
    assert page.about["made_with"] == f"rs-embed {rs_embed.__version__}"
    with pytest.warns(RsEmbedWarning, match=r"second map was made with version='0\.0\.1'"):
        page = explore(made["zarr"], older, output=tmp_path / "two")
    assert page.about["embedded_with"] == f"rs-embed {rs_embed.__version__} and 0.0.1"


def test_fewer_dimensions_keep_what_they_say(made: dict[str, Any], tmp_path: Path) -> None:
    page = explore(made["zarr"], output=tmp_path / "site", pca=8)
    tokens = tokens_in(made["zarr"])[0]
    rows = tokens[:, np.isfinite(tokens).all(axis=0)].T
    seen = rows - rows.mean(axis=0)
    _, spread, axes = np.linalg.svd(seen, full_matrices=False)
    assert page.about["dimensions"] == 8
    assert page.about["pca_variance"] == pytest.approx(
        (spread[:8] ** 2).sum() / (spread**2).sum(), rel=1e-4
    )
    scores = np.abs(seen @ axes[:8].T)
    expected = scores / scores.max(axis=1, keepdims=True) * 127
    assert np.abs(np.abs(vectors_of(page)) - expected).max() < 1


def test_the_sample_scene_is_drawn_again(tmp_path: Path) -> None:
    """As after `rs-embed demo`: the grid has no image, and names none that is a file here."""
    place = rs_embed.PointBuffer(*rs_embed.SAMPLE_PLACE.centre, buffer_m=320)
    grid = get_embedding("scalemae", spatial=place, backend="sample", **GRID)
    path = grid.save(tmp_path / "tokens.tif")
    done = CliRunner().invoke(app, ["explore", str(path), "-o", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    about = json.loads((tmp_path / "site" / "explore.json").read_text())
    with Image.open(tmp_path / "site" / about["layers"][0]["image"]["file"]) as image:
        assert image.size == (64, 64)
    left, bottom, right, top = about["layers"][0]["image"]["bounds"]
    assert (right - left, top - bottom) == (640, 640)


ODD = ["<b>&\"'</b>", "a\nb\tc", "\u05e9\u05dc\u05d5\u05dd \u202e!", "\ud800 lone", None]


def test_places_are_strict_json(tmp_path: Path) -> None:
    count = len(ODD)
    table = random_table(
        count, text=pd.Series(ODD, dtype=object), number=[1.5, np.nan, np.inf, 2, 3],
        whole=pd.array([1, None, 3, 4, 5], "Int64"),
        day=pd.to_datetime(["2021-06-17", None, "2021-06-18", "2021-06-19", "2021-06-20"]),
        flag=[True, False, True, False, True],
        held=[[1, np.nan], {"a": date(2020, 1, 2)}, (), b"x", Decimal("1.5")],
        meta=["own"] * count, emb_meta=["{}"] * count,
    )  # fmt: skip
    table.ids[:2] = ["</script><script>alert(1)</script>", 7]
    page = explore(table, output=tmp_path / "site", title="<i>t</i>")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (page.path / page.about["places"]).read_text()
    places = json.loads(text, parse_constant=refuse)
    assert places["id"][:2] == table.ids[:2]
    columns = places["columns"]
    assert columns["text"][:3] == ODD[:3]
    assert columns["text"][4] is None
    assert columns["number"] == [1.5, None, None, 2, 3]
    assert columns["whole"] == [1, None, 3, 4, 5]
    assert columns["day"][:2] == ["2021-06-17T00:00:00", None]
    assert columns["flag"] == [True, False, True, False, True]
    assert columns["held"] == [[1, None], {"a": "2020-01-02"}, [], "b'x'", "1.5"]
    assert places["lon"] == table.frame.geometry.x.tolist()
    assert columns["meta"] == ["own"] * count
    assert not columns.keys() & {"emb_meta", "geometry"}
    assert page.about["title"] == "<i>t</i>"
    assert np.fromfile(page.path / page.about["pca_colours"], np.uint8).size == 3 * count


def test_a_file_of_places_has_pictures(made: dict[str, Any], tmp_path: Path) -> None:
    page = load_export(made["table"]).explore(tmp_path / "site")
    sheets = page.about["thumbnails"]
    sheet = np.asarray(Image.open(page.path / sheets["files"][0]))
    assert sheet.shape == (2048, 2048, 3)
    assert sheet[:64, 64:128].std() > 10 > sheet[:64, 256:320].std()  # the second; none there
    places = json.loads((page.path / page.about["places"]).read_text())
    assert places["id"] == ["a", "b", "c"]
    assert places["columns"].keys() >= {"input_res_m", "datetime"}
    assert not places["columns"].keys() & {"meta", "fingerprint", "embedding", "geometry"}


def test_many_places_and_some_that_failed(tmp_path: Path) -> None:
    table = random_table(100_000, 8, value=np.arange(100_000))
    table.embeddings[5] = np.nan
    with pytest.warns(rs_embed.RsEmbedWarning) as given:
        page = explore(table, output=tmp_path / "site")
    messages = [str(one.message) for one in given]
    assert any("have no embedding: 1 of 100000" in text for text in messages)
    assert any("no pictures of places" in text for text in messages)
    places = json.loads((page.path / page.about["places"]).read_text())
    assert len(places["id"]) == page.about["layers"][0]["count"] == 99_999
    assert places["id"][5] == "p6"
    assert places["columns"]["value"][5] == 6


BESSEL = "+proj=tmerc +lon_0=9 +x_0=3500000 +ellps=bessel +towgs84=598,73,418 +units=m"


@pytest.mark.parametrize(
    ("code", "x", "y"),
    [("EPSG:27700", 530e3, 180e3), ("EPSG:32618", 444e3, 4173e3), ("EPSG:31467", 3.5e6, 5.4e6),
     ("EPSG:3857", 1e6, 6e6), ("EPSG:4326", 9.0, 50.0), ("ESRI:54009", 1e6, 5e6),
     (f"{BESSEL} +type=crs", 3.5e6, 5.4e6)],
)  # fmt: skip
def test_browsers_know_where_a_grid_is(code: str, x: float, y: float) -> None:
    step = 80 if x > 100 else 0.001
    grid = Grid(CRS(code), rasterio.Affine(step, 0, x, 0, -step, y), (100, 100))
    stated = browser_crs(grid)
    assert stated["crs"] == code
    assert (stated["wkt"] is None) == code.startswith("EPSG:")
    ours = [CRS(text) for text in (stated["proj4"], stated["wkt"]) if text]
    at = [Transformer.from_crs(crs, 4326, always_xy=True).transform(x, y)
          for crs in (CRS(code), *ours)]  # fmt: skip
    assert all(Geod(ellps="WGS84").inv(*at[0], *other)[2] < 0.5 for other in at[1:])


def test_a_crs_that_a_geotiff_cannot_cite_has_no_wkt() -> None:
    rotated_pole = CRS("+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=18")
    grid = Grid(rotated_pole, rasterio.Affine(0.1, 0, 0, 0, -0.1, 5), (9, 9))
    assert browser_crs(grid)["wkt"] is None


def later_with(made: dict[str, Any], **values: Any) -> Any:
    """Return the later map as if it were made otherwise."""
    found = open_map(made["later"])
    meta = json.loads(found.attrs["meta"]) | values
    return found.assign_attrs(meta=json.dumps(meta))


def _elsewhere(made: dict[str, Any]) -> Any:
    found = open_map(made["later"])
    return found.assign_coords(x=found.x + 1600)


def _mixed(made: dict[str, Any]) -> EmbeddingTable:
    table = random_table(4, meta=[json.dumps({"model": m}) for m in "aabb"])
    del table.meta["model"]
    return table


def _text(made: dict[str, Any], name: str) -> Path:
    path = Path(made["image"]).with_name(name)
    path.write_text("not an embedding")
    return path


def _saved_again(made: dict[str, Any], *, geometry: bool) -> Path:
    """Return a table that other software has read and written."""
    path: Path = made["table"].with_name("again.parquet")
    frame = geopandas.read_parquet(made["table"])
    (frame if geometry else pd.DataFrame(frame.drop(columns="geometry"))).to_parquet(path)
    return path


def _vector(made: dict[str, Any]) -> Path:
    path: Path = made["table"].with_name("vector.npz")
    made["embedding"].__class__(np.ones(4, np.float32), {}).save(path)
    return path


Call = Callable[[dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]
# What is explored, and the error.
REFUSED: dict[str, tuple[Call, type[RsEmbedError], str]] = {
    "an image": (lambda m: ((m["image"],), {}), ExportError, "not a map of rs_embed"),
    "a picture": (lambda m: ((_text(m, "a.png"),), {}), SpecError, "file type '.png'.*zarr"),
    "a vector": (
        lambda m: ((m["embedding"].__class__(np.ones(4, np.float32), {}),), {}), SpecError,
        "pooled embedding of shape",
    ),
    "a file of one vector": (lambda m: ((_vector(m),), {}), ExportError, "holds one vector"),
    "saved by geopandas": (
        lambda m: ((_saved_again(m, geometry=True),), {}), ExportError,
        "does not state how its embeddings were made.*to the places before the run",
    ),
    "saved by pandas": (
        lambda m: ((_saved_again(m, geometry=False),), {}), ExportError, "does not state how",
    ),
    "no grid": (
        lambda m: ((get_embedding("scalemae", input_chw=np.full((3, 64, 64), 900), scale_m=10,
                                  **GRID),), {}), SpecError, "without CRS",
    ),
    "another grid": (lambda m: ((m["zarr"], _elsewhere(m)), {}), SpecError, "expected the cells"),
    "other weights": (
        lambda m: ((m["zarr"], later_with(m, weights_sha256="0" * 64)), {}), SpecError,
        "weights_sha256=",
    ),
    "random weights": (
        lambda m: ((m["zarr"], later_with(m, weights_sha256=None, weights_seed="0")), {}),
        SpecError, "weights_seed='0', expected weights_sha256=.*again with the weights",
    ),
    "another CRS": (
        lambda m: ((m["zarr"], open_map(m["later"]).rio.write_crs(32619)), {}), SpecError,
        "EPSG:32619",
    ),
    "another basis": (lambda m: ((m["pca"], m["zarr"]), {}), SpecError, "different bases"),
    "a table and a map": (lambda m: ((m["table"], m["zarr"]), {}), SpecError, "beside other"),
    "two tables": (lambda m: ((m["table"], m["table"]), {}), SpecError, "beside other"),
    "mixed models": (lambda m: ((_mixed(m),), {}), SpecError, "several values of model"),
    "mixed models and nothing shared": (
        lambda m: ((replace(_mixed(m), meta={}),), {}), SpecError, "several values of model",
    ),
    "too many components": (
        lambda m: ((random_table(5, 16),), {"pca": 6}), SpecError, "at most 5 components",
    ),
    "no components": (lambda m: ((m["zarr"],), {"pca": 0}), SpecError, "pca=0"),
    "equal vectors": (lambda m: ((table_of(np.ones((4, 3))),), {}), SpecError, "all equal"),
    "no vector": (
        lambda m: ((table_of(np.full((4, 3), np.nan)),), {}), SpecError, "got no vectors",
    ),
    "tiles without names": (
        lambda m: ((m["zarr"],), {"base_map": "https://a/{z}/{x}/{y}.png"}), SpecError,
        "only one of base_map and attribution",
    ),
    "no tiles": (
        lambda m: ((m["zarr"],), {"base_map": "https://a/", "attribution": "A"}), SpecError,
        "address of tiles",
    ),
    "imagery that is missing": (
        lambda m: ((m["zarr"],), {"imagery": m["missing"]}), ImageryError,
        "missing.tif",
    ),
    "one image for two": (
        lambda m: ((m["zarr"], m["later"]), {"imagery": m["image"]}), SpecError, "one for each",
    ),
    "no such port": (lambda m: ((m["zarr"],), {"port": 70_000}), SpecError, "1 to 65535"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_what_is_wrong(name: str, made: dict[str, Any], tmp_path: Path) -> None:
    call, kind, match = REFUSED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given, options = call({**made, "missing": tmp_path / "missing.tif"})
        with pytest.raises(kind, match=match):
            explore(*given, output=tmp_path / "site", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_browser_is_not_given_more_than_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"2,000 MB.*at most 1,000 MB.*--pca 500\)"):
        check_size(2_000_000, 1000)
    check_size(2_000_000, 500)
    assert vectors.MOST_BYTES == 1e9


def test_imagery_that_has_changed_is_not_shown(made: dict[str, Any], tmp_path: Path) -> None:
    image = write_scene(tmp_path / "scene_20190615.tif", 1.0)
    grids = tmp_path / "map.tif"
    embed_area("scalemae", imagery=image, output=grids, tile_size=128, **TINY)
    os.utime(image, (1, 1))
    with pytest.warns(ImageryWarning, match="has changed since.*--imagery"):
        page = explore(grids, output=tmp_path / "site")
    assert page.about["layers"][0]["image"] is None
    page = explore(grids, output=tmp_path / "site", imagery=image, overwrite=True)
    assert page.about["layers"][0]["image"] is not None


def test_only_pages_are_replaced(tmp_path: Path) -> None:
    table, site = random_table(5), tmp_path / "site"
    site.mkdir()
    explore(table, output=site)  # an empty folder
    with pytest.raises(ExportError, match=r"finished page already.*overwrite=True"):
        explore(table, output=site)
    explore(table, output=site, pca=2, overwrite=True)
    assert json.loads((site / "explore.json").read_text())["dimensions"] == 2
    (site / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"other files \(notes.txt\)"):
        explore(table, output=site, overwrite=True)
    other = tmp_path / "other"
    (other / "data").mkdir(parents=True)
    (other / "explore.json").write_text('{"made_with": "rs-embed 0", "files": 7}')
    for output, match in ((other, "other files"), (other / "explore.json", "cannot write")):
        with pytest.raises(ExportError, match=match):
            explore(table, output=output, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"site", "other"}


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, "", exc.read()


def test_a_page_is_served_to_this_machine(tmp_path: Path) -> None:
    page = explore(random_table(5), output=tmp_path / "site")
    (page.path / "a.wasm").write_bytes(b"\0asm")
    (page.path / "a.js").write_text("1")
    (tmp_path / "secret.txt").write_text("secret")
    url = page.serve()
    assert url == page.serve()
    assert f'src="{url}"' in page._repr_html_()
    try:
        for name, kind in (
            ("", "text/html; charset=utf-8"), ("explore.json", "application/json"),
            ("a.wasm", "application/wasm"), ("a.js", "text/javascript"),
            ("data/0.vectors.i8", "application/octet-stream"),
        ):  # fmt: skip
            path = page.path / (name or "index.html")
            assert get(url + name) == (200, kind, path.read_bytes())
        for name in ("data/", "../secret.txt", "%2e%2e/secret.txt", "missing"):
            assert get(url + name)[0] == 404, name
        port = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(SpecError, match=f"port={port}, which is in use; choose another"):
            explore(random_table(5), output=tmp_path / "other", port=port)
    finally:
        page.close()


def test_the_command_serves_until_it_is_interrupted(made: dict[str, Any], tmp_path: Path) -> None:
    code = "from rs_embed.cli import main; main()"
    command = [sys.executable, "-c", code, "explore", str(made["table"]), "-o", "site", "--serve"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=python_environment(BROWSER="true", PYTHONUNBUFFERED="1"),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert "3 places" in process.stdout.readline()
        line = process.stdout.readline()
        url = line.split("served at ")[1].split()[0]
        assert get(f"{url}explore.json")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
