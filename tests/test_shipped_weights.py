"""The weights that ship: how they are asked for, what they mean, and what wrong input costs.

600 labelled images (see tests/data/README.md): 400 references, 200 queries that training never
saw. Margins are about half of what was measured, so that another processor's rounding, which moves
single images, does not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rs_embed import PointBuffer, get_embedding
from rs_embed.datasets.samples import Sample, read_samples
from rs_embed.evaluation.baselines import colour_statistics, standardised
from rs_embed.evaluation.nearest_neighbours import nearest_neighbours
from rs_embed.models.base import Encoder
from rs_embed.models.scalemae.description import PUBLISHED, TINY
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.model import MODEL
from rs_embed.models.scalemae.network import ScaleMae
from rs_embed.models.scalemae.preparation import normalised
from rs_embed.models.weights import SHIPPED
from rs_embed.settings import Settings

LABELLED = Path(__file__).parent / "data" / "eurosat_600.zip"
INPUTS = MODEL.description.inputs
Pixels = NDArray[np.float32]


@lru_cache(2)
def images(split: str) -> list[Sample]:
    return list(read_samples(LABELLED, gsd_m=10, split=split))


@lru_cache(2)
def encoder(*, trained: bool = True) -> Encoder:
    plan = MODEL.plan({"weights": TINY}, device="cpu", settings=Settings.from_environ({}))
    shipped = plan.load()
    if trained:
        return shipped
    assert isinstance(shipped, NativeEncoder)
    untrained = ScaleMae(shipped.network.config)
    untrained.initialise(0)
    return replace(shipped, network=untrained.eval())


def as_stated(image: NDArray[np.uint8]) -> Pixels:
    return normalised(image, INPUTS.mean, INPUTS.std)


def vectors(
    split: str,
    *,
    prepared: Callable[[NDArray[np.uint8]], Pixels] = as_stated,
    gsd: float = 10,
    trained: bool = True,
) -> Pixels:
    """Return the mean patch token of each image of a split."""
    pixels = np.stack([prepared(sample.image) for sample in images(split)])
    network = encoder(trained=trained)
    parts = [
        network.encode(pixels[i : i + 100], [gsd] * len(pixels[i : i + 100])).patches
        for i in range(0, len(pixels), 100)
    ]
    return np.concatenate([part.mean((1, 2)) for part in parts if part is not None])


def accuracy(references: NDArray[np.floating], queries: NDArray[np.floating]) -> float:
    names, numbers = np.unique(
        [str(sample.label) for sample in images("train")], return_inverse=True
    )
    found = nearest_neighbours(references, numbers, queries)
    return float(np.mean(names[found] == [sample.label for sample in images("val")]))


@pytest.fixture(scope="module")
def references() -> Pixels:
    return vectors("train")


@pytest.fixture(scope="module")
def right(references: Pixels) -> float:
    """Return the accuracy of what is done right."""
    return accuracy(references, vectors("val"))


def test_it_beats_colours_and_random_weights(right: float) -> None:
    colours = {
        split: np.array([colour_statistics(sample.image) for sample in images(split)])
        for split in ("train", "val")
    }
    raw = accuracy(colours["train"], colours["val"])
    even = accuracy(*(standardised(colours[split], colours["train"]) for split in colours))
    random = accuracy(*(vectors(split, trained=False) for split in ("train", "val")))
    assert right > max(raw, even) + 0.06
    assert right > random + 0.1


@pytest.mark.parametrize(
    ("wrong", "costs"),
    [
        (lambda: vectors("val", prepared=lambda image: as_stated(image[..., ::-1])), 0.25),
        (lambda: vectors("val", gsd=160), 0.1),
        (
            lambda: vectors("val", prepared=lambda image: normalised(image, (0, 0, 0), (1, 1, 1))),
            0.2,
        ),
    ],
    ids=["bands swapped", "a GSD sixteen times too coarse", "no normalisation"],
)
def test_wrong_input_costs_accuracy(
    references: Pixels, right: float, wrong: Callable[[], Pixels], costs: float
) -> None:
    assert accuracy(references, wrong()) < right - costs


# How they are asked for

PLACE = PointBuffer(-75.6156, 37.6942, 640)


@pytest.mark.parametrize("asked", ["weights", "variant", "variable"])
def test_they_are_asked_for_by_name(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"weights": TINY} if asked == "weights" else {}
    if asked == "variant":
        options = {"variant": "tiny"}
    if asked == "variable":
        monkeypatch.setenv("RS_EMBED_SCALEMAE_ID", TINY)
    embedding = get_embedding(
        "scalemae", spatial=PLACE, backend="sample", input_prep="tile", **options
    )
    assert embedding.meta["weights"] == TINY
    assert embedding.meta["network"]["patch_size"] == 8
    digest = hashlib.sha256((SHIPPED[TINY] / "model.safetensors").read_bytes()).hexdigest()
    assert embedding.meta["weights_sha256"] == digest


def test_they_are_never_picked_unasked() -> None:
    nothing = Settings.from_environ({})
    assert MODEL.plan({}, device="cpu", settings=nothing).weights == PUBLISHED
    assert MODEL.plan({"variant": "large"}, device="cpu", settings=nothing).weights == PUBLISHED
    own = Settings.from_environ({"RS_EMBED_SCALEMAE_ID": "owner/other"})
    assert MODEL.plan({"variant": "tiny"}, device="cpu", settings=own).weights == "owner/other"


def test_the_file_is_small_and_says_how_it_was_made() -> None:
    assert (SHIPPED[TINY] / "model.safetensors").stat().st_size < 12e6
    stated = json.loads((SHIPPED[TINY] / "config.json").read_text())
    training = stated["training"]
    assert training["name"] == TINY
    steps = training["optimiser"]["steps"]
    assert 0.9 * steps < training["step"] <= steps  # until the learning rate was near zero
    sources = {source["path"]: source["split"] for source in training["data"]["sources"]}
    assert sources["eurosat_subset_4000.tar.xz"] == "train"
    card = (SHIPPED[TINY] / "MODEL_CARD.md").read_text()
    for said in (training["tiles_sha256"], "Apache-2.0", f"{training['step']:,} steps"):
        assert said in card
