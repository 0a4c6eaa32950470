"""What a batch will ask for is said beforehand, and nothing is asked of anyone meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

import rs_embed
from rs_embed import BBox, Estimate, FetchSpec, InputPrepSpec, PointBuffer, SensorSpec
from rs_embed.cli import app
from rs_embed.errors import ExportError, ProviderError, SpecError
from rs_embed.geo.grid import Grid
from rs_embed.providers.base import Cost

SMALL = {"weights": "random-init", "variant": "tiny"}
PLACES = [PointBuffer(15, 46, 1280), PointBuffer(-70, -33, 2050), BBox(9, 60, 9.02, 60.01)]


class Service:
    """A provider that counts what is asked of it, and has no pixels."""

    name = "service"
    dated = True

    def configured(self) -> bool:
        return True

    def check_sensor(self, sensor: SensorSpec) -> None:
        if sensor.cloud_mask is not None:
            raise ProviderError("got a cloud mask")

    def fetch(self, grid: Grid, **_: Any) -> NoReturn:
        raise AssertionError("an estimate fetches nothing")

    def identity(self) -> str:
        return "service"

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        height, width = grid.shape
        return Cost(1 + height // 300, 15 * height * width, f"in {sensor.scale_m:g} m, no quota")

    def status(self, *, online: bool = False) -> str:
        return "ready: nothing"


def estimate(**arguments: Any) -> Estimate:
    arguments = {"spatials": PLACES, "backend": Service(), **SMALL, **arguments}
    return rs_embed.estimate("scalemae", **arguments)


def test_it_sums_up_what_the_places_ask() -> None:
    found = estimate()
    # 2 x 1280 m and 2 x 2050 m at 10 m; the box of 1116 m by 1114 m is snapped outward.
    assert found.pixels == 256 * 256 + 410 * 410 + 112 * 112
    assert found.download_bytes == 15 * found.pixels
    assert (found.backend, found.places, found.images) == ("service", 3, 3)
    assert found.requests == 1 + 2 + 1
    assert found.more == "in 10 m, no quota"
    assert found.refused == {}
    assert json.loads(json.dumps(found.to_json()))["pixels"] == found.pixels


def test_tiles_are_counted_on_whole_patches() -> None:
    found = estimate(spatials=PLACES[1:2], input_prep=InputPrepSpec.tile(224))
    assert found.pixels == 416 * 416  # 410 px as whole patches of 16
    assert found.images == 4


def test_places_that_would_be_refused_are_named() -> None:
    far = PointBuffer(15, 46, 200_000)
    found = estimate(spatials=[*PLACES, far, PointBuffer(15, 46, 50)], fetch=FetchSpec(scale_m=10))
    assert found.places == 5
    assert found.images == 3
    assert list(found.refused) == [3, 4]
    assert (
        "40,000 x 40,000 px of 10 m, expected at most 250,000,000 px; split it into at least 3 x 3"
        in (found.refused[3])
    )
    assert "short side of at least 16 px" in found.refused[4]


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(SpecError, match="got no place"):
        estimate(spatials=[])
    with pytest.raises(SpecError, match="got images for an estimate"):
        estimate(spatials=["here"])
    with pytest.raises(ProviderError, match="got a cloud mask"):
        estimate(fetch=FetchSpec(cloud_mask="scl"))


def test_dry_run(tmp_path: Path) -> None:
    table = tmp_path / "places.csv"
    table.write_text("id,lon,lat\na,-75.6156,37.6942\nb,-75.62,37.69\n")
    out = tmp_path / "v.npz"
    command = ["batch", str(table), "-o", str(out), "--backend", "sample", "--dry-run"]
    options = ["--weights", "random-init", "--variant", "tiny", "--buffer-m"]
    ran = CliRunner().invoke(app, [*command, *options, "640"])
    assert ran.exit_code == 0, ran.output
    assert "2 places, 0.033 million pixels, 2 images through the model" in ran.output
    assert "backend sample: 0 requests\n" in ran.output
    assert not list(tmp_path.glob("v.npz*"))
    shown = CliRunner().invoke(app, [*command, *options, "640", "--json"])
    assert json.loads(shown.stdout)["pixels"] == 2 * 128 * 128
    refused = CliRunner().invoke(app, [*command, *options, "50"])
    assert refused.exit_code == 1
    assert "refused a: the place is 10 x 10 px" in refused.output
    own = CliRunner().invoke(
        app, [*command[:4], "--imagery", "x.tif", "--dry-run", *options, "640"]
    )
    assert isinstance(own.exception, SpecError)
    unwritable = CliRunner().invoke(
        app, [*command, *options, "640", "-o", str(tmp_path / "no/v.npz")]
    )
    assert isinstance(unwritable.exception, ExportError)
    assert "own files need no requests" in str(own.exception)
