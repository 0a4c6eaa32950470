"""Results survive being saved, look right, and never half appear."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from pyproj import CRS

from rs_embed import Embedding
from rs_embed.embedding.quicklook import NOISE, Components, contiguity
from rs_embed.embedding.result import token_grid
from rs_embed.errors import ExportError, SpecError, UnknownNameError
from rs_embed.geo.grid import Grid
from tests.processes import completed

META = {"model": "scalemae", "output": "grid", "nested": {"a": [1, 2.5, None]}, "text": "Ünïcode"}


def tokens(h: int = 5, w: int = 7, d: int = 12) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(d, h, w)).astype(np.float32)


def grid_embedding(crs: CRS | None = None) -> Embedding:
    crs = crs or CRS.from_epsg(32633)
    values = tokens()
    values[:, 0, 3] = np.nan
    grid = Grid(crs, Affine(163.5, 0, 400000, 0, -163.5, 5200000), (5, 7))
    return Embedding(token_grid(values, grid), dict(META))


def vector_embedding() -> Embedding:
    return Embedding(np.arange(8, dtype=np.float32) / 3, {**META, "output": "pooled"})


def test_vector_survives(tmp_path: Path) -> None:
    original = vector_embedding()
    path = original.save(tmp_path / "v.npz")
    back = Embedding.load(path)
    assert np.array_equal(back.data, original.data)
    assert back.data.dtype == np.float32
    assert back.meta == original.meta
    # Anyone can read it without us.
    with np.load(path, allow_pickle=False) as content:
        assert np.array_equal(content["embedding"], original.data)


@pytest.mark.parametrize("name", ["g.tif", "g.TIFF", "g.nc"])
@pytest.mark.parametrize("crs", [CRS.from_epsg(32633), CRS.from_epsg(32737), CRS.from_proj4(
    "+proj=stere +lat_0=90 +lat_ts=86.1 +lon_0=17 +datum=WGS84 +units=m")])  # fmt: skip
def test_grid_survives(tmp_path: Path, name: str, crs: CRS) -> None:
    original = grid_embedding(crs)
    back = Embedding.load(original.save(tmp_path / name))
    assert isinstance(back.data, xr.DataArray)
    assert back.data.dims == ("d", "y", "x")
    assert np.array_equal(back.data.values, original.data.values, equal_nan=True)
    for axis in "xyd":
        assert np.array_equal(back.data[axis].values, original.data[axis].values)
    assert CRS.from_wkt(back.data.rio.crs.to_wkt()) == CRS.from_wkt(original.data.rio.crs.to_wkt())
    assert back.data.rio.transform() == original.data.rio.transform()
    assert back.meta == original.meta


def test_geotiff_opens_in_its_place_without_us(tmp_path: Path) -> None:
    original = grid_embedding()
    with rasterio.open(original.save(tmp_path / "g.tif")) as file:
        assert (file.count, file.height, file.width) == (12, 5, 7)
        assert file.crs.to_epsg() == 32633
        assert np.isnan(file.nodata)
        assert file.transform == Affine(163.5, 0, 400000, 0, -163.5, 5200000)
        x, y = file.xy(2, 4)
        at = original.data.sel(x=x, y=y, method="nearest")
        assert np.array_equal(next(file.sample([(x, y)])), at.values)
        assert (at.x, at.y) == (x, y)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_grid_without_place_survives(tmp_path: Path) -> None:
    grid = Grid(None, Affine(3, 0, 2, 0, 3, 0.5), (5, 7))
    original = Embedding(token_grid(tokens(), grid), dict(META))
    assert original.data.x.values[0] == 3.5
    assert original.data.x.attrs["units"] == "px of the input"
    back = Embedding.load(original.save(tmp_path / "g.tif"))
    assert np.array_equal(back.data.x.values, original.data.x.values)
    assert np.array_equal(back.data.y.values, original.data.y.values)


def test_file_types_that_do_not_suit(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"file type of a vector '\.tif', expected one of \.npz"
    ):
        vector_embedding().save(tmp_path / "v.tif")
    with pytest.raises(UnknownNameError, match=r"file type of a grid '\.npz'"):
        grid_embedding().save(tmp_path / "g.npz")
    with pytest.raises(
        UnknownNameError, match=r"file type of an embedding '\.zarr', expected one of \.nc, \.npz"
    ):
        Embedding.load(tmp_path / "g.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["v.npz", "g.tif", "g.nc"])
def test_files_that_are_not_ours(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="there is no such file"):
        Embedding.load(tmp_path / name)
    (tmp_path / name).write_bytes(b"nonsense" * 20)
    with pytest.raises(ExportError, match=r"cannot read .*expected a file of .*Embedding\.save"):
        Embedding.load(tmp_path / name)


def test_a_foreign_npz_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", embedding=np.array([object()], dtype=object))
    with pytest.raises(ExportError, match="cannot read"):
        Embedding.load(tmp_path / "v.npz")


@pytest.mark.parametrize("name", ["v.npz", "g.tif", "g.nc", "q.png"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    def save(path: Path) -> None:
        if name == "q.png":
            grid_embedding().quicklook(path)
        else:
            (vector_embedding() if name == "v.npz" else grid_embedding()).save(path)

    with pytest.raises(ExportError, match="there is no folder"):
        save(tmp_path / "gone" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ExportError, match="it is a folder"):
        save(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="is read-only"):
        vector_embedding().save(tmp_path / "v.npz")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """The limit on file sizes fails a write where a full disk does, in the operating system."""
    import textwrap

    code = textwrap.dedent(f"""
        import resource, signal, sys
        from tests.test_embedding import grid_embedding, vector_embedding
        from rs_embed.errors import ExportError
        import rs_embed.files.grids, rasterio, rioxarray, xarray, h5netcdf, h5py
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for name in ("v.npz", "g.tif", "g.nc"):
            embedding = vector_embedding() if name == "v.npz" else grid_embedding()
            path = {str(tmp_path)!r} + "/" + name
            embedding.save(path)
            before = open(path, "rb").read()
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
            try:
                embedding.save(path)
            except ExportError as exc:
                print(name, "cannot write" in str(exc), open(path, "rb").read() == before)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    """)
    done = completed("-W", "ignore", "-c", code)
    names = ["v.npz", "g.tif", "g.nc"]
    assert done.stdout.splitlines() == [f"{name} True True" for name in names], done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_principal_components_are_those_of_the_covariance() -> None:
    grid = tokens(8, 9, 6) * np.array([5, 3, 2, 1, 1, 1])[:, None, None]
    grid[:, 0, 0] = np.nan
    found = Components.of([grid.astype(np.float32)])
    colours, known = found.colours(grid.astype(np.float32))
    assert (~known).sum() == 1
    assert colours.shape == (8, 9, 3)
    assert colours.dtype == np.uint8
    assert (colours[0, 0] == 128).all()
    flat = grid.reshape(6, -1).T[1:]
    values, vectors = np.linalg.eigh(np.cov(flat.T))
    for channel in range(3):
        vector = vectors[:, -1 - channel]
        vector = vector * np.sign(vector[np.abs(vector).argmax()])
        score = (flat - flat.mean(0)) @ vector
        low, high = np.percentile(score, [2, 98])
        expected = ((score - low) / (high - low)).clip(0, 1) * 255
        assert np.abs(colours.reshape(-1, 3)[1:, channel] - expected).max() <= 1
    assert found.explained == pytest.approx(values[:-4:-1] / values.sum(), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 1)])
def test_quicklook_of_few_tokens(shape: tuple[int, int]) -> None:
    grid = tokens(*shape, 4)
    assert Components.of([grid]).colours(grid)[0].shape == (*shape, 3)
    none = np.full_like(grid, np.nan)
    colours, known = Components.of([none]).colours(none)
    assert (colours == 128).all()
    assert not known.any()


def test_quicklook_shows_image_and_components(tmp_path: Path) -> None:
    embedding = grid_embedding()
    image = np.zeros((50, 70, 3), np.uint8)
    image[:, 35:] = 200
    values = embedding.data.copy()
    values[:, 0, 0] = np.nan
    shown = Embedding(values, embedding.meta, image)
    picture = shown.quicklook(tmp_path / "q.png", side_px=100)
    written = Image.open(tmp_path / "q.png")
    assert written.size == picture.size
    assert picture.width == 2 * 140 + 12 + 2 * 8
    pixels = np.asarray(written)
    top = next(row for row in range(100) if (pixels[row : row + 100, 10] == 0).all())
    assert (pixels[top + 50, 8 + 120] == 255).all()  # stretched to its own range
    tokens_of = values.values
    expected, _ = Components.of([tokens_of]).colours(tokens_of)
    assert (pixels[top + 50, 160 + 70] == expected[2, 3]).all()
    missing = pixels[top + 1 : top + 19, 161:179]
    assert set(np.unique(missing)) == {150, 235}  # hatched
    # Read from a file there is no image: the components alone.
    assert embedding.quicklook(side_px=200).width == 280 + 2 * 8


def test_quicklooks_of_several_dates_share_their_colours() -> None:
    one = grid_embedding()
    one = Embedding(one.data, {**one.meta, "weights_sha256": "0"})
    other = Embedding(one.data + 5, one.meta)
    both = np.asarray(one.quicklook(other, side_px=100))
    alone = np.asarray(one.quicklook(side_px=100))
    top = next(row for row in range(100) if (alone[row, 9:140] != 255).any(axis=-1).all())
    assert both.shape[0] > 2 * 100
    # What is far apart has other colours beside each other; alone each fills the whole range.
    assert (both[top + 50, 78] != alone[top + 50, 78]).any()
    with pytest.raises(SpecError, match="a grid 2 made with model='other', expected 'scalemae'"):
        one.quicklook(Embedding(one.data, {**one.meta, "model": "other"}))
    with pytest.raises(SpecError, match="12 and 11 dimensions"):
        one.quicklook(Embedding(one.data[1:], one.meta))
    with pytest.raises(SpecError, match="got 2 paths"):
        one.quicklook("a.png", "b.png")


def test_colours_that_are_noise_are_told() -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(16, 20, 3))
    # Geary's C, one cell at a time.
    pairs = [
        ((r, c), (r + down, c + right))
        for r in range(16)
        for c in range(20)
        for down, right in ((1, 0), (0, 1))
        if r + down < 16 and c + right < 20
    ]
    between = sum(((noise[a] - noise[b]) ** 2).sum() for a, b in pairs)
    spread = ((noise - noise.mean((0, 1))) ** 2).sum()
    assert contiguity(noise) == pytest.approx((320 - 1) * between / (2 * len(pairs) * spread))
    grid = draw.normal(size=(12, 16, 20)).astype(np.float32)
    for values, expected in ((grid, True), (np.cumsum(grid, axis=1), False)):
        shown = Embedding(token_grid(values, Grid(None, Affine.identity(), (16, 20))), {})
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            shown.quicklook(side_px=64)
        assert [str(w.message) == NOISE for w in given] == [True] * expected


def test_quicklook_needs_a_grid_and_a_png(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected a grid"):
        vector_embedding().quicklook()
    with pytest.raises(
        UnknownNameError, match=r"file type of a picture '\.jpg', expected one of \.png"
    ):
        grid_embedding().quicklook(tmp_path / "q.jpg")


def test_repr_is_short_and_says_what_matters() -> None:
    assert repr(grid_embedding()) == "<Embedding 12 x 5 x 7 float32: scalemae>"


@pytest.mark.parametrize(
    ("embedding", "meta"), [(np.ones(3), "{}"), (np.ones((2, 2), np.float32), "{}"),
                            (np.ones(3, np.float32), "[1]")],
)  # fmt: skip
def test_an_npz_of_another_kind(tmp_path: Path, embedding: NDArray[Any], meta: str) -> None:
    np.savez(tmp_path / "v.npz", embedding=embedding, rs_embed_meta=np.array(meta))
    with pytest.raises(ExportError, match="cannot read"):
        Embedding.load(tmp_path / "v.npz")
    np.save(tmp_path / "plain.npy", embedding)
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    with pytest.raises(ExportError, match="cannot read"):
        Embedding.load(tmp_path / "plain.npz")


@pytest.mark.parametrize("path", [None, 5])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(SpecError, match="expected a path"):
        vector_embedding().save(path)
    with pytest.raises(SpecError, match="expected a path"):
        Embedding.load(path)


@pytest.mark.parametrize("name", ["n" * 300 + ".npz", "n\0.npz"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match="choose another name"):
        vector_embedding().save(tmp_path / name)


def test_threads_may_write_one_file(tmp_path: Path) -> None:
    embedding, path = vector_embedding(), tmp_path / "v.npz"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: embedding.save(path), range(60)))
    assert np.array_equal(Embedding.load(path).data, embedding.data)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npz"]
