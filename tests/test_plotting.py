"""Plots show the numbers that NumPy and scikit-learn give, or are refused by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import geopandas
import matplotlib as mpl
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # gives .rio
import xarray as xr
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from pyproj import Transformer
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from typer.testing import CliRunner

from rs_embed import Embedding, EmbeddingTable, cluster_map, plotting
from rs_embed.classification.class_maps import MUTED
from rs_embed.cli import app
from rs_embed.errors import (
    CoverageWarning,
    ExportError,
    ImageryWarning,
    RsEmbedError,
    RsEmbedWarning,
    SpecError,
    UnknownNameError,
)
from rs_embed.runs.journal import SHARED, Journal, JournalResult

SHAPE, DEPTH = (10, 12), 6
HOLE = (3, 4)
META = {"model": "scalemae", "weights": "tiny", "weights_sha256": "0" * 64, "gsd_m": 10.0}
EVIL = '</svg><script>alert("$x$")</script>'


def tokens(shift: float = 0.0) -> NDArray[np.float32]:
    """Return smooth tokens ``(d, y, x)`` with one hole, so that neighbours are alike."""
    y, x = np.meshgrid(*(np.linspace(0, 3, side) for side in SHAPE), indexing="ij")
    waves = [np.sin((k + 1) * x + k * y + shift) / (k + 1) + 2 for k in range(DEPTH)]
    found = np.stack(waves).astype(np.float32)
    found[:, *HOLE] = np.nan
    return found


def array(values: NDArray[np.float32], crs: str = "EPSG:32633", **meta: Any) -> xr.DataArray:
    """Return a map whose cells are 80 m wide."""
    rows, columns = values.shape[1:]
    coords = {
        "y": 5_400_000 - 80 * (np.arange(rows) + 0.5),
        "x": 390_000 + 80 * (np.arange(columns) + 0.5),
    }
    placed: xr.DataArray = xr.DataArray(values, dims=("d", "y", "x"), coords=coords).rio.write_crs(
        crs
    )
    placed.attrs["meta"] = json.dumps({**META, **meta})
    return placed


def table(count: int = 30, crs: str | None = "EPSG:32633", **meta: Any) -> EmbeddingTable:
    """Return places in a row, each with its GSD; the last one has failed."""
    rows = np.random.default_rng(0).normal(1, 1, (count, DEPTH)).astype(np.float32)
    rows[-1] = np.nan
    each = [
        json.dumps({"input_res_m": 10.0 + n, "valid_fraction": 1 - n / 100}) for n in range(count)
    ]
    ids = [f"p{number}" for number in range(count)]
    points = geopandas.points_from_xy(390_000 + 100 * np.arange(count), np.full(count, 5e6))
    frame = geopandas.GeoDataFrame({"id": ids, "meta": each}, geometry=points, crs=crs)
    return EmbeddingTable(ids, rows, frame, {ids[-1]: "clouds"}, {**META, **meta})


def shown(figure: Figure) -> NDArray[Any]:
    """Return the image in the first axes, masked where it has no value."""
    drawn: Any = figure.axes[0].images[0].get_array()
    return np.asarray(np.ma.filled(drawn, np.nan))


def texts(figure: Figure) -> list[str]:
    legend: Any = figure.axes[0].get_legend()
    return [text.get_text() for text in legend.get_texts()]


def points(figure: Figure) -> NDArray[Any]:
    """Return the colours of the points of a table that have a value."""
    return np.asarray(figure.axes[0].collections[1].get_facecolor())


def lon_lat(row: int, column: int) -> tuple[float, float]:
    """Return the middle of a cell of `array`."""
    to_degrees = Transformer.from_crs(32633, 4326, always_xy=True)
    lon, lat = to_degrees.transform(390_000 + 80 * (column + 0.5), 5_400_000 - 80 * (row + 0.5))
    return float(lon), float(lat)


def rows_of(values: NDArray[Any]) -> NDArray[Any]:
    flat = values.reshape(DEPTH, -1).T
    return np.asarray(flat[np.isfinite(flat).all(axis=1)], np.float64)


def in_colours(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return 0..1 colours of rows by scikit-learn's PCA, each component with a positive peak."""
    model = PCA(3).fit(rows)
    peaks = model.components_[range(3), np.abs(model.components_).argmax(axis=1)]
    scores = model.transform(rows) * np.sign(peaks)
    low, high = np.percentile(scores, [2, 98], axis=0)
    colours: NDArray[np.float64] = ((scores - low) / (high - low)).clip(0, 1)
    return colours


def test_components_are_those_of_scikit_learn() -> None:
    values = tokens()
    found = shown(plotting.pca(array(values)))
    assert found[HOLE][3] == 0, "no token is transparent"
    known = found[..., 3] == 1
    assert known.sum() == 119
    assert np.allclose(found[known][:, :3], in_colours(rows_of(values)), atol=1 / 255)
    places = table()
    assert np.allclose(
        points(plotting.pca(places))[:, :3], in_colours(places.embeddings[:-1]), atol=1 / 255
    )


