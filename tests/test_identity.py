"""Fingerprints differ where the numbers may differ, and only there: one difference at a time."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import rs_embed
from rs_embed import FetchSpec, OutputSpec, describe_model, get_embedding
from rs_embed.embedding.identity import FIELDS, identity
from rs_embed.embedding.source import Source
from rs_embed.embedding.task import settle
from rs_embed.settings import Settings
from tests.conftest import python_environment, small_network
from tests.coordinate_model import coordinate_scene
from tests.processes import WAIT_S
from tests.stating_model import STATING


@pytest.fixture
def fingerprint(install: Callable[..., Path]) -> Callable[..., str]:
    """Return a function that returns the fingerprint of one scene, by default ``stating``'s."""
    install("stating", STATING)

    def run(model: str = "stating", stated: Mapping[str, Any] | None = None, **given: Any) -> str:
        given = {"fetch": FetchSpec(scale_m=10), "input_prep": "tile", **given}
        if stated is not None:
            given["stated"] = json.dumps(stated)
        embedding = get_embedding(model, input_chw=coordinate_scene(64, 64), **given)
        return str(embedding.meta["fingerprint"])

    return run


# --- what a model states of itself ---------------------------------------------------------

DETERMINES = (
    "loader", "network", "precision", "runtime", "tokens_kind", "weights_seed", "weights_sha256",
)  # fmt: skip
# Names of what is identified by its hash or in tokens_kind, and the device.
DOES_NOT = (
    "device", "tokens", "weights", "weights_file", "weights_revision", "display_source",
    "gsd_source", "image_size_source",
)  # fmt: skip


@pytest.mark.parametrize("key", [*DETERMINES, *DOES_NOT])
def test_a_difference_in_one_value_of_the_provenance(
    fingerprint: Callable[..., str], key: str
) -> None:
    common = {other: f"some {other}" for other in (*DETERMINES, *DOES_NOT)}
    base = fingerprint(stated=common)
    assert fingerprint(stated=common) == base
    assert (fingerprint(stated=common | {key: "another"}) != base) is (key in DETERMINES)


def test_everything_that_scalemae_states_of_itself_is_among_them(
    install: Callable[..., Path],
) -> None:
    install("stating", STATING)
    given: dict[str, Any] = {
        "input_chw": coordinate_scene(64, 64), "fetch": FetchSpec(scale_m=10),
        "input_prep": "tile",
    }  # fmt: skip
    silent = get_embedding("stating", **given).meta
    scalemae = get_embedding(
        "scalemae", weights="random-init", variant="tiny", image_size=64, **given
    ).meta
    assert scalemae.keys() - silent.keys() | {"tokens_kind"} == {*DETERMINES, *DOES_NOT}


# --- the request ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "twin"},
        {"fetch": FetchSpec(scale_m=20)},
        {"output": OutputSpec.pooled("max")},
        {"output": OutputSpec.pooled("cls")},
        {"output": OutputSpec.grid()},
    ],
    ids=["model", "input_res", "max", "cls", "grid"],
)
def test_a_difference_in_the_request(
    fingerprint: Callable[..., str], changed: dict[str, Any]
) -> None:
    assert fingerprint(**changed) != fingerprint()


def test_another_version_of_rs_embed(fingerprint: Callable[..., str], tmp_path: Path) -> None:
    code = """if True:
        from rs_embed import FetchSpec, __version__, get_embedding
        from tests.coordinate_model import coordinate_scene
        embedding = get_embedding(
            "stating", input_chw=coordinate_scene(64, 64), fetch=FetchSpec(scale_m=10),
            input_prep="tile",
        )
        print(__version__, embedding.meta["fingerprint"])
    """
    assert rs_embed.__file__ is not None
    installed = Path(rs_embed.__file__).parent
    shutil.copytree(installed, tmp_path / "rs_embed", ignore=shutil.ignore_patterns("data"))
    environment = python_environment()
    found = {}
    for version in (rs_embed.__version__, "999.0"):
        (tmp_path / "rs_embed" / "_version.py").write_text(f'__version__ = "{version}"\n')
        done = subprocess.run(
            [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True,
            env=environment | {"PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}"},
            timeout=WAIT_S,
        )  # fmt: skip
        used, found[version] = done.stdout.split()
        assert used == version
    assert found[rs_embed.__version__] == fingerprint()
    assert found["999.0"] != fingerprint()


# --- the options of ScaleMAE ---------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "weights": {"weights": "other"},
    "variant": {"weights": "random-init", "variant": "tiny"},
    "tokens": {"tokens": "pre_norm"},
    "gsd": {"gsd": "relative"},
    "display": {"display": "visual"},
    "image_size": {"image_size": 32},
}
# Their other values need CUDA or another package; what they state of themselves is tested above.
STATED_ONLY = {"loader", "precision", "runtime"}


@pytest.mark.parametrize("option", [one["name"] for one in describe_model("scalemae")["options"]])
def test_a_difference_in_one_option(
    fingerprint: Callable[..., str], checkpoint: Path, tmp_path: Path, option: str
) -> None:
    if option in STATED_ONLY:
        assert option in DETERMINES
        return
    shutil.copy(checkpoint / "config.json", tmp_path)
    save_file(small_network(seed=8).state_dict(), tmp_path / "model.safetensors")
    common = {"weights": str(checkpoint), "image_size": 64}
    changed = common | OPTIONS[option]
    if option == "weights":
        changed["weights"] = str(tmp_path)
    base = fingerprint("scalemae", **common)
    assert fingerprint("scalemae", **common) == base
    assert fingerprint("scalemae", **changed) != base


@pytest.mark.parametrize(
    "function",
    [
        rs_embed.get_embedding, rs_embed.get_embeddings_batch, rs_embed.iter_embeddings,
        rs_embed.inspect_input, rs_embed.estimate, rs_embed.export_batch, rs_embed.embed_area,
    ],
    ids=lambda function: function.__name__,
)  # fmt: skip
def test_every_argument_has_a_row_in_the_table(function: Callable[..., object]) -> None:
    parameters = inspect.signature(function).parameters.values()
    names = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
    assert names <= FIELDS.keys() | {"output"}


def test_an_unclassified_field_is_an_error() -> None:
    task = settle(
        "scalemae", output=None, input_prep="resize", min_valid=0.25, device="cpu",
        options={"weights": "random-init"}, settings=Settings.from_environ(),
    )  # fmt: skip
    source = Source(input_chw=np.full((3, 32, 32), 900))
    assert "season" not in identity(task, source)
    with pytest.raises(KeyError, match="season"):
        identity(task, source, season="summer")
