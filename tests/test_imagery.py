"""Own imagery: every pixel where it belongs, bands by name, validity from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from rs_embed import BBox, PointBuffer, Raster
from rs_embed.errors import GridError, ImageryError
from rs_embed.grid import Grid
from rs_embed.imagery import read_imagery, read_on_grid, shown_path

BANDS = ("B4", "B3", "B2")
H, W = 90, 120


def coordinates(crs: str = "EPSG:32633", transform: Affine | None = None) -> NDArray[np.float64]:
    """Three bands: the pixel centre's x, its y, and a constant."""
    transform = transform or Affine(10, 0, 400000, 0, -10, 5200000)
    columns, rows = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    x, y = transform @ (columns, rows)
    return np.stack([x, y, np.full((H, W), 7.0)])


def lonlat(x: float, y: float, crs: str = "EPSG:32633") -> tuple[float, float]:
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    return lon, lat


def assert_pixels_in_place(raster: Raster) -> None:
    """Each valid pixel holds the coordinates that the grid gives it."""
    x, y = np.meshgrid(raster.grid.x, raster.grid.y)
    assert raster.valid.any()
    assert np.array_equal(raster.data[0][raster.valid], x[raster.valid])
    assert np.array_equal(raster.data[1][raster.valid], y[raster.valid])


def read(imagery: object, **kwargs: object) -> Raster:
    return read_imagery(
        imagery,
        **{"bands": BANDS, "spatial": None, "fill_value": None, **kwargs},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(10, 0, 400000, 0, -10, 5200000)),
        ("EPSG:32737", Affine(20, 0, 500000, 0, -20, 9100000)),  # southern hemisphere
        ("EPSG:32633", Affine(10, 0, 400000, 0, 10, 5199100)),  # rows from south to north
    ],
)
def test_whole_file_and_window_are_in_place(
    write_scene: Callable[..., Path], crs: str, transform: Affine
) -> None:
    path = write_scene(coordinates(crs, transform), crs=crs, transform=transform)
    whole = read(str(path))
    assert whole.data.shape == (3, H, W)
    assert whole.grid.transform.e < 0
    assert_pixels_in_place(whole)
    left, bottom, right, top = whole.grid.bounds
    place = PointBuffer(*lonlat((left + right) / 2, (bottom + top) / 2, crs), 300)
    window = read(path, spatial=place)
    assert window.grid.shape == ((60, 60) if abs(transform.a) == 10 else (30, 30))
    assert window.valid.all()
    assert window.grid.lies_on(whole.grid)
    assert_pixels_in_place(window)


def test_window_partly_outside_is_invalid_there(write_scene: Callable[..., Path]) -> None:
    path = write_scene(coordinates())
    raster = read(path, spatial=PointBuffer(*lonlat(400000, 5200000), 200))
    assert raster.data.shape == (3, 40, 40)
    assert raster.valid.mean() == 0.25
    assert raster.valid[20:, 20:].all()
    assert_pixels_in_place(raster)


def test_box_window_is_snapped_outward(write_scene: Callable[..., Path]) -> None:
    raster = read(
        write_scene(coordinates()), spatial=BBox(*lonlat(400333, 5199333), *lonlat(400777, 5199777))
    )
    left, bottom, right, top = raster.grid.bounds
    assert left <= 400333 < left + 20
    assert bottom <= 5199333 < bottom + 20
    assert right - 20 < 400777 <= right + 1
    assert top - 20 < 5199777 <= top + 1
    assert_pixels_in_place(raster)


def test_place_outside_names_both_extents(write_scene: Callable[..., Path]) -> None:
    with pytest.raises(ImageryError, match=r"place asked for \(10\.99.*lies outside.*lon 13\.6"):
        read(write_scene(coordinates()), spatial=PointBuffer(11, 46, 500))


def test_xarray_and_raster_give_the_same_pixels(write_scene: Callable[..., Path]) -> None:
    path = write_scene(coordinates())
    array = rioxarray.open_rasterio(path)
    assert isinstance(array, xr.DataArray)
    place = PointBuffer(*lonlat(400600, 5199550), 200)
    from_file = read(path, spatial=place)
    named = Raster.from_array(
        coordinates(), bands=BANDS, crs="EPSG:32633", transform=from_file_transform()
    )
    flipped = array.isel(y=slice(None, None, -1)).transpose("y", "x", "band")
    for imagery in (array, flipped, named):
        raster = read(imagery, spatial=place)
        assert np.array_equal(raster.data, from_file.data)
        assert raster.grid.bounds == pytest.approx(from_file.grid.bounds)
        assert_pixels_in_place(raster)


def from_file_transform() -> Affine:
    return Affine(10, 0, 400000, 0, -10, 5200000)


