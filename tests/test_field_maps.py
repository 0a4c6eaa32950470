"""Maps and token grids that other software wrote again: right by what the file states, or refused.

A row is: name, how the map was stored, how it is written again, and what is right: the dimensions,
rows and columns of the original that must come back in their place, or the refusal.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.enums import ColorInterp
from rasterio.shutil import copy
from rasterio.vrt import WarpedVRT
from shapely.geometry import box

from rs_embed import Embedding, open_map, restored, sample_points, zonal_mean
from rs_embed.errors import ExportError, SpecError
from rs_embed.files.grids import georeferenced
from rs_embed.geo.grid import Grid
from rs_embed.geo.polygons import Polygons
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.encoding import MapEncoding
from rs_embed.maps.formats.writing import write_map

UTM = CRS.from_epsg(32633)
PLACE = Affine(160, 0, 500_000, 0, -160, 5_000_000)
DEPTH, HEIGHT, WIDTH = 6, 20, 14
ALL = (range(DEPTH), range(HEIGHT), range(WIDTH))
STORED = {
    "f4": MapEncoding(),
    "f2": MapEncoding("float16"),
    "i1": MapEncoding("int8"),
    "pca": MapEncoding(pca=3),
}
Part = tuple[Sequence[int], Sequence[int], Sequence[int]]
Written = Callable[[str, Path], Path]


class Row(NamedTuple):
    name: str
    stored: str
    rewrite: Callable[[Path, Path], Any]
    right: Part | str


def tokens() -> NDArray[np.float32]:
    """Return ``(d, y, x)`` tokens below 1, each dimension of another size, with a hole."""
    random = np.random.default_rng(3)
    sizes = np.linspace(0.9, 0.2, DEPTH)[:, None, None]
    values = (random.uniform(-1, 1, (DEPTH, HEIGHT, WIDTH)) * sizes).astype(np.float32)
    values[:, :4, 5:9] = np.nan
    return values


def truth(stored: str) -> NDArray[np.float32]:
    values = tokens()
    if stored == "f2":
        return values.astype(np.float16).astype(np.float32)
    if stored == "i1":
        scale = np.float32(np.nanmax(np.abs(values), axis=(1, 2), keepdims=True) / 127)
        return np.asarray(np.rint(values / scale) * scale, np.float32)
    return values


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Return a function that puts a map at a path; each kind is written once, then copied."""
    made: dict[tuple[str, str], Path] = {}

    def put(stored: str, path: Path) -> Path:
        key = stored, path.suffix
        if key not in made:
            made[key] = write_tokens(stored, tmp_path_factory.mktemp("map") / path.name)
        if made[key].is_dir():
            return Path(shutil.copytree(made[key], path))
        return Path(shutil.copyfile(made[key], path))

    return put


def write_tokens(stored: str, path: Path) -> Path:
    values = tokens().transpose(1, 2, 0)
    strips = lambda rows: (values[at : at + rows] for at in range(0, HEIGHT, rows))  # noqa: E731
    grid = Grid(UTM, PLACE, (HEIGHT, WIDTH))
    meta = {"model": "m", "temporal": {"start": "2024-06-01", "end": "2024-09-01"}}
    write_map(path, MapContent(grid, DEPTH, strips, meta), STORED[stored])
    return path


# GeoTIFF: what gdalwarp, gdal_translate, rasterio and rioxarray write.


