"""A list of files as imagery: bands of a scene, neighbouring scenes, or what cannot be joined.

Each situation is a row: files, and the pixels that rasterio reads of them, or the refusal. Files
are written with :func:`write`, where ``at`` is the column and row of the first pixel on a lattice.
"""

from __future__ import annotations

import pickle
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.merge import merge

from rs_embed import BBox, embed_area, get_embedding, inspect_input, open_map
from rs_embed.embedding.arguments import imagery_of
from rs_embed.errors import ImageryError, ImageryWarning, RsEmbedError
from rs_embed.files.identity import imagery_identity
from rs_embed.files.imagery import imagery_date, imagery_grid, read_imagery
from rs_embed.geo.windows import common_window

WANTED = ("B4", "B3", "B2")
RGB = ("B04", "B03", "B02")
TINY: dict[str, Any] = {"variant": "tiny", "device": "cpu"}


def write(
    path: Path,
    names: tuple[str, ...] = ("",),
    *,
    at: tuple[float, float] = (0, 0),
    size: tuple[int, int] = (64, 64),
    pixel: float = 10,
    crs: str = "EPSG:32633",
    date: str | None = None,
    **profile: Any,
) -> Path:
    """Write random digital numbers, with 0 (nodata) in the corner of files of several bands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, path.as_posix()[-20:])) + len(names)
    data = np.random.default_rng(seed).integers(300, 4000, (len(names), *size)).astype("uint16")
    if len(names) > 1:
        data[:, :4, :4] = 0
    transform = Affine(pixel, 0, 400000 + 10 * at[0], 0, -pixel, 5200000 - 10 * at[1])
    with rasterio.open(
        path, "w", driver="GTiff", count=len(names), height=size[0], width=size[1],
        **{"dtype": "uint16", "nodata": 0, "crs": crs, "transform": transform, **profile},
    ) as made:  # fmt: skip
        made.write(data.astype(made.dtypes[0]))
        made.descriptions = names
        if date:
            made.update_tags(ACQUISITIONDATETIME=f"{date}T10:00:00")
    return path


def bands(folder: Path, pattern: str = "{}.tif", **stated: Any) -> list[Path]:
    return [write(folder / pattern.format(band), **stated) for band in RGB]


def stacked(*paths: Path) -> np.ndarray:
    return np.stack([rasterio.open(path).read(1) for path in paths])


def merged(*paths: Path, indexes: tuple[int, ...] = (3, 2, 1)) -> np.ndarray:
    """Return the mosaic that rasterio makes, the last file on top."""
    mosaic: np.ndarray = merge(list(paths), indexes=indexes, method="last")[0]
    return mosaic


def two(folder: Path, **east: Any) -> list[Path]:
    west = write(folder / "west.tif", ("B02", "B03", "B04"), date="2023-08-15")
    return [
        west,
        write(folder / "east.tif", ("B02", "B03", "B04"), **{"at": (64, 0), "date": "2023-08-15",
                                                             **east}),
    ]  # fmt: skip


# Files -> the pixels of red, green and blue.
JOINED: dict[str, tuple[Callable[[Path], list[Path]], Callable[[list[Path]], np.ndarray]]] = {
    "bands": (bands, lambda f: stacked(*f)),
    "bands, blue first": (lambda r: bands(r)[::-1], lambda f: stacked(*f[::-1])),
    "bands by colour": (
        lambda r: [write(r / f"scene_{c}.tif") for c in ("red", "green", "blue")],
        lambda f: stacked(*f),
    ),
    "bands in R10m": (
        lambda r: bands(r / "R10m", "T33TVN_20230815T100559_{}_10m.tif"), lambda f: stacked(*f),
    ),
    "other bands of other sizes": (
        lambda r: [*bands(r), write(r / "B11.tif", size=(32, 32), pixel=20)],
        lambda f: stacked(*f[:3]),
    ),
    "neighbours": (two, lambda f: merged(*f)),
    "neighbours, east first": (lambda r: two(r)[::-1], lambda f: merged(*f)),
    "neighbours of two days": (lambda r: two(r, date="2023-09-01"), lambda f: merged(*f)),
    "a gap between them": (lambda r: two(r, at=(90, 10)), lambda f: merged(*f)),
    "overlap on one day": (lambda r: two(r, at=(40, 8)), lambda f: merged(*f)),
    "overlap, on top the first": (lambda r: two(r, at=(40, 8))[::-1], lambda f: merged(*f)),
    "bands of neighbours": (
        lambda r: [*bands(r / "west"), *bands(r / "east", at=(64, 0))],
        lambda f: np.stack(
            [merged(*pair, indexes=(1,))[0] for pair in zip(f[:3], f[3:], strict=True)]
        ),
    ),
    "four scenes": (
        lambda r: [
            write(r / f"{x}{y}.tif", ("B02", "B03", "B04"), at=(64 * x, 64 * y))
            for x in (0, 1) for y in (0, 1)
        ],
        lambda f: merged(*f),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "right"), JOINED.values(), ids=JOINED)
def test_a_list_of_files_is_their_bands_or_their_mosaic(
    make: Callable[[Path], list[Path]], right: Callable[[list[Path]], np.ndarray], tmp_path: Path
) -> None:
    files = make(tmp_path)
    joined = pickle.loads(pickle.dumps(imagery_of(files)))  # noqa: S301
    raster = read_imagery(joined, bands=WANTED, spatial=None, fill_value=None)
    expected = right(files)
    assert raster.grid == imagery_grid(joined, WANTED)
    np.testing.assert_array_equal(raster.valid, (expected != 0).any(axis=0))
    np.testing.assert_array_equal(np.where(raster.valid, raster.data, 0), expected)
    west, south, east, north = raster.grid.geographic_bounds()
    lons, lats = np.linspace(west, east, 4), np.linspace(south, north, 4)
    place = BBox(lons[1], lats[1], lons[2], lats[2])
    part = read_imagery(joined, bands=WANTED, spatial=place, fill_value=None)
    rows, columns = common_window(part.grid, raster.grid)
    assert part.valid.shape == (rows.stop - rows.start, columns.stop - columns.start)
    np.testing.assert_array_equal(np.where(part.valid, part.data, 0), expected[:, rows, columns])


# Files -> the refusal.
REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "none": (lambda _: [], "list of nothing, expected paths"),
    "arrays": (lambda _: [np.zeros((3, 8, 8))] * 2, "list of ndarray.*get_embeddings_batch"),
    "one file twice": (lambda r: [write(r / "B04.tif")] * 2, "B04.tif' twice"),
    "a band is missing": (
        lambda r: bands(r)[:2], r"has the bands B4, B3, expected B4, B3, B2.*gdalbuildvrt -separate"
    ),
    "bands without names": (
        lambda r: [write(r / f"{n}.tif") for n in "abc"], "a.tif' has the bands 1 without names",
    ),
    "no georeference": (
        lambda r: [*bands(r)[:2], write(r / "B02.tif", crs=None)], "B02.tif' has no CRS",  # type: ignore[arg-type]
    ),
    "a picture": (lambda r: [*bands(r), write(r / "TCI.tif")], "TCI.tif' .* is a picture.*leave"),
    "no reflectance": (
        lambda r: bands(r, "LC09_L1TP_190028_20230815_20230822_02_T1_{}.TIF"), "Level-1 product",
    ),
    "two days": (
        lambda r: two(r, at=(40, 0), date="2023-09-01"),
        "west.tif' of 2023-08-15 and 'east.tif' of 2023-09-01, which overlap.*backend='folder'",
    ),
    "a day and none": (
        lambda r: two(r, at=(40, 0), date=None), "of unknown date, which overlap.*mosaic",
    ),
    "two processings": (
        lambda r: [
            write(r / f"S2A_MSIL2A_20230815T100559_N{n}_R022_T33TVN_20230815T12000{i}.tif",
                  ("B02", "B03", "B04"))
            for i, n in enumerate(("0400", "0509"))
        ],
        "processings of one acquisition.*leave out the older",
    ),
    "8 and 16 bits": (
        lambda r: two(r, dtype="uint8"), "'east.tif' has 8 bits and 'west.tif' uint16.*gdal_edit",
    ),
    "nodata contradicted": (
        lambda r: bands(r), "got fill_value=7, but the imagery declares nodata 0",
    ),
    "degrees": (
        lambda r: two(r, crs="EPSG:4326", transform=Affine(1e-4, 0, 15, 0, -1e-4, 46)), "lattice",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "match"), REFUSED.values(), ids=REFUSED)
def test_a_list_with_two_meanings_or_none_is_refused(
    make: Callable[[Path], Any], match: str, tmp_path: Path
) -> None:
    fill = 7 if "fill_value" in match else None
    with pytest.raises(RsEmbedError, match=match):
        inspect_input("scalemae", imagery=make(tmp_path), fetch={"fill_value": fill})


# Files on several grids: the refusal holds the commands after which they can be joined.
RESAMPLED: dict[str, tuple[Callable[[Path], list[Path]], str]] = {
    "a band of other pixels": (
        lambda r: [*bands(r)[:2], write(r / "B02.tif", size=(32, 32), pixel=20)],
        r"pixels of 10, 64 x 64 px .*pixels of 20, 32 x 32 px .*one grid for all bands",
    ),
    "a band shifted by half a pixel": (
        lambda r: [*bands(r)[:2], write(r / "B02.tif", at=(0.5, 0))], "from 400005, 5200000",
    ),
    "a scene of another zone": (
        lambda r: two(r, crs="EPSG:32634", transform=Affine(10, 0, -55870, 0, -10, 5225140)),
        "EPSG:32634.*one lattice for all files",
    ),
    "a scene of other pixels": (lambda r: two(r, pixel=20), "pixels of 20.*one lattice"),
    "bands of a scene of other pixels": (
        lambda r: [*bands(r / "west"), *bands(r / "east", at=(64, 0), pixel=20)], "one lattice",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "match"), RESAMPLED.values(), ids=RESAMPLED)
def test_files_on_several_grids_are_refused_with_commands_that_work(
    make: Callable[[Path], list[Path]], match: str, tmp_path: Path
) -> None:
    files = make(tmp_path / "in")
    with pytest.raises(ImageryError, match=match) as refused:
        inspect_input("scalemae", imagery=files)
    commands = str(refused.value).partition("instead: ")[2].split(" && ")
    if shutil.which("gdalwarp") is None:
        pytest.skip("GDAL has no programs here")
    for command in commands:
        subprocess.run(shlex.split(command), check=True, capture_output=True)
    warped = dict(shlex.split(command)[-2:] for command in commands)
    raster = read_imagery(
        imagery_of([warped.get(str(path), path) for path in files]),
        bands=WANTED, spatial=None, fill_value=None,
    )  # fmt: skip
    assert raster.valid.mean() > 0.45


def test_bands_of_other_ground_are_refused_with_what_they_share(tmp_path: Path) -> None:
    files = [*bands(tmp_path)[:2], write(tmp_path / "B02.tif", at=(10, 0))]
    with pytest.raises(ImageryError, match="other ground.*-te 400100 5199360 400640 5200000"):
        inspect_input("scalemae", imagery=files)


@pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
def test_scenes_without_date_that_overlap_give_a_warning(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{name}.tif", ("B02", "B03", "B04"), at=(at, 0), size=(224, 144))
        for name, at in (("west", 0), ("east", 80))
    ]
    with pytest.warns(ImageryWarning, match=r"west.tif, east.tif overlap and have no date"):
        inspect_input("scalemae", imagery=files, scale_m=10)


def test_every_function_takes_a_list(tmp_path: Path) -> None:
    files = bands(tmp_path, "2023-08-15_{}.tif", size=(256, 256))
    whole = write(tmp_path / "whole.tif", ("B04", "B03", "B02"), size=(256, 256))
    with rasterio.open(whole, "r+") as made:
        made.write(stacked(*files))
    one = get_embedding("scalemae", imagery=whole, **TINY)
    several = get_embedding("scalemae", imagery=tuple(map(str, files)), **TINY)
    np.testing.assert_array_equal(several.data, one.data)
    assert several.meta["source"]["items"][0]["files"] == [path.name for path in files]
    assert several.meta["source"]["acquired"] == ["2023-08-15T00:00:00+00:00"] * 2
    alone = get_embedding("scalemae", imagery=[whole], **TINY)
    assert alone.meta["fingerprint"] == one.meta["fingerprint"]
    out = tmp_path / "map.tif"
    embed_area("scalemae", imagery=files, output=out, **TINY)
    embed_area("scalemae", imagery=whole, output=tmp_path / "one.tif", acquired="2023-08-15",
               **TINY)  # fmt: skip
    np.testing.assert_array_equal(open_map(out).values, open_map(tmp_path / "one.tif").values)


def test_a_list_is_known_by_each_of_its_files(tmp_path: Path) -> None:
    files = two(tmp_path)
    joined = imagery_of(files)
    assert imagery_identity(joined) == {"files": [imagery_identity(path) for path in files]}
    assert str(imagery_date(joined).moment) == "2023-08-15 10:00:00+00:00"
    assert imagery_date(imagery_of(two(tmp_path, date="2023-09-01"))).moment is None
    assert re.match(r"2 files \(.*west.tif, .*east.tif\)", str(joined))


def test_a_place_in_a_gap_has_no_imagery(tmp_path: Path) -> None:
    joined = imagery_of(two(tmp_path, at=(200, 0)))
    grid = imagery_grid(joined, WANTED)
    with pytest.raises(RsEmbedError, match="has a valid pixel there"):
        read_imagery(
            joined, bands=WANTED, spatial=None, fill_value=None, window=grid.window(0, 100, 32, 32)
        )
