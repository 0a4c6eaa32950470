"""Classifiers of embeddings: what they may predict, when they warn, what QGIS opens.

A row of ``UNLIKE`` is imagery beside that of the training set, and whether there is a warning. A
row of ``REFUSED`` is a prediction that is refused: the training set, the map, what is said. A row
of ``LABELS`` is a column of labels, and its classes or what the refusal says. Right values are
from scikit-learn itself, rasterio and GDAL.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  # the accessor ``.rio``
import xarray as xr
from numpy.typing import NDArray
from rasterio import shutil
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer
from typer.testing import CliRunner

from rs_embed import (
    Classifier,
    EmbeddingTable,
    NamedPlace,
    PointBuffer,
    RsEmbedWarning,
    embed_area,
    embed_table,
    export_batch,
    fit_classifier,
    get_embedding,
    inspect_input,
    open_map,
    sample_points,
)
from rs_embed.cli import app
from rs_embed.errors import CheckpointError, ExportError, SpecError, UnknownNameError
from rs_embed.providers.sample import CENTRE
from tests.conftest import SHARED_DATA

pytest.importorskip("skops")
pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.CoverageWarning")
SCENE = Path(__file__).parents[1] / "src" / "rs_embed" / "data" / "sample_s2.tif"
SAME: dict[str, Any] = {"variant": "tiny", "tile_size": 64, "acquired": "2016-01-01"}


def pixels(rows: slice, columns: slice) -> xr.DataArray:
    """A part of the sample scene: land on the left, marsh and water on the right."""
    with xr.open_dataarray(SCENE, engine="rasterio", mask_and_scale=False) as scene:
        return scene[:, rows, columns].load()


TOP, BOTTOM = pixels(slice(0, 128), slice(0, 320)), pixels(slice(128, 256), slice(0, 320))


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder, made = tmp_path_factory.mktemp("maps"), dict[str, Path]()

    def of(name: str, imagery: Any, **options: Any) -> Path:
        if name not in made:
            path = made[name] = folder / f"{name}.zarr"
            embed_area("scalemae", imagery=imagery, output=path, **{**SAME, **options})
        return made[name]

    return of


def labels_of(tokens: NDArray[Any]) -> NDArray[Any]:
    return np.where(tokens[:, 0] > np.median(tokens[:, 0]), "crop & tree", "water")


@pytest.fixture(scope="module")
def top(maps: Callable[..., Path]) -> Path:
    return maps("top", TOP)


@pytest.fixture(scope="module")
def trained(top: Path) -> Classifier:
    """A classifier of all tokens of that map."""
    cells = open_map(top)
    x, y = np.meshgrid(cells.x, cells.y)
    points = np.c_[x.ravel(), y.ravel()]
    tokens = sample_points(top, points, crs=cells.rio.crs.to_string())
    return fit_classifier(tokens, labels_of(tokens.values))


# --- the domain ----------------------------------------------------------------------------

UNLIKE = [
    ("the other half", lambda: BOTTOM, None),
    ("haze of 0.06", lambda: BOTTOM + 600, "input channels are"),
    ("an offset applied twice", lambda: (BOTTOM.astype("int32") - 400).clip(1), "input channels"),
    ("twice as bright", lambda: BOTTOM * 2, "input channels are"),
]


@pytest.mark.parametrize(("name", "imagery", "reason"), UNLIKE, ids=[row[0] for row in UNLIKE])
def test_imagery_unlike_the_training_set_is_a_warning(
    name: str, imagery: Any, reason: str | None, maps: Any, trained: Classifier
) -> None:
    path = maps(name, imagery().astype("uint16").assign_attrs(TOP.attrs))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        meta = json.loads(trained.predict_map(path).attrs["meta"])
    assert [str(w.message) for w in given if w.category is RsEmbedWarning] == meta["warnings"]
    assert len(meta["warnings"]) == (reason is not None)
    if reason is not None:
        assert reason in meta["warnings"][0]


def embedded(scene: str, maps: Any) -> Path:
    path = SHARED_DATA / "s2" / f"{scene}.tif"
    if not path.exists():
        pytest.skip("needs the shared imagery")
    found: Path = maps(scene, path, tile_size=None, acquired=None)
    return found


@pytest.fixture(scope="module")
def eurosat() -> EmbeddingTable:
    """150 pictures of the test suite at 10 m, embedded."""
    from rs_embed.datasets.samples import read_samples

    archive = Path(__file__).parent / "data" / "eurosat_600.zip"
    samples = list(read_samples(archive, gsd_m=10))[::4]
    from rs_embed import SensorSpec, get_embeddings_batch

    sensor = SensorSpec("pictures", ("R", "G", "B"), scale_m=10, reflectance_scale=0.3 / 255)
    arrays = [sample.image.transpose(2, 0, 1) for sample in samples]
    found = get_embeddings_batch(
        "scalemae", input_chws=arrays, sensor=sensor, variant="tiny", input_prep="tile"
    )
    columns = {"class": [s.label for s in samples], "split": [s.split for s in samples]}
    frame = geopandas.GeoDataFrame(columns, geometry=[None] * len(samples))
    return EmbeddingTable.of(frame, range(len(samples)), found)


def test_pictures_do_not_classify_an_alpine_valley_silently(eurosat: Any, maps: Any) -> None:
    classifier = fit_classifier(eurosat, "class")
    assert classifier.predict(eurosat).shape == (150,)  # without a warning
    inn = embedded("inn_l2a_20210617_10m", maps)
    with pytest.warns(RsEmbedWarning, match="unlike the training set.* input channels are 78 ± 50"):
        classes = classifier.predict_map(inn)
    with pytest.warns(RsEmbedWarning, match="unlike"):
        masked = classifier.predict_map(inn, mask_outside=True)
    outside = json.loads(classes.attrs["meta"])["outside"]
    known = int((classes != 255).sum())
    assert int((masked != 255).sum()) == round(known * (1 - outside))


def test_colours_in_meta_are_those_of_the_image() -> None:
    place: dict[str, Any] = {
        "spatial": PointBuffer(*CENTRE, 640),
        "backend": "sample",
        "variant": "tiny",
    }
    image = inspect_input("scalemae", **place).image.reshape(-1, 3)
    meta = get_embedding("scalemae", **place).meta
    assert meta["input_mean"] == pytest.approx(image.mean(axis=0), abs=1e-4)
    assert meta["input_std"] == pytest.approx(image.std(axis=0), abs=1e-4)


def test_colours_of_a_map_are_those_of_its_pixels(maps: Any) -> None:
    path = maps("no overlap", TOP, overlap_px=0)
    meta = json.loads(open_map(path).attrs["meta"])
    seen = np.floor(TOP.values.reshape(3, -1).clip(0, 3000) / 3000 * 255)
    assert meta["input_mean"] == pytest.approx(seen.mean(axis=1), abs=0.01)
    assert meta["input_std"] == pytest.approx(seen.std(axis=1), abs=0.01)


# --- what is refused -----------------------------------------------------------------------

REFUSED = [
    ("display", {"display": "reflectance"}, "display='reflectance', expected 'visual' as in the"),
    ("weights", {"weights": "random-init"}, "weights_sha256=None|network="),
    ("tokens", {"tokens": "pre_norm"}, "tokens_kind='patch_tokens_pre_norm', expected 'patch_t"),
    ("gsd policy", {"gsd": "relative"}, "gsd_policy='relative', expected 'metres'"),
    ("pca", {"pca": 8}, "tokens_kind='principal components of the map"),
]


@pytest.mark.parametrize(("name", "options", "match"), REFUSED, ids=[row[0] for row in REFUSED])
@pytest.mark.filterwarnings("ignore:display=.*was used as stated")
def test_a_map_of_others_is_refused(
    name: str, options: Any, match: str, maps: Any, trained: Classifier
) -> None:
    path = maps(f"with {name}", TOP, **options)
    with pytest.raises(SpecError, match=match):
        trained.predict_map(path)


def test_another_gsd_and_pooling_are_refused(maps: Any, top: Path, trained: Classifier) -> None:
    coarse = TOP.rio.reproject(TOP.rio.crs, resolution=20)
    with pytest.raises(SpecError, match="GSD from 20 to 20 m, expected 10 to 10 m"):
        trained.predict_map(maps("coarse", coarse))
    with pytest.raises(SpecError, match="pooling='cls', expected 'patch_mean' as in the training"):
        trained.predict(table(pooling="cls"))


def test_nothing_is_written_over(top: Path, trained: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    shutil.copy(SCENE, path, driver="GTiff")
    with pytest.raises(ExportError, match="it is the map itself"):
        trained.predict_map(path, path)
    with pytest.raises(UnknownNameError, match=r"\.tif"):
        trained.predict_map(top, tmp_path / "classes.png")


def table(**options: Any) -> EmbeddingTable:
    lon, lat = CENTRE
    places = [NamedPlace(f"{n}", PointBuffer(lon + 0.002 * n, lat, 320)) for n in range(-4, 4)]
    request: dict[str, Any] = {"backend": "sample", "variant": "tiny", "input_prep": "tile"}
    return embed_table("scalemae", places, **{**request, **options})


LABELS: list[tuple[str, list[Any], Any]] = [
    ("text", ["a", "b"] * 4, ["a", "b"]),
    ("integers", [3, 1] * 4, [1, 3]),
    ("missing", [2.0, 5.0, None, float("nan")] * 2, [2, 5]),
    ("numbers", [0.5, 1.5] * 4, "labels of type Float64"),
    ("one class", ["a"] * 8, "got 1 classes in 8 labelled"),
    ("too few", ["a", "b"], "got 2 labels of type .* for 8 embeddings"),
    ("mixed", ["a", 1] * 4, "labels of type object"),
]


@pytest.mark.parametrize(("name", "labels", "right"), LABELS, ids=[row[0] for row in LABELS])
def test_labels(name: str, labels: list[Any], right: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    if isinstance(right, str):
        with pytest.raises(SpecError, match=right):
            fit_classifier(rows, labels)
        return
    missing = sum(label is None or label != label for label in labels)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        assert fit_classifier(rows, labels).classes == right
    told = [f"{missing} rows have no label, of 8; they are left out"]
    assert [str(warning.message) for warning in given] == told * (missing > 0)


@pytest.mark.parametrize("estimator", [KMeans(2), Ridge(), "rf", KNeighborsClassifier])
def test_only_a_classifier_learns_labels(estimator: Any) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    with pytest.raises(SpecError, match="expected a classifier of scikit-learn"):
        fit_classifier(rows, ["a", "b"] * 4, estimator=estimator)


def test_rows_without_embedding_and_unknown_columns(eurosat: EmbeddingTable) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    rows[7] = np.nan
    with pytest.warns(RsEmbedWarning, match="1 rows have a label but no embedding, of 200"):
        classifier = fit_classifier(rows, ["a", "b"] * 100)
    assert classifier.counts == [100, 99]
    with pytest.warns(RsEmbedWarning, match="not known whether"):
        assert classifier.predict(rows)[7] is None
    with pytest.raises(UnknownNameError, match="did you mean 'class'"):
        fit_classifier(eurosat, "clas")


# --- files ---------------------------------------------------------------------------------


def test_the_map_of_classes_opens_with_colours_and_names(
    top: Path, trained: Classifier, tmp_path: Path
) -> None:
    found = trained.predict_map(top, tmp_path / "classes.tif")
    tokens = open_map(top)
    with rasterio.open(tmp_path / "classes.tif") as file:
        assert file.profile["dtype"] == "uint8"
        assert (file.nodata, file.crs) == (255, tokens.rio.crs)
        assert file.transform == tokens.rio.transform()
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert len({file.colormap(1)[code][:3] for code in (0, 1)}) == 2
        assert json.loads(file.tags(1)["classes"]) == ["crop & tree", "water"]
        assert json.loads(file.tags()["RS_EMBED_CLASSIFICATION"])["training"]["gsd_m"] == [10, 10]
        read = file.read(1)
    assert (read == found.values).all()
    rows = tokens.values.reshape(tokens.sizes["d"], -1).T
    assert (read.ravel() == trained.estimator.predict(rows)).all()
    assert found.attrs["flag_meanings"] == "crop_&_tree water"
    shutil.copy(tmp_path / "classes.tif", tmp_path / "as_gdal_reads.vrt", driver="VRT")
    names = re.findall("<Category>(.*?)</Category>", (tmp_path / "as_gdal_reads.vrt").read_text())
    assert names == ["crop &amp; tree", "water"]


def test_a_saved_classifier_predicts_the_same(
    top: Path, trained: Classifier, tmp_path: Path
) -> None:
    trained.save(tmp_path / "cover.skops")
    loaded = Classifier.load(tmp_path / "cover.skops")
    assert loaded.predict_map(top).identical(trained.predict_map(top))
    assert repr(loaded) == repr(trained)


def test_files_that_could_run_code_are_refused(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline

    rows = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    odd = make_pipeline(FunctionTransformer(json.dumps, validate=False), KNeighborsClassifier())
    plain = fit_classifier(rows, [0, 1] * 10, estimator=KNeighborsClassifier())
    Classifier(odd, plain.classes, plain.counts, plain.making, plain.domain).save(
        tmp_path / "odd.skops"
    )
    with pytest.raises(CheckpointError, match=r"json.dumps, expected types .*trusted=\['json"):
        Classifier.load(tmp_path / "odd.skops")
    assert Classifier.load(tmp_path / "odd.skops", trusted=["json.dumps"]).classes == [0, 1]
    (tmp_path / "bad.skops").write_bytes(b"nothing")
    for name in ("bad.skops", "missing.skops"):
        with pytest.raises(ExportError, match="expected a file of a classifier"):
            Classifier.load(tmp_path / name)


def test_the_command(top: Path, tmp_path: Path) -> None:
    lon, lat = CENTRE
    shapes = geopandas.points_from_xy(lon + 0.002 * np.arange(-9, 9), [lat] * 18, crs=4326)
    frame = geopandas.GeoDataFrame({"cover": ["land"] * 9 + ["water"] * 9}, geometry=shapes)
    request: dict[str, Any] = {
        "backend": "sample",
        "variant": "tiny",
        "input_prep": "tile",
        "buffer_m": 320,
    }
    export_batch("scalemae", frame, output=tmp_path / "train.parquet", **request)
    source, kept = str(top), str(tmp_path / "cover.skops")
    outputs = [str(tmp_path / name) for name in ("one.tif", "two.tif")]
    first = [str(tmp_path / "train.parquet"), source, "--labels", "cover", "--save", kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RsEmbedWarning)
        for arguments in ([*first, "-o", outputs[0]], [kept, source, "-o", outputs[1]]):
            result = CliRunner().invoke(app, ["classify", *arguments])
            assert result.exit_code == 0, result.output
            assert re.match(r"\d+ cells land\n\d+ cells water\n", result.output)
    with rasterio.open(outputs[0]) as one, rasterio.open(outputs[1]) as two:
        assert (one.read() == two.read()).all()
    refused = CliRunner().invoke(
        app, ["classify", kept, source, "--labels", "cover", "-o", "x.tif"]
    )
    assert "none for a saved classifier" in str(refused.exception)
