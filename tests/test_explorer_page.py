"""The page of the explorer in a browser: what it computes, shows, refuses and writes."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from pyproj import CRS, Transformer
from rasterio.features import shapes
from shapely.geometry import shape as shape_of
from shapely.ops import unary_union
from sklearn.linear_model import LogisticRegression

from rs_embed import (
    SAMPLE_PLACE,
    Grid,
    PointBuffer,
    explore,
    fit_classifier,
    get_embedding,
    nearest,
)
from rs_embed.explorer.crs import browser_crs
from tests.explorer_sites import TRANSFORM, Site, map_site, table_site, units

sync_api = pytest.importorskip("playwright.sync_api")
sync_api.expect.set_options(timeout=30_000)
HOSTILE = '<script>hacked = 1</script>"\'\n<img src=x onerror="hacked = 1"> שלום'
PLACES = 300


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sites")


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        missing = "chromium is not installed: apt-get install chromium"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Open pages; check at the end that none had an error or asked another host."""
    errors: list[str] = []
    requests: list[str] = []
    context = browser.new_context(viewport={"width": 900, "height": 500}, accept_downloads=True)

    def open_page(address: str, problem: bool = False) -> Any:
        page = context.new_page()
        page.set_default_timeout(60_000)
        if not problem:
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address if "://" in address else f"{url}/{address}")
        if not problem:
            page.evaluate("rsEmbedExplorer.ready")
            settled(page)
        return page

    yield open_page
    context.close()
    assert errors == []
    assert [r for r in requests if not r.startswith((url, "blob:", "data:", "file:"))] == []


def settled(page: Any) -> None:
    page.evaluate("rsEmbedExplorer.settled()")


def linked(page: Any, *parts: str) -> None:
    """Wait until the address says what the page shows, among it ``parts``."""
    page.evaluate(
        """async parts => {
            const done = () => location.hash === rsEmbedExplorer.link
                && parts.every(part => location.hash.includes(part));
            while (!done()) await new Promise(next => setTimeout(next, 20));
        }""",
        list(parts),
    )
    settled(page)


def go_to(page: Any, hash_: str) -> None:
    page.evaluate(
        """hash => new Promise(done => {
            addEventListener("hashchange", () => setTimeout(done), { once: true });
            location.hash = hash;
        })""",
        hash_,
    )
    settled(page)


def values(page: Any, name: str = "similarity") -> Any:
    found = page.evaluate(f"Array.from(rsEmbedExplorer.{name} ?? [], v => v ?? NaN)")
    return np.array(found, float)


def click(page: Any, index: int, layer: int = 0, **options: Any) -> None:
    x, y = page.evaluate(f"rsEmbedExplorer.pixelOf({layer}, {index})")
    page.locator("#map").click(position={"x": x, "y": y}, **options)
    settled(page)


def view_of(page: Any) -> str:
    return str(page.locator("input[name=view]:checked").input_value())


def set_slider(page: Any, name: str, value: float) -> None:
    page.locator(f"#{name}").evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input'));"
        " input.dispatchEvent(new Event('change')); }",
        value,
    )
    settled(page)


def downloaded(page: Any, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(f"#{button}")
    path = folder / str(download.value.suggested_filename)
    download.value.save_as(path)
    return path


@pytest.fixture(scope="module")
def site(root: Path) -> Site:
    return map_site(root / "map")


@pytest.fixture(scope="module")
def two(root: Path) -> Site:
    return map_site(root / "deep" / "er" / "two", dates=2)


@pytest.fixture(scope="module")
def places() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "id": [HOSTILE, *(f"place {i}" for i in range(1, PLACES))],
        "lon": rng.uniform(8, 12, PLACES).tolist(),
        "lat": [None, *rng.uniform(46, 49, PLACES - 1).tolist()][::-1],
        "columns": {HOSTILE: [HOSTILE] * PLACES, "area": [{"ha": i} for i in range(PLACES)]},
    }


@pytest.fixture(scope="module")
def table(root: Path, places: dict[str, Any]) -> Site:
    return table_site(root / "table", places, title=HOSTILE)


