"""Weights from the Hugging Face hub: its real client, over real HTTP, cache first.

The client reads ``HF_ENDPOINT`` when it is imported, so that each test is a process of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import python_environment, small_network
from tests.faulty_answers import answering, silent
from tests.hub_server import COMMIT, Hub, serve

CONFIG = {"feat_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0, "img_size": 32}
EMBED = """
import json, sys, warnings
import numpy as np
from rs_embed import FetchSpec, RsEmbedError, get_embedding
warnings.simplefilter("ignore")
try:
    e = get_embedding("scalemae", input_chw=np.full((3, 40, 40), 900), fetch=FetchSpec(scale_m=10),
                      weights=sys.argv[1] or None)
except RsEmbedError as exc:
    print(json.dumps({"error": type(exc).__name__, "message": str(exc)}))
else:
    print(json.dumps({"first": float(e.data[0]), "meta": e.meta}))
"""


def wrapper_bin() -> bytes:
    buffer = io.BytesIO()
    torch.save({f"model.{k}": v for k, v in small_network().state_dict().items()}, buffer)
    return buffer.getvalue()


def embed(home: Path, weights: str, **variables: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", EMBED, weights], capture_output=True, text=True, check=False,
        env=python_environment(HF_HOME=str(home), HF_HUB_DISABLE_XET="1", **variables), timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_first_from_the_hub_then_from_the_cache_without_a_request(tmp_path: Path) -> None:
    weights = wrapper_bin()
    hub = Hub(
        "me/small-scalemae",
        {"pytorch_model.bin": weights, "config.json": json.dumps(CONFIG).encode()},
    )
    with serve(hub):
        first = embed(tmp_path, "me/small-scalemae", HF_ENDPOINT=hub.url)
        asked = len(hub.requests)
        second = embed(tmp_path, "me/small-scalemae", HF_ENDPOINT=hub.url)
        assert len(hub.requests) == asked
    assert any(r.startswith("GET") and r.endswith("pytorch_model.bin") for r in hub.requests)
    offline = embed(tmp_path, "me/small-scalemae", HF_ENDPOINT=hub.url)
    for result in (first, second, offline):
        meta = result["meta"]
        assert meta["weights"] == "me/small-scalemae"
        assert meta["weights_revision"] == COMMIT
        assert meta["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        assert meta["network"]["embed_dim"] == 48
        assert meta["image_size"] == 32  # img_size of config.json
        assert result["first"] == first["first"]


def test_the_environment_names_the_weights_and_a_config_may_be_absent(tmp_path: Path) -> None:
    # Without config.json the sizes are those of ViT-L/16, which these weights are not.
    hub = Hub("me/no-config", {"pytorch_model.bin": wrapper_bin()})
    with serve(hub):
        result = embed(tmp_path, "", HF_ENDPOINT=hub.url, RS_EMBED_SCALEMAE_ID="me/no-config@v1")
    assert result["error"] == "CheckpointError"
    assert (
        "patch_embed.proj.weight (48, 3, 16, 16), expected (1024, 3, 16, 16)" in result["message"]
    )
    assert any("/resolve/v1/" in request for request in hub.requests)


@pytest.mark.parametrize(
    ("fault", "weights", "match"),
    [
        ("", "me/misspelt", "check the id; if it is private"),
        ("", "me/small@v9", "check the revision after the @"),
        ("gated", "me/small", "accept its terms"),
        ("damaged", "me/small", "is damaged: SHA-256"),
    ],
)
def test_errors_of_the_hub(fault: str, weights: str, match: str, tmp_path: Path) -> None:
    files = {"pytorch_model.bin": wrapper_bin(), "config.json": json.dumps(CONFIG).encode()}
    hub = Hub("me/small", files, fault=fault)
    with serve(hub):
        result = embed(tmp_path, weights, HF_ENDPOINT=hub.url)
    assert result["error"] == "CheckpointError"
    assert match in result["message"]


def test_a_repository_without_weights(tmp_path: Path) -> None:
    hub = Hub("me/empty", {"config.json": b"{}"})
    with serve(hub):
        result = embed(tmp_path, "me/empty", HF_ENDPOINT=hub.url)
    assert "'me/empty' has none of model.safetensors, pytorch_model.bin" in result["message"]


def test_neither_weights_nor_network(tmp_path: Path) -> None:
    result = embed(tmp_path, "", HF_HUB_OFFLINE="1")
    assert result["error"] == "CheckpointError"
    assert "'MVRL/scalemae-vitlarge-800'" in result["message"]
    assert "weights='scalemae-tiny'" in result["message"]


def test_a_hub_that_never_answers(tmp_path: Path) -> None:
    """Its client alone would wait for minutes, longer than the child may."""
    with answering(silent) as (url, came):
        result = embed(tmp_path, "me/small", HF_ENDPOINT=url)
    assert came.is_set()
    assert result["error"] == "CheckpointError"
    assert "cannot get the weights 'me/small' from the hub" in result["message"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("np.full((3, 40, 40), 900)", "np.full((3, 40, 40), 0.3)", "ImageryError"),
        ("scale_m=10", "scale_m=1e300", "SpecError"),
    ],
)
def test_bad_requests_are_refused_before_any_request_to_the_hub(
    tmp_path: Path, old: str, new: str, error: str
) -> None:
    hub = Hub("me/small", {})
    code = EMBED.replace(old, new)
    with serve(hub):
        done = subprocess.run(
            [sys.executable, "-c", code, "me/small"], capture_output=True, text=True, check=True,
            env=python_environment(HF_HOME=str(tmp_path), HF_ENDPOINT=hub.url), timeout=120,
        )  # fmt: skip
    assert json.loads(done.stdout)["error"] == error
    assert hub.requests == []
