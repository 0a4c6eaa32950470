"""Outputs and weights on object stores: finished, unfinished, of others, damaged, unreachable."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer
from safetensors.torch import save_file
from typer.testing import CliRunner

from rs_embed import (
    CheckpointError,
    ExportError,
    MissingDependencyError,
    NamedPlace,
    PointBuffer,
    ProviderError,
    RsEmbedWarning,
    UnknownNameError,
    embed_area,
    estimate,
    export_batch,
    get_embedding,
    load_export,
    open_map,
    plan_area,
    sample_points,
)
from rs_embed.cli import app
from rs_embed.maps.outputs import check_output
from rs_embed.providers.sample import CENTRE
from tests.conftest import small_network
from tests.threads import at_work

LON, LAT = CENTRE
FAR = NamedPlace("far", PointBuffer(0, 0, 640))
OUT = "memory://bucket/folder/v.parquet"


@pytest.fixture
def store() -> Iterator[Any]:
    """The file system of ``memory://``, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]  # other tests may have left folders
    yield files
    files.store.clear()


@pytest.fixture
def asked(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("RS_EMBED_SCALEMAE_BATCH_SIZE", "1")
    return {"backend": "sample", "weights": checkpoint, "input_prep": "tile"}


def near(count: int) -> list[NamedPlace]:
    return [NamedPlace(f"p{i}", PointBuffer(LON + 0.001 * i, LAT, 640)) for i in range(count)]


def names(store: Any) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in store.store)


def kept(store: Any) -> list[str]:
    """Return the paths of the objects of an unfinished run, but its request."""
    return sorted(path for path in store.store if ".partial/0" in path)


def unfinished(asked: dict[str, Any], output: str = OUT, count: int = 3) -> None:
    with pytest.raises(ProviderError, match="place 'far'"):
        export_batch("scalemae", [*near(count), FAR], output=output, on_error="raise", **asked)


# --- finished ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_a_table_is_that_of_a_local_run(
    store: Any, asked: dict[str, Any], tmp_path: Path, suffix: str
) -> None:
    local, url = tmp_path / f"v{suffix}", f"memory://bucket/folder/v{suffix}"
    export_batch("scalemae", near(2), output=local, **asked)
    report = export_batch("scalemae", near(2), output=url, **asked)
    assert (report.path, report.resumed, report.finished_before) == (url, 0, False)
    expected = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {name: store.cat_file(f"/bucket/folder/{name}") for name in names(store)} == expected

    again = export_batch("scalemae", near(2), output=url, **asked)
    assert again.finished_before
    assert str(again) == f"already finished: {url}, 2 places"
    with pytest.raises(ExportError, match=rf"{url} exists already and is finished, with another"):
        export_batch("scalemae", near(1), output=url, **asked)
    table = load_export(url)
    assert table.ids == ["p0", "p1"]
    np.testing.assert_array_equal(table.embeddings, load_export(local).embeddings)
    anew = export_batch("scalemae", near(1), output=url, overwrite=True, **asked)
    assert (anew.places, anew.resumed, load_export(url).ids) == (1, 0, ["p0"])


@pytest.mark.parametrize("suffix", [".zarr", ".tif"])
def test_a_map_is_that_of_a_local_run(
    store: Any, coordinate_model: list[Any], scene: Path, folder: Path, suffix: str
) -> None:
    area: dict[str, Any] = {"imagery": scene, "acquired": "2022-07-04"}
    local, url = folder / f"map{suffix}", f"memory://bucket/maps/map{suffix}"
    embed_area("coordinates", output=local, **area)
    report = embed_area("coordinates", output=url, **area)
    assert (report.path, report.item) == (url, f"{url}.json")
    expected = {f"/bucket/maps/{path.relative_to(folder).as_posix()}": path.read_bytes()
                for path in folder.rglob("*") if path.is_file()}  # fmt: skip
    assert {path: store.cat_file(path) for path in store.store} == expected

    tokens = open_map(url).values
    np.testing.assert_array_equal(tokens, open_map(local).values)
    lon, lat = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(
        *(Affine(10, 0, 400000, 0, -10, 5200000) @ (40, 40))
    )
    assert np.isfinite(sample_points(url, [(lon, lat)])).all()
    again = embed_area("coordinates", output=url, **area)
    assert (again.finished_before, again.bytes) == (True, report.bytes)
    assert again.valid_tokens == report.valid_tokens
    with pytest.raises(ExportError, match=rf"{url} exists already .*overlap_px was 16, is now 0"):
        embed_area("coordinates", output=url, overlap_px=0, **area)
    # Chunks of the old map that the new one has not must go.
    small = embed_area("coordinates", output=url, overwrite=True, dtype="int8", **area)
    assert small.bytes == sum(
        len(store.cat_file(path)) for path in store.store if not path.endswith(f"{suffix}.json")
    )
    assert np.nanmax(np.abs(open_map(url).values - tokens)) < 2


