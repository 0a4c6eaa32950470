"""Raster files as people have them: masks, addresses, containers, coordinate systems.

Each situation is a row. What is right is written out, or read by GDAL (rasterio) from the same
pixels in a plain file.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from affine import Affine
from pyproj import CRS, Transformer
from rasterio.enums import ColorInterp

from rs_embed import (
    Embedding,
    LocalProvider,
    PatchCache,
    embed_area,
    export_batch,
    get_embedding,
    inspect_input,
    open_map,
    read_vectors,
)
from rs_embed.errors import GridError, ImageryError
from rs_embed.files.identity import imagery_identity
from rs_embed.files.imagery import imagery_grid, read_imagery
from rs_embed.files.rasters import BandFile, read_rows
from rs_embed.geo.grid import Grid, gsd_m

WANTED = ("B4", "B3", "B2")
NORTH_UP = Affine(10, 0, 400000, 0, -10, 5200000)
NAMES = {"r": "B4", "g": "B3", "b": "B2", "n": "B8", "a": "alpha"}
COLOURS = {
    "r": ColorInterp.red, "g": ColorInterp.green, "b": ColorInterp.blue,
    "n": ColorInterp.undefined, "a": ColorInterp.alpha,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NodataShadowWarning")
@pytest.mark.parametrize(
    ("order", "nodata", "masked"),
    list(itertools.product(("bgr", "rgba", "argb", "rgbna", "rganb"), (None, 0, 7), (False, True))),
)
def test_nodata_mask_and_alpha_combine(
    order: str, nodata: int | None, masked: bool, tmp_path: Path
) -> None:
    """Alpha hides the west, nodata the north, the mask the south; read as is, and averaged."""
    values = {"r": 1000, "g": 2000, "b": 3000, "n": 4000, "a": 65535}
    data = np.stack([np.full((64, 64), values[band], np.uint16) for band in order])
    right = np.ones((64, 64), bool)
    if "a" in order:
        data[order.index("a"), :, :32] = 0
        right[:, :32] = False
    if nodata is not None:
        data[[i for i, band in enumerate(order) if band != "a"], :16] = nodata
        right[:16] = False
    with rasterio.open(
        tmp_path / "s.tif", "w", driver="GTiff", count=len(order), height=64, width=64,
        dtype="uint16", crs="EPSG:32633", transform=NORTH_UP, nodata=nodata,
        photometric="MINISBLACK",
    ) as file:  # fmt: skip
        file.write(data)
        file.descriptions = [NAMES[band] for band in order]
        file.colorinterp = [COLOURS[band] for band in order]
        if masked:  # a .msk beside the file
            file.write_mask(np.where(np.arange(64)[:, None] < 48, 255, 0).astype(np.uint8) * right)
            right[48:] = False
    bands = BandFile(str(tmp_path / "s.tif"), WANTED)
    as_it_is = Grid(CRS.from_epsg(32633), NORTH_UP, (64, 64))
    averaged = as_it_is.resized(32, 32)
    for grid, valid in ((as_it_is, right), (averaged, right[::2, ::2])):
        raster = read_rows(bands, grid)
        assert np.array_equal(raster.valid, valid)
        # What is hidden gives nothing to its neighbours.
        assert np.unique(raster.data[:, raster.valid], axis=1).tolist() == [[1000], [2000], [3000]]


def test_a_near_infrared_band_that_gdal_takes_for_alpha_hides_nothing(
    write_scene: Callable[..., Path],
) -> None:
    """GDAL calls the fourth band of 8-bit images alpha; dark water has 0 there."""
    data = np.full((4, 32, 32), 90, np.uint8)
    data[3] = 0
    path = write_scene(data, names=("B4", "B3", "B2", "B8"), photometric="RGB", alpha="YES")
    with rasterio.open(path) as file:
        assert file.colorinterp[3] is ColorInterp.alpha
    assert read_imagery(path, bands=WANTED, spatial=None, fill_value=None).valid.all()


@pytest.mark.parametrize("suffix", [".tif", ".jp2"])
def test_what_gdal_keeps_beside_a_file_counts(suffix: str, tmp_path: Path) -> None:
    """``gdal_edit`` writes nodata, scale and names of a JPEG 2000 to ``.aux.xml``."""
    path = tmp_path / f"scene{suffix}"
    data = np.full((3, 64, 64), 2000, np.uint16)
    data[:, :16] = 500
    jp2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"}
    with rasterio.open(
        path, "w", **(jp2 if suffix == ".jp2" else {"driver": "GTiff"}), count=3, height=64,
        width=64, dtype="uint16", crs="EPSG:32633", transform=NORTH_UP,
    ) as file:  # fmt: skip
        file.write(data)
    bands_of = "".join(
        f'<PAMRasterBand band="{at}"><Description>{name}</Description><NoDataValue>500'
        "</NoDataValue><Offset>-0.1</Offset><Scale>0.0001</Scale></PAMRasterBand>"
        for at, name in enumerate(("B02", "B03", "B04"), 1)
    )
    Path(f"{path}.aux.xml").write_text(f"<PAMDataset>{bands_of}</PAMDataset>")
    raster = read_imagery(path, bands=WANTED, spatial=None, fill_value=None)
    assert raster.reflectance == (0.0001, -0.1)
    assert raster.valid.mean() == 0.75


def scene(folder: Path, name: str = "scene.tif", **profile: object) -> Path:
    """Write three unnamed bands of 64 px."""
    data = np.random.default_rng(1).integers(500, 3000, (3, 64, 64)).astype("uint16")
    path = folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    with rasterio.open(
        path, "w",
        **{"driver": "GTiff", "count": 3, "height": 64, "width": 64, "dtype": "uint16",
           "crs": "EPSG:32633", "transform": NORTH_UP, **profile},
    ) as file:  # fmt: skip
        file.write(data)
    return path


def zipped(folder: Path) -> Path:
    """Write an archive with one image and return its path."""
    path = folder / "of march.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(scene(folder), "inner/scene 1.tif")
    return path


ADDRESSES: dict[str, Callable[[Path], str]] = {
    "file: URL with a space": lambda f: scene(f, "a b.tif").as_uri(),
    "file: URL with # and umlaut": lambda f: scene(f, "ä #1.tif").as_uri(),
    "file: URL, # not encoded": lambda f: f"file://{scene(f, 'a#1.tif')}",
    "file: URL of localhost": lambda f: f"file://localhost{scene(f, 'a b.tif')}",
    "path with percent sign": lambda f: str(scene(f, "100%25.tif")),
    "zip:// URL": lambda f: f"zip://{zipped(f)}!inner/scene 1.tif",
    "/vsizip/": lambda f: f"/vsizip/{zipped(f)}/inner/scene 1.tif",
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_leads_to_its_file(address: Callable[[Path], str], tmp_path: Path) -> None:
    with rasterio.open(scene(tmp_path / "plain")) as file:
        right = file.read()
    given = address(tmp_path)
    assert np.array_equal(
        read_imagery(given, bands=WANTED, spatial=None, fill_value=None).data, right
    )
    # Resumed runs notice that the file, or its archive, was replaced.
    before = imagery_identity(given)
    for path in tmp_path.glob("*.*"):
        path.write_bytes(path.read_bytes() + b" ")
    assert imagery_identity(given) != before


ROTATIONS = {"none": 0.0, "noise": 1e-14, "a degree": 0.17}


@pytest.mark.parametrize("rotation", ROTATIONS.values(), ids=ROTATIONS)
def test_rounding_errors_are_no_rotation(rotation: float, tmp_path: Path) -> None:
    path = scene(tmp_path, transform=Affine(10, rotation, 400000, rotation, -10, 5200000))
    if rotation < 1e-9:
        assert imagery_grid(path).transform == NORTH_UP
    else:
        with pytest.raises(GridError, match="rotated"):
            imagery_grid(path)


COORDINATE_SYSTEMS: dict[str, tuple[str, str, tuple[float, float]]] = {
    "plain": ("EPSG:32633", "EPSG:32633", (400000, 5200000)),
    "with heights": ("EPSG:32633+5773", "EPSG:32633", (400000, 5200000)),
    "a compound code": ("EPSG:7415", "EPSG:28992", (155000, 463000)),
}


@pytest.mark.parametrize(
    ("stated", "horizontal", "corner"), COORDINATE_SYSTEMS.values(), ids=COORDINATE_SYSTEMS
)
def test_a_compound_crs_counts_by_its_horizontal_part(
    stated: str, horizontal: str, corner: tuple[float, float], tmp_path: Path
) -> None:
    wkt = CRS.from_user_input(stated).to_wkt("WKT1_GDAL")
    transform = Affine(10, 0, corner[0], 0, -10, corner[1])
    path = scene(tmp_path, crs=rasterio.crs.CRS.from_wkt(wkt), transform=transform)
    grid = imagery_grid(path)
    assert grid.crs == CRS.from_user_input(horizontal)
    assert gsd_m(grid) == 10
    plain = Grid(CRS.from_user_input(horizontal), transform, (64, 64))
    assert plain.lies_on(grid)
    # In feet above the ground, horizontally in metres.
    assert gsd_m(Grid(CRS.from_user_input("EPSG:32633+6360"), NORTH_UP, (64, 64))) == 10


@pytest.mark.parametrize("code", [2048, 2065], ids=["Lo19", "Krovak"])
def test_coordinates_to_the_west_or_south_are_refused(code: int) -> None:
    crs = CRS.from_epsg(code)
    area = crs.area_of_use
    assert area is not None
    lon, lat = (area.west + area.east) / 2, (area.south + area.north) / 2
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    with pytest.raises(GridError, match=r"(?s)westing.*gdalwarp -t_srs EPSG:32[67]"):
        gsd_m(Grid(crs, Affine(10, 0, x, 0, -10, y), (64, 64)))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_error_for_a_container_lists_its_images_and_what_it_says_works(tmp_path: Path) -> None:
    source = scene(tmp_path)
    array = rioxarray.open_rasterio(source)
    assert isinstance(array, xr.DataArray)
    bands = {name: array[at].drop_vars("band") for at, name in enumerate(("red", "green", "blue"))}
    path = tmp_path / "of three.nc"
    xr.Dataset(bands).to_netcdf(path, engine="h5netcdf")
    with pytest.raises(ImageryError, match="holds 3 images: .*:red.*:green.*:blue.*xarray") as got:
        inspect_input("scalemae", imagery=path, variant="tiny", display="visual")
    assert f"netcdf:{path}:red" in str(got.value).replace("'", "").replace('"', "")
    # First fix: one image by its name. It has one band, and the model wants three.
    with pytest.raises(ImageryError, match="has 1 bands without names, expected the 3"):
        read_imagery(f'NETCDF:"{path}":red', bands=WANTED, spatial=None, fill_value=None)
    # Second: joined, as by gdalbuildvrt -separate.
    joined = tmp_path / "bands.vrt"
    with rasterio.open(source) as file:
        right = file.read()
        of_band = "".join(
            f'<VRTRasterBand dataType="UInt16" band="{at}"><SimpleSource><SourceFilename>'
            f'NETCDF:"{path}":{name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
            "</VRTRasterBand>"
            for at, name in enumerate(bands, 1)
        )
        joined.write_text(
            f'<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>{file.crs.to_wkt()}</SRS>'
            f"<GeoTransform>400000, 10, 0, 5200000, 0, -10</GeoTransform>{of_band}</VRTDataset>"
        )
    # Third: opened by xarray.
    dataset = xr.open_dataset(path, decode_coords="all", engine="h5netcdf")
    for imagery in (joined, dataset):
        raster = read_imagery(imagery, bands=WANTED, spatial=None, fill_value=None)
        assert np.array_equal(raster.data, right)


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")
def test_a_file_url_is_taken_wherever_a_path_is(tmp_path: Path, checkpoint: Path) -> None:
    """Images in and out, places, polygons, folders, weights: the file is where the URL says."""
    folder = tmp_path / "of march #1"
    image = scene(folder)
    weights = folder / "weights"
    weights.mkdir()
    for name in ("config.json", "model.safetensors"):
        (weights / name).write_bytes((checkpoint / name).read_bytes())

    def url(name: str) -> str:
        return (folder / name).as_uri()

    lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(400320, 5199680)
    (folder / "places.csv").write_text(f"id,lon,lat\na,{lon},{lat}\n")
    common: dict[str, Any] = {"weights": url("weights"), "image_size": 32, "display": "visual"}
    embedding = get_embedding("scalemae", imagery=url(image.name), **common)
    embedding.save(url("one.npz"))
    assert np.array_equal(Embedding.load(url("one.npz")).data, embedding.data)
    embed_area(
        "scalemae", imagery=url(image.name), output=url("map.tif"), progress=False, tile_size=32,
        **common,
    )  # fmt: skip
    assert open_map(url("map.tif")).sizes["d"] == 48
    export_batch(
        "scalemae", url("places.csv"), output=url("vectors.npz"), imagery=url(image.name),
        buffer_m=160, progress=False, **common,
    )  # fmt: skip
    assert read_vectors(url("vectors.npz")).embedding.shape == (1, 48)
    assert LocalProvider(url(image.name)).status().startswith("ready: 1 scenes")
    (folder / "cache").mkdir()
    assert PatchCache(url("cache"), 10**6).folder == folder / "cache"
    assert sorted(path.name for path in folder.iterdir()) == [
        "cache", "map.tif", "one.npz", "places.csv", image.name, "vectors.npz", "weights",
    ]  # fmt: skip
