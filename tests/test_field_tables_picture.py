"""Pictures of nearest neighbours, and how results look when they are printed.

A row of ``REFUSED`` is a search that cannot be drawn: its name, what is changed of the table, the
arguments, and what the refusal says. The scene has three stripes of colour, so that the colour of a
panel says which place it shows.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import Point
from typer.testing import CliRunner

from rs_embed import (
    PointBuffer,
    RsEmbedWarning,
    embed_table,
    export_batch,
    get_embeddings_batch,
    nearest,
    places_of,
    read_vectors,
)
from rs_embed.cli import app
from rs_embed.errors import ExportError, ImageryWarning, RsEmbedError, SpecError, UnknownNameError

STRIPES = ("red", "green", "blue")
NAMES = ["r0", "r1", "g0", "g1", "b0", "b1"]
HOSTILE = ["مزرعة شمال", "x" * 5000, "Žatec łódź", "🙂\u202egnp", "$(rm -rf /)", ""]
TINY: dict[str, Any] = {"variant": "tiny", "input_prep": "tile"}
PANEL, STEP, TEXT_PX = 176, (184, 210), 26


@pytest.fixture
def scene(write_scene: Callable[..., Path]) -> Path:
    """Three vertical stripes of 32 px: red, green, blue."""
    data = np.full((3, 64, 96), 300, np.uint16)
    for band in range(3):
        data[band, :, 32 * band : 32 * (band + 1)] = 3000
    return write_scene(data)


def points() -> gpd.GeoSeries:
    """Two places in each stripe."""
    x = [400160 + 320 * stripe for stripe in range(3) for _ in range(2)]
    return gpd.GeoSeries.from_xy(x, [5199840, 5199520] * 3, crs=32633).to_crs(4326)


def table(ids: Any = NAMES, **changed: Any) -> Any:
    """Places of a table as `embed_table` makes it, whose neighbours are in their own stripe."""
    rng = np.random.default_rng(0)
    stripes = np.repeat(np.eye(3), 2, axis=0)
    metas = [
        {"spatial": {"type": "PointBuffer", "lon": p.x, "lat": p.y, "buffer_m": 80.0}}
        for p in points()
    ]
    frame = gpd.GeoDataFrame({"meta": [json.dumps(meta) for meta in metas]}, geometry=points())
    held = {
        "ids": list(ids),
        "embeddings": (stripes + 0.01 * rng.normal(size=(6, 3))).astype(np.float32),
        "frame": frame,
        "meta": {"model": "scalemae", "used_patch_size": 8, "image_size": 224},
    }
    return SimpleNamespace(**{**held, **changed})


def strongest(picture: Image.Image, number: int, columns: int) -> str:
    """Return the colour in the middle of a panel."""
    left, top = 8 + number % columns * STEP[0], 8 + number // columns * STEP[1]
    pixel = picture.getpixel((left + PANEL // 2, top + PANEL // 2))
    assert isinstance(pixel, tuple)
    return STRIPES[int(np.argmax(pixel))]


@pytest.mark.parametrize(("query", "right"), [(0, "red red"), (3, "green green"), (4, "blue blue")])
@pytest.mark.parametrize("ids", [NAMES, range(6), HOSTILE], ids=["names", "numbers", "hostile"])
def test_images_of_the_query_and_its_neighbours(
    scene: Path, tmp_path: Path, query: int, right: str, ids: Any
) -> None:
    given = table(ids)
    nearest(given, given.ids[query], 3, picture=tmp_path / "hits.png", imagery=scene)
    with Image.open(tmp_path / "hits.png") as picture:
        assert picture.size == (2 * STEP[0] + 8, 2 * STEP[1] + 8)
        shown = [strongest(picture, number, 2) for number in range(4)]
        dark = np.asarray(picture.convert("L")) < 100
    assert shown[:2] == right.split()
    assert right.split()[0] not in shown[2:]
    for number in range(4):  # text is below each panel, and within its width
        left, top = 8 + number % 2 * STEP[0], 8 + number // 2 * STEP[1] + PANEL
        assert dark[top : top + TEXT_PX // 2, left : left + PANEL].any()
        assert not dark[top : top + TEXT_PX, left + PANEL : left + STEP[0]].any()


@pytest.mark.parametrize("shift", [0, 180 - 13.7], ids=["Austria", "antimeridian"])
def test_a_map_without_imagery(tmp_path: Path, shift: float) -> None:
    """The query is a red cross, and what is most similar is yellow (the end of viridis)."""
    at = points()
    lon = (at.x + shift + 180) % 360 - 180
    frame = gpd.GeoDataFrame(geometry=gpd.points_from_xy(lon, at.y), crs=4326)
    nearest(table(frame=frame), "r0", 5, picture=tmp_path / "hits.png")
    with Image.open(tmp_path / "hits.png") as picture:
        pixels = np.asarray(picture).astype(int)[:640, :640]
    crossed, best = ((abs(pixels - c).sum(axis=2) < 6) for c in ((255, 0, 0), (253, 231, 37)))
    for found, place in ((crossed, 0), (best, 1)):
        down, across = np.nonzero(found)
        assert across.max() - across.min() < 20
        # The square around all places is 580 px wide; 640 by 320 m.
        right = 30 + (at.x[place] - at.x.min()) / (at.x.max() - at.x.min()) * 580
        assert across.mean() == pytest.approx(right, abs=8)
        assert (down.mean() < 320) == (place == 0)  # r0 is north of r1


def test_places_without_geometry_are_not_on_the_map(tmp_path: Path) -> None:
    shapes = [None, *points()[1:]]
    frame = gpd.GeoDataFrame(geometry=shapes, crs=4326)
    for query in ("r0", "r1"):
        nearest(table(frame=frame), query, 5, picture=tmp_path / f"{query}.png")
        with Image.open(tmp_path / f"{query}.png") as picture:
            red = (np.asarray(picture) == (255, 0, 0)).all(axis=2)
        assert red.any() == (query == "r1")


def test_images_of_chips_are_read_again(scene: Path, tmp_path: Path) -> None:
    meta = {"spatial": None, "source": {"path": str(scene)}}
    frame = gpd.GeoDataFrame({"meta": [json.dumps(meta)] * 6}, geometry=points())
    nearest(table(frame=frame), "r0", 3, picture=tmp_path / "hits.png")
    with Image.open(tmp_path / "hits.png") as picture:
        assert picture.size == (2 * STEP[0] + 8, 2 * STEP[1] + 8)
        assert strongest(picture, 0, 2) == "green"  # the middle of all of the scene


def test_a_place_outside_is_grey_and_told(scene: Path, tmp_path: Path) -> None:
    given = table()
    far = {"spatial": {"type": "PointBuffer", "lon": 0.0, "lat": 0.0, "buffer_m": 100.0}}
    given.frame.loc[1, "meta"] = json.dumps(far)
    with pytest.warns(ImageryWarning, match="the picture has no image of r1: the requested place"):
        nearest(given, "r0", 3, picture=tmp_path / "hits.png", imagery=scene)
    with Image.open(tmp_path / "hits.png") as picture:
        assert picture.getpixel((8 + STEP[0] + 88, 96)) == (128, 128, 128)
    given.frame["meta"] = json.dumps(far)
    with pytest.raises(RsEmbedError, match="outside the imagery"):
        nearest(given, "r0", 3, picture=tmp_path / "none.png", imagery=scene)
    assert not (tmp_path / "none.png").exists()


PLAIN = gpd.GeoDataFrame({"n": range(6)}, geometry=list(points()))
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[RsEmbedError], str]] = {
    "not a picture": ({}, {"picture": "hits.pdf"}, UnknownNameError, "'.pdf', expected one of"),
    "no folder": ({}, {"picture": "no/hits.png"}, ExportError, "there is no folder"),
    "no such argument": ({}, {"picture": "h.png", "image": "a.tif"}, UnknownNameError,
                         "'image'.*did you mean 'imagery'"),
    "no picture": ({}, {"imagery": "a.tif"}, SpecError, "got imagery without picture="),
    "several queries": ({}, {"query": np.eye(3), "picture": "h.png"}, SpecError, "several queries"),
    "no places": ({"frame": PLAIN}, {"picture": "h.png", "imagery": "a.tif"}, SpecError,
                  "does not state its places"),
    "no CRS": ({"frame": PLAIN}, {"picture": "h.png"}, SpecError, "without geometry or CRS"),
    "no geometry": ({"frame": gpd.GeoDataFrame(geometry=[None] * 6, crs=4326)},
                    {"picture": "h.png"}, SpecError, "without a single geometry"),
    "no imagery": ({}, {"picture": "h.png", "imagery": "gone.tif"}, RsEmbedError, "gone.tif"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "given", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_refused(
    changed: Any, given: Any, error: Any, match: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=match):
        nearest(table(**changed), **{"query": "r0", "k": 3, **given})
    assert not list(tmp_path.iterdir())


def test_the_command_draws_images_or_a_map(scene: Path, tmp_path: Path) -> None:
    at = points()
    frame = gpd.GeoDataFrame({"id": NAMES}, geometry=at)
    frame.to_file(tmp_path / "p.gpkg")
    batch = ["batch", str(tmp_path / "p.gpkg"), "-o", str(tmp_path / "v.parquet"), "--imagery"]
    batch += [str(scene), "--buffer-m", "80", "--variant", "tiny", "--input-prep", "tile"]
    assert CliRunner().invoke(app, batch).exit_code == 0
    out = tmp_path / "hits.png"
    search = ["search", str(tmp_path / "v.parquet"), "--like-id", "b0", "-k", "1"]
    for more, size in (
        (["--imagery", str(scene)], (376, 218)), (["--local", str(scene)], (376, 218)),
        ([], (730, 666)),
    ):  # fmt: skip
        done = CliRunner().invoke(app, [*search, "--png", str(out), *more])
        assert done.exit_code == 0, done.output
        assert f"wrote {out}" in done.output
        with Image.open(out) as picture:
            assert picture.size == size
            assert not more or [strongest(picture, n, 2) for n in (0, 1)] == ["blue", "blue"]
    done = CliRunner().invoke(app, [*search, "--imagery", str(scene)])
    assert "only with --png or --like image.tif" in str(done.exception)


def test_what_is_printed_is_short(tmp_path: Path) -> None:
    """A list of 60 embeddings is at most 60 lines of 200 characters, as are tables of them."""
    spatials = [PointBuffer(-75.63 + 0.0005 * n, 37.694, 320) for n in range(3)]
    far = [PointBuffer(0, 0.001 * n, 320) for n in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RsEmbedWarning)
        listed = get_embeddings_batch("scalemae", spatials=spatials, backend="sample", **TINY)
        report = export_batch(
            "scalemae", [*spatials, *far], output=tmp_path / "v.npz", backend="sample", **TINY
        )
        held = embed_table("scalemae", [*spatials, *far], backend="sample", **TINY)
    shown = repr(listed[1])
    assert shown == (
        "<Embedding 192 float32: scalemae, scalemae-tiny, PointBuffer(-75.6295, 37.694, 320), "
        "input_res 10>"
    )
    assert len(repr(listed * 20)) <= 60 * 200
    for result in (report, held, places_of(spatials * 400), read_vectors(report.path)):
        assert len(repr(result).splitlines()) <= 10, repr(result)
        assert len(repr(result)) <= 2000


def test_a_repr_states_days_and_warnings(dated: Path) -> None:
    from rs_embed import LocalProvider, get_embedding

    place = gpd.GeoSeries([Point(400640, 5199360)], crs=32633).to_crs(4326)[0]
    with pytest.warns(RsEmbedWarning):
        made = get_embedding(
            "scalemae", spatial=PointBuffer(place.x, place.y, 160), variant="tiny",
            backend=LocalProvider(dated),
        )  # fmt: skip
    count = len(made.meta["warnings"])
    assert f", 2022-07-04, input_res 1.25, {count} warning" in repr(made)
