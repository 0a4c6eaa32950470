"""What the model sees, bit for bit, and where its tokens lie."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS

from rs_embed import Raster
from rs_embed.embedding.checks import check_values, without_odd
from rs_embed.embedding.model_input import framed_grid, image_of, prepare, prepare_tiles
from rs_embed.errors import ImageryError
from rs_embed.geo.grid import Grid
from rs_embed.models.scalemae.preparation import ScaleMaePreparation, normalised

BANDS = ("B4", "B3", "B2")
REFLECTANCE, VISUAL = ScaleMaePreparation("reflectance"), ScaleMaePreparation("visual")
SCALED: dict[str, Any] = {"reflectance": (1 / 10000, 0.0), "preparation": REFLECTANCE}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def raster(data: NDArray[np.generic], nodata: float | None = 0) -> Raster:
    return Raster.from_array(data, bands=BANDS, nodata=nodata)


def half_to_even(value: Fraction) -> int:
    floor = value.numerator // value.denominator
    rest = value - floor
    if rest == Fraction(1, 2):
        return floor + floor % 2
    return floor + (rest > Fraction(1, 2))


def reference(data: NDArray[np.generic], size: int) -> NDArray[np.uint8]:
    """The pipeline of torchvision on Pillow images, its rounding rules written out."""
    rgb = np.empty((*data.shape[1:], 3), np.uint8)
    for channel in range(3):
        reflectance = np.clip(data[channel].astype(np.float32) / np.float32(10000), 0, 1)
        rgb[..., channel] = np.trunc(reflectance * np.float32(255))
    height, width = data.shape[1:]
    # MAE's evaluation: 224 is 256 cropped; smaller in proportion, int() of the quotient.
    short = size if size > 224 else int(size / 0.875)
    if width <= height:
        new_width, new_height = short, int(short * height / width)
    else:
        new_width, new_height = int(short * width / height), short
    image = Image.fromarray(rgb).resize((new_width, new_height), Image.Resampling.BICUBIC)
    top = half_to_even(Fraction(new_height - size, 2))
    left = half_to_even(Fraction(new_width - size, 2))
    return np.asarray(image)[top : top + size, left : left + size]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(16, 600), st.integers(16, 600), st.sampled_from([64, 192, 224, 256, 448]),
    st.integers(0, 2**31), st.sampled_from([np.uint16, np.int16, np.int32, np.float32, np.float64]),
)  # fmt: skip
def test_bit_equal_to_the_pipeline_at_any_size(
    height: int, width: int, size: int, seed: int, dtype: type[np.generic]
) -> None:
    data = np.random.default_rng(seed).integers(1, 12000, (3, height, width)).astype(dtype)
    seen = prepare(raster(data), scale_m=10, image_size=size, patch_size=16, **SCALED)
    image = seen.picture(REFLECTANCE)
    assert image.dtype == np.uint8
    assert np.array_equal(image, reference(data, size))


def test_every_digital_number_is_truncated_not_rounded() -> None:
    numbers = np.arange(1, 65536).astype(np.uint16).reshape(1, 255, 257).repeat(3, 0)
    got = image_of(raster(numbers), (1 / 10000, 0), REFLECTANCE)
    expected = [min(n, 10000) * 255 // 10000 for n in range(1, 65536)]
    # Exact integer arithmetic agrees with float32 everywhere.
    assert got[..., 0].ravel().tolist() == expected


def test_eight_bit_images_pass_through_untouched() -> None:
    numbers = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(3, 0)
    got = image_of(raster(numbers, None), (1 / 255, 0), REFLECTANCE)
    assert np.array_equal(got[..., 1], numbers[0])


def test_scale_offset_and_visual_stretch() -> None:
    # Landsat Collection 2: reflectance = DN * 2.75e-5 - 0.2.
    numbers = np.full((3, 20, 20), 14545, np.uint16)
    landsat = image_of(raster(numbers), (2.75e-5, -0.2), REFLECTANCE)
    assert landsat.ravel()[0] == int((14545 * 2.75e-5 - 0.2) * 255) == 50
    visual = image_of(raster(np.full((3, 20, 20), 1500)), (1e-4, 0), VISUAL)
    assert visual.ravel()[0] == int(1500 / 3000 * 255)


def test_normalisation_is_imagenet() -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    got = normalised(image, MEAN, STD)
    expected = (image.transpose(2, 0, 1) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(
        STD, (3, 1, 1)
    )
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() < 1e-6


@settings(max_examples=300, deadline=None)
@given(
    st.integers(16, 3000), st.integers(16, 3000), st.sampled_from([64, 224, 256, 448]),
    st.floats(0.05, 60),
)  # fmt: skip
def test_gsd_and_grid_follow_the_resize(h: int, w: int, size: int, scale_m: float) -> None:
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 4e5, 0, -10, 52e5), (h, w))
    frame = REFLECTANCE.frame(grid.shape, size)
    cropped, input_res_m = framed_grid(grid, scale_m, frame)
    short = 256 if size == 224 else int(64 / 0.875) if size == 64 else size
    assert min(frame.resized) == short
    assert input_res_m == pytest.approx(scale_m * min(h, w) / short)
    # The short axis is exact; the long one is rounded to a pixel.
    pixel = cropped.transform.a if w <= h else -cropped.transform.e
    assert pixel * scale_m / 10 == pytest.approx(input_res_m)
    # Cropped from the middle, to the pixel.
    for low, high, c_low, c_high, step in (
        (grid.bounds[0], grid.bounds[2], cropped.bounds[0], cropped.bounds[2], cropped.transform.a),
        (
            grid.bounds[1],
            grid.bounds[3],
            cropped.bounds[1],
            cropped.bounds[3],
            -cropped.transform.e,
        ),
    ):
        assert abs((low + high) - (c_low + c_high)) / 2 <= step / 2 + 1e-6
    assert cropped.shape == (size, size)


@settings(max_examples=60, deadline=None)
@given(st.integers(40, 90), st.integers(40, 90), st.integers(0, 2**31), st.floats(0.02, 0.6))
def test_invalid_pixels_take_the_nearest_valid_colour(
    height: int, width: int, seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(40, 9999, (3, height, width)).astype(np.float32)
    gone = rng.random((height, width)) < share
    gone[0, 0] = False
    data[:, gone] = np.nan
    got = image_of(raster(data), (1e-4, 0), REFLECTANCE)
    rows, columns = np.nonzero(~gone)
    valid_colours = got[~gone]
    for row, column in zip(*np.nonzero(gone), strict=True):
        distance = (rows - row) ** 2 + (columns - column) ** 2
        nearest = valid_colours[distance == distance.min()]
        assert (nearest == got[row, column]).all(1).any()
    kept = (data[:, ~gone].astype(np.float32) / np.float32(10000) * np.float32(255)).astype(
        np.uint8
    )
    assert np.array_equal(got[~gone].T, kept)


def token_valid_by_supersampling(valid: NDArray[np.bool_], size: int) -> NDArray[np.float64]:
    """Valid share of each token from 64 samples a pixel of the model's input and axis."""
    h, w = valid.shape
    short = size if size > 224 else int(size / 0.875)
    rh, rw = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
    top, left = round((rh - size) / 2), round((rw - size) / 2)
    fine = (np.arange(size * 64) + 0.5) / 64
    rows = ((top + fine) * h / rh).astype(int)
    columns = ((left + fine) * w / rw).astype(int)
    blocks = valid[np.ix_(rows, columns)].reshape(size // 16, 1024, size // 16, 1024)
    return np.asarray(blocks.mean((1, 3)))


@pytest.mark.parametrize(("height", "width", "size"), [(50, 50, 64), (37, 81, 64), (200, 90, 64)])
def test_token_footprints_are_exact(height: int, width: int, size: int) -> None:
    rng = np.random.default_rng(4)
    data = rng.integers(1, 9999, (3, height, width)).astype(np.uint16)
    data[:, rng.random((height, width)) < 0.4] = 0
    data[:, : height // 3, : width // 2] = 0
    seen = prepare(raster(data), scale_m=10, image_size=size, patch_size=16, **SCALED)
    expected = token_valid_by_supersampling((data != 0).any(0), size)
    assert np.abs(seen.token_valid - expected).max() < 0.01
    assert seen.valid_fraction == pytest.approx(expected.mean(), abs=0.005)


def test_coverage_is_the_share_of_the_area() -> None:
    data = np.full((3, 256, 256), 900, np.uint16)
    seen = prepare(raster(data), scale_m=10, image_size=224, patch_size=16, **SCALED)
    assert seen.coverage == (224 / 256) ** 2
    wide = np.full((3, 256, 512), 900, np.uint16)
    assert (
        prepare(raster(wide), scale_m=10, image_size=256, patch_size=16, **SCALED).coverage == 0.5
    )


def good() -> NDArray[np.float64]:
    return np.random.default_rng(0).uniform(300, 3000, (3, 40, 40))


def one_wild_value(data: NDArray[np.float64]) -> NDArray[np.float64]:
    data[:, 3, 3] = 5000
    return data


def undeclared_nodata() -> NDArray[np.float64]:
    data = good()
    data[:, :10] = -9999
    return data


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (good() / 10000, r"float64 values up to 0\.299\d+, which look normalised to 0\.\.1"),
        (good() / 12, r"which look 8-bit.*reflectance_scale=1 / 255"),
        ((good() / 12).astype(np.uint8), "got uint8 values up to 249, which look 8-bit"),
        (np.full((3, 40, 40), np.nan), r"got 0.0% valid pixels, expected at least 25%"),
        (np.zeros((3, 40, 40)), r"got 0.0% valid pixels"),
        (np.full((3, 40, 40), np.inf), "got 100% infinite pixels"),
        (-10 * good(), r"values from -299\d\d.* outside the range of reflectance"),
        (good() * 10 + 9000, "outside the range of reflectance with scale 0.0001"),
        (one_wild_value(good() / 10000), "which look normalised to 0..1"),
        (undeclared_nodata(), r"values from -9999 .* 25\.0% of them outside the range.*fill_value"),
        (good()[:, :15], "got an image of 15 x 40 px, expected a short side of at least 16 px"),
    ],
)
def test_values_that_must_not_reach_the_model(data: NDArray[np.generic], match: str) -> None:
    with pytest.raises(ImageryError, match=match):
        check_values(raster(data), reflectance=(1e-4, 0), min_valid=0.25, vouched=False)


