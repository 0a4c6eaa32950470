"""Many places: the numbers of one by one, in order, memory bounded, errors that say which."""

from __future__ import annotations

import os
import re
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pyproj import Transformer

from rs_embed import (
    BBox,
    Embedding,
    FetchSpec,
    ImageryError,
    InputPrepSpec,
    ModelError,
    OutputSpec,
    PointBuffer,
    ProviderError,
    SensorSpec,
    SpecError,
    TemporalSpec,
    TemporalWarning,
    get_embedding,
    get_embeddings_batch,
    iter_embeddings,
)
from rs_embed.providers.sample import CENTRE, SampleProvider
from tests.conftest import python_environment
from tests.coordinate_model import coordinate_scene
from tests.processes import WAIT_S, errors_of, line_of, running
from tests.threads import at_work

LON, LAT = CENTRE
OUTSIDE = PointBuffer(0, 0, 640)


def places(count: int, buffer_m: float = 640) -> list[PointBuffer]:
    return [PointBuffer(LON + 0.0004 * (i % 40), LAT, buffer_m) for i in range(count)]


def vectors(results: Any) -> list[NDArray[np.float32]]:
    assert all(isinstance(result, Embedding) for result in results)
    return [result.data for result in results]


def alive() -> list[str]:
    return [t.name for t in at_work()]


@pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
@pytest.mark.parametrize("prep", ["tile", "auto", InputPrepSpec.tile(64, 16)])
@pytest.mark.parametrize("output", [OutputSpec.pooled(), OutputSpec.grid()])
def test_places_of_all_sizes_equal_one_by_one(
    checkpoint: Path, prep: Any, output: OutputSpec
) -> None:
    mixed: list[PointBuffer | BBox] = [
        PointBuffer(LON, LAT, 640),
        BBox(LON, LAT, LON + 0.02, LAT + 0.011),
        PointBuffer(LON, LAT + 0.003, 1730),
        PointBuffer(LON, LAT, 300),
        *places(9, 500),
    ]
    asked: dict[str, Any] = {
        "backend": "sample",
        "weights": checkpoint,
        "input_prep": prep,
        "output": output,
        "image_size": 64,
    }
    batch = get_embeddings_batch("scalemae", spatials=mixed, **asked)
    for place, together in zip(mixed, batch, strict=True):
        alone = get_embedding("scalemae", spatial=place, **asked)
        assert isinstance(together, Embedding)
        np.testing.assert_allclose(together.data, alone.data, rtol=0, atol=1e-5, equal_nan=True)
        assert together.meta == alone.meta  # the fingerprint too
        assert together.image is None
    assert not alive()


def test_arrays_of_several_shapes_and_gsds(checkpoint: Path) -> None:
    rng = np.random.default_rng(5)
    shapes = [(64, 64), (200, 90), (64, 64), (17, 130), (64, 64)] * 3
    arrays = [rng.integers(200, 3000, (3, *shape), dtype=np.uint16) for shape in shapes]
    scales = [FetchSpec(scale_m=0.5 + i) for i in range(len(arrays))]
    asked: dict[str, Any] = {"weights": checkpoint, "input_prep": "tile"}
    batch = get_embeddings_batch("scalemae", input_chws=arrays, fetch=scales, **asked)
    for array, scale, together in zip(arrays, scales, batch, strict=True):
        alone = get_embedding("scalemae", input_chw=array, fetch=scale, **asked)
        assert isinstance(together, Embedding)
        assert np.abs(together.data - alone.data).max() <= 1e-5
        assert together.meta["input_res_m"] == scale.scale_m


def test_one_array_holds_many(coordinate_model: object) -> None:
    stack = np.stack([coordinate_scene(64, 64), coordinate_scene(64, 64) + np.uint16(200)])
    results = vectors(
        get_embeddings_batch(
            "coordinates", input_chws=stack, fetch=FetchSpec(scale_m=10), input_prep="tile"
        )
    )
    assert len(results) == 2
    assert (results[1] > results[0]).all()


