"""What a model would see is what it does see."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rs_embed import (
    CoverageWarning,
    ExportError,
    FetchSpec,
    ImageryError,
    InputPrepSpec,
    PointBuffer,
    UnknownNameError,
    get_embedding,
    inspect_input,
)
from rs_embed.providers.sample import CENTRE

PLACE = PointBuffer(*CENTRE, 1500)


@pytest.mark.parametrize("prep", ["resize", "auto", InputPrepSpec.tile(128, 32)])
@pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
def test_it_is_what_the_model_sees(checkpoint: Path, prep: Any) -> None:
    asked: dict[str, Any] = {
        "spatial": PLACE, "backend": "sample", "input_prep": prep, "weights": checkpoint,
    }  # fmt: skip
    inspected = inspect_input("scalemae", **asked)
    embedding = get_embedding("scalemae", **asked)
    assert embedding.image is not None
    assert np.array_equal(inspected.image, embedding.image)
    assert embedding.meta.items() >= inspected.meta.items()
    assert len(inspected.tiles) == (embedding.meta["tiles"] or {"count": 1})["count"]
    row, column, height, width = inspected.tiles[-1]
    # ToTensor and Normalize written out.
    window = inspected.image[row : row + height, column : column + width] / np.float32(255)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((window - mean) / std).transpose(2, 0, 1)
    tensor = inspected.tensor(-1)
    assert tensor.dtype == np.float32
    assert np.abs(tensor - expected).max() < 1e-6
    with pytest.raises(UnknownNameError, match=r"unknown tile 999"):
        inspected.tensor(999)


def test_nothing_is_loaded_and_all_is_json(tmp_path: Path) -> None:
    # The default weights are neither on disk nor reachable.
    with pytest.warns(CoverageWarning, match="sees the central 76.6%"):
        inspected = inspect_input("scalemae", spatial=PLACE, backend="sample")
    stated = json.loads(json.dumps(inspected.to_json()))
    assert stated["meta"]["warnings"][0].startswith("the model sees the central 76.6%")
    counts = [np.histogram(inspected.image[..., b], np.arange(0, 257, 8))[0] for b in range(3)]
    assert [stated["histogram"][c] for c in ("red", "green", "blue")] == [
        c.tolist() for c in counts
    ]
    assert stated["histogram"]["edges"] == list(range(0, 257, 8))
    picture = Image.open(inspected.save_png(tmp_path / "seen.png"))
    assert picture.width > 3 * 500
    colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (colours == (255, 255, 0)).all(axis=1).any()  # the outline of the one tile
    with pytest.raises(UnknownNameError, match="unknown file type of a picture '.jpg'"):
        inspected.save_png(tmp_path / "seen.jpg")
    with pytest.raises(ExportError, match="there is no folder"):
        inspected.save_png(tmp_path / "missing" / "seen.png")


def test_raw_values_are_those_of_valid_pixels(write_scene: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(2).integers(300, 4000, (3, 96, 64)).astype(np.uint16)
    pixels[:, :30] = 0
    inspected = inspect_input("scalemae", imagery=write_scene(pixels), input_prep="tile")
    known = pixels[0, 30:].astype(float)
    assert inspected.raw["B4"] == pytest.approx(
        {
            "min": known.min(), "p2": np.percentile(known, 2), "median": np.median(known),
            "p98": np.percentile(known, 98), "max": known.max(), "mean": known.mean(),
        }
    )  # fmt: skip
    assert inspected.meta["valid_fraction"] == pytest.approx(66 / 96)
    assert inspected.token_valid.shape == (6, 4)
    assert inspected.token_valid[1, 0] == pytest.approx(2 / 16)


def test_what_must_not_reach_the_model_is_refused() -> None:
    with pytest.raises(ImageryError, match="which look 8-bit"):
        inspect_input(
            "scalemae", input_chw=np.full((3, 64, 64), 9, np.uint8), fetch=FetchSpec(scale_m=10)
        )
