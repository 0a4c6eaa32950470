"""Evaluations on sets that the tests draw: textures whose classes a network can or cannot see."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from typer.testing import CliRunner

from rs_embed.cli import app
from rs_embed.datasets.samples import Sample, read_samples
from rs_embed.errors import DatasetError, ImageryWarning, SpecError, UnknownNameError
from rs_embed.evaluation import EvaluationReport, evaluate, score_embeddings
from rs_embed.evaluation.baselines import colour_statistics, standardised
from rs_embed.evaluation.features import Embeddings, shown, sides, square
from rs_embed.evaluation.nearest_neighbours import nearest_neighbours
from rs_embed.evaluation.probe import linear_probe
from rs_embed.evaluation.selection import Known, select
from rs_embed.models.base import Tokens
from rs_embed.models.scalemae.description import DESCRIPTION
from rs_embed.models.scalemae.preparation import ScaleMaePreparation, normalised

SMALL: dict[str, Any] = {"weights": "random-init", "variant": "tiny"}
COLOURS = {"crops": (60, 150, 60), "roofs": (160, 70, 60), "water": (20, 40, 130)}


def texture(colour: tuple[int, ...], seed: int, side: int = 64) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 12, (side, side, 3))
    return np.asarray((np.array(colour) + noise).clip(0, 255), dtype=np.uint8)


def write_set(root: Path, *, each: int, folders: Sequence[str] = ("",), side: int = 64) -> Path:
    for i, (name, colour) in enumerate(COLOURS.items()):
        for part, of in enumerate(folders):
            (root / of / name).mkdir(parents=True)
            for j in range(each):
                image = texture(colour, 1000 * i + 100 * part + j, side)
                Image.fromarray(image).save(root / of / name / f"{name}_{j}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of three colours, 8 references and 3 queries each."""
    root = write_set(tmp_path_factory.mktemp("set"), each=8, folders=("train",))
    return write_set(root, each=3, folders=("val",))


@pytest.fixture(scope="module")
def report(folder: Path) -> EvaluationReport:
    """What the tiny network finds there, with all protocols."""
    return evaluate(
        folder, gsd_m=10, k=5, protocols=("knn", "probe"), poolings=("cls", "mean"),
        scales=(1, 0.5, 0.49, 0.25, 0.1), **SMALL,
    )  # fmt: skip


def test_nearest_neighbours_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 1, (7, 12))
    classes = rng.integers(0, 7, 300)
    references = centres[classes] + rng.normal(0, 1.5, (300, 12))
    queries = centres[rng.integers(0, 7, 1100)] + rng.normal(0, 1.5, (1100, 12))
    for k, temperature in ((1, 0.07), (20, 0.07), (60, 1.0)):
        oracle = KNeighborsClassifier(
            k, metric="cosine", weights=lambda d, t=temperature: np.exp((1 - d) / t)
        ).fit(references, classes)
        ours = nearest_neighbours(references, classes, queries, k=k, temperature=temperature)
        np.testing.assert_array_equal(ours, oracle.predict(queries))


def test_votes_are_weighted_by_the_exponential_of_similarity() -> None:
    near, far = np.array([1.0, 0.0]), np.array([np.cos(0.5), np.sin(0.5)])
    references = np.stack([near, far, far])
    classes = np.array([0, 1, 1])
    # One vote of exp(1 / t) against two of exp(cos(0.5) / t).
    for temperature, expected in ((0.07, 0), (1.0, 1)):
        assert (np.exp(1 / temperature) > 2 * np.exp(np.cos(0.5) / temperature)) == (expected == 0)
        found = nearest_neighbours(
            references * 5, classes, near[None], k=3, temperature=temperature
        )
        assert found.tolist() == [expected]


def test_probe_separates_what_a_plane_separates() -> None:
    rng = np.random.default_rng(2)
    classes = rng.integers(0, 2, 200)
    vectors = rng.normal(0, 1, (200, 5)) * [1, 1000, 1, 1, 0.001]
    vectors[:, 4] += 0.01 * classes  # in the smallest dimension, which only standardising shows
    found = linear_probe(vectors[:150], classes[:150], vectors[150:])
    assert (found == classes[150:]).all()


