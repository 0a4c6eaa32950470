"""xarray objects as people have them: what they state is believed or refused, never misread.

Each situation is a row: a function that makes the object from a file, and what is right. The
reference is the file itself, read by rasterio and scaled as its tags say.
"""

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

from rs_embed import inspect_input
from rs_embed.errors import ImageryError
from rs_embed.files.imagery import read_imagery

WANTED = ("B4", "B3", "B2")
SCALE, OFFSET = 1e-4, -0.1
pytestmark = pytest.mark.filterwarnings("ignore:(Scales|Offsets) differ:UserWarning")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """B2, B3, B4 with offset, and the classes of SCL without; 0 is nodata in a corner."""
    path = tmp_path / "scene.tif"
    data = np.random.default_rng(0).integers(1100, 4000, (4, 64, 64)).astype("uint16")
    data[3] = 4
    data[:, :8, :8] = 0
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=64, width=64, dtype="uint16", nodata=0,
        crs="EPSG:32633", transform=Affine(10, 0, 400000, 0, -10, 5200000),
    ) as made:  # fmt: skip
        made.write(data)
        made.descriptions = ("B02", "B03", "B04", "SCL")
        made.scales = (SCALE, SCALE, SCALE, 1)
        made.offsets = (OFFSET, OFFSET, OFFSET, 0)
    return path


def opened(path: Path, **options: Any) -> xr.DataArray:
    array = rioxarray.open_rasterio(path, **options)
    assert isinstance(array, xr.DataArray)
    return array.load()


def renamed(path: Path) -> xr.DataArray:
    return opened(path).assign_coords(band=["B02", "B03", "B04", "SCL"])


def as_dataset(path: Path, **options: Any) -> xr.Dataset:
    dataset = rioxarray.open_rasterio(path, band_as_variable=True, **options)
    assert isinstance(dataset, xr.Dataset)
    return dataset.load()


def wavelengths(path: Path, dim: str, values: list[float], **attrs: str) -> xr.DataArray:
    array = opened(path).isel(band=slice(3)).rename(band=dim).drop_attrs(deep=False)
    array = array.assign_coords({dim: values})
    array[dim].attrs.update(attrs)
    return array.assign_attrs(scale_factor=SCALE, add_offset=OFFSET, _FillValue=0)


# What is right for all: the reflectance and validity of the file's own bands.
AS_THE_FILE: dict[str, Callable[[Path], Any]] = {
    "as opened": opened,
    "bands selected in another order": lambda p: opened(p).sel(band=[3, 2, 1]),
    "reversed": lambda p: opened(p)[::-1],
    "reversed by isel": lambda p: opened(p).isel(band=[2, 0, 1]),
    "three of four": lambda p: opened(p).sel(band=[1, 2, 3]),
    "named": renamed,
    "named, then selected": lambda p: renamed(p).sel(band=["B04", "B03", "B02"]),
    "named, then reversed": lambda p: renamed(p)[::-1],
    "named unlike the file": lambda p: (
        opened(p).sel(band=[3, 1, 2]).drop_attrs(deep=False)
        .assign_coords(band=["red", "blue", "green"])
        .assign_attrs(scale_factor=SCALE, add_offset=OFFSET, _FillValue=0)
    ),
    "band numbers as text": lambda p: opened(p).assign_coords(band=["1", "2", "3", "4"])[::-1],
    "band numbers as floats": lambda p: opened(p).assign_coords(band=[1.0, 2.0, 3.0, 4.0])[::-1],
    "south up": lambda p: opened(p).isel(y=slice(None, None, -1)),
    "masked": lambda p: opened(p, masked=True),
    "masked and scaled": lambda p: opened(p, mask_and_scale=True),
    "masked, scaled, three of four": lambda p: opened(p, mask_and_scale=True).sel(band=[3, 2, 1]),
    "a Dataset": as_dataset,
    "a Dataset, masked and scaled": lambda p: as_dataset(p, mask_and_scale=True),
    "a Dataset, renamed": lambda p: as_dataset(p).rename(
        band_1="blue", band_2="green", band_3="red"
    ),
    "bands joined": lambda p: xr.concat([opened(p).sel(band=at) for at in (3, 2, 1)], dim="bands"),
    "bands counted from 0": lambda p: opened(p).assign_coords(band=[0, 1, 2, 3]),
    "scale as an array": lambda p: opened(p)[:3].assign_coords(
        band=["B2", "B3", "B4"]
    ).drop_attrs(deep=False).assign_attrs(
        scale_factor=np.array([SCALE]), add_offset=np.array([OFFSET]), _FillValue=0
    ),
    "a GeoTIFF opened by xarray": lambda p: xr.open_dataset(p, engine="rasterio"),
    "a GeoTIFF opened by xarray, not decoded": lambda p: xr.open_dataset(
        p, engine="rasterio", mask_and_scale=False
    ),
    "a Dataset of an array's bands": lambda p: opened(p).to_dataset("band"),
    "a Dataset of an array's bands, renamed": lambda p: (
        opened(p).to_dataset("band").rename({1: "blue", 2: "green", 3: "red"})
    ),
    "wavelengths, nm": lambda p: wavelengths(p, "wavelength", [492, 560, 665]),
    "wavelengths, um": lambda p: wavelengths(p, "wl", [0.492, 0.56, 0.665], units="um"),
    "wavelengths, um, units unstated": lambda p: wavelengths(p, "band", [0.492, 0.56, 0.665]),
    "wavelengths under band": lambda p: wavelengths(p, "band", [492.4, 559.8, 664.6]),
    "through netCDF": lambda p: xr.open_dataset(
        _netcdf(as_dataset(p).rename(band_1="B2", band_2="B3", band_3="B4", band_4="SCL"), p),
        engine="h5netcdf", decode_coords="all",
    ),
    "through netCDF, not decoded": lambda p: xr.open_dataset(
        _netcdf(as_dataset(p).rename(band_1="B2", band_2="B3", band_3="B4", band_4="SCL"), p),
        engine="h5netcdf", decode_coords="all", mask_and_scale=False,
    ),
    "chunked": lambda p: opened(p, chunks={"y": 16}) if _has_dask() else opened(p),
}  # fmt: skip