def test_files_and_windows_of_one_file(checkpoint: Path, write_scene: Callable[..., Path]) -> None:
    rng = np.random.default_rng(5)
    paths = [
        write_scene(rng.integers(200, 3000, (3, 96, 96), dtype=np.uint16), name=f"{i}.tif")
        for i in range(4)
    ]
    asked: dict[str, Any] = {"weights": checkpoint, "input_prep": "tile"}
    whole = vectors(get_embeddings_batch("scalemae", imageries=paths, **asked))
    assert np.abs(whole[1] - get_embedding("scalemae", imagery=paths[1], **asked).data).max() < 1e-5
    to_geographic = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    windows = [PointBuffer(*to_geographic.transform(400_480 + d, 5_199_520), 160) for d in (0, 100)]
    batch = vectors(get_embeddings_batch("scalemae", imagery=paths[0], spatials=windows, **asked))
    for window, vector in zip(windows, batch, strict=True):
        alone = get_embedding("scalemae", imagery=paths[0], spatial=window, **asked)
        assert np.abs(vector - alone.data).max() <= 1e-5


def test_batches_are_full_and_as_large_as_asked(
    coordinate_model: list[tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = [coordinate_scene(64, 64 if i % 3 else 32) for i in range(30)]
    asked: dict[str, Any] = {"fetch": FetchSpec(scale_m=10), "input_prep": "tile"}
    list(iter_embeddings("coordinates", input_chws=arrays, **asked))
    assert [b[0] for b in coordinate_model if b[3] == 64] == [8, 8, 4]  # the CPU's default is 8
    assert [b[0] for b in coordinate_model if b[3] == 32] == [8, 2]
    coordinate_model.clear()
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "5")
    list(iter_embeddings("coordinates", input_chws=arrays, **asked))
    assert [b[0] for b in coordinate_model if b[3] == 64] == [5] * 4


def test_an_iterator_goes_in_and_comes_out_step_by_step(checkpoint: Path) -> None:
    taken = 0

    def source() -> Iterator[PointBuffer]:
        nonlocal taken
        for place in places(400):
            taken += 1
            yield place

    results = iter_embeddings(
        "scalemae", spatials=source(), backend="sample", weights=checkpoint, input_prep="tile"
    )
    assert taken == 0
    for _ in range(20):
        next(results)
    assert taken < 20 + 100
    results.close()
    assert not alive()


def test_memory_does_not_grow_with_the_number_of_places(checkpoint: Path) -> None:
    pixels = coordinate_scene(256, 256)

    def peak(count: int) -> int:
        arrays = (pixels + np.uint16(i % 7) for i in range(count))  # 0.4 MB each
        tracemalloc.start()
        for _ in iter_embeddings(
            "scalemae", input_chws=arrays, fetch=FetchSpec(scale_m=10), weights=checkpoint,
            image_size=64, input_prep=InputPrepSpec.tile(256),
        ):  # fmt: skip
            pass
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    few, many = peak(60), peak(150)
    assert many < 1.25 * few + 5e6  # 90 more would be 35 MB of pixels alone


def test_a_failed_place_holds_no_pixels(coordinate_model: object) -> None:
    def held(count: int) -> int:
        wild = np.full((3, 400, 400), 60_000, np.uint16)  # 1 MB each, no reflectance
        arrays = (wild + np.uint16(i) for i in range(count))
        tracemalloc.start()
        results = get_embeddings_batch(
            "coordinates", input_chws=arrays, fetch=FetchSpec(scale_m=10), on_error="return"
        )
        try:
            assert all(isinstance(result, ImageryError) for result in results)
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    assert held(40) < 5e6


def test_no_place_waits_for_the_end_because_of_its_shape(coordinate_model: object) -> None:
    taken = 0

    def source() -> Iterator[NDArray[np.uint16]]:
        nonlocal taken
        for number in range(2000):
            taken += 1
            yield coordinate_scene(64, 32 if number == 0 else 64)

    results = iter_embeddings(
        "coordinates", input_chws=source(), fetch=FetchSpec(scale_m=10), input_prep="tile"
    )
    next(results)  # the only one of its shape: no batch of it will ever be full
    assert taken < 200
    results.close()


@pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
@pytest.mark.parametrize("order", [1, -1])
def test_what_is_refused_does_not_depend_on_the_order(coordinate_model: object, order: int) -> None:
    # At 224 px the crop would drop the only valid pixels of the first; loading says 256.
    rim = coordinate_scene(100, 100)
    rim[:, 7:-7, 7:-7] = 0
    results = get_embeddings_batch(
        "coordinates", input_chws=[rim, coordinate_scene(100, 100)][::order], min_valid=0,
        fetch=FetchSpec(scale_m=10), image_size=224, loaded_size=256, on_error="return",
    )  # fmt: skip
    assert len(vectors(results)) == 2


def test_an_error_ends_it_after_what_came_before(checkpoint: Path) -> None:
    asked: dict[str, Any] = {"backend": "sample", "weights": checkpoint, "input_prep": "tile"}
    given = [*places(11), OUTSIDE, *places(5)]
    results = iter_embeddings("scalemae", spatials=given, **asked)
    good = [next(results) for _ in range(11)]
    assert len(vectors(good)) == 11
    with pytest.raises(ProviderError, match="is outside the imagery") as caught:
        next(results)
    assert caught.value.index == 11
    assert caught.value.__notes__ == [f"in the batch this is number 11: {OUTSIDE}"]
    assert not alive()


def test_errors_can_stand_in_place_of_embeddings(checkpoint: Path) -> None:
    asked: dict[str, Any] = {"backend": "sample", "weights": checkpoint, "input_prep": "tile"}
    given = [OUTSIDE, *places(9), OUTSIDE, *places(3), OUTSIDE]
    results = get_embeddings_batch("scalemae", spatials=given, on_error="return", **asked)
    failed = {i: r for i, r in enumerate(results) if isinstance(r, Exception)}
    assert list(failed) == [0, 10, 13 + 1]
    assert all(e.index == i and isinstance(e, ProviderError) for i, e in failed.items())
    good = vectors(get_embeddings_batch("scalemae", spatials=places(9), **asked))
    for one, other in zip(good, results[1:10], strict=True):
        assert isinstance(other, Embedding)
        assert np.abs(one - other.data).max() <= 1e-5
    only_bad = get_embeddings_batch("scalemae", spatials=[OUTSIDE] * 3, on_error="return", **asked)
    assert [type(e) for e in only_bad] == [ProviderError] * 3


def test_a_place_does_not_fail_for_its_neighbour_in_the_batch(coordinate_model: object) -> None:
    arrays = [coordinate_scene(64, 64)] * 8 + [coordinate_scene(200, 200)]
    scales = [FetchSpec(scale_m=i + 1) for i in range(9)]
    results = get_embeddings_batch(
        "coordinates",
        input_chws=arrays,
        fetch=scales,
        on_error="return",
        refuse=7,
        input_prep="tile",
    )
    assert [isinstance(r, ModelError) for r in results] == [False] * 6 + [True] * 3
    assert [r.index for r in results if isinstance(r, ModelError)] == [6, 7, 8]


@pytest.mark.filterwarnings("ignore::rs_embed.errors.CoverageWarning")
@pytest.mark.parametrize("prep", ["resize", "tile"])
def test_sizes_that_loading_brings_to_light_count_for_all(
    coordinate_model: object, prep: Any
) -> None:
    arrays = [coordinate_scene(100, 100)] * 40
    asked: dict[str, Any] = {"fetch": FetchSpec(scale_m=10), "input_prep": prep}
    late = get_embeddings_batch(
        "coordinates", input_chws=arrays, image_size=64, loaded_size=96, **asked
    )
    known = get_embedding("coordinates", input_chw=arrays[0], image_size=96, **asked)
    for embedding in late:
        assert isinstance(embedding, Embedding)
        assert embedding.meta == known.meta
        assert embedding.meta["image_size"] == 96


def test_a_generator_that_raises_is_not_swallowed(checkpoint: Path) -> None:
    def source() -> Iterator[PointBuffer]:
        yield from places(3)
        raise OSError("the table broke off")

    results = iter_embeddings(
        "scalemae", spatials=source(), backend="sample", weights=checkpoint, input_prep="tile",
        on_error="return",
    )  # fmt: skip
    assert len(vectors([next(results) for _ in range(3)])) == 3
    with pytest.raises(OSError, match="the table broke off"):
        next(results)
    assert not alive()


class Faulty(SampleProvider):
    """A provider with a bug: it raises what is not ours."""

    def fetch(self, grid: Any, **asked: Any) -> Any:
        if grid.shape[0] > 150:
            raise ZeroDivisionError("a bug")
        return super().fetch(grid, **asked)


def test_a_bug_is_never_taken_for_a_missing_place(checkpoint: Path) -> None:
    given = [*places(3), PointBuffer(LON, LAT, 900), *places(3)]
    results = iter_embeddings(
        "scalemae", spatials=given, backend=Faulty(), weights=checkpoint, input_prep="tile",
        on_error="return",
    )  # fmt: skip
    assert len(vectors([next(results) for _ in range(3)])) == 3
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value.__notes__ == [f"while reading or preparing number 3: {given[3]}"]
    assert not alive()


POINT = PointBuffer(LON, LAT, 640)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"spatials": []}, "got spatials without a single item"),
        ({"spatials": [POINT, "here"]}, r"got spatials\[1\]='here' \(str\), expected BBox or"),
        ({"spatials": [POINT, None]}, r"got spatials\[1\]=None"),
        ({"spatials": [POINT, np.zeros((3, 64, 64))]}, r"got spatials\[1\]=array.* \(ndarray\)"),
        ({"spatials": POINT}, "expected a list or an iterator; for one place use get_embedding"),
        ({"spatials": "places.csv"}, r"places.csv: cannot be read \(no such file\), expected"),
        ({"spatials": 3}, r"got spatials=3 \(int\)"),
        ({}, "got no places, expected exactly one of spatials, input_chws, imageries"),
        ({"spatials": [POINT], "input_chws": [1]}, "got spatials and input_chws, expected exactly"),
        ({"spatials": [POINT], "temporal": 20.5}, "got temporal=20.5 .float., expected a year"),
        ({"spatials": [POINT], "fetch": 10}, "got fetch=10, expected a FetchSpec or one for each"),
        ({"spatials": [POINT], "fetch": [FetchSpec()] * 2}, "got more values of fetch than the 1"),
        ({"input_chws": np.zeros((0, 3, 64, 64))}, "got input_chws without a single item"),
        ({"input_chws": [1], "temporal": [TemporalSpec.year(2020)]}, "got temporal with input_chw"),
        ({"input_chws": [1], "fetch": [FetchSpec(cloudy_pct=5)]}, "got cloudy_pct with input_chw"),
        ({"spatials": [POINT], "backend": "sample", "fetch": [FetchSpec(scale_m=20)],
          "sensor": SensorSpec("a", ("B4", "B3", "B2"))}, "got both sensor and fetch"),
        ({"input_chws": [None]}, r"got input_chws\[0\]=None \(NoneType\), expected"),
        ({"imageries": ["a.tif"], "imagery": "b.tif"}, "got both imagery and imageries"),
        ({"spatials": [POINT], "on_error": "ignore"}, "unknown on_error 'ignore'"),
        ({"spatials": [POINT], "backend": "smaple"}, "unknown backend 'smaple'.*'sample'"),
        ({"spatials": [POINT], "backend": 3}, "got backend=3, expected a name, a folder"),
        ({"spatials": [POINT], "input_prep": "tiel"}, "unknown input_prep"),
    ],
)  # fmt: skip
def test_batches_that_cannot_be_meant(
    checkpoint: Path, arguments: dict[str, Any], match: str
) -> None:
    with pytest.raises(SpecError, match=match):
        iter_embeddings("scalemae", **{"weights": checkpoint, **arguments})  # before consumption