# Clicks that are like and unlike what is looked for.
SEARCHES: dict[str, tuple[list[int], list[int]]] = {
    "one": ([100], []),
    "one of zeros": ([3], []),
    "two": ([100, 200], []),
    "two and one unlike": ([100, 101], [300]),
    "only unlike": ([], [50]),
    "three of each: logistic regression": ([100, 101, 120], [300, 310, 20, 7]),
}


def expected_scores(units: Any, like: list[int], unlike: list[int]) -> Any:
    if min(len(like), len(unlike)) >= 3:
        labels = [1] * len(like) + [0] * len(unlike)
        model = LogisticRegression(C=10, tol=1e-10, max_iter=10_000)
        return model.fit(units[[*like, *unlike]], labels).predict_proba(units)[:, 1]
    query = np.zeros(units.shape[1])
    for sign, side in ((1, like), (-1, unlike)):
        query += sign * units[side].mean(axis=0) if side else 0
    return units @ (query / max(np.linalg.norm(query), 1e-300))


@pytest.mark.parametrize("kernel", ["", "?kernel=js"])
def test_scores_are_those_of_numpy(opened: Callable[..., Any], site: Site, kernel: str) -> None:
    page = opened(f"map/{kernel}")
    assert page.evaluate("rsEmbedExplorer.kernel") == (
        "JavaScript" if kernel else "WebAssembly SIMD"
    )
    for name, (like, unlike) in SEARCHES.items():
        sides = [" ".join(map(str, side)) for side in (like, unlike)]
        go_to(page, f"view=similarity&like={sides[0]}&unlike={sides[1]}")
        expected = expected_scores(site.units[0], like, unlike)
        np.testing.assert_allclose(values(page), expected, atol=1e-4, err_msg=name)
        if name == "one":
            np.testing.assert_allclose(values(page), expected, atol=1e-6)
            exact = (
                site.floats[0] / np.maximum(np.linalg.norm(site.floats[0], axis=1), 1e-9)[:, None]
            )
            np.testing.assert_allclose(values(page), exact @ exact[100], atol=0.01)


def test_a_site_of_explore(opened: Callable[..., Any], root: Path) -> None:
    place = PointBuffer(*SAMPLE_PLACE.centre, buffer_m=640)
    request: dict[str, Any] = {"backend": "sample", "variant": "tiny", "output": "grid"}
    grid = get_embedding("scalemae", spatial=place, **request)
    explore(grid, output=root / "written")
    page = opened("written/")
    tokens = grid.data.values.reshape(len(grid.data), -1).T
    directions = units(tokens - tokens.mean(axis=0))
    click(page, 20)
    np.testing.assert_allclose(values(page), directions @ directions[20], atol=0.01)
    assert page.locator("#hits canvas").count() == len(page.evaluate("rsEmbedExplorer.top"))


def test_a_click_searches_and_shift_and_control_add(opened: Callable[..., Any], site: Site) -> None:
    page = opened("map/")
    readout, (x, y) = page.locator("#readout"), page.evaluate("rsEmbedExplorer.pixelOf(0, 100)")
    row, column = divmod(int(site.cells[0][100]), site.shape[1])
    page.locator("#map").hover(position={"x": x, "y": y})
    sync_api.expect(readout).to_have_text(f"row {row}, column {column}")
    click(page, 100)
    sync_api.expect(readout).to_have_text(f"row {row}, column {column}1.000")
    page.locator("#title").hover()
    sync_api.expect(readout).to_be_hidden()
    np.testing.assert_allclose(values(page), site.units[0] @ site.units[0][100], atol=1e-6)
    set_slider(page, "threshold", 0.5)
    click(page, 250)  # a new search
    np.testing.assert_allclose(values(page), site.units[0] @ site.units[0][250], atol=1e-6)
    assert "threshold" not in page.evaluate("rsEmbedExplorer.link")
    set_slider(page, "threshold", 0.2)
    click(page, 100, modifiers=["Control"])
    assert "threshold=0.2" in page.evaluate("rsEmbedExplorer.link")
    click(page, 30, modifiers=["Shift"])
    np.testing.assert_allclose(
        values(page), expected_scores(site.units[0], [250, 100], [30]), atol=1e-4
    )
    assert page.locator("#chosen li").count() == 3
    page.locator("#chosen li button").nth(2).click()
    settled(page)
    np.testing.assert_allclose(
        values(page), expected_scores(site.units[0], [250, 100], []), atol=1e-4
    )
    for _ in range(2):
        page.locator("#chosen li button").first.click()
    settled(page)
    assert view_of(page) == "image"
    assert len(values(page)) == 0


