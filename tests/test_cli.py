"""The command line as a person runs it: real processes, real files, exit codes."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import rs_embed
from rs_embed import Embedding, PointBuffer, get_embedding
from rs_embed.cli import app
from rs_embed.cli.evaluate import _TABLES
from rs_embed.errors import RsEmbedError, SpecError, TemporalWarning, UnknownNameError
from rs_embed.evaluation.tables import SUFFIXES
from tests.conftest import python_environment
from tests.processes import completed

SAMPLE = [
    "embed", "--lon", "-75.6156", "--lat", "37.6942", "--buffer-m", "1280", "--backend", "sample",
    "--image-size", "256",
]  # fmt: skip
RANDOM = ["--weights", "random-init", "--variant", "tiny"]


def run(*args: str, fresh: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    code = "from rs_embed.cli import main; main()"
    env = python_environment(HF_HUB_OFFLINE="1", **variables)
    return completed("-c", code, *args, env=env, fresh=fresh)


def invoke(*args: str) -> str:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == 0, result.output
    return result.output


def test_demo_says_what_it_did_and_writes_what_it_names(tmp_path: Path) -> None:
    out = tmp_path / "results"
    done = run("demo", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "weights  scalemae-tiny" in done.stdout
    assert "192 x 48 x 48 float32 in" in done.stdout
    assert "10 m read, 10 m in the input; coverage 100%, valid 100%" in done.stdout
    assert "Virginia Eastern Shore, USA, CC0" in done.stdout
    written = sorted(p.name for p in out.iterdir())
    assert written == ["quicklook.png", "tokens.tif", "vector.npz"]
    for name in written:
        assert str(out / name) in done.stdout
    grid, vector = (Embedding.load(out / name) for name in ("tokens.tif", "vector.npz"))
    assert grid.meta["weights"] == vector.meta["weights"] == "scalemae-tiny"
    assert grid.data.rio.crs.to_epsg() == 32618
    middle = PointBuffer(-75.61558, 37.69415, buffer_m=1280)
    alone = get_embedding("scalemae", spatial=middle, backend="sample", variant="tiny")
    assert np.abs(vector.data - alone.data).max() < 1e-5
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


def test_embed_in_tiles() -> None:
    tiled = json.loads(invoke(*SAMPLE, *RANDOM, "--input-prep", "tile", "--tile-size", "128",
                              "--overlap-px", "32", "--json"))["meta"]  # fmt: skip
    assert tiled["input_prep"] == "tile"
    assert tiled["tiles"] == {"count": 9, "size": 128, "overlap_px": 32}
    assert tiled["coverage"] == 1


@pytest.mark.filterwarnings("ignore::rs_embed.errors.ImageryWarning")  # it states no clouds
def test_embed_local_imagery() -> None:
    scene = Path(rs_embed.__file__).with_name("data") / "sample_s2.tif"
    place = [*SAMPLE[:-4], "--image-size", "256", *RANDOM]
    local = json.loads(invoke(*place, "--local", str(scene), "--json"))
    assert local["meta"]["backend"] == "local"
    sample = json.loads(invoke(*place, "--backend", "sample", "--json"))
    assert np.allclose(local["values"], sample["values"], atol=1e-5)


def test_inspect_says_what_the_model_would_see(tmp_path: Path) -> None:
    asked = ["inspect", *SAMPLE[1:], "--input-prep", "tile", "--tile-size", "192"]
    output = invoke(*asked, "--png", str(tmp_path / "seen.png"))
    assert "tile: 256 x 256 px, 4 tiles of 192 x 192 px through the model" in output
    assert "10 m read (default), 10 m in the input, 10 as input_res (metres)" in output
    assert "sample: Virginia Eastern Shore, USA" in output
    assert "100.0% of the area" in output
    assert "band B4   min 316, median 657, max 1584" in output
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.format == "PNG"
    stated = json.loads(invoke(*asked, "--json"))
    assert len(stated["tiles"]) == 4
    assert stated["raw"]["B4"]["median"] == 657
    assert stated["meta"]["coverage"] == 1


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


OTHER_MODEL = """
    from dataclasses import replace
    from rs_embed.errors import SpecError
    from rs_embed.models.base import Option
    from rs_embed.models.scalemae.model import ScaleMaeModel

    class Other(ScaleMaeModel):
        description = replace(
            ScaleMaeModel.description,
            id="other",
            aliases=(),
            options=(
                Option("season", "Season of [all] images.", "summer", type="string"),
                Option("n_heads", "Number of heads.", "4", type="integer"),
                Option("image_size", "Side of its input.", "96", type="integer"),
                Option("gsd", "Metres per pixel.", "10", type="number"),
                Option("sharp", "Keep edges sharp.", "no", type="flag"),
                Option("device_map", "Where layers run.", "auto", ("one", "many")),
                Option("output", "The command has its own.", "none", type="string"),
            ),
        )

        def plan(self, options, *, device, settings):
            raise SpecError(f"the plan got {sorted(options.items())}")

    MODEL = Other()