@pytest.mark.parametrize(
    ("names", "wanted", "order"),
    [
        (("B02", "B03", "B04"), BANDS, [2, 1, 0]),
        (("blue", "green", "red"), BANDS, [2, 1, 0]),
        (("B8", "B4", "B3", "B2"), ("red", "green", "blue"), [1, 2, 3]),
        (None, BANDS, [0, 1, 2]),
        (("R", "G", "B"), ("R", "G", "B"), [0, 1, 2]),
    ],
)
def test_bands_are_found_by_name(
    write_scene: Callable[..., Path], names: tuple[str, ...] | None, wanted: tuple[str, ...],
    order: list[int],
) -> None:  # fmt: skip
    count = 3 if names is None else len(names)
    data = np.arange(count)[:, None, None] * np.ones((1, H, W)) + 100
    raster = read(write_scene(data, names=names), bands=wanted)
    assert (raster.data[:, 0, 0] - 100).tolist() == order


@pytest.mark.parametrize(
    ("count", "names", "match"),
    [
        (4, None, "has 4 bands without names, expected the 3 bands B4, B3, B2"),
        (3, ("B8", "B11", "B12"), "has the bands B8, B11, B12.*B4, B3, B2 not found"),
        (3, ("B4", "B3", "B8"), "B2 not found"),
    ],
)
def test_bands_that_are_not_there(
    write_scene: Callable[..., Path], count: int, names: tuple[str, ...] | None, match: str
) -> None:
    with pytest.raises(ImageryError, match=match):
        read(write_scene(np.ones((count, H, W)), names=names))


def test_declared_nodata_mask_and_scale_are_read(write_scene: Callable[..., Path]) -> None:
    data = np.full((3, H, W), 500, np.int16)
    data[1, :10] = -9999
    path = write_scene(data, nodata=-9999)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.0001,) * 3, (-0.1,) * 3
    raster = read(path)
    assert raster.valid.mean() == pytest.approx(1 - 10 / H)
    assert raster.reflectance == (0.0001, -0.1)
    with pytest.raises(ImageryError, match="fill_value=0, but the imagery declares nodata -9999"):
        read(path, fill_value=0)
    array = rioxarray.open_rasterio(path)
    assert read(array).valid.mean() == pytest.approx(1 - 10 / H)
    assert read(array).reflectance == (0.0001, -0.1)


def test_credentials_of_a_url_are_never_shown() -> None:
    signed = "https://me:secret@host.example/scene.tif?sig=secret&se=2026"
    assert shown_path(signed) == "https://host.example/scene.tif"
    assert shown_path("folder/a?b.tif") == "folder/a?b.tif"


def test_internal_mask_is_honoured(write_scene: Callable[..., Path]) -> None:
    path = write_scene(coordinates().astype(np.float32), nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        mask = np.full((H, W), 255, np.uint8)
        mask[:, 60:] = 0
        file.write_mask(mask)
    assert read(path).valid.mean() == 0.5


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("crs", "transform", "error", "match"),
    [
        (None, Affine(10, 0, 4e5, 0, -10, 52e5), ImageryError, "has no CRS"),
        ("EPSG:32633", Affine.identity(), ImageryError, "has no transform"),
        ("EPSG:4326", Affine(1e-4, 0, 15, 0, -1e-4, 47), GridError, "in degrees"),
        ("EPSG:32633", Affine(9, 2, 4e5, 2, -9, 52e5), GridError, "rotated"),
        ("EPSG:32633", Affine(-10, 0, 4e5, 0, -10, 52e5), GridError, "mirrored"),
        (
            'LOCAL_CS["drawing",UNIT["metre",1]]',
            Affine(1, 0, 4e5, 0, -1, 52e5),
            GridError,
            "'drawing', which is not tied to the Earth",
        ),
    ],
)
def test_files_without_usable_georeference(
    write_scene: Callable[..., Path], crs: str | None, transform: Affine,
    error: type[Exception], match: str,
) -> None:  # fmt: skip
    path = write_scene(coordinates(), crs=crs, transform=transform)
    with pytest.raises(error, match=match):
        read(path)


def test_what_is_no_imagery(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match=r"cannot read .*gone\.tif.*No such file"):
        read(tmp_path / "gone.tif")
    with pytest.raises(ImageryError, match="it is a folder"):
        read(tmp_path)
    text = tmp_path / "text.tif"
    text.write_text("no image")
    with pytest.raises(ImageryError, match="cannot read .*rio info"):
        read(text)
    with pytest.raises(ImageryError, match="imagery of type ndarray.*input_chw"):
        read(np.ones((3, 20, 20)))
    with pytest.raises(ImageryError, match="Raster without CRS"):
        read(Raster.from_array(np.ones((3, 20, 20)), bands=BANDS))


