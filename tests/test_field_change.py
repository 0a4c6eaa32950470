"""Two dates of one place: change by the written-out formula, or refused by name; series in order.

The scene is a cut of the sample scene. On the second date a square has other ground; the reference
is brighter than the first date and has noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from rasterio.warp import calculate_default_transform, reproject
from typer.testing import CliRunner

import rs_embed
from rs_embed import (
    Change,
    Embedding,
    InputPrepSpec,
    change,
    embed_area,
    get_embeddings_batch,
    open_map,
    restored,
    stack,
)
from rs_embed.cli import app
from rs_embed.errors import ExportError, RsEmbedError, RsEmbedWarning, SpecError, UnknownNameError

SCENE = Path(rs_embed.__file__).parent / "data" / "sample_s2.tif"
DATES = {"a": "20190615", "b": "20190809", "c": "20190620"}
SIDE, PATCH = 128, 8
HOLE = (slice(0, 40), slice(0, 24))  # clouds on the second date, pixels
SQUARE = (slice(64, 112), slice(64, 112))
TINY: dict[str, Any] = {"variant": "tiny"}
MAP: dict[str, Any] = {"tile_size": 64}
GRID: dict[str, Any] = {**TINY, "output": "grid", "input_prep": "tile"}


def scenes() -> dict[str, NDArray[np.uint16]]:
    """Return ``(3, SIDE, SIDE)`` of each date."""
    random = np.random.default_rng(1)
    with rasterio.open(SCENE) as file:
        pixels = file.read()
    first = pixels[:, 300 : 300 + SIDE, 200 : 200 + SIDE]
    second = first.copy()
    second[:, *SQUARE] = pixels[:, 10 : 10 + 48, 500 : 500 + 48]
    second[:, *HOLE] = 0
    noise = random.normal(0, 50, first.shape)
    reference = (first * 1.1 + noise).clip(1).round().astype(np.uint16)
    return {"a": first, "b": second, "c": reference}


def write(path: Path, pixels: NDArray[np.uint16], **more: Any) -> Path:
    with rasterio.open(SCENE) as scene:
        profile = {
            "driver": "GTiff", "dtype": "uint16", "count": 3, "nodata": 0, "crs": scene.crs,
            "transform": scene.transform @ rasterio.Affine.translation(200, 300),
            "height": pixels.shape[1], "width": pixels.shape[2],
        }  # fmt: skip
    with rasterio.open(path, "w", **profile | more) as file:
        file.write(pixels)
        file.descriptions = ("B4", "B3", "B2")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three dates as images, grids in two formats, and maps; by date and form."""
    folder = tmp_path_factory.mktemp("dates")
    found = {n: write(folder / f"scene_{DATES[n]}.tif", p) for n, p in scenes().items()}
    for name, grid in zip(found.copy(), embedded([*found.values()]), strict=True):
        found[f"{name} tif"] = grid.save(folder / f"{name}_grid.tif")
        found[f"{name} nc"] = grid.save(folder / f"{name}_grid.nc")
        for form, (names, more) in FORMS.items():
            if name not in names:
                continue
            kind, suffix = form.split()
            path = folder / f"{name}_{kind}.{suffix}"
            embed_area("scalemae", imagery=found[name], output=path, **TINY | MAP | more)
            found[f"{name} {form}"] = path
    return found


# Maps: of which dates, and how they are made.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "map tif": ("abc", {}),
    "map zarr": ("b", {}),
    "int8 tif": ("abc", {"dtype": "int8"}),
    "pca zarr": ("abc", {"pca": 40}),
    "harmonised tif": ("abc", {"seams": "harmonise"}),
}


def embedded(paths: list[Path], **more: Any) -> list[Embedding]:
    found = get_embeddings_batch("scalemae", imageries=paths, **GRID | more)
    assert all(isinstance(one, Embedding) for one in found)
    return found  # type: ignore[return-value]


