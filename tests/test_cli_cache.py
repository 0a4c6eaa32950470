"""``--cache``, ``rs-embed cache ls`` and ``clear``, and what ``doctor`` says of the cache."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from rs_embed import LocalProvider, TemporalSpec
from rs_embed.cli import app
from rs_embed.errors import SettingsError, SpecError
from rs_embed.files.vectors import read_vectors
from rs_embed.providers.cache import CachedProvider, PatchCache
from rs_embed.specs import SensorSpec
from rs_embed.testing.providers import NORTH, SENSOR, write_contract_scenes
from tests.test_cache import PLACE
from tests.test_cli import invoke

JUNE = TemporalSpec.range("2023-06-01", "2023-07-01")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_contract_scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def folder(tmp_path: Path, scenes: Path) -> Path:
    """A cache of two entries, the first of them made 100 days ago, and a file of somebody."""
    path = tmp_path / "patches"
    path.mkdir()
    keep(path, scenes, SENSOR)
    (old,) = path.iterdir()
    content = old.read_bytes()
    fetched = json.loads(content.split(b"\n")[1])["fetched"]
    then = (datetime.now(UTC) - timedelta(days=100)).isoformat(timespec="seconds")
    old.write_bytes(content.replace(fetched.encode(), then.encode()))
    keep(path, scenes, SensorSpec(SENSOR.collection, SENSOR.bands, cloudy_pct=100))
    (path / "notes.txt").write_text("mine")
    return path


def keep(folder: Path, scenes: Path, sensor: SensorSpec) -> None:
    cached = CachedProvider(LocalProvider(scenes), PatchCache(folder, 10**9))
    cached.fetch(NORTH[0].grid.window(24, 36, 48, 49), temporal=JUNE, sensor=sensor)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.patch"))


def fails(*args: str) -> Any:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 1
    return result.exception


def test_ls(folder: Path) -> None:
    listed = json.loads(invoke("cache", "ls", "--cache", str(folder), "--json"))
    sizes = [path.stat().st_size for path in entries(folder)]
    assert listed["folder"] == str(folder)
    assert (listed["bytes"], listed["max_bytes"]) == (sum(sizes), 10_000_000_000)
    assert len(listed["entries"]) == 2
    now = datetime.now(UTC)
    ages = sorted((now - datetime.fromisoformat(e["fetched"])).days for e in listed["entries"])
    assert ages == [0, 100]
    for entry in listed["entries"]:
        assert entry["bytes"] in sizes
        assert entry["provider"] == "local"
        # The middle of the window: 500605, 5199520 in UTM 33 N.
        assert (entry["lon"], entry["lat"]) == pytest.approx((15.00795, 46.94921), abs=2e-5)
        assert (entry["height_px"], entry["width_px"], entry["pixel_size"]) == (48, 49, 10)
        assert (entry["start"], entry["end"]) == ("2023-06-01", "2023-07-01")
    text = invoke("cache", "ls", "--cache", str(folder)).splitlines()
    assert len(text) == 3
    place = f"local  lon {listed['entries'][0]['lon']}, lat {listed['entries'][0]['lat']}, 48 x 49"
    assert place in text[0]
    assert "px of 10, 2023-06-01 to 2023-07-01, " in text[1]
    assert text[2] == f"2 entries in {folder}, {sum(sizes):,} of 10,000,000,000 bytes"


def test_ls_says_what_is_damaged(folder: Path) -> None:
    damaged = entries(folder)[0]
    damaged.write_bytes(damaged.read_bytes()[:90])
    assert f"damaged: {damaged.name}, 90 bytes" in invoke("cache", "ls", "--cache", str(folder))
    listed = json.loads(invoke("cache", "ls", "--cache", str(folder), "--json"))["entries"]
    assert [entry["file"] for entry in listed if entry["lon"] is None] == [damaged.name]


def test_clear(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {path.name: path.stat().st_size for path in entries(folder)}
    assert "removed 0 entries, 0 bytes" in invoke(
        "cache", "clear", "--cache", str(folder), "--older-than", "101"
    )
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder))
    monkeypatch.setenv("RS_EMBED_CACHE_GB", "3")
    assert "of 3,000,000,000 bytes" in invoke("cache", "ls")
    said = invoke("cache", "clear", "--older-than", "99")
    (left,) = entries(folder)
    gone = sum(sizes.values()) - sizes[left.name]
    assert said == f"removed 1 entry, {gone:,} bytes, from {folder}\n"
    (folder / f"{'0' * 64}.patch").write_text("of somebody")
    abandoned = folder / f".{'0' * 32}.part"
    abandoned.write_bytes(left.read_bytes()[:200])
    os.utime(abandoned, (time.time() - 7200,) * 2)
    said = invoke("cache", "clear")
    assert said == f"removed 1 entry, {sizes[left.name]:,} bytes, from {folder}\n"
    assert sorted(p.name for p in folder.iterdir()) == [f"{'0' * 64}.patch", "notes.txt"]


def test_a_folder_must_be_named_and_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("ls", "clear"):
        error = fails("cache", command)
        assert isinstance(error, SpecError)
        assert "pass --cache FOLDER, or set RS_EMBED_CACHE_DIR" in str(error)
        error = fails("cache", command, "--cache", str(tmp_path / "none"))
        assert "none', expected an existing folder" in str(error)
    assert not (tmp_path / "none").exists()
    monkeypatch.setenv("RS_EMBED_CACHE_GB", "0")
    assert isinstance(fails("cache", "ls", "--cache", str(tmp_path)), SettingsError)
    wrong = CliRunner().invoke(app, ["cache", "clear", "--older-than", "-1"])
    assert wrong.exit_code == 2


@pytest.mark.parametrize("command", ["ls", "clear"])
def test_help(command: str) -> None:
    output = invoke("cache", command, "--help")
    assert f"rs-embed cache {command}" in output
    assert "RS_EMBED_CACHE_DIR" in output


def test_commands_keep_pixels(
    tmp_path: Path, scenes: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made" / "here"
    place = ["--lon", str(PLACE.lon), "--lat", str(PLACE.lat), "--buffer-m", "240"]
    pixels = ["--start", "2023-06-01", "--end", "2023-07-01", "--input-prep", "tile",
              "--local", str(scenes), "--cache", str(folder)]  # fmt: skip
    weights = ["--weights", str(checkpoint)]
    cold, warm = (
        json.loads(invoke("embed", *place, *pixels, *weights, "--json")) for _ in range(2)
    )
    assert "cached" not in cold["meta"]["source"]
    assert warm["meta"]["source"]["cached"]
    assert cold["values"] == warm["values"]
    assert cold["meta"]["fingerprint"] == warm["meta"]["fingerprint"]
    seen = json.loads(invoke("inspect", *place, *pixels, "--json"))
    assert seen["meta"]["source"]["cached"]
    places = tmp_path / "places.csv"
    places.write_text(f"id,lon,lat,buffer_m\na,{PLACE.lon},{PLACE.lat},240\n")
    out = tmp_path / "v.npz"
    invoke("batch", str(places), "-o", str(out), *pixels, *weights)
    assert json.loads(read_vectors(out).meta[0])["source"]["cached"]
    assert len(entries(folder)) == 1
    own = fails("embed", "--imagery", "x.tif", "--cache", str(folder))
    assert "got cache with imagery" in str(own)


def cache_line() -> dict[str, str]:
    """Return what doctor says of the cache, whatever it says of the rest."""
    findings = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).output)
    (line,) = (finding for finding in findings if finding["what"] == "cache")
    return dict(line)


def test_doctor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    off = cache_line()
    assert off["state"] == "ok"
    assert off["found"] == "off; set RS_EMBED_CACHE_DIR to a folder to keep pixels in it"
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder))
    size = sum(path.stat().st_size for path in entries(folder))
    on = cache_line()
    assert (on["state"], on["found"]) == ("ok", f"{folder}, 2 entries, {size:,} bytes of 10 GB")
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder / "later"))
    assert "created on first use, at most 10 GB" in cache_line()["found"]
    assert not (folder / "later").exists()
    for below in ("", "deeper"):
        monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder / "notes.txt" / below))
        broken = cache_line()
        assert broken["state"] == "broken"
        assert "unset it" in broken["fix"]
