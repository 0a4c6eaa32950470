"""Weights from the Hugging Face hub: its real client, over real HTTP, cache first.

The client reads ``HF_ENDPOINT`` when it is imported, so that each test is a process of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rs_embed.errors import CheckpointError
from rs_embed.models.weights import obtain_weights
from tests.conftest import python_environment, small_network
from tests.faulty_answers import answering, silent
from tests.hub_client import embedded
from tests.hub_server import COMMIT, Hub, serve
from tests.processes import called

CONFIG = {"feat_dim": 48, "depth": 2, "num_heads": 3, "mlp_ratio": 2.0, "img_size": 32,
          "display": "visual"}  # fmt: skip


def wrapper_bin() -> bytes:
    buffer = io.BytesIO()
    torch.save({f"model.{k}": v for k, v in small_network().state_dict().items()}, buffer)
    return buffer.getvalue()


@pytest.fixture
def embed(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that embeds in a new process with the given variables."""

    def run(weights: str, *, pixel: float = 900, scale_m: float = 10, **variables: str) -> Any:
        given = python_environment(HF_HOME=str(tmp_path), HF_HUB_DISABLE_XET="1", **variables)
        return called(embedded, weights, pixel, scale_m, env=given)

    return run


def test_first_from_the_hub_then_from_the_cache_without_a_request(
    embed: Callable[..., dict[str, Any]],
) -> None:
    weights = wrapper_bin()
    hub = Hub(
        "me/small-scalemae",
        {"pytorch_model.bin": weights, "config.json": json.dumps(CONFIG).encode()},
    )
    with serve(hub):
        first = embed("me/small-scalemae", HF_ENDPOINT=hub.url)
        asked = len(hub.requests)
        second = embed("me/small-scalemae", HF_ENDPOINT=hub.url)
        assert len(hub.requests) == asked
    assert any(r.startswith("GET") and r.endswith("pytorch_model.bin") for r in hub.requests)
    offline = embed("me/small-scalemae", HF_ENDPOINT=hub.url)
    for result in (first, second, offline):
        meta = result["meta"]
        assert meta["weights"] == "me/small-scalemae"
        assert meta["weights_revision"] == COMMIT
        assert meta["weights_sha256"] == hashlib.sha256(weights).hexdigest()
        assert meta["network"]["embed_dim"] == 48
        assert meta["image_size"] == 32  # img_size of config.json
        assert (meta["display"], meta["display_source"]) == ("visual", "weights")
        assert result["first"] == first["first"]


def test_the_environment_names_the_weights_and_a_config_may_be_absent(
    embed: Callable[..., dict[str, Any]],
) -> None:
    # Without config.json the sizes are those of ViT-L/16, which these weights are not.
    hub = Hub("me/no-config", {"pytorch_model.bin": wrapper_bin()})
    with serve(hub):
        result = embed("", HF_ENDPOINT=hub.url, RS_EMBED_SCALEMAE_ID="me/no-config@v1")
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
def test_errors_of_the_hub(
    embed: Callable[..., dict[str, Any]], fault: str, weights: str, match: str
) -> None:
    files = {"pytorch_model.bin": wrapper_bin(), "config.json": json.dumps(CONFIG).encode()}
    hub = Hub("me/small", files, fault=fault)
    with serve(hub):
        result = embed(weights, HF_ENDPOINT=hub.url)
    assert result["error"] == "CheckpointError"
    assert match in result["message"]


def test_a_repository_without_weights(embed: Callable[..., dict[str, Any]]) -> None:
    hub = Hub("me/empty", {"config.json": b"{}"})
    with serve(hub):
        result = embed("me/empty", HF_ENDPOINT=hub.url)
    assert "'me/empty' has none of model.safetensors, pytorch_model.bin" in result["message"]


def test_neither_weights_nor_network(embed: Callable[..., dict[str, Any]]) -> None:
    result = embed("", HF_HUB_OFFLINE="1")
    assert result["error"] == "CheckpointError"
    assert "'MVRL/scalemae-vitlarge-800'" in result["message"]
    assert "weights='scalemae-tiny'" in result["message"]


def test_a_hub_that_never_answers(embed: Callable[..., dict[str, Any]]) -> None:
    """Its client alone would wait for minutes, longer than the child may."""
    with answering(silent) as (url, came):
        result = embed("me/small", HF_ENDPOINT=url)
    assert came.is_set()
    assert result["error"] == "CheckpointError"
    assert "cannot get the weights 'me/small' from the hub" in result["message"]


def test_a_hub_that_stops_answering(embed: Callable[..., dict[str, Any]]) -> None:
    """Its client tries each file six times, and would say so each time."""
    hub = Hub("me/small", {"config.json": b"{}", "pytorch_model.bin": b"0"}, fault="silent")
    with serve(hub):
        result = embed("me/small", HF_ENDPOINT=hub.url, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert "cannot get the weights 'me/small' from the hub (timed out)" in result["message"]
    assert result["said"] == ""


@pytest.mark.parametrize("weights", ["./me", "./me.bin", "me/small.pth", "~/me", "me/", "small"])
def test_a_path_that_does_not_exist_is_not_taken_for_a_repository(weights: str) -> None:
    with pytest.raises(CheckpointError, match=f"got weights='{weights}', but there is no such"):
        obtain_weights(weights)


@pytest.mark.parametrize(
    ("wrong", "error"), [({"pixel": 0.3}, "ImageryError"), ({"scale_m": 1e300}, "SpecError")]
)
def test_bad_requests_are_refused_before_any_request_to_the_hub(
    embed: Callable[..., dict[str, Any]], wrong: dict[str, float], error: str
) -> None:
    hub = Hub("me/small", {})
    with serve(hub):
        assert embed("me/small", HF_ENDPOINT=hub.url, **wrong)["error"] == error
    assert hub.requests == []