def test_two_maps_share_their_components() -> None:
    one, other = tokens(), tokens(0.5)
    figure = plotting.pca(array(one), array(other))
    both = in_colours(np.concatenate([rows_of(one), rows_of(other)]))
    second = np.asarray(figure.axes[1].images[0].get_array())
    assert np.allclose(second[second[..., 3] == 1][:, :3], both[119:], atol=1 / 255)


def test_similarity_is_that_of_scikit_learn() -> None:
    values = tokens()
    found = shown(plotting.similarity(array(values), point=lon_lat(5, 3)))
    flat = rows_of(values)
    mean = flat.mean(axis=0)
    query = values[:, 5, 3][None].astype(float)
    expected = cosine_similarity(query - mean, flat - mean)[0]
    assert found[np.isfinite(found)] == pytest.approx(expected, abs=1e-5)
    assert np.isnan(found[HOLE])
    places = table()
    figure = plotting.similarity(places, like_id="p3", centred=False)
    expected = cosine_similarity(places.embeddings[3:4], places.embeddings[:-1])[0]
    found = np.asarray(figure.axes[0].collections[1].get_array())
    assert found == pytest.approx(expected, abs=1e-6)


def test_clusters_are_those_of_scikit_learn_and_the_largest_is_first(tmp_path: Path) -> None:
    values = tokens()
    labels = KMeans(3, n_init=4, random_state=0).fit_predict(rows_of(values).astype(np.float32))
    order = np.argsort(-np.bincount(labels), kind="stable")
    expected = np.array([to_rgba(MUTED[order.tolist().index(label)]) for label in labels])
    figure = plotting.clusters(array(values), k=3)
    found = shown(figure)
    assert np.allclose(found[found[..., 3] == 1], expected)
    shares = np.sort(np.bincount(labels))[::-1] / 119
    assert texts(figure) == [
        *(f"cluster {n}: {s:.1%}" for n, s in enumerate(shares, 1)),
        "no token",
    ]
    file = tmp_path / "clusters.tif"
    codes = cluster_map(array(values), 3, output=file)
    with rasterio.open(file) as written:
        assert (written.read(1) == codes.values).all()
        assert written.read(1)[HOLE] == written.nodata == 255
        colours = [np.array(written.colormap(1)[n][:3]) / 255 for n in range(3)]
    assert np.allclose(colours, [to_rgba(colour)[:3] for colour in MUTED[:3]])
    assert len(np.unique(points(plotting.clusters(table(), k=4)), axis=0)) == 4


def test_change_is_the_cosine_distance() -> None:
    one, other = tokens(), tokens(0.5)
    found = shown(plotting.change(array(one), array(other)))
    expected = 1 - np.diag(cosine_similarity(rows_of(one), rows_of(other)))
    assert found[np.isfinite(found)] == pytest.approx(expected, abs=1e-6)
    figure = plotting.change(array(one), array(other), reference=array(tokens(-0.3)))
    noise = 1 - np.diag(cosine_similarity(rows_of(one), rows_of(tokens(-0.3))))
    above = expected > np.maximum(noise, np.quantile(noise, 0.95))
    drawn: Any = figure.axes[1].images[0].get_array()
    panel = np.ma.filled(drawn, np.nan)
    assert 0 < above.sum() < len(above)
    assert (np.isfinite(panel[np.isfinite(found)]) == above).all()


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ("gsd", [10.0 + n for n in range(29)]),
        ("validity", [1 - n / 100 for n in range(29)]),
        ("cosine", cosine_similarity(table().embeddings[:-1])[np.triu_indices(29, 1)]),
    ],
)
def test_histograms_are_those_of_numpy(of: Any, expected: Any) -> None:
    (first, *_) = plotting.histogram(table(), of=of).axes[0].patches
    values, edges, _ = first.get_data()  # type: ignore[attr-defined]  # of StepPatch
    inside = np.clip(expected, edges[0], edges[-1])  # but for rounding
    assert values == pytest.approx(np.histogram(inside, edges)[0] / len(expected))
    assert values.sum() == pytest.approx(1)


def test_one_value_is_said_and_grey_is_explained() -> None:
    figure = plotting.histogram(array(tokens(), gsd_m_range=[10, 10]), of="gsd")
    assert texts(figure) == ["map: all are 10"]
    assert "no embedding" in texts(plotting.clusters(table(), k=3))
    assert "no token" in texts(plotting.pca(array(tokens())))
    bar = plotting.similarity(table(), like_id="p1").axes[0].child_axes[0]
    assert bar.get_ylabel() == "cosine similarity, from the mean (grey: no embedding)"


