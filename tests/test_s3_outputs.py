"""Tables, maps and weights over S3's own protocol: the client s3fs, and a server on loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from rs_embed import (
    CheckpointError,
    ExportError,
    NamedPlace,
    PointBuffer,
    RsEmbedWarning,
    embed_area,
    export_batch,
    get_embedding,
    load_export,
    open_map,
)
from rs_embed.providers.sample import CENTRE
from tests.conftest import python_environment
from tests.processes import errors_of, line_of, running

for package in ("moto", "flask", "s3fs"):
    pytest.importorskip(
        package, reason=f"{package} is missing: pip install 'moto[s3]' flask flask-cors s3fs"
    )

pytestmark = [
    pytest.mark.fault,
    # s3fs leaves a connection open when its file system is no longer used.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LON, LAT = CENTRE
ROOT = Path(__file__).parents[1]
# It prints its port, then answers until it is killed.
SERVER = """
import threading
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""
DRIVER = """
import sys
from rs_embed import export_batch
from tests.test_s3_outputs import places
export_batch("slow", places(6), output=sys.argv[1], backend="sample", input_prep="tile")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server."""
    with running("-c", SERVER, env=python_environment(), stderr=subprocess.DEVNULL) as process:
        yield f"http://127.0.0.1:{line_of(process).strip()}"


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A file system of s3fs, with an empty ``bucket``."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    files = fsspec.filesystem("s3")
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)
    type(files).clear_instance_cache()


def places(count: int) -> list[NamedPlace]:
    return [NamedPlace(f"p{i}", PointBuffer(LON + 0.001 * i, LAT, 640)) for i in range(count)]


def asked(weights: Any) -> dict[str, Any]:
    return {"backend": "sample", "weights": weights, "input_prep": "tile"}


def test_what_is_written_is_that_of_a_local_run(
    s3: Any, checkpoint: Path, tmp_path: Path, coordinate_model: list[Any], scene: Path
) -> None:
    for kind in ("vectors.parquet", "map.zarr"):
        local, url = tmp_path / "local" / kind, f"s3://bucket/run 1/{kind}"
        local.parent.mkdir(exist_ok=True)
        reports: list[Any] = []
        for output in (local, url, url):
            if kind == "map.zarr":
                area: dict[str, Any] = {"imagery": scene, "acquired": "2022-07-04"}
                report: Any = embed_area("coordinates", output=output, **area)
            else:
                report = export_batch("scalemae", places(3), output=output, **asked(checkpoint))
            reports.append(report)
        assert [report.finished_before for report in reports] == [False, False, True]
        assert reports[1].path == reports[2].path == url
    expected = {path.relative_to(tmp_path / "local").as_posix(): path.read_bytes()
                for path in (tmp_path / "local").rglob("*") if path.is_file()}  # fmt: skip
    found = {path.removeprefix("bucket/run 1/"): s3.cat_file(path) for path in s3.find("bucket")}
    assert found == expected
    table, opened = load_export("s3://bucket/run 1/vectors.parquet"), open_map(url)
    own = load_export(tmp_path / "local" / "vectors.parquet")
    np.testing.assert_array_equal(table.embeddings, own.embeddings)
    np.testing.assert_array_equal(opened.values, open_map(local).values)


def test_another_machine_continues_a_driver_that_was_killed(
    s3: Any, install: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = install("slowness", "[rs_embed.models]\nslow = tests.map_worker:MODEL\n")
    own = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    own |= {"RS_EMBED_SCALEMAE_BATCH_SIZE": "2", "IMAGES_SEEN": str(tmp_path / "seen")}
    env = python_environment(PAUSE_AFTER="10", TMPDIR=str(tmp_path), **own)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(installed), env["PYTHONPATH"]])
    url, local = "s3://bucket/vectors.parquet", tmp_path / "vectors.parquet"
    with running("-c", DRIVER, url, env=env) as process:
        while not any("/00000000-" in path for path in s3.find("bucket")):
            assert process.poll() is None, errors_of(process)
            time.sleep(0.1)
            s3.invalidate_cache()
        process.kill()
    with pytest.warns(RsEmbedWarning, match="is unfinished: 2 places, 4 missing"):
        assert load_export(url).ids == ["p0", "p1"]
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    for output, resumed in ((url, 2), (local, 0)):
        report = export_batch("slow", places(6), output=output, backend="sample", input_prep="tile")
        assert report.resumed == resumed
    s3.invalidate_cache()
    assert s3.find("bucket") == ["bucket/vectors.parquet", "bucket/vectors.parquet.md"]
    assert s3.cat_file("bucket/vectors.parquet") == local.read_bytes()


NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
NOBODY = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.mark.parametrize(
    ("bucket", "changes", "message"),
    [
        ("none", {}, "The specified bucket does not exist"),
        ("bucket", NOBODY, "NoCredentialsError: Unable to locate credentials"),
        ("bucket", NOWHERE, "EndpointConnectionError: Could not connect to the endpoint"),
    ],
)
def test_a_store_that_cannot_be_used_is_found_out_first(
    s3: Any, coordinate_model: list[Any], monkeypatch: pytest.MonkeyPatch, bucket: str,
    changes: dict[str, str], message: str,
) -> None:  # fmt: skip
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    type(s3).clear_instance_cache()
    with pytest.raises(ExportError, match=message) as caught:
        export_batch("coordinates", places(1), output=f"s3://{bucket}/v.npz", backend="sample")
    assert "SECRET" not in str(caught.value)
    assert "check that the bucket exists" in str(caught.value)
    assert not coordinate_model


def test_weights_come_from_a_bucket(s3: Any, checkpoint: Path) -> None:
    s3.put(f"{checkpoint}/", "bucket/mine/", recursive=True)
    place: dict[str, Any] = {"spatial": places(1)[0].spatial, "backend": "sample"}
    place["input_prep"] = "tile"
    local = get_embedding("scalemae", weights=checkpoint, **place)
    made = get_embedding("scalemae", weights="s3://bucket/mine", **place)
    np.testing.assert_array_equal(made.data, local.data)
    digest = hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert (made.meta["weights"], made.meta["weights_sha256"]) == ("s3://bucket/mine", digest)
    with pytest.raises(CheckpointError, match="expected a folder or file; there is none"):
        get_embedding("scalemae", weights="s3://none/mine", **place)