@pytest.mark.parametrize(
    ("spatials", "fetch", "match"),
    [
        (lambda: iter([POINT, "x"]), None, r"got spatials\[1\]='x'"),
        (lambda: [POINT] * 3, lambda: iter([FetchSpec()] * 2), "got 2 values of fetch, but more"),
        (lambda: [POINT] * 3, lambda: [FetchSpec(), 3, 4], r"got fetch=3 \(int\)"),
        (
            lambda: iter([POINT] * 2),
            lambda: [FetchSpec()] * 5,
            "got more values of fetch",
        ),
        (lambda: [POINT] * 2, lambda: [FetchSpec(), None], r"got fetch\[1\]=None"),
    ],
)
def test_an_iterator_is_checked_as_it_comes(
    checkpoint: Path, spatials: Callable[[], Any], fetch: Any, match: str
) -> None:
    with pytest.raises(SpecError, match=match):
        get_embeddings_batch(
            "scalemae", spatials=spatials(), fetch=fetch and fetch(), backend="sample",
            weights=checkpoint, input_prep="tile", on_error="return",
        )  # fmt: skip


def test_a_provider_object_and_a_period_for_each(checkpoint: Path) -> None:
    results = get_embeddings_batch(
        "scalemae", spatials=places(2), backend=SampleProvider(), weights=checkpoint,
        input_prep="tile", keep_images=True,
    )  # fmt: skip
    for result in results:
        assert isinstance(result, Embedding)
        assert result.meta["backend"] == "sample"
        assert result.image is not None
        assert result.image.shape == (128, 128, 3)
    with pytest.warns(TemporalWarning, match="no recorded day, so the period") as caught:
        get_embeddings_batch(
            "scalemae", spatials=places(2), backend="sample", weights=checkpoint,
            temporal=[TemporalSpec.year(2021), TemporalSpec.year(2022)], input_prep="tile",
        )  # fmt: skip
    years = [re.findall(r"20\d\d", str(warning.message)) for warning in caught]
    assert years == [["2021", "2022"], ["2022", "2023"]]
    assert {Path(warning.filename).name for warning in caught} == {Path(__file__).name}


