"""Maps survive every end: killed, interrupted, out of disk, damaged files."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil
from affine import Affine
from typer.testing import CliRunner

from rs_embed import (
    BBox,
    LocalProvider,
    embed_area,
    open_map,
)
from rs_embed.cli import app
from rs_embed.embedding.stac import item_path
from rs_embed.errors import (
    CheckpointError,
    ExportError,
    ProviderError,
    UnknownNameError,
)
from rs_embed.maps.request import settle_area
from rs_embed.maps.run import map_run
from rs_embed.runs.journal import JournalResult
from tests.conftest import python_environment
from tests.coordinate_model import coordinate_scene
from tests.map_cases import Faulty, box, interrupted, kept_windows, names
from tests.map_worker import ATTEMPTS_S, digests
from tests.processes import WAIT_S, completed, errors_of, running
from tests.threads import at_work

pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.TemporalWarning"),
    pytest.mark.filterwarnings("ignore:cloudy_pct:rs_embed.ImageryWarning"),
]
ROOT = Path(__file__).parents[1]
CODE = "from rs_embed.cli import main; main()"
NORTH_UP = Affine(10, 0, 400000, 0, -10, 5200000)


@pytest.fixture
def environment(install: Callable[..., Path], tmp_path: Path) -> dict[str, str]:
    """Environment of a process with the model ``slow``, two windows at once."""
    installed = install("slowness", "[rs_embed.models]\nslow = tests.map_worker:MODEL\n")
    variables = python_environment(
        RS_EMBED_SCALEMAE_BATCH_SIZE="2",
        IMAGES_SEEN=str(tmp_path / "seen"),
        TMPDIR=str(tmp_path),
    )
    paths = [str(ROOT), str(installed), variables["PYTHONPATH"]]
    return {**variables, "PYTHONPATH": os.pathsep.join(paths)}


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=WAIT_S)
    return process.returncode, out, err


# --- killed --------------------------------------------------------------------------------


@pytest.mark.fault
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    ("name", "what", "more"),
    [
        ("map.zarr", "random", []),
        pytest.param(*("map.tif", "random", []), marks=pytest.mark.long),
        pytest.param(*("vectors.npz", "random", []), marks=pytest.mark.long),
        pytest.param(*("vectors.npz", "steps", [1]), marks=pytest.mark.long),
        ("vectors.parquet", "random", []),
        ("vectors.parquet", "steps", [1]),
        pytest.param(*("vectors.csv", "steps", [2]), marks=pytest.mark.long),
        pytest.param(*("map.zarr", "steps", [19]), marks=pytest.mark.long),
        ("map.tif", "steps", [2]),
        ("harmonised.tif", "steps", [2]),
        ("map.zarr", "steps", [11, signal.SIGINT]),
        pytest.param(*("map.tif", "steps", [2, signal.SIGINT]), marks=pytest.mark.long),
        ("local://map.zarr", "steps", [7]),
        ("local://vectors.parquet", "steps", [1]),
        pytest.param(*("local://vectors.npz", "steps", [1, signal.SIGINT]), marks=pytest.mark.long),
    ],
)
def test_ended_at_any_moment_it_comes_to_the_same_bytes(
    environment: dict[str, str], dated: Path, folder: Path, tmp_path: Path, name: str, what: str,
    more: list[int], often: Callable[[int, int], int], tell: Callable[[str], None],
) -> None:  # fmt: skip
    area = box(20, 20, 88, 392 if what == "random" else 120)
    bbox = [area.minlon, area.minlat, area.maxlon, area.maxlat]
    store, name = name[: -len(name.split("/")[-1])], name.split("/")[-1]
    places = name.startswith("vectors")
    request = {
        "local": str(dated), "bbox": bbox, "output": f"{store}{folder / name}",
        **({"count": 12 if what == "random" else 6} if places else {"dtype": "int8"}),
        **({"seams": "harmonise"} if name.startswith("harmonised") else {}),
    }  # fmt: skip
    most_s = often(ATTEMPTS_S, 10 * ATTEMPTS_S)
    if what == "random":
        more = [often(3, 60)]
    elif often(0, 1):
        more = [1, *more[1:]]
    seconds = "0.02" if what == "random" else "0"
    done = completed(
        "-m", "tests.map_worker", what, json.dumps(request), *map(str, map(int, more)),
        env=environment | {"SECONDS": seconds, "ATTEMPTS_S": str(most_s)}, wait_s=most_s + WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    expected, windows, report = printed["files"], printed["windows"], printed["report"]
    beside = {item_path(Path(name)).name, *([f"{name}.md"] if places else [])}
    beside = set() if name.endswith(".npz") else beside
    assert {path.split("/")[0] for path in expected} == {name} | beside
    if what == "random":
        kills, outcomes = report
        assert kills >= more[0]
        # A kill costs at most the group that was under way.
        most = len(outcomes) * windows + 2 * kills
        assert len(outcomes) * windows <= (tmp_path / "seen").stat().st_size <= most
        where = "at random moments"
    else:
        kills, outcomes = len(report), report
        assert kills > 5
        where = f"before every {more[0]}. step"
    how = "Ctrl-C" if signal.SIGINT in more else "killed"
    odd = sum(outcome != expected for outcome in outcomes)
    tell(f"{name}: {how} {kills} times {where}, continued: {odd} outcomes of other bytes")
    assert not odd


# --- interrupted ---------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(
    environment: dict[str, str], scene: Path, folder: Path, tmp_path: Path
) -> None:
    out = folder / "map.zarr"
    command = ["-c", CODE, "map", "--imagery", str(scene), "--model", "slow",
               "--acquired", "2022-07-04", "-o", str(out)]  # fmt: skip
    seen = tmp_path / "seen"
    with running(*command, "--overwrite", env=environment | {"PAUSE_AFTER": "6"}) as process:
        while not seen.exists() or seen.stat().st_size < 6:
            assert process.poll() is None, errors_of(process)
            time.sleep(0.02)
        with running(*command, env=environment) as second:
            code, _, err = finished(second)
        assert code == 1
        (line,) = err.splitlines()
        assert line.startswith(f"error: {out}.partial is in use by another process; wait for it")
        process.send_signal(signal.SIGINT)
        code, printed, err = finished(process)
    assert (code, printed) == (130, "")
    first, *told, last = err.splitlines()
    assert first == "16 windows for 6 x 25 tokens"
    assert [line[:16] for line in told] == ["10 windows left:"]
    assert last == (
        "interrupted: 6 of 16 windows are kept; run it again without overwrite to continue"
    )
    assert names(folder) == ["map.zarr.partial"]
    with running(*command, "--json", env=environment) as again:
        code, printed, err = finished(again)
    assert code == 0, err
    assert err.splitlines()[0] == "resuming: 6 of 16 windows are done"
    report = json.loads(printed)
    assert (report["resumed"], report["windows"]) == (6, 16)
    assert names(folder) == ["map.zarr", "map.zarr.json"]


def test_an_interrupted_reader_leaves_no_thread_and_no_window_is_made_twice(
    coordinate_model: list[tuple[float, ...]], write_scene: Callable[..., Path], folder: Path
) -> None:
    before = at_work()
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
    assert not at_work() - before
    first = sum(int(call[0]) for call in coordinate_model)
    assert 8 < first < windows
    report = embed_area(
        "coordinates", output=folder / "b.zarr", backend=LocalProvider(path), **request
    )
    assert report.resumed == first == windows - sum(int(c[0]) for c in coordinate_model) + first
    del report
    one, other = (digests(folder / name) for name in ("a.zarr", "b.zarr"))
    assert one == other


def test_windows_that_failed_before_come_last(
    coordinate_model: list[tuple[float, ...]], write_scene: Callable[..., Path], folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The others go through the model in the groups of a run in which no window has failed."""
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "3")
    path = write_scene(coordinate_scene(64, 1200), name="S2_20220704.tif")
    out, area = folder / "map.zarr", box(4, 4, 56, 1180)

    def two_in_the_west(grid: Any) -> ProviderError | None:
        return ProviderError("the server is tired") if grid.bounds[0] < 400600 else None

    faulty = Faulty(path, two_in_the_west)
    with interrupted():
        embed_area("coordinates", spatial=area, backend=faulty, output=out)
    kept = sum(int(group[0]) for group in coordinate_model)
    coordinate_model.clear()
    report = embed_area("coordinates", spatial=area, backend=LocalProvider(path), output=out)
    assert (report.resumed, report.failed) == (kept, {})
    # Groups are cut by the position in the area: the last two of 50, and then those that failed.
    assert report.windows == 50
    groups = [int(group[0]) for group in coordinate_model]
    assert groups == [3] * ((50 - kept - 4) // 3) + [2, 2]


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
    with map_run(request["output"], settle_area("scalemae", **settled)) as run:
        run.keep([JournalResult("0 0", np.zeros(16 * 48, np.float32), {}, None)])
    return request


def write_area(path: Path, *boxes: BBox) -> None:
    import shapely

    shapes = [shapely.box(b.minlon, b.minlat, b.maxlon, b.maxlat) for b in boxes]
    path.write_text(shapely.to_geojson(shapely.MultiPolygon(shapes)))


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "weights": ({"weights": "random-init"}, 'weights was "'),
    "display": ({"display": "visual"}, r'display was "reflectance", is now "visual"'),
    "tile size": ({"tile_size": 80}, "tile_size was 64, is now 80"),
    "overlap": ({"overlap_px": 32}, "overlap_px was 16, is now 32"),
    "stride": ({"stride_px": 8}, "stride_px was 16, is now 8"),
    "seams": ({"seams": "discard"}, 'seams was "harmonise", is now "discard"'),
    "gsd": ({"gsd": 3.5}, 'gsd was "metres", is now 3.5'),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_request_is_refused_and_the_difference_named(
    stopped: dict[str, Any], folder: Path, name: str
) -> None:
    changed, message = CHANGES[name]
    before = digests(folder)
    with pytest.raises(ExportError, match=rf"started with another request .*{message}"):
        embed_area("scalemae", **stopped | changed)
    assert digests(folder) == before


def test_another_area_file_imagery_or_environment_is_refused(
    stopped: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = stopped["spatial"]
    whole = area.read_text()
    write_area(area, box(20, 20, 90, 100))
    with pytest.raises(
        ExportError,
        match=r'area was "6 x 8 cells from 400160, .* now "6 x 7 cells from 400140, ',
    ):
        embed_area("scalemae", **stopped)
    area.write_text(whole)
    from rs_embed import TemporalSpec

    with pytest.raises(ExportError, match='temporal.start was "2022-06-01", is now "2022-07-01"'):
        embed_area("scalemae", temporal=TemporalSpec.range("2022-07-01", "2022-08-01"), **stopped)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "128")
    unsized = {k: v for k, v in stopped.items() if k != "image_size"}
    with pytest.raises(ExportError, match="options.image_size was 64, is now 128"):
        embed_area("scalemae", **unsized, tile_size=64)
    monkeypatch.delenv("RS_EMBED_SCALEMAE_IMG")
    imagery = {"imagery": stopped["backend"]._root}
    without = {k: v for k, v in stopped.items() if k != "backend"}
    with pytest.raises(ExportError, match="imagery was not given"):
        embed_area("scalemae", **without | imagery)
    assert names(folder) == ["map.zarr.partial"]


def test_imagery_that_was_replaced_is_refused(
    coordinate_model: Any, scene: Path, folder: Path
) -> None:
    out = folder / "map.zarr"
    with map_run(out, settle_area("coordinates", imagery=scene)) as run:
        run.keep([JournalResult("0 0", np.zeros(48, np.float32), {}, None)])
    os.utime(scene, (1, 1))
    with pytest.raises(ExportError, match=r"imagery\.modified"):
        embed_area("coordinates", imagery=scene, output=out)
    report = embed_area("coordinates", imagery=scene, output=out, overwrite=True)
    assert report.resumed == 0
    assert names(folder) == ["map.zarr"]


def test_looking_at_imagery_does_not_make_it_another_but_other_nodata_does(
    coordinate_model: Any, scene: Path, folder: Path
) -> None:
    out = folder / "map.zarr"
    with map_run(out, settle_area("coordinates", imagery=scene)) as run:
        run.keep([JournalResult("0 0", np.zeros(48, np.float32), {}, None)])
    beside = scene.with_name(f"{scene.name}.aux.xml")
    statistics = '<MDI key="STATISTICS_MEAN">1</MDI>'
    band = '<PAMDataset><PAMRasterBand band="1">{}</PAMRasterBand></PAMDataset>'
    beside.write_text(band.format(f"<Metadata>{statistics}</Metadata>"))
    with map_run(out, settle_area("coordinates", imagery=scene)) as run:
        assert run.resumed == 1
    beside.write_text(band.format("<NoDataValue>7</NoDataValue>"))
    with pytest.raises(ExportError, match=r"imagery\.read_with_it"):
        embed_area("coordinates", imagery=scene, output=out)


@pytest.mark.parametrize("change", ["source", "mask"])
def test_a_vrt_whose_source_was_replaced_is_refused(
    coordinate_model: Any, scene: Path, folder: Path, tmp_path: Path, change: str
) -> None:
    imagery = tmp_path / "scene.vrt"
    rasterio.shutil.copy(scene, imagery, driver="VRT")
    out = folder / "map.zarr"
    with map_run(out, settle_area("coordinates", imagery=imagery)) as run:
        run.keep([JournalResult("0 0", np.zeros(48, np.float32), {}, None)])
    with map_run(out, settle_area("coordinates", imagery=imagery)) as run:
        assert run.resumed == 1
    if change == "source":
        os.utime(scene, (1, 1))
    else:
        shutil.copy(scene, f"{imagery}.msk")
    with pytest.raises(ExportError, match=r"imagery\.read_with_it was .* is now \"[12] files, "):
        embed_area("coordinates", imagery=imagery, output=out)


def test_batch_size_device_and_cache_do_not_count(
    stopped: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "3")
    changed = {"device": "cpu", "cache": tmp_path / "cache"}
    settled = {k: v for k, v in stopped.items() if k != "output"}
    with map_run(stopped["output"], settle_area("scalemae", **settled | changed)) as run:
        assert run.resumed == 1


@pytest.mark.parametrize("stored", [{"dtype": "int8"}, {"pca": 2}, {"acquired": "2021-06-17"}])
def test_what_is_kept_can_be_stored_otherwise(
    coordinate_model: list[Any], scene: Path, folder: Path, stored: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A disk that is too small for float32 after a day of work: int8 costs no window."""
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    out = folder / "map.zarr"
    kept_windows(scene, out)
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
        with pytest.raises(ExportError, match="exists already and is finished"):
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
    with interrupted():
        embed_area("scalemae", **request)
    save_file(small_network(seed=8).state_dict(), weights / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"under the same name; restore those weights, or start again"
    ):
        embed_area("scalemae", **request)


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
    ending: str, size: int, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The limit on file sizes fails a write where a full disk does, in the operating system.

    It is there from when a path of that ending is first touched.
    """
    noise = np.random.default_rng(1).integers(1, 9999, (3, 256, 256), dtype=np.uint16)
    command = ["map", "--imagery", str(write_scene(noise)), "--model", "slow",
               "-o", str(folder / name), "--stride-px", "4", "--overlap-px", "0"]  # fmt: skip
    limited = LIMITED.format(ending=repr(ending), size=size)
    full = completed("-c", limited, *command, env=environment)
    assert full.returncode == 1, full.stderr
    last = full.stderr.splitlines()[-1]
    assert re.match(rf"error: cannot write {folder}/{name}", last), full.stderr
    assert "Traceback" not in full.stderr
    assert names(folder) == [f"{name}.partial"]
    found = re.search(
        r"stopped: (\d+) of 16 windows (?:is|are) kept; run it again to continue", full.stderr
    )
    assert found
    kept = int(found[1])
    assert 0 < kept < 16 if ending == ".partial" else kept == 16
    for variable in ("RS_EMBED_SCALEMAE_BATCH_SIZE", "IMAGES_SEEN"):
        monkeypatch.setenv(variable, environment[variable])
    again = CliRunner().invoke(app, [*command, "--json"])
    assert again.exit_code == 0, again.output
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
    with pytest.raises(ExportError, match="is a database that rs_embed did not write"):
        embed_area("coordinates", imagery=scene, output=folder / "map.zarr")
    assert names(folder) == ["map.zarr.partial"]
    assert not coordinate_model


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder(coordinate_model: Any, scene: Path, folder: Path) -> None:
    folder.chmod(0o500)
    with pytest.raises(ExportError, match="is read-only"):
        embed_area("coordinates", imagery=scene, output=folder / "map.zarr")


def test_a_meta_that_makes_no_sense_is_damage(
    coordinate_model: Any, scene: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    out = folder / "map.zarr"
    partial = kept_windows(scene, out)
    with closing(sqlite3.connect(partial)) as database:
        database.execute("UPDATE result SET meta = replace(meta, 'items', 'Items') "
                         "WHERE key = '0 0'")  # fmt: skip
        database.commit()
    with pytest.raises(ExportError, match=r"damaged \(the meta of a window is invalid"):
        embed_area("coordinates", imagery=scene, output=out)


@pytest.mark.parametrize("damage", ["vector", "meta", "truncated", "text", "empty"])
def test_damaged_windows_are_named_and_never_used(
    coordinate_model: Any, scene: Path, folder: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
    out = folder / "map.zarr"
    partial = kept_windows(scene, out)
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
    with pytest.raises(ExportError, match=r"is not a journal of rs_embed, or is damaged"):
        embed_area("coordinates", imagery=scene, output=out)
    # Refused again: nothing holds the file, and nothing was made of it.
    with pytest.raises(ExportError, match=r"is not a journal of rs_embed, or is damaged"):
        embed_area("coordinates", imagery=scene, output=out)
    assert names(folder) == ["map.zarr.partial"]
    assert embed_area("coordinates", imagery=scene, output=out, overwrite=True).resumed == 0
    assert names(folder) == ["map.zarr"]
