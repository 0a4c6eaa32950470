"""A request goes to another process, and gives the same embedding there."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray
from numpy.typing import NDArray

from rs_embed import Embedding, LocalProvider, OutputSpec, PointBuffer, TemporalSpec
from rs_embed.embedding.loop import embed
from rs_embed.embedding.pickling import pickled
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import Task, settle
from rs_embed.errors import SpecError
from rs_embed.progress import Bar
from rs_embed.providers.sample import CENTRE, SampleProvider
from rs_embed.settings import Settings
from tests.processes import called


def settled(weights: Path, **output: Any) -> Task:
    return settle(
        "scalemae",
        output=output.get("output"),
        input_prep="tile",
        min_valid=0.25,
        device="cpu",
        options={"weights": str(weights), "image_size": 64},
        settings=Settings.from_environ(),
    )


def embedded(request: bytes) -> Embedding:
    """Embed what was pickled; runs in any process."""
    task, source = pickle.loads(request)  # noqa: S301
    bar = Bar(show=False, unit="tile")
    (made,) = embed(task, [source], fetch_workers=0, batch_size=4, keep_images=True, tiles=bar)
    assert isinstance(made, Embedding), made
    return made


@pytest.fixture
def sources(
    pixels: NDArray[np.uint16], write_scene: Callable[..., Path]
) -> dict[str, dict[str, Any]]:
    path = write_scene(np.tile(pixels, (1, 2, 2)), name="S2_20220704.tif")
    place = PointBuffer(*CENTRE, 400)
    loaded = rioxarray.open_rasterio(path).load()  # type: ignore[union-attr]
    near = {"spatial": PointBuffer(13.6935, 46.9413, 300), "backend": LocalProvider(path)}
    return {
        "sample": {"spatial": place, "backend": "sample"},
        "array": {"input_chw": pixels},
        "file": {"imagery": path},
        "data array": {"imagery": loaded},
        "local": {**near, "temporal": TemporalSpec.range("2022-07-01", "2022-07-10")},
    }


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")
@pytest.mark.parametrize("name", ["sample", "array", "file", "data array", "local"])
def test_another_process_gives_the_same(
    sources: dict[str, dict[str, Any]], checkpoint: Path, name: str
) -> None:
    task = settled(checkpoint, output=OutputSpec.grid())
    source = Source(**sources[name]).resolved(Settings.from_environ())
    here = embedded(pickled((task, source)))  # and afterwards it is still the same request
    there = called(embedded, pickled((task, source)))
    assert np.array_equal(here.data.values, there.data.values, equal_nan=True)
    assert here.meta == there.meta
    assert there.data.rio.crs == here.data.rio.crs
    assert np.array_equal(here.image, there.image)  # type: ignore[arg-type]


class Locked(SampleProvider):
    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        ({"spatial": PointBuffer(*CENTRE, 400), "backend": Locked()}, "got provider=.*lock"),
        ({"imagery": lambda: None}, "got imagery=<function"),
    ],
)
def test_the_part_that_does_not_pickle_is_named(
    checkpoint: Path, pixels: dict[str, Any], match: str
) -> None:
    source = Source(**pixels).resolved(Settings.from_environ())
    with pytest.raises(SpecError, match=match):
        pickled((settled(checkpoint), source))