def test_baselines_are_mean_and_deviation_of_each_band() -> None:
    image = texture((10, 100, 200), 5)
    image[:32] //= 2
    numbers = colour_statistics(image)
    for band in range(3):
        values = image[..., band].astype(float).ravel()
        assert numbers[band] == pytest.approx(values.sum() / values.size)
        variance = ((values - numbers[band]) ** 2).sum() / values.size
        assert numbers[3 + band] == pytest.approx(variance**0.5)
    references = np.array([[1.0, 0.1], [3.0, 0.1], [2.0, 0.1]])
    scores = standardised(np.array([[4.0, 7.0]]), references)
    np.testing.assert_allclose(scores, [[2 / np.sqrt(2 / 3), 0]])


def test_images_are_averaged_over_areas() -> None:
    image = texture((90, 90, 90), 6, 32)
    smaller = shown(square(np.pad(image, ((0, 0), (3, 2), (0, 0)))[:, 1:]), 16)
    assert smaller.shape == (16, 16, 3)
    blocks = image.reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(shown(square(image), 16) - blocks).max() <= 1
    np.testing.assert_array_equal(shown(square(image), 32), image)


def test_sides_are_whole_patches_and_none_comes_twice() -> None:
    full, found, notes = sides(64, 16, (0.25, 1, 0.5, 0.125, 0.45))
    assert (full, found) == (64, {1: 64, 0.5: 32, 0.25: 16})
    assert ["0.45 is left out: it gives 32" in notes[0], "8 px are less than" in notes[1]] == [
        True, True,
    ]  # fmt: skip
    assert sides(250, 16, (1, 0.5))[:2] == (256, {1: 256, 0.5: 128})
    assert sides(10, 16, (1,))[1] == {1: 16}


class Listener:
    """An encoder that keeps what it was told; its tokens are the pixels' own means."""

    image_size, patch_size, trained_input_res = 224, 16, None
    provenance: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.received: dict[int, list[list[float]]] = {}

    def encode(self, pixels: NDArray[np.float32], input_res_m: Sequence[float]) -> Tokens:
        self.received.setdefault(pixels.shape[-1], []).append(list(input_res_m))
        means = pixels.mean((2, 3))
        return Tokens(cls=means, patches=means[:, None, None], pooled=None, kind="test")


@pytest.mark.parametrize(
    ("policy", "full", "half"),
    [("metres", [10.0, 20.0], [20.0, 40.0]), ("relative", [3.5, 3.5], [7.0, 7.0]),
     (1.0, [1.0, 1.0], [2.0, 2.0])],
)  # fmt: skip
def test_the_gsd_that_is_told_grows_as_pixels_do(
    policy: float | str, full: list[float], half: list[float]
) -> None:
    listener = Listener()
    embeddings = Embeddings(
        listener,
        ScaleMaePreparation("reflectance"),
        policy,
        64,
        {1.0: 64, 0.5: 32},
        ("cls", "mean"),
        batch_size=1,
    )
    images = [texture(COLOURS["crops"], 1), texture(COLOURS["water"], 2, 128)]
    for image in images:
        embeddings.add(Sample("x.png", image, 10.0, "a", None))
    found = list(embeddings.finish())
    # Once at full resolution; below, told what is shown, and then what full resolution would be.
    assert listener.received == {64: [full], 32: [half, full]}
    inputs = DESCRIPTION.inputs
    expected = [normalised(image, inputs.mean, inputs.std).mean((1, 2)) for image in images]
    for views, _, vectors in found:
        for view in views:
            given = half if view.own_gsd and view.scale < 1 else full
            assert embeddings.input_res(view) == np.median(given)
        np.testing.assert_allclose(vectors, expected, atol=0.01)
    ways = [(view.scale, view.own_gsd, pooling) for views, pooling, _ in found for view in views]
    assert sorted(ways) == sorted(itertools.product((0.5, 1), (False, True), ("cls", "mean")))


