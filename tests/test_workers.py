"""Several processes on this machine: the same bytes, whatever ends one of them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rs_embed.errors import EngineError
from tests.engine_cases import (
    LAST,
    SITUATIONS,
    Engines,
    check_ended_and_resumed,
    check_map,
    check_situation,
    engines,
)
from tests.processes import SERVER, Forked

ENGINE = {"workers": 2}
pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with engines(tmp_path_factory.mktemp("engines")) as made:
        yield made


@pytest.fixture(autouse=True)
def _batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "2")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let worker processes be forks, which start sooner."""
    if SERVER in os.environ and getattr(request, "param", True):
        monkeypatch.setattr(subprocess, "Popen", Forked)


# Workers that start, and one that is started again.
FRESH = ("nothing happens", "a model is killed once")


@pytest.mark.parametrize(
    ("what", "expected", "forked"),
    [(*row[1:], row[0] not in FRESH) for row in SITUATIONS],
    ids=[row[0] for row in SITUATIONS], indirect=["forked"],
)  # fmt: skip
@pytest.mark.usefixtures("forked")
def test_situations(cases: Engines, tmp_path: Path, what: dict[str, Any], expected: Any) -> None:
    check_situation(cases, tmp_path / "out.parquet", what, expected, **ENGINE)


def test_a_map_is_that_of_the_local_engine(cases: Engines, tmp_path: Path) -> None:
    check_map(cases, tmp_path, **ENGINE)


@pytest.mark.usefixtures("forked")
def test_on_error_raise_names_the_place(cases: Engines, tmp_path: Path) -> None:
    fault = {"where": "encode", "how": "exit", "marked": True}
    with cases.fault(fault), pytest.raises(EngineError, match=f"place '{LAST}': ") as raised:
        cases.export(tmp_path / "out.parquet", on_error="raise", **ENGINE)
    assert raised.value.index == 11


@pytest.mark.parametrize(
    ("end", "first", "then"),
    [(signal.SIGINT, ENGINE, {}), (signal.SIGKILL, ENGINE, {}), (signal.SIGKILL, {}, ENGINE)],
)
def test_a_run_that_was_ended_goes_on_with_another_engine(
    cases: Engines, tmp_path: Path, end: int, first: dict[str, Any], then: dict[str, Any]
) -> None:
    check_ended_and_resumed(cases, tmp_path / "out.parquet", end, first, then)
