"""Nothing gets in, nothing hangs: archives, FIFOs, views and entries of caches that others made."""

from __future__ import annotations

import io
import json
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shapely.geometry import box

from rs_embed.datasets.samples import IMAGE_BYTES, read_samples
from rs_embed.errors import (
    DatasetError,
    ExportError,
    ImageryError,
    RsEmbedError,
    SpecError,
)
from rs_embed.files.databases import VIEW_SECONDS
from rs_embed.files.places import read_places
from rs_embed.files.polygons import read_polygons
from rs_embed.files.vectors import VectorRow, read_vectors, write_vectors
from rs_embed.maps.formats.encoding import PrincipalComponents
from rs_embed.models.weights import obtain_weights
from rs_embed.providers.cache import PatchCache
from rs_embed.providers.cache_files import _MAGIC, _digest
from tests.cache_worker import GRID, made_of, put

pytestmark = pytest.mark.fault

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
INDEX = b"path,class\na.png,x\n"


def png() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    return content.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes], mode: str = "w:xz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def lying(path: Path) -> Path:
    """Make a ZIP archive whose image states 1000 bytes and inflates to 500 MB."""
    zipped(path, {"index.csv": INDEX.replace(b"a.png", b"b.png")})
    squeezed = zlib.compressobj(1, wbits=-15)
    parts = [squeezed.compress(bytes(2**20)) for _ in range(500)]
    content = b"".join((*parts, squeezed.flush()))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("b.png", content)
        info = archive.getinfo("b.png")
        info.filename, info.orig_filename, info.compress_type = "b.png", "b.png", 8
        info.file_size = 1000
    raw = bytearray(path.read_bytes())
    at = raw.index(b"b.png") - 30
    raw[at + 8 : at + 10] = b"\x08\0"
    raw[at + 22 : at + 26] = (1000).to_bytes(4, "little")
    path.write_bytes(raw)
    return path


LARGE, LONG = b"\0" * (IMAGE_BYTES + 1), b"path,class\n" + b"x" * 70_000 + b",y\n"
# Members of an archive -> its refusal.
MEMBERS = {
    "an image of 256 MiB and a byte": ({"index.csv": INDEX, "a.png": LARGE}, "268,435,456 bytes"),
    "a line of 70 kB": ({"index.csv": LONG, "a.png": b""}, "65,536 bytes in a line"),
    "an index of two million lines": (
        {"index.csv": b"path,class\n" + b"\n" * 2_000_000, "a.png": b""},
        "2,000,000 lines",
    ),
}
# Limits on what a process may take, and how much more memory reading may take.
MEASURED = """
import resource, sys
from rs_embed.datasets import read_samples
from rs_embed.errors import DatasetError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(read_samples(sys.argv[1], gsd_m=1))
except DatasetError as exc:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, exc)
"""