def test_places_that_failed_are_retried(store: Any, asked: dict[str, Any]) -> None:
    report = export_batch("scalemae", [*near(2), FAR], output=OUT, **asked)
    assert list(report.errors) == ["far"]
    assert kept(store)
    assert load_export(OUT).errors.keys() == {"far"}
    report = export_batch("scalemae", [*near(2), FAR], output=OUT, **asked)
    assert (report.resumed, list(report.errors)) == (2, ["far"])
    report = export_batch("scalemae", near(2), output=OUT, **asked)
    assert (report.resumed, report.errors) == (2, {})
    assert names(store) == ["v.parquet", "v.parquet.md"]


def test_the_command_line(store: Any, tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "places.csv").write_text(f"id,lon,lat\na,{LON},{LAT}\n")
    command = [
        "batch", str(tmp_path / "places.csv"), "-o", OUT, "--buffer-m", "640", "--backend",
        "sample", "--weights", str(checkpoint), "--input-prep", "tile", "--json",
    ]  # fmt: skip
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert not store.store
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["file"] == OUT
    assert names(store) == ["v.parquet", "v.parquet.md"]


# --- unfinished ----------------------------------------------------------------------------


def renamed(store: Any, content: bytes) -> None:
    """Put another content under its own hash in the place of the last object."""
    path = kept(store)[-1]
    store.rm_file(path)
    store.pipe_file(f"{path[:-64]}{hashlib.sha256(content).hexdigest()}", content)


def changed(store: Any, **values: Any) -> None:
    """Change what the last object says of itself."""
    about, _, vectors = store.cat_file(kept(store)[-1]).partition(b"\n")
    renamed(store, json.dumps({**json.loads(about), **values}).encode() + b"\n" + vectors)


def cut(store: Any) -> None:
    path = kept(store)[-1]
    store.pipe_file(path, store.cat_file(path)[:-1])


def nothing(store: Any) -> None:
    pass


REQUEST = "/bucket/folder/v.parquet.partial/request.json"
OTHERS = {"weights": "x", "weights_sha256": "y"}


@pytest.mark.parametrize(
    ("what", "change", "request_", "outcome"),
    [
        ("nothing", nothing, {}, 3),
        ("a file of others", lambda s: s.pipe_file(f"{REQUEST}.bak", b"x"), {}, 3),
        ("a lost object", lambda s: s.rm_file(kept(s)[-1]), {}, 1),
        ("all lost", lambda s: [s.rm_file(path) for path in kept(s)], {}, 0),
        ("a lost request", lambda s: s.rm_file(REQUEST), {}, 0),
        ("another request", nothing, {"min_valid": 0.5}, "v.parquet.partial was started with "
         "another request (min_valid was 0.25, is now 0.5)"),
        ("another request, anew", nothing, {"min_valid": 0.5, "overwrite": True}, 0),
        ("a cut object", cut, {}, "is damaged (its SHA-256 is not the one in its name)"),
        ("a foreign object", lambda s: renamed(s, b"mine\n"), {}, "is not an object of rs_embed"),
        ("an object of another run", lambda s: changed(s, request="0"), {},
         "belongs to another request than request.json"),
        ("other weights", lambda s: changed(s, shared=OTHERS), {},
         "was made with other weights than those before it"),
        ("a vector without end", lambda s: changed(s, results=[["k", None, None, "many"]]), {},
         "is not an object of rs_embed"),
        ("a damaged request", lambda s: s.pipe_file(REQUEST, b"{"), {}, "request.json is damaged"),
    ],
)  # fmt: skip
def test_another_driver_continues_it(
    store: Any, asked: dict[str, Any], tmp_path: Path, what: str, change: Callable[[Any], Any],
    request_: dict[str, Any], outcome: int | str,
) -> None:  # fmt: skip
    before = at_work()
    unfinished(asked)
    assert len(kept(store)) == 2  # the first result at once, the others when it ended
    change(store)
    if isinstance(outcome, str):
        with pytest.raises(ExportError) as caught:
            export_batch("scalemae", near(3), output=OUT, **asked, **request_)
        assert not at_work() - before  # though its traceback is kept
        message = str(caught.value)
        assert outcome in message
        assert message.startswith("memory://bucket/folder/v.parquet.partial")
        if "delete this object" in message:  # which is then made again
            store.rm_file(message.removeprefix("memory:/").partition(" ")[0])
        else:
            request_ = {**request_, "overwrite": True}
    report = export_batch("scalemae", near(3), output=OUT, **asked, **request_)
    if isinstance(outcome, int):
        assert report.resumed == outcome
    local = tmp_path / "v.parquet"
    export_batch("scalemae", near(3), output=local, **{**asked, **request_})
    assert store.cat_file("/bucket/folder/v.parquet") == local.read_bytes()
    assert not kept(store)