def tif(
    change: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values,
    *,
    bands: Sequence[int] | None = None,
    scales: Any = True,
    offset: float = 0,
    names: bool = True,
    drop: Sequence[str] = (),
    mask: bool = False,
    alpha: bool = False,
    **profile: Any,
) -> Callable[[Path, Path], None]:
    """Write the file again with rasterio, values changed, the rest of the header as it was."""

    def rewrite(source: Path, target: Path) -> None:
        with rasterio.open(source) as file:
            indexes = list(bands or file.indexes)
            values = change(file.read(indexes))
            tags = {k: v for k, v in file.tags().items() if k not in drop}
            kept = file.profile | {
                "driver": "GTiff", "dtype": values.dtype, "count": len(values) + alpha,
                "height": values.shape[1], "width": values.shape[2], "predictor": 1,
                "blockxsize": 128, "blockysize": 128,
            } | profile  # fmt: skip
            with rasterio.open(target, "w", **kept) as new:
                if alpha:
                    undefined = [ColorInterp.undefined] * (len(values) - 1)
                    new.colorinterp = [ColorInterp.gray, *undefined, ColorInterp.alpha]
                new.write(values, list(range(1, len(values) + 1)))
                new.update_tags(**tags)
                if scales is True:
                    steps = [file.scales[i - 1] for i in indexes]
                    new.scales = steps + [1.0] * alpha
                elif scales:
                    new.scales, new.offsets = [scales] * len(values), [offset] * len(values)
                for number, index in enumerate(indexes, 1):
                    if names:
                        new.set_band_description(number, file.descriptions[index - 1])
                inside = np.where(np.isnan(tokens()[0]), 0, 255).astype(np.uint8)
                if mask:
                    new.write_mask(inside)
                if alpha:
                    new.write(np.minimum(inside, 127), len(values) + 1)

    return rewrite


