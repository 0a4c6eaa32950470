"""A model that is loaded once: its methods are the functions, and its options are stated once.

A row of a table is a situation: its name, the call, and what the right answer or the refusal is.
"""

from __future__ import annotations

import inspect
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rs_embed
from rs_embed import (
    BBox,
    LoadedModel,
    ModelError,
    OutputSpec,
    PointBuffer,
    RsEmbedError,
    SpecError,
    UnknownNameError,
    embed_area,
    embed_table,
    estimate,
    export_batch,
    get_embedding,
    get_embeddings_batch,
    inspect_input,
    load_model,
    plan_area,
)

OPTIONS: dict[str, Any] = {"weights": "scalemae-tiny", "image_size": 64, "device": "cpu"}
SAMPLE: dict[str, Any] = {"backend": "sample"}
POINT: dict[str, Any] = {"spatial": (-75.6156, 37.6942), "buffer_m": 320, **SAMPLE}
PLACES = [PointBuffer(-75.62 + 0.005 * n, 37.694, 320) for n in range(2)]
BOX = BBox(-75.6200, 37.6900, -75.6100, 37.6960)
Call = Callable[..., Any]

pytestmark = pytest.mark.filterwarnings("ignore::rs_embed.errors.RsEmbedWarning")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("scalemae", **OPTIONS)


def of_embedding(made: Any, _: Path) -> Any:
    return np.asarray(made).tobytes(), made.meta


def of_file(_: Any, folder: Path) -> Any:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


