"""A finished result is on the disk before anything is removed that could make it again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rs_embed import SAMPLE_PLACE, NamedPlace, PointBuffer, embed_area, export_batch

pytestmark = pytest.mark.fault

PLACE = PointBuffer(SAMPLE_PLACE.lon, SAMPLE_PLACE.lat, 320)
COMMON: dict[str, Any] = {
    "backend": "sample", "variant": "tiny", "display": "visual", "progress": False,
}  # fmt: skip


def batch(folder: Path) -> Path:
    output = folder / "vectors.npz"
    export_batch("scalemae", [NamedPlace("a", PLACE)], output=output, **COMMON)
    return output


def geotiff(folder: Path) -> Path:
    output = folder / "map.tif"
    embed_area("scalemae", spatial=PLACE, output=output, **COMMON)
    return output


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The calls of the system that reach the disk, in order: what, and of which file."""
    made: list[tuple[str, str]] = []

    def recorded(name: str, of: Callable[..., str]) -> None:
        original = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made.append((name, of(*args)))
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    def opened(file: Any) -> str:
        number = file if isinstance(file, int) else file.fileno()
        return os.readlink(f"/proc/self/fd/{number}")

    recorded("fsync", opened)
    recorded("replace", lambda _, target: os.fspath(target))
    for name in ("unlink", "remove"):
        recorded(name, lambda path, *_: os.fspath(path))
    return made


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")
@pytest.mark.parametrize("make", [batch, geotiff])
def test_a_result_is_on_the_disk_before_its_journal_goes(
    make: Callable[[Path], Path], calls: list[tuple[str, str]], tmp_path: Path
) -> None:
    output = make(tmp_path)
    named = calls.index(("replace", str(output)))
    content = [at for at, (name, of) in enumerate(calls) if name == "fsync" and of.endswith(
        (".writing", output.suffix)) and ".partial" not in of]  # fmt: skip
    folder = calls.index(("fsync", str(tmp_path)), named)
    gone = next(
        at for at, (name, of) in enumerate(calls)
        if name in ("unlink", "remove") and of == f"{output}.partial"
    )  # fmt: skip
    assert min(content) < named < folder < gone
