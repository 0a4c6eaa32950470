"""``get_embedding`` end to end: three kinds of pixels, every option, every refusal."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import torch
from numpy.typing import NDArray
from pyproj import Transformer
from safetensors.torch import save_file

import rs_embed
from rs_embed import (
    BBox,
    Embedding,
    FetchSpec,
    OutputSpec,
    PointBuffer,
    Raster,
    SensorSpec,
    TemporalSpec,
    get_embedding,
)
from rs_embed.errors import (
    CheckpointError,
    CoverageWarning,
    GridError,
    GsdWarning,
    ImageryError,
    ImageryWarning,
    ModelError,
    ProviderError,
    SettingsError,
    SpecError,
    TemporalWarning,
    UnknownNameError,
)
from rs_embed.models.scalemae.config import VARIANTS
from rs_embed.models.scalemae.preparation import normalised
from rs_embed.providers.sample import CENTRE
from tests.conftest import small_network

Pixels = NDArray[np.uint16]
CENTRE_POINT = PointBuffer(*CENTRE, buffer_m=1280)


@pytest.fixture
def embed(checkpoint: Path, pixels: Pixels) -> Callable[..., Embedding]:
    """``get_embedding`` on the small checkpoint and, unless told otherwise, a square array."""

    def run(**kwargs: Any) -> Embedding:
        if not kwargs.keys() & {"imagery", "spatial", "input_chw"}:
            kwargs = {"input_chw": pixels[:, :48, :48], "fetch": FetchSpec(scale_m=10), **kwargs}
        return get_embedding(
            "scalemae", **{"weights": str(checkpoint), "image_size": 256, **kwargs}
        )

    return run


def expected_tokens(image: NDArray[np.uint8], gsd: float, *, normed: bool = True) -> Any:
    x = normalised(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        return small_network()(torch.from_numpy(x)[None], torch.tensor([gsd]), normed=normed)


def test_pooled_vectors_are_what_the_network_gives(embed: Callable[..., Embedding]) -> None:
    mean, largest, cls = (embed(output=OutputSpec.pooled(p)) for p in ("mean", "max", "cls"))
    assert mean.image is not None
    tokens = expected_tokens(mean.image, 10 * 48 / 256)
    patches = tokens.patches[0].flatten(0, 1).numpy()
    for embedding, expected in (
        (mean, patches.mean(0)), (largest, patches.max(0)), (cls, tokens.cls[0].numpy()),
    ):  # fmt: skip
        assert embedding.data.shape == (48,)
        assert embedding.data.dtype == np.float32
        assert np.abs(embedding.data - expected).max() < 1e-5
    assert [e.meta["pooling"] for e in (mean, largest, cls)] == ["patch_mean", "patch_max", "cls"]


def test_tokens_before_the_norm(embed: Callable[..., Embedding]) -> None:
    embedding = embed(tokens="pre_norm", output=OutputSpec.grid())
    assert embedding.image is not None
    tokens = expected_tokens(embedding.image, 10 * 48 / 256, normed=False)
    assert np.abs(embedding.data.values.transpose(1, 2, 0) - tokens.patches[0].numpy()).max() < 1e-5
    assert embedding.meta["tokens"] == "pre_norm"


def test_default_size_is_256_cropped_to_224(embed: Callable[..., Embedding]) -> None:
    with pytest.warns(CoverageWarning, match=r"sees the central 76\.6% .*image_size=256"):
        embedding = embed(image_size=None)
    assert embedding.meta["image_size"] == 224
    assert embedding.meta["coverage"] == (224 / 256) ** 2
    assert embedding.meta["input_res_m"] == 10 * 48 / 256


def test_warnings_point_at_the_callers_line(
    embed: Callable[..., Embedding], pixels: Pixels
) -> None:
    with pytest.warns(CoverageWarning) as caught:
        embed(image_size=224)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int64, np.float16, np.float32, float])
def test_any_number_type_gives_the_same_embedding(
    embed: Callable[..., Embedding], pixels: Pixels, dtype: Any
) -> None:
    square = (pixels[:, :48, :48] // 8 * 8).clip(8, 2040)  # exact in float16
    typed = embed(input_chw=square.astype(dtype), fetch=FetchSpec(scale_m=10))
    plain = embed(input_chw=square, fetch=FetchSpec(scale_m=10))
    assert np.array_equal(typed.data, plain.data)
    assert typed.meta["fingerprint"] == plain.meta["fingerprint"]


def test_the_gsd_reaches_the_model(embed: Callable[..., Embedding], pixels: Pixels) -> None:
    square = pixels[:, :48, :48]
    results = {s: embed(input_chw=square, fetch=FetchSpec(scale_m=s)) for s in (0.5, 5, 10)}
    for scale_m, embedding in results.items():
        assert embedding.meta["used_scale_m"] == scale_m
        assert embedding.meta["input_res"] == embedding.meta["input_res_m"] == scale_m * 48 / 256
    assert np.abs(results[5].data - results[10].data).max() > 1e-3
    assert len({e.meta["fingerprint"] for e in results.values()}) == 3


def test_gsd_policies(embed: Callable[..., Embedding]) -> None:
    relative, number = embed(gsd="relative"), embed(gsd=3.5)
    assert relative.meta["input_res"] == 224 / 256
    assert (relative.meta["gsd_policy"], number.meta["gsd_policy"]) == ("relative", "number")
    assert number.meta["input_res"] == 3.5
    assert number.meta["input_res_m"] == 10 * 48 / 256
    assert np.abs(number.data - embed(fetch=FetchSpec(scale_m=3.5 * 256 / 48)).data).max() < 1e-6


@pytest.mark.parametrize("gsd", [0, -1, math.nan, math.inf, True, [3]])
def test_gsd_must_be_a_policy_or_a_number(embed: Callable[..., Embedding], gsd: Any) -> None:
    with pytest.raises(SpecError, match="got gsd="):
        embed(gsd=gsd)
    with pytest.raises(UnknownNameError, match="unknown gsd 'meters'.*did you mean 'metres'"):
        embed(gsd="meters")


def test_a_missing_gsd_is_assumed_aloud(embed: Callable[..., Embedding], pixels: Pixels) -> None:
    with pytest.warns(GsdWarning, match="10 m per pixel was assumed"):
        embedding = embed(input_chw=pixels[:, :48, :48])
    assert (embedding.meta["used_scale_m"], embedding.meta["scale_m_source"]) == (10, "assumed")


def test_meta_is_plain_json_and_complete(embed: Callable[..., Embedding]) -> None:
    meta = embed().meta
    assert json.loads(json.dumps(meta)) == meta
    promised = {
        "model", "weights_sha256", "backend", "source", "grid", "used_scale_m", "input_res_m",
        "gsd_policy", "tokens_kind", "used_patch_size", "pooling", "input_prep", "coverage",
        "valid_fraction", "rs_embed_version", "fingerprint", "temporal", "weights_revision",
    }  # fmt: skip
    assert promised <= meta.keys()
    assert meta["rs_embed_version"] == rs_embed.__version__


def test_fingerprint_follows_everything_that_changes_numbers(
    embed: Callable[..., Embedding], pixels: Pixels, tmp_path: Path, checkpoint: Path
) -> None:
    base = embed().meta["fingerprint"]
    assert embed().meta["fingerprint"] == base
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text((checkpoint / "config.json").read_text())
    save_file(small_network(seed=8).state_dict(), other / "model.safetensors")
    changed = pixels[:, :48, :48].copy()
    changed[0, 20:30, 20:30] += 500
    variations: list[dict[str, Any]] = [
        {"tokens": "pre_norm"}, {"gsd": 2.0}, {"display": "visual"}, {"image_size": 272},
        {"output": OutputSpec.grid()}, {"output": OutputSpec.pooled("max")},
        {"weights": str(other)}, {"input_chw": changed, "fetch": FetchSpec(scale_m=10)},
    ]  # fmt: skip
    prints = [embed(**v).meta["fingerprint"] for v in variations]
    assert len({base, *prints}) == 1 + len(variations)


def test_weights_are_loaded_once_until_they_change(
    embed: Callable[..., Embedding], tmp_path: Path, checkpoint: Path
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text((checkpoint / "config.json").read_text())
    save_file(small_network(seed=8).state_dict(), folder / "model.safetensors")
    first = embed(weights=str(folder))
    save_file(small_network(seed=9).state_dict(), folder / "model.safetensors")
    second = embed(weights=folder)
    assert first.meta["weights_sha256"] != second.meta["weights_sha256"]
    assert np.abs(first.data - second.data).max() > 1e-2


def test_numbers_from_numpy_are_numbers_and_plain_in_meta(embed: Callable[..., Embedding]) -> None:
    fetch = FetchSpec(scale_m=np.float32(10), fill_value=np.int64(0))  # type: ignore[arg-type]
    numpy = embed(gsd=np.float32(2), image_size=np.int64(256), fetch=fetch, min_valid=np.float32(0))
    plain = embed(gsd=2, min_valid=0)
    assert np.array_equal(numpy.data, plain.data)
    assert json.loads(json.dumps(numpy.meta)) == numpy.meta


def test_meta_claims_no_sensor_that_nobody_named(
    embed: Callable[..., Embedding], pixels: Pixels, write_scene: Callable[..., Path]
) -> None:
    assert embed().meta["sensor"] is None
    sensor = SensorSpec("aerial", ("B4", "B3", "B2"), scale_m=3)
    named = embed(input_chw=pixels[:, :48, :48], sensor=sensor)
    assert named.meta["sensor"]["collection"] == "aerial"
    assert named.meta["sensor"]["cloudy_pct"] is None


def test_georeferenced_arrays_do_not_lose_their_place(
    embed: Callable[..., Embedding], pixels: Pixels, write_scene: Callable[..., Path]
) -> None:
    array = rioxarray.open_rasterio(write_scene(pixels[:, :48, :48]))
    with pytest.raises(ImageryError, match="got input_chw with a CRS.*pass it as imagery="):
        embed(input_chw=array, fetch=FetchSpec(scale_m=10))


def test_units_are_settled_each_for_itself_and_may_not_contradict(
    embed: Callable[..., Embedding], pixels: Pixels, write_scene: Callable[..., Path]
) -> None:
    path = write_scene(pixels[:, :48, :48] + 8000)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (2.75e-5,) * 3, (-0.2,) * 3
    meta = embed(imagery=path).meta
    assert (meta["reflectance_scale"], meta["reflectance_offset"]) == (2.75e-5, -0.2)
    assert meta["reflectance_source"] == "imagery"
    bands = ("B4", "B3", "B2")
    same = embed(imagery=path, sensor=SensorSpec("L8", bands, reflectance_offset=-0.2)).meta
    assert same["reflectance_scale"] == 2.75e-5
    with pytest.raises(ImageryError, match="declares reflectance_scale=2.75e-05 .* states 0.0001"):
        embed(imagery=path, sensor=SensorSpec("L8", bands, reflectance_scale=1e-4))


def test_threads_share_one_network_and_agree(embed: Callable[..., Embedding]) -> None:
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: embed(), range(12)))
    for result in results[1:]:
        assert np.abs(result.data - results[0].data).max() < 1e-6


def test_masked_pixels_are_invalid(embed: Callable[..., Embedding], pixels: Pixels) -> None:
    square = pixels[:, :48, :48].astype(np.float32)
    masked = np.ma.masked_array(square, np.zeros(square.shape, bool))
    masked[1, :20] = np.ma.masked
    holed = square.copy()
    holed[:, :20] = np.nan
    got, expected = (embed(input_chw=a, fetch=FetchSpec(scale_m=10)) for a in (masked, holed))
    assert np.array_equal(got.data, expected.data)
    assert got.meta["valid_fraction"] == pytest.approx(28 / 48)


def test_nothing_valid_where_the_model_looks(embed: Callable[..., Embedding]) -> None:
    ends = np.full((3, 64, 300), np.nan)
    ends[:, :, :100] = ends[:, :, -100:] = 900
    for output in (OutputSpec.grid(), OutputSpec.pooled(), OutputSpec.pooled("cls")):
        with pytest.raises(ImageryError, match="got no token of which 50% is valid"):
            embed(input_chw=ends, fetch=FetchSpec(scale_m=10), output=output)


def test_a_variant_gives_the_sizes_where_no_config_does(
    embed: Callable[..., Embedding], tmp_path: Path
) -> None:
    network = small_network(VARIANTS["tiny"])
    torch.save({"model": network.state_dict()}, tmp_path / "tiny.pth")
    embedding = embed(weights=tmp_path / "tiny.pth", variant="tiny")
    assert embedding.data.shape == (192,)
    with pytest.raises(CheckpointError, match="Sizes are read .*config.json.*or set by variant="):
        embed(weights=tmp_path / "tiny.pth")


# --- own imagery ---------------------------------------------------------------------------


def test_imagery_gives_gsd_crs_and_place(
    embed: Callable[..., Embedding], write_scene: Callable[..., Path], pixels: Pixels
) -> None:
    path = write_scene(pixels[:, :48, :48], nodata=0)
    grid = embed(imagery=path, output=OutputSpec.grid())
    assert grid.meta["used_scale_m"] == 10
    assert grid.meta["scale_m_source"] == "georeference"
    assert grid.data.rio.crs.to_epsg() == 32633
    assert grid.data.rio.bounds() == pytest.approx((400000, 5199520, 400480, 5200000))
    assert grid.data.shape == (48, 16, 16)
    # Row 0 is north, x runs east, coordinates are token centres.
    assert grid.data.y.values[0] == pytest.approx(5200000 - 15)
    assert grid.data.x.values[0] == pytest.approx(400000 + 15)
    same = embed(output=OutputSpec.grid())
    assert np.array_equal(grid.data.values, same.data.values)
    array: Any = rioxarray.open_rasterio(path)
    raster = Raster.from_array(
        pixels[:, :48, :48], bands=("B4", "B3", "B2"), crs="EPSG:32633",
        transform=array.rio.transform(),
    )  # fmt: skip
    for imagery in (array, raster):
        assert np.array_equal(embed(imagery=imagery, output=OutputSpec.grid()).data, grid.data)


def test_cropped_grids_stay_in_place(
    embed: Callable[..., Embedding], write_scene: Callable[..., Path]
) -> None:
    # West to east ramp: a token's colour tells where it lies; the crop drops both ends.
    ramp = np.broadcast_to(np.arange(200) * 40 + 1000, (3, 100, 200)).astype(np.uint16)
    with pytest.warns(
        CoverageWarning, match="sees the central 50.0%.*input_prep='tile' keeps all of it"
    ):
        grid = embed(imagery=write_scene(ramp), output=OutputSpec.grid())
    assert grid.meta["coverage"] == 0.5
    assert grid.data.rio.bounds() == pytest.approx((400500, 5199000, 401500, 5200000))
    assert grid.image is not None
    east = (grid.data.x.values - 400000) / 10  # column of each token's centre in the scene
    told = grid.image.reshape(16, 16, 16, 16, 3).mean((0, 1, 3, 4))
    assert np.abs(told - ((east * 40 + 980) / 10000 * 255 - 0.5)).max() < 1


def test_contradicting_scale_names_both_numbers(
    embed: Callable[..., Embedding], write_scene: Callable[..., Path], pixels: Pixels
) -> None:
    path = write_scene(pixels[:, :48, :48])
    with pytest.raises(
        ImageryError, match="got scale_m=20, but a pixel of the imagery covers 10 m"
    ):
        embed(imagery=path, fetch=FetchSpec(scale_m=20))
    assert embed(imagery=path, fetch=FetchSpec(scale_m=10.05)).meta["used_scale_m"] == 10


def test_window_of_imagery(
    embed: Callable[..., Embedding], write_scene: Callable[..., Path], pixels: Pixels
) -> None:
    path = write_scene(np.tile(pixels, (1, 4, 4)))
    lon, lat = 13.7, 46.93
    embedding = embed(imagery=path, spatial=PointBuffer(lon, lat, 240))
    assert embedding.meta["grid"]["shape"] == [48, 48]
    assert embedding.meta["valid_fraction"] == 1
    with pytest.raises(ImageryError, match="short side of at least 16"):
        embed(imagery=path, spatial=PointBuffer(lon, lat, 60))


def test_eight_bit_imagery_needs_its_units(
    embed: Callable[..., Embedding], write_scene: Callable[..., Path]
) -> None:
    photo = np.random.default_rng(5).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    path = write_scene(photo, names=("R", "G", "B"))
    sensor = SensorSpec("aerial", ("R", "G", "B"), reflectance_scale=1 / 255)
    with pytest.raises(ImageryError, match=r"uint8 .*look 8-bit.*reflectance_scale=1 / 255"):
        embed(imagery=path, sensor=SensorSpec("aerial", ("R", "G", "B")))
    assert embed(imagery=path, sensor=sensor).meta["reflectance_source"] == "sensor"


# --- the sample provider -------------------------------------------------------------------


def test_sample_scene_is_read_on_the_utm_grid(embed: Callable[..., Embedding]) -> None:
    embedding = embed(spatial=CENTRE_POINT, backend="sample", output=OutputSpec.grid())
    meta = embedding.meta
    assert meta["backend"] == "sample"
    assert meta["grid"] == {
        "crs": "EPSG:32618", "shape": [256, 256],
        "transform": [10, 0, 444450, 0, -10, 4173340],
    }  # fmt: skip
    assert (meta["used_scale_m"], meta["input_res_m"], meta["coverage"]) == (10, 10, 1)
    assert meta["source"]["resampling"] == "none"
    assert "L1C" in meta["source"]["product"]
    assert meta["temporal"] is None
    assert embedding.data.rio.crs.to_epsg() == 32618


def test_sample_scene_at_another_scale_and_crs(embed: Callable[..., Embedding]) -> None:
    coarse = embed(spatial=CENTRE_POINT, backend="sample", fetch=FetchSpec(scale_m=20))
    assert coarse.meta["source"]["resampling"] == "average"
    assert coarse.meta["input_res_m"] == 20 * 128 / 256
    mercator = embed(spatial=CENTRE_POINT, backend="sample", fetch=FetchSpec(crs="EPSG:3857"))
    assert mercator.meta["grid"]["transform"][0] == 10
    # Ten Mercator metres at 37.69 degrees are 7.91 m: that is what the model is told.
    assert mercator.meta["input_res_m"] == pytest.approx(
        10 * math.cos(math.radians(37.694)), rel=4e-3
    )


def test_a_period_does_not_apply_to_the_undated_scene(embed: Callable[..., Embedding]) -> None:
    with pytest.warns(TemporalWarning, match="no recorded day.*was not applied"):
        embedding = embed(spatial=CENTRE_POINT, backend="sample", temporal=TemporalSpec.year(2022))
    assert embedding.meta["temporal"] is None
    assert "2022-01-01 to 2023-01-01 was not applied" in embedding.meta["warnings"][0]


def test_places_the_scene_does_not_cover(embed: Callable[..., Embedding]) -> None:
    with pytest.raises(ProviderError, match=r"is outside the imagery.*lon -75\.6.*only imagery"):
        embed(spatial=PointBuffer(121.5, 31.2, 2048), backend="sample")
    to_geographic = Transformer.from_crs("EPSG:32618", "EPSG:4326", always_xy=True)
    northwest = PointBuffer(*to_geographic.transform(442530, 4175260), 1280)
    with pytest.raises(ImageryError, match=r"got 25\.0% valid pixels, expected at least 30%"):
        embed(spatial=northwest, backend="sample", min_valid=0.3)
    # A quarter is valid; the rest is accounted for, not invented.
    corner = embed(spatial=northwest, backend="sample", output=OutputSpec.grid())
    assert corner.meta["valid_fraction"] == 0.25
    assert corner.meta["valid_tokens"] == 64
    known = np.isfinite(corner.data.values).all(0)
    assert known.sum() == 64
    assert known[8:, 8:].all()


def test_invalid_tokens_are_left_out_of_pooling(
    embed: Callable[..., Embedding], pixels: Pixels
) -> None:
    holed = pixels[:, :48, :48].astype(np.float32)
    holed[:, :18] = np.nan
    grid, mean = (embed(input_chw=holed, fetch=FetchSpec(scale_m=10), output=o)
                  for o in (OutputSpec.grid(), OutputSpec.pooled()))  # fmt: skip
    values = grid.data.values
    assert np.isnan(values[:, :6]).all()
    assert np.isfinite(values[:, 6:]).all()
    assert np.abs(mean.data - np.nanmean(values, axis=(1, 2))).max() < 1e-5
    assert mean.meta["valid_fraction"] == pytest.approx(30 / 48)
    # What the invalid pixels hold makes no difference.
    holed[:, :18] = -np.inf
    with pytest.warns(ImageryWarning, match="864 infinite pixels were treated as nodata"):
        same = embed(input_chw=holed, fetch=FetchSpec(scale_m=10))
    assert np.array_equal(same.data, mean.data)


# --- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"varient": "tiny"}, UnknownNameError, "unknown argument 'varient'.*mean 'variant'"),
        ({"variant": "tinny"}, UnknownNameError, "unknown variant 'tinny'.*mean 'tiny'"),
        ({"tokens": 3}, SpecError, "got tokens=3"),
        ({"display": "visaul"}, UnknownNameError, "did you mean 'visual'"),
        ({"precision": "float16"}, UnknownNameError, "unknown precision 'float16'"),
        ({"device": "gpu"}, UnknownNameError, "unknown device 'gpu'"),
        ({"input_prep": "tiel"}, UnknownNameError, "unknown input_prep 'tiel'"),
        ({"min_valid": 1.5}, SpecError, "got min_valid=1.5"),
        ({"min_valid": True}, SpecError, "got min_valid=True"),
        ({"image_size": 225}, SpecError, "multiple of the patch size 16, such as 224 or 240"),
        ({"image_size": "224"}, SpecError, "got image_size='224'"),
        ({"image_size": 8}, SpecError, "got image_size=8"),
        ({"image_size": 0}, SpecError, "got image_size=0"),
        ({"image_size": 10**6}, SpecError, "got image_size=1000000.*at most 4096"),
        ({"weights": ""}, SpecError, "got weights=''"),
        ({"weights": 7}, SpecError, "got weights=7"),
        ({"weights": "a" * 5000}, CheckpointError, "not a valid path"),
        ({"weights": "~nobody-here/x"}, CheckpointError, "not a valid path"),
        ({"gsd": 1e300}, SpecError, "got a GSD of 1e.300 for the model"),
        ({"fetch": FetchSpec(scale_m=1e300)}, SpecError, "got a GSD of"),
        ({"spatial": (1, 2, 3)}, SpecError, r"got spatial=\(1, 2, 3\).*expected \(lon, lat\)"),
        ({"temporal": "2022-6"}, SpecError, "got temporal='2022-6'"),
        ({"output": 3}, SpecError, "got output=3 .*expected an OutputSpec"),
        ({"fetch": 10}, SpecError, "got fetch=.*expected FetchSpec"),
        ({"sensor": SensorSpec("c", ("r", "g", "b")), "fetch": FetchSpec()}, SpecError,
         "got both sensor and fetch"),
        ({"imagery": "x.tif", "input_chw": 1}, SpecError, "got both input_chw and imagery"),
        ({"input_chw": np.ones((3, 20, 20)), "spatial": CENTRE_POINT}, SpecError,
         "got spatial with input_chw"),
        ({"input_chw": np.ones((3, 20, 20)), "temporal": TemporalSpec.year(2022)}, SpecError,
         "got temporal with input_chw"),
        ({"imagery": "x.tif", "backend": "sample"}, SpecError, "got backend with imagery"),
        ({"imagery": "x.tif", "fetch": FetchSpec(cloudy_pct=5)}, SpecError, "got cloudy_pct with"),
        ({"imagery": "x.tif", "fetch": FetchSpec(crs="EPSG:3857")}, SpecError, "got crs with"),
        ({"spatial": CENTRE_POINT, "backend": "smaple"}, UnknownNameError, "mean 'sample'"),
        ({"spatial": CENTRE_POINT, "backend": "sample",
          "sensor": SensorSpec("L8", ("a", "b", "c"))}, ProviderError,
         "got collection='L8'.*leave sensor out"),
        ({"input_chw": np.ones((4, 20, 20)), "sensor": SensorSpec("c", ("a", "b", "c", "d"))},
         SpecError, "got 4 bands"),
        ({"spatial": PointBuffer(0, 0, 70), "backend": "sample"}, ImageryError,
         "the place is 14 x 14 px at scale_m=10"),
        ({"spatial": BBox(0, 0, 5, 5), "backend": "sample"}, GridError, "at most 250,000,000"),
        ({"input_chw": [[[1, 2], [3]]]}, ImageryError, "type list, which is not an array"),
        ({"weights": "no/such/path.pth"}, CheckpointError, "no such folder or file"),
        ({"weights": "random-init", "loader": "rshf"}, SpecError, "loader='rshf' with random"),
        ({"weights": None, "variant": "small"}, SpecError, "no weights are published for it"),
        ({"variant": "base"}, CheckpointError, "variant='base'.*leave variant out"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_meant(
    embed: Callable[..., Embedding], kwargs: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        embed(**kwargs)


def test_nothing_to_embed() -> None:
    with pytest.raises(SpecError, match="got no spatial, expected a place"):
        get_embedding("scalemae")
    with pytest.raises(
        UnknownNameError, match="unknown model 'scale-mae'.*did you mean 'scalemae'"
    ):
        get_embedding("scale-mae")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error(
    embed: Callable[..., Embedding], device: str
) -> None:
    there = torch.cuda.is_available() if device == "cuda" else torch.backends.mps.is_available()
    if there:
        pytest.skip(f"{device} is available here")
    with pytest.raises(ModelError, match=f"got device='{device}', which is not available"):
        embed(device=device)
    assert embed(device="auto").meta["device"] == embed(device="cpu").meta["device"] == "cpu"


def test_environment_variables(
    embed: Callable[..., Embedding], monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_ID", str(checkpoint))
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "272")
    assert embed(weights=None, image_size=None).meta["image_size"] == 272
    assert embed(weights=None).meta["image_size"] == 256  # the argument wins
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "225")
    with pytest.raises(SpecError, match="RS_EMBED_SCALEMAE_IMG=225.*patch size 16, such as 224"):
        embed(image_size=None)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "none")
    with pytest.raises(SettingsError, match="RS_EMBED_SCALEMAE_BATCH_SIZE='none'"):
        embed()


def test_random_weights_are_named_and_reproducible() -> None:
    def run() -> Embedding:
        return get_embedding(
            "scalemae", spatial=CENTRE_POINT, backend="sample", weights="random-init",
            variant="tiny", image_size=256,
        )  # fmt: skip

    first, second = run(), run()
    assert first.data.shape == (192,)
    assert np.array_equal(first.data, second.data)
    assert first.meta["weights"] == "random-init"
    assert first.meta["weights_seed"].startswith("0 (torch ")


@pytest.fixture
def published(checkpoint: Path) -> Iterator[str]:
    """The published id in the hub's cache, standing for the small checkpoint."""
    home = Path(os.environ["HF_HOME"]) / "hub" / "models--MVRL--scalemae-vitlarge-800"
    snapshot = home / "snapshots" / ("c" * 40)
    shutil.copytree(checkpoint, snapshot)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("c" * 40)
    yield "MVRL/scalemae-vitlarge-800"
    shutil.rmtree(home)


