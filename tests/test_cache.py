"""The cache of pixels: what is served is what was fetched, for the same request, or nothing is."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from subprocess import STDOUT, Popen
from typing import Any

import numpy as np
import pytest
from affine import Affine

from rs_embed import (
    BatchReport,
    Embedding,
    FetchSpec,
    LocalProvider,
    OutputSpec,
    PointBuffer,
    TemporalSpec,
    export_batch,
    get_embedding,
    get_embeddings_batch,
    inspect_input,
    iter_embeddings,
)
from rs_embed.errors import (
    ExportError,
    ImageryError,
    ImageryWarning,
    ProviderError,
    SettingsError,
    SpecError,
)
from rs_embed.files.places import NamedPlace
from rs_embed.geo.grid import Grid, known_crs
from rs_embed.geo.raster import Raster
from rs_embed.providers.base import Cost, Provider
from rs_embed.providers.cache import CachedProvider, PatchCache, open_cache
from rs_embed.providers.sample import CENTRE
from rs_embed.settings import Settings
from rs_embed.specs import SensorSpec
from rs_embed.testing.providers import NORTH, ProviderContract, write_contract_scenes
from tests.cache_worker import BIG, GRID, made_of, put
from tests.conftest import python_environment
from tests.processes import started

JUNE = TemporalSpec.range("2023-06-01", "2023-07-01")
ROOT = Path(__file__).parents[1]
SENSOR = SensorSpec(
    "COPERNICUS/S2_SR_HARMONIZED", ("B4", "B3", "B2"), scale_m=10, cloudy_pct=30,
    composite="median", fill_value=0,
)  # fmt: skip
# The middle of the contract's scenes in the north: 500600, 5199520 in UTM 33 N.
PLACE = PointBuffer(lon=15.00788, lat=46.94921, buffer_m=240)


class Counted:
    """A provider that counts what it is asked, and gives pixels that follow from the request."""

    name = "counted"
    dated = True

    def __init__(self, identity: str = "1", **changes: Any) -> None:
        self.said = identity
        self.changes = changes
        self.fetched = 0
        self.identities = 0

    def configured(self) -> bool:
        return True

    def check_sensor(self, sensor: SensorSpec) -> None:
        if "B9" in sensor.bands:
            raise ProviderError("there is no B9")

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        self.fetched += 1
        valid = np.ones(grid.shape, bool)
        valid[3:4, 4:5] = False
        source = {"image_count": 1, "items": [{"id": "ä", "acquired": None}], "share": 0.1}
        content: dict[str, Any] = {
            "data": made_of(f"{temporal} {sensor}", grid), "valid": valid, "bands": sensor.bands,
            "grid": grid, "reflectance": (1e-4, -0.1), "source": source, "notes": ("a note",),
            **self.changes,
        }  # fmt: skip
        return Raster(**content)

    def identity(self) -> str:
        self.identities += 1
        return self.said

    def cost(self, grid: Grid, *, sensor: SensorSpec) -> Cost:
        return Cost(requests=7)

    def status(self, *, online: bool = False) -> str:
        return f"ready: counted, online={online}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "patches"
    path.mkdir()
    return path


def fetch(
    provider: Provider, folder: Path, grid: Grid = GRID, period: TemporalSpec = JUNE, **changes: Any
) -> Raster:
    cached = CachedProvider(provider, PatchCache(folder, BIG))
    return cached.fetch(grid, temporal=period, sensor=replace(SENSOR, **changes))


def same(one: Raster, other: Raster) -> bool:
    """Whether two rasters are equal in everything but when they were fetched."""
    assert one.data.dtype == other.data.dtype
    assert np.array_equal(one.data, other.data, equal_nan=one.data.dtype.kind == "f")
    assert one.valid.dtype == other.valid.dtype == np.bool_
    assert np.array_equal(one.valid, other.valid)
    told = [{k: v for k, v in r.source.items() if k != "cached"} for r in (one, other)]
    assert told[0] == told[1]
    kept = [(r.bands, r.grid, r.reflectance, r.notes) for r in (one, other)]
    assert kept[0] == kept[1]
    return True


def copied(provider: Any) -> Any:
    return pickle.loads(pickle.dumps(provider))  # noqa: S301


class Twice:
    """A provider that asks a cached one for everything twice, and gives the second answer."""

    def __init__(self, cached: CachedProvider) -> None:
        self.cached = cached

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cached, name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Twice, (self.cached,)

    def fetch(self, grid: Grid, *, temporal: TemporalSpec | None, sensor: SensorSpec) -> Raster:
        first = self.cached.fetch(grid, temporal=temporal, sensor=sensor)
        second = self.cached.fetch(grid, temporal=temporal, sensor=sensor)
        assert same(first, second)
        source = dict(second.source)
        assert datetime.fromisoformat(source.pop("cached")).utcoffset() == timedelta(0)
        return replace(second, source=source)


class TestCachedProvider(ProviderContract):
    @pytest.fixture
    def provider(self, contract_scenes: Path, folder: Path) -> Provider:
        cached = CachedProvider(LocalProvider(contract_scenes), PatchCache(folder, BIG))
        twice: Any = Twice(cached)
        return twice  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_contract_scenes(tmp_path_factory.mktemp("scenes"))


# What is served.


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">i4", "float32", "float64"])
def test_what_is_served_is_what_was_fetched(folder: Path, dtype: str) -> None:
    data = made_of("x", dtype=dtype)
    if data.dtype.kind == "f":
        data[:, 3, 4] = np.nan  # invalid there
    provider = Counted(data=data, reflectance=None if dtype == "uint8" else (1e-4, -0.1))
    before = datetime.now(UTC).replace(microsecond=0)
    fetched, served = fetch(provider, folder), fetch(provider, folder)
    assert provider.fetched == 1
    assert same(fetched, served)
    assert served.data.dtype.str == data.dtype.str
    assert served.data.flags.writeable
    assert "cached" not in fetched.source
    assert before <= datetime.fromisoformat(served.source["cached"]) <= datetime.now(UTC)


def test_upside_down_and_single_pixels_are_served(folder: Path) -> None:
    for provider, grid in (
        (Counted(data=made_of("y")[:, ::-1, ::2].repeat(2, axis=2)), GRID),
        (Counted("2", valid=np.array([[False]])), GRID.window(0, 0, 1, 1)),
    ):
        assert same(fetch(provider, folder, grid), fetch(provider, folder, grid))
        assert provider.fetched == 1


def up(value: float) -> float:
    return float(np.nextafter(value, np.inf))


def moved(number: int) -> Grid:
    """Return the grid with one number of its transform larger by the least that there is."""
    numbers = list(GRID.transform[:6])
    numbers[number] = up(numbers[number])
    return replace(GRID, transform=Affine(*numbers))


@pytest.mark.parametrize(
    "change",
    [
        *({"grid": moved(number)} for number in (0, 2, 4, 5)),
        {"grid": replace(GRID, crs=known_crs(32632))},
        {"grid": GRID.window(0, 0, 20, 31)},
        {"period": TemporalSpec.range("2023-06-01", "2023-07-02")},
        {"period": TemporalSpec.range("2023-06-02", "2023-07-01")},
        {"cloudy_pct": up(30)},
        {"composite": "mosaic"},
        {"cloud_mask": "scl"},
        {"bands": ("B4", "B2", "B3")},
        {"collection": "other"},
        {"fill_value": 1},
        {"scale_m": up(10)},
        {"crs": "EPSG:32633"},
        {"reflectance_scale": 1e-4},
    ],
    ids=str,
)
def test_every_part_of_the_request_counts(folder: Path, change: dict[str, Any]) -> None:
    provider = Counted()
    first = fetch(provider, folder)
    other = fetch(provider, folder, **change)
    assert provider.fetched == 2
    assert "cached" not in other.source
    assert same(fetch(provider, folder, **change), other)
    assert same(fetch(provider, folder), first)
    assert provider.fetched == 2


def test_whole_numbers_and_their_floats_are_the_same_request(folder: Path) -> None:
    provider = Counted()
    fetch(provider, folder, cloudy_pct=30, scale_m=10)
    fetch(provider, folder, cloudy_pct=30.0, scale_m=10.0)
    assert provider.fetched == 1


def test_the_provider_and_its_identity_count(folder: Path) -> None:
    fetch(Counted(), folder)
    other_name = Counted()
    other_name.name = "another"
    for provider in (Counted("2"), other_name):
        fetch(provider, folder)
        assert provider.fetched == 1


def test_a_changed_file_is_fetched_anew(folder: Path, tmp_path: Path) -> None:
    scenes = write_contract_scenes(tmp_path / "scenes")
    grid = NORTH[0].grid.window(20, 70, 20, 20)
    first = fetch(LocalProvider(scenes), folder, grid, collection="COPERNICUS/S2_SR_HARMONIZED")
    assert "cached" in fetch(LocalProvider(scenes), folder, grid).source
    os.utime(scenes / "north-2" / "B3.tif", (1, 1))
    anew = fetch(LocalProvider(scenes), folder, grid)
    assert "cached" not in anew.source
    assert same(anew, first)
    assert "cached" in fetch(LocalProvider(scenes), folder, grid).source


def test_a_provider_that_looked_before_its_files_changed_is_not_kept(
    folder: Path, tmp_path: Path
) -> None:
    scenes = write_contract_scenes(tmp_path / "scenes")
    grid = NORTH[0].grid.window(20, 70, 20, 20)
    late = scenes / "north-7"
    late.rename(tmp_path / "late")
    provider = LocalProvider(scenes)
    assert fetch(provider, folder, grid, cloudy_pct=100).source["image_count"] == 2
    (tmp_path / "late").rename(late)
    # It does not know of the third scene, though it says what a new one says.
    assert provider.identity() == LocalProvider(scenes).identity()
    for _ in range(2):
        stale = fetch(provider, folder, grid, cloudy_pct=100).source
        assert stale["image_count"] == 2
        assert "cached" not in stale
    for kept in (False, True):
        source = fetch(LocalProvider(scenes), folder, grid, cloudy_pct=100).source
        assert source["image_count"] == 3
        assert ("cached" in source) == kept


def test_a_copy_looks_anew(folder: Path, tmp_path: Path) -> None:
    """What it finds is not kept as what the original had looked up, nor the other way round."""
    scenes = write_contract_scenes(tmp_path / "scenes")
    grid = NORTH[0].grid.window(20, 70, 20, 20)
    late = scenes / "north-7"
    late.rename(tmp_path / "late")
    cached = CachedProvider(LocalProvider(scenes), PatchCache(folder, BIG))
    sensor = replace(SENSOR, cloudy_pct=100)
    assert cached.fetch(grid, temporal=JUNE, sensor=sensor).source["image_count"] == 2
    (tmp_path / "late").rename(late)
    copy = copied(cached)
    for _ in range(2):
        assert copy.fetch(grid, temporal=JUNE, sensor=sensor).source["image_count"] == 3
        assert cached.fetch(grid, temporal=JUNE, sensor=sensor).source["image_count"] == 2
    new = fetch(LocalProvider(scenes), folder, grid, cloudy_pct=100)
    assert new.source["image_count"] == 3


def test_a_copy_that_took_along_what_was_looked_up_is_not_kept(folder: Path) -> None:
    provider = Counted("1")
    fetch(provider, folder)
    provider.said = "2"
    for one in (provider, copied(provider)):
        before = one.fetched
        fetch(one, folder)
        fetch(one, folder)
        assert one.fetched == before + 2
    assert len(list(folder.iterdir())) == 1


def test_a_used_cache_goes_through_pickle(folder: Path) -> None:
    provider = Counted()
    cached = CachedProvider(provider, PatchCache(folder, BIG))
    first = cached.fetch(GRID, temporal=JUNE, sensor=SENSOR)
    copy = copied(cached)
    kept = copy.fetch(GRID, temporal=JUNE, sensor=SENSOR)
    assert same(kept, first)
    assert "cached" in kept.source


def test_the_identity_is_asked_once_however_many_threads(folder: Path) -> None:
    provider = Counted()
    cached = CachedProvider(provider, PatchCache(folder, BIG))
    assert provider.identities == 0
    start = threading.Barrier(8, timeout=60)

    def one(number: int) -> Raster:
        start.wait()
        grid = GRID.window(number % 2, 0, 20, 30)
        return cached.fetch(grid, temporal=JUNE, sensor=SENSOR)

    with ThreadPoolExecutor(8) as pool:
        rasters = list(pool.map(one, range(8)))
    assert provider.identities == 1
    assert all(same(a, b) for a, b in zip(rasters[:2] * 3, rasters[2:], strict=True))
    assert len(list(folder.iterdir())) == 2


def test_it_is_the_provider_in_everything_else(folder: Path) -> None:
    cached: Provider = CachedProvider(Counted(), PatchCache(folder, BIG))
    assert (cached.name, cached.dated, cached.configured()) == ("counted", True, True)
    assert (cached.identity(), cached.status()) == ("1", "ready: counted, online=False")
    assert cached.status(online=True) == "ready: counted, online=True"
    assert cached.cost(GRID, sensor=SENSOR) == Cost(requests=7)
    with pytest.raises(ProviderError, match="there is no B9"):
        cached.check_sensor(replace(SENSOR, bands=("B9",)))


# What is not kept.


@pytest.mark.parametrize(
    ("today", "kept"),
    [
        (date(2023, 6, 15), False),  # not over yet
        (date(2023, 7, 1), False),
        (date(2023, 7, 30), False),  # its end is 29 days ago
        (date(2023, 7, 31), True),
        (date(2024, 1, 1), True),
    ],
)
def test_a_period_is_kept_when_it_is_settled(folder: Path, today: date, kept: bool) -> None:
    provider = Counted()
    cached = CachedProvider(provider, PatchCache(folder, BIG), today=lambda: today)
    sources = [cached.fetch(GRID, temporal=JUNE, sensor=SENSOR).source for _ in range(2)]
    assert provider.fetched == (1 if kept else 2)
    assert ["cached" in source for source in sources] == [False, kept]
    assert len(list(folder.iterdir())) == kept


def test_the_end_of_all_time_is_not_settled(folder: Path) -> None:
    fetch(Counted(), folder, period=TemporalSpec.range("2020-01-01", "9999-12-31"))
    assert not list(folder.iterdir())


def test_pixels_without_a_period_and_on_another_grid_are_not_kept(folder: Path) -> None:
    cached = CachedProvider(Counted(), PatchCache(folder, BIG))
    assert cached.fetch(GRID, temporal=None, sensor=SENSOR).data.any()
    elsewhere = replace(GRID, crs=known_crs(32632))
    assert fetch(Counted(grid=elsewhere), folder).grid == elsewhere
    assert fetch(Counted(bands=("a", "b", "c")), folder).bands == ("a", "b", "c")
    assert not list(folder.iterdir())


def test_an_error_is_not_kept(folder: Path, scenes: Path) -> None:
    nowhere = NORTH[0].grid.window(5000, 5000, 20, 20)
    provider = LocalProvider(scenes)
    for _ in range(2):
        with pytest.raises(ProviderError, match="no imagery for the place"):
            fetch(provider, folder, nowhere)
    assert not list(folder.iterdir())


# What is damaged.


def only_entry(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def served_anew(provider: Counted, folder: Path, expected: Raster) -> None:
    """Check that a damaged entry is said, fetched anew and replaced."""
    before = provider.fetched
    raster = fetch(provider, folder)
    assert provider.fetched == before + 1
    *notes, said = raster.notes
    assert "are damaged, or belong to another request or version; they were fetched again" in said
    assert same(replace(raster, notes=tuple(notes)), expected)
    assert same(fetch(provider, folder), expected)  # without the note, which was of that time
    assert provider.fetched == before + 1


def test_no_flipped_bit_is_served(folder: Path) -> None:
    provider = Counted()
    expected = fetch(provider, folder)
    entry = only_entry(folder)
    content = entry.read_bytes()
    pixels = len(content) - expected.valid.size - expected.data.nbytes
    places = [0, 14, 15, 17, 40, 80, 81, 82, 83, 200, pixels - 2, pixels - 1, pixels]
    for at in (*places, pixels + 1001, len(content) - 601, len(content) - 600, len(content) - 1):
        damaged = bytearray(content)
        damaged[at] ^= 1
        entry.write_bytes(damaged)
        served_anew(provider, folder, expected)


def test_no_truncated_or_lengthened_entry_is_served(folder: Path) -> None:
    provider = Counted()
    expected = fetch(provider, folder)
    entry = only_entry(folder)
    content = entry.read_bytes()
    for length in (0, 1, 17, 81, 82, 83, 300, len(content) - 601, len(content) - 1):
        entry.write_bytes(content[:length])
        served_anew(provider, folder, expected)
    for more in (b"\0", content):
        entry.write_bytes(content + more)
        served_anew(provider, folder, expected)
    with entry.open("r+b") as file:  # as a power cut leaves it
        file.seek(82)
        file.write(bytes(len(content) - 82))
    served_anew(provider, folder, expected)


@pytest.mark.parametrize("foreign", [b"a text of somebody\n", bytes(5000), b"PK\x03\x04" * 100])
def test_no_foreign_file_is_served(folder: Path, foreign: bytes) -> None:
    provider = Counted()
    expected = fetch(provider, folder)
    only_entry(folder).write_bytes(foreign)
    served_anew(provider, folder, expected)


def test_no_entry_of_another_place_is_served(folder: Path) -> None:
    provider = Counted()
    expected = fetch(provider, folder)
    here = only_entry(folder)
    fetch(provider, folder, period=TemporalSpec.year(2020))
    there = next(path for path in folder.iterdir() if path != here)
    there.rename(here)
    served_anew(provider, folder, expected)


def test_an_entry_that_cannot_be_read_is_no_error(folder: Path) -> None:
    provider = Counted()
    fetch(provider, folder)
    entry = only_entry(folder)
    entry.unlink()
    entry.mkdir()
    (entry / "x").touch()
    raster = fetch(provider, folder)
    assert provider.fetched == 2
    said, also = raster.notes[1:]
    assert "cannot be read: [Errno 21] Is a directory" in said
    assert "the pixels cannot be cached in" in also
    assert (entry / "x").exists()


# What cannot be kept.


def gone(folder: Path) -> None:
    folder.rmdir()


def now_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


@pytest.mark.parametrize("make", [gone, now_a_file])
def test_a_cache_that_fails_is_said_once_and_no_error(
    folder: Path, make: Callable[[Path], None]
) -> None:
    provider = Counted()
    cached = CachedProvider(provider, PatchCache(folder, BIG))
    make(folder)
    said = []
    for shift in range(3):
        grid = GRID.window(shift, 0, 20, 30)
        raster = cached.fetch(grid, temporal=JUNE, sensor=SENSOR)
        assert np.array_equal(raster.data, made_of(f"{JUNE} {SENSOR}", grid))
        said += [note for note in raster.notes if "cannot be cached" in note]
    assert len(said) == 1
    assert "free some space, or name another folder as cache=" in said[0]


def other(*args: object) -> Popen[str]:
    """Start another process; see `tests.cache_worker`."""
    given = map(str, args)
    return started("-m", "tests.cache_worker", *given, env=python_environment(), stderr=STDOUT)


def test_a_full_disk_leaves_nothing(folder: Path) -> None:
    said, _ = other("no_space", folder).communicate(timeout=120)
    assert "the pixels cannot be cached in" in said
    assert "File too large" in said
    assert not list(folder.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_serves(folder: Path) -> None:
    provider = Counted()
    expected = fetch(provider, folder)
    folder.chmod(0o500)
    try:
        assert same(fetch(provider, folder), expected)
        assert "cannot be cached" in fetch(Counted("2"), folder).notes[-1]
    finally:
        folder.chmod(0o700)


# Its size.


def entry_size(folder: Path) -> int:
    put(PatchCache(folder, BIG), 1000)
    size = only_entry(folder).stat().st_size
    only_entry(folder).unlink()
    return size


def path_of(folder: Path, number: int) -> Path:
    """Return where the entry of a number lies."""
    canonical = f'{{"number":{number}}}'.encode()
    return folder / f"{hashlib.sha256(canonical).hexdigest()}.patch"


def held(cache: PatchCache, numbers: range) -> list[int]:
    """Return which numbers have an entry, without using them."""
    return [number for number in numbers if path_of(cache.folder, number).exists()]


def test_what_was_used_longest_ago_goes_first(folder: Path) -> None:
    size = entry_size(folder)
    cache = PatchCache(folder, 5 * size)  # four, since a sixteenth stays free
    keys = [put(cache, number) for number in range(4)]
    assert held(cache, range(9)) == [0, 1, 2, 3]
    for number, when in enumerate((40, 10, 30, 20)):
        os.utime(path_of(folder, number), (when, when))
    assert cache.get(keys[1], GRID) is not None  # used now
    put(cache, 4)
    assert held(cache, range(9)) == [0, 1, 2, 4]
    put(cache, 5)
    assert held(cache, range(9)) == [0, 1, 4, 5]
    put(cache, 6)
    assert held(cache, range(9)) == [1, 4, 5, 6]


def test_what_others_wrote_counts(folder: Path) -> None:
    size = entry_size(folder)
    for number in range(9):
        put(PatchCache(folder, BIG), number)
    put(PatchCache(folder, 5 * size), 9)
    held_now = held(PatchCache(folder, BIG), range(10))
    assert len(held_now) == 4
    assert 9 in held_now


def test_an_entry_larger_than_the_bound_is_not_kept(folder: Path) -> None:
    size = entry_size(folder)
    small = PatchCache(folder, 10 * size)
    put(small, 0)
    large = GRID.enlarged(100, 100)
    valid = np.ones(large.shape, bool)
    small.put({"large": 1}, Raster(made_of("l", large), valid, ("a", "b", "c"), large))
    assert held(small, range(1)) == [0]
    assert len(list(folder.iterdir())) == 1
    put(PatchCache(folder, size), 1)
    assert held(small, range(2)) == [0]


def test_the_folder_is_not_looked_through_at_each_put(folder: Path) -> None:
    looked = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "os.scandir" and str(arguments[0]) == str(folder):
            looked.append(event)

    size = entry_size(folder)
    sys.addaudithook(watch)  # it cannot be taken away again
    cache = PatchCache(folder, 128 * 20 * size)
    for number in range(60):
        put(cache, number)
    watching = False
    assert 2 <= len(looked) <= 8  # two each time: at first, and each 20 entries


def test_files_of_others_stay(folder: Path) -> None:
    size = entry_size(folder)
    others = {
        "notes.txt": b"mine", f"{'0' * 64}.patch": b"not an entry", f"{'a' * 63}.patch": b"x",
        f".{'0' * 32}.part": b"of another program", "README.patch": b"rs_embed patch 1 ",
    }  # fmt: skip
    for name, content in others.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1, 1))
    cache = PatchCache(folder, 5 * size)
    for number in range(8):
        put(cache, number)
    assert 3 <= len(held(cache, range(8))) <= 4
    cache.clear()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == others


# Many processes.


def test_processes_share_a_folder(folder: Path) -> None:
    bound = 6 * entry_size(folder)
    workers = [other("share", folder, seed, bound, 1.5) for seed in range(3)]
    victim = other("share", folder, 3, bound, 60)
    said = [worker.communicate(timeout=120)[0] for worker in workers]
    assert victim.poll() is None
    victim.kill()
    victim.communicate(timeout=120)
    assert [worker.returncode for worker in workers] == [0, 0, 0], said
    cache = PatchCache(folder, bound)
    put(cache, 20)  # the last look
    files = [path for path in folder.iterdir() if path.suffix == ".patch"]
    assert 3 <= len(files) <= 6
    assert sum(path.stat().st_size for path in files) <= bound
    for number in held(cache, range(12)):
        served = cache.get({"number": number}, GRID)
        assert served is not None
        assert np.array_equal(served.data, made_of(str(number)))


def test_killed_while_writing_nothing_is_served(folder: Path) -> None:
    limits = 1, 40, 90, 500, 4000
    child = other("killed", folder, *limits)
    said, _ = child.communicate(timeout=120)
    assert child.returncode == 0, said
    parts = list(folder.iterdir())
    assert sorted(path.stat().st_size for path in parts) == list(limits)
    cache = PatchCache(folder, BIG)
    assert cache.get({"number": 7}, GRID) is None
    assert cache.ls() == []
    assert cache.clear() == (0, 0)
    assert len(list(folder.iterdir())) == len(limits)  # another process may be writing them
    for part in parts:
        os.utime(part, (1, 1))
    cache.clear()
    assert not list(folder.iterdir())
    parts[0].write_bytes(b"rs_em")
    os.utime(parts[0], (1, 1))
    put(cache, 7)  # what is left over goes when the folder is looked through, too
    assert [path.suffix for path in folder.iterdir()] == [".patch"]


# In the public functions.


@pytest.fixture
def asked(checkpoint: Path) -> dict[str, Any]:
    return {"weights": checkpoint, "input_prep": "tile", "temporal": JUNE}


def test_a_warm_run_is_the_cold_one(
    scenes: Path, folder: Path, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(**changes: Any) -> Embedding:
        return get_embedding(
            "scalemae", spatial=PLACE, backend=LocalProvider(scenes), **asked, **changes
        )

    plain, cold, warm = run(), run(cache=folder), run(cache=str(folder))
    assert np.array_equal(plain.data, cold.data)
    assert np.array_equal(plain.data, warm.data)
    assert plain.meta["fingerprint"] == cold.meta["fingerprint"] == warm.meta["fingerprint"]
    assert plain.meta == cold.meta
    when = warm.meta["source"].pop("cached")
    assert datetime.now(UTC) - datetime.fromisoformat(when) < timedelta(minutes=5)
    assert warm.meta == cold.meta
    grid = run(cache=folder, output=OutputSpec.grid())
    assert grid.meta["source"]["cached"] == when
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder))
    assert run().meta["source"]["cached"] == when
    seen = inspect_input(
        "scalemae", spatial=PLACE, backend=LocalProvider(scenes), temporal=JUNE,
        weights=asked["weights"], input_prep="tile",
    )  # fmt: skip
    assert seen.meta["source"]["cached"] == when
    assert "cached" not in run(cache=folder.with_name("other")).meta["source"]
    monkeypatch.delenv("RS_EMBED_CACHE_DIR")
    assert "cached" not in run().meta["source"]
    assert "cached" in run(fetch=FetchSpec(cloudy_pct=30), cache=folder).meta["source"]


def test_a_warm_batch_does_not_touch_the_provider(folder: Path, asked: dict[str, Any]) -> None:
    places = [PointBuffer(15 + 0.01 * number, 46.9, 240) for number in range(6)]
    provider = Counted(notes=())
    runs = [
        get_embeddings_batch("scalemae", spatials=places, backend=provider, cache=folder, **asked)
        for _ in range(2)
    ]
    assert provider.fetched == len(places)
    assert provider.identities == 2
    for cold, warm in zip(*runs, strict=True):
        assert isinstance(cold, Embedding)
        assert isinstance(warm, Embedding)
        assert np.abs(cold.data - warm.data).max() <= 1e-6
        assert cold.meta["fingerprint"] == warm.meta["fingerprint"]
        assert warm.meta["source"].pop("cached")
        assert warm.meta == cold.meta
    (one,) = iter_embeddings(
        "scalemae", spatials=places[:1], backend=provider, cache=folder, **asked
    )
    assert isinstance(one, Embedding)
    assert "cached" in one.meta["source"]
    assert provider.fetched == len(places)


def test_the_sample_is_not_kept(folder: Path, asked: dict[str, Any]) -> None:
    sample = {**asked, "temporal": None, "spatial": PointBuffer(*CENTRE, 640), "backend": "sample"}
    runs = [get_embedding("scalemae", cache=folder, **sample) for _ in range(2)]
    assert np.array_equal(runs[0].data, runs[1].data)
    assert runs[0].meta == runs[1].meta
    assert not list(folder.iterdir())


def test_what_goes_wrong_with_the_cache_is_a_warning(folder: Path, asked: dict[str, Any]) -> None:
    def run() -> Embedding:
        return get_embedding(
            "scalemae", spatial=PLACE, backend=Counted(notes=()), cache=folder, **asked
        )

    run()
    only_entry(folder).write_bytes(b"rs_embed patch 1 ")
    with pytest.warns(ImageryWarning, match="damaged.* fetched again") as caught:
        embedding = run()
    assert embedding.meta["warnings"] == [str(caught[0].message)]
    assert "cached" in run().meta["source"]


def test_a_batch_goes_on_with_a_cache(
    folder: Path, tmp_path: Path, scenes: Path, asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO", "rs_embed.runs")
    near, far = NamedPlace("near", PLACE), NamedPlace("far", PointBuffer(0, 0, 240))
    out = tmp_path / "v.npz"

    def batch(*places: NamedPlace, **changes: Any) -> BatchReport:
        arguments = {**asked, "backend": LocalProvider(scenes), **changes}
        return export_batch("scalemae", places, output=out, **arguments)

    def leave(**changes: Any) -> bool:
        caplog.clear()
        with pytest.raises(ProviderError):
            batch(near, far, on_error="raise", **changes)
        return caplog.messages[0] == "resuming: 1 of 2 places is done"

    assert not leave()
    assert leave(cache=folder)
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder))
    monkeypatch.setenv("RS_EMBED_CACHE_GB", "3")
    assert leave()
    assert batch(near, cache=folder.with_name("other")).resumed == 1


# Asking for it.


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_folder_that_cannot_be_one(
    no_folder: Path, below: str, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    path = no_folder / below
    provider = Counted()
    run: dict[str, Any] = {**asked, "spatial": PLACE, "backend": provider}
    with pytest.raises(SpecError, match=r"got cache='.*file.*', expected a folder to keep pixels"):
        get_embedding("scalemae", cache=path, **run)
    with pytest.raises(SpecError, match=r"got cache='.*file"):
        iter_embeddings("scalemae", spatials=[PLACE], backend=provider, cache=path, **asked)
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(path))
    with pytest.raises(SettingsError, match="got RS_EMBED_CACHE_DIR='.*file.*name another one"):
        get_embedding("scalemae", **run)
    assert provider.fetched == 0


@pytest.mark.parametrize("nonsense", ["", 3, True, b"x", "a\0b", "~nobody-here/x"])
def test_what_is_no_path(nonsense: Any) -> None:
    with pytest.raises(SpecError, match="got cache="):
        open_cache(nonsense, Settings.from_environ())


def test_own_pixels_are_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.full((3, 32, 32), 900) + np.arange(32)
    own: dict[str, Any] = {"input_chw": pixels, "fetch": FetchSpec(scale_m=10)}
    with pytest.raises(SpecError, match="got cache with input_chw: only the pixels of a provider"):
        inspect_input("scalemae", cache=folder, **own)
    with pytest.raises(SpecError, match="got cache with imagery"):
        get_embeddings_batch("scalemae", imageries=["x.tif"], cache=folder)
    monkeypatch.setenv("RS_EMBED_CACHE_DIR", str(folder))
    assert inspect_input("scalemae", image_size=256, weights="random-init", **own).meta
    assert not list(folder.iterdir())


def test_folders_are_made_and_bounded_as_asked(tmp_path: Path) -> None:
    default = Settings.from_environ({})
    assert open_cache(None, default) is None
    made = open_cache(tmp_path / "a" / "b", default)
    assert made is not None
    assert made.folder == tmp_path / "a" / "b"
    assert made.folder.is_dir()
    assert made.max_bytes == 10_000_000_000
    settings = Settings.from_environ(
        {"RS_EMBED_CACHE_GB": "2", "RS_EMBED_CACHE_DIR": str(tmp_path / "c")}
    )
    bounded, stated = open_cache(None, settings), open_cache(tmp_path / "a" / "b", settings)
    assert bounded is not None
    assert stated is not None
    assert (bounded.folder, bounded.max_bytes) == (tmp_path / "c", 2_000_000_000)
    assert (stated.folder, stated.max_bytes) == (tmp_path / "a" / "b", 2_000_000_000)
    assert open_cache(made, settings) is made


# Looking at it.


def test_ls_and_clear(folder: Path) -> None:
    provider = Counted()
    for shift in range(3):
        fetch(provider, folder, GRID.window(shift, 0, 20, 30))
    cache = PatchCache(folder, BIG)
    for path, hours in zip(sorted(folder.iterdir()), (3, 1, 2), strict=True):
        then = time.time() - hours * 3600
        os.utime(path, (then, then))
    entries = cache.ls()
    assert all(a.used > b.used for a, b in pairwise(entries))
    assert cache.usage() == (3, sum(path.stat().st_size for path in folder.iterdir()))
    assert {entry.key["provider"] for entry in entries if entry.key} == {"counted"}
    assert all(datetime.now(UTC) - entry.fetched < timedelta(minutes=5) for entry in entries)
    damaged = entries[0].path
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert [entry.path for entry in cache.ls() if entry.key is None] == [damaged]
    assert cache.clear(older_than=timedelta(days=1)) == (0, 0)
    count, size = cache.clear()
    assert count == 3
    assert size == sum(entry.size for entry in entries[1:]) + 100
    assert not list(folder.iterdir())


def test_the_cache_itself_raises(folder: Path) -> None:
    path_of(folder, 0).mkdir()
    with pytest.raises(ImageryError, match="the cached pixels in .* cannot be read: "):
        PatchCache(folder, BIG).get({"number": 0}, GRID)
    with pytest.raises(ExportError, match="the pixels cannot be cached in"):
        put(PatchCache(folder / "none", BIG), 0)
    for look in (PatchCache.ls, PatchCache.usage, PatchCache.clear):
        with pytest.raises(ExportError, match="none cannot be listed: "):
            look(PatchCache(folder / "none", BIG))