def test_a_truncated_file_is_an_error_not_zeros(write_scene: Callable[..., Path]) -> None:
    path = write_scene(np.random.default_rng(0).random((3, H, W)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageryError, match=r"cannot read .*scene\.tif"):
        read(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.drop_vars("spatial_ref"), "without CRS"),
        (lambda a: a.expand_dims(time=2), "exactly one besides y and x"),
        (lambda a: a.isel(band=0, drop=True), "exactly one besides y and x"),
        (lambda a: a.assign_coords(x=a.x**1.0 + np.arange(W) ** 2), "expected regular pixels"),
        (lambda a: a.drop_vars("x"), "without coordinates along 'x'"),
    ],
)
def test_arrays_without_usable_georeference(
    write_scene: Callable[..., Path], change: Callable[[xr.DataArray], xr.DataArray], match: str
) -> None:
    array = rioxarray.open_rasterio(write_scene(coordinates()))
    assert isinstance(array, xr.DataArray)
    with pytest.raises(ImageryError, match=match):
        read(change(array))


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.ones((20, 20)), r"shape \(20, 20\), expected \(bands, height, width\)"),
        (np.ones((20, 20, 3)), r"looks like \(height, width, bands\): array.transpose"),
        (np.ones((4, 20, 20)), "got 4 bands"),
        (np.ones((3, 0, 20)), "there are none"),
        (np.ones((3, 20, 20), complex), "dtype complex128"),
        (np.ones((3, 20, 20), bool), "dtype bool"),
        (np.ones((3, 20, 20), object), "dtype object"),
        (np.full((3, 20, 20), "1"), "dtype <U1"),
        ("pixels.npy", "dtype <U10"),
    ],
)
def test_arrays_that_are_no_pixels(data: object, match: str) -> None:
    with pytest.raises(ImageryError, match=match):
        Raster.from_array(data, bands=BANDS)


def test_rasters_whose_parts_do_not_fit() -> None:
    grid = Grid(None, Affine.identity(), (20, 20))
    data = np.ones((3, 20, 20))
    with pytest.raises(ImageryError, match="got valid of shape"):
        Raster(data, np.ones((20, 19), bool), BANDS, grid)
    with pytest.raises(ImageryError, match="got a grid of shape"):
        Raster(data, np.ones((20, 20), bool), BANDS, Grid(None, Affine.identity(), (20, 21)))
    with pytest.raises(ImageryError, match="only one of crs and transform"):
        Raster.from_array(data, bands=BANDS, crs="EPSG:32633")


def test_on_another_grid_pixels_are_reprojected_to_their_place(
    write_scene: Callable[..., Path],
) -> None:
    path = write_scene(coordinates(), nodata=-1)
    # Half a pixel off, coarser, and in the neighbouring zone.
    shifted = Grid(CRS.from_epsg(32633), Affine(10, 0, 400205, 0, -10, 5199805), (30, 40))
    raster = read_on_grid(path, shifted, bands=BANDS)
    assert raster.source["resampling"] == "bilinear"
    x, y = np.meshgrid(shifted.x, shifted.y)
    assert np.abs(raster.data[0] - x).max() < 0.02
    assert np.abs(raster.data[1] - y).max() < 0.02
    coarse = Grid(CRS.from_epsg(32633), Affine(30, 0, 400200, 0, -30, 5199800), (10, 12))
    raster = read_on_grid(path, coarse, bands=BANDS)
    assert raster.source["resampling"] == "average"
    assert np.abs(raster.data[0] - np.meshgrid(coarse.x, coarse.y)[0]).max() < 0.1
    to_32 = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True)
    cx, cy = to_32.transform(400600, 5199550)
    other = Grid(CRS.from_epsg(32632), Affine(10, 0, cx - 150, 0, -10, cy + 150), (30, 30))
    raster = read_on_grid(path, other, bands=BANDS)
    x, y = np.meshgrid(other.x, other.y)
    back_x, back_y = to_32.transform(x, y, direction="INVERSE")
    assert np.abs(raster.data[0] - back_x).max() < 1.5  # GDAL's warp is exact to 1/8 pixel
    assert np.abs(raster.data[1] - back_y).max() < 1.5


def test_on_the_same_lattice_pixels_come_through_untouched(
    write_scene: Callable[..., Path],
) -> None:
    data = np.random.default_rng(1).integers(1, 9999, (3, H, W)).astype(np.uint16)
    path = write_scene(data, nodata=0)
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 400100, 0, -10, 5199900), (40, 50))
    raster = read_on_grid(path, grid, bands=BANDS)
    assert np.array_equal(raster.data, data[:, 10:50, 10:60])
    assert raster.source["resampling"] == "none"
    elsewhere = Grid(CRS.from_epsg(32633), Affine(10, 0, 500000.5, 0, -10, 5199900), (40, 50))
    with pytest.raises(ImageryError, match="lies outside the imagery"):
        read_on_grid(path, elsewhere, bands=BANDS)