def measured(path: Path) -> tuple[int, str]:
    """Return the megabytes that reading a set takes in a process of its own, and its refusal."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    memory, _, message = result.stdout.partition(" ")
    return int(memory), message


@pytest.mark.parametrize("kind", ["zip", pytest.param("tar.gz", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("members", "refusal"),
    [
        pytest.param(*row, id=name, marks=[pytest.mark.long] if "million" in name else [])
        for name, row in MEMBERS.items()
    ],
)
def test_limits_hold_for_what_comes_out(
    members: dict[str, bytes], refusal: str, kind: str, tmp_path: Path
) -> None:
    if kind == "tar.gz":
        path = tarred(tmp_path / "set.tar.gz", members, "w:gz")
    else:
        path = zipped(tmp_path / "set.zip", members)
    memory, message = measured(path)
    assert refusal in message
    assert memory < 700


def test_a_size_that_lies_costs_nothing(tmp_path: Path) -> None:
    memory, message = measured(lying(tmp_path / "set.zip"))
    assert "cannot be read as an archive" in message
    assert memory < 100


def test_a_sparse_member_is_not_read(tmp_path: Path) -> None:
    """Its map of ten million holes would be read by tarfile."""
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        content = b"10000000\n" + b"0\n" * 20_000_000
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    with pytest.raises(DatasetError, match="a sparse file"):
        list(read_samples(path, gsd_m=1))


def test_a_computed_column_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "fields.gpkg"
    fields = gpd.GeoDataFrame({"id": [1]}, geometry=[box(10, 47, 10.1, 47.1)], crs=4326)
    fields.to_file(path, layer="fields")
    with sqlite3.connect(path) as database:
        database.execute(
            "ALTER TABLE fields ADD COLUMN big TEXT AS (hex(zeroblob(400000000))) VIRTUAL"
        )
    database.close()
    with pytest.raises(SpecError, match="the column 'big' of 'fields' is computed"):
        read_polygons(path)


def test_an_export_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embedding.npy", bytes(400_000_000))
    with pytest.raises(ExportError, match="unpacks to 400,000,000 bytes"):
        read_vectors(path)


def test_a_long_header_of_a_tar_archive_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 2**29
    path = tmp_path / "set.tar"
    path.write_bytes(header.tobuf() + bytes(2**20))
    with pytest.raises(DatasetError, match="a header of 536,870,912 bytes"):
        list(read_samples(path, gsd_m=1))


READ = "from rs_embed.files.imagery import read_imagery as read; "
OF_3 = "bands=('B4', 'B3', 'B2'), spatial=None, fill_value=None)"
LOCAL = "from rs_embed import LocalProvider; p = LocalProvider({}); print(p.status()); p.dated"
MAP = "from rs_embed import open_map; open_map({})"
# What is a FIFO, in a folder with image.tif, fields.shp, model.safetensors -> how it is read.
DOORS = {
    "places": ("a.csv", "from rs_embed import export_batch; from rs_embed.files.places import "
               "read_places as read; read(path, buffer_m=9)"),
    "places in GeoJSON": ("a.geojson", "from rs_embed.files.places import read_places as read; "
                          "read(path)"),
    "polygons": ("a.geojson", "from rs_embed.files.polygons import read_polygons as read; "
                 "read(path)"),
    "a layer": ("a.gpkg", "from rs_embed.files.polygons import read_polygons as read; read(path)"),
    "beside a layer": ("fields.prj", "from rs_embed.files.polygons import read_polygons as read; "
                       "read(path.with_name('fields.shp'))"),
    "imagery": ("a.tif", READ + "read(path, " + OF_3),
    "an archive of imagery": ("a.zip", READ + "read(f'/vsizip/{path}/a.tif', " + OF_3),
    "a subdataset": ("a.nc", READ + "read(f'NETCDF:{path}:red', " + OF_3),
    "beside imagery": ("image.tfw", READ + "read(path.with_name('image.tif'), " + OF_3),
    "overviews": ("image.tif.ovr", READ + "read(path.with_name('image.tif'), " + OF_3),
    "a source of a VRT": ("a.dat", READ + "read(path.with_name('of_fifo.vrt'), " + OF_3),
    "among imagery": ("a.tif", LOCAL.format("path.parent")),
    "an item among imagery": ("a.json", LOCAL.format("path.parent")),
    "the root of imagery": ("a.tif", LOCAL.format("path")),
    "weights": ("a.pt", "from rs_embed.models.weights import obtain_weights as o; o(str(path))"),
    "a config": ("config.json", "from rs_embed.models.weights import obtain_weights as o; "
                 "o(str(path.parent))"),
    "a set": ("a.tar", "from rs_embed.datasets import read_samples as r; list(r(path, gsd_m=1))"),
    "an index": ("index.csv", "from rs_embed.datasets import read_samples as r; "
                 "list(r(path.parent, gsd_m=1))"),
    "an image of a set": ("a.png", "from rs_embed.datasets import read_samples as r; "
                          "list(r(path.parent, gsd_m=1))"),
    "vectors": ("a.npz", "from rs_embed import read_vectors; read_vectors(path)"),
    "a saved grid": ("a.nc", "from rs_embed import Embedding; Embedding.load(path)"),
    "a map": ("a.tif", MAP.format("path")),
    "part of a map": ("map.zarr/zarr.json", MAP.format("path.parent")),
    "a recipe": ("a.toml", "from rs_embed.training.recipe import read_recipe as r; r(path)"),
    "a journal": ("a.partial", "from rs_embed.runs.journal import Journal; Journal(path, '{}')"),
    "a table": ("a.parquet", "from rs_embed.evaluation.tables import read_table as r; r(path)"),
    "credentials": ("a.json", "from rs_embed.providers.earth_engine.session import _credentials "
                    "as c; from types import SimpleNamespace as S; c(None, S(credentials=None))"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize(("name", "read"), DOORS.values(), ids=DOORS)
def test_a_fifo_is_never_opened(
    name: str,
    read: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / name))
    with rasterio.open(
        tmp_path / "image.tif", "w", driver="GTiff", count=3, height=64, width=64, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 4e5, 0, -10, 52e5),
    ) as file:  # fmt: skip
        file.write(np.full((3, 64, 64), 900, np.uint16))
    (tmp_path / "of_fifo.vrt").write_text(
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.dat</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    if name == "fields.prj":
        gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "fields.shp")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    # A reader that opened it would wait for a writer: this one comes late, and ends the wait.
    late = threading.Timer(20, lambda: os.close(os.open(tmp_path / name, os.O_RDWR)))
    late.start()
    refusal = ""
    try:
        exec(read, {"path": tmp_path / name})  # noqa: S102
    except RsEmbedError as exc:
        refusal = str(exc)
    finally:
        late.cancel()
    said = capsys.readouterr().out + refusal
    assert "is a FIFO, not a file" in said or "files left out" in said


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no devices on this system")
def test_a_device_is_no_file_either(tmp_path: Path) -> None:
    link = tmp_path / "a.csv"
    link.symlink_to("/dev/zero")
    with pytest.raises(SpecError, match="is a device, not a file; write its content"):
        read_places(link)
    link.unlink()
    with link.open("wb") as file:
        file.truncate(2**30 + 1)
    with pytest.raises(SpecError, match="it is larger than 1,073,741,824 bytes"):
        read_places(link)


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT f.* FROM n, fields f"
)
# A view -> the layer to read, and its polygons or refusal.
VIEWS: dict[str, tuple[str, str, int | str]] = {
    "of one field": ("SELECT * FROM fields WHERE id = 2", "v", 1),
    "beside the layer": ("SELECT * FROM fields WHERE id = 2", "fields", 2),
    "without an end": (f"{ENDLESS} WHERE n.i < 0", "v", f"takes more than {VIEW_SECONDS} s"),
    "without an end, not read": (f"{ENDLESS} WHERE n.i < 0", "fields", 2),
    "endless rows": (ENDLESS, "v", "more than 1,000,000 rows|takes more than"),
    "of other functions": ("SELECT load_extension('a'), * FROM fields", "v", "cannot be evaluated"),
    "of functions of GDAL, not read": ("SELECT ST_MinX(geom) FROM fields", "fields", 2),
    "of chance, not read": ("SELECT * FROM fields WHERE random() > 0", "fields", 2),
    "of a table that is gone, not read": ("SELECT * FROM gone", "fields", 2),
    "of chance": ("SELECT * FROM fields WHERE random() > 0", "v", "not authorized to use function"),
}
SLOW_VIEWS = ("endless rows",)


@pytest.mark.parametrize(
    ("view", "layer", "expected"),
    [
        pytest.param(*row, id=name, marks=[pytest.mark.long] if name in SLOW_VIEWS else [])
        for name, row in VIEWS.items()
    ],
)
def test_views_have_limits(view: str, layer: str, expected: int | str, tmp_path: Path) -> None:
    path = tmp_path / "fields.gpkg"
    shapes = [box(10, 47, 10.1, 47.1), box(10.2, 47, 10.3, 47.1)]
    fields = gpd.GeoDataFrame({"id": [1, 2]}, geometry=shapes, crs=4326)
    fields.to_file(path, layer="fields")
    with sqlite3.connect(path) as database:
        for table in ("gpkg_contents", "gpkg_geometry_columns"):
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            others = ", ".join(names[1:]).replace("identifier", "'v'")
            database.execute(f"INSERT INTO {table} SELECT 'v', {others} FROM {table}")  # noqa: S608
        database.execute(f"CREATE VIEW v AS {view}")
    database.close()
    started = time.monotonic()
    if isinstance(expected, int):
        assert len(read_polygons(path, layer=layer).geometries) == expected
    else:
        with pytest.raises(SpecError, match=f"the view 'v' is not read .*({expected}).*ogr2ogr"):
            read_polygons(path, layer=layer)
    assert time.monotonic() - started < VIEW_SECONDS + 60


def test_features_that_are_elsewhere_are_refused(tmp_path: Path) -> None:
    pointer = "<OGRVRTDataSource><OGRVRTLayer name='a'/></OGRVRTDataSource>"
    (tmp_path / "a.gpkg").write_text(pointer)
    zipped(tmp_path / "b.zip", {"a.vrt": pointer.encode()})
    zipped(tmp_path / "c.zip", {"a.gpkg": b"SQLite format 3\0"})
    for name, reason in (("a.gpkg", "OGR VRT"), ("b.zip", "OGR VRT"), ("c.zip", "unpack it")):
        with pytest.raises(SpecError, match=reason):
            read_polygons(tmp_path / name)


# The cache.


@pytest.fixture
def entry(tmp_path: Path) -> tuple[PatchCache, Path]:
    return entry_in(tmp_path / "patches")


def entry_in(folder: Path) -> tuple[PatchCache, Path]:
    folder.mkdir(mode=0o700)
    cache = PatchCache(folder, 10**9)
    put(cache, 1)
    return cache, next(folder.iterdir())


def rewritten(path: Path, changes: dict[str, Any]) -> None:
    """Write an entry whose digest is right and whose head is another one."""
    _, line, pixels = path.read_bytes().split(b"\n", 2)
    head = json.loads(line) | changes
    written = json.dumps({k: v for k, v in head.items() if v is not ANY}).encode() + b"\n"
    digest = _digest(written)
    digest.update(pixels)
    path.write_bytes(_MAGIC + digest.hexdigest().encode() + b"\n" + written + pixels)


# A change of an entry's head; ANY leaves the value out.
HEADS: list[dict[str, Any]] = [
    *({name: value} for name in ("key", "fetched", "dtype", "shape", "bands", "reflectance",
                                 "source", "notes")
      for value in (ANY, 7, "x", [], [None], {"a": 1}, True)
      if not (name == "source" and value == {"a": 1}) and (name, value) not in (
          ("source", ANY), ("reflectance", []), ("notes", []))),
    {"source": ANY}, {"shape": [3, 20, 31]}, {"shape": [3, -20, -30]}, {"shape": [3.0, 20, 30]},
    {"shape": [3, 10**30, 1]}, {"dtype": "O"}, {"dtype": "<u1"}, {"dtype": "V2"},
    {"bands": ["a", "b"]}, {"bands": ["a", "b", 3]}, {"reflectance": [1]}, {"notes": [1]},
    {"reflectance": [float("nan"), 0]}, {"reflectance": [True, 0]}, {"extra": 1},
    {"fetched": "2024-01-01"}, {"fetched": "yesterday"}, {"key": {"number": 2}},
]  # fmt: skip


@pytest.mark.parametrize("change", HEADS, ids=repr)
def test_odd_entries_are_fetched_anew(change: Any, entry: tuple[PatchCache, Path]) -> None:
    cache, path = entry
    rewritten(path, change)
    assert [listed.to_json()["bytes"] for listed in cache.ls()] == [path.stat().st_size]
    cache.clear(older_than=timedelta(days=1))
    with pytest.raises(ImageryError, match="are damaged, or belong to another request or version"):
        cache.get({"number": 1}, GRID)
    assert cache.get({"number": 1}, GRID) is None


def test_another_version_is_fetched_anew(entry: tuple[PatchCache, Path]) -> None:
    cache, path = entry
    path.write_bytes(path.read_bytes().replace(b"rs_embed patch 1 ", b"rs_embed patch 9 ", 1))
    with pytest.raises(ImageryError, match="or belong to another request or version"):
        cache.get({"number": 1}, GRID)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["key", "shape", "dtype", "bands", "notes"]), JSON))
def test_any_head_is_fetched_anew_or_served_right(change: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cache, path = entry_in(Path(folder) / "patches")
        rewritten(path, change)
        for listed in cache.ls():
            listed.to_json()
        try:
            served = cache.get({"number": 1}, GRID)
        except ImageryError:
            return
        assert served is not None
        assert np.array_equal(served.data, made_of("1"))


# Modes of the folder and of the entry, the entry's owner -> why it is not used.
OWNERS: dict[str, tuple[int, int, int | None, str | None]] = {
    "mine": (0o755, 0o644, None, None),
    "sticky": (0o1777, 0o644, None, None),
    "a folder of the group": (0o775, 0o644, None, "other users can write it .mode 775"),
    "a folder of all": (0o777, 0o644, None, "other users can write it .mode 777"),
    "an entry of the group": (0o755, 0o664, None, "can write some of them .mode 664"),
    "an entry of all": (0o1777, 0o646, None, "can write some of them .mode 646"),
    "a sticky entry": (0o755, 0o1666, None, "can write some of them .mode 1666"),
    "another's": (0o755, 0o644, 12345, "the user 12345 wrote some"),
}


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners on this system")
@pytest.mark.parametrize(("folder", "file", "owner", "why"), OWNERS.values(), ids=OWNERS)
def test_only_own_entries_are_trusted(
    folder: int, file: int, owner: int | None, why: str | None, entry: tuple[PatchCache, Path]
) -> None:
    cache, path = entry
    if owner is not None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, owner, -1)
    path.chmod(file)
    path.parent.chmod(folder)
    if why is None:
        assert cache.get({"number": 1}, GRID) is not None
        return
    with pytest.raises(ImageryError, match=rf"{why}.*RS_EMBED_CACHE_SHARED=1 \(--cache-shared\)"):
        cache.get({"number": 1}, GRID)
    assert PatchCache(path.parent, 10**9, shared=True).get({"number": 1}, GRID) is not None


def test_entries_are_own_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        cache, path = entry_in(tmp_path / "patches")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert cache.get({"number": 1}, GRID) is not None


# Whatever the bytes are, the errors are ours.


def exported(path: Path) -> bytes:
    rows = [VectorRow("a", 1, 2, np.ones(4, np.float32), {"a": 1}), VectorRow("b", 1, 2, None)]
    write_vectors(path, rows, 2)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_errors_of_ours(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members = {"index.csv": INDEX, "a.png": png()}
        read: Any
        name, content, read = data.draw(st.sampled_from([
            ("a.npz", exported(folder / "a.npz"), read_vectors),
            ("a.zip", zipped(folder / "a.zip", members).read_bytes(), set_of),
            ("a.tar", tarred(folder / "a.tar", members, "w").read_bytes(), set_of),
            ("a.tgz", tarred(folder / "a.tgz", members, "w:gz").read_bytes(), set_of),
            ("a.csv", b"id,lon,lat,buffer_m\na,1.5,2.5,100\n", read_places),
        ]))  # fmt: skip
        changed = bytearray(content)
        for at, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
        ):
            changed[at] = value
        (folder / name).write_bytes(changed[: data.draw(st.integers(0, len(content)))])
        try:
            read(folder / name)
        except RsEmbedError:
            return


def set_of(path: Path) -> None:
    list(read_samples(path, gsd_m=1))


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_odd_json_is_an_error_of_ours(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.safetensors").write_bytes(b"x")
        for file in ("config.json", "a.geojson"):
            (folder / file).write_text(json.dumps(content))
        for read in (
            lambda: obtain_weights(name), lambda: read_places(folder / "a.geojson"),
            lambda: read_polygons(folder / "a.geojson"),
        ):  # fmt: skip
            try:
                read()
            except RsEmbedError:
                continue


def test_the_basis_of_a_map_is_checked() -> None:
    import xarray as xr

    from rs_embed.maps.formats.opening import restored

    basis = PrincipalComponents(np.eye(2, 4, dtype="f4"), np.zeros(4, "f4"), np.ones(2)).to_json()
    tokens = xr.DataArray(np.ones((2, 1, 1), "f4"), dims=("d", "y", "x"), coords={"d": [0, 1]})
    for change in ({"shape": [2]}, {"shape": [7, 4]}, {"components": "!"}, {"mean": None}):
        with pytest.raises(SpecError, match="a map whose basis cannot be read"):
            restored(tokens.assign_attrs(pca=json.dumps(basis | change)))


def test_an_encrypted_or_huge_export_is_named(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**9)}
    )
    path = zipped(tmp_path / "a.npz", {"embedding.npy": header.getvalue()})
    with pytest.raises(ExportError, match="expected a file of many vectors"):
        read_vectors(path)
