"""Harmonised maps: the solve equals a dense one, what was added can be taken away again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from rs_embed import MapReport, SpecError, embed_area, open_map
from rs_embed.maps.formats.opening import restored
from rs_embed.maps.harmonising import differences
from rs_embed.maps.layout import Layout
from rs_embed.maps.request import settle_area
from rs_embed.maps.window_tokens import interleaved

pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.TemporalWarning"),
    pytest.mark.filterwarnings("ignore::rs_embed.CoverageWarning"),
    pytest.mark.filterwarnings("ignore::rs_embed.ImageryWarning"),
]
Tokens = dict[Any, "NDArray[np.float32] | None"]


def layout_of(checkpoint: Path, scene: Path, **request: Any) -> Layout:
    return settle_area(
        "scalemae", imagery=scene, weights=str(checkpoint), image_size=64, **request
    ).layout


def drifting(layout: Layout, seed: int, *, without: int = 0) -> tuple[Tokens, NDArray[np.float64]]:
    """Return windows that see one field of tokens, each with a vector of its own added."""
    rng = np.random.default_rng(seed)
    height, width = (side // layout.patch_size * layout.passes for side in layout.lattice.shape)
    field = rng.standard_normal((height, width, 5)).astype(np.float32)
    own = rng.standard_normal((len(layout.tiles), 5))
    k = layout.passes
    tokens: Tokens = {}
    for number, (tile, vector) in enumerate(zip(layout.tiles, own, strict=True)):
        rows, columns = (slice(s.start * k, s.stop * k) for s in (tile.rows, tile.columns))
        cells = (field[rows, columns] + vector).astype(np.float32)
        h, w = (side // k for side in cells.shape[:2])
        passes = cells.reshape(h, k, w, k, 5).transpose(1, 3, 0, 2, 4)
        assert np.array_equal(interleaved(passes), cells)
        tokens[tile] = None if number < without else np.ascontiguousarray(passes)
    return tokens, own


def cells_of(layout: Layout, tokens: Tokens) -> list[NDArray[np.float32]]:
    """Return the cells of each window on the whole lattice, NaN elsewhere."""
    height, width = (side // layout.patch_size * layout.passes for side in layout.lattice.shape)
    found = []
    for tile in layout.tiles:
        whole = np.full((height, width, 5), np.nan, np.float32)
        own = tokens[tile]
        if own is not None:
            rows, columns = (
                slice(span.start * layout.passes, span.stop * layout.passes)
                for span in (tile.rows, tile.columns)
            )
            whole[rows, columns] = interleaved(own)
        found.append(whole)
    return found


@pytest.fixture
def scene(write_scene: Callable[..., Path]) -> Path:
    values = np.random.default_rng(4).integers(300, 3000, (3, 200, 280), dtype=np.uint16)
    return write_scene(values, name="S2_20220704.tif")


@pytest.mark.parametrize(
    "request_",
    [{}, {"overlap_px": 32}, {"stride_px": 8}, {"without": 3}],
    ids=["default", "half", "dense", "windows without tokens"],
)
def test_offsets_equal_a_dense_solution(
    checkpoint: Path, scene: Path, request_: dict[str, Any]
) -> None:
    without = request_.pop("without", 0) if "without" in request_ else 0
    layout = layout_of(checkpoint, scene, **request_)
    tokens, _ = drifting(layout, 1, without=without)
    screen = 0.07
    found = differences(layout, lambda tiles: [tokens[tile] for tile in tiles], 5)
    # Least squares, written out: one row for each pair, and one for each window.
    whole = cells_of(layout, tokens)
    count = len(layout.tiles)
    rows, right = [], []
    for i in range(count):
        for j in range(i + 1, count):
            both = ~np.isnan(whole[i][..., 0]) & ~np.isnan(whole[j][..., 0])
            if both.any():
                weight = np.sqrt(both.sum() / layout.tokens_per_window)
                row = np.zeros(count)
                row[i], row[j] = weight, -weight
                rows.append(row)
                right.append(weight * (whole[j][both] - whole[i][both]).mean(axis=0))
    system = np.vstack([*rows, np.sqrt(screen) * np.eye(count)])
    target = np.vstack([*right, np.zeros((count, 5))])
    expected = np.linalg.lstsq(system, target, rcond=None)[0]
    expected[:without] = np.nan
    np.testing.assert_allclose(found.offsets(screen), expected, atol=1e-5)
    assert len(found.pairs) == len(rows)


def test_what_windows_add_is_found(checkpoint: Path, scene: Path) -> None:
    """With next to no screen nothing is left between windows that differ by vectors alone."""
    layout = layout_of(checkpoint, scene)
    tokens, own = drifting(layout, 2)
    read = lambda tiles: [tokens[tile] for tile in tiles]  # noqa: E731
    found = differences(layout, read, 5)
    assert found.apart is not None
    assert found.apart > 0.5
    offsets = found.offsets(1e-9)
    np.testing.assert_allclose(offsets + own, np.broadcast_to(own.mean(0), own.shape), atol=1e-4)
    moved: Tokens = {
        tile: None if tokens[tile] is None else tokens[tile] + offset
        for tile, offset in zip(layout.tiles, offsets, strict=True)
    }
    after = differences(layout, lambda tiles: [moved[tile] for tile in tiles], 5).apart
    assert after == pytest.approx(0, abs=1e-6)


def test_parts_that_do_not_touch_are_solved_apart(checkpoint: Path, scene: Path) -> None:
    layout = layout_of(checkpoint, scene)
    tokens, _ = drifting(layout, 3)
    middle = sorted({tile.columns.start for tile in layout.tiles})[2:4]
    for tile in layout.tiles:
        if tile.columns.start in middle:
            tokens[tile] = None  # a river of nodata
    whole = differences(layout, lambda tiles: [tokens[t] for t in tiles], 5).offsets(0.05)
    west = {t: None if t.columns.start > middle[0] else v for t, v in tokens.items()}
    alone = differences(layout, lambda tiles: [west[t] for t in tiles], 5).offsets(0.05)
    there = ~np.isnan(alone[:, 0])
    assert 0 < there.sum() < (~np.isnan(whole[:, 0])).sum()
    np.testing.assert_allclose(whole[there], alone[there], atol=1e-6)


@pytest.fixture(scope="module")
def finished_maps() -> dict[tuple[str, str], MapReport]:
    """Maps of the scene that several tests read, by file type and request."""
    return {}


@pytest.fixture
def mapped(
    finished_maps: dict[tuple[str, str], MapReport], checkpoint: Path, scene: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., MapReport]:  # fmt: skip
    """Return a function that makes a map of the scene, or returns the one made before."""

    def make(suffix: str, **request: Any) -> MapReport:
        key = suffix, repr(sorted(request.items()))
        if key not in finished_maps:
            output = tmp_path_factory.mktemp("maps") / f"map{suffix}"
            finished_maps[key] = embed_area(
                "scalemae", imagery=scene, weights=str(checkpoint), image_size=64, output=output,
                **request,
            )  # fmt: skip
        return finished_maps[key]

    return make


@pytest.mark.parametrize("stored", [{}, {"stride_px": 8}, {"pca": 4}, {"dtype": "int8"}], ids=str)
@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
def test_raw_tokens_come_back(
    mapped: Callable[..., MapReport], suffix: str, stored: dict[str, Any]
) -> None:
    place = {name: value for name, value in stored.items() if name == "stride_px"}
    blend = mapped(suffix, seams="blend", **place)
    assert blend.apart is not None
    assert blend.apart_harmonised is None
    report = mapped(suffix, seams="harmonise", **stored)
    assert report.apart is not None
    assert report.apart_harmonised is not None
    assert report.apart_harmonised < report.apart
    assert f"{report.apart_harmonised:.2f} harmonised" in str(report)
    plain, opened = open_map(blend.path), open_map(report.path)
    tiles = json.loads(opened.attrs["meta"])["tiles"]
    assert (tiles["apart"], tiles["apart_harmonised"]) == (report.apart, report.apart_harmonised)
    if not stored or place:
        raw = restored(opened, raw=True)
        xr.testing.assert_allclose(raw, plain, atol=1e-5)
        part = {"y": slice(3, 9), "x": [7, 2], "d": [5, 1]}
        xr.testing.assert_allclose(
            restored(opened.isel(part), raw=True), plain.isel(part), atol=1e-5
        )
    else:
        whole = restored(opened) if "pca" in stored else opened
        moved = open_map(mapped(".zarr", seams="harmonise").path) - plain
        xr.testing.assert_allclose(
            restored(opened, raw=True), (whole - moved).transpose("d", "y", "x"), atol=1e-4
        )
    with pytest.raises(SpecError, match="not harmonised, expected one made with seams='harmonise'"):
        restored(plain, raw=True)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"seams": "harmonise", "overlap_px": 0}, "overlap_px=0.*nothing to compare"),
        ({"seams": "harmonise", "screen": 0}, "screen=0, expected more than 0"),
        ({"seams": "harmonise", "screen": float("nan")}, "screen=nan"),
        ({"seams": "blend", "screen": 0.1}, "screen=0.1 with seams='blend', expected 'harmonise'"),
    ],
)
def test_what_is_refused(checkpoint: Path, scene: Path, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        layout_of(checkpoint, scene, **wrong)


def test_one_window_is_as_it_was(
    checkpoint: Path, write_scene: Callable[..., Path], tmp_path: Path
) -> None:
    values = np.random.default_rng(4).integers(300, 3000, (3, 64, 64), dtype=np.uint16)
    scene = write_scene(values, name="S2_20220704.tif")
    asked: dict[str, Any] = {"imagery": scene, "weights": str(checkpoint), "image_size": 64}
    report = embed_area("scalemae", output=tmp_path / "h.zarr", seams="harmonise", **asked)
    assert (report.windows, report.apart) == (1, None)
    embed_area("scalemae", output=tmp_path / "b.zarr", **asked)
    xr.testing.assert_equal(open_map(tmp_path / "h.zarr"), open_map(tmp_path / "b.zarr"))
