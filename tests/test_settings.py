"""Environment variables are read once, checked, and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rs_embed.errors import SettingsError
from rs_embed.settings import SCALEMAE_VARIABLES, VARIABLES, Settings


def test_defaults() -> None:
    settings = Settings.from_environ({})
    assert settings.scalemae_id == "MVRL/scalemae-vitlarge-800"
    assert settings.scalemae_img is None
    assert settings.scalemae_fetch_workers == 8
    assert settings.scalemae_batch_size is None
    assert settings.local is None
    assert settings.ee_project is None
    assert settings.ee_endpoint == "standard"
    assert settings.stac == "earth-search"
    assert settings.cache_dir is None
    assert settings.cache_gb == 10
    assert not settings.cache_shared
    assert settings.records_dir == Path.home() / ".cache" / "rs_embed"


def test_values_are_read() -> None:
    settings = Settings.from_environ(
        {
            "RS_EMBED_SCALEMAE_ID": " me/mine ",
            "RS_EMBED_SCALEMAE_IMG": "448",
            "RS_EMBED_SCALEMAE_FETCH_WORKERS": "3",
            "RS_EMBED_SCALEMAE_BATCH_SIZE": "16",
            "RS_EMBED_LOCAL": "~/scenes",
            "GOOGLE_CLOUD_PROJECT": "theirs",
            "EE_PROJECT": "mine",
            "RS_EMBED_EE_ENDPOINT": "high-volume",
            "RS_EMBED_STAC": "https://stac.example/v1",
            "RS_EMBED_CACHE_DIR": "~/kept",
            "RS_EMBED_CACHE_GB": "3",
            "RS_EMBED_CACHE_SHARED": "1",
            "XDG_CACHE_HOME": "/elsewhere",
        }
    )
    assert settings == Settings(
        scalemae_id="me/mine",
        scalemae_img=448,
        scalemae_fetch_workers=3,
        scalemae_batch_size=16,
        local=Path.home() / "scenes",
        ee_project="mine",
        ee_endpoint="high-volume",
        stac="https://stac.example/v1",
        cache_dir=Path.home() / "kept",
        cache_gb=3,
        cache_shared=True,
        records_dir=Path("/elsewhere/rs_embed"),
    )
    assert Settings.from_environ({"GOOGLE_CLOUD_PROJECT": "theirs"}).ee_project == "theirs"


NUMBERS = [v.name for v in SCALEMAE_VARIABLES if not v.name.endswith("_ID")]


@pytest.mark.parametrize("variable", NUMBERS)
@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "٣", "1e3"])
def test_a_value_that_is_not_a_whole_number_is_refused(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"got {variable}='{value}', expected a whole number"):
        Settings.from_environ({variable: value})


def test_a_switch_is_0_or_1() -> None:
    with pytest.raises(SettingsError, match="got RS_EMBED_CACHE_SHARED='yes', expected 0, or 1 to"):
        Settings.from_environ({"RS_EMBED_CACHE_SHARED": "yes"})


@pytest.mark.parametrize("variable", [v.name for v in VARIABLES])
def test_an_empty_value_is_refused(variable: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is set but empty"):
        Settings.from_environ({variable: " "})


def test_a_home_that_does_not_exist() -> None:
    with pytest.raises(SettingsError, match="got XDG_CACHE_HOME='~nobody-here'"):
        Settings.from_environ({"XDG_CACHE_HOME": "~nobody-here"})
    with pytest.raises(SettingsError, match="got RS_EMBED_LOCAL='~nobody-here/x'"):
        Settings.from_environ({"RS_EMBED_LOCAL": "~nobody-here/x"})


def test_nothing_else_reads_the_environment() -> None:
    source = Path(__file__).parents[1] / "src" / "rs_embed"
    readers = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if re.search(r"os\.environ|(?<!env\.)getenv", path.read_text())
    }
    assert readers == {"settings.py"}