@pytest.mark.parametrize("address", [OUT, f"{OUT}.partial"])
def test_an_unfinished_table_is_read(store: Any, asked: dict[str, Any], address: str) -> None:
    unfinished(asked)
    with pytest.warns(RsEmbedWarning, match=rf"^{OUT}\.partial is unfinished: 3 places, 1 missing"):
        assert load_export(address).ids == ["p0", "p1", "p2"]


def test_a_plan_counts_what_is_left_and_writes_nothing(
    store: Any, coordinate_model: list[Any], scene: Path
) -> None:
    url = "memory://bucket/map.zarr"
    store.pipe_file("/bucket/map.zarr.json", b"{}")
    with pytest.raises(ExportError, match="another file"):
        plan_area("coordinates", imagery=scene, output=url, acquired="2022-07-04")
    store.rm_file("/bucket/map.zarr.json")
    assert plan_area("coordinates", imagery=scene, output=url, acquired="2022-07-04").windows > 1
    assert not store.store


# --- refused -------------------------------------------------------------------------------

MISSING = importlib.util.find_spec("gcsfs") is None


@pytest.mark.parametrize(
    ("output", "kind", "message"),
    [
        ("http://host/v.parquet", ExportError, "got http://host/v.parquet, expected a local path"),
        ("https://u:SECRET@host/v.npz", ExportError, "got https://host/v.npz with a password"),
        ("s3://b/v.npz?sig=SECRET", ExportError, "got s3://b/v.npz with a password or a query"),
        ("odd://b/v.npz", ExportError, r"got odd://b/v.npz, not an address .*Protocol not known"),
        ("memory://b/v.txt", UnknownNameError, "unknown file type of many vectors '.txt'"),
        ("local:///no/such/v.npz", ExportError, "cannot write local:///no/such/v.npz"),
        pytest.param(
            "gs://b/v.npz", MissingDependencyError, "needs the package 'gcsfs' .*pip install gcsfs",
            marks=pytest.mark.skipif(not MISSING, reason="gcsfs is installed"),
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_any_embedding(
    store: Any, coordinate_model: list[Any], output: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        export_batch("coordinates", near(1), output=output, backend="sample")
    assert "SECRET" not in str(caught.value)
    assert not coordinate_model
    if not output.startswith("local"):  # that is found out by writing
        with pytest.raises(kind, match=message):
            estimate("coordinates", spatials=near(1), output=output, backend="sample")
        with pytest.raises(kind, match=message):
            check_output(output, "vectors")


@pytest.mark.parametrize(
    ("output", "beside", "content", "message"),
    [
        ("v.parquet", "v.parquet.md", b"mine", "cannot write .*v.parquet.md, the model card of"),
        ("v.parquet", "v.parquet.json", b"{}", "cannot write .*v.parquet.json, the STAC Item of"),
        ("v.parquet", "v.parquet", b"mine", "v.parquet exists already and is not a finished table"),
        ("v.npz", "v.npz", b"mine", "v.npz exists already and"),
    ],
)
def test_files_of_others_stay(
    store: Any, asked: dict[str, Any], output: str, beside: str, content: bytes, message: str
) -> None:
    store.pipe_file(f"/bucket/{beside}", content)
    with pytest.raises(ExportError, match=message) as caught:
        export_batch("scalemae", near(1), output=f"memory://bucket/{output}", **asked)
    assert "memory://bucket/" in str(caught.value)
    assert store.cat_file(f"/bucket/{beside}") == content
    assert names(store) == [beside]


@pytest.mark.parametrize("name", ["map.zarr", "map.tif"])
def test_images_of_others_are_not_replaced(
    store: Any, coordinate_model: list[Any], scene: Path, name: str
) -> None:
    path = f"/bucket/{name}" + ("/zarr.json" if name.endswith(".zarr") else "")
    store.pipe_file(path, b"{}" if name.endswith(".zarr") else scene.read_bytes())
    with pytest.raises(ExportError, match=f"cannot write memory://bucket/{name}: it is"):
        embed_area("coordinates", imagery=scene, output=f"memory://bucket/{name}", overwrite=True)
    assert list(store.store) == [path]


# --- weights -------------------------------------------------------------------------------


def uploaded(store: Any, checkpoint: Path, url: str = "memory://models/mine") -> str:
    for path in checkpoint.iterdir():
        store.pipe_file(f"{url}/{path.name}", path.read_bytes())
    return url


def embedded(weights: Any) -> Any:
    place = PointBuffer(LON, LAT, 640)
    return get_embedding(
        "scalemae", spatial=place, backend="sample", weights=weights, input_prep="tile"
    )


@pytest.mark.parametrize("file", ["", "/model.safetensors"])
def test_weights_are_downloaded_once(
    store: Any, checkpoint: Path, tmp_path_factory: Any, monkeypatch: Any, file: str
) -> None:
    cache = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    url = uploaded(store, checkpoint) + file
    local = embedded(checkpoint)
    for _ in range(2):
        made = embedded(url)
        np.testing.assert_array_equal(made.data, local.data)
        assert made.meta["weights"] == url
        assert made.meta["weights_sha256"] == local.meta["weights_sha256"]
        found = list((cache / "rs_embed" / "weights").iterdir())
        assert [sorted(path.name for path in folder.iterdir()) for folder in found] == [
            ["config.json", "model.safetensors"]
        ]
    other = tmp_path_factory.mktemp("other") / "model.safetensors"
    save_file(small_network(seed=9).state_dict(), other)
    store.pipe_file("/models/mine/model.safetensors", other.read_bytes())
    assert embedded(url).meta["weights_sha256"] == hashlib.sha256(other.read_bytes()).hexdigest()
    assert len(list((cache / "rs_embed" / "weights").iterdir())) == 2
    # A download that was damaged on the disk is made again.
    (newest,) = set((cache / "rs_embed" / "weights").iterdir()) - set(found)
    (newest / "model.safetensors").write_bytes(b"")
    assert embedded(url).meta["weights_sha256"] == hashlib.sha256(other.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("weights", "kind", "message"),
    [
        ("memory://models/none", CheckpointError, "expected a folder or file; there is none"),
        ("memory://models/two", CheckpointError, "exactly one file .*; found a.bin, b.bin"),
        ("memory://models/empty", CheckpointError, "found none; pass the path of the file"),
        ("https://host/mine", CheckpointError, "expected a local path or an object store"),
        ("s3://u:SECRET@b/mine", CheckpointError, "got s3://b/mine with a password"),
        pytest.param(
            "gs://b/mine", MissingDependencyError, "needs the package 'gcsfs'",
            marks=pytest.mark.skipif(not MISSING, reason="gcsfs is installed"),
        ),
    ],
)  # fmt: skip
def test_weights_that_are_not_there(
    store: Any, weights: str, kind: type[Exception], message: str
) -> None:
    for path in ("two/a.bin", "two/b.bin", "empty/config.json"):
        store.pipe_file(f"/models/{path}", b"{}")
    with pytest.raises(kind, match=message) as caught:
        embedded(weights)
    assert "SECRET" not in str(caught.value)


def test_a_run_is_not_continued_with_replaced_weights(
    store: Any, asked: dict[str, Any], checkpoint: Path, tmp_path: Path
) -> None:
    asked = {**asked, "weights": uploaded(store, checkpoint)}
    unfinished(asked)
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    (other / "model.safetensors").unlink()
    save_file(small_network(seed=9).state_dict(), other / "model.safetensors")
    uploaded(store, other)
    with pytest.raises(CheckpointError, match="under the same name; restore those weights"):
        export_batch("scalemae", near(4), output=OUT, **asked)