def test_report_holds_every_row(report: EvaluationReport, tmp_path: Path) -> None:
    ways = {(r.features, r.pooling, r.scale, r.side_px, r.gsd, r.protocol) for r in report.rows}
    model = {
        ("model", pooling, scale, side, gsd, protocol)
        for pooling in ("cls", "mean")
        for scale, side in ((1, 64), (0.5, 32), (0.25, 16))
        for gsd in ("told", "not told")
        for protocol in ("knn", "probe")
    }
    colours = {
        (features, None, 1, 64, None, protocol)
        for features in ("colours", "colours, z-scored")
        for protocol in ("knn", "probe")
    }
    assert ways == model | colours
    assert len(report.rows) == len(ways)
    assert {(r.references, r.queries) for r in report.rows} == {(24, 9)}
    told = {(r.gsd, r.scale): r.input_res for r in report.rows}
    assert told["told", 0.25] == 40
    assert told["not told", 0.25] == told["told", 1] == 10
    # Colours tell these classes apart by themselves, and so does any network that sees them.
    assert all(r.accuracy == 1 for r in report.rows if r.features != "model")
    assert min(r.accuracy for r in report.rows if r.scale == 1) > 0.6
    assert report.about["classes"]["water"] == {"references": 8, "queries": 3}
    assert [("0.49" in n or "0.1 " in n) for n in report.notes] == [True, True]
    stored = json.loads(report.save(tmp_path / "report.json").read_text())
    assert stored == json.loads(json.dumps(report.to_json()))


def test_picture_shows_both_protocols(report: EvaluationReport, tmp_path: Path) -> None:
    with Image.open(report.save_png(tmp_path / "scales.png")) as picture:
        assert picture.width > 1.5 * picture.height
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_rows_are_the_protocol_on_the_models_own_vectors(
    folder: Path, report: EvaluationReport
) -> None:
    from rs_embed.registry import find_model
    from rs_embed.settings import Settings

    model = find_model("scalemae")
    encoder = model.plan(SMALL, device="cpu", settings=Settings.from_environ()).load()
    samples = list(read_samples(folder, gsd_m=10))
    halves = [Image.fromarray(s.image).reduce(2) for s in samples]  # exact means of 2 x 2 px
    inputs = model.description.inputs
    pixels = np.stack([normalised(np.asarray(i), inputs.mean, inputs.std) for i in halves])
    vectors = encoder.encode(pixels, [20.0] * len(samples)).cls
    assert vectors is not None
    known = np.array([s.split == "train" for s in samples])
    classes = np.array([sorted(COLOURS).index(str(s.label)) for s in samples])
    found = nearest_neighbours(vectors[known], classes[known], vectors[~known], k=5)
    (row,) = [
        r for r in report.rows
        if (r.scale, r.gsd, r.pooling, r.protocol) == (0.5, "told", "cls", "knn")
    ]  # fmt: skip
    assert row.accuracy == pytest.approx((found == classes[~known]).mean())


def known(*given: tuple[str, str | None, str | None]) -> list[Known]:
    return [Known(name, name, label, split) for name, label, split in given]


def test_queries_are_what_each_source_holds_out_though_images_are_left_out(tmp_path: Path) -> None:
    first = write_set(tmp_path / "first", each=10, side=16)
    second = write_set(tmp_path / "second", each=5, side=16)
    glass = Image.new("RGBA", (16, 16))
    glass.save(second / "water" / "water_4.png")  # the one of five that is held out
    with pytest.warns(ImageryWarning, match=r"less than half valid.: water/water_4.png"):
        found = evaluate(
            [first, second], gsd_m=10, k=5, scales=(1,), poolings=("cls",), baselines=False, **SMALL
        )
    assert found.about["classes"]["water"] == {"references": 8 + 4, "queries": 2}
    assert found.about["classes"]["crops"] == {"references": 8 + 4, "queries": 2 + 1}
    assert "last fifth in natural order" in found.notes[0]