def test_titles_break_between_their_parts() -> None:
    weights = "a-checkpoint-of-our-own-with-a-long-name"
    figure = plotting.pca(array(tokens(), weights=weights, temporal={"start": "1", "end": "2"}))
    lines = figure.axes[0].get_title().split("\n")
    assert len(lines) == 2
    assert lines[1] == f"scalemae, {weights}"


def test_coverage_of_tables_maps_and_unfinished_runs(tmp_path: Path) -> None:
    assert texts(plotting.coverage(table())) == [
        "embedded: 1", "embedded, a part is nodata: 28", "failed: 1",
    ]  # fmt: skip
    failed = EmbeddingTable(["a"], np.ones((1, 0), np.float32), table().frame[:1], {"a": "clouds"})
    assert texts(plotting.coverage(failed)) == ["failed: 1"]
    assert texts(plotting.coverage(array(tokens()))) == ["embedded: 119", "nodata: 1"]
    partial = tmp_path / "t.parquet.partial"
    vector, meta = np.ones(2, np.float32), {"valid_fraction": 0.5}
    with Journal(partial, "{}") as journal:
        for number, result in enumerate([(vector, meta, None), (None, None, "clouds")]):
            key = json.dumps([f"p{number}", "PointBuffer", 12.0, 48.0 + number, 100.0])
            journal.add(JournalResult(key, *result))
        journal.add(JournalResult(SHARED, vector[:0], {"places": 5}))
    assert texts(plotting.coverage(partial)) == [
        "embedded, a part is nodata: 1", "failed: 1", "left: 3",
    ]  # fmt: skip


def test_coverage_of_windows(tmp_path: Path) -> None:
    partial = tmp_path / "m.zarr.partial"
    lattice = {"crs": "EPSG:32633", "transform": [10, 0, 39e4, 0, -10, 54e5], "shape": [64, 96]}
    sizes = {"tile_size": 32, "overlap_px": 0, "patch_size": 16, "windows": 6}
    nothing = np.zeros(0, np.float32)
    with Journal(partial, "{}") as journal:
        journal.add(JournalResult(SHARED, nothing, {"layout": {"lattice": lattice, **sizes}}))
        journal.add(JournalResult("0 0", nothing + 1, {"seen_sha256": "1"}))
        journal.add(JournalResult("0 4", nothing, {}))
        journal.add(JournalResult("2 2", None, {}, "no answer"))
    figure = plotting.coverage(partial)
    assert texts(figure) == ["embedded: 1", "nodata: 1", "failed: 1", "left: 3"]
    done, empty, failed = ([*to_rgba(c)] for c in ("#009e73", "#f0e442", "#d55e00"))
    found = shown(figure)
    assert found.shape == (4, 6, 4)
    assert [found[0, 0].tolist(), found[1, 5].tolist(), found[3, 2].tolist()] == [
        done, empty, failed,
    ]  # fmt: skip
    assert found[0, 2, 3] == found[2, 0, 3] == 0


