"""Providers: the sample scene, and one of another package that has dates."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rs_embed import Embedding, FetchSpec, PointBuffer, SensorSpec, TemporalSpec, get_embedding
from rs_embed.errors import ProviderError, TemporalWarning, UnknownNameError
from rs_embed.providers.sample import CENTRE, SampleProvider
from rs_embed.registry import find_provider, provider_names
from rs_embed.settings import Settings

PLACE = PointBuffer(*CENTRE, buffer_m=1280)
MODULE = """
    import json
    import numpy as np
    from rs_embed.geo.raster import Raster

    class Dated:
        name = "dated"
        dated = True
        made = 0

        def __init__(self):
            Dated.made += 1
            self.asked = []

        @classmethod
        def from_settings(cls, settings):
            return cls()

        def check_sensor(self, sensor):
            pass

        def identity(self):
            return "1"

        def fetch(self, grid, *, temporal, sensor):
            self.asked.append((temporal, sensor))
            data = np.random.default_rng(0).integers(200, 3000, (3, *grid.shape))
            source = {"image_count": 2, "items": []}
            return Raster(data, np.ones(grid.shape, bool), sensor.bands, grid, source=source)

    class Elsewhere(Dated):
        name = "elsewhere"

        def fetch(self, grid, *, temporal, sensor):
            return super().fetch(grid.window(0, 1, *grid.shape), temporal=temporal, sensor=sensor)
"""


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution, on disk, that registers providers."""
    (tmp_path / "otherprovider.py").write_text(textwrap.dedent(MODULE))
    info = tmp_path / "otherprovider-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: otherprovider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[rs_embed.providers]\ndated = otherprovider:Dated\nelsewhere = otherprovider:Elsewhere\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def embed(checkpoint: Path) -> Callable[..., Embedding]:
    """``get_embedding`` of a place on the small checkpoint."""

    def run(backend: str, **kwargs: Any) -> Embedding:
        return get_embedding(
            "scalemae", spatial=PLACE, backend=backend, weights=checkpoint, image_size=256, **kwargs
        )

    return run


@pytest.mark.usefixtures("other_package")
def test_a_dated_provider_gets_period_and_defaults(embed: Callable[..., Embedding]) -> None:
    assert {"dated", "elsewhere", "sample"} <= set(provider_names())
    with pytest.warns(TemporalWarning, match="default was used: 2022-06-01 up to 2022-09-01"):
        embedding = embed("dated")
    assert embedding.meta["temporal"] == {"start": "2022-06-01", "end": "2022-09-01"}
    assert embedding.meta["source"] == {"image_count": 2, "items": []}
    assert embedding.meta["warnings"]
    embed("dated", temporal=TemporalSpec.year(2020), fetch=FetchSpec(cloudy_pct=5))
    provider: Any = find_provider("dated", Settings.from_environ())
    (_, default), (period, sensor) = provider.asked[-2:]
    assert (default.cloudy_pct, default.composite, default.fill_value) == (30, "median", 0)
    assert (default.scale_m, default.bands) == (10, ("B4", "B3", "B2"))
    assert period == TemporalSpec.year(2020)
    assert (sensor.cloudy_pct, sensor.composite) == (5, "median")
    assert type(provider).made == 1  # one connection, not one a place


@pytest.mark.usefixtures("other_package")
def test_pixels_on_another_grid_are_refused(embed: Callable[..., Embedding]) -> None:
    with pytest.raises(ProviderError, match="'elsewhere' returned .* expected .*report it"):
        embed("elsewhere", temporal=TemporalSpec.year(2020))


@pytest.mark.parametrize(
    "fetch", [FetchSpec(cloudy_pct=1), FetchSpec(composite="mosaic"), FetchSpec(fill_value=7)]
)
def test_the_sample_refuses_what_it_cannot_honour(
    embed: Callable[..., Embedding], fetch: FetchSpec
) -> None:
    with pytest.raises(ProviderError, match="backend='sample' is one cloud-free scene"):
        embed("sample", fetch=fetch)


def test_the_sample_honours_the_units_of_its_sensor(embed: Callable[..., Embedding]) -> None:
    sensor = SensorSpec(
        "COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3", "B2"), scale_m=20, reflectance_scale=2e-4
    )
    brighter = embed("sample", sensor=sensor)
    plain = embed("sample", fetch=FetchSpec(scale_m=20))
    assert brighter.meta["reflectance_scale"] == 2e-4
    assert brighter.image is not None
    assert plain.image is not None
    assert brighter.image.mean() == pytest.approx(2 * plain.image.mean(), rel=0.02)


def test_find_provider() -> None:
    settings = Settings.from_environ({})
    sample = find_provider("sample", settings)
    assert sample is find_provider("sample", Settings.from_environ({}))
    assert isinstance(sample, SampleProvider)
    assert sample.identity() == SampleProvider().identity()
    assert "lon -75.6" in sample.status()
    with pytest.raises(UnknownNameError, match="unknown backend 'samples'.*mean 'sample'"):
        find_provider("samples", settings)


def test_settings_are_passed_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One provider for each settings, whatever the environment says since."""
    folders = [tmp_path / name for name in "ab"]
    settings = [Settings.from_environ({"RS_EMBED_LOCAL": str(folder)}) for folder in folders]
    providers = [find_provider("local", each) for each in settings]
    monkeypatch.setenv("RS_EMBED_LOCAL", str(tmp_path / "c"))
    for folder, each, provider in zip(folders, settings, providers, strict=True):
        assert find_provider("local", each) is provider
        with pytest.raises(ProviderError, match=f"{folder}.*does not exist"):
            provider.status()
    assert not find_provider("local", Settings.from_environ({})).configured()
    stac = find_provider("stac", Settings.from_environ({"RS_EMBED_STAC": "http://a/"}))
    assert stac.status() == "ready: http://a/"
    gee = find_provider("gee", Settings.from_environ({"RS_EMBED_EE_ENDPOINT": "https://b"}))
    assert gee.identity().startswith("https://b: ")


def test_an_entry_point_that_is_not_a_provider(install: Callable[..., Path]) -> None:
    install("odd", "[rs_embed.providers]\nodd = json:dumps\n")
    with pytest.raises(ProviderError, match="'odd' of rs_embed.providers names .*from_settings"):
        find_provider("odd", Settings.from_environ({}))
