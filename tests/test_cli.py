"""The command line as a person runs it: real processes, real files, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from rs_embed import Embedding
from rs_embed.cli import app
from rs_embed.errors import RsEmbedError, TemporalWarning
from tests.conftest import python_environment

SAMPLE = [
    "embed", "--lon", "-75.6156", "--lat", "37.6942", "--buffer-m", "1280", "--backend", "sample",
    "--image-size", "256",
]  # fmt: skip
RANDOM = ["--weights", "random-init", "--variant", "tiny"]


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "from rs_embed.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False,
        env=python_environment(HF_HUB_OFFLINE="1", **variables), timeout=120,
    )  # fmt: skip


def invoke(*args: str) -> str:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 0, result.output
    return result.output


def test_demo_says_what_it_did_and_writes_what_it_names(tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = run("demo", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "weights  RANDOM" in done.stdout
    assert "192 x 40 x 40 float32 in" in done.stdout
    assert "10 m read, 10 m told to the model; coverage 100%, valid 100%" in done.stdout
    written = sorted(p.name for p in out.iterdir())
    assert written == ["quicklook.png", "tokens.tif", "vector.npz"]
    for name in written:
        assert str(out / name) in done.stdout
    grid, vector = (Embedding.load(out / name) for name in ("tokens.tif", "vector.npz"))
    assert grid.meta["weights"] == vector.meta["weights"] == "random-init"
    assert grid.data.rio.crs.to_epsg() == 32618
    assert np.abs(vector.data - grid.data.values.mean((1, 2))).max() < 1e-5
    # The picture is not one colour: land, water and tokens differ.
    picture = np.asarray(Image.open(out / "quicklook.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_embed_writes_a_grid_and_its_quicklook(tmp_path: Path) -> None:
    grid, picture = tmp_path / "g.tif", tmp_path / "q.png"
    output = invoke(
        *SAMPLE, *RANDOM, "--output", "grid", "-o", str(grid), "--quicklook", str(picture)
    )
    assert "grid embedding of 192 x 16 x 16" in output
    assert f"wrote {grid}" in output
    assert f"wrote {picture}" in output
    assert Embedding.load(grid).data.shape == (192, 16, 16)


def test_embed_prints_json(tmp_path: Path) -> None:
    result = json.loads(invoke(*SAMPLE, *RANDOM, "--json", "--pooling", "cls"))
    assert result["shape"] == [192]
    assert len(result["values"]) == 192
    assert result["meta"]["pooling"] == "cls"
    assert result["files"] == []


def test_embed_an_array_and_a_file(tmp_path: Path, checkpoint: Path) -> None:
    pixels = np.random.default_rng(0).integers(200, 3000, (3, 64, 64)).astype(np.int16)
    np.save(tmp_path / "p.npy", pixels)
    vector = tmp_path / "v.npz"
    invoke("embed", "--input", str(tmp_path / "p.npy"), "--scale-m", "0.5", "--image-size", "256",
           "--weights", str(checkpoint), "--gsd", "relative", "-o", str(vector))  # fmt: skip
    meta = Embedding.load(vector).meta
    assert (meta["used_scale_m"], meta["gsd_policy"], meta["input_res"]) == (0.5, "relative", 0.875)
    photo = (pixels % 256).astype(np.uint8)
    np.save(tmp_path / "photo.npy", photo)
    result = json.loads(invoke(
        "embed", "--input", str(tmp_path / "photo.npy"), "--scale-m", "0.3", "--image-size", "256",
        "--weights", str(checkpoint), "--bands", "R,G,B", "--reflectance-scale", str(1 / 255),
        "--gsd", "3.5", "--json",
    ))  # fmt: skip
    assert result["meta"]["sensor"]["bands"] == ["R", "G", "B"]
    assert result["meta"]["input_res"] == 3.5


def test_an_error_is_one_line_and_exit_code_1() -> None:
    done = run(*SAMPLE, *RANDOM, "--gsd", "meters")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unknown gsd 'meters'")
    traced = run("--debug", *SAMPLE, *RANDOM, "--gsd", "meters")
    assert traced.returncode == 1
    assert "Traceback" in traced.stderr
    assert "UnknownNameError" in traced.stderr


def test_a_warning_is_one_line(checkpoint: Path) -> None:
    done = run(*SAMPLE[:-1], "224", "--weights", str(checkpoint))
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the model sees 76.6% of the area")


def test_a_warning_turned_into_an_error_is_one_line_too(checkpoint: Path) -> None:
    done = run(*SAMPLE[:-1], "224", "--weights", str(checkpoint), PYTHONWARNINGS="error")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the model sees 76.6% of the area")
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert run("embed", "--lon", "east").returncode == 2
    assert run("embd").returncode == 2


def test_without_weights_and_network_the_line_says_how_to_mend_it(tmp_path: Path) -> None:
    done = run(*SAMPLE, HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "weights='random-init'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["embed"], "got no spatial"),
        (["embed", "--lon", "1"], "got part of a point"),
        (["embed", "--start", "2022-01-01"], "got part of a period"),
        (["embed", "--bbox", "1,2,3"], "expected minlon,minlat,maxlon,maxlat"),
        (["embed", "--bbox", "a,b,c,d"], "expected minlon,minlat,maxlon,maxlat"),
        (["embed", "--bbox", "1,2,3,4", "--lon", "1"], "expected one place"),
        (["embed", "--input", "gone.npy"], "cannot read gone.npy"),
        ([*SAMPLE, "-o", "v.tif"], r"unknown file type '.tif'"),
        ([*SAMPLE, "-o", "/no/such/folder/v.npz"], "there is no folder"),
        ([*SAMPLE, "--quicklook", "q.png"], "expected --output grid"),
        (["embed", "--output", "gird"], "did you mean 'grid'"),
        (["describe", "scalmae"], "did you mean 'scalemae'"),
    ],
)
def test_refusals(args: list[str], match: str) -> None:
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 1
    assert isinstance(result.exception, RsEmbedError)
    assert match in str(result.exception)


def test_bbox_and_period(tmp_path: Path) -> None:
    with pytest.warns(TemporalWarning, match="no recorded day"):
        result = json.loads(invoke(
            "embed", "--bbox", "-75.62,37.69,-75.61,37.698", "--backend", "sample", "--image-size",
            "256", "--start", "2016-01-01", "--end", "2016-02-01", *RANDOM, "--json",
            "--output", "grid", "--min-valid", "0.9",
        ))  # fmt: skip
    assert result["values"] is None
    assert result["meta"]["temporal"] is None
    assert "2016-01-01 to 2016-02-01 was not applied" in result["meta"]["warnings"][0]


def test_models_and_describe() -> None:
    assert "scalemae (also scalemae_rgb)" in invoke("models")
    assert json.loads(invoke("models", "--json"))[0]["id"] == "scalemae"
    assert json.loads(invoke("describe", "--json"))["patch_size"] == 16
    assert "RS_EMBED_SCALEMAE_ID" in invoke("describe", "scalemae")


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path) -> None:
    report = {f["what"]: f for f in json.loads(invoke("doctor", "--json"))}
    assert report["backend sample"]["state"] == "ok"
    assert report["weights MVRL/scalemae-vitlarge-800"]["state"] == "missing"
    assert "random-init" in report["weights MVRL/scalemae-vitlarge-800"]["mend"]
    monkeypatch.setenv("RS_EMBED_SCALEMAE_ID", str(checkpoint))
    assert f"ok       weights {checkpoint}: {checkpoint / 'model.safetensors'}" in invoke("doctor")
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "-3")
    broken = CliRunner().invoke(app, ["doctor"])
    assert broken.exit_code == 1
    assert "broken   environment: got RS_EMBED_SCALEMAE_IMG='-3'" in broken.output


@pytest.mark.parametrize("command", ["", "embed", "models", "describe", "doctor", "demo"])
def test_help_teaches_by_example(command: str) -> None:
    output = invoke(*[c for c in [command] if c], "--help")
    assert "Usage" in output
    if command:
        assert f"rs-embed {command}" in output


def test_version() -> None:
    from rs_embed import __version__

    assert invoke("--version").strip() == f"rs-embed {__version__}"
