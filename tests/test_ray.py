"""Ray: the same bytes, whatever ends one of its processes; nothing is left of it."""

from __future__ import annotations

import logging
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from rs_embed.errors import EngineError, MissingDependencyError
from rs_embed.runs.engines import Engine
from rs_embed.runs.ray_pool import RayPool, check_address
from tests.conftest import needs
from tests.engine_cases import (
    LAST,
    SITUATIONS,
    Engines,
    check_ended_and_resumed,
    check_map,
    check_situation,
    engines,
)

ENGINE = {"engine": "ray", "workers": 1}
# With these the file takes minutes: `make test-ray`.
LONG = pytest.mark.long
LONG_ONES = ("a model is killed once", "a place crashes reads", "a place crashes models",
             "a read raises what does not pickle")  # fmt: skip
pytestmark = [
    needs("ray", reason="needs the extra ray"),
    pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """What is compared, and Ray as a caller has initialised it."""
    with engines(tmp_path_factory.mktemp("engines")) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = import_module("ray")
        with tempfile.TemporaryDirectory(prefix="rs_test_", dir="/tmp") as folder:
            ray.init(
                address="local", num_cpus=3, include_dashboard=False, log_to_driver=False,
                logging_level=logging.ERROR, object_store_memory=80 * 2**20, _temp_dir=folder,
            )  # fmt: skip
            yield made
            assert ray.is_initialized()  # it was left alone
            ray.shutdown()


@pytest.fixture(autouse=True)
def _batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        pytest.param(*row[1:], id=row[0], marks=LONG if row[0] in LONG_ONES else ())
        for row in SITUATIONS
    ],
)
def test_situations(cases: Engines, tmp_path: Path, what: dict[str, Any], expected: Any) -> None:
    check_situation(cases, tmp_path / "out.parquet", what, expected, **ENGINE)


def test_a_map_is_that_of_the_local_engine(cases: Engines, tmp_path: Path) -> None:
    check_map(cases, tmp_path, **ENGINE)


@pytest.mark.long
def test_on_error_raise_names_the_place(cases: Engines, tmp_path: Path) -> None:
    fault = {"where": "encode", "how": "exit", "marked": True}
    with cases.fault(fault), pytest.raises(EngineError, match=f"place '{LAST}': ") as raised:
        cases.export(tmp_path / "out.parquet", on_error="raise", **ENGINE)
    assert raised.value.index == 11


@pytest.mark.parametrize(
    ("end", "first", "then"),
    [
        pytest.param(signal.SIGINT, ENGINE, {}, marks=LONG),
        pytest.param(signal.SIGKILL, ENGINE, {}, marks=LONG),
        (signal.SIGKILL, {}, ENGINE),
    ],
)
def test_a_run_that_was_ended_goes_on_with_another_engine(
    cases: Engines, tmp_path: Path, end: int, first: dict[str, Any], then: dict[str, Any]
) -> None:
    check_ended_and_resumed(cases, tmp_path / "out.parquet", end, first, then)


def test_a_cluster_without_room_says_so(cases: Engines) -> None:
    expected = r"'CPU': 3\.0.* had no room for \d of 9 workers in 1 s.*'num_cpus': 0\.5.*--workers"
    with RayPool(b"", 9, None, start_s=1) as pool, pytest.raises(EngineError, match=expected):
        pool.wait()


@pytest.mark.parametrize(
    ("address", "within_s", "message"),
    [
        (
            "nonsense",
            60,
            "cannot join Ray at 'nonsense' .*Invalid address format.*expected host:port",
        ),
        ("127.0.0.1:1", 4, "no Ray answers at '127.0.0.1:1' .*refused.*RAY_AUTH_MODE=token"),
        ("ray://127.0.0.1:1", 0, "Ray Client is not supported, run the command on a node"),
    ],
)
def test_a_wrong_address_is_refused(address: str, within_s: float, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_address(address, within_s)


def test_another_cluster_than_the_one_joined_is_refused(cases: Engines) -> None:
    with pytest.raises(EngineError, match=r"but this process has joined .* already; call ray\.sh"):
        RayPool(b"", 1, "127.0.0.1:1").__enter__()


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[ray\]'"):
        Engine("ray")
