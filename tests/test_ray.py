"""Ray: the same bytes, whatever ends one of its processes; nothing is left of it."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rs_embed.embedding.pickling import pickled
from rs_embed.errors import EngineError
from rs_embed.runs.ray_pool import RayPool, check_address
from rs_embed.runs.supervision import supervised
from tests.conftest import python_environment
from tests.engine_cases import LAST, SITUATIONS, Engines, check_situation, engines
from tests.processes import WAIT_S, running

ray = pytest.importorskip("ray", reason="needs the extra ray")
ENGINE = {"engine": "ray", "workers": 2}
ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning"),
    pytest.mark.filterwarnings("ignore:.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """What is compared, and Ray as a caller has initialised it."""
    with engines(tmp_path_factory.mktemp("engines")) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory(prefix="rs_test_", dir="/tmp") as folder:  # noqa: S108
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
    ("what", "expected"), [row[1:] for row in SITUATIONS], ids=[row[0] for row in SITUATIONS]
)
def test_situations(cases: Engines, tmp_path: Path, what: dict[str, Any], expected: Any) -> None:
    check_situation(cases, tmp_path / "out.parquet", what, expected, **ENGINE)