def test_hits_are_those_of_nearest_and_some_cells_apart(
    opened: Callable[..., Any], site: Site, table: Site, places: dict[str, Any]
) -> None:
    searches = (("map/#apart=0&like=100&", site), ("table/#like=place+100&", table))
    for address, of in searches:
        rows = of.vectors[0].astype(np.float32)
        rows[3] = rows[3] if rows[3].any() else np.nan  # zeros have no direction
        frame = geopandas.GeoDataFrame(index=range(len(rows)))
        ids = [str(i) for i in range(len(rows))]
        hits = nearest(
            SimpleNamespace(ids=ids, embeddings=rows, frame=frame), "100", k=30, centred=False
        )
        page = opened(f"{address}view=similarity&top=30")
        assert page.evaluate("rsEmbedExplorer.top") == [int(i) for i in hits["id"]]
        page.locator("#hits button").nth(2).click()
        page.close()
    page = opened("map/#view=similarity&like=100&top=10&apart=4")
    at = [divmod(int(cell), site.shape[1]) for cell in site.cells[0]]
    kept = [100]
    for i in np.argsort(-values(page), kind="stable"):
        if all(max(abs(at[i][0] - at[j][0]), abs(at[i][1] - at[j][1])) > 4 for j in kept):
            kept.append(int(i))
    assert page.evaluate("rsEmbedExplorer.top") == kept[1:11]
    set_slider(page, "k", 20)
    assert page.evaluate("rsEmbedExplorer.top") == kept[1:21]


ROTATED = (30.0, 20.0, 500_000.0, 20.0, -30.0, 5_400_000.0)
NO_CODE = "+proj=laea +lat_0=48 +lon_0=15 +x_0=500000 +y_0=5400000 +ellps=GRS80"


@pytest.mark.parametrize(
    ("transform", "code"),
    [(TRANSFORM, "EPSG:32633"), (ROTATED, NO_CODE)],
    ids=["north up", "rotated, without a code of EPSG"],
)
def test_downloads_of_a_map_open_elsewhere(
    opened: Callable[..., Any],
    root: Path,
    tmp_path: Path,
    transform: tuple[float, ...],
    code: str,
) -> None:
    folder = root / f"downloads {transform[1]:.0f}"
    crs: dict[str, Any] = browser_crs(Grid(CRS(code), rasterio.Affine(*transform), (18, 26)))
    site = map_site(folder, transform=transform, title="Über/Inn <1>", **crs)
    page = opened(f"{folder.name}/#view=similarity&like=100 101&unlike=30&threshold=0.15")
    similarity = values(page)
    full = np.full(site.shape, np.nan)
    full.flat[site.cells[0]] = similarity
    with rasterio.open(downloaded(page, "save-geotiff", tmp_path)) as raster:
        assert raster.dtypes == ("float32",)
        assert raster.crs.to_epsg() == CRS(code).to_epsg()
        there = Transformer.from_crs(CRS(raster.crs.to_wkt()), code, always_xy=True)
        np.testing.assert_allclose(there.transform(5e5, 5.4e6), (5e5, 5.4e6), atol=1e-3)
        assert tuple(raster.transform)[:6] == transform
        assert np.isnan(raster.nodata)
        np.testing.assert_array_equal(raster.read(1), full.astype(np.float32))
        affine = raster.transform
    path = downloaded(page, "save-geojson", tmp_path)
    assert path.name == "Über-Inn-1--areas.geojson"
    areas = geopandas.read_file(path)
    assert areas.crs == "EPSG:4326"
    assert areas.is_valid.all()
    assert all(polygon.exterior.is_ccw for polygon in areas.geometry)
    assert not any(hole.is_ccw for polygon in areas.geometry for hole in polygon.interiors)
    mask = (full >= 0.15).astype(np.uint8)
    parts = shapes(mask, mask=mask > 0, connectivity=4, transform=affine)
    right = [shape_of(geometry) for geometry, _ in parts]
    ours = areas.to_crs(code)
    assert len(ours) == len(right)
    assert areas["cells"].sum() == mask.sum()
    assert unary_union(right).symmetric_difference(ours.union_all()).area < 1e-3 * 1600

    with downloaded(page, "save-csv", tmp_path).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    labels = geopandas.read_parquet(downloaded(page, "save-parquet", tmp_path))
    assert labels.crs == "OGC:CRS84"
    assert [row["label"] for row in rows] == list(labels["label"])
    assert list(labels["label"]) == ["positive", "positive", "negative"]
    columns, lines_ = ~affine @ np.array(labels.to_crs(code).get_coordinates()).T
    at = np.floor(lines_).astype(int) * site.shape[1] + np.floor(columns).astype(int)
    assert list(at) == list(site.cells[0][[100, 101, 30]])
    np.testing.assert_allclose([float(row["lon"]) for row in rows], labels.geometry.x)
    classifier = fit_classifier(site.floats[0][[100, 101, 30]], labels["label"])
    assert list(classifier.classes) == ["negative", "positive"]