def by_hand(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``(y, x)`` cosine distances of ``(d, y, x)``, cell by cell."""
    found = np.full(one.shape[1:], np.nan)
    for at in np.ndindex(found.shape):
        a, b = (tokens[:, *at].astype(np.float64) for tokens in (one, other))
        found[at] = 1 - sum(a * b) / (sum(a**2) ** 0.5 * sum(b**2) ** 0.5)
    return found


def bands(path: Path) -> NDArray[np.float64]:
    """Return the tokens of a GeoTIFF as rasterio reads them: steps times scales."""
    with rasterio.open(path) as file:
        steps = file.read(masked=True).astype(np.float64).filled(np.nan)
        tokens: NDArray[np.float64] = steps * np.array(file.scales)[:, None, None]
    return tokens


Opened = Callable[[dict[str, Path], str], Any]
Make = Callable[[dict[str, Path], Path], Any]


class Row(NamedTuple):
    """How the dates are passed, and where rasterio finds their tokens."""

    name: str
    passed: Opened
    tokens: Callable[[dict[str, Path], str], NDArray[np.float64]]


def series_of(files: dict[str, Path], name: str) -> Any:
    return stack([Embedding.load(files[f"{n} tif"]) for n in "bca"]).sel(time=DATES[name])


SAVED: Any = lambda files, name: bands(files[f"{name} tif"])  # noqa: E731
MAPPED: Any = lambda files, name: bands(files[f"{name} map tif"])  # noqa: E731
ROWS = [
    Row("grids in memory", lambda f, n: Embedding.load(f[f"{n} tif"]), SAVED),
    Row("grids in GeoTIFF", lambda f, n: f[f"{n} tif"], SAVED),
    Row("a grid in netCDF", lambda f, n: f[f"{n} nc"], SAVED),
    Row("times of a series", series_of, SAVED),
    Row("maps in GeoTIFF", lambda f, n: str(f[f"{n} map tif"]), MAPPED),
    Row("maps in two formats", lambda f, n: f[f"{n} map {'zarr' if n == 'b' else 'tif'}"], MAPPED),
    Row(
        "other chunks",
        lambda f, n: open_map(f[f"{n} map tif"]).chunk({"d": 100, "y": 6 + ord(n) % 5, "x": 9}),
        MAPPED,
    ),
    Row("other axes", lambda f, n: open_map(f[f"{n} map tif"]).transpose("y", "x", "d"), MAPPED),
    Row(
        "harmonised maps",
        lambda f, n: f[f"{n} harmonised tif"],
        lambda f, n: bands(f[f"{n} harmonised tif"]),
    ),
    Row("int8", lambda f, n: f[f"{n} int8 tif"], lambda f, n: bands(f[f"{n} int8 tif"])),
    Row(
        "restored components",
        lambda f, n: restored(open_map(f[f"{n} pca zarr"])),
        lambda f, n: restored(open_map(f[f"{n} pca zarr"])).values.astype(np.float64),
    ),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:how the tokens are stored", "ignore:.*above the noise floor")
@pytest.mark.parametrize("centred", [False, True], ids=["plain", "centred"])
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_change_is_what_the_formula_says(files: dict[str, Path], row: Row, centred: bool) -> None:
    a, b, c = (row.passed(files, name) for name in "abc")
    found = change(a, b, reference=c, centred=centred, quantile=0.9)
    tokens = {name: row.tokens(files, name) for name in "abc"}

    def distances(one: str, other: str) -> NDArray[np.float64]:
        pair = [tokens[one], tokens[other]]
        known = np.isfinite(pair[0][0] + pair[1][0])
        if centred:
            pair = [t - t[:, known].mean(axis=1)[:, None, None] for t in pair]
        return by_hand(*pair)

    distance, noise = distances("a", "b"), distances("a", "c")
    level = np.quantile(noise[np.isfinite(noise)], 0.9)
    near: dict[str, Any] = {"rtol": 2e-4, "atol": 2e-6}  # float32 in the centred tokens
    np.testing.assert_allclose(found.distance, distance, **near)
    assert found.floor is not None
    np.testing.assert_allclose(found.floor, np.maximum(noise, level), **near)
    ratio = distance / np.maximum(noise, level)
    np.testing.assert_allclose(found.ratio, ratio, rtol=2e-3, atol=1e-6)
    assert np.array_equal(found.above, found.ratio.values > 1)
    assert found.meta["above"] == int(found.above.sum())
    assert found.meta["with_floor"] == int(np.isfinite(found.ratio).sum())
    cells = [slice(s.start // PATCH, s.stop // PATCH) for s in (*HOLE, *SQUARE)]
    assert np.isnan(found.distance.values[*cells[:2]]).all()
    assert found.above.values[*cells[2:]].mean() > 0.8  # of the ground that is another one
    with rasterio.open(files["a tif"]) as file:
        assert found.distance.rio.transform() == file.transform
        assert found.distance.rio.crs == file.crs
    days = [found.meta[name]["days"] for name in ("first", "second", "reference")]
    assert days == ["2019-06-15", "2019-08-09", "2019-06-20"]


def image(files: dict[str, Path], to: Path, **more: Any) -> Embedding:
    return embedded([write(to / "scene_20190809.tif", scenes()["b"], **more)])[0]


def reprojected(files: dict[str, Path], to: Path) -> Embedding:
    with rasterio.open(files["b"]) as file:
        crs = "EPSG:32617"
        place = calculate_default_transform(
            file.crs, crs, file.width, file.height, *file.bounds, resolution=10
        )
        pixels = np.zeros((3, place[2], place[1]), np.uint16)
        reproject(
            file.read(), pixels, src_transform=file.transform, src_crs=file.crs, src_nodata=0,
            dst_transform=place[0], dst_crs=crs,
        )  # fmt: skip
    return image_of(to, pixels, crs=crs, transform=place[0])


def image_of(to: Path, pixels: NDArray[np.uint16], **more: Any) -> Embedding:
    return embedded([write(to / "scene_20190809.tif", pixels, **more)])[0]


def moved(files: dict[str, Path], to: Path) -> Embedding:
    with rasterio.open(files["b"]) as file:
        return image(files, to, transform=file.transform @ rasterio.Affine.translation(0.5, 0))


def coarser(files: dict[str, Path], to: Path) -> Embedding:
    with rasterio.open(files["b"]) as file:
        return image(files, to, transform=file.transform @ rasterio.Affine.scale(2))


def with_meta(files: dict[str, Path], **more: Any) -> Embedding:
    given = Embedding.load(files["b tif"])
    return replace(given, meta={**given.meta, **more})


def mapped(**more: Any) -> Make:
    def make(files: dict[str, Path], to: Path) -> Path:
        embed_area("scalemae", imagery=files["b"], output=to / "m.tif", **TINY | MAP | more)
        return to / "m.tif"

    return make


def cloudy(files: dict[str, Path], to: Path) -> Embedding:
    pixels = scenes()["b"]
    pixels[:, 32:] = 0
    return embedded([write(to / "s.tif", pixels)], min_valid=0.1)[0]


def with_nan(files: dict[str, Path], to: Path) -> Embedding:
    given = Embedding.load(files["b tif"])
    return replace(given, data=given.data.copy(data=np.full(given.shape, np.nan, np.float32)))


def cut(files: dict[str, Path], to: Path) -> Any:
    """Return the cells of the first date from a larger image."""
    with rasterio.open(SCENE) as file:
        pixels = file.read()[:, 300 : 300 + SIDE + 24, 200 : 200 + SIDE]
    grid = image_of(to, pixels)
    return replace(grid, data=grid.data[:, : SIDE // PATCH])


def without_meta(files: dict[str, Path], to: Path) -> Any:
    opened = open_map(files["b tif"])
    opened.attrs = {}
    return opened


def form(name: str) -> Make:
    return lambda files, _: files[f"b {name}"]


def made(**more: Any) -> Make:
    return lambda files, _: embedded([files["b"]], **more)[0]


def edited(**more: Any) -> Make:
    return lambda files, _: with_meta(files, **more)


CELLS = "expected the cells of the first date: 16 x 16"
REFUSED: list[tuple[str, str, Make, dict[str, Any], type[RsEmbedError], str]] = [
    ("other CRS", "a tif", reprojected, {}, SpecError, f"EPSG:32617, {CELLS}.*EPSG:32618"),
    ("half a pixel away", "a tif", moved, {}, SpecError, CELLS),
    ("coarser", "a tif", coarser, {}, SpecError, "cells of 160 from"),
    ("smaller", "a tif", lambda f, _: open_map(f["b tif"])[:, :-1], {}, SpecError, "15 x 16 cells"),
    ("cut from other pixels", "a tif", cut, {}, SpecError, "grid={.*152"),
    ("other display", "a tif", edited(display="reflectance"), {}, SpecError,
     "display='reflectance', expected 'visual'.*embed the second date again"),
    ("other weights", "a tif", edited(weights_sha256="00"), {}, SpecError, "weights_sha256='00'"),
    ("relative GSD", "a tif", made(gsd="relative"), {}, SpecError, "gsd_policy='relative'"),
    ("other GSD", "a tif", edited(input_res=9.5), {}, SpecError, "input_res=9.5, expected 10"),
    ("before the norm", "a tif", made(tokens="pre_norm"), {}, SpecError, "tokens_kind"),
    ("other tiles", "a tif", made(input_prep=InputPrepSpec.tile(64)), {}, SpecError,
     "tiles.size=64"),
    ("grid and map", "a tif", form("map tif"), {}, SpecError, "output='map', expected 'grid'"),
    ("other windows", "a map tif", mapped(overlap_px=32), {}, SpecError,
     "tiles.overlap_px=32, expected 16"),
    ("other seams", "a map tif", mapped(seams="discard"), {}, SpecError, "tiles.seams='discard'"),
    ("other screen", "a harmonised tif", mapped(seams="harmonise", screen=0.3), {}, SpecError,
     "request.screen=0.3"),
    ("two PCAs", "a pca zarr", form("pca zarr"), {}, SpecError, r"different bases.*restored\("),
    ("a PCA and none", "a map tif", form("pca zarr"), {}, SpecError, "different bases"),
    ("pooled", "a tif", made(output="pooled"), {}, SpecError, "output='grid'"),
    ("no meta", "a tif", without_meta, {}, SpecError,
     "second date that do not state how they.*keep_attrs"),
    ("image", "a tif", lambda f, _: f["b"], {}, ExportError,
     "not a map of rs_embed.*rs-embed map --imagery .*scene_.* -o map.tif makes one of it"),
    ("no such file", "a tif", lambda f, _: "gone.tif", {}, ExportError, "no such file"),
    ("not a map", "a tif", lambda f, _: 3, {}, SpecError, "got a map of type int"),
    ("quantile", "a tif", form("tif"), {"quantile": 1}, SpecError, "got quantile=1, expected"),
    ("nothing in common", "a tif", with_nan, {}, SpecError, "without a single cell"),
    ("the first as reference", "a tif", form("tif"), {"reference": lambda f, _: f["a tif"]},
     SpecError, "a reference with the tokens of the first date"),
    ("the second as reference", "a tif", form("tif"), {"reference": form("tif")}, SpecError,
     "a reference with the tokens of the second date"),
    ("cloudy reference", "a tif", form("tif"), {"reference": cloudy, "quantile": 0.99}, SpecError,
     "with 52 tokens .* at least 100"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "make", "more", "error", "words"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_what_cannot_be_compared_is_refused(
    files: dict[str, Path], tmp_path: Path, first: str, make: Any, more: Any, error: Any, words: str
) -> None:
    more = {k: v(files, tmp_path) if callable(v) else v for k, v in more.items()}
    with pytest.raises(error, match=words):
        change(files[first], make(files, tmp_path), **more)


def nothing(files: dict[str, Path], to: Path) -> None:
    """Return no reference."""


def brighter(files: dict[str, Path], to: Path) -> Embedding:
    pixels = (scenes()["b"] * 1.5).astype(np.uint16)
    return embedded([write(to / "scene_20190901.tif", pixels)])[0]


def hazy(files: dict[str, Path], to: Path) -> Embedding:
    pixels = (scenes()["b"] * 1.5 + 2000).astype(np.uint16)
    return embedded([write(to / "scene_20190901.tif", pixels)])[0]


WARNED: list[tuple[str, str, Make, Make, str]] = [
    ("reference of the second date", "a tif", form("tif"), brighter, "is nearer to the second"),
    ("haze", "a tif", hazy, lambda f, _: f["c tif"], "100% of the tokens are .*--centred"),
    ("int8", "a int8 tif", lambda f, _: f["a int8 tif"], nothing, "how the tokens are stored"),
    ("other bands", "a rgb", edited(sensor={"bands": ["B8", "B4", "B3"]}), nothing, "bands="),
    ("other version", "a tif", edited(rs_embed_version="9"), nothing, "with version='9'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "reference", "words"),
    [row[1:] for row in WARNED],
    ids=[row[0] for row in WARNED],
)
def test_what_may_mislead_is_warned_of_and_recorded(
    files: dict[str, Path], tmp_path: Path, first: str, second: Make, reference: Make, words: str
) -> None:
    rgb = edited(sensor={"bands": ["red", "green", "blue"]})(files, tmp_path)
    one = rgb if first == "a rgb" else files[first]
    with pytest.warns(RsEmbedWarning, match=words):
        found = change(one, second(files, tmp_path), reference=reference(files, tmp_path))
    assert found.meta["warnings"]


def test_a_change_is_saved_and_drawn(files: dict[str, Path], tmp_path: Path) -> None:
    found = change(*(files[f"{name} tif"] for name in "ab"), reference=files["c tif"])
    with rasterio.open(found.save(tmp_path / "change.tif")) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.descriptions == ("cosine distance", "noise floor", "ratio")
        assert file.crs == found.distance.rio.crs
        assert file.transform == found.distance.rio.transform()
        assert np.isnan(file.nodata)
        for band, layer in zip(
            file.read(), (found.distance, found.floor, found.ratio), strict=True
        ):
            np.testing.assert_array_equal(band, layer)
        assert json.loads(file.tags()["RS_EMBED_CHANGE"]) == found.meta
    found.quicklook(tmp_path / "change.png")
    with Image.open(tmp_path / "change.png") as picture:
        assert picture.height < picture.width
    assert "tokens above the noise floor" in found._repr_html_()
    np.testing.assert_array_equal(np.asarray(found), found.distance)
    for wrong in (found.save, found.quicklook):
        with pytest.raises(UnknownNameError, match="'.jpg', expected"):
            wrong(tmp_path / "change.jpg")
    plain = change(files["a tif"], files["b tif"])
    with rasterio.open(plain.save(tmp_path / "plain.tif")) as file:
        assert file.count == 1
    with pytest.raises(SpecError, match=r"change\(a, b, reference=c\)"):
        _ = plain.ratio


def test_the_command_writes_what_python_returns(files: dict[str, Path], tmp_path: Path) -> None:
    out, png = tmp_path / "change.tif", tmp_path / "change.png"
    dates = [str(files[f"{name} map tif"]) for name in "ab"]
    more = ["--reference", str(files["c map tif"]), "--quantile", "0.9", "--centred"]
    done = CliRunner().invoke(app, ["change", *dates, *more, "-o", str(out), "--png", str(png)])
    assert done.exit_code == 0, done.output
    found = change(*dates, reference=files["c map tif"], quantile=0.9, centred=True)
    with rasterio.open(out) as file:
        np.testing.assert_array_equal(file.read(1), found.distance)
    assert f"{found.meta['above']} of {found.meta['with_floor']} tokens above" in done.output
    assert f"wrote {out}" in done.output
    assert png.stat().st_size
    asked = CliRunner().invoke(app, ["change", *dates, "--json"])
    assert json.loads(asked.output)["compared"] == found.meta["compared"]
    before = files["b map tif"].read_bytes()
    refused = CliRunner().invoke(app, ["change", *dates, "-o", dates[1]])
    assert "which is one of the dates" in str(refused.exception)
    assert files["b map tif"].read_bytes() == before
    assert "-o change.tif" in str(CliRunner().invoke(app, ["change", *dates]).exception)


@pytest.mark.parametrize("output", ["grid", "pooled"])
@pytest.mark.parametrize("times", [None, ["2022-03-01T10:30", "2020-01-01", "2021-01-01"]])
def test_files_of_a_series_are_stacked_by_time(
    files: dict[str, Path], tmp_path: Path, output: str, times: Any
) -> None:
    paths = [files[name] for name in "bca"]
    made = embedded(paths, output=output)
    series = stack(made, times=times)
    order = [2, 1, 0] if times is None else [1, 2, 0]
    days = ["2019-06-15", "2019-06-20", "2019-08-09"]
    days = days if times is None else sorted(times)
    assert series["time"].values.tolist() == np.array(days, "datetime64[ns]").tolist()
    for at, number in enumerate(order):
        np.testing.assert_array_equal(series[at], made[number].data)
        assert series["imagery"].values[at] == paths[number].as_uri()
        assert json.loads(str(series["meta"].values[at])) == made[number].meta
    assert series.dims == (("time", "d", "y", "x") if output == "grid" else ("time", "d"))
    series.to_netcdf(tmp_path / "series.nc", engine="h5netcdf")
    with xr.open_dataarray(tmp_path / "series.nc", decode_coords="all") as again:
        xr.testing.assert_identical(again.load().drop_attrs(), series.drop_attrs())
        if output == "grid":
            assert again.rio.crs == series.rio.crs == made[0].data.rio.crs
            assert isinstance(change(again[0], again[1]), Change)


def vector(files: dict[str, Path]) -> Embedding:
    return embedded([files["a"]], output="pooled")[0]


NAIVE = datetime(2020, 1, 1)
Listed = Callable[[dict[str, Path]], list[Any]]
B = with_meta


@pytest.mark.parametrize(
    ("meta", "time", "end"),
    [
        ({"source": {"acquired": ["2019-08-09T01:00+02:00"]}}, "2019-08-08T23", "2019-08-08T23"),
        ({"source": {"acquired": ["2019-08-01", "2019-08-09"]}}, "2019-08-01", "2019-08-09"),
        ({"source": {}, "temporal": {"start": "2022-06-01", "end": "2022-07-01"}}, "2022-06-01",
         "2022-07-01"),
    ],
    ids=["other time zone", "several scenes", "period"],
)  # fmt: skip
def test_the_time_is_that_of_the_imagery_or_the_period(
    files: dict[str, Path], meta: dict[str, Any], time: str, end: str
) -> None:
    series = stack([with_meta(files, **meta)])
    assert [series[name].values[0] for name in ("time", "end")] == [
        np.datetime64(day) for day in (time, end)
    ]


UNSTACKED: list[tuple[str, Listed, dict[str, Any], str]] = [
    ("nothing", lambda _: [], {}, "got no embeddings"),
    ("an error", lambda f: [B(f), SpecError("clouds")], {}, r"SpecError as number 1 \(clouds"),
    ("other weights", lambda f: [B(f), B(f, weights_sha256="00")], {},
     "embedding 1 made with weights_sha256='00'"),
    ("vector and grid", lambda f: [B(f), vector(f)], {}, "output='pooled', expected 'grid'"),
    ("other place", lambda f: [B(f), B(f, grid={"crs": "EPSG:1"})], {}, "embedding 1 made with gr"),
    ("same day twice", lambda f: [B(f), B(f)], {}, "0 and 1 of the same time 2019-08-09"),
    ("no time", lambda f: [B(f), B(f, source={})], {}, r"time \(numbers from 0: 1\).*times="),
    ("times too few", lambda f: [B(f)] * 2, {"times": ["2020-01-01"]}, "got 1 times for 2"),
    ("time in doubt", lambda f: [B(f)], {"times": ["06/07/2022"]}, "'06/07/2022', expected a day"),
    ("two zones", lambda f: [B(f)] * 2, {"times": [NAIVE, NAIVE.replace(tzinfo=UTC)]},
     "with and without a time zone"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "more", "words"), [row[1:] for row in UNSTACKED], ids=[row[0] for row in UNSTACKED]
)
def test_what_is_not_a_series_is_refused(
    files: dict[str, Path], make: Any, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        stack(make(files), **more)


def test_a_real_river_has_changed_more_than_the_forest(shared_data: Path) -> None:
    days = ("20190615", "20190809", "20190620")
    paths = [shared_data / "s2/rufiji_20m" / f"rufiji_boa_{day}_20m.tif" for day in days]
    series = stack(embedded(paths))
    plain = change(series.sel(time="2019-06-15"), series[2], reference=series[1])
    centred = change(series[0], series[2], reference=series[1], centred=True)
    assert centred.meta["above"] < plain.meta["above"]
    with rasterio.open(paths[0]) as one, rasterio.open(paths[1]) as other:
        red = [file.read(1).astype(float) for file in (one, other)]
    drop = (red[0] - red[1])[:136, :168].reshape(17, 8, 21, 8).mean(axis=(1, 3))  # mud is red
    distance = plain.distance.values[:17, :21]
    river = (drop > 500) & np.isfinite(distance)
    assert np.median(distance[river]) > 1.3 * np.nanmedian(distance[~river])