def test_the_odd_value_is_nodata() -> None:
    data = good()
    data[:, 5, 5] = 65535
    data[1, 6, 6] = -9999
    image = raster(data)
    check_values(image, reflectance=(1e-4, 0), min_valid=0.25, vouched=False)  # below 1 %
    cleaned, count = without_odd(image, (1e-4, 0))
    assert count == 2
    assert np.argwhere(~cleaned.valid).tolist() == [[5, 5], [6, 6]]
    assert without_odd(raster(good()), (1e-4, 0))[1] == 0


def test_too_little_valid() -> None:
    data = good()
    data[:, :30] = np.nan
    with pytest.raises(ImageryError, match=r"got 25.0% valid pixels, expected at least 26%"):
        check_values(raster(data), reflectance=(1e-4, 0), min_valid=0.26, vouched=False)
    check_values(raster(data), reflectance=(1e-4, 0), min_valid=0.25, vouched=False)


def test_stated_units_are_not_questioned() -> None:
    check_values(raster(good() / 10000), reflectance=(1, 0), min_valid=0.25, vouched=True)
    check_values(raster(good()), reflectance=(1e-4, 0), min_valid=0.25, vouched=False)


def test_one_band_of_zero_is_dark_water_not_nodata() -> None:
    data = good()
    data[0, :10] = 0
    assert raster(data).valid.all()
    data[:, :10] = 0
    assert raster(data).valid.mean() == 0.75
    # Any other nodata value is impossible as a reflectance, in whichever band it stands.
    data[2, 20:] = -9999
    assert raster(data, -9999).valid.mean() == 0.5


@pytest.mark.parametrize(("reflectance", "colour"), [((1e-9, 0.0), "black"), ((1.0, 0.0), "white")])
def test_an_image_of_one_colour_is_refused(reflectance: tuple[float, float], colour: str) -> None:
    sizes = {"scale_m": 10.0, "patch_size": 16, **SCALED, "reflectance": reflectance}
    with pytest.raises(ImageryError, match=f"nothing but {colour}; check the units"):
        prepare(raster(good()), image_size=64, **sizes)
    with pytest.raises(ImageryError, match=f"nothing but {colour}; check the units"):
        prepare_tiles(raster(good()), tile_size=64, overlap_px=0, **sizes)
