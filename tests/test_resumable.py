"""What is kept of a batch belongs to its request, its places and its weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Transformer

from rs_embed import (
    CheckpointError,
    ExportError,
    FetchSpec,
    LocalProvider,
    OutputSpec,
    PointBuffer,
    ProviderError,
    SpecError,
    TemporalSpec,
)
from rs_embed.files.places import NamedPlace
from rs_embed.files.vectors import read_vectors
from rs_embed.providers.sample import CENTRE, SampleProvider
from rs_embed.tables.batch import Report, ResumableBatch
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
    with (
        pytest.raises(ProviderError, match="place 'far'") as caught,
        ResumableBatch(out, [*places, FAR], "scalemae", **asked) as batch,
    ):
        batch.run("raise")
    assert caught.value.index == len(places)
    assert batch.kept == len(places)


def finished(out: Path, places: list[NamedPlace], asked: dict[str, Any]) -> Report:
    with ResumableBatch(out, places, "scalemae", **asked) as batch:
        return batch.run()


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
    with (
        pytest.raises(ProviderError, match="place 'x'"),
        ResumableBatch(out, other, "scalemae", **asked) as batch,
    ):
        batch.run("raise")
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
    with pytest.raises(ExportError, match="is there already, and finished"):
        ResumableBatch(out, near(3), "scalemae", **asked)


def test_all_done_before_is_only_written(tmp_path: Path, asked: dict[str, Any]) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    report = finished(out, near(2), asked)
    assert report.resumed == report.places == 2
    assert report.places_per_s == 0


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"image_size": 64}, "image_size absent there, 64 here"),
        ({"min_valid": 0.5}, "min_valid absent there, 0.5 here"),
        ({"output": OutputSpec.pooled("cls")}, "output absent there"),
        ({"temporal": TemporalSpec.year(2022)}, "temporal absent there"),
    ],
)
def test_another_request_is_refused(
    tmp_path: Path, asked: dict[str, Any], change: dict[str, Any], difference: str
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(1), asked)
    with pytest.raises(ExportError) as caught:
        ResumableBatch(out, near(1), "scalemae", **{**asked, **change})
    assert difference in str(caught.value)


def test_the_environment_counts_where_it_changes_numbers(
    tmp_path: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(1), asked)
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "3")
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "256")
    with pytest.raises(ExportError, match="environment.RS_EMBED_SCALEMAE_IMG absent there") as got:
        ResumableBatch(out, near(1), "scalemae", **asked)
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
    with pytest.raises(CheckpointError, match="the 2 places in .* under the same name; bring"):
        finished(out, near(4), asked)


def test_replaced_imagery_is_another_request(
    tmp_path: Path, asked: dict[str, Any], write_scene: Callable[..., Path]
) -> None:
    rng = np.random.default_rng(5)
    scene = write_scene(rng.integers(200, 3000, (3, 96, 96), dtype=np.uint16))
    asked = {**asked, "backend": "auto", "imagery": scene}
    place = NamedPlace("in", PointBuffer(13.6895, 46.943, 160))
    out = tmp_path / "v.npz"
    with (
        pytest.raises(Exception, match="place 'far'"),
        ResumableBatch(out, [place, FAR], "scalemae", **asked) as batch,
    ):
        batch.run("raise")
    write_scene(rng.integers(200, 3000, (3, 100, 96), dtype=np.uint16))
    with pytest.raises(ExportError, match=r"imagery\.bytes \d+ there, \d+ here"):
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
    with pytest.raises(ExportError, match=r"was begun by another request \(backend\.identity"):
        finished(out, [place], asked())


def test_a_provider_is_itself_by_name_or_as_an_object(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    out = tmp_path / "v.npz"
    broken_off(out, near(2), asked)
    assert finished(out, near(2), {**asked, "backend": SampleProvider()}).resumed == 2


def test_what_cannot_be_meant(tmp_path: Path, asked: dict[str, Any]) -> None:
    out = tmp_path / "v.npz"
    with pytest.raises(SpecError, match="got a grid as output, expected a pooled one"):
        ResumableBatch(out, near(1), "scalemae", output=OutputSpec.grid(), **asked)
    for each in ({"temporal": [TemporalSpec.year(2022)]}, {"fetch": [FetchSpec()]}):
        with pytest.raises(SpecError, match="for each place, expected one for all"):
            ResumableBatch(out, near(1), "scalemae", **{**asked, **each})
    with pytest.raises(SpecError, match="got 4 places, of which 1 are there twice"):
        ResumableBatch(out, [*near(3), near(3)[1]], "scalemae", **asked)
    with pytest.raises(SpecError, match="got imagery=ndarray, expected a path"):
        ResumableBatch(out, near(1), "scalemae", imagery=np.zeros((3, 9, 9)))
    assert not list(tmp_path.iterdir())
