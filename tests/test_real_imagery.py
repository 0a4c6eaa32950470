"""Real scenes that are not part of the repository; skipped where they are absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

from rs_embed import Embedding, FetchSpec, OutputSpec, PointBuffer, SensorSpec, get_embedding
from rs_embed.errors import ImageryError

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")


@pytest.fixture
def embed(checkpoint: Path) -> Callable[..., Embedding]:
    """``get_embedding`` of imagery as a grid on the small checkpoint."""

    def run(path: Path, **kwargs: Any) -> Embedding:
        options = {"output": OutputSpec.grid(), "weights": str(checkpoint), "image_size": 256}
        return get_embedding("scalemae", imagery=path, **{**options, **kwargs})

    return run


def test_the_sample_scene_is_a_cut_of_its_source(shared_data: Path) -> None:
    with (
        rasterio.open(Path(__file__).parents[1] / "src/rs_embed/data/sample_s2.tif") as ours,
        rasterio.open(shared_data / "s2" / "chesapeake_l1c_10m.tif") as source,
    ):
        theirs = source.read(window=source.window(*ours.bounds))  # ends 40 columns earlier
        assert np.array_equal(ours.read()[:, :, :600], theirs)
        assert ours.tags()["ATTRIBUTION"] == "Contains modified Copernicus Sentinel data"
        assert ours.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize(
    ("name", "gsd"),
    [
        ("s2/chesapeake_l1c_10m.tif", 10),
        ("s2/inn_l2a_20210617_10m.tif", 10),  # four bands, picked by name
        ("s2/lommel_s2_boa_20190411_10m.tif", 10),
        ("s2/rufiji_20m/rufiji_boa_20180725_20m.tif", 20),  # clouds set to nodata
    ],
)
def test_real_scenes_come_out_in_place(
    embed: Callable[..., Embedding], shared_data: Path, name: str, gsd: float
) -> None:
    embedding = embed(shared_data / name)
    meta = embedding.meta
    assert meta["used_scale_m"] == gsd
    with rasterio.open(shared_data / name) as file:
        short = min(file.shape)
        assert meta["input_res_m"] == pytest.approx(gsd * short / 256)
        left, bottom, right, top = embedding.data.rio.bounds()
        assert file.bounds.left - 1 <= left < right <= file.bounds.right + 1
        assert file.bounds.bottom - 1 <= bottom < top <= file.bounds.top + 1
        assert embedding.data.rio.crs == file.crs
        valid = float((file.read((1, 2, 3)) != 0).any(0).mean())
    if short == max(meta["grid"]["shape"]):
        assert meta["valid_fraction"] == pytest.approx(valid, abs=1e-6)
    finite = np.isfinite(embedding.data.values).all(0)
    assert finite.sum() == meta["valid_tokens"]


def test_web_mercator_scene_is_told_its_ground_metres(
    embed: Callable[..., Embedding], shared_data: Path
) -> None:
    path = shared_data / "s2" / "oyeplage_toc_20200405_epsg3857.tif"
    with rasterio.open(path) as file:
        projected = file.res[0]
        middle = (
            (file.bounds.left + file.bounds.right) / 2,
            (file.bounds.bottom + file.bounds.top) / 2,
        )
    _, lat = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(*middle)
    embedding = embed(path, min_valid=0.1)
    assert embedding.meta["used_scale_m"] == pytest.approx(
        projected * np.cos(np.radians(lat)), rel=4e-3
    )
    with pytest.raises(ImageryError, match=r"got scale_m=9\.55.*covers 6\.0\d+ m on the ground"):
        embed(path, min_valid=0.1, fetch=FetchSpec(scale_m=round(projected, 2)))


def test_aerial_photographs_are_refused_until_their_units_are_stated(
    embed: Callable[..., Embedding], shared_data: Path
) -> None:
    path = next((shared_data / "naip_5m").glob("*.tif"))
    with pytest.raises(ImageryError, match=r"look 8-bit|not found"):
        embed(path)
    with rasterio.open(path) as file:
        names = tuple(n or str(i) for i, n in enumerate(file.descriptions, 1))
    sensor = SensorSpec("naip", names[:3], reflectance_scale=1 / 255)
    embedding = embed(path, sensor=sensor)
    assert embedding.meta["used_scale_m"] == pytest.approx(5, rel=0.01)


def test_two_seasons_of_one_place_differ_and_two_crops_agree(
    embed: Callable[..., Embedding], shared_data: Path
) -> None:
    june, september = (shared_data / "s2" / f"inn_l2a_2021{d}_10m.tif" for d in ("0617", "0925"))
    with rasterio.open(june) as file:
        x, y = file.xy(file.height // 2, file.width // 2)
        to_geographic = Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True)
    place = PointBuffer(*to_geographic.transform(x, y), 1280)
    first, second = (embed(path, spatial=place) for path in (june, september))
    assert first.meta["grid"] == second.meta["grid"]
    assert first.meta["grid"]["shape"] == [256, 256]
    assert np.abs(first.data - second.data).max() > 0.1
    assert np.array_equal(first.data, embed(june, spatial=place).data)