METHODS: dict[str, tuple[Call, str, tuple[Any, ...], dict[str, Any], Call]] = {
    "a vector": (get_embedding, "embed", (), POINT, of_embedding),
    "a grid": (get_embedding, "embed", (), {**POINT, "output": "grid"}, of_embedding),
    "tiles": (get_embedding, "embed", (), {**POINT, "input_prep": "tile"}, of_embedding),
    "own array": (
        get_embedding, "embed", (),
        {"input_chw": np.arange(3 * 64 * 64).reshape(3, 64, 64) % 2500, "scale_m": 3},
        of_embedding,
    ),
    "many": (
        get_embeddings_batch, "embed_many", (), {"spatials": PLACES, **SAMPLE},
        lambda made, at: [of_embedding(each, at) for each in made],
    ),
    "a table": (
        embed_table, "embed_table", (PLACES,), SAMPLE,
        lambda made, _: (made.embeddings.tobytes(), made.frame.to_csv(), made.meta),
    ),
    "a file of vectors": (
        export_batch, "export_batch", (PLACES,), {"output": "{}/v.parquet", **SAMPLE}, of_file,
    ),
    "a map": (
        embed_area, "embed_area", (), {"spatial": BOX, "output": "{}/m.tif", **SAMPLE}, of_file,
    ),
    "an inspection": (
        inspect_input, "inspect", (), POINT,
        lambda made, _: (made.to_json(), made.tensor().tolist()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_the_function_to_the_last_bit(
    model: LoadedModel, tmp_path: Path, name: str
) -> None:
    function, method, positional, named, result_of = METHODS[name]
    results = []
    for who in ("function", "method"):
        folder = tmp_path / who
        folder.mkdir()
        given = {k: v.format(folder) if k == "output" else v for k, v in named.items()}
        if who == "method":
            made = getattr(model, method)(*positional, **given)
        else:
            options = {
                k: v for k, v in OPTIONS.items() if (function, k) != (inspect_input, "device")
            }
            made = function("scalemae", *positional, **given, **options)
        results.append(result_of(made, folder))
    assert results[0] == results[1]


def test_other_functions_take_it_in_place_of_a_name(model: LoadedModel) -> None:
    for function, given in ((plan_area, {"spatial": BOX}), (estimate, {"spatials": PLACES})):
        of_name = function("scalemae", **given, **SAMPLE, **OPTIONS).to_json()
        of_model = function(model, **given, **SAMPLE).to_json()
        assert {**of_model, "seconds": 0} == {**of_name, "seconds": 0}


def test_weights_are_read_once_and_kept(tmp_path: Path) -> None:
    """Neither new sizes beside the weights nor their end change what the model does."""
    shipped = Path(rs_embed.__file__).parent / "data" / "scalemae-tiny"
    folder = shutil.copytree(shipped, tmp_path / "weights")
    model = load_model("scalemae", weights=folder, device="cpu")
    before = model.embed(**POINT)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_size": 64, "gsd": 5}))
    (folder / "model.safetensors").unlink()
    after = model.embed(**POINT)
    assert np.array_equal(before, after)
    assert before.meta == after.meta
    with pytest.raises(rs_embed.CheckpointError):
        get_embedding("scalemae", weights=folder, device="cpu", **POINT)


def test_another_process_loads_it_by_itself(model: LoadedModel) -> None:
    content = pickle.dumps(model)
    assert len(content) < 20_000  # no weights
    again = pickle.loads(content)  # noqa: S301
    assert np.array_equal(again.embed(**POINT), model.embed(**POINT))


def test_what_it_says_of_itself(model: LoadedModel) -> None:
    call = "load_model('scalemae', weights='scalemae-tiny', image_size=64, device='cpu')"
    assert repr(model) == call
    assert repr(eval(call, {"load_model": load_model})) == call  # noqa: S307
    described = model.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["id"] == "scalemae"
    loaded = described["loaded"]
    assert (loaded["image_size"], loaded["image_size_source"], loaded["display_source"]) == (
        64, "stated", "weights",
    )  # fmt: skip
    assert loaded["device"] == "cpu"
    page = model._repr_html_()
    assert "scalemae-tiny" in page
    assert loaded["weights_sha256"] in page
    assert inspect.getdoc(model.embed)  # `model.embed?` in a notebook


REFUSED: dict[str, tuple[Callable[[LoadedModel], Any], type[RsEmbedError], str]] = {
    "another size": (
        lambda m: m.embed(**POINT, image_size=128), SpecError,
        "got image_size=128 for load_model.*stated once.*load another model: load_model"
        r"\('scalemae', weights='scalemae-tiny', image_size=128, device='cpu'\)",
    ),
    "the same weights": (
        lambda m: m.embed_many(spatials=PLACES, **SAMPLE, weights="scalemae-tiny"), SpecError,
        "got weights='scalemae-tiny'.*leave it out",
    ),
    "a device": (lambda m: m.embed(**POINT, device="cpu"), SpecError, "got device='cpu'"),
    "an option of a map": (
        lambda m: m.embed_area(output="m.tif", spatial=BOX, gsd=3), SpecError, "got gsd=3",
    ),
    "an option of a table": (
        lambda m: m.embed_table(PLACES, variant="tiny", **SAMPLE), SpecError, "got variant='tiny'",
    ),
    "an unknown argument": (
        lambda m: m.embed(bbox=BOX, **SAMPLE), UnknownNameError, "'bbox'.*did you mean 'spatial'",
    ),
    "an option that is misspelt": (
        lambda _: load_model("scalemae", varient="tiny"), UnknownNameError,
        "'varient'.*did you mean 'variant'",
    ),
    "an argument of the calls": (
        lambda _: load_model("scalemae", variant="tiny", output=OutputSpec.grid()), SpecError,
        r"got output=.*state it in each call: model.embed\(output=...\)",
    ),
    "a card that is not there": (
        lambda _: load_model("scalemae", variant="tiny", device=torch.device("cuda:99")),
        ModelError, "got device='cuda:99'",
    ),
    "a model in place of a name": (
        lambda m: load_model(m), SpecError,  # type: ignore[arg-type]
        "is loaded already",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(model: LoadedModel, name: str) -> None:
    call, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        call(model)


SHOWN: dict[str, tuple[Callable[[LoadedModel, Path], Any], tuple[str, ...]]] = {
    "a table": (
        lambda m, _: m.embed_table([*PLACES, PointBuffer(0, 0, 320)], **SAMPLE),
        ("3 places, 192 dimensions, 1 failed", "<td>POINT (-75.62 37.694)</td>"),
    ),
    "a report": (
        lambda m, at: m.export_batch(PLACES, output=at / "v.npz", **SAMPLE), ("2 of 2 places",),
    ),
    "a map": (
        lambda m, at: m.embed_area(spatial=BOX, output=at / "m.tif", **SAMPLE), ("m.tif", "tokens"),
    ),
    "a plan": (lambda m, _: plan_area(m, spatial=BOX, **SAMPLE), ("cells of",)),
    "an estimate": (
        lambda m, _: estimate(m, spatials=PLACES, **SAMPLE), (">2<", "download_bytes"),
    ),
    "an inspection": (lambda m, _: m.inspect(**POINT), ("data:image/png", "scalemae")),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_notebooks_show_results_briefly(model: LoadedModel, tmp_path: Path, name: str) -> None:
    make, known = SHOWN[name]
    made = make(model, tmp_path)
    page = made._repr_html_()
    assert all(part in page for part in known), page[-3000:]
    assert "<script" not in page
    assert len(str(made).splitlines()) <= 12
