"""``backend="auto"``: the first that is configured, said in meta and in one log line, and kept."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from rs_embed import FetchSpec, PointBuffer, TemporalSpec, get_embedding
from rs_embed.errors import ProviderError
from rs_embed.registry import first_configured
from rs_embed.settings import Settings
from rs_embed.testing.providers import NORTH, write_contract_scenes

SMALL: dict[str, Any] = {"weights": "random-init", "variant": "tiny", "image_size": 256}


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials as ``earthengine authenticate`` leaves them, and a project."""
    folder = tmp_path / ".config" / "earthengine"
    folder.mkdir(parents=True)
    (folder / "credentials").write_text(json.dumps({"refresh_token": "x", "project": "p"}))
    monkeypatch.setenv("EE_PROJECT", "my-project")


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = write_contract_scenes(tmp_path / "scenes")
    monkeypatch.setenv("RS_EMBED_LOCAL", str(folder))
    return folder


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def chosen() -> str | None:
    return first_configured(Settings.from_environ())


@pytest.mark.usefixtures("account", "scenes")
def test_own_imagery_comes_first() -> None:
    assert chosen() == "local"


@pytest.mark.usefixtures("account")
def test_then_an_account() -> None:
    assert chosen() == "gee"


def test_then_what_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen() == "stac"
    monkeypatch.setenv("EE_PROJECT", "a-project-without-credentials")
    assert chosen() == "stac"


@pytest.mark.usefixtures("account")
def test_what_is_not_installed_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "ee")
    assert chosen() == "stac"
    without(monkeypatch, "pystac_client")
    assert chosen() is None
    with pytest.raises(
        ProviderError, match="the first of local, gee, stac.*pip install ...stac.. in a clone"
    ):
        get_embedding("scalemae", spatial=PointBuffer(15, 47, 640), **SMALL)


@pytest.mark.usefixtures("scenes")
def test_it_is_said_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    west, south, east, north = NORTH[0].grid.geographic_bounds()
    place = PointBuffer((west + east) / 2, (south + north) / 2, 300)
    june = TemporalSpec.range("2023-06-01", "2023-06-02")
    with caplog.at_level(logging.INFO, logger="rs_embed"):
        found = get_embedding(
            "scalemae", spatial=place, temporal=june, fetch=FetchSpec(cloudy_pct=100), **SMALL
        )
    assert (found.meta["backend"], found.meta["backend_asked"]) == ("local", "auto")
    assert [r.getMessage().partition(" (ready: 6")[0] for r in caplog.records] == [
        "backend='auto' takes 'local'"
    ]
    # Nothing there is an error: no other source is tried, which here would be a network.
    nowhere = PointBuffer(0, 0, 640)
    with pytest.raises(ProviderError, match="no imagery for the place and period in"):
        get_embedding("scalemae", spatial=nowhere, temporal=june, **SMALL)
