"""What comes from outside never decides which file is read, or by which driver of GDAL.

A file with a secret is planted on this disk; its bytes must be in no pixel, meta or message.
"""

from __future__ import annotations

import html
import json
import struct
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer

from rs_embed import (
    LocalProvider,
    PointBuffer,
    StacProvider,
    TemporalSpec,
    get_embedding,
    inspect_input,
)
from rs_embed.errors import CheckpointError, ImageryError, RsEmbedError
from rs_embed.files.imagery import read_imagery

pytestmark = pytest.mark.fault

LON, LAT = Transformer.from_crs(32633, 4326, always_xy=True).transform(400320, 5199680)
PLACE = PointBuffer(LON, LAT, 300)
PERIOD = TemporalSpec.range("2023-06-01", "2023-09-01")
SIDE = 64
WANTED = ("B4", "B3", "B2")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A key on this disk that looks like pixels: as many bytes as three bands have."""
    path = tmp_path / "home" / "id_key"
    path.parent.mkdir()
    path.write_bytes(np.random.default_rng(7).bytes(SIDE * SIDE * 2 * 3))
    return path


def raw_vrt(secret: Path) -> str:
    """Return a VRT whose bands are the bytes of a file."""
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{at + 1}" subClass="VRTRawRasterBand">'
        f"<Description>{name}</Description>"
        f'<SourceFilename relativetoVRT="0">{secret}</SourceFilename>'
        f"<ImageOffset>{at * SIDE * SIDE * 2}</ImageOffset><PixelOffset>2</PixelOffset>"
        f"<LineOffset>{SIDE * 2}</LineOffset></VRTRasterBand>"
        for at, name in enumerate(WANTED)
    )
    return (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>400000, 10, 0, 5200000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )


def plain_vrt(image: Path | str) -> str:
    """Return a VRT of an ordinary image."""
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{at}"><Description>{name}</Description>'
        f"<SimpleSource><SourceFilename>{image}</SourceFilename><SourceBand>{at}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for at, name in enumerate(WANTED, 1)
    )
    return (
        f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>400000, 10, 0, 5200000, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )


def image(path: Path) -> Path:
    data = np.random.default_rng(0).integers(500, 3000, (3, SIDE, SIDE)).astype("uint16")
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=SIDE, width=SIDE, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 4e5, 0, -10, 52e5),
    ) as file:  # fmt: skip
        file.write(data)
        file.descriptions = WANTED
    return path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a server shows it."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def looked_at(**given: Any) -> dict[str, Any]:
    """Return the meta of what a model would see, or the message of our error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            seen = inspect_input("scalemae", variant="tiny", display="visual", **given)
        except RsEmbedError as exc:
            return {"error": str(exc)}
    return {"meta": seen.meta, "pixels": seen.raw}


