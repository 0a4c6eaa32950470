"""Maps in files: checked with rasterio, rio-cogeo, zarr, xarray, pystac and formulae in numpy."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401  # registers the accessor ``.rio``
import shapely
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rio_cogeo.cogeo import cog_validate

from rs_embed import check_output, open_map, restored, sample_points
from rs_embed.embedding.provenance import model_address, source_addresses
from rs_embed.errors import ExportError, GridError, SpecError, UnknownNameError
from rs_embed.files.formats import Formats
from rs_embed.files.grids import GRIDS
from rs_embed.files.vectors import MANY_VECTORS, ONE_VECTOR
from rs_embed.geo.grid import Grid
from rs_embed.maps.formats.content import MapContent
from rs_embed.maps.formats.encoding import MapEncoding
from rs_embed.maps.formats.stac_item import footprint
from rs_embed.maps.formats.table import MAPS
from rs_embed.maps.formats.writing import WrittenMap, write_map
from tests.npz_maps import NPZ
from tests.processes import completed

UTM = CRS.from_epsg(32633)
SOUTH = CRS.from_epsg(32733)
PLACE = Affine(160, 0, 500_000, 0, -160, 5_000_000)
POLAR = CRS.from_proj4("+proj=stere +lat_0=90 +lat_ts=86.5 +lon_0=12 +datum=WGS84 +units=m")
META = {
    "model": "scalemae",
    "weights": "MVRL/scalemae-vitlarge-800",
    "weights_file": "pytorch_model.bin",
    "weights_sha256": "ab" * 32,
    "temporal": {"start": "2024-06-01", "end": "2024-09-01"},
    "source_items": [
        {
            "id": "S2A_1",
            "href": "https://example.org/items/S2A_1",
            "datetime": "2024-06-03T10:00:00Z",
        },
        {"id": "S2B_2"},
    ],
    "sensor": {"collection": "COPERNICUS/S2_SR_HARMONIZED", "bands": ["B4", "B3", "B2"]},
    "gsd_m": 10.0,
    "used_patch_size": 16,
    "tiles": 4,
    "stride_px": 192,
    "fingerprint": "cafe",
    "rs_embed_version": "1.0",
}  # fmt: skip
ENCODINGS = [
    MapEncoding(),
    MapEncoding("float16"),
    MapEncoding("int8"),
    MapEncoding(pca=3),
    MapEncoding("int8", pca=3),
]


def tokens(height: int, width: int, depth: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Return correlated tokens with a hole, each dimension of another size."""
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(depth, depth)) * np.linspace(3, 0.1, depth)[:, None]
    values = random.normal(size=(height, width, depth)) @ mixing + np.arange(depth)
    if height > 5 and width > 5:
        values[1:5, 2:6] = np.nan
    return values.astype(np.float32)


def content_of(
    values: NDArray[np.float32],
    crs: CRS | None = UTM,
    transform: Affine | None = None,
    meta: Mapping[str, Any] = META,
) -> MapContent:
    def strips(rows: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(values), rows):
            yield values[start : start + rows]

    place = transform or PLACE
    height, width, depth = values.shape
    return MapContent(Grid(crs, place, (height, width)), depth, strips, meta)