"""


@pytest.fixture
def other_model(install: Callable[..., Path]) -> None:
    """Another package's model with options of its own, and two packages that are broken."""
    points = "other = other:MODEL\ngone = missing:MODEL\nbroken = broken:MODEL\n"
    install("others", f"[rs_embed.models]\n{points}", other=OTHER_MODEL, broken="1 / 0\n")


def shown(*args: str) -> str:
    """The output as one line, without the frames of boxes."""
    result = CliRunner().invoke(app, list(args), env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    return " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


@pytest.mark.usefixtures("other_model")
@pytest.mark.parametrize("command", ["embed", "batch", "map", "inspect", "evaluate"])
def test_help_has_the_options_of_all_models(command: str) -> None:
    page = shown(command, "--help")
    assert "--season <str> Season of [all] images. (model other) [default: (summer)]" in page
    assert "--n-heads <int> Number of heads. (model other) [default: (4)]" in page
    assert "--sharp --no-sharp" in page
    assert "--device-map one|many Where layers run. (model other)" in page
    assert page.count("--image-size") == 1
    assert "above, it is only made square. Side of its input. (model other)" in page
    assert "--gsd metres|relative|NUMBER" in page
    assert "--variant large|base|small|tiny Size of the network" in page
    assert ("The command has its own." in page) == (command not in ("embed",))


@pytest.mark.usefixtures("other_model")
def test_options_reach_the_plan_of_another_model(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.full((3, 64, 64), 900))
    own = ["embed", "--input", str(tmp_path / "p.npy"), "--scale-m", "10"]
    result = CliRunner().invoke(app, [
        *own, "--model", "other", "--season", "7", "--n-heads", "7", "--gsd", "7", "--no-sharp",
    ])  # fmt: skip
    assert isinstance(result.exception, SpecError)
    assert str(result.exception) == (
        "the plan got [('gsd', 7.0), ('n_heads', 7), ('season', '7'), ('sharp', False)]"
    )
    wrong = CliRunner().invoke(app, [*own, "--model", "scalemae", "--season", "winter"])
    assert isinstance(wrong.exception, UnknownNameError)
    assert str(wrong.exception) == (
        "unknown option 'season' of model 'scalemae', expected one of display, gsd, image_size, "
        "loader, precision, runtime, tokens, variant, weights; did you mean 'precision'?"
    )
    assert CliRunner().invoke(app, [*own, "--n-heads", "many"]).exit_code == 2
    assert CliRunner().invoke(app, [*own, "--model", "other", "--seasons", "x"]).exit_code == 2


@pytest.mark.usefixtures("other_model")
def test_a_flag_is_true_or_false() -> None:
    with pytest.raises(SpecError, match="got sharp='yes', expected True or False"):
        rs_embed.get_embedding("other", input_chw=np.full((3, 64, 64), 900), sharp="yes")


@pytest.mark.usefixtures("other_model")
def test_broken_packages_are_listed_and_harm_no_command() -> None:
    listed = invoke("models")
    assert "broken: broken: the model 'broken' is registered as 'broken:MODEL'" in listed
    assert "ZeroDivisionError: division by zero" in listed
    assert "gone: broken: " in listed


def test_stated_defaults_of_the_help_are_those_of_the_functions() -> None:
    parameters = inspect.signature(rs_embed.get_embedding).parameters
    assert f"[default: ({parameters['min_valid'].default})]" in shown("embed", "--help")
    assert _TABLES == SUFFIXES


def test_an_error_is_one_line_and_exit_code_1() -> None:
    done = run(*SAMPLE, *RANDOM, "--gsd", "meters", fresh=True)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: unknown gsd 'meters'")
    traced = run("--debug", *SAMPLE, *RANDOM, "--gsd", "meters")
    assert traced.returncode == 1
    assert "Traceback" in traced.stderr
    assert "UnknownNameError" in traced.stderr


def test_a_warning_is_one_line() -> None:
    done = run("inspect", *SAMPLE[1:-1], "224")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the model sees the central 76.6% of the area")


def test_a_warning_turned_into_an_error_is_one_line_too() -> None:
    done = run("inspect", *SAMPLE[1:-1], "224", PYTHONWARNINGS="error")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: the model sees the central 76.6% of the area"
    )
    assert "Traceback" not in done.stderr


def test_wrong_usage_is_exit_code_2() -> None:
    assert run("embed", "--lon", "east", fresh=True).returncode == 2
    assert run("embd").returncode == 2