# Address of an asset in an Item on the web -> it leads to the key.
ASSETS = {
    "a VRT on the web": "{web}/hostile.vrt",
    "a VRT that is called .tif": "{web}/hostile.tif",
    "a VRT within the href": "{vrt}",
    "a file: URL": "file://{home}/image.tif",
    "a path": "{home}/image.tif",
    "a path upwards": "../../../../../../../../../../..{home}/image.tif",
    "a VRT by vrt://": "vrt://{home}/image.tif",
    "another address by /vsicurl/": "/vsicurl/{web}/image.tif",
    "an archive on this disk": "/vsizip/{home}/image.zip",
    "a zip: URL": "zip://{home}/image.zip!image.tif",
    "a subdataset": "NETCDF:{home}/image.nc:red",
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("asset", ASSETS.values(), ids=ASSETS)
def test_an_item_on_the_web_reads_nothing_of_this_disk(
    asset: str, secret: Path, web: tuple[Path, str]
) -> None:
    folder, url = web
    image(secret.parent / "image.tif")
    for name in ("hostile.vrt", "hostile.tif"):
        (folder / name).write_text(raw_vrt(secret))
    href = asset.format(web=url, vrt=raw_vrt(secret), home=secret.parent)
    box = [LON - 0.02, LAT - 0.02, LON + 0.02, LAT + 0.02]
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "one", "bbox": box,
        "geometry": {"type": "Point", "coordinates": [LON, LAT]},
        "links": [{"rel": "self", "href": f"{secret.parent}/item.json"}],
        "properties": {"datetime": "2023-07-01T10:00:00Z", "eo:cloud_cover": 1},
        "assets": {"sr": {"href": href, "eo:bands": [{"name": band} for band in WANTED]}},
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    provider = StacProvider(f"{url}/item.json")
    result = looked_at(spatial=PLACE, temporal=PERIOD, backend=provider)
    assert "error" in result
    assert str(secret) not in result["error"] or asset == "{vrt}"
    # The same Item on this disk, as somebody sent it.
    if asset in ("{web}/hostile.vrt", "{web}/hostile.tif", "{vrt}"):
        (secret.parent / "sent.json").write_text(json.dumps(item))
        local = LocalProvider(secret.parent / "sent.json")
        assert "error" in looked_at(spatial=PLACE, temporal=PERIOD, backend=local)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_content_of_a_file_does_not_choose_its_driver(
    secret: Path, tmp_path: Path, web: tuple[Path, str]
) -> None:
    folder, url = web
    plain = image(tmp_path / "plain.tif")
    (folder / "scene.tif").write_text(raw_vrt(secret))
    for name, text in (
        ("raw.vrt", raw_vrt(secret)), ("raw.tif", raw_vrt(secret)),
        ("plain_vrt.tif", plain_vrt(plain)),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("raw.tif", raw_vrt(secret))
        archive.write(plain, "plain.tif")
    # A VRT whose source is the hostile one, by another name, in other words, or in an archive.
    sources = {
        "nested": "raw.tif", "words": f"vrt://{tmp_path}/raw.tif",
        "inline": html.escape(raw_vrt(secret)), "archive": f"/vsizip/{tmp_path}/a.zip/raw.tif",
    }  # fmt: skip
    for name, source in sources.items():
        text = plain_vrt("source").replace(">source<", f' relativeToVRT="1">{source}<')
        (tmp_path / f"{name}.vrt").write_text(text)
        with pytest.raises(ImageryError, match="VRTRawRasterBand|may be a VRT of anything"):
            read_imagery(tmp_path / f"{name}.vrt", bands=WANTED, spatial=None, fill_value=None)
    # GDAL reads more than is XML.
    loose = raw_vrt(secret).replace("<SRS>", '<Metadata><MDI key="a">x & y</MDI></Metadata><SRS>')
    (tmp_path / "loose.vrt").write_text(loose)
    mrf = (
        '<MRF_META><Raster><Size x="64" y="64" c="3"/><PageSize x="64" y="64" c="3"/>'
        "<Compression>NONE</Compression><DataType>UInt16</DataType>"
        f"<DataFile>{secret}</DataFile><IndexFile>{tmp_path}/m.idx</IndexFile></Raster><GeoTags>"
        '<BoundingBox minx="400000" miny="5199360" maxx="400640" maxy="5200000"/>'
        "<Projection>EPSG:32633</Projection></GeoTags></MRF_META>"
    )
    (tmp_path / "m.dat").write_text(mrf)
    (tmp_path / "m.idx").write_bytes(struct.pack(">QQ", 0, SIDE * SIDE * 6))
    (tmp_path / "of_mrf.vrt").write_text(plain_vrt(f"{tmp_path}/m.dat"))
    entity = raw_vrt(secret).replace("VRTRawRasterBand", "VRTRaw&#82;asterBand")
    (tmp_path / "entity.vrt").write_text(entity)
    for hostile in (
        f"{url}/scene.tif", f"/vsicurl/{url}/scene.tif", raw_vrt(secret), tmp_path / "raw.vrt",
        tmp_path / "raw.tif", tmp_path / "plain_vrt.tif", tmp_path / "entity.vrt",
        tmp_path / "loose.vrt", tmp_path / "m.dat", tmp_path / "of_mrf.vrt",
    ):  # fmt: skip
        with pytest.raises(ImageryError):
            read_imagery(hostile, bands=WANTED, spatial=None, fill_value=None)
    # One's own VRT of rasters, and an image on a server, are read.
    (tmp_path / "own.vrt").write_text(plain_vrt(plain))
    (tmp_path / "packed.vrt").write_text(plain_vrt(f"/vsizip/{tmp_path}/a.zip/plain.tif"))
    (folder / "image.tif").write_bytes(plain.read_bytes())
    right = read_imagery(plain, bands=WANTED, spatial=None, fill_value=None).data
    for own in (tmp_path / "own.vrt", tmp_path / "packed.vrt", f"{url}/image.tif"):
        read = read_imagery(own, bands=WANTED, spatial=None, fill_value=None)
        assert np.array_equal(read.data, right)


def test_what_is_no_input_is_an_error_of_ours(tmp_path: Path, checkpoint: Path) -> None:
    import torch

    pixels = np.random.default_rng(0).integers(500, 3000, (3, SIDE, SIDE)).astype("uint16")
    torch.save({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="torch.save under the name .* rename it to model.pt"):
        get_embedding("scalemae", input_chw=pixels, weights=tmp_path)
    (tmp_path / "config.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(CheckpointError, match=r"config.json is not valid JSON"):
        get_embedding("scalemae", input_chw=pixels, weights=tmp_path)
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (3, 2**16, 2**15), (0, 0, 0))
    with pytest.raises(ImageryError, match="65536 x 32768 px, expected at most 250,000,000 px"):
        get_embedding("scalemae", input_chw=huge, weights=checkpoint)


def test_a_catalogue_that_links_elsewhere_than_to_the_web_is_told(web: tuple[Path, str]) -> None:
    folder, url = web
    links = [{"rel": "item", "href": "ftp://10.0.0.1/item.json"}]
    catalogue = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c"}
    (folder / "catalog.json").write_text(json.dumps({**catalogue, "links": links}))
    provider = StacProvider(f"{url}/catalog.json")
    result = looked_at(spatial=PLACE, temporal=PERIOD, backend=provider)
    assert "expected an address on the web" in result["error"]


# Files that name others


def overviews_in_tags(folder: Path, secret: Path) -> Path:
    path = image(folder / "a.tif")
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=raw_vrt(secret))
    return path


def overviews_beside(folder: Path, secret: Path) -> Path:
    path = image(folder / "a.tif")
    (folder / "a.tif.ovr").write_text(raw_vrt(secret))
    return path


def mask_beside(folder: Path, secret: Path) -> Path:
    path = image(folder / "a.tif")
    (folder / "a.tif.msk").write_text(raw_vrt(secret))
    return path


def overviews_in_a_sidecar(folder: Path, secret: Path) -> Path:
    path = image(folder / "a.tif")
    (folder / "a.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">'
        f"{html.escape(raw_vrt(secret))}</MDI></Metadata></PAMDataset>"
    )
    return path


def values_outside_hdf5(folder: Path, secret: Path) -> Path:
    import h5py  # type: ignore[import-untyped]

    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        outside = [(str(secret), 0, secret.stat().st_size)]
        file.create_dataset("red", (3, SIDE, SIDE), "<u2", external=outside)
    return path


def virtual_hdf5(folder: Path, secret: Path) -> Path:
    import h5py

    path = folder / "a.h5"
    layout = h5py.VirtualLayout((3, SIDE, SIDE), "<u2")
    layout[:] = h5py.VirtualSource(str(secret), "red", (3, SIDE, SIDE))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("red", layout)
    return path


def raw_behind_a_link(folder: Path, secret: Path) -> Path:
    path = folder / "a.img"
    path.symlink_to(secret)
    (folder / "a.hdr").write_text(
        f"ENVI\nsamples = {SIDE}\nlines = {SIDE}\nbands = 3\nheader offset = 0\ndata type = 12\n"
        "interleave = bsq\nbyte order = 0\nband names = {B4, B3, B2}\n"
        "map info = {UTM, 1, 1, 400000, 5200000, 10, 10, 33, North, WGS-84}\n"
    )
    return path


def part_of_a_file(folder: Path, secret: Path) -> Path:
    path = folder / "a.vrt"
    (folder / "s.xml").write_text(
        f"<VSISparseFile><Length>{SIDE * SIDE * 6}</Length><SubfileRegion><Filename>{secret}"
        f"</Filename><DestinationOffset>0</DestinationOffset><SourceOffset>0</SourceOffset>"
        f"<RegionLength>{SIDE * SIDE * 6}</RegionLength></SubfileRegion></VSISparseFile>"
    )
    path.write_text(plain_vrt(f"/vsisparse/{folder}/s.xml"))
    return path


OTHERS = {
    function.__name__: (function, match)
    for function, match in (
        (overviews_in_tags, "names another file as its overviews"),
        (overviews_in_a_sidecar, "names another file as its overviews"),
        (overviews_beside, "a.tif.ovr' is not a mask or overview"),
        (mask_beside, "a.tif.msk' is not a mask or overview"),
        (values_outside_hdf5, "in another file"),
        (virtual_hdf5, "in another file"),
        (raw_behind_a_link, "not recognized"),
        (part_of_a_file, "may be a VRT of anything"),
    )
}


@pytest.mark.parametrize(("make", "match"), OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("inside", ["alone", "source"])
def test_files_that_name_others_are_refused(
    make: Callable[[Path, Path], Path], match: str, inside: str, secret: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    path = make(folder, secret)
    if inside == "source":
        if path.suffix in (".vrt", ".img"):
            pytest.skip("a source of its own kind is refused in another way")
        vrt = folder / "outer.vrt"
        vrt.write_text(plain_vrt(path))
        path = vrt
    with pytest.raises(ImageryError, match=match):
        read_imagery(str(path), bands=WANTED, spatial=None, fill_value=None)


def test_a_file_on_the_web_that_names_another_is_refused(
    secret: Path, web: tuple[Path, str]
) -> None:
    folder, url = web
    overviews_in_tags(folder, secret)
    with pytest.raises(ImageryError, match="names another file as its overviews"):
        read_imagery(f"{url}/a.tif", bands=WANTED, spatial=None, fill_value=None)


@pytest.mark.parametrize(
    "changed",
    [
        {"id": 5}, {"id": {}}, {"id": [1]}, {"collection": {}}, {"bbox": [10**400] * 4},
        {"assets": [1]}, {"assets": {"v": None}}, {"links": 5},
        {"assets": {"v": {"href": "a\0b.tif"}}}, {"assets": {"v": {"href": "\ud800.tif"}}},
        {"assets": {"v": {"href": "http://[x/a.tif"}}}, {"assets": {"v": {"href": "/vsistdin/"}}},
        {"properties": {"datetime": "0001-01-01T00:00:00+23:59"}},
        {"properties": {"datetime": "2023-07-01T00:00:00Z", "eo:cloud_cover": 10**400}},
    ],
    ids=lambda changed: json.dumps(changed)[:40],
)  # fmt: skip
def test_an_odd_item_is_left_out_by_name(changed: dict[str, Any], tmp_path: Path) -> None:
    image(tmp_path / "s_20230701.tif")
    item: dict[str, Any] = {
        "type": "Feature", "stac_version": "1.0.0", "id": "odd", "geometry": None, "links": [],
        "properties": {"datetime": "2023-07-01T00:00:00Z"},
        "assets": {"v": {"href": "./other.tif"}},
    }  # fmt: skip
    (tmp_path / "odd.json").write_text(json.dumps(item | changed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = inspect_input(
            "scalemae", spatial=PLACE, temporal=PERIOD, backend=LocalProvider(tmp_path),
            variant="tiny", display="visual",
        )  # fmt: skip
    assert [one["id"] for one in seen.meta["source"]["items"]] == ["s_20230701.tif"]
