"""Maps survive every end: killed, interrupted, out of disk, damaged files, unreadable imagery."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from affine import Affine
from pyproj import Transformer

from rs_embed import (
    BBox,
)
from rs_embed.maps.stac_items import item_path
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
        ("map.zarr", "steps", [7]),
        ("map.tif", "steps", [2]),
    ],
)
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
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
        [sys.executable, "-m", "tests.map_worker", what, json.dumps(request), *map(str, more)],
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