def test_classes_are_the_same_each_time_and_can_be_named(
    opened: Callable[..., Any], site: Site, tmp_path: Path
) -> None:
    page = opened("map/")
    tif = page.locator("#save-geotiff")
    assert "group what is alike" in tif.get_attribute("title")
    assert tif.get_attribute("title") in page.locator("#files-hint").inner_text()
    set_slider(page, "classes", 4)
    page.click("#group")
    settled(page)
    first = page.evaluate("Array.from(rsEmbedExplorer.classes[0])")
    counts = np.bincount(first)
    assert list(counts) == sorted(counts, reverse=True)
    assert len(counts) == 4
    shown = page.locator("#class-list li span").all_inner_texts()
    assert [int(text) for text in shown] == list(counts)
    # Each vector is of the class whose mean direction is nearest.
    units = site.units[0]
    means = np.stack([units[np.array(first) == c].sum(axis=0) for c in range(4)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert (np.argmax(units @ means.T, axis=1) == first).mean() > 0.97
    page.locator("#class-list input").nth(1).fill('"wet", <b>&')
    linked(page, "name=")
    page.locator("#labels label").nth(1).click()
    labels = geopandas.read_parquet(downloaded(page, "save-parquet", tmp_path))
    names = ["class 1", '"wet", <b>&', "class 3", "class 4"]
    assert list(labels["label"]) == [names[c] for c in first]
    with rasterio.open(downloaded(page, "save-geotiff", tmp_path)) as raster:
        assert (raster.dtypes, raster.nodata) == (("uint8",), 255)
        full = np.full(site.shape, 255)
        full.flat[site.cells[0]] = np.array(first)
        np.testing.assert_array_equal(raster.read(1), full)
        tags, colours = raster.tags(1), raster.colormap(1)
    assert json.loads(tags["classes"]) == names
    swatch = page.locator("#class-list i").nth(2).evaluate("i => getComputedStyle(i).background")
    assert f"rgb{colours[2][:3]}" in swatch
    again = opened(page.url)
    assert page.url.split("#")[1]
    assert again.evaluate("Array.from(rsEmbedExplorer.classes[0])") == first
    inputs = again.locator("#class-list input")
    assert inputs.nth(1).input_value() == '"wet", <b>&'
    inputs.nth(0).fill("a")
    inputs.nth(3).fill("d")
    set_slider(again, "classes", 6)
    found = np.array(again.evaluate("Array.from(rsEmbedExplorer.classes[0])"))
    shared = np.zeros((4, 6), int)
    np.add.at(shared, (first, found), 1)
    given, kept = ["a", '"wet", <b>&', "", "d"], []
    for c in range(6):
        old = int(shared[:, c].argmax())
        kept.append(given[old] if shared[old].argmax() == c else "")
    assert [box.input_value() for box in inputs.all()] == kept
    assert {"a", '"wet", <b>&', "d"} == {*kept} - {""}
    linked(again, "classes=6", "name=a")


def test_a_permalink_restores_the_picture(opened: Callable[..., Any], two: Site) -> None:
    page = opened("deep/er/two/")
    click(page, 100)
    click(page, 300, modifiers=["Shift"])
    page.click("#zoom-in")
    page.check("#swipe-on")
    settled(page)
    set_slider(page, "swipe", 0.3)
    name = page.locator("#swipe-names bdi").first.inner_text()
    assert page.locator("#swipe-note").inner_text().endswith(f"are of {name}.")
    set_slider(page, "opacity", 0.6)
    set_slider(page, "threshold", 0.1)
    set_slider(page, "k", 30)
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(5, 690)
    linked(page, "at=", "top=30")
    again = opened(page.url)
    canvas = "document.querySelector('#map canvas').toDataURL()"
    assert page.evaluate(canvas) == again.evaluate(canvas)
    np.testing.assert_array_equal(values(page), values(again))
    panel = "document.querySelector('aside').innerText"
    assert page.evaluate(panel) == again.evaluate(panel)


def test_two_layers_share_a_search_and_have_a_change(
    opened: Callable[..., Any], two: Site, tmp_path: Path
) -> None:
    page = opened("deep/er/two/#view=similarity&layer=1&like=40@1")
    np.testing.assert_allclose(values(page), two.units[1] @ two.units[1][40], atol=1e-6)
    page.locator("#layers label").first.click()  # the same place, compared with the other date
    settled(page)
    np.testing.assert_allclose(values(page), two.units[0] @ two.units[1][40], atol=1e-6)
    assert downloaded(page, "save-geotiff", tmp_path).stem == "Example-similarity-2021-06-17"
    page.locator("#views label", has_text="Change").click()
    settled(page)
    other = {int(cell): row for cell, row in zip(two.cells[1], two.units[1], strict=True)}
    expected = [
        1 - row @ other[int(cell)] if int(cell) in other else np.nan
        for cell, row in zip(two.cells[0], two.units[0], strict=True)
    ]
    np.testing.assert_allclose(values(page, "change"), expected, atol=1e-6)
    assert "change" in page.locator("#legend").inner_text()


def test_the_keyboard_alone_is_enough(opened: Callable[..., Any], site: Site) -> None:
    page = opened("map/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "map"
    for key in ("ArrowUp", "ArrowRight", "Shift+ArrowDown", "Enter"):
        page.keyboard.press(key)
    settled(page)
    own = int(np.argmax(values(page)))
    np.testing.assert_allclose(values(page), site.units[0] @ site.units[0][own], atol=1e-6)
    page.keyboard.press("ArrowLeft")
    status = page.locator("#status").inner_text()
    row, column = divmod(int(site.cells[0][own]), site.shape[1])
    assert status.startswith(f"row {row}, column {column - 1}: ")
    page.keyboard.press("Shift+Enter")
    settled(page)
    np.testing.assert_allclose(
        values(page), expected_scores(site.units[0], [own], [own - 1]), atol=1e-4
    )
    page.keyboard.press("p")  # the other sign
    settled(page)
    np.testing.assert_allclose(
        values(page), expected_scores(site.units[0], [own, own - 1], []), atol=1e-4
    )
    page.focus("#threshold")
    page.keyboard.press("Escape")
    settled(page)
    assert len(values(page)) == 0
    assert view_of(page) == "image"
    assert page.locator("#status").inner_text() == "The search is cleared."
    go_to(page, f"like={own} 999999")
    sync_api.expect(page.locator("#status")).to_contain_text("a place that is not here: 999999")
    page.focus("#map")
    page.keyboard.press("?")
    assert page.locator("#help-text").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help-text").is_visible()


def test_a_table_shows_its_places_and_markup_is_text(
    opened: Callable[..., Any], table: Site, places: dict[str, Any], tmp_path: Path
) -> None:
    page = opened("table/")
    assert page.locator("#title").text_content() == HOSTILE
    click(page, 0)
    np.testing.assert_allclose(values(page), table.units[0] @ table.units[0][0], atol=1e-6)
    assert page.locator("#attributes dt").first.text_content() == HOSTILE
    assert page.locator("#attributes dd").all_text_contents() == [HOSTILE, '{"ha":0}']
    assert page.evaluate("[typeof hacked, document.images.length, document.scripts.length]") == [
        "undefined", 0, 1,
    ]  # fmt: skip
    click(page, 7, modifiers=["Shift"])
    set_slider(page, "threshold", 0.5)
    areas = geopandas.read_file(downloaded(page, "save-geojson", tmp_path))
    above = [i for i in range(PLACES) if values(page)[i] >= 0.5 and places["lat"][i] is not None]
    assert list(areas["id"]) == [places["id"][i] for i in above]
    with downloaded(page, "save-csv", tmp_path).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert rows == [{"id": HOSTILE, "label": "positive"}, {"id": "place 7", "label": "negative"}]
    labels = geopandas.read_parquet(downloaded(page, "save-parquet", tmp_path))
    assert [list(labels[name]) for name in ("id", "label")] == [
        [HOSTILE, "place 7"], ["positive", "negative"],
    ]  # fmt: skip
    page.keyboard.press("ArrowRight")
    assert "place" in page.locator("#status").inner_text()
    linked(page, "unlike=place+7")
    go_to(page, "view=similarity&like=place+9&like=gone&like=12&unlike=place+3")
    sync_api.expect(page.locator("#status")).to_contain_text("2 places that are not here: gone")
    assert page.locator("#chosen bdi").all_text_contents() == ["place 9", "place 3"]
    np.testing.assert_allclose(values(page), expected_scores(table.units[0], [9], [3]), atol=1e-4)


def _truncated(site: Site) -> None:
    path = site.folder / "data/0.vectors.i8"
    path.write_bytes(path.read_bytes()[:-5])


PROBLEMS: dict[str, tuple[Callable[[Site], Any], str]] = {
    "another format": (lambda s: s.change(format=2), "has format 2, this page reads format 1"),
    "not JSON": (lambda s: (s.folder / "explore.json").write_text("{"), "is not valid JSON"),
    "no explore.json": (lambda s: (s.folder / "explore.json").unlink(), "HTTP 404"),
    "no vectors": (lambda s: (s.folder / "data/0.vectors.i8").unlink(), "0.vectors.i8 cannot be"),
    "vectors cut off": (_truncated, r"0.vectors.i8 has \d+ bytes, explore.json says \d+"),
    "no picture": (lambda s: (s.folder / "data/0.png").unlink(), "0.png is missing"),
    "unknown CRS": (lambda s: s.change(crs="X:1", proj4=None), "the CRS “X:1” without a valid"),
    "too much for memory": (lambda s: s.change(dimensions=10**8), "MB of memory"),
    "three layers": (lambda s: s.change(layers=[{}] * 3), "has 3 layers"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_said_in_the_page(opened: Callable[..., Any], root: Path, name: str) -> None:
    spoil, message = PROBLEMS[name]
    spoil(map_site(root / name.replace(" ", "-")))
    page = opened(f"{name.replace(' ', '-')}/", problem=True)
    sync_api.expect(page.locator("#problem")).to_have_text(re.compile(message))
    page.close()


def test_a_page_from_a_file_says_how_to_serve_it(opened: Callable[..., Any], site: Site) -> None:
    page = opened((site.folder / "index.html").as_uri(), problem=True)
    sync_api.expect(page.locator("#problem")).to_contain_text("rs-embed explore --serve")


def test_a_base_map_is_the_only_other_host(browser: Any, url: str, root: Path, site: Site) -> None:
    tile = "http://localhost:{port}/{{z}}/{{x}}/{{y}}.png"
    port = url.rsplit(":", 1)[1]
    base_map = {"url": tile.format(port=port), "attribution": "© <b>us</b>"}
    map_site(root / "with-base-map", base_map=base_map)
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{url}/with-base-map/")
    page.evaluate("rsEmbedExplorer.ready")
    while not any(request.startswith(f"http://localhost:{port}/") for request in asked):
        page.wait_for_timeout(20)
    assert page.locator("#attribution").text_content() == "© <b>us</b>"
    blocked = page.evaluate(
        "new Promise(done => { addEventListener('securitypolicyviolation', () => done(true));"
        f" new Image().src = '{url.replace('127.0.0.1', '127.0.0.2')}/x.png' }})"
    )
    assert blocked
    page.close()
