"""Own imagery: every pixel where it belongs, bands by name, validity from the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer

from rs_embed import BBox, PointBuffer, Raster
from rs_embed.addresses import shown_path
from rs_embed.errors import GridError, ImageryError
from rs_embed.files.imagery import read_imagery
from rs_embed.files.rasters import BandFile, read_on_grid, read_rows
from rs_embed.geo.grid import Grid

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
    with pytest.raises(ImageryError, match=r"requested place \(lon 10\.99.*is outside.*lon 13\.6"):
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
        (20, tuple(f"B{n}x" for n in range(20)), r"B11x and 8 more, expected B4, B3, B2"),
        (9, tuple(f"dimension {n}" for n in range(9)), "is a grid or map of tokens.*open_map"),
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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("encoded", [0, 7])
def test_encoded_nodata_of_whole_numbers_marks_them(
    dtype: str, encoded: int, write_scene: Callable[..., Path]
) -> None:
    data = np.full((3, H, W), 90, dtype)
    data[:, :10] = encoded
    array = rioxarray.open_rasterio(write_scene(data))
    assert isinstance(array, xr.DataArray)
    raster = read(array.rio.write_nodata(encoded, encoded=True))
    assert not raster.valid[:10].any()
    assert raster.valid[10:].all()
    assert (raster.data == data).all()
    # A value that the caller declares counts before one that the file had.
    restated = array.copy()
    restated.encoding["_FillValue"] = encoded
    raster = read(restated.rio.set_nodata(90))
    assert raster.valid[:10].all()
    assert not raster.valid[10:].any()
    outside = array.copy()
    outside.encoding["_FillValue"] = -9999.0  # fits int16 only
    assert read(outside).valid.all()


def test_credentials_of_a_url_are_never_shown() -> None:
    signed = "https://me:secret@host.example/scene.tif?sig=secret&se=2026"
    assert shown_path(signed) == "https://host.example/scene.tif"
    assert shown_path("folder/a?b.tif") == "folder/a?b.tif"
    assert shown_path(f"/vsicurl/{signed}") == "/vsicurl/https://host.example/scene.tif"
    assert shown_path("http://me:secret@[::1/x.tif") == "http://[::1/x.tif"


def test_internal_mask_is_honoured(write_scene: Callable[..., Path]) -> None:
    path = write_scene(coordinates().astype(np.float32), nodata=None)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        mask = np.full((H, W), 255, np.uint8)
        mask[:, 60:] = 0
        file.write_mask(mask)
    assert read(path).valid.mean() == 0.5


@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_masks_are_warped_and_what_they_hide_bleeds_nowhere(
    write_scene: Callable[..., Path], kind: str
) -> None:
    hidden = np.zeros((H, W), bool)
    hidden[:, 60:] = hidden[40:45, 30:33] = True
    data = np.full((4, H, W), 900, np.uint16)
    data[:3, hidden] = 60000
    data[3] = np.where(hidden, 0, 65535)
    if kind == "alpha":
        path = write_scene(data, names=(*BANDS, "alpha"), photometric="RGB", alpha="YES")
    else:
        path = write_scene(data[:3])
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(np.where(hidden, 0, 255).astype(np.uint8))
    # A pixel is valid where the file's pixel under its centre is.
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 400203, 0, -10, 5199804), (60, 70))
    columns = ((grid.x - 400000) // 10).astype(int)
    rows = ((5200000 - grid.y) // 10).astype(int)
    raster = read_on_grid(path, grid, bands=BANDS)
    assert np.array_equal(raster.valid, ~hidden[np.ix_(rows, columns)])
    assert (raster.data[:, raster.valid] == 900).all()
    coarse = Grid(CRS.from_epsg(32633), Affine(40, 0, 400200, 0, -40, 5199800), (12, 20))
    raster = read_on_grid(path, coarse, bands=BANDS)
    assert np.array_equal(raster.valid, np.broadcast_to(np.arange(20) < 10, (12, 20)))
    assert (raster.data[:, raster.valid] == 900).all()


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(10, 0, 400203, 0, -10, 5199804)),
        ("EPSG:32632", Affine(10, 0, 856797, 0, -10, 5209694)),
        ("EPSG:32633", Affine(23, 0, 400050, 0, -23, 5199980)),
    ],
)
def test_rows_read_apart_equal_those_of_the_whole(
    write_scene: Callable[..., Path], crs: str, transform: Affine
) -> None:
    data = np.random.default_rng(2).integers(0, 9999, (3, H, W)).astype(np.uint16)
    data[:, 20:40, 30:50] = 0
    file = BandFile(str(write_scene(data, nodata=0)), BANDS)
    grid = Grid(CRS.from_user_input(crs), transform, (37, 45))
    whole = read_rows(file, grid)
    parts = [read_rows(file, grid, slice(at, min(at + 8, 37))) for at in range(0, 37, 8)]
    assert 0 < whole.valid.sum() < whole.valid.size
    assert np.array_equal(whole.data, np.concatenate([p.data for p in parts], 1))
    assert np.array_equal(whole.valid, np.concatenate([p.valid for p in parts]))
    assert parts[1].grid == grid.window(8, 0, 8, 45)


def test_a_position_that_the_file_lacks(write_scene: Callable[..., Path]) -> None:
    file = BandFile(str(write_scene(coordinates())), ("B4",), indexes=(4,))
    grid = Grid(CRS.from_epsg(32633), from_file_transform(), (20, 20))
    with pytest.raises(ImageryError, match="has 3 bands, expected band 4 in it"):
        read_rows(file, grid)


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
            "'drawing' .Engineering CRS., expected a projected CRS",
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
    with pytest.raises(ImageryError, match="cannot read 'aaa"):
        read("a" * 5000)
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
        (np.ones((3, 0, 20)), "got no pixels"),
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
    with pytest.raises(ImageryError, match=r"is outside the imagery.*lat 46\.\d+ to 46\.\d+$"):
        read_on_grid(path, elsewhere, bands=BANDS)
    swapped = PointBuffer(lon=46.94, lat=13.69, buffer_m=100)
    with pytest.raises(ImageryError, match=r"lon 46\.9.*are its longitude and latitude swapped\?$"):
        read(path, spatial=swapped)


def test_a_buffer_is_ground_metres_where_it_lies(write_scene: Callable[..., Path]) -> None:
    # One Mercator file from 40 to 61 degrees north: a pixel is 1.6 times larger in the south.
    transform = Affine(1000, 0, 1100000, 0, -1000, 8600000)
    path = write_scene(
        np.random.default_rng(0).random((3, 3800, 60)), crs="EPSG:3857", transform=transform
    )
    for lat in (41, 50, 60):
        window = read(path, spatial=PointBuffer(10.1, lat, 15000))
        to_geographic = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
        left, bottom, right, top = window.grid.bounds
        lon, _ = to_geographic.transform((left + right) / 2, (bottom + top) / 2)
        south, north = (to_geographic.transform(left, y)[1] for y in (bottom, top))
        tall = Geod(ellps="WGS84").inv(lon, south, lon, north)[2]
        assert tall == pytest.approx(30000, abs=1100)  # within a pixel


@pytest.mark.parametrize(
    ("scale", "offset", "match"),
    [
        (0, 0, "declares scale 0.0"),
        (-1, 0, "declares scale -1.0"),
        (np.nan, 0, "declares scale nan"),
        (1e-4, np.inf, "offset inf"),
    ],
)
def test_units_that_a_file_cannot_mean(
    write_scene: Callable[..., Path], scale: float, offset: float, match: str
) -> None:
    path = write_scene(np.full((3, H, W), 900, np.int16))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (scale,) * 3, (offset,) * 3
    with pytest.raises(ImageryError, match=match):
        read(path)
    array = rioxarray.open_rasterio(write_scene(np.full((3, H, W), 900, np.int16), name="b.tif"))
    assert isinstance(array, xr.DataArray)
    with pytest.raises(ImageryError, match="scale|not numbers"):
        read(array.assign_attrs(scale_factor=scale, add_offset=offset))
    with pytest.raises(ImageryError, match="not numbers"):
        read(array.assign_attrs(scale_factor="big"))


def test_bands_with_different_nodata(tmp_path: Path, write_scene: Callable[..., Path]) -> None:
    data = np.full((3, H, W), 900, np.uint16)
    data[1:, :30] = 65535
    source = write_scene(data)
    vrt = tmp_path / "mixed.vrt"
    bands = "".join(
        f"""<VRTRasterBand dataType="UInt16" band="{i}">
        {"<NoDataValue>65535</NoDataValue>" if i > 1 else ""}
        <SimpleSource><SourceFilename>{source}</SourceFilename><SourceBand>{i}</SourceBand>
        </SimpleSource></VRTRasterBand>"""
        for i in (1, 2, 3)
    )
    vrt.write_text(
        f"""<VRTDataset rasterXSize="{W}" rasterYSize="{H}"><SRS>EPSG:32633</SRS>
        <GeoTransform>400000, 10, 0, 5200000, 0, -10</GeoTransform>{bands}</VRTDataset>"""
    )
    with pytest.raises(ImageryError, match="declare different nodata values"):
        read(vrt)


def test_photographs_are_known_by_their_colours(write_scene: Callable[..., Path]) -> None:
    data = np.arange(4)[:, None, None] * np.ones((1, H, W), np.uint8) + np.uint8(10)
    path = write_scene(data.astype(np.uint8), names=None, photometric="RGB")
    with rasterio.open(path, "r+") as file:
        assert [c.name for c in file.colorinterp][:3] == ["red", "green", "blue"]
    assert read(path).data[:, 0, 0].tolist() == [10, 11, 12]


def test_two_bands_of_one_name(write_scene: Callable[..., Path]) -> None:
    path = write_scene(np.ones((4, H, W)), names=("B4", "B3", "B2", "B04"))
    with pytest.raises(ImageryError, match="several bands named B4"):
        read(path)


def test_a_huge_image_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=60000, width=60000, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 4e5, 0, -10, 52e5), sparse_ok=True, tiled=True,
        bigtiff="yes", nodata=0,
    ):  # fmt: skip
        pass
    with pytest.raises(ImageryError, match="60000 x 60000 px.*cut a window out of it"):
        read(path)
    lon, lat = lonlat(405000, 5195000)
    assert not read(path, spatial=PointBuffer(lon, lat, 300)).valid.any()


def test_datasets_and_odd_coordinates(write_scene: Callable[..., Path]) -> None:
    array = rioxarray.open_rasterio(write_scene(coordinates()))
    assert isinstance(array, xr.DataArray)
    with pytest.raises(ImageryError, match="got an xarray Variable"):
        read(array.variable)
    x = array.x.values.copy()
    x[3] = np.nan
    with pytest.raises(ImageryError, match="expected regular pixels"):
        read(array.assign_coords(x=x))
    with pytest.raises(ImageryError, match="coordinates along 'x', expected numbers"):
        read(array.assign_coords(x=[str(i) for i in range(W)]))


@pytest.mark.parametrize("crs", [32633, "EPSG:32633", rasterio.crs.CRS.from_epsg(32633)])
def test_raster_takes_any_crs(crs: object) -> None:
    raster = Raster.from_array(coordinates(), bands=BANDS, crs=crs, transform=from_file_transform())
    assert raster.grid.crs == CRS.from_epsg(32633)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"crs": "EPSG:999999"}, GridError, "got crs='EPSG:999999'"),
        ({"transform": (10, 0, 4e5, 0, -10, 5e6)}, ImageryError, "expected an affine.Affine"),
        ({"transform": Affine(10, 0, np.nan, 0, -10, 5e6)}, GridError, "degenerate"),
        ({"nodata": "x"}, ImageryError, "got nodata='x'"),
        ({"bands": None}, ImageryError, "got bands=None"),
        ({"source": {"when": object()}}, ImageryError, "expected JSON values"),
    ],
)
def test_rasters_that_cannot_be_built(
    change: dict[str, object], error: type[Exception], match: str
) -> None:
    arguments: dict[str, Any] = {
        "bands": BANDS, "crs": "EPSG:32633", "transform": from_file_transform(), **change,
    }  # fmt: skip
    with pytest.raises(error, match=match):
        Raster.from_array(coordinates(), **arguments)


def test_a_raster_cannot_call_nan_valid() -> None:
    data = coordinates()
    data[0, 0, 0] = np.nan
    grid = Grid(CRS.from_epsg(32633), from_file_transform(), (H, W))
    with pytest.raises(ImageryError, match="marked valid"):
        Raster(data, np.ones((H, W), bool), BANDS, grid)
