"""Servers that accept and never answer: every door ends within its documented time, with a message.

A row is a door: what is called with the server's URL, and what the error says. The limits are the
documented ones (docs/reliability.md), made short by the settings that are documented there. The hub
of weights is in `tests.test_hub`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ee
import pytest
from google.oauth2.credentials import Credentials

from rs_embed import EarthEngineProvider, LocalProvider, Patience, StacProvider, inspect_input
from rs_embed.errors import RsEmbedError
from rs_embed.testing.providers import JUNE, SENSOR, write_contract_scenes
from tests.faulty_answers import answering, silent
from tests.stac_server import StacServer

SHORT = Patience(timeout_s=0.5)
PLACE: dict[str, Any] = {
    "spatial": (15.003, 46.952), "buffer_m": 320, "temporal": JUNE, "sensor": SENSOR,
}  # fmt: skip
NO_ANSWER = "did not answer completely within 0.5 s; check the network, or try again later"


def linked(url: str, folder: Path) -> Path:
    """Return a folder with items on disk whose files are on the server."""
    scenes = write_contract_scenes(folder / "scenes")
    for path in sorted(scenes.glob("*/*.json")):
        item = json.loads(path.read_text())
        for name, asset in item["assets"].items():
            asset["href"] = f"{url}/{path.stem}/{name}.tif"
        (folder / path.name).write_text(json.dumps(item))
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
    scenes.rmdir()
    return folder


def of_catalogue(url: str, folder: Path) -> Any:
    """Search a catalogue that answers, whose files are on the silent server."""
    with StacServer().running() as server:
        server.add(write_contract_scenes(folder))
        for items in server.items.values():
            for item in items:
                for name, asset in item["assets"].items():
                    asset["href"] = f"{url}/{item['id']}/{name}.tif"
        provider = StacProvider(server.url, patience=Patience(timeout_s=2))
        return inspect_input("scalemae", variant="tiny", backend=provider, **PLACE)


def of_earth_engine(url: str, _: Path) -> Any:
    credentials = Credentials("token")  # type: ignore[no-untyped-call]
    provider = EarthEngineProvider("p", credentials=credentials, endpoint=url, timeout_s=0.5)
    ee.Reset()
    try:
        return inspect_input("scalemae", variant="tiny", backend=provider, **PLACE)
    finally:
        ee.Reset()


def of_provider(kind: Callable[..., Any]) -> Callable[[str, Path], Any]:
    return lambda url, folder: inspect_input(
        "scalemae", variant="tiny", backend=kind(url, folder), **PLACE
    )


DOORS: dict[str, tuple[Callable[[str, Path], Any], str]] = {
    "search of a catalogue": (
        of_provider(lambda url, _: StacProvider(url, patience=SHORT)), NO_ANSWER,
    ),
    "files of a catalogue": (of_catalogue, r"cannot read 'http.*red.tif'.*timed out after"),
    "files of items on disk": (
        of_provider(lambda url, folder: LocalProvider(linked(url, folder), patience=SHORT)),
        "timed out after|" + NO_ANSWER,
    ),
    "own imagery": (
        lambda url, _: inspect_input("scalemae", variant="tiny", imagery=f"{url}/scene.tif"),
        r"cannot read 'http.*/scene.tif' as an image \(.*timed out after",
    ),
    "Earth Engine": (
        of_earth_engine, r"the connection to 127.0.0.1 failed \(it does not answer\)",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")
@pytest.mark.parametrize("name", DOORS)
def test_a_server_that_never_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "0.2")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    call, match = DOORS[name]
    with answering(silent) as (url, came):
        began = time.monotonic()
        with pytest.raises(RsEmbedError, match=match):
            call(url, tmp_path)
        assert time.monotonic() - began < 60
        assert came.is_set()