def test_published_weights_from_the_cache_know_their_training(
    embed: Callable[..., Embedding], published: str, pixels: Pixels
) -> None:
    near = embed(weights=None)
    assert near.meta["weights"] == published
    assert near.meta["weights_revision"] == "c" * 40
    with pytest.warns(GsdWarning, match=r"input is 93\.75, far from the 2\.2 to 5"):
        embed(weights=None, input_chw=pixels[:, :48, :48], fetch=FetchSpec(scale_m=500))
    # Own weights say nothing of their training, so that nothing is said of the GSD.
    embed(input_chw=pixels[:, :48, :48], fetch=FetchSpec(scale_m=500))


@pytest.mark.parametrize(
    ("input_res", "far"), [(2.2 / 4.1, True), (2.2 / 3.9, False), (5 * 3.9, False), (5 * 4.1, True)]
)
def test_a_gsd_is_far_from_the_training_at_four_times_its_range(
    embed: Callable[..., Embedding], published: str, pixels: Pixels, input_res: float, far: bool
) -> None:
    scale_m = input_res * 256 / 48  # an array of 48 px, enlarged to 256
    # Imagery of more than 20 m is told in any case: enlarged, it shows no more.
    told = "model's input is .* far from the 2.2 to 5" if far else "imagery is 104 m, far from"
    with pytest.warns(GsdWarning, match=told) if far or scale_m > 20 else nullcontext():
        embedding = embed(
            weights=None, input_chw=pixels[:, :48, :48], fetch=FetchSpec(scale_m=scale_m)
        )
    assert embedding.meta["input_res"] == pytest.approx(input_res)
    assert any("model's input is" in warning for warning in embedding.meta["warnings"]) is far


def test_non_finite_weights_do_not_become_an_embedding(
    embed: Callable[..., Embedding], tmp_path: Path, checkpoint: Path
) -> None:
    state = small_network().state_dict()
    state["blocks.0.mlp.fc1.bias"][0] = math.nan
    (tmp_path / "config.json").write_text((checkpoint / "config.json").read_text())
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="values that are not finite; the weights are damaged"):
        embed(weights=str(tmp_path))