def test_without_weights_and_network_the_line_says_how_to_fix_it(tmp_path: Path) -> None:
    done = run(*SAMPLE, HF_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "--weights scalemae-tiny" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "match"),
    [
        (["embed"], "got no spatial"),
        (["embed", "--lon", "1"], "got an incomplete point"),
        (["embed", "--start", "2022-01-01"], "got an incomplete period"),
        (["embed", "--bbox", "1,2,3"], "expected minlon,minlat,maxlon,maxlat"),
        (["embed", "--bbox", "a,b,c,d"], "expected minlon,minlat,maxlon,maxlat"),
        (["embed", "--bbox", "1,2,3,4", "--lon", "1"], "expected one place"),
        (["embed", "--input", "gone.npy"], "cannot read gone.npy: no such file"),
        ([*SAMPLE, "-o", "v.tif"], r"unknown file type of a vector '.tif'"),
        ([*SAMPLE, "-o", "/no/such/folder/v.npz"], "there is no folder"),
        ([*SAMPLE, "--quicklook", "q.png"], "expected --output grid"),
        (["embed", "--output", "gird"], "did you mean 'grid'"),
        ([*SAMPLE, "--tile-size", "64"], "got --tile-size 64 without tiles, expected --input-prep"),
        ([*SAMPLE, "--overlap-px", "16"], "got --overlap-px 16 without tiles"),
        ([*SAMPLE, "--input-prep", "tiel"], "unknown input_prep 'tiel'"),
        ([*SAMPLE, "--local", "x"], "got --local with --backend sample, expected one source"),
        (["embed", "--imagery", "x.tif", "--local", "x"], "got --local with --imagery"),
        (["embed", "--input", "x.npy", "--local", "x"], "got --local with --input"),
        ([*SAMPLE, "--cloud-mask", "scl"], "got cloud_mask='scl', but backend='sample' is one"),
        ([*SAMPLE, "--cloud-mask", "qa60"], "unknown cloud_mask 'qa60'"),
        (["batch", "gone.csv", "-o", "v.npz"], "gone.csv: cannot be read"),
        (
            ["batch", "places.shp", "-o", "v.npz"],
            "places.shp: cannot be read (no such file), expected a file (CSV",
        ),
        (["batch", "gone.csv", "-o", "v.txt"], "unknown file type of many vectors '.txt'"),
        (["batch", "gone.csv", "-o", "/no/such/folder/v.npz"], "there is no folder"),
        (["inspect"], "got no spatial"),
        (["inspect", "--png", "q.jpg"], "unknown file type of a picture '.jpg'"),
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
    monkeypatch.setenv("HOME", str(tmp_path))  # no credentials of whoever runs this
    report = {f["what"]: f for f in json.loads(invoke("doctor", "--json"))}
    assert report["backend sample"]["state"] == "ok"
    # 256 px a side, 3 bands of 4 bytes; the list of images and the pixels.
    cost = report["cost of backend gee"]["found"]
    assert cost.startswith("2 requests and 0.8 MB for a place of 2.56 km; compute time (EECU)")
    assert "cost of backend sample" not in report
    order = "the first of local, gee, stac that is configured"
    assert report["backend auto"]["found"] == f"uses stac, {order}"
    assert report["weights MVRL/scalemae-vitlarge-800"]["state"] == "missing"
    assert "scalemae-tiny" in report["weights MVRL/scalemae-vitlarge-800"]["fix"]
    monkeypatch.setenv("RS_EMBED_SCALEMAE_ID", str(checkpoint))
    assert f"ok       weights {checkpoint}: {checkpoint / 'model.safetensors'}" in invoke("doctor")
    monkeypatch.setenv("RS_EMBED_SCALEMAE_IMG", "-3")
    broken = CliRunner().invoke(app, ["doctor"])
    assert broken.exit_code == 1
    assert "broken   environment: got RS_EMBED_SCALEMAE_IMG='-3'" in broken.output


COMMANDS = [
    "embed",
    "batch",
    "map",
    "search",
    "change",
    "classify",
    "inspect",
    "evaluate",
    "pretrain",
    "models",
    "describe",
    "doctor",
    "cache",
    "demo",
]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches_by_example(command: str) -> None:
    output = invoke(*[c for c in [command] if c], "--help")
    assert "Usage" in output
    if command:
        assert f"rs-embed {command}" in output


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from rs_embed.cli import app\n"
        f"for c in {COMMANDS}: assert CliRunner().invoke(app, [c, '--help']).exit_code == 0\n"
        "print(*{'torch', 'numpy', 'rasterio', 'xarray', 'sqlite3'} & sys.modules.keys())"
    )
    done = completed("-c", code, fresh=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_version() -> None:
    from rs_embed import __version__

    assert invoke("--version").strip() == f"rs-embed {__version__}"
