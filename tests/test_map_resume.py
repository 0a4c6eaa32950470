"""Maps survive every end: killed, interrupted, out of disk, damaged files, unreadable imagery."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from typer.testing import CliRunner, Result

from rs_embed import (
    BBox,
    FetchSpec,
    InputPrepSpec,
    LocalProvider,
    OutputSpec,
    Raster,
    embed_area,
    get_embedding,
    open_map,
)
from rs_embed.cli import app
from rs_embed.errors import (
    CheckpointError,
    CoverageWarning,
    ExportError,
    GridError,
    ImageryError,
    ImageryWarning,
    ModelError,
    ProviderError,
    RsEmbedError,
    SpecError,
    UnknownNameError,
)
from rs_embed.maps.asked import settle_area
from rs_embed.maps.placing import item_path
from rs_embed.maps.running import AreaRun
from tests.conftest import python_environment
from tests.coordinate_model import coordinate_scene
from tests.map_worker import digests

pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.TemporalWarning"),
    pytest.mark.filterwarnings("ignore:cloudy_pct:rs_embed.ImageryWarning"),
]
ROOT = Path(__file__).parents[1]
CODE = "from rs_embed.cli import main; main()"
NORTH_UP = Affine(10, 0, 400000, 0, -10, 5200000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where maps go, and nothing else."""
    made = tmp_path / "maps"
    made.mkdir()
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def environment(install: Callable[..., Path], tmp_path: Path) -> dict[str, str]:
    """Environment of a process with the model ``slow``, two windows at once."""
    installed = install("slowness", "[rs_embed.models]\nslow = tests.map_worker:MODEL\n")
    variables = python_environment(
        RS_EMBED_SCALEMAE_BATCH_SIZE="2", IMAGES_SEEN=str(tmp_path / "seen")
    )
    paths = [str(ROOT), str(installed), variables["PYTHONPATH"]]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def scene(write_scene: Callable[..., Path]) -> Path:
    """2 rows of 8 windows."""
    return write_scene(coordinate_scene(96, 400))


@pytest.fixture
def dated(write_scene: Callable[..., Path]) -> Path:
    """The same with a day, for a provider."""
    return write_scene(coordinate_scene(128, 432), name="S2_20220704.tif")


def box(row: int, column: int, height: int, width: int) -> BBox:
    """Return the box in degrees around pixels of a scene."""
    left, top = NORTH_UP @ (column, row)
    right, bottom = NORTH_UP @ (column + width, row + height)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return BBox(*to_degrees.transform_bounds(left, bottom, right, top))


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