def filled(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda values: np.where(np.isnan(values), value, values).astype(values.dtype)


def wider(dtype: str, nodata: float = -128) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda steps: np.where(steps == -128, np.array(nodata, dtype), steps)


def as_old_gdal(dtype: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Read steps as GDAL before 3.7 does: as bytes without a sign."""
    return lambda steps: steps.view(np.uint8).astype(dtype)


def packed(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isnan(values), -32768, np.rint((values - 0.25) / 1e-4)).astype("int16")


def unscaled(steps: NDArray[Any]) -> NDArray[Any]:
    scale = np.nanmax(np.abs(tokens()), axis=(1, 2), keepdims=True) / 127
    return np.asarray(steps * scale, np.float32)


def copied(driver: str) -> Callable[[Path, Path], Any]:
    return lambda source, target: copy(source, target, driver=driver)


def as_vrt(source: Path, target: Path) -> None:
    copy(source, target.with_suffix(".vrt"), driver="VRT")


def warped(source: Path, target: Path) -> None:
    with rasterio.open(source) as file:
        place = {"transform": PLACE @ Affine.translation(0, 4), "height": HEIGHT - 4}
        with WarpedVRT(file, width=WIDTH, **place) as vrt:
            copy(vrt, target, driver="GTiff")
        with rasterio.open(target, "r+") as new:
            new.update_tags(**file.tags())


def through_rioxarray(**opened: Any) -> Callable[[Path, Path], Any]:
    def rewrite(source: Path, target: Path) -> None:
        array: Any = rioxarray.open_rasterio(source, **opened)
        array.isel(x=slice(2, 8)).rio.to_raster(target)

    return rewrite


def opened_to_raster(source: Path, target: Path) -> None:
    open_map(source).isel(y=slice(3, 15)).rio.to_raster(target)


def part(d: Any = slice(None), y: Any = slice(None), x: Any = slice(None)) -> Part:
    cut = [list(np.atleast_1d(np.array(axis)[of])) for axis, of in zip(ALL, (d, y, x), strict=True)]
    return cut[0], cut[1], cut[2]


SOUTH_UP = Affine(160, 0, 500_000, 0, 160, 5_000_000 - 160 * HEIGHT)
OLD_GDAL = "rewritten by GDAL before 3.7, which reads -1 as 255"
TIFS = [
    Row("another nodata value", "f4", tif(filled(-9999), nodata=-9999), ALL),
    Row("nodata 0", "f4", tif(filled(0), nodata=0), ALL),
    Row("a mask instead of nodata", "f4", tif(filled(0), nodata=None, mask=True), ALL),
    Row("alpha instead of nodata", "f4", tif(filled(0), nodata=None, alpha=True), ALL),
    Row("alpha of gdalwarp beside nodata", "f4", tif(filled(-1), nodata=-1, alpha=True), ALL),
    Row("int8 with alpha", "i1", tif(wider("int8", 0), nodata=None, alpha=True), ALL),
    Row("float64", "f4", tif(lambda v: v.astype(np.float64)), ALL),
    Row("packed in int16", "f4", tif(packed, scales=1e-4, offset=0.25, nodata=-32768), ALL),
    Row("some bands", "f4", tif(bands=[1, 5]), part(d=[0, 4])),
    Row("some bands, another order", "i1", tif(bands=[5, 1]), part(d=[4, 0])),
    Row("a window", "f4",
        tif(lambda v: v[:, 2:9, 3:7], transform=PLACE @ Affine.translation(3, 2)),
        part(y=slice(2, 9), x=slice(3, 7))),
    Row("names of bands lost", "f4", tif(names=False), ALL),
    Row("a VRT", "f4", as_vrt, ALL),
    Row("a VRT of int8", "i1", as_vrt, ALL),
    Row("another COG", "i1", copied("COG"), ALL),
    Row("int8 warped by rasterio", "i1", warped, part(y=slice(4, 20))),
    Row("float16 as float32", "f2", copied("GTiff"), ALL),
    Row("south up", "f4", tif(lambda v: v[:, ::-1], transform=SOUTH_UP), ALL),
    Row("int8 in int16", "i1", tif(wider("int16")), ALL),
    Row("int8 in int16 with another nodata", "i1", tif(wider("int16", -9999), nodata=-9999), ALL),
    Row("int8 in float32", "i1", tif(wider("float32", np.nan), nodata=np.nan), ALL),
    Row("cropped with rioxarray", "f4", through_rioxarray(), part(x=slice(2, 8))),
    Row("int8 cropped with rioxarray", "i1", through_rioxarray(masked=True), part(x=slice(2, 8))),
    Row("opened and saved with rioxarray", "f4", opened_to_raster, part(y=slice(3, 15))),
    Row("int8 opened and saved with rioxarray", "i1", opened_to_raster, part(y=slice(3, 15))),
    Row("rounded to int16", "f4", tif(filled(0), dtype="int16", nodata=None),
        "got int16 values without a scale"),
    Row("stretched to bytes", "f4",
        tif(lambda v: (filled(0)(v) * 99 + 99).astype("u1"), nodata=None),
        "got uint8 values without a scale"),
    Row("int8 multiplied, -unscale", "i1", tif(unscaled, scales=None, nodata=-128),
        "has no scale in its bands; .* without -unscale"),
    Row("int8 in int16, scales lost", "i1", tif(wider("int16"), scales=None), "has no scale"),
    Row("int8 in int16, nodata lost", "i1", tif(wider("int16"), nodata=None),
        "has no nodata value, expected -128; set it: rio edit-info --nodata -128"),
    Row("int8 by old GDAL", "i1", tif(as_old_gdal("uint8"), nodata=None), OLD_GDAL),
    Row("int8 in float32 by old GDAL", "i1", tif(as_old_gdal("float32")), OLD_GDAL),
    Row("int8 in int16 by old GDAL", "i1", tif(as_old_gdal("int16")), OLD_GDAL),
    Row("tokens rounded by rioxarray", "i1", through_rioxarray(mask_and_scale=True),
        "holds rounded tokens"),
    Row("some bands, names lost", "f4", tif(bands=[1, 5], names=False),
        "got 2 of 6 dimensions, and nothing that tells which"),
    Row("rotated", "f4", tif(transform=PLACE @ Affine.rotation(20)), "not rotated; warp the file"),
    Row("transform lost", "f4", tif(transform=Affine.identity()), "convert the original file"),
    Row("a raster calculator", "f4", tif(drop=["RS_EMBED_META"]), "without the tag RS_EMBED_META"),
    Row("basis of a PCA lost", "pca", tif(drop=["RS_EMBED_PCA"]), "without their basis"),
]  # fmt: skip


# Zarr: what xarray saves.


def store(
    change: Callable[[xr.Dataset], xr.Dataset] = lambda dataset: dataset.drop_encoding(),
    **saved: Any,
) -> Callable[[Path, Path], Any]:
    """Open with xarray, change, and save."""

    def rewrite(source: Path, target: Path) -> None:
        change(xr.open_zarr(source).load()).to_zarr(target, **{"zarr_format": 3} | saved)

    return rewrite


def saved_tokens(
    change: Callable[[xr.DataArray], xr.DataArray] = lambda array: array,
) -> Callable[[Path, Path], Any]:
    """Open with rs_embed, change, and save the array."""
    return lambda source, target: change(open_map(source).drop_encoding()).to_zarr(target)


def multiplied(dataset: xr.Dataset, *, keep_attrs: bool = True) -> xr.Dataset:
    """Decode as docs/maps.md has it; recent xarray keeps the attributes."""
    with xr.set_options(keep_attrs=keep_attrs):  # type: ignore[no-untyped-call]
        dataset["embedding"] = dataset["embedding"] * dataset["scale"]
    return dataset.drop_encoding()


def grown(source: Path, target: Path) -> None:
    """Save half of the columns with consolidated metadata, append the others without."""
    dataset = xr.open_zarr(source).load().drop_encoding()
    dataset.isel(x=slice(0, 7)).to_zarr(target, zarr_format=2, consolidated=True)
    dataset.isel(x=slice(7, None)).to_zarr(target, append_dim="x", consolidated=False)


def mended(dataset: xr.Dataset) -> xr.Dataset:
    """Do what the refusal of averaged tokens suggests."""
    dataset = multiplied(dataset).isel(y=slice(4, 6)) * 1.001
    dataset = dataset.drop_vars("scale")
    dataset["embedding"].attrs.pop("rs_embed_scale", None)
    return dataset


PACKED: Any = {"embedding": {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -32768}}
INT8: Any = {"embedding": {"dtype": "int8", "_FillValue": -128}}
ZARRS = [
    Row("cropped", "f4", store(lambda s: s.isel(x=slice(2, 8)).drop_encoding()),
        part(x=slice(2, 8))),
    Row("int8 cropped", "i1", store(lambda s: s.isel(x=slice(2, 8)).drop_encoding()),
        part(x=slice(2, 8))),
    Row("int8 cropped, saved as int8", "i1",
        store(lambda s: s.isel(x=slice(2, 8)).drop_encoding(), encoding=INT8), part(x=slice(2, 8))),
    Row("int8 decoded by hand", "i1", store(multiplied), ALL),
    Row("int8 decoded by hand, attributes dropped", "i1",
        store(lambda s: multiplied(s, keep_attrs=False)), ALL),
    Row("int8 decoded, with shards", "i1",
        store(multiplied, encoding={"embedding": {"chunks": (2, 5, 7), "shards": (6, 10, 14)}}),
        ALL),
    Row("int8 decoded, as float16", "i1", store(lambda s: multiplied(s).astype("f2")), ALL),
    Row("scale as a variable", "i1", store(lambda s: s.reset_coords("scale").drop_encoding()), ALL),
    Row("chunked again", "f4",
        store(encoding={"embedding": {"chunks": (1, 3, 14)}}), ALL),
    Row("not consolidated", "f4", store(consolidated=False), ALL),
    Row("consolidated before it grew", "f4", grown, ALL),
    Row("Zarr 2", "f4", store(zarr_format=2, consolidated=True), ALL),
    Row("int8 in Zarr 2", "i1", store(zarr_format=2, encoding=INT8, consolidated=True), ALL),
    Row("another name", "f4", store(lambda s: s.drop_encoding().rename(embedding="tokens")), ALL),
    Row("packed in int16", "f4", store(encoding=PACKED), ALL),
    Row("float64", "f4", store(lambda s: s.drop_encoding().astype("f8")), ALL),
    Row("another nodata value", "f4", store(encoding={"embedding": {"_FillValue": -9999.0}}), ALL),
    Row("nodata as fill value of Zarr", "f4",
        store(lambda s: s.fillna({"embedding": -9999}).drop_encoding(),
              encoding={"embedding": {"fill_value": -9999.0}}),
        ALL),
    Row("dimensions transposed", "i1",
        store(lambda s: s.transpose("y", "x", "d").drop_encoding()), ALL),
    Row("south up", "f4", store(lambda s: s.sortby("y").drop_encoding()), ALL),
    Row("east to west", "f4", store(lambda s: s.sortby("x", ascending=False).drop_encoding()), ALL),
    Row("some dimensions", "i1", store(lambda s: s.sel(d=[4, 1]).drop_encoding()), part(d=[4, 1])),
    Row("every second cell", "f4", store(lambda s: s.isel(x=slice(1, None, 2)).drop_encoding()),
        part(x=slice(1, None, 2))),
    Row("one column", "f4", store(lambda s: s.isel(x=[6]).drop_encoding()), part(x=[6])),
    Row("opened and saved", "f4", saved_tokens(lambda a: a[:, 3:9]), part(y=slice(3, 9))),
    Row("int8 opened and saved", "i1", saved_tokens(), ALL),
    Row("decoded and scaled, as the refusal says", "i1", store(mended), part(y=slice(4, 6))),
    Row("attributes lost", "f4", store(lambda s: s.drop_attrs().drop_encoding()),
        "Zarr store without rs_embed_meta, so not a map"),
    Row("attributes of a PCA lost", "pca",
        store(lambda s: s.drop_encoding().assign_attrs(rs_embed_pca=None)), "without their basis"),
    Row("scale lost", "i1", store(lambda s: s.drop_vars("scale").drop_encoding()),
        "a map in int8 without 'scale'"),
    Row("int8 averaged", "i1",
        store(lambda s: (s.isel(y=slice(4, 20), x=slice(2, 14)) * 1.001).drop_encoding()),
        r"neither whole steps nor their products .* dataset.drop_vars\('scale'\)"),
    Row("rounded to int16", "f4",
        store(encoding={"embedding": {"dtype": "int16", "_FillValue": -99}}),
        "got int16 values without a scale"),
    Row("one row, its dimension lost", "i1", store(lambda s: s.isel(y=5).drop_encoding()),
        "dimensions .* expected d, y and x"),
    Row("two periods", "f4", store(lambda s: s.expand_dims(time=2).drop_encoding()),
        "dimensions .* expected d, y and x"),
    Row("dimension coordinate lost", "f4",
        store(lambda s: s.isel(d=[0, 4]).drop_vars("d").drop_encoding()),
        "got 2 of 6 dimensions"),
    Row("columns with gaps", "f4", store(lambda s: s.isel(x=[1, 2, 6]).drop_encoding()),
        "coordinates along 'x' are not regular"),
    Row("coordinates lost", "f4", store(lambda s: s.drop_vars("x").drop_encoding()),
        "without coordinates along 'x'"),
]  # fmt: skip


ROWS = [*((row, ".tif") for row in TIFS), *((row, ".zarr") for row in ZARRS)]


@pytest.mark.parametrize(
    ("row", "suffix"), ROWS, ids=[f"{row.name}{suffix}" for row, suffix in ROWS]
)
@pytest.mark.filterwarnings("ignore:Scales differ", "ignore:The given matrix")
@pytest.mark.filterwarnings("ignore:Consolidated metadata", "ignore:The codec")
def test_maps_written_again(row: Row, suffix: str, written: Written, tmp_path: Path) -> None:
    path = tmp_path / f"again{suffix}"
    row.rewrite(written(row.stored, tmp_path / f"map{suffix}"), path)
    path = path if path.exists() else path.with_suffix(".vrt")
    if isinstance(row.right, str):
        with pytest.raises(ExportError, match=row.right) as refused:
            open_map(path)
        assert str(refused.value).startswith(f"cannot read {path}: ")
        return
    d, y, x = row.right
    right = truth(row.stored)[np.ix_(d, y, x)]
    words = row.name.replace(",", "").split()
    close = 2e-3 if "scaled" in words else 5e-4 if {"packed", "float16"} & set(words) else 0
    opened = open_map(path)
    np.testing.assert_allclose(opened.values, right, rtol=close, atol=max(close, 1e-7))
    assert opened.d.values.tolist() == list(d)
    np.testing.assert_allclose(opened.x, PLACE.c + PLACE.a * (np.array(x) + 0.5))
    np.testing.assert_allclose(opened.y, PLACE.f + PLACE.e * (np.array(y) + 0.5))
    assert opened.dtype == np.float32
    assert opened.rio.crs.to_epsg() == 32633
    step = 160 * (x[1] - x[0] if len(x) > 1 else 1)
    place = (step, 0, opened.x.values[0] - step / 2, 0, -160, opened.y.values[0] + 80)
    assert tuple(opened.rio.transform())[:6] == pytest.approx(place)
    point = (float(opened.x[-1]), float(opened.y[-1]))
    found = sample_points(path, [point], crs="EPSG:32633")
    np.testing.assert_array_equal(found.values[0], opened.values[:, -1, -1])
    zone = box(point[0] - step / 2, point[1] - 80, point[0] + step / 2, point[1] + 80)
    mean = zonal_mean(path, Polygons((zone,), ("a",), UTM, "drawn"))
    np.testing.assert_allclose(mean.values, found.values, rtol=1e-6)


def test_components_in_another_order_are_restored(written: Written, tmp_path: Path) -> None:
    path = written("pca", tmp_path / "map.tif")
    tif(bands=[3, 1, 2])(path, tmp_path / "again.tif")
    right = restored(open_map(path)).values
    assert np.nanmax(np.abs(right)) > 0.5
    np.testing.assert_array_equal(restored(open_map(tmp_path / "again.tif")).values, right)
    tif(bands=[1, 1, 2])(path, tmp_path / "twice.tif")
    with pytest.raises(SpecError, match="got 3 components, expected all 3 of the map, once"):
        restored(open_map(tmp_path / "twice.tif"))


def by_rioxarray(path: Path, **opened: Any) -> xr.DataArray:
    array: Any = rioxarray.open_rasterio(path, **opened)
    renamed: xr.DataArray = array.rename(band="d")
    return renamed


ARRAYS: list[tuple[str, str, Callable[[Path], Any], str | None]] = [
    ("steps as xarray opens them", ".zarr", lambda p: xr.open_zarr(p)["embedding"], None),
    ("steps as stored", ".zarr",
     lambda p: xr.open_zarr(p, mask_and_scale=False)["embedding"], None),
    ("decoded by hand", ".zarr", lambda p: multiplied(xr.open_zarr(p))["embedding"], None),
    ("scaled by rioxarray", ".tif",
     lambda p: by_rioxarray(p, mask_and_scale=True), None),
    ("steps without their scale", ".zarr",
     lambda p: xr.open_zarr(p)["embedding"].drop_vars("scale"), "in int8 without 'scale'"),
    ("steps by rioxarray", ".tif", by_rioxarray,
     "the attribute 'scales', expected tokens; open the file with rs_embed.open_map"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "opened", "refusal"), [row[1:] for row in ARRAYS], ids=[row[0] for row in ARRAYS]
)
@pytest.mark.filterwarnings("ignore:Scales differ")
def test_arrays_that_others_opened(
    suffix: str, opened: Callable[[Path], Any], refusal: str | None, written: Written,
    tmp_path: Path,
) -> None:  # fmt: skip
    array = opened(written("i1", tmp_path / f"map{suffix}"))
    points = [PLACE @ (3.5, 9.5), PLACE @ (6.5, 1.5)]
    if refusal is not None:
        with pytest.raises(SpecError, match=refusal):
            sample_points(array, points, crs="EPSG:32633")
        return
    found = sample_points(array, points, crs="EPSG:32633").values
    np.testing.assert_allclose(found[0], truth("i1")[:, 9, 3], rtol=1e-6)
    assert np.isnan(found[1]).all()


def netcdf(
    change: Callable[[xr.Dataset], xr.Dataset] = lambda dataset: dataset, **embedding: Any
) -> Callable[[Path, Path], Any]:
    def rewrite(source: Path, target: Path) -> None:
        dataset = xr.open_dataset(source, engine="h5netcdf", decode_coords="all").load()
        encoding = {"embedding": embedding}
        change(dataset).drop_encoding().to_netcdf(target, engine="h5netcdf", encoding=encoding)

    return rewrite


GRIDS = [
    ("another nodata value", ".tif", tif(filled(-9999), nodata=-9999), ALL),
    ("packed in int16", ".tif", tif(packed, scales=1e-4, offset=0.25, nodata=-32768), ALL),
    ("float64", ".tif", tif(lambda v: v.astype(np.float64)), ALL),
    ("some bands", ".tif", tif(bands=[5, 1]), part(d=[4, 0])),
    ("south up", ".tif", tif(lambda v: v[:, ::-1], transform=SOUTH_UP), ALL),
    ("rounded", ".tif", tif(filled(0), dtype="int16", nodata=None), "got int16 values without"),
    ("rotated", ".tif", tif(transform=PLACE @ Affine.rotation(20)), "not rotated"),
    ("another nodata value", ".nc", netcdf(_FillValue=-9999.0), ALL),
    ("packed in int16", ".nc", netcdf(dtype="int16", scale_factor=1e-4, _FillValue=-32768), ALL),
    ("south up", ".nc", netcdf(lambda s: s.sortby("y")), ALL),
    ("transposed", ".nc", netcdf(lambda s: s.transpose("x", "y", "d")), ALL),
    ("cropped", ".nc", netcdf(lambda s: s.isel(x=slice(2, 8), d=[4, 1])),
     part(d=[4, 1], x=slice(2, 8))),
    ("one row, its dimension lost", ".nc", netcdf(lambda s: s.isel(y=3)), "expected d, y and x"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "suffix", "rewrite", "right"), GRIDS, ids=[f"{n}{s}" for n, s, *_ in GRIDS]
)
def test_grids_written_again(
    name: str, suffix: str, rewrite: Callable[[Path, Path], Any], right: Part | str, tmp_path: Path
) -> None:
    grid = georeferenced(tokens(), rasterio.crs.CRS.from_epsg(32633), PLACE)
    path = tmp_path / f"again{suffix}"
    rewrite(Embedding(grid, {"model": "m"}).save(tmp_path / f"grid{suffix}"), path)
    if isinstance(right, str):
        with pytest.raises(ExportError, match=right):
            Embedding.load(path)
        return
    d, y, x = right
    back = Embedding.load(path).data
    assert back.dtype == np.float32
    close = 1e-4 if "packed" in name else 0
    np.testing.assert_allclose(back.values, tokens()[np.ix_(d, y, x)], atol=close)
    assert back.d.values.tolist() == list(d)
    assert tuple(back.rio.transform())[:6] == (160, 0, 500_000 + 160 * x[0], 0, -160, 5_000_000)
