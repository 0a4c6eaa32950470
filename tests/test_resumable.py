"""What is kept of a batch belongs to its request, its places and its weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
from pyproj import Transformer

from rs_embed import (
    BatchReport,
    CheckpointError,
    ExportError,
    FetchSpec,
    InputPrepSpec,
    LocalProvider,
    NamedPlace,
    PointBuffer,
    ProviderError,
    Raster,
    SpecError,
    TemporalSpec,
    TemporalWarning,
    UnknownNameError,
    export_batch,
)
from rs_embed.files.identity import imagery_identity
from rs_embed.files.vectors import read_vectors
from rs_embed.providers.sample import CENTRE, SampleProvider
from tests.conftest import small_network

LON, LAT = CENTRE
FAR = NamedPlace("far", PointBuffer(0, 0, 640))


def near(count: int, *, shift: float = 0) -> list[NamedPlace]:
    return [
        NamedPlace(f"p{i}", PointBuffer(LON + 0.001 * i + shift, LAT, 640)) for i in range(count)
    ]


@pytest.fixture
def asked(checkpoint: Path) -> dict[str, Any]:
    return {"backend": "sample", "weights": checkpoint, "input_prep": "tile"}


def broken_off(out: Path, places: list[NamedPlace], asked: dict[str, Any]) -> None:
    """Leave the results of ``places`` behind, as after an interruption."""
    with pytest.raises(ProviderError, match="place 'far'") as caught:
        export_batch("scalemae", [*places, FAR], output=out, on_error="raise", **asked)
    assert caught.value.index == len(places)
    assert isinstance(caught.value.__cause__, ProviderError)
    assert "place 'far'" not in str(caught.value.__cause__)


def finished(out: Path, places: list[NamedPlace], asked: dict[str, Any]) -> BatchReport:
    return export_batch("scalemae", places, output=out, **asked)


def test_a_changed_place_under_the_same_id_is_embedded_anew(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(3), asked)
    moved = [*near(2), near(3, shift=0.004)[2]]
    report = finished(out, moved[::-1], asked)  # the order is that of the places, not of the work
    assert (report.places, report.resumed, report.errors) == (3, 2, {})
    fresh = tmp_path / "fresh.npz"
    finished(fresh, moved[::-1], asked)
    kept, anew = read_vectors(out), read_vectors(fresh)
    assert list(kept.id) == ["p2", "p1", "p0"]
    assert np.abs(kept.embedding - anew.embedding).max() <= 1e-5


def test_a_list_that_shares_nothing_takes_nothing_away(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(3), asked)
    other = [NamedPlace("x", PointBuffer(1, 1, 640)), NamedPlace("y", PointBuffer(2, 2, 640))]
    with pytest.raises(ProviderError, match="place 'x'"):
        export_batch("scalemae", other, output=out, on_error="raise", **asked)
    assert finished(out, near(3), asked).resumed == 3


def test_only_what_failed_is_tried_again(tmp_path: Path, asked: dict[str, Any]) -> None:
    out = tmp_path / "v.npz"
    report = finished(out, [*near(3), FAR], asked)
    assert list(report.errors) == ["far"]
    assert read_vectors(out).ok.tolist() == [True] * 3 + [False]
    report = finished(out, [*near(3), FAR], asked)
    assert (report.resumed, list(report.errors)) == (3, ["far"])
    report = finished(out, near(3), asked)  # without it all is done
    assert (report.resumed, report.errors) == (3, {})
    again = finished(out, near(3), asked)
    assert (again.resumed, again.errors, again.finished_before) == (3, {}, True)
    with pytest.raises(ExportError, match=r"is finished, .*places was .3 places"):
        finished(out, near(2), asked)


def test_all_done_before_is_only_written(tmp_path: Path, asked: dict[str, Any]) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    report = finished(out, near(2), asked)
    assert report.resumed == report.places == 2
    assert report.places_per_s == 0


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"image_size": 64}, "options.image_size was 224, is now 64"),
        ({"min_valid": 0.5}, "min_valid was 0.25, is now 0.5"),
        ({"pooling": "cls"}, 'pooling was "mean", is now "cls"'),
        ({"display": "visual"}, 'options.display was "reflectance", is now "visual"'),
        ({"gsd": 4}, 'options.gsd was "metres", is now 4'),
        ({"input_prep": "resize"}, 'input_prep was "tile", is now "resize"'),
        ({"fetch": FetchSpec(scale_m=20)}, "sensor.scale_m was 10, is now 20"),
    ],
)
def test_another_request_is_refused(
    tmp_path: Path, asked: dict[str, Any], change: dict[str, Any], difference: str
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(1), asked)
    with pytest.raises(ExportError) as caught:
        finished(out, near(1), {**asked, **change})
    assert difference in str(caught.value)


@pytest.mark.parametrize(
    "restated",
    [
        {"image_size": 224},
        {"min_valid": 0.25},
        {"pooling": "mean"},
        {"display": "reflectance", "gsd": "metres", "precision": "float32", "loader": "native"},
        {"tokens": "normed"},
        {"input_prep": InputPrepSpec.tile(224)},
        {"fetch": FetchSpec(scale_m=10)},
        {"device": "cpu"},
    ],
    ids=str,
)
def test_a_default_that_is_stated_is_the_same_request(
    tmp_path: Path, asked: dict[str, Any], restated: dict[str, Any]
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    assert finished(out, near(2), {**asked, **restated}).resumed == 2


def test_an_alias_is_the_same_request(tmp_path: Path, asked: dict[str, Any]) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    # The sample scene has no dates, so that a period changes nothing but a warning.
    with pytest.warns(TemporalWarning, match="not applied"):
        report = export_batch(
            "scalemae_rgb", near(3), output=out, temporal=TemporalSpec.year(2022), **asked
        )
    assert (report.resumed, report.errors) == (2, {})


def test_the_environment_counts_where_it_changes_numbers(
    tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(1), asked)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "3")
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "256")
    with pytest.raises(ExportError, match="options.image_size was 224, is now 256") as got:
        finished(out, near(1), asked)
    assert "BATCH_SIZE" not in str(got.value)


def test_replaced_weights_are_not_mixed(
    tmp_path: Path, asked: dict[str, Any], checkpoint: Path
) -> None:
    from safetensors.torch import save_file

    weights = tmp_path / "weights"
    shutil.copytree(checkpoint, weights)
    asked = {**asked, "weights": weights}
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    (weights / "model.safetensors").unlink()
    save_file(small_network(seed=9).state_dict(), weights / "model.safetensors")
    with pytest.raises(CheckpointError, match="the places kept in .* under the same name; restore"):
        finished(out, near(4), asked)


def test_replaced_imagery_is_another_request(
    tmp_path: Path, asked: dict[str, Any], write_scene: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(5)
    scene = write_scene(rng.integers(200, 3000, (3, 96, 96), dtype=np.uint16))
    asked = {**asked, "backend": "auto", "imagery": scene}
    place = NamedPlace("in", PointBuffer(13.6895, 46.943, 160))
    out = tmp_path / "v.npz"
    with pytest.raises(Exception, match="place 'far'"):
        export_batch("scalemae", [place, FAR], output=out, on_error="raise", **asked)
    write_scene(rng.integers(200, 3000, (3, 100, 96), dtype=np.uint16))
    with pytest.raises(ExportError, match=r"imagery\.bytes was \d+, is now \d+"):
        finished(out, [place], asked)


@pytest.mark.filterwarnings("ignore::rs_embed.errors.ImageryWarning")
@pytest.mark.parametrize("named", [True, False])
def test_a_changed_file_of_a_provider_is_another_request(
    tmp_path: Path, checkpoint: Path, write_scene: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch, named: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(2)
    path = write_scene(rng.integers(200, 3000, (3, 96, 96), dtype=np.uint16))
    monkeypatch.setenv("RS_EMBED_LOCAL", str(path))
    to_geographic = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    place = NamedPlace("a", PointBuffer(*to_geographic.transform(400_480, 5_199_520), 160))
    out = tmp_path / "v.npz"

    def asked() -> dict[str, Any]:
        backend = "local" if named else LocalProvider(path)
        return {"backend": backend, "weights": checkpoint, "input_prep": "tile"}

    broken_off(out, [place], asked())
    # Same size and shape: only the content, and so the time, is another.
    write_scene(rng.integers(200, 3000, (3, 96, 96), dtype=np.uint16))
    with pytest.raises(ExportError, match=r"was started with another request \(backend\.identity"):
        finished(out, [place], asked())


def test_a_provider_is_itself_by_name_or_as_an_object(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    assert finished(out, near(2), {**asked, "backend": SampleProvider()}).resumed == 2


def test_what_cannot_be_meant(tmp_path: Path, asked: dict[str, Any]) -> None:
    out = tmp_path / "v.npz"
    for each in ({"temporal": [TemporalSpec.year(2022)]}, {"fetch": [FetchSpec()]}):
        with pytest.raises(SpecError, match="for each place, expected one for all"):
            finished(out, near(1), {**asked, **each})
    with pytest.raises(SpecError, match="got imagery=ndarray, expected a path"):
        finished(out, near(1), {"imagery": np.zeros((3, 9, 9))})
    with pytest.raises(UnknownNameError, match="unknown pooling 'grid'"):
        finished(out, near(1), {**asked, "pooling": "grid"})
    with pytest.raises(SpecError, match="got buffer_m=5.* with places that have a size"):
        finished(out, near(1), {**asked, "buffer_m": 5})
    with pytest.raises(SpecError, match="holds no places"):
        finished(out, [], asked)
    with pytest.raises(SpecError, match="got spatials=, which export_batch does not support"):
        finished(out, near(1), {**asked, "spatials": []})
    assert not list(tmp_path.iterdir())


def test_a_batch_in_which_all_failed_can_be_run_again(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    out = tmp_path / "v.npz"
    for _ in range(2):
        assert list(finished(out, [FAR], asked).errors) == ["far"]
    assert finished(out, near(1), asked).errors == {}
    assert finished(out, near(1), asked).finished_before


def test_what_else_is_read_of_imagery_counts(
    tmp_path: Path, checkpoint: Path, write_scene: Any, pixels: Any
) -> None:
    """Units of a Raster, nodata that xarray keeps beside its values, band names beside a file."""
    path = write_scene(np.tile(pixels, (1, 2, 2)))
    data = rioxarray.open_rasterio(path, masked=True).load()  # type: ignore[union-attr]
    other = data.copy()
    other.encoding["_FillValue"] = 901
    raster = Raster.from_array(data.values, bands=("B4", "B3", "B2"), nodata=0)
    pairs = [(raster, replace(raster, reflectance=(2e-4, 0.0))), (data, other)]
    for one, another in pairs:
        assert imagery_identity(one) != imagery_identity(another)
    before = imagery_identity(path)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("B02", "B03", "B04")
    os.utime(path, (path.stat().st_atime, before["modified"]))
    assert imagery_identity(path)["read_with_it"] != before["read_with_it"]


def test_credentials_of_a_url_stay_out_of_identities() -> None:
    assert "SECRET" not in str(imagery_identity("https://host/scene.tif?sig=SECRET"))
