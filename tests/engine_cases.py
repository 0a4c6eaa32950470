"""What holds on every engine but the local one: one table of situations for all of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from rs_embed import CheckpointError, EmbeddingTable, embed_area, export_batch, load_export
from rs_embed.errors import EngineError, RsEmbedWarning
from tests.conftest import python_environment
from tests.coordinate_model import coordinate_scene
from tests.faulty_work import BLUE_FROM, ENTRY, FaultyProvider
from tests.map_cases import box
from tests.map_worker import places_in
from tests.processes import WAIT_S, errors_of, running

COUNT, LAST = 12, "p11"

# What happens; where, how and to which place; the error that is raised, or the rows that are lost.
SITUATIONS: list[tuple[str, dict[str, Any], tuple[type[Exception], str] | list[str]]] = [
    ("nothing happens", {}, []),
    ("a model is killed once", {"where": "encode", "how": "SIGKILL", "once": True}, []),
    ("a read is killed once", {"where": "fetch", "how": "SIGKILL", "once": True}, []),
    ("a place crashes models", {"where": "encode", "how": "SIGSEGV", "marked": True}, [LAST]),
    ("a place crashes reads", {"where": "fetch", "how": "exit", "marked": True}, [LAST]),
    (
        "the weights are damaged",
        {"where": "load", "how": "CheckpointError"},
        (CheckpointError, "^damaged weights"),
    ),
    (
        "a read raises what does not pickle",
        {"where": "fetch", "how": "OddError"},
        (EngineError, r"a worker process failed: OddError\('odd'\)"),
    ),
]


@dataclass
class Engines:
    """The same request on any engine, and what the local one makes of it."""

    home: Path
    scene: Path
    expected: bytes = b""
    table: EmbeddingTable | None = None
    warned: set[str] = field(default_factory=set)

    def export(self, out: Path, **engine: Any) -> Any:
        west, south, east, north = vars(box(20, 20, 88, 390)).values()
        return export_batch(
            "faulty",
            places_in((west, south, east, north), COUNT),
            output=out,
            backend=FaultyProvider(self.scene),
            progress=False,
            **engine,
        )

    def map(self, out: Path, **engine: Any) -> bytes:
        """Return the bytes of a map of the scene."""
        embed_area(
            "faulty",
            spatial=box(4, 4, 120, 424),
            output=out,
            backend=FaultyProvider(self.scene),
            progress=False,
            **engine,
        )
        return out.read_bytes()

    @contextmanager
    def fault(self, what: dict[str, Any]) -> Iterator[None]:
        """Let a fault happen within the block."""
        (self.home / "fault.json").write_text(json.dumps(what))
        try:
            yield
        finally:
            for name in ("fault.json", "struck", "asleep"):
                (self.home / name).unlink(missing_ok=True)


@contextmanager
def engines(root: Path) -> Iterator[Engines]:
    """Install the faulty model and provider, and make the file that others are compared with."""
    info = root / "faulty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY)
    (root / "faulty_home.py").touch()
    pixels = coordinate_scene(128, 432)
    pixels[2, :, BLUE_FROM:] = 6000
    scene = root / "S2_20220704.tif"
    with rasterio.open(
        scene, "w", driver="GTiff", count=3, height=128, width=432, dtype="uint16",
        crs="EPSG:32633", transform=Affine(10, 0, 400000, 0, -10, 5200000),
    ) as file:  # fmt: skip
        file.write(pixels)
        file.descriptions = ("B04", "B03", "B02")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        patch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")
        made = Engines(root, scene)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            made.export(root / "local.parquet")
        made.warned = messages(caught)
        made.expected = (root / "local.parquet").read_bytes()
        made.table = load_export(root / "local.parquet")
        yield made


def messages(caught: list[warnings.WarningMessage]) -> set[str]:
    return {str(one.message) for one in caught if issubclass(one.category, RsEmbedWarning)}


def check_situation(
    cases: Engines, out: Path, what: dict[str, Any], expected: Any, **engine: Any
) -> None:
    """Check one row of the table."""
    with cases.fault(what), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(expected, tuple):
            kind, message = expected
            with pytest.raises(kind, match=message) as raised:
                cases.export(out, **engine)
            assert "Traceback" in "".join(raised.value.__notes__)
            return
        report = cases.export(out, **engine)
    assert messages(caught) == cases.warned
    assert cases.warned
    assert list(report.errors) == expected, report.errors
    if not expected:
        assert out.read_bytes() == cases.expected
        return
    for name, error in report.errors.items():
        assert re.search(r"a worker process .*end.* whenever it worked on this place", error), name
    table, local = load_export(out), cases.table
    assert local is not None
    good = [name not in expected for name in table.ids]
    assert np.isfinite(table.embeddings).all(axis=1).tolist() == good
    np.testing.assert_array_equal(table.embeddings[good], local.embeddings[good])
    # Without the fault the same call completes it.
    assert cases.export(out, **engine).errors == {}
    assert out.read_bytes() == cases.expected


def check_map(cases: Engines, folder: Path, **engine: Any) -> None:
    """Check that a map is that of the local engine, though a process with the model is killed."""
    local = cases.map(folder / "local.tif")
    with cases.fault({"where": "encode", "how": "SIGKILL", "once": True}):
        assert cases.map(folder / "map.tif", **engine) == local
        assert (cases.home / "struck").exists()


def check_ended_and_resumed(
    cases: Engines, out: Path, end: int, first: dict[str, Any], then: dict[str, Any]
) -> None:
    """End a run on one engine before its last place, and go on with another one."""
    mark = uuid.uuid4().hex
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(cases.home)])
    environment = python_environment(RS_EMBED_SCALEMAE_BATCH_SIZE="2", MARK=mark)
    environment["PYTHONPATH"] = os.pathsep.join([path, environment["PYTHONPATH"]])
    given = [str(out), str(cases.scene), json.dumps(first)]
    sleepy = {"where": "encode", "how": "sleep", "marked": True}
    with cases.fault(sleepy), running("-m", "tests.engine_cases", *given, env=environment) as run:
        while not (cases.home / "asleep").exists() or not kept(out):
            assert run.poll() is None, errors_of(run)
            time.sleep(0.05)
        began = time.monotonic()
        run.send_signal(end)
        err = errors_of(run)
        assert time.monotonic() - began < 20
        assert run.returncode == -end, err
        while left := processes_with(mark):
            assert time.monotonic() - began < WAIT_S, left
            time.sleep(0.05)
    report = cases.export(out, **then)
    assert 0 < report.resumed < COUNT
    assert out.read_bytes() == cases.expected


def kept(out: Path) -> int:
    """Return how many results are in the journal of a run; the run is not disturbed."""
    copy = shutil.copy(f"{out}.partial", f"{out}.copy")
    with closing(sqlite3.connect(copy)) as database:
        try:
            return int(database.execute("SELECT count(*) FROM result").fetchone()[0])
        except sqlite3.DatabaseError:  # copied while it was written
            return 0


def processes_with(mark: str) -> list[str]:
    """Return the commands of the processes whose environment has a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [command for command in found if command]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Engines(Path(), Path(sys.argv[2])).export(Path(sys.argv[1]), **json.loads(sys.argv[3]))