Call = Callable[[], Any]
REFUSALS: dict[str, tuple[Call, type[RsEmbedError], str]] = {
    "no grid": (
        lambda: plotting.pca(Embedding(np.ones(4, np.float32), META)), SpecError, "without a grid",
    ),
    "no CRS": (lambda: plotting.pca(array(tokens()).drop_vars("spatial_ref")), SpecError, "CRS"),
    "table without places": (lambda: plotting.pca(table(crs=None)), SpecError, "without places"),
    "neighbours without places": (
        lambda: plotting.similarity(table(crs=None), like_id="p1"), SpecError, "without places",
    ),
    "nothing": (lambda: plotting.pca(), SpecError, "got nothing to plot"),
    "few for components": (lambda: plotting.pca(table(4)), SpecError, "got 3 tokens.* least 4"),
    "few for clusters": (lambda: plotting.clusters(table(4), k=5), SpecError, "got 3 tokens"),
    "all equal": (
        lambda: plotting.clusters(array(np.ones((2, 4, 4), np.float32)), k=2), SpecError, "differ",
    ),
    "too many colours": (lambda: plotting.clusters(table(), k=10), SpecError, "2 to 9"),
    "two CRSs": (
        lambda: plotting.pca(array(tokens()), array(tokens(), "EPSG:32632")), SpecError,
        "EPSG:32632 and map in EPSG:32633",
    ),
    "two models": (
        lambda: plotting.pca(array(tokens()), array(tokens(), model="other")), SpecError,
        "model='other', expected 'scalemae'",
    ),
    "two dimensions": (
        lambda: plotting.pca(array(tokens()), array(tokens()[:4])), SpecError, "of 4 dimensions",
    ),
    "on nodata": (
        lambda: plotting.similarity(array(tokens()), point=lon_lat(*HOLE)), SpecError,
        "in a cell with a token",
    ),
    "no query": (lambda: plotting.similarity(table()), SpecError, "one of point"),
    "id of a map": (lambda: plotting.similarity(array(tokens()), like_id="a"), SpecError, "a map"),
    "unknown id": (lambda: plotting.similarity(table(), like_id="q"), UnknownNameError, "'q'"),
    "unknown file": (lambda: plotting.pca("a.jpg"), UnknownNameError, "file type of a map, grid"),
    "no picture of ours": (lambda: plotting.pca("a.txt"), UnknownNameError, r"\.zarr$"),
    "missing run": (lambda: plotting.coverage("a.zarr.partial"), ExportError, "no such file"),
    "unknown histogram": (
        lambda: plotting.histogram(table(), of="gds"), UnknownNameError, "mean 'gsd'",  # type: ignore[arg-type]
    ),
    "two GSDs of a map": (
        lambda: plotting.histogram(array(tokens(), gsd_m_range=[9, 11]), of="gsd"), SpecError,
        "from 9 to 11 m",
    ),
    "one date": (lambda: plotting.change(array(tokens())), SpecError, "two dates"),
    "axes": (
        lambda: plotting.pca(array(tokens()), ax=Figure().subplots(1, 2)), SpecError, "2 axes",
    ),
    "suffix": (lambda: plotting.save(Figure(), "plot.gif"), UnknownNameError, "a plot '.gif'"),
    "folder": (lambda: plotting.save(Figure(), "no/plot.png"), ExportError, "no folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str) -> None:
    call, kind, message = REFUSALS[name]
    with pytest.raises(kind, match=message):
        call()


def test_a_point_outside_names_the_bounds() -> None:
    with (
        pytest.warns(CoverageWarning, match="outside the map"),
        pytest.raises(SpecError, match=r"covers lon 13\.\d+ to 13\.\d+, lat 48\.\d+ to 48\.\d+"),
    ):
        plotting.similarity(array(tokens()), point=(12, 48))


def test_noise_is_told() -> None:
    noise = np.random.default_rng(0).normal(size=(DEPTH, 20, 20)).astype(np.float32)
    with pytest.warns(ImageryWarning, match="the colours are noise"):
        plotting.pca(array(noise))


def test_files_are_the_same_twice_and_carry_no_markup(tmp_path: Path) -> None:
    backend = mpl.rcParams._get("backend")
    evil = array(tokens(), source={"path": f"/{EVIL.replace('/', '')}.tif"})
    for suffix in (".png", ".svg", ".pdf"):
        files = [tmp_path / f"{number}{suffix}" for number in range(2)]
        for file in files:
            plotting.save(plotting.pca(evil), file, dpi=60)
        assert files[0].read_bytes() == files[1].read_bytes()
    with Image.open(tmp_path / "0.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 150
    drawing = (tmp_path / "0.svg").read_text()
    assert "<script" not in drawing
    tags = {one.tag.rpartition("}")[2] for one in ElementTree.fromstring(drawing).iter()}  # noqa: S314
    assert "image" in tags
    assert "script" not in tags
    assert mpl.rcParams._get("backend") == backend
    assert "matplotlib.pyplot" not in sys.modules or backend is not None


def test_the_command_line(tmp_path: Path) -> None:
    grid = Embedding(array(tokens()), META).save(tmp_path / "grid.tif")

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["plot", *arguments])

    out = tmp_path / "plot.svg"
    with pytest.warns(RsEmbedWarning):
        done = run("similarity", str(grid), "--point", "12,48", "-o", str(out))
    assert isinstance(done.exception, SpecError)
    done = run("clusters", str(grid), "-k", "3", "-o", str(out), "--json")
    assert json.loads(done.output) == {"file": str(out), "kind": "clusters"}
    assert out.stat().st_size > 1000
    for arguments, message in {
        ("pca", "-k", "3"): "got -k for pca",
        ("clusters", "--like-id", "a"): "got --like-id for clusters",
        ("similarity", "--point", "12"): "got --point 12, expected lon,lat",
        ("cluster",): "did you mean 'clusters'",
        ("change",): "got 1 inputs for change, expected 2",
    }.items():
        done = run(arguments[0], str(grid), *arguments[1:], "-o", str(out))
        assert message in str(done.exception), arguments
    done = run("pca", str(grid), "-o", str(tmp_path / "plot.tif"))
    assert "unknown file type of a plot '.tif'" in str(done.exception)


def test_places_of_other_hemispheres_do_not_jump() -> None:
    frame = geopandas.GeoDataFrame(geometry=geopandas.points_from_xy([179, -179], [0, 1]), crs=4326)
    places = EmbeddingTable(["a", "b"], np.ones((2, 2), np.float32), frame, {})
    low, high = plotting.coverage(places).axes[0].get_xlim()
    assert (low, high) == pytest.approx((178.8, 181.2))