def test_an_unknown_place_in_a_list_is_found_before_anything_is_read(
    coordinate_model: list[tuple[float, ...]],
) -> None:
    with pytest.raises(SpecError, match=r"input_chws\[2\]=None"):
        get_embeddings_batch("coordinates", input_chws=[coordinate_scene(64, 64)] * 2 + [None])
    assert not coordinate_model
    with pytest.raises(ImageryError, match="got 2 bands"):
        get_embeddings_batch("coordinates", input_chws=[np.zeros((2, 64, 64))])


SLOW = """
    import threading
    import time
    from rs_embed.providers.sample import SampleProvider

    begun = threading.Semaphore(0)

    class Slow(SampleProvider):
        name = "slow"
        reads = 0

        def fetch(self, grid, **asked):
            Slow.reads += 1
            begun.release()
            time.sleep({seconds})
            return super().fetch(grid, **asked)
"""
SCRIPT = """
import sys, threading
import slowness
from rs_embed import PointBuffer, get_embedding, get_embeddings_batch
places = [PointBuffer(-75.6156 + 0.0004 * (i % 40), 37.6942, 640) for i in range(5_000)]
# Everything is imported and loaded before the signal: imports of others may swallow it.
get_embedding("scalemae", spatial=places[0], backend="sample", weights=sys.argv[1],
              input_prep="tile")
def report():
    for _ in range(int(sys.argv[2])):
        slowness.begun.acquire()
    print("reading", flush=True)

threading.Thread(target=report, daemon=True).start()
try:
    get_embeddings_batch("scalemae", spatials=places, backend="slow", weights=sys.argv[1],
                         input_prep="tile", progress=False)
except KeyboardInterrupt:
    names = [t.name for t in threading.enumerate() if t.name.startswith("rs_embed-")]
    print("interrupted", len(names), flush=True)
    raise
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGINT of a process group")
@pytest.mark.parametrize(("seconds", "reads", "left"), [(0.05, 60, 0), (600, 8, 8)])
def test_ctrl_c_waits_for_no_read(
    checkpoint: Path, install: Callable[..., Path], seconds: float, reads: int, left: int
) -> None:
    folder = install(
        "slowness", "[rs_embed.providers]\nslow = slowness:Slow\n",
        slowness=SLOW.format(seconds=seconds),
    )  # fmt: skip
    environment = python_environment()
    environment["PYTHONPATH"] += os.pathsep + str(folder)
    with running("-c", SCRIPT, str(checkpoint), str(reads), env=environment) as process:
        assert line_of(process) == "reading\n", errors_of(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)  # a read may take longer
    assert process.returncode not in (0, -signal.SIGKILL)
    assert "KeyboardInterrupt" in err
    # Threads in a read that hangs cannot be stopped, but they do not hold up the process.
    assert re.fullmatch(rf"interrupted {left}\n", out)
