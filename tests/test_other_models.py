"""A model of another package, of other bands and sizes, works in every function."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from rs_embed import (
    FetchSpec,
    ImageryError,
    ModelError,
    OutputSpec,
    SpecError,
    UnknownNameError,
    embed_area,
    export_batch,
    get_embedding,
    get_embeddings_batch,
    inspect_input,
    open_map,
)
from rs_embed.cli import app
from rs_embed.testing import ModelContract

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
PACKAGE = Path(__file__).parent / "data" / "twelve_bands" / "twelve_bands.py"
PATCH = 4
NAMES = tuple(f"B{number:02}" for number in range(1, 13))
SCALED = FetchSpec(scale_m=20)


@pytest.fixture(autouse=True)
def _installed(install: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "[rs_embed.models]\ntwelve_bands = twelve_bands:MODEL\n"
    install("twelve", entry, twelve_bands=PACKAGE.read_text())
    monkeypatch.delitem(sys.modules, "twelve_bands", raising=False)


@pytest.fixture
def numbers() -> NDArray[np.uint16]:
    """Digital numbers ``(12, 96, 112)``."""
    return np.random.default_rng(5).integers(300, 5000, (12, 96, 112)).astype(np.uint16)


@pytest.fixture
def scene(numbers: NDArray[np.uint16], write_scene: Callable[..., Path]) -> Path:
    return write_scene(numbers, names=NAMES)


def means(numbers: NDArray[Any], gain: int = 1) -> NDArray[np.float64]:
    """Mean reflectance of each patch, ``(12, rows, columns)``."""
    bands, height, width = numbers.shape
    blocks = numbers.reshape(bands, height // PATCH, PATCH, width // PATCH, PATCH)
    return np.asarray(blocks.mean((2, 4)) / 10000 * gain)


class TestTwelveBands(ModelContract):
    name = "twelve_bands"
    options = {"gain": 3}  # noqa: RUF012


class TestScaleMae(ModelContract):
    name = "scalemae"
    options = {"weights": "scalemae-tiny", "image_size": 64}  # noqa: RUF012


def test_one_place(numbers: NDArray[np.uint16], scene: Path) -> None:
    grid = get_embedding("twelve_bands", imagery=scene, output=OutputSpec.grid(), side=64)
    middle = numbers[:, 16:80, 24:88]
    assert np.abs(grid.data.values[:12] - means(middle)).max() < 1e-6
    assert np.abs(grid.data.values[12] - 10).max() < 0.01  # the GSD of the file
    assert grid.meta["units"] == "reflectance"
    assert "display" not in grid.meta
    assert grid.image is not None
    assert grid.image.shape == (64, 64, 3)
    own = get_embedding("twelve_bands", input_chw=numbers, fetch=SCALED, side=64, gain=2)
    assert np.abs(own.data[:12] - means(middle, 2).mean((1, 2))).max() < 1e-6
    assert own.meta["gain"] == 2
    once = get_embedding("twelve_bands", input_chw=numbers, fetch=SCALED, side=64)
    assert own.meta["fingerprint"] != once.meta["fingerprint"]


def test_tiles_and_batches(numbers: NDArray[np.uint16], scene: Path) -> None:
    one, other = get_embeddings_batch(
        "twelve_bands", imageries=[scene, scene], input_prep="tile", output=OutputSpec.grid()
    )
    assert np.abs(one.data.values[:12] - means(numbers)).max() < 1e-6  # type: ignore[union-attr]
    assert np.array_equal(one.data, other.data)  # type: ignore[union-attr]


def test_a_map_and_its_item(numbers: NDArray[np.uint16], scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "map.zarr"
    report = embed_area("twelve_bands", imagery=scene, output=out, acquired="2022-07-01", side=32)
    assert report.failed == {}
    with open_map(out) as made:
        assert np.abs(made.values[:12] - means(numbers)).max() < 1e-6
    item = json.loads(out.with_name("map.zarr.json").read_text())
    bands = [band["name"] for band in item["properties"]["bands"]]
    assert bands == list(NAMES)
    (taken,) = item["properties"]["mlm:input"]
    assert taken["bands"] == bands
    assert taken["input"]["shape"][1] == 12
    assert taken["name"] != "RGB"


def test_a_batch_file(scene: Path, tmp_path: Path) -> None:
    places = tmp_path / "places.csv"
    places.write_text("id,lon,lat\na,13.6949,46.9420\n")
    out = tmp_path / "v.npz"
    report = export_batch("twelve_bands", places, output=out, buffer_m=200, imagery=scene)
    assert report.errors == {}


def test_inspection(scene: Path, tmp_path: Path) -> None:
    seen = inspect_input("twelve_bands", imagery=scene, input_prep="tile")
    assert seen.image.shape == (96, 112, 3)
    assert list(seen.raw) == list(NAMES)
    assert seen.tensor().shape == (12, 64, 64)
    with Image.open(seen.save_png(tmp_path / "seen.png")) as picture:
        assert min(picture.size) > 400


def test_the_command_line_has_its_options(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.npz"
    arguments = ["embed", "--model", "twelve_bands", "--imagery", str(scene), "-o", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--gain", "3", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["meta"]["gain"] == 3
    done = CliRunner().invoke(app, [*arguments, "--display", "visual"])
    assert isinstance(done.exception, UnknownNameError)
    message = str(done.exception)
    assert "option 'display' of model 'twelve_bands', expected one of gain, side" in message


def test_what_it_refuses(numbers: NDArray[np.uint16]) -> None:
    with pytest.raises(ImageryError, match="got an array of 3 bands|3 bands"):
        get_embedding("twelve_bands", input_chw=numbers[:3], fetch=SCALED)
    with pytest.raises(SpecError, match="got gain=-1"):
        get_embedding("twelve_bands", input_chw=numbers, fetch=SCALED, gain=-1)
    with pytest.raises(ImageryError, match="the same reflectance everywhere"):
        get_embedding("twelve_bands", input_chw=np.full_like(numbers, 700), fetch=SCALED)


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("MODEL.plan = lambda *_, **__: object()", "the plan of model 'broken'.*preparation"),
        ("Plan.preparation = 7", "the preparation of 'broken', a int, has no frame, image"),
        ("MODEL.description = {}", "description of model 'broken' is a dict"),
        (
            "Means.provenance = {'weights': 'none', 'model': 'mine', 'coverage': 2}",
            "provenance of model 'broken' has coverage, model",
        ),
        ("del Floats.picture", "a Floats, has no picture"),
        (
            "Floats.tensor = lambda self, image: image",
            "returned float32 of shape .* expected float32",
        ),
        ("Floats.tensor = lambda self, image: [1.0]", "returned list of shape"),
        ("Means.encode = lambda *_: None", "returned NoneType, expected Tokens"),
        (
            "Means.encode = lambda *_: Tokens(None, np.zeros((1, 2, 2, 3)), None, 'x')",
            "returned patches of float64 .* expected float32",
        ),
        (
            "Means.encode = lambda *_: Tokens(None, np.zeros((1, 9, 9, 3), 'f4'), None, 'x')",
            "got 9 x 9 patch tokens, expected 16 x 16",
        ),
        (
            "Means.encode = lambda *_: Tokens(None, np.float32(np.nan) * WHOLE, None, 'x')",
            "768 values that are not finite",
        ),
    ],
)
def test_a_package_that_breaks_the_contract_is_named(
    numbers: NDArray[np.uint16], install: Callable[..., Path], broken: str, match: str
) -> None:
    entry = "[rs_embed.models]\nbroken = broken_bands:MODEL\n"
    source = PACKAGE.read_text().replace('id="twelve_bands"', 'id="broken"')
    whole = "WHOLE = np.ones((1, 16, 16, 3), np.float32)"
    install("broken", entry, broken_bands=f"{source}\n{whole}\n{broken}\n")
    sys.modules.pop("broken_bands", None)
    with pytest.raises(ModelError, match=match):
        get_embedding("broken", input_chw=numbers, fetch=SCALED, side=64)