# --- killed --------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("name", "what", "more"),
    [
        ("map.zarr", "random", []),
        ("map.tif", "random", []),
        ("map.zarr", "steps", [19]),
        ("map.tif", "steps", [2]),
        ("map.zarr", "steps", [11, signal.SIGINT]),
        ("map.tif", "steps", [2, signal.SIGINT]),
    ],
)
def test_ended_at_any_moment_it_comes_to_the_same_bytes(
    environment: dict[str, str], dated: Path, folder: Path, tmp_path: Path, name: str, what: str,
    more: list[int],
) -> None:  # fmt: skip
    area = box(20, 20, 88, 392 if what == "random" else 120)
    bbox = [area.minlon, area.minlat, area.maxlon, area.maxlat]
    command = [sys.executable, "-c", CODE, "map", "--local", str(dated), "--model", "slow"]
    whole = subprocess.run(
        [*command, "--dtype", "int8", "--bbox", ",".join(map(repr, bbox)), "--json",
         "-o", str(folder / name)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    windows = json.loads(whole.stdout)["windows"]
    expected = digests(folder)
    assert names(folder) == sorted([name, item_path(Path(name)).name])
    shutil.rmtree(folder)
    folder.mkdir()
    seen = tmp_path / "seen"
    seen.unlink()
    request = {
        "local": str(dated), "bbox": bbox, "output": str(folder / name), "dtype": "int8",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.map_worker", what, json.dumps(request),
         *map(str, map(int, more))],
        env=environment | {"SECONDS": "0.02" if what == "random" else "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    if what == "random":
        assert report >= 3
        assert digests(folder) == expected
        # A kill costs at most the group that was under way.
        assert windows <= seen.stat().st_size <= windows + 2 * report
    else:
        assert len(report) > 5
        assert report == [expected] * len(report)


# --- interrupted ---------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(
    environment: dict[str, str], scene: Path, folder: Path, tmp_path: Path
) -> None:
    out = folder / "map.zarr"
    command = [sys.executable, "-c", CODE, "map", "--imagery", str(scene), "--model", "slow",
               "--acquired", "2022-07-04", "-o", str(out)]  # fmt: skip
    process = subprocess.Popen(
        [*command, "--overwrite"], env=environment | {"PAUSE_AFTER": "6"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    seen = tmp_path / "seen"
    while not seen.exists() or seen.stat().st_size < 6:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    (line,) = second.stderr.splitlines()
    assert line.startswith(f"error: {out}.partial is in use by another process; wait for it")
    process.send_signal(signal.SIGINT)
    code, printed, err = finished(process)
    assert (code, printed) == (130, "")
    first, *told, last = err.splitlines()
    assert first == "16 windows for 6 x 25 tokens"
    assert [line[:19] for line in told] == ["10 windows are left"]
    assert last == (
        "interrupted: 6 of 16 windows are kept; the same command without --overwrite goes on"
    )
    assert names(folder) == ["map.zarr.partial"]
    code, printed, err = finished(
        subprocess.Popen(
            [*command, "--json"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
    )  # fmt: skip
    assert code == 0, err
    assert err.splitlines()[0] == "going on: 6 of 16 windows are done"
    report = json.loads(printed)
    assert (report["resumed"], report["windows"]) == (6, 16)
    assert names(folder) == ["map.zarr", "map.zarr.json"]


class Faulty(LocalProvider):
    """A file whose windows fail as long as ``faults`` says so."""

    def __init__(self, path: Path, fault: Callable[[Any], BaseException | None]) -> None:
        super().__init__(path)
        self.fault = fault
        self.fetched: list[Any] = []

    def fetch(self, grid: Any, **asked: Any) -> Raster:
        self.fetched.append(grid)
        fault = self.fault(grid)
        if fault is not None:
            raise fault
        return super().fetch(grid, **asked)


def test_an_interrupted_reader_leaves_no_thread_and_no_window_is_made_twice(
    coordinate_model: list[tuple[float, ...]], write_scene: Callable[..., Path], folder: Path
) -> None:
    path = write_scene(coordinate_scene(2600, 96), name="S2_20220704.tif")  # three blocks
    request: dict[str, Any] = {"spatial": box(20, 10, 2560, 64)}
    embed_area("coordinates", output=folder / "a.zarr", backend=LocalProvider(path), **request)
    windows = sum(int(call[0]) for call in coordinate_model)
    coordinate_model.clear()

    def late(grid: Any) -> BaseException | None:
        # The probes are single windows, the blocks are not.
        last_block = grid.shape[0] > 64 and grid.bounds[1] < 5200000 - 10 * 2300
        return KeyboardInterrupt() if last_block else None

    with pytest.raises(KeyboardInterrupt):
        embed_area("coordinates", output=folder / "b.zarr", backend=Faulty(path, late), **request)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("rs_embed")]
    first = sum(int(call[0]) for call in coordinate_model)
    assert 8 < first < windows
    report = embed_area(
        "coordinates", output=folder / "b.zarr", backend=LocalProvider(path), **request
    )
    assert report.resumed == first == windows - sum(int(c[0]) for c in coordinate_model) + first
    del report
    one, other = (digests(folder / name) for name in ("a.zarr", "b.zarr"))
    assert one == other


# --- another request -----------------------------------------------------------------------


@pytest.fixture
def stopped(
    checkpoint: Path, write_scene: Callable[..., Path], folder: Path, tmp_path: Path
) -> dict[str, Any]:
    """A request, some of whose windows are kept."""
    path = write_scene(coordinate_scene(128, 160), name="S2_20220704.tif")
    area = tmp_path / "area.geojson"
    write_area(area, box(20, 20, 90, 120))
    request: dict[str, Any] = {
        "spatial": area, "backend": LocalProvider(path), "weights": str(checkpoint),
        "image_size": 64, "output": folder / "map.zarr",
    }  # fmt: skip
    settled = {k: v for k, v in request.items() if k != "output"}
    with AreaRun(request["output"], settle_area("scalemae", **settled)) as run:
        run._journal.add("0 0", np.zeros(16 * 48, np.float32), {}, None)
    return request


def write_area(path: Path, *boxes: BBox) -> None:
    import shapely

    shapes = [shapely.box(b.minlon, b.minlat, b.maxlon, b.maxlat) for b in boxes]
    path.write_text(shapely.to_geojson(shapely.MultiPolygon(shapes)))


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"weights": "random-init"}, 'weights "'),
    "display": ({"display": "visual"}, r'display absent there, "visual" here'),
    "tile size": ({"tile_size": 80}, "tile_size 64 there, 80 here"),
    "overlap": ({"overlap_px": 32}, "overlap_px 16 there, 32 here"),
    "stride": ({"stride_px": 8}, "stride_px 16 there, 8 here"),
    "seams": ({"seams": "discard"}, 'seams "blend" there, "discard" here'),
    "gsd": ({"gsd": 3.5}, "gsd absent there, 3.5 here"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_request_is_refused_and_the_difference_named(
    stopped: dict[str, Any], folder: Path, name: str
) -> None:
    changed, message = CHANGES[name]
    before = digests(folder)
    with pytest.raises(ExportError, match=rf"begun by another request .*{message}"):
        embed_area("scalemae", **stopped | changed)
    assert digests(folder) == before


def test_another_area_file_imagery_or_environment_is_refused(
    stopped: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = stopped["spatial"]
    whole = area.read_text()
    write_area(area, box(20, 20, 90, 100))
    with pytest.raises(
        ExportError, match=r'area "6 x 8 cells from 400160, .* there, "6 x 7 cells from 400140, '
    ):
        embed_area("scalemae", **stopped)
    area.write_text(whole)
    from rs_embed import TemporalSpec

    with pytest.raises(ExportError, match="temporal absent there"):
        embed_area("scalemae", temporal=TemporalSpec.range("2022-07-01", "2022-08-01"), **stopped)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "128")
    with pytest.raises(ExportError, match="environment.RS_EMBED_SCALEMAE_IMG"):
        embed_area("scalemae", **stopped)
    monkeypatch.delenv("RS_EMBED_SCALEMAE_IMG")
    imagery = {"imagery": stopped["backend"]._root}
    without = {k: v for k, v in stopped.items() if k != "backend"}
    with pytest.raises(ExportError, match="backend"):
        embed_area("scalemae", **without | imagery)
    assert names(folder) == ["map.zarr.partial"]


def test_imagery_that_was_replaced_is_refused(
    coordinate_model: Any, scene: Path, folder: Path
) -> None:
    out = folder / "map.zarr"
    with AreaRun(out, settle_area("coordinates", imagery=scene)) as run:
        run._journal.add("0 0", np.zeros(48, np.float32), {}, None)
    os.utime(scene, (1, 1))
    with pytest.raises(ExportError, match=r"imagery\.modified"):
        embed_area("coordinates", imagery=scene, output=out)
    report = embed_area("coordinates", imagery=scene, output=out, overwrite=True)
    assert report.resumed == 0
    assert names(folder) == ["map.zarr"]


def test_batch_size_device_and_cache_do_not_count(
    stopped: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "3")
    changed = {"device": "cpu", "cache": tmp_path / "cache"}
    settled = {k: v for k, v in stopped.items() if k != "output"}
    with AreaRun(stopped["output"], settle_area("scalemae", **settled | changed)) as run:
        assert run.resumed == 1


@pytest.mark.parametrize("stored", [{"dtype": "int8"}, {"pca": 2}, {"acquired": "2021-06-17"}])
def test_what_is_kept_can_be_stored_otherwise(
    coordinate_model: list[Any], scene: Path, folder: Path, stored: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A disk that is too small for float32 after a day of work: int8 costs no window."""
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    out, asked = folder / "map.zarr", settle_area("coordinates", imagery=scene)
    with pytest.raises(KeyboardInterrupt), AreaRun(out, asked) as run:
        run.run(measured=interrupt)
    report = embed_area("coordinates", imagery=scene, output=out, **stored)
    assert 0 < report.resumed < report.windows == sum(int(shape[0]) for shape in coordinate_model)
    at_once = folder / "once"
    at_once.mkdir()
    embed_area("coordinates", imagery=scene, output=at_once / "map.zarr", **stored)
    found = digests(folder)
    assert {k: v for k, v in found.items() if not k.startswith("once")} == digests(at_once)


def test_a_finished_map_is_not_replaced_unasked_and_other_folders_never(
    coordinate_model: list[Any], scene: Path, folder: Path, tmp_path: Path
) -> None:
    for name in ("map.zarr", "map.tif"):
        embed_area("coordinates", imagery=scene, output=folder / name)
    before = digests(folder)
    for name in ("map.zarr", "map.tif"):
        with pytest.raises(ExportError, match="is there already, and finished"):
            embed_area("coordinates", imagery=scene, output=folder / name, dtype="int8")
    assert digests(folder) == before
    embed_area("coordinates", imagery=scene, output=folder / "map.zarr", dtype="int8",
               overwrite=True)  # fmt: skip
    assert json.loads(open_map(folder / "map.zarr").attrs["meta"])["encoding"]["dtype"] == "int8"
    coordinate_model.clear()
    for name in ("other.zarr", "other.tif"):
        (folder / name).mkdir()
        (folder / name / "letters.txt").write_text("mine")
        for overwrite in (False, True):
            with pytest.raises(ExportError, match="it is a folder"):
                embed_area("coordinates", imagery=scene, output=folder / name,
                           overwrite=overwrite)  # fmt: skip
        assert names(folder / name) == ["letters.txt"]
    assert not coordinate_model  # refused before any work


def test_weights_that_changed_under_their_name_are_refused(
    checkpoint: Path, scene: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    from safetensors.torch import save_file

    from tests.conftest import small_network

    weights = tmp_path / "weights"
    shutil.copytree(checkpoint, weights)
    request: dict[str, Any] = {
        "imagery": scene, "weights": str(weights), "image_size": 64, "output": folder / "map.zarr",
    }  # fmt: skip
    asked = settle_area("scalemae", **{k: v for k, v in request.items() if k != "output"})
    with pytest.raises(KeyboardInterrupt), AreaRun(request["output"], asked) as run:
        run.run(measured=interrupt)
    save_file(small_network(seed=8).state_dict(), weights / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"under the same name; bring those back, or begin"):
        embed_area("scalemae", **request)


def interrupt(_: Any) -> None:
    raise KeyboardInterrupt


# --- disk and files ------------------------------------------------------------------------


LIMITED = f"""
import resource, sys

def limit(event, arguments):
    path = str(arguments[0]) if arguments else ""
    if "/" in path and path.endswith({{ending}}):
        resource.setrlimit(resource.RLIMIT_FSIZE, ({{size}}, {{size}}))

sys.addaudithook(limit)
{CODE}
"""


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
@pytest.mark.parametrize(
    ("name", "ending", "size"),
    [
        ("map.zarr", ".partial", 40_000),
        ("map.zarr", ".writing", 10_000),
        ("map.tif", ".unordered", 10_000),
        ("map.tif", ".unordered", 40_000),
    ],
)
def test_a_full_disk_keeps_what_is_done(
    environment: dict[str, str], write_scene: Callable[..., Path], folder: Path, name: str,
    ending: str, size: int,
) -> None:  # fmt: skip
    """The limit on file sizes fails a write where a full disk does, in the operating system.

    It is there from when a path of that ending is first touched.
    """
    noise = np.random.default_rng(1).integers(1, 9999, (3, 256, 256), dtype=np.uint16)
    command = ["map", "--imagery", str(write_scene(noise)), "--model", "slow",
               "-o", str(folder / name), "--stride-px", "4", "--overlap-px", "0"]  # fmt: skip
    full = subprocess.run(
        [sys.executable, "-c", LIMITED.format(ending=repr(ending), size=size), *command],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert full.returncode == 1, full.stderr
    last = full.stderr.splitlines()[-1]
    assert re.match(rf"error: cannot write {folder}/{name}", last), full.stderr
    assert "Traceback" not in full.stderr
    assert names(folder) == [f"{name}.partial"]
    found = re.search(
        r"stopped: (\d+) of 16 windows are kept; the same command goes on", full.stderr
    )
    assert found
    kept = int(found[1])
    assert 0 < kept < 16 if ending == ".partial" else kept == 16
    again = subprocess.run(
        [sys.executable, "-c", CODE, *command, "--json"], env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["resumed"] == kept
    assert names(folder) == [name]


def test_places_that_cannot_be_written(
    coordinate_model: list[Any], scene: Path, folder: Path
) -> None:
    for output, kind, message in (
        (folder / "gone" / "map.zarr", ExportError, "there is no folder"),
        (folder / "map.png", UnknownNameError, r"file type of a map '.png', expected one of .tif"),
    ):
        with pytest.raises(kind, match=message):
            embed_area("coordinates", imagery=scene, output=output)
    partial = folder / "map.zarr.partial"
    partial.mkdir()
    with pytest.raises(ExportError, match="it is a folder"):
        embed_area("coordinates", imagery=scene, output=folder / "map.zarr")
    partial.rmdir()
    with closing(sqlite3.connect(partial)) as database:
        database.execute("CREATE TABLE mine (a)")
    with pytest.raises(ExportError, match="is a database, but no journal of rs_embed"):
        embed_area("coordinates", imagery=scene, output=folder / "map.zarr")
    assert names(folder) == ["map.zarr.partial"]
    assert not coordinate_model


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder(coordinate_model: Any, scene: Path, folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(ExportError, match="is read-only"):
        embed_area("coordinates", imagery=scene, output=folder / "map.zarr")


def kept_windows(scene: Path, out: Path) -> AreaRun:
    """Keep some windows, as an interrupted run does; return the run, closed."""
    with (
        pytest.raises(KeyboardInterrupt),
        AreaRun(out, settle_area("coordinates", imagery=scene)) as run,
    ):
        run.run(measured=interrupt)
    return run


@pytest.mark.parametrize("damage", ["vector", "meta", "truncated", "text", "empty"])
def test_damaged_windows_are_named_and_never_used(
    coordinate_model: Any, scene: Path, folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    out = folder / "map.zarr"
    partial = kept_windows(scene, out).journal_path
    content = bytearray(partial.read_bytes())
    if damage == "vector":
        with closing(sqlite3.connect(partial)) as database:
            (vector,) = database.execute("SELECT vector FROM result WHERE key = '0 6'").fetchone()
        content[content.index(vector) + 40] ^= 1
    elif damage == "meta":
        at = content.index(b'"input_res": ')
        content[at + 13 : at + 14] = b"7"
    content = {"truncated": content[: len(content) * 2 // 3], "text": bytearray(b"notes" * 99),
               "empty": bytearray()}.get(damage, content)  # fmt: skip
    partial.write_bytes(content)
    if damage == "empty":  # as a run leaves it that is killed before it has begun
        assert embed_area("coordinates", imagery=scene, output=out).resumed == 0
        return
    with pytest.raises(ExportError, match=r"is no journal of rs_embed, or is damaged"):
        embed_area("coordinates", imagery=scene, output=out)
    # Refused again: nothing holds the file, and nothing was made of it.
    with pytest.raises(ExportError, match=r"is no journal of rs_embed, or is damaged"):
        embed_area("coordinates", imagery=scene, output=out)
    assert names(folder) == ["map.zarr.partial"]
    assert embed_area("coordinates", imagery=scene, output=out, overwrite=True).resumed == 0
    assert names(folder) == ["map.zarr"]


# --- windows that fail ---------------------------------------------------------------------


@pytest.fixture
def run_map(tmp_path: Path) -> Callable[..., Result]:
    def run(*args: str) -> Result:
        return CliRunner().invoke(app, ["map", *args])

    return run


@pytest.mark.parametrize("suffix", ["zarr", "tif"])
def test_a_broken_block_fails_the_windows_that_it_hits(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path,
    run_map: Callable[..., Result], suffix: str,
) -> None:  # fmt: skip
    tiled = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    path = write_scene(coordinate_scene(320, 400), interleave="pixel", **tiled)
    clean, out = folder / f"clean.{suffix}", folder / f"map.{suffix}"
    embed_area("coordinates", imagery=path, output=clean)
    with rasterio.open(path) as file:
        offset, size = (
            int(file.get_tag_item(f"BLOCK_{what}_2_1", "TIFF", bidx=1))
            for what in ("OFFSET", "SIZE")
        )
    whole = path.read_bytes()
    stamp = path.stat()
    content = bytearray(whole)
    content[offset : offset + size] = b"\xff" * size
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    command = ("--imagery", str(path), "--model", "coordinates", "-o", str(out))
    done = run_map(*command, "--json")
    assert done.exit_code == 1, done.output
    # Windows of 64 px, 48 px apart, the last ones shifted inward; the block is rows 64..128 and
    # columns 128..192.
    starts = [[*range(0, side - 64, 48), side - 64] for side in (320, 400)]
    hit = [
        (row, column)
        for row in starts[0]
        for column in starts[1]
        if row < 128 and row + 64 > 64 and column < 192 and column + 64 > 128
    ]
    bounds = {
        (400000 + 10 * column, 5200000 - 10 * (row + 64), 400000 + 10 * (column + 64),
         5200000 - 10 * row)
        for row, column in hit
    }  # fmt: skip
    report = json.loads(done.stdout)
    assert {tuple(failure["bounds"]) for failure in report["failed"]} == bounds
    touched = np.zeros((20, 25), dtype=bool)
    covered = np.zeros((20, 25), dtype=bool)
    for row in starts[0]:
        for column in starts[1]:
            part = np.s_[row // 16 : row // 16 + 4, column // 16 : column // 16 + 4]
            (touched if (row, column) in hit else covered)[part] = True
    with_failure, without = open_map(out).values, open_map(clean).values
    np.testing.assert_array_equal(with_failure[:, ~touched], without[:, ~touched])
    assert np.isnan(with_failure[:, ~covered]).all()
    known = touched & covered
    np.testing.assert_allclose(with_failure[:, known], without[:, known], atol=1e-3)
    assert report["valid_tokens"] == int(covered.sum()) < report["tokens"] == 500
    meta = json.loads(open_map(out).attrs["meta"])
    assert meta["tiles"]["failed"] == len(hit)
    assert meta["tiles"]["empty"] == 0
    assert (folder / f"map.{suffix}.partial").exists()
    coordinate_model.clear()
    again = run_map(*command)
    assert again.exit_code == 1
    assert again.output.count("failed 4") == min(len(hit), 10)
    assert "tries the failed windows again" in again.output
    assert f"{len(starts[0]) * len(starts[1])} windows, " in again.output
    path.write_bytes(whole)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    mended = run_map(*command)
    assert mended.exit_code == 0, mended.output
    assert sum(int(call[0]) for call in coordinate_model) == len(hit)
    np.testing.assert_array_equal(open_map(out).values, without)
    assert not (folder / f"map.{suffix}.partial").exists()


def test_all_windows_left_may_fail_again(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    """A map whose last windows cannot be read is written all the same, however often."""
    path = write_scene(coordinate_scene(64, 1200), name="S2_20220704.tif")
    last = 400000 + 10 * 1030

    def east(grid: Any) -> ProviderError | None:
        return ProviderError("the server is tired") if grid.bounds[2] > last else None

    asked = {"spatial": box(4, 4, 56, 1180), "output": folder / "map.zarr"}
    reports = [
        embed_area("coordinates", backend=Faulty(path, east), **asked)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    first, second = reports
    assert first.failed == second.failed
    assert set(first.failed.values()) == {"the server is tired"}
    assert second.resumed == first.windows - len(first.failed) > 0
    assert first.valid_tokens == second.valid_tokens > 0
    third = embed_area("coordinates", backend=LocalProvider(path), **asked)  # type: ignore[arg-type]
    assert not third.failed
    embed_area("coordinates", backend=LocalProvider(path),
               **asked | {"output": folder / "clean.zarr"})  # type: ignore[arg-type]  # fmt: skip
    np.testing.assert_allclose(
        open_map(folder / "map.zarr").values, open_map(folder / "clean.zarr").values, atol=1e-5
    )
    assert names(folder) == ["clean.zarr", "clean.zarr.json", "map.zarr", "map.zarr.json"]


def test_nothing_that_can_be_read_is_one_error_and_leaves_nothing(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    path = write_scene(coordinate_scene(64, 200), name="S2_20220704.tif")
    down = Faulty(path, lambda _: ProviderError("the server is down"))
    with pytest.raises(ProviderError, match="the server is down"):
        embed_area("coordinates", backend=down, spatial=box(4, 4, 56, 180),
                   output=folder / "map.zarr")  # fmt: skip
    assert len(down.fetched) <= 5
    assert names(folder) == []


def test_a_window_that_the_model_refuses_fails_alone(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    # In Mercator each row of windows is told another GSD, the most southern one the largest.
    transform = Affine(4000, 0, 222000, 0, -4000, 7000000)
    scene = write_scene(coordinate_scene(256, 64), crs="EPSG:3857", transform=transform)
    request: dict[str, Any] = {"imagery": scene, "output": folder / "map.zarr", "overlap_px": 0}
    embed_area("coordinates", **request)
    *_, third, last = (value for call in coordinate_model for value in call[4:])
    assert last > third
    limit = (third + last) / 2
    report = embed_area("coordinates", refuse=limit, overwrite=True, **request)
    assert list(report.failed.values()) == ["refused"]
    ((left, _, _, top),) = report.failed
    assert (left, top) == (222000, 7000000 - 4000 * 192)
    values = open_map(folder / "map.zarr").values
    assert np.isfinite(values[:, :12]).all()
    assert np.isnan(values[:, 12:]).all()


def test_warnings_of_windows_are_kept_over_a_resume(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    pixels = coordinate_scene(96, 400)
    pixels[:, 5, ::40] = 60000  # no reflectance, in windows of the first row
    scene = write_scene(pixels)
    with pytest.warns(ImageryWarning, match="values that no reflectance has"):
        embed_area("coordinates", imagery=scene, output=folder / "a.zarr")
    partial = kept_windows(scene, folder / "b.zarr").journal_path
    assert partial.exists()
    with pytest.warns(ImageryWarning, match="values that no reflectance has") as given:
        embed_area("coordinates", imagery=scene, output=folder / "b.zarr")
    assert sum("no reflectance" in str(warning.message) for warning in given) == 1
    assert digests(folder / "a.zarr") == digests(folder / "b.zarr")


# --- areas ---------------------------------------------------------------------------------


def polygon_file(path: Path, *geometries: Any, layer: str = "a", crs: str = "EPSG:32633") -> Path:
    """Write polygons of pixels' places in a CRS as a layer of a GeoPackage."""
    import pyogrio.raw
    import shapely

    pyogrio.raw.write(
        path, np.array([shapely.to_wkb(g) for g in geometries], dtype=object), [], [],
        layer=layer, driver="GPKG", geometry_type="Polygon", crs=crs, append=path.exists(),
    )  # fmt: skip
    return path


def pixels_box(row: int, column: int, height: int, width: int) -> Any:
    import shapely

    left, top = NORTH_UP @ (column, row)
    right, bottom = NORTH_UP @ (column + width, row + height)
    return shapely.box(left, bottom, right, top)


def mirrored_order(place: BBox) -> Any:
    """Return the box as someone draws it who gives latitude first."""
    import shapely

    return shapely.box(place.minlat, place.minlon, place.maxlat, place.maxlon)


def test_components_that_tokens_cannot_have_cost_no_window(
    checkpoint: Path, scene: Path, folder: Path
) -> None:
    request: dict[str, Any] = {
        "imagery": scene, "weights": str(checkpoint), "image_size": 64,
        "output": folder / "map.zarr",
    }  # fmt: skip
    with pytest.raises(SpecError, match="got pca=49 for tokens of 48 dimensions"):
        embed_area("scalemae", **request, pca=49)
    assert names(folder) == []
    assert embed_area("scalemae", **request, pca=48).resumed == 0


def test_bad_areas_are_named(
    coordinate_model: list[Any], scene: Path, folder: Path, tmp_path: Path
) -> None:
    import shapely

    bow_tie = shapely.Polygon([(400100, 5199900), (400900, 5199100), (400900, 5199900),
                               (400100, 5199100)])  # fmt: skip
    two = polygon_file(tmp_path / "two.gpkg", pixels_box(10, 10, 60, 60))
    polygon_file(two, shapely.box(13, 46, 14, 47), layer="b", crs="EPSG:4326")
    cases: list[tuple[dict[str, Any], type[RsEmbedError], str]] = [
        ({"spatial": polygon_file(tmp_path / "far.gpkg", pixels_box(5000, 5000, 60, 60))},
         ImageryError, "lies outside the imagery"),
        ({"spatial": polygon_file(tmp_path / "bow.gpkg", bow_tie)}, SpecError, "[Ss]elf-inters"),
        ({"spatial": two}, SpecError, "layer"),
        ({"spatial": two, "layer": "c"}, SpecError, "'?c'?"),
        ({"spatial": 7}, SpecError, "got .*7|int"),
        ({"spatial": [1, 2, 3, 4]}, SpecError, "got"),
        ({"layer": "a"}, SpecError, "without a file of polygons"),
        ({"dtype": "float64"}, UnknownNameError, "float64"),
        ({"seams": "blur"}, UnknownNameError, "unknown seams 'blur', expected one of blend"),
        ({"overlap_px": 20}, SpecError, "overlap_px=20, expected a multiple of the patch size 16"),
        ({"tile_size": 100}, SpecError, "tile_size=100, expected a multiple of the patch size 16"),
        ({"stride_px": 5}, SpecError, "stride_px=5, expected one of 2, 4, 8, 16"),
        ({"overlap_px": 64}, SpecError, "overlap_px=64 for tiles of 64 px, expected less"),
        ({"pca": 0}, SpecError, "pca"),
        ({"pca": 2000}, SpecError, "got pca=2000 for a map of 150 tokens"),
        ({"spatial": mirrored_order(box(10, 10, 60, 60))}, ImageryError,
         "outside the imagery, which .* longitude and latitude swapped they would lie there"),
        ({"stride": 4}, UnknownNameError, "argument of embed_area 'stride', .* 'stride_px'"),
    ]  # fmt: skip
    for given, kind, message in cases:
        with pytest.raises(kind, match=message):
            embed_area("coordinates", imagery=scene, output=folder / "map.zarr", **given)
    assert names(folder) == []
    assert not coordinate_model


def test_bad_imagery_is_named_before_the_model_is_loaded(
    write_scene: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    # Its sizes are known, the network cannot be loaded.
    (weights / "config.json").write_text("{}")
    (weights / "model.safetensors").write_bytes(b"nothing")
    values = coordinate_scene(96, 96)
    degrees = Affine(0.0001, 0, 13, 0, -0.0001, 46)
    cases: list[tuple[Path, type[RsEmbedError], str]] = [
        (write_scene((values / 10000).astype(np.float32), name="unit.tif"),
         ImageryError, "reflectance"),
        (write_scene(values[:, :5, :5], name="five.tif"), ImageryError, "imagery of 5 x 5 px"),
        (write_scene(values, crs="EPSG:4326", transform=degrees, name="degrees.tif"), GridError,
         "gdalwarp"),
        (write_scene(values, crs=None, name="nowhere.tif"), ImageryError, "CRS"),
        (write_scene(values * 0, nodata=0, name="nodata.tif"), ImageryError,
         "no valid pixel in any of the 4 windows"),
        (tmp_path / "gone.tif", ImageryError, "gone.tif"),
    ]  # fmt: skip
    for path, kind, message in cases:
        with pytest.raises(kind, match=message):
            embed_area("scalemae", imagery=path, output=folder / "map.zarr", image_size=64,
                       weights=str(weights))  # fmt: skip
        assert names(folder) == []


def test_options_that_contradict_each_other_on_the_command_line(
    run_map: Callable[..., Result], scene: Path, folder: Path, tmp_path: Path, coordinate_model: Any
) -> None:
    area = polygon_file(tmp_path / "area.gpkg", pixels_box(10, 10, 60, 60))
    common = ("--imagery", str(scene), "--model", "coordinates", "-o", str(folder / "map.zarr"))
    for args, message in (
        (("--area", str(area), "--bbox", "13,46,14,47"), "got --area with a point or --bbox"),
        (("--min-valid", "0.5"), "got --min-valid 0.5 for a map"),
        (("--bbox", "13,46,14"), "expected minlon,minlat,maxlon,maxlat"),
    ):
        done = run_map(*common, *args)
        assert done.exit_code == 1
        assert isinstance(done.exception, SpecError)
        assert message in str(done.exception)
    assert names(folder) == []


def test_polygons_of_another_crs_and_far_parts(
    coordinate_model: list[Any], write_scene: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    """Rows of windows between the parts are not read: they are nodata, and none is missing."""
    import shapely

    path = write_scene(coordinate_scene(1400, 1200))
    near, far = pixels_box(40, 60, 30, 50), pixels_box(1300, 1100, 40, 40)
    to_mercator = Transformer.from_crs("EPSG:32633", "EPSG:3857", always_xy=True)
    parts = [
        shapely.transform(part, lambda at: np.column_stack(to_mercator.transform(*at.T)))
        for part in (near, far)
    ]
    area = polygon_file(tmp_path / "area.gpkg", *parts, crs="EPSG:3857")
    report = embed_area("coordinates", imagery=path, spatial=area, output=folder / "map.zarr")
    assert report.windows < 12
    found = open_map(folder / "map.zarr")
    known = ~np.isnan(found.values[0])
    assert report.tokens == report.valid_tokens == known.sum()
    inside = [
        [
            any(shapely.box(x - 80, y - 80, x + 80, y + 80).intersection(part).area > 100
                for part in (near, far))
            for x in found.x.values
        ]
        for y in found.y.values
    ]  # fmt: skip
    assert (known | ~np.array(inside)).all()
    assert known.sum() <= np.sum(inside) + 12  # edges bend a little between the CRSs
    whole = embed_area("coordinates", imagery=path, output=folder / "all.zarr", overlap_px=0)
    assert whole.windows > 400
    large = open_map(folder / "all.zarr").sel(x=found.x, y=found.y, method="nearest", tolerance=81)
    offset = (large.x.values - found.x.values, large.y.values - found.y.values)
    if not np.abs(np.concatenate(offset)).max():
        np.testing.assert_allclose(found.values[:, known], large.values[:, known], atol=1e-3)


def test_an_area_below_a_window_sees_its_surroundings(
    checkpoint: Path, write_scene: Callable[..., Path], folder: Path
) -> None:
    pixels = np.random.default_rng(2).integers(300, 4000, (3, 160, 192), dtype=np.uint16)
    scene = write_scene(pixels)
    options: dict[str, Any] = {"weights": str(checkpoint), "image_size": 64}
    shape = pixels_box(64, 80, 16, 32)
    to_degrees = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    import shapely

    def degrees(part: Any) -> Any:
        shrunk = shapely.segmentize(shapely.buffer(part, -0.1), 40)
        return shapely.transform(shrunk, lambda at: np.column_stack(to_degrees.transform(*at.T)))

    with pytest.warns(CoverageWarning, match="area of 16 x 32 px is smaller than a window of 64"):
        embed_area("scalemae", imagery=scene, spatial=degrees(shape), output=folder / "a.zarr",
                   **options)  # fmt: skip
    found = open_map(folder / "a.zarr")
    # One patch more below than above, and as many to both sides.
    crop = pixels[:, 48:112, 64:128]
    grid = get_embedding(
        "scalemae", input_chw=crop, fetch=FetchSpec(scale_m=10), input_prep=InputPrepSpec.tile(),
        output=OutputSpec.grid(), **options,
    ).data.values  # fmt: skip
    np.testing.assert_allclose(found.values, grid[:, 1:2, 1:3], atol=1e-5)
    x, y = NORTH_UP @ (88, 72)
    assert (found.x.values[0], found.y.values[0]) == (x, y)
    with pytest.warns(CoverageWarning, match="area of 16 x 16 px is smaller than a window"):
        report = embed_area("scalemae", imagery=scene, spatial=degrees(pixels_box(70, 90, 1, 1)),
                            output=folder / "pixel.zarr", **options)  # fmt: skip
    assert (report.windows, report.tokens, report.valid_tokens) == (1, 1, 1)
    with pytest.warns(CoverageWarning, match="only 48 x 48 px of imagery for windows of 64 px"):
        embed_area("scalemae", imagery=write_scene(pixels[:, :48, :48], name="small.tif"),
                   output=folder / "small.zarr", **options)  # fmt: skip
    assert open_map(folder / "small.zarr").shape[1:] == (3, 3)


# --- what a map says of itself -------------------------------------------------------------


def meta_of(path: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(
        open_map(path).attrs["meta"], parse_constant=lambda name: pytest.fail(name)
    )
    return meta


def test_the_fingerprint_tells_what_determines_a_map(
    checkpoint: Path, write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pixels = np.random.default_rng(2).integers(300, 4000, (3, 112, 112), dtype=np.uint16)
    other = pixels.copy()
    other[1, 50, 60] += 500
    scene = write_scene(pixels)
    changes: list[dict[str, Any]] = [
        {}, {"display": "visual"}, {"gsd": 3.0}, {"stride_px": 8}, {"overlap_px": 32},
        {"tile_size": 80}, {"seams": "discard"},
        {"tokens": "pre_norm"}, {"imagery": write_scene(other, name="other.tif")},
    ]  # fmt: skip

    def fingerprint(**given: Any) -> str:
        out = folder / f"{len(names(folder))}.zarr"
        embed_area("scalemae", output=out, **{
            "imagery": scene, "weights": str(checkpoint), "image_size": 64, **given,
        })  # fmt: skip
        return str(meta_of(out)["fingerprint"])

    found = [fingerprint(**change) for change in changes]
    assert len(set(found)) == len(changes)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "1")
    assert fingerprint(device="cpu") == found[0]
    assert fingerprint(dtype="int8", pca=2) == found[0]  # the same tokens, stored otherwise


def test_a_map_says_how_it_was_made(
    coordinate_model: Any, write_scene: Callable[..., Path], folder: Path
) -> None:
    path = write_scene(coordinate_scene(128, 160), name="S2_20220704.tif")
    report = embed_area(
        "coordinates", backend=LocalProvider(path), spatial=box(20, 20, 90, 120),
        output=folder / "map.tif",
    )  # fmt: skip
    meta = meta_of(folder / "map.tif")
    expected = {
        "model", "weights", "backend", "sensor", "temporal", "source", "grid", "gsd_m", "input_res",
        "display", "tiles", "source_items", "request", "warnings", "fingerprint", "dimensions",
        "rs_embed_version", "encoding",
    }  # fmt: skip
    assert expected <= meta.keys()
    assert (meta["model"], meta["dimensions"], meta["backend"]) == ("coordinates", 3, "local")
    assert meta["gsd_m"] == meta["input_res"] == pytest.approx(10)
    assert meta["gsd_m_range"] == meta["input_res_range"] == pytest.approx([10, 10])
    assert len(meta["source_items"]) == 1
    assert meta["tiles"]["count"] == report.windows
    assert any("default was taken" in text for text in meta["warnings"])


def test_output_without_patches_is_an_error_at_once(
    install: Callable[..., Path], write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    install(
        "pooling", "[rs_embed.models]\npooled = pooled_model:MODEL\n",
        pooled_model="""
        from dataclasses import replace
        from tests.coordinate_model import CoordinateEncoder, CoordinateModel, CoordinatePlan

        class Encoder(CoordinateEncoder):
            def encode(self, pixels, input_res_m):
                return replace(super().encode(pixels, input_res_m), patches=None)

        class Plan(CoordinatePlan):
            def load(self):
                return Encoder(64, Model.log)

        class Model(CoordinateModel):
            log = []
            def plan(self, options, **given):
                return Plan(**vars(super().plan(options, **given)))

        MODEL = Model()
        """,
    )  # fmt: skip
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    scene = write_scene(coordinate_scene(96, 400))
    with pytest.raises(ModelError, match="without patch tokens, which makes no map"):
        embed_area("pooled", imagery=scene, output=folder / "map.zarr")
    module = sys.modules["pooled_model"]
    assert sum(int(call[0]) for call in module.Model.log) == 2
    assert names(folder) == []
