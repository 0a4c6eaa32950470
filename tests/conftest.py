"""What several tests need: an environment of their own, small checkpoints, small scenes."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The hub's client reads its settings when it is imported: offline, with a cache of our own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="rs_embed_hf_")
# Several test processes fill the cores; threads of each of them would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from affine import Affine
from numpy.typing import NDArray

from rs_embed.errors import given_once
from rs_embed.models.scalemae.config import NetworkConfig
from tests.processes import fork_server

if TYPE_CHECKING:  # the process that only hands tests to others imports neither PyTorch nor GDAL
    from rs_embed.models.scalemae.network import ScaleMae

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
# These files begin first, so that at the end of a run no process waits for another one.
LONGEST = [
    "ray", "map_resume", "docs", "workers", "field_change", "explorer_page", "hub", "field_front",
    "docs_site", "cli", "training", "stac", "maps", "explorer_data", "field_ends", "map_formats",
    "field_classify", "batches", "earth_engine", "local", "cli_batch",
]  # fmt: skip
SMALL = NetworkConfig(embed_dim=48, depth=2, num_heads=3, patch_size=16, mlp_ratio=2.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true",
        help="try faults, kills and bad files at length, and print what was tried",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # those of xdist use that of the one that starts them
        forks = ExitStack()
        config.add_cleanup(forks.close)
        forks.enter_context(fork_server())
    config.addinivalue_line("markers", "fault: tries a promise of docs/reliability.md")
    config.addinivalue_line("markers", "long: runs with --long only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem.removeprefix("test_"), len(places)))
    if not config.getoption("--long"):
        items[:] = [item for item in items if item.get_closest_marker("long") is None]


def pytest_collection_finish() -> None:
    """Spare the collections of a whole run the millions of objects of what was imported."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print a table of what tests `tell`, and what came of it."""
    if not config.getoption("--long"):
        return
    told, others = [], Counter[tuple[str, str]]()
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            texts = [text for key, text in report.user_properties if key == "tried"]
            if report.when == "call":
                told += [(text, outcome) for text in texts]
                others[report.location[0], outcome] += not texts
    rows = [*told, *((f"{n} tests of {file}", how) for (file, how), n in others.items() if n)]
    terminalreporter.write_line("| tried | came out |\n| --- | --- |")
    for text, outcome in sorted(rows):
        terminalreporter.write_line(f"| {text} | {outcome} |")


def needs(*packages: str, reason: str) -> pytest.MarkDecorator:
    """Skip tests where a package is missing; it is not imported, which every process would do."""
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing: {reason}")


@pytest.fixture
def often(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Choose how often something is tried: in every run of the tests, and at length."""
    return lambda short, long: long if request.config.getoption("--long") else short


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what a test tried, for the table of ``make test-faults``."""
    return lambda text: record_property("tried", text)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> Iterator[None]:
    """Let SIGINT reach the tests and their children, though a shell in the background ignores it.

    Children inherit that a signal is ignored, not that it is handled.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    given_once.clear()
    for name in [n for n in os.environ if n.startswith(("RS_EMBED_", "EE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def shared_data() -> Path:
    """Folder of real imagery that is not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real imagery is not at {SHARED_DATA}")
    return SHARED_DATA


def small_network(config: NetworkConfig = SMALL, seed: int = 3) -> ScaleMae:
    """Return a network whose every parameter is random, biases and norms included."""
    import torch

    from rs_embed.models.scalemae.network import ScaleMae

    network = ScaleMae(config)
    network.initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``config.json`` and ``model.safetensors`` of a small network."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("checkpoint")
    save_file(small_network().state_dict(), folder / "model.safetensors")
    config = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 16, "mlp_ratio": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def pixels() -> NDArray[np.uint16]:
    """Digital numbers ``(3, 60, 52)`` with structure at every scale."""
    rng = np.random.default_rng(11)
    rows, columns = np.mgrid[:60, :52]
    smooth = 1500 + 1000 * np.sin(rows / 9) * np.cos(columns / 7)
    noise = rng.normal(0, 300, (3, 60, 52))
    tinted = smooth + noise + np.array([0, 200, 400])[:, None, None]
    return np.asarray(tinted.clip(1, 9999), dtype=np.uint16)


@pytest.fixture
def write_scene(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a GeoTIFF and returns its path."""

    import rasterio

    north_up = Affine(10, 0, 400000, 0, -10, 5200000)

    def write(
        data: NDArray[Any],
        *,
        crs: str | None = "EPSG:32633",
        transform: Affine = north_up,
        nodata: float | None = None,
        names: tuple[str, ...] | None = ("B04", "B03", "B02"),
        name: str = "scene.tif",
        **profile: Any,
    ) -> Path:
        path = tmp_path / name
        with rasterio.open(
            path, "w", driver="GTiff", count=data.shape[0], height=data.shape[1],
            width=data.shape[2], dtype=data.dtype, crs=crs, transform=transform, nodata=nodata,
            **profile,
        ) as file:  # fmt: skip
            file.write(data)
            if names is not None:
                file.descriptions = names
        return path

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that registers entry points as another installed package would."""

    def run(name: str, entry_points: str, **modules: str) -> Path:
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(entry_points))
        for module, source in modules.items():
            (folder / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(folder))
        return folder

    return run


@pytest.fixture
def coordinate_model(install: Callable[..., Path]) -> list[tuple[float, ...]]:
    """Register the model ``coordinates``; return the log of its batches."""
    from tests.coordinate_model import CoordinateModel

    install("coords", "[rs_embed.models]\ncoordinates = tests.coordinate_model:MODEL\n")
    CoordinateModel.log.clear()
    return CoordinateModel.log


def python_environment(**variables: str) -> dict[str, str]:
    """Return the environment for a Python of our own, without what the tests' own one holds."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RS_EMBED_", "HF_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **variables}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where maps go, and nothing else."""
    made = tmp_path / "maps"
    made.mkdir()
    return made


@pytest.fixture
def scene(write_scene: Callable[..., Path]) -> Path:
    """2 rows of 8 windows of 64 px."""
    from tests.coordinate_model import coordinate_scene

    return write_scene(coordinate_scene(96, 400))


@pytest.fixture
def dated(write_scene: Callable[..., Path]) -> Path:
    """The like with a day, for a provider."""
    from tests.coordinate_model import coordinate_scene

    return write_scene(coordinate_scene(128, 432), name="S2_20220704.tif")