def digest(path: Path) -> str:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    parts = [
        f"{file.relative_to(path)}".encode() + file.read_bytes() for file in files if file.is_file()
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


class TestEncoding:
    def test_refuses_nonsense(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown dtype of a map 'int16'"):
            MapEncoding("int16")  # type: ignore[arg-type]
        for pca in (0, -1, 2.5, True):
            with pytest.raises(SpecError, match="expected a whole number of at least 1"):
                MapEncoding(pca=pca)  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="got pca=9 for tokens of 8 dimensions"):
            MapEncoding(pca=9).fitted(content_of(tokens(9, 9, 8)))
        with pytest.raises(SpecError, match="got pca=8 for a map of 6 tokens"):
            MapEncoding(pca=8).fitted(content_of(tokens(2, 3, 8)))

    def test_float32_is_kept_and_nothing_is_read(self) -> None:
        def strips(rows: int) -> Iterator[NDArray[np.float32]]:
            raise AssertionError("read")

        content = MapContent(content_of(tokens(3, 4, 5)).grid, 5, strips, META)
        fitted = MapEncoding().fitted(content)
        assert fitted.error is None
        values = tokens(3, 4, 5)
        assert fitted.encode(values).tobytes() == values.tobytes()

    def test_int8_is_within_half_a_step(self) -> None:
        values = tokens(40, 30, 6)
        values[..., 4] = np.where(np.isnan(values[..., 4]), np.nan, 0)
        fitted = MapEncoding("int8").fitted(content_of(values))
        largest = np.nanmax(np.abs(values), axis=(0, 1))
        assert fitted.scales is not None
        np.testing.assert_allclose(
            fitted.scales, np.where(largest > 0, largest / 127, 1), rtol=1e-6
        )
        stored = fitted.encode(values)
        hole = np.isnan(values)
        assert stored.dtype == np.int8
        assert (stored[hole] == -128).all()
        assert np.abs(stored[~hole].astype(int)).max() == 127
        decoded = fitted.decode(stored)
        assert (np.isnan(decoded) == hole).all()
        off = np.abs(decoded - values)
        assert (off[~hole.any(axis=-1)] <= fitted.scales * 0.50001).all()

    @pytest.mark.parametrize("encoding", ENCODINGS[1:], ids=str)
    def test_error_is_that_of_all_tokens(self, encoding: MapEncoding) -> None:
        values = tokens(61, 47, 6)
        fitted = encoding.fitted(content_of(values))
        decoded = fitted.decode(fitted.encode(values))
        if encoding.pca:
            assert fitted.pca is not None
            decoded = decoded @ fitted.pca.components + fitted.pca.mean
        ours = values[~np.isnan(values[..., 0])].astype(np.float64)
        theirs = decoded[~np.isnan(decoded[..., 0])].astype(np.float64)
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        distance = 1 - (ours * theirs).sum(axis=1) / lengths
        error = fitted.error
        assert error is not None
        assert error.tokens == len(ours)
        assert error.cosine_distance_mean == pytest.approx(distance.mean(), rel=1e-6, abs=1e-12)
        assert error.cosine_distance_max == pytest.approx(distance.max(), rel=1e-6, abs=1e-12)
        relative = np.sqrt(((ours - theirs) ** 2).mean() / (ours**2).mean())
        assert error.rmse_relative == pytest.approx(relative, rel=1e-6)

    def test_pca_is_that_of_an_svd(self) -> None:
        values = tokens(150, 120, 8)  # more tokens than are taken at once
        fitted = MapEncoding(pca=5).fitted(content_of(values))
        assert fitted.pca is not None
        flat = values[~np.isnan(values[..., 0])].astype(np.float64)
        mean = flat.mean(axis=0)
        _, sizes, axes = np.linalg.svd(flat - mean, full_matrices=False)
        np.testing.assert_allclose(fitted.pca.mean, mean, rtol=1e-5, atol=1e-5)
        share = sizes**2 / (sizes**2).sum()
        np.testing.assert_allclose(fitted.pca.explained, share[:5], rtol=1e-8)
        cosine = np.abs((fitted.pca.components * axes[:5]).sum(axis=1))
        np.testing.assert_allclose(cosine, 1, atol=1e-5)
        largest = np.abs(fitted.pca.components).argmax(axis=1)
        assert (fitted.pca.components[np.arange(5), largest] > 0).all()

    def test_all_components_give_the_tokens_back(self) -> None:
        fitted = MapEncoding(pca=6).fitted(content_of(tokens(20, 20, 6)))
        assert fitted.error is not None
        assert fitted.error.rmse_relative == pytest.approx(0, abs=1e-6)

    def test_float16_refuses_what_it_cannot_hold(self) -> None:
        values = tokens(3, 3, 4)
        values[1, 1, 2] = 70_000
        with (
            warnings.catch_warnings(),
            pytest.raises(SpecError, match="beyond the range of float16"),
        ):
            MapEncoding("float16").fitted(content_of(values))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_refuses_half_tokens(self, value: float, tmp_path: Path) -> None:
        values = tokens(3, 3, 4)
        values[1, 2, 0] = value
        with pytest.raises(ExportError, match="1 values that are not finite numbers"):
            write_map(tmp_path / "map.zarr", content_of(values))
        assert not list(tmp_path.iterdir())


@dataclass
class Case:
    shape: tuple[int, int, int]
    crs: CRS = UTM
    transform: Affine = PLACE


CASES = {
    "one token": Case((1, 1, 4)),
    "a row": Case((1, 700, 4)),
    "a column": Case((530, 1, 3), SOUTH, Affine(160, 0, 300_000, 0, -160, 6_200_000)),
    "one dimension": Case((70, 45, 1)),
    "odd sides": Case((301, 290, 17), SOUTH),
    "no code": Case((40, 33, 5), POLAR, Affine(160.5, 0, -12_345.6, 0, -160.5, 98_765.4)),
}


@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
class TestWrittenMaps:
    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_tokens_lie_in_their_place(self, case: Case, suffix: str, tmp_path: Path) -> None:
        values = tokens(*case.shape)
        path = tmp_path / f"map{suffix}"
        done = write_map(path, content_of(values, case.crs, case.transform))
        assert isinstance(done, WrittenMap)
        opened = open_map(path)
        assert opened.dims == ("d", "y", "x")
        assert opened.chunks is not None
        assert opened.dtype == np.float32
        np.testing.assert_array_equal(opened.values, values.transpose(2, 0, 1))
        assert CRS.from_wkt(opened.rio.crs.to_wkt()).equals(case.crs, ignore_axis_order=True)
        assert tuple(opened.rio.transform())[:6] == pytest.approx(tuple(case.transform)[:6])
        height, width, _ = case.shape
        t = case.transform
        np.testing.assert_allclose(opened.x, t.c + t.a * (np.arange(width) + 0.5))
        np.testing.assert_allclose(opened.y, t.f + t.e * (np.arange(height) + 0.5))
        assert json.loads(opened.attrs["meta"])["fingerprint"] == "cafe"
        # The value under a point, asked for by its coordinates.
        row, column = height // 2, width // 3
        x, y = t.c + t.a * (column + 0.5), t.f + t.e * (row + 0.5)
        if suffix == ".tif":
            with rasterio.open(path) as file:
                found = next(file.sample([(x, y)]))
        else:
            store = xr.open_zarr(path)
            found = store["embedding"].sel(x=x, y=y, method="nearest").values
        np.testing.assert_array_equal(found, values[row, column])

    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    def test_opens_as_encoded(self, encoding: MapEncoding, suffix: str, tmp_path: Path) -> None:
        values = tokens(90, 70, 7)
        content = content_of(values)
        path = tmp_path / f"map{suffix}"
        done = write_map(path, content, encoding)
        fitted = encoding.fitted(content)
        opened = open_map(path)
        expected = fitted.decode(fitted.encode(values)).transpose(2, 0, 1)
        np.testing.assert_array_equal(opened.values, expected)
        assert done.error == fitted.error
        stated = json.loads(opened.attrs["meta"])["encoding"]
        assert stated["dtype"] == encoding.dtype
        assert stated["error"] == (None if fitted.error is None else fitted.error.to_json())
        if encoding.pca is None:
            with pytest.raises(SpecError, match=r"without a PCA, expected one made with pca="):
                restored(opened)
            return
        whole = restored(opened)
        assert fitted.pca is not None
        tokens_again = expected.transpose(1, 2, 0) @ fitted.pca.components + fitted.pca.mean
        np.testing.assert_allclose(whole.values, tokens_again.transpose(2, 0, 1), atol=1e-5)
        assert whole.rio.crs.to_epsg() == 32633
        with pytest.raises(SpecError, match="got 2 components, expected all 3"):
            restored(opened[:2])

    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    def test_bytes_are_the_same(self, encoding: MapEncoding, suffix: str, tmp_path: Path) -> None:
        content = content_of(tokens(300, 130, 5))
        found = []
        for folder in ("one", "two"):
            (tmp_path / folder).mkdir()
            path = tmp_path / folder / f"map{suffix}"
            done = write_map(path, content, encoding)
            assert done.item is not None
            found.append((digest(path), digest(done.item), done.bytes_written))
        assert found[0] == found[1]

    def test_all_nodata(self, suffix: str, tmp_path: Path) -> None:
        values = np.full((80, 60, 3), np.nan, np.float32)
        for encoding in (MapEncoding(), MapEncoding("int8"), MapEncoding("float16")):
            path = tmp_path / f"{encoding.dtype}{suffix}"
            done = write_map(path, content_of(values), encoding)
            assert np.isnan(open_map(path).values).all()
            assert done.error is None or done.error.cosine_distance_max is None
        with pytest.raises(SpecError, match="map of 0 tokens"):
            write_map(tmp_path / f"pca{suffix}", content_of(values), MapEncoding(pca=1))

    def test_a_broken_run_leaves_the_old_map(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"map{suffix}"
        old = tokens(300, 40, 3)
        write_map(path, content_of(old))
        before, names = digest(path), sorted(p.name for p in tmp_path.iterdir())

        def strips(rows: int) -> Iterator[NDArray[np.float32]]:
            yield old[:rows]
            raise ExportError("the windows ended")

        content = MapContent(content_of(old).grid, 3, strips, META)
        with pytest.raises(ExportError, match="the windows ended"):
            write_map(path, content)
        assert digest(path) == before
        assert sorted(p.name for p in tmp_path.iterdir()) == names

    def test_a_killed_run_leaves_the_old_map(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"map{suffix}"
        values = tokens(300, 40, 3)
        write_map(path, content_of(values))
        before = digest(path)
        script = textwrap.dedent(
            """
            import os, signal, sys
            from pathlib import Path
            import numpy as np
            from affine import Affine
            from pyproj import CRS
            from rs_embed.geo.grid import Grid
            from rs_embed.maps.formats.content import MapContent
            from rs_embed.maps.formats.writing import write_map

            def strips(rows):
                yield np.zeros((min(rows, 600), 40, 3), np.float32)
                os.kill(os.getpid(), signal.SIGKILL)

            grid = Grid(CRS.from_epsg(32633), Affine(160, 0, 5e5, 0, -160, 5e6), (600, 40))
            write_map(Path(sys.argv[1]), MapContent(grid, 3, strips, {"model": "m"}))
            """
        )
        done = completed("-c", script, str(path))
        assert done.returncode == -signal.SIGKILL
        assert digest(path) == before
        left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
        assert left
        assert not any(Path(name).suffix in MAPS.suffixes for name in left)
        write_map(path, content_of(values))
        assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
        assert digest(path) == before

    def test_a_map_is_replaced(self, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / f"map{suffix}"
        write_map(path, content_of(tokens(20, 300, 3)))
        smaller = tokens(9, 8, 2)
        write_map(path, content_of(smaller))
        np.testing.assert_array_equal(open_map(path).values, smaller.transpose(2, 0, 1))
        assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]

    def test_a_full_disk_is_said_before(self, suffix: str, tmp_path: Path) -> None:
        def strips(rows: int) -> Iterator[NDArray[np.float32]]:
            raise AssertionError("read")

        grid = Grid(UTM, Affine(10, 0, 5e5, 0, -10, 5e6), (200_000, 200_000))
        with pytest.raises(ExportError, match="it needs up to .* GB and .* has .* GB free"):
            write_map(tmp_path / f"map{suffix}", MapContent(grid, 1024, strips, META))
        assert not list(tmp_path.iterdir())

    def test_a_full_disk_is_noticed(self, suffix: str, tmp_path: Path) -> None:
        # A limit on the size of files stands in for it: writes beyond it fail in the same places.
        script = textwrap.dedent(
            """
            import resource, signal, sys
            from pathlib import Path
            import numpy as np
            from affine import Affine
            from pyproj import CRS
            from rs_embed.errors import ExportError
            from rs_embed.geo.grid import Grid
            from rs_embed.maps.formats.content import MapContent
            from rs_embed.maps.formats.opening import open_map
            from rs_embed.maps.formats.writing import write_map

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            values = np.random.default_rng(0).normal(size=(300, 300, 3)).astype(np.float32)
            grid = Grid(CRS.from_epsg(32633), Affine(160, 0, 5e5, 0, -160, 5e6), (300, 300))
            content = MapContent(
                grid, 3, lambda n: (values[at : at + n] for at in range(0, 300, n)),
                {"model": "m", "temporal": {"start": "2024-01-01", "end": "2024-02-01"}},
            )
            path = Path(sys.argv[1])
            unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
            failed = []
            for limit in range(20_000, 2_000_000, 120_000):
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
                try:
                    write_map(path, content)
                except ExportError:
                    failed.append(limit)
                    assert not list(path.parent.iterdir()), list(path.parent.iterdir())
                else:
                    found = open_map(path).values.transpose(1, 2, 0)
                    assert (found == values).all(), limit
                    break
            print(len(failed))
            """
        )
        done = completed("-c", script, str(tmp_path / f"map{suffix}"))
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) >= 3


class TestZarr:
    def test_other_readers(self, tmp_path: Path) -> None:
        values = tokens(100, 90, 20)
        path = tmp_path / "map.zarr"
        write_map(path, content_of(values), MapEncoding("int8"))
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        array = group["embedding"]
        assert isinstance(array, zarr.Array)
        assert array.metadata.to_dict()["dimension_names"] == ("d", "y", "x")
        assert array.shards is not None
        assert array.fill_value == -128
        store = xr.open_zarr(path)
        embedding = store["embedding"]
        assert embedding.rio.crs.to_epsg() == 32633
        assert tuple(embedding.rio.transform())[:6] == (160, 0, 500_000, 0, -160, 5_000_000)
        assert embedding.encoding["_FillValue"] == -128
        decoded = (embedding * embedding.coords["scale"]).transpose("y", "x", "d").values
        scale = embedding.coords["scale"].values
        hole = np.isnan(values)
        assert (np.isnan(decoded) == hole).all()
        assert (np.abs(decoded - values)[~hole[..., 0]] <= scale * 0.50001).all()
        # What the variable says of itself leads to the same.
        assert embedding.attrs["comment"].endswith("Decoded: embedding * scale.")
        named = embedding * store[embedding.attrs["rs_embed_scale"]]
        np.testing.assert_array_equal(named.transpose("y", "x", "d").values, decoded)
        write_map(path, content_of(values))
        assert not {"comment", "rs_embed_scale"} & xr.open_zarr(path)["embedding"].attrs.keys()
        assert store["spatial_ref"].attrs["crs_wkt"].startswith("PROJCRS")
        assert (
            store["spatial_ref"].attrs["GeoTransform"] == "500000.0 160.0 0.0 5000000.0 0.0 -160.0"
        )

    def test_nodata_takes_no_room(self, tmp_path: Path) -> None:
        values = np.full((600, 600, 4), np.nan, np.float32)
        write_map(tmp_path / "none.zarr", content_of(values))
        assert not (tmp_path / "none.zarr/embedding/c").exists()
        values[:10, :10] = 1
        write_map(tmp_path / "some.zarr", content_of(values))
        stored = [p for p in (tmp_path / "some.zarr/embedding/c").rglob("*") if p.is_file()]
        assert len(stored) == 1
        assert stored[0].stat().st_size < 10_000

    @pytest.mark.parametrize(
        "encoding", [MapEncoding(), MapEncoding("int8", pca=4)], ids=["plain", "int8 pca"]
    )
    def test_no_more_of_a_wide_map_is_decoded_at_once_than_a_strip(
        self, encoding: MapEncoding, tmp_path: Path
    ) -> None:
        """Shards of 192 rows, which strips of 65 rows do not end with."""
        random = np.random.default_rng(0)
        values = random.normal(size=(200, 2000, 64)).astype(np.float32)
        values[60:70, 10:1990] = np.nan
        whole, asked = content_of(values), []

        def strips(rows: int) -> Iterator[NDArray[np.float32]]:
            asked.append(rows)
            return whole.strips(rows)

        content = MapContent(whole.grid, whole.dimensions, strips, META)
        write_map(tmp_path / "map.zarr", content, encoding)
        assert len(asked) == (1 if encoding == MapEncoding() else 4)
        assert max(asked) * values[0].nbytes <= 32 * 2**20
        array = zarr.open_group(tmp_path / "map.zarr", mode="r")["embedding"]
        assert isinstance(array, zarr.Array)
        assert array.shards is not None
        assert array.shards[1] == 192
        expected = encoding.fitted(whole).encode(values).transpose(2, 0, 1)
        # Products of other numbers of rows differ by their last bits, which may tip a rounding.
        off = 0 if encoding == MapEncoding() else 1
        np.testing.assert_allclose(np.asarray(array), expected, rtol=0, atol=off)

    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    def test_conventions(self, encoding: MapEncoding, tmp_path: Path) -> None:
        path = tmp_path / "map.zarr"
        write_map(path, content_of(tokens(30, 20, 6)), encoding)
        root = json.loads((path / "zarr.json").read_text())
        assert (root["zarr_format"], root["node_type"]) == (3, "group")
        attributes = root["attributes"]
        entries = {entry["name"]: entry for entry in attributes["zarr_conventions"]}
        assert {name: entry["uuid"] for name, entry in entries.items()} == {
            "spatial:": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
            "proj:": "f17cb550-5864-4468-aeb7-f3180cfb622f",
            "geoemb:": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
        }
        for entry in entries.values():
            assert set(entry) == {"schema_url", "spec_url", "uuid", "name", "description"}
            assert "/refs/tags/v1/" in entry["schema_url"]
        assert attributes["spatial:dimensions"] == ["y", "x"]
        assert attributes["spatial:transform"] == [160, 0, 500_000, 0, -160, 5_000_000]
        assert attributes["spatial:shape"] == [30, 20]
        assert attributes["spatial:bbox"] == [500_000, 4_995_200, 503_200, 5_000_000]
        assert attributes["spatial:registration"] == "pixel"
        assert attributes["proj:code"] == "EPSG:32633"
        assert CRS.from_wkt(attributes["proj:wkt2"]) == UTM
        assert attributes["geoemb:type"] == "chip"
        assert attributes["geoemb:dimensions"] == (encoding.pca or 6)
        assert attributes["geoemb:model"] == "https://huggingface.co/MVRL/scalemae-vitlarge-800"
        assert attributes["geoemb:source_data"] == [
            "https://example.org/items/S2A_1",
            "urn:rs-embed:item:S2B_2",
        ]
        assert attributes["geoemb:data_type"] == encoding.dtype
        assert attributes["geoemb:gsd"] == 10.0
        assert attributes["geoemb:chip_layout"] == {
            "layout_type": "regular_grid", "chip_size": [16, 16], "stride": [16, 16],
        }  # fmt: skip
        quantization = attributes.get("geoemb:quantization")
        assert (quantization is None) == (encoding.dtype == "float32")
        if quantization is not None:
            allowed = {"method", "original_dtype", "quantized_dtype", "scale", "link"}
            assert {"method", "original_dtype"} <= set(quantization) <= allowed
        assert json.loads(attributes["rs_embed_meta"])["tiles"] == 4

    def test_no_code_without_an_authority(self, tmp_path: Path) -> None:
        path = tmp_path / "map.zarr"
        write_map(path, content_of(tokens(3, 4, 2), POLAR, Affine(160, 0, 0, 0, -160, 9e4)))
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        assert "proj:code" not in attributes
        assert CRS.from_wkt(attributes["proj:wkt2"]).equals(POLAR)


class TestCog:
    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    def test_is_cloud_optimised(self, encoding: MapEncoding, tmp_path: Path) -> None:
        values = tokens(530, 300, 5)
        path = tmp_path / "map.tif"
        write_map(path, content_of(values), encoding)
        assert cog_validate(path, strict=True) == (True, [], [])
        fitted = encoding.fitted(content_of(values))
        decoded = fitted.decode(fitted.encode(values))
        with rasterio.open(path) as file:
            assert file.count == (encoding.pca or 5)
            assert file.dtypes[0] == ("int8" if encoding.dtype == "int8" else "float32")
            assert file.compression.value == "ZSTD"
            assert file.descriptions[1] == ("component 1" if encoding.pca else "dimension 1")
            masked = file.read(masked=True)
            scales = np.array(file.scales)[:, None, None]
            assert file.overviews(1) == [2, 4, 8]
            assert json.loads(file.tags()["RS_EMBED_META"])["model"] == "scalemae"
            assert ("RS_EMBED_PCA" in file.tags()) == (encoding.pca is not None)
            assert (file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS") == "16") == (
                encoding.dtype == "float16"
            )
            half = file.read(1, out_shape=(265, 150), masked=True)
        assert (masked.mask == np.isnan(decoded).transpose(2, 0, 1)).all()
        found = (masked.astype(np.float64) * scales).filled(np.nan)
        np.testing.assert_allclose(found, decoded.transpose(2, 0, 1), rtol=1e-6)
        # The overview is the mean of the tokens that are there, to a step of what is stored.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no token
            mean = np.nanmean(decoded[..., 0].reshape(265, 2, 150, 2), axis=(1, 3))
        assert (half.mask == np.isnan(mean)).all()
        step = {"int8": float(scales[0, 0, 0]), "float16": 0.01, "float32": 1e-5}[encoding.dtype]
        there = ~half.mask
        assert np.abs(half.data * float(scales[0, 0, 0]) - mean)[there].max() <= 1.01 * step

    def test_float16_is_half_as_large(self, tmp_path: Path) -> None:
        content = content_of(tokens(300, 300, 4))
        whole = write_map(tmp_path / "whole.tif", content)
        half = write_map(tmp_path / "half.tif", content, MapEncoding("float16"))
        assert half.bytes_written < 0.6 * whole.bytes_written


class TestTable:
    """A format of maps is a file and a row: write, STAC Item, open, refusals."""

    FORMATS = Formats("a map", *MAPS.rows, NPZ)

    def test_a_format_is_a_file_and_a_row(self, tmp_path: Path) -> None:
        values, path = tokens(30, 20, 6), tmp_path / "area.npzmap"
        done = write_map(path, content_of(values), formats=self.FORMATS)
        assert done.item == tmp_path / "area.npzmap.json"
        item = pystac.Item.from_file(str(done.item))
        assert item.assets["embeddings"].media_type == "application/x-npzmap"
        assert Path(str(item.assets["embeddings"].get_absolute_href())) == path
        opened = open_map(path, formats=self.FORMATS)
        np.testing.assert_array_equal(opened.values, values.transpose(2, 0, 1))
        assert opened.rio.crs.to_epsg() == 32633
        assert json.loads(opened.attrs["meta"])["fingerprint"] == "cafe"
        # What reads a map reads this one.
        found = sample_points(opened, [(500_080, 4_999_920)], crs="EPSG:32633")
        np.testing.assert_array_equal(found.values[0], values[0, 0])
        write_map(path, content_of(values[:9]), formats=self.FORMATS)  # replaced
        assert open_map(path, formats=self.FORMATS).shape == (6, 9, 20)
        assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.json"]

    def test_its_suffix_is_known_where_the_row_is(self, tmp_path: Path) -> None:
        expected = "expected one of .npzmap, .tif, .tiff, .zarr; did you mean '.npzmap'"
        with pytest.raises(UnknownNameError, match=rf"of a map '.npzmaps', {re.escape(expected)}"):
            open_map(tmp_path / "area.npzmaps", formats=self.FORMATS)
        with pytest.raises(UnknownNameError, match="of a map '.npzmap', expected one of .tif"):
            open_map(tmp_path / "area.npzmap")

    def test_it_refuses_what_it_would_replace(self, tmp_path: Path) -> None:
        path = tmp_path / "area.npzmap"
        path.write_text("a letter")
        with pytest.raises(ExportError, match="it is not an archive"):
            self.FORMATS.check(path)
        with pytest.raises(ExportError, match="not an archive with a map, expected one that embed"):
            open_map(path, formats=self.FORMATS)
        path.rename(tmp_path / "area.npzmap.note")
        with pytest.raises(ExportError, match=r"npzmap\.note beside it would be read with"):
            write_map(path, content_of(tokens(3, 3, 2)), formats=self.FORMATS)

    def test_suffixes_and_media_types_are_unique(self) -> None:
        for formats in (MAPS, GRIDS, ONE_VECTOR, MANY_VECTORS):
            assert len(set(formats.suffixes)) == len(formats.suffixes)
            assert all(suffix == suffix.lower() for suffix in formats.suffixes)
            assert len({row.media_type for row in formats.rows}) == len(formats.rows)


class TestCheckOutput:
    NAMES: ClassVar = {
        "vector": "v.npz", "vectors": "v.npz", "grid": "g.nc", "map": "m.zarr", "picture": "p.png",
        "report": "r.json",
    }  # fmt: skip

    @pytest.mark.parametrize("kind", NAMES)
    def test_it_raises_now_what_writing_would_raise_later(self, kind: Any, tmp_path: Path) -> None:
        name = self.NAMES[kind]
        check_output(tmp_path / name, kind)
        check_output(str(tmp_path / name.upper()), kind)
        assert not list(tmp_path.iterdir())
        with pytest.raises(UnknownNameError, match=r"file type of .* '\.doc', expected one of \."):
            check_output(tmp_path / "v.doc", kind)
        with pytest.raises(ExportError, match="there is no folder"):
            check_output(tmp_path / "none" / name, kind)
        with pytest.raises(ExportError, match="choose another name"):
            check_output(tmp_path / ("n" * 300 + name), kind)
        (tmp_path / name).mkdir()
        with pytest.raises(ExportError, match="it is a folder"):
            check_output(tmp_path / name, kind)

    @pytest.mark.parametrize(("kind", "name"), [("vectors", "v.npz"), ("map", "m.tif")])
    def test_unfinished_work_needs_a_place_too(self, kind: Any, name: str, tmp_path: Path) -> None:
        (tmp_path / f"{name}.partial").mkdir()
        with pytest.raises(ExportError, match=r"\.partial: it is a folder"):
            check_output(tmp_path / name, kind)

    def test_near_matches(self, tmp_path: Path) -> None:
        for kind, name, near in [
            ("vector", "v.npy", ".npz"), ("grid", "g.tiff2", ".tiff"), ("map", "m.zar", ".zarr"),
        ]:  # fmt: skip
            with pytest.raises(UnknownNameError, match=f"did you mean '{near}'"):
                check_output(tmp_path / name, kind)  # type: ignore[arg-type]

    def test_other_values(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="unknown kind of output 'vektor'.*'vector'"):
            check_output(tmp_path / "v.npz", "vektor")  # type: ignore[arg-type]
        with pytest.raises(SpecError, match="got 5 .int., expected a path"):
            check_output(5, "vector")  # type: ignore[arg-type]

    def test_a_missing_package_is_noticed(self, tmp_path: Path) -> None:
        code = """
            import sys
            sys.modules["h5netcdf"] = sys.modules["zarr"] = None
            import rs_embed
            for path, kind in (("g.nc", "grid"), ("m.zarr", "map"), ("g.tif", "grid")):
                try:
                    rs_embed.check_output(path, kind)
                except rs_embed.MissingDependencyError as exc:
                    print(exc)
        """
        done = completed("-c", textwrap.dedent(code), fresh=True)
        netcdf, zarr_map = done.stdout.splitlines()
        assert netcdf.startswith("netCDF needs the package 'h5netcdf'"), done.stderr
        assert zarr_map.startswith("a map in Zarr needs the package 'zarr'")


class TestPlaces:
    def test_refuses_places(self, tmp_path: Path) -> None:
        content = content_of(tokens(3, 3, 2))
        with pytest.raises(UnknownNameError, match="unknown file type of a map '.nc'"):
            write_map(tmp_path / "map.nc", content)
        with pytest.raises(ExportError, match="there is no folder"):
            write_map(tmp_path / "none/map.zarr", content)
        (tmp_path / "mine.zarr").mkdir()
        (tmp_path / "mine.zarr/letters").write_text("dear")
        (tmp_path / "mine.tif").mkdir()
        (tmp_path / "file.zarr").write_text("")
        for name in ("mine.zarr", "mine.tif", "file.zarr"):
            with pytest.raises(ExportError, match="it is a f"):
                MAPS.check(tmp_path / name)
        assert (tmp_path / "mine.zarr/letters").exists()

    def test_a_store_comes_back_that_was_moved_aside(self, tmp_path: Path) -> None:
        path = tmp_path / "map.zarr"
        write_map(path, content_of(tokens(3, 3, 2)))
        before = digest(path)
        path.rename(tmp_path / ".map.zarr.old")  # where a run was killed between its last steps

        def strips(rows: int) -> Iterator[NDArray[np.float32]]:
            raise ExportError("no more")

        with pytest.raises(ExportError, match="no more"):
            write_map(path, MapContent(content_of(tokens(3, 3, 2)).grid, 2, strips, META))
        assert digest(path) == before

    def test_refuses_grids(self, tmp_path: Path) -> None:
        values = tokens(3, 3, 2)
        with pytest.raises(GridError, match="has no CRS"):
            write_map(tmp_path / "map.tif", content_of(values, None))
        with pytest.raises(GridError, match="expected north up"):
            write_map(tmp_path / "map.tif", content_of(values, UTM, Affine(1, 0, 0, 0, 1, 0)))

    @pytest.mark.parametrize("suffix", [".zarr", ".tif"])
    def test_refuses_what_is_no_map(self, suffix: str, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="there is no such file"):
            open_map(tmp_path / f"none{suffix}")
        other = tmp_path / f"other{suffix}"
        if suffix == ".zarr":
            xr.Dataset({"embedding": ("x", [1.0])}).to_zarr(other, consolidated=False)
            (tmp_path / "empty.zarr").mkdir()
            with pytest.raises(ExportError, match="is not a Zarr store that xarray opens"):
                open_map(tmp_path / "empty.zarr")
        else:
            with rasterio.open(
                other, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8",
                transform=PLACE, crs="EPSG:32633",
            ) as file:  # fmt: skip
                file.write(np.ones((1, 2, 2), np.uint8))
            (tmp_path / "text.tif").write_text("no image")
            with pytest.raises(
                ExportError, match="is not an image that can be opened, expected one"
            ):
                open_map(tmp_path / "text.tif")
        with pytest.raises(ExportError) as refused:
            open_map(other)
        message = str(refused.value)
        opener = "xarray.open_zarr" if suffix == ".zarr" else "rioxarray.open_rasterio"
        assert (
            "not a map of rs_embed, expected one that embed_area or rs-embed map wrote" in message
        )
        assert message.endswith(f"other files open with {opener}")
        assert "Error" not in message
        with pytest.raises(UnknownNameError, match="unknown file type of a map '.nc'"):
            open_map(tmp_path / "map.nc")


class TestItems:
    @pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
    @pytest.mark.parametrize("suffix", [".zarr", ".tif"])
    def test_item(self, suffix: str, encoding: MapEncoding, tmp_path: Path) -> None:
        path = tmp_path / f"area{suffix}"
        done = write_map(path, content_of(tokens(30, 20, 6)), encoding)
        assert done.item == tmp_path / f"area{suffix}.json"
        item = pystac.Item.from_file(str(done.item))
        schemas = JsonSchemaSTACValidator()
        schemas.validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
        assert item.datetime is None
        assert item.properties["start_datetime"] == "2024-06-01T00:00:00Z"
        assert item.properties["end_datetime"] == "2024-08-31T23:59:59Z"
        asset = item.assets["embeddings"]
        assert Path(str(asset.get_absolute_href())) == path
        assert asset.roles == ["data", "embeddings"]
        assert item.properties["proj:code"] == "EPSG:32633"
        assert item.properties["proj:shape"] == [30, 20]
        assert item.properties["proj:transform"] == [160, 0, 500_000, 0, -160, 5_000_000]
        # What the schema of the embedding extension lets an item have.
        ours = {name for name in item.properties if name.startswith("emb:")}
        assert ours <= {"emb:runtime_parameters", "emb:quantization"}
        parameters = item.properties["emb:runtime_parameters"]
        assert parameters["dimensions"] == (encoding.pca or 6)
        assert parameters["fingerprint"] == "cafe"
        # What the schema of the MLM extension demands.
        for name in ("name", "architecture", "tasks", "input", "output"):
            assert item.properties[f"mlm:{name}"]
        assert set(item.properties["mlm:tasks"]) == {"similarity-search"}
        scaling = item.properties["mlm:input"][0]["value_scaling"]
        assert scaling[2] == {"type": "z-score", "mean": 0.406, "stddev": 0.225}
        models = [a for a in item.assets.values() if "mlm:model" in (a.roles or [])]
        assert [a.extra_fields["mlm:artifact_type"] for a in models] == ["torch.save"]
        links = [(link.rel, link.get_href(transform_href=False)) for link in item.links]
        assert ("derived_from", "https://example.org/items/S2A_1") in links
        assert ("emb:source-data", "urn:rs-embed:item:S2B_2") in links
        assert ("emb:model", "https://huggingface.co/MVRL/scalemae-vitlarge-800") in links
        lon, lat = Transformer.from_crs(32633, 4326, always_xy=True).transform(501_600, 4_997_600)
        assert item.bbox is not None
        west, south, east, north = item.bbox
        assert west < lon < east
        assert south < lat < north

    def test_times(self, tmp_path: Path) -> None:
        values = tokens(3, 4, 2)
        bare = {"model": "m"}
        one = {"model": "m", "source_items": [{"id": "a", "datetime": "2024-06-03T10:00:00+02:00"}]}
        two = {"model": "m", "source_items": [*META["source_items"], {"datetime": "2024-05-01"}]}  # type: ignore[misc]
        path = tmp_path / "map.tif"
        found = []
        for meta in (one, two):
            done = write_map(path, content_of(values, meta=meta))
            assert done.item is not None
            properties = json.loads(done.item.read_text())["properties"]
            found.append(
                [properties.get(k) for k in ("datetime", "start_datetime", "end_datetime")]
            )
        assert found == [
            ["2024-06-03T08:00:00Z", None, None],
            [None, "2024-05-01T00:00:00Z", "2024-06-03T10:00:00Z"],
        ]
        assert write_map(path, content_of(values, meta=bare)).item is None
        assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif"]
        done = write_map(path, content_of(values, meta=bare), when=datetime(2020, 1, 2, tzinfo=UTC))
        assert done.item is not None
        item = json.loads(done.item.read_text())
        assert item["properties"]["datetime"] == "2020-01-02T00:00:00Z"
        assert item["assets"]["model"]["href"] == "urn:rs-embed:model:m"

    @pytest.mark.parametrize(
        ("weights", "address"),
        [
            ("a/b@1234", "https://huggingface.co/a/b/tree/1234"),
            ("https://example.org/w.pth", "https://example.org/w.pth"),
            ("runs/last.safetensors", "nih:sha-256;" + "ab" * 32),
            ("tests", "nih:sha-256;" + "ab" * 32),
        ],
    )
    def test_addresses_of_weights(self, weights: str, address: str) -> None:
        assert model_address({**META, "weights": weights}) == address

    @pytest.mark.parametrize(
        ("meta", "addresses"),
        [
            (
                {"sensor": {"collection": "COPERNICUS/S2_SR_HARMONIZED"}},
                ["https://developers.google.com/earth-engine/datasets/catalog/"
                 "COPERNICUS_S2_SR_HARMONIZED"],
            ),
            ({"sensor": "sentinel-2-l2a"}, ["urn:rs-embed:collection:sentinel-2-l2a"]),
            ({"sensor": {"collection": "https://example.org/c"}}, ["https://example.org/c"]),
            (
                {"source_items": [{"id": "a b", "href": "/data/a.tif"}] * 2},
                ["urn:rs-embed:item:a%20b"],
            ),
            ({}, ["urn:rs-embed:imagery:unstated"]),
        ],
    )  # fmt: skip
    def test_addresses_of_imagery(self, meta: dict[str, Any], addresses: list[str]) -> None:
        assert source_addresses(meta) == addresses

    @pytest.mark.parametrize(
        ("side", "crs", "most"),
        [(20, UTM, 5), (400, UTM, 40), (4000, SOUTH, 400), (300, POLAR, 100)],
    )
    def test_outlines_have_the_points_that_they_need(self, side: int, crs: CRS, most: int) -> None:
        """Dense points of the true edges lie within a hundredth of a cell of the outline."""
        place = Affine(160, 0, 300_000, 0, -160, 5_000_000)
        if crs is POLAR:
            place = Affine(160, 0, 50_000, 0, -160, 900_000)
        grid = Grid(crs, place, (side, side))
        geometry, _ = footprint(grid)
        outline = shapely.Polygon(geometry["coordinates"][0])
        assert outline.is_valid
        assert 5 <= len(geometry["coordinates"][0]) <= most
        left, bottom, right, top = grid.bounds
        square = shapely.segmentize(shapely.box(left, bottom, right, top), 300)
        to_degrees = Transformer.from_crs(crs, 4326, always_xy=True)
        lon, lat = to_degrees.transform(*shapely.get_coordinates(square).T)
        stretch = [np.cos(np.radians(np.mean(lat))), 1]  # degrees of equal length
        metres = 111_320 * stretch[1]
        drawn = shapely.transform(outline.exterior, lambda at: at * stretch)
        points = shapely.points(lon * stretch[0], lat)
        assert shapely.distance(drawn, points).max() * metres < 1.7

    def test_footprints(self) -> None:
        def bounds(geometry: dict[str, Any]) -> list[NDArray[np.float64]]:
            if geometry["type"] == "Polygon":
                return [np.array(geometry["coordinates"][0])]
            return [np.array(part[0]) for part in geometry["coordinates"]]

        # All of the Earth, whatever the cells: not a strip along the antimeridian.
        half = 20037508.342789244
        for count in (256, 1000, 4096):
            size = 2 * half / count
            world = Grid(
                CRS.from_epsg(3857), Affine(size, 0, -half, 0, -size, half), (count, count)
            )
            geometry, box = footprint(world)
            assert geometry["type"] == "Polygon"
            assert len(geometry["coordinates"][0]) == 5
            assert box == pytest.approx([-180, -85.0511288, 180, 85.0511288])
        # Counter-clockwise, closed, and in the south.
        south = Grid(SOUTH, Affine(160, 0, 300_000, 0, -160, 6_200_000), (100, 50))
        geometry, box = footprint(south)
        (ring,) = bounds(geometry)
        assert (ring[0] == ring[-1]).all()
        x, y = ring.T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0
        assert box == pytest.approx([x.min(), y.min(), x.max(), y.max()], abs=1e-6)
        to_degrees = Transformer.from_crs(SOUTH, 4326, always_xy=True)
        assert ring[0] == pytest.approx(to_degrees.transform(300_000, 6_200_000), abs=1e-6)
        # Across the antimeridian: two parts, and a box whose west is larger than its east.
        fiji = Grid(CRS.from_epsg(32760), Affine(1000, 0, 780_000, 0, -1000, 8_100_000), (60, 100))
        geometry, box = footprint(fiji)
        west, east = bounds(geometry)
        assert west[:, 0].min() > 179
        assert west[:, 0].max() == 180
        assert east[:, 0].min() == -180
        assert east[:, 0].max() < -178
        assert box[0] > box[2]
        # Around the pole.
        pole = Grid(POLAR, Affine(1000, 0, -50_000, 0, -1000, 50_000), (100, 100))
        geometry, box = footprint(pole)
        assert box[::2] == [-180, 180]
        assert box[3] == 90
        assert 89 < box[1] < 89.5
        with pytest.raises(SpecError, match="no CRS"):
            footprint(Grid(None, Affine.identity(), (2, 2)))