def _has_dask() -> bool:
    from importlib.util import find_spec

    return find_spec("dask") is not None


def _netcdf(dataset: xr.Dataset, beside: Path) -> Path:
    path = beside.with_suffix(".nc")
    dataset.to_netcdf(path, engine="h5netcdf")
    return path


@pytest.mark.parametrize("make", AS_THE_FILE.values(), ids=AS_THE_FILE)
def test_an_array_gives_the_reflectance_of_its_file(
    make: Callable[[Path], Any], file: Path
) -> None:
    with rasterio.open(file) as source:
        right = source.read([3, 2, 1]) * SCALE + OFFSET
        valid = source.read(1) > 0
    raster = read_imagery(make(file), bands=WANTED, spatial=None, fill_value=None)
    assert raster.reflectance is not None
    scale, offset = raster.reflectance
    assert np.array_equal(raster.valid, valid)
    assert np.allclose(raster.data[:, valid] * scale + offset, right[:, valid], atol=1e-6)
    assert raster.grid.bounds == (400000, 5199360, 400640, 5200000)
    assert raster.notes == ()


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "years": (
        lambda p: opened(p)[:3].rename(band="year").assign_coords(year=[2019, 2020, 2021]),
        r"third dimension is 'year' \(2019, 2020, 2021\).*array.isel\(year=",
    ),
    "dates": (
        lambda p: opened(p)[:3].rename(band="time").assign_coords(
            time=np.array(["2019", "2020", "2021"], "M8[ns]")
        ),
        "third dimension is 'time'",
    ),
    "months without coordinate": (
        lambda p: opened(p)[:3].rename(band="month").drop_vars("month"),
        "third dimension is 'month'",
    ),
    "dates under band": (
        lambda p: opened(p)[:3].assign_coords(band=[20190101, 20200101, 20210101]),
        "got 0 bands for B4 among those at 20190101",
    ),
    "wavelengths of other bands": (
        lambda p: wavelengths(p, "wavelength", [705, 740, 783]),
        "got 0 bands for B4 among those at 705, 740, 783 nm, expected one at 649 to 680 nm",
    ),
    "several wavelengths of one band": (
        lambda p: wavelengths(p, "wavelength", [655, 660, 665]),
        "got 3 bands for B4",
    ),
    "scaled by hand, attributes kept": (
        lambda p: (opened(p) * SCALE)[:3].assign_attrs(
            scale_factor=SCALE, add_offset=0.0, long_name=("B2", "B3", "B4"), _FillValue=0
        ),
        "look scaled to reflectance already.*scale_factor and add_offset",
    ),
    "made 8-bit, attributes kept": (
        lambda p: (opened(p)[:3] // 16).astype("uint8").assign_attrs(scale_factor=SCALE),
        "uint8 values.*look 8-bit.*remove what still states",
    ),
    "names without coordinate": (
        lambda p: xr.concat(
            [opened(p)[:3].sel(band=at, drop=True) for at in (3, 2, 1)], dim="band"
        ).assign_attrs(long_name=("B2", "B3", "B4")),
        "bands without coordinate, and the attribute long_name",
    ),
    "nodata that is no number": (
        lambda p: opened(p).assign_attrs(_FillValue="none"), "nodata value that uint16"
    ),
    "a Dataset of several dates": (
        lambda p: as_dataset(p).expand_dims(time=[0, 1]), "select one of each other"
    ),
    "a Dataset of two grids": (
        lambda p: opened(p).to_dataset(dim="band").rename({1: "B2", 2: "B3", 3: "B4"}).assign(
            B2=opened(p)[0, ::2, ::2].drop_vars("band").rename(x="x20", y="y20")
        ),
        r"bands on two grids: {'B2': \('y20', 'x20'\)}.*reproject_match\(dataset\['B3'\]\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_an_array_that_cannot_be_meant_is_refused(
    make: Callable[[Path], Any], match: str, file: Path
) -> None:
    with pytest.raises(ImageryError, match=f"(?s){match}"):
        inspect_input("scalemae", imagery=make(file), variant="tiny", display="visual")


def test_the_refusal_of_values_scaled_by_hand_says_what_helps(file: Path) -> None:
    array = opened(file)[:3] * SCALE + OFFSET
    array.attrs |= {"scale_factor": SCALE, "add_offset": OFFSET, "long_name": ("B2", "B3", "B4")}
    array = array.where(array > 0)
    with pytest.raises(ImageryError, match="look scaled to reflectance already"):
        inspect_input("scalemae", imagery=array, variant="tiny", display="visual")
    for name in ("scale_factor", "add_offset", "scales", "offsets"):
        array.attrs.pop(name, None)
    array.attrs["scale_factor"] = 1.0
    array.encoding["scale_factor"] = 1.0
    with pytest.raises(ImageryError, match=r"look normalised to 0..1.*reflectance_scale=1"):
        inspect_input("scalemae", imagery=array, variant="tiny", display="visual")


def test_attributes_that_fit_no_band_are_not_used_and_this_is_said(file: Path) -> None:
    picked = opened(file).sel(band=[3, 2, 1]).drop_vars("band")
    del picked.attrs["long_name"]
    raster = read_imagery(picked, bands=WANTED, spatial=None, fill_value=None)
    assert raster.reflectance is None
    assert any("'scales' of the DataArray cannot be assigned" in note for note in raster.notes)


def test_an_alpha_band_of_an_array_hides_pixels(file: Path) -> None:
    array = opened(file).assign_coords(band=["B2", "alpha", "B3", "B4"])
    array[1] = np.where(np.arange(64) < 32, 0, 65535)
    array.attrs.pop("scales"), array.attrs.pop("offsets")
    raster = read_imagery(array, bands=WANTED, spatial=None, fill_value=None)
    assert not raster.valid[:, :32].any()
    assert raster.valid[:, 32:].all()


def test_a_scale_of_one_that_was_decoded_says_nothing_of_units(file: Path) -> None:
    """As in netCDF that rioxarray writes; the values are still digital numbers."""
    array = opened(file)[:3].astype("float64").drop_attrs(deep=False)
    array = array.assign_coords(band=["B2", "B3", "B4"])
    array.encoding |= {"scale_factor": 1.0, "add_offset": 0.0}
    assert read_imagery(array, bands=WANTED, spatial=None, fill_value=None).reflectance is None


@pytest.mark.parametrize("numbers", [["02", "03", "04"], [2, 3, 4]], ids=str)
def test_numbers_of_bands_without_names_are_told(numbers: list[Any], file: Path) -> None:
    """They may be those of Sentinel-2, where 2 is blue."""
    array = opened(file)[:3].drop_attrs(deep=False).assign_coords(band=numbers)
    raster = read_imagery(array, bands=WANTED, spatial=None, fill_value=None)
    assert "the bands 2, 3, 4 have no names, and were taken in their order" in raster.notes