def test_a_limit_spreads_over_the_natural_order() -> None:
    images = known(
        *((f"{c}/{c}_{i}.png", c, "val" if i > 9 else "train") for c in "ab" for i in range(12))
    )
    few = select(images, limit=2, least_references=1)
    assert sorted(few.reference) == ["a/a_0.png", "a/a_5.png", "b/b_0.png", "b/b_5.png"]  # type: ignore[type-var]
    assert few == select(images[::-1], limit=2, least_references=1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([("a", "x", "train"), ("b", "x", "val")], "one class only .x."),
        ([("a", "x", "train"), ("b", None, "val")], "1 of 2 have no label .b."),
        ([("a", "x", "train"), ("b", "y", "train"), ("c", "x", "val")],
         "1 of 2 classes are in train but not in val .y."),
        ([("a", "x", "train"), ("b", "y", "val"), ("c", "x", "val")],
         "1 of 2 classes are in val but not in train .y."),
        ([("a", "x", "train"), ("b", "y", None)], "1 of 2 have no split .b."),
        ([("a", "x", "train"), ("b", "y", "train"), ("c", "x", "val"), ("d", "y", "val")],
         "got 2 references, expected at least k=3; lower k"),
    ],
)  # fmt: skip
def test_sets_that_cannot_be_scored_are_refused(
    images: list[tuple[str, str | None, str | None]], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        select(known(*images), limit=None, least_references=3)


def test_refusals_come_before_the_model_is_loaded(folder: Path) -> None:
    nowhere: dict[str, Any] = {"weights": "nobody/has-these-weights"}
    with pytest.raises(DatasetError, match=r"got 24 references.*k=25"):
        evaluate(folder, gsd_m=10, k=25, **nowhere)
    with pytest.raises(DatasetError, match=r"twice"):
        evaluate([folder, folder / "."], gsd_m=10, **nowhere)
    with pytest.raises(DatasetError, match=r"no georeference"):
        evaluate(folder, **nowhere)
    for wrong, message in (
        ({"poolings": ("median",)}, "unknown pooling"),
        ({"protocols": ("svm",)}, "unknown protocol"),
        ({"scales": (2,)}, "at most 1"),
        ({"scales": (0,)}, "more than 0"),
        ({"scales": 1}, r"scales=1, expected .*sequence"),
        ({"limit": 0}, "limit=0"),
        ({"image_size": 224}, "does not accept"),
        ({"k": 0}, "k=0"),
        ({"tokenz": "normed"}, "did you mean 'tokens'"),
    ):
        with pytest.raises((SpecError, UnknownNameError), match=message):
            evaluate(folder, gsd_m=10, **{**nowhere, **wrong})


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes vectors, 10 of each of 3 classes, as Parquet."""

    def write(kind: Any = None, with_split: bool = True, **changed: Any) -> Path:
        rng = np.random.default_rng(8)
        classes = np.arange(30) % 3
        vectors = (np.eye(3, 6)[classes] * 9 + rng.normal(0, 1, (30, 6))).astype(np.float32)
        columns: dict[str, Any] = {
            "embedding": pa.array(vectors.tolist(), kind or pa.list_(pa.float32(), 6)),
            "label": [f"class {c}" for c in classes],
        }
        if with_split:
            columns["split"] = ["val" if i >= 21 else "train" for i in range(30)]
        path = tmp_path / "vectors.parquet"
        pq.write_table(pa.table({**columns, **changed}), path)
        return path

    return write


def test_tables_of_embeddings_are_only_scored(write_table: Callable[..., Path]) -> None:
    for kind in (pa.list_(pa.float32(), 6), pa.list_(pa.float64()), pa.large_list(pa.float32())):
        (knn, probe) = score_embeddings(write_table(kind), protocols=("knn", "probe"), k=5).rows
        assert (knn.accuracy, probe.accuracy, knn.references, knn.queries) == (1, 1, 21, 9)
    unsplit = score_embeddings(write_table(with_split=False), k=5)
    assert (unsplit.rows[0].queries, len(unsplit.notes)) == (6, 1)
    numbers = write_table(label=[i % 3 for i in range(30)], geometry=[b"point"] * 30)
    assert list(score_embeddings(numbers, k=5).about["classes"]) == ["0", "1", "2"]


def test_tables_that_cannot_be_scored_are_refused(
    write_table: Callable[..., Path], tmp_path: Path
) -> None:
    broken = [[float("nan")] * 6, *[[1.0] * 6] * 29]
    for changed, message in (
        ({"embedding": pa.array(broken)}, "1 vectors .*not finite .*row 0"),
        ({"embedding": pa.array([[1.0], *[[1.0] * 6] * 29])}, r"have \[1, 6\] dimensions"),
        ({"embedding": pa.array([None, *[[1.0]] * 29])}, "1 vectors .*missing"),
        ({"embedding": pa.array([1.0] * 30)}, "is double, expected lists"),
        ({"embedding": pa.array([["1"]] * 30)}, "expected lists of numbers"),
        ({"embedding": pa.array([[1.0, None], *[[1.0] * 2] * 29])}, "not finite .*row 0"),
        ({"split": ["test"] * 30}, "the split 'test', expected train or val"),
        ({"split": [None, *["val"] * 29]}, "1 of 30 have no split .row 0"),
        ({"label": [None] * 30}, "30 of 30 have no label"),
        ({"label": [float("nan"), *[1.0] * 29]}, "1 of 30 have no label .row 0"),
        ({"label": [["a"]] * 30}, r"row 0 .*the label \['a'\], expected text or a number"),
    ):
        with pytest.raises(DatasetError, match=message):
            score_embeddings(write_table(**changed))
    with pytest.raises(DatasetError, match=r"no column 'vector'.*it has embedding, label, split"):
        score_embeddings(write_table(), columns=("vector", "label", "split"))
    pq.write_table(pq.read_table(write_table()).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DatasetError, match="has no row"):
        score_embeddings(tmp_path / "empty.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DatasetError, match="as Parquet"):
        score_embeddings(tmp_path / "text.parquet")


def test_command_prints_a_table_and_writes_what_it_names(folder: Path, tmp_path: Path) -> None:
    out, png = tmp_path / "report.json", tmp_path / "scales.png"
    command = ["evaluate", str(folder), "--gsd-m", "10", "--weights", "random-init",
               "--variant", "tiny", "--gsd", "1", "--scales", "1", "--pooling", "cls",
               "--limit", "5", "--k", "5", "--protocol", "knn,probe", "-o", str(out)]  # fmt: skip
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command, "--png", str(png)])
    assert done.exit_code == 0, done.output
    assert "15 references, 9 queries, 3 classes" in done.output
    # Nothing of a line is cut where there are two protocols.
    assert re.search(r"colours, z-scored +1 +64 +\d\.\d{4} +\d\.\d{4} *\n", done.output)
    assert f"wrote {png}" in done.output
    rows = json.loads(out.read_text())["rows"]
    assert [row["input_res"] for row in rows if row["features"] == "model"] == [1] * 4
    printed = CliRunner().invoke(app, [*command, "--no-baselines", "--json"])
    assert json.loads(printed.stdout)["files"] == [str(out)]
    assert len(json.loads(printed.stdout)["rows"]) == 4


def test_command_scores_tables(write_table: Callable[..., Path], tmp_path: Path) -> None:
    path = str(write_table())
    done = CliRunner().invoke(app, ["evaluate", path, "--k", "5"])
    assert done.exit_code == 0, done.output
    assert "21 references, 9 queries" in done.output
    refused = CliRunner().invoke(app, ["evaluate", path, "--png", str(tmp_path / "a.png")])
    assert isinstance(refused.exception, SpecError)
