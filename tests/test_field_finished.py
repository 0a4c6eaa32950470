"""Dry runs check what runs check; finished maps get their Item; weights and tables are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from typer.testing import CliRunner

from rs_embed import embed_area, list_weights, open_map, places_of
from rs_embed.cli import app
from rs_embed.errors import ExportError, ProviderError, RsEmbedError, SpecError
from rs_embed.files.grids import GRIDS, georeferenced
from rs_embed.network.stores import Store

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.TemporalWarning")
PLACES = "id,lon,lat\na,-75.6156,37.6942\nb,-75.62,37.69\n"
TINY = ("--backend", "sample", "--variant", "tiny", "--buffer-m", "640")


@pytest.fixture
def store() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


# --- Items of finished maps ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "stored"),
    [("map.zarr", {}), ("map.tif", {"dtype": "int8", "pca": 2}), ("map.zarr", {"dtype": "int8"}),
     ("memory://bucket/map.zarr", {"dtype": "int8"})],
)  # fmt: skip
def test_the_item_of_a_finished_map_is_that_of_a_map_with_its_time(
    coordinate_model: list[Any], scene: Path, folder: Path, store: Any, out: str,
    stored: dict[str, Any],
) -> None:  # fmt: skip
    remote = "://" in out
    output = out if remote else folder / out
    request: dict[str, Any] = {"imagery": scene, "output": output, **stored}
    assert embed_area("coordinates", **request).item is None
    coordinate_model.clear()
    report = embed_area("coordinates", **request, acquired="2021-06-17")
    assert (report.finished_before, coordinate_model) == (True, [])

    def item() -> Any:
        text = (
            store.cat_file("/bucket/map.zarr.json")
            if remote
            else (folder / f"{out}.json").read_bytes()
        )
        return json.loads(text)

    later = item()
    assert later["properties"]["datetime"] == "2021-06-17T00:00:00Z"
    with pytest.raises(ExportError, match=r"has 2021-06-17T00:00:00Z; leave it out, or delete"):
        embed_area("coordinates", **request, acquired="2021-06-18")
    assert embed_area("coordinates", **request, acquired="2021-06-17").item is not None
    embed_area("coordinates", **request, acquired="2021-06-17", overwrite=True)
    assert later == item()


# --- dry runs ------------------------------------------------------------------------------


def finished(out: Path) -> tuple[str, ...]:
    args = ("batch", str(out.parent / "places.csv"), "-o", str(out), *TINY)
    assert CliRunner().invoke(app, args).exit_code == 0
    return ("--pooling", "max")


def a_folder(out: Path) -> tuple[str, ...]:
    out.mkdir()
    return ()


def other_file(out: Path) -> tuple[str, ...]:
    out.with_name(f"{out.name}.md").write_text("my notes")
    return ()


WRONG: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "no folder": lambda out: ("-o", str(out.parent / "no" / out.name)),
    "suffix": lambda out: ("-o", f"{out}.docx"),
    "a folder": a_folder,
    "finished, of another request": finished,
    "a file that is not its model card": other_file,
    "dtype": lambda _: ("--dtype", "float8"),
    "order": lambda _: ("--order", "zigzag"),
    "on-error": lambda _: ("--on-error", "cry"),
    "pooling": lambda _: ("--pooling", "median"),
    "workers": lambda _: ("--workers", "0"),
    "address of Ray": lambda _: ("--ray-address", "host:1"),
    "id column": lambda _: ("--id-column", "name"),
}


@pytest.mark.parametrize("make", WRONG.values(), ids=WRONG)
def test_a_dry_run_of_a_batch_refuses_what_the_run_refuses(
    tmp_path: Path, make: Callable[[Path], tuple[str, ...]]
) -> None:
    (tmp_path / "places.csv").write_text(PLACES)
    out = tmp_path / "v.parquet"
    command = ["batch", str(tmp_path / "places.csv"), "-o", str(out), *TINY, *make(out)]
    dry, run = (CliRunner().invoke(app, [*command, *more]) for more in (["--dry-run"], []))
    assert isinstance(dry.exception, RsEmbedError)
    assert str(dry.exception) == str(run.exception)


MAP_WRONG: dict[str, tuple[str, ...]] = {
    "workers": ("--workers", "0"),
    "address of Ray": ("--ray-address", "host:1"),
    "suffix": ("-o", "map.png"),
    "no folder": ("-o", "no/map.tif"),
    "more components than dimensions": ("--pca", "4"),
}


@pytest.mark.parametrize("wrong", MAP_WRONG.values(), ids=MAP_WRONG)
def test_a_dry_run_of_a_map_refuses_what_the_run_refuses(
    coordinate_model: list[Any], scene: Path, folder: Path, wrong: tuple[str, ...]
) -> None:
    command = ["map", "--imagery", str(scene), "--model", "coordinates", "-o",
               str(folder / "map.tif"), *wrong]  # fmt: skip
    dry, run = (CliRunner().invoke(app, [*command, *more]) for more in (["--dry-run"], []))
    assert isinstance(dry.exception, RsEmbedError)
    assert str(dry.exception) == str(run.exception)


def test_a_full_disk_is_told_before_the_work(
    coordinate_model: list[Any], scene: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    command = ["map", "--imagery", str(scene), "--model", "coordinates", "-o",
               str(folder / "map.tif")]  # fmt: skip
    for more in (["--dry-run"], []):
        failed = CliRunner().invoke(app, [*command, *more])
        assert "map.tif: it needs up to" in str(failed.exception)
    assert sum(int(shape[0]) for shape in coordinate_model) < 32  # not all of twice 16 windows


# --- names, weights, tables ----------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tif", ".nc"])
def test_dimensions_of_a_grid_have_the_names_of_its_bands(tmp_path: Path, suffix: str) -> None:
    values, place = np.ones((2, 3, 4), np.float32), Affine(160, 0, 4e5, 0, -160, 5e6)
    grid = georeferenced(values, CRS.from_epsg(32633), place)
    path = tmp_path / f"grid{suffix}"
    form = GRIDS.of(path)
    form.write(path, grid, {})
    found, _ = form.read(path)
    assert found["d"].attrs["long_name"] == "dimension"
    assert found["d"].values.tolist() == [0, 1]


@pytest.mark.parametrize(("pca", "name"), [(None, "dimension"), (2, "component")])
@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
def test_dimensions_of_a_map_have_the_names_of_its_bands(
    coordinate_model: list[Any], scene: Path, folder: Path, suffix: str, pca: Any, name: str
) -> None:
    embed_area("coordinates", imagery=scene, output=folder / f"map{suffix}", pca=pca)
    assert open_map(folder / f"map{suffix}")["d"].attrs["long_name"] == name


def test_weights_are_listed() -> None:
    rows = {row["id"]: row for row in list_weights() if row["model"] == "scalemae"}
    assert rows["scalemae-tiny"]["on_disk"]
    assert Path(rows["scalemae-tiny"]["where"]).is_file()
    assert rows["random-init"]["where"] is None
    published = rows["MVRL/scalemae-vitlarge-800"]
    assert published["licence"].startswith("CC BY-NC 4.0")
    assert published["on_disk"] or published["where"] == f"https://huggingface.co/{published['id']}"
    shown = json.loads(CliRunner().invoke(app, ["models", "--json"]).stdout)
    assert [w["id"] for m in shown if m["id"] == "scalemae" for w in m["weights"]] == list(rows)
    assert "licence: Apache-2.0" in CliRunner().invoke(app, ["models"]).output


def test_describe_shows_outputs_and_devices() -> None:
    shown = CliRunner().invoke(app, ["describe"]).output
    assert "mean, max, cls" in shown
    assert "auto, cpu, cuda, mps" in shown


def test_tables_of_places_are_read_from_a_store(store: Any, tmp_path: Path) -> None:
    store.pipe_file("/bucket/places.csv", PLACES.encode())
    assert places_of("memory://bucket/places.csv", buffer_m=640).ids == ["a", "b"]
    store.pipe_file("/bucket/bad.csv", b"id,lon,lat\na,x,1\n")
    with pytest.raises(SpecError, match=r"^memory://bucket/bad\.csv: line 2: got lon='x'"):
        places_of("memory://bucket/bad.csv", buffer_m=640)
    with pytest.raises(SpecError, match=r"none\.csv: cannot be read \(no such file\)"):
        places_of("memory://bucket/none.csv", buffer_m=640)
    command = ["batch", "memory://bucket/places.csv", "-o", "memory://bucket/v.npz", *TINY]
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert dry.exit_code == 0
    assert "2 places" in dry.stdout
    assert "memory://bucket/v.npz is in the memory of this command" in dry.stderr


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(OSError("no route"), ProviderError), (KeyError("name"), KeyError)],
)
def test_errors_of_a_store_are_mapped_and_those_of_a_program_are_not(
    raised: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected), Store.of("memory://b", ProviderError).errors("read"):
        raise raised
