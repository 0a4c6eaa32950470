"""The native network with blocks that ONNX Runtime computes: PyTorch's numbers, or a refusal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from rs_embed import FetchSpec, get_embedding
from rs_embed.errors import MissingDependencyError, ModelError, SpecError, UnknownNameError
from rs_embed.models.base import Plan
from rs_embed.models.scalemae.config import NetworkConfig
from rs_embed.models.scalemae.encoder import NativeEncoder
from rs_embed.models.scalemae.model import MODEL
from rs_embed.settings import Settings
from tests.conftest import SMALL, needs, python_environment, small_network

pytestmark = needs("onnx", "onnxruntime", reason="the extra onnx is not installed")
SAME = 1e-5


def planned(weights: Path | str, device: str = "cpu", **options: Any) -> Plan:
    settings = Settings.from_environ({})
    return MODEL.plan({"weights": str(weights), **options}, device=device, settings=settings)


@pytest.mark.parametrize(
    ("config", "shape", "input_res", "tokens"),
    [
        pytest.param(SMALL, (1, 4, 4), [10.0], "normed", id="one image"),
        pytest.param(SMALL, (8, 4, 4), np.geomspace(0.3, 300, 8), "normed", id="eight GSDs"),
        pytest.param(SMALL, (2, 3, 5), [2.2, 5], "normed", id="a grid that is not square"),
        pytest.param(SMALL, (3, 1, 1), [1, 10, 30], "normed", id="one patch"),
        pytest.param(SMALL, (2, 3, 5), [2.2, 5], "pre_norm", id="before the norm"),
        pytest.param(replace(SMALL, cls_token=False), (2, 5, 3), [1, 9], "normed", id="no class"),
        pytest.param(replace(SMALL, cls_token=False), (1, 2, 2), [9], "pre_norm", id="neither"),
        pytest.param(replace(SMALL, embed_dim=8, num_heads=1), (2, 2, 3), [1, 9], "normed",
                     id="narrow, one head"),
        pytest.param(replace(SMALL, depth=12, patch_size=8), (1, 14, 14), [10], "normed",
                     id="deep"),
    ],
)  # fmt: skip
def test_tokens_are_those_of_pytorch(
    config: NetworkConfig,
    shape: tuple[int, int, int],
    input_res: Sequence[float],
    tokens: str,
    tmp_path: Path,
) -> None:
    save_file(small_network(config).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config.to_json()))
    batch, rows, columns = shape
    size = (batch, 3, rows * config.patch_size, columns * config.patch_size)
    pixels = np.random.default_rng(5).normal(size=size).astype(np.float32)
    expected, found = (
        planned(tmp_path, tokens=tokens, runtime=runtime).load().encode(pixels, list(input_res))
        for runtime in ("torch", "onnx")
    )
    assert found.kind == expected.kind
    assert found.patches is not None
    assert expected.patches is not None
    assert found.patches.shape == (*shape, config.embed_dim)
    assert np.abs(found.patches - expected.patches).max() < SAME
    assert (found.cls is None) == (expected.cls is None) == (not config.cls_token)
    if found.cls is not None and expected.cls is not None:
        assert np.abs(found.cls - expected.cls).max() < SAME


def test_an_embedding_records_the_runtime(checkpoint: Path, pixels: NDArray[np.uint16]) -> None:
    given: dict[str, Any] = {
        "input_chw": pixels, "fetch": FetchSpec(scale_m=10), "weights": str(checkpoint),
        "image_size": 64, "input_prep": "tile",
    }  # fmt: skip
    made = {name: get_embedding("scalemae", **given, runtime=name) for name in ("torch", "onnx")}
    assert np.abs(made["onnx"].data - made["torch"].data).max() < SAME
    assert [embedding.meta["runtime"] for embedding in made.values()] == ["torch", "onnx"]
    assert made["onnx"].meta["fingerprint"] != made["torch"].meta["fingerprint"]
    default = get_embedding("scalemae", **given)
    assert default.meta["fingerprint"] == made["torch"].meta["fingerprint"]


@pytest.mark.parametrize(
    ("options", "error", "match", "fixed"),
    [
        ({"loader": "rshf"}, SpecError, "loader='rshf'.*expected loader='native'",
         {"loader": "native"}),
        ({"precision": "bfloat16"}, SpecError, "precision='bfloat16'.*='float32'",
         {"precision": "float32"}),
        ({"device": "cuda"}, SpecError, "device='cuda'.*expected device='cpu'", {"device": "cpu"}),
        ({"device": "mps"}, SpecError, "device='mps'.*expected device='cpu'", {"device": "cpu"}),
        ({"runtime": "onxx"}, UnknownNameError, "did you mean 'onnx'", {"runtime": "onnx"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_onnx_runtime_does_not_compute_is_refused(
    checkpoint: Path,
    pixels: NDArray[np.uint16],
    options: dict[str, str],
    error: type[Exception],
    match: str,
    fixed: dict[str, str],
) -> None:
    given: dict[str, Any] = {
        "input_chw": pixels, "fetch": FetchSpec(scale_m=10), "weights": str(checkpoint),
        "image_size": 64, "input_prep": "tile", "runtime": "onnx",
    }  # fmt: skip
    with pytest.raises(error, match=match):
        get_embedding("scalemae", **(given | options))
    assert get_embedding("scalemae", **(given | fixed)).meta["runtime"] == "onnx"


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_the_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"'{package}'.*pip install '\.\[onnx\]'"):
        planned(checkpoint, runtime="onnx")
    assert planned(checkpoint, runtime="torch").patch_size == 16


def test_errors_of_onnx_runtime_are_errors_of_the_model(checkpoint: Path) -> None:
    encoder = planned(checkpoint, runtime="onnx").load()
    assert isinstance(encoder, NativeEncoder)
    (blocks,) = encoder.network.blocks
    with pytest.raises(ModelError, match=r"cannot compute tokens of shape \(2, 3, 7\).*Got: 7"):
        blocks(torch.zeros(2, 3, 7))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_as_many_threads_as_pytorch_also_after_a_fork(checkpoint: Path) -> None:
    code = f"""if True:
        import os, signal, torch
        from rs_embed.models.scalemae.model import MODEL
        from rs_embed.settings import Settings
        torch.set_num_threads(6)
        plan = MODEL.plan(
            {{"weights": {str(checkpoint)!r}, "runtime": "onnx"}}, device="cpu",
            settings=Settings.from_environ(),
        )
        (blocks,) = plan.load().network.blocks
        x = torch.ones(8, 257, 48)
        before = blocks(x)
        assert blocks.session().get_session_options().intra_op_num_threads == 6
        torch.set_num_threads(1)  # as for passes side by side
        assert blocks.session().get_session_options().intra_op_num_threads == 1
        torch.set_num_threads(6)
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(int((blocks(x).numpy() != before.numpy()).any()))
        assert os.waitpid(child, 0)[1] == 0
    """
    environment = python_environment()
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
